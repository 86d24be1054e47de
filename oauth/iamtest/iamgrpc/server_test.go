package iamgrpc_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	iampb "github.com/yandex-cloud/go-genproto/yandex/cloud/iam/v1"
	operationpb "github.com/yandex-cloud/go-genproto/yandex/cloud/operation"

	"github.com/ycauth/ycauth-go/oauth/iamtest"
	"github.com/ycauth/ycauth-go/oauth/iamtest/iamgrpc"
	"github.com/ycauth/ycauth-go/oauth/iamtest/internal/iamapi"
)

func TestFaults(t *testing.T) {
	for _, c := range []struct {
		fault  iamtest.Fault
		want   codes.Code
		tokens int // of two, if there is an answer
	}{
		{iamtest.LostRequest(), codes.Unavailable, 0},
		{iamtest.LostAnswer(), codes.Unavailable, 0},
		{iamtest.Truncated(), codes.Unavailable, 0},
		{iamtest.HTTPStatus(500, 0), codes.Internal, 0},
		{iamtest.HTTPStatus(503, 0), codes.Unavailable, 0},
		{iamtest.HTTPStatus(429, 0), codes.Unavailable, 0},
		{iamtest.HTTPStatus(418, 0), codes.Unknown, 0},
		{iamtest.HTML(403), codes.PermissionDenied, 0},
		{iamtest.HTML(200), codes.Unknown, 0},
		{iamtest.Redirect(), codes.Unknown, 0},
		{iamtest.Slow(time.Nanosecond), codes.OK, 2},
		{iamtest.Slow(time.Nanosecond).AfterEffect(), codes.OK, 2},
		{iamtest.Oversized(), codes.ResourceExhausted, 0},
		{iamtest.EmptyBody(), codes.OK, 0},
		{iamtest.UnknownMembers(), codes.OK, 2},
		{iamtest.WrongContentType(), codes.OK, 2},
		{iamtest.DuplicateMember(), codes.OK, 2},
		{iamtest.ClockSkew(time.Minute), codes.OK, 2},
		{iamtest.Echo(0), codes.OK, 2},
		{iamtest.Echo(400), codes.InvalidArgument, 0},
	} {
		t.Run(c.fault.String(), func(t *testing.T) {
			iam := start(t, iamtest.Options{}, 2, nil)
			client := iampb.NewRefreshTokenServiceClient(connect(t, iamgrpc.Start(t, iam)))
			iam.Inject(iamtest.EndpointList, c.fault, 1)
			resp, err := client.List(as(t.Context(), iam), &iampb.ListRefreshTokensRequest{})
			if status.Code(err) != c.want || len(resp.GetRefreshTokens()) != c.tokens {
				t.Errorf("got %d tokens and %v, want %d and %v", len(resp.GetRefreshTokens()), err, c.tokens, c.want)
			}
			if got := iam.Requests()[0].Fault; c.fault != iamtest.ClockSkew(time.Minute) && got != c.fault.String() {
				t.Errorf("the fault is recorded as %q", got)
			}
			// The fault is over, and the connection, if it broke, comes again.
			resp, err = client.List(as(t.Context(), iam), &iampb.ListRefreshTokensRequest{}, grpc.WaitForReady(true))
			if err != nil || len(resp.GetRefreshTokens()) != 2 {
				t.Errorf("after the fault: got %d tokens and %v", len(resp.GetRefreshTokens()), err)
			}
		})
	}
}

func TestFaultsWithAndWithoutEffect(t *testing.T) {
	for _, c := range []struct {
		fault iamtest.Fault
		left  int
	}{
		{iamtest.LostRequest(), 1}, {iamtest.LostAnswer(), 0},
		{iamtest.HTTPStatus(504, 0), 1}, {iamtest.HTTPStatus(504, 0).AfterEffect(), 0},
	} {
		t.Run(c.fault.String(), func(t *testing.T) {
			iam := start(t, iamtest.Options{}, 1, nil)
			client := iampb.NewRefreshTokenServiceClient(connect(t, iamgrpc.Start(t, iam)))
			iam.Inject(iamtest.EndpointRevoke, c.fault, 1)
			_, err := client.Revoke(as(t.Context(), iam), &iampb.RevokeRefreshTokenRequest{Filter: &iampb.RevokeRefreshTokenRequest_RefreshTokenId{RefreshTokenId: "aje0"}})
			if status.Code(err) != codes.Unavailable {
				t.Errorf("got %v", err)
			}
			list, err := iamapi.Of(iam).ListRefreshTokens(iamapi.Caller{SubjectID: "ajeme"}, iamapi.ListRequest{})
			if err != nil || len(list.RefreshTokens) != c.left {
				t.Errorf("%d tokens are left (%v), want %d", len(list.RefreshTokens), err, c.left)
			}
		})
	}
}

func TestSlowEndsWithTheCaller(t *testing.T) {
	for _, fault := range []iamtest.Fault{iamtest.Slow(time.Minute), iamtest.Slow(time.Minute).AfterEffect()} {
		iam := start(t, iamtest.Options{}, 1, nil)
		client := iampb.NewRefreshTokenServiceClient(connect(t, iamgrpc.Start(t, iam)))
		iam.Inject(iamtest.EndpointList, fault, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, err := client.List(as(ctx, iam), &iampb.ListRefreshTokensRequest{})
		cancel()
		if status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("%v: got %v", fault, err)
		}
	}
}

func TestRetryAfterIsRetryInfo(t *testing.T) {
	iam := start(t, iamtest.Options{}, 1, nil)
	client := iampb.NewRefreshTokenServiceClient(connect(t, iamgrpc.Start(t, iam)))
	iam.Inject(iamtest.EndpointList, iamtest.HTTPStatus(503, 7*time.Second), 1)
	_, err := client.List(as(t.Context(), iam), &iampb.ListRefreshTokensRequest{})
	details := status.Convert(err).Details()
	if len(details) != 1 || details[0].(*errdetails.RetryInfo).GetRetryDelay().AsDuration() != 7*time.Second {
		t.Errorf("got the details %v", details)
	}
}

func TestEcho(t *testing.T) {
	iam := start(t, iamtest.Options{}, 1, nil)
	conn := connect(t, iamgrpc.Start(t, iam))
	client := iampb.NewRefreshTokenServiceClient(conn)
	value := iam.Seed(1, nil)[0]
	iam.Inject(iamtest.EndpointRevoke, iamtest.Echo(0), 1)
	iam.Inject(iamtest.EndpointRevoke, iamtest.Echo(400), 1)
	req := &iampb.RevokeRefreshTokenRequest{Filter: &iampb.RevokeRefreshTokenRequest_RefreshToken{RefreshToken: value}}
	var header metadata.MD
	op, err := client.Revoke(as(t.Context(), iam), req, grpc.Header(&header))
	if err != nil {
		t.Fatal(err)
	}
	var got iampb.RevokeRefreshTokenResponse
	if err := op.GetResponse().UnmarshalTo(&got); err != nil {
		t.Fatal(err)
	}
	if op.GetId() != value || op.GetDescription() != value || got.GetRefreshTokenIds()[0] != value || header.Get("x-request-id")[0] != value {
		t.Errorf("got %v with %v", op, header)
	}
	_, err = client.Revoke(as(t.Context(), iam), req)
	if st := status.Convert(err); !strings.HasSuffix(st.Message(), value) || st.Details()[0].(*errdetails.RequestInfo).GetRequestId() != value {
		t.Errorf("got %v", err)
	}
	token := iam.IssueAccessToken("", "")
	iam.Inject(iamtest.EndpointList, iamtest.Echo(0), 1)
	list, err := client.List(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token), &iampb.ListRefreshTokensRequest{})
	if err != nil || list.GetRefreshTokens()[0].GetId() != token {
		t.Errorf("got %v and %v", list, err)
	}
}

func TestOtherOperations(t *testing.T) {
	iam := start(t, iamtest.Options{OperationPolls: 5}, 1, nil)
	conn := connect(t, iamgrpc.Start(t, iam))
	op, err := iampb.NewRefreshTokenServiceClient(conn).Revoke(as(t.Context(), iam), &iampb.RevokeRefreshTokenRequest{
		Filter: &iampb.RevokeRefreshTokenRequest_RefreshTokenId{RefreshTokenId: "aje0"}})
	if err != nil {
		t.Fatal(err)
	}
	iam.Inject(iamtest.EndpointOperation, iamtest.OperationNotFound(), 1)
	iam.Inject(iamtest.EndpointOperation, iamtest.ForeignOperation(), 1)
	operations, req := operationpb.NewOperationServiceClient(conn), &operationpb.GetOperationRequest{OperationId: op.GetId()}
	if _, err := operations.Get(as(t.Context(), iam), req); status.Code(err) != codes.NotFound {
		t.Errorf("got %v", err)
	}
	got, err := operations.Get(as(t.Context(), iam), req)
	if err != nil || got.GetId() == op.GetId() || !got.GetDone() || got.GetResponse() == nil {
		t.Errorf("got %v and %v", got, err)
	}
	got, err = operations.Get(as(t.Context(), iam), req)
	if err != nil || got.GetId() != op.GetId() || got.GetDone() {
		t.Errorf("got %v and %v", got, err)
	}
}

func TestRepeatedPage(t *testing.T) {
	iam := start(t, iamtest.Options{}, 3, nil)
	client := iampb.NewRefreshTokenServiceClient(connect(t, iamgrpc.Start(t, iam)))
	iam.Inject(iamtest.EndpointList, iamtest.RepeatedPage(), -1)
	token := ""
	for i, same := range []bool{false, true, true} {
		resp, err := client.List(as(t.Context(), iam), &iampb.ListRefreshTokensRequest{PageSize: 1, PageToken: token})
		if err != nil || (resp.GetNextPageToken() == token) != same {
			t.Errorf("page %d: got the token %q after %q, and %v", i, resp.GetNextPageToken(), token, err)
		}
		token = resp.GetNextPageToken()
	}
}

func TestRecords(t *testing.T) {
	iam := start(t, iamtest.Options{}, 1, nil)
	conn := connect(t, iamgrpc.Start(t, iam))
	var header metadata.MD
	_, err := iampb.NewRefreshTokenServiceClient(conn).List(as(t.Context(), iam,
		"x-client-request-id", "request-1", "x-client-trace-id", "trace-1", "idempotency-key", "key-1"),
		&iampb.ListRefreshTokensRequest{}, grpc.Header(&header))
	if err != nil {
		t.Fatal(err)
	}
	_, err = operationpb.NewOperationServiceClient(conn).Get(as(t.Context(), iam), &operationpb.GetOperationRequest{OperationId: "ajonone"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("got %v", err)
	}
	_, err = operationpb.NewOperationServiceClient(conn).Cancel(as(t.Context(), iam), &operationpb.CancelOperationRequest{OperationId: "ajo"})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("Cancel: got %v", err)
	}
	got := iam.Requests()
	for i := range got {
		if !strings.HasPrefix(got[i].UserAgent, "grpc-go/") || got[i].Time != epoch || len(got[i].RequestID) != 36 {
			t.Errorf("recorded %+v", got[i])
		}
		if i == 0 && got[i].RequestID != header.Get("x-request-id")[0] {
			t.Errorf("the request id %s was answered as %v", got[i].RequestID, header.Get("x-request-id"))
		}
		got[i].Time, got[i].UserAgent, got[i].RequestID = time.Time{}, "", ""
	}
	want := []iamtest.Request{
		{Number: 1, Endpoint: iamtest.EndpointList, Method: "POST", Path: "/yandex.cloud.iam.v1.RefreshTokenService/List", Status: 200,
			ClientID: iam.ClientID, Subject: "ajeme", Credentials: []string{"authorization"},
			ClientRequestID: "request-1", ClientTraceID: "trace-1", IdempotencyKey: "key-1"},
		{Number: 2, Endpoint: iamtest.EndpointOperation, Method: "POST", Path: "/yandex.cloud.operation.OperationService/Get", Status: 404, Error: "NOT_FOUND",
			ClientID: iam.ClientID, Subject: "ajeme", Credentials: []string{"authorization"}},
		{Number: 3, Endpoint: iamtest.EndpointOther, Method: "POST", Path: "/yandex.cloud.operation.OperationService/Cancel", Status: 501, Error: "UNIMPLEMENTED",
			ClientID: iam.ClientID, Subject: "ajeme", Credentials: []string{"authorization"}},
	}
	for i := range want {
		if fmt.Sprintf("%+v", got[i]) != fmt.Sprintf("%+v", want[i]) {
			t.Errorf("recorded\n%+v, want\n%+v", got[i], want[i])
		}
	}
}

func TestAuthentication(t *testing.T) {
	iam := start(t, iamtest.Options{}, 1, nil)
	client := iampb.NewRefreshTokenServiceClient(connect(t, iamgrpc.Start(t, iam)))
	for name, ctx := range map[string]context.Context{
		"none":           t.Context(),
		"another scheme": metadata.AppendToOutgoingContext(t.Context(), "authorization", "Basic eDp5"),
		"twice":          as(as(t.Context(), iam), iam),
		"unknown":        metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer t1.x"),
		"bound to a key": metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+iam.IssueAccessToken("", "thumbprint")),
	} {
		if _, err := client.List(ctx, &iampb.ListRefreshTokensRequest{}); status.Code(err) != codes.Unauthenticated {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// A tb is an iamtest.TB that remembers how it failed.
type tb struct {
	*testing.T
	failed string
}

func (t *tb) Fatalf(format string, args ...any) { t.failed = fmt.Sprintf(format, args...) }

func TestStartTakesOneOptions(t *testing.T) {
	fake := &tb{T: t}
	if s := iamgrpc.Start(fake, iamtest.Start(t), iamgrpc.Options{}, iamgrpc.Options{}); s != nil || !strings.Contains(fake.failed, "not 2") {
		t.Errorf("got %v and %q", s, fake.failed)
	}
}

func TestCloseTwice(t *testing.T) {
	s, err := iamgrpc.New(iamtest.Start(t), iamgrpc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	s.Close()
}
