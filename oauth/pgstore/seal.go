package pgstore

import (
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"slices"

	"github.com/ycauth/ycauth-go/oauth"
)

// Keys seal the sessions in the table. Each has a version, from 1, which is stored in
// the rows that it seals, so that keys can be replaced while programs run:
//
//  1. Give all programs the new key, and set Seal to the version of the old one: they can
//     open what the new key seals, and nothing is sealed with it yet.
//  2. Set Seal to the new version, or to 0, in all programs.
//  3. Call [Set.Reseal] in one of them. When [Set.Count] shows no row of the old version,
//     remove the old key.
//
// [Set.SetKeys] does steps 1 and 2 without a restart.
type Keys struct {
	// ByVersion are AEADs such as AES-256-GCM. Nonces are random. A key whose nonces
	// have less than 96 bits is rejected, unless they have none because it draws its
	// own. With AES-GCM, replace a key before it has sealed 2³² sessions.
	ByVersion map[uint32]cipher.AEAD

	// Seal is the version that seals. Optional. Default: the highest.
	Seal uint32
}

// String keeps fmt from printing keys.
func (k Keys) String() string {
	return fmt.Sprintf("pgstore.Keys%v", slices.Sorted(maps.Keys(k.ByVersion)))
}

// Format implements [fmt.Formatter] for every verb, for the same reason.
func (k Keys) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// LogValue implements [slog.LogValuer].
func (k Keys) LogValue() slog.Value { return slog.StringValue(k.String()) }

const minNonce = 12 // in bytes: 96 bits, NIST SP 800-38D §8.2.2

// ready returns a copy of k with Seal set, or what is wrong with k.
func (k Keys) ready() (*Keys, error) {
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

// A row is a session as it is stored.
type row struct {
	session    []byte // sealed, or in the clear; nil if there is none
	keyVersion int64  // 0: in the clear
	generation int64
	base       []byte
}

// lineage identifies the refresh token of a session without revealing it. A new session is
// stored if this is still that of the session that it came from. Sessions without a
// refresh token are told apart by their access tokens. It is empty if there is no session.
func lineage(key string, s oauth.Session) []byte {
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

// associated binds a sealed session to its table, key, key version and generation.
func (s *Set) associated(key string, version, generation int64) []byte {
	b := fields("ycauth-go sealed session 1", s.sealedAs, key)
	b = binary.BigEndian.AppendUint64(b, uint64(version))
	return binary.BigEndian.AppendUint64(b, uint64(generation))
}

// encode makes a row of a session.
func (s *Set) encode(key string, session oauth.Session) (row, error) {
	if session.IsZero() {
		return row{base: []byte{}}, nil
	}
	if session.Generation > math.MaxInt64 {
		return row{}, fmt.Errorf("generation %d is more than a bigint holds", session.Generation)
	}
	plain, err := session.Encode()
	if err != nil {
		return row{}, err
	}
	if _, err := oauth.DecodeSession(plain); err != nil {
		return row{}, fmt.Errorf("it could not be read back: %w", err)
	}
	return s.sealed(key, plain, int64(session.Generation), lineage(key, session))
}

func (s *Set) sealed(key string, plain []byte, generation int64, base []byte) (row, error) {
	r := row{session: plain, generation: generation, base: base}
	keys := s.keys.Load()
	if keys.Seal == 0 {
		return r, nil
	}
	r.keyVersion = int64(keys.Seal)
	aead := keys.ByVersion[keys.Seal]
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+len(plain)+aead.Overhead())
	_, _ = rand.Read(nonce) // it never fails
	r.session = aead.Seal(nonce, nonce, plain, s.associated(key, r.keyVersion, generation))
	return r, nil
}

// open returns the encoded session of a row.
func (s *Set) open(key string, r row) ([]byte, error) {
	keys := s.keys.Load()
	if r.keyVersion == 0 {
		if !s.inTheClear {
			return nil, ErrInTheClear
		}
		return r.session, nil
	}
	if r.keyVersion < 0 || r.keyVersion > math.MaxUint32 || keys.ByVersion[uint32(r.keyVersion)] == nil {
		return nil, fmt.Errorf("%w: it needs version %d", ErrKeyVersion, r.keyVersion)
	}
	aead := keys.ByVersion[uint32(r.keyVersion)]
	n := aead.NonceSize()
	if len(r.session) < n {
		return nil, fmt.Errorf("%w: it is cut off", ErrSealKey)
	}
	plain, err := aead.Open(nil, r.session[:n], r.session[n:], s.associated(key, r.keyVersion, r.generation))
	if err != nil { // an error of a cipher has nothing to tell
		return nil, ErrSealKey
	}
	return plain, nil
}

// decode reads a row.
func (s *Set) decode(op, key string, r row) (oauth.Session, error) {
	if r.session == nil {
		return oauth.Session{}, nil
	}
	plain, err := s.open(key, r)
	if err != nil {
		return oauth.Session{}, s.unreadable(op, key, err)
	}
	session, err := oauth.DecodeSession(plain)
	if err != nil {
		return oauth.Session{}, s.unreadable(op, key, err)
	}
	if session.Generation != uint64(r.generation) || !slices.Equal(lineage(key, session), r.base) {
		return oauth.Session{}, s.unreadable(op, key, fmt.Errorf("%w: columns of the row do not belong to its session", oauth.ErrSessionFormat))
	}
	return session, nil
}
