// Package virtual simulates a YubiKey with PIV: a smart card in Go that processes command APDUs and returns response
// APDUs. Package pcscd puts one into a reader of the real PC/SC daemon.
//
// The card follows NIST SP 800-73-4 ("Interfaces for Personal Identity Verification", part 2) and Yubico's
// documents "Yubico extensions to PIV" and "PIV attestation". Where they are silent, it behaves like firmware 5.
//
// It measures time with package time, so that a touch that never comes takes no time inside a testing/synctest bubble.
package virtual

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Card is a virtual YubiKey: its memory, its keys and what it knows about the program that talks to it. Its methods may be
// called from any goroutine. Commands run one after the other, as in a real card.
type Card struct {
	firmware   Firmware
	serial     uint32
	formFactor FormFactor
	ca         *CA

	observe func(Exchange)

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
	failing      map[byte]failure
}

// session is what a card forgets when it loses power.
type session struct {
	app     application
	chain   *request // parts of a chained command received so far
	pending []byte   // rest of an answer, for GET RESPONSE

	pinVerified bool
	pinFresh    bool // the last command was a VERIFY that succeeded
	managed     bool // management key authenticated
	auth        authentication
}

// New makes a card that is in no reader. Its zero-valued options are documented at [Config].
func New(cfg Config) (*Card, error) {
	cfg = cfg.withDefaults()
	if !cfg.Firmware.AtLeast(4, 3, 0) {
		return nil, fmt.Errorf("firmware %v is older than 4.3.0, the first with attestation", cfg.Firmware)
	}
	ca, err := caFor(cfg.Firmware)
	if err != nil {
		return nil, err
	}
	return &Card{
		firmware:     cfg.Firmware,
		serial:       cfg.Serial,
		formFactor:   cfg.FormFactor,
		ca:           ca,
		touch:        cfg.Touch,
		touchTimeout: cfg.TouchTimeout,
		observe:      cfg.Observe,
		keys:         make(map[Slot]*keyPair),
		objects:      make(map[uint32][]byte),
		pin:          newReference(DefaultPIN, DefaultTries),
		puk:          newReference(defaultPUK, DefaultTries),
		management:   managementKey{cfg.Firmware.defaultManagementAlgorithm(), DefaultManagementKey(), cfg.ManagementTouch},
		removeDuring: make(map[byte]bool),
		failing:      make(map[byte]failure),
	}, nil
}

// Serial returns the serial number.
func (c *Card) Serial() uint32 { return c.serial }

// Firmware returns the firmware version.
func (c *Card) Firmware() Firmware { return c.firmware }

// ATR returns the answer to reset.
func (c *Card) ATR() []byte { return c.firmware.atr() }

// What a card has when it leaves the factory and after a reset.
const (
	DefaultPIN   = "123456"
	DefaultTries = 3 // of PIN and of PUK, each

	defaultPUK = "12345678"
)

// DefaultManagementKey returns the management key of a new card. Its algorithm is triple DES, from firmware 5.7 on AES-192.
func DefaultManagementKey() []byte {
	return []byte("\x01\x02\x03\x04\x05\x06\x07\x08\x01\x02\x03\x04\x05\x06\x07\x08\x01\x02\x03\x04\x05\x06\x07\x08")
}

// TouchFunc is the finger. The card calls it when it starts to blink, at most once at a time; ctx ends when the card stops
// waiting: the touch time-out has passed or the card was removed. It returns true when the sensor was touched, and must not
// outlive ctx. After false the card goes on blinking until its time-out.
type TouchFunc func(ctx context.Context) bool

// TouchAfter returns a finger that touches the sensor after d.
func TouchAfter(d time.Duration) TouchFunc {
	return func(ctx context.Context) bool {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return true
		case <-ctx.Done():
			return false
		}
	}
}

// NoTouch is the finger that never comes: the card answers 6982 after its touch time-out.
func NoTouch(ctx context.Context) bool {
	<-ctx.Done()
	return false
}

// Config describes a card. The zero value is a new YubiKey with firmware 5.7 that somebody touches as soon as it blinks.
type Config struct {
	// Firmware decides what the card can do. Optional; Firmware57 by default.
	Firmware Firmware
	// Serial is the serial number. Optional; 10000001 by default. Two cards in a test want two serial numbers.
	Serial uint32
	// FormFactor is what the attestation says. Optional; USBAKeychain by default.
	FormFactor FormFactor

	// ManagementTouch says when the management key needs a touch. Optional; TouchNever by default.
	ManagementTouch TouchPolicy

	// Touch is called when the card waits for a touch. Optional; TouchAfter(0) by default.
	Touch TouchFunc
	// TouchTimeout is how long the card waits for a touch before it answers 6982. Optional; 15 s by default.
	TouchTimeout time.Duration
	// Observe is called after every command with what the log says of it. Optional. It must not call the card.
	Observe func(Exchange)
}

func (cfg Config) withDefaults() Config {
	setDefault(&cfg.Firmware, Firmware57)
	setDefault(&cfg.Serial, 10000001)
	setDefault(&cfg.FormFactor, USBAKeychain)
	setDefault(&cfg.ManagementTouch, TouchNever)
	setDefault(&cfg.TouchTimeout, 15*time.Second)
	if cfg.Touch == nil {
		cfg.Touch = TouchAfter(0)
	}
	return cfg
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// SetTouch replaces the finger. A touch the card waits for already is not affected.
func (c *Card) SetTouch(f TouchFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.touch = f
}

// SetPINTries changes how many tries the PIN has left. 0 blocks it. Entering it right brings all tries back, as ever.
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

// Unplug makes the card forget what it forgets without USB: the session, and the touch it had.
func (c *Card) Unplug() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session, c.touched = session{}, time.Time{}
}

// RemoveDuring has the card pulled out when the next command with the instruction reaches it, before it is carried out.
func (c *Card) RemoveDuring(ins byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.removeDuring[ins] = true
}

// NoStatus stands for a response that breaks off before its status word; see [Card.FailNext].
const NoStatus StatusWord = 0

// failure is what some commands are answered with.
type failure struct {
	left   int
	status StatusWord
}

// FailNext makes the card answer the next n commands with an instruction with a status word, and not carry them out.
func (c *Card) FailNext(ins byte, n int, status StatusWord) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failing[ins] = failure{n, status}
}

// fails reports what a command is answered with instead of being carried out.
func (c *Card) fails(ins byte) (StatusWord, bool) {
	f, ok := c.failing[ins]
	if !ok || f.left == 0 {
		return 0, false
	}
	c.failing[ins] = failure{f.left - 1, f.status}
	return f.status, true
}
