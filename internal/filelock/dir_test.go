//go:build unix

package filelock

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMakeDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	for range 2 {
		if err := MakeDir(dir); err != nil {
			t.Fatal(err)
		}
	}
	for _, made := range []string{dir, filepath.Dir(dir)} {
		fi, err := os.Stat(made)
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode() != fs.ModeDir|0o700 {
			t.Errorf("%s has mode %v", made, fi.Mode())
		}
	}
}

func TestDirRejected(t *testing.T) {
	root := t.TempDir()
	file := filepath.Join(root, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		dir  string
		want error
		text string
	}{
		"a file":       {file, nil, "is not a directory"},
		"below a file": {filepath.Join(file, "dir"), nil, "cannot be used"},
		"group":        {withMode(t, 0o710), ErrInsecure, "run chmod 700"},
		"others":       {withMode(t, 0o701), ErrInsecure, "has mode 0701"},
		"not mine":     {notMine(t), ErrInsecure, "belongs to user"},
	} {
		t.Run(name, func(t *testing.T) {
			_, errOpen := OpenDir(tc.dir)
			for _, err := range []error{MakeDir(tc.dir), CheckDir(tc.dir), errOpen} {
				var e *Error
				if !errors.As(err, &e) || e.Path != tc.dir || !strings.Contains(err.Error(), tc.text) {
					t.Errorf("got %v, want an Error that says %q", err, tc.text)
				}
				if tc.want != nil && !errors.Is(err, tc.want) {
					t.Errorf("%v does not match %v", err, tc.want)
				}
			}
		})
	}
	missing := filepath.Join(root, "missing")
	if err := CheckDir(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v does not match fs.ErrNotExist", err)
	}
}

func withMode(t *testing.T, mode fs.FileMode) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, mode); err != nil {
		t.Fatal(err)
	}
	return dir
}

// notMine returns a directory of another user: root's, or one that root gave away.
func notMine(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		return "/"
	}
	dir := withMode(t, 0o700)
	if err := os.Chown(dir, 65534, -1); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A symbolic link in the place of a lock is no lock that somebody else holds.
func TestLockIsALink(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.lock")
	if err := os.WriteFile(filepath.Join(dir, "other"), []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("other", path); err != nil {
		t.Fatal(err)
	}
	_, err := New(path).Acquire(t.Context())
	var e *Error
	if !errors.As(err, &e) || !strings.Contains(e.Reason, "not a regular file") {
		t.Errorf("got %v", err)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "other")); err != nil || string(data) != "precious" {
		t.Errorf("the other file holds %q, %v", data, err)
	}
}
