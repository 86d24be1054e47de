package main

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"testing"
	"time"

	iampb "github.com/yandex-cloud/go-genproto/yandex/cloud/iam/v1"
	ycsdk "github.com/yandex-cloud/go-sdk/v2"
	"github.com/yandex-cloud/go-sdk/v2/credentials"
	"github.com/yandex-cloud/go-sdk/v2/pkg/endpoints"
	"github.com/yandex-cloud/go-sdk/v2/pkg/options"
	iamsdk "github.com/yandex-cloud/go-sdk/v2/services/iam/v1"
	"golang.org/x/oauth2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ycauth/ycauth-go/oauth/iamtest"
	"github.com/ycauth/ycauth-go/oauth/iamtest/iamgrpc"
	"github.com/ycauth/ycauth-go/refreshtoken"
	"github.com/ycauth/ycauth-go/refreshtoken/grpctransport"
)

// What is listed, and what it takes.
const (
	pageSize = 1000
	pages    = 100
	latency  = 5 * time.Millisecond // of the server, for each page
	work     = 5 * time.Millisecond // of the caller, for each page
)

func listTable() table {
	return table{
		title: "100,000 refresh tokens in 100 pages",
		text: fmt.Sprintf("The server takes %v for each page, and the caller waits %v with each, as it does for a database. "+
			"One after the other that is %v at the least; ycauth-go fetches the next page while the caller works on this one. "+
			"The server runs in the same process, and B/op and allocs/op are those of both.", latency, work, pages*(latency+work)),
		unit: time.Millisecond,
		candidates: []candidate{
			{"`yandex-cloud/go-sdk/v2` iterator", benchList(officialSDK)},
			{"**ycauth-go** over gRPC", benchList(overGRPC(refreshtoken.ListOptions{PageSize: pageSize}))},
			{"**ycauth-go** over REST", benchList(overREST)},
			{"**ycauth-go** over gRPC, without lookahead", benchList(overGRPC(refreshtoken.ListOptions{PageSize: pageSize, NoLookahead: true}))},
		},
	}
}

// A lister lists everything there is, and calls each with every token.
type lister func(ctx context.Context, iam *iamtest.Server, face *iamgrpc.Server, each func()) error

func benchList(list lister) func(*testing.B) {
	return func(b *testing.B) {
		iam, face := cloud(b, pages)
		iam.Inject(iamtest.EndpointList, iamtest.Slow(latency), -1)
		b.ReportAllocs()
		for b.Loop() {
			n := 0
			err := list(b.Context(), iam, face, func() {
				if n++; n%pageSize == 0 {
					time.Sleep(work)
				}
			})
			if err != nil || n != pages*pageSize {
				b.Fatalf("%d tokens, %v", n, err)
			}
		}
	}
}

// cloud is a server with so many pages of tokens.
func cloud(t iamtest.TB, pages int) (*iamtest.Server, *iamgrpc.Server) {
	iam := iamtest.Start(t, iamtest.Options{MaxRecords: 1})
	iam.Seed(pages*pageSize, nil)
	return iam, iamgrpc.Start(t, iam)
}

// static is an access token for both transports.
type static string

func (s static) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(s)}, nil
}

func overGRPC(opts refreshtoken.ListOptions) lister {
	return func(ctx context.Context, iam *iamtest.Server, face *iamgrpc.Server, each func()) error {
		conn, err := grpctransport.Dial(static(iam.IssueAccessToken("", "")), grpctransport.DialOptions{Endpoint: face.Address, Plaintext: true})
		if err != nil {
			return err
		}
		defer conn.Close()
		return drain(ctx, grpctransport.NewClient(conn), opts, each)
	}
}

func overREST(ctx context.Context, iam *iamtest.Server, _ *iamgrpc.Server, each func()) error {
	base := &http.Transport{}
	defer base.CloseIdleConnections()
	source := oauth2.StaticTokenSource(&oauth2.Token{AccessToken: iam.IssueAccessToken("", "")})
	hc := &http.Client{Transport: &oauth2.Transport{Source: source, Base: base}}
	return drain(ctx, refreshtoken.NewClient(hc, refreshtoken.WithEndpoint(iam.IAMEndpoint())), refreshtoken.ListOptions{PageSize: pageSize}, each)
}

func drain(ctx context.Context, client *refreshtoken.Client, opts refreshtoken.ListOptions, each func()) error {
	for _, err := range client.List(ctx, opts) {
		if err != nil {
			return err
		}
		each()
	}
	return nil
}

func officialSDK(ctx context.Context, iam *iamtest.Server, face *iamgrpc.Server, each func()) error {
	sdk, err := ycsdk.Build(ctx, options.WithCredentials(credentials.IAMTokenWithExpiry(iam.IssueAccessToken("", ""), time.Now().Add(time.Hour))),
		options.WithPlaintext(), options.WithEndpointsResolver(endpoints.NewSingleEndpointResolver(face.Address,
			grpc.WithTransportCredentials(insecure.NewCredentials()))))
	if err != nil {
		return err
	}
	tokens := iamsdk.NewRefreshTokenClient(sdk).Iterator(ctx, &iampb.ListRefreshTokensRequest{PageSize: pageSize})
	for tokens.Next() {
		each()
	}
	if err := tokens.Error(); err != nil {
		return err
	}
	return sdk.Shutdown(context.WithoutCancel(ctx))
}

// heapTable is what a listing holds in memory, by the number of its pages.
type heapTable struct{}

func (heapTable) heading() string { return "Memory of a listing, by its pages" }

func (h heapTable) run(int) {
	few, many := 10, pages
	fmt.Printf("\n## %s\n\nThe most that is live while the caller works on a page of %d tokens, in KiB, over what was before the listing; "+
		"a garbage collection comes first. A page ahead is there by then.\n\n| | %d pages | %d pages |\n| --- | ---: | ---: |\n", h.heading(), pageSize, few, many)
	for _, c := range []struct {
		name string
		list lister
	}{
		{"`yandex-cloud/go-sdk/v2` iterator", officialSDK},
		{"**ycauth-go** over gRPC", overGRPC(refreshtoken.ListOptions{PageSize: pageSize})},
		{"**ycauth-go** over REST", overREST},
		{"**ycauth-go** over gRPC, without lookahead", overGRPC(refreshtoken.ListOptions{PageSize: pageSize, NoLookahead: true})},
	} {
		fmt.Printf("| %s | %d | %d |\n", c.name, peak(c.list, few)>>10, peak(c.list, many)>>10)
	}
}

// peak is the most that is live at any of ten moments of a listing, in bytes.
func peak(list lister, pages int) uint64 {
	var most uint64
	r := testing.Benchmark(func(b *testing.B) {
		if b.N > 1 {
			return // once is enough
		}
		iam, face := cloud(b, pages)
		before, n := live(), 0
		err := list(context.Background(), iam, face, func() {
			if n++; n%(pages*pageSize/10) == pageSize/2 {
				time.Sleep(20 * time.Millisecond) // the page ahead comes
				most = max(most, live()-min(before, live()))
			}
		})
		if err != nil || n != pages*pageSize {
			b.Fatalf("%d tokens, %v", n, err)
		}
	})
	if r.N == 0 {
		fatal(fmt.Errorf("a listing of %d pages failed", pages))
	}
	return most
}

func live() uint64 {
	runtime.GC()
	runtime.GC() // the first one leaves what has a finalizer
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
