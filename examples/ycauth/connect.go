package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"

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
	if _, err := store.Load(ctx); errors.Is(err, oauth.ErrNoSession) {
		// Said before anything about a key, which there cannot be either.
		return nil, &oauth.LoginRequiredError{Reason: oauth.ReasonNoSession, Err: oauth.ErrNoSession}
	}
	if err := a.endpoint.checkEnvironment(p); err != nil {
		return nil, err
	}
	prover, err := a.prover(p.Key)
	if err != nil {
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
		Clock:       a.now,
		Synchronous: true, // the program exits soon: nothing is left to the background
		Revoke:      revoke,
	})
	if err == nil {
		a.signals.hold(c.close)
	}
	return c, err
}

// close makes sure that no renewal is lost, and returns when that is so, whoever
// called it first. A session that could not be saved is no failure of the command,
// which got its token; but the user has to know.
func (c *connection) close() {
	c.closing.Do(func() {
		if err := c.client.TokenSource().Close(); err != nil {
			c.a.note(red, "ycauth: warning:", "%s", message(err))
		}
	})
}

// refreshTokens returns a client of the RefreshToken API. A token that the API
// refuses is renewed once.
func (c *connection) refreshTokens(source oauth2.TokenSource) *refreshtoken.Client {
	hc := &http.Client{Transport: &dpop.Transport{Source: source, Base: c.http.Transport, Clock: c.a.now}}
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
