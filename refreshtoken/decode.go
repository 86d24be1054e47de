package refreshtoken

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/ycauth/ycauth-go/internal/strictjson"
	"github.com/ycauth/ycauth-go/internal/tokenapi"
)

// The parsers take names exactly as the API writes them, and skip those that
// they do not know. A member that is missing or null has the zero value, since
// the JSON form of protobuf leaves out what has its default.

// Bounds of what is kept of a google.rpc.Status. A few KiB of gzip can become 16 MiB of
// JSON, and a byte of that a hundred bytes in memory.
const (
	maxDetailValues = 4096
	maxDetails      = 64 << 10 // bytes of all details as JSON: ctx does not end their cleaning
	maxText         = 64 << 10 // bytes of any text that is cleaned, such as the message
)

// jsonBuffer is how much of a response is read at a time, in bytes.
const jsonBuffer = 16 << 10

func parsePage(body io.Reader, req tokenapi.ListRequest) (*Page, error) {
	return parse(body, func(r *reader) *Page { return r.page(req) })
}

func parseOperation(body io.Reader) (*operation, error) {
	return parse(body, (*reader).operation)
}

// parseStatus reads the google.rpc.Status of an HTTP error.
func parseStatus(data []byte) (*APIError, error) {
	return parse(bytes.NewReader(data), (*reader).status)
}

// errNotObject is a text that is something else.
var errNotObject = &strictjson.SyntaxError{Reason: "not an object"}

// parseValue reads a detail of a google.rpc.Status, of no more values than are left.
func parseValue(data []byte, left *int) (any, error) {
	return read(bytes.NewReader(data), func(r *reader) any {
		r.values = maxDetailValues - *left
		v := r.value()
		*left = maxDetailValues - r.values
		return v
	})
}

// parse reads a message as it comes.
func parse[T any](body io.Reader, message func(*reader) T) (T, error) {
	return read(body, func(r *reader) T {
		if r.json.Kind() != '{' {
			r.json.Fail(errNotObject)
		}
		return message(r)
	})
}

func read[T any](body io.Reader, value func(*reader) T) (T, error) {
	r := &reader{json: strictjson.NewReader(body, jsonBuffer), known: map[string]string{}}
	v := value(r)
	r.json.End()
	if err := r.json.Err(); err != nil {
		var none T
		return none, err
	}
	return v, nil
}

// A reader reads the messages of the API. Its errors quote no value.
type reader struct {
	json   *strictjson.Reader
	token  int               // the number of tokens so far, while it reads one
	known  map[string]string // texts that many tokens have in common
	values int               // in details, so far
}

// page reads a ListRefreshTokensResponse.
func (r *reader) page(req tokenapi.ListRequest) *Page {
	page := &Page{RefreshTokens: []*RefreshToken{}}
	for r.json.Begin('{'); r.json.More(); {
		switch string(r.json.Name()) {
		case "refreshTokens":
			if !r.is('[', "refreshTokens", "an array") {
				continue
			}
			for r.json.Begin('['); r.json.More(); {
				if err := req.CheckTokens(r.token + 1); err != nil {
					r.json.Fail(err)
					break
				}
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

func (r *reader) refreshToken() *RefreshToken {
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

func (r *reader) fail(name, want string) {
	if r.token > 0 {
		name = fmt.Sprintf("refreshTokens[%d]: %s", r.token-1, name)
	}
	r.json.Fail(fmt.Errorf("%s is not %s", name, want))
}

// is reports whether the value that comes next is of a kind. It skips null, which is
// as good as a member that is missing.
func (r *reader) is(kind byte, name, want string) bool {
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
func (r *reader) text(name string) []byte {
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
func (r *reader) shared(name string) string {
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
func (r *reader) time(name string) time.Time {
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
func (r *reader) level() ProtectionLevel {
	if r.json.Kind() == '0' {
		return levelOfNumber(string(r.json.Number()))
	}
	if !r.is('"', "protectionLevel", "a string") {
		return ProtectionLevelUnspecified
	}
	return ProtectionLevel(r.shared("protectionLevel"))
}

func levelOfNumber(s string) ProtectionLevel {
	n, ok := int32Of(s)
	switch {
	case !ok:
		return ProtectionLevel(s)
	case n >= 0 && int(n) < len(protectionLevels):
		return protectionLevels[n]
	}
	return ProtectionLevel(strconv.Itoa(int(n)))
}

// int32Of reads an int32 of the JSON form of protobuf, which may have an exponent, and a
// fraction of zeros.
func int32Of(s string) (n int32, ok bool) {
	if n, err := strconv.ParseInt(s, 10, 32); err == nil {
		return int32(n), true
	}
	if len(s) > 64 || strings.Trim(s, "0123456789+-.eE") != "" {
		return 0, false
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f != math.Trunc(f) || f < math.MinInt32 || f > math.MaxInt32 {
		return 0, false
	}
	return int32(f), true
}

// operation reads an Operation.
func (r *reader) operation() *operation {
	op := &operation{}
	for r.json.Begin('{'); r.json.More(); {
		switch string(r.json.Name()) {
		case "id":
			op.ID = string(r.text("id"))
		case "done":
			op.Done = r.flag("done")
		case "metadata":
			if r.is('{', "metadata", "an object") {
				op.Metadata, _ = r.revocation("RevokeRefreshTokenMetadata")
			}
		case "response":
			if r.is('{', "response", "an object") {
				m, known := r.revocation("RevokeRefreshTokenResponse")
				op.Response = &tokenapi.Response{RefreshTokenIDs: m.RefreshTokenIDs, Foreign: !known}
			}
		case "error":
			if r.is('{', "error", "an object") {
				if op.Err = r.status(); op.Err.Code == 0 {
					op.Err.Code = CodeUnknown // a failure, whatever its code says
				}
			}
		default:
			r.json.Skip()
		}
	}
	return op
}

// revocation reads the metadata or the response of a revocation out of an Any. One of
// another type may be that of another API, and says nothing that is understood here;
// known is false for it. The documentation shows no "@type", so it may be missing.
func (r *reader) revocation(message string) (m tokenapi.Metadata, known bool) {
	var kind string
	var wrong error // which does not matter in a message of another type
	for r.json.Begin('{'); r.json.More(); {
		name := string(r.json.Name())
		switch {
		case name == "@type":
			kind = string(r.text("@type"))
		case name == "subjectId" && r.json.Kind() == '"':
			m.SubjectID = string(r.text(name))
		case name == "refreshTokenIds" && r.json.Kind() == '[':
			for r.json.Begin('['); r.json.More(); {
				if r.json.Kind() != '"' {
					wrong = errors.New("refreshTokenIds is not an array of strings")
					r.json.Skip()
					continue
				}
				m.RefreshTokenIDs = append(m.RefreshTokenIDs, string(r.text("refreshTokenIds")))
				if err := tokenapi.CheckIDs(len(m.RefreshTokenIDs)); err != nil {
					r.json.Fail(err)
				}
			}
		case name == "subjectId" && r.json.Kind() != 'n':
			wrong = errors.New("subjectId is not a string")
			r.json.Skip()
		case name == "refreshTokenIds" && r.json.Kind() != 'n':
			wrong = errors.New("refreshTokenIds is not an array")
			r.json.Skip()
		default:
			r.json.Skip()
		}
	}
	if kind != "" && !strings.HasSuffix(kind, "."+message) {
		return tokenapi.Metadata{}, false
	}
	if wrong != nil {
		r.json.Fail(wrong)
	}
	return m, true
}

// status reads a google.rpc.Status. Its code is an int32, which the JSON form of
// protobuf lets a server write as a string too.
func (r *reader) status() *APIError {
	e := &APIError{}
	for r.json.Begin('{'); r.json.More(); {
		switch string(r.json.Name()) {
		case "message":
			e.Message = string(r.text("message"))
		case "code":
			e.Code = r.code()
		case "details":
			if !r.is('[', "details", "an array") {
				continue
			}
			for r.json.Begin('['); r.json.More(); {
				raw, err := json.Marshal(r.value())
				if err != nil {
					r.fail("details", "JSON")
				}
				e.Details = append(e.Details, raw)
			}
		default:
			r.json.Skip()
		}
	}
	return e
}

func (r *reader) code() Code {
	var text string
	switch r.json.Kind() {
	case '0':
		text = string(r.json.Number())
	case '"':
		text = string(r.text("code"))
	case 'n':
		r.json.Skip()
		return 0
	default:
		r.fail("code", "a number")
		return 0
	}
	n, ok := int32Of(text)
	if !ok {
		r.fail("code", "a 32-bit integer")
	}
	return Code(n)
}

func (r *reader) flag(name string) bool {
	switch kind := r.json.Kind(); kind {
	case 't', 'f':
		r.json.Skip()
		return kind == 't'
	case 'n':
		r.json.Skip()
	default:
		r.fail(name, "a boolean")
	}
	return false
}

// short returns a text of the details.
func (r *reader) short(text []byte) string {
	if len(text) > maxText {
		r.json.Fail(fmt.Errorf("the details have a text of more than %d bytes", maxText))
		return ""
	}
	return string(text)
}

// value reads any value of the details. It keeps numbers as they are written.
func (r *reader) value() any {
	if r.values++; r.values > maxDetailValues {
		r.json.Fail(fmt.Errorf("the details have more than %d values", maxDetailValues))
	}
	switch kind := r.json.Kind(); kind {
	case '{':
		o := map[string]any{}
		for r.json.Begin(kind); r.json.More(); {
			name := r.short(r.json.Name())
			o[name] = r.value()
		}
		return o
	case '[':
		l := []any{}
		for r.json.Begin(kind); r.json.More(); {
			l = append(l, r.value())
		}
		return l
	case '"':
		return r.short(r.json.Text())
	case '0':
		return json.Number(r.short(r.json.Number()))
	case 'n':
		r.json.Skip()
		return nil
	default:
		return r.flag("a value in the details")
	}
}
