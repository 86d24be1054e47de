//go:build unix

package durable

import (
	"errors"
	"os"
	"syscall"
)

// syncDir makes the name of a new file as durable as its content.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil // file systems that cannot sync a folder say so this way
	}
	return errors.Join(err, d.Close())
}
