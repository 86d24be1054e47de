package iamtest

import (
	"fmt"

	"github.com/ycauth/ycauth-go/oauth/iamtest/internal/iamapi"
)

func invalid(field, format string, args ...any) *iamapi.Status {
	return &iamapi.Status{Code: iamapi.InvalidArgument, Message: field + ": " + fmt.Sprintf(format, args...), Field: field}
}

// appendStatus writes a status as protojson does. requestID adds a
// google.rpc.RequestInfo detail.
func appendStatus(s *iamapi.Status, b []byte, requestID string) []byte {
	o := object(b)
	o.number("code", int64(s.Code))
	o.string("message", s.Message)
	if s.Field == "" && requestID == "" {
		return o.end()
	}
	o.key("details")
	o.b = append(o.b, '[')
	if s.Field != "" {
		d := object(o.b)
		d.string("@type", "type.googleapis.com/google.rpc.BadRequest")
		d.key("fieldViolations")
		v := object(append(d.b, '['))
		v.string("field", s.Field)
		v.string("description", s.Message)
		d.b = append(v.end(), ']')
		o.b = d.end()
	}
	if requestID != "" {
		if s.Field != "" {
			o.b = append(o.b, ',')
		}
		d := object(o.b)
		d.string("@type", "type.googleapis.com/google.rpc.RequestInfo")
		d.string("requestId", requestID)
		o.b = d.end()
	}
	o.b = append(o.b, ']')
	return o.end()
}

// apiError answers with the status.
func (e *exchange) apiError(s *iamapi.Status) {
	e.rec.Error = s.Code.String()
	e.json(s.Code.HTTPStatus(), appendStatus(s, nil, e.rec.RequestID))
}
