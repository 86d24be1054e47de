//go:build cgo && linux

package piv_test

import (
	"context"
	"crypto/ecdsa"
	"errors"
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
