package grpctransport

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	iampb "github.com/yandex-cloud/go-genproto/yandex/cloud/iam/v1"
	operationpb "github.com/yandex-cloud/go-genproto/yandex/cloud/operation"

	"github.com/ycauth/ycauth-go/internal/tokenapi"
	"github.com/ycauth/ycauth-go/refreshtoken"
)

// NewClient returns a Client that uses gRPC over conn, which must add the
// authorization metadata. The caller must close conn. A [Conn] of [Dial] and a result of
// [Join] reach both required services; the server of any other
// connection must have both, and [Authenticate] adds the authorization.
//
// The options of refreshtoken that are for REST only (WithEndpoint,
// WithOperationEndpoint, WithUserAgent) are rejected: every call of the Client
// returns an *refreshtoken.ArgumentError.
func NewClient(conn grpc.ClientConnInterface, opts ...refreshtoken.Option) *refreshtoken.Client {
	if conn == nil {
		return refreshtoken.New(nil, opts...) // fails, and says why
	}
	return refreshtoken.New(&transport{
		tokens:     iampb.NewRefreshTokenServiceClient(conn),
		operations: operationpb.NewOperationServiceClient(conn),
	}, opts...)
}

// transport carries the calls of a Client over gRPC.
type transport struct {
	tokens     iampb.RefreshTokenServiceClient
	operations operationpb.OperationServiceClient
}

var _ tokenapi.Transport[refreshtoken.Page, refreshtoken.APIError] = (*transport)(nil)

// operation is the state of a revocation.
type operation = tokenapi.Operation[refreshtoken.APIError]

// List is RefreshTokenService.List.
func (t *transport) List(ctx context.Context, call tokenapi.Call, req tokenapi.ListRequest) (*refreshtoken.Page, error) {
	var x exchange
	resp, err := t.tokens.List(x.begin(ctx, call), &iampb.ListRefreshTokensRequest{
		SubjectId: req.SubjectID, PageSize: int64(req.PageSize), PageToken: req.PageToken, Filter: req.Filter,
	}, x.options()...)
	if err != nil {
		return nil, x.failed(ctx, err)
	}
	page, err := pageOf(resp, req)
	if err != nil {
		return nil, x.wrong(err)
	}
	page.Trace = x.trace()
	return page, nil
}

// Revoke is RefreshTokenService.Revoke.
func (t *transport) Revoke(ctx context.Context, call tokenapi.Call, req tokenapi.RevokeRequest) (*operation, error) {
	var x exchange
	resp, err := t.tokens.Revoke(x.begin(ctx, call), revokeRequestOf(req), x.options()...)
	return x.operation(ctx, resp, err)
}

// Operation is OperationService.Get.
func (t *transport) Operation(ctx context.Context, call tokenapi.Call, id string) (*operation, error) {
	var x exchange
	resp, err := t.operations.Get(x.begin(ctx, call), &operationpb.GetOperationRequest{OperationId: id}, x.options()...)
	return x.operation(ctx, resp, err)
}

// An exchange is one call, with what came beside its response.
type exchange struct {
	header, trailer metadata.MD
	source          sourceError
}

// begin adds the metadata of the call to that which the caller may have put into
// ctx.
func (x *exchange) begin(ctx context.Context, call tokenapi.Call) context.Context {
	md, _ := metadata.FromOutgoingContext(ctx)
	md = md.Copy()
	for name, value := range map[string]string{
		"x-client-request-id": call.ClientRequestID,
		"x-client-trace-id":   call.ClientTraceID,
		"idempotency-key":     call.IdempotencyKey,
	} {
		if value != "" {
			md.Set(name, value)
		}
	}
	return x.source.watch(metadata.NewOutgoingContext(ctx, md))
}

func (x *exchange) options() []grpc.CallOption {
	return []grpc.CallOption{grpc.Header(&x.header), grpc.Trailer(&x.trailer), grpc.MaxCallRecvMsgSize(maxMessage), grpc.CallContentSubtype(""), grpc.ForceCodecV2(counting)}
}

// maxMessage is in bytes.
//
// The largest page has 4.7 MB: 1000 tokens with 1000 characters of client_instance_info and
// three times 50 of IDs, of 4 bytes each, and 60 bytes of times and tags. The default of
// grpc-go, 4 MiB, is less. The largest operation that was thought of lists 100,000 tokens by
// IDs of 20 bytes, in the metadata and in the response, which is 4.4 MB.
const maxMessage = 5 << 20

func (x *exchange) operation(ctx context.Context, resp *operationpb.Operation, err error) (*operation, error) {
	if err != nil {
		return nil, x.failed(ctx, err)
	}
	op, err := operationOf(ctx, resp)
	if err != nil {
		return nil, x.wrong(err)
	}
	op.Trace = tokenapi.Trace(x.trace())
	return op, nil
}
