package refreshtoken

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ycauth/ycauth-go/internal/tokenapi"
)

// Revoke starts to revoke the refresh tokens that t selects (Yandex Cloud IAM API,
// RefreshToken.Revoke), and returns without waiting for the end:
// [RevokeOperation.Wait] does.
//
// All attempts of one Revoke carry the same idempotency key, so it may safely be
// retried, and is. Where it fails for good with a [*TransportError] or with
// [ErrUnavailable], whether the tokens are revoked is unknown: see
// [Target.WithIdempotencyKey], or revoke them again.
//
// The error is an [*ArgumentError], an [*APIError] (which wraps [ErrGone] where the
// refresh token does not exist), a [*ResponseError] or a [*TransportError]; none
// holds a refresh token.
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
	state, err := call(ctx, c, methodRevoke, clean, func(ctx context.Context, call tokenapi.Call) (*operation, error) {
		call.IdempotencyKey = key
		return c.transport.Revoke(ctx, call, req)
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

// Operation returns the revocation with an ID, as [RevokeOperation.ID] told it
// before, to wait for its end in another process for example. The ID has at most 256
// characters, all of them ASCII letters, digits, "-" and "_".
//
// The error is an [*ArgumentError], an [*APIError], a [*ResponseError] or a
// [*TransportError].
func (c *Client) Operation(ctx context.Context, id string) (*RevokeOperation, error) {
	if reason := wrongOperationID(id); reason != "" {
		return nil, &ArgumentError{"operation ID", reason + ": it takes the ID of a RevokeOperation"}
	}
	clean := cleanerOf(noSecret)
	state, err := c.operation(ctx, id, clean)
	if err != nil {
		return nil, err
	}
	return c.newOperation(methodOperation, id, state, question{}, clean)
}

func (c *Client) operation(ctx context.Context, id string, clean cleaner) (*operation, error) {
	return call(ctx, c, methodOperation, clean, func(ctx context.Context, call tokenapi.Call) (*operation, error) {
		return c.transport.Operation(ctx, call, id)
	}, cleanOperation)
}

func (c *Client) newOperation(method, id string, state *operation, asked question, clean cleaner) (*RevokeOperation, error) {
	op := &RevokeOperation{client: c, asked: asked, clean: clean, polling: make(chan struct{}, 1)}
	if err := op.update(method, id, state); err != nil {
		return nil, err
	}
	return op, nil
}

// maxOperationID is far above the length of any ID in the cloud. The API states
// no limit, but the ID becomes a part of a URL.
const maxOperationID = 256

// wrongOperationID says why an ID must not become a segment of a path; "" when it
// may. An ID comes from outside, and a request carries credentials, so it must not
// lead to another resource or to another method: {id}:cancel is one of the operation
// service. The IDs of the cloud are letters and digits.
func wrongOperationID(id string) string {
	switch {
	case id == "":
		return "is empty"
	case len(id) > maxOperationID:
		return fmt.Sprintf("is longer than %d bytes", maxOperationID)
	case strings.Trim(id, operationIDCharacters) != "":
		return "holds a character other than letters of ASCII, digits, - and _"
	}
	return ""
}

const operationIDCharacters = "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
