package iamtest_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

func TestOptionsMistakes(t *testing.T) {
	tests := []struct {
		opts iamtest.Options
		want string
	}{
		{iamtest.Options{Rotation: "daily"}, "Options.Rotation: daily"},
		{iamtest.Options{Nonces: "x"}, "Options.Nonces"},
		{iamtest.Options{ResourceNonces: "x"}, "Options.ResourceNonces"},
		{iamtest.Options{TokenType: "bearer"}, "Options.TokenType"},
		{iamtest.Options{ThumbprintHash: crypto.SHA1}, "Options.ThumbprintHash"},
		{iamtest.Options{AccessLife: -1}, "Options.AccessLife: is negative"},
		{iamtest.Options{NonceEvery: -1}, "Options.NonceEvery: is negative"},
		{iamtest.Options{Port: 65536}, "Options.Port: is 65536"},
		{iamtest.Options{Port: -1}, "Options.Port: is -1"},
		{iamtest.Options{MaxRecords: -1}, "Options.MaxRecords: is negative"},
		{iamtest.Options{Clients: []iamtest.Client{{}}}, "Options.Clients"},
		{iamtest.Options{ClientID: "x", Clients: []iamtest.Client{{ID: "x"}}}, "Options.Clients"},
		{iamtest.Options{AuthMethod: "magic"}, "Options.AuthMethod"},
		{iamtest.Options{AuthMethod: oauth.AuthNone, ClientSecret: "x"}, "Options.ClientSecret"},
		{iamtest.Options{AuthMethod: oauth.AuthClientSecretPost}, "Options.ClientSecret"},
		{iamtest.Options{OperationError: &iamtest.Status{}}, "Options.OperationError"},
	}
	for _, tt := range tests {
		srv, err := iamtest.New(tt.opts)
		if err == nil {
			srv.Close()
			t.Errorf("no error, want %q", tt.want)
		} else if !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %q, want %q", err, tt.want)
		}
	}
	_, err := iamtest.New(iamtest.Options{Rotation: "x", Nonces: "y", ClientSecret: "a secret of the client", AuthMethod: oauth.AuthNone})
	if got := err.Error(); strings.Count(got, "\n") != 2 || strings.Contains(got, "a secret of the client") {
		t.Errorf("every mistake should have a line, without the secret: %s", got)
	}
}

// fakeTB is a test that fails.
type fakeTB struct {
	failed  string // by Fatalf
	errors  []string
	cleanup []func()
}

func (f *fakeTB) Helper()                   {}
func (f *fakeTB) Cleanup(fn func())         { f.cleanup = append(f.cleanup, fn) }
func (f *fakeTB) Errorf(s string, a ...any) { f.errors = append(f.errors, fmt.Sprintf(s, a...)) }
func (f *fakeTB) Fatalf(s string, a ...any) { f.failed = fmt.Sprintf(s, a...) }

// end is what happens when a test is over.
func (f *fakeTB) end() {
	for _, fn := range f.cleanup {
		fn()
	}
}

func TestStart(t *testing.T) {
	var tb fakeTB
	if srv := iamtest.Start(&tb, iamtest.Options{Rotation: "x"}); srv != nil || !strings.Contains(tb.failed, "Rotation") {
		t.Errorf("failed with %q", tb.failed)
	}
	if srv := iamtest.Start(&tb, iamtest.Options{}, iamtest.Options{}); srv != nil || !strings.Contains(tb.failed, "not 2") {
		t.Errorf("failed with %q", tb.failed)
	}
	if len(tb.cleanup) != 0 {
		t.Error("there is something to clean up")
	}
	tb.failed = ""
	srv := iamtest.Start(&tb)
	if tb.failed != "" || len(tb.cleanup) != 1 {
		t.Fatalf("failed with %q", tb.failed)
	}
	tb.end()
	srv.Close() // may come twice
	if _, err := newUser(t, srv).try(newUser(t, srv).request("GET", "/endpoints", "")); err == nil {
		t.Error("the server still answers")
	}
	if _, err := srv.RoundTripper().RoundTrip(newUser(t, srv).request("GET", "/endpoints", "")); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("in the process: got %v", err)
	}
}

// TestQuiet: what was sent on a connection that was closed at once, as by a
// process that was killed, has been handled when Quiet returns.
func TestQuiet(t *testing.T) {
	srv := iamtest.Start(t)
	for i := range 20 {
		conn, err := net.Dial("tcp", strings.TrimPrefix(srv.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(conn, "GET /endpoints HTTP/1.1\r\nHost: x\r\n\r\n")
		conn.Close()
		if err := srv.Quiet(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := srv.Count(iamtest.EndpointEndpoints); got != i+1 {
			t.Fatalf("%d requests were handled, want %d", got, i+1)
		}
	}
	u := newUser(t, srv)
	wantOK(t, u.do(u.request("GET", "/endpoints", ""))) // leaves a connection open
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := srv.Quiet(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with an open connection: %v", err)
	}
	if err := srv.Quiet(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a context that is done: %v", err)
	}
	u.http.CloseIdleConnections()
	if err := srv.Quiet(t.Context()); err != nil {
		t.Errorf("without connections: %v", err)
	}
	srv.Close()
	if err := srv.Quiet(t.Context()); err == nil {
		t.Error("a closed server is quiet, and should say that it is closed")
	}
}

func TestConfigure(t *testing.T) {
	srv := iamtest.Start(t)
	u := newUser(t, srv)
	token := u.login().str("refresh_token")
	if err := srv.Configure(func(o *iamtest.Options) { o.Rotation = iamtest.RotateAlways; o.AccessLife = time.Minute }); err != nil {
		t.Fatal(err)
	}
	a := wantOK(t, u.refresh(token))
	if a.str("refresh_token") == "" || a.members["expires_in"].(float64) > 60 {
		t.Errorf("the options did not change: %s", a.body)
	}
	if err := srv.Configure(func(o *iamtest.Options) {
		if o.Rotation != iamtest.RotateAlways || o.AccessLife != time.Minute || o.RefreshLife != 0 {
			t.Errorf("the options given are %+v", o)
		}
		o.Rotation = "x"
	}); err == nil {
		t.Error("a mistake was accepted")
	}
	if err := srv.Configure(func(o *iamtest.Options) { o.ClientID = "x" }); err == nil {
		t.Error("another client ID was accepted")
	}
	for name, change := range map[string]func(*iamtest.Options){
		"TLS": func(o *iamtest.Options) { o.TLS = true }, "HTTP2": func(o *iamtest.Options) { o.HTTP2 = true },
	} {
		if err := srv.Configure(change); err == nil || !strings.Contains(err.Error(), "cannot change while the server runs") {
			t.Errorf("another %s: %v", name, err)
		}
	}
	if a := wantOK(t, u.refresh(a.str("refresh_token"))); a.str("refresh_token") == "" {
		t.Error("a refused change had an effect")
	}
}

func TestProvider(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{ThumbprintHash: crypto.SHA256})
	p := srv.Provider()
	if p.Name != "iamtest" || p.AuthURL != srv.URL+"/oauth/authorize" || p.TokenURL != srv.URL+"/oauth/token" ||
		p.AuthMethod != oauth.AuthNone || p.ThumbprintHash != crypto.SHA256 || !slices.Equal(p.Scopes, []string{"openid", "offline_access"}) ||
		p.FederationHintParam != "yc_federation_hint" || p.SubjectHintParam != "yc_sub_hint" || p.OfflineScope != "offline_access" || p.RefreshTokenSwitch == "" {
		t.Errorf("%+v", p)
	}
	if srv.IAMEndpoint() != srv.URL || srv.OperationEndpoint() != srv.URL || srv.ClientSecret() != "" || srv.ClientID != oauth.YandexCloudClientID {
		t.Error("the endpoints or the client are others")
	}
	if got := iamtest.Start(t).Provider().ThumbprintHash; got != crypto.SHA512 {
		t.Errorf("hash %v", got)
	}
}

func TestClock(t *testing.T) {
	start := time.Date(2025, 11, 20, 12, 0, 0, 0, time.FixedZone("MSK", 3*60*60))
	srv := iamtest.Start(t, iamtest.Options{Now: func() time.Time { return start }})
	srv.Advance(time.Hour)
	srv.Clock().Advance(-time.Minute)
	if want := start.Add(59 * time.Minute).UTC(); srv.Now() != want || srv.Clock().Now() != want {
		t.Errorf("%v, want %v", srv.Now(), want)
	}
	u := newUser(t, srv)
	a := u.login()
	srv.Advance(12*time.Hour - 1)
	wantOK(t, u.call("GET", "/api/whoami", "", a.str("access_token")))
	srv.Advance(1)
	wantError(t, u.call("GET", "/api/whoami", "", a.str("access_token")), 401, "invalid_token")
	if got := srv.Requests()[0].Time; !got.Equal(start.Add(59 * time.Minute)) {
		t.Errorf("recorded at %v", got)
	}
}

// certificate for the key, signed by itself.
func certificate(t *testing.T, key *ecdsa.PrivateKey, name string) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAttestation(t *testing.T) {
	verify := func(chain []*x509.Certificate) bool { return slices.Contains(chain[0].DNSNames, "yubikey") }
	for _, tt := range []struct {
		name, cert string
		verify     func([]*x509.Certificate) bool
		only       bool
		want       iamtest.ProtectionLevel // "": refused
	}{
		{"attested", "yubikey", verify, false, iamtest.SecureKeyDPoP},
		{"attested, only such", "yubikey", verify, true, iamtest.SecureKeyDPoP},
		{"not to be trusted", "other", verify, false, iamtest.InsecureKeyDPoP},
		{"not to be trusted, only such", "other", verify, true, ""},
		{"no chain, only such", "", verify, true, ""},
		{"nobody trusted", "yubikey", nil, false, iamtest.InsecureKeyDPoP},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := iamtest.Start(t, iamtest.Options{VerifyAttestation: tt.verify, OnlyAttestedKeys: tt.only})
			u := newUser(t, srv)
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			var opts []dpop.Option
			if tt.cert != "" {
				opts = append(opts, dpop.WithCertificateChain([]*x509.Certificate{certificate(t, key, tt.cert)}))
			}
			if u.prover, err = dpop.New(key, opts...); err != nil {
				t.Fatal(err)
			}
			a := u.do(u.tokenRequest(u.codeForm(u.authorize(u.authorization()).Get("code"))))
			if tt.want == "" {
				wantError(t, a, 400, "invalid_dpop_proof")
				return
			}
			info := srv.Introspect(wantOK(t, a).str("refresh_token"))
			if info.ProtectionLevel != tt.want || info.KeyThumbprint != thumbprint(t, u.prover, crypto.SHA256) {
				t.Errorf("the token is %+v", info)
			}
			listed := wantOK(t, u.list(a.str("access_token"), "filter", fmt.Sprintf("protection_level=%q", tt.want)))
			if len(ids(listed)) != 1 {
				t.Errorf("listed %s", listed.body)
			}
		})
	}
}

// TestConcurrentRefresh: of many who use one refresh token at once, one wins, and
// what the others did is reuse.
func TestConcurrentRefresh(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{Rotation: iamtest.RotateAlways, ReuseKeepsGrant: true})
	u := newUser(t, srv)
	token := u.login().str("refresh_token")
	const n = 20
	won := make(chan bool, n)
	var wg sync.WaitGroup
	for range n {
		req := u.tokenRequest(u.refreshForm(token))
		wg.Go(func() {
			resp, err := u.http.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			_, _ = io.Copy(io.Discard, resp.Body)
			won <- resp.StatusCode == http.StatusOK
		})
	}
	wg.Wait()
	close(won)
	winners := 0
	for w := range won {
		if w {
			winners++
		}
	}
	if winners != 1 || srv.Count(iamtest.EndpointToken, "refresh_token") != n {
		t.Errorf("%d of %d got a token", winners, srv.Count(iamtest.EndpointToken, "refresh_token"))
	}
}

func TestLoggerKeepsSecrets(t *testing.T) {
	lines := make(logLines, 100)
	srv := iamtest.Start(t, iamtest.Options{Logger: slog.New(slog.NewTextHandler(lines, nil)), Nonces: iamtest.NoncesRequired})
	u := newUser(t, srv)
	a := u.login()
	wantOK(t, u.refresh(a.str("refresh_token")))
	wantOK(t, u.call("GET", "/api/whoami", "", a.str("access_token")))
	wantError(t, u.refresh("rt1.not-a-token.at-all"), 400, "invalid_grant")
	srv.Close()
	close(lines)
	var log strings.Builder
	for line := range lines {
		log.WriteString(line)
	}
	for _, want := range []string{"endpoint=token", "grant_type=refresh_token", "error=use_dpop_nonce", "proof_verified=true", "path=/api/whoami", "status=200"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log has no %s:\n%s", want, log.String())
		}
	}
	secrets := srv.Secrets()
	if !slices.Contains(secrets, a.str("access_token")) || !slices.Contains(secrets, a.str("refresh_token")) ||
		!slices.Contains(secrets, verifier) || !slices.Contains(secrets, "rt1.not-a-token.at-all") {
		t.Error("Secrets does not have all that were issued and sent")
	}
	for _, s := range secrets {
		if strings.Contains(log.String(), s) {
			t.Error("a secret is in the log")
		}
	}
}

func TestMaxRecords(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{MaxRecords: 20})
	for range 45 {
		srv.Record(iamtest.Request{Endpoint: iamtest.EndpointList})
	}
	r := srv.Requests()
	if len(r) > 20 || r[len(r)-1].Number != 45 || r[0].Number != 45-len(r)+1 || srv.Count(iamtest.EndpointList) != 45 {
		t.Errorf("%d are remembered, %d to %d, and %d counted", len(r), r[0].Number, r[len(r)-1].Number, srv.Count(iamtest.EndpointList))
	}
}

// TestRoundTripper: a whole day in a bubble.
func TestRoundTripper(t *testing.T) {
	srv := iamtest.Start(t)
	u := newUser(t, srv)
	u.http.Transport = srv.RoundTripper()
	synctest.Test(t, func(t *testing.T) {
		u.t = t
		a := u.login()
		began := time.Now()
		wantOK(t, u.call("GET", "/api/whoami", "", a.str("access_token")))
		time.Sleep(12 * time.Hour)
		wantError(t, u.call("GET", "/api/whoami", "", a.str("access_token")), 401, "invalid_token")
		srv.Inject(iamtest.EndpointToken, iamtest.Slow(time.Minute), 1)
		a = wantOK(t, u.refresh(a.str("refresh_token")))
		if got := time.Since(began); got != 12*time.Hour+time.Minute {
			t.Errorf("it took %v", got)
		}

		srv.Inject(iamtest.EndpointResource, iamtest.LostAnswer(), 1)
		if _, err := u.try(u.apiRequest("GET", "/api/whoami", "", a.str("access_token"))); !errors.Is(err, iamtest.ErrConnectionClosed) {
			t.Errorf("a lost answer: %v", err)
		}
		srv.Inject(iamtest.EndpointResource, iamtest.Truncated(), 1)
		if _, err := u.try(u.apiRequest("GET", "/api/whoami", "", a.str("access_token"))); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("a truncated answer: %v", err)
		}
		srv.Inject(iamtest.EndpointResource, iamtest.Redirect(), 1)
		u.http.CheckRedirect = nil
		wantOK(t, u.call("GET", "/api/whoami", "", a.str("access_token")))
		if srv.Count(iamtest.EndpointElsewhere) != 1 {
			t.Error("the redirect led nowhere")
		}
		srv.Inject(iamtest.EndpointResource, iamtest.Slow(time.Minute), 1)
		u.http.Timeout = time.Second
		if _, err := u.try(u.apiRequest("GET", "/api/whoami", "", a.str("access_token"))); err == nil {
			t.Error("a client that gave up got an answer")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := u.try(u.request("GET", "/endpoints", "").WithContext(ctx)); !errors.Is(err, context.Canceled) {
			t.Errorf("a request that was cancelled: %v", err)
		}
	})
}
