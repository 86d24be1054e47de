package virtual

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
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
		return nil, fmt.Errorf("firmware %v makes no %v key in slot %v: status %v", c.firmware, algorithm, slot, sw)
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
			panic("virtual: public key that is not on its curve: " + err.Error())
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
		panic(fmt.Sprintf("virtual: no key of the card is a %T", key))
	}
}

// Algorithm is an algorithm identifier as it stands in a command (SP 800-78-4, table 6-2, and Yubico extensions to PIV).
type Algorithm byte

// Algorithms of management keys and of key pairs. From RSA3072 on, in this list, they need firmware 5.7.
const (
	TripleDES Algorithm = 0x03
	AES128    Algorithm = 0x08
	AES192    Algorithm = 0x0a
	AES256    Algorithm = 0x0c

	P256    Algorithm = 0x11
	P384    Algorithm = 0x14
	RSA1024 Algorithm = 0x06
	RSA2048 Algorithm = 0x07
	RSA3072 Algorithm = 0x05
	RSA4096 Algorithm = 0x16
	Ed25519 Algorithm = 0xe0
	X25519  Algorithm = 0xe1
)

var algorithmNames = map[Algorithm]string{
	TripleDES: "3DES", AES128: "AES-128", AES192: "AES-192", AES256: "AES-256",
	P256: "P-256", P384: "P-384", Ed25519: "Ed25519", X25519: "X25519",
	RSA1024: "RSA-1024", RSA2048: "RSA-2048", RSA3072: "RSA-3072", RSA4096: "RSA-4096",
}

// String returns the usual name of the algorithm.
func (a Algorithm) String() string {
	if name, ok := algorithmNames[a]; ok {
		return name
	}
	return fmt.Sprintf("algorithm %#02x", byte(a))
}

// rsaBits returns the size of an RSA modulus, 0 for other algorithms.
func (a Algorithm) rsaBits() int {
	switch a {
	case RSA1024:
		return 1024
	case RSA2048:
		return 2048
	case RSA3072:
		return 3072
	case RSA4096:
		return 4096
	default:
		return 0
	}
}

// keyLen returns the length in bytes of a management key, 0 for other algorithms.
func (a Algorithm) keyLen() int {
	switch a {
	case AES128:
		return 16
	case TripleDES, AES192:
		return 24
	case AES256:
		return 32
	default:
		return 0
	}
}

// Slot is the reference of a key (SP 800-73-4 part 1, table 4b).
type Slot byte

// The slots that have a name of their own. The twenty retired slots are 0x82 to 0x95.
const (
	SlotAuthentication     Slot = 0x9a
	SlotManagement         Slot = 0x9b
	SlotSignature          Slot = 0x9c
	SlotKeyManagement      Slot = 0x9d
	SlotCardAuthentication Slot = 0x9e
	SlotAttestation        Slot = 0xf9

	slotRetiredFirst Slot = 0x82
	slotRetiredLast  Slot = 0x95
)

// String returns the slot as "9a".
func (s Slot) String() string { return fmt.Sprintf("%02x", byte(s)) }

// holdsKeyPair reports whether the slot is one for a key pair.
func (s Slot) holdsKeyPair() bool {
	switch s {
	case SlotAuthentication, SlotSignature, SlotKeyManagement, SlotCardAuthentication, SlotAttestation:
		return true
	default:
		return s >= slotRetiredFirst && s <= slotRetiredLast
	}
}

// PINPolicy says when a key wants the PIN.
type PINPolicy byte

// PIN policies. PINDefault is that of the slot: always for 9c, never for 9e, once for all others.
const (
	PINDefault PINPolicy = 0
	PINNever   PINPolicy = 1
	PINOnce    PINPolicy = 2
	PINAlways  PINPolicy = 3 // VERIFY has to be the command just before
)

// TouchPolicy says when a key wants a finger.
type TouchPolicy byte

// Touch policies. TouchDefault is TouchNever.
const (
	TouchDefault TouchPolicy = 0
	TouchNever   TouchPolicy = 1
	TouchAlways  TouchPolicy = 2
	TouchCached  TouchPolicy = 3 // one touch is enough for Config.TouchCache
)

func (p PINPolicy) effective(s Slot) (PINPolicy, bool) {
	switch {
	case p > PINAlways:
		return 0, false
	case p != PINDefault:
		return p, true
	case s == SlotSignature:
		return PINAlways, true
	case s == SlotCardAuthentication:
		return PINNever, true
	default:
		return PINOnce, true
	}
}

func (p TouchPolicy) effective() (TouchPolicy, bool) {
	switch {
	case p > TouchCached:
		return 0, false
	case p == TouchDefault:
		return TouchNever, true
	default:
		return p, true
	}
}

// importKey is IMPORT ASYMMETRIC KEY.
func (c *Card) importKey(_ context.Context, r request) ([]byte, StatusWord) {
	if !c.session.managed {
		return nil, SecurityNotSatisfied
	}
	all, err := parseTLVs(r.data)
	if err != nil {
		return nil, IncorrectData
	}
	pin, touch, ok := policies(all)
	if !ok {
		return nil, IncorrectData
	}
	slot, algorithm := Slot(r.p2), Algorithm(r.p1)
	key, sw := c.emptyKeyPair(slot, algorithm, pin, touch)
	if sw != Success {
		return nil, sw
	}
	if key.private, err = importPrivateKey(algorithm, all); err != nil {
		return nil, IncorrectData
	}
	key.origin = originImported
	c.keys[slot] = key
	return nil, Success
}

func importPrivateKey(a Algorithm, all []tlv) (privateKey, error) {
	const tagScalar, tagEd25519Seed, tagX25519Scalar = 0x06, 0x07, 0x08
	switch a {
	case P256:
		b, _ := find(all, tagScalar)
		return ecdsa.ParseRawPrivateKey(elliptic.P256(), b)
	case P384:
		b, _ := find(all, tagScalar)
		return ecdsa.ParseRawPrivateKey(elliptic.P384(), b)
	case Ed25519:
		seed, _ := find(all, tagEd25519Seed)
		if len(seed) != ed25519.SeedSize {
			return nil, errors.New("an Ed25519 seed is 32 bytes")
		}
		return ed25519.NewKeyFromSeed(seed), nil
	case X25519:
		b, _ := find(all, tagX25519Scalar)
		return ecdh.X25519().NewPrivateKey(b)
	default:
		return importRSA(a.rsaBits(), all)
	}
}

// importRSA builds a key from its primes. The exponents that come with them are what follows from the public exponent 65537,
// the only one a YubiKey takes.
func importRSA(bits int, all []tlv) (privateKey, error) {
	const tagP, tagQ = 0x01, 0x02
	pBytes, _ := find(all, tagP)
	qBytes, _ := find(all, tagQ)
	if len(pBytes) != bits/16 || len(qBytes) != bits/16 {
		return nil, errors.New("primes are not half as long as the modulus")
	}
	p, q := new(big.Int).SetBytes(pBytes), new(big.Int).SetBytes(qBytes)
	one, e := big.NewInt(1), big.NewInt(65537)
	phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	d := new(big.Int).ModInverse(e, phi)
	n := new(big.Int).Mul(p, q)
	if d == nil || n.BitLen() != bits {
		return nil, errors.New("primes do not make a key of public exponent 65537")
	}
	key := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: n, E: 65537}, D: d, Primes: []*big.Int{p, q}}
	if err := key.Validate(); err != nil {
		return nil, err
	}
	key.Precompute()
	return key, nil
}
