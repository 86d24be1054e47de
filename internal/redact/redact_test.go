package redact

import (
	"net/url"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestText(t *testing.T) {
	const (
		iam = "t1.9euelZqOnJWKkZ2ZlJeKlJiTle3rnpWaj5aNmJaYxpuRjZfIjJKdyovl9PcJ.ab_cdEFGHI-JKLMNOPQRSTUVWXYZ0123456789abcdefghijklmnopqrstuvwxyz"
		jwt = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UifQ.DtEhU3ljbEg8L38VWAfUAqOy"
	)
	for _, tt := range []struct {
		name, in string
		secrets  []string
		want     string
	}{
		{"ordinary text", "the grant has expired", nil, "the grant has expired"},
		{"error code of Yandex ID", "Basic auth required", nil, "Basic auth required"},
		{"IAM token", "token " + iam + " is old", nil, "token REDACTED is old"},
		{"refresh token", "(rt1.abc-DEF_123.x9_-)", nil, "(REDACTED)"},
		{"Yandex OAuth token", "y0_AgAAAAAxxxxxxxxxxxxx", nil, "REDACTED"},
		{"older Yandex OAuth token", "AQAAAAAxxxxxxxxxxxxxxx.", nil, "REDACTED."},
		{"Yandex refresh token", "1:GN686QVt0mmakDd9:A4pYuW9LGk0_UnlrMIWklkAuJkUWbq27loFekJVmSYrdfzdePBy7:A-2dHOmBxiXgajnD-kYOwQ ok", nil, "REDACTED ok"},
		{"JWT", "proof=" + jwt, nil, "proof=REDACTED"},
		{"header", "Authorization: Bearer abcDEF123._~+/-=", nil, "Authorization: REDACTED"},
		{"header in other case", "sent: dpop\tabcdefgh", nil, "sent: REDACTED"},
		{"a known secret", "code 4/xy z! is used", []string{"4/xy z!"}, "code REDACTED is used"},
		{"a known secret in a query", "?code=4%2Fxy+z%21&a=b", []string{"4/xy z!"}, "?code=REDACTED&a=b"},
		{"a known secret in a path", "/code/4%2Fxy%20z%21/", []string{"4/xy z!"}, "/code/REDACTED/"},
		{"a known secret in %q", `net/http: malformed "4/x\"y\\z!"`, []string{`4/x"y\z!`}, `net/http: malformed "REDACTED"`},
		{"a known secret in JSON", `{"a":"4\u003cx\u0026\"y"}`, []string{`4<x&"y`}, `{"a":"REDACTED"}`},
		{"a known secret in plain JSON", `{"a":"4<x&\"y"}`, []string{`4<x&"y`}, `{"a":"REDACTED"}`},
		{"a known secret in HTML", `<p>4&lt;x&amp;&#34;y</p>`, []string{`4<x&"y`}, `<p>REDACTED</p>`},
		{"a known secret in a query, in lower case", "?code=4%2fxy+z%21", []string{"4/xy z!"}, "?code=REDACTED"},
		{"a known secret as a host name", "to abcdef.example", []string{"AbCdEf"}, "to REDACTED.example"},
		{"a known secret again and again", "secret-secret, secre", []string{"secret"}, "REDACTED-REDACTED, secre"},
		{"a secret that begins with another", "abcdefgh", []string{"abcd", "abcdefgh"}, "REDACTED"},
		{"a secret too short to search for", "a cat", []string{"a", "", "cat"}, "a cat"},
		{"control characters", "a\x00b\r\nc\x1b[31m\u2028d\u2029\x7f", nil, "a b  c [31m d"},
		{"direction of writing", "user\u202egnp.exe\u2066", nil, "user gnp.exe"},
		{"not UTF-8", "a\xff\xfeb", nil, "a\uFFFDb"},
		{"cut in runes", strings.Repeat("é", maxText+1), nil, strings.Repeat("é", maxText) + "…"},
		{"as long as allowed", strings.Repeat("é", maxText), nil, strings.Repeat("é", maxText)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Text(tt.in, tt.secrets...); got != tt.want {
				t.Errorf("Text(%q) = %q, want %q", tt.in, got, tt.want)
			}
		})
	}
}

func TestCredentials(t *testing.T) {
	long := strings.Repeat("é", maxText) + " \t\xff\u202e "
	for in, want := range map[string]string{
		long:                     long,
		long + "rt1.abc.def":     long + Mark,
		"(Bearer 0123456789) x":  "(" + Mark + ") x",
		long + "a%2Fsecret\x00b": long + Mark + "\x00b",
	} {
		if got := Credentials(in, "a/secret"); got != want {
			t.Errorf("Credentials(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestTextLeavesItsArgumentsAlone(t *testing.T) {
	secrets := []string{"abcd", "abcdefgh"}
	Text("x", secrets...)
	if secrets[0] != "abcd" || secrets[1] != "abcdefgh" {
		t.Errorf("the caller's slice was reordered: %q", secrets)
	}
}

// FuzzSuspicious: what is not suspicious is no credential.
func FuzzSuspicious(f *testing.F) {
	for _, s := range []string{
		"t1.a", "xrt1.a", "y0_0123456789", "AQAAAA0123456789", "1:01234567:0123456789abcdef", "eyJ.x", "eyJa.b", "Basic\t01234567", "ba\u017fic 01234567",
		"DPOP\f01234567", "bearer\r\n01234567", "yc/0.141.0", "yc.oauth.public-sdk", "aje00000000000000000", "\xff",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if shapes.MatchString(s) && !suspicious(s) {
			t.Fatalf("%q is not suspicious", s)
		}
	})
}

func TestSuspicious(t *testing.T) {
	for _, s := range []string{"", "yc/0.141.0", "yc.oauth.public-sdk", "aje00000000000000000", "INSECURE_KEY_DPOP", "Terraform/1.9 (linux; amd64)"} {
		if suspicious(s) {
			t.Errorf("%q costs the time of a credential", s)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add("code 4/xy z! is used", "4/xy z!")
	f.Add("?code=4%2Fxy+z%21", "4/xy z!")
	f.Add("Bearer abcdefghijkl\x00", "bearer a")
	f.Add("t1.abc.def\u202e", "é\xff12")
	f.Add(strings.Repeat("secret", 200), "ecrets")
	f.Fuzz(func(t *testing.T, text, secret string) {
		got := Text(text, secret)
		if !utf8.ValidString(got) {
			t.Fatalf("not UTF-8: %q", got)
		}
		if utf8.RuneCountInString(got) > maxText+1 {
			t.Fatalf("%d runes", utf8.RuneCountInString(got))
		}
		if i := strings.IndexFunc(got, func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) }); i >= 0 {
			t.Fatalf("control character at %d of %q", i, got)
		}
		// A mark can be taken for a secret that shares letters with it, and what
		// is cleaned or cut can become one: "a\tb" gives "a b".
		if len(secret) < 4 || strings.ContainsAny(secret, Mark+"…") || !clean(text) {
			return
		}
		for _, form := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret)} {
			if strings.Contains(got, form) {
				t.Fatalf("Text(%q, %q) = %q", text, secret, got)
			}
		}
	})
}

func clean(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
	}) < 0
}
