package virtual

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

// TestParseCommand has the cases of ISO/IEC 7816-3, 12.1.3: with and without data and Le, short and extended.
func TestParseCommand(t *testing.T) {
	long := bytes.Repeat([]byte{0xda}, 300)
	tests := []struct {
		name      string
		apdu      string
		data      string
		maxAnswer int
	}{
		{"case 1", "\x00\xfd\x01\x02", "", 256},
		{"case 2S", "\x00\xfd\x01\x02\x10", "", 16},
		{"case 2S, all", "\x00\xfd\x01\x02\x00", "", 256},
		{"case 3S", "\x00\xfd\x01\x02\x02ab", "ab", 256},
		{"case 3S, longest", "\x00\xfd\x01\x02\xff" + string(long[:255]), string(long[:255]), 256},
		{"case 4S", "\x00\xfd\x01\x02\x02ab\x10", "ab", 16},
		{"case 4S, all", "\x00\xfd\x01\x02\x02ab\x00", "ab", 256},
		{"case 2E", "\x00\xfd\x01\x02\x00\x01\x00", "", 256},
		{"case 2E, all", "\x00\xfd\x01\x02\x00\x00\x00", "", 65536},
		{"case 3E", "\x00\xfd\x01\x02\x00\x01\x2c" + string(long), string(long), 256},
		{"case 4E", "\x00\xfd\x01\x02\x00\x00\x02ab\x02\x00", "ab", 512},
		{"case 4E, all", "\x00\xfd\x01\x02\x00\x00\x02ab\x00\x00", "ab", 65536},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, ok := parseCommand([]byte(test.apdu))
			if !ok {
				t.Fatal("malformed")
			}
			if got.cla != 0 || got.ins != 0xfd || got.p1 != 1 || got.p2 != 2 || string(got.data) != test.data || got.maxAnswer != test.maxAnswer {
				t.Errorf("parsed %+v", got)
			}
		})
	}
	for _, bad := range []string{
		"", "\x00", "\x00\xfd\x01", "\x00\xfd\x01\x02\x02a", "\x00\xfd\x01\x02\x02abcd", "\x00\xfd\x01\x02\x00\x00",
		"\x00\xfd\x01\x02\x00\x00\x03ab", "\x00\xfd\x01\x02\x00\x00\x02ab\x01", "\x00\xfd\x01\x02\x00\x00\x00\x01",
	} {
		if got, ok := parseCommand([]byte(bad)); ok {
			t.Errorf("parsed %x as %+v", bad, got)
		}
	}
}

// encode writes a command in extended form, which has room for everything.
func (c command) encode() []byte {
	b := []byte{c.cla, c.ins, c.p1, c.p2, 0}
	if len(c.data) > 0 {
		b = binary.BigEndian.AppendUint16(b, uint16(len(c.data)))
		b = append(b, c.data...)
	}
	return binary.BigEndian.AppendUint16(b, uint16(c.maxAnswer)) // 65536 is 0
}

func FuzzParseCommand(f *testing.F) {
	f.Fuzz(func(t *testing.T, apdu []byte) {
		got, ok := parseCommand(apdu)
		if !ok {
			return
		}
		if len(got.data) > len(apdu) || got.maxAnswer < 1 || got.maxAnswer > maxExtendedAnswer {
			t.Fatalf("parsed %x as %+v", apdu, got)
		}
		again, ok := parseCommand(got.encode())
		if !ok || again.cla != got.cla || again.ins != got.ins || again.p1 != got.p1 || again.p2 != got.p2 ||
			!bytes.Equal(again.data, got.data) || again.maxAnswer != got.maxAnswer {
			t.Fatalf("%x is %+v, encoded and parsed again %+v, %v", apdu, got, again, ok)
		}
	})
}

func TestTLV(t *testing.T) {
	tests := []struct {
		name string
		in   string
		want []tlv
	}{
		{"empty", "", nil},
		{"short", "\x80\x01\x11", []tlv{{0x80, []byte{0x11}}}},
		{"no value", "\x80\x00\x81\x00", []tlv{{0x80, []byte{}}, {0x81, []byte{}}}},
		{"two-byte tag", "\x7f\x49\x01a", []tlv{{0x7f49, []byte("a")}}},
		{"length 80", "\x53\x81\x80" + string(make([]byte, 128)), []tlv{{0x53, make([]byte, 128)}}},
		{"length 100", "\x53\x82\x01\x00" + string(make([]byte, 256)), []tlv{{0x53, make([]byte, 256)}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := parseTLVs([]byte(test.in))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.EqualFunc(got, test.want, func(a, b tlv) bool { return a.tag == b.tag && bytes.Equal(a.value, b.value) }) {
				t.Errorf("parsed %+v, want %+v", got, test.want)
			}
			if b := appendAll(nil, got); string(b) != test.in {
				t.Errorf("encoded %x, want %x", b, test.in)
			}
		})
	}
	for _, bad := range []string{
		"\x80", "\x80\x01", "\x80\x80", "\x80\x81", "\x80\x82\x01", "\x80\x83\x00\x00\x01a", "\x80\x02a",
		"\x7f", "\x7f\x81", "\x5f\x81\x01\x01a", "\x53\x82\x00\x01a", "\x7f\x81\x81\x81\x01\x00", "\x80\x00\x80",
	} {
		if got, err := parseTLVs([]byte(bad)); err == nil {
			t.Errorf("parsed %x as %+v", bad, got)
		}
	}
}

func appendAll(b []byte, all []tlv) []byte {
	for _, one := range all {
		b = appendTLV(b, one.tag, one.value)
	}
	return b
}

func FuzzParseTLV(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := parseTLVs(b)
		if err != nil {
			return
		}
		if again := appendAll(nil, all); !bytes.Equal(again, b) {
			t.Fatalf("%x encoded again is %x", b, again)
		}
	})
}
