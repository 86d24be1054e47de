package virtual_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/piv/internal/virtual"
)

// attest asks the card for an attestation.
func (p program) attest(slot virtual.Slot) *x509.Certificate {
	p.t.Helper()
	der, sw := p.command(virtual.InsAttest, byte(slot), 0, nil)
	if sw != virtual.Success {
		p.t.Fatalf("ATTEST: %v", sw)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		p.t.Fatal(err)
	}
	return cert
}

// attester reads the certificate in slot f9 with GET DATA.
func (p program) attester() *x509.Certificate {
	p.t.Helper()
	all := elements(p.t, value(p.t, p.object(0x5fff01), class1|0x13))
	if len(all) != 3 || all[0].tag != class1|0x10 || !bytes.Equal(all[1].value, []byte{0}) || len(all[2].value) != 0 {
		p.t.Fatalf("certificate object %+v", all)
	}
	cert, err := x509.ParseCertificate(all[0].value)
	if err != nil {
		p.t.Fatal(err)
	}
	return cert
}

// verify builds a chain to the roots of a CA.
func verify(cert, attester *x509.Certificate, ca *virtual.CA) error {
	intermediates := ca.IntermediatePool()
	intermediates.AddCert(attester)
	_, err := cert.Verify(x509.VerifyOptions{Roots: ca.Roots(), Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err
}

func TestAttestation(t *testing.T) {
	for _, firmware := range profiles {
		t.Run(firmware.String(), func(t *testing.T) {
			p := newProgram(t, virtual.Config{Firmware: firmware, Serial: 0x12345678, FormFactor: virtual.USBCNano})
			public, err := p.card.GenerateKey(virtual.SlotAuthentication, virtual.P256, virtual.PINOnce, virtual.TouchAlways)
			if err != nil {
				t.Fatal(err)
			}
			attester, cert := p.attester(), p.attest(virtual.SlotAuthentication)
			ca := p.card.CA()
			if err := verify(cert, attester, ca); err != nil {
				t.Error(err)
			}
			if !cert.PublicKey.(*ecdsa.PublicKey).Equal(public) {
				t.Error("another public key")
			}
			if known, err := p.card.AttestationCertificate(); err != nil || !known.Equal(attester) {
				t.Errorf("AttestationCertificate() = %v, %v", known, err)
			}
			if !bytes.Equal(cert.RawIssuer, attester.RawSubject) || attester.Subject.CommonName != "Yubico PIV Attestation" {
				t.Errorf("issuer %v, attester %v", cert.Issuer, attester.Subject)
			}
			if got := cert.Subject.String(); got != "CN=YubiKey PIV Attestation 9a" {
				t.Errorf("subject %q", got)
			}
			if !cert.NotBefore.Equal(attester.NotBefore) || !cert.NotAfter.Equal(attester.NotAfter) {
				t.Error("dates are not those of the attester")
			}
			if cert.SerialNumber.BitLen() < 113 || cert.SerialNumber.Cmp(p.attest(virtual.SlotAuthentication).SerialNumber) == 0 {
				t.Errorf("serial number %x", cert.SerialNumber)
			}
			if cert.SignatureAlgorithm != x509.SHA256WithRSA {
				t.Errorf("signed with %v", cert.SignatureAlgorithm)
			}
			version := []byte{firmware.Major, firmware.Minor, firmware.Patch}
			want := []struct {
				arc   int
				value []byte
			}{{3, version}, {7, unhex(t, "0204 12345678")}, {8, []byte{2, 2}}, {9, []byte{4}}}
			if firmware.Major < 5 {
				want = want[:3]
			}
			if len(cert.Extensions) != len(want) {
				t.Fatalf("extensions %v", cert.Extensions)
			}
			for i, e := range cert.Extensions {
				oid := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, want[i].arc}
				if !e.Id.Equal(oid) || e.Critical || !bytes.Equal(e.Value, want[i].value) {
					t.Errorf("extension %v = %x, want %v = %x", e.Id, e.Value, oid, want[i].value)
				}
			}
			if n := len(ca.Intermediates()); (n == 2) != firmware.AtLeast(5, 7, 4) {
				t.Errorf("%d intermediates", n)
			}
		})
	}
}

// TestAttestationOfEveryKey: any generated key in any slot but f9.
func TestAttestationOfEveryKey(t *testing.T) {
	p := newProgram(t, virtual.Config{})
	slot := virtual.Slot(0x82)
	for _, key := range keyAlgorithms {
		switch key.algorithm {
		case virtual.RSA4096, virtual.RSA3072:
			continue // slow to make, and no different
		case virtual.X25519:
			continue // not for this card
		}
		t.Run(key.algorithm.String(), func(t *testing.T) {
			public, err := p.card.GenerateKey(slot, key.algorithm, 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			cert := p.attest(slot)
			if err := verify(cert, p.attester(), p.card.CA()); err != nil {
				t.Error(err)
			}
			if cert.Subject.CommonName != fmt.Sprintf("YubiKey PIV Attestation %v", slot) || cert.SignatureAlgorithm != x509.SHA256WithRSA {
				t.Errorf("%v, signed with %v", cert.Subject, cert.SignatureAlgorithm)
			}
			want, err := x509.MarshalPKIXPublicKey(public)
			if err != nil || !bytes.Equal(cert.RawSubjectPublicKeyInfo, want) {
				t.Errorf("public key %x, want %x, %v", cert.RawSubjectPublicKeyInfo, want, err)
			}
			slot++
		})
	}
	p.expectAll("00F99A0000 -> 6A80", "00F9F90000 -> 6A80", "00F99B0000 -> 6A86", "00F9820100 -> 6A86")
}

func TestCardsOfDifferentMakers(t *testing.T) {
	p := newSigner(t, virtual.Config{}, 0, 0)
	cert, attester, ca := p.attest(virtual.SlotAuthentication), p.attester(), p.card.CA()
	if err := verify(cert, attester, ca); err != nil {
		t.Error(err)
	}
	old := newSigner(t, virtual.Config{Firmware: virtual.Firmware43}, 0, 0)
	if err := verify(cert, attester, old.card.CA()); err == nil {
		t.Error("a card of one maker is accepted by the roots of another")
	}
	other := newSigner(t, virtual.Config{}, 0, 0)
	if err := verify(cert, other.attester(), ca); err == nil {
		t.Error("the attestation of one card is accepted with the attester of another")
	}
	var inPEM []*x509.Certificate
	for rest := ca.PEM(); len(rest) > 0; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		inPEM = append(inPEM, c)
	}
	if !slices.EqualFunc(inPEM, append([]*x509.Certificate{ca.Root()}, ca.Intermediates()...), (*x509.Certificate).Equal) {
		t.Errorf("%d certificates in PEM", len(inPEM))
	}
}

// TestReplacedAttester: a company may put its own key and certificate into slot f9.
func TestReplacedAttester(t *testing.T) {
	p := newSigner(t, virtual.Config{}, 0, 0)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Our attestation"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	p.authenticate()
	if _, sw := p.command(virtual.InsImportKey, byte(virtual.P256), 0xf9, importData(t, key)); sw != virtual.Success {
		t.Fatal(sw)
	}
	object := append(append(tagged(0x70, der), tagged(0x71, []byte{0})...), tagged(0xfe, nil)...)
	if _, sw := p.command(virtual.InsPutData, 0x3f, 0xff, append(unhex(t, "5C035FFF01"), tagged(0x53, object)...)); sw != virtual.Success {
		t.Fatal(sw)
	}
	cert, own := p.attest(virtual.SlotAuthentication), p.attester()
	if err := cert.CheckSignatureFrom(own); err != nil {
		t.Error(err)
	}
	if cert.Issuer.CommonName != "Our attestation" || !cert.NotAfter.Equal(own.NotAfter) {
		t.Errorf("issuer %v until %v", cert.Issuer, cert.NotAfter)
	}
	p.must("00DB3FFF 07 5C035FFF01 5300")
	p.expect("00F99A0000", virtual.ConditionsNotSatisfied)
}
