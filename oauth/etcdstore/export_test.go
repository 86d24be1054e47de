//go:build unix

package etcdstore

import "testing"

// Endpoints is for external tests.
func Endpoints(t testing.TB) []string { return theServer(t).Endpoints() }
