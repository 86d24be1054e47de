package piv

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"math/big"
	"time"
)

// KeySpec describes a key to generate.
type KeySpec struct {
	// Algorithm is the kind of key. Optional. Default: [AlgorithmP256].
	Algorithm Algorithm

	// PINPolicy says when the key needs the PIN. Optional. Default:
	// [PINPolicyOnce].
	PINPolicy PINPolicy

	// TouchPolicy says when the key needs a touch. Optional. Default:
	// [TouchPolicyCached], so that one touch covers a login, which takes several
	// proofs. With never, no touch is needed, and the key does not count as
	// secure; see [Attestation.Secure].
	TouchPolicy TouchPolicy

	// Overwrite allows to destroy the key that is in the slot, for ever. Optional.
	Overwrite bool

	// ManagementKey is the card's management key, 16, 24 or 32 bytes. Optional.
	// Default: the factory's; if the card refuses that one, the key that is
	// stored on the card under the PIN, for which the Prompt is asked.
	ManagementKey ManagementKey
}

// ManagementKey is a card's management key. It does not print: every verb of package
// fmt, encoding/json and log/slog show "REDACTED" in its place.
type ManagementKey []byte

// String implements [fmt.Stringer].
func (k ManagementKey) String() string {
	if len(k) == 0 {
		return ""
	}
	return "REDACTED"
}

// Format implements [fmt.Formatter].
func (k ManagementKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// MarshalText implements [encoding.TextMarshaler], and with it JSON and slog.
func (k ManagementKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

func (k KeySpec) withDefaults() KeySpec {
	if k.Algorithm == 0 {
		k.Algorithm = AlgorithmP256
	}
	if k.PINPolicy == 0 {
		k.PINPolicy = PINPolicyOnce
	}
	if k.TouchPolicy == 0 {
		k.TouchPolicy = TouchPolicyCached
	}
	return k
}

func (k KeySpec) validate() error {
	if k.PINPolicy > PINPolicyAlways {
		return becausef(ErrUnsupported, "PIN policy %v", k.PINPolicy)
	}
	if k.TouchPolicy > TouchPolicyCached {
		return becausef(ErrUnsupported, "touch policy %v", k.TouchPolicy)
	}
	return nil
}

// Generate makes a key in a slot of the card and opens it. The private key never
// leaves the card, and nobody can make a copy: plan for its loss.
//
// A slot that is in use is left alone, [ErrSlotOccupied], unless the spec says
// Overwrite. In use means that there is a key or a certificate. Firmware before
// 5.3 does not tell whether it holds an imported key without certificate, so a
// signature is tried there, without the PIN but perhaps with a touch; a slot that
// answers in an unknown way counts as in use.
//
// With the key goes a certificate into the slot, since other programs take a slot
// without one for empty. It names this package and certifies nothing.
//
// The card forgets the management key and the PIN afterwards, so that nobody else
// can change its keys.
//
// RSA keys take the card many seconds. When ctx ends, Generate returns at once,
// but the card may be at it already: look into the slot before the next try.
//
// Its errors: [ErrSlotOccupied], [ErrManagementKey], [ErrUnsupported] (the
// firmware lacks the algorithm), [ErrTouchTimeout] (the management key needs a
// touch; the [Prompt] is told), those of [Open], and for the management key
// under the PIN those of [Key.SignContext] that concern the PIN.
// Options.Fingerprint is not used.
func Generate(ctx context.Context, o Options, spec KeySpec) (*Key, error) {
	return std.generate(ctx, o, spec)
}

func (s *system) generate(ctx context.Context, o Options, spec KeySpec) (*Key, error) {
	o, spec = o.withDefaults(), spec.withDefaults()
	o.Fingerprint = Options{}.Fingerprint
	key, err := run(ctx, func(ctx context.Context, p *progress) (*Key, error) {
		if err := errors.Join(o.validate(), spec.validate()); err != nil {
			return nil, err
		}
		serial, err := o.identify(ctx, s, p)
		if err != nil {
			return nil, err
		}
		g := &generating{opts: o, spec: spec, pin: pinEntry{prompt: o.Prompt, slot: o.Slot}}
		key, err := visit(ctx, s, p, o.target(p, serial, ErrNoCard), g.run)
		return key, o.failed("generate", serial, err)
	})
	return key, o.failed("generate", o.Serial, err)
}

// generating is one key on its way.
type generating struct {
	opts Options
	spec KeySpec
	pin  pinEntry

	vacant    *conn // through which the slot was seen to be empty in this turn; nobody else can fill it
	protected bool  // the management key is taken from the card
}

func (g *generating) run(s *session) (*Key, error) {
	for {
		c, err := s.conn()
		if err != nil {
			return nil, err
		}
		if err := g.spec.Algorithm.supported(c.card.Firmware); err != nil {
			return nil, err
		}
		if !g.spec.Overwrite && g.vacant != c {
			if err := c.vacant(g.opts.Slot, g.announce(s)); err != nil {
				return nil, err
			}
			g.vacant = c
		}
		managementKey := g.spec.ManagementKey
		if g.protected {
			if err := c.knowTries(); err != nil {
				return nil, err
			}
			if !g.pin.have {
				if err := g.pin.ask(s, c); err != nil {
					return nil, err
				}
				g.vacant = nil // another Generate of this process can have had a turn
				continue       // with whatever connection there is by now
			}
			if managementKey, err = g.storedKey(s, c); err != nil {
				return nil, err
			}
		}
		key, err := g.generate(s, c, managementKey)
		if errors.Is(err, ErrManagementKey) && g.spec.ManagementKey == nil && !g.protected && g.opts.Prompt != nil {
			g.protected = true
			continue
		}
		return key, err
	}
}

// generate sends the command that makes the key. Whatever becomes of it, it is
// not sent again.
func (g *generating) generate(s *session, c *conn, managementKey []byte) (*Key, error) {
	if err := s.ctx.Err(); err != nil {
		return nil, ended(s.ctx)
	}
	touch, err := c.managementTouch()
	if err != nil && pcscCode(err) != 0 {
		return nil, err
	}
	s.final = true
	delete(c.slots, g.opts.Slot)
	public, err := g.create(s, c, managementKey, touch)
	if pcscCode(err) == 0 {
		// A card keeps the management key's rights for whoever comes next, as long as
		// any program has it open.
		if left := c.leave(); err == nil {
			err = left
		}
	}
	if err != nil {
		return nil, err
	}
	key, err := newKey(s.sys, g.opts, c)
	if err != nil {
		return nil, err
	}
	if !samePublicKey(public, key.info.public) {
		return nil, ErrKeyMismatch
	}
	if key.info.pin != g.spec.PINPolicy || key.info.touch != g.spec.TouchPolicy {
		return nil, becausef(ErrUnsupported, "the card gave the key PIN policy %v and touch policy %v instead",
			key.info.pin, key.info.touch)
	}
	return key, nil
}

// create makes the key and stores its certificate.
func (g *generating) create(s *session, c *conn, managementKey []byte, touch TouchPolicy) (crypto.PublicKey, error) {
	public, err := g.command(s, c, managementKey, touch)
	if err != nil {
		return nil, err
	}
	der, err := marker(public, g.opts.Slot)
	if err == nil {
		err = c.store(managementKey, g.opts.Slot, der)
	}
	if err != nil {
		return nil, fmt.Errorf("the key was generated, but no certificate could be stored for it: %w", err)
	}
	return public, nil
}

// command sends the command, and announces the touch that the management key
// wants.
func (g *generating) command(s *session, c *conn, managementKey []byte, touch TouchPolicy) (crypto.PublicKey, error) {
	wantsTouch := touch == TouchPolicyAlways || touch == TouchPolicyCached
	s.at(stageKey)
	if wantsTouch && g.opts.Prompt != nil {
		defer announceTouch(s.ctx, touchDelay, g.opts.Prompt, TouchRequest{s.target.serial, g.opts.Slot, touch})()
	}
	start := time.Now()
	public, err := c.generate(managementKey, g.opts.Slot, g.spec)
	switch {
	case statusOf(err) != statusNotSatisfied:
		return public, err
	case wantsTouch && time.Since(start) >= touchDelay:
		return nil, because(ErrTouchTimeout, errors.New("the management key needs a touch"))
	case errors.Is(err, ErrManagementKey):
		return nil, err
	}
	return nil, because(ErrManagementKey, err)
}

// storedKey reads the management key that is stored under the PIN.
func (g *generating) storedKey(s *session, c *conn) ([]byte, error) {
	var key []byte
	err := g.pin.send(s, c, func(pin string) (err error) {
		key, err = c.managementKey(pin)
		return err
	})
	if err == nil && key == nil {
		err = becausef(ErrManagementKey, "none is stored under the PIN")
	}
	return key, err
}

// announcer has the touch announced that a signature with a key takes. stop ends
// that.
type announcer func(public crypto.PublicKey) (stop func())

// announce is for keys that are only suspected to be in the slot.
func (g *generating) announce(s *session) announcer {
	return func(public crypto.PublicKey) (stop func()) {
		if g.opts.Prompt == nil {
			return func() {}
		}
		return announceTouch(s.ctx, touchDelayOf(public), g.opts.Prompt, TouchRequest{Serial: s.target.serial, Slot: g.opts.Slot})
	}
}

// vacant returns [ErrSlotOccupied] unless a slot is known to be empty.
func (c *conn) vacant(slot Slot, touch announcer) error {
	_, err := c.slot(slot)
	switch {
	case err == nil:
		return ErrSlotOccupied
	case !errors.Is(err, ErrNoKey):
		if pcscCode(err) != 0 {
			return err
		}
		return because(ErrSlotOccupied, err) // with something that this package cannot read
	case c.card.Firmware.hasMetadata():
		return c.noCertificate(slot)
	}
	return c.noHiddenKey(slot, touch)
}

// noCertificate: a certificate alone is somebody's too. Firmware before 5.3 was
// asked for it when its slot was read.
func (c *conn) noCertificate(slot Slot) error {
	_, err := c.certificate(slot)
	switch {
	case statusOf(err) == statusNotFound:
		return nil
	case pcscCode(err) != 0:
		return err
	}
	return becausef(ErrSlotOccupied, "it holds a certificate")
}

// noHiddenKey looks for an imported key without certificate on firmware that
// cannot show it: a card has "incorrect data" to say to an attempt at signing
// only where there is no key of that algorithm. One that needs a touch and no PIN
// waits for the touch.
func (c *conn) noHiddenKey(slot Slot, touch announcer) error {
	hash := make([]byte, 32)
	for _, probe := range []struct {
		public crypto.PublicKey
		opts   crypto.SignerOpts
	}{
		{&ecdsa.PublicKey{Curve: elliptic.P256()}, crypto.SHA256},
		{&ecdsa.PublicKey{Curve: elliptic.P384()}, crypto.SHA256},
		{&rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 1023), E: 65537}, crypto.SHA256},
		{&rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 2047), E: 65537}, crypto.SHA256},
	} {
		stop := touch(probe.public)
		_, err := c.sign(slot, probe.public, hash, probe.opts)
		stop()
		switch {
		case statusOf(err) == statusIncorrectData:
		case pcscCode(err) != 0:
			return err
		default:
			return because(ErrSlotOccupied, fmt.Errorf("firmware %v does not tell by what; a signature was answered with: %w", c.card.Firmware, orSuccess(err)))
		}
	}
	return nil
}

func orSuccess(err error) error {
	if err == nil {
		return errors.New("success")
	}
	return err
}
