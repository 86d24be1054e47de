package pivtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// insertTimeout bounds how long a reader may take to notice a card. vpcd looks every 400 ms.
const insertTimeout = 15 * time.Second

var errInserted = errors.New("pivtest: the card is in a reader already")

// link is the card's connection to a reader.
type link struct {
	mu      sync.Mutex
	addr    string
	reader  string  // name in PC/SC; "" if unknown
	events  *uint32 // event counter of that reader when a card was last seen in it; 0 if never
	conn    net.Conn
	cancel  context.CancelFunc // stops the command that runs
	seen    chan struct{}      // closed when the reader has asked for the ATR
	stopped chan struct{}      // closed when serving has ended
}

func (l *link) readerName() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reader
}

// Insert puts the card into its reader and waits until the reader has noticed; a card that [Start] made waits until PC/SC
// lists it. It is not for TouchFuncs.
func (c *Card) Insert(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, insertTimeout)
	defer cancel()
	if c.Inserted() {
		return errInserted
	}
	reader := c.link.readerName()
	if reader != "" { // a card put back before PC/SC has missed it would be taken for the one that was never gone
		if err := c.WaitRemoved(ctx); err != nil {
			return err
		}
	}
	seen, err := c.connect(ctx)
	if err != nil {
		return err
	}
	select {
	case <-seen:
	case <-ctx.Done():
		c.Remove()
		return fmt.Errorf("pivtest: no reader at %s took the card (is another one in it?): %w", c.link.addr, ctx.Err())
	}
	if reader == "" {
		return nil
	}
	state, err := waitReader(ctx, reader, readerState.powered)
	if err == nil {
		*c.link.events = state.Events
	}
	return err
}

func (c *Card) connect(ctx context.Context) (<-chan struct{}, error) {
	if err := c.Wait(ctx); err != nil {
		return nil, err
	}
	l := &c.link
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", l.addr)
	if err != nil {
		return nil, fmt.Errorf("pivtest: no virtual reader: %w", err)
	}
	serveCtx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // the card stays when Insert has returned
	seen, done := make(chan struct{}), make(chan struct{})
	l.mu.Lock()
	l.conn, l.cancel, l.seen, l.stopped = conn, cancel, seen, done
	l.mu.Unlock()
	go func() {
		defer close(done)
		defer cancel()
		c.serve(serveCtx, conn)
		l.drop(conn)
	}()
	return seen, nil
}

// Remove pulls the card out of its reader, in the middle of a command if one runs: the program that sent it gets a transport
// error. It returns at once; PC/SC notices up to 400 ms later. Removing a card that is in no reader does nothing.
func (c *Card) Remove() { c.link.remove() }

// RemoveDuring pulls the card when the next command with the instruction reaches it, before it is carried out.
func (c *Card) RemoveDuring(ins byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.removeDuring[ins] = true
}

// Inserted reports whether the card is in a reader.
func (c *Card) Inserted() bool {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	return c.link.conn != nil
}

// Wait waits until the card is in no reader any more: it was removed, or the reader is gone.
func (c *Card) Wait(ctx context.Context) error {
	select {
	case <-c.link.ended():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// WaitRemoved waits until PC/SC has noticed that the card was removed. It works for cards that [Start] made.
//
// It is not enough that the reader is listed as empty: pcscd says so too when it could not reset a card for a program that
// died, and goes on to believe in the card. Only what it has noticed itself does it count as an event.
func (c *Card) WaitRemoved(ctx context.Context) error {
	reader := c.Reader()
	if reader == "" {
		return errors.New("pivtest: the card is in no reader that PC/SC knows")
	}
	_, err := waitReader(ctx, reader, func(s readerState) bool {
		return s.absent() && (*c.link.events == 0 || s.Events != *c.link.events)
	})
	return err
}

// Close removes the card and waits until nothing of it runs any more. It is not for TouchFuncs.
func (c *Card) Close() {
	c.Remove()
	<-c.link.ended()
}

// ended returns a channel that is closed when nothing serves a reader.
func (l *link) ended() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped == nil { // never inserted
		l.stopped = make(chan struct{})
		close(l.stopped)
	}
	return l.stopped
}

func (l *link) remove() {
	l.mu.Lock()
	conn := l.conn
	l.mu.Unlock()
	if conn != nil {
		l.drop(conn)
	}
}

// drop ends a connection so that the driver sees an error, as with a card that is gone: by a reset, since after an orderly end
// the next command would seem to be sent. If the driver waits for an answer, it takes any end of the connection for an answer
// without bytes, unless it comes after the length of the answer; so it gets a length first. It gets one always, since a
// command may be on its way to the card.
func (l *link) drop(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != conn {
		return
	}
	_, _ = conn.Write([]byte{0, 2})
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
	l.cancel()
	l.conn = nil
}
