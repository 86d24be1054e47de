package iamtest_test

import (
	"crypto"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

func TestWhoami(t *testing.T) {
	srv := iamtest.Start(t)
	u := newUser(t, srv)
	expired := srv.IssueAccessToken("", "")
	srv.Advance(12 * time.Hour)
	token := srv.IssueAccessToken("ajesomebodyelse00001", "")
	revoked := srv.IssueAccessToken("", "")
	if !srv.RevokeAccessToken(revoked) || srv.RevokeAccessToken("t1.x.y") {
		t.Error("RevokeAccessToken does not know what is known")
	}
	bound := srv.IssueAccessToken("", thumbprint(t, u.prover, crypto.SHA256))

	tests := []struct {
		name   string
		header []string
		code   string
		scheme string // of the first challenge; there is one of each scheme
	}{
		{"none", nil, "", "DPoP"},
		{"good", []string{"Bearer " + token}, "", ""},
		{"lower case", []string{"bearer " + token}, "", ""},
		{"two spaces", []string{"Bearer  " + token}, "", ""},
		{"unknown", []string{"Bearer t1.x.y"}, "invalid_token", "Bearer"},
		{"expired", []string{"Bearer " + expired}, "invalid_token", "Bearer"},
		{"revoked", []string{"Bearer " + revoked}, "invalid_token", "Bearer"},
		{"no token", []string{"Bearer"}, "invalid_request", "Bearer"},
		{"two tokens", []string{"Bearer x y"}, "invalid_request", "Bearer"},
		{"two headers", []string{"Bearer " + token, "Bearer " + token}, "invalid_request", "DPoP"},
		{"Basic", []string{"Basic eHl6"}, "", "DPoP"},
		{"bound, as Bearer", []string{"Bearer " + bound}, "invalid_token", "Bearer"},
		{"not bound, as DPoP", []string{"DPoP " + token}, "invalid_token", "DPoP"},
		{"unknown, as DPoP", []string{"DPoP t1.x.y"}, "invalid_token", "DPoP"},
		{"bound, without proof", []string{"DPoP " + bound}, "invalid_dpop_proof", "DPoP"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req := u.request("GET", "/api/whoami", "")
			req.Header["Authorization"] = tt.header
			a := u.do(req)
			if tt.scheme == "" {
				if got := wantOK(t, a).str("subject"); got != "ajesomebodyelse00001" {
					t.Errorf("subject %q", got)
				}
				return
			}
			status := http.StatusUnauthorized
			if tt.code == "invalid_request" {
				status = http.StatusBadRequest // RFC 6750 §3.1
			}
			wantError(t, a, status, tt.code)
			challenge := a.header.Get("WWW-Authenticate")
			if n := len(a.header.Values("WWW-Authenticate")); n != 2 {
				t.Errorf("%d challenges", n)
			}
			if !strings.HasPrefix(challenge, tt.scheme) || tt.code != "" && !strings.Contains(challenge, `error="`+tt.code+`"`) {
				t.Errorf("challenge %q", challenge)
			}
			if got := strings.Contains(challenge, "algs="); got != (tt.scheme == "DPoP") {
				t.Errorf("challenge %q", challenge)
			}
		})
	}
	if srv.AccessTokenExpiry(token).Sub(srv.Now()) > 12*time.Hour || !srv.AccessTokenExpiry(revoked).IsZero() {
		t.Error("AccessTokenExpiry is wrong")
	}
}

func TestBoundAccessToken(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{TokenType: "DPoP", ResourceNonces: iamtest.NoncesRequired})
	u := newUser(t, srv)
	a := u.login()
	token := a.str("access_token")
	if a.str("token_type") != "DPoP" {
		t.Fatalf("token_type %q", a.str("token_type"))
	}
	call := func(proofFor string) *answer {
		req := u.request("GET", "/api/whoami", "")
		req.Header.Set("Authorization", "DPoP "+token)
		u.prove(req, proofFor)
		return u.do(req)
	}
	wantError(t, call(token), 401, "use_dpop_nonce")
	who := wantOK(t, call(token))
	if who.str("tokenType") != "DPoP" || who.header.Get(dpop.NonceHeader) == "" {
		t.Errorf("answer %s, nonce %q", who.body, who.header.Get(dpop.NonceHeader))
	}
	wantError(t, call(""), 401, "invalid_dpop_proof")        // no ath
	wantError(t, call("another"), 401, "invalid_dpop_proof") // wrong ath
	u.prover = newProver(t)
	wantError(t, call(token), 401, "invalid_token") // the right ath, by the wrong key

	anonymous := u.do(u.request("GET", "/api/whoami", ""))
	if got := anonymous.header.Get("WWW-Authenticate"); !strings.HasPrefix(got, "DPoP algs=") {
		t.Errorf("without a token the challenge is %q", got)
	}
}

// TestDPoPTransport: the resource and dpop.Transport understand each other.
func TestDPoPTransport(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{ResourceNonces: iamtest.NoncesRequired, NonceEvery: 1})
	u := newUser(t, srv)
	tok := &oauth2.Token{AccessToken: srv.IssueAccessToken("", thumbprint(t, u.prover, crypto.SHA256)), TokenType: "DPoP"}
	hc := &http.Client{Transport: &dpop.Transport{Source: oauth2.StaticTokenSource(tok), Prover: u.prover, Base: u.http.Transport, Clock: srv.Now}}
	for range 3 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/api/whoami", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := hc.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("status %d", resp.StatusCode)
		}
	}
	if got := srv.Count(iamtest.EndpointResource); got != 4 {
		t.Errorf("%d requests, want 4: one challenge, then a nonce with every answer", got)
	}
	// The API takes bound tokens as well.
	api := &http.Client{Transport: hc.Transport}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/iam/v1/refreshTokens", nil)
	resp, err := api.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("List: status %d", resp.StatusCode)
	}
}
