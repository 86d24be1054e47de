package piv

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Generate generates a key in a slot of the card and opens it. The private key never
// leaves the card and cannot be copied, so plan for its loss.
//
// If the slot has a key or a certificate, Generate changes nothing and returns
// [ErrSlotOccupied], unless Overwrite is set. Firmware before
// 5.3 does not report an imported key without a certificate, so Generate tries a
// signature there, without the PIN but possibly with a touch; a slot with an
// unexpected response counts as in use.
//
// Generate also stores a certificate in the slot, because other programs treat a slot
// without one as empty. It names this package and certifies nothing.
//
// The card forgets the management key and the PIN afterwards, so that no other program
// can change its keys.
//
// RSA keys take many seconds to generate. When ctx is done, Generate returns at once,
// but the card may still generate the key, so check the slot before you retry.
//
// Its errors: [ErrSlotOccupied], [ErrManagementKey], [ErrUnsupported] (the
// firmware lacks the algorithm), [ErrTouchTimeout] (the management key needs a
// touch; the [Prompt] is notified), those of [Open], and for the management key
// protected by the PIN those of [Key.SignContext] that concern the PIN.
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
		return nil, fmt.Errorf("the key was generated, but its certificate could not be stored: %w", err)
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

// noCertificate: a certificate without a key also counts as in use. Firmware before 5.3 was
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
			return because(ErrSlotOccupied, fmt.Errorf("firmware %v does not report by what; the response to a signature was: %w", c.card.Firmware, orSuccess(err)))
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

// markerOrganization is how a person recognizes the keys of this package in other
// programs.
const markerOrganization = "ycauth-go"

// marker returns a certificate for a slot with a new key. Other programs take a
// slot without a certificate for an empty one. It certifies nothing, because its
// issuer is a key that nobody has: to sign it with the new key could take a PIN and
// a touch.
func marker(public crypto.PublicKey, slot Slot) ([]byte, error) {
	issuer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	name := func(common string) pkix.Name {
		return pkix.Name{Organization: []string{markerOrganization}, CommonName: common}
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	return x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)), // RFC 5280 section 4.1.2.2: positive
		Subject:      name(fmt.Sprintf("key in slot %v", slot)),
		NotBefore:    time.Now().Add(-24 * time.Hour),                  // clocks differ
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280 section 4.1.2.5: none
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}, &x509.Certificate{Subject: name("nobody")}, public, issuer)
}
