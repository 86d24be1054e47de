package durable_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ycauth/ycauth-go/internal/durable"
	"github.com/ycauth/ycauth-go/internal/durable/powerloss"
)

// prepared is what package filestore does.
func prepared(path string, data []byte) error {
	d, err := durable.OpenDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	p, err := d.Prepare("next", filepath.Base(path), 0o600)
	if err != nil {
		return err
	}
	if err := p.Write(data); err != nil {
		return err
	}
	return p.Commit()
}

func replace(path string, data []byte) error { return durable.Replace(path, data, 0o600) }
func create(path string, data []byte) error  { return durable.Create(path, data, 0o600) }
func createByLink(path string, data []byte) error {
	return durable.WithoutUnnamed(true, func() error { return create(path, data) })
}
func remove(path string, _ []byte) error { return durable.Remove(path) }

// writers are the ways to change a file, and the order that makes them durable.
var writers = map[string]struct {
	write  func(path string, data []byte) error
	before string // the content before; "" for no file
	after  string // "" for no file
	order  []durable.OpKind
}{
	"Create": {create, "", "new", []durable.OpKind{
		durable.OpenFile, durable.Write, durable.SyncFile, durable.Link, durable.SyncDir,
	}},
	"Create by a link": {createByLink, "", "new", []durable.OpKind{
		durable.OpenFile, durable.Write, durable.SyncFile, durable.Link, durable.SyncDir,
	}},
	"Replace": {replace, "old", "new", []durable.OpKind{
		durable.OpenFile, durable.Write, durable.SyncFile, durable.Rename, durable.SyncDir,
	}},
	"Commit": {prepared, "old", "new", []durable.OpKind{
		durable.OpenFile, durable.Write, durable.SyncFile, durable.Rename, durable.SyncDir,
	}},
	"Remove": {remove, "old", "", []durable.OpKind{durable.Unlink, durable.SyncDir}},
}

func TestOrder(t *testing.T) {
	for name, w := range writers {
		t.Run(name, func(t *testing.T) {
			disk := change(t, w.write, w.before)
			var order []durable.OpKind
			for _, op := range disk.Steps() {
				if op.Kind == durable.Unlink && strings.Contains(op.Path, ".tmp-") {
					continue // where files cannot be without a name
				}
				order = append(order, op.Kind)
			}
			if !slices.Equal(order, w.order) {
				t.Errorf("the steps are %q, want %q", order, w.order)
			}
		})
	}
}

// A file that is created in place can be cut off by a failure of the power, but
// not once Create has returned.
func TestOrderInPlace(t *testing.T) {
	inPlace := func(path string, data []byte) error {
		return durable.WithoutUnnamed(false, func() error { return create(path, data) })
	}
	var order []string
	for _, op := range change(t, inPlace, "").Steps() {
		order = append(order, string(op.Kind))
	}
	want := "open write fsync open write fsync unlink fsync directory"
	if got := strings.Join(order, " "); got != want {
		t.Errorf("the steps are %q, want %q", got, want)
	}
}

// The name of a new directory is in the one above it, so that is synced.
func TestOrderOfDirectories(t *testing.T) {
	root := t.TempDir()
	var steps []string
	restore := durable.SetHook(&durable.Hook{After: func(op durable.Op) {
		rel, err := filepath.Rel(root, op.Path)
		if err != nil {
			t.Error(err)
		}
		steps = append(steps, string(op.Kind)+" "+filepath.ToSlash(rel))
	}})
	defer restore()
	for range 2 {
		if err := durable.MkdirAll(filepath.Join(root, "a", "b", "c"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"mkdir a/b/c", "fsync directory a/b", "fsync directory a", "fsync directory .", "mkdir a/b/c"}
	if !slices.Equal(steps, want) {
		t.Errorf("the steps are %q, want %q", steps, want)
	}
}

// change changes a file while a disk watches.
func change(t *testing.T, write func(string, []byte) error, before string) *powerloss.Disk {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if before != "" {
		if err := os.WriteFile(path, []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	disk, stop, err := powerloss.Watch(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	if err := write(path, []byte("new")); err != nil {
		t.Fatal(err)
	}
	return disk
}

// survives cuts the power at every step, many times, and says what is wrong with
// what is left.
func survives(t *testing.T, disk *powerloss.Disk, steps []durable.Op, before, after string) error {
	t.Helper()
	for seed := range uint64(40) {
		for n := range len(steps) + 1 {
			dir := t.TempDir()
			if err := disk.Crash(steps[:n], rand.New(rand.NewPCG(seed, uint64(n))), dir); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(filepath.Join(dir, "file"))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			if n == len(steps) && string(got) != after {
				return fmt.Errorf("after all steps there is %q, want %q", got, after)
			}
			if string(got) != before && string(got) != after {
				return fmt.Errorf("after %d steps there is %q", n, got)
			}
		}
	}
	return nil
}

func TestPowerLoss(t *testing.T) {
	for name, w := range writers {
		t.Run(name, func(t *testing.T) {
			disk := change(t, w.write, w.before)
			steps := disk.Steps()
			if err := survives(t, disk, steps, w.before, w.after); err != nil {
				t.Error(err)
			}
			// Without any one of the fsyncs something is lost.
			for i, op := range steps {
				if op.Kind != durable.SyncFile && op.Kind != durable.SyncDir {
					continue
				}
				without := slices.Delete(slices.Clone(steps), i, i+1)
				err := survives(t, disk, without, w.before, w.after)
				if err == nil {
					t.Errorf("step %d, %s, can be left out, and nobody notices", i, op.Kind)
				}
				t.Logf("without step %d, %s: %v", i, op.Kind, err)
			}
		})
	}
}

// fail makes one kind of step fail, once.
func fail(t *testing.T, kind durable.OpKind, why error) {
	t.Helper()
	failed := false
	t.Cleanup(durable.SetHook(&durable.Hook{Before: func(op durable.Op) error {
		if op.Kind != kind || failed {
			return nil
		}
		failed = true
		return why
	}}))
}

// A step that fails leaves the old content, but for the last.
func TestStepFails(t *testing.T) {
	why := errors.New("the disk is gone")
	for name, w := range writers {
		for _, kind := range w.order {
			if name == "Create by a link" && kind == durable.Link {
				continue // then it creates in place: TestCreate
			}
			t.Run(name+" "+string(kind), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "file")
				if w.before != "" {
					if err := os.WriteFile(path, []byte(w.before), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				fail(t, kind, why)
				err := w.write(path, []byte("new"))
				if !errors.Is(err, why) {
					t.Fatalf("got %v, want the step's error", err)
				}
				want := w.before
				if kind == durable.SyncDir {
					want = w.after
				}
				if got, _ := os.ReadFile(path); string(got) != want {
					t.Errorf("the file holds %q, want %q", got, want)
				}
				if got := errors.Is(err, durable.ErrNotSynced); got != (kind == durable.SyncDir) {
					t.Errorf("%v matches ErrNotSynced: %v", err, got)
				}
			})
		}
	}
}

// A write that fails leaves the pending file where it is, and Left tells what got into it.
func TestWriteFails(t *testing.T) {
	why := errors.New("the disk is gone")
	for _, arrived := range []string{"", "ne", "new"} {
		t.Run(fmt.Sprintf("%q", arrived), func(t *testing.T) {
			dir := t.TempDir()
			d, err := durable.OpenDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			p, err := d.Prepare("next", "file", 0o600)
			if err != nil {
				t.Fatal(err)
			}
			defer durable.SetHook(&durable.Hook{Before: func(op durable.Op) error {
				if op.Kind != durable.Write {
					return nil
				}
				return errors.Join(os.WriteFile(op.Path, []byte(arrived), 0o600), why)
			}})()
			if err := p.Write([]byte("new")); !errors.Is(err, why) {
				t.Errorf("got %v, want the step's error", err)
			}
			if left, err := p.Left(100); err != nil || string(left) != arrived {
				t.Errorf("%q is left, %v, want %q", left, err, arrived)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
			if p, err = d.Prepare("next", "file", 0o600); err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if p.Created {
				t.Error("the pending file was removed")
			}
		})
	}
}

// Whoever dies after the write leaves a file that the next one can take over,
// also if the disk failed to sync it at first, or to write it again.
func TestLeft(t *testing.T) {
	dir := t.TempDir()
	d, err := durable.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, kind := range []durable.OpKind{durable.SyncFile, durable.Rename} {
		p, err := d.Prepare("next", "file", 0o600)
		if err != nil {
			t.Fatal(err)
		}
		why := errors.New("the disk is gone")
		t.Run(string(kind), func(t *testing.T) {
			fail(t, kind, why)
			if err := p.Write([]byte("new")); err != nil {
				t.Fatal(err)
			}
			if err := p.Commit(); !errors.Is(err, why) {
				t.Fatalf("got %v, want the step's error", err)
			}
		})
		if p, err = d.Prepare("next", "file", 0o600); err != nil {
			t.Fatal(err)
		}
		t.Run(string(kind)+", then write", func(t *testing.T) {
			fail(t, durable.Write, why)
			if err := p.Rewrite([]byte("new")); !errors.Is(err, why) {
				t.Errorf("got %v, want the step's error", err)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
		disk, stop, err := powerloss.Watch(dir)
		if err != nil {
			t.Fatal(err)
		}
		if p, err = d.Prepare("next", "file", 0o600); err != nil {
			t.Fatal(err)
		}
		left, err := p.Left(100)
		if err != nil || string(left) != "new" {
			t.Fatalf("%q is left, %v", left, err)
		}
		if cut, err := p.Left(2); err != nil || string(cut) != "ne" {
			t.Errorf("%q of it, %v", cut, err)
		}
		if err := errors.Join(p.Rewrite(left), p.Commit()); err != nil {
			t.Fatal(err)
		}
		stop()
		wrote := slices.IndexFunc(disk.Steps(), func(op durable.Op) bool { return op.Kind == durable.Write && bytes.Equal(op.Data, left) })
		synced := slices.IndexFunc(disk.Steps(), func(op durable.Op) bool { return op.Kind == durable.SyncFile })
		if wrote < 0 || synced < wrote {
			t.Errorf("the steps are %v: what is left was not written again", disk.Steps())
		}
		if got, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(got) != "new" {
			t.Errorf("the file holds %q, %v", got, err)
		}
		if err := os.Remove(filepath.Join(dir, "file")); err != nil {
			t.Fatal(err)
		}
	}
}
