package pivtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"sync"
	"time"
)

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

// NewCA makes a CA with keys of its own. Yubico's had no intermediates until firmware 5.7.3 and has two since 5.7.4, so a
// verifier has to be given those. A card of one CA is not accepted by the roots of another.
func NewCA(intermediates int) (*CA, error) {
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
	plainCA   = sync.OnceValues(func() (*CA, error) { return NewCA(0) })
	chainedCA = sync.OnceValues(func() (*CA, error) { return NewCA(2) })
)

// DefaultCA returns the CA of this process for cards of a firmware, which signs where Config.CA is nil.
func DefaultCA(firmware Firmware) (*CA, error) {
	if firmware.hasChainedCA() {
		return chainedCA()
	}
	return plainCA()
}
