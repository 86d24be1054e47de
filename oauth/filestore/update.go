package filestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ycauth/ycauth-go/internal/durable"
	"github.com/ycauth/ycauth-go/internal/filelock"
	"github.com/ycauth/ycauth-go/internal/retry"
	"github.com/ycauth/ycauth-go/oauth"
)

// Update implements [oauth.Store]. Errors that are neither fn's nor match ctx's
// are of type [*Error]. If fn was called, such an error says which session is
// stored: the old one; the old one, with the new one next to it for
// the next Update to recover; none, if the directory was removed meanwhile; or, if the error
// matches [ErrNotSynced], the new one, which only a power failure can undo.
//
// A session that fn returns survives a crash of the process as soon as it is
// written, before it is flushed to the disk: the next Update, of this process or
// another, completes the interrupted one and passes the new session to its fn.
//
// A session that replaces another one must have a higher Generation, as those of package
// oauth have: by that the next Update tells a new session from an old one.
//
// Update does not call fn if there is no room for the next session, 8 KiB more than the
// last one. This also applies to an Update that would remove the session; Discard
// needs no room.
func (s *Store) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	u, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer u.end()
	if err := u.prepare(); err != nil {
		return err
	}
	old, _ := u.current.Encode() // now, because nothing should delay what follows fn
	if err := u.reserve(len(old) + headroom); err != nil {
		return err
	}
	// If fn panics or the process dies, the empty file stays and records that.
	next, err := fn(u.current)
	if err != nil {
		u.withdraw(errors.Is(err, oauth.ErrOutcomeUnknown))
		return err
	}
	// From here on ctx is ignored, because next may hold the only copy of a new refresh
	// token.
	return u.finish(old, next)
}

// Interrupted is for the fn of an Update. It reports that an earlier Update began and
// did not come to its end, because its process died, most likely in fn: if that fn
// made a token request, its outcome is unknown, and the stored refresh token may
// be spent. The same holds after an fn that returned [oauth.ErrOutcomeUnknown], and
// after one whose new session could not be stored.
// since is when that Update began. It is reported until the session changes.
func (s *Store) Interrupted() (since time.Time, ok bool) {
	if at := s.interrupted.Load(); at != nil {
		return *at, true
	}
	return time.Time{}, false
}

// An update is an Update in progress, which has the lock.
type update struct {
	s       *Store
	dir     *durable.Dir
	release func()

	current oauth.Session
	plain   bool // current is stored in the clear
	pending *durable.Pending
	begun   time.Time
	since   *time.Time // of an interrupted Update; nil if there was none
}

// begin takes the lock, in a directory that it creates if it was never there.
func (s *Store) begin(ctx context.Context) (*update, error) {
	if ctx.Err() != nil {
		return nil, retry.Ended(ctx)
	}
	if !s.seen.Load() {
		if err := filelock.MakeDir(s.dir); err != nil {
			return nil, wrap(err)
		}
	}
	dir, err := s.openDir()
	if err != nil {
		return nil, err
	}
	if err := s.apart(dir, lockSuffix); err != nil {
		_ = dir.Close()
		return nil, err
	}
	release, err := s.lock.AcquireIn(ctx, dir)
	if err != nil {
		_ = dir.Close()
		return nil, wrap(err)
	}
	return &update{s: s, dir: dir, release: release, begun: time.Now()}, nil
}

// apart reports that one of the other files is the data file under another name. Writing
// to it would destroy the session.
func (s *Store) apart(dir *durable.Dir, suffix string) error {
	other, err := dir.Lstat(s.profile + suffix)
	data, errData := dir.Lstat(s.profile + dataSuffix)
	if err == nil && errData == nil && os.SameFile(other, data) {
		return &Error{Path: filepath.Join(s.dir, s.profile+suffix), Reason: "is a second name of the session file: remove that name"}
	}
	return nil
}

func (u *update) end() {
	u.s.interrupted.Store(nil)
	if u.pending != nil {
		_ = u.pending.Close() // where fn panicked
	}
	u.release()
	_ = u.dir.Close()
}

// prepare reads the session, or recovers a newer one, and opens the file of the
// next one.
func (u *update) prepare() (err error) {
	u.current, u.plain, err = u.s.read(u.dir)
	if err != nil && !errors.Is(err, oauth.ErrNoSession) {
		return err
	}
	if u.pending, err = u.open(); err != nil {
		return err
	}
	left, since, err := u.left()
	if err != nil {
		_ = u.pending.Close()
		return err
	}
	switch newer, plain, err := u.s.decode(left); {
	case err == nil && newer.Generation > u.current.Generation:
		// Generations only grow, under this lock, so this is what the last holder
		// of it wrote and did not live to rename.
		if err := u.recover(left); err != nil {
			return err
		}
		u.current, u.plain = newer, plain
		u.pending, err = u.open()
		return err
	case errors.Is(err, ErrSealed), errors.Is(err, ErrSealKey), err != nil && newerRelease(left):
		_ = u.pending.Close()
		return u.s.unreadable(u.s.nextPath(), err)
	case err != nil && !u.pending.Created:
		u.since = &since
		u.s.interrupted.Store(u.since)
	}
	// A part, zeros, or what is older than the session: of no use.
	if err := u.empty(left); err != nil {
		_ = u.pending.Close()
		return failed(u.s.nextPath(), "cannot be emptied", err)
	}
	return nil
}

// recover makes left, which is the whole pending file, the content of the data file.
// The only copy of a refresh token may be in it, so nothing removes or shortens it.
func (u *update) recover(left []byte) error {
	err := u.pending.Rewrite(left)
	if err != nil {
		_ = u.pending.Close()
	} else {
		err = u.pending.Commit()
	}
	switch {
	case errors.Is(err, durable.ErrNotSynced):
		return failed(u.s.path, mayNotKeep, err)
	case err != nil:
		return failed(u.s.path, "still has the old session; the new one, of an interrupted Update, is next to it: "+
			"the next Update tries again to store it", err)
	}
	return nil
}

const mayNotKeep = "has the new session, but may lose it in a power failure"

func (u *update) open() (*durable.Pending, error) {
	p, err := u.dir.Prepare(u.s.profile+nextSuffix, u.s.profile+dataSuffix, 0o600)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, failed(u.s.nextPath(), "cannot be opened or created: the user of this program must own it, and must be able to write to its directory", err)
	case err != nil:
		return nil, failed(u.s.nextPath(), "cannot be opened: move it away if it is not a file", err)
	}
	return p, nil
}

// left returns what another Update left in the pending file, and when it called
// its fn. Neither says anything if the file was created just now.
func (u *update) left() (data []byte, since time.Time, err error) {
	fi, err := u.pending.Stat()
	named, errNamed := u.dir.Lstat(u.s.profile + nextSuffix)
	switch err := errors.Join(err, errNamed); {
	case err != nil:
		return nil, since, failed(u.s.nextPath(), "cannot be checked", err)
	case !fi.Mode().IsRegular(), !named.Mode().IsRegular():
		return nil, since, &Error{Path: u.s.nextPath(), Reason: "is not a regular file: move it away"}
	}
	if err := u.s.apart(u.dir, nextSuffix); err != nil {
		return nil, since, err
	}
	if err := filelock.CheckPrivate(u.s.nextPath(), fi); err != nil {
		return nil, since, wrap(err)
	}
	data, err = u.pending.Left(maxFile + 1)
	if err != nil {
		return nil, since, failed(u.s.nextPath(), "cannot be read", err)
	}
	return data, fi.ModTime(), nil
}

// empty makes the pending file that of this Update.
func (u *update) empty(left []byte) error {
	if len(left) > 0 {
		if err := u.pending.Truncate(); err != nil {
			return err
		}
	}
	if !u.pending.Created {
		return u.pending.Touch(u.begun)
	}
	return nil
}

// headroom is how much longer than the last session the next one can be without a
// surprise, in bytes: tokens have some KiB at most.
const headroom = 8 << 10

// reserve looks for the room of the next session before fn is called: if fn spends
// a refresh token, it is too late.
func (u *update) reserve(size int) error {
	if err := u.pending.Reserve(size); err != nil {
		u.withdraw(false)
		return failed(u.s.nextPath(), "has no room for the next session, so the Update was not started: "+
			"free some disk space, or raise the limit", err)
	}
	return nil
}

// withdraw ends an Update that changes nothing. doubt says that the outcome of
// its fn is unknown, or that no file has the session that fn returned: the stored
// refresh token may be spent, and the pending file stays to tell the others.
func (u *update) withdraw(doubt bool) {
	switch {
	case doubt:
		_ = u.pending.Close()
		_ = u.pending.Touch(u.begun)
	case u.since != nil:
		_ = u.pending.Close() // first: Windows may set the time of a write at the end only
		_ = u.pending.Touch(*u.since)
	default:
		_ = u.pending.Discard()
	}
}

// finish makes next the stored session.
func (u *update) finish(old []byte, next oauth.Session) error {
	if next.IsZero() {
		err := u.remove()
		if err != nil && !errors.Is(err, durable.ErrNotSynced) {
			u.withdraw(false) // the session stays, and so does what is known of an earlier Update
			return err
		}
		_ = u.pending.Discard() // it is empty: of no use, and no harm
		return err
	}
	plain, err := next.Encode()
	if err != nil {
		u.withdraw(true)
		return u.rejected(err)
	}
	unsealed := u.s.key != nil && u.plain
	if bytes.Equal(old, plain) && !u.current.IsZero() && !unsealed {
		u.withdraw(false)
		// An Update before may have failed to, or its process died before it could.
		if err := u.dir.Sync(); err != nil {
			return failed(u.s.path, mayNotKeep, err)
		}
		return nil
	}
	data := plain
	if u.s.key != nil {
		if data, err = u.s.seal(next.Generation, plain); err != nil {
			u.withdraw(true)
			return u.rejected(err)
		}
	}
	return u.commit(data)
}

// commit makes data the content of the data file. Data that could not be read
// back does not get that far.
func (u *update) commit(data []byte) error {
	if len(data) > maxFile {
		u.withdraw(true)
		return u.rejected(errors.New("it is larger than 16 MiB"))
	}
	written := u.pending.Write(data)
	// Only now: until it is written, the new session is in this process alone.
	if _, _, err := u.s.decode(data); err != nil {
		u.empties()
		return u.rejected(err)
	}
	if written != nil {
		return u.unwritten(data, written)
	}
	err := u.pending.Commit()
	switch {
	case errors.Is(err, durable.ErrNotSynced):
		return failed(u.s.path, mayNotKeep, err)
	case err != nil:
		if _, lost := u.dir.Lstat(u.s.profile + nextSuffix); lost != nil {
			return failed(u.s.path, "does not have the new session, which is lost, "+
				"because the directory, or the file in it, was removed meanwhile", err)
		}
		return failed(u.s.path, waits, err)
	}
	return nil
}

const waits = "still has the old session; the new one is next to it for the next Update"

// unwritten ends an Update that could not write data. Whatever the file system said, all
// of it may be in the file.
func (u *update) unwritten(data []byte, err error) error {
	if left, errLeft := u.pending.Left(maxFile + 1); errLeft == nil && bytes.Equal(left, data) {
		_ = u.pending.Close()
		return failed(u.s.path, waits, err)
	}
	u.empties()
	return failed(u.s.path, "still has the old session, because the new one could not be written", err)
}

// empties withdraws an Update whose pending file has something of no use in it. If it
// cannot be emptied, a part in it says the same as nothing in it.
func (u *update) empties() {
	_ = u.pending.Truncate()
	u.withdraw(true)
}

func (u *update) rejected(err error) error {
	return &Error{Path: u.s.path, Reason: "still has the old session, because the new one could not be read back", Err: err}
}

// remove removes the data file.
func (u *update) remove() error {
	err := u.dir.Remove(u.s.profile + dataSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		err = u.dir.Sync() // the removal before may not be durable
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, durable.ErrNotSynced):
		return failed(u.s.path, "was removed, but may reappear after a power failure", err)
	}
	return failed(u.s.path, "cannot be removed", err)
}

// Discard removes the session without reading it, for instance because the
// file is not a session, or others can read it. If there is no file, it does
// nothing; a directory that is missing is created. It waits for the lock like Update, and
// its errors are like those of Update.
func (s *Store) Discard(ctx context.Context) error {
	if _, err := os.Stat(s.dir); errors.Is(err, fs.ErrNotExist) {
		s.seen.Store(false) // whoever discards the session does not wait for the disk
	}
	u, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer u.end()
	// First what could otherwise be recovered.
	if err := u.dir.Remove(s.profile + nextSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return failed(s.nextPath(), "cannot be removed", err)
	}
	return u.remove()
}

// unreadable is the error about a file that is no session.
func (s *Store) unreadable(path string, err error) error {
	remedy := remedyFormat
	switch {
	case errors.Is(err, ErrSealed):
		remedy = "was not used and not overwritten: open the store with its key, or call Store.Discard and log in again"
	case errors.Is(err, ErrSealKey):
		remedy = "was not used and not overwritten: restore the key that it was sealed with; if the key is lost, " +
			"call Store.Discard and log in again"
	}
	if !errors.Is(err, oauth.ErrSessionFormat) {
		err = fmt.Errorf("%w: %w", oauth.ErrSessionFormat, err)
	}
	return &Error{Path: path, Reason: remedy, Err: err}
}
