package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// died is Create, as far as it comes before the process dies at a step.
func died(t *testing.T, path string, at OpKind) {
	t.Helper()
	defer SetHook(&Hook{Before: func(op Op) error {
		if op.Kind == at {
			panic("dead")
		}
		return nil
	}})()
	defer func() {
		if recover() == nil {
			t.Fatalf("there is no step %q", at)
		}
	}()
	_ = Create(path, []byte("secret"), 0o600)
}

// A crash of Create must not leave a second copy of a key.
func TestCrashOfCreate(t *testing.T) {
	for _, at := range []OpKind{Write, SyncFile, Link, SyncDir} {
		dir := t.TempDir()
		path := filepath.Join(dir, "file")
		died(t, path, at)
		want := []string{}
		if at == SyncDir {
			want = []string{"file"}
		}
		if err := Create(filepath.Join(t.TempDir(), "probe"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if !hasNoName(t) {
			continue // TestTidy has what is left there
		}
		onlyFiles(t, dir, want...)
	}
}

// hasNoName reports whether this system has files without a name.
func hasNoName(t *testing.T) bool {
	t.Helper()
	d, err := OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	err = createNoName(d, "x", nil, 0o600)
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		t.Fatal(err)
	}
	return err == nil
}

func TestTidy(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	stat := func() fs.FileInfo {
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return fi
	}
	if err := Create(path, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if names(stat()) == 0 {
		return // Windows does not say
	}
	other := filepath.Join(dir, ".file.tmp-2") // of another Create, which may be going on
	if err := os.WriteFile(other, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	Tidy(path, stat())
	onlyFiles(t, dir, ".file.tmp-2", "file")
	for _, link := range []string{".file.tmp-1", "kept"} {
		if err := os.Link(path, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	Tidy(path, stat())
	onlyFiles(t, dir, ".file.tmp-2", "file", "kept")
}
