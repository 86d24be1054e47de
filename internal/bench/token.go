package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/auth"
	"github.com/yandex-cloud/go-sdk/v2/pkg/authentication"
	iammiddleware "github.com/yandex-cloud/go-sdk/v2/pkg/transport/middleware/authentication"
	"golang.org/x/oauth2"

	"github.com/ycauth/ycauth-go/oauth"
)

// served keeps the compiler from leaving out what is measured.
var served atomic.Int64

// parallel serves from many goroutines, as a server does that handles a request
// in each.
func parallel(b *testing.B, goroutines int, serve func() int) {
	b.ReportAllocs()
	b.SetParallelism(goroutines) // for each core
	b.RunParallel(func(pb *testing.PB) {
		n := 0
		for pb.Next() {
			n += serve()
		}
		served.Add(int64(n))
	})
}

const accessToken = "t1.9euelZqTmZKVkZuPz8yWlZ6Mzp2WkO3rnpWaz"

// tokenTable has so many goroutines ask on each core.
func tokenTable(goroutines int) table {
	at := func(bench func(b *testing.B, goroutines int)) func(b *testing.B) {
		return func(b *testing.B) { bench(b, goroutines) }
	}
	return table{
		title: fmt.Sprintf("A fresh token, goroutines on each core: %d", goroutines),
		text: "What every call of an API pays. The floor is what no token source can do without: one atomic load of the token, " +
			"and a look at the clock. ycauth-go looks at the monotonic clock and at the wall clock, with one reading.",
		candidates: []candidate{
			{"floor: `atomic.Pointer` + `time.Now`", at(benchFloor)},
			{"**ycauth-go** `TokenSource.Token`", at(benchToken)},
			{"**ycauth-go** `TokenSource.TokenContext`", at(benchTokenContext)},
			{"`golang.org/x/oauth2` `ReuseTokenSource`", at(benchReuse)},
			{"`cloud.google.com/go/auth` cached provider", at(benchGoogle)},
			{"`yandex-cloud/go-sdk/v2` IAM middleware", at(benchSDK)},
		},
	}
}

func benchFloor(b *testing.B, goroutines int) {
	type state struct {
		token  *oauth2.Token
		expiry time.Time
	}
	var p atomic.Pointer[state]
	p.Store(&state{&oauth2.Token{AccessToken: accessToken}, time.Now().Add(time.Hour)})
	parallel(b, goroutines, func() int {
		if st := p.Load(); time.Now().Before(st.expiry) {
			return len(st.token.AccessToken)
		}
		return 0
	})
}

// roundTripper is a token endpoint without a network.
type roundTripper struct{}

func (roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	_, _ = io.Copy(io.Discard, req.Body)
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Request: req,
		Body: io.NopCloser(strings.NewReader(`{"access_token":"` + accessToken + `","token_type":"Bearer","expires_in":43199}`)),
	}, nil
}

func newSource(b *testing.B) *oauth.TokenSource {
	b.Helper()
	c, err := oauth.New(oauth.Config{
		Provider: oauth.YandexCloud(), ClientID: oauth.YandexCloudClientID,
		HTTPClient: &http.Client{Transport: roundTripper{}},
	})
	if err != nil {
		b.Fatal(err)
	}
	if err := c.Import(context.Background(), "rt1.x"); err != nil {
		b.Fatal(err)
	}
	ts := c.TokenSource()
	if _, err := ts.Token(); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	return ts
}

func benchToken(b *testing.B, goroutines int) {
	ts := newSource(b)
	parallel(b, goroutines, func() int {
		tok, err := ts.Token()
		if err != nil {
			b.Error(err)
		}
		return len(tok.AccessToken)
	})
}

func benchTokenContext(b *testing.B, goroutines int) {
	ts := newSource(b)
	ctx := b.Context()
	parallel(b, goroutines, func() int {
		tok, err := ts.TokenContext(ctx)
		if err != nil {
			b.Error(err)
		}
		return len(tok.AccessToken)
	})
}

func benchReuse(b *testing.B, goroutines int) {
	tok := &oauth2.Token{AccessToken: accessToken, Expiry: time.Now().Add(12 * time.Hour)}
	ts := oauth2.ReuseTokenSource(tok, oauth2.StaticTokenSource(tok))
	parallel(b, goroutines, func() int {
		tok, err := ts.Token()
		if err != nil {
			b.Error(err)
		}
		return len(tok.AccessToken)
	})
}

type googleProvider struct{}

func (googleProvider) Token(context.Context) (*auth.Token, error) {
	return &auth.Token{Value: accessToken, Expiry: time.Now().Add(12 * time.Hour)}, nil
}

func benchGoogle(b *testing.B, goroutines int) {
	p := auth.NewCachedTokenProvider(googleProvider{}, nil)
	ctx := b.Context()
	if _, err := p.Token(ctx); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	parallel(b, goroutines, func() int {
		tok, err := p.Token(ctx)
		if err != nil {
			b.Error(err)
		}
		return len(tok.Value)
	})
}

type sdkAuthenticator struct{}

func (sdkAuthenticator) CreateIAMToken(context.Context) (authentication.IamToken, error) {
	return authentication.NewIamToken(accessToken, time.Now().Add(12*time.Hour)), nil
}

func (a sdkAuthenticator) CreateIAMTokenForServiceAccount(ctx context.Context, _ string) (authentication.IamToken, error) {
	return a.CreateIAMToken(ctx)
}

func benchSDK(b *testing.B, goroutines int) {
	m := iammiddleware.NewIAMTokenMiddleware(sdkAuthenticator{})
	ctx := b.Context()
	if _, err := m.GetIAMToken(ctx, true); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	parallel(b, goroutines, func() int {
		tok, err := m.GetIAMToken(ctx, true)
		if err != nil {
			b.Error(err)
		}
		return len(tok)
	})
}
