package piv

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestGenerateDefaults(t *testing.T) {
	card := newFakeCard(1)
	s, _ := fakeSystem(card)
	k, err := s.generate(t.Context(), Options{Prompt: person(), Fingerprint: [32]byte{1}}, KeySpec{})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if k.PINPolicy() != PINPolicyOnce || k.TouchPolicy() != TouchPolicyCached || k.Reference().Slot != SlotAuthentication {
		t.Errorf("%v: PIN %v, touch %v", k, k.PINPolicy(), k.TouchPolicy())
	}
	mustSign(t, k)
}

// TestGenerateOverKey is about what a slot may hold already.
func TestGenerateOverKey(t *testing.T) {
	for _, test := range []struct {
		name     string
		firmware Version
		in       func(*fakeCard)
		occupied bool
	}{
		{"empty", Version{5, 7, 4}, func(*fakeCard) {}, false},
		{"key", Version{5, 7, 4}, func(c *fakeCard) { c.with(SlotAuthentication, PINPolicyOnce, TouchPolicyNever) }, true},
		{"old, empty", Version{5, 2, 7}, func(*fakeCard) {}, false},
		{"old, generated", Version{5, 2, 7}, func(c *fakeCard) { c.with(SlotAuthentication, PINPolicyOnce, TouchPolicyNever) }, true},
		{"old, imported", Version{5, 2, 7}, func(c *fakeCard) {
			c.with(SlotAuthentication, PINPolicyOnce, TouchPolicyNever).keys[SlotAuthentication].imported = true
		}, true},
		{"old, imported, signs at once", Version{4, 3, 7}, func(c *fakeCard) {
			c.with(SlotAuthentication, PINPolicyNever, TouchPolicyNever).keys[SlotAuthentication].imported = true
		}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			card := newFakeCard(1)
			card.firmware = test.firmware
			test.in(card)
			before := card.keys[SlotAuthentication]
			s, _ := fakeSystem(card)
			spec := KeySpec{PINPolicy: PINPolicyNever, TouchPolicy: TouchPolicyNever}
			k, err := s.generate(t.Context(), Options{}, spec)
			if test.occupied {
				wantError(t, err, ErrSlotOccupied)
				if card.keys[SlotAuthentication] != before {
					t.Fatal("the key is lost")
				}
				spec.Overwrite = true
				k, err = s.generate(t.Context(), Options{}, spec)
			}
			// The fake attests without policies, as nothing here needs them.
			if test.firmware.hasMetadata() && err != nil || !test.firmware.hasMetadata() && !errors.Is(err, ErrUnsupported) {
				t.Fatal(err)
			}
			if card.keys[SlotAuthentication] == before {
				t.Error("no new key")
			}
			if k != nil {
				mustSign(t, k)
			}
			s.reader(fakeReader).ifFree(s.reader(fakeReader).drop)
		})
	}
}

func TestGenerateOverOpenKey(t *testing.T) {
	card := newFakeCard(1).with(SlotAuthentication, PINPolicyNever, TouchPolicyNever)
	s, _ := fakeSystem(card)
	old := mustOpen(t, s, Options{})
	k, err := s.generate(t.Context(), Options{Serial: 1}, KeySpec{PINPolicy: PINPolicyNever, TouchPolicy: TouchPolicyNever, Overwrite: true})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	mustSign(t, k)
	wantError(t, trySign(t.Context(), old), ErrKeyMismatch)
}

func TestManagementKey(t *testing.T) {
	for _, test := range []struct {
		name   string
		stored string
		given  string
		prompt Prompt
		want   error // nil: generated
		tries  int
	}{
		{"given", "", "secret", nil, nil, 3},
		{"given and wrong", "secret", "guess", person(), ErrManagementKey, 3},
		{"stored", "secret", "", person(), nil, 3},
		{"stored, nobody to ask", "secret", "", nil, ErrManagementKey, 3},
		{"stored, wrong PIN", "secret", "", person("000000"), &WrongPINError{}, 2},
		{"stored is wrong", "old", "", person(), ErrManagementKey, 3},
		{"none stored", "", "", person(), ErrManagementKey, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			card := newFakeCard(1)
			card.managementKey = "secret"
			if test.stored != "" {
				card.stored = []byte(test.stored)
			}
			spec := KeySpec{}
			if test.given != "" {
				spec.ManagementKey = []byte(test.given)
			}
			s, _ := fakeSystem(card)
			k, err := s.generate(t.Context(), Options{Prompt: test.prompt}, spec)
			if k != nil {
				k.Close()
			}
			if test.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var wrong *WrongPINError
			if errors.As(test.want, &wrong) {
				wantWrongPIN(t, err, test.tries, false)
			} else {
				wantError(t, err, test.want)
			}
			if len(card.keys) != 0 || card.tries != test.tries {
				t.Errorf("%d keys, %d tries left", len(card.keys), card.tries)
			}
			if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "guess") {
				t.Errorf("tells the management key: %v", err)
			}
			s.reader(fakeReader).ifFree(s.reader(fakeReader).drop)
		})
	}
}

// TestManagementKeyWithTouch: the touch is announced, and if it does not come that
// is what the error says; no PIN is asked for.
func TestManagementKeyWithTouch(t *testing.T) {
	for _, never := range []bool{false, true} {
		t.Run(fmt.Sprint("never ", never), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				card := newFakeCard(1)
				card.managementTouches, card.noTouch, card.touchAfter = TouchPolicyAlways, never, 5*time.Second
				card.stored = []byte("secret")
				s, _ := fakeSystem(card)
				prompt := person()
				_, err := s.generate(t.Context(), Options{Prompt: prompt}, KeySpec{TouchPolicy: TouchPolicyNever})
				if never {
					wantError(t, err, ErrTouchTimeout)
					if errors.Is(err, ErrManagementKey) {
						t.Errorf("blames the key: %v", err)
					}
				} else if err != nil {
					t.Error(err)
				}
				if pins, touches, done := prompt.count(); pins != 0 || touches != 1 || done != 1 {
					t.Errorf("%d PINs asked for, %d touches announced, %d over", pins, touches, done)
				}
				time.Sleep(2 * grace)
			})
		})
	}
}

func TestGenerateRefuses(t *testing.T) {
	card := newFakeCard(1)
	card.firmware = Version{5, 4, 3}
	s, _ := fakeSystem(card)
	for name, spec := range map[string]KeySpec{
		"algorithm":    {Algorithm: AlgorithmEd25519},
		"PIN policy":   {PINPolicy: PINPolicyMatchOnce},
		"touch policy": {TouchPolicy: 4},
	} {
		_, err := s.generate(t.Context(), Options{}, spec)
		wantError(t, err, ErrUnsupported)
		if strings.Contains(card.commands(), "generate") {
			t.Errorf("%s: sent to the card", name)
		}
	}
	s.reader(fakeReader).ifFree(s.reader(fakeReader).drop)
}

// TestSlotFilledDuringPrompt has another program generate a key in the slot while
// a person enters the PIN.
func TestSlotFilledDuringPrompt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		card := newFakeCard(1)
		card.managementKey, card.stored = "secret", []byte("secret")
		s, _ := fakeSystem(card)
		prompt := person()
		prompt.wait = 5 * time.Second
		time.AfterFunc(time.Second, func() {
			card.change(func() { card.with(SlotAuthentication, PINPolicyOnce, TouchPolicyNever) })
		})
		_, err := s.generate(t.Context(), Options{Prompt: prompt}, KeySpec{})
		wantError(t, err, ErrSlotOccupied)
		if got := card.commands(); strings.Count(got, "generate") != 1 || strings.Contains(got, "stored") {
			t.Errorf("sent %s", got)
		}
		time.Sleep(2 * grace)
	})
}

func TestGenerateInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		card := newFakeCard(1)
		card.slowGeneration = 30 * time.Second
		s, p := fakeSystem(card)
		time.AfterFunc(time.Second, func() { p.put(fakeReader, nil) })
		_, err := s.generate(t.Context(), Options{}, KeySpec{Algorithm: AlgorithmRSA4096})
		wantError(t, err, ErrCardRemoved)
		if !strings.Contains(err.Error(), "slot 9a of YubiKey 1:") {
			t.Errorf("error: %v", err)
		}
	})
}

func TestGenerateCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		card := newFakeCard(1)
		card.slowGeneration = 30 * time.Second
		s, _ := fakeSystem(card)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := s.generate(ctx, Options{}, KeySpec{Algorithm: AlgorithmRSA4096})
		wantError(t, err, context.DeadlineExceeded)
		if errors.Is(err, ErrCardBusy) || !strings.Contains(err.Error(), "the new key") {
			t.Errorf("error: %v", err)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("returned after %v", took)
		}
		// The next operation waits for it, and finds the key.
		_, err = s.generate(t.Context(), Options{}, KeySpec{})
		wantError(t, err, ErrSlotOccupied)
		time.Sleep(2 * grace)
	})
}

// TestOpenCancelled: a card that is slow to answer is not in use by another
// program.
func TestOpenCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		card := newFakeCard(1).with(SlotAuthentication, PINPolicyNever, TouchPolicyNever)
		hold := make(chan struct{})
		card.hold = hold
		s, _ := fakeSystem(card)
		ctx, cancel := context.WithTimeout(t.Context(), busyDelay/2)
		defer cancel()
		_, err := s.open(ctx, Options{})
		wantError(t, err, context.DeadlineExceeded)
		if errors.Is(err, ErrCardBusy) {
			t.Errorf("error: %v", err)
		}
		card.change(func() { card.hold = nil })
		close(hold)
		time.Sleep(2 * grace)
	})
}
