package oauth

// SetJitter replaces the random numbers that waits are made different with, until
// reset is called.
func SetJitter(f func(n int64) int64) (reset func()) {
	before := jitter
	jitter = f
	return func() { jitter = before }
}
