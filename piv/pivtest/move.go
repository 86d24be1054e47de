package pivtest

import "context"

// moveKey is MOVE KEY, from firmware 5.7 on: from slot P2 to slot P1, where FF deletes. A move to a slot that is in use
// replaces its key; certificates stay where they are.
func (c *Card) moveKey(_ context.Context, r request) ([]byte, StatusWord) {
	const deleted = 0xff
	if !c.session.managed {
		return nil, SecurityNotSatisfied
	}
	from, to := Slot(r.p2), Slot(r.p1)
	if !from.holdsKeyPair() || (r.p1 != deleted && (!to.holdsKeyPair() || to == from || to == SlotAttestation || from == SlotAttestation)) {
		return nil, IncorrectP1P2
	}
	if from == SlotAttestation && c.ensureAttestation() != nil {
		return nil, ConditionsNotSatisfied
	}
	key, ok := c.keys[from]
	if !ok {
		return nil, ReferenceNotFound
	}
	delete(c.keys, from)
	if r.p1 != deleted {
		c.keys[to] = key
	}
	return nil, Success
}
