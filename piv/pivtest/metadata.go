package pivtest

import "context"

// metadata is GET METADATA, from firmware 5.3 on: what is known of a key, a PIN or the management key without using it.
func (c *Card) metadata(_ context.Context, r request) ([]byte, StatusWord) {
	if r.p1 != 0 {
		return nil, IncorrectP1P2
	}
	switch r.p2 {
	case referencePIN:
		return referenceMetadata(&c.pin), Success
	case referencePUK:
		return referenceMetadata(&c.puk), Success
	case byte(SlotManagement):
		return c.managementMetadata(), Success
	default:
		return c.keyMetadata(Slot(r.p2))
	}
}

const (
	metaAlgorithm = 0x01
	metaPolicy    = 0x02
	metaOrigin    = 0x03
	metaPublic    = 0x04
	metaFactory   = 0x05
	metaTries     = 0x06
)

func referenceMetadata(r *reference) []byte {
	const algorithmPIN = 0xff
	b := appendTLV(nil, metaAlgorithm, []byte{algorithmPIN})
	b = appendTLV(b, metaFactory, boolByte(r.isFactory()))
	return appendTLV(b, metaTries, []byte{byte(r.max), byte(r.tries)})
}

func (c *Card) managementMetadata() []byte {
	b := appendTLV(nil, metaAlgorithm, []byte{byte(c.management.algorithm)})
	b = appendTLV(b, metaPolicy, []byte{0, byte(c.management.touch)})
	return appendTLV(b, metaFactory, boolByte(c.management.isFactory(c.firmware)))
}

func (c *Card) keyMetadata(slot Slot) ([]byte, StatusWord) {
	if !slot.holdsKeyPair() {
		return nil, ReferenceNotFound
	}
	if slot == SlotAttestation && c.ensureAttestation() != nil {
		return nil, ConditionsNotSatisfied
	}
	key, ok := c.keys[slot]
	if !ok {
		return nil, ReferenceNotFound
	}
	b := appendTLV(nil, metaAlgorithm, []byte{byte(key.algorithm)})
	b = appendTLV(b, metaPolicy, []byte{byte(key.pin), byte(key.touch)})
	b = appendTLV(b, metaOrigin, []byte{key.origin})
	return appendTLV(b, metaPublic, publicKey(key.private.Public())), Success
}

func boolByte(b bool) []byte {
	if b {
		return []byte{1}
	}
	return []byte{0}
}
