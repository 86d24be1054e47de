//go:build !unix

package filelock

import "io/fs"

// Windows has access control lists, which a mode cannot show. A directory in the
// user's profile keeps other users out by default.

func exposed(fs.FileInfo) bool { return false }
func ownerOf(fs.FileInfo) int  { return -1 }
