package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"syscall"
	"unsafe"
)

// Of open(2) and linkat(2), where package syscall has no names for them.
const (
	oTmpfile        = 0o20000000 | syscall.O_DIRECTORY
	atFdcwd         = -100
	atSymlinkFollow = 0x400
)

// unnamed is how a [Hook] sees a file without a name.
const unnamed = "(no name)"

// createNoName writes a file that has no name, and gives it one when it is whole
// and on the disk. A crash leaves nothing behind. The error matches
// [errors.ErrUnsupported] where that cannot be done.
func createNoName(d *Dir, name string, data []byte, perm fs.FileMode) error {
	self, err := d.root.Open(".")
	if err != nil {
		return err
	}
	defer self.Close()
	var f *os.File
	err = do(Op{Kind: OpenFile, Path: d.path(unnamed)}, func() error {
		f, err = d.root.OpenFile(".", os.O_WRONLY|oTmpfile, perm)
		return err
	})
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("%w: %w", errors.ErrUnsupported, err) // the file system, or a kernel before 3.11
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Chmod(perm); err != nil {
		return err
	}
	if err := d.write(f, unnamed, data); err != nil {
		return err
	}
	if err := d.syncFile(f, unnamed); err != nil {
		return err
	}
	return do(Op{Kind: Link, Path: d.path(unnamed), To: d.path(name)}, func() error { return linkOpen(f, self, name) })
}

// linkOpen gives an open file a name in a directory. "AT_EMPTY_PATH […] requires
// CAP_DAC_READ_SEARCH", so the way leads over /proc (linkat(2)).
func linkOpen(f, dir *os.File, name string) error {
	from, err := syscall.BytePtrFromString("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
	if err != nil {
		return err
	}
	to, err := syscall.BytePtrFromString(name)
	if err != nil {
		return err
	}
	cwd := atFdcwd // a variable: the constant does not fit into a uintptr
	_, _, errno := syscall.Syscall6(syscall.SYS_LINKAT, uintptr(cwd), uintptr(unsafe.Pointer(from)),
		dir.Fd(), uintptr(unsafe.Pointer(to)), atSymlinkFollow, 0)
	switch errno {
	case 0:
		return nil
	case syscall.ENOENT, syscall.EPERM, syscall.EOPNOTSUPP, syscall.EXDEV, syscall.ENOSYS: // no /proc, no links
		return fmt.Errorf("%w: %w", errors.ErrUnsupported, errno)
	}
	return &fs.PathError{Op: "link", Path: name, Err: errno}
}
