package redact

import (
	"html"
	"strconv"
	"strings"
	"sync"
	"unicode/utf16"
	"unicode/utf8"
)

// A pattern finds one secret. It is that of Knuth, Morris and Pratt, so that the time
// grows with the length of the text only: the server that chose the text may have
// chosen the secret too.
type pattern struct {
	text string  // folded
	next []int32 // how much of text is still matched when the octet after a prefix is not
}

// newPattern returns a function because most texts are too short for a secret.
func newPattern(text string) func() *pattern {
	return sync.OnceValue(func() *pattern {
		b := []byte(text)
		for i, c := range b {
			b[i] = lower(c)
		}
		p := &pattern{string(b), make([]int32, len(b)+1)}
		for i := 1; i < len(b); i++ {
			p.next[i+1] = int32(p.step(int(p.next[i]), b[i])) //nolint:gosec // no secret has 2 GiB
		}
		return p
	})
}

// step returns how much of the text is matched after c, if it was n before.
func (p *pattern) step(n int, c byte) int {
	for n > 0 && (n == len(p.text) || p.text[n] != c) {
		n = int(p.next[n])
	}
	if p.text[n] == c {
		n++
	}
	return n
}

// plain appends the places where the secret stands as it is.
func (p *pattern) plain(found []span, s string) []span {
	n := 0
	for i := range len(s) {
		if n = p.step(n, lower(s[i])); n == len(p.text) {
			found = append(found, span{i + 1 - n, i + 1})
		}
	}
	return found
}

// escaped appends the places where the secret stands with escapes of an encoding. If
// open, one or more of its signs follow the pattern, and belong to the secret.
func (p *pattern) escaped(found []span, s string, e *encoding, open bool) []span {
	starts := make([]int, len(p.text)) // of the octets matched last, a ring
	n, count := 0, 0
	for i := 0; i < len(s); {
		text, width := e.decode(s[i:])
		for j := range len(text) {
			starts[count%len(starts)] = i
			count++
			if n = p.step(n, lower(text[j])); n == len(p.text) {
				end := i + width
				signs := 0
				if open {
					signs = e.signsAt(s[end:])
				}
				if !open || signs > 0 {
					found = append(found, span{starts[count%len(starts)], end + signs})
				}
			}
		}
		i += width
	}
	return found
}

// lower is for letters in either case: host names arrive in lower case, and the digits
// of escapes come in both.
func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// A decoder returns the character that s begins with, or one octet of it, and the length
// of its form. text is never longer than its form. An escape that was escaped again in the
// same way, any number of times, counts as one.
type decoder func(s string) (text string, width int)

// An encoding is a way in which software that quotes a request writes characters.
type encoding struct {
	signs  string // without which there are no escapes
	sign   byte   // that escapes begin with
	again  string // after the sign, if the sign itself was escaped
	decode decoder
}

var encodings = []*encoding{
	{`\`, '\\', "", decodeBackslash},
	{`%+`, '%', "25", decodePercent},
	{`&`, '&', "amp;", decodeEntity},
}

// signsAt is the length of the signs that s begins with, escaped or not.
func (e *encoding) signsAt(s string) int {
	n := 0
	for n < len(s) && s[n] == e.sign {
		n++
		for e.again != "" && strings.HasPrefix(s[n:], e.again) {
			n += len(e.again)
		}
	}
	return n
}

// cutSigns is s without the signs that it ends with, escaped or not.
func (e *encoding) cutSigns(s string) string {
	for i := len(s); i > 0; {
		switch {
		case s[i-1] == e.sign:
			s = s[:i-1]
			i = len(s)
		case e.again != "" && strings.HasSuffix(s[:i], e.again):
			i -= len(e.again)
		default:
			return s
		}
	}
	return s
}

// decodeMap returns s with every escape in it decoded, and where each octet of that stood.
func (e *encoding) decodeMap(s string) (string, []span) {
	var b strings.Builder
	at := make([]span, 0, len(s))
	for i := 0; i < len(s); {
		text, width := s[i:i+1], 1
		if s[i] == e.sign { // a plus is no escape here: it may be one of the secret
			if text, width = e.decode(s[i:]); text == " " && strings.EqualFold(s[i+width-2:i+width], "2B") {
				text = "+"
			}
		}
		b.WriteString(text)
		for range len(text) {
			at = append(at, span{i, i + width})
		}
		i += width
	}
	return b.String(), at
}

// decodeAll returns s with every escape in it of up to this length decoded.
func decodeAll(s string, longest int, decode decoder) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		text, width := decode(s[i:min(len(s), i+longest)])
		b.WriteString(text)
		i += width
	}
	return b.String()
}

// decodeBackslash decodes the escapes of JSON, Go and JavaScript: \/ (as PHP writes it),
// \u003d (as Gson does), \x3d, \n and their like.
func decodeBackslash(s string) (text string, width int) {
	if s[0] != '\\' {
		return s[:1], 1
	}
	n := len(s) - len(strings.TrimLeft(s, `\`))
	rest := s[n:]
	if rest == "" {
		return `\`, n
	}
	if i := strings.IndexByte("abfnrtv", rest[0]); i >= 0 {
		return "\a\b\f\n\r\t\v"[i : i+1], n + 1
	}
	switch c := rest[0]; {
	case c == 'x':
		if v, ok := hex(rest[1:], 2); ok {
			return string([]byte{byte(v)}), n + 3
		}
	case c == 'u':
		if v, ok := hex(rest[1:], 4); ok {
			return decodeUTF16(rune(v), rest[5:], n+5)
		}
	case c == 'U':
		if v, ok := hex(rest[1:], 8); ok && v <= utf8.MaxRune {
			return string(rune(v)), n + 9
		}
	case c < utf8.RuneSelf && !isAlphanumeric(c):
		return rest[:1], n + 1
	}
	return `\`, n
}

// decodeUTF16 decodes \uXXXX of this value, and with it the second half of a surrogate
// pair if rest begins with one.
func decodeUTF16(r rune, rest string, width int) (string, int) {
	if utf16.IsSurrogate(r) {
		second := strings.TrimLeft(rest, `\`)
		if n := len(rest) - len(second); n > 0 && strings.HasPrefix(second, "u") {
			if v, ok := hex(second[1:], 4); ok {
				if pair := utf16.DecodeRune(r, rune(v)); pair != utf8.RuneError {
					return string(pair), width + n + 5
				}
			}
		}
	}
	return string(r), width
}

// decodePercent decodes %3D of a URL (RFC 3986 §2.1), and %253D, which was encoded twice.
// A plus is a space (application/x-www-form-urlencoded), in the secret too.
func decodePercent(s string) (text string, width int) {
	switch s[0] {
	case '%':
	case '+':
		return " ", 1
	default:
		return s[:1], 1
	}
	n := 1
	for strings.HasPrefix(s[n:], "25") {
		n += 2
	}
	if v, ok := hex(s[n:], 2); ok {
		if v == '+' {
			v = ' '
		}
		return string([]byte{byte(v)}), n + 2
	}
	return "%", n
}

// maxEntity is longer than any number, and than the name of any character that needs
// one, without & and ;.
const maxEntity = 10

// decodeEntity decodes the character references of HTML: &#61;, &#x3D;, &equals;, and &amp;#61;, which was escaped twice.
func decodeEntity(s string) (text string, width int) {
	if s[0] != '&' {
		return s[:1], 1
	}
	n := 1
	for strings.HasPrefix(s[n:], "amp;") {
		n += 4
	}
	end := strings.IndexByte(s[n:min(len(s), n+maxEntity+1)], ';')
	if end > 0 {
		body := s[n : n+end]
		switch {
		case body[0] != '#':
			text = html.UnescapeString("&" + body + ";")
		case len(body) > 1 && (body[1] == 'x' || body[1] == 'X'):
			text = character(body[2:], 16)
		default:
			text = character(body[1:], 10)
		}
		if utf8.RuneCountInString(text) == 1 {
			return text, n + end + 1
		}
	}
	return "&", n
}

func character(digits string, base int) string {
	v, err := strconv.ParseUint(digits, base, 21)
	if err != nil {
		return ""
	}
	return string(rune(v))
}

// hex reads the first n digits of s.
func hex(s string, n int) (v uint32, ok bool) {
	if len(s) < n {
		return 0, false
	}
	for i := range n {
		c := lower(s[i])
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		default:
			return 0, false
		}
		v = v<<4 | uint32(c)
	}
	return v, true
}

func isAlphanumeric(c byte) bool {
	c = lower(c)
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
}
