package piv

import (
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestCardsLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := fakeSystem(newFakeCard(11), nil, newFakeCard(22))
		p.put("ACME Card Reader 00 00", newFakeCard(33)) // would panic if it were used twice
		other := p.cards["ACME Card Reader 00 00"]
		cards, err := s.cards(t.Context())
		if err != nil || len(cards) != 2 || cards[0].Serial != 11 || cards[1].Serial != 22 {
			t.Fatalf("Cards = %v, %v", cards, err)
		}
		if c := cards[0]; c.Firmware != (Version{5, 7, 4}) || c.FormFactor != FormFactor(2) || c.Reader != fakeReader {
			t.Errorf("card %+v", c)
		}
		if got := other.commands(); got != "" {
			t.Errorf("somebody else's card was sent %s", got)
		}
		// The shape does not change, and to ask for it forgets the PIN.
		p.cards[fakeReader].commands()
		if _, err := s.cards(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := p.cards[fakeReader].commands(); got != "open serial" {
			t.Errorf("sent %s", got)
		}
		time.Sleep(2 * grace)
	})
}

func TestNoCard(t *testing.T) {
	for _, test := range []struct {
		name   string
		cards  []*fakeCard
		failed error
		want   error
		text   string
	}{
		{"no reader", nil, nil, ErrNoCard, "no reader"},
		{"no card", []*fakeCard{nil, nil}, nil, ErrNoCard, "2 readers, no card"},
		{"no service", nil, &pcscError{pcscNoService, errors.New("no service")}, ErrNoService, "start it"},
		{"service stopped", nil, &pcscError{pcscServiceStopped, errors.New("stopped")}, ErrNoService, "start it"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, p := fakeSystem(test.cards...)
			p.failed = test.failed
			cards, err := s.cards(t.Context())
			wantError(t, err, test.want, ErrNoCard)
			if len(cards) != 0 {
				t.Errorf("Cards = %v", cards)
			}
			for _, o := range []Options{{}, {Serial: 1}} {
				_, err := s.open(t.Context(), o)
				wantError(t, err, test.want, ErrNoCard)
				if !strings.Contains(err.Error(), test.text) || errors.Is(err, ErrCardRemoved) {
					t.Errorf("error: %v", err)
				}
				_, err = s.generate(t.Context(), o, KeySpec{})
				wantError(t, err, test.want)
			}
		})
	}
}

func TestWhichCard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := newFakeCard(11).with(SlotAuthentication, PINPolicyNever, TouchPolicyNever)
		two := newFakeCard(22).with(SlotAuthentication, PINPolicyNever, TouchPolicyNever)
		s, p := fakeSystem(one, two)
		defer time.Sleep(2 * grace)

		_, err := s.open(t.Context(), Options{})
		wantError(t, err, ErrSeveralCards)
		if !strings.Contains(err.Error(), "11, 22") {
			t.Errorf("error: %v", err)
		}
		k := mustOpen(t, s, Options{Serial: 22})
		if k.Card().Serial != 22 || k.Reference().Serial != 22 {
			t.Errorf("opened %v", k)
		}
		mustSign(t, k)
		_, err = s.open(t.Context(), Options{Serial: 33})
		wantError(t, err, ErrNoCard)
		if !strings.Contains(err.Error(), "plugged in: 11, 22") {
			t.Errorf("error: %v", err)
		}

		// A card that cannot be asked may be a second one, or the one wanted;
		// one that is found needs nobody else.
		time.Sleep(2 * grace)
		two.change(func() { two.foreign = true })
		_, err = s.open(t.Context(), Options{})
		wantError(t, err, ErrSeveralCards, ErrCardBusy)
		_, err = s.open(t.Context(), Options{Serial: 33})
		wantError(t, err, ErrCardBusy)
		fresh := newSystem(p) // that has not seen where the cards are
		start := time.Now()
		mustSign(t, mustOpen(t, fresh, Options{Serial: 11}))
		if took := time.Since(start); took != 0 {
			t.Errorf("waited %v for a card that was not wanted", took)
		}
		two.change(func() { two.foreign = false })
		time.Sleep(2 * grace)
		mustOpen(t, newSystem(p), Options{Serial: 11})
		synctest.Wait()
		if two.connected() {
			t.Error("a card that is not wanted is held")
		}
		two.change(func() { two.foreign = true })
		time.Sleep(20 * time.Second)
		cards, err := s.cards(t.Context())
		wantError(t, err, ErrCardBusy)
		if len(cards) != 1 || cards[0].Serial != 11 {
			t.Errorf("Cards = %v", cards)
		}
	})
}

func TestCardWithoutPIV(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		off := newFakeCard(11)
		off.noPIV = true
		s, p := fakeSystem(off)
		defer time.Sleep(2 * grace)
		for range 2 { // the second time, it looks held by another program
			start := time.Now()
			_, err := s.open(t.Context(), Options{})
			wantError(t, err, ErrUnsupported)
			if !strings.Contains(err.Error(), "no PIV application") || time.Since(start) > time.Second {
				t.Errorf("after %v: %v", time.Since(start), err)
			}
		}
		p.put("Yubico YubiKey FIDO+CCID 01 00", newFakeCard(22).with(SlotAuthentication, PINPolicyNever, TouchPolicyNever))
		mustSign(t, mustOpen(t, s, Options{}))
		cards, err := s.cards(t.Context())
		wantError(t, err, ErrUnsupported)
		if len(cards) != 1 {
			t.Errorf("Cards = %v", cards)
		}
	})
}

// TestConnectionBreaks has connections that break while they are made, as after a
// WebAuthn touch.
func TestConnectionBreaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		card := newFakeCard(1).with(SlotAuthentication, PINPolicyNever, TouchPolicyNever)
		s, _ := fakeSystem(card)
		k := mustOpen(t, s, Options{})
		defer time.Sleep(2 * grace)
		time.Sleep(2 * grace)
		card.change(func() { card.breaks = 5 })
		start := time.Now()
		mustSign(t, k)
		if took := time.Since(start); took != 5*busyRetry {
			t.Errorf("signed after %v", took)
		}
		time.Sleep(2 * grace)
		card.change(func() { card.breaks = 1000 })
		start = time.Now()
		wantError(t, trySign(t.Context(), k), ErrCardRemoved)
		if took := time.Since(start); took < recovery || took > 3*recovery {
			t.Errorf("gave up after %v", took)
		}
		_, err := s.open(t.Context(), Options{})
		wantError(t, err, ErrPCSC)
		card.change(func() { card.breaks = 0 })
		mustSign(t, k)
	})
}

// TestPCSCErrors has each error with which PC/SC can keep a card from a program.
func TestPCSCErrors(t *testing.T) {
	for _, test := range []struct {
		code uint32
		want error
		not  error
	}{
		{pcscNoService, ErrNoService, nil},
		{pcscServiceStopped, ErrNoService, nil},
		{pcscServiceLost, ErrNoService, nil},
		{pcscSecurityViolation, ErrAccessDenied, ErrNoCard},
		{pcscNoAccess, ErrAccessDenied, ErrNoCard},
		{pcscSharingViolation, ErrCardBusy, ErrNoCard},
		{pcscNoReaders, ErrNoCard, ErrPCSC},
		{pcscNoCard, ErrNoCard, ErrPCSC},
		{pcscUnknownReader, ErrNoCard, ErrPCSC},
		{pcscReaderUnavailable, ErrNoCard, ErrPCSC},
		{pcscCardRemoved, ErrNoCard, ErrPCSC},
		{pcscNotTransacted, ErrPCSC, ErrNoCard},
		{pcscUnresponsive, ErrPCSC, ErrNoCard},
		{pcscUnpowered, ErrPCSC, ErrNoCard},
		{pcscCommunication, ErrPCSC, ErrNoCard},
		{pcscNotReady, ErrPCSC, ErrNoCard},
		{0x80100006, ErrPCSC, ErrNoCard}, // E_NO_MEMORY
		{0x8010000f, ErrPCSC, ErrNoCard}, // E_PROTO_MISMATCH
		{0x80100031, ErrPCSC, ErrNoCard}, // E_SERVER_TOO_BUSY
	} {
		failure := &pcscError{test.code, errors.New("as PC/SC says")}
		check := func(t *testing.T, err error) {
			t.Helper()
			wantError(t, err, test.want)
			if test.not != nil && errors.Is(err, test.not) || Remedy(err) != Remedy(test.want) {
				t.Errorf("%v\nremedy: %s", err, Remedy(err))
			}
		}
		t.Run(fmt.Sprintf("connect %08x", test.code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				card := newFakeCard(1).with(SlotAuthentication, PINPolicyNever, TouchPolicyNever)
				s, _ := fakeSystem(card)
				k := mustOpen(t, s, Options{})
				time.Sleep(2 * grace)
				card.change(func() { card.refuses = failure })
				_, err := s.open(t.Context(), Options{})
				check(t, err)
				_, err = s.open(t.Context(), Options{Serial: 1})
				check(t, err)
				_, err = s.cards(t.Context())
				check(t, err)
				if err := trySign(t.Context(), k); !silent(failure) && !gone(failure) {
					check(t, err)
				} else {
					wantError(t, err, ErrCardRemoved)
				}
				card.change(func() { card.refuses = nil })
				mustSign(t, k)
				time.Sleep(2 * grace)
			})
		})
		t.Run(fmt.Sprintf("list %08x", test.code), func(t *testing.T) {
			s, p := fakeSystem(newFakeCard(1))
			p.failed = failure
			_, err := s.cards(t.Context())
			check(t, err)
		})
	}
}

func TestReaderFilter(t *testing.T) {
	s, p := fakeSystem()
	p.put("ACME Contactless Reader", newFakeCard(1).with(SlotAuthentication, PINPolicyNever, TouchPolicyNever))
	_, err := s.open(t.Context(), Options{})
	wantError(t, err, ErrNoCard)
	k := mustOpen(t, s, Options{Reader: "contactless"})
	mustSign(t, k)
	k.Close()
}

// TestRemovedWhileIdle pulls the card out between two signatures.
func TestRemovedWhileIdle(t *testing.T) {
	for name, idle := range map[string]time.Duration{"warm": 0, "cold": 2 * grace} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				card := newFakeCard(1).with(SlotAuthentication, PINPolicyOnce, TouchPolicyNever)
				s, p := fakeSystem(card, nil)
				const elsewhere = "Yubico YubiKey OTP+FIDO+CCID 01 00"
				k := mustOpen(t, s, Options{Prompt: person()})
				defer time.Sleep(2 * grace)
				mustSign(t, k)

				time.Sleep(idle)
				p.put(fakeReader, nil)
				for range 2 {
					err := trySign(t.Context(), k)
					wantError(t, err, ErrCardRemoved, ErrNoCard)
				}
				p.put(fakeReader, newFakeCard(2)) // somebody else's
				wantError(t, trySign(t.Context(), k), ErrCardRemoved)

				p.put(elsewhere, card)
				mustSign(t, k)

				time.Sleep(idle)
				p.put(elsewhere, nil)
				p.put(fakeReader, card) // back before anybody noticed
				mustSign(t, k)

				time.Sleep(idle)
				p.put(fakeReader, newFakeCard(3).with(SlotAuthentication, PINPolicyNever, TouchPolicyNever))
				p.put(elsewhere, card)
				start := time.Now()
				mustSign(t, k)
				if took := time.Since(start); took != 0 {
					t.Errorf("found after %v", took)
				}
			})
		})
	}
}

// TestRemovedDuringSignature pulls the card out while it waits for a touch. The
// signature is not tried again by itself: that would ask for a second touch.
func TestRemovedDuringSignature(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		card := newFakeCard(1).with(SlotAuthentication, PINPolicyNever, TouchPolicyAlways)
		s, p := fakeSystem(card)
		k := mustOpen(t, s, Options{})
		defer time.Sleep(2 * grace)
		card.touchAfter = 5 * time.Second
		start := time.Now()
		time.AfterFunc(time.Second, func() {
			p.put(fakeReader, nil)
			p.put(fakeReader, card)
		})
		wantError(t, trySign(t.Context(), k), ErrCardRemoved)
		if took := time.Since(start); took != time.Second {
			t.Errorf("noticed after %v", took)
		}
		mustSign(t, k)
	})
}

func TestResetConnection(t *testing.T) {
	card := newFakeCard(1).with(SlotAuthentication, PINPolicyNever, TouchPolicyNever)
	s, _ := fakeSystem(card)
	k := mustOpen(t, s, Options{})
	defer k.Close()
	card.commands()
	card.change(func() { card.open = nil })
	mustSign(t, k)
	if got := card.commands(); got != "open serial info sign" {
		t.Errorf("sent %s", got)
	}
}

func TestSlotChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		card := newFakeCard(1).with(SlotAuthentication, PINPolicyNever, TouchPolicyNever)
		s, _ := fakeSystem(card)
		k := mustOpen(t, s, Options{})
		defer time.Sleep(2 * grace)
		stored := k.Reference()
		time.Sleep(2 * grace) // another program may now do what it likes
		mine := card.keys[SlotAuthentication]
		card.with(SlotAuthentication, PINPolicyNever, TouchPolicyNever)
		wantError(t, trySign(t.Context(), k), ErrKeyMismatch)
		_, err := s.open(t.Context(), stored.Options(nil))
		wantError(t, err, ErrKeyMismatch)
		time.Sleep(2 * grace)
		delete(card.keys, SlotAuthentication)
		wantError(t, trySign(t.Context(), k), ErrNoKey)
		_, err = s.open(t.Context(), stored.Options(nil))
		wantError(t, err, ErrNoKey)
		time.Sleep(2 * grace)
		card.keys[SlotAuthentication] = mine
		mustSign(t, k)
		mustSign(t, mustOpen(t, s, stored.Options(nil)))
	})
}

func TestSlotWithKeyAgreement(t *testing.T) {
	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &conn{token: agreeing{public: private.PublicKey()}, card: Card{Firmware: Version{5, 7, 4}}}
	_, err = c.slot(SlotKeyManagement)
	wantError(t, err, ErrUnsupported)
	wantError(t, c.vacant(SlotKeyManagement, nil), ErrSlotOccupied)
}

// agreeing is a card with a key that does not sign.
type agreeing struct {
	token
	public *ecdh.PublicKey
}

func (a agreeing) keyInfo(Slot) (slotInfo, error) { return slotInfo{public: a.public}, nil }

func TestBadSlot(t *testing.T) {
	s, _ := fakeSystem(newFakeCard(1))
	for _, slot := range []Slot{0x9b, slotAttestation, 0x81} {
		if _, err := s.open(t.Context(), Options{Slot: slot}); err == nil || !strings.Contains(err.Error(), "not a slot") {
			t.Errorf("slot %v: %v", slot, err)
		}
	}
}
