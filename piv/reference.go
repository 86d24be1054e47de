package piv

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Reference identifies one key on one card, for storage in a configuration or with a
// session. It contains no secret. Its text, also in JSON, is
//
//	yubikey:serial=12345678;slot=9a;sha256=q2Fc…
//
// where the last part is the SHA-256 of the key's SubjectPublicKeyInfo (RFC 5280
// section 4.1.2.7) in unpadded base64url. A reference is comparable with ==.
type Reference struct {
	// Serial is the card's serial number.
	Serial uint32

	// Slot is the key's slot.
	Slot Slot

	// Fingerprint distinguishes the key from later ones in the same slot; see
	// [Fingerprint].
	Fingerprint [sha256.Size]byte
}

// Fingerprint returns the SHA-256 of a public key's SubjectPublicKeyInfo. Its
// error is that of [x509.MarshalPKIXPublicKey].
func Fingerprint(public crypto.PublicKey) ([sha256.Size]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("piv: fingerprint: %w", err)
	}
	return sha256.Sum256(der), nil
}

// Options returns the options that open only this key. If the slot
// has another key, Open returns [ErrKeyMismatch].
func (r Reference) Options(prompt Prompt) Options {
	return Options{Serial: r.Serial, Slot: r.Slot, Fingerprint: r.Fingerprint, Prompt: prompt}
}

const referenceScheme = "yubikey:"

// ParseReference parses the text of a [Reference].
func ParseReference(s string) (Reference, error) {
	var r Reference
	if err := r.parse(s); err != nil {
		return Reference{}, fmt.Errorf("piv: key reference %.80q: %w", s, err)
	}
	return r, nil
}

func (r *Reference) parse(s string) error {
	rest, ok := strings.CutPrefix(s, referenceScheme)
	if !ok {
		return errors.New(`does not begin with "yubikey:"`)
	}
	parts := strings.Split(rest, ";")
	if len(parts) != 3 {
		return errors.New("want serial, slot and sha256")
	}
	for i, key := range []string{"serial=", "slot=", "sha256="} {
		value, ok := strings.CutPrefix(parts[i], key)
		if !ok {
			return fmt.Errorf("%s is missing", strings.TrimSuffix(key, "="))
		}
		parts[i] = value
	}
	serial, err := strconv.ParseUint(parts[0], 10, 32)
	if err != nil || serial == 0 {
		return errors.New("the serial number is not a positive 32-bit number")
	}
	slot, err := ParseSlot(parts[1])
	if err != nil {
		return err
	}
	sum, err := base64.RawURLEncoding.Strict().DecodeString(parts[2])
	if err != nil || len(sum) != sha256.Size || [sha256.Size]byte(sum) == ([sha256.Size]byte{}) {
		return errors.New("the fingerprint is not a SHA-256 in base64url")
	}
	*r = Reference{uint32(serial), slot, [sha256.Size]byte(sum)}
	if r.String() != s {
		return errors.New("not in canonical form") // so that equal keys have equal texts
	}
	return nil
}

// String returns the reference's text.
func (r Reference) String() string {
	return fmt.Sprintf("%sserial=%d;slot=%v;sha256=%s", referenceScheme, r.Serial, r.Slot,
		base64.RawURLEncoding.EncodeToString(r.Fingerprint[:]))
}

// MarshalText implements [encoding.TextMarshaler], and with it JSON. A reference
// without a serial number, a slot or a fingerprint is an error.
func (r Reference) MarshalText() ([]byte, error) {
	if r.Serial == 0 || !r.Slot.valid() || r.Fingerprint == ([sha256.Size]byte{}) {
		return nil, errors.New("piv: incomplete key reference")
	}
	return []byte(r.String()), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (r *Reference) UnmarshalText(text []byte) error {
	parsed, err := ParseReference(string(text))
	if err != nil {
		return err
	}
	*r = parsed
	return nil
}
