package dpop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/ycauth/ycauth-go/internal/wire"
)

// A Transport is an [http.RoundTripper] that authorises requests to protected
// resources with tokens from Source.
//
// A token of type DPoP goes out as "Authorization: DPoP", with a proof that
// carries the token's hash (RFC 9449 §7.1). A server's wish for a nonce is met
// by one more request (§9), and nonces are learnt from every answer. A token of
// type Bearer goes out as "Authorization: Bearer" and nothing else: so it is
// with the access tokens of Yandex Cloud, whose refresh tokens alone are bound.
//
// A request that the server refuses with 401 because of its token is sent once
// more if Source comes up with another token.
//
// A second attempt needs the body again: requests with a body are sent again
// only if they have GetBody, which [http.NewRequest] sets for the usual readers.
//
// Credentials are sent over https, or to this machine. A redirect to another
// origin is followed without them, as [http.Client] does for headers that its
// caller set.
type Transport struct {
	// Source gives the token for each request. If it has a method
	// TokenContext(context.Context) (*oauth2.Token, error), that is called with
	// the request's context. If it has a method Invalidate(*oauth2.Token), that
	// is called with the token that a server refused. Package oauth's
	// TokenSource has both.
	Source oauth2.TokenSource

	// Prover signs the proofs. Required for tokens of type DPoP.
	Prover *Prover

	// Base makes the requests. Optional. Default: [http.DefaultTransport].
	Base http.RoundTripper

	// Nonces are shared with other transports or clients that talk to the same
	// servers. Optional. Default: the transport has its own.
	Nonces *Nonces

	// Clock gives the time for the proofs. Optional. Default: [time.Now].
	Clock func() time.Time

	own Nonces
}

type contextSource interface {
	TokenContext(ctx context.Context) (*oauth2.Token, error)
}

type invalidator interface{ Invalidate(rejected *oauth2.Token) }

// RoundTrip implements [http.RoundTripper].
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	closeBody := true
	defer func() {
		if closeBody && req.Body != nil {
			req.Body.Close() // RoundTrip must close it, also on errors
		}
	}()
	if crossOrigin(req) {
		closeBody = false
		return t.base().RoundTrip(req)
	}
	if _, err := wire.CheckURL(req.URL.Scheme + "://" + req.URL.Host); err != nil {
		return nil, fmt.Errorf("dpop: credentials are not sent to this URL: its address %w", err)
	}
	if t.Source == nil {
		return nil, errors.New("dpop: Transport.Source is nil")
	}
	tok, err := t.token(req.Context())
	if err != nil {
		return nil, err
	}
	closeBody = false // the first attempt closes it
	resp, err := t.attempt(req, req.Body, tok)
	for nonceTried, tokenTried := false, false; err == nil && resp.StatusCode == http.StatusUnauthorized; {
		switch {
		case !nonceTried && wantsNonce(resp) && isDPoP(tok):
			nonceTried = true
		case !tokenTried && !wantsNonce(resp):
			tokenTried = true
			next, ok := t.replacement(req.Context(), tok)
			if !ok {
				return resp, nil
			}
			tok = next
		default:
			return resp, nil
		}
		body, ok := rewind(req)
		if !ok {
			return resp, nil
		}
		drain(resp)
		resp, err = t.attempt(req, body, tok)
	}
	return resp, err
}

func (t *Transport) token(ctx context.Context) (*oauth2.Token, error) {
	if s, ok := t.Source.(contextSource); ok {
		return s.TokenContext(ctx)
	}
	return t.Source.Token()
}

// replacement tells Source that tok was refused and asks for another one.
func (t *Transport) replacement(ctx context.Context, tok *oauth2.Token) (*oauth2.Token, bool) {
	s, ok := t.Source.(invalidator)
	if !ok {
		return nil, false
	}
	s.Invalidate(tok)
	next, err := t.token(ctx)
	if err != nil || next.AccessToken == tok.AccessToken {
		return nil, false // the 401 tells the caller more than err would
	}
	return next, true
}

// attempt sends the request once, with a proof of its own.
func (t *Transport) attempt(req *http.Request, body io.ReadCloser, tok *oauth2.Token) (*http.Response, error) {
	fail := func(err error) (*http.Response, error) {
		if body != nil {
			body.Close()
		}
		return nil, err
	}
	r := req.Clone(req.Context()) // a RoundTripper must not change the request
	r.Body = body
	if r.Header == nil {
		r.Header = make(http.Header)
	}
	if !isDPoP(tok) {
		r.Header.Set("Authorization", tok.Type()+" "+tok.AccessToken)
		return t.base().RoundTrip(r)
	}
	if t.Prover == nil {
		return fail(errors.New("dpop: the access token is bound to a key, and Transport.Prover is nil"))
	}
	claims := Claims{
		Method:      req.Method,
		URL:         req.URL.String(),
		Nonce:       t.nonces().Nonce(req.URL),
		AccessToken: tok.AccessToken,
	}
	if claims.Method == "" {
		claims.Method = http.MethodGet
	}
	if t.Clock != nil {
		claims.IssuedAt = t.Clock()
	}
	proof, err := t.Prover.Proof(req.Context(), claims)
	if err != nil {
		return fail(err)
	}
	r.Header.Set("Authorization", "DPoP "+tok.AccessToken)
	r.Header.Set("DPoP", proof)
	resp, err := t.base().RoundTrip(r)
	if err == nil {
		t.nonces().Learn(req.URL, resp.Header)
	}
	return resp, err
}

func (t *Transport) base() http.RoundTripper {
	if t.Base != nil {
		return t.Base
	}
	return http.DefaultTransport
}

func (t *Transport) nonces() *Nonces {
	if t.Nonces != nil {
		return t.Nonces
	}
	return &t.own
}

func isDPoP(tok *oauth2.Token) bool { return strings.EqualFold(tok.TokenType, "DPoP") }

// wantsNonce: "WWW-Authenticate: DPoP error="use_dpop_nonce", …" (RFC 9449 §9).
// The code alone is looked for: servers differ in how they quote around it.
func wantsNonce(resp *http.Response) bool {
	if resp.Header.Get(NonceHeader) == "" {
		return false
	}
	for _, challenge := range resp.Header.Values("WWW-Authenticate") {
		if strings.Contains(challenge, "use_dpop_nonce") {
			return true
		}
	}
	return false
}

// rewind gives the body for another attempt.
func rewind(req *http.Request) (io.ReadCloser, bool) {
	if req.Body == nil || req.Body == http.NoBody {
		return req.Body, true
	}
	if req.GetBody == nil {
		return nil, false
	}
	body, err := req.GetBody()
	return body, err == nil
}

// drain lets the connection be used again, if not much is left to read.
func drain(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	resp.Body.Close()
}

// crossOrigin reports whether req follows a redirect that left the origin of
// the request that its caller made.
func crossOrigin(req *http.Request) bool {
	first := req
	for first.Response != nil && first.Response.Request != nil {
		first = first.Response.Request
	}
	return origin(first.URL) != origin(req.URL)
}
