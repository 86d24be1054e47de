//go:build linux || darwin

package filelock

import (
	"errors"
	"path/filepath"
	"syscall"
	"testing"
)

func TestPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	var e *Error
	if _, err := New(path).Acquire(t.Context()); !errors.As(err, &e) || e.Path != path {
		t.Errorf("got %v, want an Error", err)
	}
	if err := MakeDir(path); !errors.As(err, &e) {
		t.Errorf("as a directory: got %v, want an Error", err)
	}
	if _, err := OpenDir(path); !errors.As(err, &e) {
		t.Errorf("as an open directory: got %v, want an Error", err)
	}
}
