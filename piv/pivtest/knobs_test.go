package pivtest_test

import (
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/piv/pivtest"
)

func TestFailNext(t *testing.T) {
	p := newProgram(t, pivtest.Config{})
	p.card.FailNext(pivtest.InsSelect, 2, pivtest.NotFound)
	p.expect(selectPIV, pivtest.NotFound)
	p.expect(selectPIV, pivtest.NotFound)
	p.must("00FD000000") // others are carried out, in the application selected before
	p.must(selectPIV)

	p.card.FailNext(pivtest.InsGetVersion, 1, pivtest.NoStatus)
	if answer, err := p.card.Transmit(t.Context(), []byte{0, pivtest.InsGetVersion, 0, 0, 0}); err != nil || len(answer) != 1 {
		t.Errorf("answer %X, %v", answer, err)
	}
	p.must("00FD000000")

	p.card.FailNext(pivtest.InsGetVersion, 1000, pivtest.NotFound)
	p.card.FailNext(pivtest.InsGetVersion, 0, 0)
	p.must("00FD000000")
}

// TestFailedVerifySpendsNoTry: a command that fails is not carried out.
func TestFailedVerifySpendsNoTry(t *testing.T) {
	p := newProgram(t, pivtest.Config{})
	p.card.FailNext(pivtest.InsVerify, 1, pivtest.SecurityNotSatisfied)
	p.expect("0020008008 313131313131FFFF", pivtest.SecurityNotSatisfied)
	if n := p.card.PINTries(); n != pivtest.DefaultTries {
		t.Errorf("%d tries left", n)
	}
}

func TestConfiguredManagementTouch(t *testing.T) {
	p := newProgram(t, pivtest.Config{ManagementTouch: pivtest.TouchAlways, Touch: pivtest.NoTouch, TouchTimeout: 10 * time.Millisecond})
	if sw := p.authenticateWith(pivtest.AES192, pivtest.DefaultManagementKey()); sw != pivtest.SecurityNotSatisfied {
		t.Errorf("without a touch: %v", sw)
	}
	p.expect(generateP256, pivtest.SecurityNotSatisfied)
	p.card.SetTouch(pivtest.TouchAfter(0))
	if sw := p.authenticateWith(pivtest.AES192, pivtest.DefaultManagementKey()); sw != pivtest.Success {
		t.Errorf("with a touch: %v", sw)
	}
	p.expect(generateP256, pivtest.Success)
}

// TestLongMessage: a card has 3072 bytes for what it signs.
func TestLongMessage(t *testing.T) {
	p := newProgram(t, pivtest.Config{})
	if _, err := p.card.GenerateKey(pivtest.SlotAuthentication, pivtest.Ed25519, pivtest.PINNever, pivtest.TouchNever); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		message int
		want    pivtest.StatusWord
	}{{3062, pivtest.Success}, {3063, pivtest.WrongLength}} {
		data := []byte{0x7c, 0x82, byte((test.message + 6) >> 8), byte(test.message + 6), 0x82, 0, 0x81, 0x82, byte(test.message >> 8), byte(test.message)}
		data = append(data, make([]byte, test.message)...)
		if _, sw := p.command(pivtest.InsAuthenticate, byte(pivtest.Ed25519), byte(pivtest.SlotAuthentication), data); sw != test.want {
			t.Errorf("%d bytes: %v, want %v", test.message, sw, test.want)
		}
	}
}
