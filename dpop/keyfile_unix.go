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

// strangerOf returns the owner of the file if that is neither the user me nor root,
// who can read and replace every file anyway.
func strangerOf(fi fs.FileInfo, me int) (owner int, stranger bool) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	owner = int(st.Uid)
	return owner, owner != me && owner != 0
}
