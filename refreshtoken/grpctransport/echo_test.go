package grpctransport_test

import (
	"fmt"
	"strings"
	"testing"

	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	iampb "github.com/yandex-cloud/go-genproto/yandex/cloud/iam/v1"
	operationpb "github.com/yandex-cloud/go-genproto/yandex/cloud/operation"

	"github.com/ycauth/ycauth-go/refreshtoken"
)

// TestEchoes: a server that sends the token back, in its metadata and its messages.
func TestEchoes(t *testing.T) {
	const token = "opaque-token-0123456789"
	value, err := anypb.New(structpb.NewStringValue(token))
	if err != nil {
		t.Fatal(err)
	}
	about, err := anypb.New(&iampb.RevokeRefreshTokenMetadata{SubjectId: token, RefreshTokenIds: []string{token}})
	if err != nil {
		t.Fatal(err)
	}
	done, err := anypb.New(&iampb.RevokeRefreshTokenResponse{RefreshTokenIds: []string{token}})
	if err != nil {
		t.Fatal(err)
	}
	failure := &statuspb.Status{Code: int32(codes.Aborted), Message: token, Details: []*anypb.Any{value, {TypeUrl: token}}}
	header := metadata.Pairs("x-request-id", token, "x-server-trace-id", "a "+token[:3]+" "+token[3:])
	for name, r := range map[string]reply{
		"error":       {header: header, err: status.ErrorProto(failure)},
		"nobody":      {err: status.Error(codes.Unavailable, fmt.Sprintf("connection error: desc = %q", token))},
		"unreadable":  {header: header, err: status.Error(codes.Internal, "grpc: failed to unmarshal "+token)},
		"running":     {header: header, message: &operationpb.Operation{Id: "ajo1", Description: token, CreatedBy: token, Metadata: about}},
		"its own ID":  {header: header, message: &operationpb.Operation{Id: token, Metadata: about}},
		"done":        {header: header, message: &operationpb.Operation{Id: token, Done: true, Metadata: about, Result: &operationpb.Operation_Response{Response: done}}},
		"failed":      {header: header, message: &operationpb.Operation{Id: token, Done: true, Metadata: about, Result: &operationpb.Operation_Error{Error: failure}}},
		"failed, too": {header: header, message: &operationpb.Operation{Id: "ajo1", Result: &operationpb.Operation_Error{Error: failure}}},
	} {
		t.Run(name, func(t *testing.T) {
			op, err := once(r).Revoke(t.Context(), refreshtoken.ByToken(token))
			texts := fmt.Sprintf("%v %+v %#v", err, err, err)
			if err == nil && op.Done() {
				result, err := op.Wait(t.Context())
				texts += fmt.Sprintf("%v %+v %#v %+v %#v", err, err, err, result, result)
			}
			if op != nil {
				texts += fmt.Sprintf("%+v %#v %s", op, op, op.ID())
			}
			if strings.Contains(texts, "opaque") {
				t.Errorf("%s holds the token", texts)
			}
		})
	}
}
