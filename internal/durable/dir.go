package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// A Dir is an open directory. Its methods reach the directory that was opened,
// even if another one has taken its name since, and never a file outside of it.
type Dir struct{ root *os.Root }

// OpenDir opens a directory.
func OpenDir(path string) (*Dir, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return &Dir{root}, nil
}

// Close closes the directory.
func (d *Dir) Close() error { return d.root.Close() }

// Stat describes the directory.
func (d *Dir) Stat() (fs.FileInfo, error) { return d.root.Stat(".") }

// Lstat describes a file, or the symbolic link that has its name.
func (d *Dir) Lstat(name string) (fs.FileInfo, error) { return d.root.Lstat(name) }

// Open opens a file for reading, which may be replaced at this moment. It does
// not wait for the other end of a pipe.
func (d *Dir) Open(name string) (*os.File, error) { return d.OpenFile(name, os.O_RDONLY, 0) }

// OpenFile is [os.Root.OpenFile], without waiting for the other end of a pipe.
// What is written to the file is not watched by a [Hook].
func (d *Dir) OpenFile(name string, flag int, perm fs.FileMode) (f *os.File, err error) {
	err = patiently(func() error { f, err = d.root.OpenFile(name, flag|nonblock, perm); return err })
	return f, err
}

func (d *Dir) openFile(name string, flag int, perm fs.FileMode) (f *os.File, err error) {
	err = do(Op{Kind: OpenFile, Path: d.path(name)}, func() error { f, err = d.OpenFile(name, flag, perm); return err })
	return f, err
}

// Remove removes a file for good. Where there is none, the error matches
// [fs.ErrNotExist].
func (d *Dir) Remove(name string) error {
	if err := d.unlink(name); err != nil {
		return err
	}
	return d.sync()
}

// Sync makes the names in the directory durable, in case that failed before. Its errors
// match [ErrNotSynced].
func (d *Dir) Sync() error { return d.sync() }

func (d *Dir) path(name string) string { return filepath.Join(d.root.Name(), name) }

func (d *Dir) unlink(name string) error {
	return do(Op{Kind: Unlink, Path: d.path(name)}, func() error {
		return patiently(func() error { return d.root.Remove(name) })
	})
}

func (d *Dir) rename(from, to string) error {
	return do(Op{Kind: Rename, Path: d.path(from), To: d.path(to)}, func() error {
		return patiently(func() error { return d.root.Rename(from, to) })
	})
}

// ErrNotSynced is matched by errors that come after the change was made: a
// failure of the power may undo it.
var ErrNotSynced = errors.New("the change was made, but a power failure may undo it")

// sync makes the names in the directory as durable as the files. Its errors match
// ErrNotSynced.
func (d *Dir) sync() error {
	err := do(Op{Kind: SyncDir, Path: d.root.Name()}, func() error {
		self, err := d.root.Open(".")
		if err != nil {
			return err
		}
		return errors.Join(syncNames(self), self.Close())
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotSynced, err)
	}
	return nil
}

// write writes all of the content of f, which is no longer than data.
func (d *Dir) write(f *os.File, name string, data []byte) error {
	return do(Op{Kind: Write, Path: d.path(name), Data: data}, func() error {
		_, err := f.WriteAt(data, 0)
		return err
	})
}

func (d *Dir) syncFile(f *os.File, name string) error {
	return do(Op{Kind: SyncFile, Path: d.path(name)}, f.Sync)
}

// writeSync writes, syncs and closes.
func (d *Dir) writeSync(f *os.File, name string, data []byte) error {
	err := d.write(f, name, data)
	if err == nil {
		err = d.syncFile(f, name)
	}
	return errors.Join(err, f.Close())
}

// A Pending is the next content of a file. It is open before the content is
// known, so that nothing but one write lies between knowing the content and
// surviving the death of the process.
//
// Whoever dies after that write leaves a whole file. The next one finds it with
// Left and decides what it is worth. Only one process at a time may have a
// Pending of a name: a lock is needed.
type Pending struct {
	Created bool // by Prepare: nobody left the file

	dir        *Dir
	file       *os.File
	next, name string
}

// Prepare opens the file next, which Commit will rename to name, and creates it
// if it is missing.
func (d *Dir) Prepare(next, name string, perm fs.FileMode) (*Pending, error) {
	f, err := d.openFile(next, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
	created := err == nil
	if errors.Is(err, fs.ErrExist) {
		f, err = d.openFile(next, os.O_RDWR, 0)
	}
	if err != nil {
		return nil, err
	}
	return &Pending{Created: created, dir: d, file: f, next: next, name: name}, nil
}

// Stat describes the pending file.
func (p *Pending) Stat() (fs.FileInfo, error) { return p.file.Stat() }

// Left returns what somebody else left in the pending file, at most limit bytes.
func (p *Pending) Left(limit int64) ([]byte, error) {
	return io.ReadAll(io.NewSectionReader(p.file, 0, limit))
}

// Truncate empties the pending file.
func (p *Pending) Truncate() error {
	return do(Op{Kind: Truncate, Path: p.dir.path(p.next)}, func() error { return p.file.Truncate(0) })
}

// Reserve makes sure that a content of size bytes can be written later, as far as
// the system can tell: a full disk, a quota or a limit of the process is an error
// now. The pending file must be empty, and is empty afterwards unless it cannot be
// truncated. Whoever dies in between leaves zeros, which are no content.
//
// On Linux, on file systems that know fallocate(2), nobody else can take the
// room. Elsewhere it is only looked for.
func (p *Pending) Reserve(size int) error {
	// This alone meets the limit on the size of files, RLIMIT_FSIZE.
	zeros := make([]byte, size)
	err := do(Op{Kind: Probe, Path: p.dir.path(p.next), Data: zeros}, func() error {
		_, err := p.file.WriteAt(zeros, 0)
		return err
	})
	if err := errors.Join(err, p.Truncate()); err != nil {
		return err
	}
	// After the truncation, because that gives blocks back.
	return do(Op{Kind: Reserve, Path: p.dir.path(p.next)}, func() error { return allocate(p.file, int64(size)) })
}

// Touch sets the time of the pending file's last change.
func (p *Pending) Touch(at time.Time) error { return p.dir.root.Chtimes(p.next, at, at) }

// Write writes the new content, which survives the death of the process from here
// on. The pending file must be empty. After an error it stays open, with nothing, a
// part or all of data in it, which Left tells.
func (p *Pending) Write(data []byte) error { return p.dir.write(p.file, p.next, data) }

// Rewrite writes what Left returned, all of it, once more. That changes no byte, so
// after an error the pending file holds the same as before. What another process wrote
// needs it before Commit: after a failed fsync the pages count as clean, and another
// fsync would not write them.
func (p *Pending) Rewrite(left []byte) error { return p.dir.write(p.file, p.next, left) }

// Commit makes what was written the content of the file, which survives a failure
// of the power from here on, and closes the pending one. An error that does not
// match [ErrNotSynced] means that the file has the old content and the pending
// file the new one. What another process wrote must go through Rewrite first.
func (p *Pending) Commit() error {
	// Never renamed before it is on the disk: after a failure of the power the
	// name could lead to an empty file, and the old content would be gone.
	if err := errors.Join(p.dir.syncFile(p.file, p.next), p.file.Close()); err != nil {
		return err
	}
	if err := p.dir.rename(p.next, p.name); err != nil {
		return err
	}
	return p.dir.sync()
}

// Close closes the pending file and leaves it where it is.
func (p *Pending) Close() error { return p.file.Close() }

// Discard closes the pending file and removes it.
func (p *Pending) Discard() error { return errors.Join(p.file.Close(), p.dir.unlink(p.next)) }
