package piv

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// grace is how long a card stays connected after a signature, for the next
	// one: long enough for the proofs of one login, which follow each other by a
	// round trip, short enough for other programs not to notice.
	grace = 300 * time.Millisecond

	// busyRetry is the time between two attempts at a card that another program
	// holds.
	busyRetry = 50 * time.Millisecond

	// settle is how long a reader is left alone after its card stopped to answer.
	// PC/SC can take that long to notice that a card was pulled out. go-piv
	// v2.6.0 keeps the connection to a card that goes away while it is opened,
	// and to PC/SC the reader is in use from then on, until the process ends.
	settle = 500 * time.Millisecond
)

// reader is the one place of this process from which the card in a reader is
// used. PC/SC connections are not safe for concurrent use, and one connection
// keeps out every other, of this process too.
type reader struct {
	name    string
	backend backend

	// turn holds a value while somebody uses the reader. It guards what follows;
	// a channel, so that waiting for it can be given up.
	turn chan struct{}

	conn    *conn       // nil while the card is free for others
	idle    *time.Timer // ends the grace period; nil before the first turn
	opening *opening    // an attempt to connect that nobody has seen the end of
	visits  uint64      // turns taken so far
	settled time.Time   // do not connect before

	// refused is why the card could not be opened the last time. If the reader is
	// in use since then, that may be ourselves; see settle.
	refused error
}

// opening is a connection on its way. PC/SC has no way to stop one.
type opening struct {
	done chan struct{} // closed when conn or err is set
	conn *conn
	err  error
}

// conn is a connection and what was learned through it.
type conn struct {
	token
	card  Card
	slots map[Slot]slotInfo
	pin   pinState
	tries int // PIN tries that the card allows at least; 0: unknown
}

// take waits for the reader to be free.
func (r *reader) take(ctx context.Context) error {
	select {
	case r.turn <- struct{}{}:
	case <-ctx.Done():
		return ended(ctx)
	}
	r.visits++
	if r.idle != nil {
		// Two timers that ended at once would take each other for somebody who
		// uses the reader, and the card would stay connected.
		r.idle.Stop()
	}
	return nil
}

// give ends a turn. The connection stays for the grace period.
func (r *reader) give() {
	if r.conn != nil || r.opening != nil {
		visit := r.visits
		r.idle = time.AfterFunc(grace, func() {
			r.ifFree(func() {
				if r.visits == visit { // nobody came since
					r.drop()
				}
			})
		})
	}
	<-r.turn
}

// ifFree calls fn in a turn of its own, unless somebody else has one.
func (r *reader) ifFree(fn func()) {
	select {
	case r.turn <- struct{}{}:
		fn()
		<-r.turn
	default:
	}
}

// connect returns the connection to the card, and makes one if there is none. It
// waits for other programs to let go of the card, for no longer than wait.
func (r *reader) connect(ctx context.Context, wait time.Duration) (*conn, error) {
	if r.conn != nil {
		return r.conn, nil
	}
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	if err := r.untilSettled(ctx); err != nil {
		return nil, err
	}
	for {
		if r.opening == nil {
			r.opening = r.open()
		}
		select {
		case <-r.opening.done:
		case <-ctx.Done():
			return nil, r.busy(ended(ctx))
		case <-timeout.C:
			return nil, r.busy(fmt.Errorf("waited %v", wait))
		}
		o := r.opening
		r.opening = nil
		if o.err == nil {
			r.conn, r.refused = o.conn, nil
			return r.conn, nil
		}
		if pcscCode(o.err) != pcscSharingViolation {
			r.lost(o.err)
			return nil, o.err
		}
		if errors.Is(r.refused, ErrUnsupported) {
			return nil, r.refused
		}
		select {
		case <-time.After(busyRetry):
		case <-ctx.Done():
			return nil, r.busy(ended(ctx))
		case <-timeout.C:
			return nil, r.busy(o.err)
		}
	}
}

func (r *reader) untilSettled(ctx context.Context) error {
	d := time.Until(r.settled)
	if d <= 0 {
		return nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ended(ctx)
	}
}

// open starts to connect.
func (r *reader) open() *opening {
	o := &opening{done: make(chan struct{})}
	go func() {
		o.conn, o.err = dial(r.backend, r.name)
		close(o.done)
		// Everybody who waited may have left meanwhile.
		r.ifFree(func() {
			if r.opening == o {
				r.drop()
			}
		})
	}()
	return o
}

// dial connects and asks the card who it is.
func dial(b backend, reader string) (*conn, error) {
	t, err := b.connect(reader)
	if statusOf(err) != 0 { // the answer to SELECT
		return nil, becausef(ErrUnsupported, "the card has no PIV application: %w", err)
	}
	if err != nil {
		return nil, err
	}
	c := &conn{token: t, slots: make(map[Slot]slotInfo)}
	c.card = Card{Firmware: t.version(), Reader: reader}
	if c.card.Serial, err = t.serial(); err != nil {
		_ = t.close() // the first error is the one to report
		return nil, err
	}
	return c, nil
}

// lost notes that the card did not answer, could not be opened, or is another.
func (r *reader) lost(err error) {
	r.drop()
	if gone(err) || errors.Is(err, errElsewhere) {
		return // PC/SC knows what is in the reader
	}
	r.refused = err
	r.settled = time.Now().Add(settle)
}

// busy is the error for a card that did not become free. It may be our own doing.
func (r *reader) busy(why error) error {
	if r.refused != nil {
		why = fmt.Errorf("%w; or this program itself since it lost the card, then restart it: %w", why, r.refused)
	}
	return because(ErrCardBusy, why)
}

// drop lets go of the card. A connection still on its way is dropped by whoever
// sees it arrive.
func (r *reader) drop() {
	if o := r.opening; o != nil {
		select {
		case <-o.done:
			r.conn, r.opening = o.conn, nil
		default:
		}
	}
	if r.conn != nil {
		_ = r.conn.close() // nothing depends on it: the card may be gone already
		r.conn = nil
	}
}
