package iamtest_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

func TestTokenRequestForm(t *testing.T) {
	srv := iamtest.Start(t)
	u := newUser(t, srv)
	good := u.login().str("refresh_token")
	tests := []struct {
		name   string
		change func(form url.Values, req *http.Request)
		status int
		code   string
	}{
		{"query", func(_ url.Values, r *http.Request) { r.URL.RawQuery = "x=y" }, 400, "invalid_request"},
		{"JSON", func(_ url.Values, r *http.Request) { r.Header.Set("Content-Type", "application/json") }, 400, "invalid_request"},
		{"no grant type", func(f url.Values, _ *http.Request) { f.Del("grant_type") }, 400, "invalid_request"},
		{"another grant type", func(f url.Values, _ *http.Request) { f.Set("grant_type", "password") }, 400, "unsupported_grant_type"},
		{"twice", func(f url.Values, _ *http.Request) { f.Add("refresh_token", "x") }, 400, "invalid_request"},
		{"no refresh token", func(f url.Values, _ *http.Request) { f.Del("refresh_token") }, 400, "invalid_request"},
		{"no client", func(f url.Values, _ *http.Request) { f.Del("client_id") }, 400, "invalid_request"},
		{"unknown client", func(f url.Values, _ *http.Request) { f.Set("client_id", "x") }, 401, "invalid_client"},
		{"public client with a secret", func(f url.Values, _ *http.Request) { f.Set("client_secret", "x") }, 401, "invalid_client"},
		{"unknown token", func(f url.Values, _ *http.Request) { f.Set("refresh_token", "rt1.x.y") }, 400, "invalid_grant"},
		{"wider scope", func(f url.Values, _ *http.Request) { f.Set("scope", "openid everything") }, 400, "invalid_scope"},
		{"too long", func(f url.Values, _ *http.Request) { f.Set("x", strings.Repeat("x", 70_000)) }, 400, "invalid_request"},
		{"no proof", func(_ url.Values, r *http.Request) { r.Header.Del("DPoP") }, 400, "invalid_dpop_proof"},
		{"two proofs", func(_ url.Values, r *http.Request) { r.Header.Add("DPoP", "x") }, 400, "invalid_dpop_proof"},
		{"malformed proof", func(_ url.Values, r *http.Request) { r.Header.Set("DPoP", "x.y.z") }, 400, "invalid_dpop_proof"},
		{"proof without dots", func(_ url.Values, r *http.Request) { r.Header.Set("DPoP", "xyz") }, 400, "invalid_dpop_proof"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			form := u.refreshForm(good)
			req := u.tokenRequest(form)
			tt.change(form, req)
			changed := u.request("POST", "/oauth/token?"+req.URL.RawQuery, form.Encode())
			changed.Header = req.Header
			a := u.do(changed)
			wantError(t, a, tt.status, tt.code)
			if a.str("error_description") == "" || a.header.Get("Cache-Control") != "no-store" {
				t.Errorf("description %q, Cache-Control %q", a.str("error_description"), a.header.Get("Cache-Control"))
			}
		})
	}
	wantOK(t, u.refresh(good)) // none of them did it any harm
}

func TestNarrowerScope(t *testing.T) {
	u := newUser(t, iamtest.Start(t))
	form := u.refreshForm(u.login().str("refresh_token"))
	form.Set("scope", "openid")
	a := wantOK(t, u.do(u.tokenRequest(form)))
	if a.str("scope") != "openid" {
		t.Errorf("scope %q", a.str("scope"))
	}
	if got := wantOK(t, u.call("GET", "/api/whoami", "", a.str("access_token"))).str("scope"); got != "openid" {
		t.Errorf("the access token has the scope %q", got)
	}
}

func TestCode(t *testing.T) {
	other := newProver(t)
	tests := []struct {
		name   string
		change func(u *user, form url.Values)
		spent  bool // the code is of no use any more
	}{
		{"unknown", func(_ *user, f url.Values) { f.Set("code", "x") }, false},
		{"another client's", func(_ *user, f url.Values) { f.Set("client_id", "my-app") }, false},
		{"another redirect", func(_ *user, f url.Values) { f.Set("redirect_uri", redirect+"x") }, true},
		{"wrong verifier", func(_ *user, f url.Values) { f.Set("code_verifier", strings.Repeat("x", 43)) }, true},
		{"wrong key", func(u *user, _ url.Values) { u.prover = other }, true},
		{"expired", func(u *user, _ url.Values) { u.srv.Advance(time.Minute) }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := iamtest.Start(t, iamtest.Options{Clients: []iamtest.Client{{ID: "my-app"}}})
			u := newUser(t, srv)
			prover := u.prover
			code := u.authorize(u.authorization()).Get("code")
			form := u.codeForm(code)
			tt.change(u, form)
			wantError(t, u.do(u.tokenRequest(form)), 400, "invalid_grant")
			u.prover = prover
			a := u.do(u.tokenRequest(u.codeForm(code)))
			if tt.spent {
				wantError(t, a, 400, "invalid_grant")
			} else {
				wantOK(t, a)
			}
		})
	}
}

func TestCodeTwiceEndsTheGrant(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{RevokeAccessTokens: true})
	u := newUser(t, srv)
	code := u.authorize(u.authorization()).Get("code")
	a := wantOK(t, u.do(u.tokenRequest(u.codeForm(code))))
	wantOK(t, u.call("GET", "/api/whoami", "", a.str("access_token")))
	wantError(t, u.do(u.tokenRequest(u.codeForm(code))), 400, "invalid_grant")
	wantError(t, u.refresh(a.str("refresh_token")), 400, "invalid_grant")
	wantError(t, u.call("GET", "/api/whoami", "", a.str("access_token")), 401, "invalid_token")
	if srv.LiveGrants() != 0 || srv.Introspect(a.str("refresh_token")).State != iamtest.TokenRevoked {
		t.Error("the grant is still there")
	}
}

func TestRotation(t *testing.T) {
	const day = 24 * time.Hour
	tests := []struct {
		name     string
		rotation iamtest.Rotation
		after    time.Duration
		rotates  bool
	}{
		{"default, young", "", 0, false},
		{"near end, 7 days left", iamtest.RotateNearEnd, 24 * day, false},
		{"near end, less than 7 days left", iamtest.RotateNearEnd, 24*day + time.Second, true},
		{"never", iamtest.RotateNever, 31*day - time.Second, false},
		{"always", iamtest.RotateAlways, 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			start := time.Date(2025, 11, 20, 12, 0, 0, 0, time.UTC)
			srv := iamtest.Start(t, iamtest.Options{Rotation: tt.rotation, Now: func() time.Time { return start }})
			u := newUser(t, srv)
			old := u.login().str("refresh_token")
			srv.Advance(tt.after)
			renewed := wantOK(t, u.refresh(old)).str("refresh_token")
			if got := renewed != ""; got != tt.rotates {
				t.Fatalf("rotated: %v, want %v", got, tt.rotates)
			}
			if !tt.rotates {
				wantOK(t, u.refresh(old))
				return
			}
			info := srv.Introspect(renewed)
			if info.State != iamtest.TokenCurrent || !info.ExpiresAt.Equal(srv.Now().Add(31*day)) || !info.CreatedAt.Equal(srv.Now()) {
				t.Errorf("the new token is %+v", info)
			}
			if was := srv.Introspect(old); was.State != iamtest.TokenReplaced || was.GrantID != info.GrantID || was.ID == info.ID {
				t.Errorf("the old token is %+v", was)
			}
			if srv.LiveGrants() != 1 {
				t.Errorf("%d live grants", srv.LiveGrants())
			}
		})
	}
}

func TestEndOfLife(t *testing.T) {
	const day = 24 * time.Hour
	start := time.Date(2025, 11, 20, 12, 0, 0, 0, time.UTC)
	srv := iamtest.Start(t, iamtest.Options{Now: func() time.Time { return start }})
	u := newUser(t, srv)
	token := u.login().str("refresh_token")
	for _, tt := range []struct {
		after time.Duration
		state iamtest.TokenState
	}{
		{31*day - 1, iamtest.TokenCurrent},
		{31 * day, iamtest.TokenExpired},
		{38 * day, iamtest.TokenExpired},
		{38*day + 1, iamtest.TokenUnknown},
	} {
		srv.Advance(start.Add(tt.after).Sub(srv.Now()))
		if got := srv.Introspect(token).State; got != tt.state {
			t.Errorf("after %v: %v, want %v", tt.after, got, tt.state)
		}
		if tt.state != iamtest.TokenCurrent {
			wantError(t, u.refresh(token), 400, "invalid_grant")
		}
	}
}

func TestReuse(t *testing.T) {
	for name, keeps := range map[string]bool{"ends the grant": false, "keeps the grant": true} {
		t.Run(name, func(t *testing.T) {
			srv := iamtest.Start(t, iamtest.Options{Rotation: iamtest.RotateAlways, ReuseKeepsGrant: keeps})
			u := newUser(t, srv)
			first := u.login().str("refresh_token")
			second := wantOK(t, u.refresh(first)).str("refresh_token")
			wantError(t, u.refresh(first), 400, "invalid_grant")
			a := u.refresh(second)
			if keeps {
				wantOK(t, a)
				return
			}
			wantError(t, a, 400, "invalid_grant")
			if info := srv.Introspect(second); info.State != iamtest.TokenRevoked || !strings.Contains(info.GrantEnded, "replaced") {
				t.Errorf("the newest token is %+v", info)
			}
		})
	}
}

func TestGrace(t *testing.T) {
	start := time.Date(2025, 11, 20, 12, 0, 0, 0, time.UTC)
	srv := iamtest.Start(t, iamtest.Options{
		Rotation: iamtest.RotateAlways, GracePeriod: time.Minute, GraceUses: 2, Now: func() time.Time { return start },
	})
	u := newUser(t, srv)

	first := u.login().str("refresh_token")
	second := wantOK(t, u.refresh(first)).str("refresh_token")
	srv.Advance(time.Minute - 1)
	for range 2 {
		if got := wantOK(t, u.refresh(first)).str("refresh_token"); got != second {
			t.Error("within the grace the newest token is given again, not one more")
		}
	}
	wantError(t, u.refresh(first), 400, "invalid_grant") // the third time
	wantError(t, u.refresh(second), 400, "invalid_grant")

	first = u.login().str("refresh_token")
	wantOK(t, u.refresh(first))
	srv.Advance(time.Minute)
	wantError(t, u.refresh(first), 400, "invalid_grant") // too late
}

func TestWrongKey(t *testing.T) {
	for _, revokes := range []bool{false, true} {
		srv := iamtest.Start(t, iamtest.Options{WrongKeyRevokes: revokes, AllowUnbound: true})
		u := newUser(t, srv)
		token := u.login().str("refresh_token")
		right := u.prover
		u.prover = nil
		wantError(t, u.refresh(token), 400, "invalid_grant") // no key is not the right one either
		u.prover = newProver(t)
		wantError(t, u.refresh(token), 400, "invalid_grant")
		u.prover = right
		a := u.refresh(token)
		if revokes {
			wantError(t, a, 400, "invalid_grant")
		} else {
			wantOK(t, a)
		}
	}
}

func TestAnotherClientsToken(t *testing.T) {
	u := newUser(t, iamtest.Start(t, iamtest.Options{Clients: []iamtest.Client{{ID: "my-app"}}}))
	token := u.login().str("refresh_token")
	form := u.refreshForm(token)
	form.Set("client_id", "my-app")
	wantError(t, u.do(u.tokenRequest(form)), 400, "invalid_grant")
	wantOK(t, u.refresh(token))
}

func TestUnbound(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{AllowUnbound: true})
	u := newUser(t, srv)
	u.prover = nil
	token := u.login().str("refresh_token")
	wantOK(t, u.refresh(token))
	if info := srv.Introspect(token); info.ProtectionLevel != iamtest.NoProtection || info.KeyThumbprint != "" {
		t.Errorf("the token is %+v", info)
	}
	u.prover = newProver(t)
	wantOK(t, u.refresh(token)) // a proof does no harm
}

func TestReplayedProof(t *testing.T) {
	u := newUser(t, iamtest.Start(t))
	token := u.login().str("refresh_token")
	req := u.tokenRequest(u.refreshForm(token))
	again := u.tokenRequest(u.refreshForm(token))
	again.Header.Set("DPoP", req.Header.Get("DPoP"))
	wantOK(t, u.do(req))
	wantError(t, u.do(again), 400, "invalid_dpop_proof")
}

func TestProofAge(t *testing.T) {
	start := time.Date(2025, 11, 20, 12, 0, 0, 0, time.UTC)
	srv := iamtest.Start(t, iamtest.Options{
		ProofMaxAge: 5 * time.Second, ProofLeeway: 2 * time.Second, Now: func() time.Time { return start },
	})
	u := newUser(t, srv)
	token := u.login().str("refresh_token")
	for _, tt := range []struct {
		age  time.Duration
		good bool
	}{{7 * time.Second, true}, {8 * time.Second, false}, {-2 * time.Second, true}, {-3 * time.Second, false}} {
		req := u.tokenRequest(u.refreshForm(token))
		srv.Advance(tt.age)
		a := u.do(req)
		srv.Advance(-tt.age)
		if tt.good {
			wantOK(t, a)
		} else {
			wantError(t, a, 400, "invalid_dpop_proof")
		}
	}
}

func TestSameToken(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{SameTokenWhile: time.Hour, AccessLife: 2 * time.Hour})
	u := newUser(t, srv)
	first := u.login()
	token := first.str("refresh_token")
	same := wantOK(t, u.refresh(token))
	if same.str("access_token") != first.str("access_token") {
		t.Error("the access token is another one")
	}
	srv.Advance(30 * time.Minute)
	if left := wantOK(t, u.refresh(token)).members["expires_in"].(float64); left > 5400 || left < 5000 {
		t.Errorf("expires_in %v, of the token's last hour and a half", left)
	}
	srv.RevokeAccessToken(first.str("access_token"))
	second := wantOK(t, u.refresh(token)).str("access_token")
	if second == first.str("access_token") {
		t.Error("a revoked access token was given again")
	}
	srv.Advance(time.Hour)
	if wantOK(t, u.refresh(token)).str("access_token") == second {
		t.Error("an access token with less than the time left was given again")
	}
}

// secrets are what a client secret may look like.
const oddSecret = "s:e/c+r%e&t=y 1"

func TestClientAuthentication(t *testing.T) {
	body := func(f url.Values, _ *http.Request) { f.Set("client_secret", oddSecret) }
	basic := func(_ url.Values, r *http.Request) {
		r.SetBasicAuth(url.QueryEscape("my app"), url.QueryEscape(oddSecret))
	}
	plain := func(_ url.Values, r *http.Request) { r.SetBasicAuth("my app", oddSecret) }
	both := func(f url.Values, r *http.Request) { body(f, r); basic(f, r) }
	wrong := func(_ url.Values, r *http.Request) { r.SetBasicAuth("my+app", "no") }
	header := func(v ...string) func(url.Values, *http.Request) {
		return func(_ url.Values, r *http.Request) { r.Header["Authorization"] = v }
	}
	noColon := "Basic " + base64.StdEncoding.EncodeToString([]byte("no colon"))
	tests := []struct {
		name   string
		method oauth.AuthMethod
		send   func(url.Values, *http.Request)
		status int
		code   string
	}{
		{"post", oauth.AuthClientSecretPost, body, 200, ""},
		{"post, by Basic", oauth.AuthClientSecretPost, basic, 401, "invalid_client"},
		{"post, nothing", oauth.AuthClientSecretPost, header(), 401, "invalid_client"},
		{"basic", oauth.AuthClientSecretBasic, basic, 200, ""},
		{"basic, not encoded", oauth.AuthClientSecretBasic, plain, 401, "invalid_client"},
		{"basic, wrong secret", oauth.AuthClientSecretBasic, wrong, 401, "invalid_client"},
		{"basic, by body", oauth.AuthClientSecretBasic, body, 401, "invalid_client"},
		{"basic and body", oauth.AuthClientSecretBasic, both, 400, "invalid_request"},
		{"plain", oauth.AuthClientSecretBasicPlain, plain, 200, ""},
		{"plain, encoded", oauth.AuthClientSecretBasicPlain, basic, 401, "invalid_client"},
		{"Bearer", oauth.AuthClientSecretBasic, header("Bearer x"), 401, "invalid_client"},
		{"not base64", oauth.AuthClientSecretBasic, header("Basic !"), 400, "invalid_request"},
		{"no colon", oauth.AuthClientSecretBasic, header(noColon), 400, "invalid_request"},
		{"two headers", oauth.AuthClientSecretBasic, header(noColon, noColon), 400, "invalid_request"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := iamtest.Start(t, iamtest.Options{ClientID: "my app", ClientSecret: oddSecret, AuthMethod: tt.method})
			u := newUser(t, srv)
			if got := srv.Provider().AuthMethod; got != tt.method {
				t.Errorf("the provider says %q", got)
			}
			form := u.codeForm(u.authorize(u.authorization()).Get("code"))
			req := u.tokenRequest(form)
			tt.send(form, req)
			changed := u.request("POST", "/oauth/token", form.Encode())
			changed.Header = req.Header
			a := u.do(changed)
			if tt.code == "" {
				wantOK(t, a)
			} else {
				wantError(t, a, tt.status, tt.code)
			}
			if got, want := a.header.Get("WWW-Authenticate") != "", a.status == 401 && req.Header.Get("Authorization") != ""; got != want {
				t.Errorf("WWW-Authenticate: %v, want %v", got, want)
			}
		})
	}
}

func TestYandexID(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{YandexID: true})
	u := newUser(t, srv)
	u.prover = nil
	if p := srv.Provider(); p.AuthMethod != oauth.AuthClientSecretBasicPlain || p.ThumbprintHash != 0 || p.Scopes != nil {
		t.Errorf("the provider is %+v", p)
	}
	send := func(form url.Values, authorization string) *answer {
		req := u.tokenRequest(form)
		if authorization != "" {
			req.Header.Set("Authorization", authorization)
		}
		return u.do(req)
	}
	good := "Basic " + base64.StdEncoding.EncodeToString([]byte(srv.ClientID+":"+srv.ClientSecret().Reveal()))
	code := u.authorize(u.authorization()).Get("code")
	form := u.codeForm(code)
	form.Set("client_id", "ignored")
	form.Set("client_secret", "ignored as well")
	first := wantOK(t, send(form, good))
	if first.str("token_type") != "bearer" || !strings.HasPrefix(first.str("access_token"), "y0_") || !strings.HasPrefix(first.str("refresh_token"), "1:") {
		t.Errorf("the answer is %s", first.body)
	}
	byBody := u.refreshForm(first.str("refresh_token"))
	byBody.Set("client_secret", srv.ClientSecret().Reveal())
	second := wantOK(t, send(byBody, ""))
	if second.str("refresh_token") == "" || second.str("refresh_token") == first.str("refresh_token") {
		t.Error("every answer has a new refresh token")
	}
	if info := srv.Introspect(second.str("refresh_token")); info.ExpiresAt.Sub(info.CreatedAt).Seconds() != second.members["expires_in"] {
		t.Errorf("the refresh token lives from %v to %v, the access token %v s", info.CreatedAt, info.ExpiresAt, second.members["expires_in"])
	}

	for _, tt := range []struct {
		name, authorization, code string
		change                    func(url.Values)
	}{
		{"no client", "", "invalid_request", set("client_id", "")},
		{"no secret", "", "invalid_client", func(url.Values) {}},
		{"wrong secret", "", "invalid_client", set("client_secret", "wrong")},
		{"OAuth scheme", "OAuth y0_x", "Basic auth required", func(url.Values) {}},
		{"not base64", "Basic %", "Malformed Authorization header", func(url.Values) {}},
		{"no colon", "Basic eHl6", "Malformed Authorization header", func(url.Values) {}},
		{"another grant", good, "unsupported_grant_type", set("grant_type", "password")},
		{"unknown token", good, "invalid_grant", set("refresh_token", "1:x:y:z")},
		{"missing token", good, "invalid_request", set("refresh_token", "")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			form := u.refreshForm(second.str("refresh_token"))
			tt.change(form)
			wantError(t, send(form, tt.authorization), 400, tt.code)
		})
	}
}

func TestNonces(t *testing.T) {
	start := time.Date(2025, 11, 20, 12, 0, 0, 0, time.UTC)
	serve := func(t *testing.T, o iamtest.Options) (*iamtest.Server, *user, string) {
		t.Helper()
		o.Now = func() time.Time { return start }
		srv := iamtest.Start(t, o)
		u := newUser(t, srv)
		return srv, u, u.login().str("refresh_token")
	}
	nonce := func(a *answer) string { return a.header.Get(dpop.NonceHeader) }

	t.Run("off", func(t *testing.T) {
		_, u, token := serve(t, iamtest.Options{})
		if got := nonce(wantOK(t, u.refresh(token))); got != "" {
			t.Errorf("nonce %q", got)
		}
	})
	t.Run("optional", func(t *testing.T) {
		srv, u, token := serve(t, iamtest.Options{Nonces: iamtest.NoncesOptional})
		if got := srv.Count(iamtest.EndpointToken); got != 1 {
			t.Errorf("the login took %d requests", got)
		}
		wantOK(t, u.refresh(token)) // with the nonce that the login brought
		srv.RotateNonces()
		wantError(t, u.refresh(token), 400, "use_dpop_nonce")
		wantOK(t, u.refresh(token))
		u.nonces = dpop.Nonces{}
		wantOK(t, u.refresh(token)) // without any
	})
	t.Run("required", func(t *testing.T) {
		srv, u, token := serve(t, iamtest.Options{Nonces: iamtest.NoncesRequired})
		if got := srv.Count(iamtest.EndpointToken, "authorization_code"); got != 2 {
			t.Errorf("the login took %d requests, want 2", got)
		}
		for range 3 {
			wantOK(t, u.refresh(token))
		}
		if got := srv.Count(iamtest.EndpointToken, "refresh_token"); got != 3 {
			t.Errorf("%d requests, want 3: a challenge is not needed again", got)
		}
		srv.RotateNonces()
		wantError(t, u.refresh(token), 400, "use_dpop_nonce")
		wantOK(t, u.refresh(token))
		challenged := srv.Requests()[len(srv.Requests())-2]
		if challenged.Proof.Verified || challenged.Proof.ID == "" || challenged.Error != "use_dpop_nonce" {
			t.Errorf("the challenge was recorded as %+v", challenged)
		}
	})
	t.Run("life", func(t *testing.T) {
		srv, u, token := serve(t, iamtest.Options{Nonces: iamtest.NoncesRequired, NonceLife: time.Minute})
		first := nonce(wantOK(t, u.refresh(token)))
		srv.Advance(29 * time.Second)
		if nonce(wantOK(t, u.refresh(token))) != first {
			t.Error("a new nonce before half of the life")
		}
		srv.Advance(time.Second)
		if nonce(wantOK(t, u.refresh(token))) == first {
			t.Error("no new nonce after half of the life")
		}
		srv.Advance(time.Minute)
		wantError(t, u.refresh(token), 400, "use_dpop_nonce")
		wantOK(t, u.refresh(token))
	})
	t.Run("every answer", func(t *testing.T) {
		_, u, token := serve(t, iamtest.Options{Nonces: iamtest.NoncesRequired, NonceEvery: 1})
		seen := map[string]bool{}
		for range 3 {
			seen[nonce(wantOK(t, u.refresh(token)))] = true
		}
		if len(seen) != 3 {
			t.Errorf("%d nonces in 3 answers", len(seen))
		}
	})
	t.Run("every third answer", func(t *testing.T) {
		srv, u, token := serve(t, iamtest.Options{Nonces: iamtest.NoncesRequired, NonceEvery: 3})
		srv.RotateNonces()
		seen := map[string]int{}
		for range 6 {
			seen[nonce(u.refresh(token))]++
		}
		for n, times := range seen {
			if times != 3 {
				t.Errorf("the nonce %s came %d times", n, times)
			}
		}
	})
	t.Run("quiet", func(t *testing.T) {
		srv, u, token := serve(t, iamtest.Options{Nonces: iamtest.NoncesRequired, QuietNonces: true, NonceLife: time.Minute})
		if got := nonce(wantOK(t, u.refresh(token))); got != "" {
			t.Errorf("an answer to the newest nonce has another one: %q", got)
		}
		srv.Advance(40 * time.Second)
		if got := nonce(wantOK(t, u.refresh(token))); got == "" {
			t.Error("an answer to an older nonce has none")
		}
		if got := nonce(wantOK(t, u.refresh(token))); got != "" {
			t.Errorf("an answer to the newest nonce has another one: %q", got)
		}
	})
	t.Run("separate", func(t *testing.T) {
		_, u, token := serve(t, iamtest.Options{Nonces: iamtest.NoncesRequired, SeparateNonces: true})
		wantError(t, u.refresh(token), 400, "use_dpop_nonce") // the login's does not serve
		wantOK(t, u.refresh(token))
		wantOK(t, u.refresh(token))
	})
	t.Run("separate from those of resources", func(t *testing.T) {
		for _, separate := range []bool{false, true} {
			srv := iamtest.Start(t, iamtest.Options{
				Nonces: iamtest.NoncesRequired, ResourceNonces: iamtest.NoncesRequired, SeparateNonces: separate, TokenType: "DPoP",
			})
			u := newUser(t, srv)
			access := u.login().str("access_token")
			req := u.request("GET", "/api/whoami", "")
			req.Header.Set("Authorization", "DPoP "+access)
			u.prove(req, access) // with the nonce of the login
			if a := u.do(req); (a.str("error") == "use_dpop_nonce") != separate {
				t.Errorf("separate %v: got %d %s", separate, a.status, a.body)
			}
		}
	})
}

func TestTokenRequestsAreRecorded(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{ClientSecret: "a secret of the client", ClientID: "my-app"})
	u := newUser(t, srv)
	form := u.codeForm("no such code at all")
	req := u.tokenRequest(form)
	req.SetBasicAuth("my-app", "a secret of the client")
	wantError(t, u.do(req), 400, "invalid_grant")
	r := srv.Requests()[0]
	if got := strings.Join(r.Credentials, " "); got != "authorization code code_verifier dpop" {
		t.Errorf("credentials %q", got)
	}
	if r.GrantType != "authorization_code" || r.ClientID != "my-app" || r.Status != 400 || r.Error != "invalid_grant" ||
		r.Method != http.MethodPost || r.Path != "/oauth/token" || r.Number != 1 || r.RequestID == "" || r.Fault != "" {
		t.Errorf("recorded %+v", r)
	}
	if !r.Proof.Present || !r.Proof.Verified || r.Proof.ID == "" || r.Proof.IssuedAt.IsZero() || r.Proof.Thumbprint == "" {
		t.Errorf("recorded the proof %+v", r.Proof)
	}
	issued := map[string]bool{}
	for _, s := range srv.Secrets() {
		issued[s] = true
	}
	for _, s := range []string{"a secret of the client", "no such code at all", verifier, req.Header.Get("DPoP")} {
		if !issued[s] {
			t.Errorf("Secrets does not have %q", s)
		}
	}
	srv.ResetRequests()
	if len(srv.Requests()) != 0 || srv.Count(iamtest.EndpointToken) != 0 {
		t.Error("ResetRequests forgot to forget")
	}
}

// TestCodeVerifier: "43-128 characters" of "unreserved" (RFC 7636 §4.1). One that
// is malformed does not spend the code.
func TestCodeVerifier(t *testing.T) {
	for name, tt := range map[string]struct {
		verifier string
		ok       bool
	}{
		"42":                      {strings.Repeat("x", 42), false},
		"43":                      {strings.Repeat("x", 43), true},
		"128":                     {strings.Repeat("x", 128), true},
		"129":                     {strings.Repeat("x", 129), false},
		"one character":           {"x", false},
		"every unreserved kind":   {"Az09-._~" + strings.Repeat("x", 40), true},
		"a reserved one":          {"+" + strings.Repeat("x", 42), false},
		"a space":                 {" " + strings.Repeat("x", 42), false},
		"43 bytes, 42 characters": {"é" + strings.Repeat("x", 41), false},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUser(t, iamtest.Start(t))
			sum := sha256.Sum256([]byte(tt.verifier))
			q := u.authorization()
			q.Set("code_challenge", base64.RawURLEncoding.EncodeToString(sum[:]))
			form := u.codeForm(u.authorize(q).Get("code"))
			form.Set("code_verifier", tt.verifier)
			a := u.do(u.tokenRequest(form))
			if tt.ok {
				wantOK(t, a)
				return
			}
			wantError(t, a, 400, "invalid_request")
			form.Set("code_verifier", strings.Repeat("y", 43))
			wantError(t, u.do(u.tokenRequest(form)), 400, "invalid_grant")
		})
	}
}

// TestChallengeStatus: RFC 9449 §8 says 400, and some servers answer 401.
func TestChallengeStatus(t *testing.T) {
	for _, status := range []int{0, 400, 401} {
		srv := iamtest.Start(t, iamtest.Options{Nonces: iamtest.NoncesRequired, ChallengeStatus: status})
		u := newUser(t, srv)
		form := u.refreshForm("no such token")
		a := u.do(u.tokenRequest(form))
		wantError(t, a, max(400, status), "use_dpop_nonce")
		challenge := a.header.Get("WWW-Authenticate")
		if a.header.Get("DPoP-Nonce") == "" || strings.HasPrefix(challenge, `DPoP error="use_dpop_nonce"`) != (status == 401) {
			t.Errorf("status %d: header %v", status, a.header)
		}
		a = u.do(u.tokenRequest(form))
		wantError(t, a, 400, "invalid_grant")
		if a.header.Get("WWW-Authenticate") != "" {
			t.Errorf("header %v", a.header)
		}
		srv.Inject(iamtest.EndpointToken, iamtest.NonceChallenge(), 1)
		wantError(t, u.do(u.tokenRequest(form)), max(400, status), "use_dpop_nonce")
	}
	if _, err := iamtest.New(iamtest.Options{ChallengeStatus: 403}); err == nil {
		t.Error("403 is taken")
	}
}
