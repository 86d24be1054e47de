//go:build !windows

package dpop

import "io/fs"

// exposed reports whether anybody but the owner may do anything with the file.
func exposed(m fs.FileMode) bool { return m.Perm()&0o077 != 0 }
