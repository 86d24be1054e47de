package iamgrpc

import (
	"context"
	"strconv"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	endpointpb "github.com/yandex-cloud/go-genproto/yandex/cloud/endpoint"
	iampb "github.com/yandex-cloud/go-genproto/yandex/cloud/iam/v1"
	operationpb "github.com/yandex-cloud/go-genproto/yandex/cloud/operation"

	"github.com/ycauth/ycauth-go/oauth/iamtest/internal/iamapi"
)

// tokens is RefreshTokenService.
type tokens struct {
	iampb.UnimplementedRefreshTokenServiceServer
	iam iamapi.API
}

func (t tokens) List(ctx context.Context, req *iampb.ListRefreshTokensRequest) (*iampb.ListRefreshTokensResponse, error) {
	resp, err := t.iam.ListRefreshTokens(caller(ctx), iamapi.ListRequest{
		SubjectID: req.GetSubjectId(), PageSize: req.GetPageSize(), PageToken: req.GetPageToken(), Filter: req.GetFilter(),
	})
	if err != nil {
		return nil, err
	}
	out := &iampb.ListRefreshTokensResponse{NextPageToken: resp.NextPageToken}
	for i := range resp.RefreshTokens {
		out.RefreshTokens = append(out.RefreshTokens, tokenOf(&resp.RefreshTokens[i]))
	}
	return out, nil
}

func (t tokens) Revoke(ctx context.Context, req *iampb.RevokeRefreshTokenRequest) (*operationpb.Operation, error) {
	var in iamapi.RevokeRequest
	switch target := req.GetFilter().(type) {
	case *iampb.RevokeRefreshTokenRequest_RefreshTokenId:
		in.RefreshTokenID = &target.RefreshTokenId
	case *iampb.RevokeRefreshTokenRequest_RefreshToken:
		in.RefreshToken = &target.RefreshToken
	case *iampb.RevokeRefreshTokenRequest_RevokeFilter:
		in.RevokeFilter = &iamapi.RevokeFilter{
			ClientID:           target.RevokeFilter.GetClientId(),
			SubjectID:          target.RevokeFilter.GetSubjectId(),
			ClientInstanceInfo: target.RevokeFilter.GetClientInstanceInfo(),
		}
	}
	md, _ := metadata.FromIncomingContext(ctx)
	op, err := t.iam.RevokeRefreshTokens(caller(ctx), in, first(md, "idempotency-key"))
	if err != nil {
		return nil, err
	}
	return operationOf(op), nil
}

// operations is OperationService. Revocations cannot be cancelled: Cancel is
// unimplemented.
type operations struct {
	operationpb.UnimplementedOperationServiceServer
	iam iamapi.API
}

func (o operations) Get(ctx context.Context, req *operationpb.GetOperationRequest) (*operationpb.Operation, error) {
	op, err := o.iam.GetOperation(caller(ctx), req.GetOperationId())
	if err != nil {
		return nil, err
	}
	return operationOf(op), nil
}

// endpoints is ApiEndpointService.
type endpoints struct {
	endpointpb.UnimplementedApiEndpointServiceServer
	server *Server
}

func (e endpoints) List(context.Context, *endpointpb.ListApiEndpointsRequest) (*endpointpb.ListApiEndpointsResponse, error) {
	return &endpointpb.ListApiEndpointsResponse{Endpoints: e.all()}, nil
}

func (e endpoints) Get(_ context.Context, req *endpointpb.GetApiEndpointRequest) (*endpointpb.ApiEndpoint, error) {
	for _, ep := range e.all() {
		if ep.GetId() == req.GetApiEndpointId() {
			return ep, nil
		}
	}
	return nil, &iamapi.Status{Code: iamapi.NotFound, Message: "there is no such endpoint"}
}

// all are the endpoints of the server, those that are here with this address.
func (e endpoints) all() []*endpointpb.ApiEndpoint {
	var all []*endpointpb.ApiEndpoint
	for _, ep := range e.server.iam.Endpoints() {
		if ep.ID == "iam" || ep.ID == "operation" {
			ep.Address = e.server.Address
		}
		all = append(all, &endpointpb.ApiEndpoint{Id: ep.ID, Address: ep.Address})
	}
	return all
}

func tokenOf(t *iamapi.RefreshToken) *iampb.RefreshToken {
	return &iampb.RefreshToken{
		Id: t.ID, ClientInstanceInfo: t.ClientInstanceInfo, ClientId: t.ClientID, SubjectId: t.SubjectID,
		CreatedAt: timeOf(t.CreatedAt), ExpiresAt: timeOf(t.ExpiresAt), LastUsedAt: timeOf(t.LastUsedAt),
		ProtectionLevel: levelOf(t.ProtectionLevel),
	}
}

// futureLevel stands for protection levels that the definitions do not have: an
// enum travels as a number, and a name without one cannot.
const futureLevel = 1000

func levelOf(l string) iampb.RefreshToken_ProtectionLevel {
	if n, ok := iampb.RefreshToken_ProtectionLevel_value[l]; ok {
		return iampb.RefreshToken_ProtectionLevel(n)
	}
	if n, err := strconv.ParseInt(l, 10, 32); err == nil {
		return iampb.RefreshToken_ProtectionLevel(n)
	}
	return futureLevel
}

func timeOf(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func operationOf(op *iamapi.Operation) *operationpb.Operation {
	out := &operationpb.Operation{
		Id: op.ID, Description: op.Description, CreatedAt: timeOf(op.CreatedAt), CreatedBy: op.CreatedBy,
		ModifiedAt: timeOf(op.ModifiedAt), Done: op.Done,
		Metadata: pack(&iampb.RevokeRefreshTokenMetadata{
			SubjectId: op.Metadata.SubjectID, RefreshTokenIds: op.Metadata.RefreshTokenIDs,
		}),
	}
	switch {
	case op.Error != nil:
		out.Result = &operationpb.Operation_Error{Error: statusOf(op.Error)}
	case op.Response != nil:
		out.Result = &operationpb.Operation_Response{Response: pack(&iampb.RevokeRefreshTokenResponse{
			RefreshTokenIds: op.Response.RefreshTokenIDs,
		})}
	}
	return out
}

// repeatPage answers a page with the token that asked for it. The first page is
// left as it is: no token asked for it.
func repeatPage(req, resp any) {
	in, ok := req.(*iampb.ListRefreshTokensRequest)
	if out, also := resp.(*iampb.ListRefreshTokensResponse); ok && also && in.GetPageToken() != "" {
		out.NextPageToken = in.GetPageToken()
	}
}

// oversize is more than the 4 MiB that clients of grpc-go accept by default.
const oversize = 5 << 20

// unknownField is a number that no message of the API uses.
const unknownField = 10000

func addUnknown(m proto.Message, value []byte) {
	field := protowire.AppendTag(nil, unknownField, protowire.BytesType)
	r := m.ProtoReflect()
	r.SetUnknown(append(r.GetUnknown(), protowire.AppendBytes(field, value)...))
}

// foreign makes an Operation one that the server never began.
func foreign(resp any) {
	op, ok := resp.(*operationpb.Operation)
	if !ok {
		return
	}
	ids := []string{"ajrforeign0000000001"}
	proto.Reset(op)
	op.Id, op.Description, op.CreatedBy, op.Done = "ajoforeign0000000001", "Revoke refresh tokens", "ajeforeign0000000001", true
	op.CreatedAt, op.ModifiedAt = timestamppb.Now(), timestamppb.Now()
	op.Metadata = pack(&iampb.RevokeRefreshTokenMetadata{SubjectId: op.GetCreatedBy(), RefreshTokenIds: ids})
	op.Result = &operationpb.Operation_Response{Response: pack(&iampb.RevokeRefreshTokenResponse{RefreshTokenIds: ids})}
}

// echoStrings replaces every string of a message, also in what google.protobuf.Any
// holds.
func echoStrings(m protoreflect.Message, secret string) {
	if a, ok := m.Interface().(*anypb.Any); ok {
		if inner, err := a.UnmarshalNew(); err == nil {
			echoStrings(inner.ProtoReflect(), secret)
			a.Value = pack(inner).GetValue()
		}
		return
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		text := f.Kind() == protoreflect.StringKind
		switch {
		case f.IsMap():
		case f.IsList():
			for i := range v.List().Len() {
				if text {
					v.List().Set(i, protoreflect.ValueOfString(secret))
				} else if f.Message() != nil {
					echoStrings(v.List().Get(i).Message(), secret)
				}
			}
		case text:
			m.Set(f, protoreflect.ValueOfString(secret))
		case f.Message() != nil:
			echoStrings(v.Message(), secret)
		}
		return true
	})
}
