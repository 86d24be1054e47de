package virtual

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"sync"
	"time"
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
	private, err := newPrivateKey(RSA2048)
	if err != nil {
		return err
	}
	cert, err := c.ca.issue(private.Public(), rawExtension(oidFirmware, c.version()))
	if err != nil {
		return err
	}
	c.keys[SlotAttestation] = &keyPair{RSA2048, PINOnce, TouchNever, originImported, private}
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
	return x509.CreateCertificate(rand.Reader, template, parent, key.private.Public(), signer) // not of X25519 keys
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

// The life of Yubico's attestation certificates; an attestation copies it.
var (
	caNotBefore = time.Date(2016, time.March, 14, 0, 0, 0, 0, time.UTC)
	caNotAfter  = time.Date(2052, time.April, 17, 0, 0, 0, 0, time.UTC)
)

// CA is a maker of YubiKeys: a root and intermediates that sign the attestation certificates in slot f9 of its cards. Safe for
// concurrent use.
type CA struct {
	root          *x509.Certificate
	intermediates []*x509.Certificate // from the root down
	key           crypto.Signer       // of the last of them
}

// newCA makes a CA with keys of its own. Yubico's had no intermediates until firmware 5.7.3 and has two since 5.7.4, so a
// verifier has to be given those. A card of one CA is not accepted by the roots of another.
func newCA(intermediates int) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := caTemplate("Virtual YubiKey Attestation Root", intermediates+1)
	root, err := signCertificate(template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	ca := &CA{root: root, key: key}
	for i := range intermediates {
		name := fmt.Sprintf("Virtual YubiKey Attestation Intermediate %d", i+1)
		if err := ca.addIntermediate(name, intermediates-i); err != nil {
			return nil, err
		}
	}
	return ca, nil
}

func (ca *CA) addIntermediate(name string, pathLen int) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	cert, err := signCertificate(caTemplate(name, pathLen), ca.issuer(), key.Public(), ca.key)
	if err != nil {
		return err
	}
	ca.intermediates, ca.key = append(ca.intermediates, cert), key
	return nil
}

// Root returns the root certificate.
func (ca *CA) Root() *x509.Certificate { return ca.root }

// Intermediates returns the certificates between the root and the attestation certificate of a card, from the root down.
func (ca *CA) Intermediates() []*x509.Certificate {
	return append([]*x509.Certificate(nil), ca.intermediates...)
}

// Roots returns a pool with the root.
func (ca *CA) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.root)
	return pool
}

// IntermediatePool returns a pool with the intermediates.
func (ca *CA) IntermediatePool() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, cert := range ca.intermediates {
		pool.AddCert(cert)
	}
	return pool
}

// PEM returns the root and the intermediates as certificates in PEM, root first.
func (ca *CA) PEM() []byte {
	var b []byte
	for _, cert := range append([]*x509.Certificate{ca.root}, ca.intermediates...) {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	return b
}

func (ca *CA) issuer() *x509.Certificate {
	if n := len(ca.intermediates); n > 0 {
		return ca.intermediates[n-1]
	}
	return ca.root
}

// issue signs the attestation certificate of a card: "Yubico PIV Attestation", allowed to sign nothing but leaves.
func (ca *CA) issue(public crypto.PublicKey, firmware pkix.Extension) (*x509.Certificate, error) {
	template := caTemplate("Yubico PIV Attestation", 0)
	template.ExtraExtensions = []pkix.Extension{firmware}
	return signCertificate(template, ca.issuer(), public, ca.key)
}

func caTemplate(name string, pathLen int) *x509.Certificate {
	return &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             caNotBefore,
		NotAfter:              caNotAfter,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            pathLen,
		MaxPathLenZero:        pathLen == 0,
	}
}

func signCertificate(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	template.SerialNumber = randomSerial()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// randomSerial returns a positive number of 16 bytes.
func randomSerial() *big.Int {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	b[0] = b[0]&0x7f | 0x01
	return new(big.Int).SetBytes(b)
}

var (
	plainCA   = sync.OnceValues(func() (*CA, error) { return newCA(0) })
	chainedCA = sync.OnceValues(func() (*CA, error) { return newCA(2) })
)

// caFor returns the CA of this process for cards of a firmware.
func caFor(firmware Firmware) (*CA, error) {
	if firmware.hasChainedCA() {
		return chainedCA()
	}
	return plainCA()
}
