package durable

import (
	"errors"
	"io/fs"
	"os"
)

// WithoutUnnamed calls f as on a system where each file has a name, and where
// there are no links either, if it says so.
func WithoutUnnamed(links bool, f func() error) error {
	defer func(n func(*Dir, string, []byte, fs.FileMode) error, l func(*os.Root, string, string) error) {
		noName, link = n, l
	}(noName, link)
	noName = func(*Dir, string, []byte, fs.FileMode) error { return errors.ErrUnsupported }
	if !links {
		link = func(*os.Root, string, string) error { return errors.ErrUnsupported }
	}
	return f()
}
