package keyringstore

import (
	"strings"

	"github.com/zalando/go-keyring"
)

// A ring is what package keyring does. Its calls take no ctx.
type ring interface {
	// Get's error matches keyring.ErrNotFound if there is no item.
	Get(service, user string) (string, error)
	// Set replaces the item if there is one.
	Set(service, user, password string) error
}

// A ringError is what a ring said.
type ringError struct{ err error }

func (e *ringError) Error() string { return e.err.Error() }
func (e *ringError) Unwrap() error { return e.err }

// system is the keyring of the operating system.
type system struct{}

// Get implements ring.
func (system) Get(service, user string) (string, error) { return keyring.Get(service, user) }

// Set implements ring.
func (system) Set(service, user, password string) error { return keyring.Set(service, user, password) }

const maxService = 128

// checkService reports why a name cannot be a service; "" if it can. The name
// becomes part of a command line on macOS and of an identifier on Windows.
func checkService(name string) (reason string) {
	switch {
	case name == "":
		return "is empty"
	case len(name) > maxService:
		return "is longer than 128 characters"
	case strings.TrimSpace(name) != name:
		return "begins or ends with a space"
	case strings.ContainsFunc(name, notInService):
		return "has characters other than letters, digits, spaces and . _ - : / @ +"
	}
	return ""
}

func notInService(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(" ._-:/@+", r)
}
