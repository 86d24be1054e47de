// Package redact keeps credentials out of texts that people and logs will see.
//
// It is the second line of defence. The first is that secrets have a type which
// does not print; this package is for texts that somebody else wrote, such as
// the error_description of a server that echoes what it was sent.
package redact

import (
	"encoding/json"
	"html"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Mark stands where a secret stood.
const Mark = "REDACTED"

// maxText is the longest text that Text lets through, in runes.
const maxText = 512

// Known credential shapes: Yandex Cloud IAM and refresh tokens, Yandex OAuth
// access and refresh tokens, JWTs, and whatever follows an authentication
// scheme. The prefixes may change, so they serve to redact, never to validate.
var shapes = regexp.MustCompile(strings.Join([]string{
	`\br?t1\.[A-Za-z0-9_=\-]+(?:\.[A-Za-z0-9_=\-]+)?`,
	`\by[0-6]_[A-Za-z0-9_\-]{10,}`,
	`\bAQAAAA[A-Za-z0-9_\-]{10,}`,
	`\b[0-9]:[A-Za-z0-9_\-]{8,}:[A-Za-z0-9_\-]{16,}(?::[A-Za-z0-9_\-]+)?`,
	`\beyJ[A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]+(?:\.[A-Za-z0-9_\-]*)?`,
	`(?i)\b(?:bearer|dpop|basic)\s+[A-Za-z0-9._~+/=\-]{8,}`,
}, "|"))

// Text sanitizes untrusted text for use in an error or a log. The given secrets,
// also as a URL, Go, JSON and HTML write them and in either case, and everything that
// looks like a credential become [Mark]. Control characters and those that reverse
// the direction of writing become spaces. What is longer than 512 runes is cut.
func Text(s string, secrets ...string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(Credentials(s, secrets...), "\uFFFD"))
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
func Credentials(s string, secrets ...string) string {
	for _, secret := range longestFirst(secrets) {
		if len(secret) < 4 {
			continue // would redact ordinary words
		}
		for _, form := range forms(secret) {
			s = replaceAll(s, form, Mark)
		}
	}
	if !suspicious(s) {
		return s
	}
	return shapes.ReplaceAllString(s, Mark)
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

// forms are the ways in which software that quotes a request writes a secret: as it
// is, in a URL, as %q of fmt (net/http does), as a JSON string, in HTML.
func forms(secret string) []string {
	all := []string{secret, url.QueryEscape(secret), url.PathEscape(secret), unquoted(strconv.Quote(secret)), html.EscapeString(secret)}
	for _, escapeHTML := range []bool{true, false} {
		var b strings.Builder
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(escapeHTML)
		if err := enc.Encode(secret); err != nil {
			continue // a string and a Builder do not fail
		}
		all = append(all, unquoted(strings.TrimSuffix(b.String(), "\n")))
	}
	slices.Sort(all)
	return longestFirst(slices.Compact(all)) // an escaped form can hold the plain one
}

func unquoted(s string) string { return s[1 : len(s)-1] }

// replaceAll is [strings.ReplaceAll] for letters in either case: host names arrive
// in lower case, and the digits of escapes come in both.
func replaceAll(s, old, with string) string {
	var b strings.Builder
	rest := s
	for i := 0; i+len(old) <= len(rest); {
		if lower(rest[i]) != lower(old[0]) || !strings.EqualFold(rest[i:i+len(old)], old) {
			i++
			continue
		}
		b.WriteString(rest[:i] + with)
		rest, i = rest[i+len(old):], 0
	}
	if len(rest) == len(s) {
		return s
	}
	return b.String() + rest
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// longestFirst: of two secrets where one begins with the other, the rest of the
// longer one must not stay.
func longestFirst(secrets []string) []string {
	sorted := slices.Clone(secrets)
	slices.SortFunc(sorted, func(a, b string) int { return len(b) - len(a) })
	return sorted
}
