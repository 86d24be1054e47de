package pivtest

import "fmt"

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
