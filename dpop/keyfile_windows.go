package dpop

import "io/fs"

// exposed is always false: Go's mode bits say nothing of Windows access rules.
func exposed(fs.FileMode) bool { return false }
