package oauth

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/internal/clock"
	"github.com/ycauth/ycauth-go/internal/redact"
	"github.com/ycauth/ycauth-go/internal/retry"
	"github.com/ycauth/ycauth-go/internal/wire"
)

// A grant is what one token request asks with: the form without the client's
// authentication.
type grant struct {
	form url.Values

	// attempts is how often the request may be sent. 0 means the default.
	attempts int

	// repeatable: the same request may be sent again after its response was lost.
	// An authorization code never survives that (RFC 6749 §4.1.2), a refresh token
	// does at some servers.
	repeatable bool

	// uncut: once the request is sent, nothing but its own timeout ends it. The
	// response may hold the only copy of a new refresh token.
	uncut bool

	// tell, if set, is told what happens in the place of the observer.
	tell func(Event)

	// begin, if set, is [Lease.Begin]: it is called before each request.
	begin func(context.Context) (marked time.Time, holds time.Duration, err error)
}

func refreshGrant(refreshToken Secret) grant {
	return grant{
		form: url.Values{
			"grant_type":    {"refresh_token"},
			"refresh_token": {refreshToken.Reveal()},
		},
		uncut: true,
	}
}

func codeGrant(code Secret, verifier Secret, redirectURI string) grant {
	return grant{form: url.Values{
		"grant_type":    {"authorization_code"},
		"code":          {code.Reveal()},
		"code_verifier": {verifier.Reveal()}, // RFC 7636 §4.5
		"redirect_uri":  {redirectURI},
	}}
}

// deviceGrant is that of RFC 8628 §3.4. The client polls with it, so each request is sent
// once.
func deviceGrant(deviceCode Secret) grant {
	return grant{attempts: 1, form: url.Values{
		"grant_type":  {"urn:ietf:params:oauth:grant-type:device_code"},
		"device_code": {deviceCode.Reveal()},
	}}
}

// secrets are the values of a request that must not come back in an error.
func (c *Client) secrets(g grant) []string {
	secret := c.secret().Reveal()
	all := []string{secret}
	for _, name := range []string{"refresh_token", "code", "code_verifier", "token", "state", "device_code"} {
		if v := g.form.Get(name); v != "" {
			all = append(all, v)
		}
	}
	if secret != "" {
		// A server may quote the value of the Authorization header, with the padding or
		// without it.
		id := c.cfg.ClientID
		for _, credentials := range []string{id + ":" + secret, url.QueryEscape(id) + ":" + url.QueryEscape(secret)} {
			all = append(all, base64.RawStdEncoding.EncodeToString([]byte(credentials)))
		}
	}
	return all
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

// lostError marks a request that was sent, and whose response did not arrive
// whole.
type lostError struct{ err error }

func (e *lostError) Error() string {
	return "the response did not arrive whole: " + redact.Text(e.err.Error())
}
func (e *lostError) Unwrap() error { return e.err }

// exchange makes one token request, with as many attempts as it takes and the
// grant allows. On failure the error is an [*exchangeError], and the response can
// still hold a refresh token, which must then be kept.
func (c *Client) exchange(ctx context.Context, g grant) (tokenResponse, error) {
	policy := retry.Policy{Attempts: g.attempts}
	tell := g.tell
	if tell == nil {
		tell = c.emit
	}
	policy.Notify = func(attempt int, err error, wait time.Duration) {
		tell(Event{Kind: EventRetry, Attempt: attempt, Wait: wait, Err: err})
	}
	waits := ctx
	if !g.uncut {
		// Close cuts off no request, but there is none after it. A renewal's ctx ends then.
		var cancel context.CancelCauseFunc
		waits, cancel = context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(c.source.closing, func() { cancel(ErrClosed) })()
	}
	var uncertain, lost bool
	temporary := func(err error, after time.Duration) error {
		if g.attempts != 1 && !c.mayRetry() {
			return err
		}
		return retry.Temporary(err, after)
	}
	response, err := retry.Do(waits, policy, func(context.Context, int) (tokenResponse, error) {
		response, err := c.attempt(ctx, g)
		var held *heldError
		var server *ServerError
		var gone *lostError
		var unreachable *UnreachableError
		switch {
		case err == nil:
			return response, nil
		case errors.As(err, &held):
			return response, err // of another request: this one was not sent
		case errors.As(err, &gone):
			uncertain, lost = true, true
			if response.refreshToken == "" && g.repeatable {
				return response, temporary(err, 0)
			}
		case errors.As(err, &server):
			uncertain = uncertain || server.mayHaveSpent()
			if response.refreshToken == "" && server.Temporary() && (g.repeatable || !server.mayHaveSpent()) {
				return response, temporary(err, server.RetryAfter)
			}
		case errors.As(err, &unreachable) && unreachable.Temporary():
			return response, temporary(err, 0)
		}
		return response, err
	})
	if err != nil {
		if lost && !isRefusal(err) {
			err = fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
		}
		return response, &exchangeError{err, uncertain}
	}
	return response, nil
}

// mayHaveSpent reports whether the server may have processed the grant: it says
// that it succeeded, or something between us and the server gave up waiting, or
// it broke down.
func (e *ServerError) mayHaveSpent() bool {
	if e.Status < 300 {
		return e.Code == ""
	}
	return e.Status >= 500 && e.Status != http.StatusServiceUnavailable
}

// isRefusal reports whether the server said no, in so many words.
func isRefusal(err error) bool {
	var server *ServerError
	return errors.As(err, &server) && !server.Temporary() && (server.Status >= 300 || server.Code != "")
}

// maxChallenges is how many nonces in a row are answered. A server with several
// backends may give a new one each time.
const maxChallenges = 3

// attempt sends the request once; and again, with another proof, for refusals
// that spend nothing: the server wants another nonce, or our clock is wrong.
func (c *Client) attempt(ctx context.Context, g grant) (tokenResponse, error) {
	var rejected []clock.Instant // when the proofs were made that the server rejected
	var told dpop.Nonces         // by responses to this request: the origin may have more, for other endpoints
	for challenges := 0; ; {
		if err := c.awaitTurn(ctx, g); err != nil {
			return tokenResponse{}, err
		}
		b, err := c.begin(ctx, g, &told, len(rejected) == 0)
		if err != nil {
			return tokenResponse{}, err
		}
		response, newNonce, err := c.send(ctx, g, b, &told)
		c.heard(err)
		var server *ServerError
		if err == nil || c.cfg.DPoP == nil && c.assertions == nil || !errors.As(err, &server) || response.refreshToken != "" {
			return response, err
		}
		if g.uncut && challenges == 0 && len(rejected) == 0 {
			// The renewal is begun. A program that ends waits for one more round trip.
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), c.cfg.RequestTimeout)
			defer cancel()
		}
		switch {
		case server.Code == "use_dpop_nonce" && newNonce && challenges < maxChallenges:
			challenges++
		case c.blamesTime(server) && (c.betterProof(b, rejected) || len(rejected) == 0 && b.late(response)):
			rejected = append(rejected, b.made)
		default:
			return response, err
		}
	}
}

// A beginning is what a request starts from. Its proof says no more than what was known
// then: however long the process is paused before the request is sent, the proof is as
// old as the beginning, and so is its nonce.
type beginning struct {
	made  clock.Instant
	iat   time.Time // made, by the server's clock
	nonce string
	holds time.Duration // from made on, the right to send; forever without a lease
}

// begin looks at the lease of g, if it has one. The nonce is the one that was told last,
// or else the origin's newest. bounded says that the proof is not
// dated later than the store's clock says, which most likely is right: our own may be
// ahead, and what the server's shows is not known before its first response.
func (c *Client) begin(ctx context.Context, g grant, told *dpop.Nonces, bounded bool) (beginning, error) {
	b := beginning{made: c.clock.Now(), nonce: cmp.Or(told.Nonce(c.tokenURL), c.nonces.Nonce(c.tokenURL)), holds: forever}
	b.iat = b.made.Wall().Add(c.clocks.Correction(c.tokenURL, b.made.Wall()))
	if g.begin == nil {
		return b, nil
	}
	marked, holds, err := g.begin(ctx)
	if err != nil {
		return b, &StoreError{err}
	}
	if bounded && !marked.IsZero() && marked.Before(b.iat) {
		b.iat = marked.Round(0)
	}
	b.holds = holds
	return b, nil
}

// blamesTime reports whether the server may have rejected a proof, or the client's
// assertion, because of its time. Neither spends the grant.
func (c *Client) blamesTime(e *ServerError) bool {
	return e.Code == "invalid_dpop_proof" && c.cfg.DPoP != nil || e.Code == "invalid_client" && c.assertions != nil
}

// late reports whether the proof was so old when it was sent that this may be why
// the server rejected it.
func (b beginning) late(response tokenResponse) bool {
	return b.holds != forever && response.sent.Since(b.made) >= lateProof
}

// lateProof is less than any server accepts.
const lateProof = 5 * time.Second

// betterProof reports whether another proof can fare better than the rejected one,
// and those that were rejected before.
func (c *Client) betterProof(b beginning, rejected []clock.Instant) bool {
	now := c.clock.Now()
	// A second correction helps if our clock was set after the first look at a Date.
	if len(rejected) > 1 || len(rejected) == 1 && now.Set(rejected[0]).Abs() < time.Second {
		return false
	}
	return c.clocks.Rejected(c.tokenURL, b.iat, now.MonotonicSince(b.made), now.Wall())
}

// send makes one HTTP exchange with a proof of its own. newNonce reports whether the
// response has another nonce, which told is told.
func (c *Client) send(ctx context.Context, g grant, b beginning, told *dpop.Nonces) (_ tokenResponse, newNonce bool, _ error) {
	// Signing can wait for a person, so it is not part of the request's time.
	by, err := c.sign(ctx, c.tokenURL, c.cfg.DPoP != nil, b.nonce, b.iat)
	if err != nil {
		return tokenResponse{}, false, err
	}
	if ctx.Err() != nil {
		return tokenResponse{}, false, retry.Ended(ctx) // the person took too long
	}
	if b.holds != forever {
		if left := b.holds - c.clock.Now().Since(b.made); left < c.cfg.RequestTimeout {
			return tokenResponse{}, false, &StoreError{fmt.Errorf("%w: %v of it were left, and a request may take %v, so none was sent",
				errLeaseEnds, max(left, 0), c.cfg.RequestTimeout)}
		}
	}
	if g.uncut {
		ctx = context.Background()
	}
	ctx, cancel := patience(ctx, c.cfg.RequestTimeout)
	defer cancel()
	g.form = c.tokenRequest(g.form)
	sent := c.clock.Now()
	resp, err := c.post(ctx, c.tokenURL, g, by)
	if err != nil {
		return tokenResponse{}, false, err
	}
	body, err := readBody(ctx, resp)
	received := c.clock.Now()
	c.clocks.Learn(c.tokenURL, resp.Header, received.Wall(), received.MonotonicSince(sent))
	c.nonces.Learn(c.tokenURL, resp.Header)
	newNonce = told.Learn(c.tokenURL, resp.Header) && told.Nonce(c.tokenURL) != b.nonce
	response, err := c.parseResponse(resp, body, err, g)
	response.sent = sent // the life began when the server issued the token, not when we read it
	return response, newNonce, err
}

// signatures are what one attempt of a request is signed with.
type signatures struct {
	proof     string // of possession of the DPoP key; "" for none
	assertion string // of the client; "" for none
}

// sign makes the signatures of one attempt of a request to u.
func (c *Client) sign(ctx context.Context, u *url.URL, prove bool, nonce string, iat time.Time) (by signatures, err error) {
	if prove {
		by.proof, err = c.await(ctx, "the DPoP key", func() (string, error) {
			return c.cfg.DPoP.Proof(ctx, dpop.Claims{Method: http.MethodPost, URL: u.String(), Nonce: nonce, IssuedAt: iat})
		})
		if err != nil {
			return by, fmt.Errorf("oauth: %w", err)
		}
	}
	if c.assertions != nil {
		by.assertion, err = c.await(ctx, "the client key", func() (string, error) { return c.assertions.assertion(ctx, iat) })
		if err != nil {
			return by, &assertionError{err}
		}
	}
	return by, nil
}

// await waits for a signature for as long as ctx lasts. Not every signer learns that ctx has
// ended ([dpop.ContextSigner]): one that hangs is left to itself, so that it keeps neither
// the store's lock nor a caller, and is not asked again before it has returned.
func (c *Client) await(ctx context.Context, key string, sign func() (string, error)) (signed string, err error) {
	if ctx.Err() != nil {
		return "", retry.Ended(ctx)
	}
	select {
	case c.signing <- struct{}{}:
	case <-ctx.Done():
		return "", &dpop.SigningError{Err: fmt.Errorf("%w while an earlier signature was made: see what the signer of %s waits for", retry.Ended(ctx), key)}
	}
	type outcome struct {
		signed string
		err    error
	}
	made, done := make(chan outcome, 1), make(chan struct{})
	go func() {
		defer close(done)
		signed, err := sign()
		<-c.signing
		made <- outcome{signed, err}
	}()
	if !within(ctx, done) {
		return "", &dpop.SigningError{Err: fmt.Errorf("%w: see what the signer of %s waits for", retry.Ended(ctx), key)}
	}
	o := <-made
	return o.signed, o.err
}

// lateGrace is how long a response may still take after the process was stopped
// while it waited.
const lateGrace = time.Second

// patience is [context.WithTimeout] for a process that may be stopped (SIGSTOP, a
// debugger, a frozen container): the timer of such a process fires at the instant
// it goes on, before it can read the response that has been waiting for it.
func patience(parent context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	start := time.Now()
	var mu sync.Mutex
	var timer *time.Timer
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(timeout, func() {
		if time.Since(start)-timeout > lateGrace/4 {
			mu.Lock()
			timer = time.AfterFunc(lateGrace, func() { cancel(context.DeadlineExceeded) })
			mu.Unlock()
			return
		}
		cancel(context.DeadlineExceeded)
	})
	return patientContext{ctx}, func() {
		mu.Lock()
		timer.Stop()
		mu.Unlock()
		cancel(context.Canceled)
	}
}

// patientContext says "deadline exceeded" as a context with a deadline does.
type patientContext struct{ context.Context }

func (c patientContext) Err() error {
	if err := c.Context.Err(); err == nil || context.Cause(c.Context) != context.DeadlineExceeded { //nolint:errorlint // the very value
		return err
	}
	return context.DeadlineExceeded
}

// errLeaseEnds names the remedy for a lease that always is too short.
var errLeaseEnds = errors.New("the lease of the session ends too soon, and must be longer than Config.RequestTimeout")

// post sends a request with the client's authentication. Its error is an
// [*UnreachableError] or a [*lostError].
func (c *Client) post(ctx context.Context, u *url.URL, g grant, by signatures) (*http.Response, error) {
	form := cloneValues(g.form)
	header := http.Header{
		"Content-Type": {"application/x-www-form-urlencoded"},
		"Accept":       {"application/json"},
		"User-Agent":   {c.cfg.UserAgent},
	}
	c.authenticate(form, header, by.assertion)
	if by.proof != "" {
		header.Set("DPoP", by.proof)
	}
	secrets := c.secrets(g)
	var wrote, dialed atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn:      func(string) { dialed.Store(true) },
		WroteHeaders: func() { wrote.Store(true) },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), strings.NewReader(form.Encode()))
	if err != nil {
		return nil, &UnreachableError{redacted(err, secrets)}
	}
	req.Header = header
	resp, err := c.http.Do(req)
	switch {
	case err == nil:
		return resp, nil
	case !wrote.Load() && (dialed.Load() || isDialError(err)):
		return nil, &UnreachableError{redacted(err, secrets)}
	}
	return nil, &lostError{redacted(err, secrets)}
}

// redacted is an error of a transport, which may quote what it was to send.
func redacted(err error, secrets []string) error {
	return &redactedError{redact.Text(brief(err.Error()), secrets...), func() error { return err }}
}

// redactedError keeps the error itself where fmt cannot follow.
type redactedError struct {
	text string
	err  func() error
}

func (e *redactedError) Error() string { return e.text }
func (e *redactedError) Unwrap() error { return e.err() }

func isDialError(err error) bool {
	var op *net.OpError
	var dns *net.DNSError
	return errors.As(err, &op) && op.Op == "dial" || errors.As(err, &dns)
}

// Temporary reports whether the same request can succeed later without anybody
// doing anything. A certificate that does not verify is not temporary.
func (e *UnreachableError) Temporary() bool {
	var certificate *tls.CertificateVerificationError
	return !errors.As(e.Err, &certificate)
}

// readBody reads the whole body of a response to a request with ctx, up to [wire.MaxBody],
// and closes it. With an error, it returns as much as there was.
//
// Package net/http ends the reading of a body when ctx ends, but other transports need not,
// and after 101 (Switching Protocols) the body is the connection itself, which never ends.
func readBody(ctx context.Context, resp *http.Response) ([]byte, error) {
	defer resp.Body.Close()
	if resp.StatusCode < http.StatusOK {
		return nil, errNotFinal
	}
	defer context.AfterFunc(ctx, func() { resp.Body.Close() })()
	body, err := io.ReadAll(io.LimitReader(resp.Body, wire.MaxBody+1))
	switch {
	case err == nil && len(body) > wire.MaxBody:
		err = wire.ErrTooLarge
	case err != nil && ctx.Err() != nil && !errors.Is(err, ctx.Err()):
		err = fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return body, err
}

var errNotFinal = errors.New("its status is not that of a response to the request")

// authenticate adds the client's identity to a request (RFC 6749 §2.3.1, §3.2.1).
func (c *Client) authenticate(form url.Values, header http.Header, assertion string) {
	id, secret := c.cfg.ClientID, c.secret().Reveal()
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
	case AuthPrivateKeyJWT:
		form.Set("client_assertion_type", assertionType)
		form.Set("client_assertion", assertion)
		fallthrough // "client_id" is "unnecessary", but not forbidden (RFC 7521 §4.2), and servers look for it first
	default:
		form.Set("client_id", id)
	}
}
