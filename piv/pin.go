package piv

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"sync"
)

// pinState is what is known of the PIN on one connection.
type pinState int

const (
	pinUnknown  pinState = iota // an earlier visit, or another program, may have verified it
	pinMissing                  // the card will want it
	pinVerified                 // the card has it
)

// leave sends the card to another of its applications and back, so that it forgets
// what it was shown: the PIN and the management key. Its error is that of PC/SC. A
// card without the other application does not forget.
func (c *conn) leave() error {
	var err error
	if c.card.Firmware.hasSerial() {
		_, err = c.formFactor()
	} else {
		_, err = c.serial()
	}
	c.leftApplication()
	if pcscCode(err) != 0 {
		return err
	}
	return nil
}

// leftApplication notes that the card was sent to another of its applications,
// which makes it forget the PIN.
func (c *conn) leftApplication() { c.pin = pinMissing }

// maxTold is the largest number of tries that fits into a status word (63Cx). A
// card can allow as many as 255, and says 15 for every number above.
const maxTold = 15

// countTries asks the card whether the PIN is verified and, if not, how many
// tries are left. Its error is [ErrPINBlocked] when none are.
func (c *conn) countTries() error {
	n, verified, err := c.pinTries()
	switch {
	case err != nil:
		return err
	case verified && c.card.Firmware.forgetsPINWhenAsked():
		c.pin = pinMissing
		return nil
	case verified:
		c.pin = pinVerified
		return nil
	case n == 0:
		c.pin = pinMissing
		return ErrPINBlocked
	}
	c.pin, c.tries = pinMissing, n
	return nil
}

// knowTries makes sure that the number of tries is known before one is spent. A
// card tells it only while the PIN is not verified, so a verified one has to be
// forgotten first.
func (c *conn) knowTries() error {
	if c.tries > 0 {
		return nil
	}
	if err := c.countTries(); err != nil || c.tries > 0 {
		return err
	}
	if err := c.leave(); err != nil {
		return err
	}
	if err := c.countTries(); err != nil {
		return err
	}
	if c.tries == 0 {
		c.tries = 1 // it will not say: take no chance
	}
	return nil
}

// needsPIN reports whether the PIN has to be sent before a signature. Where the
// policy is not known, only a refused signature can tell.
func (c *conn) needsPIN(policy PINPolicy) (bool, error) {
	switch policy {
	case PINPolicyNever:
		return false, nil
	case PINPolicyMatchOnce, PINPolicyMatchAlways:
		return false, becausef(ErrUnsupported, "keys with PIN policy %v need a fingerprint", policy)
	case PINPolicyAlways:
		return true, c.knowTries()
	case PINPolicyOnce:
		if c.pin == pinUnknown && !c.card.Firmware.forgetsPINWhenAsked() {
			if err := c.countTries(); err != nil {
				return false, err
			}
		}
	}
	if c.pin != pinMissing {
		return false, nil
	}
	return true, c.knowTries()
}

// pinEntry is a PIN on its way from a person to the card.
type pinEntry struct {
	prompt Prompt
	slot   Slot

	pin      string
	have     bool
	lastTry  bool // a person agreed to spend the last try
	verified bool // the card accepted the PIN in this operation
}

// ask asks for the PIN, unless somebody else is asked for it meanwhile: then it
// waits for the end of that. It gives up the turn, so that others can use the card,
// and what was known of the card must be asked again.
func (e *pinEntry) ask(s *session, c *conn) error {
	if e.prompt == nil {
		return ErrPINRequired
	}
	if !c.factoryKnown && c.card.Firmware.hasMetadata() {
		factory, err := c.factoryPIN()
		if pcscCode(err) != 0 {
			return err
		}
		c.factory, c.factoryKnown = factory, true
	}
	r := PINRequest{Serial: s.target.serial, Slot: e.slot, TriesLeft: c.tries, FactoryPIN: c.factory, LastTry: c.tries == 1}
	s.at(stagePIN)
	s.leave()
	first, err := s.askAlone()
	if err != nil {
		return err
	}
	if first {
		if err := e.question(s, r); err != nil {
			return err
		}
	}
	s.at(stageTurn)
	return s.take()
}

// question puts the question to the person.
func (e *pinEntry) question(s *session, r PINRequest) error {
	if r.LastTry {
		last, ok := e.prompt.(LastTryPrompt)
		if !ok {
			return ErrLastTry
		}
		yes, err := answer(s.ctx, func() (bool, error) { return last.SpendLastTry(s.ctx, r) })
		if err != nil {
			return err
		}
		if !yes {
			return ErrLastTry
		}
		e.lastTry = true
	}
	pin, err := answer(s.ctx, func() (string, error) { return e.prompt.PIN(s.ctx, r) })
	if err != nil {
		return err
	}
	e.pin, e.have = pin, true
	return nil
}

func (e *pinEntry) forget() { e.pin, e.have = "", false }

// answer calls a method of the prompt, and waits for it no longer than ctx lasts.
func answer[T any](ctx context.Context, ask func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		value, err := ask()
		answers <- answer{value, err}
	}()
	select {
	case a := <-answers:
		return a.value, a.err
	case <-ctx.Done():
		var none T
		return none, ended(ctx)
	}
}

// send gives the PIN to the card, once. do is the command that does it.
func (e *pinEntry) send(s *session, c *conn, do func(pin string) error) error {
	pin := e.pin
	e.forget()
	defer s.asked()
	if c.tries == 1 && !e.lastTry {
		return ErrLastTry // another program spent the others while the prompt waited
	}
	// A PIN has 6 to 8 bytes (Yubico, "PIV PIN, PUK, and management key").
	if len(pin) < 6 || len(pin) > 8 || s.sys.pins.refused(c.card.Serial, pin, c.tries) {
		return &WrongPINError{TriesLeft: c.tries, NotSent: true}
	}
	err := do(pin)
	if left, wrong := wrongPIN(statusOf(err)); wrong {
		c.pin, c.tries = pinMissing, left
		s.sys.pins.refuse(c.card.Serial, pin, left)
		if statusOf(err) == statusBlocked {
			return because(ErrPINBlocked, err)
		}
		return &WrongPINError{TriesLeft: left}
	}
	if err != nil {
		// Without an answer, it may have been right or wrong: to send it again
		// could spend another try.
		s.final = !unsent(err)
		if !s.final {
			e.pin, e.have = pin, true
		}
		return err
	}
	c.pin, e.verified = pinVerified, true
	s.sys.pins.accepted(c.card.Serial)
	if c.tries == 1 {
		c.tries = 0 // now there are more, or one is all that this card ever allows
	}
	return nil
}

// refusals remembers which PINs a card refused, so that none is sent twice. It
// keeps no PIN, but a keyed hash that only this process can make.
type refusals struct {
	mu    sync.Mutex
	key   [32]byte
	cards map[uint32]*refusal
}

type refusal struct {
	pins  map[[sha256.Size]byte]bool
	tries int // left after the last refusal
}

// refused reports whether the card refused this PIN before. More tries than were
// left then mean that somebody has entered the right PIN or set a new one since,
// and what was wrong may be right now. A card with more tries than it can tell
// (maxTold) never shows that; there a wrong PIN that is sent again does no harm.
func (r *refusals) refused(serial uint32, pin string, tries int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	card := r.card(serial)
	if tries > card.tries || tries == maxTold {
		clear(card.pins)
	}
	return card.pins[r.sum(pin)]
}

func (r *refusals) refuse(serial uint32, pin string, tries int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	card := r.card(serial)
	card.pins[r.sum(pin)] = true
	card.tries = tries
}

// accepted notes that the card was given the right PIN.
func (r *refusals) accepted(serial uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.card(serial).pins)
}

func (r *refusals) card(serial uint32) *refusal {
	if r.cards == nil {
		r.cards = make(map[uint32]*refusal)
		_, _ = rand.Read(r.key[:]) // never fails (crypto/rand)
	}
	card, ok := r.cards[serial]
	if !ok {
		card = &refusal{pins: make(map[[sha256.Size]byte]bool)}
		r.cards[serial] = card
	}
	return card
}

func (r *refusals) sum(pin string) [sha256.Size]byte {
	mac := hmac.New(sha256.New, r.key[:])
	mac.Write([]byte(pin))
	return [sha256.Size]byte(mac.Sum(nil))
}
