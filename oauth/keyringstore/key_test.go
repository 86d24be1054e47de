package keyringstore

import (
	"context"
	"crypto/cipher"
	"encoding/json"
	"errors"
	"fmt"
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

	"github.com/ycauth/ycauth-go/oauth/filestore"
)

// checkError checks an error's type, kind and remedy.
func checkError(t *testing.T, err, kind error, remedy string) {
	t.Helper()
	var e *Error
	switch {
	case !errors.As(err, &e):
		t.Errorf("got %v, want an *Error", err)
	case kind == nil && e.Kind != nil:
		t.Errorf("%v has the kind %v, want none", err, e.Kind)
	case kind != nil && !errors.Is(err, kind):
		t.Errorf("%v does not match %v", err, kind)
	case !strings.Contains(err.Error(), remedy):
		t.Errorf("%v does not say %q", err, remedy)
	}
}

// sameKey checks that what one key seals the other one opens.
func sameKey(t *testing.T, a, b cipher.AEAD) {
	t.Helper()
	sealed := a.Seal(nil, make([]byte, a.NonceSize()), []byte("text"), []byte("data"))
	if len(sealed) != len("text")+a.Overhead() {
		t.Errorf("%d bytes, want %d", len(sealed), len("text")+a.Overhead())
	}
	if got, err := b.Open(nil, make([]byte, b.NonceSize()), sealed, []byte("data")); err != nil || string(got) != "text" {
		t.Errorf("the other key opens %q, %v", got, err)
	}
}

func mustKey(t *testing.T, v *vault) cipher.AEAD {
	t.Helper()
	key, err := v.key(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestKey(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	f := newFake()
	v := f.open(t, Options{})
	key := mustKey(t, v)
	sameKey(t, key, mustKey(t, f.open(t, Options{})))
	if item := f.items["app"]; len(item) != len("1:")+44 || f.sets != 1 {
		t.Errorf("the item has %d bytes and was written %d times", len(item), f.sets)
	}
	if runtime.GOOS != "windows" {
		if _, err := os.Stat(v.lockDir); err != nil {
			t.Errorf("no lock: %v", err)
		}
	}
	// A key that was lost is replaced by another one.
	delete(f.items, "app")
	other := mustKey(t, v)
	if _, err := other.Open(nil, nil, key.Seal(nil, nil, nil, nil), nil); err == nil {
		t.Error("the same key again")
	}
	text, err := json.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	type opaque struct{ k cipher.AEAD } // fmt does not ask a value in an unexported field
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%t"} {
		if out := fmt.Sprintf(verb, opaque{key}); strings.Contains(out, "gcm") || strings.Contains(out, "GCM") {
			t.Errorf("in an unexported field, %s prints %s", verb, out)
		}
	}
	for _, printed := range []string{string(text), fmt.Sprint(key), fmt.Sprintf("%+v %#v %s %q %x %d", key, key, key, key, key, key)} {
		if strings.Trim(strings.ReplaceAll(printed, "keyringstore.Key(REDACTED)", ""), "{} ") != "" {
			t.Errorf("it prints %s", printed)
		}
	}
}

// A lost key is an error of the store, which says that the session is lost.
func TestLostKey(t *testing.T) {
	f := newFake()
	dir := filepath.Join(t.TempDir(), "sessions")
	open := func() *filestore.Store {
		s, err := filestore.New(dir, "default", filestore.WithSeal(mustKey(t, f.open(t, Options{}))))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	put(t, open(), session(1))
	if got, err := open().Load(t.Context()); err != nil || got.Generation != 1 {
		t.Errorf("generation %d, %v", got.Generation, err)
	}
	delete(f.items, "app")
	s := open()
	_, err := s.Load(t.Context())
	if !errors.Is(err, filestore.ErrSealKey) || !strings.Contains(err.Error(), "call Store.Discard and log in again") {
		t.Errorf("got %v, want ErrSealKey", err)
	}
	if err := s.Discard(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, s, session(1))
}

// Of many that find no key one creates it.
func TestRace(t *testing.T) {
	f := newFake()
	dir := t.TempDir() + "/locks"
	keys := make([]cipher.AEAD, 20)
	var wg sync.WaitGroup
	for i := range keys {
		v := f.open(t, Options{LockDir: dir})
		wg.Go(func() {
			var err error
			if keys[i], err = v.key(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	for _, key := range keys {
		sameKey(t, keys[0], key)
	}
	if f.sets != 1 {
		t.Errorf("%d keys were created", f.sets)
	}
}

func TestNotAKey(t *testing.T) {
	f := newFake()
	v := f.open(t, Options{})
	mustKey(t, v)
	good := f.items["app"]
	for name, item := range map[string]string{
		"empty":           "",
		"no version":      good[2:],
		"a newer version": "2:" + good[2:],
		"too short":       "1:AAAA",
		"too long":        good[:len(good)-1] + "AAAA=",
		"not base64":      "1:" + strings.Repeat("!", 44),
		"a session":       `{"version":1}`,
	} {
		f.items["app"] = item
		_, err := v.key(t.Context())
		checkError(t, err, ErrKey, "and log in again")
		if f.items["app"] != item {
			t.Errorf("%s: it was overwritten", name)
		}
		if item != "" && strings.Contains(err.Error(), item) {
			t.Errorf("%s: the error has the item: %v", name, err)
		}
	}
}

func TestKeyringForgets(t *testing.T) {
	f := newFake()
	f.forgets = true
	_, err := f.open(t, Options{}).key(t.Context())
	checkError(t, err, ErrKey, "and log in again")
}

func TestUnfit(t *testing.T) {
	dir := t.TempDir()
	for _, service := range []string{"app", "com.example.App", "My App 2", "https://example.com/app", strings.Repeat("a", 128)} {
		if _, err := newVault(newFake(), service, Options{LockDir: dir}, nil); err != nil {
			t.Errorf("service %q: %v", service, err)
		}
	}
	for _, service := range []string{"", " app", "app ", "a\"b", "a'b", "a\\b", "a\nb", "a\x00", "äpp", "$(x)", strings.Repeat("a", 129)} {
		_, err := Key(t.Context(), service, Options{LockDir: dir})
		checkError(t, err, ErrName, "the service")
	}
	_, err := Key(t.Context(), "app", Options{LockDir: dir, Timeout: -1})
	checkError(t, err, nil, "Options.Timeout")
}

func TestLockDir(t *testing.T) {
	home := t.TempDir()
	for _, name := range []string{"HOME", "AppData", "XDG_CONFIG_HOME"} {
		t.Setenv(name, home)
	}
	v, err := newVault(newFake(), "app", Options{}, make(chan struct{}, 1))
	if err != nil {
		t.Fatal(err)
	}
	mustKey(t, v)
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
	_, err = Key(t.Context(), "app", Options{})
	checkError(t, err, nil, "set Options.LockDir")
}

func TestLockDirOfOthers(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // access control lists decide there, and they are not read
	}
	dir := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	f := newFake()
	_, err := f.open(t, Options{LockDir: dir}).key(t.Context())
	checkError(t, err, ErrInsecure, "run chmod 700")
	if f.sets != 0 {
		t.Error("a key was created without a lock")
	}
}

func TestKinds(t *testing.T) {
	for _, op := range []string{"get", "set"} {
		f := newFake()
		f.before = func(o string) error {
			if o == op {
				return keyring.ErrUnsupportedPlatform
			}
			return nil
		}
		_, err := f.open(t, Options{}).key(t.Context())
		checkError(t, err, ErrUnavailable, "without a seal")
		if !errors.Is(err, keyring.ErrUnsupportedPlatform) {
			t.Errorf("%v does not match its cause", err)
		}
	}
}

func TestPanicInKeyring(t *testing.T) {
	f := newFake()
	f.before = func(string) error { panic("a nil signal") }
	v := f.open(t, Options{})
	_, err := v.key(t.Context())
	checkError(t, err, nil, "package keyring panicked: a nil signal")
	f.before = nil
	mustKey(t, v)
}

// hanging makes the fake hang in calls of an operation until it is told to go on.
func hanging(f *fake, op string) (goOn func()) {
	gate := make(chan struct{})
	f.before = func(o string) error {
		if o == op {
			<-gate
		}
		return nil
	}
	return sync.OnceFunc(func() { close(gate) })
}

func TestTimeLimit(t *testing.T) {
	for _, op := range []string{"get", "set"} {
		t.Run(op, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				goOn := hanging(f, op)
				v := f.open(t, Options{LockDir: filepath.Join(dir, "locks"), Timeout: time.Minute})
				start := time.Now()
				_, err := v.key(t.Context())
				checkError(t, err, ErrTimeout, "nothing within 1m0s")
				if d := time.Since(start); d != time.Minute {
					t.Errorf("it gave up after %v, want a minute", d)
				}
				goOn()
				synctest.Wait()
				sameKey(t, mustKey(t, v), mustKey(t, v))
				if f.sets != 1 {
					t.Errorf("%d keys were created", f.sets)
				}
			})
		})
	}
}

// A ctx that ends first is what the error is about.
func TestCtxEndsFirst(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		goOn := hanging(f, "get")
		v := f.open(t, Options{LockDir: filepath.Join(dir, "locks")})
		why := errors.New("shutting down")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, why)
		defer cancel()
		for range 2 { // the second time it has ended before
			_, err := v.key(ctx)
			if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, why) || errors.Is(err, ErrTimeout) {
				t.Errorf("got %v, want the end of ctx and its cause", err)
			}
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
		v := f.open(t, Options{LockDir: filepath.Join(dir, "locks")})
		before := runtime.NumGoroutine()
		for range 100 {
			_, err := v.key(t.Context())
			checkError(t, err, ErrTimeout, "")
		}
		if n := runtime.NumGoroutine() - before; n > cap(v.places) {
			t.Errorf("%d goroutines hang, want at most %d", n, cap(v.places))
		}
		goOn()
		synctest.Wait()
		if n := len(v.places); n != 0 {
			t.Errorf("%d places are still taken", n)
		}
		mustKey(t, v)
	})
}

// A call that hangs while it creates the key keeps the lock, so that it cannot
// replace a later one.
func TestHangingWriteKeepsTheLock(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		opts := Options{LockDir: filepath.Join(dir, "locks"), Timeout: time.Second}
		goOn := hanging(f, "set")
		_, err := f.open(t, opts).key(t.Context())
		checkError(t, err, ErrTimeout, "")
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		_, err = f.open(t, opts).key(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "locked by this process") {
			t.Errorf("got %v, want the end of its ctx, and who has the lock", err)
		}
		goOn()
		synctest.Wait()
		mustKey(t, f.open(t, opts))
		if f.sets != 1 {
			t.Errorf("%d keys were created", f.sets)
		}
	})
}
