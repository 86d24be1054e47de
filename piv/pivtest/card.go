package pivtest

import (
	"bytes"
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
	failing      map[byte]failure

	link link
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
		management:           managementKey{cfg.ManagementAlgorithm, bytes.Clone(cfg.ManagementKey), cfg.ManagementTouch},
		removeDuring:         make(map[byte]bool),
		failing:              make(map[byte]failure),
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
