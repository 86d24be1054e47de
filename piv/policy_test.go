package piv

import (
	"errors"
	"fmt"
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
		{FormFactorUSBCNano, "USB-C Nano"},
		{FormFactorUSBCNano | FormFactorFIPS, "USB-C Nano (FIPS)"},
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
