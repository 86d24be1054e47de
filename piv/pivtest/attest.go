package pivtest

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
)

// Extensions of an attestation (Yubico, PIV attestation). All but the serial number are raw bytes, not ASN.1.
var (
	oidFirmware   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 3}
	oidSerial     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 7}
	oidPolicy     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 8}
	oidFormFactor = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, 9}
)

// CA returns the CA that signed the attestation certificate of the card.
func (c *Card) CA() *CA { return c.ca }

// AttestationCertificate returns the certificate in slot f9 that the maker or a program put there.
func (c *Card) AttestationCertificate() (*x509.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.ensureAttestation(); err != nil {
		return nil, err
	}
	return x509.ParseCertificate(certificateOf(c.objects[objectAttestation]))
}

// ensureAttestation makes the key in slot f9 and its certificate when something first wants them: the key is RSA, which takes
// its time, and most tests want none.
func (c *Card) ensureAttestation() error {
	if c.attestationMade {
		return nil
	}
	private, err := newPrivateKey(c.attestationAlgorithm)
	if err != nil {
		return err
	}
	cert, err := c.ca.issue(private.Public(), rawExtension(oidFirmware, c.version()))
	if err != nil {
		return err
	}
	c.keys[SlotAttestation] = &keyPair{c.attestationAlgorithm, PINOnce, TouchNever, originImported, private}
	c.objects[objectAttestation] = certificateObject(cert.Raw)
	c.attestationMade = true
	return nil
}

// attest is ATTEST, from firmware 4.3 on: a certificate for the key in slot P1 that says it was generated in this card.
func (c *Card) attest(_ context.Context, r request) ([]byte, StatusWord) {
	slot := Slot(r.p1)
	if r.p2 != 0 || !slot.holdsKeyPair() {
		return nil, IncorrectP1P2
	}
	key, ok := c.keys[slot]
	if !ok || key.origin != originGenerated || slot == SlotAttestation {
		return nil, IncorrectData
	}
	der, err := c.attestation(slot, key)
	if err != nil {
		return nil, ConditionsNotSatisfied
	}
	return der, Success
}

// attestation makes the certificate: issuer and dates are those of the certificate in slot f9, the serial number is random.
func (c *Card) attestation(slot Slot, key *keyPair) ([]byte, error) {
	if err := c.ensureAttestation(); err != nil {
		return nil, err
	}
	attester, ok := c.keys[SlotAttestation]
	if !ok {
		return nil, errInput
	}
	issuer, err := x509.ParseCertificate(certificateOf(c.objects[objectAttestation]))
	if err != nil {
		return nil, err
	}
	extensions, err := c.attestationExtensions(key)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:       randomSerial(),
		Subject:            pkix.Name{CommonName: "YubiKey PIV Attestation " + slot.String()},
		NotBefore:          issuer.NotBefore,
		NotAfter:           issuer.NotAfter,
		SignatureAlgorithm: attestationSignature(attester.private),
		ExtraExtensions:    extensions,
	}
	// Only the issuer's name is taken: a real attestation has no authority key identifier.
	parent := &x509.Certificate{RawSubject: issuer.RawSubject}
	signer, ok := attester.private.(crypto.Signer)
	if !ok {
		return nil, errInput
	}
	public := key.private.Public()
	if x25519, ok := public.(*ecdh.PublicKey); ok {
		return createX25519Certificate(template, parent, x25519, signer)
	}
	return x509.CreateCertificate(rand.Reader, template, parent, public, signer)
}

func (c *Card) attestationExtensions(key *keyPair) ([]pkix.Extension, error) {
	serial, err := asn1.Marshal(int64(c.serial))
	if err != nil {
		return nil, err
	}
	extensions := []pkix.Extension{
		rawExtension(oidFirmware, c.version()),
		rawExtension(oidSerial, serial),
		rawExtension(oidPolicy, []byte{byte(key.pin), byte(key.touch)}),
	}
	if c.firmware.Major >= 5 {
		extensions = append(extensions, rawExtension(oidFormFactor, []byte{byte(c.formFactor)}))
	}
	return extensions, nil
}

func rawExtension(id asn1.ObjectIdentifier, value []byte) pkix.Extension {
	return pkix.Extension{Id: id, Value: value}
}

func attestationSignature(key privateKey) x509.SignatureAlgorithm {
	switch key.(type) {
	case *rsa.PrivateKey:
		return x509.SHA256WithRSA
	case *ecdsa.PrivateKey:
		return x509.ECDSAWithSHA256
	default:
		return x509.PureEd25519
	}
}
