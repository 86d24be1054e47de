package pivtest

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
)

// createX25519Certificate does what x509.CreateCertificate does not: a certificate for an X25519 key, which cannot sign. The
// key info of an Ed25519 key is the same but for the object identifier (RFC 8410, section 4), so the certificate of one is
// made, its key info exchanged, and the result signed again.
func createX25519Certificate(template, parent *x509.Certificate, public *ecdh.PublicKey, signer crypto.Signer) ([]byte, error) {
	standIn := ed25519.PublicKey(public.Bytes())
	der, err := x509.CreateCertificate(rand.Reader, template, parent, standIn, signer)
	if err != nil {
		return nil, err
	}
	var cert struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &cert); err != nil {
		return nil, err
	}
	before, err := x509.MarshalPKIXPublicKey(standIn)
	if err != nil {
		return nil, err
	}
	after, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	cert.TBS.FullBytes = bytes.Replace(cert.TBS.FullBytes, before, after, 1)
	hash := crypto.SHA256
	if _, ok := signer.Public().(ed25519.PublicKey); ok {
		hash = 0
	}
	signature, err := crypto.SignMessage(signer, rand.Reader, cert.TBS.FullBytes, hash)
	if err != nil {
		return nil, err
	}
	cert.Signature = asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
	return asn1.Marshal(cert)
}
