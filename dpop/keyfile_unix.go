//go:build unix

package dpop

import (
	"io/fs"
	"syscall"
)

// openFlags keep an open from waiting until somebody writes to a named pipe.
const openFlags = syscall.O_NONBLOCK

// exposed reports whether anybody but the owner may do anything with the file.
func exposed(m fs.FileMode) bool { return m.Perm()&0o077 != 0 }
