//go:build !linux

package durable

import (
	"errors"
	"io/fs"
)

func createNoName(*Dir, string, []byte, fs.FileMode) error { return errors.ErrUnsupported }
