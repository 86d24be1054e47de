//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package pivtest

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"
)

// lockFile waits for an exclusive lock on a file. The lock belongs to the open file: it ends when the last process that has
// the file open closes it or ends.
func lockFile(ctx context.Context, path string) (*os.File, error) {
	const poll = 50 * time.Millisecond
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			_ = f.Close()
			return nil, err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			_ = f.Close()
			return nil, ctx.Err()
		}
	}
}
