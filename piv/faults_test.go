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
	"github.com/ycauth/ycauth-go/piv/internal/pcscd"
	"github.com/ycauth/ycauth-go/piv/internal/virtual"
)

// bench is a card with a key and the person in front of it.
type bench struct {
	t      *testing.T
	card   *pcscd.Card
	prompt *person
	opts   piv.Options
	holder *pcscd.Holder
	key    *piv.Key // PIN "once", touch "always"
}

// signs is the usual thing to try on a bench.
func (b *bench) signs() error { return sign(b.t.Context(), b.key) }

// TestFaults brings about what can go wrong between a program and a card, and
// prints what the program learns of it. After each fault the card has to be
// usable, with the same key where that key still exists.
func TestFaults(t *testing.T) {
	var table strings.Builder
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			b := &bench{t: t, prompt: &person{}}
			b.card = pcscd.Start(t, f.card)
			b.opts = trusting(b.card, b.prompt)
			b.opts.BusyTimeout = 4 * time.Second
			b.key = generated(t, b.card, b.opts, piv.PINPolicyOnce, piv.TouchPolicyAlways)

			err := f.fault(b)
			switch {
			case f.want == nil && err != nil:
				t.Errorf("error: %v", err)
			case f.want != nil && !errors.Is(err, f.want) && !isWrongPIN(err, f.want):
				t.Errorf("error: %v; want %v", err, f.want)
			case f.want != nil && !errors.Is(err, context.Canceled) && piv.Remedy(err) == "":
				t.Errorf("no remedy: %v", err)
			}
			if f.repair != nil {
				f.repair(b)
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
	card   virtual.Config
	fault  func(*bench) error
	want   error // nil: none
	repair func(*bench)
}{
	{
		name: "no reader",
		want: piv.ErrNoCard,
		fault: func(b *bench) error {
			b.opts.Serial, b.opts.Reader = 0, "no such reader"
			_, err := piv.Open(b.t.Context(), b.opts)
			return err
		},
	}, {
		name: "no card",
		want: piv.ErrNoCard,
		fault: func(b *bench) error {
			remove(b)
			b.opts.Serial = 0
			_, err := piv.Open(b.t.Context(), b.opts)
			return err
		},
		repair: insert,
	}, {
		name: "another card only",
		want: piv.ErrNoCard,
		fault: func(b *bench) error {
			b.opts.Serial = 99
			_, err := piv.Open(b.t.Context(), b.opts)
			return err
		},
	}, {
		name: "several cards",
		want: piv.ErrSeveralCards,
		fault: func(b *bench) error {
			second := pcscd.Start(b.t, virtual.Config{Serial: 22})
			b.opts.Serial = 0
			_, err := piv.Open(b.t.Context(), b.opts)
			second.Close()
			return err
		},
	}, {
		name: "slot empty",
		want: piv.ErrNoKey,
		fault: func(b *bench) error {
			b.opts.Slot = piv.SlotSignature
			_, err := piv.Open(b.t.Context(), b.opts)
			return err
		},
	}, {
		name: "slot empty (firmware 4.3)",
		card: virtual.Config{Firmware: virtual.Firmware43},
		want: piv.ErrNoKey,
		fault: func(b *bench) error {
			b.opts.Slot = piv.SlotSignature
			_, err := piv.Open(b.t.Context(), b.opts)
			return err
		},
	}, {
		name: "slot occupied",
		want: piv.ErrSlotOccupied,
		fault: func(b *bench) error {
			_, err := piv.Generate(b.t.Context(), b.opts, piv.KeySpec{})
			return err
		},
	}, {
		name: "slot occupied (firmware 5.2)",
		card: virtual.Config{Firmware: virtual.Firmware52},
		want: piv.ErrSlotOccupied,
		fault: func(b *bench) error {
			_, err := piv.Generate(b.t.Context(), b.opts, piv.KeySpec{})
			return err
		},
	}, {
		name: "slot holding another key",
		want: piv.ErrKeyMismatch,
		fault: func(b *bench) error {
			old := b.key
			b.key = generated(b.t, b.card, b.opts, piv.PINPolicyOnce, piv.TouchPolicyAlways)
			return sign(b.t.Context(), old)
		},
	}, {
		name: "management key unknown",
		want: piv.ErrManagementKey,
		fault: func(b *bench) error {
			b.opts.Slot = piv.SlotSignature
			_, err := piv.Generate(b.t.Context(), b.opts, piv.KeySpec{ManagementKey: bytes.Repeat([]byte{7}, 24)})
			return err
		},
	}, {
		name: "nobody to ask for the PIN",
		want: piv.ErrPINRequired,
		fault: func(b *bench) error {
			b.opts.Prompt = nil
			k, err := piv.Open(b.t.Context(), b.opts)
			if err != nil {
				b.t.Fatal(err)
			}
			defer k.Close()
			return sign(b.t.Context(), k)
		},
	}, {
		name: "wrong PIN",
		want: &piv.WrongPINError{},
		fault: func(b *bench) error {
			b.prompt.pins = []string{"111111"}
			err := b.signs()
			var wrong *piv.WrongPINError
			if !errors.As(err, &wrong) || wrong.TriesLeft != 2 || b.card.PINTries() != 2 {
				b.t.Errorf("%d tries left: %v", b.card.PINTries(), err)
			}
			return err
		},
	}, {
		name: "the same wrong PIN again",
		want: &piv.WrongPINError{},
		fault: func(b *bench) error {
			b.prompt.pins = []string{"111111", "111111"}
			_ = b.signs()
			b.card.ResetLog()
			err := b.signs()
			var wrong *piv.WrongPINError
			if !errors.As(err, &wrong) || !wrong.NotSent || b.card.PINTries() != 2 || b.card.Count(virtual.InsVerify) != 0 {
				b.t.Errorf("%d tries left: %v", b.card.PINTries(), err)
			}
			return err
		},
	}, {
		name: "one try left",
		want: piv.ErrLastTry,
		fault: func(b *bench) error {
			b.card.SetPINTries(1)
			err := b.signs()
			if pins, _ := b.prompt.count(); pins != 0 || b.card.PINTries() != 1 {
				b.t.Errorf("asked for %d PINs, %d tries left", pins, b.card.PINTries())
			}
			return err
		},
		repair: func(b *bench) {
			free(b.t, b.card) // to whoever has the PUK
			b.card.SetPINTries(3)
		},
	}, {
		name: "PIN blocked",
		want: piv.ErrPINBlocked,
		fault: func(b *bench) error {
			b.card.SetPINTries(0)
			return b.signs()
		},
		repair: func(b *bench) { b.card.SetPINTries(3) },
	}, {
		name: "touch never comes",
		card: virtual.Config{TouchTimeout: 500 * time.Millisecond},
		want: piv.ErrTouchTimeout,
		fault: func(b *bench) error {
			b.card.SetTouch(virtual.NoTouch)
			err := b.signs()
			if _, touches := b.prompt.count(); touches != 1 {
				b.t.Errorf("%d touches announced", touches)
			}
			return err
		},
		repair: touchAtOnce,
	}, {
		name: "touch never comes (firmware 5.3.1)",
		card: virtual.Config{TouchTimeout: 500 * time.Millisecond, Firmware: virtual.Firmware531},
		want: piv.ErrTouchTimeout,
		fault: func(b *bench) error {
			mustSign(b.t, b.key)
			b.card.SetTouch(virtual.NoTouch)
			err := b.signs()
			if pins, _ := b.prompt.count(); pins != 1 {
				b.t.Errorf("asked for the PIN %d times", pins)
			}
			return err
		},
		repair: touchAtOnce,
	}, {
		name: "cancelled while waiting for a touch",
		card: virtual.Config{TouchTimeout: 2 * time.Second},
		want: context.Canceled,
		fault: func(b *bench) error {
			b.card.SetTouch(virtual.NoTouch)
			b.prompt.blinks = make(chan struct{})
			ctx, cancel := context.WithCancel(b.t.Context())
			go func() {
				<-b.prompt.blinks
				cancel()
			}()
			start := time.Now()
			err := sign(ctx, b.key)
			b.t.Logf("returned after %v", time.Since(start).Round(time.Millisecond))
			return err
		},
		repair: touchAtOnce,
	}, {
		name: "card pulled during a signature and put back",
		want: piv.ErrCardRemoved,
		fault: func(b *bench) error {
			b.card.SetTouch(virtual.NoTouch)
			b.prompt.blinks = make(chan struct{})
			go func() {
				<-b.prompt.blinks
				b.card.Remove()
			}()
			return b.signs()
		},
		repair: func(b *bench) {
			touchAtOnce(b)
			waitRemoved(b)
			insert(b)
		},
	}, {
		name: "card pulled while idle and put back",
		fault: func(b *bench) error {
			mustSign(b.t, b.key)
			remove(b)
			insert(b)
			return b.signs()
		},
	}, {
		name: "card pulled while it is opened, and put back",
		want: piv.ErrCardRemoved,
		fault: func(b *bench) error {
			b.card.RemoveDuring(virtual.InsGetSerial)
			free(b.t, b.card)
			return b.signs()
		},
		repair: func(b *bench) {
			waitRemoved(b)
			insert(b)
		},
	}, {
		name: "another program holds the card for 2 s",
		fault: func(b *bench) error {
			h := hold(b.t, b.card, pcscd.HoldOptions{Exclusive: true})
			time.AfterFunc(2*time.Second, h.Kill)
			start := time.Now()
			err := b.signs()
			if took := time.Since(start); took < 2*time.Second {
				b.t.Errorf("signed after %v", took)
			}
			return err
		},
	}, {
		name:   "another program holds the card for ever",
		want:   piv.ErrCardBusy,
		fault:  heldForEver(pcscd.HoldOptions{Exclusive: true}),
		repair: release,
	}, {
		name: "another program has the card open, as gsd-smartcard does",
		fault: func(b *bench) error {
			b.holder = hold(b.t, b.card, pcscd.HoldOptions{})
			return b.signs()
		},
		repair: release,
	}, {
		name:   "another program never ends its transaction",
		want:   piv.ErrCardBusy,
		fault:  heldForEver(pcscd.HoldOptions{Transaction: true}),
		repair: release,
	}, {
		name: "firmware 5.3.1 forgets the PIN when asked",
		card: virtual.Config{Firmware: virtual.Firmware531},
		fault: func(b *bench) error {
			for range 5 {
				if err := b.signs(); err != nil {
					return err
				}
			}
			if pins, _ := b.prompt.count(); pins != 1 {
				b.t.Errorf("asked for the PIN %d times", pins)
			}
			return nil
		},
	}, {
		name: "firmware without the algorithm",
		card: virtual.Config{Firmware: virtual.Firmware54},
		want: piv.ErrUnsupported,
		fault: func(b *bench) error {
			b.opts.Slot = piv.SlotSignature
			_, err := piv.Generate(b.t.Context(), b.opts, piv.KeySpec{Algorithm: piv.AlgorithmEd25519})
			return err
		},
	}, {
		name: "attestation by an unknown maker",
		want: piv.ErrAttestation,
		fault: func(b *bench) error {
			b.opts.Trust = piv.Trust{} // Yubico's
			k, err := piv.Open(b.t.Context(), b.opts)
			if err != nil {
				b.t.Fatal(err)
			}
			defer k.Close()
			_, err = k.Attestation(b.t.Context())
			return err
		},
	},
}

func heldForEver(o pcscd.HoldOptions) func(*bench) error {
	return func(b *bench) error {
		b.holder = hold(b.t, b.card, o)
		ctx, cancel := context.WithTimeout(b.t.Context(), time.Second)
		defer cancel()
		err := sign(ctx, b.key)
		if !errors.Is(err, context.DeadlineExceeded) {
			b.t.Errorf("does not say that the time was up: %v", err)
		}
		return err
	}
}

func release(b *bench) {
	if err := b.holder.Release(); err != nil {
		b.t.Fatal(err)
	}
}

func touchAtOnce(b *bench) { b.card.SetTouch(virtual.TouchAfter(0)) }

func remove(b *bench) {
	b.card.Remove()
	waitRemoved(b)
}

func waitRemoved(b *bench) {
	if err := b.card.WaitRemoved(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

func insert(b *bench) {
	if err := b.card.Insert(b.t.Context()); err != nil {
		b.t.Fatal(err)
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
