package piv

import (
	"fmt"
	"strconv"
)

// Slot is a slot of a card for one key (NIST SP 800-73-4 part 1, table 4b, including
// the retired key management slots of Yubico's PIV). Its text is two hexadecimal
// digits.
type Slot byte

// The named slots. Every slot can contain any signing key; they differ
// in the default PIN policy of the card.
const (
	SlotAuthentication     Slot = 0x9a
	SlotSignature          Slot = 0x9c
	SlotKeyManagement      Slot = 0x9d
	SlotCardAuthentication Slot = 0x9e

	// SlotRetired1 to SlotRetired20 are free for any use.
	SlotRetired1  Slot = 0x82
	SlotRetired20 Slot = 0x95

	// slotAttestation holds the device's own attestation key, which signs
	// nothing but statements about other keys.
	slotAttestation Slot = 0xf9
)

// ParseSlot parses a slot as the tools write it: "9a", "9c", "9d", "9e" or "82"
// to "95", in either case.
func ParseSlot(s string) (Slot, error) {
	n, err := strconv.ParseUint(s, 16, 8)
	if err != nil || len(s) != 2 || !Slot(n).valid() {
		return 0, fmt.Errorf("piv: %q is not a slot: want 9a, 9c, 9d, 9e or 82 to 95", s)
	}
	return Slot(n), nil
}

// String returns the two hexadecimal digits, such as "9a".
func (s Slot) String() string { return fmt.Sprintf("%02x", byte(s)) }

func (s Slot) valid() bool {
	switch s {
	case SlotAuthentication, SlotSignature, SlotKeyManagement, SlotCardAuthentication:
		return true
	}
	return s >= SlotRetired1 && s <= SlotRetired20
}

// MarshalText implements [encoding.TextMarshaler].
func (s Slot) MarshalText() ([]byte, error) {
	if !s.valid() {
		return nil, fmt.Errorf("piv: %v is not a slot", s)
	}
	return []byte(s.String()), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (s *Slot) UnmarshalText(text []byte) error {
	slot, err := ParseSlot(string(text))
	if err != nil {
		return err
	}
	*s = slot
	return nil
}
