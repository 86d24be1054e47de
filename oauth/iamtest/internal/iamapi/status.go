package iamapi

import (
	"fmt"
	"net/http"
)

// A Code is a google.rpc.Code.
type Code int32

// The codes that the API uses.
const (
	OK                 Code = 0
	InvalidArgument    Code = 3
	NotFound           Code = 5
	AlreadyExists      Code = 6
	PermissionDenied   Code = 7
	ResourceExhausted  Code = 8
	FailedPrecondition Code = 9
	Unimplemented      Code = 12
	Internal           Code = 13
	Unavailable        Code = 14
	Unauthenticated    Code = 16
)

var codes = map[Code]struct {
	name   string
	status int
}{
	OK:                 {"OK", http.StatusOK},
	InvalidArgument:    {"INVALID_ARGUMENT", http.StatusBadRequest},
	NotFound:           {"NOT_FOUND", http.StatusNotFound},
	AlreadyExists:      {"ALREADY_EXISTS", http.StatusConflict},
	PermissionDenied:   {"PERMISSION_DENIED", http.StatusForbidden},
	ResourceExhausted:  {"RESOURCE_EXHAUSTED", http.StatusTooManyRequests},
	FailedPrecondition: {"FAILED_PRECONDITION", http.StatusBadRequest},
	Unimplemented:      {"UNIMPLEMENTED", http.StatusNotImplemented},
	Internal:           {"INTERNAL", http.StatusInternalServerError},
	Unavailable:        {"UNAVAILABLE", http.StatusServiceUnavailable},
	Unauthenticated:    {"UNAUTHENTICATED", http.StatusUnauthorized},
}

// String is the code's name in google/rpc/code.proto.
func (c Code) String() string {
	if e, ok := codes[c]; ok {
		return e.name
	}
	return fmt.Sprintf("CODE_%d", int32(c))
}

// HTTPStatus is the status that google/rpc/code.proto maps the code to; 500 for a
// code that is not one of the constants.
func (c Code) HTTPStatus() int {
	if e, ok := codes[c]; ok {
		return e.status
	}
	return http.StatusInternalServerError
}

// A Status is an error of the API, a google.rpc.Status.
type Status struct { //nolint:errname // the name that google.rpc gives it
	Code    Code
	Message string

	// Field is the request field that an InvalidArgument is about, in snake case;
	// it travels as a google.rpc.BadRequest detail. May be "".
	Field string
}

func (s *Status) Error() string { return fmt.Sprintf("iamtest: %v: %s", s.Code, s.Message) }
