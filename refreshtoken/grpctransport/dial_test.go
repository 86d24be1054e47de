package grpctransport_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	iampb "github.com/yandex-cloud/go-genproto/yandex/cloud/iam/v1"
	operationpb "github.com/yandex-cloud/go-genproto/yandex/cloud/operation"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
	"github.com/ycauth/ycauth-go/oauth/iamtest/iamgrpc"
	"github.com/ycauth/ycauth-go/refreshtoken"
	"github.com/ycauth/ycauth-go/refreshtoken/grpctransport"
)

var (
	_ grpctransport.TokenSource        = (*oauth.TokenSource)(nil)
	_ credentials.PerRPCCredentials    = (*oauth.TokenSource)(nil)
	_ grpc.ClientConnInterface         = (*grpctransport.Conn)(nil)
	_ credentials.TransportCredentials = insecure.NewCredentials()
)

// certificate is a server's for 127.0.0.1, and the roots that trust it.
func certificate(t *testing.T) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, roots
}

func listOnce(ctx context.Context, conn grpc.ClientConnInterface, opts ...refreshtoken.Option) error {
	for _, err := range grpctransport.NewClient(conn, append(quick(), opts...)...).List(ctx, refreshtoken.ListOptions{}) {
		return err
	}
	return nil
}

func TestDialOverTLS(t *testing.T) {
	server, roots := certificate(t)
	iam := iamtest.Start(t)
	iam.Seed(1, nil)
	face := iamgrpc.Start(t, iam, iamgrpc.Options{TLS: server})
	src := source{token: iam.IssueAccessToken("", "")}
	opts := grpctransport.DialOptions{Endpoint: face.Address, TLS: &tls.Config{RootCAs: roots}, UserAgent: "mycli/1.2.0",
		// An option cannot take TLS away.
		Options: []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}}
	conn, err := grpctransport.Dial(src, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := listOnce(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	if got := iam.Requests()[0].UserAgent; !strings.HasPrefix(got, "mycli/1.2.0 grpc-go/") {
		t.Errorf("User-Agent %q", got)
	}

	// A server that nobody vouches for gets no token, and no second chance.
	opts.TLS = nil
	conn, err = grpctransport.Dial(src, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	iam.ResetRequests()
	err = listOnce(t.Context(), conn)
	var transport *refreshtoken.TransportError
	if !errors.As(err, &transport) || transport.Temporary || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown certificate: got %v", err)
	}
	if n := len(iam.Requests()); n != 0 {
		t.Errorf("%d requests to an untrusted server", n)
	}
}

// breaking closes the first connection in the handshake of TLS.
type breaking struct {
	net.Listener
	reset bool
	once  sync.Once
}

func (l *breaking) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	broken := false
	l.once.Do(func() {
		broken = true
		if l.reset {
			_ = c.(*net.TCPConn).SetLinger(0)
		} else {
			_, _ = c.Read(make([]byte, 1<<14))
		}
		_ = c.Close()
	})
	if broken {
		return l.Accept()
	}
	return c, nil
}

type revocations struct {
	iampb.UnimplementedRefreshTokenServiceServer
}

func (revocations) Revoke(context.Context, *iampb.RevokeRefreshTokenRequest) (*operationpb.Operation, error) {
	return nil, status.Error(codes.FailedPrecondition, "no")
}

// TestHandshakeBreaks: a connection that breaks in the handshake of TLS is tried again,
// and does not end a RevokeEach.
func TestHandshakeBreaks(t *testing.T) {
	for _, reset := range []bool{false, true} {
		server, roots := certificate(t)
		inner, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		g := grpc.NewServer(grpc.Creds(credentials.NewTLS(server)))
		iampb.RegisterRefreshTokenServiceServer(g, revocations{})
		served := make(chan error, 1)
		go func() { served <- g.Serve(&breaking{Listener: inner, reset: reset}) }()
		conn, err := grpctransport.Dial(source{token: "t"}, grpctransport.DialOptions{Endpoint: inner.Addr().String(), TLS: &tls.Config{RootCAs: roots}})
		if err != nil {
			t.Fatal(err)
		}
		ids := []string{"aje0", "aje1", "aje2", "aje3"}
		report, err := grpctransport.NewClient(conn).RevokeEach(t.Context(), ids, refreshtoken.RevokeEachOptions{})
		if err != nil || len(report.NotTried) != 0 || len(report.Failed) != len(ids) {
			t.Errorf("reset %v: got %v with %d failed and %d not tried", reset, err, len(report.Failed), len(report.NotTried))
		}
		for _, f := range report.Failed {
			var api *refreshtoken.APIError
			if !errors.As(f.Err, &api) || api.Code != refreshtoken.CodeFailedPrecondition {
				t.Errorf("reset %v: got %v", reset, f.Err)
			}
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		g.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}
}

// TestClientCertificateIsFinal: a server that wants a certificate of the client says so after
// the handshake in TLS 1.3, and wants it the next time too.
func TestClientCertificateIsFinal(t *testing.T) {
	server, roots := certificate(t)
	for name, c := range map[string]struct {
		auth  tls.ClientAuthType
		shown []tls.Certificate
	}{
		"missing":  {tls.RequireAnyClientCert, nil},
		"rejected": {tls.RequireAndVerifyClientCert, server.Certificates},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			config := server.Clone()
			config.ClientAuth, config.ClientCAs, config.MinVersion, config.NextProtos = c.auth, x509.NewCertPool(), tls.VersionTLS13, []string{"h2"}
			var wg sync.WaitGroup
			wg.Go(func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					wg.Go(func() {
						defer conn.Close()
						_ = tls.Server(conn, config).Handshake()
						_, _ = io.Copy(io.Discard, conn) // a reset could take the alert away
					})
				}
			})
			conn, err := grpctransport.Dial(source{token: "t"}, grpctransport.DialOptions{Endpoint: l.Addr().String(), TLS: &tls.Config{
				RootCAs: roots,
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					for _, shown := range c.shown { // whatever authorities the server names
						return &shown, nil
					}
					return &tls.Certificate{}, nil
				},
			}})
			if err != nil {
				t.Fatal(err)
			}
			err = listOnce(t.Context(), conn)
			var transport *refreshtoken.TransportError
			if !errors.As(err, &transport) || transport.Temporary {
				t.Errorf("got %v, which is temporary", err)
			}
			if err := errors.Join(conn.Close(), l.Close()); err != nil {
				t.Error(err)
			}
			wg.Wait()
		})
	}
}

// TestTwoEndpoints: operations are polled where they are said to be.
// TestMetadataIsBounded: an error with all the details that are kept fits, a larger one is
// not read.
func TestMetadataIsBounded(t *testing.T) {
	limit := func(size uint32) []grpc.DialOption {
		return []grpc.DialOption{grpc.WithMaxHeaderListSize(size)}
	}
	const api, response, transport = "*refreshtoken.APIError", "*refreshtoken.ResponseError", "*refreshtoken.TransportError"
	for _, c := range []struct {
		name    string
		details int // in bytes
		fields  int // of 1 KiB each
		options []grpc.DialOption
		want    string
	}{
		{"all that is kept", 64 << 10, 100, nil, api},
		{"a larger value", 256 << 10, 0, nil, transport},
		{"more fields", 1 << 10, 256, nil, response},
		{"more, and the caller allows it", 256 << 10, 256, limit(1 << 20), api},
		{"a larger value than the caller allows", 64 << 10, 0, limit(8 << 10), transport},
		{"more fields than the caller allows", 1 << 10, 8, limit(8 << 10), response},
	} {
		t.Run(c.name, func(t *testing.T) {
			st, err := proto.Marshal(&statuspb.Status{Code: int32(codes.Aborted), Message: "large", Details: []*anypb.Any{
				{TypeUrl: "example.com/x.Y", Value: make([]byte, c.details-100)},
			}})
			if err != nil {
				t.Fatal(err)
			}
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/grpc")
				w.Header().Set("Grpc-Status", "10")
				w.Header().Set("Grpc-Message", "large")
				w.Header().Set("Grpc-Status-Details-Bin", base64.RawStdEncoding.EncodeToString(st))
				for range c.fields {
					w.Header().Add("Field", strings.Repeat("a", 1<<10))
				}
			}))
			srv.Config.Protocols = new(http.Protocols)
			srv.Config.Protocols.SetUnencryptedHTTP2(true)
			srv.Start()
			defer srv.Close()
			conn, err := grpctransport.Dial(source{token: "t"}, grpctransport.DialOptions{
				Endpoint: srv.Listener.Addr().String(), Plaintext: true, Options: c.options,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			err = listOnce(t.Context(), conn, refreshtoken.WithRetry(refreshtoken.RetryPolicy{Attempts: 1}))
			if got := fmt.Sprintf("%T", err); got != c.want {
				t.Errorf("got %s, want %s: %v", got, c.want, err)
			}
		})
	}
}

func TestTwoEndpoints(t *testing.T) {
	iam := iamtest.Start(t, iamtest.Options{OperationPolls: 1})
	other := iamtest.Start(t)
	iam.Seed(1, func(_ int, s *iamtest.Seed) { s.ID = "aje0" })
	conn, err := grpctransport.Dial(source{token: iam.IssueAccessToken("", "")}, grpctransport.DialOptions{
		Endpoint: iamgrpc.Start(t, iam).Address, OperationEndpoint: iamgrpc.Start(t, other).Address, Plaintext: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = revokeAndWait(t.Context(), grpctransport.NewClient(conn, quick()...), refreshtoken.ByID("aje0"))
	if !errors.Is(err, refreshtoken.ErrUnauthenticated) { // the other server does not know the token
		t.Errorf("got %v", err)
	}
	if a, b := iam.Count(iamtest.EndpointOperation), other.Count(iamtest.EndpointOperation); a != 0 || b != 1 {
		t.Errorf("%d polls at the IAM endpoint, %d at the operation endpoint", a, b)
	}
}

func TestDialRefuses(t *testing.T) {
	for _, c := range []struct {
		name  string
		opts  grpctransport.DialOptions
		field string
	}{
		{"no port", grpctransport.DialOptions{Endpoint: "iam.example"}, "DialOptions.Endpoint"},
		{"a URL", grpctransport.DialOptions{Endpoint: "https://iam.example:443"}, "DialOptions.Endpoint"},
		{"another resolver", grpctransport.DialOptions{Endpoint: "unix:///run/iam:443"}, "DialOptions.Endpoint"},
		{"no host", grpctransport.DialOptions{Endpoint: ":443"}, "DialOptions.Endpoint"},
		{"port 0", grpctransport.DialOptions{Endpoint: "iam.example:0"}, "DialOptions.Endpoint"},
		{"port too large", grpctransport.DialOptions{Endpoint: "iam.example:65536"}, "DialOptions.Endpoint"},
		{"user information", grpctransport.DialOptions{Endpoint: "user@iam.example:443"}, "DialOptions.Endpoint"},
		{"operation endpoint", grpctransport.DialOptions{OperationEndpoint: "nowhere"}, "DialOptions.OperationEndpoint"},
		{"plain text to the cloud", grpctransport.DialOptions{Plaintext: true}, "DialOptions.Endpoint"},
		{"plain text to the operations", grpctransport.DialOptions{Endpoint: "127.0.0.1:1", OperationEndpoint: "10.0.0.1:1", Plaintext: true}, "DialOptions.OperationEndpoint"},
		{"user agent", grpctransport.DialOptions{UserAgent: "my\ncli"}, "DialOptions.UserAgent"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := grpctransport.Dial(source{}, c.opts)
			var argument *refreshtoken.ArgumentError
			if !errors.As(err, &argument) || argument.Field != c.field {
				t.Errorf("got %v, want an ArgumentError about %s", err, c.field)
			}
		})
	}
	var argument *refreshtoken.ArgumentError
	if _, err := grpctransport.Dial(nil, grpctransport.DialOptions{}); !errors.As(err, &argument) {
		t.Errorf("without a source: got %v", err)
	}
}

// TestDialDefaults: the zero options lead to the cloud, without a connection yet.
func TestDialDefaults(t *testing.T) {
	conn, err := grpctransport.Dial(source{}, grpctransport.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	if err := listOnce(t.Context(), conn); !errors.As(err, new(*refreshtoken.TransportError)) {
		t.Errorf("a closed connection: got %v", err)
	}
}

// TestAuthenticateKeepsErrors: a connection of the caller's own keeps the error of the
// token source, for a Client and for calls of its own.
func TestAuthenticateKeepsErrors(t *testing.T) {
	server, roots := certificate(t)
	face := iamgrpc.Start(t, iamtest.Start(t), iamgrpc.Options{TLS: server})
	secure := grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots}))
	conn, err := grpc.NewClient(face.Address, append(grpctransport.Authenticate(source{err: errNoLogin}), secure)...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := listOnce(t.Context(), conn); !errors.Is(err, errNoLogin) || !errors.As(err, new(*refreshtoken.TransportError)) {
		t.Errorf("got %v, want %v", err, errNoLogin)
	}
	_, err = iampb.NewRefreshTokenServiceClient(conn).List(t.Context(), &iampb.ListRefreshTokensRequest{})
	if !errors.Is(err, errNoLogin) || status.Code(err) != codes.Unauthenticated {
		t.Errorf("a call by hand: got %v", err)
	}
}

// TestAuthenticateNeedsTLS: a token does not travel in the clear.
func TestAuthenticateNeedsTLS(t *testing.T) {
	iam := iamtest.Start(t)
	face := iamgrpc.Start(t, iam)
	conn, err := grpc.NewClient(face.Address, append(grpctransport.Authenticate(source{token: iam.IssueAccessToken("", "")}),
		grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := listOnce(t.Context(), conn); err == nil || len(iam.Requests()) != 0 {
		t.Errorf("got %v after %d requests", err, len(iam.Requests()))
	}
}

func TestNewClientRefuses(t *testing.T) {
	var argument *refreshtoken.ArgumentError
	if err := listOnce(t.Context(), nil); !errors.As(err, &argument) {
		t.Errorf("no connection: got %v", err)
	}
	if err := listOnce(t.Context(), reply{}, refreshtoken.WithEndpoint("https://iam.example")); !errors.As(err, &argument) || argument.Field != "WithEndpoint" {
		t.Errorf("an option for REST: got %v", err)
	}
}
