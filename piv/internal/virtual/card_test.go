package virtual_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/ycauth/ycauth-go/piv/internal/virtual"
)

// profiles are the firmware versions that differ.
var profiles = []virtual.Firmware{
	virtual.Firmware43, virtual.Firmware52, virtual.Firmware531, virtual.Firmware54, virtual.Firmware57,
}

// program is a program that talks to a card in hexadecimal.
type program struct {
	t    *testing.T
	card *virtual.Card
}

// newProgram makes a card and selects PIV on it.
func newProgram(t *testing.T, cfg virtual.Config) program {
	t.Helper()
	card, err := virtual.New(cfg)
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
func (p program) send(apdu string) ([]byte, virtual.StatusWord) {
	p.t.Helper()
	return p.sendBytes(unhex(p.t, apdu))
}

func (p program) sendBytes(apdu []byte) ([]byte, virtual.StatusWord) {
	p.t.Helper()
	answer, err := p.card.Transmit(p.t.Context(), apdu)
	if err != nil {
		p.t.Fatal(err)
	}
	if len(answer) < 2 {
		p.t.Fatalf("answer %x has no status word", answer)
	}
	n := len(answer) - 2
	return answer[:n], virtual.StatusWord(answer[n])<<8 | virtual.StatusWord(answer[n+1])
}

// command sends a command of any length in parts, and fetches an answer of any length.
func (p program) command(ins, p1, p2 byte, data []byte) ([]byte, virtual.StatusWord) {
	p.t.Helper()
	for len(data) > 0xff {
		part := append([]byte{0x10, ins, p1, p2, 0xff}, data[:0xff]...)
		if _, sw := p.sendBytes(part); sw != virtual.Success {
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
	if sw != virtual.Success {
		p.t.Fatalf("%s: status %v", apdu, sw)
	}
	return answer
}

// expect sends an APDU that has to get the status word.
func (p program) expect(apdu string, want virtual.StatusWord) {
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
		var want virtual.StatusWord
		if _, err := fmt.Sscanf(status, "%04X", &want); err != nil || !ok {
			p.t.Fatalf("%q: %v", line, err)
		}
		p.expect(apdu, want)
	}
}

// object reads a data object that has to be there, with its tags.
func (p program) object(id uint32) []byte {
	p.t.Helper()
	answer, sw := p.command(virtual.InsGetData, 0x3f, 0xff, []byte{0x5c, 3, byte(id >> 16), byte(id >> 8), byte(id)})
	if sw != virtual.Success {
		p.t.Fatalf("object %06X: status %v", id, sw)
	}
	return answer
}

func newBlock(t *testing.T, algorithm virtual.Algorithm, key []byte) cipher.Block {
	t.Helper()
	makeCipher := aes.NewCipher
	if algorithm == virtual.TripleDES {
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
	algorithm := virtual.TripleDES
	if p.card.Firmware().AtLeast(5, 7, 0) {
		algorithm = virtual.AES192
	}
	if sw := p.authenticateWith(algorithm, virtual.DefaultManagementKey()); sw != virtual.Success {
		p.t.Fatalf("management key: status %v", sw)
	}
}

// authenticateWith does the mutual authentication of SP 800-73-4 part 2, appendix A.1, and checks the card's side of it.
func (p program) authenticateWith(algorithm virtual.Algorithm, key []byte) virtual.StatusWord {
	p.t.Helper()
	block := newBlock(p.t, algorithm, key)
	n := byte(block.BlockSize())
	answer, sw := p.command(virtual.InsAuthenticate, byte(algorithm), 0x9b, unhex(p.t, "7C028000"))
	if sw != virtual.Success {
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
	answer, sw = p.command(virtual.InsAuthenticate, byte(algorithm), 0x9b, data)
	if sw != virtual.Success {
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
	card, err := virtual.New(virtual.Config{})
	if err != nil {
		t.Fatal(err)
	}
	p := program{t, card}
	for _, name := range []string{"A000000308", "A000000308000010 00", "A000000308000010000100"} {
		aid := unhex(t, name)
		for _, le := range [][]byte{nil, {0}} {
			answer, sw := p.sendBytes(append(append([]byte{0, 0xa4, 4, 0, byte(len(aid))}, aid...), le...))
			if sw != virtual.Success || !bytes.Equal(answer, unhex(t, property)) {
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
	card, err := virtual.New(virtual.Config{})
	if err != nil {
		t.Fatal(err)
	}
	p := program{t, card}
	p.expectAll("00FD000000 -> 6D00", verifyEmpty+" -> 6D00", verifyPIN+" -> 6D00")
	p.must(selectPIV)
	p.must("00FD000000")
	card.PowerCycle()
	p.expect("00FD000000", virtual.UnknownInstruction)
}

func TestVersionAndSerial(t *testing.T) {
	for _, firmware := range profiles {
		t.Run(firmware.String(), func(t *testing.T) {
			p := newProgram(t, virtual.Config{Firmware: firmware, Serial: 0x00ae17cb, FormFactor: virtual.USBCNano})
			want := []byte{firmware.Major, firmware.Minor, firmware.Patch}
			if got := p.must("00FD000000"); !bytes.Equal(got, want) {
				t.Errorf("version %x", got)
			}
			serial := unhex(t, "00AE17CB")
			if firmware.Major < 5 {
				p.expect("00F8000000", virtual.UnknownInstruction)
			} else if got := p.must("00F8000000"); !bytes.Equal(got, serial) {
				t.Errorf("serial number %x", got)
			}

			p.must("00A40400 08 A000000527200101")
			if got := p.must("0001100000"); !bytes.Equal(got, serial) {
				t.Errorf("serial number of the OTP application %x", got)
			}
			p.expectAll("0001110000 -> 6A86", "00FD000000 -> 6D00")

			p.must("00A40400 08 A000000527471117")
			p.expect("00FD000000", virtual.UnknownInstruction)
			config := p.must("001D000000")
			if int(config[0]) != len(config)-1 {
				t.Errorf("READ CONFIG %x: wrong length", config)
			}
			if !bytes.Contains(config, append([]byte{0x02, 4}, serial...)) {
				t.Errorf("READ CONFIG %x without serial number", config)
			}
			if got := bytes.Contains(config, []byte{0x04, 1, byte(virtual.USBCNano)}); got != (firmware.Major >= 5) {
				t.Errorf("READ CONFIG %x: form factor there: %v", config, got)
			}
		})
	}
}

// TestFirmwareCommands: an instruction the firmware does not have is unknown.
func TestFirmwareCommands(t *testing.T) {
	tests := []struct {
		name, apdu string
		since      virtual.Firmware
	}{
		{"serial", "00F8000000", virtual.Firmware{Major: 5}},
		{"metadata", "00F7008000", virtual.Firmware{Major: 5, Minor: 3}},
	}
	for _, test := range tests {
		for _, firmware := range profiles {
			t.Run(test.name+"/"+firmware.String(), func(t *testing.T) {
				p := newProgram(t, virtual.Config{Firmware: firmware})
				_, sw := p.send(test.apdu)
				want := firmware.AtLeast(test.since.Major, test.since.Minor, test.since.Patch)
				if got := sw != virtual.UnknownInstruction; got != want {
					t.Errorf("known: %v (status %v), want %v", got, sw, want)
				}
			})
		}
	}
}

func TestMalformedCommands(t *testing.T) {
	p := newProgram(t, virtual.Config{})
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
	if tries := p.card.PINTries(); tries != virtual.DefaultTries {
		t.Errorf("%d tries left", tries)
	}
}

func TestExtendedLength(t *testing.T) {
	p := newProgram(t, virtual.Config{})
	p.expect("00200080 000008 313233343536FFFF", virtual.Success)
	p.expect("00200080 000008 313233343536FFFF 0000", virtual.Success)
	if _, err := p.card.GenerateKey(virtual.SlotAuthentication, virtual.RSA2048, virtual.PINNever, virtual.TouchNever); err != nil {
		t.Fatal(err)
	}
	block := append(unhex(t, "7C820106 8200 81820100"), bytes.Repeat([]byte{1}, 256)...)
	apdu := append([]byte{0, 0x87, 0x07, 0x9a, 0, byte(len(block) >> 8), byte(len(block))}, block...)
	answer, sw := p.sendBytes(append(apdu, 0, 0))
	if sw != virtual.Success || len(answer) != 4+4+256 {
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
	if sw != virtual.Success || len(answer) != 148 {
		t.Errorf("%d bytes, status %v; want the last 148", len(answer), sw)
	}
	p.expect("00C0000000", virtual.IncorrectData)
}

// TestLongAnswers: 61 00 says that 256 bytes or more wait; another command throws them away.
func TestLongAnswers(t *testing.T) {
	p := newProgram(t, virtual.Config{})
	p.authenticate()
	object := bytes.Repeat([]byte{0xab}, 700)
	data := append(unhex(t, "5C035FC105 538202BC"), object...)
	if _, sw := p.command(virtual.InsPutData, 0x3f, 0xff, data); sw != virtual.Success {
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
	p := newProgram(t, virtual.Config{})
	p.expectAll(
		"10200080 04 31323334 -> 9000",
		"00200080 04 3536FFFF -> 9000", // together: the PIN
		"10200080 04 31323334 -> 9000",
		"00FD000000 -> 9000", // another command ends the chain
		"00200080 04 3536FFFF -> 6A80",
	)
	part := "10DB3FFF FF " + strings.Repeat("00", 255)
	for range 16 {
		p.expect(part, virtual.Success)
	}
	p.expect(part, virtual.WrongLength) // more than any command has
	p.expect("00FD000000", virtual.Success)
}

func TestTooOld(t *testing.T) {
	_, err := virtual.New(virtual.Config{Firmware: virtual.Firmware{Major: 4, Minor: 2}})
	if err == nil || !strings.Contains(err.Error(), "older than 4.3.0") {
		t.Errorf("New() = %v", err)
	}
}

func TestParseFirmware(t *testing.T) {
	tests := []struct {
		in   string
		want virtual.Firmware
	}{
		{"5.7.4", virtual.Firmware57},
		{"5.7", virtual.Firmware57},
		{"5.3", virtual.Firmware531},
		{"4.3", virtual.Firmware43},
		{"5.6", virtual.Firmware{Major: 5, Minor: 6}},
		{"5.6.255", virtual.Firmware{Major: 5, Minor: 6, Patch: 255}},
	}
	for _, test := range tests {
		if got, err := virtual.ParseFirmware(test.in); err != nil || got != test.want {
			t.Errorf("ParseFirmware(%q) = %v, %v", test.in, got, err)
		}
	}
	for _, in := range []string{"", "5", "5.", "5.7.4.1", "5.256", "5.-1", "v5.7"} {
		if got, err := virtual.ParseFirmware(in); err == nil {
			t.Errorf("ParseFirmware(%q) = %v", in, got)
		}
	}
}

func TestATRs(t *testing.T) {
	for _, firmware := range profiles {
		card, err := virtual.New(virtual.Config{Firmware: firmware})
		if err != nil {
			t.Fatal(err)
		}
		atr := card.ATR()
		var check byte
		for _, b := range atr[1:] {
			check ^= b
		}
		if check != 0 {
			t.Errorf("%v: ATR %X has a wrong check byte (ISO/IEC 7816-3, 8.2.5)", firmware, atr)
		}
	}
}

func TestNames(t *testing.T) {
	tests := []struct{ got, want string }{
		{virtual.P256.String(), "P-256"},
		{virtual.TripleDES.String(), "3DES"},
		{virtual.Algorithm(0x99).String(), "algorithm 0x99"},
		{virtual.SlotSignature.String(), "9c"},
		{virtual.SecurityNotSatisfied.String(), "6982"},
	}
	for _, test := range tests {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}

// TestLogHoldsNoSecrets: what is logged of a command is its header and lengths.
func TestLogHoldsNoSecrets(t *testing.T) {
	var observed []virtual.Exchange
	p := newProgram(t, virtual.Config{Observe: func(e virtual.Exchange) { observed = append(observed, e) }})
	p.card.ResetLog()
	p.expect(verifyWrong, 0x63c2)
	p.must(verifyPIN)
	p.must("00FD000000")
	log := p.card.Log()
	if len(log) != 3 || p.card.Count() != 3 || p.card.Count(virtual.InsVerify) != 2 || p.card.Count(virtual.InsVerify, virtual.InsGetVersion) != 3 {
		t.Fatalf("log %+v", log)
	}
	if log[0].Status != 0x63c2 || log[1].Status != virtual.Success || log[1].DataLen != 8 || log[1].P2 != 0x80 || log[2].AnswerLen != 3 {
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
