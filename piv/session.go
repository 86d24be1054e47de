package piv

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
)

// target is the card that an operation is about.
type target struct {
	serial uint32
	filter string
	wait   patience

	// missing is what the card is called when it is not there: ErrCardRemoved
	// if it was there before, else ErrNoCard.
	missing error
}

// session is one turn at one card.
type session struct {
	ctx    context.Context
	sys    *system
	target target
	at     func(stage)
	r      *reader

	turn   bool // it is this session's
	asking bool // a person is being asked for the PIN, or the card has not seen the answer yet

	met   bool // the card was there
	final bool // the command that failed may have cost a PIN try or a touch: do not repeat it
}

// errElsewhere: the reader holds another card than the one wanted.
var errElsewhere = errors.New("another card is in the reader")

// visit finds the card, waits for a turn at it and calls fn.
//
// A connection that went stale while it was idle (the card was pulled out, reset,
// or put into another reader) fails at its first command. The card is then
// looked for everywhere and fn called once more, so fn must be ready for that.
func visit[T any](ctx context.Context, sys *system, p *progress, t target, fn func(*session) (T, error)) (T, error) {
	for attempt := 1; ; attempt++ {
		value, s, err := visitOnce(ctx, sys, p, t, fn)
		if !notThere(err) {
			return value, rejected(err)
		}
		sys.forget(t.serial)
		if s.met {
			t.missing = ErrCardRemoved
		}
		if attempt > 1 || s.final {
			return value, explain(err, t.missing)
		}
	}
}

// notThere reports whether the card was not, or did not stay, where it was looked
// for.
func notThere(err error) bool {
	var absent *absentError
	return pcscCode(err) != 0 && !errors.Is(err, ErrCardBusy) || errors.As(err, &absent) || errors.Is(err, errElsewhere)
}

// explain turns what [notThere] recognizes into an error of this package. missing
// is what a card that is not there is called.
func explain(err, missing error) error {
	if !notThere(err) {
		return err
	}
	switch code := pcscCode(err); {
	case code == 0, gone(err):
		return because(missing, err)
	case code == pcscNoService, code == pcscServiceStopped, code == pcscServiceLost:
		return because(ErrNoService, err)
	case code == pcscSecurityViolation, code == pcscNoAccess:
		return because(ErrAccessDenied, err)
	case code == pcscSharingViolation:
		return because(ErrCardBusy, err)
	case silent(err) && errors.Is(missing, ErrCardRemoved):
		return because(missing, err) // it was there, and then lost its connection
	}
	return because(ErrPCSC, err)
}

// rejected makes an [ErrRejected] of a status word that nobody knew what to make
// of.
func rejected(err error) error {
	if statusOf(err) == 0 || Remedy(err) != "" {
		return err
	}
	return because(ErrRejected, err)
}

func visitOnce[T any](ctx context.Context, sys *system, p *progress, t target, fn func(*session) (T, error)) (T, *session, error) {
	var none T
	s := &session{ctx: ctx, sys: sys, target: t, at: p.at}
	var err error
	if s.r, err = s.find(); err != nil {
		s.final = true
		return none, s, err
	}
	s.at(stageTurn)
	if err := s.take(); err != nil {
		s.final = true
		return none, s, err
	}
	defer s.leave()
	defer s.asked()
	value, err := fn(s)
	if notThere(err) && s.turn {
		s.r.drop()
	}
	return value, s, err
}

// take waits for this session's turn at the reader.
func (s *session) take() error {
	err := s.r.take(s.ctx)
	s.turn = err == nil
	return err
}

// leave ends the turn.
func (s *session) leave() {
	if s.turn {
		s.turn = false
		s.r.give()
	}
}

// askAlone waits until nobody else is asked for the PIN. It reports whether that
// was so from the beginning; if not, the PIN may be known to the card by now. It is
// called without a turn, as who is asked may wait for one.
func (s *session) askAlone() (first bool, err error) {
	select {
	case s.r.asking <- struct{}{}:
		s.asking = true
		return true, nil
	default:
	}
	select {
	case s.r.asking <- struct{}{}:
		<-s.r.asking
		return false, nil
	case <-s.ctx.Done():
		return false, ended(s.ctx)
	}
}

// asked ends the time in which nobody else is asked.
func (s *session) asked() {
	if s.asking {
		s.asking = false
		<-s.r.asking
	}
}

// find returns the reader that holds the card, or held it last.
func (s *session) find() (*reader, error) {
	if r, ok := s.sys.whereabouts(s.target.serial); ok {
		return r, nil
	}
	s.at(stageOpen)
	cards, err := s.sys.scan(s.ctx, search{filter: s.target.filter, wait: s.target.wait, serial: s.target.serial})
	if err != nil {
		return nil, err
	}
	return s.sys.reader(cards[0].Reader), nil
}

// conn returns the connection to the card.
func (s *session) conn() (*conn, error) {
	if err := s.ctx.Err(); err != nil {
		return nil, ended(s.ctx) // nobody waits for what would come
	}
	s.at(stageOpen)
	c, err := s.r.connect(s.ctx, s.target.wait)
	if err != nil {
		return nil, err
	}
	if c.card.Serial != s.target.serial {
		return nil, errElsewhere
	}
	s.met = true
	s.at(stageCard)
	s.sys.remember(c.card)
	return c, nil
}

// slot returns what the card knows of the key in a slot, or [ErrNoKey].
func (c *conn) slot(slot Slot) (slotInfo, error) {
	if info, ok := c.slots[slot]; ok {
		return info, nil
	}
	read := c.slotByAttestation
	if c.card.Firmware.hasMetadata() {
		read = c.slotByMetadata
	}
	info, err := read(slot)
	if err != nil {
		return slotInfo{}, err
	}
	switch info.public.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey, *rsa.PublicKey:
	default:
		return slotInfo{}, becausef(ErrUnsupported, "the slot holds a %T, which does not sign", info.public)
	}
	c.slots[slot] = info
	return info, nil
}

func (c *conn) slotByMetadata(slot Slot) (slotInfo, error) {
	info, err := c.keyInfo(slot)
	switch statusOf(err) {
	case statusNoReference, statusNotFound:
		return slotInfo{}, because(ErrNoKey, err)
	}
	return info, err
}

// slotByAttestation is for firmware before 5.3. It cannot attest imported keys:
// of those, the certificate that usually comes with them tells the public key,
// and nothing tells the policies.
func (c *conn) slotByAttestation(slot Slot) (slotInfo, error) {
	cert, err := c.attest(slot)
	switch statusOf(err) {
	case statusIncorrectData, statusUnknownINS:
		cert, err = c.certificate(slot)
		if statusOf(err) == statusNotFound {
			return slotInfo{}, becausef(ErrNoKey, "it may hold an imported key without certificate, which firmware %v cannot show", c.card.Firmware)
		}
		if err != nil {
			return slotInfo{}, err
		}
		return slotInfo{public: cert.PublicKey}, nil
	}
	if err != nil {
		return slotInfo{}, err
	}
	a, err := parseAttestation(cert)
	if err != nil {
		return slotInfo{}, because(ErrAttestation, err)
	}
	return slotInfo{a.PublicKey, a.PINPolicy, a.TouchPolicy}, nil
}
