package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		name, in, want string // want is a part of the error; "" is none
	}{
		{"object", `{"a":1,"b":[true,null,"x"],"c":{"a":2}}`, ""},
		{"array", `[1,{"a":1},{"a":2}]`, ""},
		{"scalar", ` "x" `, ""},
		{"number out of range of float64", `{"n":1e999999}`, ""},
		{"escaped name", `{"a":1,"\u0062":2}`, ""},
		{"names that differ in case", `{"a":1,"A":2}`, ""},
		{"nested as deep as allowed", strings.Repeat("[", maxDepth) + "1" + strings.Repeat("]", maxDepth), ""},

		{"empty", ``, "it ends too early"},
		{"only space", " \n", "it ends too early"},
		{"cut in an object", `{"a":1`, "it ends too early"},
		{"cut in a string", `{"a":"x`, "it ends too early"},
		{"cut after a name", `{"a"`, "it ends too early"},
		{"byte order mark", "\ufeff{}", "invalid at byte"},
		{"not UTF-8", "{\"a\":\"\xff\"}", "not UTF-8"},
		{"HTML", `<html>`, "invalid at byte"},
		{"trailing comma", `{"a":1,}`, "invalid at byte"},
		{"comma missing", `[1 2]`, "invalid at byte"},
		{"colon missing", `{"a" 1}`, "invalid at byte"},
		{"number as a name", `{1:1}`, "invalid at byte"},
		{"wrong bracket", `[1}`, "invalid at byte"},
		{"text after the value", `{} x`, "text after the value"},
		{"second value", `{}{}`, "text after the value"},
		{"same name twice", `{"a":1,"a":1}`, "same name twice"},
		{"same name twice, once escaped", `{"a":1,"\u0061":2}`, "same name twice"},
		{"same name twice, deep", `[[{"x":{"a":1,"b":2,"a":3}}]]`, "same name twice"},
		{"nested too deep", strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1), "deeper than 64"},
		{"objects nested too deep", strings.Repeat(`{"a":`, maxDepth+1) + "1" + strings.Repeat("}", maxDepth+1), "deeper than 64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := Check([]byte(tt.in))
			if tt.want == "" {
				if err != nil {
					t.Fatalf("Check: %v", err)
				}
				return
			}
			var syntax *SyntaxError
			if !errors.As(err, &syntax) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("Check: %v, want a SyntaxError with %q", err, tt.want)
			}
		})
	}
}

func TestErrorsQuoteNothing(t *testing.T) {
	const secret = "hunter2"
	for _, in := range []string{
		`{"p":hunter2}`, `{"p":"hunter2"`, `{"hunter2":1,"hunter2":2}`, `{"p":"hunter2\q"}`,
		`{"p":"x"} hunter2`, "\xff hunter2", `["hunter2"]`,
	} {
		if _, err := Object([]byte(in)); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("Object(%q): %v", in, err)
		}
	}
}

func TestObject(t *testing.T) {
	m, err := Object([]byte(" {\"a\": [1, 2] ,\"b\" : null, \"A\":\"x\"}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if len(m) != 2 || string(m["a"]) != "[1, 2]" || string(m["A"]) != `"x"` {
		t.Errorf("Object = %s", m)
	}
	for _, in := range []string{`[]`, `null`, `"x"`, `1`, ``, `{"a":1,"a":2}`} {
		var syntax *SyntaxError
		if m, err := Object([]byte(in)); !errors.As(err, &syntax) || m != nil {
			t.Errorf("Object(%q) = %s, %v", in, m, err)
		}
	}
}

// FuzzCheck holds Check against encoding/json and a count of names made apart
// from it.
func FuzzCheck(f *testing.F) {
	for _, s := range []string{`{"a":1,"a":2}`, `[1,{"b":"\"}:"}]`, `{"a":{"a":{}}}`, `"\ud800"`, `{"\ud800":1,"\udfff":2}`, `[}`, `1 2`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		err := Check(data)
		if err == nil && (!json.Valid(data) || !utf8.Valid(data)) {
			t.Fatalf("Check accepts %q", data)
		}
		m, objErr := Object(data)
		if objErr == nil && (err != nil || m == nil) {
			t.Fatalf("Object accepts %q, Check says %v", data, err)
		}
		if !json.Valid(data) || !utf8.Valid(data) {
			return
		}
		names, depth := shape(t, data)
		unique := names == countNames(decode(t, data))
		if (err == nil) != (unique && depth <= maxDepth) {
			t.Fatalf("Check(%q) = %v; names unique: %v, depth: %d", data, err, unique, depth)
		}
	})
}

func decode(t *testing.T, data []byte) any {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// shape counts the colons outside of strings, one to a name, and the depth.
func shape(t *testing.T, data []byte) (names, depth int) {
	t.Helper()
	level, inString := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == ':':
			names++
		case c == '{', c == '[':
			level++
			depth = max(depth, level)
		case c == '}', c == ']':
			level--
		}
	}
	return names, depth
}

// countNames counts what is left after encoding/json merged duplicates.
func countNames(v any) int {
	n := 0
	switch v := v.(type) {
	case map[string]any:
		n = len(v)
		for _, w := range v {
			n += countNames(w)
		}
	case []any:
		for _, w := range v {
			n += countNames(w)
		}
	}
	return n
}
