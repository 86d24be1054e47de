//go:build !windows

package durable

import "os"

// Open opens a file for reading that [Replace] may replace at this moment.
func Open(path string) (*os.File, error) { return os.Open(path) }

func rename(from, to string) error { return os.Rename(from, to) }
func remove(path string) error     { return os.Remove(path) }
