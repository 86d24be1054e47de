package pivtest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// ErrRemoved is returned by [Card.Transmit] when the card was pulled out before it could answer.
var ErrRemoved = errors.New("pivtest: card removed")

// Card is a virtual YubiKey: its memory, its keys and what it knows about the program that talks to it. Its methods may be
// called from any goroutine. Commands run one after the other, as in a real card.
type Card struct {
	firmware   Firmware
	serial     uint32
	formFactor FormFactor
	ca         *CA

	attestationAlgorithm Algorithm
	touchCache           time.Duration
	observe              func(Exchange)

	busy sync.Mutex // held while a command runs
	mu   sync.Mutex // guards what follows; not held while the card waits for a touch

	// What survives the loss of power.
	pin, puk   reference
	management managementKey
	keys       map[Slot]*keyPair
	objects    map[uint32][]byte

	attestationMade bool // slot f9 and its certificate are there

	session session

	touch        TouchFunc
	touchTimeout time.Duration
	touched      time.Time // last touch

	log          []Exchange
	removeDuring map[byte]bool

	link link
}

// session is what a card forgets when it loses power.
type session struct {
	app     application
	chain   command // parts of a chained command received so far
	chained bool
	pending []byte // rest of an answer, for GET RESPONSE

	pinVerified bool
	pinFresh    bool // the command before this one was a VERIFY that succeeded
	managed     bool // management key authenticated
	auth        authentication
}

// New makes a card that is in no reader. Its zero-valued options are documented at [Config].
func New(cfg Config) (*Card, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Card{
		firmware:             cfg.Firmware,
		serial:               cfg.Serial,
		formFactor:           cfg.FormFactor,
		ca:                   cfg.CA,
		attestationAlgorithm: cfg.AttestationAlgorithm,
		touch:                cfg.Touch,
		touchTimeout:         cfg.TouchTimeout,
		touchCache:           cfg.TouchCache,
		observe:              cfg.Observe,
		keys:                 make(map[Slot]*keyPair),
		objects:              make(map[uint32][]byte),
		pin:                  newReference(cfg.PIN, DefaultPIN, cfg.PINTries),
		puk:                  newReference(cfg.PUK, DefaultPUK, cfg.PUKTries),
		management:           managementKey{cfg.ManagementAlgorithm, append([]byte(nil), cfg.ManagementKey...), TouchNever},
		removeDuring:         make(map[byte]bool),
	}
	c.link.addr = cfg.Addr
	return c, nil
}

// Serial returns the serial number.
func (c *Card) Serial() uint32 { return c.serial }

// Firmware returns the firmware version.
func (c *Card) Firmware() Firmware { return c.firmware }

// ATR returns the answer to reset.
func (c *Card) ATR() []byte { return c.firmware.atr() }

// Reader returns the name of the PC/SC reader the card was put into by [Start], "" without it.
func (c *Card) Reader() string { return c.link.readerName() }

// SetTouch replaces the finger. A touch the card waits for already is not affected.
func (c *Card) SetTouch(f TouchFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.touch = f
}

// SetTouchTimeout changes how long the card waits for a touch before it answers 6982.
func (c *Card) SetTouchTimeout(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.touchTimeout = d
}

// SetPINTries changes how many tries the PIN has left. 0 blocks it; the tries it has after it was entered right stay.
func (c *Card) SetPINTries(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pin.tries = n
}

// PINTries returns how many tries the PIN has left.
func (c *Card) PINTries() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pin.tries
}

// SetPUKTries changes how many tries the PUK has left. 0 blocks it.
func (c *Card) SetPUKTries(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.puk.tries = n
}

// PUKTries returns how many tries the PUK has left.
func (c *Card) PUKTries() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.puk.tries
}

// PINVerified reports whether the card has seen the right PIN in its present session.
func (c *Card) PINVerified() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session.pinVerified
}

// PowerCycle makes the card forget what it knows of the program: selected application, PIN, management key. A reader does
// it when it resets the card or takes its power.
func (c *Card) PowerCycle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session = session{}
}

// unplugged makes the card forget what it forgets without USB: the session, and the touch it had.
func (c *Card) unplugged() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session, c.touched = session{}, time.Time{}
}

// Transmit gives the card one command APDU, in short or extended form, and returns its answer: data and status word. It
// fails with [ErrRemoved] when ctx ends before the card can answer, and never otherwise.
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
	return append(slices.Clip(data), byte(sw>>8), byte(sw)), nil
}

// exchange runs one APDU: command chaining before the command, the split of a long answer after it.
func (c *Card) exchange(ctx context.Context, apdu []byte, entry *Exchange) ([]byte, StatusWord, error) {
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
	if cmd.cla&^claChaining != 0 {
		return nil, UnknownClass, nil
	}
	if cmd.ins == InsGetResponse {
		data, sw := c.nextPart(cmd)
		return data, sw, nil
	}
	c.session.pending = nil
	cmd, sw := c.assemble(cmd)
	if sw != Success || cmd.cla&claChaining != 0 {
		return nil, sw, nil
	}
	data, sw := c.dispatch(ctx, cmd)
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

// assemble joins the parts of a chained command. It returns the command whole, or the part itself when more is to come.
func (c *Card) assemble(cmd command) (command, StatusWord) {
	s := &c.session
	if s.chained && !cmd.continues(s.chain) { // a new command ends an unfinished chain
		s.chain, s.chained = command{}, false
	}
	if !s.chained && cmd.cla&claChaining == 0 {
		return cmd, Success
	}
	if len(s.chain.data)+len(cmd.data) > maxChain {
		s.chain, s.chained = command{}, false
		return command{}, WrongLength
	}
	if !s.chained {
		s.chain, s.chained = cmd, true
		s.chain.data = append([]byte(nil), cmd.data...)
		return cmd, Success
	}
	s.chain.data = append(s.chain.data, cmd.data...)
	if cmd.cla&claChaining != 0 {
		return cmd, Success
	}
	cmd.data = s.chain.data
	s.chain, s.chained = command{}, false
	return cmd, Success
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
	pinFresh bool // the PIN was verified by the command before
}

// handler answers one instruction. It is called with Card.mu held.
type handler func(c *Card, ctx context.Context, r request) ([]byte, StatusWord)

// dispatch runs one whole command in the selected application.
func (c *Card) dispatch(ctx context.Context, cmd command) ([]byte, StatusWord) {
	r := request{command: cmd, pinFresh: c.session.pinFresh}
	c.session.pinFresh = false
	auth := c.session.auth
	c.session.auth = authentication{}
	if cmd.ins == InsSelect {
		return c.selectApplication(r)
	}
	switch c.session.app {
	case appPIV:
		if h, ok := c.pivHandler(cmd.ins); ok {
			if cmd.ins == InsAuthenticate {
				c.session.auth = auth // its second step needs what the first one left
			}
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
		ins == InsGetMetadata && !c.firmware.hasMetadata(),
		ins == InsAttest && !c.firmware.hasAttestation(),
		ins == InsMoveKey && !c.firmware.hasMoveKey():
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
	InsMoveKey:         (*Card).moveKey,
	InsGetMetadata:     (*Card).metadata,
	InsAttest:          (*Card).attest,
	InsGetData:         (*Card).getData,
	InsPutData:         (*Card).putData,
	InsGetVersion:      (*Card).getVersion,
	InsGetSerial:       (*Card).getSerial,
}
