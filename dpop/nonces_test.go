package dpop

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
)

func parseURL(tb testing.TB, s string) *url.URL {
	tb.Helper()
	u, err := url.Parse(s)
	if err != nil {
		tb.Fatal(err)
	}
	return u
}

func nonceHeader(values ...string) http.Header {
	h := http.Header{}
	for _, v := range values {
		h.Add(NonceHeader, v)
	}
	return h
}

func TestNonces(t *testing.T) {
	var n Nonces
	u := parseURL(t, "https://auth.example.com/token")
	if got := n.Nonce(u); got != "" {
		t.Errorf("a nonce out of nowhere: %q", got)
	}
	for _, step := range []struct {
		name  string
		h     http.Header
		isNew bool
		want  string
	}{
		{"none yet", nonceHeader(), false, ""},
		{"first", nonceHeader("one"), true, "one"},
		{"the same again", nonceHeader("one"), false, "one"},
		{"newest wins", nonceHeader("two"), true, "two"},
		{"an older one may come back", nonceHeader("one"), true, "one"},
		{"no header changes nothing", nonceHeader(), false, "one"},
		{"any case of the header", http.Header{http.CanonicalHeaderKey("dpop-nonce"): {"three"}}, true, "three"},
	} {
		if isNew := n.Learn(u, step.h); isNew != step.isNew || n.Nonce(u) != step.want {
			t.Errorf("%s: new: %v, nonce: %q", step.name, isNew, n.Nonce(u))
		}
	}
}

func TestNoncesMalformed(t *testing.T) {
	u := parseURL(t, "https://auth.example.com/")
	for name, h := range map[string]http.Header{
		"empty":           nonceHeader(""),
		"space":           nonceHeader("a b"),
		"two in one":      nonceHeader("a, b"),
		"quoted":          nonceHeader(`"a"`),
		"backslash":       nonceHeader(`a\b`),
		"control":         nonceHeader("a\x00"),
		"DEL":             nonceHeader("a\x7f"),
		"not ASCII":       nonceHeader("é"),
		"too long":        nonceHeader(strings.Repeat("n", maxNonce+1)),
		"several":         nonceHeader("a", "b"),
		"several, alike":  nonceHeader("a", "a"),
		"several, broken": nonceHeader("", "b"),
	} {
		t.Run(name, func(t *testing.T) {
			var n Nonces
			n.Learn(u, nonceHeader("good"))
			if n.Learn(u, h) || n.Nonce(u) != "good" {
				t.Errorf("learnt %q", n.Nonce(u))
			}
		})
	}
	for _, good := range []string{everyNQCHAR(), strings.Repeat("n", maxNonce)} {
		var n Nonces
		if !n.Learn(u, nonceHeader(good)) || n.Nonce(u) != good {
			t.Errorf("not learnt: %q", good)
		}
	}
}

// RFC 9449 §8.2: a nonce is for the server that sent it.
func TestNoncesOrigins(t *testing.T) {
	const learnt = "https://auth.example.com/token"
	for u, same := range map[string]bool{
		"https://auth.example.com":               true,
		"https://auth.example.com/other?q#f":     true,
		"https://auth.example.com:443/token":     true,
		"https://auth.example.com:/token":        true,
		"HTTPS://AUTH.Example.COM/token":         true,
		"https://user@auth.example.com/token":    true,
		"http://auth.example.com/token":          false,
		"http://auth.example.com:443/token":      false,
		"https://auth.example.com:80/token":      false,
		"https://auth.example.com:8443/token":    false,
		"https://example.com/token":              false,
		"https://a.auth.example.com/token":       false,
		"https://auth.example.com.evil.org":      false,
		"https://evil.org/auth.example.com":      false,
		"https://evil.org/?https://auth.example": false,
	} {
		var n Nonces
		n.Learn(parseURL(t, learnt), nonceHeader("n"))
		if got := n.Nonce(parseURL(t, u)) == "n"; got != same {
			t.Errorf("%s has the nonce of %s: %v", u, learnt, got)
		}
	}

	// No two of these are the same server.
	distinct := []string{"http://h", "https://h", "http://h:443", "https://h:80", "https://h:8443", "https://h.", "https://[::1]:8443", "https://[::1:8443]", "https://[::1]", "http://[::1]"}
	seen := map[string]string{}
	for _, s := range distinct {
		o := origin(parseURL(t, s))
		if other, ok := seen[o]; ok {
			t.Errorf("%s and %s share the origin %s", s, other, o)
		}
		seen[o] = s
	}
	for a, b := range map[string]string{"http://h:80": "http://h", "https://[::1]:443": "https://[::1]", "https://[2001:DB8::1]": "https://[2001:db8::1]"} {
		if origin(parseURL(t, a)) != origin(parseURL(t, b)) {
			t.Errorf("%s and %s have different origins", a, b)
		}
	}
}

func TestNoncesBounded(t *testing.T) {
	var n Nonces
	u := func(i int) *url.URL { return parseURL(t, fmt.Sprintf("https://%d.example.com", i)) }
	for i := range maxOrigins {
		n.Learn(u(i), nonceHeader("first"))
	}
	n.Learn(u(0), nonceHeader("second")) // so that 1 is now the oldest
	for i := range 10 {
		n.Learn(u(1000+i), nonceHeader("new"))
	}
	if len(n.m) != maxOrigins || len(n.recent) != maxOrigins {
		t.Fatalf("%d nonces, %d in the queue", len(n.m), len(n.recent))
	}
	for i := range maxOrigins {
		want := "first"
		switch {
		case i == 0:
			want = "second"
		case i <= 10:
			want = ""
		}
		if got := n.Nonce(u(i)); got != want {
			t.Errorf("origin %d: %q, want %q", i, got, want)
		}
	}
	for range 10_000 { // an origin that changes its nonce often takes one place
		n.Learn(u(0), nonceHeader("a"))
		n.Learn(u(0), nonceHeader("b"))
	}
	if len(n.m) != maxOrigins || len(n.recent) != maxOrigins || cap(n.recent) > 8*maxOrigins {
		t.Errorf("%d nonces, %d in the queue, room for %d", len(n.m), len(n.recent), cap(n.recent))
	}
}

func TestNoncesConcurrently(t *testing.T) {
	var n Nonces
	var wg sync.WaitGroup
	for i := range 8 {
		own := parseURL(t, fmt.Sprintf("https://%d.example.com", i))
		wg.Go(func() {
			for k := range 500 {
				nonce := fmt.Sprintf("%d-%d", i, k)
				n.Learn(own, nonceHeader(nonce))
				if got := n.Nonce(own); got != nonce {
					t.Errorf("own nonce is %q, want %q", got, nonce)
					return
				}
				n.Learn(parseURL(t, fmt.Sprintf("https://shared%d.example.com", k%20)), nonceHeader(nonce))
			}
		})
	}
	wg.Wait()
}
