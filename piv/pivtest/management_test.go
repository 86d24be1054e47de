package pivtest_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/ycauth/ycauth-go/piv/pivtest"
)

const generateP256 = "0047009A 05 AC03800111"

func TestManagementKeyAlgorithms(t *testing.T) {
	tests := []struct {
		algorithm pivtest.Algorithm
		bytes     int
	}{{pivtest.TripleDES, 24}, {pivtest.AES128, 16}, {pivtest.AES192, 24}, {pivtest.AES256, 32}}
	for _, firmware := range profiles {
		for _, test := range tests {
			t.Run(firmware.String()+"/"+test.algorithm.String(), func(t *testing.T) {
				p := newProgram(t, pivtest.Config{Firmware: firmware})
				p.authenticate()
				key := bytes.Repeat([]byte{0x3c, 0x5a}, test.bytes/2)
				data := append([]byte{byte(test.algorithm), 0x9b, byte(len(key))}, key...)
				_, sw := p.command(pivtest.InsSetManagement, 0xff, 0xff, data)
				if test.algorithm != pivtest.TripleDES && !firmware.AtLeast(5, 4, 0) {
					if sw != pivtest.IncorrectData {
						t.Errorf("status %v from firmware without AES", sw)
					}
					return
				}
				if sw != pivtest.Success {
					t.Fatalf("SET MANAGEMENT KEY: %v", sw)
				}
				p.card.PowerCycle()
				p.must(selectPIV)
				if sw := p.authenticateWith(test.algorithm, bytes.Repeat([]byte{1}, test.bytes)); sw != pivtest.SecurityNotSatisfied {
					t.Errorf("wrong key: status %v", sw)
				}
				p.expect(generateP256, pivtest.SecurityNotSatisfied)
				if sw := p.authenticateWith(test.algorithm, key); sw != pivtest.Success {
					t.Errorf("right key: status %v", sw)
				}
				p.expect(generateP256, pivtest.Success)
			})
		}
	}
}

func TestConfiguredManagementKey(t *testing.T) {
	key := bytes.Repeat([]byte{7}, 32)
	p := newProgram(t, pivtest.Config{ManagementKey: key, ManagementAlgorithm: pivtest.AES256})
	if sw := p.authenticateWith(pivtest.AES256, key); sw != pivtest.Success {
		t.Errorf("status %v", sw)
	}
	if got, want := p.must("00F7009B00"), unhex(t, "01010C 02020001 050100"); !bytes.Equal(got, want) {
		t.Errorf("metadata %X, want %X", got, want)
	}
}

// TestExternalAuthentication is the other protocol of SP 800-73-4 part 2, appendix A.2: the card sends a challenge in the
// clear. P1 00 means triple DES.
func TestExternalAuthentication(t *testing.T) {
	for _, algorithm := range []byte{0x00, 0x03} {
		t.Run(fmt.Sprintf("algorithm %02x", algorithm), func(t *testing.T) {
			p := newProgram(t, pivtest.Config{Firmware: pivtest.Firmware54})
			block := newBlock(t, pivtest.TripleDES, pivtest.DefaultManagementKey())
			challenge := func() []byte {
				answer, sw := p.command(pivtest.InsAuthenticate, algorithm, 0x9b, unhex(t, "7C028100"))
				if sw != pivtest.Success || len(answer) != 12 || !bytes.HasPrefix(answer, unhex(t, "7C0A8108")) {
					t.Fatalf("challenge %x, status %v", answer, sw)
				}
				return answer[4:]
			}
			answer := make([]byte, 8)
			block.Encrypt(answer, challenge())
			respond := append(unhex(t, "7C0A8208"), answer...)
			if _, sw := p.command(pivtest.InsAuthenticate, algorithm, 0x9b, respond); sw != pivtest.Success {
				t.Errorf("status %v", sw)
			}
			p.expect(generateP256, pivtest.Success)

			if _, sw := p.command(pivtest.InsAuthenticate, algorithm, 0x9b, respond); sw != pivtest.SecurityNotSatisfied {
				t.Errorf("the same answer again: status %v", sw)
			}
			if old := answer; !bytes.Equal(old, challenge()) {
				if _, sw := p.command(pivtest.InsAuthenticate, algorithm, 0x9b, respond); sw != pivtest.SecurityNotSatisfied {
					t.Errorf("the answer to another challenge: status %v", sw)
				}
			}
		})
	}
}

// TestAuthenticationIsNotMixedUp: what the card decrypts for one protocol must not serve in the other, and a step between
// the two steps spoils them.
func TestAuthenticationIsNotMixedUp(t *testing.T) {
	p := newProgram(t, pivtest.Config{Firmware: pivtest.Firmware54})
	block := newBlock(t, pivtest.TripleDES, pivtest.DefaultManagementKey())
	witness := func() []byte {
		answer, sw := p.command(pivtest.InsAuthenticate, 3, 0x9b, unhex(t, "7C028000"))
		if sw != pivtest.Success {
			t.Fatalf("witness: %v", sw)
		}
		plain := make([]byte, 8)
		block.Decrypt(plain, answer[4:])
		return plain
	}
	finish := func(witness []byte) []byte {
		return append(append(unhex(t, "7C148008"), witness...), unhex(t, "8108 0102030405060708")...)
	}
	expect := func(name string, data []byte, want pivtest.StatusWord) {
		t.Helper()
		if _, sw := p.command(pivtest.InsAuthenticate, 3, 0x9b, data); sw != want {
			t.Errorf("%s: status %v, want %v", name, sw, want)
		}
	}
	expect("answer without a question", finish(make([]byte, 8)), pivtest.SecurityNotSatisfied)
	expect("witness as response", append(unhex(t, "7C0A8208"), witness()...), pivtest.SecurityNotSatisfied)
	w := witness()
	p.must("00FD000000")
	expect("after another command", finish(w), pivtest.SecurityNotSatisfied)
	expect("empty witness as an answer", append(unhex(t, "7C0C 8000 8108"), make([]byte, 8)...), pivtest.SecurityNotSatisfied)
	expect("empty response", unhex(t, "7C028200"), pivtest.SecurityNotSatisfied)
	expect("no template", unhex(t, "8000"), pivtest.IncorrectData)
	expect("empty template", unhex(t, "7C00"), pivtest.IncorrectData)
	p.expect("0087089B 04 7C028000", pivtest.IncorrectP1P2) // AES-128, but the key is triple DES
	p.expect(generateP256, pivtest.SecurityNotSatisfied)
	expect("in order", finish(witness()), pivtest.Success)
	p.expect(generateP256, pivtest.Success)
}

func TestSetManagementKeyMistakes(t *testing.T) {
	const key = "000102030405060708090A0B0C0D0E0F1011121314151617"
	p := newProgram(t, pivtest.Config{})
	p.expect("00FFFFFF 1B 0A9B18"+key, pivtest.SecurityNotSatisfied)
	p.authenticate()
	p.expectAll(
		"00FFFFFC 1B 0A9B18"+key+" -> 6A86",
		"00FF00FF 1B 0A9B18"+key+" -> 6A86",
		"00FFFFFF 1B 0A9A18"+key+" -> 6A80", // not 9B
		"00FFFFFF 1B 0A9B17"+key+" -> 6A80", // length
		"00FFFFFF 1B 089B18"+key+" -> 6A80", // AES-128 of 24 bytes
		"00FFFFFF 1B 119B18"+key+" -> 6A80", // P-256
		"00FFFFFF 02 0A9B -> 6A80",
		"00FFFFFF 1B 0A9B18"+key+" -> 9000",
	)
}
