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

	// maxHold is how long a card stays connected while signatures follow each
	// other without a pause. Then it is let go of for letIn, which is long enough
	// for a program that waits for it: pcscd looks every 100 ms whether a
	// transaction has ended, and programs that retry do it about as often.
	maxHold = 2 * time.Second
	letIn   = 500 * time.Millisecond

	// busyRetry is the time between two attempts at a card that another program
	// holds, or that does not answer.
	busyRetry = 50 * time.Millisecond

	// busyDelay is how long it takes to connect to a card that nobody else uses, at
	// most. PC/SC does not say that it waits for the end of a transaction.
	busyDelay = 500 * time.Millisecond

	// recovery is how long a card may fail to answer when it is opened. It does
	// for a moment after a WebAuthn touch, and when it is pulled out PC/SC can
	// take that long to notice.
	recovery = 2 * time.Second
)

// reader is the one place of this process from which the card in a reader is
// used. PC/SC connections are not safe for concurrent use, and two of them would
// wait for each other's transaction.
type reader struct {
	name    string
	backend backend

	// turn holds a value while somebody uses the reader. It guards what follows;
	// a channel, so that waiting for it can be given up.
	turn chan struct{}

	conn    *conn       // nil while the card is free for others
	since   time.Time   // when conn was made
	away    time.Time   // do not connect before
	idle    *time.Timer // ends the grace period; nil before the first turn
	opening *opening    // an attempt to connect that nobody has seen the end of
	visits  uint64      // turns taken so far

	// asking holds a value while a person is asked for the PIN. The turn is given
	// up meanwhile, but two questions at once would be one too many.
	asking chan struct{}
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

	factory      bool // the PIN is the factory's
	factoryKnown bool // as far as the card tells
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

// give ends a turn. The connection stays for the grace period, unless it is time
// to let others in.
func (r *reader) give() {
	if r.conn != nil && time.Since(r.since) >= maxHold {
		r.drop()
		r.away = time.Now().Add(letIn)
	}
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

// patience is how long to wait for other programs to let go of a card, and whom
// to tell.
type patience struct {
	limit time.Duration
	held  func()                              // called when there is such a program
	tell  func(context.Context) (done func()) // called when it has kept the card for busyDelay; done may be nil
}

// connect returns the connection to the card, and makes one if there is none. It
// waits for other programs to let go of the card.
func (r *reader) connect(ctx context.Context, p patience) (*conn, error) {
	if r.conn != nil {
		return r.conn, nil
	}
	if err := sleep(ctx, time.Until(r.away)); err != nil {
		return nil, err
	}
	w := waiting{patience: p, ctx: ctx, timeout: time.NewTimer(p.limit), delay: time.NewTimer(busyDelay)}
	defer w.stop()
	var failing time.Time // since when the card has not answered
	for {
		if r.opening == nil {
			r.opening = r.open()
		}
		if err := w.until(r.opening.done); err != nil {
			return nil, err
		}
		o := r.opening
		r.opening = nil
		switch {
		case o.err == nil:
			r.conn, r.since = o.conn, time.Now()
			return r.conn, nil
		case pcscCode(o.err) == pcscSharingViolation:
			failing = time.Time{}
			w.busy = o.err
			p.held()
		case !silent(o.err):
			return nil, o.err
		case failing.IsZero():
			failing = time.Now()
		case time.Since(failing) >= recovery:
			return nil, o.err
		}
		if err := w.pause(); err != nil {
			return nil, err
		}
	}
}

// waiting is a wait for other programs.
type waiting struct {
	patience
	ctx     context.Context
	timeout *time.Timer
	delay   *time.Timer
	busy    error // how it is known that there is another program; nil: it is not
	done    func()
}

// until waits for a channel to be closed. Its error is [ErrCardBusy] where another
// program is the reason that it was not.
func (w *waiting) until(event <-chan struct{}) error {
	for {
		select {
		case <-event:
			return nil
		case <-w.ctx.Done():
			if w.busy == nil {
				return ended(w.ctx)
			}
			return because(ErrCardBusy, fmt.Errorf("%w: %w", ended(w.ctx), w.busy))
		case <-w.timeout.C:
			return becausef(ErrCardBusy, "waited %v", w.limit)
		case <-w.delay.C:
			if w.busy == nil {
				w.busy = errors.New("it does not end its transaction")
			}
			w.held()
			w.done = w.tell(w.ctx)
		}
	}
}

func (w *waiting) pause() error {
	over := make(chan struct{})
	timer := time.AfterFunc(busyRetry, func() { close(over) })
	defer timer.Stop()
	return w.until(over)
}

func (w *waiting) stop() {
	w.timeout.Stop()
	w.delay.Stop()
	if w.done != nil {
		w.done()
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
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

var errNoSerial = errors.New("the card hides its serial number; show it with ykman otp settings --serial-api-visible")

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
	c.card.Serial, err = t.serial()
	switch {
	case err == nil && c.card.Serial == 0:
		err = because(ErrUnsupported, errNoSerial)
	case statusOf(err) != 0:
		err = because(ErrUnsupported, fmt.Errorf("%w: %w", errNoSerial, err))
	case err == nil:
		return c, nil
	}
	_ = t.close() // the first error is the one to report
	return nil, err
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
