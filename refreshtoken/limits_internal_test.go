package refreshtoken

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/ycauth/ycauth-go/internal/strictjson"
	"github.com/ycauth/ycauth-go/internal/tokenapi"
)

func TestIdentifierLimits(t *testing.T) {
	for _, c := range []struct {
		name, id, want string
	}{
		{"none", "", ""},
		{"as long as it may be", strings.Repeat("a", maxIdentifier), strings.Repeat("a", maxIdentifier)},
		{"cut", strings.Repeat("a", maxIdentifier) + "b", strings.Repeat("a", maxIdentifier)},
		{"as long as is read", strings.Repeat("a ", maxText/2), strings.Repeat("a", maxIdentifier)},
		{"longer than is read", strings.Repeat("a ", maxText/2) + "a", ""},
	} {
		if got := identifier(c.id, cleanerOf(noSecret)); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestMessageLimit(t *testing.T) {
	for n, want := range map[int]string{maxText: "aaaa", maxText + 1: "(a text longer"} {
		e := &APIError{Message: strings.Repeat("a", n)}
		if e.complete(methodList, cleanerOf(noSecret)); !strings.HasPrefix(e.Message, want) {
			t.Errorf("a message of %d bytes became %.40q", n, e.Message)
		}
	}
}

// TestDetailsLimits: the values are counted over all details.
func TestDetailsLimits(t *testing.T) {
	zeros := func(n int) string { return "[" + strings.Repeat("0,", n-2) + "0]" } // n values with the array
	text := func(n int) string { return `"` + strings.Repeat("a", n) + `"` }
	for _, c := range []struct {
		name    string
		details []string
		kept    []bool
	}{
		{"as many values as may be", []string{zeros(maxDetailValues)}, []bool{true}},
		{"one more", []string{zeros(maxDetailValues + 1)}, []bool{false}},
		{"as many values as may be, in two", []string{zeros(maxDetailValues - 10), zeros(10)}, []bool{true, true}},
		{"one more, in two", []string{zeros(maxDetailValues - 10), zeros(11)}, []bool{true, false}},
		{"as long a text as may be", []string{text(maxDetails - 2)}, []bool{true}},
		{"one byte more", []string{text(maxDetails - 1)}, []bool{false}},
		{"as much as may be", slices.Repeat([]string{text(1<<11 - 2)}, 33), append(slices.Repeat([]bool{true}, 32), false)},
	} {
		e := &APIError{}
		for _, d := range c.details {
			e.Details = append(e.Details, json.RawMessage(d))
		}
		e.complete(methodList, func(s string) string { return s })
		for i, d := range e.Details {
			if kept := string(d) == c.details[i]; kept != c.kept[i] || !kept && string(d) != `{}` {
				t.Errorf("%s: detail %d is kept: %v, want %v; it is %.40q", c.name, i, kept, c.kept[i], d)
			}
		}
	}
}

// TestKnownTexts: what many tokens have in common is kept once, but not without limit.
func TestKnownTexts(t *testing.T) {
	long := strings.Repeat("a", maxShared)
	var many strings.Builder
	for i := range 600 {
		fmt.Fprintf(&many, `{"clientId":"c%d","subjectId":"s%[1]d"},`, i)
	}
	for _, c := range []struct {
		name, tokens string
		known        int
	}{
		{"one", `{"clientId":"a"},{"clientId":"a"}`, 1},
		{"as long as may be", `{"clientId":"` + long + `"}`, 1},
		{"too long", `{"clientId":"` + long + `a"}`, 0},
		{"too many", strings.TrimSuffix(many.String(), ","), maxKnown},
	} {
		r := &reader{json: strictjson.NewReader(strings.NewReader(`{"refreshTokens":[`+c.tokens+`]}`), jsonBuffer), known: map[string]string{}}
		r.page(tokenapi.ListRequest{})
		if err := r.json.Err(); err != nil || len(r.known) != c.known {
			t.Errorf("%s: %d texts are known, want %d (%v)", c.name, len(r.known), c.known, err)
		}
	}
}

// TestMetadataMembers: each member is read by its name, and may be null.
func TestMetadataMembers(t *testing.T) {
	for _, c := range []struct {
		metadata string
		want     tokenapi.Metadata
		err      string // "" for none
	}{
		{`{"subjectId":"aje9","refreshTokenIds":["aje1"],"a":"b","c":["d"],"e":5}`, tokenapi.Metadata{SubjectID: "aje9", RefreshTokenIDs: []string{"aje1"}}, ""},
		{`{"a":"b","c":["d"],"e":{}}`, tokenapi.Metadata{}, ""},
		{`{"subjectId":null,"refreshTokenIds":null,"a":null}`, tokenapi.Metadata{}, ""},
		{`{"subjectId":5}`, tokenapi.Metadata{}, "subjectId is not a string"},
		{`{"subjectId":["aje9"]}`, tokenapi.Metadata{}, "subjectId is not a string"},
		{`{"refreshTokenIds":"aje1"}`, tokenapi.Metadata{}, "refreshTokenIds is not an array"},
		{`{"refreshTokenIds":{}}`, tokenapi.Metadata{}, "refreshTokenIds is not an array"},
		{`{"refreshTokenIds":["aje1",5]}`, tokenapi.Metadata{}, "refreshTokenIds is not an array of strings"},
	} {
		op, err := parseOperation(strings.NewReader(`{"id":"op1","metadata":` + c.metadata + `}`))
		if c.err != "" {
			if err == nil || !strings.HasSuffix(err.Error(), c.err) {
				t.Errorf("%s: got the error %v, want %q", c.metadata, err, c.err)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(op.Metadata, c.want) {
			t.Errorf("%s: got %+v and %v, want %+v", c.metadata, op, err, c.want)
		}
	}
}

// TestErrorNamesItsPlace: the number of a token is that of one on the page.
func TestErrorNamesItsPlace(t *testing.T) {
	for page, want := range map[string]string{
		`{"nextPageToken":5}`:                                "nextPageToken is not a string",
		`{"refreshTokens":[{"id":5}]}`:                       "refreshTokens[0]: id is not a string",
		`{"refreshTokens":[{},{"id":5}]}`:                    "refreshTokens[1]: id is not a string",
		`{"refreshTokens":[{},{"id":""}],"nextPageToken":5}`: "nextPageToken is not a string",
	} {
		if _, err := parsePage(strings.NewReader(page), tokenapi.ListRequest{}); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %q", page, err, want)
		}
	}
}

// TestIDInAMessage: where the ID of the token is not known, one of 16 characters can be it.
func TestIDInAMessage(t *testing.T) {
	for id, want := range map[string]bool{"aje4567890123456": true, "aje456789012345": false} {
		if got := (question{kind: targetToken}).isID(id); got != want {
			t.Errorf("%q, of %d characters: got %v", id, len(id), got)
		}
	}
}

// TestBoundedBody: the end of ctx counts after as much as is read at a time.
func TestBoundedBody(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for n, want := range map[int]error{1: nil, jsonBuffer: nil, jsonBuffer + 1: context.Canceled, maxBody + 1: errTooLarge} {
		b := &boundedBody{ctx: ctx, LimitedReader: io.LimitedReader{R: strings.NewReader(strings.Repeat("a", n)), N: maxBody + 1}}
		if got, err := b.Read(make([]byte, n)); got != n || !errors.Is(err, want) {
			t.Errorf("%d bytes: got %d and %v, want %v", n, got, err, want)
		}
	}
}

func TestInt32(t *testing.T) {
	for text, want := range map[string]bool{
		"0": true, "-1": true, "5.0": true, "5.000": true, "1e2": true, "50e-1": true, "2147483647": true, "-2147483648.0": true,
		"": false, "5.5": false, "1e-1": false, "2147483648": false, "2147483648.0": false, "1e10": false, "1e999": false, "NaN": false, "Inf": false,
		"0x5": false, "0x5p0": false, "5_0": false, "five": false, "5\n": false, strings.Repeat("0", 64) + ".0": false,
	} {
		if n, ok := int32Of(text); ok != want {
			t.Errorf("%q: got %d and %v", text, n, ok)
		}
	}
}
