//go:build !windows

package durable

// patiently takes a step: open files are in nobody's way here.
func patiently(step func() error) error { return step() }
