//go:build unix

package filelock

import (
	"io/fs"
	"syscall"
)

// exposed: group or others can do something with it.
func exposed(fi fs.FileInfo) bool { return fi.Mode().Perm()&0o077 != 0 }

// ownerOf returns the user id of the owner; -1 if it cannot be known.
func ownerOf(fi fs.FileInfo) int {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}
