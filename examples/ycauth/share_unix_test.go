//go:build unix

package main

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
)

// TestSessionIsShared: a program of the user's and ycauth renew the same session
// in turns.
func TestSessionIsShared(t *testing.T) {
	h := newHome(t, nil)
	h.must(0, "login")
	store, prover, err := filestore.Open(h.path(), "default")
	if err != nil {
		t.Fatal(err)
	}
	cfg := h.srv.OAuthConfig(prover)
	cfg.Store = store
	session, err := store.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cfg.Provider.Name = session.Provider // as ycauth calls a server that is not Yandex Cloud's
	client, err := oauth.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := client.TokenSource().Close(); err != nil {
			t.Error(err)
		}
	}()
	var last string
	for range 2 {
		h.advance(13 * time.Hour)
		token, err := client.TokenSource().Token()
		if err != nil {
			t.Fatal(err)
		}
		if printed := strings.TrimSpace(h.must(0, "token").stdout); printed != token.AccessToken || printed == last {
			t.Error("ycauth has another token than the program beside it")
		}
		h.advance(13 * time.Hour)
		last = strings.TrimSpace(h.must(0, "token").stdout)
		if token, err = client.TokenSource().Token(); err != nil || token.AccessToken != last {
			t.Errorf("the program has another token than ycauth: %v", err)
		}
	}
	if n := h.srv.LiveGrants(); n != 1 {
		t.Errorf("%d live grants", n)
	}
}

// TestSessionWithAKeyElsewhere: no key is created that the session is not bound to.
func TestSessionWithAKeyElsewhere(t *testing.T) {
	h := newHome(t, nil)
	h.must(0, "login", "--key-file", "elsewhere.pem")
	if _, _, err := filestore.Open(h.path(), "default"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "bound to a key") {
		t.Error(err)
	}
	h.must(0, "token")
}
