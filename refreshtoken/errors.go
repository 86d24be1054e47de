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

// ErrPageTokenRepeated means that the server sent a page token for the second time,
// so that the listing would never end. A [ResponseError] wraps it.
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

// An APIError is a failure that the service reported, in the response to a request
// or as the result of an operation. It contains the google.rpc.Status of the response,
// over REST and gRPC alike.
//
// It matches [ErrNotFound], [ErrPermissionDenied], [ErrUnauthenticated] or [ErrUnavailable]
// by its Code, and [ErrGone] if it proves that the refresh token no longer exists.
type APIError struct {
	// Method is the call that failed: "List", "Revoke" or "Operation". It is "Revoke"
	// for an operation that ended with an error.
	Method string
	// Code is the kind of failure. If the response had no google.rpc.Status
	// (the page of a proxy, an empty body), it follows from HTTPStatus, and 404 is
	// CodeUnimplemented, as over gRPC, because there is no such method at this address.
	Code Code
	// Message is the server's text for developers, without control characters
	// and credentials, truncated to 512 characters. It may be empty. A message of more
	// than 64 KiB is omitted.
	Message string
	// Details are the details of the google.rpc.Status as JSON, each
	// with its "@type". Their strings are sanitized like Message. A detail that cannot
	// be read is empty, and so is what exceeds 4096 values or 64 KiB in all details.
	Details []json.RawMessage
	// HTTPStatus is the status of the response; 0 over gRPC, and for an operation
	// that ended with an error.
	HTTPStatus int
	// RetryAfter is how long the server asks callers to wait, in a Retry-After
	// header or a google.rpc.RetryInfo among the Details; 0 if it does not.
	RetryAfter time.Duration
	// OperationID is set if an operation ended with this error.
	OperationID string
	// Trace holds the identifiers that the server gave the exchange.
	Trace

	ofOperation bool // it ended an operation, also where that has no ID

	gone bool // [question.gone] found evidence of that
}

// Error returns the method, the code and the server's message, and for
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
		return "to list the refresh tokens of another subject, the caller needs the role organization-manager.viewer, " +
			"organization-manager.admin or iam.userAccounts.refreshTokenViewer"
	case e.Code == CodePermissionDenied && e.Method == methodRevoke:
		return "to revoke the refresh tokens of another subject, the caller needs the role " +
			"organization-manager.federations.userAdmin or iam.userAccounts.refreshTokenRevoker"
	case e.Code == CodeUnimplemented:
		return "there is no such method at this address: check the endpoint, and whether a proxy is in the way"
	case e.Code == CodeNotFound && e.Method == methodRevoke && !e.gone:
		return "this does not prove that the refresh token is gone: check the endpoint, or list the refresh tokens"
	}
	return ""
}

// Is implements [errors.Is] for the error of the Code, and for [ErrGone] if the service
// reported that the refresh token does not exist.
func (e *APIError) Is(target error) bool {
	return target != nil && target == e.Code.sentinel() || target == ErrGone && e.gone
}

// A ResponseError means that a response does not follow the API: a redirect,
// a body that is not JSON, truncated or larger than 16 MiB (5 MiB over gRPC), a
// member of the wrong type, more tokens in a page than requested, more than
// 100,000 in an operation, an inconsistent operation, or a repeated page
// token. It never contains the body.
type ResponseError struct {
	// Method is the call: "List", "Revoke" or "Operation".
	Method string
	// Reason says what is wrong, and what to do if that is known.
	Reason string
	// HTTPStatus is the status of the response; 0 over gRPC.
	HTTPStatus int
	// Err is the cause. Optional.
	Err error
	// Trace holds the identifiers that the server gave the exchange.
	Trace
}

// Error returns the method and what is wrong with the response.
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

// A TransportError means that there was no complete response: the connection failed or
// broke, there were no credentials to send, or ctx was done.
//
// It wraps the cause, and also [ErrUnavailable] if another attempt may
// succeed.
type TransportError struct {
	// Method is the call: "List", "Revoke" or "Operation". It is "Wait" or "RevokeEach"
	// if ctx was done between two calls.
	Method string
	// Temporary means that the network failed, so another attempt may succeed.
	Temporary bool
	// Err is the unmodified cause. Error redacts credentials in its text.
	Err error

	text string // set by the Client: Err without the secrets of the call
}

// Error returns the method and the cause.
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

// Format prints [TransportError.Error] for every verb, because the cause can contain data
// of a server or a proxy, such as the debug data of an HTTP/2 GOAWAY frame.
func (e *TransportError) Format(f fmt.State, _ rune) { fmt.Fprint(f, e.Error()) }

// MarshalText returns [TransportError.Error], for JSON and other encodings.
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

// An ArgumentError means that an argument or option is invalid. Nothing was sent. It does
// not contain the value.
type ArgumentError struct {
	// Field is the argument, such as "ListOptions.PageSize".
	Field string
	// Reason says what is wrong with it and how to fix it.
	Reason string
}

// Error returns the argument and the reason.
func (e *ArgumentError) Error() string { return "refreshtoken: " + e.Field + " " + e.Reason }

func inParentheses(parts ...string) string {
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}
