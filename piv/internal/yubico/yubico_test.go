package yubico

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// gopivCertificates returns all certificates in a file of go-piv's package.
func gopivCertificates(t *testing.T, elem ...string) map[string]bool {
	t.Helper()
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/go-piv/piv-go/v2").Output()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(append([]string{strings.TrimSpace(string(dir)), "piv"}, elem...)...))
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]bool)
	for _, part := range strings.SplitAfter(string(text), "-----END CERTIFICATE-----") {
		_, body, ok := strings.Cut(part, "-----BEGIN CERTIFICATE-----")
		if !ok {
			continue
		}
		block, _ := pem.Decode([]byte("-----BEGIN CERTIFICATE-----" + body + "\n"))
		if block == nil {
			t.Fatalf("%v: certificate not readable", elem)
		}
		found[string(block.Bytes)] = true
	}
	return found
}

func TestRootsAreGoPivs(t *testing.T) {
	want := gopivCertificates(t, "key.go")
	for raw := range gopivCertificates(t, "certs", "yubico-ca-1.pem") {
		want[raw] = true
	}
	roots := RootCertificates()
	if len(roots) != len(want) {
		t.Errorf("%d roots, go-piv has %d", len(roots), len(want))
	}
	for _, root := range roots {
		if !want[string(root.Raw)] {
			t.Errorf("go-piv does not trust %v", root.Subject)
		}
		if err := root.CheckSignatureFrom(root); err != nil {
			t.Errorf("%v: %v", root.Subject, err)
		}
	}
}

// newer are the intermediates for PIV that go-piv v2.6.0 does not have: the SHA-256
// of each, and where it was published. Looked up in Yubico/developers.yubico.com
// on 2026-11-21.
var newer = map[string]string{
	"0c90b7d184a36edf50a35f9be935f0c5689bfdcfe5bdd073366cafb49061a440": "Yubico PIV Attestation B2 1", // 2026-05-11, pull request 676
}

func TestIntermediatesAreYubicos(t *testing.T) {
	all := gopivCertificates(t, "certs", "yubico-intermediate.pem")
	missing := maps.Clone(newer)
	for _, cert := range IntermediateCertificates() {
		sum := fmt.Sprintf("%x", sha256.Sum256(cert.Raw))
		if name, ok := newer[sum]; ok && name != cert.Subject.CommonName {
			t.Errorf("%s is %v, want %s", sum, cert.Subject, name)
		} else if !ok && !all[string(cert.Raw)] {
			t.Errorf("neither go-piv nor the list has %v, %s", cert.Subject, sum)
		}
		delete(missing, sum)
		delete(all, string(cert.Raw))
	}
	for _, name := range missing {
		t.Errorf("%q is missing", name)
	}
	for raw := range all {
		cert, err := x509.ParseCertificate([]byte(raw))
		if err != nil {
			t.Fatal(err)
		}
		if name := cert.Subject.CommonName; strings.Contains(name, "PIV") || strings.Contains(name, "Intermediate") {
			t.Errorf("%q is missing", name)
		}
	}
}

func TestIntermediatesLeadToRoots(t *testing.T) {
	for _, cert := range IntermediateCertificates() {
		_, err := cert.Verify(x509.VerifyOptions{
			Roots:         Roots(),
			Intermediates: Intermediates(),
			KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		})
		if err != nil {
			t.Errorf("%v: %v", cert.Subject, err)
		}
	}
}
