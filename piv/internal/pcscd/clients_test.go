//go:build cgo && linux

package pcscd_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-piv/piv-go/v2/piv"

	"github.com/ycauth/ycauth-go/piv/internal/pcscd"
	"github.com/ycauth/ycauth-go/piv/internal/virtual"
)

// tool is a program of another author that talks to a card.
type tool struct {
	t    *testing.T
	path string
	dir  string
}

// requireTool finds a program. On a developer's machine it may be missing.
func requireTool(t *testing.T, name, debianPackage string) tool {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing (apt-get install %s)", name, debianPackage)
		}
		t.Skipf("%s is missing (apt-get install %s)", name, debianPackage)
	}
	return tool{t, path, t.TempDir()}
}

func (r tool) try(stdin []byte, args ...string) (string, error) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.path, args...)
	cmd.Dir = r.dir
	cmd.Stdin = bytes.NewReader(stdin)
	output, err := cmd.CombinedOutput()
	return string(output), err
}

// run runs the program, which has to succeed and to print some text.
func (r tool) run(want string, stdin []byte, args ...string) string {
	r.t.Helper()
	output, err := r.try(stdin, args...)
	if err != nil || !strings.Contains(output, want) {
		r.t.Fatalf("%s %q: %v, printed without %q:\n%s", filepath.Base(r.path), args, err, want, output)
	}
	return output
}

func (r tool) read(name string) []byte {
	r.t.Helper()
	b, err := os.ReadFile(filepath.Join(r.dir, name))
	if err != nil {
		r.t.Fatal(err)
	}
	return b
}

func (r tool) write(name string, b []byte) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), b, 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r tool) readPEM(name string) []byte {
	r.t.Helper()
	block, rest := pem.Decode(r.read(name))
	if block == nil || len(rest) > 0 {
		r.t.Fatalf("%s is not one PEM block", name)
	}
	return block.Bytes
}

func (r tool) readPublic(name string) crypto.PublicKey {
	r.t.Helper()
	key, err := x509.ParsePKIXPublicKey(r.readPEM(name))
	if err != nil {
		r.t.Fatal(err)
	}
	return key
}

func (r tool) readCertificate(name string) *x509.Certificate {
	r.t.Helper()
	cert, err := x509.ParseCertificate(r.readPEM(name))
	if err != nil {
		r.t.Fatal(err)
	}
	return cert
}

// certificateFor makes a certificate for a key in a slot. The programs find keys by their certificates.
func certificateFor(t *testing.T, public crypto.PublicKey) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "slot"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	parent := &x509.Certificate{Subject: pkix.Name{CommonName: "issuer"}}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// TestYubicoPIVTool runs Yubico's own program. Version 2.2 knows triple DES management keys only, so not firmware 5.7.
func TestYubicoPIVTool(t *testing.T) {
	for _, firmware := range []virtual.Firmware{virtual.Firmware43, virtual.Firmware52, virtual.Firmware531, virtual.Firmware54} {
		t.Run(firmware.String(), func(t *testing.T) {
			r := requireTool(t, "yubico-piv-tool", "yubico-piv-tool")
			card := pcscd.Start(t, virtual.Config{Firmware: firmware, Serial: 4711})
			status := r.run("PIN tries left:\t3", nil, "-a", "status")
			for _, want := range []string{"Version:\t" + firmware.String(), "Serial Number:\t4711", "CHUID:\tNo data available"} {
				if !strings.Contains(status, want) {
					t.Errorf("status without %q:\n%s", want, status)
				}
			}
			r.run("Successfully verified PIN", nil, "-a", "verify-pin", "-P", "123456")
			if output, err := r.try(nil, "-a", "verify-pin", "-P", "999999"); err == nil || !strings.Contains(output, "2 tries left") {
				t.Errorf("wrong PIN: %v\n%s", err, output)
			}
			r.run("Successfully changed the pin", nil, "-a", "change-pin", "-P", "123456", "-N", "654321")
			r.run("Successfully verified PIN", nil, "-a", "verify-pin", "-P", "654321")
			r.run("Successfully set new CHUID", nil, "-a", "set-chuid")
			r.run("Successfully set new CCC", nil, "-a", "set-ccc")
			r.run("Successfully changed the puk", nil, "-a", "change-puk", "-P", "12345678", "-N", "87654321")
			r.run("Successfully unblocked", nil, "-a", "unblock-pin", "-P", "87654321", "-N", "123456")

			for algorithm, slot := range map[string]string{"ECCP256": "9a", "ECCP384": "9d", "RSA2048": "9e"} {
				r.run("Successfully generated", nil, "-a", "generate", "-s", slot, "-A", algorithm, "-o", slot+".pub")
				r.run("", nil, "-a", "attest", "-s", slot, "-o", slot+".attestation")
				public := r.readPublic(slot + ".pub")
				if attested := r.readCertificate(slot + ".attestation").PublicKey; !attested.(interface{ Equal(crypto.PublicKey) bool }).Equal(public) {
					t.Errorf("%s: another key attested", slot)
				}
				cert := certificateFor(t, public)
				r.write(slot+".crt", cert)
				r.run("Successfully imported a new certificate", nil, "-a", "import-certificate", "-s", slot, "-i", slot+".crt")
				r.run("", nil, "-a", "read-certificate", "-s", slot, "-o", slot+".read")
				if !bytes.Equal(r.read(slot+".read"), cert) {
					t.Errorf("%s: another certificate came back", slot)
				}
				r.run("Successful", cert, "-a", "verify-pin", "-P", "123456", "-a", "test-signature", "-s", slot)
				r.run("Successfully performed", cert, "-a", "verify-pin", "-P", "123456", "-a", "test-decipher", "-s", slot)
			}
			r.run("", nil, "-a", "read-certificate", "-s", "f9", "-o", "f9.crt")
			if err := verify(r.readCertificate("9a.attestation"), r.readCertificate("f9.crt"), card.CA()); err != nil {
				t.Error(err)
			}
			if output, err := r.try(nil, "-a", "attest", "-s", "9c"); err == nil {
				t.Errorf("attested an empty slot:\n%s", output)
			}
			r.run("", nil, "-a", "delete-certificate", "-s", "9a")
			if output, err := r.try(nil, "-a", "read-certificate", "-s", "9a", "-o", "none"); err == nil {
				t.Errorf("read a deleted certificate:\n%s", output)
			}
			r.run("Successfully changed pin retries", nil, "-a", "verify-pin", "-P", "123456", "-a", "pin-retries", "--pin-retries", "8", "--puk-retries", "7")
			r.run("PIN tries left:\t8", nil, "-a", "status")
			r.run("Successfully set new management key", nil, "-a", "set-mgm-key", "-n", "0807060504030201080706050403020108070605040302FE")
			card.SetPINTries(0)
			for range 7 {
				_, _ = r.try(nil, "-a", "change-puk", "-P", "99999999", "-N", "87654321")
			}
			r.run("Successfully reset", nil, "-a", "reset")
			r.run("CHUID:\tNo data available", nil, "-a", "status")
			r.run("Successfully generated", nil, "-a", "generate", "-s", "9a", "-A", "ECCP256", "-o", "9a.pub")
		})
	}
	t.Run("5.7.4 without management key", func(t *testing.T) {
		r := requireTool(t, "yubico-piv-tool", "yubico-piv-tool")
		pcscd.Start(t, virtual.Config{Serial: 4711})
		r.run("Version:\t5.7.4", nil, "-a", "status")
		r.run("Successfully verified PIN", nil, "-a", "verify-pin", "-P", "123456")
	})
}

// TestOpenSC signs through OpenSC's PKCS #11 module and verifies with Go: the key in 9a wants the PIN once, the one in 9c
// before every signature.
func TestOpenSC(t *testing.T) {
	for _, firmware := range []virtual.Firmware{virtual.Firmware43, virtual.Firmware54, virtual.Firmware57} {
		t.Run(firmware.String(), func(t *testing.T) {
			r := requireTool(t, "pkcs11-tool", "opensc")
			card := pcscd.Start(t, virtual.Config{Firmware: firmware})
			authentication, err := card.GenerateKey(virtual.SlotAuthentication, virtual.P256, virtual.PINOnce, virtual.TouchAlways)
			if err != nil {
				t.Fatal(err)
			}
			signing, err := card.GenerateKey(virtual.SlotSignature, virtual.RSA2048, virtual.PINDefault, virtual.TouchNever)
			if err != nil {
				t.Fatal(err)
			}
			putCertificate(t, card, piv.SlotAuthentication, certificateFor(t, authentication))
			putCertificate(t, card, piv.SlotSignature, certificateFor(t, signing))

			digest := sha256.Sum256([]byte("proof"))
			r.write("digest", digest[:])
			r.write("message", []byte("proof"))
			sign := []string{"--sign", "--login", "--login-type", "user", "--pin", "123456"}
			r.run("ECDSA", nil, append(sign, "--id", "01", "-m", "ECDSA", "--signature-format", "openssl", "-i", "digest", "-o", "ecdsa")...)
			if !ecdsa.VerifyASN1(authentication.(*ecdsa.PublicKey), digest[:], r.read("ecdsa")) {
				t.Error("the ECDSA signature does not verify")
			}
			r.run("RSA", nil, append(sign, "--id", "02", "-m", "SHA256-RSA-PKCS", "-i", "message", "-o", "rsa")...)
			if err := rsa.VerifyPKCS1v15(signing.(*rsa.PublicKey), crypto.SHA256, digest[:], r.read("rsa")); err != nil {
				t.Errorf("the RSA signature: %v", err)
			}
			if output, err := r.try(nil, "--sign", "--login", "--pin", "999999", "--id", "01", "-m", "ECDSA", "-i", "digest", "-o", "none"); err == nil || !strings.Contains(output, "CKR_PIN_INCORRECT") {
				t.Errorf("wrong PIN: %v\n%s", err, output)
			}
			if tries := card.PINTries(); tries != 2 {
				t.Errorf("%d tries left", tries)
			}
		})
	}
}

// putCertificate stores a certificate as a program with the management key would.
func putCertificate(t *testing.T, card *pcscd.Card, slot piv.Slot, certificate []byte) {
	t.Helper()
	block, _ := pem.Decode(certificate)
	yk, err := piv.Open(card.Reader())
	if err != nil {
		t.Fatal(err)
	}
	defer yk.Close()
	if err := yk.SetCertificate(virtual.DefaultManagementKey(), slot, &x509.Certificate{Raw: block.Bytes}); err != nil {
		t.Fatal(err)
	}
}

// verify builds a chain to the roots of a CA.
func verify(cert, attester *x509.Certificate, ca *virtual.CA) error {
	intermediates := ca.IntermediatePool()
	intermediates.AddCert(attester)
	_, err := cert.Verify(x509.VerifyOptions{Roots: ca.Roots(), Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err
}
