//go:build cgo && linux

package piv_test

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	gopiv "github.com/go-piv/piv-go/v2/piv"

	"github.com/ycauth/ycauth-go/piv"
	"github.com/ycauth/ycauth-go/piv/internal/pcscd"
	"github.com/ycauth/ycauth-go/piv/internal/virtual"
)

// nested is a person who does something else with the card before they enter the PIN.
type nested struct {
	person
	before func()
}

func (n *nested) PIN(ctx context.Context, r piv.PINRequest) (string, error) {
	n.before()
	return n.person.PIN(ctx, r)
}

// TestSlotFilledByOwnProcess has this process generate a key in a slot while a
// person enters the PIN for another key in that slot. The connection to the card
// stays the same.
func TestSlotFilledByOwnProcess(t *testing.T) {
	card := pcscd.Start(t, virtual.Config{Firmware: virtual.Firmware54})
	key := []byte("management key, 24 bytes")
	another(t, card, func(yk *gopiv.YubiKey) error {
		return errors.Join(
			yk.SetManagementKey(gopiv.DefaultManagementKey, key),
			yk.SetMetadata(key, &gopiv.Metadata{ManagementKey: &key}),
		)
	})
	var first *piv.Key
	prompt := &nested{before: func() {
		var err error
		first, err = piv.Generate(t.Context(), trusting(card, nil), piv.KeySpec{
			ManagementKey: key, PINPolicy: piv.PINPolicyNever, TouchPolicy: piv.TouchPolicyNever,
		})
		if err != nil {
			t.Fatal(err)
		}
	}}
	_, err := piv.Generate(t.Context(), trusting(card, prompt), piv.KeySpec{})
	if !errors.Is(err, piv.ErrSlotOccupied) {
		t.Errorf("second: %v", err)
	}
	defer first.Close()
	mustSign(t, first)
}

// TestManagementKeyIsForgotten has another program that keeps the card open, and
// wants to change it after a key was generated.
func TestManagementKeyIsForgotten(t *testing.T) {
	for _, firmware := range firmwares {
		t.Run(firmware.String(), func(t *testing.T) {
			card := pcscd.Start(t, virtual.Config{Firmware: firmware})
			h := hold(t, card, pcscd.HoldOptions{})
			k := generated(t, card, trusting(card, nil), piv.PINPolicyNever, piv.TouchPolicyNever)
			k.Close()
			// GENERATE ASYMMETRIC KEY PAIR in 9a, P-256, without a SELECT.
			command := []byte{0, 0x47, 0, 0x9a, 5, 0xac, 3, 0x80, 1, 0x11, 0}
			response, err := h.Transmit(t.Context(), command)
			for start := time.Now(); errors.Is(err, pcscd.PCSCError(0x8010000b)) && time.Since(start) < 5*time.Second; {
				time.Sleep(10 * time.Millisecond) // a real program, in real time
				response, err = h.Transmit(t.Context(), command)
			}
			if err != nil || len(response) != 2 || response[0] != 0x69 || response[1] != 0x82 {
				t.Errorf("the other program was answered %X, %v", response, err)
			}
			again, err := piv.Open(t.Context(), trusting(card, nil))
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			if !k.Public().(*ecdsa.PublicKey).Equal(again.Public()) {
				t.Error("the slot holds another key")
			}
		})
	}
}

// TestHiddenKeyThatNeedsATouch has a key in the slot that only a touch reveals.
func TestHiddenKeyThatNeedsATouch(t *testing.T) {
	card := pcscd.Start(t, virtual.Config{Firmware: virtual.Firmware43})
	imported(t, card, newP256(t), gopiv.PINPolicyNever, gopiv.TouchPolicyAlways)
	card.SetTouch(virtual.TouchAfter(time.Second))
	prompt := &person{}
	_, err := piv.Generate(t.Context(), trusting(card, prompt), piv.KeySpec{})
	if _, touches := prompt.count(); !errors.Is(err, piv.ErrSlotOccupied) || touches != 1 {
		t.Errorf("%d touches announced, %v", touches, err)
	}

	// Without that key there is no touch to announce.
	free(t, card)
	card.DeleteKey(virtual.SlotAuthentication)
	k, err := piv.Generate(t.Context(), trusting(card, prompt), piv.KeySpec{})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if _, touches := prompt.count(); touches != 1 {
		t.Errorf("%d touches announced", touches)
	}
}

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
