package virtual_test

import (
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/piv/internal/virtual"
)

func TestFailNext(t *testing.T) {
	p := newProgram(t, virtual.Config{})
	p.card.FailNext(virtual.InsSelect, 2, virtual.NotFound)
	p.expect(selectPIV, virtual.NotFound)
	p.expect(selectPIV, virtual.NotFound)
	p.must("00FD000000") // others are carried out, in the application selected before
	p.must(selectPIV)

	p.card.FailNext(virtual.InsGetVersion, 1, virtual.NoStatus)
	if answer, err := p.card.Transmit(t.Context(), []byte{0, virtual.InsGetVersion, 0, 0, 0}); err != nil || len(answer) != 1 {
		t.Errorf("answer %X, %v", answer, err)
	}
	p.must("00FD000000")

	p.card.FailNext(virtual.InsGetVersion, 1000, virtual.NotFound)
	p.card.FailNext(virtual.InsGetVersion, 0, 0)
	p.must("00FD000000")
}

// TestFailedVerifySpendsNoTry: a command that fails is not carried out.
func TestFailedVerifySpendsNoTry(t *testing.T) {
	p := newProgram(t, virtual.Config{})
	p.card.FailNext(virtual.InsVerify, 1, virtual.SecurityNotSatisfied)
	p.expect("0020008008 313131313131FFFF", virtual.SecurityNotSatisfied)
	if n := p.card.PINTries(); n != virtual.DefaultTries {
		t.Errorf("%d tries left", n)
	}
}

func TestConfiguredManagementTouch(t *testing.T) {
	p := newProgram(t, virtual.Config{ManagementTouch: virtual.TouchAlways, Touch: virtual.NoTouch, TouchTimeout: 10 * time.Millisecond})
	if sw := p.authenticateWith(virtual.AES192, virtual.DefaultManagementKey()); sw != virtual.SecurityNotSatisfied {
		t.Errorf("without a touch: %v", sw)
	}
	p.expect(generateP256, virtual.SecurityNotSatisfied)
	p.card.SetTouch(virtual.TouchAfter(0))
	if sw := p.authenticateWith(virtual.AES192, virtual.DefaultManagementKey()); sw != virtual.Success {
		t.Errorf("with a touch: %v", sw)
	}
	p.expect(generateP256, virtual.Success)
}

// TestLongMessage: a card has 3072 bytes for what it signs.
func TestLongMessage(t *testing.T) {
	p := newProgram(t, virtual.Config{})
	if _, err := p.card.GenerateKey(virtual.SlotAuthentication, virtual.Ed25519, virtual.PINNever, virtual.TouchNever); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		message int
		want    virtual.StatusWord
	}{{3062, virtual.Success}, {3063, virtual.WrongLength}} {
		data := []byte{0x7c, 0x82, byte((test.message + 6) >> 8), byte(test.message + 6), 0x82, 0, 0x81, 0x82, byte(test.message >> 8), byte(test.message)}
		data = append(data, make([]byte, test.message)...)
		if _, sw := p.command(virtual.InsAuthenticate, byte(virtual.Ed25519), byte(virtual.SlotAuthentication), data); sw != test.want {
			t.Errorf("%d bytes: %v, want %v", test.message, sw, test.want)
		}
	}
}
