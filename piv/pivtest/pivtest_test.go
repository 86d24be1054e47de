//go:build cgo && linux

package pivtest_test

import (
	"context"
	"crypto"
	"crypto/sha256"
	"testing"

	"github.com/ycauth/ycauth-go/piv"
	"github.com/ycauth/ycauth-go/piv/pivtest"
)

// person knows the PIN, and sees the card blink.
type person struct{}

func (person) PIN(context.Context, piv.PINRequest) (string, error) { return pivtest.DefaultPIN, nil }

func (person) Touch(context.Context, piv.TouchRequest) func() { return nil }

// TestCard is what a test of a program that signs with a YubiKey does.
func TestCard(t *testing.T) {
	finger := make(chan struct{})
	card := pivtest.Start(t, pivtest.Config{Firmware: pivtest.Firmware54, Serial: 4711, Touch: func(ctx context.Context) bool {
		select {
		case <-finger:
			return true
		case <-ctx.Done():
			return false
		}
	}})
	key, err := piv.Generate(t.Context(), piv.Options{
		Serial: card.Serial(), Prompt: person{}, Reader: card.Reader(),
		Trust: piv.Trust{Roots: card.CA().Roots(), Intermediates: card.CA().IntermediatePool()},
	}, piv.KeySpec{})
	if err != nil {
		t.Fatal(err)
	}
	defer key.Close()
	if a, err := key.Attestation(t.Context()); err != nil || !a.Secure() || a.Serial != 4711 {
		t.Fatalf("attestation %+v, %v", a, err)
	}
	sign := func() error {
		digest := sha256.Sum256([]byte("proof"))
		_, err := key.SignContext(t.Context(), digest[:], crypto.SHA256)
		return err
	}
	go func() { finger <- struct{}{} }()
	if err := sign(); err != nil {
		t.Error(err)
	}
	card.SetTouch(pivtest.TouchAfter(0))

	card.Remove()
	if err := card.WaitRemoved(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := sign(); err == nil {
		t.Error("signed without the card")
	}
	if err := card.Insert(t.Context()); err != nil {
		t.Fatal(err)
	}
	card.ResetLog()
	card.SetPINTries(1)
	if err := sign(); err == nil || card.Count(0x87) != 0 {
		t.Errorf("signed %d times with the last try of the PIN, %v", card.Count(0x87), err)
	}
	key.Close()
	h, err := card.Hold(t.Context(), pivtest.HoldOptions{Exclusive: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Release(); err != nil {
		t.Error(err)
	}
}
