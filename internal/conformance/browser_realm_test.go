package conformance

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"testing"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

// A realm is an authorization server, with programs that log in at it.
type realm struct {
	name string
	tap  *wiretap

	// newClient is a program with a key and a store of its own.
	newClient func(t *testing.T, change ...func(*oauth.Config)) *oauth.Client

	// otherClient is the ID of another public client.
	otherClient string

	// deny says whether the user denies what a login asks for.
	deny func(t *testing.T, deny bool)

	// whyRefused is what the server knows of the cause of its last refusal.
	whyRefused func(t *testing.T, err *oauth.ServerError) string
}

// realms starts the embedded IAM and the server that we did not write.
func realms(t *testing.T) []*realm {
	t.Helper()
	_, own := newEmbedded(t)
	return []*realm{own, newForeign(t)}
}

func newEmbedded(t *testing.T) (*iamtest.Server, *realm) {
	t.Helper()
	srv := iamtest.Start(t, iamtest.Options{Nonces: iamtest.NoncesRequired, Clients: []iamtest.Client{{ID: "other"}}})
	r := &realm{name: "iamtest", tap: newWiretap(), otherClient: "other"}
	r.newClient = func(t *testing.T, change ...func(*oauth.Config)) *oauth.Client {
		t.Helper()
		prover, err := dpop.New(key256(t))
		if err != nil {
			t.Fatal(err)
		}
		cfg := oauth.Config{
			Provider: srv.Provider(), ClientID: srv.ClientID, DPoP: prover, UserAgent: product,
			HTTPClient: &http.Client{Transport: r.tap},
			Logger:     slog.New(slog.NewTextHandler(r.tap, &slog.HandlerOptions{Level: slog.LevelDebug})),
			Observer:   func(e oauth.Event) { r.tap.hear("event", e) },
		}
		for _, f := range change {
			f(&cfg)
		}
		c, err := oauth.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := c.TokenSource().Close(); err != nil {
				t.Error(err)
			}
		})
		return c
	}
	r.deny = func(t *testing.T, deny bool) {
		t.Helper()
		if err := srv.Configure(func(o *iamtest.Options) { o.DenyLogin = deny }); err != nil {
			t.Fatal(err)
		}
	}
	r.whyRefused = func(_ *testing.T, err *oauth.ServerError) string { return err.Description }
	return srv, r
}

func newForeign(t *testing.T) *realm {
	t.Helper()
	f := newFlow(t)
	return &realm{
		name: "oidc-provider", tap: f.tap, otherClient: f.Clients.Post.ID,
		newClient: func(t *testing.T, change ...func(*oauth.Config)) *oauth.Client {
			t.Helper()
			return f.newApp(t, f.Clients.Native, key256(t), change...).Client
		},
		deny: f.setDeny,
		whyRefused: func(t *testing.T, _ *oauth.ServerError) string {
			t.Helper()
			tokens := f.requests(f.log(t), "token")
			return tokens[len(tokens)-1].Detail
		},
	}
}

// A pending is a login that waits for its answer.
type pending struct {
	authURL string
	answer  *url.URL // the address of the answer, with the state and no more
	ended   chan ending
	tap     *wiretap
}

type ending struct {
	session oauth.Session
	err     error
}

// begin starts a login and returns when the user has been given the URL.
func (r *realm) begin(t *testing.T, c *oauth.Client) *pending {
	t.Helper()
	ctx := bounded(t)
	p := &pending{ended: make(chan ending, 1), tap: r.tap}
	opened := make(chan string, 1)
	go func() {
		session, err := c.Login(ctx, oauth.LoginOptions{OpenURL: func(_ context.Context, target string) error {
			opened <- target
			return nil
		}})
		p.ended <- ending{session, err}
	}()
	select {
	case p.authURL = <-opened:
	case e := <-p.ended:
		t.Fatalf("the login did not begin: %v", e.err)
	}
	q := p.query(t)
	var err error
	if p.answer, err = url.Parse(q.Get("redirect_uri")); err != nil {
		t.Fatal(err)
	}
	p.answer.RawQuery = url.Values{"state": {q.Get("state")}}.Encode()
	r.tap.note("state", q.Get("state"))
	return p
}

// query is that of the authorization request.
func (p *pending) query(t *testing.T) url.Values {
	t.Helper()
	u, err := url.Parse(p.authURL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query()
}

// with is the address of the answer with more parameters, or other ones.
func (p *pending) with(namesAndValues ...string) string {
	u := *p.answer
	q := u.Query()
	for pair := range slices.Chunk(namesAndValues, 2) {
		q.Set(pair[0], pair[1])
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// codeFor lets the server issue a code for this login's request with something
// changed, and brings it to nobody.
func (p *pending) codeFor(t *testing.T, name, value string) string {
	t.Helper()
	u, err := url.Parse(p.authURL)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set(name, value)
	u.RawQuery = q.Encode()
	got, page := visit(t, u.String(), q.Get("redirect_uri"))
	if got.Get("code") == "" {
		t.Fatalf("no code: %v %s", got, page)
	}
	return got.Get("code")
}

// end waits for the login.
func (p *pending) end() (oauth.Session, error) {
	e := <-p.ended // the login has an end of its own
	p.tap.hear("session", e.session)
	p.tap.hear("error", e.err)
	return e.session, e.err
}

// succeed is end for logins that succeed.
func (p *pending) succeed(t *testing.T) oauth.Session {
	t.Helper()
	session, err := p.end()
	if err != nil {
		t.Fatal(err)
	}
	return session
}

// wantWorking wants a program to have the session, and the session to renew.
func wantWorking(t *testing.T, c *oauth.Client, want oauth.Session) {
	t.Helper()
	got, err := c.Session(t.Context())
	if err != nil || got.RefreshToken != want.RefreshToken || got.Generation != want.Generation {
		t.Fatalf("session %+v, %v; want %+v unchanged", got, err, want)
	}
	source := c.TokenSource()
	old, err := source.TokenContext(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	source.Invalidate(old)
	tok, err := source.TokenContext(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	if tok.AccessToken == old.AccessToken {
		t.Error("the token was not renewed")
	}
}
