//go:build cgo && linux

package piv_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/piv"
	"github.com/ycauth/ycauth-go/piv/pivtest"
)

// bench is a card with a key and the person in front of it.
type bench struct {
	card   *pivtest.Card
	prompt *person
	opts   piv.Options
	key    *piv.Key // PIN "once", touch "always"
}

// signs is the usual thing to try on a bench.
func (b *bench) signs(t *testing.T) error { return sign(t.Context(), b.key) }

// TestFaults brings about what can go wrong between a program and a card, and
// prints what the program learns of it. After each fault the card has to be
// usable, with the same key where that key still exists.
func TestFaults(t *testing.T) {
	var table strings.Builder
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			b := &bench{prompt: &person{}}
			b.card = pivtest.Start(t, f.card)
			b.opts = trusting(b.card, b.prompt)
			b.opts.BusyTimeout = 4 * time.Second
			b.key = generated(t, b.card, b.opts, piv.PINPolicyOnce, piv.TouchPolicyAlways)

			err := f.fault(t, b)
			switch {
			case f.want == nil && err != nil:
				t.Errorf("error: %v", err)
			case f.want != nil && !errors.Is(err, f.want) && !isWrongPIN(err, f.want):
				t.Errorf("error: %v; want %v", err, f.want)
			case f.want != nil && f.want != context.Canceled && piv.Remedy(err) == "":
				t.Errorf("no remedy: %v", err)
			}
			if f.repair != nil {
				f.repair(t, b)
			}
			mustSign(t, b.key)
			fmt.Fprintf(&table, "%-53s %-23s then signs\n", f.name, kind(err))
			if err != nil {
				fmt.Fprintf(&table, "    %v\n", err)
			}
		})
	}
	t.Logf("\n%s", table.String())
}

// kind names an error of this package.
func kind(err error) string {
	var wrong *piv.WrongPINError
	var attestation *piv.AttestationError
	switch {
	case err == nil:
		return "none: signs"
	case errors.As(err, &wrong):
		return fmt.Sprintf("*WrongPINError{%d}", wrong.TriesLeft)
	case errors.As(err, &attestation):
		return "*AttestationError"
	case errors.Is(err, context.Canceled):
		return "context.Canceled"
	}
	for name, target := range map[string]error{
		"ErrUnsupported": piv.ErrUnsupported, "ErrSeveralCards": piv.ErrSeveralCards, "ErrCardBusy": piv.ErrCardBusy,
		"ErrCardRemoved": piv.ErrCardRemoved, "ErrNoKey": piv.ErrNoKey, "ErrSlotOccupied": piv.ErrSlotOccupied,
		"ErrKeyMismatch": piv.ErrKeyMismatch, "ErrPINRequired": piv.ErrPINRequired, "ErrPINBlocked": piv.ErrPINBlocked,
		"ErrLastTry": piv.ErrLastTry, "ErrTouchTimeout": piv.ErrTouchTimeout, "ErrManagementKey": piv.ErrManagementKey,
	} {
		if errors.Is(err, target) {
			return name
		}
	}
	if errors.Is(err, piv.ErrNoCard) { // after ErrCardRemoved, which is one too
		return "ErrNoCard"
	}
	return "untyped"
}

// isWrongPIN: a wrong PIN is an error with a number in it, so no fixed value.
func isWrongPIN(err, want error) bool {
	var a, b *piv.WrongPINError
	return errors.As(err, &a) && errors.As(want, &b)
}

var faults = []struct {
	name   string
	card   pivtest.Config
	fault  func(*testing.T, *bench) error
	want   error // nil: none
	repair func(*testing.T, *bench)
}{
	{
		name: "no reader",
		want: piv.ErrNoCard,
		fault: func(t *testing.T, b *bench) error {
			b.opts.Serial, b.opts.Reader = 0, "no such reader"
			_, err := piv.Open(t.Context(), b.opts)
			return err
		},
	}, {
		name: "no card",
		want: piv.ErrNoCard,
		fault: func(t *testing.T, b *bench) error {
			remove(t, b.card)
			b.opts.Serial = 0
			_, err := piv.Open(t.Context(), b.opts)
			return err
		},
		repair: insert,
	}, {
		name: "another card only",
		want: piv.ErrNoCard,
		fault: func(t *testing.T, b *bench) error {
			b.opts.Serial = 99
			_, err := piv.Open(t.Context(), b.opts)
			return err
		},
	}, {
		name: "several cards",
		want: piv.ErrSeveralCards,
		fault: func(t *testing.T, b *bench) error {
			second := pivtest.Start(t, pivtest.Config{Serial: 22})
			b.opts.Serial = 0
			_, err := piv.Open(t.Context(), b.opts)
			second.Close()
			return err
		},
	}, {
		name: "slot empty",
		want: piv.ErrNoKey,
		fault: func(t *testing.T, b *bench) error {
			b.opts.Slot = piv.SlotSignature
			_, err := piv.Open(t.Context(), b.opts)
			return err
		},
	}, {
		name: "slot empty (firmware 4.3)",
		card: pivtest.Config{Firmware: pivtest.Firmware43},
		want: piv.ErrNoKey,
		fault: func(t *testing.T, b *bench) error {
			b.opts.Slot = piv.SlotSignature
			_, err := piv.Open(t.Context(), b.opts)
			return err
		},
	}, {
		name: "slot occupied",
		want: piv.ErrSlotOccupied,
		fault: func(t *testing.T, b *bench) error {
			_, err := piv.Generate(t.Context(), b.opts, piv.KeySpec{})
			return err
		},
	}, {
		name: "slot occupied (firmware 5.2)",
		card: pivtest.Config{Firmware: pivtest.Firmware52},
		want: piv.ErrSlotOccupied,
		fault: func(t *testing.T, b *bench) error {
			_, err := piv.Generate(t.Context(), b.opts, piv.KeySpec{})
			return err
		},
	}, {
		name: "slot holding another key",
		want: piv.ErrKeyMismatch,
		fault: func(t *testing.T, b *bench) error {
			old := b.key
			b.key = generated(t, b.card, b.opts, piv.PINPolicyOnce, piv.TouchPolicyAlways)
			return sign(t.Context(), old)
		},
	}, {
		name: "management key unknown",
		want: piv.ErrManagementKey,
		fault: func(t *testing.T, b *bench) error {
			b.opts.Slot = piv.SlotSignature
			_, err := piv.Generate(t.Context(), b.opts, piv.KeySpec{ManagementKey: bytes.Repeat([]byte{7}, 24)})
			return err
		},
	}, {
		name: "nobody to ask for the PIN",
		want: piv.ErrPINRequired,
		fault: func(t *testing.T, b *bench) error {
			b.opts.Prompt = nil
			k, err := piv.Open(t.Context(), b.opts)
			if err != nil {
				t.Fatal(err)
			}
			defer k.Close()
			return sign(t.Context(), k)
		},
	}, {
		name: "wrong PIN",
		want: &piv.WrongPINError{},
		fault: func(t *testing.T, b *bench) error {
			b.prompt.pins = []string{"111111"}
			err := b.signs(t)
			var wrong *piv.WrongPINError
			if !errors.As(err, &wrong) || wrong.TriesLeft != 2 || b.card.PINTries() != 2 {
				t.Errorf("%d tries left: %v", b.card.PINTries(), err)
			}
			return err
		},
	}, {
		name: "the same wrong PIN again",
		want: &piv.WrongPINError{},
		fault: func(t *testing.T, b *bench) error {
			b.prompt.pins = []string{"111111", "111111"}
			_ = b.signs(t)
			b.card.ResetLog()
			err := b.signs(t)
			var wrong *piv.WrongPINError
			if !errors.As(err, &wrong) || !wrong.NotSent || b.card.PINTries() != 2 || b.card.Count(pivtest.InsVerify) != 0 {
				t.Errorf("%d tries left: %v", b.card.PINTries(), err)
			}
			return err
		},
	}, {
		name: "one try left",
		want: piv.ErrLastTry,
		fault: func(t *testing.T, b *bench) error {
			b.card.SetPINTries(1)
			err := b.signs(t)
			if pins, _ := b.prompt.count(); pins != 0 || b.card.PINTries() != 1 {
				t.Errorf("asked for %d PINs, %d tries left", pins, b.card.PINTries())
			}
			return err
		},
		repair: func(t *testing.T, b *bench) {
			free(t, b.card) // to whoever has the PUK
			b.card.SetPINTries(3)
		},
	}, {
		name: "PIN blocked",
		want: piv.ErrPINBlocked,
		fault: func(t *testing.T, b *bench) error {
			b.card.SetPINTries(0)
			return b.signs(t)
		},
		repair: func(_ *testing.T, b *bench) { b.card.SetPINTries(3) },
	}, {
		name: "touch never comes",
		card: pivtest.Config{TouchTimeout: 500 * time.Millisecond},
		want: piv.ErrTouchTimeout,
		fault: func(t *testing.T, b *bench) error {
			b.card.SetTouch(pivtest.NoTouch)
			err := b.signs(t)
			if _, touches := b.prompt.count(); touches != 1 {
				t.Errorf("%d touches announced", touches)
			}
			return err
		},
		repair: touchAtOnce,
	}, {
		name: "touch never comes (firmware 5.3.1)",
		card: pivtest.Config{TouchTimeout: 500 * time.Millisecond, Firmware: pivtest.Firmware531},
		want: piv.ErrTouchTimeout,
		fault: func(t *testing.T, b *bench) error {
			mustSign(t, b.key)
			b.card.SetTouch(pivtest.NoTouch)
			err := b.signs(t)
			if pins, _ := b.prompt.count(); pins != 1 {
				t.Errorf("asked for the PIN %d times", pins)
			}
			return err
		},
		repair: touchAtOnce,
	}, {
		name: "cancelled while waiting for a touch",
		card: pivtest.Config{TouchTimeout: 2 * time.Second},
		want: context.Canceled,
		fault: func(t *testing.T, b *bench) error {
			b.card.SetTouch(pivtest.NoTouch)
			b.prompt.blinks = make(chan struct{})
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				<-b.prompt.blinks
				cancel()
			}()
			start := time.Now()
			err := sign(ctx, b.key)
			t.Logf("returned after %v", time.Since(start).Round(time.Millisecond))
			return err
		},
		repair: touchAtOnce,
	}, {
		name: "card pulled during a signature and put back",
		want: piv.ErrCardRemoved,
		fault: func(t *testing.T, b *bench) error {
			b.card.SetTouch(pivtest.NoTouch)
			b.prompt.blinks = make(chan struct{})
			go func() {
				<-b.prompt.blinks
				b.card.Remove()
			}()
			return b.signs(t)
		},
		repair: func(t *testing.T, b *bench) {
			touchAtOnce(t, b)
			waitRemoved(t, b.card)
			insert(t, b)
		},
	}, {
		name: "card pulled while idle and put back",
		fault: func(t *testing.T, b *bench) error {
			mustSign(t, b.key)
			remove(t, b.card)
			insert(t, b)
			return b.signs(t)
		},
	}, {
		name: "card pulled while it is opened, and put back",
		want: piv.ErrCardRemoved,
		fault: func(t *testing.T, b *bench) error {
			b.card.RemoveDuring(pivtest.InsGetSerial)
			free(t, b.card)
			return b.signs(t)
		},
		repair: func(t *testing.T, b *bench) {
			waitRemoved(t, b.card)
			insert(t, b)
		},
	}, {
		name: "another program holds the card for 2 s",
		fault: func(t *testing.T, b *bench) error {
			h := hold(t, b.card, pivtest.HoldOptions{Exclusive: true})
			time.AfterFunc(2*time.Second, h.Kill)
			start := time.Now()
			err := b.signs(t)
			if took := time.Since(start); took < 2*time.Second {
				t.Errorf("signed after %v", took)
			}
			return err
		},
	}, {
		name:   "another program holds the card for ever",
		want:   piv.ErrCardBusy,
		fault:  heldForEver(pivtest.HoldOptions{Exclusive: true}),
		repair: release,
	}, {
		name:   "another program has the card open, as scdaemon does",
		want:   piv.ErrCardBusy,
		fault:  heldForEver(pivtest.HoldOptions{}),
		repair: release,
	}, {
		name:   "another program never ends its transaction",
		want:   piv.ErrCardBusy,
		fault:  heldForEver(pivtest.HoldOptions{Transaction: true}),
		repair: release,
	}, {
		name: "firmware 5.3.1 forgets the PIN when asked",
		card: pivtest.Config{Firmware: pivtest.Firmware531},
		fault: func(t *testing.T, b *bench) error {
			for range 5 {
				if err := b.signs(t); err != nil {
					return err
				}
			}
			if pins, _ := b.prompt.count(); pins != 1 {
				t.Errorf("asked for the PIN %d times", pins)
			}
			return nil
		},
	}, {
		name: "firmware without the algorithm",
		card: pivtest.Config{Firmware: pivtest.Firmware54},
		want: piv.ErrUnsupported,
		fault: func(t *testing.T, b *bench) error {
			b.opts.Slot = piv.SlotSignature
			_, err := piv.Generate(t.Context(), b.opts, piv.KeySpec{Algorithm: piv.AlgorithmEd25519})
			return err
		},
	}, {
		name: "attestation by an unknown maker",
		want: piv.ErrAttestation,
		fault: func(t *testing.T, b *bench) error {
			b.opts.Trust = piv.Trust{} // Yubico's
			k, err := piv.Open(t.Context(), b.opts)
			if err != nil {
				t.Fatal(err)
			}
			defer k.Close()
			_, err = k.Attestation(t.Context())
			return err
		},
	},
}

var holder *pivtest.Holder

func heldForEver(o pivtest.HoldOptions) func(*testing.T, *bench) error {
	return func(t *testing.T, b *bench) error {
		holder = hold(t, b.card, o)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := sign(ctx, b.key)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("does not say that the time was up: %v", err)
		}
		return err
	}
}

func release(t *testing.T, _ *bench) {
	if err := holder.Release(); err != nil {
		t.Fatal(err)
	}
}

func touchAtOnce(_ *testing.T, b *bench) { b.card.SetTouch(pivtest.TouchAfter(0)) }

func remove(t *testing.T, card *pivtest.Card) {
	card.Remove()
	waitRemoved(t, card)
}

func waitRemoved(t *testing.T, card *pivtest.Card) {
	if err := card.WaitRemoved(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func insert(t *testing.T, b *bench) {
	if err := b.card.Insert(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestNoService has a program that cannot reach pcscd. libpcsclite looks for it
// once per process, so this takes a process of its own.
func TestNoService(t *testing.T) {
	const variable = "PCSCLITE_CSOCK_NAME"
	if os.Getenv("PIV_TEST_NO_SERVICE") == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNoService$", "-test.v")
		cmd.Env = append(os.Environ(), "PIV_TEST_NO_SERVICE=1", variable+"=/nonexistent/pcscd.comm")
		out, err := cmd.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("PASS: TestNoService")) {
			t.Fatalf("%v\n%s", err, out)
		}
		t.Logf("%s", out)
		return
	}
	_, err := piv.Open(t.Context(), piv.Options{})
	if !errors.Is(err, piv.ErrNoService) || !errors.Is(err, piv.ErrNoCard) {
		t.Errorf("error: %v", err)
	}
	t.Log(err)
}
