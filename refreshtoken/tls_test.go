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
