package pivtest

import (
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"math/big"
)

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
