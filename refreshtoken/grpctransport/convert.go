package grpctransport

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	iampb "github.com/yandex-cloud/go-genproto/yandex/cloud/iam/v1"
	operationpb "github.com/yandex-cloud/go-genproto/yandex/cloud/operation"

	"github.com/ycauth/ycauth-go/internal/tokenapi"
	"github.com/ycauth/ycauth-go/refreshtoken"
)

func revokeRequestOf(req tokenapi.RevokeRequest) *iampb.RevokeRefreshTokenRequest {
	out := &iampb.RevokeRefreshTokenRequest{}
	switch {
	case req.RefreshTokenID != "":
		out.SetRefreshTokenId(req.RefreshTokenID)
	case req.RevokeFilter != nil:
		// One without conditions is sent as it is: it selects every token of the
		// caller, by the documentation and by the definition.
		out.SetRevokeFilter(&iampb.RevokeFilter{
			ClientId: req.RevokeFilter.ClientID, SubjectId: req.RevokeFilter.SubjectID,
			ClientInstanceInfo: req.RevokeFilter.ClientInstanceInfo,
		})
	default:
		out.SetRefreshToken(req.RefreshToken())
	}
	return out
}

func pageOf(resp *iampb.ListRefreshTokensResponse, req tokenapi.ListRequest) (*refreshtoken.Page, error) {
	list := resp.GetRefreshTokens()
	if err := req.CheckTokens(len(list)); err != nil {
		return nil, err
	}
	page := &refreshtoken.Page{
		RefreshTokens: make([]*refreshtoken.RefreshToken, len(list)),
		NextPageToken: resp.GetNextPageToken(),
	}
	for i, t := range list {
		var err error
		if page.RefreshTokens[i], err = tokenOf(t); err != nil {
			return nil, fmt.Errorf("refresh_tokens[%d]: %w", i, err)
		}
	}
	return page, nil
}

func tokenOf(t *iampb.RefreshToken) (*refreshtoken.RefreshToken, error) {
	var r times
	out := &refreshtoken.RefreshToken{
		ID:                 t.GetId(),
		ClientInstanceInfo: t.GetClientInstanceInfo(),
		ClientID:           t.GetClientId(),
		SubjectID:          t.GetSubjectId(),
		CreatedAt:          r.time("created_at", t.GetCreatedAt()),
		ExpiresAt:          r.time("expires_at", t.GetExpiresAt()),
		LastUsedAt:         r.time("last_used_at", t.GetLastUsedAt()),
		ProtectionLevel:    levelOf(t.GetProtectionLevel()),
	}
	return out, r.err
}

// levelOf is the name of the level; a level that the definition does not have is
// its number, as over REST.
func levelOf(l iampb.RefreshToken_ProtectionLevel) refreshtoken.ProtectionLevel {
	if name, ok := iampb.RefreshToken_ProtectionLevel_name[int32(l)]; ok {
		return refreshtoken.ProtectionLevel(name)
	}
	return refreshtoken.ProtectionLevel(strconv.Itoa(int(l)))
}

// times reads timestamps, and keeps the first error.
type times struct{ err error }

// time is zero for one that is missing. The years 1 to 9999 are those of
// google.protobuf.Timestamp.
func (r *times) time(name string, ts *timestamppb.Timestamp) time.Time {
	if ts == nil {
		return time.Time{}
	}
	if err := ts.CheckValid(); err != nil {
		if r.err == nil {
			r.err = fmt.Errorf("%s is not a time in the years 1 to 9999", name)
		}
		return time.Time{}
	}
	return ts.AsTime()
}

func operationOf(ctx context.Context, op *operationpb.Operation) (*operation, error) {
	out := &operation{ID: op.GetId(), Done: op.GetDone()}
	var metadata iampb.RevokeRefreshTokenMetadata
	if _, err := unpack("metadata", op.GetMetadata(), &metadata); err != nil {
		return nil, err
	}
	if err := tokenapi.CheckIDs(len(metadata.GetRefreshTokenIds())); err != nil {
		return nil, err
	}
	out.Metadata = tokenapi.Metadata{SubjectID: metadata.GetSubjectId(), RefreshTokenIDs: metadata.GetRefreshTokenIds()}
	switch result := op.GetResult().(type) {
	case *operationpb.Operation_Error:
		out.Err = apiErrorOf(ctx, result.Error)
		if out.Err.Code == 0 {
			out.Err.Code = refreshtoken.CodeUnknown // a failure, whatever its code says
		}
	case *operationpb.Operation_Response:
		var response iampb.RevokeRefreshTokenResponse
		known, err := unpack("response", result.Response, &response)
		if err != nil {
			return nil, err
		}
		if err := tokenapi.CheckIDs(len(response.GetRefreshTokenIds())); err != nil {
			return nil, err
		}
		out.Response = &tokenapi.Response{RefreshTokenIDs: response.GetRefreshTokenIds(), Foreign: !known}
	}
	return out, nil
}

// unpack reads a message out of an Any. One of another type is ignored: it may
// be that of another API, and says nothing that is understood here. known is false
// for it.
func unpack(name string, a *anypb.Any, m proto.Message) (known bool, err error) {
	if a == nil || !a.MessageIs(m) {
		return a == nil, nil
	}
	if err := a.UnmarshalTo(m); err != nil {
		return true, fmt.Errorf("%s is malformed", name)
	}
	return true, nil
}
