package virtual

import (
	"encoding/binary"
	"fmt"
)

// Instructions of SP 800-73-4 part 2 and of Yubico's extensions, as they appear in [Exchange].
const (
	InsVerify          byte = 0x20
	InsChangeReference byte = 0x24
	InsResetRetry      byte = 0x2c
	InsGenerate        byte = 0x47
	InsAuthenticate    byte = 0x87 // signatures, decryption, key agreement, management key
	InsSelect          byte = 0xa4
	InsGetResponse     byte = 0xc0
	InsGetData         byte = 0xcb
	InsPutData         byte = 0xdb
	InsGetMetadata     byte = 0xf7
	InsGetSerial       byte = 0xf8
	InsAttest          byte = 0xf9
	InsSetPINRetries   byte = 0xfa
	InsReset           byte = 0xfb
	InsGetVersion      byte = 0xfd
	InsImportKey       byte = 0xfe
	InsSetManagement   byte = 0xff
)

const (
	claChaining = 0x10 // this command goes on in the next one (ISO/IEC 7816-4, 5.3.3)

	maxShortAnswer    = 256
	maxExtendedAnswer = 65536
	// maxChain bounds the data of a chained command: the largest is an object of maxObject bytes with its tags.
	maxChain = 4096
	// maxAuthenticate bounds the data of GENERAL AUTHENTICATE, which only a message for Ed25519 can reach.
	maxAuthenticate = 3072
)

// command is a command APDU (ISO/IEC 7816-3, 12.1.3).
type command struct {
	cla, ins, p1, p2 byte
	data             []byte
	maxAnswer        int // Ne; the most data the answer may have
}

// parseCommand parses the four cases of short and extended command APDUs. It reports false for what is none.
func parseCommand(b []byte) (command, bool) {
	if len(b) < 4 {
		return command{}, false
	}
	c := command{cla: b[0], ins: b[1], p1: b[2], p2: b[3], maxAnswer: maxShortAnswer}
	switch body := b[4:]; {
	case len(body) == 0:
		return c, true
	case len(body) == 1:
		c.maxAnswer = shortNe(body[0])
		return c, true
	case body[0] == 0 && len(body) >= 3:
		return c.parseExtended(body[1:])
	default:
		return c.parseShort(body)
	}
}

func (c command) parseShort(body []byte) (command, bool) {
	n, body := int(body[0]), body[1:]
	switch {
	case n == 0 || len(body) < n || len(body) > n+1:
		return command{}, false
	case len(body) == n+1:
		c.maxAnswer = shortNe(body[n])
	}
	c.data = body[:n:n]
	return c, true
}

func (c command) parseExtended(body []byte) (command, bool) {
	n, body := int(binary.BigEndian.Uint16(body)), body[2:]
	if len(body) == 0 { // no data: what was read is Le
		c.maxAnswer = extendedNe(n)
		return c, true
	}
	switch {
	case n == 0 || len(body) < n:
		return command{}, false
	case len(body) == n+2:
		c.maxAnswer = extendedNe(int(binary.BigEndian.Uint16(body[n:])))
	case len(body) != n:
		return command{}, false
	}
	c.data = body[:n:n]
	return c, true
}

func shortNe(le byte) int {
	if le == 0 {
		return maxShortAnswer
	}
	return int(le)
}

func extendedNe(le int) int {
	if le == 0 {
		return maxExtendedAnswer
	}
	return le
}

// continues reports whether c carries on the chain that began with first.
func (c command) continues(first command) bool {
	return c.cla&^claChaining == first.cla&^claChaining && c.ins == first.ins && c.p1 == first.p1 && c.p2 == first.p2
}

// StatusWord is the two bytes that end every answer of a card (ISO/IEC 7816-4, 5.6).
type StatusWord uint16

// Status words the card answers with. A wrong PIN is 0x63C0 plus the tries that are left (at most 15 are told), a
// longer answer is 0x6100 plus the bytes that are left (0 for 256 and more).
const (
	Success                StatusWord = 0x9000
	WrongLength            StatusWord = 0x6700
	SecurityNotSatisfied   StatusWord = 0x6982 // no PIN, no management key, or no touch in time
	AuthBlocked            StatusWord = 0x6983
	ConditionsNotSatisfied StatusWord = 0x6985
	IncorrectData          StatusWord = 0x6a80
	NotFound               StatusWord = 0x6a82 // object or application
	NotEnoughMemory        StatusWord = 0x6a84
	IncorrectP1P2          StatusWord = 0x6a86
	ReferenceNotFound      StatusWord = 0x6a88
	UnknownInstruction     StatusWord = 0x6d00
	UnknownClass           StatusWord = 0x6e00
)

// String returns the status word as four hexadecimal digits.
func (s StatusWord) String() string { return fmt.Sprintf("%04X", uint16(s)) }

// wrongPIN is the answer to a wrong PIN or PUK, and to the question how many tries are left.
func wrongPIN(tries int) StatusWord { return 0x63c0 | StatusWord(min(tries, 15)) }

// moreData says that an answer of n more bytes waits for GET RESPONSE.
func moreData(n int) StatusWord {
	if n > 0xff {
		n = 0
	}
	return 0x6100 | StatusWord(n)
}
