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

// TestFailureOfEveryCommand lets each command of each operation fail once, in
// three ways. Whatever the operation makes of it, no PIN is sent more often than
// it was entered, no key is generated twice, and the card can be used afterwards.
func TestFailureOfEveryCommand(t *testing.T) {
	failures := map[string]error{
		"not sent":    &pcscError{pcscCardReset, errors.New("reset")},
		"reader gone": &pcscError{pcscReaderUnavailable, errors.New("reader unavailable")},
		"answer lost": &pcscError{pcscNotTransacted, errors.New("not transacted")},
		"refused":     status(0x6f00),
	}
	operations := map[string]func(context.Context, *system, *Key) error{
		"sign":   func(ctx context.Context, _ *system, k *Key) error { return trySign(ctx, k) },
		"attest": func(ctx context.Context, _ *system, k *Key) error { return ignoreAttestation(k.Attestation(ctx)) },
		"open": func(ctx context.Context, s *system, k *Key) error {
			_, err := s.open(ctx, k.Reference().Options(nil))
			return err
		},
		"generate": func(ctx context.Context, s *system, k *Key) error {
			_, err := s.generate(ctx, Options{Slot: SlotSignature, Prompt: k.opts.Prompt}, KeySpec{PINPolicy: PINPolicyNever})
			return err
		},
		"list": func(ctx context.Context, s *system, _ *Key) error {
			_, err := s.cards(ctx)
			return err
		},
	}
	for _, firmware := range []Version{{5, 7, 4}, {5, 3, 1}, {5, 2, 7}} {
		for _, policy := range []PINPolicy{PINPolicyOnce, PINPolicyAlways} {
			for operation, do := range operations {
				for failure, err := range failures {
					t.Run(fmt.Sprint(firmware, policy, operation, failure), func(t *testing.T) {
						for n, reached := 1, true; reached; n++ {
							synctest.Test(t, func(t *testing.T) { reached = failOnce(t, firmware, policy, do, n, err) })
						}
					})
				}
			}
		}
	}
}

// failOnce lets the n-th command of an operation fail, and reports whether the
// operation has that many.
func failOnce(t *testing.T, firmware Version, policy PINPolicy, do func(context.Context, *system, *Key) error, n int, failure error) bool {
	t.Helper()
	card := newFakeCard(1).with(SlotAuthentication, policy, TouchPolicyNever)
	card.firmware, card.managementKey, card.stored = firmware, "secret", []byte("secret")
	s, _ := fakeSystem(card)
	prompt := person()
	k := mustOpen(t, s, Options{Prompt: prompt})
	defer time.Sleep(2 * grace)
	if !firmware.hasMetadata() { // what the fake does not attest
		k.info.pin, k.info.touch = policy, TouchPolicyNever
		s.reader(fakeReader).conn.slots[SlotAuthentication] = k.info
	}
	card.commands()
	card.change(func() { card.failAt, card.failure, card.notSent = n, failure, pcscCode(failure) == pcscCardReset })
	err := do(t.Context(), s, k)
	sent := card.commands()
	reached := card.failAt <= 0
	card.change(func() { card.failAt = 0 })

	oldGeneration := errors.Is(err, ErrUnsupported) && !firmware.hasMetadata() // which the fake makes without policies
	switch {
	case err == nil || oldGeneration:
	case pcscCode(failure) != 0 && errors.Is(err, ErrNoCard):
	case statusOf(failure) != 0 && (statusOf(err) == statusOf(failure) || errors.Is(err, ErrSlotOccupied)):
	default:
		t.Errorf("command %d of %q: %v", n, sent, err)
	}
	if pins := strings.Count(sent, "verify") + strings.Count(sent, "stored"); pins > len(prompt.asked) {
		t.Errorf("command %d of %q: the PIN was sent %d times, entered %d times", n, sent, pins, len(prompt.asked))
	}
	if len(prompt.asked) > 1 {
		t.Errorf("command %d of %q: asked for the PIN %d times", n, sent, len(prompt.asked))
	}
	if generated := strings.Count(sent, "generate"); generated > 2 { // with the factory's management key, and the stored one
		t.Errorf("command %d of %q: generated %d times", n, sent, generated)
	}
	if err := trySign(t.Context(), k); err != nil {
		t.Errorf("command %d of %q: afterwards: %v", n, sent, err)
	}
	return reached
}

// ignoreAttestation: the fake's attestations cannot be believed.
func ignoreAttestation(_ *Attestation, err error) error {
	if errors.Is(err, ErrAttestation) {
		return nil
	}
	return err
}
