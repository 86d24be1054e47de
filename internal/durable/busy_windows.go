package durable

import (
	"errors"
	"syscall"
	"time"
)

// errSharingViolation is ERROR_SHARING_VIOLATION ("System Error Codes",
// Microsoft).
const errSharingViolation = syscall.Errno(32)

// patiently repeats what fails because somebody else has the file open: a reader
// of ours for microseconds, a virus scanner for longer. It gives up after two
// seconds.
func patiently(step func() error) error {
	for wait := time.Millisecond; ; wait *= 2 {
		err := step()
		if wait > time.Second || !errors.Is(err, errSharingViolation) && !errors.Is(err, syscall.ERROR_ACCESS_DENIED) {
			return err
		}
		time.Sleep(wait)
	}
}
