package iamtest_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

func TestLoginRenewCall(t *testing.T) {
	srv := iamtest.Start(t)
	u := newUser(t, srv)
	first := u.login()
	if !regexp.MustCompile(`^t1\.[\w-]+\.[\w-]{86}$`).MatchString(first.str("access_token")) {
		t.Error("the access token has another shape than IAM tokens")
	}
	if !regexp.MustCompile(`^rt1\.[\w-]+\.[\w-]{43,}$`).MatchString(first.str("refresh_token")) {
		t.Error("the refresh token has another shape than refresh tokens")
	}
	if got := first.str("token_type"); got != "Bearer" {
		t.Errorf("token_type %q, want Bearer", got)
	}
	if got := first.members["expires_in"]; got != 43200.0 {
		t.Errorf("expires_in %v, want 43200", got)
	}
	if got := first.str("scope"); got != "openid offline_access" {
		t.Errorf("scope %q", got)
	}

	second := wantOK(t, u.refresh(first.str("refresh_token")))
	if second.str("access_token") == first.str("access_token") {
		t.Error("the renewal gave the same access token")
	}
	if second.members["refresh_token"] != nil {
		t.Error("the renewal gave a refresh token, long before the end of life")
	}
	who := wantOK(t, u.call("GET", "/api/whoami", "", second.str("access_token")))
	if who.str("subject") != "ajeiamtestuser000001" || who.str("clientId") != srv.ClientID {
		t.Errorf("whoami: %s", who.body)
	}
	if got := srv.Count(iamtest.EndpointToken); got != 2 {
		t.Errorf("%d token requests, want 2", got)
	}
	for _, r := range srv.Requests() {
		if r.Endpoint == iamtest.EndpointToken && !r.Proof.Verified {
			t.Errorf("the proof of %v was not verified", r.GrantType)
		}
		for _, secret := range srv.Secrets() {
			if strings.Contains(strings.Join([]string{r.Path, r.Error, r.ClientID, r.Scope}, " "), secret) {
				t.Error("a record holds a secret")
			}
		}
	}
}
