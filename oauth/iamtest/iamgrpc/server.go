package iamgrpc

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	endpointpb "github.com/yandex-cloud/go-genproto/yandex/cloud/endpoint"
	iampb "github.com/yandex-cloud/go-genproto/yandex/cloud/iam/v1"
	operationpb "github.com/yandex-cloud/go-genproto/yandex/cloud/operation"

	"github.com/ycauth/ycauth-go/oauth/iamtest"
	"github.com/ycauth/ycauth-go/oauth/iamtest/internal/iamapi"
)

// Options configures a server. The zero value serves in plain text.
type Options struct {
	// TLS is the configuration of the server, with a certificate.
	// Optional. Default: nil, plain text.
	TLS *tls.Config
}

// A Server is a gRPC server on a loopback address. Its methods are safe for
// concurrent use.
type Server struct {
	// Address is the address of the server, such as "127.0.0.1:40123".
	Address string

	iam    iamapi.API
	grpc   *grpc.Server
	conns  *listener
	served chan struct{} // closed when Serve has returned
	once   sync.Once
}

// New starts a gRPC server for iam on a free port of 127.0.0.1. Close
// stops it, before or after iam is closed.
func New(iam *iamtest.Server, opts Options) (*Server, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("iamgrpc: cannot listen: %w", err)
	}
	api := iamapi.Of(iam)
	s := &Server{Address: l.Addr().String(), iam: api, conns: &listener{Listener: l}, served: make(chan struct{})}
	settings := []grpc.ServerOption{grpc.UnaryInterceptor(s.serve), grpc.WaitForHandlers(true)}
	if opts.TLS != nil {
		settings = append(settings, grpc.Creds(credentials.NewTLS(opts.TLS)))
	}
	s.grpc = grpc.NewServer(settings...)
	iampb.RegisterRefreshTokenServiceServer(s.grpc, tokens{iam: api})
	operationpb.RegisterOperationServiceServer(s.grpc, operations{iam: api})
	endpointpb.RegisterApiEndpointServiceServer(s.grpc, endpoints{server: s})
	go func() {
		defer close(s.served)
		_ = s.grpc.Serve(s.conns) // ends with Close
	}()
	return s, nil
}

// Start calls [New] in a test. It fails the test if the server cannot start, and closes the
// server when the test ends. It takes at most one Options.
func Start(t iamtest.TB, iam *iamtest.Server, opts ...Options) *Server {
	t.Helper()
	var o Options
	switch len(opts) {
	case 0:
	case 1:
		o = opts[0]
	default:
		t.Fatalf("iamgrpc: Start takes one Options, not %d", len(opts))
		return nil
	}
	s, err := New(iam, o)
	if err != nil {
		t.Fatalf("%v", err)
		return nil
	}
	t.Cleanup(s.Close)
	return s
}

// Close stops the server and closes its connections. When it
// returns, no goroutine of the server is running. It can be called more than
// once.
func (s *Server) Close() {
	s.once.Do(func() {
		s.grpc.Stop()
		<-s.served
	})
}

// A listener knows its connections by their remote addresses, so that a fault can
// close one.
type listener struct {
	net.Listener
	conns sync.Map // string → net.Conn
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.conns.Store(c.RemoteAddr().String(), c)
	return &conn{c, l}, nil
}

// drop closes the connection to the remote address, without a word.
func (l *listener) drop(remote net.Addr) {
	if c, ok := l.conns.Load(remote.String()); ok {
		_ = c.(net.Conn).Close()
	}
}

type conn struct {
	net.Conn
	l *listener
}

func (c *conn) Close() error {
	c.l.conns.Delete(c.RemoteAddr().String())
	return c.Conn.Close()
}
