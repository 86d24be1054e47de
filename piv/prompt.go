package piv

import "context"

// Prompt is whoever can ask a person for a PIN or a touch: a terminal, a window,
// or a service that has the PIN from its secret store. [Options] carries it.
//
// The methods are called from other goroutines than the one that signs. For one
// card there is never more than one call of PIN and SpendLastTry in progress,
// except for those whose ctx has ended: nobody waits for their answer any more, so
// they should return, too. While PIN waits, Touch and Busy can be called for other
// keys of the card.
type Prompt interface {
	// PIN returns the card's PIN. Its error is returned by the signature that
	// wanted the PIN, which is how a person cancels. The PIN is sent to the card
	// once and then forgotten; this package neither keeps nor logs it.
	//
	// The card is not held while PIN waits: other programs can use it meanwhile.
	PIN(ctx context.Context, r PINRequest) (string, error)

	// Touch is called when the card has been waiting for a touch for about
	// 200 ms, or up to 3 s with an RSA key. It shows that and returns at once; done is called when the wait is
	// over, for whatever reason. done may be nil.
	Touch(ctx context.Context, r TouchRequest) (done func())
}

// LastTryPrompt is a [Prompt] that can agree to spend the last try of a PIN.
// With a Prompt that is none, the last try is never spent and signing returns
// [ErrLastTry], so an automatic prompt cannot block a card.
type LastTryPrompt interface {
	Prompt

	// SpendLastTry is called before PIN when one try is left. A wrong PIN will
	// block the card: only an explicit yes of a person who knows that may
	// return true.
	SpendLastTry(ctx context.Context, r PINRequest) (bool, error)
}

// BusyPrompt is a [Prompt] that is also told when another program keeps the card
// from being used. With a Prompt that is none, such a wait shows nothing.
type BusyPrompt interface {
	Prompt

	// Busy is called when another program has kept the card for about 500 ms. Most
	// often that program waits for its own touch. Busy shows that and returns at
	// once; done is called when the wait is over, for whatever reason. done may be
	// nil.
	Busy(ctx context.Context, r BusyRequest) (done func())
}

// BusyRequest says which card another program uses.
type BusyRequest struct {
	// Serial is the card's serial number; 0 while a card is looked for without one.
	Serial uint32
}

// PINRequest says which PIN is wanted.
type PINRequest struct {
	// Serial is the card's serial number. A card has one PIN for all slots.
	Serial uint32

	// Slot is the slot whose key is to be used.
	Slot Slot

	// TriesLeft is how many tries the card allows at least: with 1, a wrong PIN
	// blocks it. The card told it in this visit; a right PIN since then may have
	// made it more.
	TriesLeft int

	// FactoryPIN is set when the card still has the PIN of the factory, 123456,
	// which protects nothing. Firmware before 5.3 does not tell.
	FactoryPIN bool

	// LastTry is set when TriesLeft is 1. PIN is then called only after
	// SpendLastTry returned true.
	LastTry bool
}

// TouchRequest says which card blinks.
type TouchRequest struct {
	// Serial is the card's serial number.
	Serial uint32

	// Slot is the slot whose key signs or is generated.
	Slot Slot

	// Policy is TouchPolicyAlways, TouchPolicyCached or, for an imported key on
	// firmware before 5.3, unknown (0). Generate tries such a key there, to find out
	// whether the slot is in use.
	Policy TouchPolicy
}
