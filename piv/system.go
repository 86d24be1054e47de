package piv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// system is every card of this machine as this process sees them.
type system struct {
	backend backend
	pins    refusals

	mu      sync.Mutex
	readers map[string]*reader
	seen    map[uint32]string     // where a card was last, by serial number
	forms   map[uint32]FormFactor // asking for it forgets the PIN: once is enough
}

// std is the one system of a process, so that all its keys share connections.
var std = newSystem(pcsc{})

func newSystem(b backend) *system {
	return &system{
		backend: b,
		readers: make(map[string]*reader),
		seen:    make(map[uint32]string),
		forms:   make(map[uint32]FormFactor),
	}
}

func (s *system) reader(name string) *reader {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.readers[name]
	if !ok {
		r = &reader{name: name, backend: s.backend, turn: make(chan struct{}, 1), asking: make(chan struct{}, 1)}
		s.readers[name] = r
	}
	return r
}

// whereabouts returns the reader in which a card was last.
func (s *system) whereabouts(serial uint32) (*reader, bool) {
	s.mu.Lock()
	name, ok := s.seen[serial]
	s.mu.Unlock()
	if !ok {
		return nil, false
	}
	return s.reader(name), true
}

func (s *system) remember(c Card) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[c.Serial] = c.Reader
}

func (s *system) forget(serial uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.seen, serial)
}

// search looks into the readers whose names contain filter.
type search struct {
	filter string
	wait   patience

	// serial ends the search when that card is found; 0: find all.
	serial uint32

	// shapes asks for form factors too.
	shapes bool
}

// absentError: no reader holds a card that is meant. Its text says what they do
// hold.
type absentError struct{ found string }

func (e *absentError) Error() string { return e.found }

// scan returns the cards it found, or why there is none. Cards come with an error
// where there may be more of them.
func (s *system) scan(ctx context.Context, q search) ([]Card, error) {
	names, err := s.backend.readers()
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		// Other cards are left alone, because to open them disturbs their users.
		return !strings.Contains(strings.ToLower(name), strings.ToLower(q.filter))
	})
	// All at once: one reader may be held by another program for ever.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type probe struct {
		card Card
		err  error
	}
	probes := make(chan probe, len(names))
	for _, name := range names {
		go func() {
			card, err := s.probe(ctx, s.reader(name), q)
			probes <- probe{card, err}
		}()
	}
	var cards []Card
	var errs []error
	for range names {
		p := <-probes
		switch {
		case p.err != nil:
			errs = append(errs, p.err)
		case p.card.Serial == q.serial:
			return []Card{p.card}, nil
		default:
			cards = append(cards, p.card)
		}
	}
	slices.SortFunc(cards, func(a, b Card) int { return strings.Compare(a.Reader, b.Reader) })
	err = unreadable(errs)
	switch {
	case err == nil && len(names) == 0:
		err = &absentError{fmt.Sprintf("no reader is named like %q", q.filter)}
	case err == nil && len(cards) == 0:
		err = &absentError{plural(len(names), "reader", "readers") + ", no card"}
	case err == nil && q.serial != 0:
		err = &absentError{"plugged in: " + serials(cards)}
	}
	if q.serial != 0 {
		cards = nil
	}
	return cards, err
}

// unreadable chooses among the errors of several readers the one that a person
// can do something about. An empty reader is none.
func unreadable(errs []error) error {
	var other error
	for _, err := range errs {
		switch {
		case errors.Is(err, ErrCardBusy):
			return err // it may be the card that is meant
		case !gone(err):
			other = err
		}
	}
	return other
}

func serials(cards []Card) string {
	texts := make([]string, len(cards))
	for i, c := range cards {
		texts[i] = strconv.FormatUint(uint64(c.Serial), 10)
	}
	return strings.Join(texts, ", ")
}

// probe asks the card in one reader who it is.
func (s *system) probe(ctx context.Context, r *reader, q search) (Card, error) {
	if err := r.take(ctx); err != nil {
		return Card{}, err
	}
	defer r.give()
	r.drop() // what is connected may have been pulled out since
	c, err := r.connect(ctx, q.wait)
	if err != nil {
		return Card{}, err
	}
	s.remember(c.card)
	if q.serial != 0 && q.serial != c.card.Serial {
		r.drop() // somebody else's
	}
	card := c.card
	if q.shapes {
		card.FormFactor = s.formFactor(c)
	}
	return card, nil
}

// formFactor returns a card's shape, 0 where it does not tell.
func (s *system) formFactor(c *conn) FormFactor {
	s.mu.Lock()
	f, ok := s.forms[c.card.Serial]
	s.mu.Unlock()
	if ok {
		return f
	}
	f, err := c.formFactor()
	c.leftApplication()
	if err != nil {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forms[c.card.Serial] = f
	return f
}

// only returns the serial number of the only card.
func (s *system) only(ctx context.Context, q search) (uint32, error) {
	cards, err := s.scan(ctx, q)
	switch {
	case len(cards) > 1:
		return 0, becausef(ErrSeveralCards, "%s", serials(cards))
	case len(cards) == 1 && errors.Is(err, ErrCardBusy):
		return 0, becausef(ErrSeveralCards, "%d, and one that cannot be asked: %w", cards[0].Serial, err)
	case len(cards) == 1:
		return cards[0].Serial, nil
	}
	return 0, err
}
