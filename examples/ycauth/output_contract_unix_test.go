//go:build unix

package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

// TestTokenExpiry: programs plan by the times that come with a token.
func TestTokenExpiry(t *testing.T) {
	h := newHome(t, nil)
	h.env = append(h.env, "TZ=Asia/Tokyo")
	h.must(0, "login")
	check := func(name, token string, expires time.Time) {
		t.Helper()
		want := h.srv.AccessTokenExpiry(token)
		if want.IsZero() {
			t.Errorf("%s: no valid token", name)
		}
		// By the clock of the process, and never later than the truth.
		if early := want.Sub(expires); early < -time.Second || early > 10*time.Second {
			t.Errorf("%s expires at %v, want %v", name, expires, want)
		}
	}
	var tok tokenJSON
	if err := json.Unmarshal([]byte(h.must(0, "token", "-o", "json").stdout), &tok); err != nil {
		t.Fatal(err)
	}
	check("token", tok.Token, tok.Expires)
	var cred execCredential
	if err := json.Unmarshal([]byte(h.must(0, "kube-credential").stdout), &cred); err != nil {
		t.Fatal(err)
	}
	check("kube-credential", cred.Status.Token, cred.Status.ExpirationTimestamp)
	if cred.Status.ExpirationTimestamp.Nanosecond() != 0 {
		t.Errorf("%v is not to the second", cred.Status.ExpirationTimestamp)
	}
}

// TestTablesHaveNoSecrets: whatever a server echoes as the name of an application.
func TestTablesHaveNoSecrets(t *testing.T) {
	h := newHome(t, nil)
	h.must(0, "login")
	secret := h.session(defaultProfile).AccessToken.Reveal()
	h.srv.Seed(1, func(_ int, s *iamtest.Seed) { s.ClientInstanceInfo = "app/" + secret })
	if r := h.must(0, "list"); strings.Contains(r.stdout, secret) || !strings.Contains(r.stdout, "app/REDACTED") {
		t.Error(r)
	}
}

// TestKeyInitWaitsForLogin: a login that is being saved must not lose its key.
func TestKeyInitWaitsForLogin(t *testing.T) {
	h := newHome(t, nil)
	store, err := filestore.New(h.path("sessions"), defaultProfile)
	if err != nil {
		t.Fatal(err)
	}
	cmd := h.command("ycauth", "key", "init")
	ended := make(chan result, 1)
	err = store.Update(context.Background(), func(oauth.Session) (oauth.Session, error) {
		go func() { ended <- h.finish(cmd) }()
		select {
		case r := <-ended:
			t.Errorf("key init did not wait: %v", r)
		case <-time.After(time.Second):
		}
		return oauth.Session{Provider: "p", ClientID: "c", RefreshToken: "rt1.x", Generation: 1}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if r := <-ended; r.code != exitKey || !strings.Contains(r.stderr, "log out first") {
		t.Error(r)
	}
}
