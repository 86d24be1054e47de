package durable

import (
	"errors"
	"os"
	"syscall"
)

const keepSize = 1 // FALLOC_FL_KEEP_SIZE, for which package syscall has no name

// allocate gives an empty file blocks for size bytes. The file stays empty. Where
// the file system cannot do that, allocate does nothing.
func allocate(f *os.File, size int64) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		for {
			failed = syscall.Fallocate(int(fd), keepSize, 0, size)
			if !errors.Is(failed, syscall.EINTR) {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	switch {
	case failed == nil:
		return nil
	case errors.Is(failed, syscall.ENOSPC), errors.Is(failed, syscall.EDQUOT), errors.Is(failed, syscall.EFBIG),
		errors.Is(failed, syscall.EIO):
		return os.NewSyscallError("fallocate", failed)
	}
	return nil // EOPNOTSUPP, or what a sandbox says instead
}
