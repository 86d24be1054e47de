package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"

	"golang.org/x/oauth2"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
	"github.com/ycauth/ycauth-go/refreshtoken"
)

// userAgent is what the service shows as the application of a refresh token.
const userAgent = "ycauth/1.0"

// connection is a profile ready for use.
type connection struct {
	a       *app
	profile profile
	store   *filestore.Store
	client  *oauth.Client
	http    *http.Client // without credentials
	logger  *slog.Logger // nil without -v

	rotated atomic.Bool // a renewal replaced the refresh token
	closing sync.Once
}

// connect opens the profile. It makes no request and looks for no card.
func (a *app) connect(ctx context.Context) (*connection, error) {
	store, dir, err := a.openStore(ctx)
	if err != nil {
		return nil, err
	}
	p, err := a.existingProfile(ctx, store, dir)
	if err != nil {
		return nil, err
	}
	session, err := store.Load(ctx)
	if errors.Is(err, oauth.ErrNoSession) {
		// Said before anything about a key, which there cannot be either.
		return nil, &oauth.LoginRequiredError{Reason: oauth.ReasonNoSession, Err: oauth.ErrNoSession}
	}
	if err := a.endpoint.checkEnvironment(p); err != nil {
		return nil, err
	}
	if err := a.endpoint.checkServer(p, session); err != nil {
		return nil, err
	}
	if p.Key.kind() == "" {
		return nil, errLostKey
	}
	prover, err := a.prover(p.Key)
	if err != nil {
		return nil, err
	}
	if err := a.wrongKey(p.Key, prover, session); err != nil {
		return nil, err
	}
	return a.connection(p, store, a.sessions(store), prover, nil)
}

// connection puts the parts together. sessions is store, or what stands before it.
func (a *app) connection(p profile, store *filestore.Store, sessions oauth.Store, prover *dpop.Prover,
	revoke func(context.Context, oauth.Session) error,
) (*connection, error) {
	c := &connection{a: a, profile: p, store: store, http: &http.Client{Transport: http.DefaultTransport}}
	if a.verbose {
		c.logger = slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
		c.http.Transport = traceTransport{http.DefaultTransport, c.logger}
	}
	var err error
	c.client, err = oauth.New(oauth.Config{
		Provider:    p.Endpoints.provider(),
		ClientID:    p.ClientID,
		DPoP:        prover,
		Store:       sessions,
		HTTPClient:  c.http,
		UserAgent:   userAgent,
		Logger:      c.logger,
		Observer:    c.observe,
		Clock:       a.now,
		Synchronous: true, // the program exits soon: nothing is left to the background
		Revoke:      revoke,
	})
	if err == nil {
		a.signals.hold(c.close)
	}
	return c, err
}

// observe notes what the end of the command has to know, and says what the user
// waits for.
func (c *connection) observe(e oauth.Event) {
	switch e.Kind {
	case oauth.EventRenewed:
		if e.Rotated {
			c.rotated.Store(true)
		}
	case oauth.EventWaiting:
		c.a.say("Waiting for another process that uses the session of profile %q.", c.a.profileName)
	}
}

// close makes sure that no renewal is lost, and returns when that is so, whoever
// called it first. The command got its token even if the session could not be
// saved. If the refresh token was replaced, the one that is stored does not work
// any more, and the exit code says so.
func (c *connection) close() {
	c.closing.Do(func() {
		err := c.client.TokenSource().Close()
		var unsaved *oauth.PersistError
		switch {
		case err == nil:
		case errors.As(err, &unsaved) && c.rotated.Load():
			c.a.lost.Store(true)
			c.a.note(red, "ycauth: warning:", "the new refresh token could not be saved, so the session is lost when this command ends: %s. Free disk space or repair the store, and log in again with %q",
				c.a.message(unsaved.Err), c.a.commandFor("login"))
		case errors.As(err, &unsaved):
			c.a.note(red, "ycauth: warning:", "the new IAM token could not be saved, so the next command renews it again: %s", c.a.message(unsaved.Err))
		default:
			c.a.note(red, "ycauth: warning:", "%s", c.a.message(err))
		}
	})
}

// refreshTokens returns a client of the RefreshToken API. A token that the API
// refuses is renewed once.
func (c *connection) refreshTokens(source oauth2.TokenSource) *refreshtoken.Client {
	return c.refreshTokensOver(source, c.http.Transport)
}

// refreshTokensOver is refreshTokens with another transport under the credentials.
func (c *connection) refreshTokensOver(source oauth2.TokenSource, base http.RoundTripper) *refreshtoken.Client {
	hc := &http.Client{Transport: &dpop.Transport{Source: source, Base: base, Clock: c.a.now}}
	options := []refreshtoken.Option{
		refreshtoken.WithEndpoint(c.profile.Endpoints.IAM),
		refreshtoken.WithOperationEndpoint(c.profile.Endpoints.Operation),
		refreshtoken.WithUserAgent(userAgent),
	}
	if c.logger != nil {
		options = append(options, refreshtoken.WithLogger(c.logger))
	}
	return refreshtoken.NewClient(hc, options...)
}
