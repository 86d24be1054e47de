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
// more if Source comes up with another token. A 401 because of the proof
// (invalid_dpop_proof) is handed to the caller: often a clock is wrong, and
// another token does not help.
//
// A second attempt needs the body again: requests with a body are sent again
// only if they have GetBody, which [http.NewRequest] sets for the usual readers.
//
// Credentials are sent over https, or to this machine. Once a redirect has led to
// another origin, the rest of the way is gone without them, as [http.Client] does
// for headers that its caller set. A redirect within the origin gets a proof for
// its own URL.
//
// A Transport is safe for concurrent use, and must not be copied after first use.
// The Request of the responses it returns is the caller's, without credentials.
type Transport struct {
	// Source gives the token for each request. Required. If it has a method
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

// RoundTrip implements [http.RoundTripper]. Its errors are those of Source, of
// [Prover.Proof] and of Base, and those of a Transport or request that cannot be
// used. A nonce challenge that is answered by a second one is a response, not an
// error.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	closeBody := true
	defer func() {
		if closeBody && req.Body != nil {
			req.Body.Close() // RoundTrip must close it, also on errors
		}
	}()
	if req.URL == nil {
		return nil, errors.New("dpop: the request has no URL")
	}
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
		switch proofError(resp) {
		case "use_dpop_nonce": // without a usable nonce, or again: the caller's
			if nonceTried || !isDPoP(tok) || !hasNonce(resp.Header) {
				return resp, nil
			}
			nonceTried = true
		case "":
			if tokenTried {
				return resp, nil
			}
			tokenTried = true
			next, ok := t.replacement(req.Context(), tok)
			if !ok {
				return resp, nil
			}
			tok = next
		default: // invalid_dpop_proof
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
	tok, err := t.sourceToken(ctx)
	if err == nil && (tok == nil || tok.AccessToken == "") {
		return nil, errors.New("dpop: Transport.Source returned no access token")
	}
	return tok, err
}

func (t *Transport) sourceToken(ctx context.Context) (*oauth2.Token, error) {
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
		return t.send(r, req)
	}
	if t.Prover == nil {
		return fail(errors.New("dpop: the access token is bound to a key, and Transport.Prover is nil"))
	}
	claims := Claims{
		Method:      req.Method,
		URL:         targetURI(req),
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
	resp, err := t.send(r, req)
	if err == nil {
		t.nonces().Learn(req.URL, resp.Header)
	}
	return resp, err
}

// send makes the request r for the caller's req, which the response will name:
// r has credentials in its header, and crossOrigin relies on the chain of
// requests.
func (t *Transport) send(r, req *http.Request) (*http.Response, error) {
	resp, err := t.base().RoundTrip(r)
	if err == nil {
		resp.Request = req
	}
	return resp, err
}

// targetURI is the URL of the request as the server puts it together: a Host
// that the caller chose stands in the place of the host dialled (RFC 9110 §7.1,
// §7.2).
func targetURI(req *http.Request) string {
	u := *req.URL
	if req.Host != "" {
		u.Host = req.Host
	}
	return u.String()
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

// proofError is the code by which a 401 blames the proof and not the token:
// WWW-Authenticate: DPoP error="use_dpop_nonce" (RFC 9449 §9), or
// "invalid_dpop_proof" (§7.1); else "". The code alone is looked for: servers
// differ in how they quote around it.
func proofError(resp *http.Response) string {
	for _, challenge := range resp.Header.Values("WWW-Authenticate") {
		for _, code := range []string{"use_dpop_nonce", "invalid_dpop_proof"} {
			if strings.Contains(challenge, code) {
				return code
			}
		}
	}
	return ""
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

// crossOrigin reports whether req follows redirects of which one left the origin
// of the request that the caller made, even if a later one came back: then it is
// another origin that chose this URL. Where the chain cannot be followed, that
// counts as having left.
func crossOrigin(req *http.Request) bool {
	for req.Response != nil {
		from := req.Response.Request
		if from == nil || from.URL == nil || origin(from.URL) != origin(req.URL) {
			return true
		}
		req = from
	}
	return false
}
