package virtual_test

import (
	"bytes"
	"testing"

	"github.com/ycauth/ycauth-go/piv/internal/virtual"
)

func TestObjects(t *testing.T) {
	p := newProgram(t, virtual.Config{})
	const put = "00DB3FFF 0B 5C035FC102 5304 01020304"
	p.expectAll(
		"00CB3FFF 05 5C035FC102 -> 6A82",
		put+" -> 6982",
	)
	p.authenticate()
	p.must(put)
	if got := p.must("00CB3FFF 05 5C035FC102"); !bytes.Equal(got, unhex(t, "5304 01020304")) {
		t.Errorf("object %X", got)
	}
	p.must("00DB3FFF 09 5C035FC102 5302 0506")
	if got := p.must("00CB3FFF 05 5C035FC102 00"); !bytes.Equal(got, unhex(t, "5302 0506")) {
		t.Errorf("object %X after writing it again", got)
	}
	p.expectAll(
		"00DB3FFF 07 5C035FC102 5300 -> 9000", // empty: deleted
		"00CB3FFF 05 5C035FC102 -> 6A82",
		"00DB3FFE 0B 5C035FC102 5304 01020304 -> 6A86",
		"00DB3FFF 0B 5C036FC102 5304 01020304 -> 6A80",
		"00DB3FFF 09 5C017E 5304 01020304 -> 6A80",
		"00DB3FFF 0B 5C035FC102 5404 01020304 -> 6A80",
		"00DB3FFF 05 5C035FC102 -> 6A80",
		"00DB3FFF 0B 5D035FC102 5304 01020304 -> 6A80",
		"00CB3FFE 05 5C035FC102 -> 6A86",
		"00CB3FFF 05 5D035FC102 -> 6A80",
		"00CB3FFF 06 5C035FC10200 -> 6A80",
		"00CB3FFF 04 5C027F61 -> 6A82", // biometric information: there is none
		"00CB3FFF -> 6A80",
	)
}

// TestDiscoveryObject is the example of SP 800-73-4 part 1, 3.3.2: the PIV application PIN alone.
func TestDiscoveryObject(t *testing.T) {
	p := newProgram(t, virtual.Config{})
	want := unhex(t, "7E12 4F0B A000000308000010000100 5F2F02 4000")
	if got := p.must("00CB3FFF 03 5C017E"); !bytes.Equal(got, want) {
		t.Errorf("discovery object %X, want %X", got, want)
	}
}

func TestPINProtectedObjects(t *testing.T) {
	for _, id := range []string{"5FC103", "5FC108", "5FC109", "5FC121"} {
		t.Run(id, func(t *testing.T) {
			p := newProgram(t, virtual.Config{})
			p.expect("00CB3FFF 05 5C03"+id, virtual.SecurityNotSatisfied)
			p.must(verifyPIN)
			p.expect("00CB3FFF 05 5C03"+id, virtual.NotFound)
			p.authenticate()
			p.must("00DB3FFF 0B 5C03" + id + " 5304 01020304")
			p.must("00CB3FFF 05 5C03" + id)
			p.card.PowerCycle()
			p.must(selectPIV)
			p.expect("00CB3FFF 05 5C03"+id, virtual.SecurityNotSatisfied)
		})
	}
}

func TestLargestObject(t *testing.T) {
	p := newProgram(t, virtual.Config{})
	p.authenticate()
	put := func(n int) virtual.StatusWord {
		data := append(unhex(t, "5C035FC105"), tagged(0x53, bytes.Repeat([]byte{7}, n))...)
		_, sw := p.command(virtual.InsPutData, 0x3f, 0xff, data)
		return sw
	}
	if sw := put(3053); sw != virtual.NotEnoughMemory {
		t.Errorf("3053 bytes: status %v", sw)
	}
	if sw := put(3052); sw != virtual.Success {
		t.Errorf("3052 bytes: status %v", sw)
	}
	if got := value(t, p.object(0x5fc105), class1|0x13); len(got) != 3052 {
		t.Errorf("%d bytes came back", len(got))
	}
}
