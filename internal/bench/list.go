package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"strconv"
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
			"The server is a process of its own on the same machine: on one that is not idle, the ratio says little. "+
			"The floor is what it takes to get the same bytes: net/http alone, which knows the address of each page before, "+
			"reads it while the caller works on the one before, and throws it away.", latency, work, pages*(latency+work)),
		unit: time.Millisecond,
		candidates: []candidate{
			{"`yandex-cloud/go-sdk/v2` iterator", benchList(officialSDK)},
			{"**ycauth-go** over gRPC", benchList(overGRPC(refreshtoken.ListOptions{PageSize: pageSize}))},
			{"**ycauth-go** over REST", benchList(overREST)},
			{"floor of REST: `net/http`, nothing decoded", benchList(floorOfREST)},
			{"**ycauth-go** over gRPC, without lookahead", benchList(overGRPC(refreshtoken.ListOptions{PageSize: pageSize, NoLookahead: true}))},
		},
	}
}

// A lister lists everything there is, and calls each with every token.
type lister func(ctx context.Context, at cloud, each func()) error

func benchList(list lister) func(*testing.B) {
	return func(b *testing.B) {
		at, err := startCloud(pages)
		if err != nil {
			fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			n := 0
			err := list(b.Context(), at, func() {
				if n++; n%pageSize == 0 {
					time.Sleep(work)
				}
			})
			if err != nil || n != pages*pageSize {
				fatal(fmt.Errorf("%d tokens, %w", n, err))
			}
		}
	}
}

// static is an access token for both transports.
type static string

func (s static) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(s)}, nil
}

func overGRPC(opts refreshtoken.ListOptions) lister {
	return func(ctx context.Context, at cloud, each func()) error {
		conn, err := grpctransport.Dial(static(at.Token), grpctransport.DialOptions{Endpoint: at.GRPC, Plaintext: true})
		if err != nil {
			return err
		}
		defer conn.Close()
		return drain(ctx, grpctransport.NewClient(conn), opts, each)
	}
}

func overREST(ctx context.Context, at cloud, each func()) error {
	base := &http.Transport{}
	defer base.CloseIdleConnections()
	source := oauth2.StaticTokenSource(&oauth2.Token{AccessToken: at.Token})
	hc := &http.Client{Transport: &oauth2.Transport{Source: source, Base: base}}
	return drain(ctx, refreshtoken.NewClient(hc, refreshtoken.WithEndpoint(at.REST)), refreshtoken.ListOptions{PageSize: pageSize}, each)
}

// floorURLs are the addresses of the pages of a cloud.
var floorURLs = map[cloud][]string{}

// floorOfREST gets the pages, and does nothing with them.
func floorOfREST(ctx context.Context, at cloud, each func()) error {
	hc := &http.Client{Transport: &http.Transport{}}
	defer hc.CloseIdleConnections()
	if floorURLs[at] == nil {
		var err error
		if floorURLs[at], err = pageURLs(ctx, at); err != nil {
			return err
		}
	}
	fetched := make(chan error)
	go func() {
		defer close(fetched)
		for _, u := range floorURLs[at] {
			fetched <- get(ctx, hc, at, u)
		}
	}()
	for err := range fetched {
		if err != nil {
			return err
		}
		for range pageSize {
			each()
		}
	}
	return nil
}

// pageURLs follows the listing once.
func pageURLs(ctx context.Context, at cloud) ([]string, error) {
	query := "?pageSize=" + strconv.Itoa(pageSize)
	urls := []string{at.REST + "/iam/v1/refreshTokens" + query}
	source := oauth2.StaticTokenSource(&oauth2.Token{AccessToken: at.Token})
	client := refreshtoken.NewClient(oauth2.NewClient(ctx, source), refreshtoken.WithEndpoint(at.REST))
	for page, err := range client.Pages(ctx, refreshtoken.ListOptions{PageSize: pageSize}) {
		if err != nil {
			return nil, err
		}
		if page.NextPageToken != "" {
			urls = append(urls, urls[0]+"&pageToken="+url.QueryEscape(page.NextPageToken))
		}
	}
	return urls, nil
}

func get(ctx context.Context, hc *http.Client, at cloud, u string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+at.Token)
	resp, err := hc.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("HTTP %d", resp.StatusCode)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
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

func officialSDK(ctx context.Context, at cloud, each func()) error {
	sdk, err := ycsdk.Build(ctx, options.WithCredentials(credentials.IAMTokenWithExpiry(at.Token, time.Now().Add(time.Hour))),
		options.WithPlaintext(), options.WithEndpointsResolver(endpoints.NewSingleEndpointResolver(at.GRPC,
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
	at, err := startCloud(pages)
	if err != nil {
		fatal(err)
	}
	var most uint64
	before, n := live(), 0
	err = list(context.Background(), at, func() {
		if n++; n%(pages*pageSize/10) == pageSize/2 {
			time.Sleep(4 * latency) // the page ahead comes
			now := live()
			most = max(most, now-min(before, now))
		}
	})
	if err != nil || n != pages*pageSize {
		fatal(fmt.Errorf("%d tokens, %w", n, err))
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
