package oauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/internal/retry"
	"github.com/ycauth/ycauth-go/internal/wire"
)

// An endpoint is one other than the token endpoint. A request to it spends nothing, so it
// can be repeated, also if the response was lost.
type endpoint struct {
	url    *url.URL
	field  string // of the Config that has the URL
	proved bool   // its requests carry DPoP proofs
	status bool   // the status of a success says everything

	// parse reads the body of a success. Its error means that the body is malformed, unless
	// it is an error of the server. Not called with status.
	parse func(body []byte) error
}

// call posts a form with the client's authentication, and returns the body of a response
// with status 200 or 201.
func (c *Client) call(ctx context.Context, e endpoint, form url.Values) ([]byte, error) {
	policy := retry.Policy{Attempts: c.cfg.MaxAttempts}
	policy.Notify = func(attempt int, err error, wait time.Duration) {
		c.emit(Event{Kind: EventRetry, Attempt: attempt, Wait: wait, Err: err})
	}
	return retry.Do(ctx, policy, func(context.Context, int) ([]byte, error) {
		body, err := c.callOnce(ctx, e, grant{form: form})
		var server *ServerError
		var unreachable *UnreachableError
		var lost *lostError
		switch {
		case err == nil || ctx.Err() != nil || !c.mayRetry():
		case errors.As(err, &server) && server.Temporary():
			err = retry.Temporary(err, server.RetryAfter)
		case errors.As(err, &unreachable) && unreachable.Temporary(), errors.As(err, &lost):
			err = retry.Temporary(err, 0)
		}
		return body, err
	})
}

// callOnce sends the request once; and again, with other signatures, if the server wants
// another nonce, or our clock is wrong.
func (c *Client) callOnce(ctx context.Context, e endpoint, g grant) ([]byte, error) {
	var told dpop.Nonces
	corrected := false
	for challenges := 0; ; {
		if err := c.awaitTurn(ctx, g); err != nil {
			return nil, err
		}
		made := c.clock.Now()
		iat := made.Wall().Add(c.clocks.Correction(e.url, made.Wall()))
		nonce := cmp.Or(told.Nonce(e.url), c.nonces.Nonce(e.url))
		body, newNonce, err := c.callWith(ctx, e, g, iat, nonce, &told)
		c.heard(err)
		var server *ServerError
		if err == nil || !errors.As(err, &server) {
			return body, err
		}
		now := c.clock.Now()
		switch {
		case server.Code == "use_dpop_nonce" && c.cfg.DPoP != nil && e.proved && newNonce && challenges < maxChallenges:
			challenges++
		case c.blamesTime(server) && !corrected && c.clocks.Rejected(e.url, iat, now.MonotonicSince(made), now.Wall()):
			corrected = true
		default:
			return nil, err
		}
	}
}

// callWith makes one HTTP exchange. newNonce reports whether the response has another
// nonce, which told is told.
func (c *Client) callWith(ctx context.Context, e endpoint, g grant, iat time.Time, nonce string, told *dpop.Nonces) (_ []byte, newNonce bool, _ error) {
	by, err := c.sign(ctx, e.url, c.cfg.DPoP != nil && e.proved, nonce, iat)
	if err != nil {
		return nil, false, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.RequestTimeout)
	defer cancel()
	sent := c.clock.Now()
	resp, err := c.post(ctx, e.url, g, by)
	if err != nil {
		return nil, false, err
	}
	body, err := readBody(ctx, resp)
	received := c.clock.Now()
	c.clocks.Learn(e.url, resp.Header, received.Wall(), received.MonotonicSince(sent))
	c.nonces.Learn(e.url, resp.Header)
	newNonce = told.Learn(e.url, resp.Header) && told.Nonce(e.url) != nonce
	switch {
	case resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusCreated:
		return nil, newNonce, parseRefusal(resp, body, err, e.field, c.secrets(g))
	case e.status:
		return nil, newNonce, nil
	case errors.Is(err, wire.ErrTooLarge):
		return nil, newNonce, malformed(resp.StatusCode, err)
	case err != nil:
		return nil, newNonce, &lostError{redacted(err, c.secrets(g))}
	}
	if err := e.parse(body); err != nil {
		if refusal := parseRefusal(resp, body, nil, e.field, c.secrets(g)); refusal.Code != "" {
			return nil, newNonce, refusal // some servers send their errors with status 200
		}
		return nil, newNonce, malformed(resp.StatusCode, err)
	}
	return body, newNonce, nil
}

// malformed is a success that is not what the RFC describes.
func malformed(status int, err error) *ServerError {
	return &ServerError{Status: status, Err: fmt.Errorf("%w: %w", ErrMalformedResponse, err)}
}
