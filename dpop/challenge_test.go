package dpop

import (
	"net/http"
	"strings"
	"testing"
)

var challenges = []struct {
	name string
	in   []string
	want string
}{
	{"none", nil, ""},
	{"empty", []string{""}, ""},
	{"scheme alone", []string{"Bearer"}, ""},
	{"RFC 6750 §3", []string{`Bearer realm="example", error="invalid_token", error_description="The access token expired"`}, "invalid_token"},
	{"RFC 9449 §7.1", []string{`DPoP error="invalid_token", error_description="Invalid DPoP key binding", algs="ES256"`}, "invalid_token"},
	{"RFC 9449 §9", []string{`DPoP error="use_dpop_nonce", error_description="Resource server requires nonce in DPoP proof"`}, "use_dpop_nonce"},
	{"unquoted", []string{"DPoP error=use_dpop_nonce"}, "use_dpop_nonce"},
	{"in single quotes", []string{"DPoP error='use_dpop_nonce'"}, "use_dpop_nonce"},
	{"spaces around the sign", []string{"DPoP  error \t= \t\"use_dpop_nonce\""}, "use_dpop_nonce"},
	{"other case of the name", []string{`DPoP ERROR="use_dpop_nonce"`}, "use_dpop_nonce"},
	{"no comma", []string{`DPoP realm="x" error="use_dpop_nonce"`}, "use_dpop_nonce"},
	{"without a scheme", []string{`error="use_dpop_nonce"`}, "use_dpop_nonce"},
	{"not closed", []string{`DPoP error="use_dpop_nonce`}, "use_dpop_nonce"},
	{"only the quote", []string{`DPoP error="`}, ""},
	{"no value", []string{`DPoP error=`}, ""},
	{"no value, more follows", []string{`DPoP error=, error="use_dpop_nonce"`}, "use_dpop_nonce"},
	{"in the description", []string{`Bearer error_description="error=invalid_token"`}, ""},
	{"in a quoted part of the description", []string{`Bearer x="a \" error=use_dpop_nonce, b", error="invalid_token"`}, "invalid_token"},
	{"in a stray string", []string{`"error=use_dpop_nonce" Bearer error="invalid_token"`}, "invalid_token"},
	{"backslash at the end", []string{`DPoP error="invalid_token\`}, `invalid_token\`},
	{"longer name", []string{`Bearer my_error="invalid_token", error_uri="invalid_token"`}, ""},
	{"token68", []string{`Negotiate YII=error==`}, ""},
	{"token68 and an error", []string{`Negotiate YII==, DPoP error="use_dpop_nonce"`}, "use_dpop_nonce"},
	{"not ASCII", []string{"Bearer ошибка=\"x\", error=\"invalid_token\""}, "invalid_token"},
	{"another code", []string{`Bearer error="insufficient_scope"`}, "insufficient_scope"},
	{"two other codes", []string{`Bearer error="a", error="b"`}, "a"},
	{"another code before", []string{`Bearer error="a", DPoP error="invalid_token"`}, "invalid_token"},
	{"another code after", []string{`Bearer error="invalid_token", DPoP error="a"`}, "invalid_token"},
	{"token and proof", []string{`Bearer error="invalid_token"`, `DPoP error="invalid_dpop_proof"`}, "invalid_dpop_proof"},
	{"proof and token", []string{`DPoP error="invalid_dpop_proof", Bearer error="invalid_token"`}, "invalid_dpop_proof"},
	{"proof and nonce", []string{`DPoP error="invalid_dpop_proof"`, `DPoP error="use_dpop_nonce"`}, "use_dpop_nonce"},
	{"nonce and proof", []string{`DPoP error="use_dpop_nonce"`, `DPoP error="invalid_dpop_proof"`}, "use_dpop_nonce"},
}

func TestChallengeError(t *testing.T) {
	for _, tt := range challenges {
		t.Run(tt.name, func(t *testing.T) {
			if got := challengeError(http.Header{"Www-Authenticate": tt.in}); got != tt.want {
				t.Errorf("challengeError(%q) = %q, want %q", tt.in, got, tt.want)
			}
		})
	}
}

// A megabyte of nonsense is read to its end, in no more steps than it has bytes.
func TestChallengeErrorHuge(t *testing.T) {
	for _, unit := range []string{" ", `"`, `\`, "=", "a", ",", "a ", "a=", `a="`, `a="\`, "a    =", "error=", `error="x",`, "é", "\t=\t"} {
		in := strings.Repeat(unit, 1<<20/len(unit))
		steps := 0
		for rest := in; rest != ""; steps++ {
			if _, _, rest = nextParam(rest); steps > len(in) {
				t.Fatalf("1 MB of %q does not end", unit)
			}
		}
	}
}

// FuzzChallengeError: the code is a part of the header, and what follows the parts
// that are read does not change them.
func FuzzChallengeError(f *testing.F) {
	for _, tt := range challenges {
		f.Add(strings.Join(tt.in, ", "))
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := challengeError(http.Header{"Www-Authenticate": {s}})
		if !strings.Contains(s, got) {
			t.Fatalf("%q is not in %q", got, s)
		}
		again := challengeError(http.Header{"Www-Authenticate": {s, `DPoP error="use_dpop_nonce"`}})
		if again != codeUseNonce {
			t.Fatalf("a challenge of its own after %q is overlooked: %q", s, again)
		}
	})
}
