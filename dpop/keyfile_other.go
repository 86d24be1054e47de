//go:build !unix

package dpop

import "io/fs"

const openFlags = 0

// exposed is always false: Go's mode bits say nothing of Windows access rules.
func exposed(fs.FileMode) bool { return false }

func strangerOf(fs.FileInfo, int) (owner int, stranger bool) { return 0, false }
