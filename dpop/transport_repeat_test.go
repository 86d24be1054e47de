package dpop

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"
)

// newDyingResource is a resource that checks the proof of the second request and
// then closes the connection without a word, as a proxy does whose idle timeout
// ends just then: net/http repeats the request.
func newDyingResource(t *testing.T) *resource {
	t.Helper()
	srv := newJudge(t, false, true, nil)
	inner := srv.Config.Handler
	var requests atomic.Int32
	srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) != 2 {
			inner.ServeHTTP(w, r)
			return
		}
		inner.ServeHTTP(httptest.NewRecorder(), r)
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		conn.Close()
	})
	return srv
}

func proofIDs(t *testing.T, srv *resource) map[string]bool {
	t.Helper()
	ids := map[string]bool{}
	for _, r := range srv.seen {
		if len(r.proofs) > 0 {
			ids[takeApart(t, r.proofs[0]).claim(t, "jti")] = true
		}
	}
	return ids
}

// Every attempt that net/http makes by itself has its own proof.
func TestTransportDeadConnection(t *testing.T) {
	idempotentPost := func(url string) *http.Request {
		req := must(http.NewRequest(http.MethodPost, url, strings.NewReader("body")))
		req.Header.Set("Idempotency-Key", "k")
		return req
	}
	bodyless := func(url string) *http.Request { return must(http.NewRequest(http.MethodGet, url, nil)) }
	for _, tt := range []struct {
		name    string
		request func(url string) *http.Request
		base    func(http.RoundTripper) http.RoundTripper
		want    []int
	}{
		{"GET", bodyless, nil, []int{200, 200, 200}},
		{"POST with an idempotency key", idempotentPost, nil, []int{200, 200, 200}},
		{"GET through a base that copies the request", bodyless, func(rt http.RoundTripper) http.RoundTripper {
			return roundTripper(func(r *http.Request) (*http.Response, error) { return rt.RoundTrip(r.Clone(r.Context())) })
		}, []int{200, 200, 401, 200}},
		{"POST through a base that copies the request", idempotentPost, func(rt http.RoundTripper) http.RoundTripper {
			return roundTripper(func(r *http.Request) (*http.Response, error) { return rt.RoundTrip(r.Clone(r.Context())) })
		}, []int{200, 200, 401, 200}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := newDyingResource(t)
			tr := newTransport(t, oauth2.StaticTokenSource(dpopToken("bound")))
			if tt.base != nil {
				tr.Base = tt.base(tr.Base)
			}
			get(t, tr, srv.URL)
			resp, err := tr.RoundTrip(tt.request(srv.URL))
			if err != nil {
				t.Fatal(err)
			}
			drain(resp)
			want := len(tt.want)
			if tt.base != nil {
				want-- // the one that was sent twice
			}
			if ids := proofIDs(t, srv); len(ids) != want {
				t.Errorf("%d different proofs, want %d", len(ids), want)
			}
			if got := srv.statuses(); !slices.Equal(got, tt.want) || resp.StatusCode != 200 {
				t.Errorf("status %d after %v, want %v", resp.StatusCode, got, tt.want)
			}
		})
	}
}

// What net/http does not repeat is not repeated here: the server may have acted.
func TestTransportDeadConnectionNotIdempotent(t *testing.T) {
	srv := newDyingResource(t)
	tr := newTransport(t, oauth2.StaticTokenSource(dpopToken("bound")))
	get(t, tr, srv.URL)
	_, err := tr.RoundTrip(must(http.NewRequest(http.MethodPost, srv.URL, strings.NewReader("body"))))
	if got := srv.statuses(); err == nil || !slices.Equal(got, []int{200, 200}) {
		t.Errorf("requests %v, %v", got, err)
	}
}

// A proof that cannot be made for the repeated request: the signer's error, and
// the old proof is not sent again.
func TestTransportDeadConnectionAndSigner(t *testing.T) {
	gone := errors.New("card removed")
	srv := newDyingResource(t)
	tr := newTransport(t, oauth2.StaticTokenSource(dpopToken("bound")))
	signatures := 0
	tr.Prover = newProver(t, patient{opaque{p256Key()}, func(_ context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
		if signatures++; signatures > 2 {
			return nil, gone
		}
		return p256Key().Sign(nil, digest, opts)
	}})
	get(t, tr, srv.URL)
	if _, err := tr.RoundTrip(must(http.NewRequest(http.MethodGet, srv.URL, nil))); !errors.Is(err, gone) {
		t.Errorf("RoundTrip: %v", err)
	}
	if last := srv.seen[len(srv.seen)-1]; len(srv.seen) != 3 || last.authorization != "" || len(last.proofs) != 0 {
		t.Errorf("%d requests, the last with %q and %d proofs", len(srv.seen), last.authorization, len(last.proofs))
	}
}

// A signer that fails is told from a network that does, whenever it is asked, so that
// nobody takes the same wrong PIN to the card again.
func TestTransportFailingSigner(t *testing.T) {
	errPIN := errors.New("wrong PIN")
	for name, good := range map[string]int{"first proof": 0, "proof after a challenge": 1} {
		t.Run(name, func(t *testing.T) {
			signatures, requests := 0, 0
			tr := &Transport{
				Source: oauth2.StaticTokenSource(dpopToken("t")),
				Prover: newProver(t, stub{p256Key().Public(), func(digest []byte) ([]byte, error) {
					if signatures++; signatures > good {
						return nil, errPIN
					}
					return p256Key().Sign(nil, digest, crypto.SHA256)
				}}),
				Base: roundTripper(func(r *http.Request) (*http.Response, error) {
					requests++
					return response(r, 401, nonceOf(fmt.Sprint("n", requests))(r)), nil
				}),
			}
			_, err := (&http.Client{Transport: tr}).Do(must(http.NewRequest(http.MethodGet, "https://h/", nil)))
			var failed *SigningError
			if !errors.As(err, &failed) || !errors.Is(err, errPIN) {
				t.Errorf("%v, want a SigningError", err)
			}
			var known interface{ Retryable() bool } // what package refreshtoken looks for
			if !errors.As(err, &known) || known.Retryable() {
				t.Errorf("%v is retryable", err)
			}
			if signatures != good+1 || requests != good {
				t.Errorf("%d signatures and %d requests", signatures, requests)
			}
		})
	}
}

// gotConn on its own: what the tests above cannot time.
func TestTransportGotConn(t *testing.T) {
	gone := errors.New("card removed")
	newAttempt := func(ctx context.Context, base http.RoundTripper, err error, waited time.Duration, person bool) *attempt {
		now := time.Now()
		sign := func(digest []byte) ([]byte, error) {
			if err != nil {
				return nil, err
			}
			return p256Key().Sign(nil, digest, crypto.SHA256)
		}
		a := &attempt{
			t: &Transport{
				Base:   base,
				Prover: newProver(t, touched{stub{p256Key().Public(), sign}, person}),
				Clock:  func() time.Time { return now },
			},
			req: must(http.NewRequestWithContext(ctx, http.MethodGet, "https://h/", nil)),
			tok: dpopToken("t"),
		}
		a.made = a.t.clock().Now()
		a.sent = a.made
		now = now.Add(waited)
		a.out = a.req.Clone(ctx)
		a.out.Header.Set("Authorization", "DPoP t")
		a.out.Header.Set("DPoP", "old")
		return a
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name     string
		ctx      context.Context
		base     http.RoundTripper
		err      error
		waited   time.Duration
		person   bool
		conns    int
		old, any bool // the old proof is there after the calls; any credentials are
	}{
		{"first connection", t.Context(), &http.Transport{}, nil, 0, false, 1, true, true},
		{"second connection", t.Context(), &http.Transport{}, nil, 0, false, 2, false, true},
		{"default base", t.Context(), nil, nil, 0, false, 2, false, true},
		{"canceled", canceled, &http.Transport{}, nil, 0, false, 2, true, true},
		{"another base", t.Context(), roundTripper(nil), nil, 0, false, 2, true, true},
		{"signer fails", t.Context(), &http.Transport{}, gone, 0, false, 2, false, false},
		{"signer fails, and again", t.Context(), &http.Transport{}, gone, 0, false, 3, false, false},
		{"first connection, soon", t.Context(), &http.Transport{}, nil, maxWait - time.Second, false, 1, true, true},
		{"first connection, late", t.Context(), &http.Transport{}, nil, maxWait, false, 1, false, true},
		{"first connection, late, canceled", canceled, &http.Transport{}, nil, maxWait, false, 1, true, true},
		{"first connection, late, of another base", t.Context(), roundTripper(nil), nil, maxWait, false, 1, true, true},
		{"first connection, late, with a person", t.Context(), &http.Transport{}, nil, time.Hour, true, 1, true, true},
		{"first connection, late, and the signer fails", t.Context(), &http.Transport{}, gone, maxWait, false, 1, false, false},
		{"second connection, with a person", t.Context(), &http.Transport{}, nil, 0, true, 2, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newAttempt(tt.ctx, tt.base, tt.err, tt.waited, tt.person)
			for range tt.conns {
				a.gotConn(httptrace.GotConnInfo{})
			}
			proof, authorization := a.out.Header.Get("DPoP"), a.out.Header.Get("Authorization")
			if (proof == "old") != tt.old || (proof != "") != tt.any || (authorization != "") != tt.any || !errors.Is(a.err, tt.err) {
				t.Errorf("proof %.10q, authorization %q, %v", proof, authorization, a.err)
			}
			if a.conns != tt.conns || a.sent.IsZero() {
				t.Errorf("%d connections, sent %v", a.conns, a.sent)
			}
		})
	}
}

// touched is a signer that may need a person.
type touched struct {
	crypto.Signer
	person bool
}

func (s touched) NeedsPerson() bool { return s.person }

// pipes is a network of one server.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p pipes) Close() error { close(p.done); return nil }

func (p pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// A proof is too old when it is sent, because something before that was slow.
func TestTransportLateProof(t *testing.T) {
	const url = "http://localhost/"
	for _, tt := range []struct {
		name    string
		sign    []time.Duration // how long each signature takes
		dial    time.Duration   // how long a connection takes
		busy    time.Duration   // how long the only connection is in use
		copies  bool            // the request does not reach an *http.Transport itself
		person  bool
		status  int
		proofs  int // signed
		rejects int // by the server
	}{
		{name: "nothing is slow", status: 200, proofs: 1},
		{name: "dial", dial: 90 * time.Second, status: 200, proofs: 2},
		{name: "dial, with a person", dial: 90 * time.Second, person: true, status: 200, proofs: 2, rejects: 1},
		{name: "dial, through a base that copies the request", dial: 90 * time.Second, copies: true, status: 200, proofs: 2, rejects: 1},
		{name: "wait for a connection", busy: 90 * time.Second, status: 200, proofs: 2},
		{name: "signature", sign: []time.Duration{90 * time.Second}, status: 200, proofs: 2, rejects: 1},
		{name: "signature, always", sign: []time.Duration{90 * time.Second, 90 * time.Second, 90 * time.Second}, status: 401, proofs: 2, rejects: 2},
		{name: "a little", dial: 4 * time.Second, sign: []time.Duration{4 * time.Second}, status: 200, proofs: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := pipes{make(chan net.Conn), make(chan struct{})}
				var v Verifier
				proofs, rejects := 0, 0
				srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Header.Get("DPoP") == "" {
						time.Sleep(tt.busy)
						return
					}
					want := Expected{URL: url, AccessToken: "bound", Thumbprint: thumbprintOf(t, p256Key())}
					if _, err := v.VerifyRequest(r, want); err != nil {
						rejects++
						w.Header().Set("WWW-Authenticate", `DPoP error="invalid_dpop_proof"`)
						w.WriteHeader(http.StatusUnauthorized)
					}
				})}
				go srv.Serve(network)
				base := &http.Transport{MaxConnsPerHost: 1, DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
					time.Sleep(tt.dial)
					return network.dial(ctx, "", addr)
				}}
				signer := touched{stub{p256Key().Public(), func(digest []byte) ([]byte, error) {
					if proofs++; proofs <= len(tt.sign) {
						time.Sleep(tt.sign[proofs-1])
					}
					return p256Key().Sign(nil, digest, crypto.SHA256)
				}}, tt.person}
				tr := &Transport{Source: oauth2.StaticTokenSource(dpopToken("bound")), Prover: newProver(t, signer), Base: base}
				if tt.copies {
					tr.Base = roundTripper(func(r *http.Request) (*http.Response, error) { return base.RoundTrip(r.Clone(r.Context())) })
				}
				var wg sync.WaitGroup
				if tt.busy > 0 {
					wg.Go(func() { get(t, base, url) })
					synctest.Wait()
				}
				if resp := get(t, tr, url); resp.StatusCode != tt.status || proofs != tt.proofs || rejects != tt.rejects {
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

// HTTP/2 has its own ways with connections.
func TestTransportHTTP2(t *testing.T) {
	var versions []int
	verifier := Verifier{}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		versions = append(versions, r.ProtoMajor)
		_, err := verifier.VerifyRequest(r, Expected{URL: "https://" + r.Host + r.URL.Path, AccessToken: "bound", Thumbprint: thumbprintOf(t, p256Key())})
		if err != nil {
			t.Error(err)
		}
		if len(versions) < 3 {
			w.Header().Set("WWW-Authenticate", `DPoP error="use_dpop_nonce"`)
			w.Header().Set(NonceHeader, strings.Repeat("n", len(versions)))
			w.WriteHeader(http.StatusUnauthorized)
		}
		_, _ = io.Copy(w, r.Body)
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	tr := newTransport(t, oauth2.StaticTokenSource(dpopToken("bound")))
	tr.Base = srv.Client().Transport
	resp, err := (&http.Client{Transport: tr}).Post(srv.URL, "text/plain", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != "body" || !slices.Equal(versions, []int{2, 2, 2}) {
		t.Errorf("%q, %v after requests by HTTP/%v", body, err, versions)
	}
}

// Two services behind one origin, each with a nonce of its own, in the order that
// concurrent calls can have: the other one's nonce comes between a challenge and the
// request that it leads to.
func TestTransportAnswersItsOwnChallenge(t *testing.T) {
	challenge := func(code, nonce string) http.Header {
		h := http.Header{"Www-Authenticate": {`DPoP error="` + code + `"`}}
		if nonce != "" {
			h.Set(NonceHeader, nonce)
		}
		return h
	}
	for _, tt := range []struct {
		name      string
		responses []http.Header // those with 401, one after the other; 200 follows
		want      []string      // nonces
	}{
		{"a challenge", []http.Header{challenge(codeUseNonce, "a")}, []string{"other0", "a"}},
		{"two challenges", []http.Header{challenge(codeUseNonce, "a"), challenge(codeUseNonce, "b")}, []string{"other0", "a", "b"}},
		{"another token", []http.Header{challenge(codeInvalidToken, "")}, []string{"other0", "other1"}},
		{"another token, and a nonce", []http.Header{challenge(codeInvalidToken, "a")}, []string{"other0", "a"}},
		{
			"a challenge, and another token", []http.Header{challenge(codeUseNonce, "a"), challenge(codeInvalidToken, "")},
			[]string{"other0", "a", "a"},
		},
		{
			"another token, and a malformed nonce", []http.Header{challenge(codeInvalidToken, `"`)},
			[]string{"other0", "other1"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const url = "https://api.example.com/"
			tr := newTransport(t, &source{tokens: []*oauth2.Token{dpopToken("one"), dpopToken("two")}})
			others := 0
			other := func() { // learns what the other service says
				tr.nonces().Learn(parseURL(t, url), nonceHeader("other"+string('0'+rune(others))))
				others++
			}
			var got []string
			tr.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
				got = append(got, takeNonce(r.Header.Get("DPoP")))
				if len(got) <= len(tt.responses) {
					return response(r, 401, tt.responses[len(got)-1]), nil
				}
				return response(r, 200, http.Header{}), nil
			})
			req := must(http.NewRequest(http.MethodPost, url, strings.NewReader("body")))
			body := req.GetBody
			req.GetBody = func() (io.ReadCloser, error) { // after the response, and before the next proof
				other()
				return body()
			}
			other()
			resp, err := tr.RoundTrip(req)
			if err != nil || resp.StatusCode != 200 || !slices.Equal(got, tt.want) {
				t.Errorf("%v after requests with the nonces %q, want %q", err, got, tt.want)
			}
		})
	}
}

// The same with net/http's own repetition in between.
func TestTransportChallengeAndDeadConnection(t *testing.T) {
	a := &attempt{
		t:   &Transport{Base: &http.Transport{}, Prover: newProver(t, p256Key())},
		req: must(http.NewRequest(http.MethodGet, "https://h/", nil)), tok: dpopToken("t"), told: "own",
	}
	a.out = a.req.Clone(t.Context())
	for range 2 {
		a.t.nonces().Learn(a.req.URL, nonceHeader("other"))
		a.gotConn(httptrace.GotConnInfo{})
	}
	if got := takeNonce(a.out.Header.Get("DPoP")); got != "own" || a.err != nil {
		t.Errorf("the nonce is %q, %v", got, a.err)
	}
}

// Concurrent calls of two services behind one origin all succeed.
func TestTransportTwoServices(t *testing.T) {
	var verifier Verifier
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		vp, err := verifier.VerifyRequest(r, Expected{URL: "http://" + r.Host + r.URL.Path, AccessToken: "bound", Thumbprint: thumbprintOf(t, p256Key())})
		if err != nil {
			t.Error(err)
			return
		}
		nonce := strings.TrimPrefix(r.URL.Path, "/")
		w.Header().Set(NonceHeader, nonce)
		if vp.Nonce != nonce {
			w.Header().Set("WWW-Authenticate", `DPoP error="use_dpop_nonce"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer srv.Close()
	tr := newTransport(t, oauth2.StaticTokenSource(dpopToken("bound")))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 25 {
				resp, err := (&http.Client{Transport: tr}).Get(srv.URL + "/" + []string{"a", "b"}[i%2])
				if err != nil {
					t.Error(err)
					return
				}
				drain(resp)
				if resp.StatusCode != http.StatusOK {
					t.Errorf("status %d", resp.StatusCode)
				}
			}
		})
	}
	wg.Wait()
}

// What decides is when the header was written, not when there was a connection. Base can
// make requests of its own, with proofs of their own, under the same trace.
func TestTransportLateOnAConnection(t *testing.T) {
	for name, tt := range map[string]struct {
		own      bool // the field that is written late is that of this request
		wait     time.Duration
		requests int
	}{
		"soon":                     {true, maxWait - 1, 1},
		"late":                     {true, maxWait, 2},
		"late, of another request": {false, maxWait, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				requests := 0
				tr := newTransport(t, oauth2.StaticTokenSource(dpopToken("bound")))
				tr.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
					requests++
					trace := httptrace.ContextClientTrace(r.Context())
					trace.GotConn(httptrace.GotConnInfo{})
					proof := r.Header.Get("DPoP")
					trace.WroteHeaderField("dpop", []string{proof})
					time.Sleep(tt.wait)
					if !tt.own {
						proof = "another"
					}
					trace.WroteHeaderField(":authority", []string{"h"})
					trace.WroteHeaderField("dpop", []string{proof})
					return response(r, 401, http.Header{"Www-Authenticate": {`DPoP error="invalid_dpop_proof"`}}), nil
				})
				if resp := get(t, tr, "https://h/"); resp.StatusCode != 401 || requests != tt.requests {
					t.Errorf("status %d after %d requests, want %d", resp.StatusCode, requests, tt.requests)
				}
			})
		})
	}
}
