package virtual

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/rand"
	"crypto/subtle"
)

// managementKey is the key of the card's administrator.
type managementKey struct {
	algorithm Algorithm
	key       []byte
	touch     TouchPolicy
}

func (m managementKey) block() cipher.Block {
	newCipher := aes.NewCipher
	if m.algorithm == TripleDES {
		newCipher = des.NewTripleDESCipher
	}
	block, err := newCipher(m.key)
	if err != nil {
		panic("virtual: management key of a length that was refused before: " + err.Error())
	}
	return block
}

func (m managementKey) isFactory(f Firmware) bool {
	return m.algorithm == f.defaultManagementAlgorithm() && string(m.key) == string(DefaultManagementKey())
}

// authentication is the first step of an authentication with the management key; the second step needs it.
type authentication struct {
	mutual bool
	nonce  []byte // what the program has to answer
}

// authenticateManagement is GENERAL AUTHENTICATE with key 9B (SP 800-73-4 part 2, 3.2.4, and appendix A.1 and A.2): mutual,
// where the card's witness is answered and the program's challenge encrypted, or external, where the card's challenge is.
func (c *Card) authenticateManagement(ctx context.Context, r request, auth authentication, template []tlv) ([]byte, StatusWord) {
	algorithm := Algorithm(r.p1)
	if algorithm == 0 { // SP 800-78-4, table 6-2: 00 is triple DES too
		algorithm = TripleDES
	}
	if algorithm != c.management.algorithm {
		return nil, IncorrectP1P2
	}
	block := c.management.block()
	witness, hasWitness := find(template, tagWitness)
	challenge, hasChallenge := find(template, tagChallenge)
	response, hasResponse := find(template, tagResponse)
	switch {
	case hasWitness && len(witness) == 0 && !hasChallenge:
		return c.offer(tagWitness, true, block)
	case hasChallenge && len(challenge) == 0 && !hasWitness:
		return c.offer(tagChallenge, false, block)
	case hasWitness && hasChallenge && len(challenge) == block.BlockSize():
		if !auth.mutual || subtle.ConstantTimeCompare(witness, auth.nonce) != 1 {
			return nil, SecurityNotSatisfied
		}
		answer := make([]byte, block.BlockSize())
		block.Encrypt(answer, challenge)
		return c.grant(ctx, dynamicTemplate(tagResponse, answer))
	case hasResponse && !hasWitness && !hasChallenge:
		if auth.mutual || auth.nonce == nil || subtle.ConstantTimeCompare(response, auth.nonce) != 1 {
			return nil, SecurityNotSatisfied
		}
		return c.grant(ctx, nil)
	default:
		return nil, IncorrectData
	}
}

// offer sends fresh random bytes: encrypted as a witness, in the clear as a challenge. What has to come back is the other form.
func (c *Card) offer(tag uint32, mutual bool, block cipher.Block) ([]byte, StatusWord) {
	plain, encrypted := make([]byte, block.BlockSize()), make([]byte, block.BlockSize())
	_, _ = rand.Read(plain) // never fails
	block.Encrypt(encrypted, plain)
	sent, expected := plain, encrypted
	if mutual {
		sent, expected = encrypted, plain
	}
	c.session.auth = authentication{mutual, expected}
	return dynamicTemplate(tag, sent), Success
}

// grant ends a successful authentication, after a touch if the management key wants one.
func (c *Card) grant(ctx context.Context, answer []byte) ([]byte, StatusWord) {
	if !c.awaitTouch(ctx, c.management.touch) {
		return nil, SecurityNotSatisfied
	}
	c.session.managed = true
	return answer, Success
}

// setManagementKey is SET MANAGEMENT KEY: algorithm, 9B, length, key. P2 is the touch policy.
func (c *Card) setManagementKey(_ context.Context, r request) ([]byte, StatusWord) {
	if !c.session.managed {
		return nil, SecurityNotSatisfied
	}
	touch, ok := map[byte]TouchPolicy{0xff: TouchNever, 0xfe: TouchAlways, 0xfd: TouchCached}[r.p2]
	if r.p1 != 0xff || !ok {
		return nil, IncorrectP1P2
	}
	if len(r.data) < 3 || r.data[1] != byte(SlotManagement) || len(r.data) != 3+int(r.data[2]) {
		return nil, IncorrectData
	}
	algorithm, key := Algorithm(r.data[0]), r.data[3:]
	if !c.firmware.supportsManagement(algorithm) || len(key) != algorithm.keyLen() {
		return nil, IncorrectData
	}
	c.management = managementKey{algorithm, append([]byte(nil), key...), touch}
	return nil, Success
}
