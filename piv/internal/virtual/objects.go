package virtual

import (
	"bytes"
	"context"
)

const (
	tagObjectID = 0x5c
	tagObject   = 0x53

	tagCertificate = 0x70
	tagCertInfo    = 0x71
	tagErrorCode   = 0xfe

	objectDiscovery   = 0x7e
	objectAttestation = 0x5fff01

	// maxObject is the most bytes an object may have on a YubiKey 4 or 5.
	maxObject = 3052
)

// pinProtected are the objects that SP 800-73-4 part 1, table 2, lets only the holder read: fingerprints, facial image,
// printed information (where programs keep a PIN-protected management key), iris images.
var pinProtected = map[uint32]bool{0x5fc103: true, 0x5fc108: true, 0x5fc109: true, 0x5fc121: true}

// discovery is the discovery object (SP 800-73-4 part 1, 3.3.2): application identifier, and a PIN policy that says the
// application PIN and nothing else.
var discovery = []byte("\x7e\x12\x4f\x0b\xa0\x00\x00\x03\x08\x00\x00\x10\x00\x01\x00\x5f\x2f\x02\x40\x00")

// getData is GET DATA (SP 800-73-4 part 2, 3.1.2).
func (c *Card) getData(_ context.Context, r request) ([]byte, StatusWord) {
	if r.p1 != 0x3f || r.p2 != 0xff {
		return nil, IncorrectP1P2
	}
	name, rest, err := parseTLV(r.data)
	if err != nil || len(rest) > 0 || name.tag != tagObjectID {
		return nil, IncorrectData
	}
	if bytes.Equal(name.value, []byte{objectDiscovery}) {
		return discovery, Success
	}
	id, ok := objectID(name.value)
	if !ok {
		return nil, NotFound
	}
	if pinProtected[id] && !c.session.pinVerified {
		return nil, SecurityNotSatisfied
	}
	if id == objectAttestation && c.ensureAttestation() != nil {
		return nil, ConditionsNotSatisfied
	}
	object, ok := c.objects[id]
	if !ok {
		return nil, NotFound
	}
	return appendTLV(nil, tagObject, object), Success
}

// putData is PUT DATA (SP 800-73-4 part 2, 3.3.1). An empty object deletes what was there.
func (c *Card) putData(_ context.Context, r request) ([]byte, StatusWord) {
	if !c.session.managed {
		return nil, SecurityNotSatisfied
	}
	if r.p1 != 0x3f || r.p2 != 0xff {
		return nil, IncorrectP1P2
	}
	all, err := parseTLVs(r.data)
	if err != nil || len(all) != 2 || all[0].tag != tagObjectID || all[1].tag != tagObject {
		return nil, IncorrectData
	}
	id, ok := objectID(all[0].value)
	if id == objectAttestation && c.ensureAttestation() != nil {
		return nil, ConditionsNotSatisfied
	}
	switch value := all[1].value; {
	case !ok:
		return nil, IncorrectData
	case len(value) > maxObject:
		return nil, NotEnoughMemory
	case len(value) == 0:
		delete(c.objects, id)
	default:
		c.objects[id] = append([]byte(nil), value...)
	}
	return nil, Success
}

// objectID reads the name of an object: three bytes, the first of them 5F.
func objectID(b []byte) (uint32, bool) {
	if len(b) != 3 || b[0] != 0x5f {
		return 0, false
	}
	return uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2]), true
}

// certificateObject wraps a certificate as SP 800-73-4 part 1, table 10, does: uncompressed, with an empty error code.
func certificateObject(der []byte) []byte {
	b := appendTLV(nil, tagCertificate, der)
	b = appendTLV(b, tagCertInfo, []byte{0})
	return appendTLV(b, tagErrorCode, nil)
}

// certificateOf returns the certificate in an object, nil if there is none.
func certificateOf(object []byte) []byte {
	all, err := parseTLVs(object)
	if err != nil {
		return nil
	}
	der, _ := find(all, tagCertificate)
	return der
}

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
