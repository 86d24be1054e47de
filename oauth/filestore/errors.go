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
	// ErrProfileName is matched by the error of [New] about a profile's name.
	ErrProfileName = errors.New("filestore: not a name for a profile")

	// ErrInsecure is matched by errors about a directory or file that others than
	// the user of this process can access, or that belong to somebody else.
	ErrInsecure = filelock.ErrInsecure

	// ErrNotSynced is matched by errors of [Store.Update] and [Store.Discard] that
	// come after the change was made: Load has the new session, or none after a
	// removal, and so do other processes, but a failure of the power may bring the
	// old one back. Callers that take an error of an [oauth.Store] to mean that
	// nothing was stored are wrong about this one.
	ErrNotSynced = durable.ErrNotSynced
)

// An Error says what is wrong with a file or directory, and what helps. It never
// holds content of a file. What it matches besides [ErrProfileName],
// [ErrInsecure] and [ErrNotSynced]:
//
//   - [oauth.ErrSessionFormat]: the file is corrupt, cut off, of another
//     version, or something else altogether. It was not overwritten. It matches
//     [ErrSealed] or [ErrSealKey], too, if the session is sealed.
//   - errors of the operating system, such as [fs.ErrPermission].
type Error struct {
	Path   string // what it is about: a file, a directory, or the name of a profile
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
