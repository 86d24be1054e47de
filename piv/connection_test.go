package piv

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestCommandsPerSignature(t *testing.T) {
	for _, test := range []struct {
		policy     PINPolicy
		cold, warm string
	}{
		{PINPolicyNever, "open serial info sign", "sign"},
		{PINPolicyOnce, "open serial info tries factory verify sign", "sign"},
		{PINPolicyAlways, "open serial info tries factory verify sign", "verify sign"},
	} {
		t.Run(test.policy.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				card := newFakeCard(1).with(SlotAuthentication, test.policy, TouchPolicyNever)
				s, _ := fakeSystem(card)
				k := mustOpen(t, s, Options{Prompt: person()})
				time.Sleep(2 * grace)
				card.commands()
				mustSign(t, k)
				if got := card.commands(); got != test.cold {
					t.Errorf("cold: %s, want %s", got, test.cold)
				}
				for range 3 {
					time.Sleep(grace / 2)
					mustSign(t, k)
					if got := card.commands(); got != test.warm {
						t.Errorf("warm: %s, want %s", got, test.warm)
					}
				}
				time.Sleep(2 * grace)
			})
		})
	}
}

func TestGracePeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		card := newFakeCard(1).with(SlotAuthentication, PINPolicyNever, TouchPolicyNever)
		s, _ := fakeSystem(card)
		k := mustOpen(t, s, Options{})
		for range 5 { // each signature begins it anew
			mustSign(t, k)
			time.Sleep(grace - time.Millisecond)
			synctest.Wait()
			if !card.connected() {
				t.Fatal("let go within the grace period")
			}
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if card.connected() {
			t.Fatal("held after the grace period")
		}
	})
}

// TestTurnsAtOneMoment: the grace periods of turns that end together end
// together, and none may keep the card from being let go.
func TestTurnsAtOneMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		card := newFakeCard(1).with(SlotAuthentication, PINPolicyNever, TouchPolicyNever)
		s, _ := fakeSystem(card)
		k := mustOpen(t, s, Options{})
		for i := range 2000 {
			for range 4 {
				mustSign(t, k)
			}
			time.Sleep(2 * grace)
			synctest.Wait()
			if card.connected() {
				t.Fatalf("round %d: held after the grace period", i)
			}
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		card := newFakeCard(1).with(SlotAuthentication, PINPolicyNever, TouchPolicyNever)
		s, _ := fakeSystem(card)
		k := mustOpen(t, s, Options{})
		other := mustOpen(t, s, Options{})
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
		if card.connected() {
			t.Error("an idle connection outlives Close")
		}
		wantError(t, trySign(t.Context(), k), ErrClosed)
		_, err := k.Attestation(t.Context())
		wantError(t, err, ErrClosed)
		mustSign(t, other)
		time.Sleep(2 * grace)
	})
}

func TestCloseDuringSignature(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		card := newFakeCard(1).with(SlotAuthentication, PINPolicyNever, TouchPolicyAlways)
		card.touchAfter = time.Second
		s, _ := fakeSystem(card)
		k := mustOpen(t, s, Options{})
		go func() {
			time.Sleep(500 * time.Millisecond)
			k.Close()
		}()
		mustSign(t, k)
		time.Sleep(2 * grace)
		synctest.Wait()
		if card.connected() {
			t.Error("still connected")
		}
	})
}

func TestManySigners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		card := newFakeCard(1).with(SlotAuthentication, PINPolicyOnce, TouchPolicyAlways)
		card.touchAfter = 100 * time.Millisecond
		s, _ := fakeSystem(card)
		prompt := person()
		var wg sync.WaitGroup
		for range 100 {
			k := mustOpen(t, s, Options{Prompt: prompt})
			wg.Go(func() {
				if err := trySign(t.Context(), k); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if pins, touches, _ := prompt.count(); pins != 1 || touches != 0 {
			t.Errorf("asked for %d PINs and %d touches", pins, touches)
		}
		time.Sleep(2 * grace)
	})
}

func TestCardHeldForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		card := newFakeCard(1).with(SlotAuthentication, PINPolicyNever, TouchPolicyNever)
		s, _ := fakeSystem(card)
		k := mustOpen(t, s, Options{})
		time.Sleep(2 * grace)
		card.change(func() { card.foreign = true })
		time.AfterFunc(2*time.Second, func() { card.change(func() { card.foreign = false }) })
		start := time.Now()
		mustSign(t, k)
		if took := time.Since(start); took < 2*time.Second || took > 2*time.Second+busyRetry {
			t.Errorf("took %v", took)
		}
		time.Sleep(2 * grace)
	})
}

// TestCardHeldForEver has both ways in which PC/SC keeps a card from us: it says
// so, or it does not answer.
func TestCardHeldForEver(t *testing.T) {
	hold := make(chan struct{})
	for name, begin := range map[string]func(*fakeCard){
		"exclusively":      func(c *fakeCard) { c.foreign = true },
		"in a transaction": func(c *fakeCard) { c.hold = hold },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hold = make(chan struct{})
				card := newFakeCard(1).with(SlotAuthentication, PINPolicyNever, TouchPolicyNever)
				s, _ := fakeSystem(card)
				k := mustOpen(t, s, Options{Serial: 1})
				quick := mustOpen(t, s, Options{Serial: 1, BusyTimeout: time.Second})
				time.Sleep(2 * grace)
				card.change(func() { begin(card) })

				start := time.Now()
				wantError(t, trySign(t.Context(), k), ErrCardBusy)
				if took := time.Since(start); took != 30*time.Second {
					t.Errorf("gave up after %v", took)
				}
				start = time.Now()
				wantError(t, trySign(t.Context(), quick), ErrCardBusy)
				if took := time.Since(start); took != time.Second {
					t.Errorf("gave up after %v of 1s", took)
				}
				start = time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				wantError(t, trySign(ctx, k), ErrCardBusy, context.DeadlineExceeded)
				if took := time.Since(start); took != 3*time.Second {
					t.Errorf("gave up after %v of 3s", took)
				}
				_, err := s.cards(t.Context())
				wantError(t, err, ErrCardBusy)

				card.change(func() { card.foreign, card.hold = false, nil })
				close(hold)
				synctest.Wait()
				if card.connected() {
					t.Error("a connection that nobody waited for is kept")
				}
				start = time.Now()
				mustSign(t, k)
				if took := time.Since(start); took > busyRetry {
					t.Errorf("signed %v after the card was free", took)
				}
				time.Sleep(2 * grace)
			})
		})
	}
}

// TestCancel ends ctx in every place where a signature waits. The answer is to
// come in that very moment, and the card to be usable afterwards.
func TestCancel(t *testing.T) {
	const patience = 700 * time.Millisecond
	for _, test := range []struct {
		name  string
		start func(card *fakeCard, k *Key)
		want  []error
	}{
		{"turn", func(card *fakeCard, k *Key) {
			card.change(func() { card.touchAfter = 5 * time.Second })
			other := &Key{sys: k.sys, opts: k.opts, card: k.card, info: k.info}
			other.opts.Prompt = person()
			go other.Sign(nil, fakeDigest[:], crypto.SHA256)
			synctest.Wait()
		}, nil},
		{"busy", func(card *fakeCard, _ *Key) {
			card.change(func() { card.foreign = true })
			time.AfterFunc(2*time.Second, func() { card.change(func() { card.foreign = false }) })
		}, []error{ErrCardBusy}},
		{"blocked", func(card *fakeCard, _ *Key) {
			hold := make(chan struct{})
			card.change(func() { card.hold = hold })
			time.AfterFunc(2*time.Second, func() {
				card.change(func() { card.hold = nil })
				close(hold)
			})
		}, []error{ErrCardBusy}},
		{"PIN", func(_ *fakeCard, k *Key) {
			k.opts.Prompt.(*fakePrompt).wait = 2 * time.Second
		}, nil},
		{"touch", func(card *fakeCard, _ *Key) {
			card.change(func() { card.noTouch = true })
			time.AfterFunc(2*time.Second, func() { card.change(func() { card.noTouch = false }) })
		}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				card := newFakeCard(1).with(SlotAuthentication, PINPolicyOnce, TouchPolicyAlways)
				s, _ := fakeSystem(card)
				prompt := person()
				k := mustOpen(t, s, Options{Prompt: prompt})
				time.Sleep(2 * grace)
				test.start(card, k)

				why := errors.New("changed my mind")
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(patience, func() { cancel(why) })
				start := time.Now()
				err := trySign(ctx, k)
				if took := time.Since(start); took != patience {
					t.Errorf("returned after %v, want %v", took, patience)
				}
				wantError(t, err, append(test.want, context.Canceled, why)...)
				synctest.Wait()
				if _, touches, done := prompt.count(); touches != done {
					t.Errorf("%d touches announced, %d of them over", touches, done)
				}
				mustSign(t, k)
				time.Sleep(20 * time.Second)
				synctest.Wait()
				if card.connected() {
					t.Error("still connected")
				}
			})
		})
	}
}

func TestEndedContext(t *testing.T) {
	card := newFakeCard(1).with(SlotAuthentication, PINPolicyNever, TouchPolicyNever)
	s, _ := fakeSystem(card)
	k := mustOpen(t, s, Options{})
	t.Cleanup(func() { k.Close() })
	card.commands()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantError(t, trySign(ctx, k), context.Canceled)
	_, err := s.open(ctx, Options{})
	wantError(t, err, context.Canceled)
	_, err = s.cards(ctx)
	wantError(t, err, context.Canceled)
	if got := card.commands(); got != "" {
		t.Errorf("sent %s", got)
	}
}

func TestAbandonedSignatureDoesNotSeeTheDigestChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		card := newFakeCard(1).with(SlotAuthentication, PINPolicyNever, TouchPolicyAlways)
		card.touchAfter = time.Second
		s, _ := fakeSystem(card)
		k := mustOpen(t, s, Options{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		digest := fakeDigest
		if _, err := k.SignContext(ctx, digest[:], nil); err == nil {
			t.Fatal("signed")
		}
		clear(digest[:]) // the caller is done with it; the card is not
		time.Sleep(2 * time.Second)
		card.change(func() {
			if !bytes.Equal(card.signed, fakeDigest[:]) {
				t.Errorf("signed %x", card.signed)
			}
		})
	})
}
