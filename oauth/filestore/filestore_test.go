package filestore_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
)

// secret is in every session and file of these tests; no error may have it.
const secret = "rt1.SECRET"

func session(generation uint64) oauth.Session {
	return oauth.Session{
		Provider: "auth.example", ClientID: "client", Generation: generation,
		RefreshToken: secret, AccessToken: "t1." + secret, TokenType: "Bearer",
		Expiry: time.Date(2026, 5, 17, 21, 30, 0, 0, time.UTC),
	}
}

// open returns a store in a directory that does not exist yet.
func open(t *testing.T) *filestore.Store {
	t.Helper()
	s, err := filestore.New(filepath.Join(t.TempDir(), "config", "sessions"), "default")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// filled returns a store that has session(1).
func filled(t *testing.T) *filestore.Store {
	t.Helper()
	s := open(t)
	put(t, s, session(1))
	return s
}

func put(t *testing.T, s oauth.Store, next oauth.Session) {
	t.Helper()
	err := s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) { return next, nil })
	if err != nil {
		t.Fatal(err)
	}
}

// refused checks that neither Load nor Update takes what is there, that Update
// does not call fn, and that the error names the path, the cause and a remedy.
func refused(t *testing.T, s *filestore.Store, path string, cause error, remedy string) {
	t.Helper()
	check := func(op string, err error) {
		t.Helper()
		var e *filestore.Error
		switch {
		case !errors.As(err, &e):
			t.Fatalf("%s: got %v, want a *filestore.Error", op, err)
		case e.Path != path:
			t.Errorf("%s: the path is %q, want %q", op, e.Path, path)
		case cause != nil && !errors.Is(err, cause):
			t.Errorf("%s: %v does not match %v", op, err, cause)
		case !strings.Contains(err.Error(), remedy):
			t.Errorf("%s: %v does not say %q", op, err, remedy)
		case strings.Contains(err.Error(), "SECRET"):
			t.Errorf("%s: the error has a secret: %v", op, err)
		}
	}
	_, err := s.Load(t.Context())
	check("Load", err)
	check("Update", s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) {
		t.Error("Update called fn")
		return session(9), nil
	}))
}

func TestFiles(t *testing.T) {
	s := open(t)
	if _, err := s.Load(t.Context()); !errors.Is(err, oauth.ErrNoSession) {
		t.Fatalf("Load without a directory: %v does not match ErrNoSession", err)
	}
	dir := filepath.Dir(s.Path())
	if _, err := os.Stat(filepath.Dir(dir)); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal("New or Load created a directory")
	}
	put(t, s, session(1))
	want := map[string]fs.FileMode{".": fs.ModeDir | 0o700, "default.json": 0o600, "default.lock": 0o600}
	if got := modes(t, dir); runtime.GOOS != "windows" && !mapsEqual(got, want) {
		t.Errorf("after an Update: %v, want %v", got, want)
	}
	data, err := os.ReadFile(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	if encoded, _ := session(1).Encode(); !bytes.Equal(data, encoded) {
		t.Errorf("the file has %s, want %s", data, encoded)
	}
	put(t, s, oauth.Session{})
	delete(want, "default.json")
	if got := modes(t, dir); runtime.GOOS != "windows" && !mapsEqual(got, want) {
		t.Errorf("after a removal: %v, want %v", got, want)
	}
}

func modes(t *testing.T, dir string) map[string]fs.FileMode {
	t.Helper()
	found := map[string]fs.FileMode{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		found[name] = fi.Mode()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func mapsEqual(got, want map[string]fs.FileMode) bool {
	for name, mode := range want {
		if got[name] != mode {
			return false
		}
	}
	return len(got) == len(want)
}

func TestRelativeDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	s, err := filestore.New("sessions", "default")
	if err != nil {
		t.Fatal(err)
	}
	if !filepath.IsAbs(s.Path()) {
		t.Fatalf("%q is not absolute", s.Path())
	}
	t.Chdir(t.TempDir())
	put(t, s, session(1))
	if _, err := os.Stat(s.Path()); err != nil {
		t.Error(err)
	}
}

func TestProfilesAreApart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sessions")
	if got, err := filestore.Profiles(dir); err != nil || len(got) != 0 {
		t.Fatalf("Profiles without a directory: %v, %v", got, err)
	}
	names := []string{"a", "a.json", "work", "user@example.com"}
	for i, name := range names {
		s, err := filestore.New(dir, name)
		if err != nil {
			t.Fatal(err)
		}
		put(t, s, session(uint64(i)+1))
	}
	for i, name := range names {
		s, err := filestore.New(dir, name)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.Load(t.Context()); err != nil || got.Generation != uint64(i)+1 {
			t.Errorf("%s: generation %d, %v, want %d", name, got.Generation, err, i+1)
		}
	}
	// Not profiles: a directory, a name in upper case, other files.
	if err := os.Mkdir(filepath.Join(dir, "dir.json"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Upper.json", "notes.txt", ".hidden.json"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(names)
	if got, err := filestore.Profiles(dir); err != nil || !slices.Equal(got, names) {
		t.Errorf("Profiles: %v, %v, want %v", got, err, names)
	}
	var e *filestore.Error
	if _, err := filestore.Profiles(filepath.Join(dir, "a.json")); !errors.As(err, &e) {
		t.Errorf("Profiles of a file: got %v, want a *filestore.Error", err)
	}
}

func TestProfileName(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"", ".", "..", "../x", "a/b", `a\b`, "Work", "con", ".x", strings.Repeat("a", 65)} {
		_, err := filestore.New(dir, name)
		var e *filestore.Error
		if !errors.Is(err, filestore.ErrProfileName) || !errors.As(err, &e) || e.Path != name {
			t.Errorf("New(dir, %q): got %v, want ErrProfileName", name, err)
		}
	}
	var e *filestore.Error
	if _, err := filestore.New("", "default"); !errors.As(err, &e) {
		t.Errorf("New without a directory: got %v, want a *filestore.Error", err)
	}
}

func TestDirectoryOfOthers(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // access control lists decide there, and the store does not read them
	}
	s := filled(t)
	dir := filepath.Dir(s.Path())
	if err := os.Chmod(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	refused(t, s, dir, filestore.ErrInsecure, "run chmod 700")
	if _, err := filestore.New(dir, "other"); !errors.Is(err, filestore.ErrInsecure) {
		t.Errorf("New: %v does not match ErrInsecure", err)
	}
	if _, err := filestore.Profiles(dir); !errors.Is(err, filestore.ErrInsecure) {
		t.Errorf("Profiles: %v does not match ErrInsecure", err)
	}
	if err := s.Discard(t.Context()); !errors.Is(err, filestore.ErrInsecure) {
		t.Errorf("Discard: %v does not match ErrInsecure", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Load(t.Context()); err != nil || got.Generation != 1 {
		t.Errorf("after chmod 700: %v, %v", got, err)
	}
}

func TestFileOfOthers(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // as above
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o602, 0o610, 0o666} {
		s := filled(t)
		if err := os.Chmod(s.Path(), mode); err != nil {
			t.Fatal(err)
		}
		refused(t, s, s.Path(), filestore.ErrInsecure, "run chmod 600")
		if err := os.Chmod(s.Path(), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Load(t.Context()); err != nil || got.Generation != 1 {
			t.Errorf("after chmod 600: %v, %v", got, err)
		}
	}
}

func TestNotASession(t *testing.T) {
	good, err := session(1).Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"empty":             {},
		"zeros":             make([]byte, len(good)),
		"cut off":           good[:len(good)-1],
		"cut in a token":    good[:bytes.Index(good, []byte("SECRET"))+3],
		"something after":   append(slices.Clone(good), good...),
		"a newer version":   bytes.Replace(good, []byte(`"version":1`), []byte(`"version":2`), 1),
		"no version":        bytes.Replace(good, []byte(`"version":1`), []byte(`"v":1`), 1),
		"another object":    []byte(`{"refresh_token":"` + secret + `"}`),
		"not an object":     []byte(`["` + secret + `"]`),
		"a wrong type":      bytes.Replace(good, []byte(`"rt1.SECRET"`), []byte(`["rt1.SECRET"]`), 1),
		"the same name":     bytes.Replace(good, []byte(`{`), []byte(`{"version":1,`), 1),
		"not text":          {0xff, 0xfe, 0, 1},
		"before the year 0": bytes.Replace(good, []byte(`"2026-05-17T21:30:00Z"`), []byte(`"0000-01-01T00:00:00+23:59"`), 1),
		"larger than ever":  append(slices.Clone(good), bytes.Repeat([]byte(" "), 16<<20)...),
	} {
		t.Run(name, func(t *testing.T) {
			s := filled(t)
			if err := os.WriteFile(s.Path(), content, 0o600); err != nil {
				t.Fatal(err)
			}
			refused(t, s, s.Path(), oauth.ErrSessionFormat, "call Store.Discard, and log in again")
			if now, err := os.ReadFile(s.Path()); err != nil || !bytes.Equal(now, content) {
				t.Errorf("the file was changed (%v)", err)
			}
			if err := s.Discard(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Load(t.Context()); !errors.Is(err, oauth.ErrNoSession) {
				t.Errorf("after Discard: %v does not match ErrNoSession", err)
			}
			put(t, s, session(2))
		})
	}
}

func TestNotAFile(t *testing.T) {
	s := filled(t)
	if err := os.Remove(s.Path()); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(s.Path(), "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	refused(t, s, s.Path(), nil, "move it away")
	var e *filestore.Error
	if err := s.Discard(t.Context()); !errors.As(err, &e) {
		t.Errorf("Discard: got %v, want a *filestore.Error", err)
	}
}

func TestDiscard(t *testing.T) {
	s := open(t)
	if err := s.Discard(t.Context()); err != nil {
		t.Errorf("where there is nothing: %v", err)
	}
	put(t, s, session(1))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Discard(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("with a ctx that ended: %v", err)
	}
	if _, err := s.Load(t.Context()); err != nil {
		t.Errorf("a ctx that ended discarded the session: %v", err)
	}
	if err := s.Discard(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := s.Load(t.Context()); !errors.Is(err, oauth.ErrNoSession) {
		t.Errorf("after Discard: %v does not match ErrNoSession", err)
	}
}

// A file with members of a later release, of the same version, keeps them for as
// long as the session does not change.
func TestUnchangedIsNotWritten(t *testing.T) {
	s := filled(t)
	data, err := os.ReadFile(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	data = append([]byte(" {\n \"later\": [1],"), data[1:]...)
	if err := os.WriteFile(s.Path(), data, 0o600); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	err = s.Update(t.Context(), func(current oauth.Session) (oauth.Session, error) {
		current.Expiry = current.Expiry.In(time.FixedZone("elsewhere", 3600)) // the same moment
		return current, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(before, after) {
		t.Error("another file has the name: it was written")
	}
	if now, err := os.ReadFile(s.Path()); err != nil || !bytes.Equal(now, data) {
		t.Errorf("the file was changed (%v)", err)
	}
}

// What could not be read must not be written over what it accepts.
func TestUnreadableSession(t *testing.T) {
	for name, next := range map[string]oauth.Session{
		"no provider":   {ClientID: "c", RefreshToken: secret, Generation: 2},
		"no generation": {Provider: "p", ClientID: "c", RefreshToken: secret},
		"a time that JSON does not have": {
			Provider: "p", ClientID: "c", RefreshToken: secret, Generation: 2, Expiry: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC),
		},
		"larger than a file may be": {
			Provider: "p", ClientID: "c", Generation: 2, RefreshToken: oauth.Secret(strings.Repeat(secret, 2<<20)),
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := filled(t)
			err := s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) { return next, nil })
			var e *filestore.Error
			if !errors.As(err, &e) || strings.Contains(err.Error(), "SECRET") {
				t.Errorf("got %v, want a *filestore.Error without secrets", err)
			}
			if got, err := s.Load(t.Context()); err != nil || got.Generation != 1 {
				t.Errorf("the old session is not intact: %v, %v", got, err)
			}
		})
	}
}

// The directory goes away, in fn or before.
func TestDirectoryVanishes(t *testing.T) {
	s := filled(t)
	dir := filepath.Dir(s.Path())
	err := s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) {
		return session(2), os.RemoveAll(dir)
	})
	var e *filestore.Error
	if !errors.As(err, &e) || !errors.Is(err, fs.ErrNotExist) || e.Path != s.Path() {
		t.Errorf("got %v, want a *filestore.Error that matches fs.ErrNotExist", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, s, session(3))
	if got, err := s.Load(t.Context()); err != nil || got.Generation != 3 {
		t.Errorf("with a new directory: %v, %v", got, err)
	}
}

func TestCannotCreateDirectory(t *testing.T) {
	s := open(t)
	if err := os.WriteFile(filepath.Dir(filepath.Dir(s.Path())), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, s, filepath.Dir(s.Path()), nil, "cannot be used")
}

func TestCannotLock(t *testing.T) {
	s := filled(t)
	lock := strings.TrimSuffix(s.Path(), ".json") + ".lock"
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(lock, 0o700); err != nil {
		t.Fatal(err)
	}
	err := s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) {
		t.Error("Update called fn")
		return session(2), nil
	})
	var e *filestore.Error
	if !errors.As(err, &e) || e.Path != lock || e.Err == nil {
		t.Errorf("got %v, want a *filestore.Error about %s", err, lock)
	}
	if got, err := s.Load(t.Context()); err != nil || got.Generation != 1 {
		t.Errorf("Load needs no lock, and got %v, %v", got, err)
	}
}

func TestCauseOfCtx(t *testing.T) {
	s := filled(t)
	why := errors.New("shutting down")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	_, err := s.Load(ctx)
	for op, err := range map[string]error{
		"Load":    err,
		"Update":  s.Update(ctx, func(c oauth.Session) (oauth.Session, error) { return c, nil }),
		"Discard": s.Discard(ctx),
	} {
		if !errors.Is(err, context.Canceled) || !errors.Is(err, why) {
			t.Errorf("%s: %v does not match ctx's error and its cause", op, err)
		}
	}
}

func TestDefaultDir(t *testing.T) {
	home := t.TempDir()
	for _, name := range []string{"HOME", "AppData", "XDG_CONFIG_HOME"} {
		t.Setenv(name, home)
	}
	config, err := os.UserConfigDir()
	if err != nil {
		t.Fatal(err)
	}
	got, err := filestore.DefaultDir("app")
	if want := filepath.Join(config, "app", "sessions"); err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if _, err := filestore.DefaultDir("../app"); !errors.Is(err, filestore.ErrProfileName) {
		t.Errorf("DefaultDir of a path: %v does not match ErrProfileName", err)
	}
	for _, name := range []string{"HOME", "AppData", "XDG_CONFIG_HOME"} {
		t.Setenv(name, "")
	}
	var e *filestore.Error
	t.Setenv("HOME", "relative")
	if _, err := filestore.DefaultDir("app"); runtime.GOOS == "linux" && (!errors.As(err, &e) || !strings.Contains(e.Reason, "correct $HOME")) {
		t.Errorf("with a relative home: got %v, want a *filestore.Error with the remedy", err)
	}
	t.Setenv("HOME", "")
	if _, err := filestore.DefaultDir("app"); !errors.As(err, &e) {
		t.Errorf("without a home: got %v, want a *filestore.Error", err)
	}
}
