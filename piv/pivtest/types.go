package pivtest

import "fmt"

// Algorithm is an algorithm identifier as it stands in a command (SP 800-78-4, table 6-2, and Yubico extensions to PIV).
type Algorithm byte

// Algorithms of management keys and of key pairs. From RSA3072 on, in this list, they need firmware 5.7.
const (
	TripleDES Algorithm = 0x03
	AES128    Algorithm = 0x08
	AES192    Algorithm = 0x0a
	AES256    Algorithm = 0x0c

	P256    Algorithm = 0x11
	P384    Algorithm = 0x14
	RSA1024 Algorithm = 0x06
	RSA2048 Algorithm = 0x07
	RSA3072 Algorithm = 0x05
	RSA4096 Algorithm = 0x16
	Ed25519 Algorithm = 0xe0
	X25519  Algorithm = 0xe1
)

var algorithmNames = map[Algorithm]string{
	TripleDES: "3DES", AES128: "AES-128", AES192: "AES-192", AES256: "AES-256",
	P256: "P-256", P384: "P-384", Ed25519: "Ed25519", X25519: "X25519",
	RSA1024: "RSA-1024", RSA2048: "RSA-2048", RSA3072: "RSA-3072", RSA4096: "RSA-4096",
}

// String returns the usual name of the algorithm.
func (a Algorithm) String() string {
	if name, ok := algorithmNames[a]; ok {
		return name
	}
	return fmt.Sprintf("algorithm %#02x", byte(a))
}

// rsaBits returns the size of an RSA modulus, 0 for other algorithms.
func (a Algorithm) rsaBits() int {
	switch a {
	case RSA1024:
		return 1024
	case RSA2048:
		return 2048
	case RSA3072:
		return 3072
	case RSA4096:
		return 4096
	default:
		return 0
	}
}

// Slot is the reference of a key (SP 800-73-4 part 1, table 4b).
type Slot byte

// The slots that have a name of their own. The twenty retired slots are 0x82 to 0x95.
const (
	SlotAuthentication     Slot = 0x9a
	SlotManagement         Slot = 0x9b
	SlotSignature          Slot = 0x9c
	SlotKeyManagement      Slot = 0x9d
	SlotCardAuthentication Slot = 0x9e
	SlotAttestation        Slot = 0xf9

	slotRetiredFirst Slot = 0x82
	slotRetiredLast  Slot = 0x95
)

// String returns the slot as "9a".
func (s Slot) String() string { return fmt.Sprintf("%02x", byte(s)) }

// holdsKeyPair reports whether the slot is one for a key pair.
func (s Slot) holdsKeyPair() bool {
	switch s {
	case SlotAuthentication, SlotSignature, SlotKeyManagement, SlotCardAuthentication, SlotAttestation:
		return true
	default:
		return s >= slotRetiredFirst && s <= slotRetiredLast
	}
}

// PINPolicy says when a key wants the PIN.
type PINPolicy byte

// PIN policies. PINDefault is that of the slot: always for 9c, never for 9e, once for all others.
const (
	PINDefault PINPolicy = 0
	PINNever   PINPolicy = 1
	PINOnce    PINPolicy = 2
	PINAlways  PINPolicy = 3 // VERIFY has to be the command just before
)

// TouchPolicy says when a key wants a finger.
type TouchPolicy byte

// Touch policies. TouchDefault is TouchNever.
const (
	TouchDefault TouchPolicy = 0
	TouchNever   TouchPolicy = 1
	TouchAlways  TouchPolicy = 2
	TouchCached  TouchPolicy = 3 // one touch is enough for Config.TouchCache
)

func (p PINPolicy) effective(s Slot) (PINPolicy, bool) {
	switch {
	case p > PINAlways:
		return 0, false
	case p != PINDefault:
		return p, true
	case s == SlotSignature:
		return PINAlways, true
	case s == SlotCardAuthentication:
		return PINNever, true
	default:
		return PINOnce, true
	}
}

func (p TouchPolicy) effective() (TouchPolicy, bool) {
	switch {
	case p > TouchCached:
		return 0, false
	case p == TouchDefault:
		return TouchNever, true
	default:
		return p, true
	}
}

// FormFactor is the shape of a YubiKey as its management application and its attestation name it.
type FormFactor byte

// Form factors. The models certified for FIPS 140 have bit 0x80 set too.
const (
	USBAKeychain  FormFactor = 0x01
	USBANano      FormFactor = 0x02
	USBCKeychain  FormFactor = 0x03
	USBCNano      FormFactor = 0x04
	USBCLightning FormFactor = 0x05
)
