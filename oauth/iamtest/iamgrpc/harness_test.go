package iamgrpc_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/ycauth/ycauth-go/oauth/iamtest"
	"github.com/ycauth/ycauth-go/oauth/iamtest/iamgrpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// start starts a server whose clock stands still, with tokens aje0 and so on.
func start(t *testing.T, o iamtest.Options, tokens int, edit func(i int, s *iamtest.Seed)) *iamtest.Server {
	t.Helper()
	o.Subject, o.Now = "ajeme", func() time.Time { return epoch }
	iam := iamtest.Start(t, o)
	iam.Seed(tokens, func(i int, s *iamtest.Seed) {
		s.ID = fmt.Sprintf("aje%d", i)
		if edit != nil {
			edit(i, s)
		}
	})
	return iam
}

func connect(t *testing.T, face *iamgrpc.Server) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(face.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return conn
}

// as puts the subject's access token, and further metadata, into ctx.
func as(ctx context.Context, iam *iamtest.Server, kv ...string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, append([]string{"authorization", "Bearer " + iam.IssueAccessToken("", "")}, kv...)...)
}

// rest is the body of an answer of the REST face.
func rest(t *testing.T, iam *iamtest.Server, method, path, body string, kv ...string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, iam.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+iam.IssueAccessToken("", ""))
	for i := 0; i < len(kv); i += 2 {
		req.Header.Set(kv[i], kv[i+1])
	}
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := hc.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
