package durable

import "os"

// Open opens a file for reading that [Replace] may replace at this moment.
func Open(path string) (f *os.File, err error) {
	err = patiently(func() error { f, err = os.Open(path); return err })
	return f, err
}

// IsTemp is what package filestore asks of a name.
func IsTemp(name, base string) bool { return isTemp(name, base) }
