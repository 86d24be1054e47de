// Package iamapi is the seam between package iamtest and the other faces of its
// server, such as gRPC: the messages of Yandex Cloud's RefreshToken API that no
// program sees. A face can be a module of its own in this repository, and is
// released with iamtest.
package iamapi

import "time"

// Of returns what an *iamtest.Server, which this package cannot import, has for
// other faces. Package iamtest sets it.
var Of func(server any) API

// An API is a server without its REST face. Its methods are safe for concurrent
// use, and their errors are of type [*Status].
type API interface {
	// Authenticate finds out whose access token it is. Bound tokens, which need a
	// proof, are refused.
	Authenticate(token string) (Caller, error)

	// ListRefreshTokens is RefreshTokenService.List. Tokens come in the order in
	// which they were issued.
	ListRefreshTokens(c Caller, req ListRequest) (*ListResponse, error)

	// RevokeRefreshTokens is RefreshTokenService.Revoke. The tokens are revoked when
	// the Operation is done. The same idempotencyKey of the same caller gives the
	// same Operation again; "" is none.
	RevokeRefreshTokens(c Caller, req RevokeRequest, idempotencyKey string) (*Operation, error)

	// GetOperation is OperationService.Get, for the operations of the caller.
	GetOperation(c Caller, id string) (*Operation, error)

	// Endpoints is ApiEndpointService.List: where the parts of the API are.
	Endpoints() []Endpoint

	// SetEndpoint changes the address (host:port) of a part of the API, or adds one,
	// in what Endpoints and GET /endpoints say. An empty address removes it.
	SetEndpoint(id, address string)

	// TakeFault returns the fault that happens to this request of the
	// iamtest.Endpoint, and takes it off what is still to happen. Without a Kind
	// there is none. A clock that is wrong has no part here.
	TakeFault(endpoint string) Fault

	// Record adds a call to those that iamtest.Server.Requests returns.
	Record(call Call)
}

// A Caller is who makes an API request.
type Caller struct {
	SubjectID string
	ClientID  string // that the access token was issued to
}

// A RefreshToken is yandex.cloud.iam.v1.RefreshToken.
type RefreshToken struct {
	ID                 string
	ClientInstanceInfo string
	ClientID           string
	SubjectID          string
	CreatedAt          time.Time
	ExpiresAt          time.Time
	LastUsedAt         time.Time // zero if it was never used
	ProtectionLevel    string    // name of the value
}

// A ListRequest is yandex.cloud.iam.v1.ListRefreshTokensRequest.
type ListRequest struct {
	SubjectID string
	PageSize  int64
	PageToken string
	Filter    string
}

// A ListResponse is yandex.cloud.iam.v1.ListRefreshTokensResponse.
type ListResponse struct {
	RefreshTokens []RefreshToken
	NextPageToken string
}

// A RevokeRequest is yandex.cloud.iam.v1.RevokeRefreshTokenRequest. Exactly one
// of its fields is set.
type RevokeRequest struct {
	RefreshTokenID *string
	RefreshToken   *string
	RevokeFilter   *RevokeFilter
}

// A RevokeFilter is yandex.cloud.iam.v1.RevokeFilter. Fields that are "" do not
// restrict; SubjectID is then the caller's.
type RevokeFilter struct {
	ClientID           string
	SubjectID          string
	ClientInstanceInfo string
}

// An Operation is yandex.cloud.operation.Operation, of a revocation. If Done, one
// of Error and Response is set.
type Operation struct {
	ID          string
	Description string
	CreatedAt   time.Time
	CreatedBy   string // subject
	ModifiedAt  time.Time
	Done        bool
	Metadata    RevokeMetadata
	Error       *Status
	Response    *RevokeResponse
}

// RevokeMetadata is yandex.cloud.iam.v1.RevokeRefreshTokenMetadata.
type RevokeMetadata struct {
	SubjectID       string
	RefreshTokenIDs []string
}

// A RevokeResponse is yandex.cloud.iam.v1.RevokeRefreshTokenResponse.
type RevokeResponse struct {
	RefreshTokenIDs []string
}

// An Endpoint is yandex.cloud.endpoint.ApiEndpoint.
type Endpoint struct {
	ID      string
	Address string // host:port
}

// A Call is what a face can tell of one call, for an iamtest.Request.
type Call struct {
	Endpoint     string // an iamtest.Endpoint
	Method, Path string
	Status       int
	Error        string
	Fault        string
	Credentials  []string

	ClientID, Subject string // those of the access token

	UserAgent, IdempotencyKey, ClientRequestID, ClientTraceID, RequestID string
}
