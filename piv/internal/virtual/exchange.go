package virtual

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"
)

// ErrRemoved is returned by [Card.Transmit] when the card was pulled out before it could answer.
var ErrRemoved = errors.New("card removed")

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

// request is a whole command on its way to its handler.
type request struct {
	command
	pinFresh bool // the command before was a VERIFY that succeeded
}

// handler answers one instruction. It is called with Card.mu held.
type handler func(c *Card, ctx context.Context, r request) ([]byte, StatusWord)

// dispatch runs one whole command in the selected application.
func (c *Card) dispatch(ctx context.Context, r request) ([]byte, StatusWord) {
	if r.ins != InsAuthenticate { // whose second step needs what the first one left
		c.session.auth = authentication{}
	}
	if r.ins == InsSelect {
		return c.selectApplication(r)
	}
	switch c.session.app {
	case appPIV:
		if h, ok := c.pivHandler(r.ins); ok {
			return h(c, ctx, r)
		}
	case appOTP:
		return c.otpCommand(r)
	case appManagement:
		return c.managementCommand(r)
	}
	return nil, UnknownInstruction
}

// pivHandler returns the handler of an instruction the firmware has.
func (c *Card) pivHandler(ins byte) (handler, bool) {
	switch {
	case ins == InsGetSerial && !c.firmware.hasPIVSerial(),
		ins == InsGetMetadata && !c.firmware.hasMetadata():
		return nil, false
	}
	h, ok := pivHandlers[ins]
	return h, ok
}

var pivHandlers = map[byte]handler{
	InsVerify:          (*Card).verify,
	InsChangeReference: (*Card).changeReference,
	InsResetRetry:      (*Card).resetRetry,
	InsSetPINRetries:   (*Card).setRetries,
	InsReset:           (*Card).reset,
	InsAuthenticate:    (*Card).authenticate,
	InsSetManagement:   (*Card).setManagementKey,
	InsGenerate:        (*Card).generate,
	InsImportKey:       (*Card).importKey,
	InsGetMetadata:     (*Card).metadata,
	InsAttest:          (*Card).attest,
	InsGetData:         (*Card).getData,
	InsPutData:         (*Card).putData,
	InsGetVersion:      (*Card).getVersion,
	InsGetSerial:       (*Card).getSerial,
}

// Exchange is one command APDU that reached the card and the status word it got. It holds no data of either, so no PIN and no
// key: parts of a chained command and every GET RESPONSE are exchanges of their own.
type Exchange struct {
	Start time.Time
	Took  time.Duration // until the answer; a touch is in it

	CLA, INS, P1, P2 byte
	DataLen          int // bytes of command data
	AnswerLen        int // bytes of answer data, without the status word
	Status           StatusWord
}

// Log returns the commands that reached the card since it was made or [Card.ResetLog] was called, oldest first. A command
// that was cut off by removing the card is in it with status word 0.
func (c *Card) Log() []Exchange {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Exchange(nil), c.log...)
}

// Count returns how many commands with one of the instructions reached the card since [Card.ResetLog]; without
// instructions it counts all.
func (c *Card) Count(ins ...byte) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(ins) == 0 {
		return len(c.log)
	}
	n := 0
	for _, e := range c.log {
		for _, i := range ins {
			if e.INS == i {
				n++
			}
		}
	}
	return n
}

// ResetLog forgets the commands logged so far.
func (c *Card) ResetLog() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log = nil
}
