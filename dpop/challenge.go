package dpop

import (
	"net/http"
	"strings"
)

// The error codes of a 401 that something can be done about (RFC 9449 §7.1, §9;
// RFC 6750 §3.1).
const (
	codeUseNonce     = "use_dpop_nonce"
	codeInvalidProof = "invalid_dpop_proof"
	codeInvalidToken = "invalid_token"
)

// challengeError is the error code in the WWW-Authenticate header of a 401, or ""
// if there is none. A server that accepts several schemes may send a challenge for
// each. A code about the proof then says more than one about the token, and that
// more than any other.
func challengeError(h http.Header) string {
	rank := map[string]int{codeInvalidToken: 2, codeInvalidProof: 3, codeUseNonce: 4}
	best := ""
	for _, challenge := range h.Values("WWW-Authenticate") {
		for challenge != "" {
			var name, value string
			name, value, challenge = nextParam(challenge)
			if strings.EqualFold(name, "error") && value != "" && (best == "" || rank[value] > rank[best]) {
				best = value
			}
		}
	}
	return best
}

// nextParam cuts the first auth-param off a list of challenges (RFC 9110 §11.3,
// §11.6.1), or as much as is none, with an empty name. Servers differ in how they
// write the list, so what stands around the parameters is skipped.
func nextParam(s string) (name, value, rest string) {
	n := tokenLen(s)
	if n == 0 {
		if s[0] == '"' {
			_, rest = cutQuoted(s)
			return "", "", rest
		}
		return "", "", s[1:]
	}
	name, rest = s[:n], s[n:]
	after := strings.TrimLeft(rest, " \t")
	if !strings.HasPrefix(after, "=") {
		return "", "", rest // a scheme
	}
	rest = strings.TrimLeft(after[1:], " \t")
	if strings.HasPrefix(rest, `"`) {
		value, rest = cutQuoted(rest)
	} else {
		n = tokenLen(rest)
		value, rest = rest[:n], rest[n:]
	}
	return name, strings.Trim(value, "'"), rest
}

// cutQuoted cuts off a quoted-string (RFC 9110 §5.6.4). Its escapes stay, as no
// error code has any.
func cutQuoted(s string) (value, rest string) {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return s[1:i], s[i+1:]
		}
	}
	return s[1:], ""
}

// tokenLen is the length of the token (RFC 9110 §5.6.2) that s begins with.
func tokenLen(s string) int {
	for i := range len(s) {
		if !isTokenChar(s[i]) {
			return i
		}
	}
	return len(s)
}
