package pivtest_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/ycauth/ycauth-go/piv/pivtest"
)

// profiles are the firmware versions that differ.
var profiles = []pivtest.Firmware{
	pivtest.Firmware43, pivtest.Firmware52, pivtest.Firmware531, pivtest.Firmware54, pivtest.Firmware57,
}

// program is a program that talks to a card in hexadecimal.
type program struct {
	t    *testing.T
	card *pivtest.Card
}

// newProgram makes a card and selects PIV on it.
func newProgram(t *testing.T, cfg pivtest.Config) program {
	t.Helper()
	card, err := pivtest.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p := program{t, card}
	p.must(selectPIV)
	return p
}

// Commands that many tests need.
const (
	selectPIV   = "00A40400 05 A000000308"
	verifyPIN   = "00200080 08 313233343536FFFF"
	verifyWrong = "00200080 08 393939393939FFFF"
	verifyEmpty = "0020008000"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// send sends one APDU as it is.
func (p program) send(apdu string) ([]byte, pivtest.StatusWord) {
	p.t.Helper()
	return p.sendBytes(unhex(p.t, apdu))
}

func (p program) sendBytes(apdu []byte) ([]byte, pivtest.StatusWord) {
	p.t.Helper()
	answer, err := p.card.Transmit(p.t.Context(), apdu)
	if err != nil {
		p.t.Fatal(err)
	}
	if len(answer) < 2 {
		p.t.Fatalf("answer %x has no status word", answer)
	}
	n := len(answer) - 2
	return answer[:n], pivtest.StatusWord(answer[n])<<8 | pivtest.StatusWord(answer[n+1])
}

// command sends a command of any length in parts, and fetches an answer of any length.
func (p program) command(ins, p1, p2 byte, data []byte) ([]byte, pivtest.StatusWord) {
	p.t.Helper()
	for len(data) > 0xff {
		part := append([]byte{0x10, ins, p1, p2, 0xff}, data[:0xff]...)
		if _, sw := p.sendBytes(part); sw != pivtest.Success {
			return nil, sw
		}
		data = data[0xff:]
	}
	answer, sw := p.sendBytes(append([]byte{0, ins, p1, p2, byte(len(data))}, data...))
	for sw>>8 == 0x61 {
		var more []byte
		more, sw = p.send("00C0000000")
		answer = append(answer, more...)
	}
	return answer, sw
}

// must sends an APDU that has to succeed.
func (p program) must(apdu string) []byte {
	p.t.Helper()
	answer, sw := p.send(apdu)
	if sw != pivtest.Success {
		p.t.Fatalf("%s: status %v", apdu, sw)
	}
	return answer
}

// expect sends an APDU that has to get the status word.
func (p program) expect(apdu string, want pivtest.StatusWord) {
	p.t.Helper()
	if _, sw := p.send(apdu); sw != want {
		p.t.Errorf("%s: status %v, want %v", apdu, sw, want)
	}
}

// expectAll sends APDUs with the status words they have to get: "00FD000000 9000".
func (p program) expectAll(lines ...string) {
	p.t.Helper()
	for _, line := range lines {
		apdu, status, ok := strings.Cut(line, " -> ")
		var want pivtest.StatusWord
		if _, err := fmt.Sscanf(status, "%04X", &want); err != nil || !ok {
			p.t.Fatalf("%q: %v", line, err)
		}
		p.expect(apdu, want)
	}
}

// object reads a data object that has to be there, with its tags.
func (p program) object(id uint32) []byte {
	p.t.Helper()
	answer, sw := p.command(pivtest.InsGetData, 0x3f, 0xff, []byte{0x5c, 3, byte(id >> 16), byte(id >> 8), byte(id)})
	if sw != pivtest.Success {
		p.t.Fatalf("object %06X: status %v", id, sw)
	}
	return answer
}

func newBlock(t *testing.T, algorithm pivtest.Algorithm, key []byte) cipher.Block {
	t.Helper()
	makeCipher := aes.NewCipher
	if algorithm == pivtest.TripleDES {
		makeCipher = des.NewTripleDESCipher
	}
	block, err := makeCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	return block
}

// authenticate authenticates with the management key of a new card.
func (p program) authenticate() {
	p.t.Helper()
	algorithm := pivtest.TripleDES
	if p.card.Firmware().AtLeast(5, 7, 0) {
		algorithm = pivtest.AES192
	}
	if sw := p.authenticateWith(algorithm, pivtest.DefaultManagementKey()); sw != pivtest.Success {
		p.t.Fatalf("management key: status %v", sw)
	}
}

// authenticateWith does the mutual authentication of SP 800-73-4 part 2, appendix A.1, and checks the card's side of it.
func (p program) authenticateWith(algorithm pivtest.Algorithm, key []byte) pivtest.StatusWord {
	p.t.Helper()
	block := newBlock(p.t, algorithm, key)
	n := byte(block.BlockSize())
	answer, sw := p.command(pivtest.InsAuthenticate, byte(algorithm), 0x9b, unhex(p.t, "7C028000"))
	if sw != pivtest.Success {
		return sw
	}
	head := []byte{0x7c, n + 2, 0x80, n}
	if !bytes.HasPrefix(answer, head) {
		p.t.Fatalf("witness %x", answer)
	}
	witness, challenge := make([]byte, n), bytes.Repeat([]byte{0x5a}, int(n))
	block.Decrypt(witness, answer[len(head):])
	data := append([]byte{0x7c, 2*n + 4, 0x80, n}, witness...)
	data = append(append(data, 0x81, n), challenge...)
	answer, sw = p.command(pivtest.InsAuthenticate, byte(algorithm), 0x9b, data)
	if sw != pivtest.Success {
		return sw
	}
	want := make([]byte, n)
	block.Encrypt(want, challenge)
	if got := bytes.TrimPrefix(answer, []byte{0x7c, n + 2, 0x82, n}); !bytes.Equal(got, want) {
		p.t.Errorf("the card answered the challenge with %x, want %x", got, want)
	}
	return sw
}

func TestSelect(t *testing.T) {
	const property = "61114F0600001000010079074F05A000000308"
	card, err := pivtest.New(pivtest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	p := program{t, card}
	for _, name := range []string{"A000000308", "A000000308000010 00", "A000000308000010000100"} {
		aid := unhex(t, name)
		for _, le := range [][]byte{nil, {0}} {
			answer, sw := p.sendBytes(append(append([]byte{0, 0xa4, 4, 0, byte(len(aid))}, aid...), le...))
			if sw != pivtest.Success || !bytes.Equal(answer, unhex(t, property)) {
				t.Errorf("SELECT %s = %X, %v", name, answer, sw)
			}
		}
	}
	p.expectAll(
		"00A40400 04 A0000003 -> 6A82",                 // too short to name PIV
		"00A40400 0C A00000030800001000010000 -> 6A82", // too long
		"00A40400 06 A0000003080F -> 6A82",
		"00A40400 -> 6A82",
		"00A40000 05 A000000308 -> 6A86",
		"00A40403 05 A000000308 -> 6A86",
	)
}

func TestNothingWorksUnselected(t *testing.T) {
	card, err := pivtest.New(pivtest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	p := program{t, card}
	p.expectAll("00FD000000 -> 6D00", verifyEmpty+" -> 6D00", verifyPIN+" -> 6D00")
	p.must(selectPIV)
	p.must("00FD000000")
	card.PowerCycle()
	p.expect("00FD000000", pivtest.UnknownInstruction)
}

func TestVersionAndSerial(t *testing.T) {
	for _, firmware := range profiles {
		t.Run(firmware.String(), func(t *testing.T) {
			p := newProgram(t, pivtest.Config{Firmware: firmware, Serial: 0x00ae17cb, FormFactor: pivtest.USBCNano})
			want := []byte{firmware.Major, firmware.Minor, firmware.Patch}
			if got := p.must("00FD000000"); !bytes.Equal(got, want) {
				t.Errorf("version %x", got)
			}
			serial := unhex(t, "00AE17CB")
			if firmware.Major < 5 {
				p.expect("00F8000000", pivtest.UnknownInstruction)
			} else if got := p.must("00F8000000"); !bytes.Equal(got, serial) {
				t.Errorf("serial number %x", got)
			}

			p.must("00A40400 08 A000000527200101")
			if got := p.must("0001100000"); !bytes.Equal(got, serial) {
				t.Errorf("serial number of the OTP application %x", got)
			}
			p.expectAll("0001110000 -> 6A86", "00FD000000 -> 6D00")

			p.must("00A40400 08 A000000527471117")
			p.expect("00FD000000", pivtest.UnknownInstruction)
			config := p.must("001D000000")
			if int(config[0]) != len(config)-1 {
				t.Errorf("READ CONFIG %x: wrong length", config)
			}
			if !bytes.Contains(config, append([]byte{0x02, 4}, serial...)) {
				t.Errorf("READ CONFIG %x without serial number", config)
			}
			if got := bytes.Contains(config, []byte{0x04, 1, byte(pivtest.USBCNano)}); got != (firmware.Major >= 5) {
				t.Errorf("READ CONFIG %x: form factor there: %v", config, got)
			}
		})
	}
}

// TestFirmwareCommands: an instruction the firmware does not have is unknown.
func TestFirmwareCommands(t *testing.T) {
	tests := []struct {
		name, apdu string
		since      pivtest.Firmware
	}{
		{"serial", "00F8000000", pivtest.Firmware{Major: 5}},
		{"metadata", "00F7008000", pivtest.Firmware{Major: 5, Minor: 3}},
		{"attest", "00F99A0000", pivtest.Firmware{Major: 4, Minor: 3}},
		{"move", "00F6829A00", pivtest.Firmware{Major: 5, Minor: 7}},
	}
	for _, test := range tests {
		for _, firmware := range profiles {
			t.Run(test.name+"/"+firmware.String(), func(t *testing.T) {
				p := newProgram(t, pivtest.Config{Firmware: firmware})
				_, sw := p.send(test.apdu)
				want := firmware.AtLeast(test.since.Major, test.since.Minor, test.since.Patch)
				if got := sw != pivtest.UnknownInstruction; got != want {
					t.Errorf("known: %v (status %v), want %v", got, sw, want)
				}
			})
		}
	}
}

func TestMalformedCommands(t *testing.T) {
	p := newProgram(t, pivtest.Config{})
	p.expectAll(
		"00FD00 -> 6700",
		"00200080 08 3132 -> 6700",             // less data than Lc says
		"00200080 02 31323334 -> 6700",         // more
		"00200080 00 00 -> 6700",               // extended length cut off
		"00200080 000008 3132 -> 6700",         // extended, less data than Lc says
		"00200080 000002 3132 00 -> 6700",      // extended, half an Le
		"0C200080 08 313233343536FFFF -> 6E00", // secure messaging
		"80FD000000 -> 6E00",
		"00110000 -> 6D00",
	)
	if tries := p.card.PINTries(); tries != pivtest.DefaultTries {
		t.Errorf("%d tries left", tries)
	}
}

func TestExtendedLength(t *testing.T) {
	p := newProgram(t, pivtest.Config{})
	p.expect("00200080 000008 313233343536FFFF", pivtest.Success)
	p.expect("00200080 000008 313233343536FFFF 0000", pivtest.Success)
	if _, err := p.card.GenerateKey(pivtest.SlotAuthentication, pivtest.RSA2048, pivtest.PINNever, pivtest.TouchNever); err != nil {
		t.Fatal(err)
	}
	block := append(unhex(t, "7C820106 8200 81820100"), bytes.Repeat([]byte{1}, 256)...)
	apdu := append([]byte{0, 0x87, 0x07, 0x9a, 0, byte(len(block) >> 8), byte(len(block))}, block...)
	answer, sw := p.sendBytes(append(apdu, 0, 0))
	if sw != pivtest.Success || len(answer) != 4+4+256 {
		t.Errorf("%d bytes, status %v", len(answer), sw)
	}
	answer, sw = p.sendBytes(append(apdu, 0, 100))
	if sw != 0x61a4 || len(answer) != 100 {
		t.Errorf("%d bytes, status %v; want 100 and 164 to come", len(answer), sw)
	}
	answer, sw = p.send("00C0000010")
	if sw != 0x6194 || len(answer) != 16 {
		t.Errorf("%d bytes, status %v; want 16 and 148 to come", len(answer), sw)
	}
	answer, sw = p.send("00C0000000")
	if sw != pivtest.Success || len(answer) != 148 {
		t.Errorf("%d bytes, status %v; want the last 148", len(answer), sw)
	}
	p.expect("00C0000000", pivtest.IncorrectData)
}

// TestLongAnswers: 61 00 says that 256 bytes or more wait; another command throws them away.
func TestLongAnswers(t *testing.T) {
	p := newProgram(t, pivtest.Config{})
	p.authenticate()
	object := bytes.Repeat([]byte{0xab}, 700)
	data := append(unhex(t, "5C035FC105 538202BC"), object...)
	if _, sw := p.command(pivtest.InsPutData, 0x3f, 0xff, data); sw != pivtest.Success {
		t.Fatalf("PUT DATA: %v", sw)
	}
	p.expectAll(
		"00CB3FFF 05 5C035FC105 -> 6100",
		"00C0000000 -> 61C0",
		"00C0000000 -> 9000",
		"00C0000000 -> 6A80",
		"00CB3FFF 05 5C035FC105 -> 6100",
		"00FD000000 -> 9000",
		"00C0000000 -> 6A80",
	)
}

func TestChaining(t *testing.T) {
	p := newProgram(t, pivtest.Config{})
	p.expectAll(
		"10200080 04 31323334 -> 9000",
		"00200080 04 3536FFFF -> 9000", // together: the PIN
		"10200080 04 31323334 -> 9000",
		"00FD000000 -> 9000", // another command ends the chain
		"00200080 04 3536FFFF -> 6A80",
	)
	part := "10DB3FFF FF " + strings.Repeat("00", 255)
	for range 16 {
		p.expect(part, pivtest.Success)
	}
	p.expect(part, pivtest.WrongLength) // more than any command has
	p.expect("00FD000000", pivtest.Success)
}

func TestConfigMistakes(t *testing.T) {
	tests := []struct {
		name string
		cfg  pivtest.Config
		want string
	}{
		{"old firmware", pivtest.Config{Firmware: pivtest.Firmware{Major: 4, Minor: 2}}, "older than 4.3.0"},
		{"PIN", pivtest.Config{PIN: "12345"}, "PIN is not"},
		{"long PIN", pivtest.Config{PIN: "123456789"}, "PIN is not"},
		{"PUK", pivtest.Config{PUK: "1"}, "PUK is not"},
		{"tries", pivtest.Config{PINTries: 256}, "1 to 255"},
		{"AES before 5.4", pivtest.Config{Firmware: pivtest.Firmware52, ManagementAlgorithm: pivtest.AES256}, "no AES-256"},
		{"key length", pivtest.Config{ManagementKey: make([]byte, 16)}, "is 24 bytes"},
		{"no such algorithm", pivtest.Config{ManagementAlgorithm: pivtest.P256}, "no P-256 management keys"},
		{"attestation key", pivtest.Config{AttestationAlgorithm: pivtest.Ed25519}, "attestation key"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := pivtest.New(test.cfg)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("New() = %v, want an error with %q", err, test.want)
			}
		})
	}
	t.Run("several", func(t *testing.T) {
		_, err := pivtest.New(pivtest.Config{PIN: "1", PUK: "1"})
		if err == nil || !strings.Contains(err.Error(), "PIN is not") || !strings.Contains(err.Error(), "PUK is not") {
			t.Errorf("New() = %v, want both mistakes", err)
		}
	})
}

func TestParseFirmware(t *testing.T) {
	tests := []struct {
		in   string
		want pivtest.Firmware
	}{
		{"5.7.4", pivtest.Firmware57},
		{"5.7", pivtest.Firmware57},
		{"5.3", pivtest.Firmware531},
		{"4.3", pivtest.Firmware43},
		{"5.6", pivtest.Firmware{Major: 5, Minor: 6}},
		{"5.6.255", pivtest.Firmware{Major: 5, Minor: 6, Patch: 255}},
	}
	for _, test := range tests {
		if got, err := pivtest.ParseFirmware(test.in); err != nil || got != test.want {
			t.Errorf("ParseFirmware(%q) = %v, %v", test.in, got, err)
		}
	}
	for _, in := range []string{"", "5", "5.", "5.7.4.1", "5.256", "5.-1", "v5.7"} {
		if got, err := pivtest.ParseFirmware(in); err == nil {
			t.Errorf("ParseFirmware(%q) = %v", in, got)
		}
	}
}

func TestNames(t *testing.T) {
	tests := []struct{ got, want string }{
		{pivtest.P256.String(), "P-256"},
		{pivtest.TripleDES.String(), "3DES"},
		{pivtest.Algorithm(0x99).String(), "algorithm 0x99"},
		{pivtest.SlotSignature.String(), "9c"},
		{pivtest.SecurityNotSatisfied.String(), "6982"},
		{pivtest.PCSCError(0x8010000b).Error(), "PC/SC error 0x8010000B"},
	}
	for _, test := range tests {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}

// TestLogHoldsNoSecrets: what is logged of a command is its header and lengths.
func TestLogHoldsNoSecrets(t *testing.T) {
	var observed []pivtest.Exchange
	p := newProgram(t, pivtest.Config{Observe: func(e pivtest.Exchange) { observed = append(observed, e) }})
	p.card.ResetLog()
	p.expect(verifyWrong, 0x63c2)
	p.must(verifyPIN)
	p.must("00FD000000")
	log := p.card.Log()
	if len(log) != 3 || p.card.Count() != 3 || p.card.Count(pivtest.InsVerify) != 2 || p.card.Count(pivtest.InsVerify, pivtest.InsGetVersion) != 3 {
		t.Fatalf("log %+v", log)
	}
	if log[0].Status != 0x63c2 || log[1].Status != pivtest.Success || log[1].DataLen != 8 || log[1].P2 != 0x80 || log[2].AnswerLen != 3 {
		t.Errorf("log %+v", log)
	}
	if len(observed) != 4 || observed[3] != log[2] { // with the SELECT before
		t.Errorf("observed %+v", observed)
	}
	all := fmt.Sprintf("%#v %+v", log, log)
	for _, secret := range []string{"123456", "999999", "31, 0x32", "0x39, 0x39"} {
		if strings.Contains(all, secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}
