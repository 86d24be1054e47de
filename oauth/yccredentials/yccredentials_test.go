package yccredentials_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/oauth2"
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

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
	"github.com/ycauth/ycauth-go/oauth/iamtest/iamgrpc"
	"github.com/ycauth/ycauth-go/oauth/yccredentials"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var _ yccredentials.TokenSource = (*oauth.TokenSource)(nil)

// source is a TokenSource that is a function.
type source func(context.Context) (*oauth2.Token, error)

func (s source) TokenContext(ctx context.Context) (*oauth2.Token, error) { return s(ctx) }

func token(value string) source {
	return func(context.Context) (*oauth2.Token, error) {
		return &oauth2.Token{AccessToken: value, Expiry: time.Now().Add(time.Hour)}, nil
	}
}

func TestIAMToken(t *testing.T) {
	got, err := yccredentials.New(token("t1.a")).IAMToken(t.Context())
	if err != nil || *got != (credentials.CredentialsToken{Token: "t1.a"}) {
		t.Errorf("got %+v and %v, want the token alone", got, err)
	}
	_, err = yccredentials.New(source(func(context.Context) (*oauth2.Token, error) {
		return &oauth2.Token{AccessToken: "t1.secret", TokenType: "DPoP"}, nil
	})).IAMToken(t.Context())
	if e := (*yccredentials.Error)(nil); !errors.As(err, &e) || !strings.Contains(err.Error(), "type DPoP") || strings.Contains(err.Error(), "secret") {
		t.Errorf("a bound token: got %v", err)
	}
}

// build is a client of the official SDK, in front of an IAM of its own.
func build(t *testing.T, iam *iamtest.Server, src yccredentials.TokenSource, opts ...options.Option) iamsdk.RefreshTokenClient {
	t.Helper()
	face := iamgrpc.Start(t, iam)
	if opts == nil {
		opts = []options.Option{options.WithCredentials(yccredentials.New(src))}
	}
	sdk, err := ycsdk.Build(t.Context(), append(opts, options.WithPlaintext(),
		options.WithEndpointsResolver(endpoints.NewSingleEndpointResolver(face.Address,
			grpc.WithTransportCredentials(insecure.NewCredentials()))))...)
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

// TestSDKAsksWithEveryCall: a token that is replaced is not sent again, which the
// cache of the SDK would do until it expires.
func TestSDKAsksWithEveryCall(t *testing.T) {
	iam := iamtest.Start(t)
	value := iam.IssueAccessToken("", "")
	client := build(t, iam, source(func(ctx context.Context) (*oauth2.Token, error) { return token(value)(ctx) }))
	for range 3 {
		if _, err := client.List(t.Context(), &iampb.ListRefreshTokensRequest{}); err != nil {
			t.Fatal(err)
		}
		iam.RevokeAccessToken(value)
		value = iam.IssueAccessToken("", "")
	}
	if n := iam.Count(iamtest.EndpointList); n != 3 {
		t.Errorf("%d calls, want 3", n)
	}
}

func TestErrorsSurviveTheSDK(t *testing.T) {
	transient := &oauth.ServerError{Status: 503, RetryAfter: 7 * time.Second}
	for _, c := range []struct {
		name string
		err  error
	}{
		{"log in again", &oauth.LoginRequiredError{Reason: "the session was revoked"}},
		{"no session", oauth.ErrNoSession},
		{"the server is unavailable", transient},
		{"the caller gave up", context.Canceled},
	} {
		t.Run(c.name, func(t *testing.T) {
			iam := iamtest.Start(t)
			client := build(t, iam, source(func(context.Context) (*oauth2.Token, error) { return nil, c.err }))
			tokens := client.Iterator(t.Context(), &iampb.ListRefreshTokensRequest{})
			if tokens.Next() {
				t.Fatal("a token without credentials")
			}
			_, revoking := client.Revoke(t.Context(), &iampb.RevokeRefreshTokenRequest{})
			for _, err := range []error{tokens.Error(), revoking} {
				if !errors.Is(err, c.err) || status.Code(err) != codes.Unauthenticated {
					t.Errorf("got %v (%v), want %v in an Unauthenticated", err, status.Code(err), c.err)
				}
			}
			if n := len(iam.Requests()); n != 0 {
				t.Errorf("%d calls without credentials", n)
			}
		})
	}
}

// TestServiceRefusesToken: the answer of the service is told from an error of the
// credentials.
func TestServiceRefusesToken(t *testing.T) {
	_, err := build(t, iamtest.Start(t), token("t1.wrong")).List(t.Context(), &iampb.ListRefreshTokensRequest{})
	if e := (*yccredentials.Error)(nil); status.Code(err) != codes.Unauthenticated || errors.As(err, &e) {
		t.Errorf("got %v (%T)", err, err)
	}
}

// TestWithoutTokens: a source that is nil, or returns nothing.
func TestWithoutTokens(t *testing.T) {
	for name, src := range map[string]yccredentials.TokenSource{
		"no source":   nil,
		"no token":    source(func(context.Context) (*oauth2.Token, error) { return nil, nil }),
		"empty token": token(""),
	} {
		for _, opt := range []options.Option{yccredentials.Option(src), options.WithCredentials(yccredentials.New(src))} {
			iam := iamtest.Start(t)
			_, err := build(t, iam, nil, opt).List(t.Context(), &iampb.ListRefreshTokensRequest{})
			if e := (*yccredentials.Error)(nil); !errors.As(err, &e) || status.Code(err) != codes.Unauthenticated || len(iam.Requests()) != 0 {
				t.Errorf("%s: got %v after %d calls", name, err, len(iam.Requests()))
			}
		}
	}
}

// A renewer is a source with another token for each that is invalidated, up to the last.
type renewer struct {
	mu          sync.Mutex
	tokens      []string
	err         error // after the last
	invalidated int
}

func (r *renewer) TokenContext(context.Context) (*oauth2.Token, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.tokens) == 0 {
		return nil, r.err
	}
	return &oauth2.Token{AccessToken: r.tokens[0]}, nil
}

func (r *renewer) Invalidate(tok *oauth2.Token) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.invalidated++
	if len(r.tokens) > 0 && r.tokens[0] == tok.AccessToken && (len(r.tokens) > 1 || r.err != nil) {
		r.tokens = r.tokens[1:]
	}
}

// TestRevokedTokenIsReplaced within one call of the SDK.
func TestRevokedTokenIsReplaced(t *testing.T) {
	iam := iamtest.Start(t)
	dead, good := iam.IssueAccessToken("", ""), iam.IssueAccessToken("", "")
	iam.RevokeAccessToken(dead)
	for _, c := range []struct {
		name        string
		src         *renewer
		calls       int
		invalidated int
		code        codes.Code
	}{
		{"good", &renewer{tokens: []string{good}}, 1, 0, codes.OK},
		{"revoked", &renewer{tokens: []string{dead, good}}, 2, 1, codes.OK},
		{"the new one is revoked as well", &renewer{tokens: []string{"t1.dead", dead, good}}, 2, 1, codes.Unauthenticated},
		{"nothing else", &renewer{tokens: []string{dead}}, 1, 1, codes.Unauthenticated},
		{"log in again", &renewer{tokens: []string{dead}, err: oauth.ErrLoginRequired}, 1, 1, codes.Unauthenticated},
	} {
		t.Run(c.name, func(t *testing.T) {
			iam.ResetRequests()
			_, err := build(t, iam, nil, yccredentials.Option(c.src)).List(t.Context(), &iampb.ListRefreshTokensRequest{})
			if status.Code(err) != c.code || iam.Count(iamtest.EndpointList) != c.calls || c.src.invalidated != c.invalidated {
				t.Errorf("got %v after %d calls, %d tokens invalidated", err, iam.Count(iamtest.EndpointList), c.src.invalidated)
			}
			if e := (*yccredentials.Error)(nil); errors.As(err, &e) != (c.src.err != nil) || !errors.Is(err, c.src.err) && c.src.err != nil {
				t.Errorf("got %v (%T), want %v", err, err, c.src.err)
			}
		})
	}
}

// TestOptionKeepsDialOptions that the caller gave before it.
func TestOptionKeepsDialOptions(t *testing.T) {
	iam := iamtest.Start(t)
	n := 0
	custom := options.WithCustomDialOptions(grpc.WithChainUnaryInterceptor(
		func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			n++
			return invoke(ctx, method, req, reply, conn, opts...)
		}))
	client := build(t, iam, nil, custom, yccredentials.Option(&renewer{tokens: []string{"t1.dead", iam.IssueAccessToken("", "")}}))
	if _, err := client.List(t.Context(), &iampb.ListRefreshTokensRequest{}); err != nil || n != 1 {
		t.Errorf("got %v, and the interceptor saw %d calls", err, n)
	}
}

// TestZeroError prints something, and has its status.
func TestZeroError(t *testing.T) {
	err := &yccredentials.Error{}
	if got := err.Error(); got != "yccredentials: no IAM token" {
		t.Errorf("got %q", got)
	}
	if status.Code(err) != codes.Unauthenticated || errors.Unwrap(err) != nil {
		t.Errorf("got the status %v of %v", status.Code(err), errors.Unwrap(err))
	}
}
