package refreshtoken

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/ycauth/ycauth-go/internal/retry"
	"github.com/ycauth/ycauth-go/internal/tokenapi"
)

// A Client lists and revokes refresh tokens. It is safe for concurrent use and does
// not need to be closed.
type Client struct {
	transport transport
	retry     retry.Policy
	polling   Polling
	logger    *slog.Logger
	traceID   string
	err       error // a mistake in the options: every call returns it
}

// NewClient returns a Client that uses REST. hc must add the
// Authorization header, as the HTTPClient of an oauth.Client does. One of
// oauth2.NewClient keeps sending a token that the service has rejected. hc is copied and
// not modified; the copy does not follow redirects. hc.Timeout bounds each attempt, not
// a call with its retries.
//
// NewClient never fails. If an option is invalid, every
// call of the Client returns an [*ArgumentError].
func NewClient(hc *http.Client, opts ...Option) *Client {
	cfg := newConfig(opts)
	iam, operation, userAgent, err := cfg.restSettings()
	return newClient(newREST(hc, iam, operation, userAgent), cfg, err)
}

// transport is what carries the calls of a Client, and operation what it is told.
type (
	transport = tokenapi.Transport[Page, APIError]
	operation = tokenapi.Operation[APIError]
)

// New returns a Client with a transport other than REST. It is for the modules of this
// repository; programs call [NewClient], or the NewClient of package grpctransport.
// Options that are for REST only are invalid.
func New(t tokenapi.Transport[Page, APIError], opts ...Option) *Client {
	cfg := newConfig(opts)
	err := cfg.onlyREST()
	if t == nil {
		err = &ArgumentError{"the transport", "is nil: use NewClient for REST"}
	}
	return newClient(t, cfg, err)
}

func newClient(t transport, cfg *config, err error) *Client {
	if err == nil {
		err = checkHeader("WithTraceID", cfg.traceID.value)
	}
	return &Client{
		transport: t,
		retry:     cfg.retryPolicy(),
		polling:   cfg.polling,
		logger:    cfg.logger,
		traceID:   cfg.traceID.value,
		err:       err,
	}
}

// call makes one request in as many attempts as it takes.
func call[T any](ctx context.Context, c *Client, method string, clean cleaner, send func(context.Context, tokenapi.Call) (*T, error), fit func(context.Context, *T, cleaner) error) (*T, error) {
	if c.err != nil {
		return nil, c.err
	}
	// Looked at before anything else: a token source would go and fetch a token
	// for a request that is not going to be made.
	if err := ctx.Err(); err != nil {
		return nil, &TransportError{Method: method, Err: retry.Ended(ctx)}
	}
	policy := c.retry
	policy.Notify = func(attempt int, err error, wait time.Duration) {
		c.logger.DebugContext(ctx, "refreshtoken: request failed, trying again",
			"method", method, "attempt", attempt, "wait", wait, "error", err)
	}
	return retry.Do(ctx, policy, func(ctx context.Context, _ int) (*T, error) {
		v, err := send(ctx, tokenapi.Call{ClientRequestID: newUUID(), ClientTraceID: c.traceID, Clean: clean})
		if err == nil {
			err = fit(ctx, v, clean)
		}
		if err == nil {
			return v, nil
		}
		err = explain(err, method, clean)
		if after, again := temporary(err); again {
			err = retry.Temporary(err, after)
		}
		return nil, err
	})
}

// newUUID is a random UUID (RFC 9562 §5.4, version 4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
