//go:build linux

package pcscd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/ycauth/ycauth-go/piv/internal/virtual"
)

// insertTimeout bounds how long a reader may take to notice a card. vpcd looks every 400 ms.
const insertTimeout = 15 * time.Second

var errInserted = errors.New("pivtest: the card is in a reader already")

// Card is a virtual YubiKey with a reader to go into. Its methods may be called from any goroutine.
type Card struct {
	*virtual.Card

	addr   string
	reader string  // name in PC/SC; "" if unknown
	events *uint32 // event counter of that reader when a card was last seen in it; 0 if never

	mu      sync.Mutex
	conn    net.Conn
	cancel  context.CancelFunc // stops the command that runs
	seen    chan struct{}      // closed when the reader has asked for the ATR
	stopped chan struct{}      // closed when serving has ended
}

// New makes a card for the vpcd reader that listens at addr.
func New(cfg virtual.Config, addr string) (*Card, error) {
	card, err := virtual.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("pivtest: %w", err)
	}
	return &Card{Card: card, addr: addr}, nil
}

// Reader returns the name of the PC/SC reader the card was put into by [Start], "" without it.
func (c *Card) Reader() string { return c.reader }

// Insert puts the card into its reader and waits until the reader has noticed; a card that [Start] made waits until PC/SC
// lists it. It is not for TouchFuncs.
func (c *Card) Insert(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, insertTimeout)
	defer cancel()
	if c.Inserted() {
		return errInserted
	}
	if c.reader != "" { // a card put back before PC/SC has missed it would be taken for the one that was never gone
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
		return fmt.Errorf("pivtest: no reader at %s took the card (is another one in it?): %w", c.addr, ctx.Err())
	}
	if c.reader == "" {
		return nil
	}
	state, err := waitReader(ctx, c.reader, readerState.powered)
	if err == nil {
		*c.events = state.Events
	}
	return err
}

func (c *Card) connect(ctx context.Context) (<-chan struct{}, error) {
	if err := c.Wait(ctx); err != nil {
		return nil, err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", c.addr)
	if err != nil {
		return nil, fmt.Errorf("pivtest: no virtual reader: %w", err)
	}
	serveCtx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // the card stays when Insert has returned
	seen, done := make(chan struct{}), make(chan struct{})
	c.mu.Lock()
	c.conn, c.cancel, c.seen, c.stopped = conn, cancel, seen, done
	c.mu.Unlock()
	go func() {
		defer close(done)
		defer cancel()
		c.serve(serveCtx, conn)
		c.drop(conn)
	}()
	return seen, nil
}

// Remove pulls the card out of its reader, in the middle of a command if one runs: the program that sent it gets a transport
// error. It returns at once; PC/SC notices up to 400 ms later. Removing a card that is in no reader does nothing.
func (c *Card) Remove() {
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	if conn != nil {
		c.drop(conn)
	}
}

// Inserted reports whether the card is in a reader.
func (c *Card) Inserted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn != nil
}

// Wait waits until the card is in no reader any more: it was removed, or the reader is gone.
func (c *Card) Wait(ctx context.Context) error {
	select {
	case <-c.ended():
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
	if c.reader == "" {
		return errors.New("pivtest: the card is in no reader that PC/SC knows")
	}
	_, err := waitReader(ctx, c.reader, func(s readerState) bool {
		return s.absent() && (*c.events == 0 || s.Events != *c.events)
	})
	return err
}

// Close removes the card and waits until nothing of it runs any more. It is not for TouchFuncs.
func (c *Card) Close() {
	c.Remove()
	<-c.ended()
}

// ended returns a channel that is closed when nothing serves a reader.
func (c *Card) ended() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped == nil { // never inserted
		c.stopped = make(chan struct{})
		close(c.stopped)
	}
	return c.stopped
}

// drop ends a connection so that the driver sees an error, as with a card that is gone: by a reset, since after an orderly end
// the next command would seem to be sent. If the driver waits for an answer, it takes any end of the connection for an answer
// without bytes, unless it comes after the length of the answer; so it gets a length first. It gets one always, since a
// command may be on its way to the card.
func (c *Card) drop(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != conn {
		return
	}
	_, _ = conn.Write([]byte{0, 2})
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
	c.cancel()
	c.conn = nil
}

// The vpcd protocol of vsmartcard: two bytes of length, then a command APDU, or one byte that says what happens to the card.
// The card answers APDUs and the request for its ATR, nothing else.
const (
	vpcdPowerOff = 0x00
	vpcdPowerOn  = 0x01
	vpcdReset    = 0x02
	vpcdATR      = 0x04

	vpcdMaxMessage = 0xffff
)

// serve answers the reader until the card is removed or the reader is gone.
func (c *Card) serve(ctx context.Context, conn net.Conn) {
	c.Unplug()
	for {
		if tcp, ok := conn.(*net.TCPConn); ok {
			quickAck(tcp)
		}
		message, err := readMessage(conn)
		if err != nil {
			return
		}
		answer, err := c.handleMessage(ctx, message)
		if err != nil {
			return
		}
		if answer != nil && writeMessage(conn, answer) != nil {
			return
		}
	}
}

func (c *Card) handleMessage(ctx context.Context, message []byte) ([]byte, error) {
	if len(message) != 1 {
		return c.Transmit(ctx, message)
	}
	switch message[0] {
	case vpcdPowerOff, vpcdPowerOn, vpcdReset:
		c.PowerCycle()
	case vpcdATR:
		c.markSeen()
		return c.ATR(), nil
	}
	return nil, nil
}

func (c *Card) markSeen() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.seen:
	default:
		close(c.seen)
	}
}

func readMessage(r io.Reader) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint16(head[:]))
	_, err := io.ReadFull(r, body)
	return body, err
}

func writeMessage(w io.Writer, body []byte) error {
	if len(body) > vpcdMaxMessage {
		return errors.New("pivtest: message longer than the protocol allows")
	}
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(body))), body...))
	return err
}

// quickAck acknowledges the next message at once. The driver sends without TCP_NODELAY, and does not wait for an answer to a
// reset, so that what follows it would wait some 40 ms for a delayed acknowledgement. Linux forgets the option now and then.
func quickAck(conn *net.TCPConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
	})
}
