package piv

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// Options selects a key and says how to ask the user for the PIN.
// [Reference.Options] returns them for a stored reference.
type Options struct {
	// Serial is the card's serial number. Optional. Default: the only connected card;
	// if there are several, the error is [ErrSeveralCards].
	Serial uint32

	// Slot is the slot of the key. Optional. Default: [SlotAuthentication].
	Slot Slot

	// Fingerprint is the required [Fingerprint] of the key; for another key, the error is
	// [ErrKeyMismatch]. Optional. Default: any key.
	Fingerprint [sha256.Size]byte

	// Prompt is asked for PINs and notified of touches. Optional. Default: none, and
	// keys that need a PIN return [ErrPINRequired].
	Prompt Prompt

	// BusyTimeout is how long to wait for a card that another program is using, at most
	// until ctx is done. Optional. Default: 30 s, which is longer than
	// another program waits for a touch.
	BusyTimeout time.Duration

	// Trust is the set of trusted attestation issuers. Optional. Default: Yubico.
	Trust Trust

	// Reader is a part of the names of the PC/SC readers to use, regardless of
	// case. Cards in other readers are ignored. Optional. Default:
	// "yubikey", which is in the name of every YubiKey on USB; a contactless
	// reader has its own name.
	Reader string
}

func (o Options) withDefaults() Options {
	if o.Slot == 0 {
		o.Slot = SlotAuthentication
	}
	if o.BusyTimeout <= 0 {
		o.BusyTimeout = 30 * time.Second
	}
	if o.Reader == "" {
		o.Reader = "yubikey"
	}
	return o
}

func (o Options) validate() error {
	if !o.Slot.valid() {
		return fmt.Errorf("%v is not a slot: want 9a, 9c, 9d, 9e or 82 to 95", o.Slot)
	}
	return nil
}

// identify returns the serial number of the card that is meant.
func (o Options) identify(ctx context.Context, s *system, p *progress) (uint32, error) {
	if o.Serial != 0 {
		return o.Serial, nil
	}
	p.at(stageOpen)
	serial, err := s.only(ctx, search{filter: o.Reader, wait: o.patience(p)})
	return serial, explain(err, ErrNoCard)
}

// target is the card with a serial number; missing is what to call it if it is
// not there.
func (o Options) target(p *progress, serial uint32, missing error) target {
	o.Serial = serial
	return target{serial: serial, filter: o.Reader, wait: o.patience(p), missing: missing}
}

// patience is how long to wait for other programs that hold the card.
func (o Options) patience(p *progress) patience {
	var telling atomic.Bool // several readers can be held at the same time
	return patience{
		limit: o.BusyTimeout,
		held:  func() { p.at(stageBusy) },
		tell: func(ctx context.Context) func() {
			prompt, ok := o.Prompt.(BusyPrompt)
			if !ok || !telling.CompareAndSwap(false, true) {
				return nil
			}
			done := prompt.Busy(ctx, BusyRequest{Serial: o.Serial})
			return func() {
				telling.Store(false)
				if done != nil {
					done()
				}
			}
		},
	}
}

// failed says which card and slot an error is about, unless it does already.
func (o Options) failed(op string, serial uint32, err error) error {
	var known *Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	return &Error{Op: op, Serial: serial, Slot: o.Slot, Err: err}
}

// Key is a private key in a slot of a YubiKey. It is a [crypto.Signer] and safe for
// concurrent use. Signatures are made one after the other, over a connection that
// all keys of the process share.
type Key struct {
	sys         *system
	opts        Options
	card        Card
	info        slotInfo
	fingerprint [sha256.Size]byte
	closed      atomic.Bool
}

var _ crypto.Signer = (*Key)(nil)

// Open returns the key in a slot. It reads the public key and the policies and
// releases the card again; it does not ask for the PIN.
//
// Its errors: [ErrNoCard], [ErrSeveralCards], [ErrCardBusy], [ErrNoKey],
// [ErrKeyMismatch], [ErrNoService], [ErrUnsupported], ctx's.
func Open(ctx context.Context, o Options) (*Key, error) { return std.open(ctx, o) }

func (s *system) open(ctx context.Context, o Options) (*Key, error) {
	o = o.withDefaults()
	key, err := run(ctx, func(ctx context.Context, p *progress) (*Key, error) {
		if err := o.validate(); err != nil {
			return nil, err
		}
		serial, err := o.identify(ctx, s, p)
		if err != nil {
			return nil, err
		}
		key, err := visit(ctx, s, p, o.target(p, serial, ErrNoCard), func(v *session) (*Key, error) {
			c, err := v.conn()
			if err != nil {
				return nil, err
			}
			return newKey(s, o, c)
		})
		return key, o.failed("open", serial, err)
	})
	return key, o.failed("open", o.Serial, err)
}

// newKey reads the key in a slot.
func newKey(s *system, o Options, c *conn) (*Key, error) {
	info, err := c.slot(o.Slot)
	if err != nil {
		return nil, err
	}
	fingerprint, err := Fingerprint(info.public)
	if err != nil {
		return nil, because(ErrUnsupported, err)
	}
	if o.Fingerprint != ([sha256.Size]byte{}) && o.Fingerprint != fingerprint {
		return nil, ErrKeyMismatch
	}
	return &Key{sys: s, opts: o, card: c.card, info: info, fingerprint: fingerprint}, nil
}

// Public returns the public key: an [*ecdsa.PublicKey], an [ed25519.PublicKey] or
// an [*rsa.PublicKey].
func (k *Key) Public() crypto.PublicKey { return k.info.public }

// Card returns the key's card, as of when the key was opened.
// Its FormFactor is not set.
func (k *Key) Card() Card { return k.card }

// PINPolicy returns when the key needs the PIN.
func (k *Key) PINPolicy() PINPolicy { return k.info.pin }

// TouchPolicy returns when the key needs a touch.
func (k *Key) TouchPolicy() TouchPolicy { return k.info.touch }

// NeedsPerson implements dpop.PersonSigner: it reports whether a signature may need a touch
// or the PIN, according to the key's policies. A program whose Prompt knows the PIN
// without a person can wrap the key in a type with another NeedsPerson.
func (k *Key) NeedsPerson() bool {
	return k.info.touch != TouchPolicyNever || k.info.pin != PINPolicyNever
}

// Reference returns a reference to store, with which to open the same key again.
func (k *Key) Reference() Reference {
	return Reference{Serial: k.card.Serial, Slot: k.opts.Slot, Fingerprint: k.fingerprint}
}

// String returns a description such as "slot 9a of YubiKey 12345678".
func (k *Key) String() string {
	return fmt.Sprintf("slot %v of YubiKey %d", k.opts.Slot, k.card.Serial)
}

// Sign implements [crypto.Signer]. It is [Key.SignContext] without a deadline, so
// with a PIN or touch policy it waits for the user indefinitely. Its first argument is
// not used, because the card has its own randomness.
func (k *Key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.SignContext(context.Background(), digest, opts)
}

// Attestation reads the card's statement about the key and verifies it against
// [Options].Trust, the key and the card. No PIN is needed.
//
// Its errors: [*AttestationError], [ErrAttestation] (the key was imported),
// [ErrKeyMismatch], [ErrUnsupported] (firmware before 4.3), those of
// [Key.SignContext] that concern the card, ctx's.
func (k *Key) Attestation(ctx context.Context) (*Attestation, error) {
	a, err := visitKey(ctx, k, func(s *session) (*Attestation, error) {
		c, err := k.connect(s)
		if err != nil {
			return nil, err
		}
		return c.attestation(k.opts.Slot, k.opts.Trust)
	})
	return a, k.opts.failed("attest", k.card.Serial, err)
}

func (c *conn) attestation(slot Slot, trust Trust) (*Attestation, error) {
	info, err := c.slot(slot)
	if err != nil {
		return nil, err
	}
	statement, err := c.attest(slot)
	switch statusOf(err) {
	case statusIncorrectData:
		return nil, because(ErrAttestation, errors.New("it was imported, not generated"))
	case statusUnknownINS:
		return nil, becausef(ErrUnsupported, "firmware %v does not attest", c.card.Firmware)
	}
	if err != nil {
		return nil, err
	}
	device, err := c.certificate(slotAttestation)
	if statusOf(err) == statusNotFound {
		return nil, becausef(ErrAttestation, "the card has lost its attestation certificate: %w", err)
	}
	if err != nil {
		return nil, err
	}
	a, err := VerifyAttestation([]*x509.Certificate{statement, device}, trust)
	if err != nil {
		return nil, err
	}
	if err := a.contradicts(c.card, slot, info); err != nil {
		a.verified = false
		return nil, &AttestationError{a, err}
	}
	return a, nil
}

// Close closes the key; it never fails. Signatures in progress complete
// normally, later ones return [ErrClosed]. An idle connection to the card is
// closed at once.
func (k *Key) Close() error {
	k.closed.Store(true)
	if r, ok := k.sys.whereabouts(k.card.Serial); ok {
		r.ifFree(r.drop)
	}
	return nil
}

// visitKey calls fn in a turn at the key's card.
func visitKey[T any](ctx context.Context, k *Key, fn func(*session) (T, error)) (T, error) {
	if k.closed.Load() {
		var none T
		return none, ErrClosed
	}
	return run(ctx, func(ctx context.Context, p *progress) (T, error) {
		return visit(ctx, k.sys, p, k.opts.target(p, k.card.Serial, ErrCardRemoved), fn)
	})
}

// connect returns the connection to the card, after a look whether the slot still
// holds the key.
func (k *Key) connect(s *session) (*conn, error) {
	c, err := s.conn()
	if err != nil {
		return nil, err
	}
	info, err := c.slot(k.opts.Slot)
	if err != nil {
		return nil, err
	}
	if !samePublicKey(k.info.public, info.public) {
		return nil, ErrKeyMismatch
	}
	return c, nil
}
