// Package filestore keeps sessions on disk, one file for each profile, in a
// folder that only its owner can read. Any number of processes can share them.
//
//	dir, err := filestore.DefaultDir("app") // ~/.config/app/sessions on Linux
//	…
//	store, err := filestore.New(dir, "default")
//	…
//	client, err := oauth.New(oauth.Config{Store: store, …})
//
// # Files
//
// The folder and those above it are made at the first Update that needs them,
// with mode 0700. For the profile "work" it has
//
//   - work.json, mode 0600: the session, as [oauth.Session.Encode] documents it.
//     It holds the refresh token in the clear.
//   - work.lock, empty: the lock. Do not remove it while programs run that use
//     the profile: they would no longer exclude each other.
//   - .work.json.tmp-N, for moments: the next session, until it has the name of
//     the last one. The next Update removes what a crash left of them.
//
// Windows has no such modes: there the access rules of the folder apply, and the
// default folder, below the user's profile, is the user's own.
//
// The folder must be on a file system that has locks, as local ones do. Back-ups
// of it are of little use: servers that rotate refresh tokens refuse an old one,
// and may end the session for its sake.
//
// # Processes
//
// An Update holds the lock of its profile from before it reads until after it
// has written. The operating system releases the lock of a process that dies. A
// wait for the lock ends with its ctx, and lasts at most 20 milliseconds longer
// than the lock is held. Processes get it in no particular order.
//
// A session is written to a file of its own, which is flushed to the disk and
// then takes the name of the old one. So Load needs no lock, and whatever dies,
// the process or the machine, there is the old session or the new one, whole.
//
// # Errors
//
// A folder or file that somebody else could read or change is refused, and a
// file that is no session of a version that this release knows is neither used
// nor overwritten: Load and Update return an [*Error] that says what helps.
// [Store.Discard] is the way out that loses the session.
package filestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ycauth/ycauth-go/internal/durable"
	"github.com/ycauth/ycauth-go/internal/filelock"
	"github.com/ycauth/ycauth-go/internal/retry"
	"github.com/ycauth/ycauth-go/oauth"
)

// A Store keeps the session of one profile in one folder. It is safe for
// concurrent use, and so are several of them with the same folder and profile.
type Store struct {
	dir  string // absolute
	path string // of the data file
	lock *filelock.Lock
}

var _ oauth.Store = (*Store)(nil)

// New returns the store of a profile. It makes no file, and does not need to
// find any.
//
// A profile has 1 to 64 characters out of a-z, 0-9 and . _ - @, and begins with
// none of . and -. Names of Windows devices, such as con, are refused
// everywhere, and so are upper case letters: on macOS and Windows, Work and work
// would be the same file. The error then matches [ErrProfileName]. If dir exists
// and cannot be used, the error is the one that Load would return. All errors
// are of type [*Error].
func New(dir, profile string) (*Store, error) {
	if reason := filelock.CheckName(profile); reason != "" {
		return nil, &Error{Path: profile, Reason: reason, Err: ErrProfileName}
	}
	if dir == "" {
		return nil, &Error{Path: dir, Reason: "is no folder: name one, for instance with DefaultDir"}
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, &Error{Path: dir, Reason: "cannot be made absolute", Err: err}
	}
	if err := checkFolder(abs); err != nil {
		return nil, err
	}
	return &Store{
		dir:  abs,
		path: filepath.Join(abs, profile+dataSuffix),
		lock: filelock.New(filepath.Join(abs, profile+lockSuffix)),
	}, nil
}

const (
	dataSuffix = ".json"
	lockSuffix = ".lock"
)

// Path returns the absolute path of the data file, which need not exist.
func (s *Store) Path() string { return s.path }

// Load implements [oauth.Store]. It reads the file anew at every call. Errors
// that match neither ctx's nor [oauth.ErrNoSession] are of type [*Error].
func (s *Store) Load(ctx context.Context) (oauth.Session, error) {
	if ctx.Err() != nil {
		return oauth.Session{}, retry.Ended(ctx)
	}
	if err := checkFolder(s.dir); err != nil {
		return oauth.Session{}, err
	}
	return s.read()
}

// Update implements [oauth.Store]. Errors that are neither fn's nor match ctx's
// are of type [*Error]. If fn was called, such an error means that the session
// could not be written; the old one is intact.
func (s *Store) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	release, err := s.acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	current, err := s.read()
	if err != nil && !errors.Is(err, oauth.ErrNoSession) {
		return err
	}
	next, err := fn(current)
	if err != nil {
		return err
	}
	// From here on ctx has no say: next may hold the only copy of a new refresh
	// token.
	return s.replace(current, next)
}

// Discard removes the session without reading it. It is the way out where the
// file holds no session, or others can read it; where there is no file it does
// nothing. It waits for Updates like one, and its errors are like those of
// Update.
func (s *Store) Discard(ctx context.Context) error {
	release, err := s.acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	return s.remove()
}

// acquire takes the lock, in a folder that it makes if it must.
func (s *Store) acquire(ctx context.Context) (release func(), err error) {
	if ctx.Err() != nil {
		return nil, retry.Ended(ctx)
	}
	if err := filelock.MakeFolder(s.dir); err != nil {
		return nil, wrap(err)
	}
	release, err = s.lock.Acquire(ctx)
	if err != nil {
		return nil, wrap(err)
	}
	s.sweep()
	return release, nil
}

// sweep removes what writers that died have left. The lock is held, so no writer
// is alive. It does what it can: a failure here must not stop a renewal.
func (s *Store) sweep() {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if durable.IsTemp(e.Name(), filepath.Base(s.path)) {
			_ = os.Remove(filepath.Join(s.dir, e.Name()))
		}
	}
}

// maxFile is larger than a session can get: an answer of an authorization server
// is at most 1 MiB. In bytes.
const maxFile = 16 << 20

// read reads the data file. The error matches oauth.ErrNoSession if there is
// none.
func (s *Store) read() (oauth.Session, error) {
	data, err := s.readFile()
	if err != nil {
		return oauth.Session{}, err
	}
	session, err := oauth.DecodeSession(data)
	if err != nil {
		return oauth.Session{}, &Error{Path: s.path, Reason: remedyFormat, Err: err}
	}
	if _, err := session.Encode(); err != nil { // a time in a year that has no encoding: nobody wrote this
		return oauth.Session{}, &Error{Path: s.path, Reason: remedyFormat, Err: fmt.Errorf("%w: %w", oauth.ErrSessionFormat, err)}
	}
	return session, nil
}

func (s *Store) readFile() ([]byte, error) {
	f, err := durable.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, oauth.ErrNoSession
	}
	if err != nil {
		return nil, failed(s.path, "cannot be opened", err)
	}
	defer f.Close()
	// The open file is looked at, not the name: the name could change hands.
	fi, err := f.Stat()
	if err != nil {
		return nil, failed(s.path, "cannot be looked at", err)
	}
	if !fi.Mode().IsRegular() {
		return nil, &Error{Path: s.path, Reason: "is not a regular file: move it away"}
	}
	if err := filelock.CheckPrivate(s.path, fi); err != nil {
		return nil, wrap(err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, failed(s.path, "cannot be read", err)
	}
	if len(data) > maxFile {
		return nil, &Error{Path: s.path, Reason: remedyFormat, Err: fmt.Errorf("%w: larger than 16 MiB", oauth.ErrSessionFormat)}
	}
	return data, nil
}

// replace makes next the stored session, on disk.
func (s *Store) replace(current, next oauth.Session) error {
	if next.IsZero() {
		return s.remove()
	}
	data, err := encode(next)
	if err != nil {
		return &Error{Path: s.path, Reason: "was left as it is, because the new session could not be read back", Err: err}
	}
	if !current.IsZero() {
		if old, err := current.Encode(); err == nil && bytes.Equal(old, data) {
			return nil
		}
	}
	if err := durable.Replace(s.path, data, 0o600); err != nil {
		return failed(s.path, "cannot be written", err)
	}
	return nil
}

// encode returns the content of the data file, after a look at whether read will
// accept it.
func encode(session oauth.Session) ([]byte, error) {
	data, err := session.Encode()
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, errors.New("it is larger than 16 MiB")
	}
	_, err = oauth.DecodeSession(data)
	return data, err
}

func (s *Store) remove() error {
	if err := durable.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return failed(s.path, "cannot be removed", err)
	}
	return nil
}

// checkFolder accepts a folder that does not exist.
func checkFolder(dir string) error {
	if err := filelock.CheckFolder(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return wrap(err)
	}
	return nil
}
