//go:build cgo && linux

package piv_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"testing"
	"time"

	gopiv "github.com/go-piv/piv-go/v2/piv"

	"github.com/ycauth/ycauth-go/piv"
	"github.com/ycauth/ycauth-go/piv/internal/pcscd"
	"github.com/ycauth/ycauth-go/piv/internal/virtual"
)

// another is another program that uses the card with go-piv.
func another(t *testing.T, card *pcscd.Card, fn func(*gopiv.YubiKey) error) {
	t.Helper()
	free(t, card)
	yk, err := gopiv.Open(card.Reader())
	if err != nil {
		t.Fatal(err)
	}
	err = fn(yk)
	yk.Close()
	if err != nil {
		t.Fatal(err)
	}
}

// imported puts a key made elsewhere into slot 9a.
func imported(t *testing.T, card *pcscd.Card, private crypto.PrivateKey, pin gopiv.PINPolicy, touch gopiv.TouchPolicy) {
	t.Helper()
	another(t, card, func(yk *gopiv.YubiKey) error {
		return yk.SetPrivateKeyInsecure(gopiv.DefaultManagementKey, gopiv.SlotAuthentication, private, gopiv.Key{PINPolicy: pin, TouchPolicy: touch})
	})
}

func newP256(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return private
}

// selfSigned is a certificate for a public key, by whomever.
func selfSigned(t *testing.T, subject string, public crypto.PublicKey, signer crypto.Signer) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: subject},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

var firmwares = []virtual.Firmware{
	virtual.Firmware43, virtual.Firmware52, virtual.Firmware531, virtual.Firmware54, virtual.Firmware57,
}

// TestAttestationOfCards takes what the card states through our verification and
// through go-piv's, which have to agree.
func TestAttestationOfCards(t *testing.T) {
	for _, firmware := range firmwares {
		t.Run(firmware.String(), func(t *testing.T) {
			card := pcscd.Start(t, virtual.Config{Firmware: firmware, FormFactor: virtual.USBCLightning})
			k := generated(t, card, trusting(card, &person{}), piv.PINPolicyOnce, piv.TouchPolicyAlways)
			a, err := k.Attestation(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			version := piv.Version{Major: int(firmware.Major), Minor: int(firmware.Minor), Patch: int(firmware.Patch)}
			if !a.Secure() || a.Serial != card.Serial() || a.Firmware != version || a.Slot != piv.SlotAuthentication {
				t.Errorf("attestation %+v", a)
			}
			chain := a.Certificates()
			if want := 2 + len(card.CA().Intermediates()); len(chain) != want {
				t.Errorf("%d certificates, want %d", len(chain), want)
			}
			mustSign(t, k) // the visit left the card in order

			roots := card.CA().Roots()
			for _, cert := range chain[2:] {
				roots.AddCert(cert) // go-piv has no other way to take them
			}
			theirs, err := (&gopiv.Verifier{Roots: roots}).Verify(chain[1], chain[0])
			if err != nil {
				t.Fatal(err)
			}
			if theirs.Serial != a.Serial || int(theirs.PINPolicy) != int(a.PINPolicy) || int(theirs.TouchPolicy) != int(a.TouchPolicy) ||
				theirs.Slot.Key != uint32(a.Slot) || int(theirs.Formfactor) != int(a.FormFactor) || theirs.Version.Minor != a.Firmware.Minor {
				t.Errorf("go-piv reads %+v, we read %+v", theirs, a)
			}
		})
	}
}

func TestBadAttestation(t *testing.T) {
	card := pcscd.Start(t, virtual.Config{})
	o := trusting(card, &person{})
	attest := func(t *testing.T) (*piv.Key, error) {
		t.Helper()
		k, err := piv.Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { k.Close() })
		_, err = k.Attestation(t.Context())
		return k, err
	}
	t.Run("policies not secure", func(t *testing.T) {
		for _, p := range []struct {
			pin   piv.PINPolicy
			touch piv.TouchPolicy
		}{{piv.PINPolicyNever, piv.TouchPolicyAlways}, {piv.PINPolicyOnce, piv.TouchPolicyNever}} {
			a, err := generated(t, card, o, p.pin, p.touch).Attestation(t.Context())
			if err != nil || a.Secure() {
				t.Errorf("PIN %v, touch %v: secure %v, %v", p.pin, p.touch, a.Secure(), err)
			}
		}
	})
	t.Run("imported", func(t *testing.T) {
		imported(t, card, newP256(t), gopiv.PINPolicyOnce, gopiv.TouchPolicyNever)
		k, err := attest(t)
		if !errors.Is(err, piv.ErrAttestation) {
			t.Errorf("error: %v", err)
		}
		mustSign(t, k)
	})
	t.Run("maker's certificate replaced", func(t *testing.T) {
		generated(t, card, o, piv.PINPolicyOnce, piv.TouchPolicyAlways)
		original, err := card.AttestationCertificate()
		if err != nil {
			t.Fatal(err)
		}
		attestationSlot := gopiv.Slot{Key: 0xf9, Object: 0x5fff01}
		own := newP256(t)
		another(t, card, func(yk *gopiv.YubiKey) error {
			return yk.SetCertificate(gopiv.DefaultManagementKey, attestationSlot, selfSigned(t, original.Subject.CommonName, own.Public(), own))
		})
		k, err := attest(t)
		var unproven *piv.AttestationError
		if !errors.As(err, &unproven) || unproven.Attestation.Secure() || len(unproven.Attestation.Certificates()) != 2 {
			t.Errorf("error: %v", err)
		}
		mustSign(t, k)
		another(t, card, func(yk *gopiv.YubiKey) error {
			return yk.SetCertificate(gopiv.DefaultManagementKey, attestationSlot, original)
		})
		if _, err := attest(t); err != nil {
			t.Errorf("with the certificate back: %v", err)
		}
	})
}

// TestImportedKeys signs with keys whose policies old firmware does not tell.
func TestImportedKeys(t *testing.T) {
	for _, firmware := range []virtual.Firmware{virtual.Firmware43, virtual.Firmware52, virtual.Firmware54} {
		for name, policy := range map[string]gopiv.PINPolicy{
			"never": gopiv.PINPolicyNever, "once": gopiv.PINPolicyOnce, "always": gopiv.PINPolicyAlways,
		} {
			t.Run(firmware.String()+" "+name, func(t *testing.T) {
				card := pcscd.Start(t, virtual.Config{Firmware: firmware})
				private := newP256(t)
				imported(t, card, private, policy, gopiv.TouchPolicyNever)
				another(t, card, func(yk *gopiv.YubiKey) error {
					return yk.SetCertificate(gopiv.DefaultManagementKey, gopiv.SlotAuthentication, selfSigned(t, "imported", private.Public(), private))
				})
				prompt := &person{}
				k, err := piv.Open(t.Context(), trusting(card, prompt))
				if err != nil {
					t.Fatal(err)
				}
				defer k.Close()
				if !private.PublicKey.Equal(k.Public()) {
					t.Fatal("another key")
				}
				for range 3 {
					mustSign(t, k)
				}
				want := map[gopiv.PINPolicy]int{gopiv.PINPolicyNever: 0, gopiv.PINPolicyOnce: 1, gopiv.PINPolicyAlways: 3}[policy]
				if pins, _ := prompt.count(); pins != want {
					t.Errorf("asked for the PIN %d times, want %d", pins, want)
				}
			})
		}
	}
}

// TestGenerateKeepsWhatIsThere tries to generate over everything that a slot can
// hold, on every firmware.
func TestGenerateKeepsWhatIsThere(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, firmware := range firmwares {
		t.Run(firmware.String(), func(t *testing.T) {
			card := pcscd.Start(t, virtual.Config{Firmware: firmware})
			o := trusting(card, &person{})
			refuses := func(what string) {
				t.Helper()
				if k, err := piv.Generate(t.Context(), o, piv.KeySpec{}); !errors.Is(err, piv.ErrSlotOccupied) {
					t.Errorf("%s: Generate = %v, %v", what, k, err)
				}
			}
			// An empty slot is taken without a word.
			k, err := piv.Generate(t.Context(), o, piv.KeySpec{})
			if err != nil {
				t.Fatal(err)
			}
			defer k.Close()
			refuses("generated key")
			mustSign(t, k)
			for what, private := range map[string]crypto.PrivateKey{"imported P-256": newP256(t), "imported RSA": rsaKey} {
				imported(t, card, private, gopiv.PINPolicyOnce, gopiv.TouchPolicyAlways)
				refuses(what)
			}
			imported(t, card, newP256(t), gopiv.PINPolicyNever, gopiv.TouchPolicyNever)
			refuses("imported key that signs at once")
			free(t, card)
			card.DeleteKey(virtual.SlotAuthentication)
			private := newP256(t)
			another(t, card, func(yk *gopiv.YubiKey) error {
				return yk.SetCertificate(gopiv.DefaultManagementKey, gopiv.SlotAuthentication, selfSigned(t, "alone", private.Public(), private))
			})
			refuses("certificate alone")
			mustSign(t, generated(t, card, o, piv.PINPolicyOnce, piv.TouchPolicyCached)) // with Overwrite
		})
	}
}

func TestManagementKeyUnderPIN(t *testing.T) {
	for _, firmware := range []virtual.Firmware{virtual.Firmware43, virtual.Firmware57} {
		t.Run(firmware.String(), func(t *testing.T) {
			card := pcscd.Start(t, virtual.Config{Firmware: firmware})
			key := []byte("management key, 24 bytes")
			another(t, card, func(yk *gopiv.YubiKey) error {
				return errors.Join(
					yk.SetManagementKey(gopiv.DefaultManagementKey, key),
					yk.SetMetadata(key, &gopiv.Metadata{ManagementKey: &key}),
				)
			})
			prompt := &person{pins: []string{"654321"}}
			o := trusting(card, prompt)
			var wrong *piv.WrongPINError
			if _, err := piv.Generate(t.Context(), o, piv.KeySpec{}); !errors.As(err, &wrong) || wrong.TriesLeft != 2 {
				t.Errorf("error: %v", err)
			}
			k, err := piv.Generate(t.Context(), o, piv.KeySpec{})
			if err != nil {
				t.Fatal(err)
			}
			defer k.Close()
			mustSign(t, k)
			if k, err = piv.Generate(t.Context(), o, piv.KeySpec{ManagementKey: key, Overwrite: true}); err != nil {
				t.Fatal(err)
			}
			mustSign(t, k)
			if _, err := piv.Generate(t.Context(), o, piv.KeySpec{ManagementKey: key[:16], Overwrite: true}); !errors.Is(err, piv.ErrManagementKey) {
				t.Errorf("a key of the wrong length: %v", err)
			}
		})
	}
}

// TestAbandonedSignature leaves a card that waits for a touch. The next signature
// takes the touch that the first one was waiting for to end, and no other.
func TestAbandonedSignature(t *testing.T) {
	card := pcscd.Start(t, virtual.Config{Touch: virtual.TouchAfter(time.Second)})
	prompt := &person{blinks: make(chan struct{})}
	k := generated(t, card, trusting(card, prompt), piv.PINPolicyOnce, piv.TouchPolicyAlways)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-prompt.blinks
		cancel()
	}()
	if err := sign(ctx, k); !errors.Is(err, context.Canceled) {
		t.Fatalf("error: %v", err)
	}
	mustSign(t, k)
	if n := card.Count(virtual.InsAuthenticate); n < 2 {
		t.Errorf("%d signatures", n)
	}
	if pins, _ := prompt.count(); pins != 1 {
		t.Errorf("asked for the PIN %d times", pins)
	}
}
