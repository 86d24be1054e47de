package virtual_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/ycauth/ycauth-go/piv/internal/virtual"
)

const generateP256 = "0047009A 05 AC03800111"

func TestManagementKeyAlgorithms(t *testing.T) {
	tests := []struct {
		algorithm virtual.Algorithm
		bytes     int
	}{{virtual.TripleDES, 24}, {virtual.AES128, 16}, {virtual.AES192, 24}, {virtual.AES256, 32}}
	for _, firmware := range profiles {
		for _, test := range tests {
			t.Run(firmware.String()+"/"+test.algorithm.String(), func(t *testing.T) {
				p := newProgram(t, virtual.Config{Firmware: firmware})
				p.authenticate()
				key := bytes.Repeat([]byte{0x3c, 0x5a}, test.bytes/2)
				data := append([]byte{byte(test.algorithm), 0x9b, byte(len(key))}, key...)
				_, sw := p.command(virtual.InsSetManagement, 0xff, 0xff, data)
				if test.algorithm != virtual.TripleDES && !firmware.AtLeast(5, 4, 0) {
					if sw != virtual.IncorrectData {
						t.Errorf("status %v from firmware without AES", sw)
					}
					return
				}
				if sw != virtual.Success {
					t.Fatalf("SET MANAGEMENT KEY: %v", sw)
				}
				p.card.PowerCycle()
				p.must(selectPIV)
				if sw := p.authenticateWith(test.algorithm, bytes.Repeat([]byte{1}, test.bytes)); sw != virtual.SecurityNotSatisfied {
					t.Errorf("wrong key: status %v", sw)
				}
				p.expect(generateP256, virtual.SecurityNotSatisfied)
				if sw := p.authenticateWith(test.algorithm, key); sw != virtual.Success {
					t.Errorf("right key: status %v", sw)
				}
				p.expect(generateP256, virtual.Success)
			})
		}
	}
}

// TestExternalAuthentication is the other protocol of SP 800-73-4 part 2, appendix A.2: the card sends a challenge in the
// clear. P1 00 means triple DES.
func TestExternalAuthentication(t *testing.T) {
	for _, algorithm := range []byte{0x00, 0x03} {
		t.Run(fmt.Sprintf("algorithm %02x", algorithm), func(t *testing.T) {
			p := newProgram(t, virtual.Config{Firmware: virtual.Firmware54})
			block := newBlock(t, virtual.TripleDES, virtual.DefaultManagementKey())
			challenge := func() []byte {
				answer, sw := p.command(virtual.InsAuthenticate, algorithm, 0x9b, unhex(t, "7C028100"))
				if sw != virtual.Success || len(answer) != 12 || !bytes.HasPrefix(answer, unhex(t, "7C0A8108")) {
					t.Fatalf("challenge %x, status %v", answer, sw)
				}
				return answer[4:]
			}
			answer := make([]byte, 8)
			block.Encrypt(answer, challenge())
			respond := append(unhex(t, "7C0A8208"), answer...)
			if _, sw := p.command(virtual.InsAuthenticate, algorithm, 0x9b, respond); sw != virtual.Success {
				t.Errorf("status %v", sw)
			}
			p.expect(generateP256, virtual.Success)

			if _, sw := p.command(virtual.InsAuthenticate, algorithm, 0x9b, respond); sw != virtual.SecurityNotSatisfied {
				t.Errorf("the same answer again: status %v", sw)
			}
			if old := answer; !bytes.Equal(old, challenge()) {
				if _, sw := p.command(virtual.InsAuthenticate, algorithm, 0x9b, respond); sw != virtual.SecurityNotSatisfied {
					t.Errorf("the answer to another challenge: status %v", sw)
				}
			}
		})
	}
}

// TestAuthenticationIsNotMixedUp: what the card decrypts for one protocol must not serve in the other, and a step between
// the two steps spoils them.
func TestAuthenticationIsNotMixedUp(t *testing.T) {
	p := newProgram(t, virtual.Config{Firmware: virtual.Firmware54})
	block := newBlock(t, virtual.TripleDES, virtual.DefaultManagementKey())
	witness := func() []byte {
		answer, sw := p.command(virtual.InsAuthenticate, 3, 0x9b, unhex(t, "7C028000"))
		if sw != virtual.Success {
			t.Fatalf("witness: %v", sw)
		}
		plain := make([]byte, 8)
		block.Decrypt(plain, answer[4:])
		return plain
	}
	finish := func(witness []byte) []byte {
		return append(append(unhex(t, "7C148008"), witness...), unhex(t, "8108 0102030405060708")...)
	}
	expect := func(name string, data []byte, want virtual.StatusWord) {
		t.Helper()
		if _, sw := p.command(virtual.InsAuthenticate, 3, 0x9b, data); sw != want {
			t.Errorf("%s: status %v, want %v", name, sw, want)
		}
	}
	expect("answer without a question", finish(make([]byte, 8)), virtual.SecurityNotSatisfied)
	expect("witness as response", append(unhex(t, "7C0A8208"), witness()...), virtual.SecurityNotSatisfied)
	w := witness()
	p.must("00FD000000")
	expect("after another command", finish(w), virtual.SecurityNotSatisfied)
	expect("empty witness as an answer", append(unhex(t, "7C0C 8000 8108"), make([]byte, 8)...), virtual.SecurityNotSatisfied)
	expect("empty response", unhex(t, "7C028200"), virtual.SecurityNotSatisfied)
	expect("no template", unhex(t, "8000"), virtual.IncorrectData)
	expect("empty template", unhex(t, "7C00"), virtual.IncorrectData)
	p.expect("0087089B 04 7C028000", virtual.IncorrectP1P2) // AES-128, but the key is triple DES
	p.expect(generateP256, virtual.SecurityNotSatisfied)
	expect("in order", finish(witness()), virtual.Success)
	p.expect(generateP256, virtual.Success)
}

func TestSetManagementKeyMistakes(t *testing.T) {
	const key = "000102030405060708090A0B0C0D0E0F1011121314151617"
	p := newProgram(t, virtual.Config{})
	p.expect("00FFFFFF 1B 0A9B18"+key, virtual.SecurityNotSatisfied)
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
