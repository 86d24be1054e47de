// Package redact keeps credentials out of texts for users and logs.
//
// It is the second line of defense. The first is a type for secrets that
// does not print. This package is for texts from outside, such as
// the error_description of a server that echoes the request.
package redact

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Mark stands where a secret stood.
const Mark = "REDACTED"

// maxText is the longest text that Text lets through, in runes.
const maxText = 512

// Known credential shapes: Yandex Cloud IAM and refresh tokens, Yandex OAuth
// access and refresh tokens, JWTs, and whatever may follow an authentication
// scheme ([looksSecret] decides). The prefixes may change, so they serve to redact, never to validate.
var shapes = regexp.MustCompile(strings.Join([]string{
	`\br?t1\.[A-Za-z0-9_=\-]+(?:\.[A-Za-z0-9_=\-]+)?`,
	`\by[0-6]_[A-Za-z0-9_\-]{10,}`,
	`\bAQAAAA[A-Za-z0-9_\-]{10,}`,
	`\b[0-9]:[A-Za-z0-9_\-]{8,}:[A-Za-z0-9_\-]{16,}(?::[A-Za-z0-9_\-]+)?`,
	`\beyJ[A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]+(?:\.[A-Za-z0-9_\-]*)?`,
	`(?i)\b(?:bearer|dpop|basic)\s+[A-Za-z0-9._~+/=\-]{8,}`,
}, "|"))

// A Cleaner takes certain secrets, and what looks like a credential, out of texts. It
// is made once for the secrets of a request, and then cleans any number of texts, each
// in a time that grows with its length alone. A nil Cleaner knows no secrets. A Cleaner
// is safe for concurrent use.
type Cleaner struct {
	secrets func() []secret // a closure, because fmt follows no function
}

// A secret is searched for as it is, if there is no encoding, or in the text as its
// decoder reads it.
type secret struct {
	*encoding
	open    bool // see [pattern.escaped]
	pattern func() *pattern
	min     int // the length of the shortest text that it can be in
}

// New returns a Cleaner for these secrets, nil if there are none. Those of less than 4 octets are ignored,
// because ordinary words would be redacted.
func New(secrets ...string) *Cleaner {
	var all []secret
	for i, s := range secrets {
		if len(s) < minSecret || slices.Contains(secrets[:i], s) {
			continue
		}
		plain := newPattern(s)
		all = append(all, secret{pattern: plain, min: len(s)})
		for _, e := range encodings {
			if !strings.ContainsAny(s, e.signs) {
				all = append(all, secret{e, false, plain, len(s)})
				continue
			}
			// How signs at the end are read depends on what follows the secret in the text:
			// the \\ of "secret\\" can be one, or belong to an escaped quote.
			for _, cut := range slices.Compact([]string{s, e.cutSigns(s)}) {
				// What looks like an escape in the secret does not in the text if each of its
				// characters was escaped, and is read as one there if they were not.
				for _, form := range slices.Compact([]string{decodeAll(cut, 1, e.decode), decodeAll(cut, len(cut), e.decode)}) {
					if len(form) >= minSecret {
						all = append(all, secret{e, len(cut) < len(s), newPattern(form), len(form)})
					}
				}
			}
		}
	}
	if all == nil {
		return nil
	}
	return &Cleaner{func() []secret { return all }}
}

// minSecret is the length of the shortest secret that is searched for, and of the
// shortest credential that has a known shape, in octets.
const minSecret = 4

// Text is [Cleaner.Text] for one text.
func Text(s string, secrets ...string) string { return New(secrets...).Text(s) }

// Credentials is [Cleaner.Credentials] for one text.
func Credentials(s string, secrets ...string) string { return New(secrets...).Credentials(s) }

// Text sanitizes untrusted text for use in an error or a log. The secrets, also as a
// URL, Go, JSON and HTML write them and in either case, and everything that looks like
// a credential become [Mark]. Control characters and those that reverse the direction
// of writing become spaces. What is longer than 512 runes is cut.
func (c *Cleaner) Text(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(c.Credentials(s), "\uFFFD"))
	s = strings.TrimSpace(s)
	if len(s) > maxText { // runes are never longer than bytes
		if r := []rune(s); len(r) > maxText {
			s = string(r[:maxText]) + "…"
		}
	}
	return s
}

// Credentials is Text for data: it replaces the secrets and what looks like a
// credential, and leaves everything else as it is.
func (c *Cleaner) Credentials(s string) string {
	if len(s) < minSecret {
		return s
	}
	s = mark(s, c.find(s))
	if !suspicious(s) {
		return s
	}
	return shapes.ReplaceAllStringFunc(s, func(match string) string {
		if scheme, token, ok := cutScheme(match); ok && !looksSecret(token) {
			return scheme + token
		}
		return Mark
	})
}

// suspicious reports whether s has a part that every text of one of the shapes has. It
// tells most texts from credentials in a hundredth of the time that shapes takes.
func suspicious(s string) bool {
	for i := range len(s) {
		before := s[:i]
		switch c := s[i]; c {
		case '.':
			if strings.HasSuffix(before, "t1") {
				return true
			}
		case '_', ':':
			if i > 0 && '0' <= s[i-1] && s[i-1] <= '9' {
				return true
			}
		case 'Q', 'J':
			if strings.HasSuffix(before, "A") || strings.HasSuffix(before, "ey") {
				return true
			}
		case ' ', '\t', '\n', '\f', '\r':
			for _, scheme := range []string{"bearer", "dpop", "basic"} {
				if n := i - len(scheme); n >= 0 && strings.EqualFold(s[n:i], scheme) {
					return true
				}
			}
		default:
			if c >= utf8.RuneSelf { // other letters are the same as ASCII's in another case
				return true
			}
		}
	}
	return false
}

// A span is a part of a text, from one octet to before another.
type span struct{ from, to int }

func (c *Cleaner) find(s string) []span {
	if c == nil || c.secrets == nil {
		return nil
	}
	var found []span
	for _, secret := range c.secrets() {
		switch {
		case len(s) < secret.min:
		case secret.encoding == nil:
			found = secret.pattern().plain(found, s)
		case strings.ContainsAny(s, secret.signs):
			found = secret.pattern().escaped(found, s, secret.encoding, secret.open)
		}
	}
	for _, outer := range encodings {
		if strings.IndexByte(s, outer.sign) >= 0 {
			found = append(found, c.findWithin(s, outer)...)
		}
	}
	return found
}

// findWithin finds the secrets that were escaped before all of that was in outer, such as
// JSON in a URL. It reads signs of outer in a secret as it does those of the text.
func (c *Cleaner) findWithin(s string, outer *encoding) []span {
	var found []span
	var inner string
	var at []span // of the octets of inner
	for _, secret := range c.secrets() {
		if secret.encoding == nil || len(s) < secret.min {
			continue
		}
		if at == nil {
			inner, at = outer.decodeMap(s)
		}
		if strings.IndexByte(inner, secret.sign) < 0 {
			continue
		}
		for _, f := range secret.pattern().escaped(nil, inner, secret.encoding, secret.open) {
			found = append(found, span{at[f.from].from, at[f.to-1].to})
		}
	}
	return found
}

// mark replaces the spans. Those that overlap become one mark, so that nothing is left of
// either secret where one begins with the other.
func mark(s string, found []span) string {
	if len(found) == 0 {
		return s
	}
	slices.SortFunc(found, func(a, b span) int { return cmp.Or(a.from-b.from, a.to-b.to) })
	var b strings.Builder
	end := 0 // of what is written or marked
	for i, f := range found {
		if i == 0 || f.from >= end {
			b.WriteString(s[end:f.from])
			b.WriteString(Mark)
		}
		end = max(end, f.to)
	}
	b.WriteString(s[end:])
	return b.String()
}

// cutScheme splits what shapes found after an authentication scheme.
func cutScheme(match string) (scheme, token string, ok bool) {
	i := strings.LastIndexFunc(match, unicode.IsSpace) + 1
	return match[:i], match[i:], i > 0
}

// looksSecret tells a credential from the word after "Bearer" in a sentence: a word is
// short, and has neither digits, nor a capital letter after a small one, nor padding.
func looksSecret(token string) bool {
	if len(token) >= 16 || token == Mark || strings.HasSuffix(token, "=") {
		return true
	}
	for i, c := range []byte(token) {
		if '0' <= c && c <= '9' || i > 0 && lower(c) != c && lower(token[i-1]) == token[i-1] && isAlphanumeric(token[i-1]) {
			return true
		}
	}
	return false
}
