package piv

import (
	"context"
	"fmt"
)

// Card is a YubiKey that is plugged in.
type Card struct {
	// Serial is the serial number, as printed on the card.
	Serial uint32

	// Firmware is the firmware version.
	Firmware Version

	// FormFactor is the shape; 0 where the card does not tell.
	FormFactor FormFactor

	// Reader is the name of the PC/SC reader that the card is in. It changes with
	// the port and the operating system: do not store it.
	Reader string
}

// String returns the card in words, such as "YubiKey 12345678, firmware 5.7.1".
func (c Card) String() string {
	return fmt.Sprintf("YubiKey %d, firmware %v", c.Serial, c.Firmware)
}

// Cards lists the YubiKeys that are plugged in, ordered by reader. Each is opened
// for a moment.
//
// An empty list comes with [ErrNoCard]. Cards that could be read are returned
// even with an error, which then says what kept it from others: [ErrCardBusy], or
// [ErrUnsupported] for a card without PIV. Further errors: [ErrNoService], ctx's.
func Cards(ctx context.Context) ([]Card, error) { return std.cards(ctx) }

func (s *system) cards(ctx context.Context) ([]Card, error) {
	o := Options{}.withDefaults()
	cards, err := run(ctx, func(ctx context.Context, p *progress) ([]Card, error) {
		p.at(stageOpen)
		cards, err := s.scan(ctx, search{filter: o.Reader, wait: o.patience(p), shapes: true})
		return cards, explain(err, ErrNoCard)
	})
	if err != nil {
		err = &Error{Op: "list", Err: err}
	}
	return cards, err
}
