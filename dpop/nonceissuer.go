package dpop

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

const (
	minNonceKey   = 32 // octets, as many as the hash has
	defaultPeriod = time.Minute
	minPeriod     = time.Second
)

// A NonceIssuer issues and checks the nonces of a server (RFC 9449 §8, §9). It stores none:
// a nonce is the HMAC of the current period of time, so replicas with the same key and
// period accept each other's nonces without communication.
//
// A nonce is accepted in the period it was issued in and in the next one: for at least one
// period and at most two. One of the period to come is accepted as well, because the clock
// of the replica that issued it may be ahead. If the clocks of two replicas differ by d,
// a nonce of one is accepted by the other for at least a period minus d, and at most for
// two periods plus d. So d should be at most half a period.
//
// All clients receive the same nonce. It limits how long a proof made in advance can be
// used. It does not replace the check for replays.
//
// The methods of a NonceIssuer are safe for concurrent use.
type NonceIssuer struct {
	keys   func() [][]byte // not the keys themselves, as fmt reads the fields of a struct that holds a NonceIssuer
	period time.Duration
	now    func() time.Time
}

// NewNonceIssuer returns a NonceIssuer with the given period, 1 second at least. 0 means 1
// minute. A client that is silent for two periods or longer needs one more request to get
// a new nonce.
//
// Each key must have at least 32 octets, chosen at random, and be used for nothing else.
// The first key issues nonces; those issued with the other keys are accepted. To
// replace a key while replicas run, first add the new key to all of them in second place,
// then move it to the first place, and remove the old one two periods later.
func NewNonceIssuer(period time.Duration, keys ...[]byte) (*NonceIssuer, error) {
	if period == 0 {
		period = defaultPeriod
	}
	if period < minPeriod {
		return nil, fmt.Errorf("dpop: the period of nonces is %v: at least %v is needed", period, minPeriod)
	}
	if len(keys) == 0 {
		return nil, errors.New("dpop: no key for nonces")
	}
	copied := make([][]byte, len(keys))
	for i, key := range keys {
		if len(key) < minNonceKey {
			return nil, fmt.Errorf("dpop: key %d for nonces has %d octets: at least %d are needed", i, len(key), minNonceKey)
		}
		copied[i] = append([]byte(nil), key...)
	}
	return &NonceIssuer{keys: func() [][]byte { return copied }, period: period, now: time.Now}, nil
}

// Nonce returns the current nonce, for a DPoP-Nonce header ([NonceHeader]). It has 22
// characters.
func (n *NonceIssuer) Nonce() string { return n.nonce(n.keys()[0], n.current()) }

// Check reports whether the nonce is accepted. It fits [Verifier.CheckNonce].
func (n *NonceIssuer) Check(nonce string) bool {
	accepted, _ := n.check(nonce)
	return accepted
}

// check also reports whether a proof with the nonce shows that the client needs a newer one.
func (n *NonceIssuer) check(nonce string) (accepted, outdated bool) {
	now := n.current()
	for i, key := range n.keys() {
		for _, period := range []int64{now, now - 1, now + 1} {
			if equal(nonce, n.nonce(key, period)) {
				return true, i > 0 || period < now
			}
		}
	}
	return false, true
}

// current is the number of the current period.
func (n *NonceIssuer) current() int64 { return n.now().UnixNano() / int64(n.period) }

func (n *NonceIssuer) nonce(key []byte, period int64) string {
	mac := hmac.New(sha256.New, key)
	b := append(make([]byte, 0, 32), NonceHeader...) // keeps the purpose apart, should the key have another use
	b = binary.BigEndian.AppendUint64(b, uint64(n.period))
	b = binary.BigEndian.AppendUint64(b, uint64(period))
	mac.Write(b)
	var sum [sha256.Size]byte
	return base64.RawURLEncoding.EncodeToString(mac.Sum(sum[:0])[:16])
}
