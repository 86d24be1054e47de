package piv

import (
	"crypto"
	"crypto/x509"
	"errors"
	"runtime"
)

// backend is PC/SC, or what stands in for it in a test or a build without it.
type backend interface {
	// readers lists the names of all readers; none is no error.
	readers() ([]string, error)

	// connect opens the PIV application of the card in a reader, and keeps other
	// programs from using the card until the token is closed. It can block for as
	// long as another program likes.
	connect(reader string) (token, error)
}

// token is an open connection to the PIV application of one card. Its methods
// must not be called at the same time, and each waits for the card. Their errors
// hold a *statusError or a *pcscError where the card or PC/SC gave a number.
type token interface {
	version() Version
	serial() (uint32, error)         // leaves the application on firmware before 5
	formFactor() (FormFactor, error) // leaves the application
	keyInfo(Slot) (slotInfo, error)  // firmware 5.3 or newer
	attest(Slot) (*x509.Certificate, error)
	certificate(Slot) (*x509.Certificate, error)

	// pinTries asks for the number of PIN tries left, which a card tells only
	// while the PIN is not verified.
	pinTries() (n int, verified bool, err error)
	verifyPIN(pin string) error

	// factoryPIN reports whether nobody has changed the PIN. Firmware 5.3 or newer.
	factoryPIN() (bool, error)

	// managementKey verifies the PIN and reads the management key that is stored
	// under it; nil if none is.
	managementKey(pin string) ([]byte, error)

	// managementTouch returns when the management key needs a touch. Firmware 5.3
	// or newer.
	managementTouch() (TouchPolicy, error)

	// generate makes a key. A nil management key means the factory's.
	generate(managementKey []byte, slot Slot, spec KeySpec) (crypto.PublicKey, error)

	// store puts a certificate into a slot, with the same management key as the
	// generate before it.
	store(managementKey []byte, slot Slot, der []byte) error

	// sign sends the one command that signs.
	sign(slot Slot, public crypto.PublicKey, digest []byte, opts crypto.SignerOpts) ([]byte, error)

	close() error
}

// slotInfo is what a card tells about the key in a slot. Zero policies are
// unknown.
type slotInfo struct {
	public crypto.PublicKey
	pin    PINPolicy
	touch  TouchPolicy
}

// statusError is a card's answer other than success (ISO/IEC 7816-4 section
// 5.6).
type statusError struct {
	status uint16
	err    error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

// Status words that mean something here (NIST SP 800-73-4 part 2; Yubico, "PIV
// extensions").
const (
	statusNotSatisfied  = 0x6982 // no PIN, no touch, or no management key
	statusBlocked       = 0x6983
	statusIncorrectData = 0x6a80 // to ATTEST and to signing: nothing to do it with
	statusNotFound      = 0x6a82 // no such data object
	statusNoReference   = 0x6a88 // no such key
	statusUnknownINS    = 0x6d00
)

// statusOf returns the status word in err, 0 if there is none.
func statusOf(err error) uint16 {
	var e *statusError
	if errors.As(err, &e) {
		return e.status
	}
	return 0
}

// wrongPIN returns how many tries a refused PIN has left.
func wrongPIN(status uint16) (tries int, ok bool) {
	switch status & 0xfff0 {
	case 0x63c0, 0x6300: // the second is that of some old YubiKeys
		return int(status & 0xf), true
	}
	return 0, status == statusBlocked
}

// pcscError is a command that did not reach the card, or whose answer did not
// come back.
type pcscError struct {
	code uint32
	err  error
}

func (e *pcscError) Error() string { return e.err.Error() }
func (e *pcscError) Unwrap() error { return e.err }

// PC/SC return codes (PC/SC Workgroup, "Interoperability Specification for ICCs"
// part 5; the names are those of winscard.h without their prefixes).
const (
	pcscInvalidHandle     = 0x80100003
	pcscUnknownReader     = 0x80100009
	pcscSharingViolation  = 0x8010000b
	pcscNoCard            = 0x8010000c
	pcscNotReady          = 0x80100010
	pcscServiceLost       = 0x80100013 // its connection broke
	pcscNotTransacted     = 0x80100016
	pcscReaderUnavailable = 0x80100017
	pcscNoService         = 0x8010001d
	pcscServiceStopped    = 0x8010001e
	pcscNoAccess          = 0x80100027
	pcscNoReaders         = 0x8010002e
	pcscCommunication     = 0x8010002f
	pcscUnresponsive      = 0x80100066
	pcscUnpowered         = 0x80100067
	pcscCardReset         = 0x80100068
	pcscCardRemoved       = 0x80100069
	pcscSecurityViolation = 0x8010006a // polkit says no
)

// pcscCode returns the PC/SC return code in err, 0 if there is none.
func pcscCode(err error) uint32 {
	var e *pcscError
	if errors.As(err, &e) {
		return e.code
	}
	return 0
}

// gone reports whether PC/SC itself says that there is no card.
func gone(err error) bool {
	switch pcscCode(err) {
	case pcscNoCard, pcscUnknownReader, pcscCardRemoved, pcscReaderUnavailable, pcscNoReaders:
		return true
	}
	return false
}

// silent reports whether the card did not answer. It may have been pulled out, or
// be usable again in a moment.
func silent(err error) bool {
	switch pcscCode(err) {
	case pcscInvalidHandle, pcscNotReady, pcscNotTransacted, pcscCommunication, pcscUnresponsive, pcscUnpowered, pcscCardReset:
		return true
	}
	return false
}

// unsent reports whether PC/SC returned an error for a command before it sent it
// to the card. A reader that is not available may have gone at any moment of a
// command. A card that was removed may have, too, where the service is not
// pcsc-lite, which looks for that before it sends a command and not after.
func unsent(err error) bool {
	switch pcscCode(err) {
	case pcscInvalidHandle, pcscUnknownReader, pcscCardReset:
		return true
	case pcscCardRemoved:
		return runtime.GOOS != "windows" && runtime.GOOS != "darwin"
	}
	return false
}
