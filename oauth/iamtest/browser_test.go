package iamtest_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

// newClient is a client of package oauth that is made with nothing but
// OAuthConfig.
func newClient(t *testing.T, srv *iamtest.Server, prover *dpop.Prover) *oauth.Client {
	t.Helper()
	c, err := oauth.New(srv.OAuthConfig(prover))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestClockComesWithTheProvider: a client that was told nothing of clocks sees a token
// expire when the server's clock moves, and a clock of its own counts.
func TestClockComesWithTheProvider(t *testing.T) {
	noon := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		options  iamtest.Options
		clock    func() time.Time
		renewals int
	}{
		"none":                          {renewals: 1},
		"none, and a clock of the test": {options: iamtest.Options{Now: func() time.Time { return noon }}, renewals: 1},
		"one of its own":                {clock: time.Now},
	} {
		t.Run(name, func(t *testing.T) {
			srv := iamtest.Start(t, test.options)
			c, err := oauth.New(oauth.Config{Provider: srv.Provider(), ClientID: srv.ClientID, DPoP: newProver(t), Clock: test.clock})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Login(t.Context(), oauth.LoginOptions{OpenURL: srv.OpenURL}); err != nil {
				t.Fatal(err)
			}
			srv.Advance(13 * time.Hour)
			if _, err := c.TokenSource().TokenContext(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := srv.Count(iamtest.EndpointToken) - 1; got != test.renewals {
				t.Errorf("%d renewals 13 hours after the login, want %d", got, test.renewals)
			}
		})
	}
}

// TestOAuthConfig: a login and a renewal take one call each, over every way in
// which the server can be reached.
func TestOAuthConfig(t *testing.T) {
	for name, o := range map[string]iamtest.Options{
		"plain":                {},
		"chunked":              {Chunked: true},
		"TLS":                  {TLS: true},
		"TLS, HTTP/2":          {TLS: true, HTTP2: true},
		"HTTP/2 without TLS":   {HTTP2: true},
		"TLS, HTTP/2, chunked": {TLS: true, HTTP2: true, Chunked: true},
		"secret":               {ClientID: "app", ClientSecret: "the secret of the app"},
		"Yandex ID":            {YandexID: true},
	} {
		t.Run(name, func(t *testing.T) {
			o.AccessLife = 12 * time.Hour
			o.RefreshLife = 31 * 24 * time.Hour
			srv := iamtest.Start(t, o)
			c := newClient(t, srv, newProver(t))
			session, err := c.Login(t.Context(), oauth.LoginOptions{OpenURL: srv.OpenURL})
			if err != nil {
				t.Fatal(err)
			}
			srv.Advance(13 * time.Hour)
			tok, err := c.TokenSource().TokenContext(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if tok.AccessToken == session.AccessToken.Reveal() || !strings.Contains(srv.URL, "127.0.0.1") || strings.HasPrefix(srv.URL, "https://") != o.TLS {
				t.Errorf("at %s, got the token before", srv.URL)
			}
			u := newUser(t, srv)
			u.over(srv.HTTPClient().Transport)
			req := u.apiRequest("GET", "/api/whoami", "", tok.AccessToken)
			resp, err := u.http.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if want := 1 + bit(o.HTTP2); resp.StatusCode != 200 || resp.ProtoMajor != want || (resp.ContentLength < 0) != o.Chunked {
				t.Errorf("got %s over HTTP/%d with %d bytes, want HTTP/%d", resp.Status, resp.ProtoMajor, resp.ContentLength, want)
			}
		})
	}
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestTLSIsNotTrusted by clients that do not know the server.
func TestTLSIsNotTrusted(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{TLS: true})
	u := newUser(t, srv)
	if _, err := u.try(u.request("GET", "/endpoints", "")); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v", err)
	}
	if err := srv.Quiet(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestFaultsOverHTTP2: a broken stream is not a broken connection, and looks the
// same to a client.
func TestFaultsOverHTTP2(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{TLS: true, HTTP2: true, Rotation: iamtest.RotateAlways})
	u := newUser(t, srv)
	u.over(srv.HTTPClient().Transport)
	for _, f := range []iamtest.Fault{iamtest.LostRequest(), iamtest.LostAnswer(), iamtest.Truncated()} {
		token := u.login().str("refresh_token")
		srv.Inject(iamtest.EndpointToken, f, 1)
		if a, err := u.try(u.tokenRequest(u.refreshForm(token))); err == nil {
			t.Errorf("%v: got %d %s", f, a.status, a.body)
		}
		want := iamtest.TokenReplaced
		if !f.Parts().TakesEffect {
			want = iamtest.TokenCurrent
		}
		if got := srv.Introspect(token).State; got != want {
			t.Errorf("%v: the token is %v", f, got)
		}
	}
}

func TestOpenURLFails(t *testing.T) {
	srv := iamtest.Start(t)
	other := iamtest.Start(t)
	u := newUser(t, srv)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	good := srv.URL + "/oauth/authorize?" + u.authorization().Encode()
	for name, tt := range map[string]struct {
		ctx  context.Context
		url  string
		want string
	}{
		"elsewhere":      {t.Context(), strings.Replace(good, srv.URL, other.URL, 1), "not one of this server"},
		"other port":     {t.Context(), srv.URL + "0/oauth/authorize", "not one of this server"},
		"no redirect":    {t.Context(), srv.URL + "/oauth/authorize", "answered 400"},
		"another page":   {t.Context(), srv.URL + "/endpoints", "answered 200"},
		"nobody listens": {t.Context(), strings.Replace(good, "40404", "1", 1), "redirect URI"},
		"ended":          {ended, good, "canceled"},
	} {
		if err := srv.OpenURL(tt.ctx, tt.url); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}

// TestDeniedLogin: the page that the client shows is not the browser's concern.
func TestDeniedLogin(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{DenyLogin: true})
	_, err := newClient(t, srv, newProver(t)).Login(t.Context(), oauth.LoginOptions{OpenURL: srv.OpenURL})
	var denied *oauth.AuthorizationError
	if !errors.As(err, &denied) || denied.Code != "access_denied" {
		t.Errorf("got %v", err)
	}
}
