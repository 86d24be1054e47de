//go:build cgo

package pivtest_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"testing"

	"github.com/go-piv/piv-go/v2/piv"

	"github.com/ycauth/ycauth-go/piv/pivtest"
)

// openPIV opens a card with piv-go until the test ends.
func openPIV(t *testing.T, card *pivtest.Card) *piv.YubiKey {
	t.Helper()
	yk, err := piv.Open(card.Reader())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { yk.Close() })
	return yk
}

func TestPIVGoSignsAndAttests(t *testing.T) {
	for _, firmware := range []pivtest.Firmware{
		pivtest.Firmware43, pivtest.Firmware52, pivtest.Firmware531, pivtest.Firmware54, pivtest.Firmware57,
	} {
		t.Run(firmware.String(), func(t *testing.T) {
			card := pivtest.Start(t, pivtest.Config{Firmware: firmware, Serial: 4711})
			yk := openPIV(t, card)
			if serial, err := yk.Serial(); err != nil || serial != card.Serial() {
				t.Fatalf("Serial() = %d, %v", serial, err)
			}
			public, err := yk.GenerateKey(pivtest.DefaultManagementKey(), piv.SlotAuthentication, piv.Key{
				Algorithm: piv.AlgorithmEC256, PINPolicy: piv.PINPolicyOnce, TouchPolicy: piv.TouchPolicyAlways,
			})
			if err != nil {
				t.Fatal(err)
			}
			key, err := yk.PrivateKey(piv.SlotAuthentication, public, piv.KeyAuth{PIN: pivtest.DefaultPIN})
			if err != nil {
				t.Fatal(err)
			}
			digest := sha256.Sum256([]byte("proof"))
			signature, err := key.(crypto.Signer).Sign(rand.Reader, digest[:], crypto.SHA256)
			if err != nil {
				t.Fatal(err)
			}
			if !ecdsa.VerifyASN1(public.(*ecdsa.PublicKey), digest[:], signature) {
				t.Error("signature does not verify")
			}
			f9, err := yk.AttestationCertificate()
			if err != nil {
				t.Fatal(err)
			}
			attestation, err := yk.Attest(piv.SlotAuthentication)
			if err != nil {
				t.Fatal(err)
			}
			roots := card.CA().Roots()
			for _, cert := range card.CA().Intermediates() {
				roots.AddCert(cert) // piv-go knows no other way to give it intermediates
			}
			verifier := piv.Verifier{Roots: roots}
			got, err := verifier.Verify(f9, attestation)
			if err != nil {
				t.Fatal(err)
			}
			if got.Serial != card.Serial() || got.PINPolicy != piv.PINPolicyOnce || got.TouchPolicy != piv.TouchPolicyAlways || got.Slot != piv.SlotAuthentication {
				t.Errorf("attestation = %+v", got)
			}
		})
	}
}
