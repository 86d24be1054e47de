package grpctransport_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/oauth2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	iampb "github.com/yandex-cloud/go-genproto/yandex/cloud/iam/v1"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
	"github.com/ycauth/ycauth-go/oauth/iamtest/iamgrpc"
	"github.com/ycauth/ycauth-go/refreshtoken"
	"github.com/ycauth/ycauth-go/refreshtoken/grpctransport"
)

// A renewer is a source of tokens of which each is served until it is invalidated.
type renewer struct {
	mu          sync.Mutex
	tokens      []string // the first is served; the last is kept
	err         error    // when there is nothing more to serve
	invalidated []string
	asked       func() // if not nil, called with each request
}

func (r *renewer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	if r.asked != nil {
		r.asked()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.tokens) == 0 {
		return nil, r.err
	}
	return map[string]string{"authorization": "Bearer " + r.tokens[0]}, nil
}

func (r *renewer) Invalidate(tok *oauth2.Token) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.invalidated = append(r.invalidated, tok.Type()+" "+tok.AccessToken)
	if len(r.tokens) > 0 && r.tokens[0] == tok.AccessToken && (len(r.tokens) > 1 || r.err != nil) {
		r.tokens = r.tokens[1:]
	}
}

// TestRevokedTokenIsReplaced within one call, by the token source that it is for.
func TestRevokedTokenIsReplaced(t *testing.T) {
	iam := iamtest.Start(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	prover, err := dpop.New(key)
	if err != nil {
		t.Fatal(err)
	}
	client, err := oauth.New(oauth.Config{Provider: iam.Provider(), ClientID: "yc.oauth.public-sdk", DPoP: prover, Clock: iam.Now})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Import(t.Context(), oauth.Secret(iam.Seed(1, nil)[0])); err != nil {
		t.Fatal(err)
	}
	src := client.TokenSource()
	conn, err := grpctransport.Dial(src, grpctransport.DialOptions{Endpoint: iamgrpc.Start(t, iam).Address, Plaintext: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 2 {
		if err := listOnce(t.Context(), conn); err != nil {
			t.Fatal(err)
		}
	}
	tok, err := src.Token()
	if err != nil {
		t.Fatal(err)
	}
	before := iam.Count(iamtest.EndpointToken)
	iam.RevokeAccessToken(tok.AccessToken)
	if err := listOnce(t.Context(), conn); err != nil {
		t.Errorf("with a revoked token: got %v", err)
	}
	if n := iam.Count(iamtest.EndpointToken) - before; n != 1 {
		t.Errorf("%d token requests, want 1", n)
	}
	if n := iam.Count(iamtest.EndpointList); n != 4 {
		t.Errorf("%d calls, want 4", n)
	}
}

// A resource is a server that accepts one token, and says what it was sent.
type resource struct {
	testpb.UnimplementedTestServiceServer
	accepts string

	mu   sync.Mutex
	sent []string // authorizations
}

func (r *resource) check(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	got := strings.Join(md.Get("authorization"), ", ")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent = append(r.sent, got)
	if got != r.accepts {
		return status.Error(codes.Unauthenticated, "the token is revoked")
	}
	return nil
}

func (r *resource) EmptyCall(ctx context.Context, _ *testpb.Empty) (*testpb.Empty, error) {
	return &testpb.Empty{}, r.check(ctx)
}

func (r *resource) StreamingOutputCall(in *testpb.StreamingOutputCallRequest, out grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
	if len(in.ResponseParameters) == 9 { // rejects in the middle
		if err := out.Send(&testpb.StreamingOutputCallResponse{}); err != nil {
			return err
		}
	}
	if err := r.check(out.Context()); err != nil {
		return err
	}
	if err := out.RecvMsg(&testpb.Empty{}); !errors.Is(err, io.EOF) {
		return status.Error(codes.Internal, "the client has not closed its side")
	}
	for range in.ResponseParameters {
		if err := out.Send(&testpb.StreamingOutputCallResponse{Payload: in.Payload}); err != nil {
			return err
		}
	}
	return nil
}

func (r *resource) StreamingInputCall(in grpc.ClientStreamingServer[testpb.StreamingInputCallRequest, testpb.StreamingInputCallResponse]) error {
	if err := r.check(in.Context()); err != nil {
		return err
	}
	n := int32(0)
	for {
		switch _, err := in.Recv(); {
		case errors.Is(err, io.EOF):
			in.SetTrailer(metadata.Pairs("x-messages", "3"))
			return in.SendAndClose(&testpb.StreamingInputCallResponse{AggregatedPayloadSize: n})
		case err != nil:
			return err
		}
		n++
	}
}

// FullDuplexCall sends its header at once where the caller asks for that.
func (r *resource) FullDuplexCall(both grpc.BidiStreamingServer[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) error {
	if md, _ := metadata.FromIncomingContext(both.Context()); len(md.Get("header-first")) > 0 {
		if err := both.SendHeader(metadata.Pairs("x-request-id", "1")); err != nil {
			return err
		}
	}
	if err := r.check(both.Context()); err != nil {
		return err
	}
	if err := both.Send(&testpb.StreamingOutputCallResponse{}); err != nil {
		return err
	}
	for {
		m, err := both.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := both.Send(&testpb.StreamingOutputCallResponse{Payload: m.Payload}); err != nil {
			return err
		}
	}
}

// serveResource returns a client of r whose calls are authenticated by src.
func serveResource(t *testing.T, r *resource, src grpctransport.TokenSource, opts ...grpc.DialOption) testpb.TestServiceClient {
	t.Helper()
	server, roots := certificate(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(server)))
	testpb.RegisterTestServiceServer(s, r)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), append(append(opts, grpctransport.Authenticate(src)...),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots})))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		s.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return testpb.NewTestServiceClient(conn)
}

// callKinds are a call of each kind, which returns how many messages came.
var callKinds = map[string]func(context.Context, testpb.TestServiceClient) (int, error){
	"unary": func(ctx context.Context, c testpb.TestServiceClient) (int, error) {
		_, err := c.EmptyCall(ctx, &testpb.Empty{})
		if err != nil {
			return 0, err
		}
		return 1, nil
	},
	"server streams": func(ctx context.Context, c testpb.TestServiceClient) (int, error) {
		s, err := c.StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{
			Payload: &testpb.Payload{Body: []byte("kept")}, ResponseParameters: make([]*testpb.ResponseParameters, 3)})
		if err != nil {
			return 0, err
		}
		return drain(s, "kept")
	},
	"both stream, the server first": func(ctx context.Context, c testpb.TestServiceClient) (int, error) {
		s, err := c.FullDuplexCall(ctx)
		if err != nil {
			return 0, err
		}
		if _, err := s.Recv(); err != nil {
			return 0, err
		}
		for range 2 {
			if err := s.Send(&testpb.StreamingOutputCallRequest{Payload: &testpb.Payload{Body: []byte("sent")}}); err != nil {
				return 0, err
			}
		}
		if err := s.CloseSend(); err != nil {
			return 0, err
		}
		n, err := drain(s, "sent")
		return n + 1, err
	},
	"both stream, after a look at the header": func(ctx context.Context, c testpb.TestServiceClient) (int, error) {
		s, err := c.FullDuplexCall(ctx)
		if err != nil {
			return 0, err
		}
		if md, err := s.Header(); len(md) > 0 && err != nil {
			return 0, err
		}
		if err := s.CloseSend(); err != nil {
			return 0, err
		}
		return drain(s, "")
	},
	"both stream, and nobody sends": func(ctx context.Context, c testpb.TestServiceClient) (int, error) {
		s, err := c.FullDuplexCall(ctx)
		if err != nil {
			return 0, err
		}
		if err := s.CloseSend(); err != nil {
			return 0, err
		}
		return drain(s, "")
	},
}

func drain(s grpc.ServerStreamingClient[testpb.StreamingOutputCallResponse], want string) (int, error) {
	for n := 0; ; n++ {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		if got := string(m.GetPayload().GetBody()); got != want {
			return n, errors.New("got the message " + got)
		}
	}
}

func TestAuthenticate(t *testing.T) {
	for kind, call := range callKinds {
		messages := map[string]int{"unary": 1, "server streams": 3, "both stream, the server first": 3, "both stream, and nobody sends": 1, "both stream, after a look at the header": 1}[kind]
		for _, c := range []struct {
			name        string
			src         *renewer
			sent        string
			invalidated string
			err         error // wrapped by that of the call
			code        codes.Code
		}{
			{"accepted", &renewer{tokens: []string{"t2"}}, "Bearer t2", "", nil, codes.OK},
			{"replaced", &renewer{tokens: []string{"t1", "t2"}}, "Bearer t1; Bearer t2", "Bearer t1", nil, codes.OK},
			{"replaced by one that is rejected", &renewer{tokens: []string{"t0", "t1", "t2"}}, "Bearer t0; Bearer t1", "Bearer t0", nil, codes.Unauthenticated},
			{"not replaced", &renewer{tokens: []string{"t1"}}, "Bearer t1", "Bearer t1", nil, codes.Unauthenticated},
			{"cannot be replaced", &renewer{tokens: []string{"t1"}, err: errNoLogin}, "Bearer t1", "Bearer t1", errNoLogin, codes.Unauthenticated},
			{"no token", &renewer{err: errNoLogin}, "", "", errNoLogin, codes.Unauthenticated},
		} {
			t.Run(kind+"/"+c.name, func(t *testing.T) {
				r := &resource{accepts: "Bearer t2"}
				src := &renewer{tokens: c.src.tokens, err: c.src.err} // of this call kind alone
				n, err := call(t.Context(), serveResource(t, r, src))
				if status.Code(err) != c.code || c.err != nil && !errors.Is(err, c.err) {
					t.Errorf("got %v, want %v", err, c.code)
				}
				if c.code == codes.OK && n != messages {
					t.Errorf("%d messages, want %d", n, messages)
				}
				if got := strings.Join(r.sent, "; "); got != c.sent {
					t.Errorf("sent %s, want %s", got, c.sent)
				}
				if got := strings.Join(src.invalidated, "; "); got != c.invalidated {
					t.Errorf("invalidated %s, want %s", got, c.invalidated)
				}
				for _, token := range []string{"t0", "t1", "t2"} {
					if err != nil && strings.Contains(err.Error(), token) {
						t.Errorf("%v holds a token", err)
					}
				}
			})
		}
	}
}

// TestStreamsThatGoOn cannot begin again, but the next call has another token.
func TestStreamsThatGoOn(t *testing.T) {
	for name, call := range map[string]func(context.Context, testpb.TestServiceClient) error{
		"a message was received": func(ctx context.Context, c testpb.TestServiceClient) error {
			s, err := c.StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{ResponseParameters: make([]*testpb.ResponseParameters, 9)})
			if err != nil {
				return err
			}
			n, err := drain(s, "")
			if n != 1 {
				return errors.New("a message came twice, or never")
			}
			return err
		},
		"a message was sent": func(ctx context.Context, c testpb.TestServiceClient) error {
			s, err := c.StreamingInputCall(ctx)
			if err != nil {
				return err
			}
			_ = s.Send(&testpb.StreamingInputCallRequest{}) // io.EOF where the server was faster
			_, err = s.CloseAndRecv()
			return err
		},
		"the header was seen": func(ctx context.Context, c testpb.TestServiceClient) error {
			s, err := c.FullDuplexCall(metadata.AppendToOutgoingContext(ctx, "header-first", "1"))
			if err != nil {
				return err
			}
			if md, err := s.Header(); err != nil || len(md.Get("x-request-id")) != 1 {
				return errors.New("there is no header")
			}
			_, err = s.Recv()
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := &resource{accepts: "Bearer t2"}
			src := &renewer{tokens: []string{"t1", "t2"}}
			client := serveResource(t, r, src)
			if err := call(t.Context(), client); status.Code(err) != codes.Unauthenticated {
				t.Errorf("got %v", err)
			}
			if len(r.sent) != 1 || len(src.invalidated) != 1 {
				t.Errorf("sent %v, invalidated %v", r.sent, src.invalidated)
			}
			if _, err := client.EmptyCall(t.Context(), &testpb.Empty{}); err != nil {
				t.Errorf("the next call: %v", err)
			}
		})
	}
}

// A slowRenewer takes its time for the second token.
type slowRenewer struct {
	*renewer
	asked   chan struct{}
	release chan struct{}
	times   atomic.Int32
}

func (r *slowRenewer) GetRequestMetadata(ctx context.Context, uri ...string) (map[string]string, error) {
	if r.times.Add(1) == 2 {
		close(r.asked)
		<-r.release
	}
	return r.renewer.GetRequestMetadata(ctx, uri...)
}

// TestStreamDoesNotWaitForTheSource: while it is asked for another token, only the method
// that reads waits. A message that is sent meanwhile is for the rejected stream, and is not
// lost on another one.
func TestStreamDoesNotWaitForTheSource(t *testing.T) {
	for _, sends := range []bool{false, true} {
		src := &slowRenewer{renewer: &renewer{tokens: []string{"t1", "t2"}}, asked: make(chan struct{}), release: make(chan struct{})}
		r := &resource{accepts: "Bearer t2"}
		s, err := serveResource(t, r, src).FullDuplexCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		received := make(chan error, 1)
		go func() {
			_, err := drain(s, "")
			received <- err
		}()
		<-src.asked
		_ = s.Context()
		if sends {
			_ = s.Send(&testpb.StreamingOutputCallRequest{})
		}
		if err := s.CloseSend(); err != nil {
			t.Error(err)
		}
		close(src.release)
		want, requests := codes.OK, 2
		if sends {
			want, requests = codes.Unauthenticated, 1
		}
		if err := <-received; status.Code(err) != want || len(r.sent) != requests {
			t.Errorf("a message is sent: %v; got %v after %d requests", sends, err, len(r.sent))
		}
	}
}

// TestClientStreams: messages that nobody had to send twice.
func TestClientStreams(t *testing.T) {
	client := serveResource(t, &resource{accepts: "Bearer t2"}, &renewer{tokens: []string{"t2"}})
	s, err := client.StreamingInputCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := s.Send(&testpb.StreamingInputCallRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Context().Err(); err != nil {
		t.Error(err)
	}
	got, err := s.CloseAndRecv()
	if err != nil || got.AggregatedPayloadSize != 3 {
		t.Errorf("got %v, %v", got, err)
	}
	if got := s.Trailer().Get("x-messages"); len(got) != 1 {
		t.Errorf("got the trailer %v", s.Trailer())
	}
}

// TestAnotherFailureInvalidatesNothing, and so does a source that cannot.
func TestAnotherFailureInvalidatesNothing(t *testing.T) {
	src := &renewer{tokens: []string{"t2", "t3"}}
	client := serveResource(t, &resource{accepts: "Bearer t2"}, src)
	if _, err := client.UnimplementedCall(t.Context(), &testpb.Empty{}); status.Code(err) != codes.Unimplemented || src.invalidated != nil {
		t.Errorf("got %v, invalidated %v", err, src.invalidated)
	}
	r := &resource{accepts: "Bearer t2"}
	if _, err := serveResource(t, r, source{token: "t1"}).EmptyCall(t.Context(), &testpb.Empty{}); status.Code(err) != codes.Unauthenticated || len(r.sent) != 1 {
		t.Errorf("got %v after %v", err, r.sent)
	}
}

// TestEndedCallIsNotMadeAgain: it has nobody who waits for it.
func TestEndedCallIsNotMadeAgain(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	src := &renewer{tokens: []string{"t1", "t2"}, asked: func() {
		if n++; n == 2 {
			cancel()
		}
	}}
	r := &resource{accepts: "Bearer t2"}
	_, err := serveResource(t, r, src).EmptyCall(ctx, &testpb.Empty{})
	if status.Code(err) != codes.Unauthenticated || len(r.sent) != 1 {
		t.Errorf("got %v after %v", err, r.sent)
	}
}

// carry is an interceptor that authenticates calls in another way.
func carry(headers ...string) grpc.DialOption {
	return grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		for _, h := range headers {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", h)
		}
		return invoke(ctx, method, req, reply, conn, opts...)
	})
}

// TestCallsThatCarryATokenAlready: a rejected token is replaced if it is that of the
// source, and no other identity is put in the place of the caller's.
func TestCallsThatCarryATokenAlready(t *testing.T) {
	for _, c := range []struct {
		name, sent  string
		carried     []string
		invalidated int
		code        codes.Code
	}{
		{"of the source", "Bearer t1; Bearer t2", []string{"Bearer t1"}, 1, codes.OK},
		{"of another", "Bearer x", []string{"Bearer x"}, 0, codes.Unauthenticated},
		{"two", "Bearer t1, Bearer t1", []string{"Bearer t1", "Bearer t1"}, 0, codes.Unauthenticated},
		{"an empty one", "", []string{""}, 0, codes.Unauthenticated},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &resource{accepts: "Bearer t2"}
			src := &renewer{tokens: []string{"t1", "t2"}}
			_, err := serveResource(t, r, src, carry(c.carried...)).EmptyCall(t.Context(), &testpb.Empty{})
			if status.Code(err) != c.code || strings.Join(r.sent, "; ") != c.sent || len(src.invalidated) != c.invalidated {
				t.Errorf("got %v, sent %v, invalidated %v", err, r.sent, src.invalidated)
			}
		})
	}
	r := &resource{accepts: "Bearer t2"}
	if _, err := serveResource(t, r, source{token: "t1"}, carry("Bearer t2")).EmptyCall(t.Context(), &testpb.Empty{}); err != nil {
		t.Errorf("a source that replaces nothing: got %v", err)
	}
	src := &renewer{tokens: []string{"t1"}}
	own := grpc.PerRPCCredentials(perCall("Bearer t2"))
	if _, err := serveResource(t, r, src).EmptyCall(t.Context(), &testpb.Empty{}, own); err != nil || src.invalidated != nil {
		t.Errorf("credentials of the call: got %v", err)
	}
}

type perCall string

func (p perCall) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": string(p)}, nil
}

func (perCall) RequireTransportSecurity() bool { return true }

// TestRejectedTokenOfAClient: what the Client makes of a token that cannot be replaced.
func TestRejectedTokenOfAClient(t *testing.T) {
	iam := iamtest.Start(t)
	face := iamgrpc.Start(t, iam)
	for name, c := range map[string]struct {
		src   *renewer
		check func(*testing.T, any, error)
	}{
		"no other token": {&renewer{tokens: []string{"t1.wrong"}}, fails(refreshtoken.ErrUnauthenticated)},
		"log in again":   {&renewer{tokens: []string{"t1.wrong"}, err: errNoLogin}, fails(errNoLogin)},
		"another one":    {&renewer{tokens: []string{"t1.wrong", iam.IssueAccessToken("", "")}}, fails()},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := grpctransport.Dial(c.src, grpctransport.DialOptions{Endpoint: face.Address, Plaintext: true})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			err = listOnce(t.Context(), conn)
			c.check(t, nil, err)
			if name == "another one" && err != nil {
				t.Error(err)
			}
		})
	}
}

// A codedError is that of a token source that has a status of its own.
type codedError struct{ code codes.Code }

func (e *codedError) Error() string { return "the source failed" }

func (e *codedError) GRPCStatus() *status.Status { return status.New(e.code, "the source failed") }

// TestCodesOfTheSource: the error of the source is within reach whatever its code,
// though grpc-go replaces some of them with an error of its own.
func TestCodesOfTheSource(t *testing.T) {
	restricted := map[codes.Code]bool{codes.OK: true, codes.InvalidArgument: true, codes.NotFound: true, codes.AlreadyExists: true,
		codes.FailedPrecondition: true, codes.Aborted: true, codes.OutOfRange: true, codes.DataLoss: true}
	for code := codes.OK; code <= codes.Unauthenticated; code++ {
		t.Run(code.String(), func(t *testing.T) {
			want := code
			if restricted[code] {
				want = codes.Unauthenticated
			}
			cause := &codedError{code}
			_, err := serveResource(t, &resource{}, &renewer{err: cause}).EmptyCall(t.Context(), &testpb.Empty{})
			if got := status.Code(err); got != want || !errors.Is(err, cause) {
				t.Errorf("got the code %v of %v, want %v", got, err, want)
			}
		})
	}
}

// TestRejectedStreamTellsOnce: a stream returns its error as often as it is read, and
// the source counts what it is told.
func TestRejectedStreamTellsOnce(t *testing.T) {
	src := &renewer{tokens: []string{"a"}}
	client := serveResource(t, &resource{accepts: "Bearer other"}, src)
	stream, err := client.StreamingOutputCall(t.Context(), &testpb.StreamingOutputCallRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if _, err := stream.Recv(); status.Code(err) != codes.Unauthenticated {
			t.Errorf("got %v", err)
		}
	}
	if len(src.invalidated) != 1 {
		t.Errorf("the source was told %q", src.invalidated)
	}
}

// rejecting rejects every token, with identifiers of the exchange.
type rejecting struct {
	iampb.UnimplementedRefreshTokenServiceServer
}

func (rejecting) List(ctx context.Context, _ *iampb.ListRefreshTokensRequest) (*iampb.ListRefreshTokensResponse, error) {
	if err := grpc.SetHeader(ctx, metadata.Pairs("x-request-id", "first")); err != nil {
		return nil, err
	}
	return nil, status.Error(codes.Unauthenticated, "revoked")
}

// stopping is a source that calls stop between a rejection and the next attempt.
type stopping struct {
	*renewer
	stop func()
}

func (s stopping) Invalidate(tok *oauth2.Token) {
	s.stop()
	s.renewer.Invalidate(tok)
}

// ends tells when a connection has ended.
type ends chan struct{}

func (ends) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

func (ends) HandleRPC(context.Context, stats.RPCStats) {}

func (ends) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (e ends) HandleConn(_ context.Context, s stats.ConnStats) {
	if _, ok := s.(*stats.ConnEnd); ok {
		close(e)
	}
}

// TestSecondAttemptWithoutAServer: what the server said to the first attempt is not what
// it said to the second, which did not reach it.
func TestSecondAttemptWithoutAServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	iampb.RegisterRefreshTokenServiceServer(g, rejecting{})
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	ended := make(ends)
	src := stopping{&renewer{tokens: []string{"one", "two"}}, func() {
		g.Stop()
		<-ended
	}}
	conn, err := grpctransport.Dial(src, grpctransport.DialOptions{
		Endpoint: l.Addr().String(), Plaintext: true, Options: []grpc.DialOption{grpc.WithStatsHandler(ended)},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	err = listOnce(t.Context(), conn, refreshtoken.WithRetry(refreshtoken.RetryPolicy{Attempts: 1}))
	var transport *refreshtoken.TransportError
	if !errors.As(err, &transport) || !transport.Temporary {
		t.Errorf("got %v (%T), want a TransportError", err, err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
