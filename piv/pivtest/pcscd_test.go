package pivtest_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/piv/pivtest"
)

// What PC/SC says.
const (
	errSharing       = pivtest.PCSCError(0x8010000b)
	errNotTransacted = pivtest.PCSCError(0x80100016)
	errRemoved       = pivtest.PCSCError(0x80100069)
)

// hold opens a card as another program until the test ends.
func hold(t *testing.T, card *pivtest.Card, opts pivtest.HoldOptions) *pivtest.Holder {
	t.Helper()
	h, err := card.Hold(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Release() }) // fails if the test killed it or pulled the card
	return h
}

// transmit sends a command that has to get the answer.
func transmit(t *testing.T, h *pivtest.Holder, apdu, want string) {
	t.Helper()
	answer, err := h.Transmit(t.Context(), unhex(t, apdu))
	if err != nil || !bytes.Equal(answer, unhex(t, want)) {
		t.Errorf("%s: answer %X, %v; want %s", apdu, answer, err, want)
	}
}

const selected = "61114F0600001000010079074F05A000000308 9000"

func TestStart(t *testing.T) {
	card := pivtest.Start(t, pivtest.Config{Serial: 4711})
	if !strings.Contains(card.Reader(), "Yubico YubiKey") {
		t.Errorf("reader %q", card.Reader())
	}
	h := hold(t, card, pivtest.HoldOptions{Transaction: true})
	transmit(t, h, selectPIV, selected)
	transmit(t, h, "00F8000000", "00001267 9000")
	if n := card.Count(); n != 2 {
		t.Errorf("%d commands reached the card: %+v", n, card.Log())
	}
	if err := h.Release(); err != nil {
		t.Error(err)
	}
	if err := h.Release(); err != nil {
		t.Error(err)
	}
	h.Kill() // after Release does nothing
	if _, err := h.Transmit(t.Context(), unhex(t, getVersion)); err == nil {
		t.Error("sent a command after Release")
	}
}

func TestTwoCards(t *testing.T) {
	first := pivtest.Start(t, pivtest.Config{Serial: 1})
	t.Run("in a subtest", func(t *testing.T) {
		second := pivtest.Start(t, pivtest.Config{Serial: 2})
		if first.Reader() == second.Reader() {
			t.Fatalf("both in reader %q", first.Reader())
		}
		for card, want := range map[*pivtest.Card]string{first: "00000001 9000", second: "00000002 9000"} {
			h := hold(t, card, pivtest.HoldOptions{Exclusive: true})
			transmit(t, h, selectPIV, selected)
			transmit(t, h, "00F8000000", want)
		}
	})
	t.Run("in another one", func(t *testing.T) {
		third := pivtest.Start(t, pivtest.Config{Serial: 3})
		h := hold(t, third, pivtest.HoldOptions{})
		transmit(t, h, selectPIV, selected)
		transmit(t, h, "00F8000000", "00000003 9000")
	})
}

func TestRemoveAndInsert(t *testing.T) {
	card := pivtest.Start(t, pivtest.Config{})
	public, err := card.GenerateKey(pivtest.SlotAuthentication, pivtest.P256, pivtest.PINOnce, pivtest.TouchNever)
	if err != nil {
		t.Fatal(err)
	}
	h := hold(t, card, pivtest.HoldOptions{})
	transmit(t, h, selectPIV, selected)
	transmit(t, h, verifyPIN, "9000")
	card.Remove()
	if err := card.WaitRemoved(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := card.Hold(t.Context(), pivtest.HoldOptions{}); err == nil {
		t.Error("opened a card that is not there")
	}
	if err := card.Insert(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Transmit(t.Context(), unhex(t, verifyEmpty)); !errors.Is(err, errRemoved) {
		t.Errorf("a handle from before: %v, want %v", err, errRemoved)
	}
	h = hold(t, card, pivtest.HoldOptions{})
	transmit(t, h, selectPIV, selected)
	transmit(t, h, verifyEmpty, "63C3")
	transmit(t, h, verifyPIN, "9000")
	p := program{t, card}
	p.checkKey(pivtest.SlotAuthentication, pivtest.P256, public.(*ecdsa.PublicKey))
}

// TestInsertAtOnce: a card that comes back before PC/SC has looked is not taken for one that never went.
func TestInsertAtOnce(t *testing.T) {
	card := pivtest.Start(t, pivtest.Config{})
	for range 3 {
		h := hold(t, card, pivtest.HoldOptions{})
		transmit(t, h, selectPIV, selected)
		card.RemoveDuring(pivtest.InsVerify)
		if answer, err := h.Transmit(t.Context(), unhex(t, verifyPIN)); !errors.Is(err, errNotTransacted) {
			t.Errorf("answer %X, %v; want %v", answer, err, errNotTransacted)
		}
		if err := card.Insert(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Transmit(t.Context(), unhex(t, verifyPIN)); !errors.Is(err, errRemoved) {
			t.Errorf("a handle from before: %v, want %v", err, errRemoved)
		}
		h.Kill()
	}
}

func TestHold(t *testing.T) {
	card := pivtest.Start(t, pivtest.Config{})
	t.Run("shared", func(t *testing.T) {
		hold(t, card, pivtest.HoldOptions{})
		if _, err := card.Hold(t.Context(), pivtest.HoldOptions{Exclusive: true}); !errors.Is(err, errSharing) {
			t.Errorf("exclusive beside shared: %v", err)
		}
		other := hold(t, card, pivtest.HoldOptions{})
		transmit(t, other, selectPIV, selected)
	})
	t.Run("exclusive", func(t *testing.T) {
		h := hold(t, card, pivtest.HoldOptions{Exclusive: true})
		for _, opts := range []pivtest.HoldOptions{{}, {Exclusive: true}} {
			if _, err := card.Hold(t.Context(), opts); !errors.Is(err, errSharing) {
				t.Errorf("%+v beside exclusive: %v", opts, err)
			}
		}
		if err := h.Release(); err != nil {
			t.Error(err)
		}
		hold(t, card, pivtest.HoldOptions{Exclusive: true})
	})
	t.Run("transaction", func(t *testing.T) {
		h := hold(t, card, pivtest.HoldOptions{Transaction: true})
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := card.Hold(ctx, pivtest.HoldOptions{Transaction: true}); err == nil {
			t.Error("two transactions at once")
		}
		got := make(chan error, 1)
		go func() {
			other, err := card.Hold(t.Context(), pivtest.HoldOptions{Transaction: true})
			if err == nil {
				err = other.Release()
			}
			got <- err
		}()
		if err := h.Release(); err != nil {
			t.Error(err)
		}
		if err := <-got; err != nil {
			t.Errorf("after the transaction: %v", err)
		}
	})
	t.Run("killed", func(t *testing.T) {
		h := hold(t, card, pivtest.HoldOptions{Exclusive: true, Transaction: true})
		transmit(t, h, selectPIV, selected)
		transmit(t, h, verifyPIN, "9000")
		h.Kill()
		var err error
		for range 500 { // pcscd cleans up after a dead client in its own time
			if h, err = card.Hold(t.Context(), pivtest.HoldOptions{Exclusive: true}); !errors.Is(err, errSharing) {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer h.Kill()
		if card.PINVerified() {
			t.Error("the PIN a program verified in a transaction outlived the program")
		}
	})
}

func TestTouchThroughReader(t *testing.T) {
	card := pivtest.Start(t, pivtest.Config{Touch: pivtest.NoTouch, TouchTimeout: 50 * time.Millisecond})
	if _, err := card.GenerateKey(pivtest.SlotAuthentication, pivtest.P256, pivtest.PINNever, pivtest.TouchAlways); err != nil {
		t.Fatal(err)
	}
	h := hold(t, card, pivtest.HoldOptions{})
	transmit(t, h, selectPIV, selected)
	transmit(t, h, signP256, "6982")
	touched := make(chan struct{})
	card.SetTouchTimeout(time.Minute)
	card.SetTouch(func(ctx context.Context) bool {
		select {
		case <-touched:
			return true
		case <-ctx.Done():
			return false
		}
	})
	go close(touched)
	answer, err := h.Transmit(t.Context(), unhex(t, signP256))
	if err != nil || !bytes.HasSuffix(answer, []byte{0x90, 0}) {
		t.Errorf("answer %X, %v", answer, err)
	}
}
