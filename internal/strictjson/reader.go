package strictjson

import (
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// Decode reads what [Check] accepts: objects are map[string]any, arrays []any,
// numbers [json.Number], the rest as encoding/json has it. It goes over the text
// once, which for the answers of an API takes a fifth of the time of Check and
// encoding/json together. Every error is a [*SyntaxError].
func Decode(data []byte) (any, error) {
	if !utf8.Valid(data) {
		return nil, &SyntaxError{"not UTF-8"}
	}
	d := decoder{data: data, names: map[string]string{}}
	v, err := d.value(0)
	if err != nil {
		return nil, err
	}
	if d.space(); d.at < len(data) {
		return nil, &SyntaxError{"text after the value"}
	}
	return v, nil
}

// A decoder reads the JSON text of RFC 8259 from at on.
type decoder struct {
	data  []byte
	at    int
	names map[string]string // of members, each of which is there many times
}

// invalid is an error at the next byte, which is not what the grammar allows.
func (d *decoder) invalid() error {
	if d.at >= len(d.data) {
		return &SyntaxError{tooEarly}
	}
	return &SyntaxError{fmt.Sprintf("invalid at byte %d", d.at+1)}
}

func (d *decoder) space() {
	for d.at < len(d.data) && (d.data[d.at] == ' ' || d.data[d.at] == '\t' || d.data[d.at] == '\n' || d.data[d.at] == '\r') {
		d.at++
	}
}

// next is the next byte after white space; 0, which is none of JSON's, at the end.
func (d *decoder) next() byte {
	d.space()
	return d.peek()
}

func (d *decoder) peek() byte {
	if d.at < len(d.data) {
		return d.data[d.at]
	}
	return 0
}

// value reads one value that stands inside of depth others.
func (d *decoder) value(depth int) (any, error) {
	c := d.next()
	switch {
	case depth == maxDepth && (c == '{' || c == '['):
		return nil, &SyntaxError{fmt.Sprintf("nested deeper than %d levels", maxDepth)}
	case c == '{':
		return d.object(depth)
	case c == '[':
		return d.array(depth)
	case c == '"':
		text, err := d.text()
		if err != nil {
			return nil, err
		}
		return d.unquote(text)
	case c == '-' || '0' <= c && c <= '9':
		return d.number()
	case c == 't':
		return true, d.literal("true")
	case c == 'f':
		return false, d.literal("false")
	case c == 'n':
		return nil, d.literal("null")
	}
	return nil, d.invalid()
}

func (d *decoder) object(depth int) (any, error) {
	d.at++
	o := map[string]any{}
	if d.next() == '}' {
		d.at++
		return o, nil
	}
	for {
		name, err := d.name()
		if err != nil {
			return nil, err
		}
		if _, twice := o[name]; twice {
			return nil, &SyntaxError{"an object has the same name twice"}
		}
		if d.next() != ':' {
			return nil, d.invalid()
		}
		d.at++
		if o[name], err = d.value(depth + 1); err != nil {
			return nil, err
		}
		if ended, err := d.comma('}'); ended || err != nil {
			return o, err
		}
	}
}

func (d *decoder) array(depth int) (any, error) {
	d.at++
	a := []any{}
	if d.next() == ']' {
		d.at++
		return a, nil
	}
	for {
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		a = append(a, v)
		if ended, err := d.comma(']'); ended || err != nil {
			return a, err
		}
	}
}

// comma reads what comes after a member: a comma, or the end of them.
func (d *decoder) comma(end byte) (ended bool, err error) {
	switch d.next() {
	case ',':
		d.at++
		return false, nil
	case end:
		d.at++
		return true, nil
	}
	return false, d.invalid()
}

func (d *decoder) name() (string, error) {
	if d.next() != '"' {
		return "", d.invalid()
	}
	text, err := d.text()
	if err != nil {
		return "", err
	}
	if known, ok := d.names[string(text)]; ok { // does not allocate
		return known, nil
	}
	name, err := d.unquote(text)
	if err == nil {
		d.names[string(text)] = name
	}
	return name, err
}

// text reads a string, and returns it with its quotes.
func (d *decoder) text() ([]byte, error) {
	start := d.at
	for d.at++; d.at < len(d.data); d.at++ {
		switch c := d.data[d.at]; {
		case c == '"':
			d.at++
			return d.data[start:d.at], nil
		case c == '\\':
			d.at++ // whatever it is, it does not end the string
		case c < 0x20:
			return nil, d.invalid()
		}
	}
	d.at = len(d.data)
	return nil, d.invalid()
}

// unquote is the value of a string. Escapes, which are rare, are encoding/json's.
func (d *decoder) unquote(text []byte) (string, error) {
	for _, c := range text {
		if c == '\\' {
			var s string
			if err := json.Unmarshal(text, &s); err != nil {
				return "", &SyntaxError{"a string has a malformed escape"}
			}
			return s, nil
		}
	}
	return string(text[1 : len(text)-1]), nil
}

// number is RFC 8259 §6: -? int frac? exp?
func (d *decoder) number() (any, error) {
	start := d.at
	if d.peek() == '-' {
		d.at++
	}
	if d.peek() == '0' {
		d.at++
	} else if err := d.digits(); err != nil {
		return nil, err
	}
	if d.peek() == '.' {
		d.at++
		if err := d.digits(); err != nil {
			return nil, err
		}
	}
	if c := d.peek(); c == 'e' || c == 'E' {
		d.at++
		if c := d.peek(); c == '+' || c == '-' {
			d.at++
		}
		if err := d.digits(); err != nil {
			return nil, err
		}
	}
	return json.Number(d.data[start:d.at]), nil
}

// digits reads one or more.
func (d *decoder) digits() error {
	start := d.at
	for c := d.peek(); '0' <= c && c <= '9'; c = d.peek() {
		d.at++
	}
	if d.at == start {
		return d.invalid()
	}
	return nil
}

func (d *decoder) literal(want string) error {
	for i := range len(want) {
		if d.peek() != want[i] {
			return d.invalid()
		}
		d.at++
	}
	return nil
}
