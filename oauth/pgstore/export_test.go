//go:build unix

package pgstore

import "testing"

// Addresses is for external tests.
func Addresses(t testing.TB) (direct, bouncer string) { return addresses(t) }
