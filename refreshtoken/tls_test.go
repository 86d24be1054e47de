package refreshtoken_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/refreshtoken"
)

// listen serves every connection with handle, and returns the address and the number of
// connections.
func listen(t *testing.T, handle func(net.Conn)) (string, *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	conns := new(atomic.Int64)
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Add(1)
			wg.Go(func() {
				defer conn.Close()
				handle(conn)
				// A client must be able to read all of it, which a reset would prevent.
				_, _ = io.Copy(io.Discard, conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return l.Addr().String(), conns
}

// testCertificate is that of httptest, with a client that trusts it.
func testCertificate(t *testing.T) (tls.Certificate, *http.Transport) {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	tr := srv.Client().Transport.(*http.Transport).Clone()
	t.Cleanup(tr.CloseIdleConnections)
	return srv.TLS.Certificates[0], tr
}

// TestGarbledHandshake: what is garbled in a handshake of TLS is the network's fault, and
// another attempt is made; but a server that does not speak TLS never will.
func TestGarbledHandshake(t *testing.T) {
	for name, c := range map[string]struct {
		sent     string
		attempts int64
	}{
		"no record":                  {"\x00\xff\x17garbage in the place of a record", 4},
		"no handshake message":       {"\x16\x03\x03\x00\x04\xff\x00\x00\x00", 4},
		"another handshake message":  {"\x16\x03\x03\x00\x04\x0e\x00\x00\x00", 4},
		"a message that is cut off":  {"\x16\x03\x03\x00\x06\x02\x00\x00\x02\x03\x03", 4},
		"a record that is too large": {"\x16\x03\x03\xff\xff", 4},
		"an alert":                   {"\x15\x03\x03\x00\x02\x02\x50", 4},
		"HTTP":                       {"HTTP/1.1 400 Bad Request\r\n\r\n", 1},
	} {
		t.Run(name, func(t *testing.T) {
			address, conns := listen(t, func(conn net.Conn) {
				_, _ = conn.Read(make([]byte, 1<<14))
				_, _ = io.WriteString(conn, c.sent)
			})
			base := &http.Transport{}
			defer base.CloseIdleConnections()
			src := tokenSource{hc: serve(t, answer(http.StatusOK, `{}`)).Client(), url: serve(t, answer(http.StatusOK, `{}`)).URL}
			for _, hc := range []*http.Client{{Transport: base}, {Transport: &dpop.Transport{Source: src, Base: base}}} {
				conns.Store(0)
				client := refreshtoken.NewClient(hc, refreshtoken.WithEndpoint("https://"+address), refreshtoken.WithRetry(refreshtoken.RetryPolicy{Initial: time.Millisecond}))
				_, err := list(client, refreshtoken.ListOptions{})
				again := c.attempts > 1
				if e := as[*refreshtoken.TransportError](t, err); e.Temporary != again || errors.Is(err, refreshtoken.ErrUnavailable) != again {
					t.Errorf("got %v, temporary: %v", err, e.Temporary)
				}
				if n := conns.Load(); n != c.attempts {
					t.Errorf("%v after %d attempts, want %d", err, n, c.attempts)
				}
			}
		})
	}
}

// TestClientCertificateIsFinal: a server that wants another certificate of the client, or
// one at all, wants it the next time too. In TLS 1.3 it says so after the handshake. That there
// is none is only "handshake failure" in TLS 1.2 (RFC 5246 §7.4.6), which says too little.
func TestClientCertificateIsFinal(t *testing.T) {
	certificate, base := testCertificate(t)
	for name, c := range map[string]struct {
		version uint16
		auth    tls.ClientAuthType
		shown   []tls.Certificate
	}{
		"missing, TLS 1.3":  {tls.VersionTLS13, tls.RequireAnyClientCert, nil},
		"rejected, TLS 1.2": {tls.VersionTLS12, tls.RequireAndVerifyClientCert, []tls.Certificate{certificate}},
		"rejected, TLS 1.3": {tls.VersionTLS13, tls.RequireAndVerifyClientCert, []tls.Certificate{certificate}},
	} {
		t.Run(name, func(t *testing.T) {
			address, conns := listen(t, func(conn net.Conn) {
				_ = tls.Server(conn, &tls.Config{
					Certificates: []tls.Certificate{certificate}, MinVersion: c.version, MaxVersion: c.version,
					ClientAuth: c.auth, ClientCAs: x509.NewCertPool(),
				}).Handshake()
			})
			base := base.Clone()
			defer base.CloseIdleConnections()
			// Whatever authorities the server names.
			base.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				for _, shown := range c.shown {
					return &shown, nil
				}
				return &tls.Certificate{}, nil
			}
			client := refreshtoken.NewClient(&http.Client{Transport: base}, refreshtoken.WithEndpoint("https://"+address), refreshtoken.WithRetry(refreshtoken.RetryPolicy{Initial: time.Millisecond}))
			_, err := list(client, refreshtoken.ListOptions{})
			if e := as[*refreshtoken.TransportError](t, err); e.Temporary || errors.Is(err, refreshtoken.ErrUnavailable) {
				t.Errorf("got %v, which is temporary", err)
			}
			if n := conns.Load(); n != 1 {
				t.Errorf("%v after %d attempts", err, n)
			}
		})
	}
}
