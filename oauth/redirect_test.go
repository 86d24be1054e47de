package oauth_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/ycauth/ycauth-go/oauth"
)

// freePort is one that nobody listens on, at any address of this host.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func hasIPv6(t *testing.T) bool {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "[::1]:0")
	if err == nil {
		l.Close()
	}
	return err == nil
}

func TestRedirectURL(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	port := freePort(t)
	cases := map[string]struct {
		redirect string
		want     string // a prefix of the redirect URI, or all of it if there is a port
	}{
		"default":          {"", "http://127.0.0.1:"},
		"any port":         {"http://127.0.0.1/cb", "http://127.0.0.1:"},
		"localhost":        {"http://localhost/cb", "http://localhost:"},
		"fixed port":       {"http://127.0.0.1:" + port + "/cb", "http://127.0.0.1:" + port + "/cb"},
		"localhost, fixed": {"http://localhost:" + port + "/oauth2/callback", "http://localhost:" + port + "/oauth2/callback"},
		"no path":          {"http://127.0.0.1:" + port, "http://127.0.0.1:" + port},
		"root":             {"http://localhost:" + port + "/", "http://localhost:" + port + "/"},
	}
	if hasIPv6(t) {
		cases["IPv6"] = struct{ redirect, want string }{"http://[::1]/cb", "http://[::1]:"}
	}
	for name, tt := range cases {
		t.Run(name, func(t *testing.T) {
			srv := newFakeServer(rotate)
			c, _ := openClient(t, srv, func(cfg *oauth.Config) { cfg.RedirectURL = tt.redirect })
			var at *url.URL
			_, err := c.Login(t.Context(), oauth.LoginOptions{OpenURL: browser(t, func(cb *url.URL) {
				at = cb
				if status, _ := get(t, cb, func(r *http.Request) { r.Host = "rebound.example:" + cb.Port() }); status != http.StatusMisdirectedRequest {
					t.Errorf("foreign Host: status %d", status)
				}
				if cb.Hostname() == "localhost" { // whatever a browser makes of the name
					get(t, &url.URL{Scheme: "http", Host: "127.0.0.1:" + cb.Port(), Path: cb.Path, RawQuery: cb.RawQuery}, func(r *http.Request) { r.Host = cb.Host })
					return
				}
				get(t, cb)
			})})
			if err != nil {
				t.Fatal(err)
			}
			at.RawQuery = ""
			if got := at.String(); !strings.HasPrefix(got, tt.want) || srv.request(0).form.Get("redirect_uri") != got {
				t.Errorf("redirect to %s, want %s; exchanged with %s", got, tt.want, srv.request(0).form.Get("redirect_uri"))
			}
			if _, path, _ := strings.Cut(strings.TrimPrefix(tt.redirect, "http://"), "/"); tt.redirect != "" && strings.TrimPrefix(at.Path, "/") != path {
				t.Errorf("path %s", at.Path)
			}
		})
	}
	if hasIPv6(t) {
		t.Run("localhost over IPv6", func(t *testing.T) {
			c, _ := openClient(t, newFakeServer(rotate), func(cfg *oauth.Config) { cfg.RedirectURL = "http://localhost/cb" })
			_, err := c.Login(t.Context(), oauth.LoginOptions{OpenURL: browser(t, func(cb *url.URL) {
				get(t, &url.URL{Scheme: "http", Host: "[::1]:" + cb.Port(), Path: cb.Path, RawQuery: cb.RawQuery}, func(r *http.Request) { r.Host = cb.Host })
			})})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// A port that another program has ends the login before the user is asked.
func TestRedirectPortInUse(t *testing.T) {
	addresses := map[string]string{"127.0.0.1:0": "http://127.0.0.1", "127.0.0.1:": "http://localhost"}
	if hasIPv6(t) {
		addresses["[::1]:0"] = "http://localhost" // whose IPv4 port is free
	}
	for address, redirect := range addresses {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_, port, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c, _ := openClient(t, newFakeServer(rotate), func(cfg *oauth.Config) { cfg.RedirectURL = redirect + ":" + port + "/cb" })
		_, err = c.Login(t.Context(), oauth.LoginOptions{OpenURL: func(context.Context, string) error {
			t.Error("a browser was opened")
			return nil
		}})
		var op *net.OpError
		if !errors.As(err, &op) || op.Op != "listen" {
			t.Errorf("%s: %v", address, err)
		}
		l.Close()
	}
}

func TestRedirectURLErrors(t *testing.T) {
	for _, redirect := range []string{
		"https://127.0.0.1/cb", "http://192.168.0.1/cb", "http://localhost.example/cb", "http://127.0.0.2/cb", "http://LOCALHOST/cb", "/cb", "cb", "myapp:/cb",
		"http://127.0.0.1:0/cb", "http://127.0.0.1:65536/cb", "http://127.0.0.1:/cb", "http://127.0.0.1:080/cb", "http://127.0.0.1/a%20b", "http://127.0.0.1/a b",
		"http://127.0.0.1/cb?x=1", "http://127.0.0.1/cb?", "http://127.0.0.1/cb#x", "http://127.0.0.1/cb#", "http://u:p@127.0.0.1/cb", "http://[::1",
	} {
		var ce *oauth.ConfigError
		_, err := oauth.New(oauth.Config{Provider: testProvider(), ClientID: "client", RedirectURL: redirect})
		if !errors.As(err, &ce) || ce.Field != "RedirectURL" {
			t.Errorf("%s: %v", redirect, err)
		}
	}
}
