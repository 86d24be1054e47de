package pivtest

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
