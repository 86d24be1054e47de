package refreshtoken

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/ycauth/ycauth-go/internal/strictjson"
	"github.com/ycauth/ycauth-go/internal/tokenapi"
)

// The parsers take names exactly as the API writes them and ignore those that
// they do not know. A member that is missing or null has the zero value, since
// the JSON form of protobuf leaves out what has its default.

// pageBuffer is how much of a page is read at a time, in bytes.
const pageBuffer = 16 << 10

// parsePage reads a page as it comes: the largest has 16 MiB.
func parsePage(body io.Reader) (*Page, error) {
	r := pageReader{json: strictjson.NewReader(body, pageBuffer), known: map[string]string{}}
	page := r.page()
	r.json.End()
	if err := r.json.Err(); err != nil {
		return nil, err
	}
	return page, nil
}

// A pageReader reads a ListRefreshTokensResponse. Its errors quote no value.
type pageReader struct {
	json  *strictjson.Reader
	token int               // the number of tokens so far, while it reads one
	known map[string]string // texts that many tokens have in common
}

func (r *pageReader) page() *Page {
	page := &Page{RefreshTokens: []*RefreshToken{}}
	if r.json.Kind() != '{' {
		r.json.Fail(errNotObject)
	}
	for r.json.Begin('{'); r.json.More(); {
		switch string(r.json.Name()) {
		case "refreshTokens":
			if !r.is('[', "refreshTokens", "an array") {
				continue
			}
			for r.json.Begin('['); r.json.More(); {
				r.token++
				page.RefreshTokens = append(page.RefreshTokens, r.refreshToken())
			}
			r.token = 0
		case "nextPageToken":
			page.NextPageToken = string(r.text("nextPageToken"))
		default:
			r.json.Skip()
		}
	}
	return page
}

func (r *pageReader) refreshToken() *RefreshToken {
	t := &RefreshToken{ProtectionLevel: ProtectionLevelUnspecified}
	if r.json.Kind() != '{' {
		r.fail("it", "an object")
	}
	for r.json.Begin('{'); r.json.More(); {
		switch string(r.json.Name()) {
		case "id":
			t.ID = string(r.text("id"))
		case "clientInstanceInfo":
			t.ClientInstanceInfo = r.shared("clientInstanceInfo")
		case "clientId":
			t.ClientID = r.shared("clientId")
		case "subjectId":
			t.SubjectID = r.shared("subjectId")
		case "createdAt":
			t.CreatedAt = r.time("createdAt")
		case "expiresAt":
			t.ExpiresAt = r.time("expiresAt")
		case "lastUsedAt":
			t.LastUsedAt = r.time("lastUsedAt")
		case "protectionLevel":
			t.ProtectionLevel = r.level()
		default:
			r.json.Skip()
		}
	}
	return t
}

func (r *pageReader) fail(name, want string) {
	if r.token > 0 {
		name = fmt.Sprintf("refreshTokens[%d]: %s", r.token-1, name)
	}
	r.json.Fail(fmt.Errorf("%s is not %s", name, want))
}

// is reports whether the value that comes next is of a kind. It skips null, which is
// as good as a member that is missing.
func (r *pageReader) is(kind byte, name, want string) bool {
	switch r.json.Kind() {
	case kind:
		return true
	case 'n':
		r.json.Skip()
	default:
		r.fail(name, want)
	}
	return false
}

// text is valid until the next value is read.
func (r *pageReader) text(name string) []byte {
	if !r.is('"', name, "a string") {
		return nil
	}
	return r.json.Text()
}

// Texts up to maxShared bytes are kept once for a page, the first maxKnown of them.
const (
	maxShared = 128
	maxKnown  = 1024
)

// shared is a text that other tokens are likely to have as well.
func (r *pageReader) shared(name string) string {
	text := r.text(name)
	if s, ok := r.known[string(text)]; ok { // does not allocate
		return s
	}
	s := string(text)
	if len(s) <= maxShared && len(r.known) < maxKnown {
		r.known[s] = s
	}
	return s
}

// time reads an RFC 3339 time with any number of fraction digits, in the years
// 1 to 9999 that the API documentation gives. Empty is the same as missing.
func (r *pageReader) time(name string) time.Time {
	text := r.text(name)
	if len(text) == 0 {
		return time.Time{}
	}
	var t time.Time
	if t.UnmarshalText(text) != nil { // which is stricter, and allocates nothing
		var err error
		if t, err = time.Parse(time.RFC3339, string(text)); err != nil {
			r.fail(name, "an RFC 3339 time")
			return time.Time{}
		}
	}
	if t = t.UTC(); t.Year() < 1 || t.Year() > 9999 {
		r.fail(name, "in the years 1 to 9999")
		return time.Time{}
	}
	return t
}

// level reads an enum value, which the JSON form of protobuf also writes as a
// number, above all where the server's own definition has no name for it.
func (r *pageReader) level() ProtectionLevel {
	if r.json.Kind() == '0' {
		return levelOfNumber(string(r.json.Number()))
	}
	if !r.is('"', "protectionLevel", "a string") {
		return ProtectionLevelUnspecified
	}
	return ProtectionLevel(r.shared("protectionLevel"))
}

func levelOfNumber(s string) ProtectionLevel {
	if n, err := strconv.Atoi(s); err == nil && n >= 0 && n < len(protectionLevels) {
		return protectionLevels[n]
	}
	return ProtectionLevel(s)
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

// errNotObject is a text that is something else.
var errNotObject = &strictjson.SyntaxError{Reason: "not an object"}

func decodeObject(data []byte) (map[string]any, error) {
	v, err := decodeJSON(data)
	if err != nil {
		return nil, err
	}
	o, ok := v.(map[string]any)
	if !ok {
		return nil, errNotObject
	}
	return o, nil
}

// decodeJSON keeps numbers as they are written.
func decodeJSON(data []byte) (any, error) {
	if err := strictjson.Check(data); err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var v any
	err := dec.Decode(&v)
	return v, err
}

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
