// Package filelock excludes processes from one another with lock files, in
// folders that only their owner can enter.
package filelock

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/gofrs/flock"

	"github.com/ycauth/ycauth-go/internal/retry"
)

// A Lock is held by at most one caller at a time: of this value, of other values
// with the same path, and of other processes. The operating system releases it
// when its process dies.
//
// The lock is on a file of its own, which is made when it is missing and never
// removed: data files are replaced, and a lock that goes with the old file
// excludes nobody from the new one.
type Lock struct{ path string }

// New returns a Lock on a file, which is not touched yet.
func New(path string) *Lock { return &Lock{path} }

// Acquire waits for the lock until ctx ends; then the error matches ctx's, and
// its cause. Other errors are of type [*Error]. release must be called once.
//
// Goroutines get it in the order of their calls. Between processes there is no
// order.
func (l *Lock) Acquire(ctx context.Context) (release func(), err error) {
	if ctx.Err() != nil {
		return nil, retry.Ended(ctx)
	}
	leave, err := lineUp(ctx, l.path)
	if err != nil {
		return nil, err
	}
	f, err := l.lockFile(ctx)
	if err != nil {
		leave()
		return nil, err
	}
	return func() {
		_ = f.Unlock() // closing the file unlocks it too, and so does the end of the process
		leave()
	}, nil
}

func (l *Lock) lockFile(ctx context.Context) (*flock.Flock, error) {
	start := time.Now()
	for {
		f, err := l.tryFile()
		if f != nil || err != nil {
			return f, err
		}
		timer := time.NewTimer(pause(time.Since(start)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, retry.Ended(ctx)
		case <-timer.C:
		}
	}
}

// pause is how long to wait before the next look at a lock that is taken. The
// kernel can wake a waiter itself, but then nothing can end the wait with a ctx.
// So a wait lasts up to a sixteenth longer than it had to, at most 20 ms.
func pause(waited time.Duration) time.Duration {
	return min(max(waited/16, time.Millisecond), 20*time.Millisecond)
}

// tryFile returns nil if somebody else holds the lock.
func (l *Lock) tryFile() (*flock.Flock, error) {
	f := flock.New(l.path, flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o600))
	ok, err := f.TryLock()
	switch {
	case errors.Is(err, syscall.EINTR): // network file systems can be interrupted
		return nil, nil
	case err != nil:
		return nil, l.failed(err)
	case !ok:
		return nil, nil
	case !l.names(f):
		return nil, f.Unlock()
	}
	return f, nil
}

// names reports whether the path still leads to the locked file. Somebody may
// have removed it, and the next one locks another file.
func (l *Lock) names(f *flock.Flock) bool {
	locked, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(l.path)
	return err == nil && os.SameFile(locked, named)
}

func (l *Lock) failed(err error) error {
	reason := "cannot be locked"
	if errors.Is(err, syscall.ENOLCK) || errors.Is(err, errors.ErrUnsupported) {
		reason = "cannot be locked, because its file system has no locks: use a folder on a local disk"
	}
	return &Error{Path: l.path, Reason: reason, Err: cause(err)}
}
