package pivtest

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"math/big"
)

const (
	tagPublicKey    = 0x7f49
	tagModulus      = 0x81
	tagExponent     = 0x82
	tagPoint        = 0x86
	tagGenerate     = 0xac
	tagAlgorithm    = 0x80
	tagPINPolicy    = 0xaa
	tagTouchPolicy  = 0xab
	originGenerated = 1
	originImported  = 2
)

// keyPair is what a slot holds.
type keyPair struct {
	algorithm Algorithm
	pin       PINPolicy
	touch     TouchPolicy
	origin    byte
	private   privateKey
}

// privateKey is what the private keys of the standard library have in common.
type privateKey interface {
	Public() crypto.PublicKey
}

func newPrivateKey(a Algorithm) (privateKey, error) {
	switch a {
	case P256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case P384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	case X25519:
		return ecdh.X25519().GenerateKey(rand.Reader)
	default:
		return rsa.GenerateKey(rand.Reader, a.rsaBits())
	}
}

// GenerateKey makes a key pair in a slot as a program with the management key would, but without a command: for tests that
// want a card that is in use already.
func (c *Card) GenerateKey(slot Slot, algorithm Algorithm, pin PINPolicy, touch TouchPolicy) (crypto.PublicKey, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key, sw := c.newKeyPair(slot, algorithm, pin, touch)
	if sw != Success {
		return nil, fmt.Errorf("pivtest: firmware %v makes no %v key in slot %v: status %v", c.firmware, algorithm, slot, sw)
	}
	c.keys[slot] = key
	return key.private.Public(), nil
}

// DeleteKey empties a slot. Its certificate object stays.
func (c *Card) DeleteKey(slot Slot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.keys, slot)
}

func (c *Card) newKeyPair(slot Slot, algorithm Algorithm, pin PINPolicy, touch TouchPolicy) (*keyPair, StatusWord) {
	key, sw := c.emptyKeyPair(slot, algorithm, pin, touch)
	if sw != Success {
		return nil, sw
	}
	private, err := newPrivateKey(algorithm)
	if err != nil {
		return nil, ConditionsNotSatisfied
	}
	key.private, key.origin = private, originGenerated
	return key, Success
}

// emptyKeyPair checks what a program asks for and fills in the policies of the slot.
func (c *Card) emptyKeyPair(slot Slot, algorithm Algorithm, pin PINPolicy, touch TouchPolicy) (*keyPair, StatusWord) {
	if !slot.holdsKeyPair() {
		return nil, IncorrectP1P2
	}
	if slot == SlotAttestation && c.ensureAttestation() != nil {
		return nil, ConditionsNotSatisfied
	}
	if !c.firmware.supports(algorithm) {
		return nil, IncorrectData
	}
	pin, okPIN := pin.effective(slot)
	touch, okTouch := touch.effective()
	if !okPIN || !okTouch {
		return nil, IncorrectData
	}
	return &keyPair{algorithm: algorithm, pin: pin, touch: touch}, Success
}

// generate is GENERATE ASYMMETRIC KEY PAIR (SP 800-73-4 part 2, 3.3.2) with Yubico's tags for policies.
func (c *Card) generate(_ context.Context, r request) ([]byte, StatusWord) {
	if !c.session.managed {
		return nil, SecurityNotSatisfied
	}
	if r.p1 != 0 {
		return nil, IncorrectP1P2
	}
	template, err := parseTemplate(r.data, tagGenerate)
	if err != nil {
		return nil, IncorrectData
	}
	algorithm, ok := find(template, tagAlgorithm)
	pin, touch, okPolicies := policies(template)
	if !ok || len(algorithm) != 1 || !okPolicies {
		return nil, IncorrectData
	}
	slot := Slot(r.p2)
	key, sw := c.newKeyPair(slot, Algorithm(algorithm[0]), pin, touch)
	if sw != Success {
		return nil, sw
	}
	c.keys[slot] = key
	return appendTLV(nil, tagPublicKey, publicKey(key.private.Public())), Success
}

// policies reads the optional policies of a key.
func policies(all []tlv) (PINPolicy, TouchPolicy, bool) {
	value := func(tag uint32) (byte, bool) {
		b, ok := find(all, tag)
		if !ok {
			return 0, true
		}
		if len(b) != 1 {
			return 0, false
		}
		return b[0], true
	}
	pin, okPIN := value(tagPINPolicy)
	touch, okTouch := value(tagTouchPolicy)
	return PINPolicy(pin), TouchPolicy(touch), okPIN && okTouch
}

// publicKey encodes a public key as SP 800-73-4 part 2, table 18, does.
func publicKey(key crypto.PublicKey) []byte {
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		point, err := key.Bytes()
		if err != nil {
			panic("pivtest: public key that is not on its curve: " + err.Error())
		}
		return appendTLV(nil, tagPoint, point)
	case ed25519.PublicKey:
		return appendTLV(nil, tagPoint, key)
	case *ecdh.PublicKey:
		return appendTLV(nil, tagPoint, key.Bytes())
	case *rsa.PublicKey:
		b := appendTLV(nil, tagModulus, key.N.Bytes())
		return appendTLV(b, tagExponent, big.NewInt(int64(key.E)).Bytes())
	default:
		panic(fmt.Sprintf("pivtest: no key of the card is a %T", key))
	}
}
