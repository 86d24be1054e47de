package pivtest

import "fmt"

// StatusWord is the two bytes that end every answer of a card (ISO/IEC 7816-4, 5.6).
type StatusWord uint16

// Status words the card answers with. A wrong PIN is 0x63C0 plus the tries that are left (at most 15 are told), a
// longer answer is 0x6100 plus the bytes that are left (0 for 256 and more).
const (
	Success                StatusWord = 0x9000
	WrongLength            StatusWord = 0x6700
	ChainingNotSupported   StatusWord = 0x6884
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
