package dpop

import (
	"net/url"
	"strings"
	"testing"
)

func TestNormalizeURL(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"as it is", "https://server.example.com/token", "https://server.example.com/token"},
		{"http", "http://127.0.0.1:8080/token", "http://127.0.0.1:8080/token"},

		// RFC 3986 §6.2.2.1
		{"case of scheme and host", "HTTPS://Server.EXAMPLE.com/Token", "https://server.example.com/Token"},
		{"case of escapes", "https://h/%c3%a9%2F%3a", "https://h/%C3%A9%2F%3A"},
		// §6.2.2.2
		{"escapes of unreserved characters", "https://h/%41%5A%61%7a%30%39%2D%2e%5F%7e", "https://h/AZaz09-._~"},
		{"escapes of reserved characters", "https://h/%21%24%26%27%28%29%2A%2B%2C%3B%3D%3A%40%2F%3F%23%5B%5D", "https://h/%21%24%26%27%28%29%2A%2B%2C%3B%3D%3A%40%2F%3F%23%5B%5D"},
		{"reserved characters", "https://h/!$&'()*+,;=:@", "https://h/!$&'()*+,;=:@"},
		{"escape of the percent sign", "https://h/%2541%252e", "https://h/%2541%252e"},
		{"escape at the end", "https://h/a%7E", "https://h/a~"},
		{"escaped NUL", "https://h/%00", "https://h/%00"},
		{"characters that have to be escaped", "https://h/é \"<>\\^`{|}", "https://h/%C3%A9%20%22%3C%3E%5C%5E%60%7B%7C%7D"},
		// §6.2.2.3 and §5.2.4
		{"dot segments", "https://h/a/b/c/./../../g", "https://h/a/g"},
		{"more dot segments than segments", "https://h/../../a", "https://h/a"},
		{"dot at the end", "https://h/a/.", "https://h/a/"},
		{"dots at the end", "https://h/a/b/..", "https://h/a/"},
		{"dots alone", "https://h/..", "https://h/"},
		{"encoded dot segments", "https://h/a/%2e%2E/b/.%2e/%2e/c", "https://h/c"},
		{"dot segments around an encoded slash", "https://h/a%2fb/../c", "https://h/c"},
		{"empty segments", "https://h//a//../b//", "https://h//a/b//"},
		{"dots that are no dot segments", "https://h/.a/b./.../..c/d..", "https://h/.a/b./.../..c/d.."},
		// §6.2.3
		{"empty path", "https://h", "https://h/"},
		{"empty path and query", "https://h?a", "https://h/"},
		{"https port", "https://h:443/a", "https://h/a"},
		{"http port", "http://h:80/a", "http://h/a"},
		{"empty port", "https://h:/a", "https://h/a"},
		{"other port", "https://h:80/a", "https://h:80/a"},
		{"https port with http", "http://h:443/a", "http://h:443/a"},
		{"path of slashes", "https://h///", "https://h///"},

		// RFC 9449 §4.2
		{"query", "https://h/a?b=c&d=%zz", "https://h/a"},
		{"empty query", "https://h/a?", "https://h/a"},
		{"fragment", "https://h/a#b", "https://h/a"},
		{"query and fragment", "https://h/a?b#c?d", "https://h/a"},
		{"dots in the query", "https://h/a?/../b", "https://h/a"},

		{"IPv4 address", "https://192.0.2.1:8443/", "https://192.0.2.1:8443/"},
		{"IPv6 address", "https://[2001:DB8::1]:443/", "https://[2001:db8::1]/"},
		{"IPv6 address and port", "https://[::1]:8443/a", "https://[::1]:8443/a"},
		{"IPv6 address with an IPv4 tail", "https://[::ffff:192.0.2.1]/", "https://[::ffff:192.0.2.1]/"},
		// RFC 6874 §4: the zone stays on this side of the wire.
		{"IPv6 zone", "http://[fe80::1%25eth0]:8080/a", "http://[fe80::1]:8080/a"},
		{"odd IPv6 zone", "https://[FE80::1%25en%22%5D]/", "https://[fe80::1]/"},

		{"trailing dot of a host", "https://example.com./", "https://example.com./"},
		{"underscore and sub-delims in a host", "https://a_b-c~d!$&'()*+,;=/", "https://a_b-c~d!$&'()*+,;=/"},
		{"ASCII form of an international name", "https://XN--BCHER-KVA.example/", "https://xn--bcher-kva.example/"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := normalizeURL(tt.in)
			if err != nil || got != tt.want {
				t.Errorf("normalizeURL(%q) = %q, %v; want %q", tt.in, got, err, tt.want)
			}
		})
	}
}

func TestNormalizeURLRefuses(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"nothing", "", "not an absolute"},
		{"relative path", "/token", "not an absolute"},
		{"without scheme", "//h/token", "not an absolute"},
		{"host alone", "example.com/token", "not an absolute"},
		{"other scheme", "ftp://h/", "not an absolute"},
		{"file", "file:///etc/passwd", "not an absolute"},
		{"opaque", "https:h/token", "no host"},
		{"no host", "https:///token", "no host"},
		{"port alone", "https://:443/", "no host"},
		{"query alone", "https://?a", "no host"},
		{"user", "https://hunter2@h/", "user information"},
		{"user and password", "https://id:hunter2@h/", "user information"},
		{"empty user", "https://@h/", "user information"},
		{"international name", "https://bücher.example/", "ASCII form"},
		{"escaped international name", "https://b%C3%BCcher.example/hunter2", "ASCII form"},
		{"percent sign in a host", "https://a%25b/", "characters outside"},
		{"bracket in a host", "https://a]b/", "host"},
		{"quote in a host", "https://a\"b/", "characters outside"},
		{"angle brackets in a host", "https://<h>/", "characters outside"},
		{"space in a host", "https://a b/", "does not parse"},
		{"name in brackets", "https://[example]/", ""}, // the error depends on the release of Go
		{"IPv4 address in brackets", "https://[192.0.2.1]/", ""},
		{"IPv6 address without brackets", "https://::1/", ""}, // the error depends on GODEBUG
		{"IPv6 address and port without brackets", "https://2001:db8::1:443/", ""},
		{"two ports", "https://h:1:2/", ""},
		{"port of letters", "https://h:https/", "does not parse"},
		{"broken escape", "https://h/%zz", "does not parse"},
		{"cut escape", "https://h/%4", "does not parse"},
		{"line break", "https://h/\r\nhunter2", "does not parse"},
		{"NUL", "https://h/\x00", "does not parse"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := normalizeURL(tt.in)
			if err == nil || got != "" || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("normalizeURL(%q) = %q, %v; want an error with %q", tt.in, got, err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error repeats the URL: %v", err)
			}
		})
	}
}

// FuzzNormalizeURL checks that a normal form is a URL, is its own normal form
// and fits into JSON as it is, and holds the dot segments against a literal
// implementation.
func FuzzNormalizeURL(f *testing.F) {
	for _, s := range []string{
		"https://h/a/b/c/./../../g", "HTTPS://H:443/%2e%2E/%c3%a9", "http://[fe80::1%25eth0]:80/?q#f",
		"https://h//a//../b//..", "https://h/a%2fb/../[c]", "https://a%25b/", "https://h\"/", "https://h:0/*",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got, err := normalizeURL(raw)
		if err != nil {
			return
		}
		if again, err := normalizeURL(got); err != nil || again != got {
			t.Fatalf("%q became %q, which became %q, %v", raw, got, again, err)
		}
		for i := range len(got) {
			if c := got[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"\?#<>`, c) >= 0 {
				t.Fatalf("%q has %q in it", got, c)
			}
		}
		u, err := url.Parse(got)
		if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" || !strings.HasPrefix(u.EscapedPath(), "/") {
			t.Fatalf("%q is no plain URL: %v", got, err)
		}
		before, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		path := normalizeEscapes(before.EscapedPath())
		if path == "" {
			path = "/"
		}
		if want := literalDotSegments(path); !strings.HasSuffix(got, u.Host+want) {
			t.Fatalf("%q became %q, its path should be %q", raw, got, want)
		}
	})
}

// literalDotSegments is RFC 3986 §5.2.4, step by step.
func literalDotSegments(in string) string {
	out := ""
	for in != "" {
		switch {
		case strings.HasPrefix(in, "../"): // A
			in = in[3:]
		case strings.HasPrefix(in, "./"):
			in = in[2:]
		case strings.HasPrefix(in, "/./"): // B
			in = in[2:]
		case in == "/.":
			in = "/"
		case strings.HasPrefix(in, "/../"): // C
			in = in[3:]
			out = out[:max(strings.LastIndexByte(out, '/'), 0)]
		case in == "/..":
			in = "/"
			out = out[:max(strings.LastIndexByte(out, '/'), 0)]
		case in == "." || in == "..": // D
			in = ""
		default: // E
			end := len(in)
			if i := strings.IndexByte(in[1:], '/'); i >= 0 {
				end = i + 1
			}
			out += in[:end]
			in = in[end:]
		}
	}
	return out
}
