package filestore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/ycauth/ycauth-go/internal/durable"
	"github.com/ycauth/ycauth-go/internal/filelock"
)

var (
	// ErrProfileName means that a profile's name is not valid.
	ErrProfileName = errors.New("filestore: not a valid profile name")

	// ErrInsecure means that users other than that of this process own or can access
	// a directory or file.
	ErrInsecure = filelock.ErrInsecure

	// ErrNotSynced means that [Store.Update] or [Store.Discard] has made the change,
	// but it may not be durable. Load returns the new session, or none after a
	// removal, in other processes too, but a power failure may restore the
	// old one. So this error of an [oauth.Store] does not mean that
	// nothing was stored.
	ErrNotSynced = durable.ErrNotSynced
)

// An Error says what is wrong with a file or directory, and what to do. It never
// contains file content. Besides [ErrProfileName],
// [ErrInsecure] and [ErrNotSynced], it can match
//
//   - [oauth.ErrSessionFormat]: the file is corrupt, truncated, of another
//     version, or not a session at all. It was not overwritten. The error also matches
//     [ErrSealed] or [ErrSealKey] if the session is sealed.
//   - errors of the operating system, such as [fs.ErrPermission].
type Error struct {
	Path   string // a file, a directory, or the name of a profile
	Reason string // what is wrong with it, and what to do
	Err    error  // the cause; may be nil
}

func (e *Error) Error() string {
	s := fmt.Sprintf("filestore: %q %s", e.Path, e.Reason)
	if e.Err != nil && !errors.Is(e.Err, ErrProfileName) && !errors.Is(e.Err, ErrInsecure) {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

const remedyFormat = "was not used and not overwritten: if a newer release wrote it, update this program; " +
	"otherwise move the file away, or call Store.Discard, and log in again"

// wrap gives errors of package filelock this package's type.
func wrap(err error) error {
	var e *filelock.Error
	if errors.As(err, &e) {
		return &Error{Path: e.Path, Reason: e.Reason, Err: e.Err}
	}
	return err
}

// failed is for errors of the operating system.
func failed(path, reason string, err error) error {
	var pe *fs.PathError
	var le *os.LinkError
	switch { // their paths are in Error already, or of a temporary file
	case errors.As(err, &pe):
		err = pe.Err
	case errors.As(err, &le):
		err = le.Err
	}
	return &Error{Path: path, Reason: reason, Err: err}
}
