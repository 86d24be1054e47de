package filestore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
)

// A directory that was there before and is missing does not mean that nobody is logged in.
func TestMissingDirectory(t *testing.T) {
	keep := func(s oauth.Session) (oauth.Session, error) { return s, nil }
	put := func(oauth.Session) (oauth.Session, error) { return session(1), nil }
	for name, tt := range map[string]struct {
		before func(t *testing.T, dir string) *filestore.Store
		known  bool
	}{
		"never there": {storeIn, false},
		"found by New": {func(t *testing.T, dir string) *filestore.Store {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			return storeIn(t, dir)
		}, true},
		"found by Load": {func(t *testing.T, dir string) *filestore.Store {
			s := storeIn(t, dir)
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Load(t.Context()); !errors.Is(err, oauth.ErrNoSession) {
				t.Fatal(err)
			}
			return s
		}, true},
		"created by Update": {func(t *testing.T, dir string) *filestore.Store {
			s := storeIn(t, dir)
			if err := s.Update(t.Context(), put); err != nil {
				t.Fatal(err)
			}
			return s
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			disk := t.TempDir()
			dir := filepath.Join(disk, "app", "sessions")
			s := tt.before(t, dir)
			if err := os.RemoveAll(filepath.Join(disk, "app")); err != nil {
				t.Fatal(err)
			}
			check := func(call string, err error) {
				t.Helper()
				var e *filestore.Error
				if !errors.As(err, &e) || e.Path != dir || !errors.Is(err, fs.ErrNotExist) || errors.Is(err, oauth.ErrNoSession) ||
					!strings.Contains(e.Reason, "Store.Discard") {
					t.Errorf("%s: %v", call, err)
				}
			}
			_, err := s.Load(t.Context())
			if !tt.known {
				if !errors.Is(err, oauth.ErrNoSession) {
					t.Error(err)
				}
				if err := s.Update(t.Context(), put); err != nil {
					t.Error(err)
				}
				return
			}
			check("Load", err)
			check("Update", s.Update(t.Context(), keep))
			if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the directory was created again: %v", err)
			}
			if err := s.Discard(t.Context()); err != nil {
				t.Error(err)
			}
			if _, err := s.Load(t.Context()); !errors.Is(err, oauth.ErrNoSession) {
				t.Error(err)
			}
			if err := s.Update(t.Context(), put); err != nil {
				t.Error(err)
			}
		})
	}
}

func storeIn(t *testing.T, dir string) *filestore.Store {
	t.Helper()
	s, err := filestore.New(dir, "default")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Who asks for a token, and has never logged in, leaves no directory behind: not where a
// disk will be mounted, either.
func TestNoDirectoryWithoutSession(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "mnt", "sessions")
	newClient := func() *oauth.Client {
		c, err := oauth.New(oauth.Config{
			Provider: oauth.Provider{Name: "srv", TokenURL: "https://auth.example/token", CallbackPath: "/cb"},
			ClientID: "cli", Store: storeIn(t, dir), HTTPClient: &http.Client{Transport: new(tokens)},
		})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	a, b := newClient(), newClient()
	for call, f := range map[string]func() error{
		"Token": func() error { _, err := a.TokenSource().Token(); return err },
		"Renew": func() error { _, err := a.TokenSource().Renew(t.Context()); return err },
	} {
		if err := f(); !errors.Is(err, oauth.ErrNoSession) || !errors.Is(err, oauth.ErrLoginRequired) {
			t.Errorf("%s: %v", call, err)
		}
	}
	if err := a.Logout(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Dir(dir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory was created: %v", err)
	}
	// The first logins of two processes: what the first one has stored, the second one finds.
	if err := a.Import(t.Context(), "rt-0"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.TokenSource().Renew(t.Context()); err != nil {
		t.Error(err)
	}
	for _, c := range []*oauth.Client{a, b} {
		if s, err := c.Session(t.Context()); err != nil || s.RefreshToken != "rt-1" {
			t.Errorf("%q, %v", s.RefreshToken.Reveal(), err)
		}
		if err := c.TokenSource().Close(); err != nil {
			t.Error(err)
		}
	}
}

// tokens issues rt-1, rt-2, ….
type tokens struct{ n int }

func (s *tokens) RoundTrip(*http.Request) (*http.Response, error) {
	s.n++
	body := fmt.Sprintf(`{"access_token":"at-%d","token_type":"Bearer","expires_in":3600,"refresh_token":"rt-%d"}`, s.n, s.n)
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)),
	}, nil
}

// failingDisk fails when a session is written.
type failingDisk struct {
	*filestore.Store
	fails bool
}

func (s *failingDisk) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	return s.Store.Update(ctx, func(old oauth.Session) (oauth.Session, error) {
		next, err := fn(old)
		if err == nil && s.fails {
			err = errors.New("input/output error")
		}
		return next, err
	})
}

// A disk fails while a new refresh token comes, and is then away for a while: the token is
// kept, and saved when the disk is back.
func TestDiskAwayWhileTokenComes(t *testing.T) {
	disk := t.TempDir()
	app, away := filepath.Join(disk, "app"), filepath.Join(disk, "away")
	store := &failingDisk{Store: storeIn(t, filepath.Join(app, "sessions"))}
	synctest.Test(t, func(t *testing.T) {
		c, err := oauth.New(oauth.Config{
			Provider: oauth.Provider{Name: "srv", TokenURL: "https://auth.example/token", CallbackPath: "/cb"},
			ClientID: "cli", Store: store, HTTPClient: &http.Client{Transport: new(tokens)},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Import(t.Context(), "rt-0"); err != nil {
			t.Fatal(err)
		}
		store.fails = true
		if _, err := c.TokenSource().Token(); err != nil {
			t.Fatal(err)
		}
		store.fails = false
		if err := os.Rename(app, away); err != nil {
			t.Fatal(err)
		}
		for range 5 { // the saver tries, and the source looks
			time.Sleep(time.Minute)
			if _, err := c.TokenSource().Token(); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if err := os.Rename(away, app); err != nil {
			t.Fatal(err)
		}
		if err := c.TokenSource().Close(); err != nil {
			t.Error(err)
		}
		if s, err := c.Session(t.Context()); err != nil || s.RefreshToken != "rt-1" {
			t.Errorf("stored: %q, %v", s.RefreshToken.Reveal(), err)
		}
	})
}
