package keyringstore

import (
	"errors"
	"fmt"
	"strings"

	"github.com/zalando/go-keyring"

	"github.com/ycauth/ycauth-go/internal/filelock"
	"github.com/ycauth/ycauth-go/oauth"
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

	// ErrTooLarge means that the session does not fit: it has more than 128 KiB.
	ErrTooLarge = errors.New("the session is too large for the keyring")

	// ErrName means that [New] was given an unfit service or profile.
	ErrName = errors.New("not a name for a service or profile")

	// ErrInsecure is matched by errors about a LockDir that others than the user
	// of this process can access, or that belongs to somebody else.
	ErrInsecure = filelock.ErrInsecure
)

// An Error says why the keyring could not be used, and what helps. It never
// holds a secret.
type Error struct {
	Service, Profile string

	// Kind is one of this package's Err variables or oauth.ErrSessionFormat; nil
	// if it is none of these.
	Kind error

	// Err is what the keyring, or the operating system, said. It may be nil.
	Err error
}

// remedies say what to do about a Kind.
var remedies = map[error]string{
	ErrUnavailable: "keep sessions in files instead, with package filestore, or run in a desktop session",
	ErrLocked:      "unlock it and try again; where nobody can, keep sessions in files, with package filestore",
	ErrTimeout:     "see whether it waits for its password somewhere, or set a longer Options.Timeout",
	ErrTooLarge:    "keep sessions in files instead, with package filestore",
	oauth.ErrSessionFormat: "it was not used and not overwritten: if a newer release wrote it, update this program; " +
		"otherwise call Store.Discard, and log in again",
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "keyringstore: service %q, profile %q", e.Service, e.Profile)
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

func (s *Store) error(kind, err error) error {
	return &Error{Service: s.items.service, Profile: s.items.profile, Kind: kind, Err: err}
}

// kindOf says which of the errors of this package one of package keyring is; nil
// if it is none.
func kindOf(err error) error {
	switch {
	case errors.Is(err, keyring.ErrUnsupportedPlatform):
		return ErrUnavailable
	case errors.Is(err, keyring.ErrSetDataTooBig):
		return ErrTooLarge
	}
	return systemKind(err)
}
