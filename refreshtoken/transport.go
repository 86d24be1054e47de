package refreshtoken

import (
	"context"
	"time"
)

// A Transport carries the calls of a [Client] over one protocol. It is called by
// a Client only, which does the rest above it: checks of the arguments, retries,
// paging, waiting, and keeping credentials out of errors. So a Transport makes
// one exchange for each call, and keeps no state between them.
//
// A failure that the service reports is an [*APIError] with its texts as they
// came, a response that does not follow the API a [*ResponseError], and an
// exchange without a response a [*TransportError]. The Client fills in their
// Method, and takes secrets out of their texts and out of the [Trace], which is as
// the server sent it. [ErrNotFound] is only for a google.rpc.Status that a server sent, with its
// details, because a Client may conclude from them that a refresh token is gone: see
// [ErrGone].
//
// A Transport is safe for concurrent use. Most users take the one behind
// [NewClient].
type Transport interface {
	// List fetches one page.
	List(ctx context.Context, call Call, req ListRequest) (*Page, error)
	// Revoke starts a revocation.
	Revoke(ctx context.Context, call Call, req RevokeRequest) (*Operation, error)
	// Operation fetches the state of an operation.
	Operation(ctx context.Context, call Call, id string) (*Operation, error)
}

// Call is what an exchange carries beside its request.
type Call struct {
	// ClientRequestID (x-client-request-id) is new for every exchange.
	ClientRequestID string
	// ClientTraceID (x-client-trace-id) is the same for all exchanges of a Client.
	ClientTraceID string
	// IdempotencyKey (idempotency-key) is the same for all attempts of one Revoke.
	// It is "" for the other calls.
	IdempotencyKey string

	clean cleaner // of what the server sends
}

// ListRequest is ListRefreshTokensRequest. Its limits are kept.
type ListRequest struct {
	SubjectID string // "" means the caller
	PageSize  int    // 0 means the server's default
	PageToken string // "" means the first page
	Filter    string // an expression, "" means every token
}

// RevokeRequest is RevokeRefreshTokenRequest. Exactly one member is set, and its
// limits are kept. A RevokeFilter that is set and has no condition selects every
// token of the caller, and has to be sent as it is.
type RevokeRequest struct {
	RefreshTokenID string
	RefreshToken   Secret
	RevokeFilter   *RevokeFilter
}

// Operation is the state of a revocation (Yandex Cloud, Operation, with
// RevokeRefreshTokenMetadata and RevokeRefreshTokenResponse).
type Operation struct {
	// ID names the operation: see [Client.Operation].
	ID string
	// Description is a text for people. It may be empty.
	Description string
	// CreatedAt is when the operation was created; zero when the server did not say.
	CreatedAt time.Time
	// CreatedBy is the account that started the operation.
	CreatedBy string
	// ModifiedAt is when the operation last changed; zero when the server did not say.
	ModifiedAt time.Time
	// Done says that the operation has ended.
	Done bool
	// Metadata tells what the operation works on.
	Metadata RevokeMetadata
	// Err is set where the operation failed. That ends it, Done or not.
	Err *APIError
	// Response is set where the operation succeeded.
	Response *RevokeResponse
	// Trace holds the identifiers that the server gave the exchange.
	Trace
}

// RevokeMetadata is RevokeRefreshTokenMetadata.
type RevokeMetadata struct {
	// SubjectID is the account whose tokens are revoked.
	SubjectID string
	// RefreshTokenIDs are the tokens that are being revoked.
	RefreshTokenIDs []string
}

// RevokeResponse is RevokeRefreshTokenResponse.
type RevokeResponse struct {
	// RefreshTokenIDs are the tokens that were revoked.
	RefreshTokenIDs []string
}
