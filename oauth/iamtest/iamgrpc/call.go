package iamgrpc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	endpointpb "github.com/yandex-cloud/go-genproto/yandex/cloud/endpoint"
	iampb "github.com/yandex-cloud/go-genproto/yandex/cloud/iam/v1"
	operationpb "github.com/yandex-cloud/go-genproto/yandex/cloud/operation"

	"github.com/ycauth/ycauth-go/oauth/iamtest"
	"github.com/ycauth/ycauth-go/oauth/iamtest/internal/iamapi"
)

// methods are the endpoints of iamtest that the methods correspond to.
var methods = map[string]iamtest.Endpoint{
	iampb.RefreshTokenService_List_FullMethodName:     iamtest.EndpointList,
	iampb.RefreshTokenService_Revoke_FullMethodName:   iamtest.EndpointRevoke,
	operationpb.OperationService_Get_FullMethodName:   iamtest.EndpointOperation,
	endpointpb.ApiEndpointService_Get_FullMethodName:  iamtest.EndpointEndpoints,
	endpointpb.ApiEndpointService_List_FullMethodName: iamtest.EndpointEndpoints,
}

// A call is one call and its answer.
type call struct {
	ctx     context.Context
	rec     iamapi.Call
	fault   iamapi.Fault
	handle  func(context.Context) (any, error)
	dropped bool // the connection is closed without an answer
}

// serve is the interceptor that every call goes through.
func (s *Server) serve(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	endpoint, known := methods[info.FullMethod]
	if !known {
		endpoint = iamtest.EndpointOther
	}
	c := &call{ctx: ctx, rec: record(ctx, endpoint, info.FullMethod)}
	c.fault = s.iam.TakeFault(string(endpoint))
	if c.fault.Kind != "" {
		c.rec.Fault = c.fault.String()
	}
	err := grpc.SetHeader(ctx, c.header(req))
	if err != nil {
		return nil, err
	}
	c.handle = func(ctx context.Context) (any, error) {
		if endpoint != iamtest.EndpointEndpoints { // which is there for everybody
			who, err := authenticate(ctx, s.iam)
			if err != nil {
				return nil, err
			}
			c.rec.Subject, c.rec.ClientID = who.SubjectID, who.ClientID
			ctx = context.WithValue(ctx, callerKey{}, who)
		}
		return handler(ctx, req)
	}
	resp, err := c.answer(req)
	if err != nil {
		err = c.status(err)
	}
	s.record(c, err) //nolint:contextcheck // what is recorded outlives the call
	if c.dropped {
		if p, ok := peer.FromContext(ctx); ok {
			s.conns.drop(p.Addr)
		}
	}
	return resp, err
}

// header is what every call is answered with, unless a proxy answers it.
func (c *call) header(req any) metadata.MD {
	switch c.fault.Kind {
	case iamapi.FaultEcho:
		secret := c.credential(req)
		return metadata.Pairs("x-request-id", secret, "x-server-trace-id", secret, "server", secret, "via", secret)
	case iamapi.FaultHTTPStatus, iamapi.FaultHTML, iamapi.FaultRedirect:
		return nil
	}
	return metadata.Pairs(
		"x-request-id", c.rec.RequestID,
		"x-server-trace-id", strings.ReplaceAll(c.rec.RequestID, "-", "")+":0:0:0")
}

// credential is what the call carried that must not be shown.
func (c *call) credential(req any) string {
	if r, ok := req.(*iampb.RevokeRefreshTokenRequest); ok && r.GetRefreshToken() != "" {
		return r.GetRefreshToken()
	}
	md, _ := metadata.FromIncomingContext(c.ctx)
	if token, ok := strings.CutPrefix(first(md, "authorization"), "Bearer "); ok {
		return token
	}
	return "the-call-had-no-credential"
}

// record is what can be told of a call before it is answered.
func record(ctx context.Context, endpoint iamtest.Endpoint, method string) iamapi.Call {
	md, _ := metadata.FromIncomingContext(ctx)
	r := iamapi.Call{
		Endpoint: string(endpoint), Method: http.MethodPost, Path: method, RequestID: newID(),
		UserAgent: first(md, "user-agent"), IdempotencyKey: first(md, "idempotency-key"),
		ClientRequestID: first(md, "x-client-request-id"), ClientTraceID: first(md, "x-client-trace-id"),
	}
	if len(md.Get("authorization")) > 0 {
		r.Credentials = []string{"authorization"}
	}
	return r
}

// record tells the server of the call, before the client has the answer.
func (s *Server) record(c *call, err error) {
	if !c.dropped && c.ctx.Err() == nil {
		code := iamapi.Code(status.Code(err))
		c.rec.Status = code.HTTPStatus()
		if code != iamapi.OK {
			c.rec.Error = code.String()
		}
	}
	s.iam.Record(c.rec)
}

func first(md metadata.MD, name string) string {
	if v := md.Get(name); len(v) > 0 {
		return v[0]
	}
	return ""
}

type callerKey struct{}

// caller is who makes the call.
func caller(ctx context.Context) iamapi.Caller {
	who, _ := ctx.Value(callerKey{}).(iamapi.Caller)
	return who
}

func authenticate(ctx context.Context, iam iamapi.API) (iamapi.Caller, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	token, ok := strings.CutPrefix(first(md, "authorization"), "Bearer ")
	if !ok || len(md.Get("authorization")) != 1 {
		return iamapi.Caller{}, &iamapi.Status{Code: iamapi.Unauthenticated, Message: "the call has no access token"}
	}
	return iam.Authenticate(token)
}

// answer handles the call, with its fault.
func (c *call) answer(req any) (any, error) {
	switch c.fault.Kind {
	case iamapi.FaultLostRequest:
		c.dropped = true
		return nil, status.Error(codes.Unavailable, "the request is lost")
	case iamapi.FaultHTTPStatus, iamapi.FaultHTML, iamapi.FaultRedirect:
		if c.fault.TakesEffect {
			_, _ = c.handle(c.ctx)
		}
		return nil, c.proxyError()
	case iamapi.FaultOperationNotFound:
		return nil, &iamapi.Status{Code: iamapi.NotFound, Message: "there is no such operation"}
	case iamapi.FaultEcho:
		if c.fault.Status != 0 {
			return nil, c.echoError(c.credential(req))
		}
	case iamapi.FaultSlow:
		if !c.fault.TakesEffect && !c.wait() {
			return nil, status.FromContextError(c.ctx.Err()).Err()
		}
	}
	resp, err := c.handle(c.ctx)
	if err != nil {
		return nil, err
	}
	return c.change(req, resp)
}

// change is the part of a fault that comes after the call was handled.
func (c *call) change(req, resp any) (any, error) {
	switch c.fault.Kind {
	case iamapi.FaultLostAnswer, iamapi.FaultTruncated:
		c.dropped = true
		return nil, status.Error(codes.Unavailable, "the answer is lost")
	case iamapi.FaultSlow:
		if c.fault.TakesEffect && !c.wait() {
			return nil, status.FromContextError(c.ctx.Err()).Err()
		}
	case iamapi.FaultEmptyBody:
		proto.Reset(resp.(proto.Message))
	case iamapi.FaultOversized:
		addUnknown(resp.(proto.Message), make([]byte, oversize))
	case iamapi.FaultUnknownMembers:
		addUnknown(resp.(proto.Message), []byte("a field that nobody knows yet"))
	case iamapi.FaultRepeatedPage:
		repeatPage(req, resp)
	case iamapi.FaultForeignOperation:
		foreign(resp)
	case iamapi.FaultEcho:
		echoStrings(resp.(proto.Message).ProtoReflect(), c.credential(req))
	}
	return resp, nil
}

// echoError is an error with the credential in every string of it.
func (c *call) echoError(secret string) error {
	return status.ErrorProto(&statuspb.Status{
		Code: int32(codes.InvalidArgument), Message: "unknown: " + secret, Details: appendDetail(nil,
			&errdetails.RequestInfo{RequestId: secret, ServingData: secret}),
	})
}

// wait lets the client wait, and reports whether it did.
func (c *call) wait() bool {
	timer := time.NewTimer(c.fault.Duration)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.ctx.Done():
		return false
	}
}

// proxyError is what a client of gRPC makes of an HTTP status ("HTTP to gRPC
// Status Code Mapping" of the gRPC documentation; a 500 is an Internal here, as it
// comes from a service and not from a proxy).
func (c *call) proxyError() error {
	code := map[int]codes.Code{
		http.StatusBadRequest: codes.Internal, http.StatusInternalServerError: codes.Internal,
		http.StatusUnauthorized: codes.Unauthenticated, http.StatusForbidden: codes.PermissionDenied,
		http.StatusNotFound: codes.Unimplemented, http.StatusTooManyRequests: codes.Unavailable,
		http.StatusBadGateway: codes.Unavailable, http.StatusServiceUnavailable: codes.Unavailable,
		http.StatusGatewayTimeout: codes.Unavailable,
	}
	st := &statuspb.Status{Code: int32(codes.Unknown), Message: http.StatusText(c.fault.Status)}
	if known, ok := code[c.fault.Status]; ok {
		st.Code = int32(known)
	}
	if c.fault.RetryAfter > 0 {
		st.Details = appendDetail(nil, &errdetails.RetryInfo{RetryDelay: durationpb.New(c.fault.RetryAfter)})
	}
	return status.ErrorProto(st)
}

// status is an error of iamtest as it travels, with the details that the REST face
// gives it.
func (c *call) status(err error) error {
	var s *iamapi.Status
	if !errors.As(err, &s) {
		return err
	}
	st := statusOf(s)
	st.Details = appendDetail(st.Details, &errdetails.RequestInfo{RequestId: c.rec.RequestID})
	return status.ErrorProto(st)
}

func statusOf(s *iamapi.Status) *statuspb.Status {
	st := &statuspb.Status{Code: int32(s.Code), Message: s.Message}
	if s.Field != "" {
		st.Details = appendDetail(nil, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: s.Field, Description: s.Message},
		}})
	}
	return st
}

func appendDetail(details []*anypb.Any, m proto.Message) []*anypb.Any {
	return append(details, pack(m))
}

// pack cannot fail for the messages of this package.
func pack(m proto.Message) *anypb.Any {
	a, err := anypb.New(m)
	if err != nil {
		panic(err)
	}
	return a
}

// newID is a random UUID (RFC 9562 §5.4, version 4).
func newID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
