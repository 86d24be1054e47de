package dpop

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
)

// NonceHeader is the response header in which a server sends a nonce
// (RFC 9449 §8.1).
const NonceHeader = "DPoP-Nonce"

// maxOrigins bounds the memory of a Nonces and of a Clocks. A program talks DPoP to
// a handful of servers; more would be somebody feeding it redirects.
const maxOrigins = 128

// maxNonce is the longest nonce kept, in octets; a longer one would not fit the
// header that has to carry it back.
const maxNonce = 4096

// Nonces remembers the newest DPoP nonce of each origin (scheme, host and port):
// "a nonce issued by any of them should be used only at the issuing server" (RFC
// 9449 §9). It keeps at most 128 origins, dropping the one whose nonce has not
// changed for longest.
//
// The zero value is ready. A Nonces is safe for concurrent use and may be shared
// by all clients of a program.
type Nonces struct {
	mu     sync.Mutex
	m      map[string]string
	recent []string // origins, least recently learnt first
}

// Nonce returns the newest nonce of the server of u, or "" if it sent none.
func (n *Nonces) Nonce(u *url.URL) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.m[origin(u)]
}

// Learn stores the nonce of a response of the server of u, and reports whether
// it is new. Learn must see every response, including successful ones,
// because a new nonce may come with "the HTTP 200 (OK) response from the previous
// request" (RFC 9449 §8.2). It ignores a nonce that is malformed or longer than 4096
// octets, and several nonces in one response.
func (n *Nonces) Learn(u *url.URL, h http.Header) bool {
	if !hasNonce(h) {
		return false
	}
	nonce, key := h.Get(NonceHeader), origin(u)
	n.mu.Lock()
	defer n.mu.Unlock()
	old, known := n.m[key]
	if known && old == nonce {
		return false
	}
	if n.m == nil {
		n.m = make(map[string]string)
	}
	if known {
		for i, k := range n.recent {
			if k == key {
				n.recent = append(n.recent[:i], n.recent[i+1:]...)
				break
			}
		}
	} else if len(n.recent) >= maxOrigins {
		delete(n.m, n.recent[0])
		n.recent = n.recent[1:]
	}
	n.m[key] = nonce
	n.recent = append(n.recent, key)
	return true
}

// hasNonce reports whether there is one nonce, and it is well-formed.
func hasNonce(h http.Header) bool {
	values := h.Values(NonceHeader)
	return len(values) == 1 && validNonce(values[0])
}

// validNonce implements "nonce = 1*NQCHAR" (RFC 9449 §8.1); NQCHAR is visible
// ASCII but for the double quote and the backslash (RFC 6749 Appendix A).
func validNonce(s string) bool {
	if s == "" || len(s) > maxNonce {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c < 0x21 || c > 0x7e || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// origin is RFC 6454's: scheme, host and port, the default port left out.
func origin(u *url.URL) string {
	scheme := strings.ToLower(u.Scheme)
	host, port := strings.ToLower(u.Hostname()), u.Port()
	if strings.Contains(host, ":") {
		host = "[" + host + "]" // else [::1]:8443 and [::1:8443] were one
	}
	if port == "" || (scheme == "https" && port == "443") || (scheme == "http" && port == "80") {
		return scheme + "://" + host
	}
	return scheme + "://" + host + ":" + port
}
