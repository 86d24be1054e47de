package filestore_test

import (
	"crypto"
	"crypto/cipher"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

func thumbprint(t *testing.T, p *dpop.Prover) string {
	t.Helper()
	s, err := p.Thumbprint(crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestOpen is the life of a small program: it starts without anything, its user
// logs in, and the next start has the session.
func TestOpen(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{})
	home := t.TempDir()
	for _, name := range []string{"HOME", "XDG_CONFIG_HOME", "AppData"} {
		t.Setenv(name, home)
	}
	start := func() *oauth.Client {
		t.Helper()
		store, prover, err := filestore.Open("app", "default")
		if err != nil {
			t.Fatal(err)
		}
		cfg := srv.OAuthConfig(prover)
		cfg.Store = store
		client, err := oauth.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return client
	}

	client := start()
	_, err := client.TokenSource().Token()
	if !errors.Is(err, oauth.ErrLoginRequired) || !strings.Contains(err.Error(), "log in: there is no session") {
		t.Fatalf("before the login: %v", err)
	}
	if _, err := client.Login(t.Context(), oauth.LoginOptions{OpenURL: srv.OpenURL}); err != nil {
		t.Fatal(err)
	}
	if err := client.TokenSource().Close(); err != nil {
		t.Fatal(err)
	}

	client = start()
	if _, err := client.TokenSource().Renew(t.Context()); err != nil { // the refresh token is bound to the key
		t.Fatal(err)
	}
	if err := client.TokenSource().Close(); err != nil {
		t.Fatal(err)
	}
	dir, err := filestore.DefaultDir("app")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sessions/default.json", "keys/default.pem"} {
		path := filepath.Join(filepath.Dir(dir), filepath.FromSlash(name))
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		folder, err := os.Stat(filepath.Dir(path))
		if err != nil {
			t.Fatal(err)
		}
		if runtime.GOOS != "windows" && (fi.Mode() != 0o600 || folder.Mode().Perm() != 0o700) {
			t.Errorf("%s: mode %v in a directory with %v", name, fi.Mode(), folder.Mode())
		}
	}
}

func TestOpenTogether(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there")
	var provers [8]*dpop.Prover
	var wg sync.WaitGroup
	for i := range provers {
		wg.Go(func() {
			var err error
			if _, provers[i], err = filestore.Open(dir, "default"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	for _, p := range provers[1:] {
		if thumbprint(t, p) != thumbprint(t, provers[0]) {
			t.Error("two programs that start together have two keys")
		}
	}
	_, other, err := filestore.Open(dir, "work")
	if err != nil {
		t.Fatal(err)
	}
	if thumbprint(t, other) == thumbprint(t, provers[0]) {
		t.Error("two profiles have the same key")
	}
}

// TestOpenWithoutKey: a key is created where no session needs another one, and
// nowhere else.
func TestOpenWithoutKey(t *testing.T) {
	bound := session(1)
	bound.KeyThumbprint = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
	for name, test := range map[string]struct {
		session oauth.Session
		data    string // instead of a session
		created bool
		want    string
	}{
		"no session":      {created: true},
		"not bound":       {session: session(1), created: true},
		"bound":           {session: bound, want: "is missing, but the session is bound to a key"},
		"cannot be read":  {data: "{", want: "was not used and not overwritten"},
		"sealed, no seal": {data: "ycauth-go sealed session, version 1, generation 1\n0123", want: "sealed"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			store, err := filestore.New(filepath.Join(dir, "sessions"), "default")
			if err != nil {
				t.Fatal(err)
			}
			if !test.session.IsZero() || test.data != "" {
				put(t, store, session(1))
			}
			if test.data != "" {
				if err := os.WriteFile(store.Path(), []byte(test.data), 0o600); err != nil {
					t.Fatal(err)
				}
			} else if !test.session.IsZero() {
				put(t, store, test.session)
			}
			_, prover, err := filestore.Open(dir, "default")
			_, statErr := os.Stat(filepath.Join(dir, "keys", "default.pem"))
			if test.created {
				if err != nil || prover == nil || statErr != nil {
					t.Errorf("no key was created: %v, %v", err, statErr)
				}
				return
			}
			if !errors.Is(statErr, fs.ErrNotExist) {
				t.Errorf("a key was created: %v", statErr)
			}
			var typed *filestore.Error
			if !errors.As(err, &typed) || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), secret) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
}

// TestOpenAfterLostKey: without the key, the session can be discarded and the user can
// log in again.
func TestOpenAfterLostKey(t *testing.T) {
	for name, broken := range map[string]bool{"session intact": false, "session unreadable": true} {
		t.Run(name, func(t *testing.T) {
			srv := iamtest.Start(t, iamtest.Options{})
			dir := t.TempDir()
			login := func(store *filestore.Store, prover *dpop.Prover) {
				t.Helper()
				cfg := srv.OAuthConfig(prover)
				cfg.Store = store
				client, err := oauth.New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := client.Login(t.Context(), oauth.LoginOptions{OpenURL: srv.OpenURL}); err != nil {
					t.Fatal(err)
				}
				if _, err := client.TokenSource().Renew(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := client.TokenSource().Close(); err != nil {
					t.Fatal(err)
				}
			}
			store, prover, err := filestore.Open(dir, "default")
			if err != nil {
				t.Fatal(err)
			}
			login(store, prover)
			if err := os.Remove(filepath.Join(dir, "keys", "default.pem")); err != nil {
				t.Fatal(err)
			}
			if broken {
				if err := os.WriteFile(store.Path(), []byte("{"), 0o600); err != nil {
					t.Fatal(err)
				}
			}

			store, prover, err = filestore.Open(dir, "default")
			if err == nil || store == nil || prover != nil {
				t.Fatalf("without the key: store %v, prover %v, error %v; want the store and an error", store, prover, err)
			}
			var again *oauth.LoginRequiredError
			if lost := !broken; errors.Is(err, fs.ErrNotExist) != lost || errors.As(err, &again) != lost {
				t.Errorf("the error matches the wrong ones: %v", err)
			}
			if err := store.Discard(t.Context()); err != nil {
				t.Fatal(err)
			}
			if store, prover, err = filestore.Open(dir, "default"); err != nil {
				t.Fatal(err)
			}
			login(store, prover)
		})
	}
}

// meanwhile is a key of a seal that does something before it opens a session.
type meanwhile struct {
	cipher.AEAD
	do func()
}

func (m meanwhile) Open(dst, nonce, ciphertext, associated []byte) ([]byte, error) {
	m.do()
	return m.AEAD.Open(dst, nonce, ciphertext, associated)
}

// TestOpenWhileAnotherCreates: between the look for the key and that for the session,
// another process creates both.
func TestOpenWhileAnotherCreates(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "keys", "default.pem")
	_, other, err := filestore.Open(dir, "default")
	if err != nil {
		t.Fatal(err)
	}
	bound := session(1)
	bound.KeyThumbprint = thumbprint(t, other)
	put(t, in(t, filepath.Join(dir, "sessions"), filestore.WithSeal(aead(1))), bound)
	if err := os.Rename(path, path+".later"); err != nil {
		t.Fatal(err)
	}
	created := 0
	seal := filestore.WithSeal(meanwhile{aead(1), func() {
		created++
		if err := os.Rename(path+".later", path); err != nil {
			t.Error(err)
		}
	}})
	_, prover, err := filestore.Open(dir, "default", seal)
	if created != 1 {
		t.Fatalf("the key was created %d times while Open looked at the session, want 1", created)
	}
	if err != nil {
		t.Fatalf("the key is there, and Open says: %v", err)
	}
	if thumbprint(t, prover) != bound.KeyThumbprint {
		t.Error("Open took another key than the session's")
	}
}

func TestOpenRejects(t *testing.T) {
	dir := t.TempDir()
	for name, test := range map[string]struct {
		app, profile string
		want         error
	}{
		"an app that is no name":       {app: "../x", profile: "default", want: filestore.ErrProfileName},
		"a relative directory":         {app: "x/y", profile: "default", want: filestore.ErrProfileName},
		"no app":                       {app: "", profile: "default", want: filestore.ErrProfileName},
		"a profile that is no name":    {app: dir, profile: "../../x", want: filestore.ErrProfileName},
		"keys that others can replace": {app: filepath.Join(dir, "keys-open"), profile: "default", want: filestore.ErrInsecure},
		"a key that others can read":   {app: filepath.Join(dir, "key-open"), profile: "default", want: nil},
	} {
		t.Run(name, func(t *testing.T) {
			switch filepath.Base(test.app) {
			case "keys-open", "key-open":
				if runtime.GOOS == "windows" {
					t.Skip("Windows has no modes")
				}
				if _, _, err := filestore.Open(test.app, test.profile); err != nil {
					t.Fatal(err)
				}
				path, mode := filepath.Join(test.app, "keys"), fs.FileMode(0o777)
				if filepath.Base(test.app) == "key-open" {
					path, mode = filepath.Join(path, "default.pem"), 0o644
				}
				if err := os.Chmod(path, mode); err != nil {
					t.Fatal(err)
				}
			}
			_, _, err := filestore.Open(test.app, test.profile)
			if err == nil || test.want != nil && !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
			if typed := (*dpop.KeyFileError)(nil); test.want == nil && !errors.As(err, &typed) {
				t.Errorf("error of type %T", err)
			}
		})
	}
}
