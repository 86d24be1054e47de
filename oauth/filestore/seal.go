package filestore

import (
	"bytes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/ycauth/ycauth-go/oauth"
)

// An Option configures a [Store].
type Option func(*Store) error

// WithSeal encrypts the session on disk with key, an AEAD such as AES-256-GCM.
// [github.com/ycauth/ycauth-go/oauth/keyringstore.Key] keeps one in the keyring
// of the operating system. Nonces are random, so a key with nonces of less than
// 96 bits is rejected, except for a nonce size of 0, which means that the AEAD
// generates its own. A nil key is rejected, too.
//
// A session that was stored in plain text is read, and sealed by the next successful
// Update. A copy of the old file may remain in free blocks of the disk.
// Without the key a sealed session cannot be read; the errors are
// [ErrSealed] and [ErrSealKey].
func WithSeal(key cipher.AEAD) Option {
	return func(s *Store) error {
		if key == nil {
			return errors.New("the key of WithSeal is nil: omit WithSeal to store sessions in plain text")
		}
		if n := key.NonceSize(); n != 0 && n < minNonce {
			return fmt.Errorf("the key of WithSeal has nonces of %d bytes, which is too short for random ones", n)
		}
		s.key = func() cipher.AEAD { return key }
		return nil
	}
}

const minNonce = 12 // in bytes: 96 bits, NIST SP 800-38D §8.2.2

var (
	// ErrSealed means that the session is sealed, and the [Store] was opened
	// without [WithSeal]. Such an error matches [oauth.ErrSessionFormat], too.
	ErrSealed = errors.New("the session is sealed")

	// ErrSealKey means that the session was sealed with another key or for another
	// profile, or was forged. Such an error matches [oauth.ErrSessionFormat], too.
	// If the key is lost, so is the session: call [Store.Discard] and log
	// in again. A truncated or damaged file matches neither error, because no key helps.
	ErrSealKey = errors.New("the key does not open the sealed session")
)

// A sealed file is a line of text, the nonce, the ciphertext of the encoded
// session, and the SHA-256 hash of all that. The line and the name of the profile
// are the associated data: the ciphertext of one profile is of no use to another,
// and neither is a line with another generation. The path is not part of it, so
// that directories can be moved.
//
// The hash protects nothing from anybody. It tells without the key whether a file
// is whole, because a part is of no use, and a whole file is not to be destroyed
// only because the key at hand does not open it.
const (
	sealedPrefix = "ycauth-go sealed session"
	sealedLine   = sealedPrefix + ", version 1, generation %d\n"
)

func isSealed(data []byte) bool { return bytes.HasPrefix(data, []byte(sealedPrefix)) }

func (s *Store) associated(line []byte) []byte { return append(bytes.Clone(line), s.profile...) }

// seal returns the content of a sealed file.
func (s *Store) seal(generation uint64, plain []byte) ([]byte, error) {
	key := s.key()
	sealed := fmt.Appendf(make([]byte, 0, len(sealedLine)+20+key.NonceSize()+len(plain)+key.Overhead()+sha256.Size), sealedLine, generation)
	associated := s.associated(sealed)
	nonce := make([]byte, key.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	sealed = append(sealed, nonce...)
	sealed = key.Seal(sealed, nonce, plain, associated)
	sum := sha256.Sum256(sealed)
	return append(sealed, sum[:]...), nil
}

// isWhole reports whether a sealed file ends with the hash of what precedes it.
func isWhole(data []byte) bool {
	n := max(len(data)-sha256.Size, 0)
	sum := sha256.Sum256(data[:n])
	return bytes.Equal(sum[:], data[n:])
}

// unseal returns the session of a sealed file.
func (s *Store) unseal(data []byte) (oauth.Session, error) {
	line, rest, found := bytes.Cut(data, []byte("\n"))
	line = append(bytes.Clone(line), '\n')
	var generation uint64
	_, err := fmt.Sscanf(string(line), sealedLine, &generation)
	if !found || err != nil || !bytes.Equal(line, fmt.Appendf(nil, sealedLine, generation)) {
		return oauth.Session{}, fmt.Errorf("%w: its first line is unknown to this program", oauth.ErrSessionFormat)
	}
	if !isWhole(data) { // so is what a version before the first release sealed, which had no hash
		return oauth.Session{}, fmt.Errorf("%w: the sealed session is truncated or damaged", oauth.ErrSessionFormat)
	}
	if s.key == nil {
		return oauth.Session{}, fmt.Errorf("%w (%w)", ErrSealed, oauth.ErrSessionFormat)
	}
	key := s.key()
	n, end := key.NonceSize(), len(rest)-sha256.Size
	if end < n { // made with a key that has shorter nonces, or by nobody
		return oauth.Session{}, fmt.Errorf("%w (%w)", ErrSealKey, oauth.ErrSessionFormat)
	}
	plain, err := key.Open(nil, rest[:n], rest[n:end], s.associated(line))
	if err != nil { // whatever the key says of it: an error of a cipher has nothing to tell
		return oauth.Session{}, fmt.Errorf("%w (%w)", ErrSealKey, oauth.ErrSessionFormat)
	}
	session, err := decodePlain(plain)
	if err == nil && session.Generation != generation {
		err = fmt.Errorf("%w: its generation differs from that of its first line", oauth.ErrSessionFormat)
	}
	if err != nil {
		return oauth.Session{}, err
	}
	return session, nil
}
