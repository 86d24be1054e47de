package filelock

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ycauth/ycauth-go/internal/durable"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestExcludes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	for name, locks := range map[string][]*Lock{
		"one value":   {New(path)},
		"two values":  {New(path), New(path)},
		"many values": {New(path), New(path), New(path), New(path), New(path)},
	} {
		t.Run(name, func(t *testing.T) {
			counter := 0 // the race detector watches it, too
			var wg sync.WaitGroup
			for i := range 50 {
				wg.Go(func() {
					release, err := locks[i%len(locks)].Acquire(t.Context())
					if err != nil {
						t.Error(err)
						return
					}
					counter++
					release()
				})
			}
			wg.Wait()
			if counter != 50 {
				t.Errorf("%d of 50 got the lock", counter)
			}
		})
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the lock file was removed: %v", err)
	}
	if len(queues.byPath) != 0 {
		t.Errorf("queues are left: %v", queues.byPath)
	}
}

// The paths differ, so the file alone excludes.
func TestExcludesByFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "lock")
	linked := filepath.Join(t.TempDir(), "linked")
	if err := os.Symlink(dir, linked); err != nil {
		t.Fatal(err)
	}
	release, err := New(path).Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other := New(filepath.Join(linked, "lock"))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := other.Acquire(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v while the file is locked", err)
	}
	release()
	release, err = other.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	release()
}

func TestWaitEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	holder := New(path)
	release, err := holder.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, waiter := range map[string]*Lock{"the same value": holder, "another value": New(path)} {
		t.Run(name, func(t *testing.T) {
			why := errors.New("shutting down")
			ctx, cancel := context.WithCancelCause(t.Context())
			result := make(chan error)
			go func() {
				_, err := waiter.Acquire(ctx)
				result <- err
			}()
			cancel(why)
			if err := <-result; !errors.Is(err, context.Canceled) || !errors.Is(err, why) {
				t.Errorf("the error %v does not match ctx's and its cause", err)
			}
			short, stop := context.WithTimeout(t.Context(), 5*time.Millisecond)
			defer stop()
			if _, err := waiter.Acquire(short); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the error %v does not match context.DeadlineExceeded", err)
			}
		})
	}
	release()
	release, err = New(path).Acquire(t.Context())
	if err != nil {
		t.Fatalf("after those who gave up: %v", err)
	}
	release()
}

// A lock file that was removed excludes nobody who comes later: whoever waited
// for it must not believe that it has the lock.
func TestRemovedWhileWaiting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	d, err := durable.OpenDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	stale, err := New(path).tryFile(d)
	if err != nil || stale == nil {
		t.Fatal(stale, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if New(path).names(d, stale) {
		t.Error("a removed file passes for the lock")
	}
	release, err := New(path).Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if New(path).names(d, stale) {
		t.Error("a file that has the lock's name no more passes for it")
	}
	if err := stale.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestCannotLock(t *testing.T) {
	dir := t.TempDir()
	for name, path := range map[string]string{
		"a directory has the name": dir,
		"no directory":             filepath.Join(dir, "missing", "lock"),
	} {
		t.Run(name, func(t *testing.T) {
			l := New(path)
			for range 2 { // the second shows that the queue is free again
				_, err := l.Acquire(t.Context())
				var e *Error
				if !errors.As(err, &e) || e.Path != path || e.Err == nil {
					t.Errorf("got %v, want an Error with path and cause", err)
				}
			}
		})
	}
}

func TestFileSystemWithoutLocks(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOLCK, syscall.ENOTSUP, syscall.ENOSYS} {
		err := New("/nfs/lock").failed(errno)
		if !errors.Is(err, errno) || !strings.Contains(err.Error(), "use a directory on a local disk") {
			t.Errorf("%v: %v does not say what helps", errno, err)
		}
	}
}

func TestPause(t *testing.T) {
	const ms = time.Millisecond
	var got []time.Duration
	for _, waited := range []time.Duration{0, 16 * ms, 80 * ms, 320 * ms, time.Hour} {
		got = append(got, pause(waited))
	}
	if want := []time.Duration{ms, ms, 5 * ms, 20 * ms, 20 * ms}; !slices.Equal(got, want) {
		t.Errorf("pauses of %v, want %v", got, want)
	}
}

// A file system that cannot be written to is no mystery.
func TestReadOnly(t *testing.T) {
	err := New("/somewhere/x.lock").failed(&os.PathError{Op: "openat", Path: "x.lock", Err: syscall.EROFS})
	if !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), "mount it for writing, or use a directory on another one") {
		t.Errorf("got %v", err)
	}
}
