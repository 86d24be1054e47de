package refreshtoken

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
)

// ErrGone is wrapped by the [*APIError] of a revocation whose refresh token the
// service does not have: it expired, or was revoked before. [ErrNotFound] alone
// says less, because an operation or an account can be missing too, and
// so can a method at a wrong endpoint.
//
// Only a revocation of one token ([ByID], [ByToken]) can fail with it.
var ErrGone = errors.New("the refresh token is gone")

// A question is what a revocation asked for. It decides what a response is about.
// Everything that calls a refresh token gone or revoked comes from here.
//
// The zero question is that of [Client.Operation], which does not know the target.
type question struct {
	kind targetKind
	id   string // of the refresh token, for targetID
}

func (t Target) question() question { return question{t.kind, t.id} }

// one reports whether the question is about a single refresh token.
func (q question) one() bool { return q.kind == targetID || q.kind == targetToken }

// routingError is the message of a grpc-gateway that has no such route. It comes
// as a google.rpc.Status with NOT_FOUND (grpc-gateway, runtime/errors.go,
// DefaultRoutingErrorHandler), as if a resource were missing.
const routingError = "Not Found"

// gone reports whether e, which ended the revocation, says that the refresh token
// does not exist. The transports make sure that a NOT_FOUND is a google.rpc.Status
// that a server sent.
func (q question) gone(e *APIError) bool {
	if !q.one() || e.Code != ErrNotFound || e.Message == routingError {
		return false
	}
	// google.rpc.Code maps NOT_FOUND to 404. With any other status, something on the
	// way has changed the response. 0 is gRPC, or the end of an operation.
	if e.HTTPStatus != 0 && e.HTTPStatus != http.StatusNotFound {
		return false
	}
	return !slices.ContainsFunc(e.Details, q.elsewhere)
}

// elsewhere reports whether a detail is a google.rpc.ResourceInfo ("Describes the
// resource that is being accessed", google/rpc/error_details.proto) of something
// other than the refresh token.
func (q question) elsewhere(detail json.RawMessage) bool {
	var info struct {
		Type         string `json:"@type"`
		ResourceType string `json:"resourceType"`
		ResourceName string `json:"resourceName"`
	}
	if json.Unmarshal(detail, &info) != nil || !strings.HasSuffix(info.Type, "/google.rpc.ResourceInfo") {
		return false
	}
	kind := strings.ToLower(strings.ReplaceAll(info.ResourceType, "_", ""))
	return kind != "" && !strings.Contains(kind, "refreshtoken") ||
		q.kind == targetID && info.ResourceName != "" && info.ResourceName != q.id
}

// foreign reports whether the metadata of an operation names other refresh tokens
// only.
func (q question) foreign(o *Operation) bool {
	ids := o.Metadata.RefreshTokenIDs
	return q.kind == targetID && len(ids) > 0 && !slices.Contains(ids, q.id)
}

// unanswered says what is missing in an operation that succeeded; "" where
// nothing is. The response of a revocation lists the tokens that were revoked (Yandex
// Cloud IAM API, RevokeRefreshTokenResponse). One that does not list the token did
// not revoke it. An empty list is no exception: it is what a filter gets that
// matches nothing. The metadata names what was to be revoked, and proves nothing.
func (q question) unanswered(o *Operation) string {
	ids := o.Response.RefreshTokenIDs
	if q.kind == targetID && !slices.Contains(ids, q.id) || q.kind == targetToken && len(ids) == 0 {
		return "the operation succeeded, but its response does not list the refresh token as revoked: list the refresh tokens to see whether it is still there"
	}
	return ""
}
