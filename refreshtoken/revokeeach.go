package refreshtoken

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ycauth/ycauth-go/internal/retry"
)

// Bounds and defaults of [RevokeEachOptions].
const (
	defaultConcurrency = 4
	maxConcurrency     = 32
	// defaultTimeout is longer than the attempts of a request that obeys the longest
	// Retry-After of the default [RetryPolicy] each time.
	defaultTimeout = 2 * time.Minute
)

// RevokeEachOptions configures [Client.RevokeEach].
type RevokeEachOptions struct {
	// DryRun sends nothing, and reports the tokens that would be revoked.
	// Optional. Default: false.
	DryRun bool
	// Concurrency is how many tokens are revoked at a time, at most 32.
	// Optional. Default: 4.
	Concurrency int
	// Timeout bounds the time for one token: its request with its retries, and the wait
	// for its operation. A token that takes longer, or would because the server asks with
	// a Retry-After to wait, is one of Failed, with an error that wraps
	// [context.DeadlineExceeded], and its operation goes on at the server. A RoundTripper
	// that ignores cancellation is waited for even so.
	// Optional. Default: 2 minutes.
	Timeout time.Duration
	// Progress is called after each token, by the goroutine that called RevokeEach. No
	// token is begun until it returns. If it panics, RevokeEach panics after the tokens in
	// progress, which it interrupts, have ended. Optional.
	Progress func(RevokeProgress)
}

// RevokeProgress is the outcome of one token.
type RevokeProgress struct {
	// ID is that of the token.
	ID string
	// Err is why the token was not revoked; nil if it was, or would be.
	Err error
	// Done is the number of tokens so far, including this one, and Total that of all.
	Done, Total int
}

// RevokeReport is the outcome of all tokens. Each ID is in one of the lists, in
// the order in which they were passed.
type RevokeReport struct {
	// DryRun means that Revoked are the tokens that would be revoked.
	DryRun bool
	// Revoked are the tokens that the service reported as revoked.
	Revoked []string
	// Gone are the tokens that no longer exist ([ErrGone]), because they expired
	// or were revoked before.
	Gone []string
	// Failed are the tokens that may still exist.
	Failed []RevokeFailure
	// NotTried are the tokens that were not attempted, because ctx ended or every
	// attempt would have failed the same way.
	NotTried []string
}

// RevokeFailure is a token that could not be revoked, and why.
type RevokeFailure struct {
	ID  string
	Err error
}

// Err joins the errors of Failed; nil if there are none. It does not report tokens in
// NotTried; the error of [Client.RevokeEach] says why they were not tried.
func (r *RevokeReport) Err() error {
	var errs []error
	for _, f := range r.Failed {
		errs = append(errs, fmt.Errorf("%q: %w", f.ID, f.Err))
	}
	return errors.Join(errs...)
}

// RevokeEach revokes refresh tokens by their IDs, several at a time, and waits for
// each. Review a dry run first.
//
// It continues if a token fails: see [RevokeReport]. It stops early if ctx is
// done, or if all tokens would fail in the same way: credentials are missing or
// rejected (a request that failed with [ErrUnauthenticated]; an operation that ended with
// it counts as the failure of one token), or the server asks with a Retry-After to wait
// for longer than the [RetryPolicy] allows or after the last attempt. Then it returns that
// error and the report so far. An [*ArgumentError], with a nil report, means that nothing
// was sent; it gives the index of an ID that is empty or too long. Duplicate IDs count
// once.
func (c *Client) RevokeEach(ctx context.Context, ids []string, opts RevokeEachOptions) (*RevokeReport, error) {
	ids, err := distinct(ids)
	if err != nil {
		return nil, err
	}
	if opts.Concurrency < 0 || opts.Concurrency > maxConcurrency {
		return nil, &ArgumentError{"RevokeEachOptions.Concurrency", fmt.Sprintf("is %d, but may be 0 to %d", opts.Concurrency, maxConcurrency)}
	}
	if opts.Concurrency == 0 {
		opts.Concurrency = defaultConcurrency
	}
	if opts.Timeout < 0 {
		return nil, &ArgumentError{"RevokeEachOptions.Timeout", "is negative: 0 means 2 minutes, and ctx bounds the whole batch"}
	}
	if opts.Timeout == 0 {
		opts.Timeout = defaultTimeout
	}
	if c.err != nil {
		return nil, c.err
	}
	b := &batch{client: c, opts: opts, ids: ids, outcomes: make([]outcome, len(ids))}
	b.run(ctx)
	return b.report(), b.fatal
}

// distinct are the IDs without repetition. A wrong one is found before anything
// is sent.
func distinct(ids []string) ([]string, error) {
	var out []string
	seen := map[string]bool{}
	for i, id := range ids {
		if err := checkTokenID(fmt.Sprintf("ids[%d]", i), id); err != nil {
			return nil, err
		}
		if !seen[id] {
			seen[id] = true
			out = append(out, id)
		}
	}
	return out, nil
}

// A batch is one RevokeEach under way. Only the goroutine that called it changes the batch.
type batch struct {
	client *Client
	opts   RevokeEachOptions
	ids    []string

	next     int       // in ids, of the token to begin with next
	done     int       // tokens
	outcomes []outcome // by the index in ids
	fatal    error     // why nothing more is begun
}

type outcome struct {
	tried bool
	err   error
}

// tried is a token that was, and its error.
type tried struct {
	i   int
	err error
}

func (b *batch) run(ctx context.Context) {
	results, running := make(chan tried), 0
	// Progress can leave this goroutine with a panic or runtime.Goexit. Nothing outlives it.
	defer func() {
		for ; running > 0; running-- {
			<-results
		}
	}()
	tokens, cancel := context.WithCancel(ctx)
	defer cancel()
	for {
		for running < b.opts.Concurrency && b.more(ctx) {
			i := b.next
			b.next++
			running++
			go func() {
				r := tried{i, &TransportError{Method: methodRevoke, Err: errGoexit}}
				defer func() { results <- r }()
				r.err = b.revoke(tokens, b.ids[i])
			}()
		}
		if running == 0 {
			return
		}
		r := <-results
		running--
		b.ended(ctx, r)
	}
}

// errGoexit is the error of a RoundTripper that does not return, such as one that calls
// FailNow of a test.
var errGoexit = errors.New("the RoundTripper ended its goroutine")

// more reports whether there is a token to begin with.
func (b *batch) more(ctx context.Context) bool {
	if b.fatal == nil && ctx.Err() != nil && b.next < len(b.ids) {
		b.fatal = interrupted(ctx)
	}
	return b.fatal == nil && b.next < len(b.ids)
}

func (b *batch) revoke(ctx context.Context, id string) error {
	if b.opts.DryRun {
		return nil
	}
	client := *b.client
	if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > b.opts.Timeout {
		// The next token is not tried sooner because this one cannot wait for so long as
		// the server asks. If ctx itself ends first, there is nothing to wait for.
		client.retry.UntilDeadline = true
	}
	ctx, cancel := context.WithTimeoutCause(ctx, b.opts.Timeout, errTokenTimeout)
	defer cancel()
	op, err := client.Revoke(ctx, ByID(id))
	if err != nil {
		return err
	}
	_, err = op.Wait(ctx)
	return err
}

// errTokenTimeout is the cause of the end of [RevokeEachOptions] Timeout.
var errTokenTimeout = errors.New("the Timeout of RevokeEachOptions has passed")

func interrupted(ctx context.Context) error {
	return &TransportError{Method: methodRevokeEach, Err: retry.Ended(ctx)}
}

func (b *batch) ended(ctx context.Context, r tried) {
	b.outcomes[r.i] = outcome{true, r.err}
	b.done++
	switch {
	case b.fatal != nil:
	case ctx.Err() != nil && errors.Is(r.err, ctx.Err()): // what else it wraps came before
		b.fatal = interrupted(ctx)
	case hopeless(r.err):
		b.fatal = r.err
	}
	if b.opts.Progress != nil {
		b.opts.Progress(RevokeProgress{ID: b.ids[r.i], Err: r.err, Done: b.done, Total: len(b.ids)})
	}
}

// hopeless reports whether the failure of one token would be that of every other. An
// operation that ended as unauthenticated is not: the request to start it was accepted.
// A server that asks to wait does not mean one token, but the time for one token that has
// passed is that of no other.
func hopeless(err error) bool {
	var api *APIError
	var transport *TransportError
	switch {
	case errors.Is(err, errTokenTimeout):
		return false
	case errors.As(err, &api):
		return !api.ofOperation && (api.Code == CodeUnauthenticated || api.RetryAfter > 0 && api.temporary())
	case errors.As(err, &transport):
		return !transport.Temporary
	}
	return false
}

func (b *batch) report() *RevokeReport {
	r := &RevokeReport{DryRun: b.opts.DryRun}
	for i, id := range b.ids {
		switch o := b.outcomes[i]; {
		case !o.tried:
			r.NotTried = append(r.NotTried, id)
		case o.err == nil:
			r.Revoked = append(r.Revoked, id)
		case errors.Is(o.err, ErrGone):
			r.Gone = append(r.Gone, id)
		default:
			r.Failed = append(r.Failed, RevokeFailure{id, o.err})
		}
	}
	return r
}
