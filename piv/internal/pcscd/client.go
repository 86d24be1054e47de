//go:build linux

package pcscd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"
)

// A PC/SC client that speaks the protocol of pcscd itself, version 4.4 (pcsc-lite, winscard_msg.h), which daemons from 1.8.24 on
// take. It is here so that the package needs no cgo, and because a foreign program that holds a card has to be able to die
// in the middle of it.

const (
	pcscMajor, pcscMinor = 4, 4

	pcscEstablish    = 0x01
	pcscConnect      = 0x04
	pcscDisconnect   = 0x06
	pcscBegin        = 0x07
	pcscEnd          = 0x08
	pcscTransmit     = 0x09
	pcscVersion      = 0x11
	pcscReaderStates = 0x12

	pcscShareExclusive = 1
	pcscShareShared    = 2
	pcscProtocolT1     = 2
	pcscLeaveCard      = 0

	pcscMaxReaders = 16
	pcscMaxAnswer  = 65538
)

// pcscSocket is where pcscd listens. The path is compiled into it.
const pcscSocket = "/run/pcscd/pcscd.comm"

// PCSCError is an error code of PC/SC, such as 0x8010000B for a sharing violation.
type PCSCError uint32

// Error returns the code in hexadecimal.
func (e PCSCError) Error() string { return fmt.Sprintf("PC/SC error 0x%08X", uint32(e)) }

// pcscClient is one connection to pcscd: what it calls a context.
type pcscClient struct {
	conn    net.Conn
	context uint32
}

func dialPCSC(ctx context.Context) (*pcscClient, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", pcscSocket)
	if err != nil {
		return nil, err
	}
	c := &pcscClient{conn: conn}
	stop := c.bound(ctx)
	defer stop()
	version := struct{ Major, Minor, RV uint32 }{pcscMajor, pcscMinor, 0}
	if err := c.call(pcscVersion, &version, &version.RV); err != nil {
		c.close()
		return nil, fmt.Errorf("pivtest: pcscd of another protocol version: %w", err)
	}
	return c, nil
}

func (c *pcscClient) close() { _ = c.conn.Close() }

// bound ends what c waits for when ctx ends. The client cannot be used after that.
func (c *pcscClient) bound(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
}

// call sends a message and reads the answer into it: pcscd answers with the same structure.
func (c *pcscClient) call(command uint32, message any, rv *uint32) error {
	if err := c.send(command, message, nil); err != nil {
		return err
	}
	if err := binary.Read(c.conn, binary.NativeEndian, message); err != nil {
		return err
	}
	if *rv != 0 {
		return PCSCError(*rv)
	}
	return nil
}

func (c *pcscClient) send(command uint32, message any, extra []byte) error {
	var body bytes.Buffer
	if message != nil {
		if err := binary.Write(&body, binary.NativeEndian, message); err != nil {
			return err
		}
	}
	head := binary.NativeEndian.AppendUint32(nil, uint32(body.Len()))
	head = binary.NativeEndian.AppendUint32(head, command)
	_, err := c.conn.Write(slices.Concat(head, body.Bytes(), extra))
	return err
}

func (c *pcscClient) establish() error {
	const scopeSystem = 2
	m := struct{ Scope, Context, RV uint32 }{Scope: scopeSystem}
	err := c.call(pcscEstablish, &m, &m.RV)
	c.context = m.Context
	return err
}

func (c *pcscClient) connect(reader string, share uint32) (card int32, err error) {
	m := struct {
		Context  uint32
		Reader   [128]byte
		Share    uint32
		Protocol uint32
		Card     int32
		Active   uint32
		RV       uint32
	}{Context: c.context, Share: share, Protocol: pcscProtocolT1}
	if len(reader) >= len(m.Reader) {
		return 0, errors.New("pivtest: reader name too long")
	}
	copy(m.Reader[:], reader)
	err = c.call(pcscConnect, &m, &m.RV)
	return m.Card, err
}

func (c *pcscClient) disconnect(card int32) error {
	m := struct {
		Card            int32
		Disposition, RV uint32
	}{Card: card, Disposition: pcscLeaveCard}
	return c.call(pcscDisconnect, &m, &m.RV)
}

func (c *pcscClient) begin(card int32) error {
	m := struct {
		Card int32
		RV   uint32
	}{Card: card}
	return c.call(pcscBegin, &m, &m.RV)
}

func (c *pcscClient) end(card int32) error {
	m := struct {
		Card            int32
		Disposition, RV uint32
	}{Card: card, Disposition: pcscLeaveCard}
	return c.call(pcscEnd, &m, &m.RV)
}

func (c *pcscClient) transmit(card int32, apdu []byte) ([]byte, error) {
	const pciLen = 16 // of SCARD_IO_REQUEST; pcscd looks at the protocol only
	m := struct {
		Card                 int32
		SendProto, SendPCI   uint32
		SendLen              uint32
		RecvProto, RecvPCI   uint32
		RecvLen, ReturnValue uint32
	}{Card: card, SendProto: pcscProtocolT1, SendPCI: pciLen, SendLen: uint32(len(apdu)), RecvPCI: pciLen, RecvLen: pcscMaxAnswer}
	if err := c.send(pcscTransmit, &m, apdu); err != nil {
		return nil, err
	}
	if err := binary.Read(c.conn, binary.NativeEndian, &m); err != nil {
		return nil, err
	}
	if m.ReturnValue != 0 {
		return nil, PCSCError(m.ReturnValue)
	}
	if m.RecvLen > pcscMaxAnswer {
		return nil, errors.New("pivtest: answer longer than asked for")
	}
	answer := make([]byte, m.RecvLen)
	_, err := io.ReadFull(c.conn, answer)
	return answer, err
}

// readerState is one of the sixteen entries of pcscd's public list.
type readerState struct {
	Name     [128]byte
	Events   uint32
	State    uint32
	Sharing  int32
	ATR      [33]byte
	_        [3]byte
	ATRLen   uint32
	Protocol uint32
}

const (
	stateAbsent  = 0x0002
	statePresent = 0x0004
	statePowered = 0x0010
)

func (s readerState) name() string { return string(bytes.TrimRight(s.Name[:], "\x00")) }
func (s readerState) absent() bool { return s.State&stateAbsent != 0 }
func (s readerState) powered() bool {
	return s.State&statePresent != 0 && s.State&statePowered != 0 && s.ATRLen > 0
}

func (c *pcscClient) readers() ([]readerState, error) {
	if err := c.send(pcscReaderStates, nil, nil); err != nil {
		return nil, err
	}
	var all [pcscMaxReaders]readerState
	if err := binary.Read(c.conn, binary.NativeEndian, &all); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all[:], func(s readerState) bool { return s.name() == "" }), nil
}

// readers asks a running pcscd for its readers.
func readers(ctx context.Context) ([]readerState, error) {
	c, err := dialPCSC(ctx)
	if err != nil {
		return nil, err
	}
	defer c.close()
	stop := c.bound(ctx)
	defer stop()
	return c.readers()
}

// waitReader waits until the state of a reader is as wanted.
func waitReader(ctx context.Context, name string, wanted func(readerState) bool) (readerState, error) {
	const interval = 20 * time.Millisecond
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		all, err := readers(ctx)
		if err != nil {
			return readerState{}, fmt.Errorf("pivtest: asking pcscd for its readers: %w", err)
		}
		if i := slices.IndexFunc(all, func(s readerState) bool { return s.name() == name }); i >= 0 && wanted(all[i]) {
			return all[i], nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return readerState{}, fmt.Errorf("pivtest: reader %q did not get into the state that was waited for: %w", name, ctx.Err())
		}
	}
}
