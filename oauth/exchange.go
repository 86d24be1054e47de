package oauth

import (
	"bytes"
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/internal/redact"
	"github.com/ycauth/ycauth-go/internal/retry"
	"github.com/ycauth/ycauth-go/internal/strictjson"
	"github.com/ycauth/ycauth-go/internal/wire"
)

// jktHash is the hash that names a DPoP key in a Session.
const jktHash = crypto.SHA256

// maxLifetime caps expires_in. Yandex OAuth's own sample has 124234123534
// seconds, which overflows a time.Duration.
const maxLifetime = 100 * 365 * 24 * time.Hour

// A grant is what one token request asks with: the form without the client's
// authentication.
type grant struct {
	form url.Values

	// repeatable: the same request may be sent again after its answer was lost.
	// A refresh token survives that at most servers; an authorization code never
	// does (RFC 6749 §4.1.2).
	repeatable bool
}

func refreshGrant(refreshToken Secret) grant {
	return grant{url.Values{
		"grant_type":    {"refresh_token"},
		"refresh_token": {refreshToken.Reveal()},
	}, true}
}

func codeGrant(code Secret, verifier Secret, redirectURI string) grant {
	return grant{url.Values{
		"grant_type":    {"authorization_code"},
		"code":          {code.Reveal()},
		"code_verifier": {verifier.Reveal()}, // RFC 7636 §4.5
		"redirect_uri":  {redirectURI},
	}, false}
}

// secrets are the values that must not come back in an error.
func (g grant) secrets() []string {
	var s []string
	for _, name := range []string{"refresh_token", "code", "code_verifier"} {
		if v := g.form.Get(name); v != "" {
			s = append(s, v)
		}
	}
	return s
}

// tokenAnswer is a successful answer of the token endpoint (RFC 6749 §5.1).
type tokenAnswer struct {
	accessToken  Secret
	refreshToken Secret // "" if the answer has none: the old one stays good (§6)
	tokenType    string // "Bearer" or "DPoP"
	lifetime     time.Duration
	scopes       []string // nil if the answer has none: they are what was asked for
	received     time.Time
}

// An exchangeError is the failure of a token request, with what the caller must
// know of the grant.
type exchangeError struct {
	err error

	// uncertain: some attempt may have spent the grant without our learning of
	// it.
	uncertain bool
}

func (e *exchangeError) Error() string { return e.err.Error() }
func (e *exchangeError) Unwrap() error { return e.err }

// lostError marks a request that was written, and whose answer did not arrive
// whole.
type lostError struct{ err error }

func (e *lostError) Error() string { return "no whole answer came: " + e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

// exchange makes one token request, with as many attempts as it takes and the
// policy allows. On failure the error is an [*exchangeError], and the answer can
// still hold a refresh token, which must then be kept.
func (c *Client) exchange(ctx context.Context, g grant) (tokenAnswer, error) {
	policy := c.retry
	policy.Notify = func(attempt int, err error, wait time.Duration) {
		c.emit(Event{Kind: EventRetry, Attempt: attempt, Wait: wait, Err: err})
	}
	var uncertain, lost bool
	ans, err := retry.Do(ctx, policy, func(ctx context.Context, _ int) (tokenAnswer, error) {
		ans, err := c.attempt(ctx, g)
		var server *ServerError
		var gone *lostError
		var unsent *unsentError
		switch {
		case err == nil:
			return ans, nil
		case ans.refreshToken != "":
			return ans, err // the grant is spent: another attempt has to be made with the new one
		case errors.As(err, &gone):
			uncertain, lost = true, true
			if !g.repeatable || ctx.Err() != nil {
				return ans, err
			}
			return ans, retry.Temporary(err, 0)
		case errors.As(err, &server):
			spent := server.Status == http.StatusOK || server.Status >= 500 && server.Status != http.StatusServiceUnavailable
			uncertain = uncertain || spent
			if server.Status != http.StatusOK && server.Temporary() && (g.repeatable || !spent) {
				return ans, retry.Temporary(err, server.RetryAfter)
			}
			return ans, err
		case errors.As(err, &unsent) && ctx.Err() == nil:
			return ans, retry.Temporary(err, 0)
		}
		return ans, err
	})
	if err != nil {
		if lost && !isRefusal(err) {
			err = fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
		}
		return ans, &exchangeError{err, uncertain}
	}
	return ans, nil
}

// isRefusal reports whether the server said no, in so many words.
func isRefusal(err error) bool {
	var server *ServerError
	return errors.As(err, &server) && !server.Temporary() && server.Status != http.StatusOK
}

// attempt sends the request once; and once more, with another proof, for each of
// two refusals that spend nothing: the server wants a nonce, or our clock is
// wrong.
func (c *Client) attempt(ctx context.Context, g grant) (tokenAnswer, error) {
	for nonceTried, clockTried := false, false; ; {
		used := c.skew.correction()
		ans, gotNonce, err := c.send(ctx, g, used)
		var server *ServerError
		if err == nil || c.cfg.DPoP == nil || !errors.As(err, &server) {
			return ans, err
		}
		switch {
		case server.Code == "use_dpop_nonce" && gotNonce && !nonceTried:
			nonceTried = true // RFC 9449 §8: once; a second challenge is an error
		case server.Code == "invalid_dpop_proof" && !clockTried && c.skew.rejected(used):
			clockTried = true
		default:
			return ans, err
		}
	}
}

// unsentError marks a request that surely did not reach the server.
type unsentError struct{ err error }

func (e *unsentError) Error() string { return e.err.Error() }
func (e *unsentError) Unwrap() error { return e.err }

// send makes one HTTP exchange with a proof of its own. gotNonce reports whether
// the answer had a nonce.
func (c *Client) send(ctx context.Context, g grant, correction time.Duration) (_ tokenAnswer, gotNonce bool, _ error) {
	form := cloneValues(g.form)
	header := http.Header{
		"Content-Type": {"application/x-www-form-urlencoded"},
		"Accept":       {"application/json"},
		"User-Agent":   {c.cfg.UserAgent},
	}
	c.authenticate(form, header)
	if c.cfg.DPoP != nil {
		// Signing can wait for a person, so it is not part of the request's time.
		proof, err := c.cfg.DPoP.Proof(ctx, dpop.Claims{
			Method: http.MethodPost, URL: c.cfg.Provider.TokenURL,
			Nonce: c.nonces.Nonce(c.tokenURL), IssuedAt: c.now().Add(correction),
		})
		if err != nil {
			return tokenAnswer{}, false, fmt.Errorf("oauth: %w", err)
		}
		header.Set("DPoP", proof)
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.RequestTimeout)
	defer cancel()
	var wrote, dialed atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn:      func(string) { dialed.Store(true) },
		WroteHeaders: func() { wrote.Store(true) },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.cfg.Provider.TokenURL, strings.NewReader(form.Encode()))
	if err != nil {
		return tokenAnswer{}, false, fmt.Errorf("oauth: %w", err)
	}
	req.Header = header
	sent := c.now()
	resp, err := c.http.Do(req) //nolint:bodyclose // ReadBody closes it
	if err != nil {
		if dialed.Load() && !wrote.Load() || isDialError(err) {
			return tokenAnswer{}, false, &unsentError{fmt.Errorf("oauth: the authorization server cannot be reached: %w", err)}
		}
		return tokenAnswer{}, false, &lostError{err}
	}
	body, err := wire.ReadBody(resp)
	received := c.now()
	c.skew.observe(resp.Header, sent, received)
	c.nonces.Learn(c.tokenURL, resp.Header)
	gotNonce = resp.Header.Get(dpop.NonceHeader) != ""
	secrets := append(g.secrets(), c.cfg.ClientSecret.Reveal())
	if resp.StatusCode != http.StatusOK {
		return tokenAnswer{}, gotNonce, parseRefusal(resp, body, err, received, secrets)
	}
	if err != nil && !errors.Is(err, wire.ErrTooLarge) {
		return tokenAnswer{}, gotNonce, &lostError{err}
	}
	var ans tokenAnswer
	if err == nil {
		ans, err = parseToken(body)
	}
	ans.received = sent // the life began when the server issued the token, not when we read it
	if err == nil && ans.tokenType == "DPoP" && c.cfg.DPoP == nil {
		err = errors.New("the token is of type DPoP, and no key is configured")
	}
	if err != nil {
		reason := err.Error()
		if !wire.IsJSON(resp.Header) {
			reason += "; its content type is " + strconv.Quote(redact.Text(resp.Header.Get("Content-Type")))
		}
		return ans, gotNonce, &ServerError{
			Status: resp.StatusCode, RequestID: wire.RequestID(resp.Header),
			Err: fmt.Errorf("%w: %s", ErrMalformedAnswer, reason),
		}
	}
	return ans, gotNonce, nil
}

func isDialError(err error) bool {
	var op *net.OpError
	var dns *net.DNSError
	return errors.As(err, &op) && op.Op == "dial" || errors.As(err, &dns)
}

// authenticate adds the client's identity to a request (RFC 6749 §2.3.1, §3.2.1).
func (c *Client) authenticate(form url.Values, header http.Header) {
	id, secret := c.cfg.ClientID, c.cfg.ClientSecret.Reveal()
	switch c.cfg.Provider.AuthMethod {
	case AuthClientSecretPost:
		form.Set("client_id", id)
		form.Set("client_secret", secret)
	case AuthClientSecretBasic:
		// "The client identifier is encoded using the
		// application/x-www-form-urlencoded encoding algorithm per Appendix B,
		// and the encoded value is used as the username" (and so the secret).
		id, secret = url.QueryEscape(id), url.QueryEscape(secret)
		fallthrough
	case AuthClientSecretBasicPlain:
		header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(id+":"+secret)))
	default:
		form.Set("client_id", id)
	}
}

// parseToken reads an answer as RFC 6749 §5.1 describes it. The content type is
// not looked at: a rotated refresh token must not be lost to a wrong header.
// A missing token_type means Bearer, a missing or senseless expires_in means that
// the life is unknown.
//
// With an error the answer can still hold a refresh token.
func parseToken(body []byte) (tokenAnswer, error) {
	var ans tokenAnswer
	m, err := strictjson.Object(body)
	if err != nil {
		return ans, err
	}
	refreshToken, err := stringMember(m, "refresh_token")
	if err == nil && refreshToken != "" {
		if !isVSChars(refreshToken) {
			return ans, errors.New("refresh_token has characters that RFC 6749 does not allow")
		}
		ans.refreshToken = Secret(refreshToken)
	}
	if err != nil {
		return ans, err
	}
	accessToken, err := stringMember(m, "access_token")
	switch {
	case err != nil:
		return ans, err
	case accessToken == "":
		return ans, errors.New("access_token is missing")
	case !isVSChars(accessToken):
		return ans, errors.New("access_token has characters that RFC 6749 does not allow")
	}
	tokenType, err := stringMember(m, "token_type")
	if err != nil {
		return ans, err
	}
	switch strings.ToLower(tokenType) { // "Value is case insensitive"
	case "", "bearer":
		ans.tokenType = "Bearer"
	case "dpop":
		ans.tokenType = "DPoP"
	default:
		// "A client MUST NOT use an access token if it does not understand the
		// token type" (§7.1).
		return ans, errors.New("token_type is neither Bearer nor DPoP")
	}
	scope, err := stringMember(m, "scope")
	if err != nil {
		return ans, err
	}
	ans.accessToken = Secret(accessToken)
	if scope != "" {
		ans.scopes = strings.Fields(scope)
	}
	ans.lifetime = parseLifetime(m["expires_in"])
	return ans, nil
}

func stringMember(m map[string]json.RawMessage, name string) (string, error) {
	raw, ok := m[name]
	if !ok {
		return "", nil
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return "", errors.New(name + " is not a string")
	}
	return s, nil
}

// parseLifetime reads expires_in: a number, or a string that holds one, of
// seconds. 0 means unknown.
func parseLifetime(raw json.RawMessage) time.Duration {
	seconds, err := strconv.ParseFloat(string(bytes.Trim(raw, `"`)), 64)
	if err != nil && !math.IsInf(seconds, 1) || !(seconds > 0) { // NaN is not > 0 either
		return 0
	}
	if seconds >= maxLifetime.Seconds() {
		return maxLifetime
	}
	return time.Duration(seconds * float64(time.Second))
}

// isVSChars implements 1*VSCHAR of RFC 6749 Appendix A.12 and A.17.
func isVSChars(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// parseRefusal makes a ServerError of any answer that is not 200. readErr is
// what went wrong while the body was read.
func parseRefusal(resp *http.Response, body []byte, readErr error, now time.Time, secrets []string) *ServerError {
	e := &ServerError{
		Status:     resp.StatusCode,
		RetryAfter: retry.After(resp.Header, now),
		RequestID:  wire.RequestID(resp.Header),
	}
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		e.Err = fmt.Errorf("%w: a redirect, which is not followed, so that no credential goes elsewhere: check Provider.TokenURL", ErrMalformedAnswer)
		return e
	}
	if readErr != nil {
		e.Err = fmt.Errorf("%w: %w", ErrMalformedAnswer, readErr)
		return e
	}
	code, description, err := parseErrorAnswer(body, secrets)
	if err != nil {
		e.Err = fmt.Errorf("%w: not an RFC 6749 error: %w", ErrMalformedAnswer, err)
		return e
	}
	e.Code, e.Description = code, description
	return e
}

// parseErrorAnswer reads the error of RFC 6749 §5.2.
func parseErrorAnswer(body []byte, secrets []string) (code, description string, err error) {
	m, err := strictjson.Object(body)
	if err != nil {
		return "", "", err
	}
	code, err = stringMember(m, "error")
	if err != nil {
		return "", "", err
	}
	if code = redact.Text(code, secrets...); code == "" || len(code) > 128 {
		return "", "", errors.New("error is missing")
	}
	description, err = stringMember(m, "error_description")
	if err != nil {
		description = "" // the code is what matters
	}
	return code, redact.Text(description, secrets...), nil
}
