package durable

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// onlyFiles fails the test if the directory holds anything but the named files:
// a temporary file must not stay behind.
func onlyFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the directory holds %v, want %v", got, want)
	}
}

func content(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s holds %q, want %q", filepath.Base(path), got, want)
	}
}

func TestCreate(t *testing.T) {
	noNoName := func(*Dir, string, []byte, fs.FileMode) error { return errors.ErrUnsupported }
	noLinks := func(_ *os.Root, from, to string) error {
		return &os.LinkError{Op: "link", Old: from, New: to, Err: errors.ErrUnsupported}
	}
	for name, system := range map[string]struct {
		noName func(*Dir, string, []byte, fs.FileMode) error
		link   func(*os.Root, string, string) error
	}{
		"as it is":           {noName, link},
		"with hard links":    {noNoName, link},
		"without hard links": {noNoName, noLinks},
	} {
		t.Run(name, func(t *testing.T) {
			defer func(n func(*Dir, string, []byte, fs.FileMode) error, l func(*os.Root, string, string) error) {
				noName, link = n, l
			}(noName, link)
			noName, link = system.noName, system.link
			dir := t.TempDir()
			path := filepath.Join(dir, "a*b")
			if err := Create(path, []byte("first"), 0o600); err != nil {
				t.Fatal(err)
			}
			content(t, path, "first")
			err := Create(path, []byte("second"), 0o600)
			var pe *fs.PathError
			if !errors.Is(err, fs.ErrExist) || !errors.As(err, &pe) || pe.Path != path {
				t.Errorf("over a file: %v, want fs.ErrExist with the path", err)
			}
			content(t, path, "first")
			if err := Create(filepath.Join(dir, "empty"), nil, 0o600); err != nil {
				t.Error(err)
			}
			if err := Create(filepath.Join(dir, strings.Repeat("x", 255)), nil, 0o600); err != nil {
				t.Errorf("with the longest name: %v", err)
			}
			if err := Create(filepath.Join(dir, strings.Repeat("x", 256)), nil, 0o600); err == nil {
				t.Error("with a name that is too long: no error")
			}
			if err := os.Mkdir(filepath.Join(dir, "directory"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := Create(filepath.Join(dir, "directory"), []byte("x"), 0o600); !errors.Is(err, fs.ErrExist) {
				t.Errorf("over a directory: %v, want fs.ErrExist", err)
			}
			if err := Create(filepath.Join(dir, "none", "x"), []byte("x"), 0o600); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("in a directory that is not there: %v, want fs.ErrNotExist", err)
			}
			onlyFiles(t, dir, "a*b", "directory", "empty", strings.Repeat("x", 255))
		})
	}
}

// Of many at once one creates the file, and whoever sees it sees all of it.
func TestCreateRace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	const racers, size = 32, 100_000
	created := make(chan byte, racers)
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() {
			err := Create(path, bytes.Repeat([]byte{byte(i)}, size), 0o600)
			switch {
			case err == nil:
				created <- byte(i)
			case !errors.Is(err, fs.ErrExist):
				t.Error(err)
			}
			got, err := os.ReadFile(path)
			if err != nil || len(got) != size || bytes.Count(got, got[:1]) != size {
				t.Errorf("read %d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
	close(created)
	winner := <-created
	if _, more := <-created; more {
		t.Error("two created the file")
	}
	content(t, path, string(bytes.Repeat([]byte{winner}, size)))
	onlyFiles(t, dir, "x")
}

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	for _, s := range []string{"first", "the second, which is longer", ""} {
		if err := Replace(path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
		content(t, path, s)
	}
	if err := Replace(filepath.Join(dir, "none", "x"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in a directory that is not there: %v, want fs.ErrNotExist", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "directory"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Replace(filepath.Join(dir, "directory"), []byte("x"), 0o600); err == nil {
		t.Error("a directory was replaced")
	}
	onlyFiles(t, dir, "directory", "x")
}

// A reader sees the content of one writer, never a mixture or a part.
func TestReplaceRace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	const size = 100_000
	if err := Replace(path, bytes.Repeat([]byte{0}, size), 0o600); err != nil {
		t.Fatal(err)
	}
	var writers, readers sync.WaitGroup
	done := make(chan struct{})
	for i := range 4 {
		writers.Go(func() {
			for range 10 {
				if err := Replace(path, bytes.Repeat([]byte{byte(i)}, size), 0o600); err != nil {
					t.Error(err)
				}
			}
		})
		readers.Go(func() {
			for {
				got, err := os.ReadFile(path)
				if err != nil || len(got) != size || bytes.Count(got, got[:1]) != size {
					t.Errorf("read %d bytes, %v", len(got), err)
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
	onlyFiles(t, dir, "x")
}

func TestIsTemp(t *testing.T) {
	for name, want := range map[string]bool{
		".s.json.tmp-123":             true,
		".s.json.tmp-0":               true,
		".s.json.tmp-":                false,
		".s.json.tmp-12x":             false,
		"s.json":                      false,
		"s.json.tmp-123":              false,
		".other.json.tmp-123":         false,
		".s.json.tmp-1.json.tmp-1234": false, // of a file that is called s.json.tmp-1.json
	} {
		if got := isTemp(name, "s.json"); got != want {
			t.Errorf("IsTemp(%q) = %v, want %v", name, got, want)
		}
	}
}
