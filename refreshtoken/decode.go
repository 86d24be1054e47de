package refreshtoken

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ycauth/ycauth-go/internal/strictjson"
	"github.com/ycauth/ycauth-go/internal/tokenapi"
)

// The parsers take names exactly as the API writes them and ignore those that
// they do not know. A member that is missing or null has the zero value, since
// the JSON form of protobuf leaves out what has its default.

func parsePage(data []byte) (*Page, error) {
	o, err := decodeObject(data)
	if err != nil {
		return nil, err
	}
	var r reader
	list := r.list(o, "refreshTokens")
	page := &Page{NextPageToken: r.text(o, "nextPageToken")}
	if r.err != nil {
		return nil, r.err
	}
	page.RefreshTokens = make([]*RefreshToken, len(list))
	for i, v := range list {
		if page.RefreshTokens[i], err = parseToken(v); err != nil {
			return nil, fmt.Errorf("refreshTokens[%d]: %w", i, err)
		}
	}
	return page, nil
}

func parseToken(v any) (*RefreshToken, error) {
	o, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("it is not an object")
	}
	var r reader
	t := &RefreshToken{
		ID:                 r.text(o, "id"),
		ClientInstanceInfo: r.text(o, "clientInstanceInfo"),
		ClientID:           r.text(o, "clientId"),
		SubjectID:          r.text(o, "subjectId"),
		CreatedAt:          r.time(o, "createdAt"),
		ExpiresAt:          r.time(o, "expiresAt"),
		LastUsedAt:         r.time(o, "lastUsedAt"),
		ProtectionLevel:    r.level(o, "protectionLevel"),
	}
	return t, r.err
}

func parseOperation(data []byte) (*operation, error) {
	o, err := decodeObject(data)
	if err != nil {
		return nil, err
	}
	var r reader
	op := &operation{ID: r.text(o, "id"), Done: r.flag(o, "done")}
	if m := r.object(o, "metadata"); m != nil && r.is(m, "RevokeRefreshTokenMetadata") {
		op.Metadata = tokenapi.Metadata{SubjectID: r.text(m, "subjectId"), RefreshTokenIDs: r.texts(m, "refreshTokenIds")}
	}
	if m := r.object(o, "response"); m != nil {
		op.Response = &tokenapi.Response{}
		if r.is(m, "RevokeRefreshTokenResponse") {
			op.Response.RefreshTokenIDs = r.texts(m, "refreshTokenIds")
		}
	}
	if m := r.object(o, "error"); m != nil {
		op.Err = r.status(m)
		if op.Err.Code == 0 {
			op.Err.Code = CodeUnknown // a failure, whatever its code says
		}
	}
	return op, r.err
}

// parseStatus reads the google.rpc.Status of an HTTP error.
func parseStatus(data []byte) (*APIError, error) {
	o, err := decodeObject(data)
	if err != nil {
		return nil, err
	}
	var r reader
	s := r.status(o)
	return s, r.err
}

func decodeObject(data []byte) (map[string]any, error) {
	v, err := decodeJSON(data)
	if err != nil {
		return nil, err
	}
	o, ok := v.(map[string]any)
	if !ok {
		return nil, &strictjson.SyntaxError{Reason: "not an object"}
	}
	return o, nil
}

// decodeJSON keeps numbers as they are written.
func decodeJSON(data []byte) (any, error) { return strictjson.Decode(data) }

// A reader takes members out of decoded objects, and keeps the first error. It
// never quotes a value.
type reader struct{ err error }

func (r *reader) fail(name, want string) {
	if r.err == nil {
		r.err = fmt.Errorf("%s is not %s", name, want)
	}
}

func (r *reader) text(o map[string]any, name string) string {
	s, ok := o[name].(string)
	if !ok && o[name] != nil {
		r.fail(name, "a string")
	}
	return s
}

func (r *reader) flag(o map[string]any, name string) bool {
	b, ok := o[name].(bool)
	if !ok && o[name] != nil {
		r.fail(name, "a boolean")
	}
	return b
}

func (r *reader) object(o map[string]any, name string) map[string]any {
	m, ok := o[name].(map[string]any)
	if !ok && o[name] != nil {
		r.fail(name, "an object")
	}
	return m
}

// is reports whether the message in an Any has a type. One of another type may be
// that of another API, and says nothing that is understood here. The documentation
// shows no "@type", so it may be missing.
func (r *reader) is(o map[string]any, message string) bool {
	name := r.text(o, "@type")
	return name == "" || strings.HasSuffix(name, "."+message)
}

func (r *reader) list(o map[string]any, name string) []any {
	l, ok := o[name].([]any)
	if !ok && o[name] != nil {
		r.fail(name, "an array")
	}
	return l
}

func (r *reader) texts(o map[string]any, name string) []string {
	var texts []string
	for _, v := range r.list(o, name) {
		s, ok := v.(string)
		if !ok {
			r.fail(name, "an array of strings")
			return nil
		}
		texts = append(texts, s)
	}
	return texts
}

// time reads an RFC 3339 time with any number of fraction digits, in the years
// 1 to 9999 that the API documentation gives. Empty is the same as missing.
func (r *reader) time(o map[string]any, name string) time.Time {
	s := r.text(o, name)
	if s == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, s) // takes a fraction, too
	if err != nil {
		r.fail(name, "an RFC 3339 time")
		return time.Time{}
	}
	if t = t.UTC(); t.Year() < 1 || t.Year() > 9999 {
		r.fail(name, "in the years 1 to 9999")
		return time.Time{}
	}
	return t
}

// level reads an enum value, which the JSON form of protobuf also writes as a
// number, above all where the server's own definition has no name for it.
func (r *reader) level(o map[string]any, name string) ProtectionLevel {
	switch v := o[name].(type) {
	case nil:
		return ProtectionLevelUnspecified
	case string:
		return ProtectionLevel(v)
	case json.Number:
		return levelOfNumber(v.String())
	}
	r.fail(name, "a string")
	return ""
}

func levelOfNumber(s string) ProtectionLevel {
	if n, err := strconv.Atoi(s); err == nil && n >= 0 && n < len(protectionLevels) {
		return protectionLevels[n]
	}
	return ProtectionLevel(s)
}

// status reads a google.rpc.Status. Its code is an int32, which the JSON form of
// protobuf lets a server write as a string too.
func (r *reader) status(o map[string]any) *APIError {
	e := &APIError{Message: r.text(o, "message")}
	switch v := o["code"].(type) {
	case nil:
	case json.Number:
		e.Code = r.code(v.String())
	case string:
		e.Code = r.code(v)
	default:
		r.fail("code", "a number")
	}
	for _, d := range r.list(o, "details") {
		raw, err := json.Marshal(d)
		if err != nil {
			r.fail("details", "JSON")
			return e
		}
		e.Details = append(e.Details, raw)
	}
	return e
}

func (r *reader) code(s string) Code {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil {
		r.fail("code", "a 32-bit integer")
	}
	return Code(n)
}
