//go:build linux

package pcscd_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/piv/internal/pcscd"
	"github.com/ycauth/ycauth-go/piv/internal/virtual"
)

// TestRemoveAtAnyMoment pulls the card while a program sends it one command after the other. Each is answered in
// whole or fails.
func TestRemoveAtAnyMoment(t *testing.T) {
	card := pcscd.Start(t, virtual.Config{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for i := range 12 {
		h, err := card.Hold(ctx, pcscd.HoldOptions{Transaction: true})
		if err != nil {
			t.Fatal(err)
		}
		stop := time.AfterFunc(5*time.Millisecond+time.Duration(i)*137*time.Microsecond, card.Remove)
		var response []byte
		for err == nil {
			if response, err = h.Transmit(ctx, []byte{0, virtual.InsGetVersion, 0, 0, 0}); err == nil && len(response) < 2 {
				t.Errorf("%d: response %X", i, response)
				break
			}
		}
		if code := pcscd.PCSCError(0); err != nil && !errors.As(err, &code) {
			t.Errorf("%d: %v", i, err)
		}
		stop.Stop()
		h.Kill()
		card.Remove()
		if err := card.Insert(ctx); err != nil {
			t.Fatal(err)
		}
	}
}
