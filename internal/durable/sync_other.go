//go:build !unix

package durable

// syncDir does nothing: Windows cannot flush a folder, and NTFS journals names.
func syncDir(string) error { return nil }
