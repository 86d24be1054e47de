package dpop

import (
	"bytes"
	"crypto/elliptic"
	"encoding/asn1"
	"math/big"
	"strings"
	"testing"
)

func TestJoseECDSA(t *testing.T) {
	full := strings.Repeat("\x7f", 32)
	high := "\x00" + strings.Repeat("\xff", 32)
	integer := func(content string) string { return "\x02" + string([]byte{byte(len(content))}) + content }
	sequence := func(body string) string {
		if len(body) < 0x80 {
			return "\x30" + string([]byte{byte(len(body))}) + body
		}
		return "\x30\x81" + string([]byte{byte(len(body))}) + body
	}
	pad := func(s string, n int) string { return strings.Repeat("\x00", n-len(s)) + s }

	for _, tt := range []struct {
		name, der string
		coord     int
		want      string // "" is an error
	}{
		{"full width", sequence(integer(full) + integer(full)), 32, full + full},
		{"high bit", sequence(integer(high) + integer(high)), 32, high[1:] + high[1:]},
		{"short r", sequence(integer("\x01") + integer(full)), 32, pad("\x01", 32) + full},
		{"short s", sequence(integer(full) + integer("\x00\x80")), 32, full + pad("\x80", 32)},
		{"P-521", sequence(integer("\x01"+strings.Repeat("\xff", 65)) + integer(strings.Repeat("\x7f", 65))), 66,
			"\x01" + strings.Repeat("\xff", 65) + "\x00" + strings.Repeat("\x7f", 65)},
		{"shortest length in the long form", sequence(integer(strings.Repeat("\x7f", 62)) + integer(strings.Repeat("\x7f", 62))), 66,
			pad(strings.Repeat("\x7f", 62), 66) + pad(strings.Repeat("\x7f", 62), 66)},

		{"empty", "", 32, ""},
		{"indefinite length, as if it were 128", "\x30\x80" + integer(strings.Repeat("\x7f", 62)) + integer(strings.Repeat("\x7f", 62)), 66, ""},
		{"tag alone", "\x30", 32, ""},
		{"empty sequence", "\x30\x00", 32, ""},
		{"one integer", sequence(integer(full)), 32, ""},
		{"three integers", sequence(integer("\x01") + integer("\x01") + integer("\x01")), 32, ""},
		{"trailing octets", sequence(integer(full)+integer(full)) + "\x00", 32, ""},
		{"octets in the sequence that belong to nothing", sequence(integer(full) + integer(full) + "\x00"), 32, ""},
		{"truncated", sequence(integer(full) + integer(full))[:60], 32, ""},
		{"truncated in an integer", sequence("\x02\x20" + full[:31]), 32, ""},
		{"a set", "\x31" + sequence(integer(full) + integer(full))[1:], 32, ""},
		{"octet strings", sequence("\x04\x01\x01\x04\x01\x01"), 32, ""},
		{"r of zero", sequence(integer("\x00") + integer(full)), 32, ""},
		{"s of zero", sequence(integer(full) + integer("\x00")), 32, ""},
		{"r of nothing", sequence(integer("") + integer(full)), 32, ""},
		{"negative r", sequence(integer("\xff") + integer(full)), 32, ""},
		{"negative s", sequence(integer(full) + integer("\x80"+full[1:])), 32, ""},
		{"too wide", sequence(integer("\x01"+full) + integer(full)), 32, ""},
		{"too wide with the high bit", sequence(integer("\x00\x80"+full) + integer(full)), 32, ""},
		{"P-384 for P-256", sequence(integer(strings.Repeat("\x7f", 48)) + integer(strings.Repeat("\x7f", 48))), 32, ""},
		{"r not minimal", sequence(integer("\x00\x01") + integer(full)), 32, ""},
		{"s not minimal", sequence(integer(full) + integer("\x00\x00\x80")), 32, ""},
		{"length not minimal", "\x30\x81\x06" + integer("\x01") + integer("\x01"), 32, ""},
		{"length in two octets", "\x30\x82\x00\x06" + integer("\x01") + integer("\x01"), 32, ""},
		{"indefinite length", "\x30\x80" + integer("\x01") + integer("\x01") + "\x00\x00", 32, ""},
		{"length cut", "\x30\x81", 32, ""},
		{"length of an integer not minimal", sequence("\x02\x81\x01\x01" + integer("\x01")), 32, ""},
		{"already r and s", full + full, 32, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := joseECDSA([]byte(tt.der), tt.coord)
			if tt.want == "" {
				if err == nil || got != nil {
					t.Errorf("joseECDSA(%x) = %x, %v", tt.der, got, err)
				}
				return
			}
			if err != nil || string(got) != tt.want {
				t.Errorf("joseECDSA(%x) = %x, %v; want %x", tt.der, got, err, tt.want)
			}
		})
	}
}

// FuzzJoseECDSA holds the DER reader against encoding/asn1.
func FuzzJoseECDSA(f *testing.F) {
	for _, c := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		n := c.Params().N
		der, err := asn1.Marshal([]*big.Int{n, new(big.Int).Rsh(n, 9)})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der, uint8(c.Params().BitSize/8))
	}
	f.Add([]byte{0x30, 6, 2, 1, 1, 2, 1, 0xff}, uint8(32))
	f.Add([]byte{0x30, 7, 2, 2, 0, 1, 2, 1, 1}, uint8(32))
	f.Fuzz(func(t *testing.T, der []byte, width uint8) {
		coord := []int{32, 48, 66}[width%3]
		got, err := joseECDSA(der, coord)
		want, ok := viaASN1(der, coord)
		if (err == nil) != ok || !bytes.Equal(got, want) {
			t.Fatalf("joseECDSA(%x, %d) = %x, %v; encoding/asn1 has %x, %v", der, coord, got, err, want, ok)
		}
	})
}

func viaASN1(der []byte, coord int) ([]byte, bool) {
	var rs struct{ R, S *big.Int }
	rest, err := asn1.Unmarshal(der, &rs)
	if err != nil || len(rest) != 0 {
		return nil, false
	}
	// encoding/asn1 lets more members of the sequence pass.
	if again, err := asn1.Marshal(rs); err != nil || !bytes.Equal(again, der) {
		return nil, false
	}
	if rs.R.Sign() <= 0 || rs.S.Sign() <= 0 || rs.R.BitLen() > 8*coord || rs.S.BitLen() > 8*coord {
		return nil, false
	}
	return append(rs.R.FillBytes(make([]byte, coord)), rs.S.FillBytes(make([]byte, coord))...), true
}
