package piv

import (
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/ycauth/ycauth-go/piv/internal/yubico"
)

// Attestation is a card's statement about one of its keys (Yubico, "PIV
// attestation"): that it was generated on this card, never to leave it, and under
// which policies. [Key.Attestation] and [VerifyAttestation] return verified ones;
// only an [*AttestationError] holds one that is not.
type Attestation struct {
	// Serial is the card's serial number; 0 where the statement has none, as that
	// of some YubiKey 4.
	Serial uint32

	// Firmware is the card's firmware version.
	Firmware Version

	// FormFactor is the card's shape; 0 where the statement does not say.
	FormFactor FormFactor

	// Slot is where the key lives.
	Slot Slot

	// PINPolicy and TouchPolicy are the key's, for life.
	PINPolicy   PINPolicy
	TouchPolicy TouchPolicy

	// PublicKey is the key's public half.
	PublicKey crypto.PublicKey

	chain    []*x509.Certificate // without the root where verified, else as presented
	verified bool
}

// Secure reports whether the key is what Yandex Cloud calls SECURE_KEY_DPOP: a
// "YubiKey PIV key with required pin/touch policy and attestation". That is so
// for a verified statement with a PIN policy and a touch policy that are known
// and not never.
//
// The service's own rule is not published in more detail than this, so take the
// answer for a good guess.
func (a *Attestation) Secure() bool {
	if a == nil || !a.verified {
		return false
	}
	switch a.PINPolicy {
	case PINPolicyOnce, PINPolicyAlways, PINPolicyMatchOnce, PINPolicyMatchAlways:
	default:
		return false
	}
	return a.TouchPolicy == TouchPolicyAlways || a.TouchPolicy == TouchPolicyCached
}

// Certificates returns the statement as a chain for the x5c header of a proof
// (RFC 7515 section 4.1.6): the slot's certificate, the card's own, and the
// intermediates up to but without the root.
//
// The chain names the card by its serial number, so it identifies its owner to
// whoever sees the proof. That a server wants it in this header is an assumption
// that has not been verified against the live service.
func (a *Attestation) Certificates() []*x509.Certificate { return slices.Clone(a.chain) }

// Trust says whose attestations to believe. The zero value means Yubico's.
type Trust struct {
	// Roots replace Yubico's roots. Optional.
	Roots *x509.CertPool

	// Intermediates may stand between Roots and a card's own certificate.
	// Optional. Default: Yubico's, and whatever follows the card's certificate
	// in a chain.
	Intermediates *x509.CertPool
}

// AttestationError is an attestation that was read but cannot be believed. It is
// an [ErrAttestation].
type AttestationError struct {
	// Attestation is the statement as it was presented; its Secure is false. Its
	// certificates can still be shown to a server that knows more roots.
	Attestation *Attestation

	// Err says why.
	Err error
}

func (e *AttestationError) Error() string { return because(ErrAttestation, e.Err).Error() }

// Unwrap returns ErrAttestation and Err.
func (e *AttestationError) Unwrap() []error { return []error{ErrAttestation, e.Err} }

// VerifyAttestation checks the chain of an attestation: the slot's certificate,
// the certificate of the card that signed it, then any intermediates. It needs no
// card and no cgo, so the receiving side can use it too; that side still has to
// compare PublicKey with the key that it was shown.
//
// Its error is an [*AttestationError], or an [ErrAttestation] where there is not
// even a statement to read.
func VerifyAttestation(chain []*x509.Certificate, trust Trust) (*Attestation, error) {
	if len(chain) < 2 {
		return nil, becausef(ErrAttestation, "a chain has the slot's and the card's certificate, this has %s",
			plural(len(chain), "certificate", "certificates"))
	}
	a, err := parseAttestation(chain[0])
	if err != nil {
		return nil, because(ErrAttestation, err)
	}
	a.chain = slices.Clone(chain)
	verified, err := verifyChain(chain, trust)
	if err != nil {
		return nil, &AttestationError{a, err}
	}
	a.chain = verified[:len(verified)-1]
	a.verified = true
	return a, nil
}

// verifyChain returns the chain from the slot's certificate to a trusted root.
func verifyChain(chain []*x509.Certificate, trust Trust) ([]*x509.Certificate, error) {
	opts := x509.VerifyOptions{
		Roots:     trust.Roots,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	if opts.Roots == nil {
		opts.Roots = yubico.Roots()
	}
	if trust.Intermediates == nil {
		opts.Intermediates = yubico.Intermediates().Clone()
	} else {
		opts.Intermediates = trust.Intermediates.Clone()
	}
	device := asCA(chain[1])
	for _, cert := range append([]*x509.Certificate{device}, chain[2:]...) {
		opts.Intermediates.AddCert(cert)
	}
	chains, err := chain[0].Verify(opts)
	if err != nil {
		return nil, err
	}
	for _, verified := range chains {
		// The statement is the card's: nobody else may have signed it.
		if len(verified) > 2 && verified[1].Equal(device) {
			return verified, nil
		}
	}
	return nil, errors.New("the slot's certificate is not signed by the card's")
}

// asCA returns the certificate of a card as the CA that it is. Some YubiKey 4 do
// not say so in theirs, as RFC 5280 section 4.2.1.9 would have it.
func asCA(cert *x509.Certificate) *x509.Certificate {
	if cert.BasicConstraintsValid || cert.Subject.CommonName != "Yubico PIV Attestation" {
		return cert
	}
	ca := *cert
	ca.BasicConstraintsValid, ca.IsCA = true, true
	return &ca
}

// Extensions of a slot's certificate (Yubico, "PIV attestation").
var (
	oidFirmware   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 3}
	oidSerial     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 7}
	oidPolicy     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 8}
	oidFormFactor = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 9}
)

// subjectPrefix begins the common name of a slot's certificate; the slot follows.
const subjectPrefix = "YubiKey PIV Attestation "

// parseAttestation reads what a slot's certificate says, without believing it.
func parseAttestation(cert *x509.Certificate) (*Attestation, error) {
	name, ok := strings.CutPrefix(cert.Subject.CommonName, subjectPrefix)
	if !ok {
		return nil, fmt.Errorf("%q is not the subject of a PIV attestation", cert.Subject.CommonName)
	}
	slot, err := ParseSlot(name)
	if err != nil {
		return nil, err
	}
	a := &Attestation{Slot: slot, PublicKey: cert.PublicKey}
	for _, ext := range cert.Extensions {
		v := ext.Value
		switch {
		case ext.Id.Equal(oidFirmware):
			if len(v) != 3 {
				return nil, fmt.Errorf("firmware version of %d bytes", len(v))
			}
			a.Firmware = Version{int(v[0]), int(v[1]), int(v[2])}
		case ext.Id.Equal(oidSerial):
			if a.Serial, err = parseSerial(v); err != nil {
				return nil, err
			}
		case ext.Id.Equal(oidPolicy):
			if len(v) != 2 {
				return nil, fmt.Errorf("policies of %d bytes", len(v))
			}
			a.PINPolicy, a.TouchPolicy = PINPolicy(v[0]), TouchPolicy(v[1])
		case ext.Id.Equal(oidFormFactor):
			if len(v) != 1 {
				return nil, fmt.Errorf("form factor of %d bytes", len(v))
			}
			a.FormFactor = FormFactor(v[0])
		}
	}
	return a, nil
}

func parseSerial(der []byte) (uint32, error) {
	var serial int64
	if rest, err := asn1.Unmarshal(der, &serial); err != nil || len(rest) > 0 || serial < 0 || serial > math.MaxUint32 {
		return 0, fmt.Errorf("serial number %x is not a 32-bit integer", der)
	}
	return uint32(serial), nil
}

// contradicts says how the statement differs from what is known of the key and
// its card, or nil. It compares only what both sides know.
func (a *Attestation) contradicts(card Card, slot Slot, key slotInfo) error {
	switch {
	case !samePublicKey(a.PublicKey, key.public):
		return ErrKeyMismatch
	case a.Slot != slot:
		return fmt.Errorf("it is about slot %v", a.Slot)
	case a.Serial != 0 && a.Serial != card.Serial:
		return fmt.Errorf("it is about YubiKey %d", a.Serial)
	case a.Firmware != card.Firmware:
		return fmt.Errorf("it says firmware %v, the card says %v", a.Firmware, card.Firmware)
	case key.pin != 0 && a.PINPolicy != key.pin:
		return fmt.Errorf("it says PIN policy %v, the card says %v", a.PINPolicy, key.pin)
	case key.touch != 0 && a.TouchPolicy != key.touch:
		return fmt.Errorf("it says touch policy %v, the card says %v", a.TouchPolicy, key.touch)
	}
	return nil
}

func samePublicKey(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}
