package matrix

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
	"github.com/ycauth/ycauth-go/refreshtoken"
)

// A dimension is one habit of servers, with the values that differ for a client.
type dimension struct {
	name   string
	values []value
}

type value struct {
	name string
	set  func(*iamtest.Options)
}

func flag2(name string, set func(*iamtest.Options)) dimension {
	return dimension{name, []value{{"no", func(*iamtest.Options) {}}, {"yes", set}}}
}

var dimensions = []dimension{
	{"flavor", []value{
		{"cloud", func(*iamtest.Options) {}},
		{"id", func(o *iamtest.Options) { o.YandexID = true }},
	}},
	{"grace", []value{
		{"none", func(*iamtest.Options) {}},
		{"once", func(o *iamtest.Options) { o.GracePeriod, o.GraceUses = 10*time.Minute, 1 }},
		{"any", func(o *iamtest.Options) { o.GracePeriod = 10 * time.Minute }},
	}},
	flag2("same token", func(o *iamtest.Options) { o.SameTokenWhile = 6 * time.Hour }),
	flag2("separate nonces", func(o *iamtest.Options) { o.SeparateNonces = true }),
	flag2("quiet nonces", func(o *iamtest.Options) { o.QuietNonces = true }),
	flag2("a nonce each time", func(o *iamtest.Options) { o.NonceEvery = 1 }),
	flag2("bound access", func(o *iamtest.Options) { o.TokenType, o.ResourceNonces = "DPoP", iamtest.NoncesRequired }),
	flag2("wrong key revokes", func(o *iamtest.Options) { o.WrongKeyRevokes = true }),
	flag2("revokes access", func(o *iamtest.Options) { o.RevokeAccessTokens = true }),
	flag2("slow operations", func(o *iamtest.Options) { o.OperationDelay = 20 * time.Second }),
}

// TestProductOfHabits runs the token source, the transport for resources and the
// client of the API through every combination of the habits above, of some with
// the race detector. Two clients with one store stand for two processes.
func TestProductOfHabits(t *testing.T) {
	n := 1
	for _, d := range dimensions {
		n *= len(d.values)
	}
	for i := 0; i < n; i += stride {
		o := iamtest.Options{
			AccessLife: 12 * time.Hour, RefreshLife: 31 * 24 * time.Hour, Rotation: iamtest.RotateAlways, Nonces: iamtest.NoncesRequired,
		}
		var names []string
		rest := i
		for _, d := range dimensions {
			v := d.values[rest%len(d.values)]
			rest /= len(d.values)
			v.set(&o)
			names = append(names, d.name+": "+v.name)
		}
		if o.WrongKeyRevokes && o.OperationDelay > 0 {
			continue // no session is left that an operation could revoke
		}
		t.Run(strings.Join(names, ", "), func(t *testing.T) {
			t.Parallel()
			srv := iamtest.Start(t, o) // outside of the bubble, whose time it must not stop
			synctest.Test(t, func(t *testing.T) { newLife(t, srv, o).live() })
		})
	}
}

// process is one client of the session.
type process struct {
	client *oauth.Client
	http   *http.Client // to resources
}

// life is that of one session.
type life struct {
	t     *testing.T
	srv   *iamtest.Server
	o     iamtest.Options
	procs []*process
	asked int // token requests so far

	mu    sync.Mutex
	words bytes.Buffer
}

func (l *life) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.words.Write(p)
}

func newProver(t *testing.T) *dpop.Prover {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p, err := dpop.New(key)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newLife(t *testing.T, srv *iamtest.Server, o iamtest.Options) *life {
	t.Helper()
	l := &life{t: t, srv: srv, o: o}
	prover := newProver(t)
	jkt, err := prover.Thumbprint(crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	store := oauth.NewMemoryStore()
	for range 2 {
		cfg := srv.OAuthConfig(prover)
		cfg.Store, cfg.HTTPClient = store, &http.Client{Transport: srv.RoundTripper()}
		cfg.Logger = slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
		cfg.Observer = func(e oauth.Event) { fmt.Fprintf(l, "%+v\n", e) }
		c, err := oauth.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		l.procs = append(l.procs, &process{c, &http.Client{Transport: &dpop.Transport{
			Source: c.TokenSource(), Prover: prover, Base: srv.RoundTripper(), Clock: srv.Now,
		}}})
	}
	token := srv.Seed(1, func(_ int, s *iamtest.Seed) { s.KeyThumbprint = jkt })[0]
	if err := l.procs[0].client.Import(t.Context(), oauth.Secret(token)); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *life) live() {
	defer l.end()
	l.step("the first token", 3, l.everybodyCalls)
	l.step("fresh", 0, l.everybodyCalls)
	time.Sleep(11 * time.Hour)
	l.step("stale", 3, l.everybodyCalls)
	time.Sleep(20 * time.Hour)
	l.step("expired", 3, l.everybodyCalls)
	if l.o.GracePeriod > 0 {
		time.Sleep(20 * time.Hour)
		l.srv.Inject(iamtest.EndpointToken, iamtest.LostAnswer(), 1)
		l.step("the answer is lost", 5, l.everybodyCalls)
	}
	time.Sleep(20 * time.Hour)
	l.srv.RotateNonces()
	l.step("new nonces", 3, l.everybodyCalls)
	time.Sleep(time.Hour)
	l.srv.RevokeAccessToken(l.token(0).AccessToken)
	l.step("the access token was revoked", 4, l.everybodyCalls)
	time.Sleep(20 * time.Hour)
	l.srv.Inject(iamtest.EndpointToken, iamtest.HTTPStatus(http.StatusServiceUnavailable, 0), 1)
	l.step("busy", 4, l.everybodyCalls)
	for range 2 { // the refresh token is replaced long before it ends
		time.Sleep(20 * 24 * time.Hour)
		l.step("20 days later", 3, l.everybodyCalls)
	}
	if n := l.srv.LiveGrants(); n != 1 {
		l.t.Errorf("%d grants live, want 1", n)
	}
	if l.thief(); l.o.WrongKeyRevokes {
		l.step("after a thief", 4, l.afterTheEnd)
	} else {
		l.step("after a thief", 0, l.everybodyCalls)
		l.step("revocation", 1, l.revoke)
		l.step("after the revocation", 4, l.afterTheEnd)
	}
	time.Sleep(13 * time.Hour)
	l.step("the end", 4, func() {
		for i := range l.procs {
			if tok, err := l.procs[i].client.TokenSource().TokenContext(l.t.Context()); !errors.Is(err, oauth.ErrLoginRequired) {
				l.t.Errorf("the session has ended, and got %v and %v", tok != nil, err)
			}
		}
	})
	if n := l.srv.LiveGrants(); n != 0 {
		l.t.Errorf("%d grants live at the end", n)
	}
}

// step bounds the token requests that do can lead to.
func (l *life) step(name string, most int, do func()) {
	l.t.Helper()
	do()
	synctest.Wait()
	n := l.srv.Count(iamtest.EndpointToken)
	if l.asked += most; n > l.asked {
		l.t.Errorf("%s: %d token requests, and %d are enough", name, n-l.asked+most, most)
	}
	l.asked = n
	if l.t.Failed() {
		l.t.Fatalf("after the step %q", name)
	}
}

func (l *life) token(i int) *oauth2.Token {
	l.t.Helper()
	tok, err := l.procs[i].client.TokenSource().TokenContext(l.t.Context())
	if err != nil {
		l.t.Fatalf("no token: %v", err)
	}
	return tok
}

// call asks a resource who is calling.
func (l *life) call(i int) (status int, err error) {
	req, err := http.NewRequestWithContext(l.t.Context(), http.MethodGet, l.srv.URL+"/api/whoami", nil)
	if err != nil {
		return 0, err
	}
	resp, err := l.procs[i].http.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// everybodyCalls: all at once, and all get through.
func (l *life) everybodyCalls() {
	var callers sync.WaitGroup
	for n := range 4 {
		callers.Go(func() {
			if status, err := l.call(n % 2); err != nil || status != http.StatusOK {
				l.t.Errorf("a caller got %d and %v", status, err)
			}
		})
	}
	callers.Wait()
	synctest.Wait()
}

// thief tries the stolen refresh token with a key of his own.
func (l *life) thief() {
	l.t.Helper()
	session, err := l.procs[0].client.Session(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	form := url.Values{"grant_type": {"refresh_token"}, "client_id": {l.srv.ClientID}, "refresh_token": {session.RefreshToken.Reveal()}}
	if secret := l.srv.ClientSecret(); secret != "" {
		form.Set("client_secret", secret.Reveal())
	}
	prover, nonce := newProver(l.t), ""
	for range 2 {
		proof, err := prover.Proof(l.t.Context(), dpop.Claims{Method: http.MethodPost, URL: l.srv.URL + "/oauth/token", IssuedAt: l.srv.Now(), Nonce: nonce})
		if err != nil {
			l.t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(l.t.Context(), http.MethodPost, l.srv.URL+"/oauth/token", strings.NewReader(form.Encode()))
		if err != nil {
			l.t.Fatal(err)
		}
		req.Header = http.Header{"Content-Type": {"application/x-www-form-urlencoded"}, "Dpop": {proof}}
		resp, err := l.srv.RoundTripper().RoundTrip(req)
		if err != nil {
			l.t.Fatal(err)
		}
		resp.Body.Close()
		if nonce = resp.Header.Get(dpop.NonceHeader); resp.StatusCode != http.StatusBadRequest {
			l.t.Errorf("the thief got %d", resp.StatusCode)
		}
	}
	l.asked = l.srv.Count(iamtest.EndpointToken)
}

// revoke ends the session as a user does, by its own access token.
func (l *life) revoke() {
	api := refreshtoken.NewClient(l.procs[0].http, refreshtoken.WithEndpoint(l.srv.IAMEndpoint()), refreshtoken.WithOperationEndpoint(l.srv.OperationEndpoint()))
	session, err := l.procs[0].client.Session(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	began := time.Now()
	op, err := api.Revoke(l.t.Context(), refreshtoken.ByToken(session.RefreshToken.Reveal()))
	if err != nil {
		l.t.Errorf("Revoke: %v", err)
		return
	}
	// What ends the session can end the token that asks how far it is.
	_, err = op.Wait(l.t.Context())
	if l.o.RevokeAccessTokens && l.o.OperationDelay > 0 && errors.Is(err, refreshtoken.ErrUnauthenticated) ||
		errors.Is(err, oauth.ErrLoginRequired) {
		err = nil
	}
	if took := time.Since(began); err != nil || took < l.o.OperationDelay || took > l.o.OperationDelay+time.Minute {
		l.t.Errorf("Wait: %v after %v", err, took)
	}
}

// afterTheEnd: what the server still takes is served, and nothing else.
func (l *life) afterTheEnd() {
	for i := range l.procs {
		status, err := l.call(i)
		if alive := err == nil && status == http.StatusOK; alive == l.o.RevokeAccessTokens {
			l.t.Errorf("with the session over, a caller got %d and %v", status, err)
		}
	}
}

// end holds the whole life against what must hold always.
func (l *life) end() {
	for i := range l.procs {
		if err := l.procs[i].client.TokenSource().Close(); err != nil {
			l.t.Errorf("Close: %v", err)
		}
	}
	accepted := map[string]bool{}
	for _, r := range l.srv.Requests() {
		if r.Proof.Verified && accepted[r.Proof.ID] {
			l.t.Errorf("the proof of request %d was accepted before", r.Number)
		}
		accepted[r.Proof.ID] = accepted[r.Proof.ID] || r.Proof.Verified
		if r.Endpoint == iamtest.EndpointElsewhere || r.Endpoint == iamtest.EndpointOther {
			l.t.Errorf("a request went to %s", r.Path)
		}
	}
	for _, secret := range l.srv.Secrets() {
		if strings.Contains(l.words.String(), secret) {
			l.t.Errorf("a secret (%.6s…) is in the log", secret)
		}
	}
}
