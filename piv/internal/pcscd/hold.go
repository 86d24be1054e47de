//go:build linux

package pcscd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// HoldOptions says how a foreign program holds a card.
type HoldOptions struct {
	// Exclusive connects in exclusive mode. Optional; shared mode by default.
	Exclusive bool
	// Transaction begins a transaction and stays in it. Optional.
	Transaction bool
}

// Holder is a foreign program that has a card open. It is a PC/SC client of its own, with a connection to pcscd that has
// nothing to do with the program under test, as gpg's scdaemon or a browser would be. Its methods may be called from any
// goroutine.
type Holder struct {
	mu          sync.Mutex
	client      *pcscClient
	card        int32
	transaction bool
}

// Hold lets a foreign program open the card in its reader. It waits for a transaction of another program to end, but not
// longer than ctx. If the card is open exclusively, it fails with PCSCError(0x8010000B), a sharing violation. The card must
// come from [Start].
func (c *Card) Hold(ctx context.Context, opts HoldOptions) (*Holder, error) {
	if c.reader == "" {
		return nil, errors.New("pivtest: the card is in no reader that PC/SC knows")
	}
	client, err := dialPCSC(ctx)
	if err != nil {
		return nil, err
	}
	h := &Holder{client: client, transaction: opts.Transaction}
	if err := h.open(ctx, c.reader, opts); err != nil {
		client.close()
		return nil, fmt.Errorf("pivtest: holding the card: %w", err)
	}
	return h, nil
}

func (h *Holder) open(ctx context.Context, reader string, opts HoldOptions) error {
	stop := h.client.bound(ctx)
	defer stop()
	if err := h.client.establish(); err != nil {
		return err
	}
	share := uint32(pcscShareShared)
	if opts.Exclusive {
		share = pcscShareExclusive
	}
	var err error
	if h.card, err = h.client.connect(reader, share); err != nil {
		return err
	}
	if opts.Transaction {
		return h.client.begin(h.card)
	}
	return nil
}

var errReleased = errors.New("pivtest: the card is not held any more")

// Transmit sends a command to the card, as the foreign program would. If ctx ends before the card answers, the program is as
// good as killed. An error of PC/SC is a [PCSCError].
func (h *Holder) Transmit(ctx context.Context, apdu []byte) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.client == nil {
		return nil, errReleased
	}
	stop := h.client.bound(ctx)
	defer stop()
	return h.client.transmit(h.card, apdu)
}

// Release ends the transaction, if any, and closes the card in good order: when it returns, another program can open it. A
// second call does nothing.
func (h *Holder) Release() error {
	const timeout = 10 * time.Second
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.client == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	defer h.client.bound(ctx)()
	var errs []error
	if h.transaction {
		errs = append(errs, h.client.end(h.card))
	}
	errs = append(errs, h.client.disconnect(h.card))
	h.client.close()
	h.client = nil
	return errors.Join(errs...)
}

// Kill ends the foreign program as a signal would: its connection to pcscd breaks with the card open. pcscd cleans up in its own
// time, and resets a card that was left in a transaction.
func (h *Holder) Kill() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.client != nil {
		h.client.close()
		h.client = nil
	}
}
