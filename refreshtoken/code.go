package refreshtoken

import "fmt"

// Code says what kind of failure an [APIError] is. The numbers and names are
// those of google.rpc.Code.
//
// A Code is an error, so that it can be the target of [errors.Is]:
//
//	if errors.Is(err, refreshtoken.ErrNotFound) { … }
//
//nolint:errname // named for what it is in google.rpc; an error as syscall.Errno is one
type Code int32

// The codes of google.rpc.Code, but for OK (0), which no error has.
const (
	ErrCanceled           Code = 1
	ErrUnknown            Code = 2
	ErrInvalidArgument    Code = 3
	ErrDeadlineExceeded   Code = 4
	ErrNotFound           Code = 5
	ErrAlreadyExists      Code = 6
	ErrPermissionDenied   Code = 7
	ErrResourceExhausted  Code = 8
	ErrFailedPrecondition Code = 9
	ErrAborted            Code = 10
	ErrOutOfRange         Code = 11
	ErrUnimplemented      Code = 12
	ErrInternal           Code = 13
	ErrUnavailable        Code = 14
	ErrDataLoss           Code = 15
	ErrUnauthenticated    Code = 16
)

var codeNames = [...]string{
	0:                     "OK",
	ErrCanceled:           "CANCELLED",
	ErrUnknown:            "UNKNOWN",
	ErrInvalidArgument:    "INVALID_ARGUMENT",
	ErrDeadlineExceeded:   "DEADLINE_EXCEEDED",
	ErrNotFound:           "NOT_FOUND",
	ErrAlreadyExists:      "ALREADY_EXISTS",
	ErrPermissionDenied:   "PERMISSION_DENIED",
	ErrResourceExhausted:  "RESOURCE_EXHAUSTED",
	ErrFailedPrecondition: "FAILED_PRECONDITION",
	ErrAborted:            "ABORTED",
	ErrOutOfRange:         "OUT_OF_RANGE",
	ErrUnimplemented:      "UNIMPLEMENTED",
	ErrInternal:           "INTERNAL",
	ErrUnavailable:        "UNAVAILABLE",
	ErrDataLoss:           "DATA_LOSS",
	ErrUnauthenticated:    "UNAUTHENTICATED",
}

// String is the name in google.rpc.Code, such as "PERMISSION_DENIED", or
// "CODE(42)" for a number that has none there.
func (c Code) String() string {
	if c < 0 || int(c) >= len(codeNames) {
		return fmt.Sprintf("CODE(%d)", int32(c))
	}
	return codeNames[c]
}

// Error is [Code.String].
func (c Code) Error() string { return c.String() }

// codeOfHTTP is the code for an HTTP status that came without a
// google.rpc.Status, by the table in the comments of google.rpc.Code.
func codeOfHTTP(status int) Code {
	switch status {
	case 400:
		return ErrInvalidArgument
	case 401:
		return ErrUnauthenticated
	case 403:
		return ErrPermissionDenied
	case 404:
		// Not NOT_FOUND, as the table has it: a proxy and a wrong address send this
		// too, and say nothing about a resource. gRPC makes UNIMPLEMENTED of it
		// ("HTTP to gRPC Status Code Mapping").
		return ErrUnimplemented
	case 409:
		return ErrAborted
	case 429:
		return ErrResourceExhausted
	case 499:
		return ErrCanceled
	case 500:
		return ErrInternal
	case 501:
		return ErrUnimplemented
	case 502, 503: // the table has no 502: a gateway that cannot reach the service
		return ErrUnavailable
	case 504:
		return ErrDeadlineExceeded
	}
	return ErrUnknown
}
