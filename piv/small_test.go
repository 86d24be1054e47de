package piv

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"math/big"
	"testing"
	"testing/synctest"
	"time"
)

// TestSecureKnowsWeakKeys: RSA keys of some firmware can be factored, whatever the
// card says of their policies.
func TestSecureKnowsWeakKeys(t *testing.T) {
	for _, test := range []struct {
		public   crypto.PublicKey
		firmware Version
		want     bool
	}{
		{&rsa.PublicKey{}, Version{4, 2, 5}, true},
		{&rsa.PublicKey{}, Version{4, 2, 6}, false},
		{&rsa.PublicKey{}, Version{4, 3, 4}, false},
		{&rsa.PublicKey{}, Version{4, 3, 5}, true},
		{&rsa.PublicKey{}, Version{5, 7, 4}, true},
		{&ecdsa.PublicKey{}, Version{4, 3, 4}, true},
	} {
		a := &Attestation{Firmware: test.firmware, PublicKey: test.public, PINPolicy: PINPolicyOnce, TouchPolicy: TouchPolicyAlways, verified: true}
		if got := a.Secure(); got != test.want {
			t.Errorf("%T of firmware %v: secure %v", test.public, test.firmware, got)
		}
	}
}

// TestTouchDelays: an RSA key that computes waits for nobody.
func TestTouchDelays(t *testing.T) {
	for _, test := range []struct {
		public crypto.PublicKey
		want   time.Duration
	}{
		{&ecdsa.PublicKey{}, 200 * time.Millisecond},
		{ed25519.PublicKey{}, 200 * time.Millisecond},
		{&rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 2047)}, time.Second},
		{&rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 4095)}, 3 * time.Second},
	} {
		if got := touchDelayOf(test.public); got != test.want {
			t.Errorf("%T: %v, want %v", test.public, got, test.want)
		}
	}
}

// TestUnexpectedStatus lets the card answer in ways that nothing here expects.
func TestUnexpectedStatus(t *testing.T) {
	for _, sw := range []uint16{0x6700, statusIncorrectData, 0x6f00} {
		synctest.Test(t, func(t *testing.T) {
			card := newFakeCard(1).with(SlotAuthentication, PINPolicyNever, TouchPolicyNever)
			s, _ := fakeSystem(card)
			k := mustOpen(t, s, Options{})
			card.change(func() { card.failAt, card.failure = 1, status(sw) })
			err := trySign(t.Context(), k)
			wantError(t, err, ErrRejected)
			if statusOf(err) != sw || Remedy(err) == "" {
				t.Errorf("error: %v", err)
			}
			mustSign(t, k)
			time.Sleep(2 * grace)
		})
	}
}

// TestHiddenSerial has a card that does not tell its serial number.
func TestHiddenSerial(t *testing.T) {
	for name, hide := range map[string]func(*fakeCard){
		"error": func(c *fakeCard) { c.failAt, c.failure = 1, status(0x6d00) },
		"zero":  func(c *fakeCard) { c.number = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				card := newFakeCard(1)
				s, _ := fakeSystem(card)
				hide(card)
				_, err := s.open(t.Context(), Options{})
				wantError(t, err, ErrUnsupported)
				if !errors.Is(err, errNoSerial) || card.connected() {
					t.Errorf("connected %v: %v", card.connected(), err)
				}
			})
		})
	}
}

// TestFactoryPIN: a person who is asked for the PIN learns that it is the one that
// everybody knows.
func TestFactoryPIN(t *testing.T) {
	for _, test := range []struct {
		name     string
		firmware Version
		pin      string
		want     bool
	}{
		{"factory's", Version{5, 7, 4}, "123456", true},
		{"another", Version{5, 7, 4}, "654321", false},
		{"not told", Version{5, 2, 7}, "123456", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			card := newFakeCard(1)
			card.firmware, card.pin = test.firmware, test.pin
			s, _ := fakeSystem(card)
			card.managementKey, card.stored = "secret", []byte("secret")
			prompt := person(test.pin)
			_, _ = s.generate(context.Background(), Options{Prompt: prompt}, KeySpec{TouchPolicy: TouchPolicyNever})
			if len(prompt.asked) != 1 || prompt.asked[0].FactoryPIN != test.want {
				t.Errorf("asked %+v", prompt.asked)
			}
			s.reader(fakeReader).ifFree(s.reader(fakeReader).drop)
		})
	}
}
