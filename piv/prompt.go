package piv

import "context"

// Prompt is whoever can ask a person for a PIN or a touch: a terminal, a window,
// or a service that has the PIN from its secret store. [Options] carries it.
//
// The methods are called from other goroutines than the one that signs, for one
// card never two at a time. A prompt belongs to one signature: when its ctx ends,
// nobody waits for the answer any more.
type Prompt interface {
	// PIN returns the card's PIN. Its error is returned by the signature that
	// wanted the PIN, which is how a person cancels. The PIN is sent to the card
	// once and then forgotten; this package neither keeps nor logs it.
	//
	// The card is not held while PIN waits: other programs can use it meanwhile.
	PIN(ctx context.Context, r PINRequest) (string, error)

	// Touch is called when the card has been waiting for a touch for about
	// 200 ms. It shows that and returns at once; done is called when the wait is
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

// PINRequest says which PIN is wanted.
type PINRequest struct {
	Serial uint32
	Slot   Slot

	// TriesLeft is how many wrong PINs the card still forgives plus one: with 1,
	// the next wrong PIN blocks it. It is the card's last word on it; a right
	// PIN since then can have made it more, never less.
	TriesLeft int

	// LastTry is set when TriesLeft is 1. PIN is then called only after
	// SpendLastTry returned true.
	LastTry bool
}

// TouchRequest says which card blinks.
type TouchRequest struct {
	Serial uint32
	Slot   Slot

	// Policy is TouchPolicyAlways, TouchPolicyCached or, for an imported key on
	// firmware before 5.3, unknown (0).
	Policy TouchPolicy
}
