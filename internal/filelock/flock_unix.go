//go:build darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd

package filelock

import (
	"errors"
	"os"
	"syscall"
)

// tryLock locks an open file, unless it is locked. Another open file of the same
// name is locked as well as one of another process: flock(2).
func tryLock(f *os.File) (ok bool, err error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return false, err
	}
	var errLock error
	err = conn.Control(func(fd uintptr) { errLock = syscall.Flock(int(fd), syscall.LOCK_EX|syscall.LOCK_NB) })
	if errors.Is(errLock, syscall.EWOULDBLOCK) {
		return false, err
	}
	return errLock == nil, errors.Join(errLock, err)
}

// unlock does nothing: closing the file unlocks it.
func unlock(*os.File) {}
