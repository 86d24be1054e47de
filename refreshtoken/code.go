package refreshtoken

import (
	"errors"
	"fmt"
)

// An [*APIError] matches these errors by its Code. For other codes, compare
// APIError.Code. See [ErrGone] for a refresh token that no longer exists.
var (
	// ErrNotFound is CodeNotFound.
	ErrNotFound = errors.New("not found")
	// ErrPermissionDenied is CodePermissionDenied. The caller needs a role.
	ErrPermissionDenied = errors.New("permission denied")
	// ErrUnauthenticated is CodeUnauthenticated. The IAM token was rejected.
	ErrUnauthenticated = errors.New("unauthenticated")
	// ErrUnavailable is CodeUnavailable, or a temporary [*TransportError] because the
	// service could not be reached.
	ErrUnavailable = errors.New("unavailable")
)

// Code is the kind of an [APIError]. The numbers and names are
// those of google.rpc.Code.
type Code int32

// The codes of google.rpc.Code, except OK (0).
const (
	CodeCanceled           Code = 1
	CodeUnknown            Code = 2
	CodeInvalidArgument    Code = 3
	CodeDeadlineExceeded   Code = 4
	CodeNotFound           Code = 5
	CodeAlreadyExists      Code = 6
	CodePermissionDenied   Code = 7
	CodeResourceExhausted  Code = 8
	CodeFailedPrecondition Code = 9
	CodeAborted            Code = 10
	CodeOutOfRange         Code = 11
	CodeUnimplemented      Code = 12
	CodeInternal           Code = 13
	CodeUnavailable        Code = 14
	CodeDataLoss           Code = 15
	CodeUnauthenticated    Code = 16
)

var codeNames = [...]string{
	0:                      "OK",
	CodeCanceled:           "CANCELLED",
	CodeUnknown:            "UNKNOWN",
	CodeInvalidArgument:    "INVALID_ARGUMENT",
	CodeDeadlineExceeded:   "DEADLINE_EXCEEDED",
	CodeNotFound:           "NOT_FOUND",
	CodeAlreadyExists:      "ALREADY_EXISTS",
	CodePermissionDenied:   "PERMISSION_DENIED",
	CodeResourceExhausted:  "RESOURCE_EXHAUSTED",
	CodeFailedPrecondition: "FAILED_PRECONDITION",
	CodeAborted:            "ABORTED",
	CodeOutOfRange:         "OUT_OF_RANGE",
	CodeUnimplemented:      "UNIMPLEMENTED",
	CodeInternal:           "INTERNAL",
	CodeUnavailable:        "UNAVAILABLE",
	CodeDataLoss:           "DATA_LOSS",
	CodeUnauthenticated:    "UNAUTHENTICATED",
}

// String returns the name in google.rpc.Code, such as "PERMISSION_DENIED", or
// "CODE(42)" for an unknown number.
func (c Code) String() string {
	if c < 0 || int(c) >= len(codeNames) {
		return fmt.Sprintf("CODE(%d)", int32(c))
	}
	return codeNames[c]
}

// sentinel is the error that an [APIError] of this code is, or nil.
func (c Code) sentinel() error {
	switch c {
	case CodeNotFound:
		return ErrNotFound
	case CodePermissionDenied:
		return ErrPermissionDenied
	case CodeUnauthenticated:
		return ErrUnauthenticated
	case CodeUnavailable:
		return ErrUnavailable
	}
	return nil
}

// codeOfHTTP is the code for an HTTP status that came without a
// google.rpc.Status, by the table in the comments of google.rpc.Code.
func codeOfHTTP(status int) Code {
	switch status {
	case 400:
		return CodeInvalidArgument
	case 401:
		return CodeUnauthenticated
	case 403:
		return CodePermissionDenied
	case 404:
		// Not NOT_FOUND, as the table has it: a proxy and a wrong address send this
		// too, and say nothing about a resource. gRPC makes UNIMPLEMENTED of it
		// ("HTTP to gRPC Status Code Mapping").
		return CodeUnimplemented
	case 409:
		return CodeAborted
	case 429:
		return CodeResourceExhausted
	case 499:
		return CodeCanceled
	case 500:
		return CodeInternal
	case 501:
		return CodeUnimplemented
	case 502, 503: // the table has no 502: a gateway that cannot reach the service
		return CodeUnavailable
	case 504:
		return CodeDeadlineExceeded
	}
	return CodeUnknown
}
