package iamtest

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// The API answers with what google.golang.org/protobuf/encoding/protojson makes
// of the messages, but for the white space, which protojson varies: members in the
// order of their field numbers, none for an empty field, nothing escaped that
// need not be. encoding/json differs in what it escapes.

// A writer appends one JSON object to b.
type writer struct {
	b     []byte
	empty bool
}

func object(b []byte) *writer { return &writer{append(b, '{'), true} }

func (w *writer) end() []byte { return append(w.b, '}') }

func (w *writer) key(name string) {
	if !w.empty {
		w.b = append(w.b, ',')
	}
	w.empty = false
	w.b = append(append(append(w.b, '"'), name...), `":`...)
}

func (w *writer) string(name, v string) {
	if v != "" {
		w.key(name)
		w.b = appendString(w.b, v)
	}
}

func (w *writer) strings(name string, vs []string) {
	if len(vs) == 0 {
		return
	}
	w.key(name)
	for i, v := range vs {
		if i == 0 {
			w.b = append(w.b, '[')
		} else {
			w.b = append(w.b, ',')
		}
		w.b = appendString(w.b, v)
	}
	w.b = append(w.b, ']')
}

func (w *writer) number(name string, v int64) {
	if v != 0 {
		w.key(name)
		w.b = strconv.AppendInt(w.b, v, 10)
	}
}

func (w *writer) bool(name string, v bool) {
	if v {
		w.key(name)
		w.b = append(w.b, "true"...)
	}
}

func (w *writer) time(name string, t time.Time) {
	if !t.IsZero() {
		w.key(name)
		w.b = append(appendTimestamp(append(w.b, '"'), t), '"')
	}
}

// appendTimestamp writes the JSON form of a google.protobuf.Timestamp: 0, 3, 6 or 9
// digits of a second.
func appendTimestamp(b []byte, t time.Time) []byte {
	t = t.UTC()
	layout := "2006-01-02T15:04:05.000000000Z"
	switch ns := t.Nanosecond(); {
	case ns == 0:
		layout = "2006-01-02T15:04:05Z"
	case ns%1_000_000 == 0:
		layout = "2006-01-02T15:04:05.000Z"
	case ns%1_000 == 0:
		layout = "2006-01-02T15:04:05.000000Z"
	}
	return t.AppendFormat(b, layout)
}

// appendString writes a JSON string with the escapes that RFC 8259 §7 demands,
// in their short forms, and no others.
func appendString(b []byte, s string) []byte {
	const hexDigits = "0123456789abcdef"
	b = append(b, '"')
	if plain(s) {
		return append(append(b, s...), '"')
	}
	for _, r := range s { // an invalid octet becomes U+FFFD
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\b':
			b = append(b, `\b`...)
		case r == '\f':
			b = append(b, `\f`...)
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r == '\t':
			b = append(b, `\t`...)
		case r < ' ':
			b = append(b, '\\', 'u', '0', '0', hexDigits[r>>4], hexDigits[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}

// plain reports whether s is ASCII that needs no escapes.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
