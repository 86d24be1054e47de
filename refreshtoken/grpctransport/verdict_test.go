package grpctransport_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	iampb "github.com/yandex-cloud/go-genproto/yandex/cloud/iam/v1"
	operationpb "github.com/yandex-cloud/go-genproto/yandex/cloud/operation"

	"github.com/ycauth/ycauth-go/oauth/iamtest"
	"github.com/ycauth/ycauth-go/refreshtoken"
	"github.com/ycauth/ycauth-go/refreshtoken/grpctransport"
)

// steps is a connection that responds to a Revoke and then to each poll.
type steps struct{ revoke, poll reply }

func (s steps) Invoke(ctx context.Context, method string, in, out any, opts ...grpc.CallOption) error {
	if method == iampb.RefreshTokenService_Revoke_FullMethodName {
		return s.revoke.Invoke(ctx, method, in, out, opts...)
	}
	return s.poll.Invoke(ctx, method, in, out, opts...)
}

func (s steps) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Error(codes.Unimplemented, "there are no streams")
}

// TestVerdict: which NOT_FOUND, and which success, is about the refresh token.
func TestVerdict(t *testing.T) {
	packed := func(ids ...string) *operationpb.Operation_Response {
		a, err := anypb.New(&iampb.RevokeRefreshTokenResponse{RefreshTokenIds: ids})
		if err != nil {
			t.Fatal(err)
		}
		return &operationpb.Operation_Response{Response: a}
	}
	other, err := anypb.New(&emptypb.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	running := reply{header: answered, message: &operationpb.Operation{Id: "ajo1"}}
	done := func(op *operationpb.Operation) reply {
		op.Done = true
		return reply{header: answered, message: op}
	}
	missing := status.Error(codes.NotFound, "there is no such refresh token")
	for _, c := range []struct {
		name         string
		revoke, poll reply
		revoked      bool
		gone         bool
	}{
		{"the token is missing", reply{header: answered, err: missing}, running, false, true},
		{"nobody said so", reply{err: missing}, running, false, false},
		{"no such method", reply{header: answered, err: status.Error(codes.Unimplemented, "404")}, running, false, false},
		{"the operation is missing", running, reply{header: answered, err: missing}, false, false},
		{"the operation finds no token", running, done(&operationpb.Operation{Id: "ajo1",
			Result: &operationpb.Operation_Error{Error: &statuspb.Status{Code: int32(codes.NotFound), Message: "there is no such refresh token"}}}), false, true},
		{"revoked", running, done(&operationpb.Operation{Id: "ajo1", Result: packed("aje1")}), true, false},
		{"nothing revoked", running, done(&operationpb.Operation{Id: "ajo1", Result: packed()}), false, false},
		{"an empty ID revoked", running, done(&operationpb.Operation{Id: "ajo1", Result: packed("")}), false, false},
		{"another token revoked", running, done(&operationpb.Operation{Id: "ajo1", Result: packed("aje2")}), false, false},
		{"a response of another kind", running, done(&operationpb.Operation{Id: "ajo1",
			Result: &operationpb.Operation_Response{Response: other}}), false, false},
		{"another operation", running, done(&operationpb.Operation{Id: "ajo2", Result: packed("aje1")}), false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := grpctransport.NewClient(steps{c.revoke, c.poll}, quick()...)
			report, err := client.RevokeEach(t.Context(), []string{"aje1"}, refreshtoken.RevokeEachOptions{})
			if report == nil {
				t.Fatal(err)
			}
			if got := len(report.Revoked) == 1; got != c.revoked {
				t.Errorf("revoked: %v (%v)", got, report.Err())
			}
			if got := len(report.Gone) == 1; got != c.gone {
				t.Errorf("gone: %v (%v)", got, report.Err())
			}
		})
	}
}

// TestDetailsThatCannotBeRead: nothing is concluded from the message beside them.
func TestDetailsThatCannotBeRead(t *testing.T) {
	const google = "type.googleapis.com/google.rpc."
	organization := []byte("\x0a\x0corganization")
	token := []byte("\x0a\x0crefreshToken")
	for _, c := range []struct {
		name   string
		detail *anypb.Any
		gone   bool
	}{
		{"the token", &anypb.Any{TypeUrl: google + "ResourceInfo", Value: token}, true},
		{"an unknown type", &anypb.Any{TypeUrl: "example.com/x.Y", Value: organization}, true},
		{"another resource", &anypb.Any{TypeUrl: google + "ResourceInfo", Value: organization}, false},
		{"a resource that is garbled", &anypb.Any{TypeUrl: google + "ResourceInfo", Value: append(organization, 0xff)}, false},
		{"a token that is garbled", &anypb.Any{TypeUrl: google + "ResourceInfo", Value: append(token, 0xff)}, false},
		{"a reason that is garbled", &anypb.Any{TypeUrl: google + "ErrorInfo", Value: []byte{0xff}}, false},
		{"a resource that is too large", &anypb.Any{TypeUrl: google + "ResourceInfo", Value: append(token, make([]byte, 1<<16)...)}, false},
		{"no type", &anypb.Any{Value: organization}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := &statuspb.Status{Code: int32(codes.NotFound), Message: "token not found", Details: []*anypb.Any{c.detail}}
			_, err := once(reply{header: answered, err: status.ErrorProto(st)}).Revoke(t.Context(), refreshtoken.ByID("aje1"))
			if errors.Is(err, refreshtoken.ErrGone) != c.gone || !errors.Is(err, refreshtoken.ErrNotFound) {
				t.Errorf("got %v, want gone: %v", err, c.gone)
			}
		})
	}
}

// TestByTokenTakesAnID: a response that names nothing is no evidence.
func TestByTokenTakesAnID(t *testing.T) {
	for id, revoked := range map[string]bool{"": false, " ": false, "aje1": true} {
		response, err := anypb.New(&iampb.RevokeRefreshTokenResponse{RefreshTokenIds: []string{id}})
		if err != nil {
			t.Fatal(err)
		}
		op, err := once(reply{header: answered, message: &operationpb.Operation{Id: "ajo1", Done: true,
			Result: &operationpb.Operation_Response{Response: response}}}).Revoke(t.Context(), refreshtoken.ByToken("rt1.live"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := op.Wait(t.Context()); (err == nil) != revoked {
			t.Errorf("%q: got %v", id, err)
		}
	}
}

// TestProxyIsNotTheServer: an HTTP server that is no gRPC server knows of no token.
func TestProxyIsNotTheServer(t *testing.T) {
	for name, contentType := range map[string]string{"HTML": "text/html", "what claims to be gRPC": "application/grpc"} {
		t.Run(name, func(t *testing.T) {
			proxy := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", contentType)
				w.Header().Set("X-Request-Id", "of the proxy")
				w.WriteHeader(http.StatusNotFound)
			}))
			proxy.EnableHTTP2 = true
			proxy.StartTLS()
			defer proxy.Close()
			conn, err := grpc.NewClient(proxy.Listener.Addr().String(), grpc.WithTransportCredentials(
				credentials.NewTLS(proxy.Client().Transport.(*http.Transport).TLSClientConfig.Clone())), grpc.WithAuthority("example.com"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_, err = grpctransport.NewClient(conn, quick()...).Revoke(t.Context(), refreshtoken.ByID("aje1"))
			if err == nil || errors.Is(err, refreshtoken.ErrNotFound) || errors.Is(err, refreshtoken.ErrGone) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestGoneOverBothTransports: the same server says it alike.
func TestGoneOverBothTransports(t *testing.T) {
	for name, client := range transports {
		t.Run(name, func(t *testing.T) {
			iam := iamtest.Start(t, iamtest.Options{Subject: "ajeme"})
			c := client(t, iam, source{token: iam.IssueAccessToken("", "")})
			token := iam.Seed(1, func(_ int, s *iamtest.Seed) { s.ID = "aje0" })[0]
			if _, err := revokeAndWait(t.Context(), c, refreshtoken.ByToken(token)); err != nil {
				t.Fatal(err)
			}
			for _, target := range []refreshtoken.Target{refreshtoken.ByToken(token), refreshtoken.ByID("aje0")} {
				if _, err := revokeAndWait(t.Context(), c, target); !errors.Is(err, refreshtoken.ErrGone) {
					t.Errorf("%v: got %v", target, err)
				}
			}
		})
	}
}
