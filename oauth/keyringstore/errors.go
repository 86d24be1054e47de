package keyringstore

import (
	"errors"
	"fmt"
	"strings"

	"github.com/zalando/go-keyring"

	"github.com/ycauth/ycauth-go/internal/filelock"
)

var (
	// ErrUnavailable means that there is no keyring: no D-Bus session, no Secret
	// Service on it, no keychain, no logon session, or an unknown system.
	ErrUnavailable = errors.New("there is no keyring")

	// ErrLocked means that the keyring is locked, because it could not ask for its
	// password or the user did not enter it.
	ErrLocked = errors.New("the keyring is locked")

	// ErrTimeout means that the keyring did not respond within Options.Timeout.
	ErrTimeout = errors.New("the keyring did not respond in time")

	// ErrKey means that the keyring's item is not a key of a version that this
	// release knows, or that the keyring did not store the key.
	ErrKey = errors.New("the item in the keyring is not a key")

	// ErrName means that the service name is invalid.
	ErrName = errors.New("not a valid service name")

	// ErrInsecure means that users other than that of this process own or can access
	// LockDir.
	ErrInsecure = filelock.ErrInsecure
)

// An Error says why the keyring could not be used, and what to do. It never
// contains a secret.
type Error struct {
	Service string

	// Kind is one of this package's Err variables; nil if it is none of these.
	Kind error

	// Err is the error of the keyring or the operating system. It may be nil.
	Err error
}

// remedies say what to do about a Kind.
var remedies = map[error]string{
	ErrUnavailable: "run in a desktop session, or keep sessions in files without a seal",
	ErrLocked:      "unlock it and try again; if that is not possible, keep sessions in files without a seal",
	ErrTimeout:     "check whether it is waiting for its password, or set a longer Options.Timeout",
	ErrKey: "it was not used and not overwritten: if a newer release wrote it, update this program; otherwise remove the item " +
		"\"" + user + "\" of this service from the keyring, and log in again",
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "keyringstore: service %q", e.Service)
	if e.Kind != nil && !errors.Is(e.Err, e.Kind) {
		fmt.Fprintf(&b, ": %v", e.Kind)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	if remedy := remedies[e.Kind]; remedy != "" {
		fmt.Fprintf(&b, " (%s)", remedy)
	}
	return b.String()
}

// Unwrap makes the error match its kind and its cause.
func (e *Error) Unwrap() []error {
	var all []error
	for _, err := range []error{e.Kind, e.Err} {
		if err != nil {
			all = append(all, err)
		}
	}
	return all
}

func (v *vault) error(kind, err error) error {
	return &Error{Service: v.service, Kind: kind, Err: err}
}

// kindOf says which of the errors of this package one of package keyring is; nil
// if it is none.
func kindOf(err error) error {
	if errors.Is(err, keyring.ErrUnsupportedPlatform) {
		return ErrUnavailable
	}
	return systemKind(err)
}
