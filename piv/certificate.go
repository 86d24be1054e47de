package piv

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"
)

// markerOrganization is how a person recognizes the keys of this package in other
// programs.
const markerOrganization = "ycauth-go"

// marker returns a certificate for a slot with a new key. Other programs take a
// slot without a certificate for an empty one. It certifies nothing, because its
// issuer is a key that nobody has: to sign it with the new key could take a PIN and
// a touch.
func marker(public crypto.PublicKey, slot Slot) ([]byte, error) {
	issuer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	name := func(common string) pkix.Name {
		return pkix.Name{Organization: []string{markerOrganization}, CommonName: common}
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	return x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)), // RFC 5280 section 4.1.2.2: positive
		Subject:      name(fmt.Sprintf("key in slot %v", slot)),
		NotBefore:    time.Now().Add(-24 * time.Hour),                  // clocks differ
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280 section 4.1.2.5: none
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}, &x509.Certificate{Subject: name("nobody")}, public, issuer)
}
