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

	// ErrLocked means that the keyring is locked, and was not unlocked when it
	// asked for its password, or could not ask.
	ErrLocked = errors.New("the keyring is locked")

	// ErrTimeout means that the keyring did not answer within Options.Timeout.
	ErrTimeout = errors.New("the keyring did not answer in time")

	// ErrKey means that the keyring's item is not a key of a version that this
	// release knows, or that the keyring did not keep the key that it was given.
	ErrKey = errors.New("the item in the keyring is not a key")

	// ErrName means that [Key] was given an unfit service.
	ErrName = errors.New("not a name for a service")

	// ErrInsecure is matched by errors about a LockDir that others than the user
	// of this process can access, or that belongs to somebody else.
	ErrInsecure = filelock.ErrInsecure
)

// An Error says why the keyring could not be used, and what helps. It never
// holds a secret.
type Error struct {
	Service string

	// Kind is one of this package's Err variables; nil if it is none of these.
	Kind error

	// Err is what the keyring, or the operating system, said. It may be nil.
	Err error
}

// remedies say what to do about a Kind.
var remedies = map[error]string{
	ErrUnavailable: "keep sessions in files without a seal, with package filestore alone, or run in a desktop session",
	ErrLocked:      "unlock it and try again; where nobody can, keep sessions in files without a seal",
	ErrTimeout:     "see whether it waits for its password somewhere, or set a longer Options.Timeout",
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
