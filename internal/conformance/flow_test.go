package conformance

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
)

// What a program does: logins and renewals of package oauth, and requests
// through dpop.Transport.

const (
	// product is the User-Agent of the code under test: it marks its requests in
	// the server's log.
	product = "conformance/1.0"

	// tokenLife is a whole step of the server's nonces: after each life the
	// nonce has changed, and the one before is still good.
	tokenLife = time.Minute

	// patience bounds whatever waits for the server.
	patience = time.Minute
)

// What the server answers to a proof without a nonce (the first challenge) and
// with one that is too old (the next ones).
const (
	firstTokenChallenge    = "token 400 use_dpop_nonce: nonce is required in the DPoP proof"
	nextTokenChallenge     = "token 400 use_dpop_nonce: invalid nonce in DPoP proof"
	firstUserinfoChallenge = "userinfo 401 use_dpop_nonce: nonce is required in the DPoP proof"
	nextUserinfoChallenge  = "userinfo 401 use_dpop_nonce: invalid nonce in DPoP proof"
)

// Why the server refuses a grant or an access token. The client is told only
// that it does.
const (
	expiredToken = "userinfo 401 invalid_token: access token not found"
	reusedToken  = "token 400 invalid_grant: refresh token already used"
	goneToken    = "token 400 invalid_grant: refresh token not found"
	othersToken  = "token 400 invalid_grant: failed jkt verification"
)

// A flow is one server, the programs that talk to it, and one clock for all of
// them. It stands still but for advance.
type flow struct {
	*provider
	clock *clock
	tap   *wiretap
	keys  []string // thumbprints of the keys that proofs are made with

	// browse opens a URL and follows it to the page with which a login ends.
	browse func(ctx context.Context, browser *http.Client, target string) error
}

type clock struct{ nanoseconds atomic.Int64 }

func (c *clock) now() time.Time { return time.Unix(0, c.nanoseconds.Load()) }

func newFlow(t *testing.T) *flow {
	t.Helper()
	f := newFlowAt(t, startProvider(t))
	f.browse = f.follow
	return f
}

// newFlowAt is a flow without a browser.
func newFlowAt(t *testing.T, p *provider) *flow {
	t.Helper()
	f := &flow{provider: p, clock: new(clock), tap: newWiretap()}
	f.clock.nanoseconds.Store(f.stopClock(t).UnixNano())
	f.setAccessTokenTTL(t, tokenLife)
	return f
}

// advance puts the clock forward, for the server and the programs. Only the
// server's goes forward with f.provider.advance.
func (f *flow) advance(t *testing.T, d time.Duration) {
	t.Helper()
	f.provider.advance(t, d)
	f.clock.nanoseconds.Add(int64(d))
}

func (f *flow) registrations() []registration {
	return []registration{f.Clients.Native, f.Clients.Basic, f.Clients.Post}
}

// String is what a report calls the client.
func (r registration) String() string {
	if r.Auth == "none" {
		return "public client"
	}
	return r.Auth
}

// bounded is t's context with an end.
func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// receives runs fn and compares what the server got from the code under test
// meanwhile with want: for each request the endpoint, the status of the answer,
// and of a refusal its code and cause. It returns everything that the server
// got, also from browsers.
func (f *flow) receives(t *testing.T, fn func(), want ...string) []exchange {
	t.Helper()
	before := len(f.log(t))
	fn()
	log := f.log(t)[before:]
	var got []string
	for _, e := range log {
		if e.UserAgent == product {
			got = append(got, f.line(e))
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("the server received\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
	return log
}

func (f *flow) line(e exchange) string {
	line := fmt.Sprintf("%s %d", f.endpoint(e.Path), e.Status)
	if e.Error != "" {
		line += " " + e.Error + ": " + cmp.Or(e.Detail, e.Problem)
	}
	return line
}

func (f *flow) endpoint(path string) string {
	switch f.Issuer + path {
	case f.Endpoints.Authorization:
		return "authorization"
	case f.Endpoints.Token:
		return "token"
	case f.Endpoints.Userinfo:
		return "userinfo"
	case f.Endpoints.Revocation:
		return "revocation"
	case f.Endpoints.PAR:
		return "par"
	case f.Endpoints.Device:
		return "device"
	}
	return path
}

// requests are those of a log that went to an endpoint.
func (f *flow) requests(log []exchange, endpoint string) []exchange {
	return slices.DeleteFunc(slices.Clone(log), func(e exchange) bool { return f.endpoint(e.Path) != endpoint })
}

// An app is a program that uses package oauth.
type app struct {
	*oauth.Client
	flow *flow
	cfg  oauth.Config

	mu     sync.Mutex
	events map[oauth.EventKind]int
}

// newApp is a program with a key and, unless change says otherwise, a store of
// its own.
func (f *flow) newApp(t *testing.T, client registration, signer crypto.Signer, change ...func(*oauth.Config)) *app {
	t.Helper()
	prover, err := dpop.New(signer)
	if err != nil {
		t.Fatal(err)
	}
	a := &app{flow: f, events: make(map[oauth.EventKind]int)}
	a.cfg = oauth.Config{
		Provider: oauth.Provider{
			Name:           "oidc-provider",
			AuthURL:        f.Endpoints.Authorization,
			TokenURL:       f.Endpoints.Token,
			AuthMethod:     oauth.AuthMethod(client.Auth),
			Scopes:         []string{"openid", "offline_access"},
			ThumbprintHash: crypto.SHA256,
			AuthParams:     url.Values{"prompt": {"consent"}},
			OfflineScope:   "offline_access",
		},
		ClientID:     client.ID,
		ClientSecret: oauth.Secret(client.Secret),
		DPoP:         prover,
		Store:        oauth.NewMemoryStore(),
		HTTPClient:   &http.Client{Transport: f.tap},
		UserAgent:    product,
		Logger:       slog.New(slog.NewTextHandler(f.tap, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Observer:     a.observe,
		Clock:        f.clock.now,
	}
	for _, c := range change {
		c(&a.cfg)
	}
	thumbprint, err := a.cfg.DPoP.Thumbprint(crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	f.keys = append(f.keys, thumbprint)
	f.tap.note("client secret", a.cfg.ClientSecret.Reveal())
	if a.Client, err = oauth.New(a.cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.TokenSource().Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

func (a *app) observe(e oauth.Event) {
	a.flow.tap.hear("event", e)
	a.flow.tap.hear("error of an event", e.Err)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.events[e.Kind]++
}

// count is how many events of a kind there were.
func (a *app) count(kind oauth.EventKind) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.events[kind]
}

// tryLogin logs in with what stands for the user's browser.
func (a *app) tryLogin(t *testing.T) (oauth.Session, error) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(bounded(t))
	defer cancel(nil)
	browser := newBrowser(t)
	session, err := a.Login(ctx, oauth.LoginOptions{OpenURL: func(ctx context.Context, target string) error {
		err := a.flow.browse(ctx, browser, target)
		if err != nil {
			cancel(err) // no answer will come
		}
		return err
	}})
	a.flow.tap.hear("session", session)
	a.flow.tap.hear("error", err)
	return session, err
}

// follow is the browse of a server that asks the user nothing.
func (f *flow) follow(ctx context.Context, browser *http.Client, target string) error {
	u, err := url.Parse(target)
	if err != nil {
		return err
	}
	f.tap.note("state", u.Query().Get("state"))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	resp, err := browser.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	f.tap.hear("page", string(page))
	if resp.StatusCode != http.StatusOK || "http://"+resp.Request.URL.Host == f.Issuer {
		return fmt.Errorf("the browser ended on %s: %s", resp.Status, page)
	}
	return nil
}

// login is tryLogin for logins that succeed.
func (a *app) login(t *testing.T) oauth.Session {
	t.Helper()
	session, err := a.tryLogin(t)
	if err != nil {
		t.Fatal(err)
	}
	return session
}

// token is what the token source serves.
func (a *app) token(t *testing.T) *oauth2.Token {
	t.Helper()
	tok, err := a.TokenSource().TokenContext(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// noToken is why the token source has nothing to serve.
func (a *app) noToken(t *testing.T) error {
	t.Helper()
	_, err := a.TokenSource().TokenContext(bounded(t))
	a.flow.tap.hear("error", err)
	if err == nil {
		t.Fatal("there is a token")
	}
	return err
}

func (a *app) stored(t *testing.T) oauth.Session {
	t.Helper()
	s, err := a.Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// adopt imports a refresh token.
func (a *app) adopt(t *testing.T, refreshToken oauth.Secret) {
	t.Helper()
	if err := a.Import(t.Context(), refreshToken); err != nil {
		t.Fatal(err)
	}
}

// renews lets the access token expire and wants a new one for one request.
func (a *app) renews(t *testing.T) {
	t.Helper()
	a.flow.advance(t, tokenLife)
	a.flow.receives(t, func() { a.token(t) }, "token 200")
}

// keeps wants the stored session to be as it was.
func (a *app) keeps(t *testing.T, want oauth.Session) {
	t.Helper()
	if got := a.stored(t); !reflect.DeepEqual(got, want) {
		t.Errorf("stored %+v, want %+v unchanged", got, want)
	}
}

// wantReason wants an error that sends the user to log in again.
func wantReason(t *testing.T, err error, want oauth.Reason) {
	t.Helper()
	var login *oauth.LoginRequiredError
	if !errors.As(err, &login) || !errors.Is(err, oauth.ErrLoginRequired) || login.Reason != want {
		t.Fatalf("error %v, want log in again: %s", err, want)
	}
}

// wantRefusal wants the server's error code, and an error that sends nobody to
// log in again.
func wantRefusal(t *testing.T, err error, code string) *oauth.ServerError {
	t.Helper()
	var server *oauth.ServerError
	if !errors.As(err, &server) || server.Code != code || errors.Is(err, oauth.ErrLoginRequired) {
		t.Fatalf("error %v, want %s from the server and no login", err, code)
	}
	return server
}

// key256 is a key of the kind that most programs have.
func key256(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	return newKey(t).PrivateKey
}

// audit ends a flow: what must be true of everything that the server received,
// and of everything that the programs said. It reads the server's log from the
// start, which must not have been forgotten.
func (f *flow) audit(t *testing.T) {
	t.Helper()
	t.Run("every proof that the server received verifies", func(t *testing.T) {
		seen := make(map[string]bool)
		for i, e := range f.log(t) {
			endpoint := f.endpoint(e.Path)
			if e.UserAgent != product || endpoint == "revocation" || endpoint == "device" {
				continue
			}
			proof := e.Proof
			if proof == nil {
				t.Errorf("request %d, to the %s endpoint, had no proof", i, endpoint)
				continue
			}
			if !proof.Verified || proof.Problem != "" {
				t.Errorf("request %d, to the %s endpoint: %s", i, endpoint, proof.Problem)
			}
			if proof.JTI == "" || seen[proof.JTI] {
				t.Errorf("request %d: jti %q was seen before", i, proof.JTI)
			}
			seen[proof.JTI] = true
			if want := map[string]string{"token": f.Endpoints.Token, "userinfo": f.Endpoints.Userinfo, "par": f.Endpoints.PAR}[endpoint]; proof.HTU != want || proof.HTM != e.Method {
				t.Errorf("request %d: proof for %s %s, want %s %s", i, proof.HTM, proof.HTU, e.Method, want)
			}
			if proof.ATH != (endpoint == "userinfo") {
				t.Errorf("request %d, to the %s endpoint: ath in the proof: %t", i, endpoint, proof.ATH)
			}
			if !slices.Contains(f.keys, proof.JKT) {
				t.Errorf("request %d: proof of an unknown key %s", i, proof.JKT)
			}
		}
		if len(seen) == 0 {
			t.Error("there was no proof")
		}
		t.Logf("%d proofs", len(seen))
	})
	t.Run("no credential was told to errors, events, log lines or pages", f.tap.audit)
}
