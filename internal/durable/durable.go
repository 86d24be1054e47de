// Package durable writes small files so that a crash leaves the old content or
// the new, whole, and never a part: a temporary file in the same folder, fsync,
// an atomic step, fsync of the folder.
package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// link is replaced in tests, where every file system has hard links.
var link = os.Link

// Create writes a file that must not exist yet. Of several processes that try
// at once one succeeds; the others, and whoever finds a file there, get an error
// that matches [fs.ErrExist]. The content appears all at once.
func Create(path string, data []byte, perm fs.FileMode) error {
	tmp, err := writeTemp(path, data, perm)
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	// A link fails if the name is taken, which a rename does not.
	if err := link(tmp, path); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
		}
		// Some file systems (FAT, several network ones) have no hard links.
		if err := createInPlace(path, data, perm); err != nil {
			return err
		}
	}
	return syncDir(filepath.Dir(path))
}

// createInPlace is exclusive too, but a crash can leave a part.
func createInPlace(path string, data []byte, perm fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	if err := writeSync(f, data); err != nil {
		_ = os.Remove(path)
		return err
	}
	return nil
}

// Replace writes a file, in the place of the one that has its name if there is
// one.
func Replace(path string, data []byte, perm fs.FileMode) error {
	tmp, err := writeTemp(path, data, perm)
	if err != nil {
		return err
	}
	if err := rename(tmp, path); err != nil {
		_ = os.Remove(tmp)
		return err
	}
	return syncDir(filepath.Dir(path))
}

// Remove removes a file for good. Where there is none, the error matches
// [fs.ErrNotExist].
func Remove(path string) error {
	if err := remove(path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// MkdirAll makes a folder and those above it that are missing, as [os.MkdirAll]
// does, and makes their names as durable as what will be written into them.
func MkdirAll(path string, perm fs.FileMode) error {
	path = filepath.Clean(path)
	var missing []string
	for dir, last := path, ""; dir != last; dir, last = filepath.Dir(dir), dir {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		missing = append(missing, dir)
	}
	if err := os.MkdirAll(path, perm); err != nil {
		return err
	}
	for _, dir := range missing {
		if err := syncDir(filepath.Dir(dir)); err != nil {
			return err
		}
	}
	return nil
}

// IsTemp reports whether name is that of a temporary file of [Create] or
// [Replace] for a file of the name base, which a crash can leave behind.
func IsTemp(name, base string) bool {
	random, ok := strings.CutPrefix(name, tempPrefix(base))
	return ok && random != "" && strings.Trim(random, "0123456789") == ""
}

// tempPrefix takes part of a long name only: a name has at most 255 bytes.
func tempPrefix(base string) string { return "." + base[:min(len(base), 200)] + ".tmp-" }

// writeTemp writes a synced temporary file beside path and returns its name.
func writeTemp(path string, data []byte, perm fs.FileMode) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix(filepath.Base(path))+"*") // 0600
	if err != nil {
		return "", err
	}
	if err := errors.Join(f.Chmod(perm), writeSync(f, data)); err != nil {
		_ = os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// writeSync writes, syncs and closes.
func writeSync(f *os.File, data []byte) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
