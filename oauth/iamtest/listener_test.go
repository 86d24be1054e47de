package iamtest

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"
)

// heldListener gives a connection that it has accepted only when it is released.
type heldListener struct {
	net.Listener
	accepted, release chan struct{}
	closed            chan struct{}
	once              sync.Once
}

func (l *heldListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.accepted <- struct{}{}
		<-l.release
	}
	return conn, err
}

func (l *heldListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// closing calls l.close, and fails if it returns before release was closed.
func closing(t *testing.T, l *listener, release chan struct{}) {
	t.Helper()
	closed := make(chan struct{})
	go func() { defer close(closed); l.close() }()
	select {
	case <-closed:
		t.Error("close returned while something of the server ran")
	case <-time.After(50 * time.Millisecond): // a moment to be wrong in
	}
	close(release)
	<-closed
}

// What runs when a listener is closed has ended when close returns: a connection that
// was accepted at that moment, and a handler that takes its time.
func TestListenerClose(t *testing.T) {
	srv := Start(t)
	wantClosed := func(t *testing.T, conn net.Conn) {
		t.Helper()
		defer conn.Close()
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Error(err)
		}
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("the connection is open")
		}
	}
	for name, header := range map[string]string{"silent": "", "with a request": "GET / HTTP/1.1\r\nHost: x\r\n\r\n"} {
		t.Run("a connection, "+name, func(t *testing.T) {
			l, err := srv.listen("127.0.0.1:0", http.NotFoundHandler())
			if err != nil {
				t.Fatal(err)
			}
			held := &heldListener{
				Listener: l.net, accepted: make(chan struct{}, 1), release: make(chan struct{}), closed: make(chan struct{}),
			}
			l.net = held
			l.start()
			conn, err := net.Dial("tcp", l.addr())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write([]byte(header)); err != nil {
				t.Fatal(err)
			}
			<-held.accepted
			closing(t, l, held.release)
			<-held.closed
			if l.open != 0 {
				t.Errorf("%d connections are open", l.open)
			}
			wantClosed(t, conn)
		})
	}
	t.Run("no connection", func(t *testing.T) {
		for range 20 {
			l, err := srv.listen("127.0.0.1:0", http.NotFoundHandler())
			if err != nil {
				t.Fatal(err)
			}
			l.start()
			l.close() // perhaps before Serve is called
			select {
			case <-l.served:
			default:
				t.Error("Serve has not returned")
			}
			if conn, err := net.Dial("tcp", l.addr()); err == nil {
				conn.Close()
				t.Error("the port is open")
			}
		}
	})
	t.Run("a handler", func(t *testing.T) {
		began, release := make(chan struct{}), make(chan struct{})
		l, err := srv.listen("127.0.0.1:0", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(began)
			<-r.Context().Done() // what is asked for is not done any more
			<-release
		}))
		if err != nil {
			t.Fatal(err)
		}
		l.start()
		conn, err := net.Dial("tcp", l.addr())
		if err != nil {
			t.Fatal(err)
		}
		// A body that nobody reads, so that only close can end the request's context.
		if _, err := conn.Write([]byte("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		<-began
		closing(t, l, release)
		wantClosed(t, conn)
		l.close() // may come twice
	})
}

// quiet ends with its context, also where nobody accepts what it begins.
func TestListenerQuietEnds(t *testing.T) {
	srv := Start(t)
	l, err := srv.listen("127.0.0.1:0", http.NotFoundHandler()) // and nobody calls Accept
	if err != nil {
		t.Fatal(err)
	}
	defer l.abandon()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := l.quiet(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// Of what net/http reports, failed handshakes are for the client to tell.
func TestErrorLog(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	stderr := os.Stderr
	os.Stderr = w
	for _, line := range []string{"http: TLS handshake error from 127.0.0.1:1: EOF\n", "http: panic serving 127.0.0.1:1: x\n"} {
		if n, err := (errorLog{}).Write([]byte(line)); n != len(line) || err != nil {
			t.Errorf("%q: %d, %v", line, n, err)
		}
	}
	os.Stderr = stderr
	w.Close()
	if got, err := io.ReadAll(r); err != nil || string(got) != "http: panic serving 127.0.0.1:1: x\n" {
		t.Errorf("written: %q, %v", got, err)
	}
}
