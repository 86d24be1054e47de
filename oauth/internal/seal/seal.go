// Package seal encrypts sessions for stores in which other keys of the same place, other
// places and older rows lie beside them.
package seal

import (
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync/atomic"

	"github.com/ycauth/ycauth-go/oauth"
)

var (
	// ErrKeyVersion means that there is no key of the version that sealed a session.
	ErrKeyVersion = errors.New("there is no key of the version that sealed the session")

	// ErrSealKey means that a session was sealed with another key or for another place,
	// or was altered.
	ErrSealKey = errors.New("the key does not open the sealed session")

	// ErrInTheClear means that a session is stored in the clear, which is not allowed.
	ErrInTheClear = errors.New("the session is stored in the clear")
)

// Keys are AEADs by their versions, from 1. Seal is the version that seals; 0 stands for
// the highest, and after Ready for none.
type Keys struct {
	ByVersion map[uint32]cipher.AEAD
	Seal      uint32
}

const minNonce = 12 // in bytes: 96 bits, NIST SP 800-38D §8.2.2

// Ready returns a copy of k with Seal set, or what is wrong with k.
func (k Keys) Ready() (*Keys, error) {
	if len(k.ByVersion) == 0 {
		return &Keys{}, nil
	}
	ready := &Keys{ByVersion: maps.Clone(k.ByVersion), Seal: k.Seal}
	var wrong []error
	for version, key := range ready.ByVersion {
		switch {
		case version == 0:
			wrong = append(wrong, errors.New("key version 0 stands for sessions in the clear: count versions from 1"))
		case key == nil:
			wrong = append(wrong, fmt.Errorf("key version %d is nil", version))
		default:
			if n := key.NonceSize(); n != 0 && n < minNonce {
				wrong = append(wrong, fmt.Errorf("key version %d has nonces of %d bytes, which is not enough for random ones", version, n))
			}
		}
		if k.Seal == 0 {
			ready.Seal = max(ready.Seal, version)
		}
	}
	if _, ok := ready.ByVersion[ready.Seal]; !ok {
		wrong = append(wrong, fmt.Errorf("there is no key of version %d, which is to seal", ready.Seal))
	}
	return ready, errors.Join(wrong...)
}

// A Row is a session as it is stored.
type Row struct {
	Session    []byte // sealed, or in the clear; nil if there is none
	KeyVersion int64  // 0: in the clear
	Generation int64
	Base       []byte // see Lineage
}

// Lineage identifies the refresh token of a session without revealing it. A new session is
// stored if this is still that of the session that it came from. Sessions without a
// refresh token are told apart by their access tokens. It is empty if there is no session.
func Lineage(key string, s oauth.Session) []byte {
	kind, token := "refresh", s.RefreshToken
	switch {
	case s.IsZero():
		return []byte{}
	case token == "":
		kind, token = "access", s.AccessToken
	}
	sum := sha256.Sum256(fields("ycauth-go lineage 1", kind, key, token.Reveal()))
	return sum[:]
}

// fields joins texts so that no two lists give the same bytes.
func fields(texts ...string) []byte {
	var b []byte
	for _, text := range texts {
		b = binary.BigEndian.AppendUint64(b, uint64(len(text)))
		b = append(b, text...)
	}
	return b
}

// A Sealer makes rows of sessions, and sessions of rows. It is safe for concurrent use.
type Sealer struct {
	place      string
	inTheClear bool
	keys       atomic.Pointer[Keys]
}

// New returns a sealer for one place, such as a table, which every seal is bound to.
// inTheClear allows rows that are not sealed. SetKeys has to follow.
func New(place string, inTheClear bool) *Sealer { return &Sealer{place: place, inTheClear: inTheClear} }

// SetKeys replaces the keys.
func (s *Sealer) SetKeys(keys Keys) error {
	ready, err := keys.Ready()
	if err == nil && ready.Seal == 0 && !s.inTheClear {
		err = errors.New("there is no key to seal sessions with: set Keys, or InTheClear to do without")
	}
	if err == nil {
		s.keys.Store(ready)
	}
	return err
}

// Version is that of the key that seals; 0 if sessions are stored in the clear.
func (s *Sealer) Version() uint32 { return s.keys.Load().Seal }

// associated binds a sealed session to its place, key, key version and generation.
func (s *Sealer) associated(key string, version, generation int64) []byte {
	b := fields("ycauth-go sealed session 1", s.place, key)
	b = binary.BigEndian.AppendUint64(b, uint64(version))
	return binary.BigEndian.AppendUint64(b, uint64(generation))
}

// Encode makes a row of a session.
func (s *Sealer) Encode(key string, session oauth.Session) (Row, error) {
	if session.IsZero() {
		return Row{Base: []byte{}}, nil
	}
	if session.Generation > math.MaxInt64 {
		return Row{}, fmt.Errorf("generation %d is more than 63 bits hold", session.Generation)
	}
	plain, err := session.Encode()
	if err != nil {
		return Row{}, err
	}
	if _, err := oauth.DecodeSession(plain); err != nil {
		return Row{}, fmt.Errorf("it could not be read back: %w", err)
	}
	return s.seal(key, plain, int64(session.Generation), Lineage(key, session)), nil
}

func (s *Sealer) seal(key string, plain []byte, generation int64, base []byte) Row {
	r := Row{Session: plain, Generation: generation, Base: base}
	keys := s.keys.Load()
	if keys.Seal == 0 {
		return r
	}
	r.KeyVersion = int64(keys.Seal)
	aead := keys.ByVersion[keys.Seal]
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+len(plain)+aead.Overhead())
	_, _ = rand.Read(nonce) // it never fails
	r.Session = aead.Seal(nonce, nonce, plain, s.associated(key, r.KeyVersion, generation))
	return r
}

// Reseal returns the row with the key that seals now.
func (s *Sealer) Reseal(key string, r Row) (Row, error) {
	if _, err := s.Decode(key, r); err != nil {
		return Row{}, err
	}
	plain, err := s.open(key, r)
	if err != nil {
		return Row{}, err
	}
	return s.seal(key, plain, r.Generation, r.Base), nil
}

// open returns the encoded session of a row.
func (s *Sealer) open(key string, r Row) ([]byte, error) {
	keys := s.keys.Load()
	if r.KeyVersion == 0 {
		if !s.inTheClear {
			return nil, ErrInTheClear
		}
		return r.Session, nil
	}
	if r.KeyVersion < 0 || r.KeyVersion > math.MaxUint32 || keys.ByVersion[uint32(r.KeyVersion)] == nil {
		return nil, fmt.Errorf("%w: it needs version %d", ErrKeyVersion, r.KeyVersion)
	}
	aead := keys.ByVersion[uint32(r.KeyVersion)]
	n := aead.NonceSize()
	if len(r.Session) < n {
		return nil, fmt.Errorf("%w: it is cut off", ErrSealKey)
	}
	plain, err := aead.Open(nil, r.Session[:n], r.Session[n:], s.associated(key, r.KeyVersion, r.Generation))
	if err != nil { // an error of a cipher has nothing to tell
		return nil, ErrSealKey
	}
	return plain, nil
}

// Decode reads a row. The zero Session means that there is none. Errors match one of this
// package's Err variables or [oauth.ErrSessionFormat].
func (s *Sealer) Decode(key string, r Row) (oauth.Session, error) {
	if r.Session == nil {
		return oauth.Session{}, nil
	}
	plain, err := s.open(key, r)
	if err != nil {
		return oauth.Session{}, err
	}
	session, err := oauth.DecodeSession(plain)
	if err != nil {
		return oauth.Session{}, err
	}
	if session.Generation != uint64(r.Generation) || !slices.Equal(Lineage(key, session), r.Base) {
		return oauth.Session{}, fmt.Errorf("%w: what is stored beside the session does not belong to it", oauth.ErrSessionFormat)
	}
	return session, nil
}
