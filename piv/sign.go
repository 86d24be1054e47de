package piv

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// touchDelay is how long a signature takes before the card must be waiting for a
// touch: a P-256 signature takes some 50 ms, and a touch that is still cached
// needs no announcement.
const touchDelay = 200 * time.Millisecond

// touchDelayOf is the touchDelay of a key. RSA keys compute longer: some 150 ms
// with 2048 bits, and up to eight times as long with twice as many.
func touchDelayOf(public crypto.PublicKey) time.Duration {
	key, ok := public.(*rsa.PublicKey)
	switch {
	case !ok:
		return touchDelay
	case key.N.BitLen() <= 2048:
		return time.Second
	}
	return 3 * time.Second
}

// maxMessage is the longest message that an Ed25519 key signs: with ten bytes
// around it, it fits into the 3072 bytes that a card has for a command.
const maxMessage = 3072 - 10

// SignContext signs a digest, as [crypto.Signer] describes: ECDSA signatures are
// ASN.1, RSA signatures PKCS #1 v1.5 or, with [*rsa.PSSOptions], PSS. An Ed25519
// key signs a whole message with opts.HashFunc() == 0, of at most 3062 bytes. For a longer
// one, such as a proof with a certificate chain, the error is
// [ErrUnsupported]. ECDSA and RSA keys have no such limit.
//
// Signatures wait for each other, for other programs that use the card, for the
// PIN and for a touch. When ctx is done, SignContext returns at once with ctx's
// error. An APDU in progress cannot be canceled, so a
// card that waits for a touch continues to wait for some 15 s, or until it is
// touched; then the signature is discarded, and the next one starts.
//
// Its errors, in an [*Error]: [ErrCardBusy], [ErrCardRemoved], [ErrKeyMismatch],
// [ErrNoKey], [ErrPINRequired], [*WrongPINError], [ErrPINBlocked], [ErrLastTry],
// [ErrTouchTimeout], [ErrNoService], [ErrClosed], the [Prompt]'s, ctx's.
func (k *Key) SignContext(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts == nil {
		opts = crypto.Hash(0)
	}
	if err := signable(k.info.public, digest, opts); err != nil {
		return nil, k.opts.failed("sign", k.card.Serial, err)
	}
	w := &signing{
		key:    k,
		digest: bytes.Clone(digest), // the caller may go on before the card does
		opts:   opts,
		pin:    pinEntry{prompt: k.opts.Prompt, slot: k.opts.Slot},
	}
	signature, err := visitKey(ctx, k, w.run)
	return signature, k.opts.failed("sign", k.card.Serial, err)
}

// signable refuses what the card would refuse, before a person is bothered.
func signable(public crypto.PublicKey, digest []byte, opts crypto.SignerOpts) error {
	hash := opts.HashFunc()
	switch public.(type) {
	case ed25519.PublicKey:
		if hash != 0 {
			return errors.New("ed25519 keys sign messages, not digests")
		}
		if o, ok := opts.(*ed25519.Options); ok && o.Context != "" {
			return errors.New("ed25519 with a context is not supported by the card")
		}
		if len(digest) > maxMessage {
			return becausef(ErrUnsupported, "an Ed25519 key on a card signs up to %d bytes, this is %d: use a P-256 key", maxMessage, len(digest))
		}
	case *rsa.PublicKey:
		if !hash.Available() || hash.Size() != len(digest) {
			return fmt.Errorf("%d bytes are not a digest of %v", len(digest), hash)
		}
	default:
		if hash != 0 && hash.Size() != len(digest) {
			return fmt.Errorf("%d bytes are not a digest of %v", len(digest), hash)
		}
		if len(digest) == 0 {
			return errors.New("nothing to sign")
		}
	}
	return nil
}

// signing is one signature on its way. It outlives a lost connection: a PIN that
// was asked for and not sent is not asked for again.
type signing struct {
	key    *Key
	digest []byte
	opts   crypto.SignerOpts
	pin    pinEntry
}

func (w *signing) run(s *session) ([]byte, error) {
	w.pin.verified = false
	for {
		c, err := w.key.connect(s)
		if err != nil {
			return nil, err
		}
		info := c.slots[w.key.opts.Slot]
		need, err := c.needsPIN(info.pin)
		if err != nil {
			return nil, err
		}
		if need && !w.pin.have {
			if err := w.pin.ask(s, c); err != nil {
				return nil, err
			}
			continue // with whatever connection there is by now
		}
		if need {
			if err := w.pin.send(s, c, c.verifyPIN); err != nil {
				return nil, err
			}
		}
		signature, waited, err := w.sign(s, c, info)
		if err == nil {
			w.pin.forget() // another program may have sent it before us
		}
		if statusOf(err) != statusNotSatisfied {
			return signature, err
		}
		if err := w.refused(c, info, waited, err); err != nil {
			return nil, err
		}
	}
}

// sign sends the command that signs, and announces the touch if it takes long.
func (w *signing) sign(s *session, c *conn, info slotInfo) (signature []byte, waited bool, err error) {
	if err := s.ctx.Err(); err != nil {
		return nil, false, ended(s.ctx)
	}
	delay := touchDelayOf(info.public)
	s.at(stageSignature)
	if info.touch != TouchPolicyNever {
		s.at(stageTouch)
	}
	if info.touch != TouchPolicyNever && w.pin.prompt != nil {
		defer announceTouch(s.ctx, delay, w.pin.prompt, TouchRequest{s.target.serial, w.key.opts.Slot, info.touch})()
	}
	start := time.Now()
	signature, err = c.sign(w.key.opts.Slot, info.public, w.digest, w.opts)
	if _, ok := info.public.(*ecdsa.PublicKey); ok && err == nil {
		signature = strictDER(signature)
	}
	waited = time.Since(start) >= delay
	if waited || w.pin.verified {
		s.final = true // the connection was not stale: the card went away meanwhile
	}
	return signature, waited, err
}

// announceTouch calls the prompt when a command has taken the card for longer than
// delay. The function it returns ends the announcement and waits for that.
func announceTouch(ctx context.Context, after time.Duration, p Prompt, r TouchRequest) (stop func()) {
	ended, finished := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(finished)
		delay := time.NewTimer(after)
		defer delay.Stop()
		select {
		case <-delay.C:
		case <-ended:
			return
		case <-ctx.Done():
			return
		}
		done := p.Touch(ctx, r)
		select {
		case <-ended:
		case <-ctx.Done():
		}
		if done != nil {
			done()
		}
	}()
	return func() {
		close(ended)
		<-finished
	}
}

// refused finds out what a card means by "security status not satisfied": that it
// wants the PIN, or that nobody touched it. It returns nil if the signature is to
// be tried again with the PIN.
func (w *signing) refused(c *conn, info slotInfo, waited bool, err error) error {
	timeout := because(ErrTouchTimeout, err)
	if info.touch == TouchPolicyNever {
		timeout = err // cannot be the touch
	}
	if w.pin.verified || info.pin == PINPolicyNever {
		return timeout
	}
	if waited && (info.pin == 0 || c.card.Firmware.forgetsPINWhenAsked()) {
		return timeout // a card that wants the PIN says so at once
	}
	if err := c.countTries(); err != nil {
		return err
	}
	if c.pin == pinVerified && info.pin == PINPolicyOnce {
		return timeout
	}
	// Not verified; or verified, and the policy that this card does not tell is
	// "always".
	c.pin = pinMissing
	return nil
}

// strictDER encodes an ECDSA signature (RFC 3279 section 2.2.3) as DER must. Cards
// have put too many zero bytes before its two integers, or none where there must be
// one, and strict verifiers reject that. What is no signature stays as it is.
func strictDER(signature []byte) []byte {
	var lax struct{ R, S asn1.RawValue }
	if rest, err := asn1.Unmarshal(signature, &lax); err != nil || len(rest) > 0 || lax.R.Tag != asn1.TagInteger || lax.S.Tag != asn1.TagInteger {
		return signature
	}
	strict, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(lax.R.Bytes), new(big.Int).SetBytes(lax.S.Bytes)})
	if err != nil {
		return signature
	}
	return strict
}
