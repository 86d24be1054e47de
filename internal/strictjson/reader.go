package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// A Reader reads a JSON text from a stream in one pass, as strictly as [Check], and
// holds no more of it than one string that the caller asks for, and the names in the
// objects that are open: 10,000 in each, and 1 MiB in all. Nothing is kept of what is
// skipped. The caller knows the form of the text:
//
//	for r.Begin('{'); r.More(); {
//		switch string(r.Name()) {
//		case "id":
//			id = string(r.Text())
//		default:
//			r.Skip()
//		}
//	}
//	r.End()
//	err := r.Err()
//
// The first error stays, and ends every loop. Nothing that was read counts before
// [Reader.End].
type Reader struct {
	src    io.Reader
	srcErr error  // that came with the last bytes in buf
	buf    []byte // of which what comes before at was read
	at     int
	passed int64 // bytes before buf
	err    error

	open  []frame // objects and arrays that have begun
	names []byte  // of the members of open objects so far, one after the other
	ends  []int   // of each in names
	text  []byte  // a string or number that is in buf no more
}

// A frame is an object or array that has begun.
type frame struct {
	end  byte // that closes it
	some bool // there was a member
	ends int  // where the names of its members begin in Reader.ends
	seen map[string]struct{}
}

// NewReader returns a Reader that reads src in pieces of at most size bytes.
func NewReader(src io.Reader, size int) *Reader {
	return &Reader{src: src, buf: make([]byte, 0, max(size, 1))}
}

// Err is a [*SyntaxError], the error of the stream, or that of [Reader.Fail].
func (r *Reader) Err() error { return r.err }

// Fail ends the reading with an error, unless there was one before.
func (r *Reader) Fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *Reader) syntax(reason string) { r.Fail(&SyntaxError{reason}) }

// invalid says that the grammar does not allow the next byte.
func (r *Reader) invalid() {
	if r.peek() == 0 && r.at == len(r.buf) {
		r.syntax(tooEarly)
		return
	}
	r.syntax(fmt.Sprintf("invalid at byte %d", r.passed+int64(r.at)+1))
}

// fill reads on when all of buf was read.
func (r *Reader) fill() bool {
	r.passed += int64(len(r.buf))
	r.buf, r.at = r.buf[:0], 0
	for tries := 0; len(r.buf) == 0 && r.srcErr == nil; tries++ {
		var n int
		n, r.srcErr = r.src.Read(r.buf[:cap(r.buf)])
		if r.buf = r.buf[:n]; tries == 100 {
			r.srcErr = io.ErrNoProgress
		}
	}
	if len(r.buf) == 0 && !errors.Is(r.srcErr, io.EOF) {
		r.Fail(r.srcErr)
	}
	return len(r.buf) > 0
}

// peek is the next byte; 0, which is none of JSON's, at the end and after an error.
func (r *Reader) peek() byte {
	if r.err != nil || r.at == len(r.buf) && !r.fill() {
		return 0
	}
	return r.buf[r.at]
}

// next is the next byte after white space.
func (r *Reader) next() byte {
	if r.err == nil && r.at < len(r.buf) && r.buf[r.at] > ' ' { // most of the time
		return r.buf[r.at]
	}
	for {
		c := r.peek()
		if c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			return c
		}
		r.at++
	}
}

// Kind tells what value comes next by its first character, which is 0 for a number. It
// is a space after an error.
func (r *Reader) Kind() byte {
	switch c := r.next(); {
	case c == '{', c == '[', c == '"', c == 't', c == 'f', c == 'n':
		return c
	case c == '-', '0' <= c && c <= '9':
		return '0'
	}
	r.invalid()
	return ' '
}

// Begin begins an object or array, by its first character.
func (r *Reader) Begin(c byte) {
	switch {
	case r.next() != c:
		r.invalid()
	case len(r.open) == maxDepth:
		r.syntax(fmt.Sprintf("nested deeper than %d levels", maxDepth))
	default:
		r.at++
		r.open = append(r.open, frame{end: c + 2, ends: len(r.ends)}) // ASCII: [ \ ] and { | }
	}
}

// More reports whether the object or array has another member, whose value comes
// next, and otherwise ends it.
func (r *Reader) More() bool {
	if r.err != nil {
		return false
	}
	f := &r.open[len(r.open)-1]
	c := r.next()
	switch {
	case c == f.end:
		r.at++
		r.names, r.ends = r.names[:r.nameStart(f.ends)], r.ends[:f.ends]
		r.open = r.open[:len(r.open)-1]
		return false
	case f.some && c != ',':
		r.invalid()
		return false
	case f.some:
		r.at++
		c = r.next()
	}
	f.some = true
	if f.end == '}' {
		if c != '"' {
			r.invalid()
			return false
		}
		r.member(f)
	}
	return r.err == nil
}

// nameStart is where the ith name begins in names.
func (r *Reader) nameStart(i int) int {
	if i == 0 {
		return 0
	}
	return r.ends[i-1]
}

// fewNames are compared one by one. More than maxNames in one object are rejected, and
// more than maxNameBytes in the objects that are open: a value that is skipped must not
// take memory for each.
const (
	fewNames     = 16
	maxNames     = 10_000
	maxNameBytes = 1 << 20
)

// member reads the name of a member of the innermost object, and the colon.
func (r *Reader) member(f *frame) {
	name := r.string(maxNameBytes - len(r.names))
	if r.err != nil {
		return
	}
	if len(name) > maxNameBytes-len(r.names) {
		r.longNames()
		return
	}
	if len(r.ends)-f.ends >= maxNames {
		r.syntax(fmt.Sprintf("an object has more than %d members", maxNames))
		return
	}
	twice := false
	if f.seen == nil {
		for i := f.ends; i < len(r.ends); i++ {
			twice = twice || string(r.names[r.nameStart(i):r.ends[i]]) == string(name)
		}
	} else {
		_, twice = f.seen[string(name)]
		f.seen[string(name)] = struct{}{}
	}
	if twice {
		r.syntax("an object has the same name twice")
		return
	}
	r.names = append(r.names, name...)
	r.ends = append(r.ends, len(r.names))
	if f.seen == nil && len(r.ends)-f.ends > fewNames {
		f.seen = map[string]struct{}{}
		for i := f.ends; i < len(r.ends); i++ {
			f.seen[string(r.names[r.nameStart(i):r.ends[i]])] = struct{}{}
		}
	}
	if r.next() != ':' {
		r.invalid()
		return
	}
	r.at++
}

func (r *Reader) longNames() {
	r.syntax(fmt.Sprintf("the names in open objects have more than %d bytes", maxNameBytes))
}

// Name is that of the member that [Reader.More] found. It is valid until the value
// was read.
func (r *Reader) Name() []byte {
	if r.err != nil {
		return nil
	}
	i := len(r.ends) - 1
	return r.names[r.nameStart(i):r.ends[i]]
}

// Text reads a string. The bytes are valid until the next call.
func (r *Reader) Text() []byte { return r.string(-1) }

// string is Text for one of at most so many bytes, as they are written, or of any number
// if most is negative.
func (r *Reader) string(most int) []byte {
	if text, ok := r.plainText(); ok || r.err != nil {
		return text
	}
	return r.otherText(most)
}

// plainText reads a string that is plain and in buf as a whole. Of any other, and of what
// is no string, it reads the quote.
func (r *Reader) plainText() (text []byte, ok bool) {
	if r.next() != '"' {
		r.invalid()
		return nil, false
	}
	r.at++
	rest := r.buf[r.at:]
	if n := bytes.IndexByte(rest, '"'); n >= 0 && plain(rest[:n]) {
		r.at += n + 1
		return rest[:n], true
	}
	return nil, false
}

// plain reports whether a string consists of ASCII that needs no escapes.
func plain(text []byte) bool {
	for _, c := range text {
		if c < 0x20 || c == '\\' || c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// otherText is [Reader.string] for one that is not plain, or not in buf as a whole, after
// its quote.
func (r *Reader) otherText(most int) []byte {
	r.text = r.text[:0]
	escaped, skip, ascii := false, false, true
	for start := r.at; ; start = 0 {
		for i, c := range r.buf[start:] {
			switch {
			case skip: // whatever it is, it does not end the string
				skip = false
			case c == '"':
				text := r.buf[start : start+i]
				r.at = start + i + 1
				if len(r.text) > 0 {
					r.text = append(r.text, text...)
					text = r.text
				}
				return r.unquote(text, escaped, ascii)
			case c == '\\':
				escaped, skip = true, true
			}
			if c < 0x20 {
				r.at = start + i
				r.invalid()
				return nil
			}
			ascii = ascii && c < utf8.RuneSelf
		}
		r.text = append(r.text, r.buf[start:]...)
		if most >= 0 && len(r.text) > most {
			r.longNames()
			return nil
		}
		if r.at = len(r.buf); !r.fill() {
			r.invalid()
			return nil
		}
	}
}

// unquote is the value of a string. Escapes, which are rare, are encoding/json's.
func (r *Reader) unquote(text []byte, escaped, ascii bool) []byte {
	if !ascii && !utf8.Valid(text) {
		r.syntax("not UTF-8")
		return nil
	}
	if !escaped {
		return text
	}
	var s string
	if err := json.Unmarshal([]byte(`"`+string(text)+`"`), &s); err != nil {
		r.syntax(badEscape)
		return nil
	}
	return []byte(s)
}

// skipText reads the rest of a string as strictly as otherText.
func (r *Reader) skipText() {
	for r.err == nil {
		for r.at < len(r.buf) && r.buf[r.at] != '"' && plain(r.buf[r.at:r.at+1]) {
			r.at++
		}
		switch c := r.peek(); {
		case c == '"':
			r.at++
			return
		case c == '\\':
			r.at++
			r.skipEscape()
		case c < 0x20: // 0 at the end of the text too
			r.invalid()
		case c < utf8.RuneSelf:
			r.at++
		default:
			r.skipRune()
		}
	}
}

// skipEscape reads what comes after a backslash.
func (r *Reader) skipEscape() {
	c := r.peek()
	if c == 0 {
		r.invalid()
		return
	}
	r.at++
	digits := 0
	if c == 'u' {
		digits = 4
	} else if bytes.IndexByte([]byte(`"\/bfnrt`), c) < 0 {
		r.syntax(badEscape)
	}
	for ; digits > 0 && r.err == nil; digits-- {
		switch c := r.peek(); {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'f', 'A' <= c && c <= 'F':
			r.at++
		case c == 0:
			r.invalid()
		default:
			r.syntax(badEscape)
		}
	}
}

// skipRune reads a character that is not ASCII.
func (r *Reader) skipRune() {
	var b [utf8.UTFMax]byte
	for n := 0; ; {
		c := r.peek()
		if c == 0 {
			r.invalid()
			return
		}
		b[n] = c
		n++
		if !utf8.FullRune(b[:n]) {
			r.at++
			continue
		}
		if _, size := utf8.DecodeRune(b[:n]); size < n || size == 1 {
			r.syntax("not UTF-8")
		}
		r.at++
		return
	}
}

const badEscape = "a string has a malformed escape"

// Number reads a number (RFC 8259 §6: -? int frac? exp?), as it is written. The bytes
// are valid until the next call.
func (r *Reader) Number() []byte {
	r.text = r.text[:0]
	r.number(func(c byte) { r.text = append(r.text, c) })
	return r.text
}

// number calls keep with each character.
func (r *Reader) number(keep func(byte)) {
	r.next()
	r.take('-', '-', keep)
	if !r.take('0', '0', keep) {
		r.digits(keep)
	}
	if r.take('.', '.', keep) {
		r.digits(keep)
	}
	if r.take('e', 'E', keep) {
		r.take('+', '-', keep)
		r.digits(keep)
	}
}

// take reads a character of a number, if it is one of the two.
func (r *Reader) take(a, b byte, keep func(byte)) bool {
	c := r.peek()
	if c == 0 || c != a && c != b {
		return false
	}
	keep(c)
	r.at++
	return true
}

// digits reads one or more.
func (r *Reader) digits(keep func(byte)) {
	some := false
	for c := r.peek(); '0' <= c && c <= '9'; c = r.peek() {
		keep(c)
		r.at++
		some = true
	}
	if !some {
		r.invalid()
	}
}

// Skip reads a value of any kind.
func (r *Reader) Skip() {
	switch c := r.Kind(); c {
	case '{', '[':
		for r.Begin(c); r.More(); {
			r.Skip()
		}
	case '"':
		if _, ok := r.plainText(); !ok {
			r.skipText()
		}
	case '0':
		r.number(func(byte) {})
	case 't':
		r.literal("true")
	case 'f':
		r.literal("false")
	case 'n':
		r.literal("null")
	}
}

func (r *Reader) literal(want string) {
	for i := range len(want) {
		if r.peek() != want[i] {
			r.invalid()
			return
		}
		r.at++
	}
}

// End makes sure that nothing comes after the value.
func (r *Reader) End() {
	if r.next() != 0 || r.err == nil && r.at < len(r.buf) {
		r.syntax("text after the value")
	}
}
