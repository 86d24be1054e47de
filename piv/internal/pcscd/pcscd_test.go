//go:build linux

package pcscd_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/piv/internal/pcscd"
	"github.com/ycauth/ycauth-go/piv/internal/virtual"
)

// What PC/SC says.
const (
	errSharing       = pcscd.PCSCError(0x8010000b)
	errNotTransacted = pcscd.PCSCError(0x80100016)
	errRemoved       = pcscd.PCSCError(0x80100069)
)

// hold opens a card as another program until the test ends.
func hold(t *testing.T, card *pcscd.Card, opts pcscd.HoldOptions) *pcscd.Holder {
	t.Helper()
	h, err := card.Hold(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Release() }) // fails if the test killed it or pulled the card
	return h
}

// transmit sends a command that has to get the answer.
func transmit(t *testing.T, h *pcscd.Holder, apdu, want string) {
	t.Helper()
	answer, err := h.Transmit(t.Context(), unhex(t, apdu))
	if err != nil || !bytes.Equal(answer, unhex(t, want)) {
		t.Errorf("%s: answer %X, %v; want %s", apdu, answer, err, want)
	}
}

// profiles are the firmware versions that differ.
var profiles = []virtual.Firmware{
	virtual.Firmware43, virtual.Firmware52, virtual.Firmware531, virtual.Firmware54, virtual.Firmware57,
}

const (
	selectPIV   = "00A40400 05 A000000308"
	getVersion  = "00FD000000"
	verifyPIN   = "00200080 08 313233343536FFFF"
	verifyEmpty = "0020008000"
	signP256    = "0087119A 26 7C24 8200 8120 000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const selected = "61114F0600001000010079074F05A000000308 9000"

func TestStart(t *testing.T) {
	card := pcscd.Start(t, virtual.Config{Serial: 4711})
	if !strings.Contains(card.Reader(), "Yubico YubiKey") {
		t.Errorf("reader %q", card.Reader())
	}
	h := hold(t, card, pcscd.HoldOptions{Transaction: true})
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
	first := pcscd.Start(t, virtual.Config{Serial: 1})
	t.Run("in a subtest", func(t *testing.T) {
		second := pcscd.Start(t, virtual.Config{Serial: 2})
		if first.Reader() == second.Reader() {
			t.Fatalf("both in reader %q", first.Reader())
		}
		for card, want := range map[*pcscd.Card]string{first: "00000001 9000", second: "00000002 9000"} {
			h := hold(t, card, pcscd.HoldOptions{Exclusive: true})
			transmit(t, h, selectPIV, selected)
			transmit(t, h, "00F8000000", want)
		}
	})
	t.Run("in another one", func(t *testing.T) {
		third := pcscd.Start(t, virtual.Config{Serial: 3})
		h := hold(t, third, pcscd.HoldOptions{})
		transmit(t, h, selectPIV, selected)
		transmit(t, h, "00F8000000", "00000003 9000")
	})
}

func TestRemoveAndInsert(t *testing.T) {
	card := pcscd.Start(t, virtual.Config{})
	public, err := card.GenerateKey(virtual.SlotAuthentication, virtual.P256, virtual.PINOnce, virtual.TouchNever)
	if err != nil {
		t.Fatal(err)
	}
	h := hold(t, card, pcscd.HoldOptions{})
	transmit(t, h, selectPIV, selected)
	transmit(t, h, verifyPIN, "9000")
	card.Remove()
	if err := card.WaitRemoved(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := card.Hold(t.Context(), pcscd.HoldOptions{}); err == nil {
		t.Error("opened a card that is not there")
	}
	if err := card.Insert(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Transmit(t.Context(), unhex(t, verifyEmpty)); !errors.Is(err, errRemoved) {
		t.Errorf("a handle from before: %v, want %v", err, errRemoved)
	}
	h = hold(t, card, pcscd.HoldOptions{})
	transmit(t, h, selectPIV, selected)
	transmit(t, h, verifyEmpty, "63C3")
	transmit(t, h, verifyPIN, "9000")
	response, err := h.Transmit(t.Context(), unhex(t, signP256))
	if len(response) < 6 || err != nil {
		t.Fatalf("signature %X, %v", response, err)
	}
	digest, signature := unhex(t, signP256)[11:], response[4:len(response)-2]
	if !ecdsa.VerifyASN1(public.(*ecdsa.PublicKey), digest, signature) {
		t.Errorf("signature %X", signature)
	}
}

// TestInsertAtOnce: a card that comes back before PC/SC has looked is not taken for one that never went.
func TestInsertAtOnce(t *testing.T) {
	card := pcscd.Start(t, virtual.Config{})
	for range 3 {
		h := hold(t, card, pcscd.HoldOptions{})
		transmit(t, h, selectPIV, selected)
		card.RemoveDuring(virtual.InsVerify)
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
	card := pcscd.Start(t, virtual.Config{})
	t.Run("shared", func(t *testing.T) {
		hold(t, card, pcscd.HoldOptions{})
		if _, err := card.Hold(t.Context(), pcscd.HoldOptions{Exclusive: true}); !errors.Is(err, errSharing) {
			t.Errorf("exclusive beside shared: %v", err)
		}
		other := hold(t, card, pcscd.HoldOptions{})
		transmit(t, other, selectPIV, selected)
	})
	t.Run("exclusive", func(t *testing.T) {
		h := hold(t, card, pcscd.HoldOptions{Exclusive: true})
		for _, opts := range []pcscd.HoldOptions{{}, {Exclusive: true}} {
			if _, err := card.Hold(t.Context(), opts); !errors.Is(err, errSharing) {
				t.Errorf("%+v beside exclusive: %v", opts, err)
			}
		}
		if err := h.Release(); err != nil {
			t.Error(err)
		}
		hold(t, card, pcscd.HoldOptions{Exclusive: true})
	})
	t.Run("transaction", func(t *testing.T) {
		h := hold(t, card, pcscd.HoldOptions{Transaction: true})
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := card.Hold(ctx, pcscd.HoldOptions{Transaction: true}); err == nil {
			t.Error("two transactions at once")
		}
		got := make(chan error, 1)
		go func() {
			other, err := card.Hold(t.Context(), pcscd.HoldOptions{Transaction: true})
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
		h := hold(t, card, pcscd.HoldOptions{Exclusive: true, Transaction: true})
		transmit(t, h, selectPIV, selected)
		transmit(t, h, verifyPIN, "9000")
		h.Kill()
		var err error
		for range 500 { // pcscd cleans up after a dead client in its own time
			if h, err = card.Hold(t.Context(), pcscd.HoldOptions{Exclusive: true}); !errors.Is(err, errSharing) {
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
	card := pcscd.Start(t, virtual.Config{Touch: virtual.NoTouch, TouchTimeout: 50 * time.Millisecond})
	if _, err := card.GenerateKey(virtual.SlotAuthentication, virtual.P256, virtual.PINNever, virtual.TouchAlways); err != nil {
		t.Fatal(err)
	}
	h := hold(t, card, pcscd.HoldOptions{})
	transmit(t, h, selectPIV, selected)
	transmit(t, h, signP256, "6982")
	card.SetTouch(virtual.TouchAfter(0))
	answer, err := h.Transmit(t.Context(), unhex(t, signP256))
	if err != nil || !bytes.HasSuffix(answer, []byte{0x90, 0}) {
		t.Errorf("answer %X, %v", answer, err)
	}
}

func TestPCSCError(t *testing.T) {
	if got := errSharing.Error(); got != "PC/SC error 0x8010000B" {
		t.Error(got)
	}
}
