package redact

import (
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf16"
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
		{"header in other case", "sent: dpop\tabcdefg8", nil, "sent: REDACTED"},
		{"header with letters in both cases", "Basic dXNlcjpwYXNz", nil, "REDACTED"},
		{"header with padding", "BASIC abcdefg=", nil, "REDACTED"},
		{"header with small letters only", "bearer abcdefghijklmnop", nil, "REDACTED"},
		{"header with a known secret", "Authorization: Bearer hunter-two", []string{"hunter-two"}, "Authorization: REDACTED"},
		{"diagnosis", "DPoP verification failed: the nonce is old", nil, "DPoP verification failed: the nonce is old"},
		{"diagnosis in capitals", "DPOP VERIFICATION FAILED", nil, "DPOP VERIFICATION FAILED"},
		{"scheme in a sentence", "the Bearer authentication scheme or Basic Authentication", nil, "the Bearer authentication scheme or Basic Authentication"},
		{"scheme and then a credential", "Bearer required: Bearer abc123def", nil, "Bearer required: REDACTED"},
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
		{"secrets that overlap", "abcdefgh", []string{"abcdef", "defgh"}, "REDACTED"},
		{"a secret that overlaps itself", "xabababax", []string{"abab"}, "xREDACTEDax"},
		{"a secret that is the mark", "a REDACTED b", []string{"REDACTED", "DACT"}, "a REDACTED b"},
		{"a secret too short to search for", "a cat", []string{"a", "", "cat"}, "a cat"},
		{"a secret whose escapes stand for too little", "AB %41%42", []string{"%41%42"}, "AB REDACTED"},
		{"a secret that a text before it could be taken to escape", `%2abcdef \nabc`, []string{"abcdef", "nabc"}, `%2REDACTED \REDACTED`},
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

// writers are the ways in which software that quotes a request writes a secret.
var writers = []struct {
	name  string
	write func(string) string
}{
	{"as it is", func(s string) string { return s }},
	{"capitals", func(s string) string { return mapASCII(s, strings.ToUpper) }},
	{"query", url.QueryEscape},
	{"path", url.PathEscape},
	{"path in lower case", func(s string) string { return mapASCII(url.PathEscape(s), strings.ToLower) }},
	{"query of a query", func(s string) string { return url.QueryEscape(url.QueryEscape(s)) }},
	{"query of a query of a path", func(s string) string { return url.QueryEscape(url.QueryEscape(url.PathEscape(s))) }},
	{"every octet of a URL", func(s string) string { return each([]byte(s), "%%%02X") }},
	{"%q", func(s string) string { return unquoted(strconv.Quote(s)) }},
	{"%+q", func(s string) string { return unquoted(strconv.QuoteToASCII(s)) }},
	{"%q of %q", func(s string) string { return unquoted(strconv.Quote(unquoted(strconv.Quote(s)))) }},
	{"JSON", func(s string) string { return inJSON(s, true) }},
	{"JSON without HTML", func(s string) string { return inJSON(s, false) }},
	{"JSON in JSON", func(s string) string { return inJSON(inJSON(s, true), false) }},
	{"JSON of PHP", func(s string) string { return strings.ReplaceAll(inJSON(s, false), "/", `\/`) }},
	{"JSON of Gson", func(s string) string {
		return strings.NewReplacer("=", `\u003d`, "'", `\u0027`).Replace(inJSON(s, true))
	}},
	{"every character of JSON", func(s string) string { return each(utf16.Encode([]rune(s)), `\u%04X`) }},
	{"HTML", html.EscapeString},
	{"HTML in HTML", func(s string) string { return html.EscapeString(html.EscapeString(s)) }},
	{"every character of HTML", func(s string) string { return each([]rune(s), "&#%d;") }},
	{"every character of HTML in hex", func(s string) string { return each([]rune(s), "&#x%04X;") }},
	{"names of HTML", func(s string) string {
		return strings.NewReplacer("/", "&sol;", "+", "&plus;", "=", "&equals;", `"`, "&quot;", "&", "&amp;", "<", "&lt;").Replace(s)
	}},
	{"shell", func(s string) string {
		return strings.NewReplacer("/", `\/`, "=", `\=`, "&", `\&`, "<", `\<`, "+", `\+`, "%", `\%`).Replace(s)
	}},
}

// TestForms: whatever form a secret comes back in, nothing of it is left.
func TestForms(t *testing.T) {
	for _, secret := range []string{
		"hunter22", "rt1.Q29tcGxldGVseS9-b3BhcXVl_dG9rZW4-.x", "Q29tcGxldGVseS/PcGFxdWU+dG9rZW4xMjM0NTY3OA==",
		"4/xy z!", `q"<&'>\tail`, "пароль-ключ", "emoji 🔑 key", "tab\there\n\x01", `C:\new\table\u003d`, "a%2Fb%2525c", "100%zz%", `a+b%2Fc\\n+`, "&lt;&amp;x;", "&&&&", `\\\\`, "++++",
	} {
		c := New(secret)
		for _, w := range writers {
			t.Run(secret+"/"+w.name, func(t *testing.T) {
				form := w.write(secret)
				if got, want := c.Credentials("("+form+")"), "("+Mark+")"; got != want {
					t.Errorf("Credentials((%s)) = %s", form, got)
				}
			})
		}
	}
}

// TestFormsInForms: JSON in a URL and the like.
func TestFormsInForms(t *testing.T) {
	for _, secret := range []string{"Q29tcGxldGVseS/PcGFxdWU+dG9rZW4xMjM0NTY3OA==", "rt1.abc/def=.x", "ключ/\"=", "hunter22"} {
		c := New(secret)
		for _, first := range writers {
			for _, then := range writers {
				if then.name == "capitals" {
					continue // \\U003D is no escape
				}
				form := then.write(first.write(secret))
				if got, want := c.Credentials("("+form+`"`), "("+Mark+`"`; got != want {
					t.Errorf("%s of %s: Credentials((%s\") = %s", then.name, first.name, form, got)
				}
			}
		}
	}
}

// TestFormsBeforeOtherText: what follows a secret that ends with a sign can look like a
// part of the escape.
func TestFormsBeforeOtherText(t *testing.T) {
	for _, secret := range []string{`hunter22\`, `hunter22\\\`, `hun"ter\22\`, `C:\new\`, "hunter22%", "hunter22%25", "hunter22&", "hunter22&amp;", "hunter/%2F%"} {
		c := New(secret)
		for _, w := range writers {
			for _, after := range []string{`"`, `",`, "'", "`", ")", "/", " ", "n", "u0041", "41", "x41", "lt;", "#65;", ""} {
				form := w.write(secret)
				got := c.Credentials("(" + form + after)
				if !strings.HasPrefix(got, "("+Mark) || strings.TrimSuffix(after, strings.TrimPrefix(got, "("+Mark)) == after && after != "" {
					t.Errorf("%s: (%s%s becomes %s", w.name, form, after, got)
				}
			}
		}
	}
	if got := New(`hunter22\`).Credentials(`hunter22 \n`); got != `hunter22 \n` {
		t.Errorf("the secret without its end is marked: %s", got)
	}
}

// short reports whether too little would be searched for in some encoding.
func short(secret string) bool {
	for _, e := range encodings {
		if len(decodeAll(e.cutSigns(secret), len(secret), e.decode)) < minSecret {
			return true
		}
	}
	return false
}

func each[T any](all []T, format string) string {
	var b strings.Builder
	for _, c := range all {
		fmt.Fprintf(&b, format, c)
	}
	return b.String()
}

// mapASCII leaves letters outside ASCII and the letters of Go's escapes as they are.
func mapASCII(s string, to func(string) string) string {
	return strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf {
			return rune(to(string(r))[0])
		}
		return r
	}, s)
}

func unquoted(s string) string { return s[1 : len(s)-1] }

func inJSON(s string, escapeHTML bool) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(escapeHTML)
	if err := enc.Encode(s); err != nil {
		panic(err)
	}
	return unquoted(strings.TrimSuffix(b.String(), "\n"))
}

func TestDecode(t *testing.T) {
	for _, tt := range []struct {
		in, text string
		width    int
	}{
		{"a", "a", 1}, {"+", " ", 1}, {"%2b", " ", 3},
		{"é", "\xc3", 1},
		{`\`, `\`, 1}, {`\\\`, `\`, 3}, {`\q`, `\`, 1}, {`\9`, `\`, 1}, {`\é`, `\`, 1},
		{`\/x`, "/", 2}, {`\\/x`, "/", 3}, {`\.x`, ".", 2}, {`\n`, "\n", 2}, {`\\t`, "\t", 3},
		{`\%2F`, "%", 2},
		{`\u003d`, "=", 6}, {`\u003D=`, "=", 6}, {`\\u003d`, "=", 7}, {`\u03`, `\`, 1}, {`\u003g`, `\`, 1},
		{`\ud83d\udd11`, "🔑", 12}, {`\ud83d\\udd11`, "🔑", 13}, {`\ud83d`, "\uFFFD", 6}, {`\ud83d\u0041`, "\uFFFD", 6}, {`\ud83dudd11`, "\uFFFD", 6}, {`\ud83d\u00`, "\uFFFD", 6},
		{`\U0001F511`, "🔑", 10}, {`\U00110000`, `\`, 1},
		{`\xff`, "\xff", 4}, {`\xf`, `\`, 1},
		{"%3d", "=", 3}, {"%253D", "=", 5}, {"%25253D", "=", 7}, {"%", "%", 1}, {"%25", "%", 3}, {"%2525", "%", 5}, {"%2", "%", 1}, {"%zz", "%", 1}, {"%25zz", "%", 3}, {"%ff", "\xff", 3},
		{"&#61;", "=", 5}, {"&#0061;", "=", 7}, {"&#x3D;", "=", 6}, {"&#X3d;", "=", 6}, {"&equals;", "=", 8}, {"&amp;#61;", "=", 9}, {"&amp;amp;lt;", "<", 12},
		{"&", "&", 1}, {"&amp;", "&", 5}, {"&amp;amp;", "&", 9}, {"&;", "&", 1}, {"&#;", "&", 1}, {"&#x;", "&", 1}, {"&#xg;", "&", 1}, {"&nosuch;", "&", 1},
		{"&#99999999;", "&", 1}, {"&#x110000;", "\uFFFD", 10}, {"&lt", "&", 1}, {"&CounterClockwiseContourIntegral;", "&", 1}, {"&#000000000061;", "&", 1},
	} {
		decode := map[byte]decoder{'\\': decodeBackslash, '&': decodeEntity}[tt.in[0]]
		if decode == nil {
			decode = decodePercent
		}
		if text, width := decode(tt.in); text != tt.text || width != tt.width {
			t.Errorf("decode(%s) = %q, %d, want %q, %d", tt.in, text, width, tt.text, tt.width)
		}
	}
}

// No verb of fmt shows the secrets of a Cleaner.
func TestCleanerDoesNotPrint(t *testing.T) {
	c := New("hunter22")
	c.Text("hunter22")
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, v := range []any{c, *c, struct{ C *Cleaner }{c}, struct{ C Cleaner }{*c}} {
			if s := fmt.Sprintf(verb, v); strings.Contains(s, "hunter22") || strings.Contains(s, fmt.Sprintf("%x", "hunter22")) || strings.Contains(s, "104 117 110") {
				t.Errorf("%s: %s", verb, s)
			}
		}
	}
}

func TestNilCleaner(t *testing.T) {
	for name, c := range map[string]*Cleaner{"nil": nil, "zero": {}, "no secrets": New(), "short": New("", "abc")} {
		if got := c.Text("abc rt1.x\n"); got != "abc "+Mark {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// The fields of a page are cleaned one by one.
func TestCleaningAllocatesNothing(t *testing.T) {
	c := New("hunter22")
	for name, clean := range map[string]func(){
		"no secrets":  func() { Credentials("ajeexample000client1") },
		"the text":    func() { Text("the client of a person") },
		"of a secret": func() { c.Credentials("the client of a person") },
	} {
		c.Text("a longer text, for the first time")
		if n := testing.AllocsPerRun(100, clean); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
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
		if len(secret) < minSecret || strings.ContainsAny(secret, Mark+"…") || !clean(text) {
			return
		}
		if strings.Contains(got, secret) {
			t.Fatalf("Text(%q, %q) = %q", text, secret, got)
		}
	})
}

// FuzzForms: every form of a secret is found, and plain finds what a simple search does.
func FuzzForms(f *testing.F) {
	f.Add("Q29tcGxldGVseS/PcGFxdWU+dG9rZW4xMjM0NTY3OA==", "abab")
	f.Add(`q"<&'>\tail 🔑`, `\u003d%3D&#61;`)
	f.Add("a%2Fb%2525c&amp;#61;", "aaaab")
	f.Add(`\\\\`, "%25%25%")
	f.Fuzz(func(t *testing.T, secret, text string) {
		if short(secret) || !utf8.ValidString(secret) {
			return
		}
		c := New(secret)
		for _, w := range writers {
			form := w.write(secret)
			for _, end := range []string{")", `"`, "'"} {
				if strings.Contains(secret, end) {
					continue // the secret can be found once more with it
				}
				if got := mark("("+form+end, c.find("("+form+end)); got != "("+Mark+end {
					t.Fatalf("%s: (%s%s becomes %s", w.name, form, end, got)
				}
			}
		}
		if text == "" {
			return
		}
		text = mapASCII(text, strings.ToLower)
		in := mapASCII(text+secret+text+text, strings.ToLower)
		var want []span
		for i := range len(in) {
			if strings.HasPrefix(in[i:], text) {
				want = append(want, span{i, i + len(text)})
			}
		}
		if got := newPattern(text)().plain(nil, in); !slices.Equal(got, want) {
			t.Fatalf("%q in %q: %v, want %v", text, in, got, want)
		}
	})
}

func clean(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
	}) < 0
}
