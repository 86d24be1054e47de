package piv

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestTouchIsAnnounced(t *testing.T) {
	for _, test := range []struct {
		name   string
		policy TouchPolicy
		after  time.Duration
		want   int
	}{
		{"never", TouchPolicyNever, 0, 0},
		{"always, at once", TouchPolicyAlways, touchDelay - time.Millisecond, 0},
		{"always, later", TouchPolicyAlways, touchDelay + time.Millisecond, 1},
		{"cached, still", TouchPolicyCached, 0, 0},
		{"cached, no more", TouchPolicyCached, 10 * time.Second, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				card := newFakeCard(7).with(SlotSignature, PINPolicyNever, test.policy)
				card.touchAfter = test.after
				s, _ := fakeSystem(card)
				prompt := person()
				k := mustOpen(t, s, Options{Slot: SlotSignature, Prompt: prompt})
				start := time.Now()
				mustSign(t, k)
				if _, touches, done := prompt.count(); touches != test.want || done != test.want {
					t.Errorf("%d announced, %d over, want %d", touches, done, test.want)
				}
				if test.want > 0 {
					if got := prompt.touches[0]; got != (TouchRequest{7, SlotSignature, test.policy}) {
						t.Errorf("announced %+v", got)
					}
					if after := prompt.shown.Sub(start); after != touchDelay {
						t.Errorf("announced after %v", after)
					}
				}
				time.Sleep(2 * grace)
			})
		})
	}
}

func TestTouchNeverComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		card := newFakeCard(1).with(SlotAuthentication, PINPolicyOnce, TouchPolicyAlways)
		card.noTouch = true
		s, _ := fakeSystem(card)
		prompt := person()
		k := mustOpen(t, s, Options{Prompt: prompt})
		for range 2 { // with the PIN just verified, and verified before
			wantError(t, trySign(t.Context(), k), ErrTouchTimeout)
		}
		if pins, touches, done := prompt.count(); pins != 1 || touches != 2 || done != 2 {
			t.Errorf("asked for %d PINs, announced %d touches, %d over", pins, touches, done)
		}
		card.change(func() { card.noTouch = false })
		mustSign(t, k)
		time.Sleep(2 * grace)
	})
}

func TestTouchWithoutPrompt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		card := newFakeCard(1).with(SlotAuthentication, PINPolicyNever, TouchPolicyAlways)
		card.touchAfter = time.Second
		s, _ := fakeSystem(card)
		mustSign(t, mustOpen(t, s, Options{}))
		time.Sleep(2 * grace)
	})
}

// quiet is a prompt that has nothing to take back.
type quiet struct{ *fakePrompt }

func (quiet) Touch(context.Context, TouchRequest) func() { return nil }

func TestTouchWithoutDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		card := newFakeCard(1).with(SlotAuthentication, PINPolicyNever, TouchPolicyAlways)
		card.touchAfter = time.Second
		s, _ := fakeSystem(card)
		mustSign(t, mustOpen(t, s, Options{Prompt: quiet{person()}}))
		time.Sleep(2 * grace)
	})
}
