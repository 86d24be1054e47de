package iamtest_test

import (
	"crypto"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

// set changes one parameter; "" removes it.
func set(name, value string) func(url.Values) {
	return func(q url.Values) {
		if value == "" {
			q.Del(name)
		} else {
			q.Set(name, value)
		}
	}
}

func TestAuthorizeRefusesWithoutRedirect(t *testing.T) {
	srv := iamtest.Start(t)
	u := newUser(t, srv)
	tests := []struct {
		name   string
		change func(url.Values)
		want   string
	}{
		{"no client", set("client_id", ""), "not registered"},
		{"unknown client", set("client_id", "somebody"), "not registered"},
		{"no redirect", set("redirect_uri", ""), "not http to a loopback"},
		{"malformed redirect", set("redirect_uri", "http://%zz"), "not http to a loopback"},
		{"another host", set("redirect_uri", "http://example.com/auth/callback"), "not http to a loopback"},
		{"host like a loopback", set("redirect_uri", "http://127.0.0.1.example.com/auth/callback"), "not http to a loopback"},
		{"https", set("redirect_uri", "https://127.0.0.1:1/auth/callback"), "not http to a loopback"},
		{"user information", set("redirect_uri", "http://u@127.0.0.1:1/auth/callback"), "not http to a loopback"},
		{"query", set("redirect_uri", "http://127.0.0.1:1/auth/callback?x=y"), "not http to a loopback"},
		{"fragment", set("redirect_uri", "http://127.0.0.1:1/auth/callback#x"), "not http to a loopback"},
		{"another path", set("redirect_uri", "http://127.0.0.1:1/callback"), "its path is not /auth/callback"},
		{"two redirects", func(q url.Values) { q.Add("redirect_uri", redirect) }, "is there twice"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := u.authorization()
			tt.change(q)
			a := u.do(u.request("GET", "/oauth/authorize?"+q.Encode(), ""))
			if a.status != http.StatusBadRequest || a.header.Get("Location") != "" {
				t.Fatalf("status %d, Location %q", a.status, a.header.Get("Location"))
			}
			if !strings.Contains(string(a.body), tt.want) {
				t.Errorf("the page %s does not say %q", a.body, tt.want)
			}
		})
	}
}

func TestAuthorizeRefusesWithRedirect(t *testing.T) {
	srv := iamtest.Start(t)
	u := newUser(t, srv)
	tests := []struct {
		name   string
		change func(url.Values)
		code   string
	}{
		{"no response type", set("response_type", ""), "unsupported_response_type"},
		{"implicit", set("response_type", "token"), "unsupported_response_type"},
		{"no challenge", set("code_challenge", ""), "invalid_request"},
		{"plain challenge", set("code_challenge_method", "plain"), "invalid_request"},
		{"no method", set("code_challenge_method", ""), "invalid_request"},
		{"short challenge", set("code_challenge", "short"), "invalid_request"},
		{"SHA-256 thumbprint", set("dpop_jkt", thumbprint(t, u.prover, crypto.SHA256)), "invalid_request"},
		{"malformed thumbprint", set("dpop_jkt", strings.Repeat("!", 86)), "invalid_request"},
		{"two states", func(q url.Values) { q.Add("scope", "x") }, "invalid_request"},
		{"long hint", set("yc_sub_hint", strings.Repeat("x", 51)), "invalid_request"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := u.authorization()
			tt.change(q)
			got := u.authorize(q)
			if got.Get("error") != tt.code || got.Has("code") || got.Get("error_description") == "" {
				t.Errorf("redirected with %v, want %s", got, tt.code)
			}
			if got.Get("state") != "a state" {
				t.Errorf("state %q", got.Get("state"))
			}
		})
	}
	if n := srv.Count(iamtest.EndpointAuthorize); n != len(tests) {
		t.Errorf("%d requests counted, want %d", n, len(tests))
	}
}

func TestAuthorizeAccepts(t *testing.T) {
	tests := []struct {
		name   string
		opts   iamtest.Options
		change func(*user, url.Values)
	}{
		{"any port", iamtest.Options{}, func(_ *user, q url.Values) { q.Set("redirect_uri", "http://127.0.0.1:1/auth/callback") }},
		{"no port", iamtest.Options{}, func(_ *user, q url.Values) { q.Set("redirect_uri", "http://127.0.0.1/auth/callback") }},
		{"IPv6", iamtest.Options{}, func(_ *user, q url.Values) { q.Set("redirect_uri", "http://[::1]:1/auth/callback") }},
		{"localhost", iamtest.Options{}, func(_ *user, q url.Values) { q.Set("redirect_uri", "http://localhost:1/auth/callback") }},
		{"no thumbprint", iamtest.Options{}, func(_ *user, q url.Values) { q.Del("dpop_jkt") }},
		{"SHA-256 thumbprint", iamtest.Options{ThumbprintHash: crypto.SHA256}, func(u *user, q url.Values) {
			q.Set("dpop_jkt", thumbprint(u.t, u.prover, crypto.SHA256))
		}},
		{"empty hint", iamtest.Options{}, func(_ *user, q url.Values) { q.Set("yc_sub_hint", "") }},
		{"further client", iamtest.Options{Clients: []iamtest.Client{{ID: "my-app"}}}, func(_ *user, q url.Values) { q.Set("client_id", "my-app") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u := newUser(t, iamtest.Start(t, tt.opts))
			q := u.authorization()
			tt.change(u, q)
			got := u.authorize(q)
			if !got.Has("code") {
				t.Fatalf("redirected with %v", got)
			}
			form := u.codeForm(got.Get("code"))
			form.Set("client_id", q.Get("client_id"))
			form.Set("redirect_uri", q.Get("redirect_uri"))
			wantOK(t, u.do(u.tokenRequest(form)))
		})
	}
}

func TestAuthorizeByPost(t *testing.T) {
	u := newUser(t, iamtest.Start(t))
	req := u.request("POST", "/oauth/authorize", u.authorization().Encode())
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	a := u.do(req)
	if a.status != http.StatusFound || !strings.Contains(a.header.Get("Location"), "code=") {
		t.Errorf("status %d, Location %q", a.status, a.header.Get("Location"))
	}
}

func TestAuthorizeRecordsHints(t *testing.T) {
	srv := iamtest.Start(t)
	u := newUser(t, srv)
	q := u.authorization()
	q.Set("yc_federation_hint", "bpffederation0000001")
	q.Set("yc_sub_hint", "ajesomebodyelse00001")
	a := u.login(q)
	r := srv.Requests()[0]
	if r.FederationHint != "bpffederation0000001" || r.SubjectHint != "ajesomebodyelse00001" || r.Scope != "openid offline_access" ||
		r.KeyHint != q.Get("dpop_jkt") || r.ClientID != srv.ClientID || r.Subject != "ajesomebodyelse00001" || r.UserAgent != "yc/0.141.0" {
		t.Errorf("recorded %+v", r)
	}
	if got := srv.Introspect(a.str("refresh_token")).SubjectID; got != "ajesomebodyelse00001" {
		t.Errorf("the subject hint was not followed: %q logged in", got)
	}
}

func TestLoginWithoutRefreshToken(t *testing.T) {
	tests := []struct {
		name  string
		opts  iamtest.Options
		scope string
		want  string // granted scope
	}{
		{"switched off", iamtest.Options{RefreshTokensOff: true}, "openid offline_access", "openid offline_access"},
		{"dropped", iamtest.Options{DropOfflineAccess: true}, "openid offline_access", "openid"},
		{"not asked for", iamtest.Options{}, "openid", "openid"},
		{"no scope", iamtest.Options{}, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := iamtest.Start(t, tt.opts)
			u := newUser(t, srv)
			a := u.login(url.Values{"scope": {tt.scope}})
			if a.members["refresh_token"] != nil {
				t.Error("there is a refresh token")
			}
			if got := a.str("scope"); got != tt.want {
				t.Errorf("scope %q, want %q", got, tt.want)
			}
			if n := srv.LiveGrants(); n != 0 {
				t.Errorf("%d live grants", n)
			}
		})
	}
}

func TestDenyLogin(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{DenyLogin: true})
	u := newUser(t, srv)
	if got := u.authorize(u.authorization()); got.Get("error") != "access_denied" || got.Get("state") != "a state" {
		t.Errorf("redirected with %v", got)
	}
	if err := srv.Configure(func(o *iamtest.Options) { o.DenyLogin = false }); err != nil {
		t.Fatal(err)
	}
	u.login()
}
