package pivtest_test

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/piv/pivtest"
)

const (
	signP256     = "0087119A 26 7C24 8200 8120 000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F"
	signPart1    = "1087119A 10 7C24 8200 8120 0001020304050607 0809"
	signPart2    = "0087119A 16 0A0B0C0D0E0F101112131415161718191A1B1C1D1E1F"
	selectOTP    = "00A40400 08 A000000527200101"
	getVersion   = "00FD000000"
	retiredSlot1 = pivtest.Slot(0x82)
)

// newSigner makes a card with a P-256 key in slot 9a.
func newSigner(t *testing.T, cfg pivtest.Config, pin pivtest.PINPolicy, touch pivtest.TouchPolicy) program {
	t.Helper()
	p := newProgram(t, cfg)
	if _, err := p.card.GenerateKey(pivtest.SlotAuthentication, pivtest.P256, pin, touch); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPINPolicies(t *testing.T) {
	const ok, no = " -> 9000", " -> 6982"
	tests := []struct {
		name   string
		policy pivtest.PINPolicy
		lines  []string
	}{
		{"never", pivtest.PINNever, []string{signP256 + ok, verifyWrong + " -> 63C2", signP256 + ok}},
		{"once", pivtest.PINOnce, []string{
			signP256 + no, verifyPIN + ok, signP256 + ok, getVersion + ok, signP256 + ok, signP256 + ok,
		}},
		{"once, until a wrong PIN", pivtest.PINOnce, []string{verifyPIN + ok, signP256 + ok, verifyWrong + " -> 63C2", signP256 + no}},
		{"once, until another application", pivtest.PINOnce, []string{verifyPIN + ok, selectOTP + ok, selectPIV + ok, signP256 + no}},
		{"once, by changing the PIN", pivtest.PINOnce, []string{changePIN + ok, signP256 + ok}},
		{"once, not by unblocking it", pivtest.PINOnce, []string{unblock + ok, signP256 + no}},
		{"always", pivtest.PINAlways, []string{
			signP256 + no, verifyPIN + ok, signP256 + ok, signP256 + no, verifyPIN + ok, signP256 + ok,
		}},
		{"always, just before", pivtest.PINAlways, []string{verifyPIN + ok, getVersion + ok, signP256 + no}},
		{"always, asking is not verifying", pivtest.PINAlways, []string{verifyPIN + ok, verifyEmpty + ok, signP256 + no}},
		{"always, selecting again", pivtest.PINAlways, []string{verifyPIN + ok, selectPIV + ok, signP256 + no}},
		{"always, changing is not verifying", pivtest.PINAlways, []string{changePIN + ok, signP256 + no}},
		{"always, a chain is one command", pivtest.PINAlways, []string{verifyPIN + ok, signPart1 + ok, signPart2 + ok, signP256 + no}},
		{"always, a chain begun in between", pivtest.PINAlways, []string{verifyPIN + ok, "10CB3FFF 02 5C03" + ok, signP256 + no}},
		{"always, GET RESPONSE in between", pivtest.PINAlways, []string{verifyPIN + ok, "00C0000000 -> 6A80", signP256 + no}},
		{"always, nonsense in between", pivtest.PINAlways, []string{verifyPIN + ok, "00FD00 -> 6700", signP256 + no}},
		{"always, a refused signature spends it", pivtest.PINAlways, []string{verifyPIN + ok, "0087119A 02 7C00 -> 6A80", signP256 + no}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			newSigner(t, pivtest.Config{}, test.policy, pivtest.TouchNever).expectAll(test.lines...)
		})
	}
}

func TestUseMistakes(t *testing.T) {
	p := newSigner(t, pivtest.Config{}, pivtest.PINNever, pivtest.TouchNever)
	for slot, algorithm := range map[pivtest.Slot]pivtest.Algorithm{
		pivtest.SlotKeyManagement: pivtest.X25519, pivtest.SlotSignature: pivtest.RSA1024, retiredSlot1: pivtest.Ed25519,
	} {
		if _, err := p.card.GenerateKey(slot, algorithm, pivtest.PINNever, pivtest.TouchNever); err != nil {
			t.Fatal(err)
		}
	}
	use := func(name string, slot pivtest.Slot, algorithm pivtest.Algorithm, tag byte, input []byte, want pivtest.StatusWord) {
		t.Helper()
		if _, sw := p.use(slot, algorithm, tag, input); sw != want {
			t.Errorf("%s: status %v, want %v", name, sw, want)
		}
	}
	use("short digest", pivtest.SlotAuthentication, pivtest.P256, 0x81, make([]byte, 20), pivtest.Success)
	use("long digest", pivtest.SlotAuthentication, pivtest.P256, 0x81, make([]byte, 33), pivtest.IncorrectData)
	use("no digest", pivtest.SlotAuthentication, pivtest.P256, 0x81, nil, pivtest.IncorrectData)
	use("other algorithm", pivtest.SlotAuthentication, pivtest.P384, 0x81, make([]byte, 32), pivtest.IncorrectData)
	use("empty slot", 0x83, pivtest.P256, 0x81, make([]byte, 32), pivtest.IncorrectData)
	use("attestation key", pivtest.SlotAttestation, pivtest.RSA2048, 0x81, make([]byte, 256), pivtest.IncorrectP1P2)
	use("no slot", 0x96, pivtest.P256, 0x81, make([]byte, 32), pivtest.IncorrectP1P2)
	use("point not on the curve", pivtest.SlotAuthentication, pivtest.P256, 0x85, make([]byte, 65), pivtest.IncorrectData)
	use("short block", pivtest.SlotSignature, pivtest.RSA1024, 0x81, make([]byte, 127), pivtest.IncorrectData)
	use("block above the modulus", pivtest.SlotSignature, pivtest.RSA1024, 0x81, slices.Repeat([]byte{0xff}, 128), pivtest.IncorrectData)
	use("agreement with RSA", pivtest.SlotSignature, pivtest.RSA1024, 0x85, make([]byte, 128), pivtest.IncorrectData)
	use("signature with X25519", pivtest.SlotKeyManagement, pivtest.X25519, 0x81, make([]byte, 32), pivtest.IncorrectData)
	use("point of order one", pivtest.SlotKeyManagement, pivtest.X25519, 0x85, make([]byte, 32), pivtest.IncorrectData)
	use("agreement with Ed25519", retiredSlot1, pivtest.Ed25519, 0x85, make([]byte, 32), pivtest.IncorrectData)
	use("empty message", retiredSlot1, pivtest.Ed25519, 0x81, nil, pivtest.Success)
	use("long message", retiredSlot1, pivtest.Ed25519, 0x81, make([]byte, 3000), pivtest.Success)
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
	return pivtest.TouchAfter(f.after)(ctx)
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
		p := newSigner(t, pivtest.Config{Touch: f.touch}, pivtest.PINNever, pivtest.TouchNever)
		p.must(signP256)
		if f.touches != 0 {
			t.Errorf("blinked %d times", f.touches)
		}
	})
	t.Run("always", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := &fingers{after: 2 * time.Second}
			p := newSigner(t, pivtest.Config{Touch: f.touch}, pivtest.PINNever, pivtest.TouchAlways)
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
			p := newSigner(t, pivtest.Config{Touch: f.touch}, pivtest.PINNever, pivtest.TouchCached)
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
		p := newSigner(t, pivtest.Config{Touch: f.touch}, pivtest.PINNever, pivtest.TouchAlways)
		public, err := p.card.GenerateKey(retiredSlot1, pivtest.P256, pivtest.PINNever, pivtest.TouchCached)
		if err != nil {
			t.Fatal(err)
		}
		p.must(signP256)
		p.checkKey(retiredSlot1, pivtest.P256, public.(*ecdsa.PublicKey))
		if f.touches != 1 {
			t.Errorf("blinked %d times", f.touches)
		}
	})
	t.Run("configured cache", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := new(fingers)
			p := newSigner(t, pivtest.Config{Touch: f.touch, TouchCache: time.Minute}, pivtest.PINNever, pivtest.TouchCached)
			p.must(signP256)
			time.Sleep(time.Minute - time.Nanosecond)
			p.must(signP256)
			if f.touches != 1 {
				t.Errorf("blinked %d times", f.touches)
			}
		})
	})
	t.Run("management key", func(t *testing.T) {
		f := new(fingers)
		p := newProgram(t, pivtest.Config{Touch: f.touch})
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
			p := newSigner(t, pivtest.Config{Touch: pivtest.NoTouch}, pivtest.PINNever, pivtest.TouchAlways)
			if d := took(func() { p.expect(signP256, pivtest.SecurityNotSatisfied) }); d != 15*time.Second {
				t.Errorf("took %v", d)
			}
			p.card.SetTouch(pivtest.TouchAfter(0))
			p.must(signP256)
		})
	})
	t.Run("set time-out", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newSigner(t, pivtest.Config{Touch: pivtest.NoTouch, TouchTimeout: time.Hour}, pivtest.PINNever, pivtest.TouchAlways)
			p.card.SetTouchTimeout(3 * time.Second)
			if d := took(func() { p.expect(signP256, pivtest.SecurityNotSatisfied) }); d != 3*time.Second {
				t.Errorf("took %v", d)
			}
		})
	})
	t.Run("too late", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newSigner(t, pivtest.Config{Touch: pivtest.TouchAfter(16 * time.Second)}, pivtest.PINNever, pivtest.TouchAlways)
			if d := took(func() { p.expect(signP256, pivtest.SecurityNotSatisfied) }); d != 15*time.Second {
				t.Errorf("took %v", d)
			}
		})
	})
	t.Run("finger gives up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newSigner(t, pivtest.Config{Touch: func(context.Context) bool { return false }}, pivtest.PINNever, pivtest.TouchAlways)
			if d := took(func() { p.expect(signP256, pivtest.SecurityNotSatisfied) }); d != 15*time.Second {
				t.Errorf("took %v: a card that is not touched blinks on", d)
			}
		})
	})
	t.Run("spends PIN always", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newSigner(t, pivtest.Config{Touch: pivtest.NoTouch}, pivtest.PINAlways, pivtest.TouchAlways)
			p.expectAll(verifyPIN+" -> 9000", signP256+" -> 6982")
			p.card.SetTouch(pivtest.TouchAfter(0))
			p.expectAll(signP256+" -> 6982", verifyPIN+" -> 9000", signP256+" -> 9000")
		})
	})
	t.Run("no PIN, no blinking", func(t *testing.T) {
		f := new(fingers)
		p := newSigner(t, pivtest.Config{Touch: f.touch}, pivtest.PINOnce, pivtest.TouchAlways)
		p.expect(signP256, pivtest.SecurityNotSatisfied)
		if f.touches != 0 {
			t.Errorf("blinked %d times", f.touches)
		}
	})
}

// TestKnobsTurnWhileBlinking: nothing but a command waits for the touch.
func TestKnobsTurnWhileBlinking(t *testing.T) {
	var card *pivtest.Card
	p := newSigner(t, pivtest.Config{Touch: func(context.Context) bool {
		card.SetPINTries(1)
		card.SetTouchTimeout(time.Second)
		card.SetTouch(pivtest.NoTouch)
		_, _, _ = card.PINTries(), card.Count(), card.PINVerified()
		card.ResetLog()
		card.Remove()
		return true
	}}, pivtest.PINNever, pivtest.TouchAlways)
	card = p.card
	p.must(signP256)
}

func TestRemovedWhileBlinking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSigner(t, pivtest.Config{Touch: pivtest.NoTouch}, pivtest.PINNever, pivtest.TouchAlways)
		p.card.ResetLog()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		answer, err := p.card.Transmit(ctx, unhex(t, signP256))
		if !errors.Is(err, pivtest.ErrRemoved) || answer != nil {
			t.Errorf("Transmit() = %x, %v", answer, err)
		}
		if log := p.card.Log(); len(log) != 1 || log[0].Status != 0 || log[0].INS != pivtest.InsAuthenticate {
			t.Errorf("log %+v", log)
		}
	})
}
