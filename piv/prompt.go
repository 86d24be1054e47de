package piv

import "context"

// Prompt asks the user for a PIN or a touch, in a terminal or a window. A service
// may take the PIN from a secret store instead. Set it in [Options].
//
// The methods are not called from the goroutine that signs. For one
// card there is never more than one call of PIN and SpendLastTry in progress,
// except for those whose ctx is done: their result is ignored, so
// they should return too. While PIN waits, Touch and Busy can be called for other
// keys of the card.
type Prompt interface {
	// PIN returns the card's PIN. The signature returns its error, for instance if the
	// user cancels. The PIN is sent to the card
	// once; this package neither stores nor logs it.
	//
	// While PIN waits, other programs can use the card.
	PIN(ctx context.Context, r PINRequest) (string, error)

	// Touch is called when the card has been waiting for a touch for about
	// 200 ms, or up to 3 s with an RSA key. It tells the user and returns at once; done is
	// called when the wait is over. done may be nil.
	Touch(ctx context.Context, r TouchRequest) (done func())
}

// LastTryPrompt is a [Prompt] that can confirm the use of the last PIN attempt.
// If Prompt does not implement LastTryPrompt, the last attempt is never used and signing
// returns [ErrLastTry], so an automatic prompt cannot block a card.
type LastTryPrompt interface {
	Prompt

	// SpendLastTry is called before PIN if one attempt is left. A wrong PIN will
	// block the card, so it must return true only if the user, knowing that, explicitly
	// agrees.
	SpendLastTry(ctx context.Context, r PINRequest) (bool, error)
}

// BusyPrompt is a [Prompt] that is also notified when another program blocks the card.
// If Prompt does not implement BusyPrompt, such a wait is silent.
type BusyPrompt interface {
	Prompt

	// Busy is called when another program has blocked the card for about 500 ms.
	// Usually that program is waiting for a touch. Busy tells the user and returns at
	// once; done is called when the wait is over. done may be
	// nil.
	Busy(ctx context.Context, r BusyRequest) (done func())
}

// BusyRequest describes the card that another program uses.
type BusyRequest struct {
	// Serial is the card's serial number; 0 if the card is selected without one.
	Serial uint32
}

// PINRequest describes the requested PIN.
type PINRequest struct {
	// Serial is the card's serial number. A card has one PIN for all slots.
	Serial uint32

	// Slot is the slot whose key is to be used.
	Slot Slot

	// TriesLeft is the minimum number of attempts left; if it is 1, a wrong PIN
	// blocks the card. The card reported it just now, but a right PIN since then may have
	// raised it.
	TriesLeft int

	// FactoryPIN is set if the card still has the factory PIN, 123456,
	// which protects nothing. Firmware before 5.3 does not report it.
	FactoryPIN bool

	// LastTry is set if TriesLeft is 1. PIN is then called only after
	// SpendLastTry has returned true.
	LastTry bool
}

// TouchRequest describes the card that waits for a touch.
type TouchRequest struct {
	// Serial is the card's serial number.
	Serial uint32

	// Slot is the slot whose key signs or is generated.
	Slot Slot

	// Policy is TouchPolicyAlways, TouchPolicyCached or, for an imported key on
	// firmware before 5.3, unknown (0). Generate tries such a key to find out
	// whether the slot is in use.
	Policy TouchPolicy
}
