//go:build linux || darwin

package filestore_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

// within fails the test if f hangs.
func within(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("it hangs")
	}
}

// Whatever has the name of one of the files, it is an error, and no wait.
func TestNotRegular(t *testing.T) {
	for kind, make := range map[string]func(path string) error{
		"a pipe":       func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"a directory":  func(path string) error { return os.Mkdir(path, 0o700) },
		"a link out":   func(path string) error { return os.Symlink("/dev/zero", path) },
		"a link loops": func(path string) error { return os.Symlink(filepath.Base(path), path) },
	} {
		for _, suffix := range []string{".json", ".next", ".lock"} {
			t.Run(kind+" "+suffix, func(t *testing.T) {
				s := open(t)
				dir := filepath.Dir(s.Path())
				if err := os.MkdirAll(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(dir, "default"+suffix)
				if err := make(path); err != nil {
					t.Fatal(err)
				}
				within(t, func() {
					_, err := s.Load(t.Context())
					var e *filestore.Error
					if suffix == ".json" && (!errors.As(err, &e) || e.Path != path) {
						t.Errorf("Load: got %v, want a *filestore.Error about %s", err, path)
					}
					err = s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) {
						t.Error("Update called fn")
						return session(1), nil
					})
					if !errors.As(err, &e) || e.Path != path {
						t.Errorf("Update: got %v, want a *filestore.Error about %s", err, path)
					}
				})
			})
		}
	}
	s := open(t)
	dir := filepath.Dir(s.Path())
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(dir, 0o600); err != nil {
		t.Fatal(err)
	}
	within(t, func() { refused(t, s, dir, nil, "is not a directory") })
}

// The owner of the directory above swaps the directory, at the worst moment: the
// session goes where the check was made, or nowhere.
func TestDirectoryIsSwapped(t *testing.T) {
	s := filled(t)
	dir := filepath.Dir(s.Path())
	theirs := filepath.Join(t.TempDir(), "theirs")
	if err := os.Mkdir(theirs, 0o777); err != nil {
		t.Fatal(err)
	}
	err := s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) {
		return session(2), errors.Join(os.Rename(dir, dir+".away"), os.Symlink(theirs, dir))
	})
	if err != nil {
		t.Fatal(err)
	}
	if stolen, err := os.ReadDir(theirs); err != nil || len(stolen) != 0 {
		t.Errorf("in the other directory: %v, %v", stolen, err)
	}
	data, err := os.ReadFile(filepath.Join(dir+".away", "default.json"))
	if want, _ := session(2).Encode(); err != nil || string(data) != string(want) {
		t.Errorf("in the directory that was checked: %s, %v", data, err)
	}
	if err := os.Chmod(theirs, 0o777); err != nil {
		t.Fatal(err)
	}
	refused(t, s, dir, filestore.ErrInsecure, "has mode 0777")
}

// A next file that others can change is not taken over.
func TestLeftByOthers(t *testing.T) {
	s := filled(t)
	two, err := session(2).Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(next(s), two, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(next(s), 0o622); err != nil {
		t.Fatal(err)
	}
	err = s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) {
		t.Error("Update called fn")
		return session(3), nil
	})
	if !errors.Is(err, filestore.ErrInsecure) || !strings.Contains(err.Error(), "run chmod 600") {
		t.Errorf("got %v, want ErrInsecure", err)
	}
}

// A refresh token is not spent where its successor could not be stored. The limit
// on the size of files stands for a full disk.
func TestDiskFull(t *testing.T) {
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	limit := func(l syscall.Rlimit) {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &l); err != nil {
			t.Fatal(err)
		}
	}
	srv := iamtest.Start(t, iamtest.Options{Rotation: iamtest.RotateAlways})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	prover, err := dpop.New(key)
	if err != nil {
		t.Fatal(err)
	}
	config := srv.OAuthConfig(prover)
	s := open(t)
	config.Store = s
	c, err := oauth.New(config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Login(t.Context(), oauth.LoginOptions{OpenURL: srv.OpenURL}); err != nil {
		t.Fatal(err)
	}
	ts := c.TokenSource()
	defer ts.Close()

	full := before
	full.Cur = 256 // enough for the lock
	limit(full)
	_, err = ts.Renew(t.Context())
	limit(before)
	var e *oauth.StoreError
	if !errors.As(err, &e) || !errors.Is(err, syscall.EFBIG) {
		t.Errorf("got %v, want a *oauth.StoreError", err)
	}
	if n := srv.Count(iamtest.EndpointToken, "refresh_token"); n != 0 {
		t.Errorf("%d requests were made, want none", n)
	}
	stored, err := s.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if state := srv.Introspect(stored.RefreshToken.Reveal()).State; state != iamtest.TokenCurrent {
		t.Errorf("the stored refresh token is %s", state)
	}
	if _, err := ts.Renew(t.Context()); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// The mode is the store's, whatever the umask.
func TestUmask(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	s := filled(t)
	want := map[string]fs.FileMode{".": fs.ModeDir | 0o700, "default.json": 0o600, "default.lock": 0o600}
	if got := modes(t, filepath.Dir(s.Path())); !mapsEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
