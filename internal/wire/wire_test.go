package wire

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
)

func TestCheckURL(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"https", "https://auth.yandex.cloud/oauth/token", ""},
		{"port and query", "https://example.com:8443/a?b=c", ""},
		{"upper case", "HTTPS://EXAMPLE.com", ""},
		{"http to an IPv4 loopback address", "http://127.0.0.1:8080/", ""},
		{"http to another IPv4 loopback address", "http://127.1.2.3/", ""},
		{"http to the IPv6 loopback address", "http://[::1]:8080/", ""},
		{"http to localhost", "http://LocalHost.:1/", ""},

		{"empty", "", "is empty"},
		{"not a URL", "https://exa mple/%zz", "is not a URL"},
		{"control character", "https://example.com/\n", "is not a URL"},
		{"relative", "/oauth/token", "absolute"},
		{"without scheme", "//example.com/", "neither https nor http"},
		{"opaque", "https:example.com", "absolute"},
		{"no host", "https:///token", "absolute"},
		{"port but no host", "https://:443/token", "absolute"},
		{"user", "https://id:hunter2@example.com/", "user information"},
		{"fragment", "https://example.com/#hunter2", "fragment"},
		{"other scheme", "ftp://example.com/", "neither https nor http"},
		{"http", "http://example.com/?hunter2", "uses http to example.com"},
		{"http to a private address", "http://192.168.0.1/", "uses http to 192.168.0.1"},
		{"http to any address", "http://0.0.0.0/", "uses http"},
		{"http to a name that looks like loopback", "http://127.0.0.1.example.com/", "uses http"},
		{"http to a name that ends like localhost", "http://notlocalhost/", "uses http"},
		{"http to a name below localhost", "http://evil.localhost/", "uses http"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u, err := CheckURL(tt.in)
			if tt.want == "" {
				if err != nil || u == nil {
					t.Fatalf("CheckURL: %v, %v", u, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("CheckURL: %v, want an error with %q", err, tt.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error repeats the URL: %v", err)
			}
		})
	}
}

func TestIsLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"127.0.0.1": true, "127.255.255.254": true, "::1": true, "::ffff:127.0.0.1": true, "localhost": true, "LOCALHOST.": true,
		"": false, ".": false, "0.0.0.0": false, "::": false, "128.0.0.1": false, "127.1": false, "fe80::1": false,
		"a.localhost": false, "localhost.example.com": false, "localhost..": false,
	} {
		if got := IsLoopback(host); got != want {
			t.Errorf("IsLoopback(%q) = %v", host, got)
		}
	}
}

func TestNoRedirects(t *testing.T) {
	var hits int
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits++
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	}))
	defer srv.Close()

	followed := errors.New("followed")
	own := srv.Client()
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return followed }
	resp, err := NoRedirects(own).Post(srv.URL, "text/plain", strings.NewReader("secret"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusTemporaryRedirect || hits != 1 {
		t.Errorf("status %d after %d requests", resp.StatusCode, hits)
	}
	if err := own.CheckRedirect(nil, nil); !errors.Is(err, followed) {
		t.Error("the caller's client was changed")
	}
	if c := NoRedirects(nil); c == http.DefaultClient || c.CheckRedirect == nil || http.DefaultClient.CheckRedirect != nil {
		t.Error("no client does not give a copy of the default one")
	}
}

type closeRecorder struct {
	io.Reader
	closed bool
}

func (c *closeRecorder) Close() error { c.closed = true; return nil }

func TestReadBody(t *testing.T) {
	broken := errors.New("connection lost")
	for _, tt := range []struct {
		name    string
		body    io.Reader
		wantLen int
		want    error
	}{
		{"empty", strings.NewReader(""), 0, nil},
		{"largest", strings.NewReader(strings.Repeat("x", MaxBody)), MaxBody, nil},
		{"too large", strings.NewReader(strings.Repeat("x", MaxBody+1)), 0, ErrTooLarge},
		{"too large and broken", io.MultiReader(strings.NewReader(strings.Repeat("x", MaxBody+1)), iotest.ErrReader(broken)), 0, ErrTooLarge},
		{"broken", io.MultiReader(strings.NewReader("part"), iotest.ErrReader(broken)), 0, broken},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body := &closeRecorder{Reader: tt.body}
			got, err := ReadBody(&http.Response{Body: body})
			if !errors.Is(err, tt.want) || len(got) != tt.wantLen {
				t.Errorf("ReadBody: %d bytes, %v", len(got), err)
			}
			if !body.closed {
				t.Error("the body is still open")
			}
		})
	}
}

func TestIsJSON(t *testing.T) {
	for ct, want := range map[string]bool{
		"application/json": true, "Application/JSON": true, "application/json; charset=utf-8": true,
		"application/json;": true, "application/json; charset=": true, "application/problem+json": true,
		"": false, "text/html": false, "text/json": false, "json": false, "application/jsonp": false, "; x": false,
	} {
		if got := IsJSON(http.Header{"Content-Type": {ct}}); got != want {
			t.Errorf("IsJSON(%q) = %v", ct, got)
		}
	}
	if IsJSON(http.Header{}) {
		t.Error("no Content-Type is JSON")
	}
}

func TestRequestID(t *testing.T) {
	h := func(kv ...string) http.Header {
		h := http.Header{}
		for i := 0; i < len(kv); i += 2 {
			h.Set(kv[i], kv[i+1])
		}
		return h
	}
	for _, tt := range []struct {
		name string
		h    http.Header
		want string
	}{
		{"none", h(), ""},
		{"request id", h("x-request-id", "a-1", "x-server-trace-id", "b"), "a-1"},
		{"trace id", h("x-server-trace-id", "b"), "b"},
		{"odd characters", h("x-request-id", "a\x1b[31m b\u202ec"), "a[31mbc"},
		{"only odd characters", h("x-request-id", " \u00a0", "x-server-trace-id", "b"), "b"},
		{"long", h("x-request-id", strings.Repeat("a", 500)), strings.Repeat("a", 128)},
		{"too long", h("x-request-id", strings.Repeat("a", 4097), "x-server-trace-id", "b"), "b"},
		{"an echo of a secret", h("x-request-id", "a-hunter2-secret"), "a-REDACTED"},
		{"an echo of a secret across the cut", h("x-request-id", strings.Repeat("a", 120)+"hunter2-secret"), strings.Repeat("a", 120) + "REDACTED"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := RequestID(tt.h, "hunter2-secret"); got != tt.want {
				t.Errorf("RequestID = %q, want %q", got, tt.want)
			}
		})
	}
}
