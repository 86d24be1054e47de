package virtual_test

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/piv/internal/virtual"
)

const (
	signP256     = "0087119A 26 7C24 8200 8120 000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F"
	signPart1    = "1087119A 10 7C24 8200 8120 0001020304050607 0809"
	signPart2    = "0087119A 16 0A0B0C0D0E0F101112131415161718191A1B1C1D1E1F"
	selectOTP    = "00A40400 08 A000000527200101"
	getVersion   = "00FD000000"
	retiredSlot1 = virtual.Slot(0x82)
)

// newSigner makes a card with a P-256 key in slot 9a.
func newSigner(t *testing.T, cfg virtual.Config, pin virtual.PINPolicy, touch virtual.TouchPolicy) program {
	t.Helper()
	p := newProgram(t, cfg)
	if _, err := p.card.GenerateKey(virtual.SlotAuthentication, virtual.P256, pin, touch); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPINPolicies(t *testing.T) {
	const ok, no = " -> 9000", " -> 6982"
	tests := []struct {
		name   string
		policy virtual.PINPolicy
		lines  []string
	}{
		{"never", virtual.PINNever, []string{signP256 + ok, verifyWrong + " -> 63C2", signP256 + ok}},
		{"once", virtual.PINOnce, []string{
			signP256 + no, verifyPIN + ok, signP256 + ok, getVersion + ok, signP256 + ok, signP256 + ok,
		}},
		{"once, until a wrong PIN", virtual.PINOnce, []string{verifyPIN + ok, signP256 + ok, verifyWrong + " -> 63C2", signP256 + no}},
		{"once, until another application", virtual.PINOnce, []string{verifyPIN + ok, selectOTP + ok, selectPIV + ok, signP256 + no}},
		{"once, by changing the PIN", virtual.PINOnce, []string{changePIN + ok, signP256 + ok}},
		{"once, not by unblocking it", virtual.PINOnce, []string{unblock + ok, signP256 + no}},
		{"always", virtual.PINAlways, []string{
			signP256 + no, verifyPIN + ok, signP256 + ok, signP256 + no, verifyPIN + ok, signP256 + ok,
		}},
		{"always, just before", virtual.PINAlways, []string{verifyPIN + ok, getVersion + ok, signP256 + no}},
		{"always, asking is not verifying", virtual.PINAlways, []string{verifyPIN + ok, verifyEmpty + ok, signP256 + no}},
		{"always, selecting again", virtual.PINAlways, []string{verifyPIN + ok, selectPIV + ok, signP256 + no}},
		{"always, changing is not verifying", virtual.PINAlways, []string{changePIN + ok, signP256 + no}},
		{"always, a chain is one command", virtual.PINAlways, []string{verifyPIN + ok, signPart1 + ok, signPart2 + ok, signP256 + no}},
		{"always, a chain begun in between", virtual.PINAlways, []string{verifyPIN + ok, "10CB3FFF 02 5C03" + ok, signP256 + no}},
		{"always, GET RESPONSE in between", virtual.PINAlways, []string{verifyPIN + ok, "00C0000000 -> 6A80", signP256 + no}},
		{"always, nonsense in between", virtual.PINAlways, []string{verifyPIN + ok, "00FD00 -> 6700", signP256 + no}},
		{"always, a refused signature spends it", virtual.PINAlways, []string{verifyPIN + ok, "0087119A 02 7C00 -> 6A80", signP256 + no}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			newSigner(t, virtual.Config{}, test.policy, virtual.TouchNever).expectAll(test.lines...)
		})
	}
}

func TestUseMistakes(t *testing.T) {
	p := newSigner(t, virtual.Config{}, virtual.PINNever, virtual.TouchNever)
	for slot, algorithm := range map[virtual.Slot]virtual.Algorithm{
		virtual.SlotKeyManagement: virtual.X25519, virtual.SlotSignature: virtual.RSA1024, retiredSlot1: virtual.Ed25519,
	} {
		if _, err := p.card.GenerateKey(slot, algorithm, virtual.PINNever, virtual.TouchNever); err != nil {
			t.Fatal(err)
		}
	}
	use := func(name string, slot virtual.Slot, algorithm virtual.Algorithm, tag byte, input []byte, want virtual.StatusWord) {
		t.Helper()
		if _, sw := p.use(slot, algorithm, tag, input); sw != want {
			t.Errorf("%s: status %v, want %v", name, sw, want)
		}
	}
	use("short digest", virtual.SlotAuthentication, virtual.P256, 0x81, make([]byte, 20), virtual.Success)
	use("long digest", virtual.SlotAuthentication, virtual.P256, 0x81, make([]byte, 33), virtual.IncorrectData)
	use("no digest", virtual.SlotAuthentication, virtual.P256, 0x81, nil, virtual.IncorrectData)
	use("other algorithm", virtual.SlotAuthentication, virtual.P384, 0x81, make([]byte, 32), virtual.IncorrectData)
	use("empty slot", 0x83, virtual.P256, 0x81, make([]byte, 32), virtual.IncorrectData)
	use("attestation key", virtual.SlotAttestation, virtual.RSA2048, 0x81, make([]byte, 256), virtual.IncorrectP1P2)
	use("no slot", 0x96, virtual.P256, 0x81, make([]byte, 32), virtual.IncorrectP1P2)
	use("point not on the curve", virtual.SlotAuthentication, virtual.P256, 0x85, make([]byte, 65), virtual.IncorrectData)
	use("short block", virtual.SlotSignature, virtual.RSA1024, 0x81, make([]byte, 127), virtual.IncorrectData)
	use("block above the modulus", virtual.SlotSignature, virtual.RSA1024, 0x81, slices.Repeat([]byte{0xff}, 128), virtual.IncorrectData)
	use("agreement with RSA", virtual.SlotSignature, virtual.RSA1024, 0x85, make([]byte, 128), virtual.IncorrectData)
	use("signature with X25519", virtual.SlotKeyManagement, virtual.X25519, 0x81, make([]byte, 32), virtual.IncorrectData)
	use("point of order one", virtual.SlotKeyManagement, virtual.X25519, 0x85, make([]byte, 32), virtual.IncorrectData)
	use("agreement with Ed25519", retiredSlot1, virtual.Ed25519, 0x85, make([]byte, 32), virtual.IncorrectData)
	use("empty message", retiredSlot1, virtual.Ed25519, 0x81, nil, virtual.Success)
	use("long message", retiredSlot1, virtual.Ed25519, 0x81, make([]byte, 3000), virtual.Success)
	p.expectAll(
		"0087119A 04 7C02 8200 -> 6A80",          // nothing to do
		"0087119A 05 7C03 810101 -> 6A80",        // nothing wanted
		"0087119A 08 7C06 820101 810101 -> 6A80", // an answer instead of a place for it
		"0087119A 02 7C05 -> 6A80",
	)
}

// fingers counts touches.
type fingers struct {
	touches int
	after   time.Duration
}

func (f *fingers) touch(ctx context.Context) bool {
	f.touches++
	return virtual.TouchAfter(f.after)(ctx)
}

// took runs f and returns how long it took in the time of the bubble.
func took(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

func TestTouchPolicies(t *testing.T) {
	t.Run("never", func(t *testing.T) {
		f := new(fingers)
		p := newSigner(t, virtual.Config{Touch: f.touch}, virtual.PINNever, virtual.TouchNever)
		p.must(signP256)
		if f.touches != 0 {
			t.Errorf("blinked %d times", f.touches)
		}
	})
	t.Run("always", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := &fingers{after: 2 * time.Second}
			p := newSigner(t, virtual.Config{Touch: f.touch}, virtual.PINNever, virtual.TouchAlways)
			for range 2 {
				if d := took(func() { p.must(signP256) }); d != 2*time.Second {
					t.Errorf("took %v", d)
				}
			}
			if log := p.card.Log(); f.touches != 2 || log[len(log)-1].Took != 2*time.Second {
				t.Errorf("blinked %d times, log %+v", f.touches, log)
			}
		})
	})
	t.Run("cached", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := &fingers{after: time.Second}
			p := newSigner(t, virtual.Config{Touch: f.touch}, virtual.PINNever, virtual.TouchCached)
			p.must(signP256)
			time.Sleep(15*time.Second - time.Nanosecond)
			p.must(signP256)
			if f.touches != 1 {
				t.Errorf("blinked %d times within 15 s", f.touches)
			}
			time.Sleep(time.Nanosecond)
			p.must(signP256)
			if f.touches != 2 {
				t.Errorf("blinked %d times after 15 s", f.touches)
			}
		})
	})
	t.Run("a touch for another key is cached too", func(t *testing.T) {
		f := new(fingers)
		p := newSigner(t, virtual.Config{Touch: f.touch}, virtual.PINNever, virtual.TouchAlways)
		public, err := p.card.GenerateKey(retiredSlot1, virtual.P256, virtual.PINNever, virtual.TouchCached)
		if err != nil {
			t.Fatal(err)
		}
		p.must(signP256)
		p.checkKey(retiredSlot1, virtual.P256, public.(*ecdsa.PublicKey))
		if f.touches != 1 {
			t.Errorf("blinked %d times", f.touches)
		}
	})
	t.Run("management key", func(t *testing.T) {
		f := new(fingers)
		p := newProgram(t, virtual.Config{Touch: f.touch})
		p.authenticate()
		p.must("00FFFFFE 1B 0A9B18 010203040506070801020304050607080102030405060708")
		p.authenticate()
		if f.touches != 1 {
			t.Errorf("blinked %d times", f.touches)
		}
		p.must("00FFFFFD 1B 0A9B18 010203040506070801020304050607080102030405060708")
		p.authenticate()
		if f.touches != 1 {
			t.Errorf("blinked %d times although cached", f.touches)
		}
	})
}

func TestTouchNeverComes(t *testing.T) {
	t.Run("default time-out", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newSigner(t, virtual.Config{Touch: virtual.NoTouch}, virtual.PINNever, virtual.TouchAlways)
			if d := took(func() { p.expect(signP256, virtual.SecurityNotSatisfied) }); d != 15*time.Second {
				t.Errorf("took %v", d)
			}
			p.card.SetTouch(virtual.TouchAfter(0))
			p.must(signP256)
		})
	})
	t.Run("set time-out", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newSigner(t, virtual.Config{Touch: virtual.NoTouch, TouchTimeout: 3 * time.Second}, virtual.PINNever, virtual.TouchAlways)
			if d := took(func() { p.expect(signP256, virtual.SecurityNotSatisfied) }); d != 3*time.Second {
				t.Errorf("took %v", d)
			}
		})
	})
	t.Run("too late", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newSigner(t, virtual.Config{Touch: virtual.TouchAfter(16 * time.Second)}, virtual.PINNever, virtual.TouchAlways)
			if d := took(func() { p.expect(signP256, virtual.SecurityNotSatisfied) }); d != 15*time.Second {
				t.Errorf("took %v", d)
			}
		})
	})
	t.Run("finger gives up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newSigner(t, virtual.Config{Touch: func(context.Context) bool { return false }}, virtual.PINNever, virtual.TouchAlways)
			if d := took(func() { p.expect(signP256, virtual.SecurityNotSatisfied) }); d != 15*time.Second {
				t.Errorf("took %v: a card that is not touched blinks on", d)
			}
		})
	})
	t.Run("spends PIN always", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newSigner(t, virtual.Config{Touch: virtual.NoTouch}, virtual.PINAlways, virtual.TouchAlways)
			p.expectAll(verifyPIN+" -> 9000", signP256+" -> 6982")
			p.card.SetTouch(virtual.TouchAfter(0))
			p.expectAll(signP256+" -> 6982", verifyPIN+" -> 9000", signP256+" -> 9000")
		})
	})
	t.Run("no PIN, no blinking", func(t *testing.T) {
		f := new(fingers)
		p := newSigner(t, virtual.Config{Touch: f.touch}, virtual.PINOnce, virtual.TouchAlways)
		p.expect(signP256, virtual.SecurityNotSatisfied)
		if f.touches != 0 {
			t.Errorf("blinked %d times", f.touches)
		}
	})
}

// TestKnobsTurnWhileBlinking: nothing but a command waits for the touch.
func TestKnobsTurnWhileBlinking(t *testing.T) {
	var card *virtual.Card
	p := newSigner(t, virtual.Config{Touch: func(context.Context) bool {
		card.SetPINTries(1)
		card.SetTouch(virtual.NoTouch)
		_, _, _ = card.PINTries(), card.Count(), card.PINVerified()
		card.ResetLog()
		card.RemoveDuring(virtual.InsSelect)
		return true
	}}, virtual.PINNever, virtual.TouchAlways)
	card = p.card
	p.must(signP256)
}

func TestRemovedWhileBlinking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSigner(t, virtual.Config{Touch: virtual.NoTouch}, virtual.PINNever, virtual.TouchAlways)
		p.card.ResetLog()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		answer, err := p.card.Transmit(ctx, unhex(t, signP256))
		if !errors.Is(err, virtual.ErrRemoved) || answer != nil {
			t.Errorf("Transmit() = %x, %v", answer, err)
		}
		if log := p.card.Log(); len(log) != 1 || log[0].Status != 0 || log[0].INS != virtual.InsAuthenticate {
			t.Errorf("log %+v", log)
		}
	})
}
