package conformance

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestDiscovery(t *testing.T) {
	t.Parallel()
	p := startProvider(t)

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.Issuer+"/.well-known/openid-configuration", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, body := send(t, req)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", resp.Status, body)
	}
	var doc struct {
		Issuer        string   `json:"issuer"`
		Authorization string   `json:"authorization_endpoint"`
		Token         string   `json:"token_endpoint"`
		Userinfo      string   `json:"userinfo_endpoint"`
		Revocation    string   `json:"revocation_endpoint"`
		Algorithms    []string `json:"dpop_signing_alg_values_supported"`
		AuthMethods   []string `json:"token_endpoint_auth_methods_supported"`
		Challenges    []string `json:"code_challenge_methods_supported"`
		Scopes        []string `json:"scopes_supported"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		t.Fatal(err)
	}
	for name, pair := range map[string][2]string{
		"issuer":        {doc.Issuer, p.Issuer},
		"authorization": {doc.Authorization, p.Endpoints.Authorization},
		"token":         {doc.Token, p.Endpoints.Token},
		"userinfo":      {doc.Userinfo, p.Endpoints.Userinfo},
		"revocation":    {doc.Revocation, p.Endpoints.Revocation},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: discovery says %q, the ready line %q", name, pair[0], pair[1])
		}
	}
	for name, lists := range map[string][2][]string{
		"algorithms": {doc.Algorithms, {"ES256", "ES384", "ES512", "EdDSA", "PS256", "RS256"}},
		"auth":       {doc.AuthMethods, {"none", "client_secret_basic", "client_secret_post"}},
		"challenges": {doc.Challenges, {"S256"}},
		"scopes":     {doc.Scopes, {"openid", "offline_access"}},
	} {
		for _, want := range lists[1] {
			if !slices.Contains(lists[0], want) {
				t.Errorf("%s: %v lacks %q", name, lists[0], want)
			}
		}
	}
}

// What the server answers at its token endpoint, as far as a client has to know.
func TestTokenEndpoint(t *testing.T) {
	t.Parallel()
	p := startProvider(t)
	native := p.Clients.Native

	t.Run("a proof without nonce is challenged and spends nothing", func(t *testing.T) {
		k, c := newKey(t), p.login(t, loginRequest{client: native})
		a := p.exchange(t, c, k, "")
		a.expect(t, http.StatusBadRequest, "use_dpop_nonce")
		if a.nonce() == "" {
			t.Fatal("no DPoP-Nonce with the challenge")
		}
		first := p.exchange(t, c, k, a.nonce())
		first.expect(t, http.StatusOK, "")
		if first.TokenType != "DPoP" || first.RefreshToken == "" || first.Scope != "openid offline_access" {
			t.Fatalf("token_type %q, refresh token %t, scope %q", first.TokenType, first.RefreshToken != "", first.Scope)
		}

		a = p.refresh(t, native, first.RefreshToken, k, "")
		a.expect(t, http.StatusBadRequest, "use_dpop_nonce")
		second := p.refresh(t, native, first.RefreshToken, k, a.nonce())
		second.expect(t, http.StatusOK, "")
		if second.RefreshToken == "" || second.RefreshToken == first.RefreshToken {
			t.Fatal("the refresh token was not rotated")
		}
	})

	t.Run("no proof is invalid_grant without a nonce and spends nothing", func(t *testing.T) {
		k, c, nonce := newKey(t), p.login(t, loginRequest{client: native}), p.nonce(t)
		a := p.token(t, native, codeForm(c), "")
		a.expect(t, http.StatusBadRequest, "invalid_grant")
		if a.nonce() != "" {
			t.Fatal("a nonce came with an answer to a request without a proof")
		}
		got := p.exchange(t, c, k, nonce)
		got.expect(t, http.StatusOK, "")

		p.token(t, native, refreshForm(got.RefreshToken), "").expect(t, http.StatusBadRequest, "invalid_grant")
		p.refresh(t, native, got.RefreshToken, k, nonce).expect(t, http.StatusOK, "")
	})

	t.Run("a proof sent twice is invalid_grant", func(t *testing.T) {
		k := newKey(t)
		first, nonce := p.tokens(t, native, k), p.nonce(t)
		proof := p.tokenProof(t, k, nonce)
		second := p.token(t, native, refreshForm(first.RefreshToken), proof)
		second.expect(t, http.StatusOK, "")
		// It looks like a login that has ended, and is not.
		p.token(t, native, refreshForm(second.RefreshToken), proof).expect(t, http.StatusBadRequest, "invalid_grant")
		p.refresh(t, native, second.RefreshToken, k, nonce).expect(t, http.StatusOK, "")
	})

	t.Run("a proof sent twice spends a code", func(t *testing.T) {
		k, nonce := newKey(t), p.nonce(t)
		proof := p.tokenProof(t, k, nonce)
		p.token(t, native, codeForm(p.login(t, loginRequest{client: native})), proof).expect(t, http.StatusOK, "")
		c := p.login(t, loginRequest{client: native})
		p.token(t, native, codeForm(c), proof).expect(t, http.StatusBadRequest, "invalid_grant")
		p.exchange(t, c, k, nonce).expect(t, http.StatusBadRequest, "invalid_grant")
	})

	t.Run("a replayed refresh token revokes the whole grant", func(t *testing.T) {
		k := newKey(t)
		first, nonce := p.tokens(t, native, k), p.nonce(t)
		second := p.refresh(t, native, first.RefreshToken, k, nonce)
		second.expect(t, http.StatusOK, "")
		p.refresh(t, native, first.RefreshToken, k, nonce).expect(t, http.StatusBadRequest, "invalid_grant")
		p.refresh(t, native, second.RefreshToken, k, nonce).expect(t, http.StatusBadRequest, "invalid_grant")
		p.userinfo(t, "DPoP", second.AccessToken, k, map[string]any{"nonce": nonce, "ath": hash(second.AccessToken)}).
			expect(t, http.StatusUnauthorized, "invalid_token")
	})

	t.Run("another key is invalid_grant and spends nothing", func(t *testing.T) {
		k := newKey(t)
		first, nonce := p.tokens(t, native, k), p.nonce(t)
		p.refresh(t, native, first.RefreshToken, newKey(t), nonce).expect(t, http.StatusBadRequest, "invalid_grant")
		p.refresh(t, native, first.RefreshToken, k, nonce).expect(t, http.StatusOK, "")
	})

	// RFC 9449 §5: only a public client's refresh token is bound to the key.
	t.Run("another key is good for a confidential client", func(t *testing.T) {
		first := p.tokens(t, p.Clients.Basic, newKey(t))
		p.refresh(t, p.Clients.Basic, first.RefreshToken, newKey(t), p.nonce(t)).expect(t, http.StatusOK, "")
	})

	t.Run("a key other than dpop_jkt is invalid_grant and spends the code", func(t *testing.T) {
		k, nonce := newKey(t), p.nonce(t)
		bound := loginRequest{client: native, params: map[string]string{"dpop_jkt": k.thumbprint(t)}}
		p.exchange(t, p.login(t, bound), k, nonce).expect(t, http.StatusOK, "")

		c := p.login(t, bound)
		p.exchange(t, c, newKey(t), nonce).expect(t, http.StatusBadRequest, "invalid_grant")
		p.exchange(t, c, k, nonce).expect(t, http.StatusBadRequest, "invalid_grant")
	})

	t.Run("a wrong code_verifier is invalid_grant", func(t *testing.T) {
		c := p.login(t, loginRequest{client: native})
		c.verifier = strings.Repeat("v", 43)
		p.exchange(t, c, newKey(t), p.nonce(t)).expect(t, http.StatusBadRequest, "invalid_grant")
	})
}

// RFC 6749 §2.3.1 has id and secret form-urlencoded before they become Basic
// credentials. Plain ones fail in ways that do not name the cause.
func TestClientAuthentication(t *testing.T) {
	t.Parallel()
	p := startProvider(t)
	nonce := p.nonce(t)

	for name, client := range map[string]registration{"Basic": p.Clients.Basic, "body": p.Clients.Post} {
		t.Run(name, func(t *testing.T) {
			for _, odd := range ":+/%&= " {
				if !strings.ContainsRune(client.Secret, odd) {
					t.Errorf("the secret has no %q in it", odd)
				}
			}
			k := newKey(t)
			got := p.tokens(t, client, k)
			p.refresh(t, client, got.RefreshToken, k, nonce).expect(t, http.StatusOK, "")
		})
	}

	for name, c := range map[string]struct {
		client registration
		status int
		code   string
	}{
		"Basic not encoded, not decodable": {p.Clients.Basic, http.StatusBadRequest, "invalid_request"},
		"Basic not encoded, decodable":     {p.Clients.Post, http.StatusUnauthorized, "invalid_client"},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKey(t)
			got := p.tokens(t, c.client, k)
			basic := registration{ID: c.client.ID, Auth: "client_secret_basic"}
			req := newForm(t, p.Endpoints.Token, basic, refreshForm(got.RefreshToken), p.tokenProof(t, k, ""))
			req.SetBasicAuth(c.client.ID, c.client.Secret)
			a := do(t, req)
			a.expect(t, c.status, c.code)
			if a.nonce() != "" {
				t.Error("a nonce came with a failed client authentication")
			}
		})
	}
}

func TestAuthorization(t *testing.T) {
	t.Parallel()
	p := startProvider(t)
	native := p.Clients.Native

	t.Run("offline_access without prompt=consent is dropped", func(t *testing.T) {
		c := p.login(t, loginRequest{client: native, params: map[string]string{"prompt": ""}})
		a := p.exchange(t, c, newKey(t), p.nonce(t))
		a.expect(t, http.StatusOK, "")
		if a.Scope != "openid" || a.RefreshToken != "" {
			t.Errorf("scope %q, refresh token %t", a.Scope, a.RefreshToken != "")
		}
	})

	t.Run("a user who denies", func(t *testing.T) {
		p.setDeny(t, true)
		defer p.setDeny(t, false)
		_, end, page := p.authorize(t, loginRequest{client: native})
		if end.Get("error") != "access_denied" || end.Get("error_description") == "" || end.Has("code") {
			t.Errorf("%v %s", end, page)
		}
	})

	t.Run("any port of the loopback redirect", func(t *testing.T) {
		for _, redirect := range []string{"http://127.0.0.1/auth/callback", "http://127.0.0.1:1/auth/callback", "http://127.0.0.1:65535/auth/callback"} {
			c := p.login(t, loginRequest{client: native, redirect: redirect})
			p.exchange(t, c, newKey(t), p.nonce(t)).expect(t, http.StatusOK, "")
		}
	})

	t.Run("no other redirect", func(t *testing.T) {
		for _, redirect := range []string{"http://127.0.0.1:49152/", "http://localhost:49152/auth/callback", "http://127.0.0.2:49152/auth/callback"} {
			if _, end, page := p.authorize(t, loginRequest{client: native, redirect: redirect}); end != nil || !strings.Contains(page, "invalid_redirect_uri") {
				t.Errorf("%s: %v %s", redirect, end, page)
			}
		}
	})

	t.Run("PKCE is required", func(t *testing.T) {
		for _, client := range []registration{native, p.Clients.Basic, p.Clients.Post} {
			_, end, page := p.authorize(t, loginRequest{client: client, params: map[string]string{"code_challenge": "", "code_challenge_method": ""}})
			if end.Get("error") != "invalid_request" {
				t.Errorf("%s: %v %s", client.ID, end, page)
			}
		}
	})

	// RFC 9207: a client that knows the issuer can compare.
	t.Run("the answer names its issuer", func(t *testing.T) {
		_, end, _ := p.authorize(t, loginRequest{client: native})
		if got := end.Get("iss"); got != p.Issuer {
			t.Errorf("iss %q, want %q", got, p.Issuer)
		}
	})
}

func TestResource(t *testing.T) {
	t.Parallel()
	p := startProvider(t)
	k := newKey(t)
	got := p.tokens(t, p.Clients.Native, k)
	ath := hash(got.AccessToken)

	challenged := p.userinfo(t, "DPoP", got.AccessToken, k, map[string]any{"ath": ath})
	challenged.expect(t, http.StatusUnauthorized, "use_dpop_nonce")
	challenge := challenged.header.Get("WWW-Authenticate")
	if !strings.HasPrefix(challenge, "DPoP ") || !strings.Contains(challenge, `error="use_dpop_nonce"`) {
		t.Errorf("WWW-Authenticate: %s", challenge)
	}
	nonce := challenged.nonce()
	if nonce == "" {
		t.Fatal("no DPoP-Nonce with the challenge")
	}

	for name, c := range map[string]struct {
		scheme string
		key    key
		extra  map[string]any
		status int
		code   string
	}{
		"nonce and ath":       {"DPoP", k, map[string]any{"nonce": nonce, "ath": ath}, http.StatusOK, ""},
		"no ath":              {"DPoP", k, map[string]any{"nonce": nonce}, http.StatusUnauthorized, "invalid_dpop_proof"},
		"ath of another":      {"DPoP", k, map[string]any{"nonce": nonce, "ath": hash("another")}, http.StatusUnauthorized, "invalid_dpop_proof"},
		"another key":         {"DPoP", newKey(t), map[string]any{"nonce": nonce, "ath": ath}, http.StatusUnauthorized, "invalid_token"},
		"Bearer, not DPoP":    {"Bearer", k, map[string]any{"nonce": nonce, "ath": ath}, http.StatusBadRequest, "invalid_request"},
		"proof for elsewhere": {"DPoP", k, map[string]any{"nonce": nonce, "ath": ath, "htu": p.Endpoints.Token}, http.StatusUnauthorized, "invalid_dpop_proof"},
	} {
		t.Run(name, func(t *testing.T) {
			a := p.userinfo(t, c.scheme, got.AccessToken, c.key, c.extra)
			a.expect(t, c.status, c.code)
			if (a.Subject == "alice") != (c.code == "") {
				t.Errorf("sub %q", a.Subject)
			}
		})
	}
}

// A nonce changes with the minute and is good for the three that follow: a 200
// brings a new one only when the one used is no longer the newest.
func TestNonceLife(t *testing.T) {
	t.Parallel()
	p := startProvider(t)
	p.stopClock(t)
	k := newKey(t)
	got := p.tokens(t, p.Clients.Native, k)
	nonce := p.nonce(t)

	for _, step := range []struct {
		age      time.Duration
		newNonce bool
	}{
		{0, false},
		{59 * time.Second, false},
		{60 * time.Second, true},
		{239 * time.Second, true},
	} {
		p.advance(t, step.age)
		got = p.refresh(t, p.Clients.Native, got.RefreshToken, k, nonce)
		p.advance(t, -step.age)
		got.expect(t, http.StatusOK, "")
		if (got.nonce() != "") != step.newNonce || got.nonce() == nonce {
			t.Errorf("after %v: answer to nonce %q with %q", step.age, nonce, got.nonce())
		}
	}

	p.advance(t, 240*time.Second)
	challenged := p.refresh(t, p.Clients.Native, got.RefreshToken, k, nonce)
	challenged.expect(t, http.StatusBadRequest, "use_dpop_nonce")
	p.refresh(t, p.Clients.Native, got.RefreshToken, k, challenged.nonce()).expect(t, http.StatusOK, "")
}

func TestAccessTokenLife(t *testing.T) {
	t.Parallel()
	p := startProvider(t)
	p.stopClock(t)
	p.setAccessTokenTTL(t, 30*time.Second)
	k := newKey(t)
	got, nonce := p.tokens(t, p.Clients.Native, k), p.nonce(t)
	if got.ExpiresIn != 30 {
		t.Fatalf("expires_in %d, want 30", got.ExpiresIn)
	}
	claims := map[string]any{"nonce": nonce, "ath": hash(got.AccessToken)}
	p.advance(t, 29*time.Second)
	p.userinfo(t, "DPoP", got.AccessToken, k, claims).expect(t, http.StatusOK, "")
	p.advance(t, time.Second)
	p.userinfo(t, "DPoP", got.AccessToken, k, claims).expect(t, http.StatusUnauthorized, "invalid_token")
}

// The Date header is by the same clock as everything else.
func TestServerClock(t *testing.T) {
	t.Parallel()
	p := startProvider(t)
	now := p.stopClock(t)
	p.advance(t, time.Hour)
	a := p.userinfo(t, "DPoP", "no such token", newKey(t), nil)
	if got, want := a.header.Get("Date"), now.Add(time.Hour).UTC().Format(http.TimeFormat); got != want {
		t.Errorf("Date %q, want %q", got, want)
	}
}

// Where nonces are not required, the server judges a proof by its iat, and
// answers a clock that is wrong with a nonce.
func TestNoncesNotRequired(t *testing.T) {
	t.Parallel()
	p := startProvider(t)
	p.setRequireNonce(t, false)
	k := newKey(t)
	got := p.exchange(t, p.login(t, loginRequest{client: p.Clients.Native}), k, "")
	got.expect(t, http.StatusOK, "")
	if got.nonce() == "" {
		t.Error("no nonce offered with the answer to a proof without one")
	}
	p.advance(t, 10*time.Minute)
	challenged := p.refresh(t, p.Clients.Native, got.RefreshToken, k, "")
	challenged.expect(t, http.StatusBadRequest, "use_dpop_nonce")
	p.refresh(t, p.Clients.Native, got.RefreshToken, k, challenged.nonce()).expect(t, http.StatusOK, "")
}

// RFC 7009: a revoked refresh token takes its whole grant along, and revoking
// what is not there succeeds too.
func TestRevocation(t *testing.T) {
	t.Parallel()
	p := startProvider(t)
	k := newKey(t)
	for _, client := range []registration{p.Clients.Native, p.Clients.Basic, p.Clients.Post} {
		t.Run(client.ID, func(t *testing.T) {
			got, nonce := p.tokens(t, client, k), p.nonce(t)
			for range 2 {
				req := newForm(t, p.Endpoints.Revocation, client, url.Values{"token": {got.RefreshToken}}, "")
				if resp, body := send(t, req); resp.StatusCode != http.StatusOK || len(body) != 0 {
					t.Fatalf("%s %s", resp.Status, body)
				}
			}
			p.refresh(t, client, got.RefreshToken, k, nonce).expect(t, http.StatusBadRequest, "invalid_grant")
			p.userinfo(t, "DPoP", got.AccessToken, k, map[string]any{"nonce": nonce, "ath": hash(got.AccessToken)}).
				expect(t, http.StatusUnauthorized, "invalid_token")
		})
	}
}

// The record of requests is what the tests of our client judge it by.
func TestLog(t *testing.T) {
	t.Parallel()
	p := startProvider(t)
	k := newKey(t)
	got, nonce := p.tokens(t, p.Clients.Post, k), p.nonce(t)
	p.forget(t)
	if log := p.log(t); len(log) != 0 {
		t.Fatalf("%d entries after forget", len(log))
	}

	for _, c := range []struct {
		name  string
		extra map[string]any
		want  exchange
	}{
		{"right", map[string]any{"nonce": nonce, "ath": hash(got.AccessToken)}, exchange{
			Status: http.StatusOK,
			Proof:  &proofSeen{Verified: true, Nonce: true, ATH: true},
		}},
		{"no nonce", map[string]any{"ath": hash(got.AccessToken)}, exchange{
			Status: http.StatusUnauthorized, Error: "use_dpop_nonce", NewNonce: true,
			Proof: &proofSeen{Verified: true, ATH: true},
		}},
		{"no ath", map[string]any{"nonce": nonce}, exchange{
			Status: http.StatusUnauthorized, Error: "invalid_dpop_proof",
			Proof: &proofSeen{Problem: "ath is not the hash of the access token", Nonce: true},
		}},
		{"wrong method", map[string]any{"nonce": nonce, "ath": hash(got.AccessToken), "htm": "POST"}, exchange{
			Status: http.StatusUnauthorized, Error: "invalid_dpop_proof",
			Proof: &proofSeen{Problem: "htm is not the method", Nonce: true, ATH: true},
		}},
		{"query in htu", map[string]any{"nonce": nonce, "ath": hash(got.AccessToken), "htu": p.Endpoints.Userinfo + "?q"}, exchange{
			Status: http.StatusOK, // the library takes it away
			Proof:  &proofSeen{Problem: "htu is not the normalised URL of the request", Nonce: true, ATH: true},
		}},
		{"old", map[string]any{"nonce": nonce, "ath": hash(got.AccessToken), "iat": 1}, exchange{
			Status: http.StatusOK, // the nonce says when
			Proof:  &proofSeen{Problem: "iat is missing or not recent", Nonce: true, ATH: true},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p.forget(t)
			p.userinfo(t, "DPoP", got.AccessToken, k, c.extra)
			log := p.log(t)
			if len(log) != 1 {
				t.Fatalf("%d entries for one request: %+v", len(log), log)
			}
			e, proof := log[0], *log[0].Proof
			if e.Method != http.MethodGet || p.Issuer+e.Path != p.Endpoints.Userinfo || e.Scheme != "DPoP" || proof.JTI == "" || proof.JKT != k.thumbprint(t) || proof.Alg != "ES256" {
				t.Errorf("%+v %+v", e, proof)
			}
			gotProof := proofSeen{Verified: proof.Verified, Problem: proof.Problem, Nonce: proof.Nonce, ATH: proof.ATH}
			if e.Status != c.want.Status || e.Error != c.want.Error || e.NewNonce != c.want.NewNonce || gotProof != *c.want.Proof {
				t.Errorf("got %+v %+v\nwant %+v %+v", e, proof, c.want, *c.want.Proof)
			}
		})
	}

	t.Run("one proof twice", func(t *testing.T) {
		p.forget(t)
		proof := p.tokenProof(t, k, nonce)
		renewed := p.token(t, p.Clients.Post, refreshForm(got.RefreshToken), proof)
		p.token(t, p.Clients.Post, refreshForm(renewed.RefreshToken), proof)
		log := p.log(t)
		if len(log) != 2 || !log[0].Proof.Verified || log[1].Proof.Verified || log[1].Proof.Problem != "jti was seen before" {
			t.Fatalf("%+v", log)
		}
		if got := log[1]; got.Error != "invalid_grant" || got.Problem != "grant request is invalid" || got.Detail != "DPoP proof JWT Replay detected" {
			t.Errorf("%+v", got)
		}
		if log[0].GrantType != "refresh_token" || log[0].Client != p.Clients.Post.ID ||
			!slices.Equal(log[0].Params, []string{"client_id", "client_secret", "grant_type", "refresh_token"}) {
			t.Errorf("%+v", log[0])
		}
	})

	t.Run("no secret", func(t *testing.T) {
		p.forget(t)
		c := p.login(t, loginRequest{client: p.Clients.Post})
		a := p.exchange(t, c, k, nonce)
		p.userinfo(t, "DPoP", a.AccessToken, k, nil)
		text := string(p.control(t, http.MethodGet, "/_test/log", ""))
		if !strings.Contains(text, `"authorization_code"`) {
			t.Fatalf("the log has nothing to look into: %s", text)
		}
		for name, secret := range map[string]string{
			"access token": a.AccessToken, "refresh token": a.RefreshToken, "code": c.value, "verifier": c.verifier,
			"client secret": c.client.Secret, "nonce": nonce,
		} {
			if strings.Contains(text, secret) {
				t.Errorf("the %s is in the log", name)
			}
		}
	})
}
