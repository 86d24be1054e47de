package keyringstore

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zalando/go-keyring"
	"go.uber.org/goleak"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/storetest"
)

// secret is in every session of these tests; no error may have it.
const secret = "rt1.SECRET"

func session(generation uint64) oauth.Session {
	return oauth.Session{
		Provider: "auth.example", ClientID: "client", Generation: generation,
		RefreshToken: secret, AccessToken: "t1." + secret, TokenType: "Bearer",
		Expiry: time.Date(2026, 5, 17, 21, 30, 0, 0, time.UTC),
	}
}

func put(t *testing.T, s oauth.Store, next oauth.Session) {
	t.Helper()
	err := s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) { return next, nil })
	if err != nil {
		t.Fatal(err)
	}
}

// refused checks that neither Load nor Update takes what is there, that Update
// does not call fn, and that the error is of the kind and names a remedy.
func refused(t *testing.T, s *Store, kind error, remedy string) {
	t.Helper()
	_, err := s.Load(t.Context())
	checkError(t, "Load", err, kind, remedy)
	err = s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) {
		t.Error("Update called fn")
		return session(9), nil
	})
	checkError(t, "Update", err, kind, remedy)
}

func checkError(t *testing.T, op string, err, kind error, remedy string) {
	t.Helper()
	var e *Error
	switch {
	case !errors.As(err, &e):
		t.Errorf("%s: got %v, want an *Error", op, err)
	case kind == nil && e.Kind != nil:
		t.Errorf("%s: %v has the kind %v, want none", op, err, e.Kind)
	case kind != nil && !errors.Is(err, kind):
		t.Errorf("%s: %v does not match %v", op, err, kind)
	case !strings.Contains(err.Error(), remedy):
		t.Errorf("%s: %v does not say %q", op, err, remedy)
	case strings.Contains(err.Error(), "SECRET"):
		t.Errorf("%s: the error has a secret: %v", op, err)
	}
}

// The half of the contract that needs no processes, on every system.
func TestContractInMemory(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	storetest.Run(t, storetest.Subject{
		Name:     "in memory",
		Open:     func(place string) (oauth.Store, error) { return newFake().open(t, Options{LockDir: place}), nil },
		Unshared: true,
	})
}

func TestNew(t *testing.T) {
	dir := t.TempDir()
	for _, service := range []string{"app", "com.example.App", "My App 2", "https://example.com/app", strings.Repeat("a", 128)} {
		if _, err := New(service, "default", Options{LockDir: dir}); err != nil {
			t.Errorf("service %q: %v", service, err)
		}
	}
	for _, service := range []string{"", " app", "app ", "a\"b", "a'b", "a\\b", "a\nb", "a\x00", "äpp", "$(x)", strings.Repeat("a", 129)} {
		_, err := New(service, "default", Options{LockDir: dir})
		checkError(t, "New with service "+service, err, ErrName, "the service")
	}
	for _, profile := range []string{"", "Work", "a/b", "..", "con"} {
		_, err := New("app", profile, Options{LockDir: dir})
		checkError(t, "New with profile "+profile, err, ErrName, "the profile")
	}
	_, err := New("app", "default", Options{LockDir: dir, Timeout: -1})
	checkError(t, "New with a negative time limit", err, nil, "Options.Timeout")
}

func TestLockDir(t *testing.T) {
	home := t.TempDir()
	for _, name := range []string{"HOME", "AppData", "XDG_CONFIG_HOME"} {
		t.Setenv(name, home)
	}
	f := newFake()
	s, err := newStore(f.on(), Options{}, make(chan struct{}, 1))
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, session(1))
	config, err := os.UserConfigDir()
	if err != nil {
		t.Fatal(err)
	}
	locks, err := filepath.Glob(filepath.Join(config, "ycauth-go", "locks", "*.lock"))
	if err != nil || len(locks) != 1 {
		t.Errorf("lock files %v, %v, want one", locks, err)
	}
	for _, name := range []string{"HOME", "AppData", "XDG_CONFIG_HOME"} {
		t.Setenv(name, "")
	}
	_, err = New("app", "default", Options{})
	checkError(t, "New without a home", err, nil, "set Options.LockDir")
}

func TestLockDirRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	update := func(s *Store) error {
		return s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) {
			t.Error("Update called fn")
			return session(1), nil
		})
	}
	s := newFake().open(t, Options{LockDir: file})
	checkError(t, "Update", update(s), nil, "is not a directory")
	checkError(t, "Discard", s.Discard(t.Context()), nil, "is not a directory")
	if runtime.GOOS != "windows" {
		s = newFake().open(t, Options{LockDir: open})
		if err := update(s); !errors.Is(err, ErrInsecure) || !strings.Contains(err.Error(), "run chmod 700") {
			t.Errorf("a folder of all: got %v, want ErrInsecure", err)
		}
	}
	dir := filepath.Join(t.TempDir(), "locks")
	s = newFake().open(t, Options{LockDir: dir})
	put(t, s, session(1))
	locks, err := filepath.Glob(filepath.Join(dir, "*.lock"))
	if err != nil || len(locks) != 1 {
		t.Fatal(locks, err)
	}
	if err := os.Remove(locks[0]); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(locks[0], 0o700); err != nil {
		t.Fatal(err)
	}
	checkError(t, "Update", update(s), nil, "cannot be locked")
}

func TestNotASession(t *testing.T) {
	good, err := session(1).Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"empty":             "",
		"a password":        "SECRET",
		"cut off":           string(good[:50]),
		"a newer version":   strings.Replace(string(good), `"version":1`, `"version":2`, 1),
		"another object":    `{"refresh_token":"SECRET"}`,
		"before the year 0": strings.Replace(string(good), "2026-05-17T21:30:00Z", "0000-01-01T00:00:00+23:59", 1),
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			f.items["default"] = value
			s := f.open(t, Options{})
			refused(t, s, oauth.ErrSessionFormat, "call Store.Discard, and log in again")
			if f.items["default"] != value {
				t.Error("the item was changed")
			}
			if err := s.Discard(t.Context()); err != nil {
				t.Fatal(err)
			}
			put(t, s, session(2))
		})
	}
}

func TestSessionRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		next oauth.Session
		kind error
	}{
		"no provider": {oauth.Session{ClientID: "c", RefreshToken: secret, Generation: 2}, oauth.ErrSessionFormat},
		"a time that JSON does not have": {oauth.Session{
			Provider: "p", ClientID: "c", RefreshToken: secret, Generation: 2, Expiry: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC),
		}, nil},
		"too large": {oauth.Session{
			Provider: "p", ClientID: "c", RefreshToken: oauth.Secret(strings.Repeat("SECRET", 30_000)), Generation: 2,
		}, ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			s := newFake().open(t, Options{})
			put(t, s, session(1))
			err := s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) { return tc.next, nil })
			var e *Error
			if !errors.As(err, &e) || (tc.kind != nil && !errors.Is(err, tc.kind)) || strings.Contains(err.Error(), "SECRET") {
				t.Errorf("got %v, want an *Error that matches %v", err, tc.kind)
			}
			if got, err := s.Load(t.Context()); err != nil || got.Generation != 1 {
				t.Errorf("the old session is not intact: %v, %v", got, err)
			}
		})
	}
}

func TestUnchangedIsNotWritten(t *testing.T) {
	f := newFake()
	s := f.open(t, Options{})
	put(t, s, session(1))
	f.before = func(op, _ string) error {
		if op != "get" {
			t.Errorf("a %s for an unchanged session", op)
		}
		return nil
	}
	put(t, s, session(1))
}

func TestKinds(t *testing.T) {
	for name, tc := range map[string]struct {
		err    error
		kind   error
		remedy string
	}{
		"unsupported system": {keyring.ErrUnsupportedPlatform, ErrUnavailable, "filestore"},
		"too big":            {keyring.ErrSetDataTooBig, ErrTooLarge, "filestore"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			f.before = func(string, string) error { return tc.err }
			s := f.open(t, Options{})
			refused(t, s, tc.kind, tc.remedy)
			checkError(t, "Discard", s.Discard(t.Context()), tc.kind, tc.remedy)
			if _, err := s.Load(t.Context()); !errors.Is(err, tc.err) {
				t.Errorf("%v does not match its cause", err)
			}
		})
	}
}

func TestPanicInKeyring(t *testing.T) {
	f := newFake()
	f.before = func(string, string) error { panic("a nil signal") }
	s := f.open(t, Options{})
	refused(t, s, nil, "package keyring panicked: a nil signal")
	f.before = nil
	put(t, s, session(1))
}

// hanging makes the fake hang in calls of an operation, "" for all of them, until
// it is told to go on.
func hanging(f *fake, op string) (goOn func()) {
	gate := make(chan struct{})
	f.before = func(o, _ string) error {
		if o == op || op == "" {
			<-gate
		}
		return nil
	}
	return sync.OnceFunc(func() { close(gate) })
}

func TestTimeLimit(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		goOn := hanging(f, "")
		s := f.open(t, Options{LockDir: filepath.Join(dir, "locks"), Timeout: time.Minute})
		start := time.Now()
		refused(t, s, ErrTimeout, "nothing within 1m0s")
		checkError(t, "Discard", s.Discard(t.Context()), ErrTimeout, "Options.Timeout")
		if d := time.Since(start); d != 3*time.Minute {
			t.Errorf("three calls gave up after %v, want 3 minutes", d)
		}
		goOn()
		synctest.Wait()
		put(t, s, session(1))
	})
}

// A ctx that ends first is what the error is about.
func TestCtxEndsFirst(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		goOn := hanging(f, "get")
		s := f.open(t, Options{LockDir: filepath.Join(dir, "locks")})
		why := errors.New("shutting down")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, why)
		defer cancel()
		_, err := s.Load(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, why) || errors.Is(err, ErrTimeout) {
			t.Errorf("Load: got %v, want the end of ctx and its cause", err)
		}
		if _, err := s.Load(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Load with a ctx that ended: %v", err)
		}
		if err := s.Discard(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Discard with a ctx that ended: %v", err)
		}
		goOn()
	})
}

// However many give up, only so many calls hang.
func TestHangingCallsAreBounded(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		goOn := hanging(f, "get")
		s := f.open(t, Options{LockDir: filepath.Join(dir, "locks")})
		before := runtime.NumGoroutine()
		for range 100 {
			_, err := s.Load(t.Context())
			checkError(t, "Load", err, ErrTimeout, "")
		}
		if n := runtime.NumGoroutine() - before; n > cap(s.places) {
			t.Errorf("%d goroutines hang, want at most %d", n, cap(s.places))
		}
		goOn()
		synctest.Wait()
		if n := len(s.places); n != 0 {
			t.Errorf("%d places are still taken", n)
		}
		put(t, s, session(1))
	})
}

// A write that hangs keeps the lock, so that it cannot undo a later one.
func TestHangingWriteKeepsTheLock(t *testing.T) {
	for _, op := range []string{"set", "delete"} {
		t.Run(op, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				opts := Options{LockDir: filepath.Join(dir, "locks"), Timeout: time.Second}
				s, other := f.open(t, opts), f.open(t, opts)
				put(t, s, session(1))
				next := session(2)
				if op == "delete" {
					next = oauth.Session{}
				}
				goOn := hanging(f, op)
				err := s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) { return next, nil })
				checkError(t, "Update", err, ErrTimeout, "")

				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				err = other.Update(ctx, func(oauth.Session) (oauth.Session, error) {
					t.Error("Update called fn while a write hangs")
					return session(3), nil
				})
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("another Update: got %v, want the end of its ctx", err)
				}
				if _, err := other.Load(t.Context()); err != nil {
					t.Errorf("Load while a write hangs: %v", err)
				}

				result := make(chan error)
				var found oauth.Session
				go func() {
					result <- other.Update(t.Context(), func(current oauth.Session) (oauth.Session, error) {
						found = current
						return session(4), nil
					})
				}()
				time.Sleep(time.Second) // of the bubble's clock
				goOn()
				if err := <-result; err != nil {
					t.Fatal(err)
				}
				if found.Generation != next.Generation {
					t.Errorf("the next Update found generation %d, want %d", found.Generation, next.Generation)
				}
				if got, err := s.Load(t.Context()); err != nil || got.Generation != 4 {
					t.Errorf("in the end: generation %d, %v", got.Generation, err)
				}
			})
		})
	}
}
