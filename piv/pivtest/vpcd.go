package pivtest

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
)

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
	c.unplugged()
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
		c.link.markSeen()
		return c.ATR(), nil
	}
	return nil, nil
}

func (l *link) markSeen() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.seen:
	default:
		close(l.seen)
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
