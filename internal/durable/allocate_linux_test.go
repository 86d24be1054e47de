package durable_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/ycauth/ycauth-go/internal/durable"
)

// What was reserved belongs to the pending file, which is empty still.
func TestReserve(t *testing.T) {
	dir := t.TempDir()
	other, err := os.Create(filepath.Join(dir, "other"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	can := syscall.Fallocate(int(other.Fd()), 1, 0, 1) == nil
	d, err := durable.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	p, err := d.Prepare("next", "file", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	const size = 20_000
	if err := p.Reserve(size); err != nil {
		t.Fatal(err)
	}
	fi, err := p.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if blocks := fi.Sys().(*syscall.Stat_t).Blocks * 512; fi.Size() != 0 || can && blocks < size {
		t.Errorf("the file has %d bytes, and blocks for %d; the file system can reserve them: %v", fi.Size(), blocks, can)
	}
	if err := errors.Join(p.Write([]byte("new")), p.Commit()); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(got) != "new" {
		t.Errorf("the file holds %q, %v", got, err)
	}
}
