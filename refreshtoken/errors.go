package refreshtoken

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ycauth/ycauth-go/internal/redact"
)

// The methods of the API, as errors and logs name them.
const (
	methodList      = "List"
	methodRevoke    = "Revoke"
	methodOperation = "Operation"

	// No method of the API: what a caller was waiting for.
	methodWait       = "Wait"
	methodRevokeEach = "RevokeEach"
)

// ErrPageTokenRepeated is wrapped by the [ResponseError] that ends a listing
// whose server sends a page token for the second time: to follow it would be to
// list the same pages for ever.
var ErrPageTokenRepeated = errors.New("the server repeats a page token")

// Trace identifies an exchange to the support of the provider. Either may be
// empty.
type Trace struct {
	// RequestID is x-request-id.
	RequestID string `json:"requestId,omitempty"`
	// ServerTraceID is x-server-trace-id.
	ServerTraceID string `json:"serverTraceId,omitempty"`
}

// quoted is the identifier to quote, or "". Not a String method: the types that
// embed a Trace would print as it.
func (t Trace) quoted() string {
	switch {
	case t.RequestID != "":
		return "request id " + t.RequestID
	case t.ServerTraceID != "":
		return "server trace id " + t.ServerTraceID
	}
	return ""
}

// An APIError is a failure that the service reported: the response to a request,
// or the end of an operation. It is the google.rpc.Status of the response,
// whichever transport brought it.
//
// It is [ErrNotFound], [ErrPermissionDenied], [ErrUnauthenticated] or [ErrUnavailable]
// by its Code, and [ErrGone] if it proves that the refresh token is gone.
type APIError struct {
	// Method is the call that failed: "List", "Revoke" or "Operation". An operation
	// that ended with an error has "Revoke".
	Method string
	// Code is the kind of failure. Where the response held no google.rpc.Status
	// (the page of a proxy, an empty body), it follows from HTTPStatus, and 404 is
	// CodeUnimplemented, as over gRPC: there is no such method at this address.
	Code Code
	// Message is the server's text for developers, without control characters
	// and credentials, cut at 512 characters. It may be empty. One of more than
	// 64 KiB is left out.
	Message string
	// Details are the further messages of the google.rpc.Status as JSON, each
	// with its "@type". Their strings are made fit as Message is. One that is too large
	// or cannot be read is empty.
	Details []json.RawMessage
	// HTTPStatus is the status of the response; 0 over gRPC, and for an operation
	// that ended with an error.
	HTTPStatus int
	// RetryAfter is how long the server asks callers to wait, in a Retry-After
	// header or a google.rpc.RetryInfo among the Details; 0 when it does not.
	RetryAfter time.Duration
	// OperationID is set where an operation ended with this error.
	OperationID string
	// Trace holds the identifiers that the server gave the exchange.
	Trace

	ofOperation bool // it ended an operation, also where that has no ID

	gone bool // [question.gone] found evidence of that
}

// Error names the method, the code and the server's message, and for
// [CodePermissionDenied] the roles that the call needs.
func (e *APIError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "refreshtoken: %s: %s", e.Method, e.Code)
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	b.WriteString(inParentheses(e.where()...))
	if remedy := e.remedy(); remedy != "" {
		b.WriteString("; " + remedy)
	}
	return b.String()
}

func (e *APIError) where() []string {
	var parts []string
	if e.OperationID != "" {
		parts = append(parts, fmt.Sprintf("operation %q", e.OperationID))
	}
	if e.HTTPStatus != 0 {
		parts = append(parts, fmt.Sprintf("HTTP %d", e.HTTPStatus))
	}
	if id := e.quoted(); id != "" {
		parts = append(parts, id)
	}
	if e.RetryAfter > 0 {
		parts = append(parts, "retry after "+e.RetryAfter.String())
	}
	return parts
}

// remedy is what the caller can do about the error. The roles are those that
// the Yandex Cloud IAM documentation names for the refresh tokens of others.
func (e *APIError) remedy() string {
	switch {
	case e.Code == CodeUnauthenticated:
		return "the IAM token is missing, expired or revoked: get a new one, or log in again"
	case e.Code == CodePermissionDenied && e.Method == methodList:
		return "to list the refresh tokens of another subject takes the role organization-manager.viewer, " +
			"organization-manager.admin or iam.userAccounts.refreshTokenViewer"
	case e.Code == CodePermissionDenied && e.Method == methodRevoke:
		return "to revoke the refresh tokens of another subject takes the role " +
			"organization-manager.federations.userAdmin or iam.userAccounts.refreshTokenRevoker"
	case e.Code == CodeUnimplemented:
		return "there is no such method at this address: check the endpoint, and whether a proxy is in the way"
	case e.Code == CodeNotFound && e.Method == methodRevoke && !e.gone:
		return "this does not say that the refresh token is gone: check the endpoint, or list the refresh tokens"
	}
	return ""
}

// Is reports whether target is the error of the Code, or [ErrGone] and the service
// said that the refresh token does not exist. [errors.Is] calls it.
func (e *APIError) Is(target error) bool {
	return target != nil && target == e.Code.sentinel() || target == ErrGone && e.gone
}

// A ResponseError is a response that does not follow the API: a redirect,
// something that is not JSON, a body that is cut off or larger than 16 MiB, a
// member of the wrong type, more tokens in a page than were asked for, more than
// 100,000 in an operation, an operation that contradicts itself, a page token
// for the second time. It never holds the body.
type ResponseError struct {
	// Method is the call: "List", "Revoke" or "Operation".
	Method string
	// Reason says what is wrong, and what to do where that is known.
	Reason string
	// HTTPStatus is the status of the response; 0 over gRPC.
	HTTPStatus int
	// Err is the cause. Optional.
	Err error
	// Trace holds the identifiers that the server gave the exchange.
	Trace
}

// Error names the method and what is wrong with the response.
func (e *ResponseError) Error() string {
	var parts []string
	if e.HTTPStatus != 0 {
		parts = append(parts, fmt.Sprintf("HTTP %d", e.HTTPStatus))
	}
	if id := e.quoted(); id != "" {
		parts = append(parts, id)
	}
	return "refreshtoken: " + e.Method + ": " + e.Reason + inParentheses(parts...)
}

// Unwrap returns the cause, if there is one.
func (e *ResponseError) Unwrap() error { return e.Err }

// A TransportError is an exchange that ended without a whole response: no
// connection, one that broke, no credentials to send, a ctx that ended.
//
// It wraps the cause, and [ErrUnavailable] as well where another attempt may
// succeed.
type TransportError struct {
	// Method is the call: "List", "Revoke" or "Operation". It is "Wait" or "RevokeEach"
	// where ctx ended between two calls.
	Method string
	// Temporary says that the network failed, so that another attempt may succeed.
	Temporary bool
	// Err is the cause, as it came. Error's text of it is without credentials.
	Err error

	text string // set by the Client: Err without the secrets of the call
}

// Error names the method and the cause.
func (e *TransportError) Error() string {
	text := e.text
	switch {
	case text != "":
	case e.Err == nil:
		text = "the exchange failed"
	default:
		text = redact.Text(e.Err.Error())
	}
	return "refreshtoken: " + e.Method + ": " + text
}

// Format prints [TransportError.Error] for every verb: the cause can hold what a
// server or a proxy sent, such as the debug data of an HTTP/2 GOAWAY frame.
func (e *TransportError) Format(f fmt.State, _ rune) { fmt.Fprint(f, e.Error()) }

// MarshalText is [TransportError.Error], for JSON and other encodings.
func (e *TransportError) MarshalText() ([]byte, error) { return []byte(e.Error()), nil }

// Unwrap returns the cause and, for a temporary error, [ErrUnavailable].
func (e *TransportError) Unwrap() []error {
	var errs []error
	if e.Err != nil {
		errs = append(errs, e.Err)
	}
	if e.Temporary {
		errs = append(errs, ErrUnavailable)
	}
	return errs
}

// An ArgumentError is a mistake of the caller. Nothing was sent. It does not
// repeat the value.
type ArgumentError struct {
	// Field is the argument, such as "ListOptions.PageSize".
	Field string
	// Reason says what is wrong with it and what would be right.
	Reason string
}

// Error names the argument and the reason.
func (e *ArgumentError) Error() string { return "refreshtoken: " + e.Field + " " + e.Reason }

func inParentheses(parts ...string) string {
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}
