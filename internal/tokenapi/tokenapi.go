// Package tokenapi is the interface between package refreshtoken and its transports:
// the messages of Yandex Cloud's RefreshToken API that programs do not see. A transport
// can be a separate module of this repository, and is released with refreshtoken.
package tokenapi

import (
	"context"
	"fmt"
)

// A Transport carries the calls of a refreshtoken.Client over one protocol. It is
// called by a Client only, which does the rest above it: checks of the arguments,
// retries, paging, waiting, and keeping credentials out of errors. So a Transport
// makes one exchange for each call, and keeps no state between them. It is safe for
// concurrent use.
//
// Page and APIError are those of refreshtoken, which this package cannot import. A
// failure that the service reports is a *refreshtoken.APIError with its texts as they
// came, a response that does not follow the API a *refreshtoken.ResponseError, and an
// exchange without a response a *refreshtoken.TransportError. The Client fills in
// their Method, and takes secrets out of their texts and out of the Trace, which is as
// the server sent it. CodeNotFound is only for a google.rpc.Status that a server sent,
// with its details, because a Client may conclude from them that a refresh token is
// gone.
type Transport[Page, APIError any] interface {
	// List fetches one page.
	List(ctx context.Context, call Call, req ListRequest) (*Page, error)
	// Revoke starts a revocation.
	Revoke(ctx context.Context, call Call, req RevokeRequest) (*Operation[APIError], error)
	// Operation fetches the state of an operation.
	Operation(ctx context.Context, call Call, id string) (*Operation[APIError], error)
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
	// Clean takes the secrets of the call out of a text of the server. The Client does
	// that to what it is given; this is for texts that a transport puts together.
	Clean func(string) string
}

// ListRequest is ListRefreshTokensRequest. Its limits are kept.
type ListRequest struct {
	SubjectID string // "" means the caller
	PageSize  int    // 0 means the server's default
	PageToken string // "" means the first page
	Filter    string // an expression, "" means every token
}

// MaxPageSize is the largest page that the API has, in tokens.
const MaxPageSize = 1000

// CheckTokens returns an error if the page may not hold n tokens: page_size is "the
// maximum number of results per page to return". A Transport asks before it builds them.
func (r ListRequest) CheckTokens(n int) error {
	switch {
	case r.PageSize > 0 && n > r.PageSize:
		return fmt.Errorf("the page has more refresh tokens than the %d of the PageSize that was asked for", r.PageSize)
	case n > MaxPageSize:
		return fmt.Errorf("the page has more than %d refresh tokens, the most that the API has in one", MaxPageSize)
	}
	return nil
}

// RevokeRequest is RevokeRefreshTokenRequest. Exactly one member is set, and its
// limits are kept.
type RevokeRequest struct {
	RefreshTokenID string
	// RefreshToken returns the token. A function, because printers that walk values by
	// reflection do not look into one.
	RefreshToken func() string
	// RevokeFilter without a condition selects every token of the caller, and has to be
	// sent as it is.
	RevokeFilter *RevokeFilter
}

// RevokeFilter has the JSON form of the API.
type RevokeFilter struct {
	ClientID           string `json:"clientId,omitempty"`
	SubjectID          string `json:"subjectId,omitempty"`
	ClientInstanceInfo string `json:"clientInstanceInfo,omitempty"`
}

// Operation is the state of a revocation (Yandex Cloud, Operation, with
// RevokeRefreshTokenMetadata and RevokeRefreshTokenResponse).
type Operation[APIError any] struct {
	ID       string
	Done     bool
	Metadata Metadata
	Err      *APIError // set where the operation failed, which ends it, Done or not
	Response *Response // set where the operation succeeded
	Trace    Trace
}

// Metadata is RevokeRefreshTokenMetadata.
type Metadata struct {
	SubjectID       string
	RefreshTokenIDs []string // that are being revoked
}

// Response is RevokeRefreshTokenResponse.
type Response struct {
	RefreshTokenIDs []string // that were revoked
	Foreign         bool     // it is another message, which says nothing that is understood
}

// maxIDs is far above the number of refresh tokens of an account.
const maxIDs = 100_000

// CheckIDs returns an error if an operation may not list n refresh tokens. A Transport
// asks before it keeps them.
func CheckIDs(n int) error {
	if n > maxIDs {
		return fmt.Errorf("the operation lists more than %d refresh tokens", maxIDs)
	}
	return nil
}

// Trace holds the identifiers that the server gave an exchange.
type Trace struct {
	RequestID     string
	ServerTraceID string
}
