// Package durable writes small files so that a crash leaves the complete old or
// the complete new content: it writes another file in the same directory, calls fsync,
// puts it in place atomically, and calls fsync on the directory.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// noName and link are replaced in tests, where every file system has both.
var (
	noName = createNoName
	link   = (*os.Root).Link
)

// Create writes a file that must not exist yet. Of several processes that try at
// once one succeeds; the others, and all that find a file there, get an error
// that matches [fs.ErrExist]. The content appears all at once.
//
// Where the system cannot write a file that has no name yet (all but Linux, and
// some file systems there), a crash can leave a second name of the new file.
// [Tidy] removes it.
func Create(path string, data []byte, perm fs.FileMode) error {
	dir, name := split(path)
	d, err := OpenDir(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	err = noName(d, name, data, perm)
	if errors.Is(err, errors.ErrUnsupported) {
		err = createByLink(d, name, data, perm)
	}
	if errors.Is(err, fs.ErrExist) {
		return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	if err != nil {
		return err
	}
	return d.sync()
}

// createByLink gives the name to a temporary file.
func createByLink(d *Dir, name string, data []byte, perm fs.FileMode) error {
	tmp, err := writeTemp(d, name, data, perm)
	if err != nil {
		return err
	}
	defer func() { _ = d.unlink(tmp) }()
	// A link fails if the name is taken, which a rename does not.
	err = do(Op{Kind: Link, Path: d.path(tmp), To: d.path(name)}, func() error { return link(d.root, tmp, name) })
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	// Some file systems (FAT, several network ones) have no hard links.
	return createInPlace(d, name, data, perm)
}

// createInPlace is exclusive too, but a crash can leave a part.
func createInPlace(d *Dir, name string, data []byte, perm fs.FileMode) error {
	f, err := d.openFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	if err := d.writeSync(f, name, data); err != nil {
		_ = d.unlink(name)
		return err
	}
	return nil
}

// Replace writes a file, in the place of the one that has its name if there is
// one. A crash can leave a temporary file. An error that does not match
// [ErrNotSynced] means that nothing has changed.
func Replace(path string, data []byte, perm fs.FileMode) error {
	dir, name := split(path)
	d, err := OpenDir(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	tmp, err := writeTemp(d, name, data, perm)
	if err != nil {
		return err
	}
	if err := d.rename(tmp, name); err != nil {
		_ = d.unlink(tmp)
		return err
	}
	return d.sync()
}

// Remove removes a file for good. Where there is none, the error matches
// [fs.ErrNotExist].
func Remove(path string) error {
	dir, name := split(path)
	d, err := OpenDir(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Remove(name)
}

// Tidy removes the other names of a file, which a crash of [Create] or a crash
// before this release can leave beside it. It reads the directory if fi, which
// describes the open file, says that there are such names, which it cannot on
// Windows. What it cannot remove stays.
func Tidy(path string, fi fs.FileInfo) {
	if names(fi) < 2 {
		return
	}
	dir, name := split(path)
	d, err := OpenDir(dir)
	if err != nil {
		return
	}
	defer d.Close()
	entries, err := fs.ReadDir(d.root.FS(), ".")
	if err != nil {
		return
	}
	removed := false
	for _, e := range entries {
		if !isTemp(e.Name(), name) {
			continue
		}
		if other, err := d.Lstat(e.Name()); err == nil && os.SameFile(fi, other) {
			removed = d.unlink(e.Name()) == nil || removed
		}
	}
	if removed {
		_ = d.sync()
	}
}

// MkdirAll creates a directory and those above it that are missing, as
// [os.MkdirAll] does, and makes their names as durable as what will be written
// into them.
func MkdirAll(path string, perm fs.FileMode) error {
	if path == "" {
		path = "."
	}
	var parents []string // of those that are missing
	for dir, last := path, ""; dir != last; {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		last = dir
		dir, _ = split(dir)
		parents = append(parents, dir)
	}
	err := do(Op{Kind: MakeDir, Path: path}, func() error { return os.MkdirAll(path, perm) })
	if err != nil {
		return err
	}
	for _, dir := range parents {
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// split returns the directory of a file, which is not cleaned: only the system knows which
// directory link/.. is, where link is a symbolic link.
func split(path string) (dir, name string) {
	least := len(filepath.VolumeName(path)) + 1
	for len(path) > least && os.IsPathSeparator(path[len(path)-1]) {
		path = path[:len(path)-1]
	}
	if dir, name = filepath.Split(path); dir == "" {
		dir = "."
	}
	return dir, name
}

func syncDir(path string) error {
	d, err := OpenDir(path)
	if err != nil {
		return err
	}
	return errors.Join(d.sync(), d.Close())
}

// isTemp reports whether name is that of a temporary file of Create or Replace
// for a file of the name base.
func isTemp(name, base string) bool {
	random, ok := strings.CutPrefix(name, tempPrefix(base))
	return ok && random != "" && strings.Trim(random, "0123456789") == ""
}

// tempPrefix takes part of a long name only: a name has at most 255 bytes.
func tempPrefix(base string) string { return "." + base[:min(len(base), 200)] + ".tmp-" }

// writeTemp writes a synced temporary file beside name and returns its name.
func writeTemp(d *Dir, name string, data []byte, perm fs.FileMode) (tmp string, err error) {
	var f *os.File
	for range 100 {
		tmp = fmt.Sprintf("%s%d", tempPrefix(name), rand.Uint32())
		f, err = d.openFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	if err != nil {
		return "", err
	}
	if err := errors.Join(f.Chmod(perm), d.writeSync(f, tmp, data)); err != nil {
		_ = d.unlink(tmp)
		return "", err
	}
	return tmp, nil
}
