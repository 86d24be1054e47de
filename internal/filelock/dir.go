package filelock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/ycauth/ycauth-go/internal/durable"
)

// ErrInsecure is matched by errors about files and directories that others than
// their owner can access.
var ErrInsecure = errors.New("others can access it")

// An Error says what is wrong with a file or directory, and what helps.
type Error struct {
	Path   string
	Reason string
	Err    error // the cause; may be nil
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%q %s", e.Path, e.Reason)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// MakeDir creates a directory that only its owner can enter (0700) and the
// directories above it, where they are missing, and is [CheckDir] for one that
// exists.
func MakeDir(dir string) error {
	if err := CheckDir(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		reason := "cannot be created"
		if errors.Is(err, syscall.EROFS) {
			reason = "cannot be created, because the " + readOnly
		}
		return &Error{Path: dir, Reason: reason, Err: cause(err)}
	}
	return CheckDir(dir)
}

const readOnly = "file system is read-only: mount it for writing, or use a directory on another one"

// CheckDir reports why a directory is not this user's alone, as an [*Error].
// It matches [fs.ErrNotExist] if there is none.
//
// It looks at a name, which the owner of the directory above can give to another
// directory right after. [OpenDir] holds on to what it looked at.
func CheckDir(dir string) error {
	fi, err := os.Stat(dir)
	switch {
	case err != nil:
		return &Error{Path: dir, Reason: "cannot be used", Err: cause(err)}
	case !fi.IsDir():
		return &Error{Path: dir, Reason: "is not a directory"}
	}
	return CheckPrivate(dir, fi)
}

// OpenDir is CheckDir, and opens the directory that it checked.
func OpenDir(dir string) (*durable.Dir, error) {
	if err := CheckDir(dir); err != nil { // before it is opened: it may be a pipe
		return nil, err
	}
	d, err := durable.OpenDir(dir)
	if err != nil {
		return nil, &Error{Path: dir, Reason: "cannot be used", Err: cause(err)}
	}
	fi, err := d.Stat()
	if err != nil {
		err = &Error{Path: dir, Reason: "cannot be used", Err: cause(err)}
	} else {
		err = CheckPrivate(dir, fi)
	}
	if err != nil {
		_ = d.Close()
		return nil, err
	}
	return d, nil
}

// CheckPrivate returns an [*Error] that matches [ErrInsecure] if other users own or can
// access a file or directory. On Windows it cannot tell, and the access control list
// of the directory applies.
func CheckPrivate(path string, fi fs.FileInfo) error {
	if owner, me := ownerOf(fi), os.Geteuid(); owner != -1 && owner != me {
		return &Error{Path: path, Err: ErrInsecure, Reason: fmt.Sprintf(
			"belongs to user %d, and this program runs as user %d: run it as its owner, or use a directory of your own", owner, me)}
	}
	if exposed(fi) {
		mode := "600"
		if fi.IsDir() {
			mode = "700"
		}
		return &Error{Path: path, Err: ErrInsecure, Reason: fmt.Sprintf(
			"has mode %04o: run chmod %s, and log in again if another user may have read it", fi.Mode().Perm(), mode)}
	}
	return nil
}

// cause drops the path, which is in Error already.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
