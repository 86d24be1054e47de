package virtual_test

import (
	"bytes"
	"testing"

	"github.com/ycauth/ycauth-go/piv/internal/virtual"
)

const (
	changePIN      = "00240080 10 313233343536FFFF 363534333231FFFF" // 123456 to 654321
	changePINWrong = "00240080 10 393939393939FFFF 363534333231FFFF"
	verifyNewPIN   = "00200080 08 363534333231FFFF"
	changePUK      = "00240081 10 3132333435363738 3837363534333231" // 12345678 to 87654321
	changePUKWrong = "00240081 10 3939393939393939 3837363534333231"
	unblock        = "002C0080 10 3132333435363738 363534333231FFFF"
	unblockNewPUK  = "002C0080 10 3837363534333231 363534333231FFFF"
	unblockWrong   = "002C0080 10 3939393939393939 363534333231FFFF"
	reset          = "00FB000000"
)

// TestPIN follows SP 800-73-4 part 2, 3.2.1 to 3.2.3, command by command. Each case starts with a new card.
func TestPIN(t *testing.T) {
	tests := []struct {
		name  string
		lines []string
	}{
		{"right", []string{verifyEmpty + " -> 63C3", verifyPIN + " -> 9000", verifyEmpty + " -> 9000"}},
		{"wrong", []string{verifyWrong + " -> 63C2", verifyEmpty + " -> 63C2", verifyPIN + " -> 9000", verifyWrong + " -> 63C2"}},
		{"wrong forgets a verified PIN", []string{verifyPIN + " -> 9000", verifyWrong + " -> 63C2", verifyEmpty + " -> 63C2"}},
		{"blocked", []string{
			verifyWrong + " -> 63C2", verifyWrong + " -> 63C1", verifyWrong + " -> 63C0",
			verifyPIN + " -> 6983", verifyEmpty + " -> 6983", changePIN + " -> 6983",
		}},
		{"P1 FF forgets", []string{verifyPIN + " -> 9000", "0020FF80 -> 9000", verifyEmpty + " -> 63C3"}},
		{"PIN padded with nothing", []string{"00200080 06 313233343536 -> 6A80", verifyEmpty + " -> 63C3"}},
		{"PIN of padding", []string{"00200080 08 FFFFFFFFFFFFFFFF -> 63C2"}},
		{"PIN too short", []string{"00200080 08 30FFFFFFFFFFFFFF -> 63C2"}},
		{"global PIN", []string{"00200000 08 313233343536FFFF -> 6A88"}},
		{"fingerprint", []string{"00200096 02 0300 -> 6A88"}},
		{"P1", []string{"00200180 08 313233343536FFFF -> 6A86"}},

		{"change", []string{changePIN + " -> 9000", verifyPIN + " -> 63C2", verifyNewPIN + " -> 9000"}},
		{"change verifies", []string{changePIN + " -> 9000", verifyEmpty + " -> 9000"}},
		{"change with wrong", []string{verifyPIN + " -> 9000", changePINWrong + " -> 63C2", verifyEmpty + " -> 63C2"}},
		{"change to short", []string{"00240080 10 313233343536FFFF 3132333435FFFFFF -> 6985", verifyPIN + " -> 9000"}},
		{"change to hole", []string{"00240080 10 313233343536FFFF 31323334FF3536FF -> 6985", verifyPIN + " -> 9000"}},
		{"change without new", []string{"00240080 08 313233343536FFFF -> 6A80"}},
		{"change of what", []string{"00240082 10 313233343536FFFF 363534333231FFFF -> 6A88", "00240180 10 313233343536FFFF 363534333231FFFF -> 6A88"}},

		{"PUK", []string{changePUK + " -> 9000", unblock + " -> 63C2", unblockNewPUK + " -> 9000"}},
		{"PUK wrong", []string{changePUKWrong + " -> 63C2", changePUK + " -> 9000", unblockWrong + " -> 63C2"}},
		{"PUK blocked", []string{
			unblockWrong + " -> 63C2", changePUKWrong + " -> 63C1", unblockWrong + " -> 63C0",
			unblock + " -> 6983", changePUK + " -> 6983", verifyPIN + " -> 9000",
		}},
		{"unblock", []string{
			verifyWrong + " -> 63C2", verifyWrong + " -> 63C1", verifyWrong + " -> 63C0", unblock + " -> 9000",
			verifyEmpty + " -> 63C3", verifyNewPIN + " -> 9000",
		}},
		{"unblock counts all tries of the PUK back", []string{unblockWrong + " -> 63C2", unblock + " -> 9000", unblockWrong + " -> 63C2"}},
		{"unblock to short", []string{"002C0080 10 3132333435363738 31FFFFFFFFFFFFFF -> 6985", verifyPIN + " -> 9000"}},
		{"unblock empty", []string{"002C0080 10 FFFFFFFFFFFFFFFF FFFFFFFFFFFFFFFF -> 63C2"}}, // how ykman blocks a PUK
		{"unblock of what", []string{"002C0081 10 3132333435363738 363534333231FFFF -> 6A88", "002C0080 08 3132333435363738 -> 6A80"}},

		{"reset too early", []string{reset + " -> 6985", verifyWrong + " -> 63C2", verifyWrong + " -> 63C1", verifyWrong + " -> 63C0", reset + " -> 6985"}},
		{"retries without authentication", []string{"00FA0505 -> 6982", verifyPIN + " -> 9000", "00FA0505 -> 6982"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			newProgram(t, virtual.Config{}).expectAll(test.lines...)
		})
	}
}

func TestPINSessions(t *testing.T) {
	const other = "00A40400 08 A000000527471117"
	t.Run("power", func(t *testing.T) {
		p := newProgram(t, virtual.Config{})
		p.must(verifyPIN)
		if !p.card.PINVerified() {
			t.Error("PIN not verified")
		}
		p.card.PowerCycle()
		if p.card.PINVerified() {
			t.Error("PIN verified without power")
		}
		p.expectAll(selectPIV+" -> 9000", verifyEmpty+" -> 63C3")
	})
	t.Run("other application", func(t *testing.T) {
		p := newProgram(t, virtual.Config{})
		p.expectAll(verifyPIN+" -> 9000", other+" -> 9000", selectPIV+" -> 9000", verifyEmpty+" -> 63C3")
	})
	t.Run("unknown application", func(t *testing.T) {
		p := newProgram(t, virtual.Config{})
		p.expectAll(verifyPIN+" -> 9000", "00A40400 05 A000000397 -> 6A82", verifyEmpty+" -> 9000")
	})
	t.Run("select again", func(t *testing.T) {
		p := newProgram(t, virtual.Config{})
		p.expectAll(verifyPIN+" -> 9000", selectPIV+" -> 9000", verifyEmpty+" -> 9000")
	})
	t.Run("select again, firmware 4", func(t *testing.T) {
		p := newProgram(t, virtual.Config{Firmware: virtual.Firmware43})
		p.expectAll(verifyPIN+" -> 9000", selectPIV+" -> 9000", verifyEmpty+" -> 63C3")
	})
	t.Run("asking forgets, firmware 5.3.1", func(t *testing.T) {
		p := newProgram(t, virtual.Config{Firmware: virtual.Firmware531})
		p.expectAll(verifyPIN+" -> 9000", verifyEmpty+" -> 9000", verifyEmpty+" -> 63C3")
	})
}

func TestTries(t *testing.T) {
	p := newProgram(t, virtual.Config{})
	p.authenticate()
	p.must(verifyPIN)
	p.must("00FA1401")
	p.expectAll(
		verifyEmpty+" -> 63CF", // more than 15 are told as 15
		verifyWrong+" -> 63CF",
		verifyPIN+" -> 9000",
	)
	if got := p.card.PINTries(); got != 20 {
		t.Errorf("%d tries left", got)
	}
	p.card.SetPINTries(1)
	p.expectAll(verifyWrong+" -> 63C0", verifyPIN+" -> 6983", unblock+" -> 9000")
	if got := p.card.PINTries(); got != 20 {
		t.Errorf("%d tries left after unblocking", got)
	}
	p.expectAll(unblockWrong+" -> 63C0", unblock+" -> 6983")
}

func TestSetRetries(t *testing.T) {
	p := newProgram(t, virtual.Config{})
	p.must(changePIN)
	p.must(changePUK)
	p.authenticate()
	p.must(verifyNewPIN)
	p.expectAll("00FA0005 -> 6A86", "00FA0500 -> 6A86", "00FA0405 -> 9000")
	p.expectAll(verifyEmpty+" -> 63C4", unblockWrong+" -> 63C4", unblock+" -> 9000") // factory values
}

func TestReset(t *testing.T) {
	p := newProgram(t, virtual.Config{})
	if _, err := p.card.GenerateKey(virtual.SlotAuthentication, virtual.P256, virtual.PINNever, virtual.TouchNever); err != nil {
		t.Fatal(err)
	}
	p.authenticate()
	p.must(verifyPIN)
	p.must("00FA0901")
	p.must(changePIN)
	p.must("00DB3FFF 0B 5C035FC102 5304 01020304")
	p.must("00FFFFFE 1B 0A9B18 000102030405060708090A0B0C0D0E0F1011121314151617")
	before := p.object(0x5fff01)
	p.card.SetPINTries(0)
	p.expect(unblockWrong, 0x63c0)
	p.expectAll(
		"00CB3FFF 05 5C035FC102 -> 9000",
		reset+" -> 9000",
		verifyEmpty+" -> 63C3",
		"00CB3FFF 05 5C035FC102 -> 6A82",
		"00F7009A00 -> 6A88",
		"00DB3FFF 0B 5C035FC102 5304 01020304 -> 6982",
		verifyPIN+" -> 9000",
		unblockWrong+" -> 63C2",
	)
	p.authenticate() // the factory key, and no touch
	if after := p.object(0x5fff01); !bytes.Equal(before, after) {
		t.Error("reset changed the attestation certificate")
	}
}
