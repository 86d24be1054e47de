//go:build cgo && linux

package pcscd_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-piv/piv-go/v2/piv"

	"github.com/ycauth/ycauth-go/piv/internal/pcscd"
	"github.com/ycauth/ycauth-go/piv/internal/virtual"
)

// openPIV opens a card with piv-go until the test ends.
func openPIV(t *testing.T, card *pcscd.Card) *piv.YubiKey {
	t.Helper()
	yk, err := piv.Open(card.Reader())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { yk.Close() })
	return yk
}

func TestPIVGoSignsAndAttests(t *testing.T) {
	for _, firmware := range profiles {
		t.Run(firmware.String(), func(t *testing.T) {
			card := pcscd.Start(t, virtual.Config{Firmware: firmware, Serial: 4711, FormFactor: virtual.USBCKeychain})
			yk := openPIV(t, card)
			if serial, err := yk.Serial(); err != nil || serial != card.Serial() {
				t.Fatalf("Serial() = %d, %v", serial, err)
			}
			public, err := yk.GenerateKey(virtual.DefaultManagementKey(), piv.SlotAuthentication, piv.Key{
				Algorithm: piv.AlgorithmEC256, PINPolicy: piv.PINPolicyOnce, TouchPolicy: piv.TouchPolicyAlways,
			})
			if err != nil {
				t.Fatal(err)
			}
			key, err := yk.PrivateKey(piv.SlotAuthentication, public, piv.KeyAuth{PIN: virtual.DefaultPIN})
			if err != nil {
				t.Fatal(err)
			}
			digest := sha256.Sum256([]byte("proof"))
			signature, err := key.(crypto.Signer).Sign(rand.Reader, digest[:], crypto.SHA256)
			if err != nil || !ecdsa.VerifyASN1(public.(*ecdsa.PublicKey), digest[:], signature) {
				t.Errorf("signature %x, %v", signature, err)
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
			want := piv.Attestation{
				Version:   piv.Version{Major: int(firmware.Major), Minor: int(firmware.Minor), Patch: int(firmware.Patch)},
				Serial:    4711,
				PINPolicy: piv.PINPolicyOnce, TouchPolicy: piv.TouchPolicyAlways, Slot: piv.SlotAuthentication,
			}
			if firmware.Major >= 5 {
				want.Formfactor = piv.FormfactorUSBCKeychain
			}
			if *got != want {
				t.Errorf("attestation %+v, want %+v", *got, want)
			}
			var status interface{ Status() uint16 }
			if _, err := piv.Verify(f9, attestation); err == nil || errors.As(err, &status) {
				t.Errorf("with Yubico's roots: %v", err)
			}
		})
	}
}

// TestPIVGoManagementKeys: AES keys of all sizes, against piv-go's own arithmetic.
func TestPIVGoManagementKeys(t *testing.T) {
	card := pcscd.Start(t, virtual.Config{Firmware: virtual.Firmware54})
	yk := openPIV(t, card)
	old := virtual.DefaultManagementKey()
	for _, n := range []int{16, 24, 32} {
		key := bytes.Repeat([]byte{byte(n)}, n)
		if err := yk.SetManagementKey(old, key); err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		old = key
	}
	if _, err := yk.GenerateKey(virtual.DefaultManagementKey(), piv.SlotSignature, piv.Key{
		Algorithm: piv.AlgorithmEC256, PINPolicy: piv.PINPolicyOnce, TouchPolicy: piv.TouchPolicyNever,
	}); err == nil {
		t.Error("the first key still works")
	}
}

// The tests of piv-go v2.5.0 that cannot pass, and why.
const (
	needsYubicoRoot = "TestYubiKeyAttestation" // verifies against Yubico's own roots
	needsX25519     = "TestYubiKeyX25519ECDH"  // does not look at the firmware version, as its neighbours do
	needsNoBug      = "TestPINPrompt"          // asks with an empty VERIFY whether the PIN is needed
)

// shortSecret is the one that fails by chance.
const shortSecret = "TestYubiKeyECDSASharedKey"

// TestPIVGoSuite runs piv-go's own tests, from the module cache, against the card. With firmware 5.7 all pass but the one that
// wants a card from Yubico's factory; older firmware lacks X25519, and 5.3.1 forgets the PIN when it is asked for.
func TestPIVGoSuite(t *testing.T) {
	binary := buildPIVGoTests(t)
	tests := []struct {
		firmware virtual.Firmware
		passes   int // tests and subtests; the older the firmware, the more are skipped
		fails    []string
	}{
		{virtual.Firmware43, 87, []string{needsX25519, needsYubicoRoot}},
		{virtual.Firmware52, 87, []string{needsX25519, needsYubicoRoot}},
		{virtual.Firmware531, 102, []string{needsX25519, needsNoBug, needsNoBug + "/Once", needsYubicoRoot}},
		{virtual.Firmware54, 104, []string{needsX25519, needsYubicoRoot}},
		{virtual.Firmware57, 129, []string{needsYubicoRoot}},
	}
	for _, test := range tests {
		t.Run(test.firmware.String(), func(t *testing.T) {
			pcscd.Start(t, virtual.Config{Firmware: test.firmware})
			results, output := runPIVGoTests(t, binary)
			if got := results["FAIL"]; !slices.Equal(got, test.fails) {
				t.Errorf("failed: %q, want %q\n%s", got, test.fails, output)
			}
			if n := len(results["PASS"]); n != test.passes {
				t.Errorf("%d tests and subtests passed, want %d", n, test.passes)
			}
			if !bytes.Contains(output, []byte("error verifying attestation certificate: x509: certificate signed by unknown authority")) {
				t.Errorf("%s failed for another reason\n%s", needsYubicoRoot, output)
			}
			if test.firmware == virtual.Firmware57 {
				want := []string{ // for the fingerprint reader of a YubiKey Bio
					"TestPINPolicyMatchOnceIntegration", "TestPINPolicyMatchAlwaysTwoVerifications", "TestPINPolicyMatchOnceSingleVerification",
				}
				if got := results["SKIP"]; !slices.Equal(got, want) {
					t.Errorf("skipped: %q, want %q", got, want)
				}
			}
		})
	}
}

func buildPIVGoTests(t *testing.T) string {
	t.Helper()
	binary := t.TempDir() + "/pivgo.test"
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", binary, "github.com/go-piv/piv-go/v2/piv")
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building piv-go's tests: %v\n%s", err, output)
	}
	return binary
}

var testResult = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): (\S+)`)

// runPIVGoTests returns the names of the tests by result, in the order they ended in; a parent is printed before its subtests.
func runPIVGoTests(t *testing.T, binary string) (map[string][]string, []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	run := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, binary, append(args, "-test.v", "-wipe-yubikey")...)
		cmd.Dir = t.TempDir()
		cmd.Env = append(os.Environ(), "GODEBUG=rsa1024min=0", "PIV_BIO_TESTS=") // one test makes an RSA key of 512 bits
		return cmd.CombinedOutput()
	}
	output, err := run()
	if exit := new(exec.ExitError); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		t.Fatalf("piv-go's tests: %v\n%s", err, output)
	}
	results := make(map[string][]string)
	for lines := bufio.NewScanner(bytes.NewReader(output)); lines.Scan(); {
		if m := testResult.FindStringSubmatch(lines.Text()); m != nil {
			results[m[1]] = append(results[m[1]], m[2])
		}
	}
	// Once in 256 runs the secret begins with a zero, which this test takes off one of the
	// two that it compares. The second run has other keys.
	if failed := results["FAIL"]; slices.Contains(failed, shortSecret) {
		if output, err := run("-test.run=^" + shortSecret + "$"); err != nil {
			t.Errorf("%s failed twice\n%s", shortSecret, output)
		}
		repeated := func(name string) bool { return name == shortSecret || name == shortSecret+"/good" }
		for _, name := range failed {
			if repeated(name) {
				results["PASS"] = append(results["PASS"], name)
			}
		}
		results["FAIL"] = slices.DeleteFunc(failed, repeated)
	}
	if !strings.HasSuffix(strings.TrimSpace(string(output)), "FAIL") {
		t.Fatalf("piv-go's tests did not end in order\n%s", output)
	}
	return results, output
}
