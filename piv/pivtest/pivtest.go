//go:build linux

// Package pivtest puts a virtual YubiKey into a reader of the real PC/SC daemon, for tests: programs that use PIV through
// libpcsclite, go-piv or package piv can use it unchanged. Command virtual-yubikey does so for programs that you run by hand.
//
//	card := pivtest.Start(t, pivtest.Config{Touch: pivtest.NoTouch})
//	key, err := piv.Open(ctx, piv.Options{Serial: card.Serial(), Prompt: prompt})
//
// The card is a YubiKey 5 or 4 with everything that package piv uses, and more: yubico-piv-tool, OpenSC and go-piv's own tests
// find no difference except the manufacturer's certificates. To verify its attestations, trust [Card.CA].
//
// # Requirements
//
// It runs on Linux, with the Debian packages pcscd and vsmartcard-vpcd, as root. [Start] runs pcscd with two virtual readers if
// none is running, and stops it with the test. There is one pcscd per machine, so Start waits for tests of other packages that use
// it (a file lock), and for other tests of the same process that have a card; one test and its subtests may have two cards.
//
// # Differences from hardware
//
// The reader stays when the card is removed, whereas a real YubiKey is its own reader.
// An interrupted command fails with SCARD_E_NOT_TRANSACTED (0x80100016), later ones with SCARD_W_REMOVED_CARD (0x80100069).
// pcscd notices changes of the card up to 0.4 s later, and powers it off 0.4 to 0.8 s after the last program has closed
// it, so that it forgets the PIN. With real readers that takes some seconds.
package pivtest

import (
	"context"
	"crypto/x509"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/piv/internal/pcscd"
	"github.com/ycauth/ycauth-go/piv/internal/virtual"
)

// DefaultPIN is the initial PIN of every card.
const DefaultPIN = virtual.DefaultPIN

// Firmware is the version of a YubiKey's firmware. It decides which commands, algorithms and bugs the card has.
type Firmware struct{ Major, Minor, Patch byte }

// Firmware versions that behave differently. Any other version from 4.3 on can be used too.
var (
	// Firmware43 is the first generation with attestation. It has no serial number command and no metadata.
	Firmware43 = Firmware(virtual.Firmware43)
	// Firmware52 has the serial number command, but no metadata.
	Firmware52 = Firmware(virtual.Firmware52)
	// Firmware531 has metadata, and its bug: a query whether the PIN is verified makes the card forget the PIN.
	Firmware531 = Firmware(virtual.Firmware531)
	// Firmware54 has AES management keys.
	Firmware54 = Firmware(virtual.Firmware54)
	// Firmware57 has Ed25519, RSA 3072 and 4096, and an attestation chain with intermediates.
	Firmware57 = Firmware(virtual.Firmware57)
)

// Config describes a card. The zero value is a new YubiKey with firmware 5.7 that is touched as soon as it blinks.
type Config struct {
	// Firmware determines the features of the card. Optional. Default: Firmware57.
	Firmware Firmware

	// Serial is the serial number. Optional. Default: 10000001. Two cards in a test need different serial numbers.
	Serial uint32

	// Touch simulates the user. It is called when the card starts to blink, at most once at a time, and returns true to touch
	// the sensor. Its ctx is canceled when the card stops waiting, because of the timeout or its removal. If Touch returns
	// false, the card keeps blinking until the timeout. Optional. Default: TouchAfter(0).
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

// Start creates a card and inserts it into a reader until the test ends. It returns when PC/SC lists the card.
//
// If pcscd or vsmartcard-vpcd is not installed, the test is skipped, or fails with CI=true in the environment.
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

// CA returns the manufacturer of the card.
func (c *Card) CA() *CA { return &CA{c.card.CA()} }

// SetTouch replaces [Config].Touch. It does not affect a touch that the card is already waiting for.
func (c *Card) SetTouch(touch func(ctx context.Context) bool) { c.card.SetTouch(touch) }

// SetPINTries sets how many PIN attempts are left; 0 blocks the PIN. As usual, the right PIN restores all attempts.
func (c *Card) SetPINTries(n int) { c.card.SetPINTries(n) }

// Remove removes the card from its reader, even during a command. It returns at once; PC/SC notices up to
// 400 ms later, see [Card.WaitRemoved].
func (c *Card) Remove() { c.card.Remove() }

// WaitRemoved waits until PC/SC has noticed that the card was removed.
func (c *Card) WaitRemoved(ctx context.Context) error { return c.card.WaitRemoved(ctx) }

// Insert puts the card back into its reader, and waits until PC/SC lists it.
func (c *Card) Insert(ctx context.Context) error { return c.card.Insert(ctx) }

// Count returns how many commands with one of the instructions (INS of SP 800-73-4) reached the card since [Card.ResetLog].
// Without instructions it counts all commands.
func (c *Card) Count(ins ...byte) int { return c.card.Count(ins...) }

// ResetLog resets [Card.Count] to 0.
func (c *Card) ResetLog() { c.card.ResetLog() }

// HoldOptions describes how another program uses a card.
type HoldOptions struct {
	// Exclusive connects in exclusive mode. Optional. Default: shared mode.
	Exclusive bool

	// Transaction begins a transaction and does not end it. Optional.
	Transaction bool
}

// Hold simulates another program that opens the card, such as gpg's scdaemon or a browser. It waits for another program's
// transaction to end until ctx is done, and returns an error while the card is open exclusively.
func (c *Card) Hold(ctx context.Context, opts HoldOptions) (*Holder, error) {
	h, err := c.card.Hold(ctx, pcscd.HoldOptions(opts))
	if err != nil {
		return nil, err
	}
	return &Holder{h}, nil
}

// Holder is another program that has a card open.
type Holder struct{ holder *pcscd.Holder }

// Release closes the card. When it returns, others can open it. A second call does nothing.
func (h *Holder) Release() error { return h.holder.Release() }

// CA is a manufacturer of YubiKeys: a root and intermediates that sign the attestation certificates of its cards. From firmware
// 5.7.4 on there are two intermediates, before that none. A verifier needs them in addition to the root.
type CA struct{ ca *virtual.CA }

// Roots returns a pool with the root.
func (ca *CA) Roots() *x509.CertPool { return ca.ca.Roots() }

// IntermediatePool returns a pool with the intermediates.
func (ca *CA) IntermediatePool() *x509.CertPool { return ca.ca.IntermediatePool() }

// PEM returns the root and the intermediates as certificates in PEM, root first.
func (ca *CA) PEM() []byte { return ca.ca.PEM() }
