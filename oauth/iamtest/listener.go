package iamtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// A listener is one port and the HTTP server behind it.
type listener struct {
	net    net.Listener
	http   http.Server
	cancel context.CancelFunc
	served chan struct{} // closed when Serve has returned
	once   sync.Once

	mu   sync.Mutex
	open int           // connections
	none chan struct{} // closed while none is open
}

func listen(h http.Handler, logger *slog.Logger) (*listener, error) {
	n, err := new(net.ListenConfig).Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("iamtest: cannot listen: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &listener{net: n, cancel: cancel, served: make(chan struct{}), none: make(chan struct{})}
	close(l.none)
	l.http = http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnState:         l.track,
	}
	if logger != nil {
		l.http.ErrorLog = slog.NewLogLogger(logger.Handler(), slog.LevelError)
	}
	return l, nil
}

func (l *listener) track(_ net.Conn, state http.ConnState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch state {
	case http.StateNew:
		if l.open == 0 {
			l.none = make(chan struct{})
		}
		l.open++
	case http.StateClosed: // after the handler has returned
		l.open--
		if l.open == 0 {
			close(l.none)
		}
	}
}

// empty is closed once no connection is open.
func (l *listener) empty() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.none
}

// quiet waits until no connection is open, not even one that waits to be
// accepted: connections are accepted in the order in which they came, and so
// before the one that quiet makes.
func (l *listener) quiet(ctx context.Context) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp4", l.addr())
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) { // the server has seen that we are gone
		return cmp.Or(ctx.Err(), err)
	}
	select {
	case <-l.empty():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *listener) start() {
	go func() {
		defer close(l.served)
		_ = l.http.Serve(l.net) // ErrServerClosed
	}()
}

func (l *listener) addr() string { return l.net.Addr().String() }
func (l *listener) url() string  { return "http://" + l.addr() }

// close waits for Serve to return before it closes the connections a second
// time: one that was accepted in between is not known to the first Close.
func (l *listener) close() {
	l.once.Do(func() {
		l.cancel()
		_ = l.net.Close()
		_ = l.http.Close()
		<-l.served
		_ = l.http.Close()
		<-l.empty()
	})
}
