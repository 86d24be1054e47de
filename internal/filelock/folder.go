package filelock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/ycauth/ycauth-go/internal/durable"
)

// ErrInsecure is matched by errors about files and folders that others than
// their owner can access.
var ErrInsecure = errors.New("others can access it")

// An Error says what is wrong with a file or folder, and what helps.
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

// MakeFolder makes a folder that only its owner can enter (0700) and the folders
// above it, where they are missing, and is [CheckFolder] for one that exists.
func MakeFolder(dir string) error {
	if err := CheckFolder(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return &Error{Path: dir, Reason: "cannot be made", Err: cause(err)}
	}
	return CheckFolder(dir)
}

// CheckFolder reports why a folder is not this user's alone, as an [*Error]. It
// matches [fs.ErrNotExist] if there is none.
func CheckFolder(dir string) error {
	fi, err := os.Stat(dir)
	switch {
	case err != nil:
		return &Error{Path: dir, Reason: "cannot be used", Err: cause(err)}
	case !fi.IsDir():
		return &Error{Path: dir, Reason: "is not a folder"}
	}
	return CheckPrivate(dir, fi)
}

// CheckPrivate reports why a file or folder is not this user's alone, as an
// [*Error] that matches [ErrInsecure]. On Windows it cannot tell, and the rules
// of the folder apply.
func CheckPrivate(path string, fi fs.FileInfo) error {
	if owner, me := ownerOf(fi), os.Geteuid(); owner != -1 && owner != me {
		return &Error{Path: path, Err: ErrInsecure, Reason: fmt.Sprintf(
			"belongs to user %d, and this program runs as user %d: run it as its owner, or use a folder of your own", owner, me)}
	}
	if exposed(fi) {
		mode := "600"
		if fi.IsDir() {
			mode = "700"
		}
		return &Error{Path: path, Err: ErrInsecure, Reason: fmt.Sprintf(
			"has mode %04o: run chmod %s, and log in again if somebody may have read it", fi.Mode().Perm(), mode)}
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
