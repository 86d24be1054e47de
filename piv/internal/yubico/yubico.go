// Package yubico contains the certificates with which Yubico signs YubiKeys.
//
// They are those of go-piv (roots.pem: the PIV root of 2016,
// the U2F root that signed some cards of 2018, and the root of 2024 for firmware
// 5.7.4 and newer), copied because go-piv does not export them and does not
// compile without cgo. Only intermediates for PIV are included, among them
// one of 2026 that go-piv v2.6.0 does not have. Source: Yubico, "PIV attestation"
// and "Yubico's PKI"; a test compares them with go-piv's, and the newer ones with
// their fingerprints.
package yubico

import (
	"crypto/x509"
	_ "embed"
	"encoding/pem"
	"fmt"
	"sync"
)

//go:embed roots.pem
var rootsPEM []byte

//go:embed intermediates.pem
var intermediatesPEM []byte

// Roots returns Yubico's root certificates. The pool is shared: clone it before
// adding to it.
var Roots = sync.OnceValue(func() *x509.CertPool { return pool(RootCertificates()) })

// Intermediates returns the certificates between the root of 2024 and a card's
// own. The pool is shared: clone it before adding to it.
var Intermediates = sync.OnceValue(func() *x509.CertPool { return pool(IntermediateCertificates()) })

// RootCertificates returns what [Roots] holds.
func RootCertificates() []*x509.Certificate {
	certs := parse(rootsPEM)
	for _, cert := range certs {
		if cert.Subject.CommonName == "Yubico U2F Root CA Serial 457200631" {
			// It allows no CA below itself (RFC 5280 section 4.2.1.9), yet Yubico
			// signed the attestation CAs of some YubiKey 4 with it.
			cert.MaxPathLen, cert.MaxPathLenZero = 1, false
		}
	}
	return certs
}

// IntermediateCertificates returns what [Intermediates] holds.
func IntermediateCertificates() []*x509.Certificate { return parse(intermediatesPEM) }

func pool(certs []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, cert := range certs {
		p.AddCert(cert)
	}
	return p
}

// parse reads certificates that are part of the program.
func parse(text []byte) []*x509.Certificate {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return certs
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			panic(fmt.Sprintf("yubico: embedded certificate: %v", err))
		}
		certs = append(certs, cert)
	}
}
