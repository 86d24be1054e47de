//go:build linux || darwin

package filestore_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/internal/durable"
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
					if suffix == ".json" && (!errors.As(err, &e) || e.Path != path || !strings.Contains(e.Reason, "move it away")) {
						t.Errorf("Load: got %v, want a *filestore.Error about %s, with the remedy", err, path)
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

// Who may not write to the directory is told that, not to move anything away.
func TestNotWritable(t *testing.T) {
	s := filled(t)
	restore := durable.SetHook(&durable.Hook{Before: func(op durable.Op) error {
		if op.Kind == durable.OpenFile && strings.HasSuffix(op.Path, ".next") {
			return syscall.EACCES
		}
		return nil
	}})
	defer restore()
	err := s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) {
		t.Error("Update called fn")
		return session(2), nil
	})
	var e *filestore.Error
	if !errors.As(err, &e) || !errors.Is(err, fs.ErrPermission) || strings.Contains(e.Reason, "move") || !strings.Contains(e.Reason, "must be able to write") {
		t.Errorf("got %v", err)
	}
}

// A second name of the session's file, as a link or as a name like any other, is neither
// written nor waited for.
func TestSecondNames(t *testing.T) {
	for kind, link := range map[string]func(old, new string) error{
		"symbolic": func(old, name string) error { return os.Symlink(filepath.Base(old), name) },
		"hard":     os.Link,
	} {
		for _, suffix := range []string{".next", ".lock"} {
			t.Run(kind+" "+suffix, func(t *testing.T) {
				s := filled(t)
				before, err := os.ReadFile(s.Path())
				if err != nil {
					t.Fatal(err)
				}
				name := strings.TrimSuffix(s.Path(), ".json") + suffix
				_ = os.Remove(name)
				if err := link(s.Path(), name); err != nil {
					t.Fatal(err)
				}
				within(t, func() {
					err := s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) {
						t.Error("Update called fn")
						return session(2), nil
					})
					var e *filestore.Error
					if !errors.As(err, &e) || e.Path != name || !strings.Contains(e.Reason, "move it away") && !strings.Contains(e.Reason, "remove that name") {
						t.Errorf("got %v, want a *filestore.Error about %s", err, name)
					}
				})
				if after, err := os.ReadFile(s.Path()); err != nil || !bytes.Equal(before, after) {
					t.Errorf("the session was changed: %q, %v", after, err)
				}
			})
		}
	}
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
	if !alone(t) {
		return
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

	restore := limitFiles(t, 256) // enough for the lock
	_, err = ts.Renew(t.Context())
	restore()
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

// alone runs the test in a process of its own, and reports whether this is that one: a
// limit on the size of files would also meet what package testing writes.
func alone(t *testing.T) bool {
	t.Helper()
	const variable = "TEST_ALONE"
	if os.Getenv(variable) != "" {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), variable+"=1")
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("%v:\n%s", err, out)
	}
	return false
}

// limitFiles limits the size of the files that this process writes, until restore is
// called.
func limitFiles(t *testing.T, size uint64) (restore func()) {
	t.Helper()
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	limit := func(l syscall.Rlimit) {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &l); err != nil {
			t.Fatal(err)
		}
	}
	low := before
	low.Cur = size
	limit(low)
	return func() { limit(before) }
}

// A program with a low limit on the size of files leaves the session, which another one
// could not put in its place, to the next.
func TestLeftAndFileSizeLimit(t *testing.T) {
	if !alone(t) {
		return
	}
	s := filled(t)
	leave(t, s)
	restore := limitFiles(t, 128) // enough for the lock
	err := s.Update(t.Context(), func(current oauth.Session) (oauth.Session, error) {
		t.Error("Update called fn")
		return current, nil
	})
	restore()
	if !errors.Is(err, syscall.EFBIG) || !strings.Contains(err.Error(), "is next to it") {
		t.Errorf("got %v, want EFBIG and where the new session is", err)
	}
	if g := found(t, s); g != 2 {
		t.Errorf("the next Update finds generation %d, want 2", g)
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

// Profiles lists the directory that New uses, also where the system could take the name
// for another one.
func TestProfilesAboveALink(t *testing.T) {
	top := t.TempDir()
	for _, dir := range []string{"there/in", "here"} {
		if err := os.MkdirAll(filepath.Join(top, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(top, "there", "in"), filepath.Join(top, "here", "link")); err != nil {
		t.Fatal(err)
	}
	dir := top + "/here/link/../sessions"
	s, err := filestore.New(dir, "work")
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, session(1))
	if got, err := filestore.Profiles(dir); err != nil || len(got) != 1 || got[0] != "work" {
		t.Errorf("%v, %v", got, err)
	}
}
