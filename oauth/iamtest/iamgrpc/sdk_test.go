package iamgrpc_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	iampb "github.com/yandex-cloud/go-genproto/yandex/cloud/iam/v1"
	ycsdk "github.com/yandex-cloud/go-sdk/v2"
	"github.com/yandex-cloud/go-sdk/v2/credentials"
	"github.com/yandex-cloud/go-sdk/v2/pkg/endpoints"
	"github.com/yandex-cloud/go-sdk/v2/pkg/options"
	iamsdk "github.com/yandex-cloud/go-sdk/v2/services/iam/v1"

	"github.com/ycauth/ycauth-go/oauth/iamtest"
	"github.com/ycauth/ycauth-go/oauth/iamtest/iamgrpc"
)

// officialClient is the client of the official SDK, which knows nothing of this
// module.
func officialClient(t *testing.T, iam *iamtest.Server) iamsdk.RefreshTokenClient {
	t.Helper()
	sdk, err := ycsdk.Build(t.Context(),
		options.WithCredentials(credentials.IAMToken(iam.IssueAccessToken("", ""))),
		options.WithEndpointsResolver(endpoints.NewSingleEndpointResolver(iamgrpc.Start(t, iam).Address,
			grpc.WithTransportCredentials(insecure.NewCredentials()))),
		options.WithPlaintext())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sdk.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return iamsdk.NewRefreshTokenClient(sdk)
}

func listed(t *testing.T, client iamsdk.RefreshTokenClient, req *iampb.ListRefreshTokensRequest) string {
	t.Helper()
	var ids []string
	tokens := client.Iterator(t.Context(), req)
	for tokens.Next() {
		ids = append(ids, tokens.Value().GetId())
	}
	if err := tokens.Error(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(ids, " ")
}

func TestOfficialSDKLists(t *testing.T) {
	iam := start(t, iamtest.Options{}, 5, func(i int, s *iamtest.Seed) {
		s.ClientInstanceInfo = []string{"old", "new"}[i%2]
	})
	client := officialClient(t, iam)
	for _, c := range []struct {
		req  *iampb.ListRefreshTokensRequest
		want string
	}{
		{&iampb.ListRefreshTokensRequest{}, "aje0 aje1 aje2 aje3 aje4"},
		{&iampb.ListRefreshTokensRequest{PageSize: 2}, "aje0 aje1 aje2 aje3 aje4"},
		{&iampb.ListRefreshTokensRequest{PageSize: 1, Filter: `client_instance_info="new"`}, "aje1 aje3"},
	} {
		if got := listed(t, client, c.req); got != c.want {
			t.Errorf("%v: got %s, want %s", c.req, got, c.want)
		}
	}
}

func TestOfficialSDKRevokes(t *testing.T) {
	for _, c := range []struct {
		name  string
		polls int
		req   *iampb.RevokeRefreshTokenRequest
		left  string
	}{
		{"by id", 0, &iampb.RevokeRefreshTokenRequest{Filter: &iampb.RevokeRefreshTokenRequest_RefreshTokenId{RefreshTokenId: "aje1"}}, "aje0 aje2"},
		{"and polls", 2, &iampb.RevokeRefreshTokenRequest{Filter: &iampb.RevokeRefreshTokenRequest_RefreshTokenId{RefreshTokenId: "aje1"}}, "aje0 aje2"},
		{"by filter", 0, &iampb.RevokeRefreshTokenRequest{Filter: &iampb.RevokeRefreshTokenRequest_RevokeFilter{
			RevokeFilter: &iampb.RevokeFilter{ClientInstanceInfo: "old"}}}, "aje1"},
		{"all of mine", 0, &iampb.RevokeRefreshTokenRequest{Filter: &iampb.RevokeRefreshTokenRequest_RevokeFilter{
			RevokeFilter: &iampb.RevokeFilter{}}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			iam := start(t, iamtest.Options{OperationPolls: c.polls}, 3, func(i int, s *iamtest.Seed) {
				s.ClientInstanceInfo = []string{"old", "new"}[i%2]
			})
			client := officialClient(t, iam)
			before := strings.Fields(listed(t, client, &iampb.ListRefreshTokensRequest{}))
			op, err := client.Revoke(t.Context(), c.req)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := op.WaitInterval(t.Context(), func(int) time.Duration { return time.Millisecond })
			if err != nil {
				t.Fatal(err)
			}
			left := strings.Fields(c.left)
			want := slices.DeleteFunc(before, func(id string) bool { return slices.Contains(left, id) })
			if got := resp.GetRefreshTokenIds(); !slices.Equal(got, want) || !slices.Equal(op.Metadata().GetRefreshTokenIds(), want) {
				t.Errorf("revoked %v (metadata %v), want %v", got, op.Metadata().GetRefreshTokenIds(), want)
			}
			if op.Metadata().GetSubjectId() != "ajeme" {
				t.Errorf("metadata of %q", op.Metadata().GetSubjectId())
			}
			if got := listed(t, client, &iampb.ListRefreshTokensRequest{}); got != c.left {
				t.Errorf("%q are left, want %q", got, c.left)
			}
		})
	}
}

func TestOfficialSDKSeesErrors(t *testing.T) {
	// The operation fails later: one that has failed already is of a wrong type to
	// the SDK.
	iam := start(t, iamtest.Options{OperationPolls: 1, OperationError: &iamtest.Status{Code: int32(codes.FailedPrecondition), Message: "in use"}}, 1, nil)
	client := officialClient(t, iam)
	_, err := client.Revoke(t.Context(), &iampb.RevokeRefreshTokenRequest{})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("an empty request: got %v", err)
	}
	op, err := client.Revoke(t.Context(), &iampb.RevokeRefreshTokenRequest{Filter: &iampb.RevokeRefreshTokenRequest_RefreshTokenId{RefreshTokenId: "aje0"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := op.WaitInterval(t.Context(), func(int) time.Duration { return time.Millisecond }); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("an operation that fails: got %v", err)
	}
}
