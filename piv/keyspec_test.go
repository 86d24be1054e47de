package piv

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestNames(t *testing.T) {
	for _, test := range []struct {
		value fmt.Stringer
		want  string
	}{
		{PINPolicy(0), "unknown"},
		{PINPolicyOnce, "once"},
		{PINPolicyMatchAlways, "match-always"},
		{PINPolicy(9), "policy 9"},
		{TouchPolicyCached, "cached"},
		{TouchPolicy(4), "policy 4"},
		{AlgorithmP256, "ECCP256"},
		{AlgorithmRSA4096, "RSA4096"},
		{Algorithm(-1), "algorithm -1"},
		{Version{5, 7, 4}, "5.7.4"},
		{FormFactor(0), "unknown"},
		{FormFactor(4), "USB-C Nano"},
		{FormFactor(4) | FormFactorFIPS, "USB-C Nano (FIPS)"},
		{FormFactor(0x55), "form factor 0x55"},
		{Card{Serial: 7, Firmware: Version{5, 2, 7}}, "YubiKey 7, firmware 5.2.7"},
	} {
		if got := test.value.String(); got != test.want {
			t.Errorf("%T: String() = %q, want %q", test.value, got, test.want)
		}
	}
}

func TestAlgorithmNeedsFirmware(t *testing.T) {
	for _, test := range []struct {
		algorithm Algorithm
		firmware  Version
		ok        bool
	}{
		{AlgorithmP256, Version{4, 2, 9}, false},
		{AlgorithmP256, Version{4, 3, 0}, true},
		{AlgorithmP384, Version{5, 2, 7}, true},
		{AlgorithmRSA2048, Version{4, 3, 4}, false}, // CVE-2017-15361
		{AlgorithmRSA2048, Version{4, 3, 5}, true},
		{AlgorithmEd25519, Version{5, 6, 9}, false},
		{AlgorithmEd25519, Version{5, 7, 0}, true},
		{AlgorithmRSA4096, Version{5, 4, 3}, false},
		{AlgorithmRSA4096, Version{6, 0, 0}, true},
		{Algorithm(99), Version{5, 7, 4}, false},
	} {
		err := test.algorithm.supported(test.firmware)
		if (err == nil) != test.ok || err != nil && !errors.Is(err, ErrUnsupported) {
			t.Errorf("%v on firmware %v: %v", test.algorithm, test.firmware, err)
		}
	}
}

// TestManagementKeyDoesNotPrint logs a whole KeySpec, as programs do.
func TestManagementKeyDoesNotPrint(t *testing.T) {
	spec := KeySpec{ManagementKey: []byte("management key, 24 bytes")}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o"} {
		fmt.Fprintf(&out, verb+"\n", spec)
		fmt.Fprintf(&out, verb+"\n", &spec)
		fmt.Fprintf(&out, verb+"\n", spec.ManagementKey)
	}
	slog.New(slog.NewJSONHandler(&out, nil)).Info("text", "spec", spec, "key", spec.ManagementKey)
	slog.New(slog.NewTextHandler(&out, nil)).Info("text", "spec", spec, "key", spec.ManagementKey)
	if err := json.NewEncoder(&out).Encode(spec); err != nil {
		t.Fatal(err)
	}
	text := strings.ToLower(out.String())
	for _, leak := range []string{"management key,", "6d616e61", "109 97 110", "0x6d, 0x61", "155 141", "bwfuywdl"} { // the last is base64
		if strings.Contains(text, leak) {
			t.Errorf("%q is in\n%s", leak, text)
		}
	}
	if n := strings.Count(text, "redacted"); n < 27 {
		t.Errorf("%d marks in\n%s", n, text)
	}
	if got := fmt.Sprint(KeySpec{}.ManagementKey); got != "" {
		t.Errorf("no key prints as %q", got)
	}
}
