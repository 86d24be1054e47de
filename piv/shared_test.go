//go:build cgo && linux

package piv_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/piv"
	"github.com/ycauth/ycauth-go/piv/internal/pcscd"
	"github.com/ycauth/ycauth-go/piv/internal/virtual"
)

// TestFailedSelects has a card that does not let its PIV application be selected,
// in the ways that are known, and then does. The process must be able to sign with
// it, and other programs to open it.
func TestFailedSelects(t *testing.T) {
	for _, test := range []struct {
		name string
		fail func(t *testing.T, card *pcscd.Card)
		want error
	}{
		{"application switched off", func(_ *testing.T, card *pcscd.Card) {
			card.FailNext(virtual.InsSelect, 1, virtual.NotFound)
		}, piv.ErrUnsupported},
		{"no answer", func(_ *testing.T, card *pcscd.Card) {
			card.FailNext(virtual.InsSelect, 1000, virtual.NoStatus)
		}, piv.ErrCardRemoved},
		{"pulled out and put back", func(_ *testing.T, card *pcscd.Card) {
			card.RemoveDuring(virtual.InsSelect)
		}, piv.ErrCardRemoved},
		{"version not told", func(_ *testing.T, card *pcscd.Card) {
			card.FailNext(virtual.InsGetVersion, 1, virtual.UnknownInstruction)
		}, piv.ErrUnsupported},
	} {
		t.Run(test.name, func(t *testing.T) {
			card := pcscd.Start(t, virtual.Config{})
			k := generated(t, card, trusting(card, &person{}), piv.PINPolicyOnce, piv.TouchPolicyNever)
			for range 3 {
				free(t, card)
				test.fail(t, card)
				if err := sign(t.Context(), k); !errors.Is(err, test.want) {
					t.Fatalf("error: %v", err)
				}
				card.FailNext(virtual.InsSelect, 0, 0)
				if !card.Inserted() {
					insert(&bench{t: t, card: card})
				}
				if took := free(t, card); took > time.Second {
					t.Errorf("another program got in after %v", took)
				}
			}
			mustSign(t, k)
		})
	}
}

// TestAfterWebAuthn has a card whose first commands fail because another of its
// applications was used a moment ago. A person notices nothing of that.
func TestAfterWebAuthn(t *testing.T) {
	card := pcscd.Start(t, virtual.Config{})
	k := generated(t, card, trusting(card, &person{}), piv.PINPolicyOnce, piv.TouchPolicyNever)
	for range 3 {
		free(t, card)
		card.FailNext(virtual.InsSelect, 5, virtual.NoStatus)
		mustSign(t, k)
	}
}

// TestBesideSharedConnection has another program that keeps the card open all day,
// and now and then sends a command, as gsd-smartcard does.
func TestBesideSharedConnection(t *testing.T) {
	card := pcscd.Start(t, virtual.Config{})
	k := generated(t, card, trusting(card, &person{}), piv.PINPolicyOnce, piv.TouchPolicyNever)
	free(t, card)
	h := hold(t, card, pcscd.HoldOptions{})
	for range 3 {
		mustSign(t, k)
		if _, err := k.Attestation(t.Context()); err != nil {
			t.Error(err)
		}
		// SELECT of another application, so that the card is not as it was left.
		otp := []byte{0, 0xa4, 4, 0, 8, 0xa0, 0, 0, 5, 0x27, 0x20, 0x01, 0x01}
		_, err := h.Transmit(t.Context(), otp)
		for start := time.Now(); errors.Is(err, pcscd.PCSCError(0x8010000b)) && time.Since(start) < time.Second; {
			time.Sleep(10 * time.Millisecond) // a real program, in real time
			_, err = h.Transmit(t.Context(), otp)
		}
		if err != nil {
			t.Fatalf("the other program: %v", err)
		}
	}
	mustSign(t, k)
	if err := h.Release(); err != nil {
		t.Error(err)
	}
}

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
