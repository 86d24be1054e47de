//go:build go1.26

// HTTP2Config.StrictMaxConcurrentRequests is new in Go 1.26.

package dpop

import (
	"crypto"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"
)

// A request over HTTP/2 has its connection, and waits for one of its streams until the
// proof is too old.
func TestTransportWaitsForAStream(t *testing.T) {
	const url = "http://localhost/"
	h2c := new(http.Protocols)
	h2c.SetUnencryptedHTTP2(true)
	for _, tt := range []struct {
		name    string
		busy    time.Duration // how long the only stream is in use
		body    io.Reader
		status  int
		proofs  int // signed
		rejects int // by the server
	}{
		{name: "not for long", busy: 4 * time.Second, status: 200, proofs: 1},
		{name: "for long", busy: 90 * time.Second, status: 200, proofs: 2, rejects: 1},
		{name: "for long, with a body", busy: 90 * time.Second, body: strings.NewReader("body"), status: 200, proofs: 2, rejects: 1},
		{
			name: "for long, with a body that cannot be repeated", busy: 90 * time.Second,
			body: io.MultiReader(strings.NewReader("body")), status: 401, proofs: 1, rejects: 1,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := pipes{make(chan net.Conn), make(chan struct{})}
				var v Verifier
				proofs, rejects := 0, 0
				srv := &http.Server{
					Protocols: h2c, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 1},
					Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if r.Header.Get("DPoP") == "" {
							time.Sleep(map[string]time.Duration{"/busy": tt.busy}[r.URL.Path])
							return
						}
						want := Expected{URL: url, AccessToken: "bound", Thumbprint: thumbprintOf(t, p256Key())}
						if _, err := v.VerifyRequest(r, want); err != nil {
							rejects++
							w.Header().Set("WWW-Authenticate", `DPoP error="invalid_dpop_proof"`)
							w.WriteHeader(http.StatusUnauthorized)
						}
						_, _ = io.Copy(io.Discard, r.Body)
					}),
				}
				go srv.Serve(network)
				signer := stub{p256Key().Public(), func(digest []byte) ([]byte, error) {
					proofs++
					return p256Key().Sign(nil, digest, crypto.SHA256)
				}}
				base := &http.Transport{
					Protocols: h2c, HTTP2: &http.HTTP2Config{StrictMaxConcurrentRequests: true}, DialContext: network.dial,
				}
				get(t, base, url) // the server says how many streams it allows
				tr := &Transport{Source: oauth2.StaticTokenSource(dpopToken("bound")), Prover: newProver(t, signer), Base: base}
				var wg sync.WaitGroup
				wg.Go(func() { get(t, base, url+"busy") })
				synctest.Wait()
				resp, err := tr.RoundTrip(must(http.NewRequest(http.MethodPost, url, tt.body)))
				if err != nil {
					t.Fatal(err)
				}
				drain(resp)
				if resp.StatusCode != tt.status || proofs != tt.proofs || rejects != tt.rejects {
					t.Errorf("status %d after %d proofs, %d rejected; want %d, %d, %d", resp.StatusCode, proofs, rejects, tt.status, tt.proofs, tt.rejects)
				}
				wg.Wait()
				base.CloseIdleConnections()
				if err := srv.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
