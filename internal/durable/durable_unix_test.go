//go:build unix

package durable

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

func TestMode(t *testing.T) {
	old := syscall.Umask(0o077) // Create and Replace set the mode, umask or not
	defer syscall.Umask(old)
	dir := t.TempDir()
	for name, write := range map[string]func(string, []byte, fs.FileMode) error{"create": Create, "replace": Replace} {
		for _, mode := range []fs.FileMode{0o600, 0o644, 0o400} {
			path := filepath.Join(dir, name+mode.String())
			if err := write(path, []byte("x"), mode); err != nil {
				t.Fatal(err)
			}
			fi, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if fi.Mode() != mode {
				t.Errorf("%s: mode %v, want %v", name, fi.Mode(), mode)
			}
		}
	}
}

// A link is a name that is taken, wherever it leads.
func TestSymlink(t *testing.T) {
	dir := t.TempDir()
	link, target := filepath.Join(dir, "link"), filepath.Join(dir, "target")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	if err := Create(link, []byte("x"), 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create over a dangling link: %v, want fs.ErrExist", err)
	}
	onlyFiles(t, dir, "link")
	if err := Replace(link, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	content(t, link, "x")
	onlyFiles(t, dir, "link") // the link was replaced, nothing written through it
}

// The directory of link/../f is that above the one that the link leads to.
func TestAboveALink(t *testing.T) {
	top := t.TempDir()
	there, here := filepath.Join(top, "there"), filepath.Join(top, "here")
	for _, dir := range []string{filepath.Join(there, "in"), here} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(there, "in"), filepath.Join(here, "link")); err != nil {
		t.Fatal(err)
	}
	path := here + "/link/../f"
	if err := Create(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	onlyFiles(t, here, "link")
	onlyFiles(t, there, "f", "in")
	if err := Replace(path, []byte("y"), 0o600); err != nil {
		t.Fatal(err)
	}
	content(t, filepath.Join(there, "f"), "y")

	tmp := tempPrefix("f") + "1"
	if err := os.Link(filepath.Join(there, "f"), filepath.Join(there, tmp)); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	Tidy(path, fi)
	onlyFiles(t, there, "f", "in")

	if err := Remove(path); err != nil {
		t.Fatal(err)
	}
	onlyFiles(t, there, "in")
	if err := MkdirAll(here+"/link/../a/b/", 0o700); err != nil {
		t.Fatal(err)
	}
	onlyFiles(t, here, "link")
	onlyFiles(t, there, "a", "in")
}

func TestSplit(t *testing.T) {
	for path, want := range map[string][2]string{
		"f": {".", "f"}, "a/f": {"a/", "f"}, "a/../f": {"a/../", "f"}, "/f": {"/", "f"},
		"a/f//": {"a/", "f"}, "/": {"/", ""}, "//": {"/", ""}, "": {".", ""}, ".": {".", "."},
	} {
		if dir, name := split(path); dir != want[0] || name != want[1] {
			t.Errorf("%q: %q and %q, want %q", path, dir, name, want)
		}
	}
}

// alone runs the test in a process of its own, and reports whether this is that one: a
// limit on the size of files would also meet what package testing writes.
func alone(t *testing.T) bool {
	t.Helper()
	const variable = "TEST_ALONE"
	if os.Getenv(variable) != "" {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), variable+"=1")
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("%v:\n%s", err, out)
	}
	return false
}

// full makes writes of the process fail until the test ends, as a full disk does.
func full(t *testing.T) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ)
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 0, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
			t.Error(err)
		}
		signal.Reset(syscall.SIGXFSZ)
	})
}

func TestDiskFull(t *testing.T) {
	if !alone(t) {
		return
	}
	dir := t.TempDir()
	if err := Create(filepath.Join(dir, "old"), []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	errs := map[string]error{}
	t.Run("limited", func(t *testing.T) {
		full(t)
		errs["Create"] = Create(filepath.Join(dir, "new"), []byte("new"), 0o600)
		d, err := OpenDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		errs["createByLink"] = createByLink(d, "new", []byte("new"), 0o600)
		errs["createInPlace"] = createInPlace(d, "new", []byte("new"), 0o600)
		p, err := d.Prepare("next", "old", 0o600)
		if err != nil {
			t.Fatal(err)
		}
		errs["Write"] = p.Write([]byte("new"))
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		errs["Replace"] = Replace(filepath.Join(dir, "old"), []byte("new"), 0o600)
	})
	for name, err := range errs {
		if !errors.Is(err, syscall.EFBIG) {
			t.Errorf("%s: %v, want EFBIG", name, err)
		}
	}
	content(t, filepath.Join(dir, "old"), "old")
	content(t, filepath.Join(dir, "next"), "")
	onlyFiles(t, dir, "next", "old")
}

func TestSyncDir(t *testing.T) {
	if err := syncDir(t.TempDir()); err != nil {
		t.Error(err)
	}
	if runtime.GOOS == "linux" {
		if err := syncDir("/proc"); err != nil {
			t.Errorf("a directory that cannot be synced: %v", err)
		}
	}
	if err := syncDir(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("syncDir of nothing: %v, want fs.ErrNotExist", err)
	}
}
