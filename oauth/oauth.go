// Package oauth logs users in to an OAuth 2.0 service and keeps their sessions: it
// exchanges a refresh token for access tokens (RFC 6749 §6) as they are needed, proves
// possession of the key that the refresh token is bound to (DPoP, RFC 9449), and
// saves every token that the server issues.
//
//	store, prover, err := filestore.Open("app", "default") // package filestore
//	…
//	client, err := oauth.New(oauth.Config{
//		Provider: oauth.YandexCloud(),
//		ClientID: oauth.YandexCloudClientID,
//		Store:    store,
//		DPoP:     prover,
//	})
//	…
//	defer client.TokenSource().Close()
//	httpClient := client.HTTPClient() // renews tokens automatically
//
// A [TokenSource] is an oauth2.TokenSource. oauth2.NewClient accepts one, but caches
// each token until it expires, so it does not replace a token that a resource has
// rejected.
//
// # Sessions
//
// A [Session] begins with [Client.Login], in a browser of this host or of another device, or with [Client.Import]
// of a refresh token from elsewhere. It is kept in a [Store], which several
// processes can share. The first process to find the token expired renews it under
// the store's lock, and the others adopt the result without a request. If the store is a
// database shared by several machines, the lock is a lease: [LeaseStore] describes how
// sessions stay safe if a machine pauses for longer than its lease.
//
// A [Pool] keeps the sessions of many users. A refresh token that nobody uses expires:
// [TokenSource.KeepAlive] and [Pool.KeepAlive] renew it in time.
//
// # Tokens
//
// A [TokenSource] serves a token in one of three states. A fresh token is served
// without a lock or an allocation. A stale one is
// still served, while one renewal runs in the background. If it is invalid
// (expired, or rejected by a resource), callers wait for one shared renewal, each
// as long as its own context allows. A failed renewal is reported
// to all its waiters, and not repeated before a cooldown; a token that has not
// expired is served meanwhile.
//
// # Limits
//
// The number of token requests of one source is always bounded, by the cause of the
// renewal:
//
//   - stale or invalid: one renewal at a time. The first one that fails sends up to
//     Config.MaxAttempts requests. After it the source rests for 1 s, then 2 s, and
//     so on up to 1 minute, or as long as Retry-After asks (10 minutes at most),
//     and each further renewal sends one request until one succeeds: 10 requests
//     in the first minute, then 1 a minute. While no connection can be made, it
//     rests for 5 s at most. If the signer of the DPoP key failed (a security key
//     was not touched, or is not plugged in), a stale token is not renewed for 10
//     minutes, so that the user is not asked every minute; one that is invalid is
//     renewed after the usual rest, and Renew does not wait at all.
//   - rejected by a resource: one renewal in 30 s.
//   - forced by [TokenSource.Renew]: 10 renewals in a row, then one in 6 s, and none
//     before the end of a Retry-After.
//
// A token that has already expired when it arrives is requested once more; if that
// one has expired too, the renewal has failed. A token with a lifetime of less than a
// second is treated as one of unknown lifetime.
//
// To each request, nonce challenges add at most 3 more, and a corrected clock one, or two
// if the clock is set between the first correction and its request. A
// wall clock that jumps ahead by more than the rest of a token's life costs a
// renewal, and ends at most one rest a minute. If processes that share a store see
// clocks that differ by hours, their own or those of several servers behind one name, each
// serves the token that it received itself while that is fresh, and the limit
// applies to each process.
//
// # Time
//
// Waits are measured by both the monotonic clock and the wall clock, and end when
// either says so. Setting the wall clock or suspending the computer
// does not prolong them. Proofs carry the time of the server, estimated from the Date of
// its responses ([dpop.Clocks]). Stored times are those of the wall clock,
// together with the server's time. A process that starts with a stored token, and has not
// heard from the server yet, uses the earlier end of its life. If its wall clock is wrong by
// as much as when the token was stored, a clock that is behind makes no difference, and one
// that is ahead shortens the life of the token by as much. A clock that was set costs one
// renewal at most.
//
// # Errors
//
// All errors can be distinguished with [errors.Is] and [errors.As], and none contains a
// secret:
//
//   - [ErrLoginRequired]: the user must log in again; [*LoginRequiredError] says why.
//   - [*ServerError]: the server rejected the request, or its response is malformed; Temporary reports
//     whether waiting helps.
//   - [*UnreachableError]: no request reached the server.
//   - [ErrOutcomeUnknown]: requests were sent and their responses lost; an
//     [*InterruptedError] says when the next request may be sent.
//   - [*StoreError] and [*PersistError]: the session could not be read, or saved.
//   - [*ConfigError]: a mistake in the [Config].
//   - [*AuthorizationError]: the server rejected a login.
//   - [ErrIssuerMismatch]: another server responded to a login.
//
// # Servers
//
// [Provider] describes a server. [YandexCloud] and [YandexID] are predefined, and
// [Discover] describes a server by its metadata (RFC 8414, OpenID Connect Discovery);
// nothing else in the package is specific to Yandex. The package follows
// RFC 6749 (OAuth 2.0), RFC 7009 (revocation), RFC 7523 (private_key_jwt), RFC 7636 (PKCE,
// S256 only), RFC 8252 (loopback redirect), RFC 8628 (device flow), RFC 8707 (resource),
// RFC 9126 (pushed authorization requests), RFC 9207 (iss) and RFC 9449 (DPoP). To protect credentials, it does not follow redirects, use plain
// http (except on loopback), read responses over 1 MiB or try
// several authentication methods.
package oauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/internal/clock"
	"github.com/ycauth/ycauth-go/internal/wire"
)

// A Config describes a client of an authorization server.
type Config struct {
	// Provider is the authorization server. Required.
	Provider Provider

	// ClientID is the client's identifier at the server. Required.
	ClientID string

	// ClientSecret is for confidential clients.
	// Optional. Required by every Provider.AuthMethod but AuthNone and AuthPrivateKeyJWT.
	ClientSecret Secret

	// ClientKey signs the assertions of a client with [AuthPrivateKeyJWT].
	// Optional. Required by AuthPrivateKeyJWT.
	ClientKey *ClientKey

	// RedirectURL is for a registration that has a certain redirect URI: http, to
	// 127.0.0.1, [::1] or localhost. Without a port in it, a free one is used. With one,
	// only one login is possible at a time on a host, and another program can take the
	// port; localhost is not recommended (RFC 8252 §8.3). Optional. Default: any port of
	// 127.0.0.1, with Provider.CallbackPath.
	RedirectURL string

	// Scopes are requested at login. Optional. Default: Provider.Scopes.
	Scopes []string

	// Resources are the absolute URIs, without a fragment, of the resources that access
	// tokens are for (RFC 8707). They are part of every authorization and token request.
	// Many servers issue tokens for one resource only. Clients that share a Store must
	// have the same Resources. Optional. Default: the server decides.
	Resources []string

	// DPoP signs a proof for every token request, which binds new refresh
	// tokens to its key. If the signer does not return within RenewTimeout (at a login,
	// before ctx is done), the request fails, and so do further ones until it
	// returns. The error is then a [*dpop.SigningError], as it is if the signer fails.
	// Optional. Default: tokens are not bound.
	DPoP *dpop.Prover

	// Store keeps the session. Optional. Default: [NewMemoryStore].
	Store Store

	// HTTPClient sends the requests to the token endpoint. It is not modified, and
	// its CheckRedirect is ignored, because redirects are not followed. Its Transport must
	// end a request when the request's context ends, as [http.Transport] does: a renewal waits
	// for one that does not, with the store locked, because it may still receive a new
	// refresh token.
	// Optional. Default: [http.DefaultClient].
	HTTPClient *http.Client

	// UserAgent names the program to the server, for instance "backup/1.2".
	// Optional. Default: "ycauth-go".
	UserAgent string

	// Logger receives the same events as Observer, as [LogEvents] writes them.
	// Optional. Default: nothing is logged.
	Logger *slog.Logger

	// Observer receives events, for metrics. It is called from the
	// goroutine that does the work, must return promptly, and must not call the token
	// source. Optional.
	Observer func(Event)

	// StaleBefore is how long before its expiry a token turns stale and is
	// renewed in the background. Optional. Default: a sixth of the lifetime that
	// remained when the token was received; for 12 hours that is 2 hours.
	// Every process adds a jitter of up to a tenth of it.
	StaleBefore time.Duration

	// InvalidBefore is how long before its expiry a token is no longer served, so that
	// it does not expire during a request. It is served until then if renewals fail.
	// Optional. Default: 30 seconds, but at most a tenth of the token's life.
	InvalidBefore time.Duration

	// Synchronous makes callers wait for the renewal of a stale token, instead
	// of renewing in the background. It suits short-lived programs.
	// If the renewal fails, callers get the stale token. Optional.
	Synchronous bool

	// RenewTimeout bounds one renewal until its last request is sent: the wait for
	// other processes and for the user to touch a security key, and the
	// attempts. It does not interrupt a request that was sent, because the response
	// may contain a new refresh token. With a [LeaseStore], after another process was
	// interrupted, the 20 seconds that it has to save its session come on top.
	// Optional. Default: 2 minutes.
	RenewTimeout time.Duration

	// RequestTimeout bounds one attempt of a token request, signing excluded.
	// Optional. Default: 30 seconds.
	RequestTimeout time.Duration

	// MaxAttempts is how often one token request is sent at most. Optional. Default: 4.
	MaxAttempts int

	// Revoke, if set, is called by [Client.Logout] to end the session at the
	// server. The access token of s was valid just before the call; Revoke is not called
	// if there is none and none can be obtained. The store is not locked. Optional.
	// Default: the revocation request of RFC 7009, if Provider.RevocationURL is set.
	Revoke func(ctx context.Context, s Session) error

	// Clock returns the current time, for tests and demonstrations. Waits are also
	// measured by the runtime's monotonic clock. It must be fast and safe for
	// concurrent use. Optional. Default: Provider.Clock, or [time.Now] if that is nil.
	Clock func() time.Time
}

// A Client logs users in and out and keeps their session with one authorization
// server. It is safe for concurrent use.
type Client struct {
	cfg           Config
	tokenURL      *url.URL
	tokenOrigin   string
	authURL       *url.URL      // nil if the provider has none
	deviceAuthURL *url.URL      // nil if the provider has none
	pushedAuthURL *url.URL      // nil if the provider has none
	revocationURL *url.URL      // nil if the provider has none
	secret        func() Secret // Config.ClientSecret: fmt follows pointers, not functions
	assertions    *assertions   // nil unless the client authenticates with them
	redirect      redirect
	http          *http.Client
	thumbprint    string // SHA-256 of the DPoP key; "" without one
	dpopJKT       string // what the authorization request says of the key
	nonces        *dpop.Nonces
	clock         clock.Clock
	clocks        *dpop.Clocks
	signing       chan struct{} // holds a value for each proof for the token endpoint that is being signed
	source        *TokenSource
	member        *member // of a Pool; nil outside of one
}

// String keeps fmt from reading the secrets in unexported fields.
func (c *Client) String() string { return "oauth.Client(" + c.cfg.Provider.Name + ")" }

// Format implements [fmt.Formatter] for every verb, for the same reason.
func (c *Client) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// New checks cfg and returns a client. It sends no request. The error joins
// ([errors.Join]) a [*ConfigError] for each mistake.
func New(cfg Config) (*Client, error) {
	c := &Client{cfg: cfg, signing: make(chan struct{}, 1), nonces: new(dpop.Nonces), clocks: new(dpop.Clocks)}
	c.cfg.Provider = cfg.Provider.clone()
	c.cfg.Scopes = slices.Clone(cfg.Scopes)
	c.cfg.Resources = slices.Clone(cfg.Resources)
	if cfg.Scopes == nil {
		c.cfg.Scopes = c.cfg.Provider.Scopes
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	c.secret, c.cfg.ClientSecret = func() Secret { return cfg.ClientSecret }, ""
	if c.cfg.Store == nil {
		c.cfg.Store = NewMemoryStore()
	}
	if c.cfg.UserAgent == "" {
		c.cfg.UserAgent = "ycauth-go"
	}
	if c.cfg.RenewTimeout == 0 {
		c.cfg.RenewTimeout = 2 * time.Minute
	}
	if c.cfg.RequestTimeout == 0 {
		c.cfg.RequestTimeout = 30 * time.Second
	}
	if c.cfg.Clock == nil {
		c.cfg.Clock = c.cfg.Provider.Clock
	}
	c.clock.Wall = c.cfg.Clock
	c.http = wire.NoRedirects(cfg.HTTPClient)
	c.source = newTokenSource(c)
	return c, nil
}

// check finds all mistakes, and keeps what it computes on the way.
func (c *Client) check() error {
	var errs []error
	wrong := func(field, format string, args ...any) {
		errs = append(errs, &ConfigError{field, fmt.Sprintf(format, args...)})
	}
	var err error
	p := c.cfg.Provider
	if p.Name == "" {
		wrong("Provider.Name", "is empty: name the server, for instance by its host")
	}
	if c.tokenURL, err = wire.CheckURL(p.TokenURL); err != nil {
		wrong("Provider.TokenURL", "%v", err)
	} else {
		c.tokenOrigin = strings.ToLower(c.tokenURL.Scheme + "://" + c.tokenURL.Host)
	}
	for _, e := range []struct {
		field, raw string
		u          **url.URL
	}{
		{"Provider.AuthURL", p.AuthURL, &c.authURL},
		{"Provider.DeviceAuthURL", p.DeviceAuthURL, &c.deviceAuthURL},
		{"Provider.PushedAuthURL", p.PushedAuthURL, &c.pushedAuthURL},
		{"Provider.RevocationURL", p.RevocationURL, &c.revocationURL},
	} {
		if e.raw == "" {
			continue
		}
		if *e.u, err = wire.CheckURL(e.raw); err != nil {
			wrong(e.field, "%v", err)
		}
	}
	if p.RequirePAR && p.PushedAuthURL == "" {
		wrong("Provider.PushedAuthURL", "is empty, but Provider.RequirePAR needs it")
	}
	if p.RequireIss && p.Issuer == "" {
		wrong("Provider.Issuer", "is empty, but Provider.RequireIss needs it")
	}
	c.redirect = redirect{host: "127.0.0.1", path: p.CallbackPath}
	if !isPlainPath(p.CallbackPath) {
		wrong("Provider.CallbackPath", "is not a plain absolute path such as /auth/callback")
	}
	if c.cfg.RedirectURL != "" {
		if c.redirect, err = parseRedirect(c.cfg.RedirectURL); err != nil {
			wrong("RedirectURL", "%v", err)
		}
	}
	c.checkClientAuthentication(wrong)
	c.checkParams(wrong)
	for _, scope := range c.cfg.Scopes {
		if !isScopeToken(scope) {
			wrong("Scopes", "has an element that is empty or has characters outside RFC 6749 §3.3: pass each scope as a separate element")
			break
		}
	}
	if c.cfg.DPoP != nil {
		if c.thumbprint, err = c.cfg.DPoP.Thumbprint(jktHash); err != nil {
			wrong("DPoP", "cannot be used: %v", err)
		}
		if p.ThumbprintHash != 0 {
			if c.dpopJKT, err = c.cfg.DPoP.Thumbprint(p.ThumbprintHash); err != nil {
				wrong("Provider.ThumbprintHash", "cannot be used: %v", err)
			}
		}
	}
	if strings.ContainsFunc(c.cfg.UserAgent, func(r rune) bool { return r < ' ' || r > '~' }) {
		wrong("UserAgent", "has characters that are not allowed in a header")
	}
	for field, d := range map[string]time.Duration{
		"StaleBefore": c.cfg.StaleBefore, "InvalidBefore": c.cfg.InvalidBefore,
		"RenewTimeout": c.cfg.RenewTimeout, "RequestTimeout": c.cfg.RequestTimeout,
		"Provider.RefreshTokenLife": p.RefreshTokenLife, "Provider.RotationGrace": p.RotationGrace,
		"Provider.ProofLife": p.ProofLife, "Provider.NonceLife": p.NonceLife,
		"Provider.ReissueBefore": p.ReissueBefore,
	} {
		if d < 0 {
			wrong(field, "is negative")
		}
	}
	if c.cfg.MaxAttempts < 0 {
		wrong("MaxAttempts", "is negative")
	}
	return errors.Join(errs...)
}

func (c *Client) checkClientAuthentication(wrong func(field, format string, args ...any)) {
	id, secret := c.cfg.ClientID, c.cfg.ClientSecret
	if id == "" {
		wrong("ClientID", "is empty")
	}
	if c.cfg.ClientKey != nil && c.cfg.Provider.AuthMethod != AuthPrivateKeyJWT {
		wrong("ClientKey", "is set, but Provider.AuthMethod is %s: choose private_key_jwt", c.cfg.Provider.AuthMethod)
	}
	switch method := c.cfg.Provider.AuthMethod; method {
	case AuthNone:
		if secret != "" {
			wrong("ClientSecret", "is set, but Provider.AuthMethod is none: choose client_secret_basic or client_secret_post")
		}
		return
	case AuthPrivateKeyJWT:
		if secret != "" {
			wrong("ClientSecret", "is set, but Provider.AuthMethod is private_key_jwt, which does not send it")
		}
		if c.cfg.ClientKey == nil || c.cfg.ClientKey.prepare == nil {
			wrong("ClientKey", "is not set, but Provider.AuthMethod is private_key_jwt: see NewClientKey")
			return
		}
		// One audience, the issuer, for all endpoints: an assertion with the URL of an endpoint
		// could be made for one of another server (draft-ietf-oauth-rfc7523bis).
		audience := cmp.Or(c.cfg.Provider.Issuer, c.cfg.Provider.TokenURL)
		var err error
		if c.assertions, err = c.cfg.ClientKey.prepare(id, audience, c.cfg.Provider.AuthSigningAlgs); err != nil {
			wrong("ClientKey", "%v", err)
		}
		return
	case AuthClientSecretPost, AuthClientSecretBasic:
	case AuthClientSecretBasicPlain:
		if strings.Contains(id, ":") {
			wrong("ClientID", "has a colon, which Provider.AuthMethod client_secret_basic_plain cannot send: choose client_secret_post")
		}
		if strings.ContainsFunc(id+secret.Reveal(), func(r rune) bool { return r < ' ' || r == 0x7f }) {
			wrong("ClientSecret", "or ClientID has control characters, which Provider.AuthMethod client_secret_basic_plain cannot send")
		}
	default:
		wrong("Provider.AuthMethod", "is unknown: %q", string(method))
		return
	}
	if secret == "" {
		wrong("ClientSecret", "is empty, but Provider.AuthMethod %s needs one", c.cfg.Provider.AuthMethod)
	}
}

// isScopeToken implements scope-token of RFC 6749 §3.3.
func isScopeToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~' || r == '"' || r == '\\'
	})
}

// TokenSource returns the client's token source, which is the same for every call.
func (c *Client) TokenSource() *TokenSource { return c.source }

// HTTPClient returns an HTTP client for resources. It adds a token of the client's
// source to every request, and a proof if the token is bound. It retries a request that
// was rejected because of its token, nonce or time, as
// [dpop.Transport] describes. It sends credentials only over https or to loopback.
func (c *Client) HTTPClient() *http.Client {
	t := &dpop.Transport{Source: c.source, Prover: c.cfg.DPoP, Nonces: c.nonces, Clocks: c.clocks, Clock: c.cfg.Clock}
	if c.cfg.HTTPClient != nil {
		t.Base = c.cfg.HTTPClient.Transport
	}
	return &http.Client{Transport: t}
}

// Session returns the stored session. The error matches [ErrNoSession] if there is none, and is a
// [*StoreError] if the store could not be read.
func (c *Client) Session(ctx context.Context) (Session, error) {
	s, err := c.load(ctx)
	if err != nil && !errors.Is(err, ErrNoSession) {
		return Session{}, &StoreError{err}
	}
	return s, err
}

// Import replaces the stored session by one with a refresh token that was obtained
// elsewhere. The token must have been issued to Config.ClientID, and
// if it is bound, to the key of Config.DPoP. Import sends no request; the
// first call of the token source shows whether the server accepts the token.
//
// If the session cannot be saved, the error is a [*StoreError], and the token source
// keeps its previous session, unless the store has the new one after all. Import does not
// wait for a store that takes longer than 31 seconds to save, or than a second once ctx has
// ended.
func (c *Client) Import(ctx context.Context, refreshToken Secret) error {
	if !isRefreshToken(refreshToken.Reveal()) {
		return errors.New("oauth: the refresh token to import is empty, longer than 64 KiB or has characters that no token has: copy it whole, without quotes and line breaks")
	}
	s := Session{
		Provider: c.cfg.Provider.Name, ClientID: c.cfg.ClientID, RefreshToken: refreshToken,
		KeyThumbprint: c.thumbprint, TokenOrigin: c.tokenOrigin,
	}
	call := newCall()
	call.now = true
	call.cut, call.write = true, saveTimeout+storeGrace // the caller has the token
	err := c.updateWith(ctx, call, func(cur Session) (Session, error) {
		s.Created = c.source.begins(cur)
		s.Generation = generationAfter(cur, s)
		return s, nil
	})
	if err != nil {
		return &StoreError{err}
	}
	c.source.loggedIn(s, nil)
	c.emit(Event{Kind: EventLogin, Generation: s.Generation})
	return nil
}

// now is the time of day.
func (c *Client) now() time.Time { return c.clock.Now().Wall() }

// serverTime is the time of day as the server of the token endpoint sees it.
func (c *Client) serverTime() time.Time {
	now := c.now()
	return now.Add(c.clocks.Correction(c.tokenURL, now))
}

func (c *Client) margins() margins { return margins{c.cfg.StaleBefore, c.cfg.InvalidBefore} }

// canUse reports whether the access token of s can be sent by this client.
func (c *Client) canUse(s Session) bool {
	if s.TokenType != "DPoP" {
		return s.AccessToken != ""
	}
	bound := s.TokenThumbprint
	if bound == "" {
		bound = s.KeyThumbprint // stored by an older release
	}
	return s.AccessToken != "" && c.thumbprint != "" && bound == c.thumbprint
}

func (c *Client) emit(e Event) {
	silent := c.source.silent.Load() && e.Kind != EventLogin && e.Kind != EventLogout
	if silent || c.cfg.Observer == nil && c.cfg.Logger == nil {
		return
	}
	if e.Time.IsZero() {
		e.Time = c.now()
	}
	if c.member != nil {
		e.Key = c.member.key
	}
	if c.cfg.Logger != nil {
		LogEvents(c.cfg.Logger)(e)
	}
	if c.cfg.Observer != nil {
		c.cfg.Observer(e)
	}
}

// owns reports why a session cannot be renewed by this client; nil if it can.
func (c *Client) owns(s Session) error {
	switch {
	case s.IsZero():
		return &LoginRequiredError{Reason: ReasonNoSession, Err: ErrNoSession}
	case s.Provider != c.cfg.Provider.Name || s.ClientID != c.cfg.ClientID:
		return &LoginRequiredError{Reason: ReasonWrongClient, Detail: fmt.Sprintf(
			"the session is for %s and client %s, the configuration for %s and %s",
			s.Provider, s.ClientID, c.cfg.Provider.Name, c.cfg.ClientID)}
	case s.TokenOrigin != "" && s.TokenOrigin != c.tokenOrigin:
		return &LoginRequiredError{Reason: ReasonWrongClient, Detail: fmt.Sprintf(
			"the session is for the server %s, the configuration for %s", s.TokenOrigin, c.tokenOrigin)}
	case s.KeyThumbprint != "" && s.KeyThumbprint != c.thumbprint:
		detail := "no key is configured"
		if c.thumbprint != "" {
			detail = "the configured key is " + c.thumbprint
		}
		return &LoginRequiredError{Reason: ReasonWrongKey, Detail: "the token's key is " + s.KeyThumbprint + ", " + detail}
	}
	return nil
}

// explain says why a login without a refresh token has none.
func (c *Client) explain(w Warning) string {
	switch w {
	case WarnNoOfflineScope:
		return "the server issues one only with the scope " + c.cfg.Provider.OfflineScope
	case WarnRefreshTokensOff:
		return c.cfg.Provider.RefreshTokenSwitch
	}
	return ""
}

func cloneValues(v url.Values) url.Values {
	out := make(url.Values, len(v)+8)
	maps.Copy(out, v)
	return out
}
