// Package filestore keeps sessions on disk, one file for each profile, in a
// directory that only its owner can read. Any number of processes can share them.
//
//	store, prover, err := filestore.Open("app", "default") // in ~/.config/app on Linux
//	…
//	client, err := oauth.New(oauth.Config{Store: store, DPoP: prover, …})
//
// [Open] keeps the key next to the sessions. [New] is for a key from elsewhere, such as
// a YubiKey.
//
// # Files
//
// The first Update that needs the directory creates it and its parents,
// with mode 0700. For the profile "work" it contains
//
//   - work.json, mode 0600: the session, as [oauth.Session.Encode] documents it.
//     It contains the refresh token in plain text, unless the store was opened with
//     [WithSeal].
//   - work.lock: the lock. While it is held, the file says by which process. Do
//     not remove it while programs run that use the profile: they would no longer
//     exclude each other.
//   - work.next, during an Update: the next session, until it has the name of the
//     last one. A process that dies can leave it, with the only copy of a new
//     refresh token; the next Update takes it over, and where it cannot, leaves the file
//     as it is and returns an error. It does the same if a newer release wrote the file
//     in a form that this one does not know, or if it is sealed and the key at hand does
//     not open it, because the stored refresh token may be spent.
//     An empty one says that an Update did not come to its end, or could not store
//     its session, see
//     [Store.Interrupted].
//
// On Windows, which has no such modes, the access control lists of the directory apply.
// The default directory is below the user's profile, which is private to the user.
//
// The directory must be on a file system that supports locks, as local ones do.
// Backups of it are of little use, because servers that rotate refresh tokens reject an
// old one, and may end the session when they see it.
//
// # Processes
//
// An Update locks its profile from before it reads until after it
// has written. The operating system releases the lock of a process that dies. A
// wait for the lock ends with its ctx, and the error then names the process that
// holds the lock. The wait ends at most 20 milliseconds after the lock is
// released. Processes get it in no particular order.
//
// Before Update calls fn, it opens the file of the new session and reserves 8 KiB more
// than the last one needed, so that a full disk, a quota or a file size limit is
// an error before a refresh token is used. On Linux, on file systems that support
// fallocate(2), the space is allocated; elsewhere it is only
// checked, and network file systems may report an error later. When fn returns, the
// session is written to the file at once, which suffices to survive a crash of
// the process. Then the file is flushed to the disk and renamed to work.json.
// After a crash of the process or the machine, the stored session is the complete old or
// the complete new one.
//
// Load needs no lock. It reads only work.json, never work.next: data that is not
// flushed yet could be lost in a power failure, and only the holder of
// the lock can distinguish a leftover file from one that is being written.
//
// # A directory that is missing
//
// A directory that does not exist has no sessions, and the first Update creates it. That is
// the one of a login or an import: a token source that finds no directory calls no Update. But a
// Store that has used the directory, or found it in [New], takes its absence for an unmounted
// disk: Load and Update return an [*Error] that matches [fs.ErrNotExist] until the directory
// is back, and a token source keeps its session meanwhile. So running programs do not take
// the removal of the whole directory for a logout, as they do the removal of
// work.json. [Store.Discard] creates the directory again, without a session. If a disk is
// mounted for the sessions, use a directory on it, not its mount point: an unmounted disk
// leaves that behind, empty.
//
// # Directories of others
//
// Each call opens the directory, checks that it belongs to this user and that
// no other user can enter it, and accesses the files through the open directory. So
// the owner of a parent directory cannot redirect sessions to their own
// directory. They can still move the directory away, or replace it by another
// private directory of this user.
//
// # Errors
//
// A directory or file that others could read or change is not used, and a file
// that is not a session of a known version is neither used nor
// overwritten: Load and Update return an [*Error] that says what to do.
// To discard such a file and lose the session, call [Store.Discard].
package filestore

import (
	"bytes"
	"context"
	"crypto/cipher"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/ycauth/ycauth-go/internal/durable"
	"github.com/ycauth/ycauth-go/internal/filelock"
	"github.com/ycauth/ycauth-go/internal/retry"
	"github.com/ycauth/ycauth-go/oauth"
)

// A Store keeps the session of one profile in one directory. It is safe for
// concurrent use, and so are several of them with the same directory and profile.
type Store struct {
	dir     string // absolute
	profile string
	path    string // of the data file
	lock    *filelock.Lock
	key     func() cipher.AEAD // nil: sessions are stored in the clear; fmt follows pointers, not functions

	interrupted atomic.Pointer[time.Time] // for the fn of the Update that has the lock
	seen        atomic.Bool               // the directory was there
}

var _ oauth.Store = (*Store)(nil)

// New returns the store of a profile. New does not create or open any file.
//
// A profile name has 1 to 64 characters out of a-z, 0-9 and . _ - @, and does not
// begin with . or -. Names of Windows devices, such as con, are rejected on all systems,
// and so are upper case letters, because on macOS and Windows, Work and work
// would be the same file. The error then matches [ErrProfileName]. If dir exists
// but cannot be used, the error is the one that Load would return. All errors
// are of type [*Error].
func New(dir, profile string, opts ...Option) (*Store, error) {
	if reason := filelock.CheckName(profile); reason != "" {
		return nil, &Error{Path: profile, Reason: reason, Err: ErrProfileName}
	}
	if dir == "" {
		return nil, &Error{Path: dir, Reason: "is not a directory: pass one, for instance of DefaultDir"}
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, &Error{Path: dir, Reason: "cannot be made absolute", Err: err}
	}
	errDir := filelock.CheckDir(abs)
	if errDir != nil && !errors.Is(errDir, fs.ErrNotExist) {
		return nil, wrap(errDir)
	}
	s := &Store{
		dir:     abs,
		profile: profile,
		path:    filepath.Join(abs, profile+dataSuffix),
		lock:    filelock.New(filepath.Join(abs, profile+lockSuffix)),
	}
	s.seen.Store(errDir == nil)
	for _, opt := range opts {
		if err := opt(s); err != nil {
			return nil, &Error{Path: profile, Reason: "cannot be opened", Err: err}
		}
	}
	return s, nil
}

const (
	dataSuffix = ".json"
	nextSuffix = ".next"
	lockSuffix = ".lock"
)

// String returns the name of the type and the path of the data file.
func (s *Store) String() string {
	if s == nil {
		return "filestore.Store(none)"
	}
	return "filestore.Store(" + s.path + ")"
}

// Format implements [fmt.Formatter] for every verb with the text of String, as the key of
// [WithSeal] is among the fields.
func (s *Store) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue implements [slog.LogValuer] with the text of String.
func (s *Store) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Path returns the absolute path of the data file, which need not exist.
func (s *Store) Path() string { return s.path }

func (s *Store) nextPath() string { return filepath.Join(s.dir, s.profile+nextSuffix) }

// Load implements [oauth.Store]. It reads the file at every call. If a process was
// killed after it wrote a new session but before it renamed the file, Load does not
// return that session until the next Update has recovered it. If that was the first
// login, Load returns [oauth.ErrNoSession]. A directory that is missing, and was there
// before, is an error that matches [fs.ErrNotExist]. Errors
// that match neither ctx's nor [oauth.ErrNoSession] are of type [*Error].
func (s *Store) Load(ctx context.Context) (oauth.Session, error) {
	if ctx.Err() != nil {
		return oauth.Session{}, retry.Ended(ctx)
	}
	seen := s.seen.Load() // before: another call may create the directory right after
	dir, err := s.openDir()
	if !seen && errors.Is(err, fs.ErrNotExist) {
		return oauth.Session{}, noDirectoryError{}
	}
	if err != nil {
		return oauth.Session{}, err
	}
	defer dir.Close()
	session, _, err := s.read(dir)
	return session, err
}

// noDirectoryError is oauth.ErrNoSession where the directory was never there.
type noDirectoryError struct{}

func (noDirectoryError) Error() string { return oauth.ErrNoSession.Error() }
func (noDirectoryError) Unwrap() error { return oauth.ErrNoSession }

// NothingStored tells a token source that an Update would find no session, and would only
// create the directory.
func (noDirectoryError) NothingStored() bool { return true }

// openDir opens the directory. The error matches fs.ErrNotExist if it is missing.
func (s *Store) openDir() (*durable.Dir, error) {
	dir, err := filelock.OpenDir(s.dir)
	switch {
	case err == nil:
		s.seen.Store(true)
		return dir, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, failed(s.dir, "is missing, and was there before: mount its file system, or move the directory back; "+
			"if it was removed on purpose, call Store.Discard, or restart the program", fs.ErrNotExist)
	}
	return nil, wrap(err)
}

// maxFile is larger than any session, because a response of an authorization server
// is at most 1 MiB. In bytes.
const maxFile = 16 << 20

// read reads the data file, and reports whether it is in the clear. The error
// matches oauth.ErrNoSession if there is none.
func (s *Store) read(dir *durable.Dir) (session oauth.Session, plain bool, err error) {
	data, err := s.readFile(dir)
	if err != nil {
		return oauth.Session{}, false, err
	}
	session, plain, err = s.decode(data)
	if err != nil {
		return oauth.Session{}, false, s.unreadable(s.path, err)
	}
	return session, plain, nil
}

// decode reads the content of a data file.
func (s *Store) decode(data []byte) (session oauth.Session, plain bool, err error) {
	switch {
	case len(data) > maxFile:
		return oauth.Session{}, false, fmt.Errorf("%w: larger than 16 MiB", oauth.ErrSessionFormat)
	case isSealed(data):
		session, err = s.unseal(data)
		return session, false, err
	}
	session, err = decodePlain(data)
	return session, true, err
}

// newerRelease reports whether data is a whole file of a version that this release
// does not know. What was cut off may be of any version, and is of no use to any.
func newerRelease(data []byte) bool {
	var plain struct {
		Version int64 `json:"version"`
	}
	if isSealed(data) {
		line, _, found := bytes.Cut(data, []byte("\n"))
		_, err := fmt.Sscanf(string(line), sealedPrefix+", version %d", &plain.Version)
		return found && err == nil && plain.Version > knownVersion
	}
	return len(data) <= maxFile && json.Unmarshal(data, &plain) == nil && plain.Version > knownVersion
}

// knownVersion is that of both forms, sealed and in the clear.
const knownVersion = 1

func decodePlain(data []byte) (oauth.Session, error) {
	session, err := oauth.DecodeSession(data)
	if err != nil {
		return oauth.Session{}, err
	}
	if _, err := session.Encode(); err != nil { // a time in a year that has no encoding: nobody wrote this
		return oauth.Session{}, err
	}
	return session, nil
}

func (s *Store) readFile(dir *durable.Dir) ([]byte, error) {
	f, err := dir.Open(s.profile + dataSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, oauth.ErrNoSession
	}
	if err != nil {
		if fi, errNamed := dir.Lstat(s.profile + dataSuffix); errNamed == nil && fi.Mode()&fs.ModeSymlink != 0 {
			return nil, failed(s.path, "is a symbolic link that does not lead to a file of its directory: move it away", err)
		}
		return nil, failed(s.path, "cannot be opened", err)
	}
	defer f.Close()
	// The open file is looked at, not the name: the name could change hands.
	fi, err := f.Stat()
	if err != nil {
		return nil, failed(s.path, "cannot be checked", err)
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
	return data, nil
}

// checkDir accepts a directory that does not exist.
func checkDir(dir string) error {
	if err := filelock.CheckDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return wrap(err)
	}
	return nil
}
