package pivtest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"
)

// ErrRemoved is returned by [Card.Transmit] when the card was pulled out before it could answer.
var ErrRemoved = errors.New("pivtest: card removed")

// Transmit gives the card one command APDU, in short or extended form, and returns its answer: data and status word. It
// fails with [ErrRemoved] when ctx ends before the card can answer, or as [Card.RemoveDuring] wants, and never otherwise.
func (c *Card) Transmit(ctx context.Context, apdu []byte) ([]byte, error) {
	c.busy.Lock()
	defer c.busy.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()

	entry := Exchange{Start: time.Now()}
	data, sw, err := c.exchange(ctx, apdu, &entry)
	entry.Took = time.Since(entry.Start)
	if err == nil {
		entry.AnswerLen, entry.Status = len(data), sw
	}
	c.log = append(c.log, entry)
	if c.observe != nil {
		c.observe(entry)
	}
	if err != nil {
		return nil, err
	}
	if sw == NoStatus {
		return []byte{0}, nil
	}
	return append(slices.Clip(data), byte(sw>>8), byte(sw)), nil
}

// exchange runs one APDU: command chaining before the command, the split of a long answer after it.
func (c *Card) exchange(ctx context.Context, apdu []byte, entry *Exchange) ([]byte, StatusWord, error) {
	fresh := c.session.pinFresh
	c.session.pinFresh = false
	cmd, ok := parseCommand(apdu)
	if !ok {
		return nil, WrongLength, nil
	}
	entry.CLA, entry.INS, entry.P1, entry.P2, entry.DataLen = cmd.cla, cmd.ins, cmd.p1, cmd.p2, len(cmd.data)
	if c.removeDuring[cmd.ins] {
		delete(c.removeDuring, cmd.ins)
		c.link.remove()
		return nil, 0, ErrRemoved
	}
	if sw, fails := c.fails(cmd.ins); fails {
		return nil, sw, nil
	}
	if cmd.cla&^claChaining != 0 {
		return nil, UnknownClass, nil
	}
	if cmd.ins == InsGetResponse {
		data, sw := c.nextPart(cmd)
		return data, sw, nil
	}
	c.session.pending = nil
	r, whole, sw := c.assemble(request{cmd, fresh})
	if !whole {
		return nil, sw, nil
	}
	data, sw := c.dispatch(ctx, r)
	if ctx.Err() != nil {
		return nil, 0, ErrRemoved
	}
	if sw != Success {
		return nil, sw, nil
	}
	c.session.pending = data
	data, sw = c.nextPart(cmd)
	return data, sw, nil
}

// assemble joins the parts of a chained command, and reports whether it is whole. Another command ends an unfinished chain.
// What counts for a policy is the command before the first part.
func (c *Card) assemble(part request) (r request, whole bool, sw StatusWord) {
	first := c.session.chain
	c.session.chain = nil
	if first != nil && part.continues(first.command) {
		part.data = slices.Concat(first.data, part.data)
		part.pinFresh = first.pinFresh
	}
	switch {
	case len(part.data) > maxChain, part.ins == InsAuthenticate && len(part.data) > maxAuthenticate:
		return request{}, false, WrongLength
	case part.cla&claChaining == 0:
		return part, true, Success
	default:
		part.data = bytes.Clone(part.data)
		c.session.chain = &part
		return request{}, false, Success
	}
}

// nextPart returns as much of the pending answer as the command has room for.
func (c *Card) nextPart(cmd command) ([]byte, StatusWord) {
	pending := c.session.pending
	if cmd.ins == InsGetResponse && len(pending) == 0 {
		return nil, IncorrectData
	}
	n := min(len(pending), cmd.maxAnswer)
	c.session.pending = pending[n:]
	if rest := len(pending) - n; rest > 0 {
		return pending[:n], moreData(rest)
	}
	return pending, Success
}
