//go:build linux

// Package pivtest puts a virtual YubiKey into a reader of the real PC/SC daemon, for tests: programs that use PIV through
// libpcsclite, go-piv or package piv talk to it unchanged. Command virtual-yubikey does so for programs that are tried by hand.
//
//	card := pivtest.Start(t, pivtest.Config{Touch: pivtest.NoTouch})
//	key, err := piv.Open(ctx, piv.Options{Serial: card.Serial(), Prompt: prompt})
//
// The card is a YubiKey 5 or 4 with all that package piv uses of it, and more: yubico-piv-tool, OpenSC and go-piv's own tests
// find no difference but the makers' certificates. Trust [Card.CA] to have its attestations verified.
//
// # Where it runs
//
// On Linux, with the Debian packages pcscd and vsmartcard-vpcd, as root. [Start] runs pcscd with two virtual readers if none
// runs, and ends it with the test. There is one pcscd per machine, so Start waits for the tests of other packages that use it
// (a file lock), and within a process for other tests that hold a card; one test and its subtests may hold two cards.
//
// # What is not like hardware
//
// The reader stays when the card is pulled out, as if the YubiKey were a card indeed; a pulled YubiKey takes its reader with it.
// A command that is cut off fails with SCARD_E_NOT_TRANSACTED (0x80100016), later ones with SCARD_W_REMOVED_CARD (0x80100069).
// pcscd notices what happens to the card up to 0.4 s later, and takes its power 0.4 to 0.8 s after the last program has closed
// it: the PIN is forgotten then. With real readers that takes some seconds.
package pivtest

import (
	"context"
	"crypto/x509"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/piv/internal/pcscd"
	"github.com/ycauth/ycauth-go/piv/internal/virtual"
)

// DefaultPIN is the PIN of every card at the start.
const DefaultPIN = virtual.DefaultPIN

// Firmware is the version of a YubiKey's firmware. It decides which commands, algorithms and bugs the card has.
type Firmware struct{ Major, Minor, Patch byte }

// Firmware versions that differ in what a program meets. Any other from 4.3 on may be given too.
var (
	// Firmware43 is the first generation with attestation. It has no serial number command and no metadata.
	Firmware43 = Firmware(virtual.Firmware43)
	// Firmware52 has the serial number command, but no metadata.
	Firmware52 = Firmware(virtual.Firmware52)
	// Firmware531 has metadata, and its bug: asking whether the PIN is verified forgets the PIN.
	Firmware531 = Firmware(virtual.Firmware531)
	// Firmware54 has AES management keys.
	Firmware54 = Firmware(virtual.Firmware54)
	// Firmware57 has Ed25519, RSA 3072 and 4096, and an attestation chain with intermediates.
	Firmware57 = Firmware(virtual.Firmware57)
)

// Config describes a card. The zero value is a new YubiKey with firmware 5.7 that somebody touches as soon as it blinks.
type Config struct {
	// Firmware decides what the card can do. Optional. Default: Firmware57.
	Firmware Firmware

	// Serial is the serial number. Optional. Default: 10000001. Two cards in a test want two serial numbers.
	Serial uint32

	// Touch is called when the card starts to blink, at most once at a time. It returns true when the sensor was touched. Its
	// ctx ends when the card stops waiting: the touch time-out has passed or the card was removed. After false the card goes on
	// blinking until its time-out. Optional. Default: TouchAfter(0).
	Touch func(ctx context.Context) bool

	// TouchTimeout is how long the card waits for a touch. Optional. Default: 15 s.
	TouchTimeout time.Duration
}

// TouchAfter returns a Touch that touches the sensor after d.
func TouchAfter(d time.Duration) func(ctx context.Context) bool { return virtual.TouchAfter(d) }

// NoTouch is a Touch that never comes.
func NoTouch(ctx context.Context) bool { return virtual.NoTouch(ctx) }

// Card is a virtual YubiKey. Its methods may be called from any goroutine.
type Card struct{ card *pcscd.Card }

// Start makes a card and puts it into a reader until the test ends. It returns when PC/SC lists the card.
//
// Where pcscd or vsmartcard-vpcd is not installed the test is skipped, and fails if the environment says CI=true.
func Start(tb testing.TB, cfg Config) *Card {
	tb.Helper()
	return &Card{pcscd.Start(tb, virtual.Config{
		Firmware: virtual.Firmware(cfg.Firmware), Serial: cfg.Serial, Touch: cfg.Touch, TouchTimeout: cfg.TouchTimeout,
	})}
}

// Serial returns the serial number.
func (c *Card) Serial() uint32 { return c.card.Serial() }

// Reader returns the name of the PC/SC reader that the card is in.
func (c *Card) Reader() string { return c.card.Reader() }

// CA returns the maker of the card.
func (c *Card) CA() *CA { return &CA{c.card.CA()} }

// SetTouch replaces [Config].Touch. A touch that the card waits for already is not affected.
func (c *Card) SetTouch(touch func(ctx context.Context) bool) { c.card.SetTouch(touch) }

// SetPINTries changes how many tries the PIN has left. 0 blocks it. Entering it right brings all tries back, as ever.
func (c *Card) SetPINTries(n int) { c.card.SetPINTries(n) }

// Remove pulls the card out of its reader, in the middle of a command if one runs. It returns at once; PC/SC notices up to
// 400 ms later, see [Card.WaitRemoved].
func (c *Card) Remove() { c.card.Remove() }

// WaitRemoved waits until PC/SC has noticed that the card was removed.
func (c *Card) WaitRemoved(ctx context.Context) error { return c.card.WaitRemoved(ctx) }

// Insert puts the card back into its reader, and waits until PC/SC lists it.
func (c *Card) Insert(ctx context.Context) error { return c.card.Insert(ctx) }

// Count returns how many commands with one of the instructions (INS of SP 800-73-4) reached the card since [Card.ResetLog];
// without instructions it counts all.
func (c *Card) Count(ins ...byte) int { return c.card.Count(ins...) }

// ResetLog has [Card.Count] begin at 0.
func (c *Card) ResetLog() { c.card.ResetLog() }

// HoldOptions says how another program holds a card.
type HoldOptions struct {
	// Exclusive connects in exclusive mode. Optional. Default: shared mode.
	Exclusive bool

	// Transaction begins a transaction and stays in it. Optional.
	Transaction bool
}

// Hold lets another program open the card, as gpg's scdaemon or a browser would. It waits for a transaction of yet another one
// to end, but not longer than ctx, and is an error while the card is open exclusively.
func (c *Card) Hold(ctx context.Context, opts HoldOptions) (*Holder, error) {
	h, err := c.card.Hold(ctx, pcscd.HoldOptions(opts))
	if err != nil {
		return nil, err
	}
	return &Holder{h}, nil
}

// Holder is another program that has a card open.
type Holder struct{ holder *pcscd.Holder }

// Release closes the card in good order: when it returns, others can open it. A second call does nothing.
func (h *Holder) Release() error { return h.holder.Release() }

// CA is a maker of YubiKeys: a root and intermediates that sign the attestation certificates of its cards. From firmware 5.7.4
// on there are two intermediates, before there was none. A verifier needs them beside the root.
type CA struct{ ca *virtual.CA }

// Roots returns a pool with the root.
func (ca *CA) Roots() *x509.CertPool { return ca.ca.Roots() }

// IntermediatePool returns a pool with the intermediates.
func (ca *CA) IntermediatePool() *x509.CertPool { return ca.ca.IntermediatePool() }

// PEM returns the root and the intermediates as certificates in PEM, root first.
func (ca *CA) PEM() []byte { return ca.ca.PEM() }
