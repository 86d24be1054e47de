package iamtest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// A listener is one port and the HTTP server behind it.
type listener struct {
	net    net.Listener
	scheme string
	http   http.Server
	cancel context.CancelFunc
	served chan struct{} // closed when Serve has returned
	once   sync.Once

	mu   sync.Mutex
	open int           // connections
	none chan struct{} // closed while none is open
}

// listen opens a port: that of address, or a free one.
func (s *Server) listen(address string, h http.Handler) (*listener, error) {
	n, err := new(net.ListenConfig).Listen(context.Background(), "tcp4", address)
	if err != nil {
		return nil, fmt.Errorf("iamtest: cannot listen: %w", err)
	}
	o := s.options()
	ctx, cancel := context.WithCancel(context.Background())
	l := &listener{net: n, scheme: "http", cancel: cancel, served: make(chan struct{}), none: make(chan struct{})}
	close(l.none)
	l.http = http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnState:         l.track,
		Protocols:         new(http.Protocols),
		ErrorLog:          log.New(errorLog{}, "", log.LstdFlags),
	}
	l.http.Protocols.SetHTTP1(true)
	l.http.Protocols.SetHTTP2(o.HTTP2)
	l.http.Protocols.SetUnencryptedHTTP2(o.HTTP2)
	if o.TLS {
		l.scheme, l.http.TLSConfig = "https", s.identity.server()
	}
	if o.Logger != nil {
		l.http.ErrorLog = slog.NewLogLogger(o.Logger.Handler(), slog.LevelError)
	}
	return l, nil
}

// errorLog writes what net/http has to say, such as panics of handlers, to
// standard error, but for TLS handshakes that failed: those are for the client to
// report, and Quiet begins some.
type errorLog struct{}

func (errorLog) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("http: TLS handshake error")) {
		return len(p), nil
	}
	return os.Stderr.Write(p)
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
		if l.scheme == "https" {
			_ = l.http.ServeTLS(l.net, "", "") // ErrServerClosed
		} else {
			_ = l.http.Serve(l.net)
		}
	}()
}

func (l *listener) addr() string { return l.net.Addr().String() }
func (l *listener) url() string  { return l.scheme + "://" + l.addr() }

// abandon gives back the port of a listener that was not started.
func (l *listener) abandon() {
	l.cancel()
	_ = l.net.Close()
}

// close ends a listener that was started. It returns when every handler has, and
// Serve, which may not have begun.
func (l *listener) close() {
	l.once.Do(func() {
		l.cancel()
		_ = l.http.Close() // closes the port, waits until nothing is accepted, and closes the connections
		<-l.served
		<-l.empty()
	})
}
