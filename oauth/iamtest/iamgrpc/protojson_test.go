package iamgrpc_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	endpointpb "github.com/yandex-cloud/go-genproto/yandex/cloud/endpoint"
	iampb "github.com/yandex-cloud/go-genproto/yandex/cloud/iam/v1"
	operationpb "github.com/yandex-cloud/go-genproto/yandex/cloud/operation"

	_ "google.golang.org/genproto/googleapis/rpc/errdetails" // details in JSON

	"github.com/ycauth/ycauth-go/oauth/iamtest"
	"github.com/ycauth/ycauth-go/oauth/iamtest/iamgrpc"
	"github.com/ycauth/ycauth-go/oauth/iamtest/internal/iamapi"
)

// compact is what protojson makes of a message, without the white space, which
// protojson varies.
func compact(t *testing.T, m proto.Message) string {
	t.Helper()
	text, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := json.Compact(&out, text); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func same(t *testing.T, rest, grpc string) {
	t.Helper()
	if rest != grpc {
		t.Errorf("the faces differ:\nREST %s\ngRPC %s", rest, grpc)
	}
}

// edges are values that JSON can be written of in more than one way.
func edges(i int, s *iamtest.Seed) {
	s.ClientInstanceInfo = []string{"yc/0.141.0", "<script>&amp;</script>", "a \"b\" \\c/ \u2028 \u2029", "\x00\x1f\x7f\t\n\r\b\f", "я \U0001F511", "", "7"}[i]
	s.CreatedAt = epoch.Add([]time.Duration{0, 500 * time.Millisecond, 123456 * time.Microsecond, 123456789, 1, 10, 120}[i])
	s.ProtectionLevel = []iamtest.ProtectionLevel{
		iamtest.Unspecified, iamtest.NoProtection, iamtest.InsecureKeyDPoP, iamtest.SecureKeyDPoP, iamtest.Unspecified, iamtest.NoProtection, iamtest.NoProtection,
	}[i]
	if i%2 == 0 {
		s.LastUsedAt = s.CreatedAt.Add(time.Hour)
	}
}

// TestBytesOfList: the REST face answers the bytes that protojson makes of what the
// gRPC face answers.
func TestBytesOfList(t *testing.T) {
	iam := start(t, iamtest.Options{}, 7, edges)
	client := iampb.NewRefreshTokenServiceClient(connect(t, iamgrpc.Start(t, iam)))
	for _, c := range []struct {
		req   *iampb.ListRefreshTokensRequest
		query url.Values
	}{
		{&iampb.ListRefreshTokensRequest{}, nil},
		{&iampb.ListRefreshTokensRequest{PageSize: 2}, url.Values{"pageSize": {"2"}}},
		{&iampb.ListRefreshTokensRequest{Filter: `client_id="nobody"`}, url.Values{"filter": {`client_id="nobody"`}}},
	} {
		resp, err := client.List(as(t.Context(), iam), c.req)
		if err != nil {
			t.Fatal(err)
		}
		same(t, rest(t, iam, http.MethodGet, "/iam/v1/refreshTokens?"+c.query.Encode(), ""), compact(t, resp))
	}
}

func TestBytesOfOperations(t *testing.T) {
	const key = "3f0c1c5e-8d5b-4b0a-9b57-0a6f5b6f7d11"
	for name, o := range map[string]iamtest.Options{
		"done": {}, "pending": {OperationDelay: time.Hour},
		"failed": {OperationError: &iamtest.Status{Code: int32(codes.FailedPrecondition), Message: "no <luck>", Field: "refresh_token_id"}},
	} {
		t.Run(name, func(t *testing.T) {
			iam := start(t, o, 3, nil)
			conn := connect(t, iamgrpc.Start(t, iam))
			op, err := iampb.NewRefreshTokenServiceClient(conn).Revoke(as(t.Context(), iam, "idempotency-key", key),
				&iampb.RevokeRefreshTokenRequest{Filter: &iampb.RevokeRefreshTokenRequest_RevokeFilter{RevokeFilter: &iampb.RevokeFilter{ClientId: iam.ClientID}}})
			if err != nil {
				t.Fatal(err)
			}
			// The same key is the same operation, on either face.
			same(t, rest(t, iam, http.MethodPost, "/iam/v1/refreshTokens:revoke", `{"revokeFilter":{"clientId":"`+iam.ClientID+`"}}`, "Idempotency-Key", key), compact(t, op))
			polled, err := operationpb.NewOperationServiceClient(conn).Get(as(t.Context(), iam), &operationpb.GetOperationRequest{OperationId: op.GetId()})
			if err != nil {
				t.Fatal(err)
			}
			same(t, rest(t, iam, http.MethodGet, "/operations/"+op.GetId(), ""), compact(t, polled))
		})
	}
}

var requestID = regexp.MustCompile(`"requestId":"[0-9a-f-]{36}"`)

func TestBytesOfErrors(t *testing.T) {
	iam := start(t, iamtest.Options{}, 1, nil)
	client := iampb.NewRefreshTokenServiceClient(connect(t, iamgrpc.Start(t, iam)))
	for _, c := range []struct {
		name  string
		req   *iampb.ListRefreshTokensRequest
		query url.Values
	}{
		{"with a field", &iampb.ListRefreshTokensRequest{PageSize: 1001}, url.Values{"pageSize": {"1001"}}},
		{"without a field", &iampb.ListRefreshTokensRequest{SubjectId: "ajeother"}, url.Values{"subjectId": {"ajeother"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := client.List(as(t.Context(), iam), c.req)
			grpc := compact(t, status.Convert(err).Proto())
			rest := rest(t, iam, http.MethodGet, "/iam/v1/refreshTokens?"+c.query.Encode(), "")
			if !requestID.MatchString(rest) || !requestID.MatchString(grpc) {
				t.Errorf("no request id in %s or %s", rest, grpc)
			}
			same(t, requestID.ReplaceAllString(rest, "…"), requestID.ReplaceAllString(grpc, "…"))
		})
	}
}

func TestBytesOfEndpoints(t *testing.T) {
	iam := start(t, iamtest.Options{}, 0, nil)
	iamapi.Of(iam).SetEndpoint("compute", "compute.example:443")
	face := iamgrpc.Start(t, iam)
	client := endpointpb.NewApiEndpointServiceClient(connect(t, face))
	list, err := client.List(t.Context(), &endpointpb.ListApiEndpointsRequest{}) // without a token
	if err != nil {
		t.Fatal(err)
	}
	address := strings.TrimPrefix(iam.URL, "http://")
	for _, ep := range list.GetEndpoints() {
		if id := ep.GetId(); id == "iam" || id == "operation" {
			if ep.GetAddress() != face.Address {
				t.Errorf("%s is said to be at %s, not at %s", id, ep.GetAddress(), face.Address)
			}
			ep.Address = address // where the REST face is
		}
	}
	same(t, rest(t, iam, http.MethodGet, "/endpoints", ""), compact(t, list))
	one, err := client.Get(t.Context(), &endpointpb.GetApiEndpointRequest{ApiEndpointId: "compute"})
	if err != nil {
		t.Fatal(err)
	}
	same(t, rest(t, iam, http.MethodGet, "/endpoints/compute", ""), compact(t, one))
	_, err = client.Get(t.Context(), &endpointpb.GetApiEndpointRequest{ApiEndpointId: "nothing"})
	same(t, requestID.ReplaceAllString(rest(t, iam, http.MethodGet, "/endpoints/nothing", ""), "…"),
		requestID.ReplaceAllString(compact(t, status.Convert(err).Proto()), "…"))
}
