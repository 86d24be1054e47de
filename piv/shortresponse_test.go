//go:build cgo && linux

package piv_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/ycauth/ycauth-go/piv"
	"github.com/ycauth/ycauth-go/piv/internal/pcscd"
	"github.com/ycauth/ycauth-go/piv/internal/virtual"
)

// TestResponseBreaksOff has each command of a signature answered without a status
// word, as by a card that is pulled out or a reader with a bad contact. That is no
// success, and no reason to ask for the PIN twice.
func TestResponseBreaksOff(t *testing.T) {
	for _, policy := range []piv.PINPolicy{piv.PINPolicyOnce, piv.PINPolicyAlways} {
		for _, ins := range []byte{
			virtual.InsSelect, virtual.InsGetVersion, virtual.InsGetSerial, virtual.InsGetMetadata, virtual.InsVerify, virtual.InsAuthenticate,
		} {
			t.Run(fmt.Sprintf("%v %02x", policy, ins), func(t *testing.T) {
				card := pcscd.Start(t, virtual.Config{})
				prompt := &person{}
				k := generated(t, card, trusting(card, prompt), policy, piv.TouchPolicyNever)
				free(t, card)
				card.FailNext(ins, 1, virtual.NoStatus)
				// The PIN was sent before the signature, which is not repeated then.
				if err := sign(t.Context(), k); ins == virtual.InsAuthenticate && !errors.Is(err, piv.ErrCardRemoved) ||
					ins != virtual.InsAuthenticate && err != nil {
					t.Errorf("error: %v", err)
				}
				if pins, _ := prompt.count(); pins != 1 || card.PINTries() != virtual.DefaultTries {
					t.Errorf("asked for the PIN %d times, %d tries left", pins, card.PINTries())
				}
				mustSign(t, k)
			})
		}
	}
}

// TestVerifyBreaksOff has no response to the PIN: it may have been right or wrong,
// so it must not be sent again.
func TestVerifyBreaksOff(t *testing.T) {
	card := pcscd.Start(t, virtual.Config{})
	prompt := &nested{before: func() { card.FailNext(virtual.InsVerify, 1, virtual.NoStatus) }}
	k := generated(t, card, trusting(card, prompt), piv.PINPolicyOnce, piv.TouchPolicyNever)
	card.ResetLog()
	if err := sign(t.Context(), k); !errors.Is(err, piv.ErrCardRemoved) {
		t.Errorf("error: %v", err)
	}
	sent := 0
	for _, e := range card.Log() {
		if e.INS == virtual.InsVerify && e.DataLen > 0 {
			sent++
		}
	}
	if pins, _ := prompt.count(); pins != 1 || sent != 1 {
		t.Errorf("asked for the PIN %d times, sent it %d times", pins, sent)
	}
	prompt.before = func() {}
	mustSign(t, k)
}
