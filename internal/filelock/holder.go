package filelock

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/ycauth/ycauth-go/internal/durable"
)

// A Holder is the process that holds a lock.
type Holder struct {
	PID   int // 0 if it is not known
	Since time.Time
}

func (h Holder) String() string {
	since := h.Since.Local().Format("2006-01-02 15:04:05 MST")
	switch h.PID {
	case 0:
		return "an unknown process"
	case os.Getpid():
		return "this process, since " + since
	}
	return fmt.Sprintf("process %d, since %s", h.PID, since)
}

// A WaitError says whom a wait for a lock was for, when it ended in vain.
type WaitError struct {
	Path   string
	Holder Holder // as its lock file says
	Err    error  // that of the context
}

func (e *WaitError) Error() string {
	return fmt.Sprintf("%v while waiting for %q, which is locked by %v", e.Err, e.Path, e.Holder)
}

func (e *WaitError) Unwrap() error { return e.Err }

func (l *Lock) waited(d *durable.Dir, err error) error {
	return &WaitError{Path: l.path, Holder: l.holder(d), Err: err}
}

// holder reads who holds the lock. Nobody is kept from locking meanwhile, so it
// may be the one before, or nobody yet.
func (l *Lock) holder(d *durable.Dir) (h Holder) {
	f, err := d.Open(l.name())
	if err != nil {
		return Holder{}
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return Holder{}
	}
	var since int64
	if _, err := fmt.Fscanf(io.LimitReader(f, 100), "%d %d\n", &h.PID, &since); err != nil || h.PID <= 0 {
		return Holder{}
	}
	h.Since = time.Unix(since, 0)
	return h
}

// record writes who holds the lock. It is for people to read, so a failure must
// not stop what the lock is for.
func record(f *os.File) {
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt(fmt.Appendf(nil, "%d %d\n", os.Getpid(), time.Now().Unix()), 0)
	}
}
