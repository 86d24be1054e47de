package virtual

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"math/big"
	"time"
)

// Tags of the dynamic authentication template (SP 800-73-4 part 2, table 7).
const (
	tagDynamic        = 0x7c
	tagWitness        = 0x80
	tagChallenge      = 0x81
	tagResponse       = 0x82
	tagExponentiation = 0x85
)

var errInput = errors.New("input does not fit the key")

func dynamicTemplate(tag uint32, value []byte) []byte {
	return appendTLV(nil, tagDynamic, appendTLV(nil, tag, value))
}

// authenticate is GENERAL AUTHENTICATE (SP 800-73-4 part 2, 3.2.4): every use of a key.
func (c *Card) authenticate(ctx context.Context, r request) ([]byte, StatusWord) {
	auth := c.session.auth
	c.session.auth = authentication{}
	template, err := parseTemplate(r.data, tagDynamic)
	if err != nil {
		return nil, IncorrectData
	}
	if Slot(r.p2) == SlotManagement {
		return c.authenticateManagement(ctx, r, auth, template)
	}
	return c.useKey(ctx, r, template)
}

// useKey signs, decrypts or agrees on a key. PIN first, then touch, as the card does not blink for a program that may not
// use the key anyway.
func (c *Card) useKey(ctx context.Context, r request, template []tlv) ([]byte, StatusWord) {
	slot := Slot(r.p2)
	if !slot.holdsKeyPair() || slot == SlotAttestation { // the attestation key signs attestations only
		return nil, IncorrectP1P2
	}
	key, ok := c.keys[slot]
	if !ok || key.algorithm != Algorithm(r.p1) {
		return nil, IncorrectData
	}
	operation, input, ok := key.operation(template)
	if !ok {
		return nil, IncorrectData
	}
	if !c.pinSatisfies(key.pin, r.pinFresh) || !c.awaitTouch(ctx, key.touch) {
		return nil, SecurityNotSatisfied
	}
	output, err := operation(input)
	if err != nil {
		return nil, IncorrectData
	}
	return dynamicTemplate(tagResponse, output), Success
}

func (c *Card) pinSatisfies(policy PINPolicy, fresh bool) bool {
	switch policy {
	case PINNever:
		return true
	case PINAlways:
		return c.session.pinVerified && fresh
	default:
		return c.session.pinVerified
	}
}

// operation finds out what the program wants: an empty response, and a challenge to sign or a point to multiply.
func (k *keyPair) operation(template []tlv) (func([]byte) ([]byte, error), []byte, bool) {
	if response, ok := find(template, tagResponse); !ok || len(response) > 0 {
		return nil, nil, false
	}
	if input, ok := find(template, tagChallenge); ok {
		return k.sign, input, k.algorithm != X25519 && k.fits(input)
	}
	if input, ok := find(template, tagExponentiation); ok {
		return k.agree, input, k.algorithm == P256 || k.algorithm == P384 || k.algorithm == X25519
	}
	return nil, nil, false
}

// fits checks the length of what is to be signed: a digest no longer than the curve, a padded block as long as the modulus,
// or any message for Ed25519.
func (k *keyPair) fits(input []byte) bool {
	switch k.algorithm {
	case P256:
		return len(input) > 0 && len(input) <= 32
	case P384:
		return len(input) > 0 && len(input) <= 48
	case Ed25519:
		return true
	default:
		return len(input) == k.algorithm.rsaBits()/8
	}
}

// sign makes the signature: ASN.1 of ECDSA, 64 bytes of Ed25519, or the RSA private operation, which decrypts too.
func (k *keyPair) sign(input []byte) ([]byte, error) {
	switch private := k.private.(type) {
	case *ecdsa.PrivateKey:
		return private.Sign(rand.Reader, input, crypto.Hash(0))
	case ed25519.PrivateKey:
		return ed25519.Sign(private, input), nil
	case *rsa.PrivateKey:
		return rsaPrivate(private, input)
	default:
		return nil, errInput
	}
}

// agree multiplies the other side's point with the private key.
func (k *keyPair) agree(input []byte) ([]byte, error) {
	var private *ecdh.PrivateKey
	switch key := k.private.(type) {
	case *ecdh.PrivateKey:
		private = key
	case *ecdsa.PrivateKey:
		var err error
		if private, err = key.ECDH(); err != nil {
			return nil, err
		}
	default:
		return nil, errInput
	}
	peer, err := private.Curve().NewPublicKey(input)
	if err != nil {
		return nil, err
	}
	return private.ECDH(peer)
}

// rsaPrivate raises a block to the private exponent (RFC 8017, 5.1.2, RSADP and RSASP1).
func rsaPrivate(key *rsa.PrivateKey, input []byte) ([]byte, error) {
	block := new(big.Int).SetBytes(input)
	if block.Cmp(key.N) >= 0 {
		return nil, errInput
	}
	return block.Exp(block, key.D, key.N).FillBytes(make([]byte, len(input))), nil
}

// touchCache is how long a touch is good for keys of policy TouchCached.
const touchCache = 15 * time.Second

// awaitTouch lets the card blink until it is touched, if the policy wants that. It gives c.mu up while it waits, so that the
// knobs still turn; no other command can run meanwhile, as Card.busy is held.
func (c *Card) awaitTouch(ctx context.Context, policy TouchPolicy) bool {
	switch {
	case policy == TouchNever:
		return true
	case policy == TouchCached && !c.touched.IsZero() && time.Since(c.touched) < touchCache:
		return true
	}
	finger, timeout := c.touch, c.touchTimeout
	c.mu.Unlock()
	touched := blink(ctx, finger, timeout)
	c.mu.Lock()
	if touched {
		c.touched = time.Now()
	}
	return touched
}

// blink waits for the finger, but not longer than the time-out and not after the card was removed.
func blink(ctx context.Context, finger TouchFunc, timeout time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if finger(ctx) {
		return ctx.Err() == nil
	}
	<-ctx.Done()
	return false
}
