//go:build !unix

package durable

import (
	"io/fs"
	"os"
)

const nonblock = 0

// syncNames does nothing: Windows cannot flush a directory, and NTFS journals
// names.
func syncNames(*os.File) error { return nil }

func names(fs.FileInfo) uint64 { return 0 }
