package refreshtoken

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/ycauth/ycauth-go/internal/retry"
	"github.com/ycauth/ycauth-go/internal/tokenapi"
)

// Revoke starts to revoke the refresh tokens that t selects (Yandex Cloud IAM API,
// RefreshToken.Revoke). It does not wait for the end; call
// [RevokeOperation.Wait] for that.
//
// All attempts of one Revoke carry the same idempotency key, so retries are safe. If
// Revoke fails with a [*TransportError] or
// [ErrUnavailable], the tokens may or may not be revoked: see
// [Target.WithIdempotencyKey], or revoke them again.
//
// The error is an [*ArgumentError], an [*APIError] (which wraps [ErrGone] if the
// refresh token does not exist), a [*ResponseError] or a [*TransportError]; none
// contains a refresh token.
func (c *Client) Revoke(ctx context.Context, t Target) (*RevokeOperation, error) {
	req, err := t.request()
	if err != nil {
		return nil, err
	}
	key := t.idempotencyKey
	if key == "" {
		key = newUUID()
	}
	clean, asked := cleanerOf(t.secret), t.question()
	state, err := call(ctx, c, methodRevoke, clean, func(ctx context.Context, call tokenapi.Call) (*judged, error) {
		call.IdempotencyKey = key
		return asked.judge(c.transport.Revoke(ctx, call, req))
	}, cleanOperation)
	if err != nil {
		var api *APIError
		if errors.As(err, &api) {
			api.gone = asked.gone(api)
		}
		return nil, err
	}
	return c.newOperation(methodRevoke, "", state, asked, clean)
}

// Operation returns the revocation with an ID from [RevokeOperation.ID],
// for example to wait for it in another process. The ID has at most 256
// characters: ASCII letters, digits, "-" and "_". If it is the ID of a different
// kind of operation, [RevokeOperation.Wait] returns a [*ResponseError], provided that the
// response of the operation has an "@type".
//
// The error is an [*ArgumentError], an [*APIError], a [*ResponseError] or a
// [*TransportError].
func (c *Client) Operation(ctx context.Context, id string) (*RevokeOperation, error) {
	if reason := wrongOperationID(id); reason != "" {
		return nil, &ArgumentError{"operation ID", reason + ": it takes the ID of a RevokeOperation"}
	}
	clean := cleanerOf(noSecret)
	state, err := c.operation(ctx, id, question{}, clean)
	if err != nil {
		return nil, err
	}
	return c.newOperation(methodOperation, id, state, question{}, clean)
}

func (c *Client) operation(ctx context.Context, id string, asked question, clean cleaner) (*judged, error) {
	return call(ctx, c, methodOperation, clean, func(ctx context.Context, call tokenapi.Call) (*judged, error) {
		return asked.judge(c.transport.Operation(ctx, call, id))
	}, cleanOperation)
}

func (c *Client) newOperation(method, id string, state *judged, asked question, clean cleaner) (*RevokeOperation, error) {
	op := &RevokeOperation{client: c, asked: asked, clean: clean, polling: make(chan struct{}, 1)}
	if err := op.update(method, id, state); err != nil {
		return nil, err
	}
	return op, nil
}

// A RevokeOperation is a revocation in progress or completed at the server. It is
// safe for concurrent use.
type RevokeOperation struct {
	client *Client
	asked  question
	clean  cleaner

	polling chan struct{} // holds a value while a Wait polls

	mu    sync.Mutex
	state judged // valid: see [contradiction]
}

// RevokeResult is the result of a revocation.
type RevokeResult struct {
	// OperationID is the ID of the operation.
	OperationID string
	// SubjectID is the account whose tokens were revoked; "" if the server did
	// not send it.
	SubjectID string
	// RefreshTokenIDs are the revoked tokens. There are none if the
	// filter matched none.
	RefreshTokenIDs []string
	// Trace holds the identifiers that the server gave the last exchange.
	Trace
}

// ID returns the ID for [Client.Operation]. It may be empty if the
// operation was done at once.
func (op *RevokeOperation) ID() string { return op.status().ID }

// Done reports whether the operation is known to have ended. It sends no request.
func (op *RevokeOperation) Done() bool {
	state := op.status()
	return ended(&state.operation)
}

// status is the operation as the server last described it.
func (op *RevokeOperation) status() judged {
	op.mu.Lock()
	defer op.mu.Unlock()
	return op.state
}

// Wait polls the operation until it ends, and returns its result. If the operation is
// known to have ended, Wait returns at once, with the same result each
// time. Wait may be called again after an error, and by several goroutines.
//
// If the operation failed, the error is an [*APIError] with its OperationID, which wraps
// [ErrGone] if the refresh token does not exist. It is a [*ResponseError] if the operation
// succeeded without listing the refresh token of [ByID], or any for [ByToken], or was not
// a revocation. The target of a revocation from [Client.Operation] is
// not known, so its error never wraps ErrGone, and its result may list any tokens, or
// none. If ctx is done first, a [*TransportError] wraps its error, and the operation
// continues at the server. If a poll fails, the error is one of [Client.Operation].
func (op *RevokeOperation) Wait(ctx context.Context) (*RevokeResult, error) {
	if state := op.status(); ended(&state.operation) {
		return op.outcome(&state)
	}
	select {
	case op.polling <- struct{}{}: // one at a time is enough for all who wait
		defer func() { <-op.polling }()
	case <-ctx.Done():
		return nil, op.interrupted(ctx)
	}
	waits := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(op.client.polling.Initial),
		backoff.WithMaxInterval(op.client.polling.Max),
		backoff.WithMaxElapsedTime(0),
	)
	for {
		// Asked again here: another Wait may have seen the end.
		if state := op.status(); ended(&state.operation) {
			return op.outcome(&state)
		}
		// Jitter reaches half above the interval: it must not exceed Max either.
		if !sleep(ctx, min(waits.NextBackOff(), op.client.polling.Max)) {
			return nil, op.interrupted(ctx)
		}
		if err := op.poll(ctx); err != nil {
			return nil, err
		}
	}
}

func (op *RevokeOperation) poll(ctx context.Context) error {
	id := op.ID()
	state, err := op.client.operation(ctx, id, op.asked, op.clean)
	if err != nil {
		return err
	}
	return op.update(methodOperation, id, state)
}

// update takes over what the server says, if it makes sense. The server was asked
// for the operation with an ID, or for a new one where that is "".
func (op *RevokeOperation) update(method, id string, state *judged) error {
	reason := contradiction(&state.operation)
	if reason == "" && id != "" && state.ID != id {
		reason = "the response is about another operation"
	}
	if reason != "" {
		return &ResponseError{Method: method, Reason: reason, Trace: Trace(state.Trace)}
	}
	if state.Err != nil {
		state.Err.OperationID, state.Err.Trace, state.Err.ofOperation = state.ID, Trace(state.Trace), true
		state.Err.complete(methodRevoke, op.clean)
		state.Err.gone = op.asked.gone(state.Err) && !state.foreign
	}
	op.mu.Lock()
	defer op.mu.Unlock()
	op.state = *state
	return nil
}

func (op *RevokeOperation) interrupted(ctx context.Context) error {
	return &TransportError{Method: methodWait, Err: fmt.Errorf("operation %q has not ended yet: %w", op.ID(), retry.Ended(ctx))}
}

// contradiction says how the state contradicts the description of Operation in the
// Yandex Cloud API documentation; "" when it does not:
//
//	If done == false and there was no failure detected, neither error nor response is set.
//	If done == false and there was a failure detected, error is set.
//	If done == true, exactly one of error or response is set.
func contradiction(o *operation) string {
	switch {
	case o.Err != nil && o.Response != nil:
		return "the operation has both an error and a response"
	case o.Done && o.Err == nil && o.Response == nil:
		return "the operation is done, but has neither an error nor a response: list the refresh tokens to see what it did"
	case !o.Done && o.Response != nil:
		return "the operation has a response, but is not done"
	case !ended(o) && wrongOperationID(o.ID) != "":
		return "the operation cannot be waited for: its ID " + wrongOperationID(o.ID)
	}
	return ""
}

// ended reports whether the state is final. An error is, before Done as well.
func ended(o *operation) bool { return o.Done || o.Err != nil }

func (op *RevokeOperation) outcome(o *judged) (*RevokeResult, error) {
	if o.Err != nil {
		return nil, o.Err
	}
	if reason := op.asked.unanswered(o); reason != "" {
		return nil, &ResponseError{Method: methodRevoke, Reason: reason, Trace: Trace(o.Trace)}
	}
	return &RevokeResult{
		OperationID:     o.ID,
		SubjectID:       o.Metadata.SubjectID,
		RefreshTokenIDs: slices.Clone(o.Response.RefreshTokenIDs),
		Trace:           Trace(o.Trace),
	}, nil
}

// sleep reports whether d passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
