package virtual

import (
	"bytes"
	"context"
	"crypto/subtle"
)

const (
	referencePIN = 0x80 // key references of SP 800-73-4 part 1, table 4a
	referencePUK = 0x81

	referenceLen    = 8
	minReferenceLen = 6
)

// reference is a PIN or PUK with its retry counter.
type reference struct {
	value      [referenceLen]byte // padded with FF
	factory    [referenceLen]byte
	tries, max int
}

func newReference(factory string, tries int) reference {
	value, _ := padReference([]byte(factory))
	return reference{value, value, tries, tries}
}

// padReference pads a PIN to eight bytes, and reports whether it is one: 6 to 8 bytes, none of them the padding FF.
func padReference(b []byte) ([referenceLen]byte, bool) {
	var padded [referenceLen]byte
	b = bytes.TrimRight(b, "\xff")
	n := copy(padded[:], b)
	copy(padded[n:], bytes.Repeat([]byte{0xff}, referenceLen))
	return padded, len(b) >= minReferenceLen && len(b) <= referenceLen && !bytes.Contains(b, []byte{0xff})
}

func (r *reference) isFactory() bool { return r.value == r.factory }

// check compares a PIN and counts (SP 800-73-4 part 2, 3.2.1). A blocked PIN is not compared.
func (r *reference) check(b []byte) StatusWord {
	if r.tries == 0 {
		return AuthBlocked
	}
	if subtle.ConstantTimeCompare(r.value[:], b) == 1 {
		r.tries = r.max
		return Success
	}
	r.tries--
	return wrongPIN(r.tries)
}

// replace stores a new value and gives all tries back. A value that is too short is refused with Yubico's 6985.
func (r *reference) replace(b []byte) StatusWord {
	value, ok := padReference(b)
	if !ok {
		return ConditionsNotSatisfied
	}
	r.value, r.tries = value, r.max
	return Success
}

// verify is VERIFY (SP 800-73-4 part 2, 3.2.1): with a PIN it compares, without data it asks, with P1 FF it forgets.
func (c *Card) verify(_ context.Context, r request) ([]byte, StatusWord) {
	if r.p2 != referencePIN {
		return nil, ReferenceNotFound
	}
	switch {
	case r.p1 == 0xff && len(r.data) == 0:
		c.session.pinVerified = false
		return nil, Success
	case r.p1 != 0:
		return nil, IncorrectP1P2
	case len(r.data) == 0:
		return nil, c.verified()
	case len(r.data) != referenceLen:
		return nil, IncorrectData
	}
	sw := c.pin.check(r.data)
	c.session.pinVerified = sw == Success
	c.session.pinFresh = sw == Success
	return nil, sw
}

// verified answers the question whether the PIN is needed: no, or how many tries are left.
func (c *Card) verified() StatusWord {
	verified := c.session.pinVerified
	if c.firmware.emptyVerifyForgetsPIN() {
		c.session.pinVerified = false
	}
	switch {
	case verified:
		return Success
	case c.pin.tries == 0:
		return AuthBlocked
	default:
		return wrongPIN(c.pin.tries)
	}
}

// changeReference is CHANGE REFERENCE DATA (SP 800-73-4 part 2, 3.2.2): the old value and the new one.
func (c *Card) changeReference(_ context.Context, r request) ([]byte, StatusWord) {
	ref := &c.pin
	switch {
	case r.p1 != 0:
		return nil, ReferenceNotFound
	case r.p2 == referencePUK:
		ref = &c.puk
	case r.p2 != referencePIN:
		return nil, ReferenceNotFound
	}
	if len(r.data) != 2*referenceLen {
		return nil, IncorrectData
	}
	sw := ref.check(r.data[:referenceLen])
	if r.p2 == referencePIN {
		c.session.pinVerified = sw == Success
	}
	if sw == Success {
		sw = ref.replace(r.data[referenceLen:])
	}
	return nil, sw
}

// resetRetry is RESET RETRY COUNTER (SP 800-73-4 part 2, 3.2.3): the PUK and a new PIN. The PIN is not verified by it.
func (c *Card) resetRetry(_ context.Context, r request) ([]byte, StatusWord) {
	if r.p1 != 0 || r.p2 != referencePIN {
		return nil, ReferenceNotFound
	}
	if len(r.data) != 2*referenceLen {
		return nil, IncorrectData
	}
	sw := c.puk.check(r.data[:referenceLen])
	if sw == Success {
		sw = c.pin.replace(r.data[referenceLen:])
	}
	return nil, sw
}

// setRetries is SET PIN RETRIES. It wants the management key and the PIN, and brings the factory values of both back.
func (c *Card) setRetries(_ context.Context, r request) ([]byte, StatusWord) {
	if !c.session.managed || !c.session.pinVerified {
		return nil, SecurityNotSatisfied
	}
	if r.p1 == 0 || r.p2 == 0 {
		return nil, IncorrectP1P2
	}
	c.pin = newReference(DefaultPIN, int(r.p1))
	c.puk = newReference(defaultPUK, int(r.p2))
	c.session.pinVerified = false
	return nil, Success
}

// reset is RESET. It works only when PIN and PUK are blocked, and leaves the attestation key and its certificate.
func (c *Card) reset(_ context.Context, _ request) ([]byte, StatusWord) {
	if c.pin.tries > 0 || c.puk.tries > 0 {
		return nil, ConditionsNotSatisfied
	}
	c.pin = newReference(DefaultPIN, DefaultTries)
	c.puk = newReference(defaultPUK, DefaultTries)
	c.management = managementKey{c.firmware.defaultManagementAlgorithm(), DefaultManagementKey(), TouchNever}
	for slot := range c.keys {
		if slot != SlotAttestation {
			delete(c.keys, slot)
		}
	}
	for id := range c.objects {
		if id != objectAttestation {
			delete(c.objects, id)
		}
	}
	c.session = session{app: appPIV}
	return nil, Success
}
