package filelock

import (
	"errors"
	"os"
	"syscall"
	"unsafe"
)

var (
	kernel32     = syscall.NewLazyDLL("kernel32.dll")
	lockFileEx   = kernel32.NewProc("LockFileEx")
	unlockFileEx = kernel32.NewProc("UnlockFileEx")
)

// "System Error Codes", and LockFileEx, Microsoft.
const (
	errLockViolation        = syscall.Errno(33)
	lockfileFailImmediately = 1
	lockfileExclusiveLock   = 2
)

// lockedByte is far behind what is in the file: "Locking a region that goes
// beyond the current end-of-file position is not an error", and nobody else can
// read bytes that are locked.
func lockedByte() *syscall.Overlapped { return &syscall.Overlapped{OffsetHigh: 0x4000_0000} }

// tryLock locks an open file, unless it is locked.
func tryLock(f *os.File) (ok bool, err error) {
	r, _, err := lockFileEx.Call(f.Fd(), lockfileExclusiveLock|lockfileFailImmediately, 0, 1, 0, uintptr(unsafe.Pointer(lockedByte())))
	if r != 0 {
		return true, nil
	}
	if errors.Is(err, errLockViolation) || errors.Is(err, syscall.ERROR_IO_PENDING) {
		return false, nil
	}
	return false, err
}

// unlock does what closing the file does too, but some time later.
func unlock(f *os.File) {
	_, _, _ = unlockFileEx.Call(f.Fd(), 0, 1, 0, uintptr(unsafe.Pointer(lockedByte())))
}
