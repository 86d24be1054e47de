// Package filelock excludes processes from one another with lock files, in
// directories that only their owner can enter.
package filelock

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/ycauth/ycauth-go/internal/durable"
	"github.com/ycauth/ycauth-go/internal/retry"
)

// A Lock is held by at most one caller at a time: of this value, of other values
// with the same path, and of other processes. The operating system releases it
// when its process dies.
//
// The lock is on a file of its own, which is created when it is missing and never
// removed: data files are replaced, and a lock that goes with the old file
// excludes nobody from the new one. While the lock is held, the file says by
// which process; see [Holder].
type Lock struct{ path string }

// New returns a Lock on a file, which is not touched yet.
func New(path string) *Lock { return &Lock{path} }

// Acquire waits for the lock until ctx ends; then the error is a [*WaitError],
// which matches ctx's error and its cause. Other errors are of type [*Error].
// release must be called once.
//
// Goroutines get it in the order of their calls. Between processes there is no
// order.
func (l *Lock) Acquire(ctx context.Context) (release func(), err error) {
	if ctx.Err() != nil {
		return nil, retry.Ended(ctx)
	}
	d, err := durable.OpenDir(filepath.Dir(l.path))
	if err != nil {
		return nil, l.failed(err)
	}
	defer d.Close()
	return l.AcquireIn(ctx, d)
}

// AcquireIn is Acquire in a directory that is open already: the lock's own.
func (l *Lock) AcquireIn(ctx context.Context, d *durable.Dir) (release func(), err error) {
	if ctx.Err() != nil {
		return nil, retry.Ended(ctx)
	}
	leave, err := lineUp(ctx, l.path)
	if err != nil {
		return nil, l.waited(d, err)
	}
	f, err := l.lockFile(ctx, d)
	if err != nil {
		leave()
		return nil, err
	}
	record(f)
	return func() {
		_ = f.Truncate(0)
		unlock(f)
		_ = f.Close()
		leave()
	}, nil
}

func (l *Lock) lockFile(ctx context.Context, d *durable.Dir) (*os.File, error) {
	start := time.Now()
	for {
		f, err := l.tryFile(d)
		if f != nil || err != nil {
			return f, err
		}
		timer := time.NewTimer(pause(time.Since(start)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, l.waited(d, retry.Ended(ctx))
		case <-timer.C:
		}
	}
}

// pause is how long to wait before the next look at a lock that is taken. The
// kernel can wake a waiter itself, but then nothing can end the wait with a ctx.
// So a wait lasts up to a sixteenth longer than necessary, at most 20 ms.
func pause(waited time.Duration) time.Duration {
	return min(max(waited/16, time.Millisecond), 20*time.Millisecond)
}

// tryFile returns nil if somebody else holds the lock.
func (l *Lock) tryFile(d *durable.Dir) (*os.File, error) {
	f, err := d.OpenFile(l.name(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, l.failed(err)
	}
	fi, err := f.Stat()
	named, errNamed := d.Lstat(l.name())
	if err == nil && !fi.Mode().IsRegular() || errNamed == nil && named.Mode()&fs.ModeSymlink != 0 {
		_ = f.Close()
		return nil, &Error{Path: l.path, Reason: "cannot be locked, because it is not a regular file: move it away", Err: errors.ErrUnsupported}
	}
	ok := false
	if err == nil {
		ok, err = tryLock(f)
	}
	switch {
	case errors.Is(err, syscall.EINTR): // network file systems can be interrupted
		err = nil
	case err != nil:
		err = l.failed(err)
	case ok && l.names(d, f):
		return f, nil
	}
	_ = f.Close()
	return nil, err
}

func (l *Lock) name() string { return filepath.Base(l.path) }

// names reports whether the name still leads to the locked file. Somebody may
// have removed it, and the next one locks another file.
func (l *Lock) names(d *durable.Dir, f *os.File) bool {
	locked, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := d.Lstat(l.name())
	return err == nil && os.SameFile(locked, named)
}

func (l *Lock) failed(err error) error {
	reason := "cannot be locked"
	switch {
	case errors.Is(err, syscall.EROFS):
		reason = "cannot be locked, because its " + readOnly
	case errors.Is(err, syscall.ENOLCK), errors.Is(err, errors.ErrUnsupported):
		reason = "cannot be locked, because its file system has no locks: use a directory on a local disk"
	}
	return &Error{Path: l.path, Reason: reason, Err: cause(err)}
}
