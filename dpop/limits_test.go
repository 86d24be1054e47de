package dpop

import (
	"bytes"
	"crypto/x509"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestKeyFileLimit: a key file may have 64 KiB, of which all but the key is skipped.
func TestKeyFileLimit(t *testing.T) {
	plain := pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(p256Key())))
	for size, ok := range map[int]bool{maxKeyFile: true, maxKeyFile + 1: false} {
		path := filepath.Join(t.TempDir(), "key.pem")
		if err := os.WriteFile(path, append(bytes.Repeat([]byte("\n"), size-len(plain)), plain...), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadKeyFile(path); (err == nil) != ok {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// TestNormalizeEscapesLimits: the digits of an escape, and what url.URL.EscapedPath never
// gives, since it escapes a path that is not well formed.
func TestNormalizeEscapesLimits(t *testing.T) {
	for in, want := range map[string]string{
		"/%4a": "/J", "/%4A": "/J", "/%5a": "/Z", "/%6f": "/o", "/%aF": "/%AF", "/%Fa": "/%FA",
		"%": "%", "/a%": "/a%", "/a%4": "/a%4",
	} {
		if got := normalizeEscapes(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

// TestNormalizeHostInBrackets: in some releases of Go, url.Parse lets anything stand in
// brackets, and a URL can be made without it.
func TestNormalizeHostInBrackets(t *testing.T) {
	for host, want := range map[string]string{
		"[2001:DB8::1]": "[2001:db8::1]", "[example]": "", "[192.0.2.1]": "", "[]": "", "2001:db8::1": "", "h:1:2": "",
	} {
		if got, err := normalizeHost(&url.URL{Scheme: "https", Host: host}, "https"); got != want || (err == nil) != (want != "") {
			t.Errorf("%q became %q, %v; want %q", host, got, err, want)
		}
	}
}

// TestClocksLimits: the least differences for which a rejected proof is made anew.
func TestClocksLimits(t *testing.T) {
	for _, tt := range []struct {
		name              string
		measured, applied time.Duration
		want              bool
	}{
		{"a Date that differs enough", worthRetrying, 0, true},
		{"one that does not", worthRetrying - 1, 0, false},
		{"a Date that was used, and may be a proxy's", worthCorrecting, worthCorrecting, true},
		{"one that was corrected by less", worthCorrecting - 1, worthCorrecting - 1, false},
	} {
		clocksTest(t, tt.name, func(t *testing.T, w *clocksWorld) {
			w.exchange("a", 0)
			s := w.c.m[origin(w.url("a"))]
			s.measured, s.applied = tt.measured, tt.applied
			if got := w.rejected(w.url("a"), tt.applied); got != tt.want {
				t.Errorf("made anew: %v", got)
			}
		})
	}
}
