package grpctransport_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	iampb "github.com/yandex-cloud/go-genproto/yandex/cloud/iam/v1"
	operationpb "github.com/yandex-cloud/go-genproto/yandex/cloud/operation"

	"github.com/ycauth/ycauth-go/refreshtoken"
	"github.com/ycauth/ycauth-go/refreshtoken/grpctransport"
)

// reply is a connection that answers every call alike.
type reply struct {
	message proto.Message
	err     error
	header  metadata.MD // nil: nobody answered
	sent    *metadata.MD
	after   func() // if not nil, called when the response is there
}

func (r reply) Invoke(ctx context.Context, _ string, _, out any, opts ...grpc.CallOption) error {
	if r.sent != nil {
		*r.sent, _ = metadata.FromOutgoingContext(ctx)
	}
	for _, o := range opts {
		if h, ok := o.(grpc.HeaderCallOption); ok {
			*h.HeaderAddr = r.header
		}
	}
	if r.after != nil {
		r.after()
	}
	if r.err == nil {
		proto.Merge(out.(proto.Message), r.message)
	}
	return r.err
}

func (r reply) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Error(codes.Unimplemented, "there are no streams")
}

var answered = metadata.Pairs("x-request-id", "request-1", "x-server-trace-id", "trace\n-1")

// once is a client without retries.
func once(r reply) *refreshtoken.Client {
	return grpctransport.NewClient(r, refreshtoken.WithRetry(refreshtoken.RetryPolicy{Attempts: 1}))
}

func TestMetadata(t *testing.T) {
	var sent metadata.MD
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-mine", "1", "x-client-trace-id", "another")
	client := grpctransport.NewClient(reply{message: &operationpb.Operation{Id: "ajo1"}, header: answered, sent: &sent}, refreshtoken.WithTraceID("trace-7"))
	const key = "3f0c1c5e-8d5b-4b0a-9b57-0a6f5b6f7d11"
	op, err := client.Revoke(ctx, refreshtoken.ByID("aje1").WithIdempotencyKey(key))
	if err != nil || op.ID() != "ajo1" {
		t.Fatalf("got %v and %v", op, err)
	}
	for name, want := range map[string]string{"x-mine": "1", "x-client-trace-id": "trace-7", "idempotency-key": key} {
		if got := strings.Join(sent.Get(name), " "); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if got := sent.Get("x-client-request-id"); len(got) != 1 || len(got[0]) != 36 {
		t.Errorf("x-client-request-id: got %v", got)
	}
	if _, err := client.Operation(ctx, "ajo1"); err != nil || sent.Get("idempotency-key") != nil {
		t.Errorf("got %v; a poll has the key %v", err, sent.Get("idempotency-key"))
	}
}

func TestAnswersThatAreWrong(t *testing.T) {
	broken := &timestamppb.Timestamp{Seconds: math.MaxInt64}
	garbled := func(m proto.Message) *anypb.Any {
		return &anypb.Any{TypeUrl: "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName()), Value: []byte{0xff}}
	}
	packed := func(m proto.Message) *anypb.Any {
		a, err := anypb.New(m)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for _, c := range []struct {
		name, reason string
		answer       reply
	}{
		{"a time that is none", "refresh_tokens[1]: expires_at", reply{message: &iampb.ListRefreshTokensResponse{
			RefreshTokens: []*iampb.RefreshToken{{}, {ExpiresAt: broken, LastUsedAt: broken}}}}},
		{"metadata that is garbled", "metadata is malformed", reply{message: &operationpb.Operation{
			Id: "ajo1", Metadata: garbled(&iampb.RevokeRefreshTokenMetadata{})}}},
		{"a response that is garbled", "response is malformed", reply{message: &operationpb.Operation{
			Id: "ajo1", Done: true, Result: &operationpb.Operation_Response{Response: garbled(&iampb.RevokeRefreshTokenResponse{})}}}},
		{"more tokens than a page has", "more than 1000 refresh tokens", reply{message: &iampb.ListRefreshTokensResponse{
			RefreshTokens: make([]*iampb.RefreshToken, 1001)}}},
		{"more IDs than an account has", "more than 100000 refresh tokens", reply{message: &operationpb.Operation{Id: "ajo1", Done: true,
			Result: &operationpb.Operation_Response{Response: packed(&iampb.RevokeRefreshTokenResponse{RefreshTokenIds: make([]string, 100_001)})}}}},
		{"more IDs in the metadata", "more than 100000 refresh tokens", reply{message: &operationpb.Operation{Id: "ajo1",
			Metadata: packed(&iampb.RevokeRefreshTokenMetadata{RefreshTokenIds: make([]string, 100_001)})}}},
		{"done with nothing", "neither an error nor a response", reply{message: &operationpb.Operation{Id: "ajo1", Done: true}}},
		{"too large", "a smaller PageSize", reply{err: status.Error(codes.ResourceExhausted, "grpc: received message larger than max (9 vs. 4)")}},
		{"no message", "not the message", reply{err: status.Error(codes.Internal, "grpc: failed to unmarshal the received message: proto: x")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.answer.header = answered
			var err error
			if _, page := c.answer.message.(*iampb.ListRefreshTokensResponse); page || c.answer.err != nil {
				for _, err = range once(c.answer).List(t.Context(), refreshtoken.ListOptions{}) {
				}
			} else {
				_, err = once(c.answer).Operation(t.Context(), "ajo1")
			}
			var wrong *refreshtoken.ResponseError
			if !errors.As(err, &wrong) || !strings.Contains(wrong.Reason, c.reason) || wrong.RequestID != "request-1" {
				t.Errorf("got %v, want a ResponseError about %q", err, c.reason)
			}
		})
	}
}

// TestOperationsOfOtherKinds: metadata of an unknown type is ignored, and a response of one
// is that of no revocation.
func TestOperationsOfOtherKinds(t *testing.T) {
	other, err := anypb.New(&emptypb.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	ours, err := anypb.New(&iampb.RevokeRefreshTokenResponse{})
	if err != nil {
		t.Fatal(err)
	}
	wait := func(response *anypb.Any) (*refreshtoken.RevokeResult, error) {
		op, err := once(reply{header: answered, message: &operationpb.Operation{Id: "ajo1", Done: true, Metadata: other,
			Result: &operationpb.Operation_Response{Response: response}}}).Operation(t.Context(), "ajo1")
		if err != nil {
			t.Fatal(err)
		}
		return op.Wait(t.Context())
	}
	trace := refreshtoken.Trace{RequestID: "request-1", ServerTraceID: "trace-1"}
	if got, err := wait(ours); err != nil || len(got.RefreshTokenIDs) != 0 || got.SubjectID != "" || got.Trace != trace {
		t.Errorf("got %+v and %v", got, err)
	}
	var wrong *refreshtoken.ResponseError
	for _, response := range []*anypb.Any{other, {TypeUrl: "example.com/unknown.Type", Value: []byte{0xff}}} {
		if got, err := wait(response); !errors.As(err, &wrong) || !strings.Contains(wrong.Reason, "was no revocation") {
			t.Errorf("%s: got %+v and %v", response.GetTypeUrl(), got, err)
		}
	}
	op, err := once(reply{header: answered, message: &operationpb.Operation{Id: "ajo1", Done: true,
		Result: &operationpb.Operation_Error{Error: &statuspb.Status{Message: "no code"}}}}).Operation(t.Context(), "ajo1")
	if err != nil {
		t.Fatal(err)
	}
	_, err = op.Wait(t.Context())
	failsWith(refreshtoken.CodeUnknown)(t, nil, err)
}

func TestStatusDetails(t *testing.T) {
	known, err := anypb.New(structpb.NewNumberValue(5))
	if err != nil {
		t.Fatal(err)
	}
	st := &statuspb.Status{Code: int32(codes.Aborted), Message: "with details", Details: []*anypb.Any{
		known, {TypeUrl: "example.com/unknown.Type", Value: []byte("Bearer t1.secret")},
	}}
	err = listOnce(t.Context(), reply{err: status.ErrorProto(st), header: answered})
	var api *refreshtoken.APIError
	if !errors.As(err, &api) || api.Code != refreshtoken.CodeAborted || api.HTTPStatus != 0 || api.RequestID != "request-1" {
		t.Fatalf("got %v", err)
	}
	if got, want := string(api.Details[0]), `{"@type":"type.googleapis.com/google.protobuf.Value","value":5}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := string(api.Details[1]), `{"@type":"example.com/unknown.Type"}`; got != want {
		t.Errorf("a detail of an unknown type: got %s, want %s", got, want)
	}
}

// TestDetailsAreBounded: nothing is left of what is too large but its type, and nothing
// can be concluded from the others.
func TestDetailsAreBounded(t *testing.T) {
	large, err := anypb.New(structpb.NewStringValue(strings.Repeat("a", 64<<10)))
	if err != nil {
		t.Fatal(err)
	}
	st := &statuspb.Status{Code: int32(codes.Aborted), Message: strings.Repeat("a", 64<<10+1), Details: []*anypb.Any{large}}
	for range 1000 {
		st.Details = append(st.Details, &anypb.Any{TypeUrl: "example.com/x.Y"})
	}
	err = listOnce(t.Context(), reply{err: status.ErrorProto(st), header: answered})
	var api *refreshtoken.APIError
	if !errors.As(err, &api) || len(api.Details) != 101 || api.Message != "(a text longer than 64 KiB)" {
		t.Fatalf("got %v with %d details", err, len(api.Details))
	}
	if got := string(api.Details[0]); got != `{"@type":"type.googleapis.com/google.protobuf.Value"}` {
		t.Errorf("got a detail of %d bytes", len(got))
	}
	if got := string(api.Details[100]); got != `{}` {
		t.Errorf("got %s as the last detail", got)
	}
}

// TestDetailsAreBoundedTogether: what is left out is {}, from which nothing can be concluded.
func TestDetailsAreBoundedTogether(t *testing.T) {
	of := func(n int) *anypb.Any {
		a, err := anypb.New(structpb.NewStringValue(strings.Repeat("a", n)))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for _, c := range []struct {
		name    string
		details []*anypb.Any
		whole   []bool
	}{
		{"all", []*anypb.Any{of(20 << 10), of(20 << 10), of(20 << 10)}, []bool{true, true, true}},
		{"the last is left out", []*anypb.Any{of(30 << 10), of(30 << 10), of(30 << 10)}, []bool{true, true, false}},
		{"a small one still fits", []*anypb.Any{of(60 << 10), of(10 << 10), of(10)}, []bool{true, false, true}},
		{"a type", []*anypb.Any{{TypeUrl: strings.Repeat("a", 64<<10+1)}, of(10)}, []bool{false, true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, err := range failures(t, false, c.details) {
				var api *refreshtoken.APIError
				if !errors.As(err, &api) || len(api.Details) != len(c.whole) {
					t.Fatalf("%s: got %v", name, err)
				}
				for i, d := range api.Details {
					if whole := string(d) != `{}`; whole != c.whole[i] {
						t.Errorf("%s: detail %d has %d bytes", name, i, len(d))
					}
				}
			}
		})
	}
}

// TestNestedDetails: a google.protobuf.Any within another one is not converted, which would
// take seconds where there are thousands.
func TestNestedDetails(t *testing.T) {
	var value []byte
	for len(value) < 30<<10 {
		b, err := proto.Marshal(&anypb.Any{TypeUrl: "/google.protobuf.Any", Value: value})
		if err != nil {
			t.Fatal(err)
		}
		value = b
	}
	for name, err := range failures(t, false, slices.Repeat([]*anypb.Any{{TypeUrl: "/google.protobuf.Any", Value: value}}, 100)) {
		var api *refreshtoken.APIError
		if !errors.As(err, &api) || string(api.Details[0]) != `{"@type":"/google.protobuf.Any"}` {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestDetailsAfterTheEnd: no detail is converted after ctx has ended.
func TestDetailsAfterTheEnd(t *testing.T) {
	detail := &anypb.Any{TypeUrl: "example.com/x.Y"}
	for name, err := range failures(t, true, []*anypb.Any{detail, detail}) {
		var api *refreshtoken.APIError
		if !errors.As(err, &api) || len(api.Details) != 1 || string(api.Details[0]) != `{}` {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// failures are the errors of a call that failed with details, and of an operation. ctx can
// end with the response.
func failures(t *testing.T, ends bool, details []*anypb.Any) map[string]error {
	t.Helper()
	st := &statuspb.Status{Code: int32(codes.Aborted), Message: "with details", Details: details}
	errs := map[string]error{}
	for name, answer := range map[string]reply{
		"a call": {err: status.ErrorProto(st)},
		"an operation": {message: &operationpb.Operation{Id: "ajo1", Done: true,
			Result: &operationpb.Operation_Error{Error: st}}},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		answer.header = answered
		if ends {
			answer.after = cancel
		}
		op, err := once(answer).Operation(ctx, "ajo1")
		if op != nil {
			_, err = op.Wait(t.Context())
		}
		errs[name] = err
	}
	return errs
}

// TestNobodyAnswered: the same code means another thing where no server sent it.
func TestNobodyAnswered(t *testing.T) {
	for _, c := range []struct {
		code      codes.Code
		answered  bool
		transport bool // a TransportError, else an APIError
		temporary bool
	}{
		{codes.Unavailable, false, true, true},
		{codes.Internal, false, true, false},
		{codes.Canceled, false, true, false},
		{codes.DeadlineExceeded, false, true, false},
		{codes.Unauthenticated, false, false, false}, // by an interceptor of the official SDK
		{codes.PermissionDenied, false, false, false},
		{codes.NotFound, false, true, false}, // nobody who could know it said so
		{codes.NotFound, true, false, false},
		{codes.Unavailable, true, false, true},
		{codes.Internal, true, false, false},
		{codes.DeadlineExceeded, true, false, true},
	} {
		r := reply{err: status.Error(c.code, "text")}
		if c.answered {
			r.header = answered
		}
		calls := 0
		client := grpctransport.NewClient(counted{r, &calls}, refreshtoken.WithRetry(refreshtoken.RetryPolicy{Attempts: 2, Initial: time.Nanosecond}))
		_, err := client.Operation(t.Context(), "ajo1")
		var transport *refreshtoken.TransportError
		var api *refreshtoken.APIError
		if errors.As(err, &transport) != c.transport || errors.As(err, &api) == c.transport || (calls == 2) != c.temporary {
			t.Errorf("%v, answered %v: got %v (%T) after %d calls", c.code, c.answered, err, err, calls)
		}
		if api != nil && uint32(api.Code) != uint32(c.code) {
			t.Errorf("%v became %v", c.code, api.Code)
		}
	}
}

// TestHandshakeFailures: only a certificate is a reason not to try again. The texts are
// those of grpc-go, crypto/tls and crypto/x509.
func TestHandshakeFailures(t *testing.T) {
	for text, temporary := range map[string]bool{
		"EOF": true,
		"read tcp 127.0.0.1:1->127.0.0.1:2: read: connection reset by peer": true,
		"context deadline exceeded":                                         true,
		"tls: first record does not look like a TLS handshake":              true,
		"remote error: tls: internal error":                                 true,
		"remote error: tls: handshake failure":                              true,
		"something of a later release":                                      true,

		"tls: failed to verify certificate: x509: certificate signed by unknown authority":             false,
		"tls: failed to verify certificate: x509: certificate is valid for a.example, not b.example":   false,
		"tls: failed to verify certificate: SecPolicyCreateSSL error: 0":                               false,
		"tls: failed to parse certificate from server: x509: malformed certificate":                    false,
		"x509: failed to load system roots and no roots provided":                                      false,
		"remote error: tls: bad certificate":                                                           false,
		"remote error: tls: unknown certificate authority":                                             false,
		"remote error: tls: certificate required":                                                      false,
		"remote error: tls: access denied":                                                             false,
		"tls: failed to sign handshake: the PIN is wrong":                                              false,
		"tls: server sent certificate containing RSA key larger than 8192 bits":                        false,
		"credentials: cannot verify authority: x509: certificate has expired or is not yet valid: now": false,
	} {
		calls := 0
		r := reply{err: status.Error(codes.Unavailable, `connection error: desc = "transport: authentication handshake failed: `+text+`"`)}
		client := grpctransport.NewClient(counted{r, &calls}, refreshtoken.WithRetry(refreshtoken.RetryPolicy{Attempts: 2, Initial: time.Nanosecond}))
		_, err := client.Operation(t.Context(), "ajo1")
		var transport *refreshtoken.TransportError
		if !errors.As(err, &transport) || transport.Temporary != temporary || (calls == 2) != temporary {
			t.Errorf("%s: got %v (%T) after %d calls", text, err, err, calls)
		}
	}
}

type counted struct {
	reply
	calls *int
}

func (c counted) Invoke(ctx context.Context, method string, in, out any, opts ...grpc.CallOption) error {
	*c.calls++
	return c.reply.Invoke(ctx, method, in, out, opts...)
}

func TestJoin(t *testing.T) {
	iam, operation := 0, 0
	conn := grpctransport.Join(counted{reply{message: &iampb.ListRefreshTokensResponse{}}, &iam},
		counted{reply{message: &operationpb.Operation{Id: "ajo1"}}, &operation})
	if err := listOnce(t.Context(), conn); err != nil {
		t.Error(err)
	}
	if _, err := grpctransport.NewClient(conn).Operation(t.Context(), "ajo1"); err != nil {
		t.Error(err)
	}
	if iam != 1 || operation != 1 {
		t.Errorf("%d calls to IAM, %d to operations; want one each", iam, operation)
	}
	if _, err := conn.NewStream(t.Context(), nil, "/x.Y/Z"); status.Code(err) != codes.Unimplemented {
		t.Errorf("a stream: got %v", err)
	}
}

// ending is a connection whose caller gives up before the response is there.
type ending struct {
	reply
	cancel func()
}

func (e ending) Invoke(ctx context.Context, method string, in, out any, opts ...grpc.CallOption) error {
	e.cancel()
	return e.reply.Invoke(ctx, method, in, out, opts...)
}

// TestResponseAfterTheEnd: what the server said counts, even if ctx has ended.
func TestResponseAfterTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := grpctransport.NewClient(ending{reply{err: status.Error(codes.PermissionDenied, "text"), header: answered}, cancel}).Operation(ctx, "ajo1")
	if !errors.Is(err, refreshtoken.ErrPermissionDenied) || errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestDialRefusesHosts(t *testing.T) {
	for _, address := range []string{"iam example:443", "iam\x7fexample:443", "iam\texample:443", "unix:///run/iam:443"} {
		var argument *refreshtoken.ArgumentError
		if _, err := grpctransport.Dial(source{}, grpctransport.DialOptions{Endpoint: address}); !errors.As(err, &argument) {
			t.Errorf("%q: got %v", address, err)
		}
	}
}

// TestDeadlineThatTheServerSawFirst: the deadline travels with the call, so that its
// end can be known before the timer of ctx fires.
func TestDeadlineThatTheServerSawFirst(t *testing.T) {
	for _, c := range []struct {
		left    time.Duration // until the deadline
		code    codes.Code
		ofCtx   bool
		waiting time.Duration
	}{
		{49 * time.Millisecond, codes.DeadlineExceeded, true, 49 * time.Millisecond},
		{50 * time.Millisecond, codes.DeadlineExceeded, false, 0}, // one of the server's own
		{49 * time.Millisecond, codes.PermissionDenied, false, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), c.left)
			defer cancel()
			start := time.Now()
			_, err := once(reply{err: status.Error(c.code, "text"), header: answered}).Operation(ctx, "ajo1")
			if errors.Is(err, context.DeadlineExceeded) != c.ofCtx || time.Since(start) != c.waiting {
				t.Errorf("%v left, %v: got %v after %v", c.left, c.code, err, time.Since(start))
			}
		})
	}
}

func TestDialTakesPrintableUserAgents(t *testing.T) {
	conn, err := grpctransport.Dial(source{}, grpctransport.DialOptions{UserAgent: " agent~"})
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}

// limited remembers the limit of the messages that it may receive.
type limited struct {
	reply
	limit *int
}

func (l limited) Invoke(ctx context.Context, method string, in, out any, opts ...grpc.CallOption) error {
	for _, o := range opts {
		if m, ok := o.(grpc.MaxRecvMsgSizeCallOption); ok {
			*l.limit = m.MaxRecvMsgSize
		}
	}
	return l.reply.Invoke(ctx, method, in, out, opts...)
}

// TestLimitOfAMessage: the largest that the API describes fit, and not much more.
func TestLimitOfAMessage(t *testing.T) {
	limit := 0
	if err := listOnce(t.Context(), limited{reply{message: &iampb.ListRefreshTokensResponse{}}, &limit}); err != nil {
		t.Fatal(err)
	}
	text := func(n int) string { return strings.Repeat("\U0001F511", n) }
	latest := timestamppb.New(time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC))
	page := &iampb.ListRefreshTokensResponse{NextPageToken: text(2000)}
	for range 1000 {
		page.RefreshTokens = append(page.RefreshTokens, &iampb.RefreshToken{
			Id: text(50), ClientInstanceInfo: text(1000), ClientId: text(50), SubjectId: text(50),
			CreatedAt: latest, ExpiresAt: latest, LastUsedAt: latest, ProtectionLevel: iampb.RefreshToken_SECURE_KEY_DPOP,
		})
	}
	ids := slices.Repeat([]string{"ajeb0f3k7u1q9d5s2n8p"}, 100_000)
	metadata, err := anypb.New(&iampb.RevokeRefreshTokenMetadata{SubjectId: text(50), RefreshTokenIds: ids})
	if err != nil {
		t.Fatal(err)
	}
	response, err := anypb.New(&iampb.RevokeRefreshTokenResponse{RefreshTokenIds: ids})
	if err != nil {
		t.Fatal(err)
	}
	operation := &operationpb.Operation{Id: text(50), Metadata: metadata, Result: &operationpb.Operation_Response{Response: response}}
	for name, m := range map[string]proto.Message{"a page": page, "an operation": operation} {
		if size := proto.Size(m); size > limit || limit > size*5/4 {
			t.Errorf("%s has %d bytes, and the limit is %d", name, size, limit)
		}
	}
}
