// Package strictjson reads JSON from servers. It rejects input that encoding/json
// accepts and that is dangerous for credentials: duplicate names,
// text after the value, and names that match only regardless of case.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// maxDepth is the deepest nesting accepted; no answer of these APIs comes near.
const maxDepth = 64

// A SyntaxError says what is wrong with a JSON text without quoting it: the text
// may hold secrets.
type SyntaxError struct{ Reason string }

func (e *SyntaxError) Error() string { return "malformed JSON: " + e.Reason }

// Is reports that a text which ends too early is an [io.ErrUnexpectedEOF]: the
// rest may have been lost on the way.
func (e *SyntaxError) Is(target error) bool {
	return target == io.ErrUnexpectedEOF && e.Reason == tooEarly
}

const tooEarly = "it ends too early"

// Check reports whether data is exactly one JSON value in UTF-8, not nested
// deeper than 64 levels, in which no object has the same name twice
// (RFC 8259 §4 leaves duplicates undefined, so two readers may differ).
// Every error is a [*SyntaxError].
func Check(data []byte) error {
	if !utf8.Valid(data) {
		return &SyntaxError{"not UTF-8"}
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := value(dec, 0); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return &SyntaxError{"text after the value"}
	}
	return nil
}

// value reads one value that stands inside of depth others.
func value(dec *json.Decoder, depth int) error {
	tok, err := dec.Token()
	if err != nil {
		return syntax(err)
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return nil
	}
	if depth == maxDepth {
		return &SyntaxError{fmt.Sprintf("nested deeper than %d levels", maxDepth)}
	}
	seen := map[string]bool{}
	for dec.More() {
		if delim == '{' {
			tok, err := dec.Token()
			if err != nil {
				return syntax(err)
			}
			name, _ := tok.(string)
			if seen[name] {
				return &SyntaxError{"an object has the same name twice"}
			}
			seen[name] = true
		}
		if err := value(dec, depth+1); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return syntax(err)
	}
	return nil
}

// syntax drops encoding/json's message, which quotes characters of the input.
func syntax(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &SyntaxError{tooEarly}
	}
	var s *json.SyntaxError
	if errors.As(err, &s) {
		return &SyntaxError{fmt.Sprintf("invalid at byte %d", s.Offset)}
	}
	return &SyntaxError{"invalid"}
}

// Object is [Check] for a text that has to be a JSON object. It returns the
// members by their exact names. A member that is null is left out.
func Object(data []byte) (map[string]json.RawMessage, error) {
	if err := Check(data); err != nil {
		return nil, err
	}
	if t := bytes.TrimLeft(data, " \t\r\n"); len(t) == 0 || t[0] != '{' {
		return nil, &SyntaxError{"not an object"}
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, syntax(err)
	}
	for k, v := range m {
		if string(v) == "null" {
			delete(m, k)
		}
	}
	return m, nil
}
