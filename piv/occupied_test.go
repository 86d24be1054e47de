//go:build cgo && linux

package piv_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/piv"
	"github.com/ycauth/ycauth-go/piv/internal/pcscd"
	"github.com/ycauth/ycauth-go/piv/internal/virtual"
)

// lists runs a program that lists what is on the card.
func lists(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("CI") != "true" {
		t.Skipf("%s is missing", name)
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// TestOthersSeeTheKey has programs of other authors list the card: to them, a slot
// without a certificate is free.
func TestOthersSeeTheKey(t *testing.T) {
	tools := map[string][]string{
		"yubico-piv-tool": {"--reader", "Yubico", "--action", "status"},
		"pkcs11-tool":     {"--module", "opensc-pkcs11.so", "--list-objects"},
	}
	for _, firmware := range []virtual.Firmware{virtual.Firmware57, virtual.Firmware54} {
		for name, args := range tools {
			t.Run(name+" "+firmware.String(), func(t *testing.T) {
				card := pcscd.Start(t, virtual.Config{Firmware: firmware})
				if out := lists(t, name, args...); strings.Contains(out, "ycauth-go") {
					t.Fatalf("before there was a key:\n%s", out)
				}
				k := generated(t, card, trusting(card, &person{}), piv.PINPolicyOnce, piv.TouchPolicyAlways)
				free(t, card)
				out := lists(t, name, args...)
				if !strings.Contains(out, "ycauth-go") || !strings.Contains(out, "key in slot 9a") {
					t.Errorf("does not see the key:\n%s", out)
				}
				mustSign(t, k)
				if a, err := k.Attestation(t.Context()); err != nil || !a.Secure() {
					t.Errorf("Attestation = %+v, %v", a, err)
				}
			})
		}
	}
}

// TestManagementKeyWithTouch generates with one touch, which is announced.
func TestManagementKeyWithTouch(t *testing.T) {
	for _, firmware := range []virtual.Firmware{virtual.Firmware57, virtual.Firmware54} {
		card := pcscd.Start(t, virtual.Config{
			Firmware: firmware, Serial: uint32(firmware.Minor), ManagementTouch: virtual.TouchAlways,
			Touch: virtual.NoTouch, TouchTimeout: 500 * time.Millisecond,
		})
		prompt := &person{}
		spec := piv.KeySpec{PINPolicy: piv.PINPolicyNever, TouchPolicy: piv.TouchPolicyNever}
		_, err := piv.Generate(t.Context(), trusting(card, prompt), spec)
		if pins, touches := prompt.count(); !errors.Is(err, piv.ErrTouchTimeout) || pins != 0 || touches != 1 {
			t.Errorf("without a touch: %d PINs asked for, %d touches announced, %v", pins, touches, err)
		}
		var touched atomic.Int32
		card.SetTouch(func(ctx context.Context) bool {
			touched.Add(1)
			return virtual.TouchAfter(300 * time.Millisecond)(ctx)
		})
		k, err := piv.Generate(t.Context(), trusting(card, prompt), spec)
		if err != nil {
			t.Fatal(err)
		}
		if _, touches := prompt.count(); touched.Load() != 1 || touches != 2 {
			t.Errorf("%d touches taken, %d announced", touched.Load(), touches-1)
		}
		mustSign(t, k)
		k.Close()
	}
}
