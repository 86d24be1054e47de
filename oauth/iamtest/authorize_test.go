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
		{"no redirect", set("redirect_uri", ""), "not registered for"},
		{"malformed redirect", set("redirect_uri", "http://%zz"), "not registered for"},
		{"another host", set("redirect_uri", "http://example.com/auth/callback"), "not registered for"},
		{"host like a loopback", set("redirect_uri", "http://127.0.0.1.example.com/auth/callback"), "not registered for"},
		{"https", set("redirect_uri", "https://127.0.0.1:1/auth/callback"), "not registered for"},
		{"user information", set("redirect_uri", "http://u@127.0.0.1:1/auth/callback"), "not registered for"},
		{"query", set("redirect_uri", "http://127.0.0.1:1/auth/callback?x=y"), "not registered for"},
		{"fragment", set("redirect_uri", "http://127.0.0.1:1/auth/callback#x"), "not registered for"},
		{"another path", set("redirect_uri", "http://127.0.0.1:1/callback"), "not registered for"},
		{"port 0", set("redirect_uri", "http://127.0.0.1:0/auth/callback"), "not registered for"},
		{"port 65536", set("redirect_uri", "http://127.0.0.1:65536/auth/callback"), "not registered for"},
		{"port 99999", set("redirect_uri", "http://127.0.0.1:99999/auth/callback"), "not registered for"},
		{"port 080", set("redirect_uri", "http://127.0.0.1:080/auth/callback"), "not registered for"},
		{"empty port", set("redirect_uri", "http://127.0.0.1:/auth/callback"), "not registered for"},
		{"another loopback address", set("redirect_uri", "http://127.0.0.2:1/auth/callback"), "not registered for"},
		{"localhost", set("redirect_uri", "http://localhost:1/auth/callback"), "not registered for"},
		{"long IPv6", set("redirect_uri", "http://[0:0:0:0:0:0:0:1]:1/auth/callback"), "not registered for"},
		{"escaped path", set("redirect_uri", "http://127.0.0.1:1/auth/%63allback"), "not registered for"},
		{"empty query", set("redirect_uri", "http://127.0.0.1:1/auth/callback?"), "not registered for"},
		{"empty fragment", set("redirect_uri", "http://127.0.0.1:1/auth/callback#"), "not registered for"},
		{"scheme in capitals", set("redirect_uri", "HTTP://127.0.0.1:1/auth/callback"), "not registered for"},
		{"two clients", func(q url.Values) { q.Add("client_id", "another") }, "is there twice"},
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
		{"highest port", iamtest.Options{}, func(_ *user, q url.Values) { q.Set("redirect_uri", "http://127.0.0.1:65535/auth/callback") }},
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

func TestRegisteredRedirects(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{
		RedirectURIs: []string{"http://localhost:8080/cb?app=1", "http://127.0.0.1:9/cb"},
		Clients:      []iamtest.Client{{ID: "phone", RedirectURIs: []string{"com.example.app:/cb"}}, {ID: "none", RedirectURIs: []string{}}},
	})
	u := newUser(t, srv)
	for _, tt := range []struct {
		client, redirect string
		ok               bool
	}{
		{srv.ClientID, "http://localhost:8080/cb?app=1", true},
		{srv.ClientID, "http://localhost:8081/cb?app=1", false}, // its port is not free to choose
		{srv.ClientID, "http://localhost:8080/cb", false},
		{srv.ClientID, "http://127.0.0.1:9/cb", true},
		{srv.ClientID, "http://127.0.0.1:10/cb", true},
		{srv.ClientID, "http://127.0.0.1/cb", true},
		{srv.ClientID, "http://[::1]:9/cb", false},
		{srv.ClientID, redirect, false},
		{"phone", "com.example.app:/cb", true},
		{"phone", redirect, false},
		{"none", redirect, false},
		{"none", "", false},
	} {
		q := u.authorization()
		q.Set("client_id", tt.client)
		q.Set("redirect_uri", tt.redirect)
		a := u.do(u.request("GET", "/oauth/authorize?"+q.Encode(), ""))
		if ok := a.status == http.StatusFound && strings.HasPrefix(a.header.Get("Location"), tt.redirect); ok != tt.ok {
			t.Errorf("%s of %s: status %d, Location %q", tt.redirect, tt.client, a.status, a.header.Get("Location"))
		}
		if tt.ok && strings.Contains(tt.redirect, "app=1") && !strings.Contains(a.header.Get("Location"), "app=1&code=") {
			t.Errorf("the query of the redirect URI is lost: %q", a.header.Get("Location"))
		}
	}
	for _, uri := range []string{"/auth/callback", "http://127.0.0.1/cb#", "http://%zz", ""} {
		_, err := iamtest.New(iamtest.Options{Clients: []iamtest.Client{{ID: "x", RedirectURIs: []string{uri}}}})
		if err == nil || !strings.Contains(err.Error(), "RedirectURIs") {
			t.Errorf("%q: got %v", uri, err)
		}
	}
}

func TestUnknownScopes(t *testing.T) {
	for _, tt := range []struct {
		name    string
		opts    iamtest.Options
		scope   string
		granted string // "!" for invalid_scope
	}{
		{"known", iamtest.Options{}, "openid profile email offline_access", "openid profile email offline_access"},
		{"dropped", iamtest.Options{}, "openid everything offline_access", "openid offline_access"},
		{"all dropped", iamtest.Options{}, "everything", ""},
		{"refused", iamtest.Options{RefuseUnknownScopes: true}, "openid everything", "!"},
		{"refused, but known", iamtest.Options{RefuseUnknownScopes: true}, "openid email", "openid email"},
		{"of one's own", iamtest.Options{RefuseUnknownScopes: true, Scopes: []string{"disk:read"}}, "disk:read", "disk:read"},
		{"of one's own, without openid", iamtest.Options{RefuseUnknownScopes: true, Scopes: []string{"disk:read"}}, "openid", "!"},
		{"no scope known", iamtest.Options{Scopes: []string{}}, "openid", ""},
		{"Yandex ID", iamtest.Options{YandexID: true}, "login:info disk", "login:info disk"},
		{"two spaces", iamtest.Options{}, "openid  email", "!"},
		{"quote", iamtest.Options{}, `openid "`, "!"},
		{"backslash", iamtest.Options{}, `openid \`, "!"},
		{"not ASCII", iamtest.Options{}, "openid é", "!"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := iamtest.Start(t, tt.opts)
			u := newUser(t, srv)
			if tt.opts.YandexID {
				u.prover = nil
			}
			q := u.authorization()
			q.Set("scope", tt.scope)
			got := u.authorize(q)
			if tt.granted == "!" {
				if got.Get("error") != "invalid_scope" || got.Get("state") != "a state" {
					t.Errorf("redirected with %v", got)
				}
				return
			}
			form := u.codeForm(got.Get("code"))
			if secret := srv.ClientSecret(); secret != "" {
				form.Set("client_secret", secret.Reveal())
			}
			if a := wantOK(t, u.do(u.tokenRequest(form))); a.str("scope") != tt.granted {
				t.Errorf("granted %q, want %q", a.str("scope"), tt.granted)
			}
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
