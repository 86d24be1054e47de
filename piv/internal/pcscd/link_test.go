//go:build linux

package pcscd_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ycauth/ycauth-go/piv/internal/pcscd"
	"github.com/ycauth/ycauth-go/piv/internal/virtual"
)

// fakeReader is the driver's side of the vpcd protocol.
type fakeReader struct {
	t        *testing.T
	listener net.Listener
	conn     net.Conn
}

func newFakeReader(t *testing.T) *fakeReader {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return &fakeReader{t: t, listener: listener}
}

func (r *fakeReader) addr() string { return r.listener.Addr().String() }

// accept takes the card that is put in, and asks for its ATR.
func (r *fakeReader) accept() {
	r.t.Helper()
	var err error
	if r.conn, err = r.listener.Accept(); err != nil {
		r.t.Error(err)
		return
	}
	r.t.Cleanup(func() { r.conn.Close() })
	_ = r.conn.SetDeadline(time.Now().Add(time.Minute))
	r.write([]byte{4})
	if atr := r.read(); len(atr) == 0 || atr[0] != 0x3b {
		r.t.Errorf("ATR %x", atr)
	}
}

func (r *fakeReader) write(body []byte) {
	r.t.Helper()
	if _, err := r.conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(body))), body...)); err != nil {
		r.t.Error(err)
	}
}

func (r *fakeReader) read() []byte {
	r.t.Helper()
	body, err := r.tryRead()
	if err != nil {
		r.t.Error(err)
	}
	return body
}

func (r *fakeReader) tryRead() ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r.conn, head[:]); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint16(head[:]))
	_, err := io.ReadFull(r.conn, body)
	return body, err
}

// exchange sends a command and compares the answer.
func (r *fakeReader) exchange(apdu, want string) {
	r.t.Helper()
	r.write(unhex(r.t, apdu))
	if got := r.read(); !bytes.Equal(got, unhex(r.t, want)) {
		r.t.Errorf("%s: answer %X, want %s", apdu, got, want)
	}
}

// insert puts a new card into the reader.
func (r *fakeReader) insert(cfg virtual.Config) *pcscd.Card {
	r.t.Helper()
	card, err := pcscd.New(cfg, r.addr())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(card.Close)
	r.putBack(card)
	return card
}

func (r *fakeReader) putBack(card *pcscd.Card) {
	r.t.Helper()
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		r.accept()
	}()
	if err := card.Insert(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	<-accepted
}

func TestLink(t *testing.T) {
	defer goleak.VerifyNone(t)
	r := newFakeReader(t)
	card := r.insert(virtual.Config{})
	if !card.Inserted() || card.Reader() != "" {
		t.Errorf("inserted: %v, reader %q", card.Inserted(), card.Reader())
	}
	if err := card.Insert(t.Context()); err == nil {
		t.Error("inserted twice")
	}
	r.exchange(selectPIV, "61114F0600001000010079074F05A000000308 9000")
	r.exchange(verifyPIN, "9000")
	for _, power := range []byte{0, 1, 2} { // off, on, reset: no answer, and nothing remembered
		r.write([]byte{power})
		r.exchange(getVersion, "6D00")
		r.exchange(selectPIV, "61114F0600001000010079074F05A000000308 9000")
		r.exchange(verifyEmpty, "63C3")
		r.exchange(verifyPIN, "9000")
	}
	r.write([]byte{4})
	if atr := r.read(); !bytes.Equal(atr, card.ATR()) || !bytes.Equal(atr, unhex(t, "3BFD1300008131FE158073C021C057597562694B657940")) {
		t.Errorf("ATR %X", atr)
	}
	card.Close()
	if card.Inserted() {
		t.Error("still inserted")
	}
	card.Remove() // again does nothing
}

// TestPulledDuringCommand: the driver waits for an answer and gets a reset connection, then the card is put back with what it
// has in memory.
func TestPulledDuringCommand(t *testing.T) {
	pulls := map[string]func(*pcscd.Card){
		"before it runs": func(card *pcscd.Card) { card.RemoveDuring(virtual.InsAuthenticate) },
		"while it blinks": func(card *pcscd.Card) {
			card.SetTouch(func(ctx context.Context) bool {
				card.Remove()
				<-ctx.Done()
				return false
			})
		},
	}
	for name, pull := range pulls {
		t.Run(name, func(t *testing.T) {
			defer goleak.VerifyNone(t)
			r := newFakeReader(t)
			card := r.insert(virtual.Config{})
			if _, err := card.GenerateKey(virtual.SlotAuthentication, virtual.P256, virtual.PINNever, virtual.TouchAlways); err != nil {
				t.Fatal(err)
			}
			r.exchange(selectPIV, "61114F0600001000010079074F05A000000308 9000")
			pull(card)
			r.write(unhex(t, signP256))
			if answer, err := r.tryRead(); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("answer %x, %v; want a reset connection", answer, err)
			}
			if err := card.Wait(t.Context()); err != nil {
				t.Error(err)
			}
			card.SetTouch(virtual.TouchAfter(0))
			r.putBack(card)
			r.exchange(getVersion, "6D00")
			r.exchange(selectPIV, "61114F0600001000010079074F05A000000308 9000")
			r.write(unhex(t, signP256))
			if answer := r.read(); !bytes.HasSuffix(answer, []byte{0x90, 0}) {
				t.Errorf("answer %x after putting it back", answer)
			}
			card.Close()
		})
	}
}

func TestTouchIsNotCachedWithoutPower(t *testing.T) {
	r := newFakeReader(t)
	touches := 0
	card := r.insert(virtual.Config{Touch: func(context.Context) bool { touches++; return true }})
	if _, err := card.GenerateKey(virtual.SlotAuthentication, virtual.P256, virtual.PINNever, virtual.TouchCached); err != nil {
		t.Fatal(err)
	}
	sign := func() {
		t.Helper()
		r.exchange(selectPIV, "61114F0600001000010079074F05A000000308 9000")
		r.write(unhex(t, signP256))
		if answer := r.read(); !bytes.HasSuffix(answer, []byte{0x90, 0}) {
			t.Errorf("answer %x", answer)
		}
	}
	sign()
	sign()
	card.Remove()
	r.putBack(card)
	sign()
	if touches != 2 {
		t.Errorf("blinked %d times", touches)
	}
}

func TestReaderGoes(t *testing.T) {
	defer goleak.VerifyNone(t)
	for name, last := range map[string][]byte{"between messages": nil, "inside a length": {0}, "inside a message": {0, 5, 0}} {
		t.Run(name, func(t *testing.T) {
			r := newFakeReader(t)
			card := r.insert(virtual.Config{})
			if _, err := r.conn.Write(last); err != nil {
				t.Fatal(err)
			}
			r.conn.Close()
			if err := card.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			if card.Inserted() {
				t.Error("still inserted")
			}
			card.Close()
		})
	}
}

func TestInsertFails(t *testing.T) {
	defer goleak.VerifyNone(t)
	t.Run("no reader", func(t *testing.T) {
		r := newFakeReader(t)
		r.listener.Close()
		card, err := pcscd.New(virtual.Config{}, r.addr())
		if err != nil {
			t.Fatal(err)
		}
		if err := card.Insert(t.Context()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("Insert() = %v", err)
		}
	})
	t.Run("reader in use", func(t *testing.T) {
		r := newFakeReader(t) // connects, but is never asked for its ATR
		card, err := pcscd.New(virtual.Config{}, r.addr())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := card.Insert(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Insert() = %v", err)
		}
		if card.Inserted() {
			t.Error("inserted")
		}
		card.Close()
	})
	t.Run("not in PC/SC", func(t *testing.T) {
		card, err := pcscd.New(virtual.Config{}, pcscd.DefaultAddr)
		if err != nil {
			t.Fatal(err)
		}
		if err := card.WaitRemoved(t.Context()); err == nil {
			t.Error("WaitRemoved of a card that is in no reader succeeded")
		}
		if _, err := card.Hold(t.Context(), pcscd.HoldOptions{}); err == nil {
			t.Error("Hold of a card that is in no reader succeeded")
		}
		if err := card.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		card.Close()
	})
}
