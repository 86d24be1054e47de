package refreshtoken_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/ycauth/ycauth-go/internal/tokenapi"
	"github.com/ycauth/ycauth-go/refreshtoken"
)

// book is a listing of so many pages, with one token each, each of which takes
// some time.
func book(pages int, each time.Duration) (*refreshtoken.Client, *atomic.Int64) {
	var begun atomic.Int64
	return refreshtoken.New(&fakeTransport{list: func(ctx context.Context, _ tokenapi.Call, req tokenapi.ListRequest) (*refreshtoken.Page, error) {
		begun.Add(1)
		select {
		case <-time.After(each):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		n, _ := strconv.Atoi(req.PageToken)
		page := &refreshtoken.Page{RefreshTokens: []*refreshtoken.RefreshToken{{ID: fmt.Sprintf("aje%d", n)}}}
		if n++; n < pages {
			page.NextPageToken = strconv.Itoa(n)
		}
		return page, nil
	}}), &begun
}

func TestLookaheadOverlaps(t *testing.T) {
	const pages, each = 10, 5 * time.Millisecond
	for _, c := range []struct {
		name string
		opts refreshtoken.ListOptions
		want time.Duration
	}{
		{"ahead", refreshtoken.ListOptions{}, each + pages*each},
		{"one after the other", refreshtoken.ListOptions{NoLookahead: true}, 2 * pages * each},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, _ := book(pages, each)
				start, n := time.Now(), 0
				for token, err := range client.List(t.Context(), c.opts) {
					if want := fmt.Sprintf("aje%d", n); err != nil || token.ID != want {
						t.Fatalf("got %v and %v, want %s", token, err, want)
					}
					n++
					time.Sleep(each) // the work of the caller
				}
				if got := time.Since(start); n != pages || got != c.want {
					t.Errorf("%d tokens in %v, want %d in %v", n, got, pages, c.want)
				}
			})
		})
	}
}

// TestLookaheadIsOnePage: however long the caller works.
func TestLookaheadIsOnePage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, begun := book(10, time.Millisecond)
		n := int64(0)
		for _, err := range client.Pages(t.Context(), refreshtoken.ListOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			n++
			time.Sleep(time.Hour)
			synctest.Wait()
			if got, want := begun.Load(), min(n+1, 10); got != want {
				t.Errorf("page %d: %d requests, want %d", n, got, want)
			}
		}
	})
}

func TestLookaheadEndsWithTheLoop(t *testing.T) {
	for name, leave := range map[string]func(){
		"break": func() {},
		"panic": func() { panic("the loop panics") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, begun := book(10, time.Hour)
				start := time.Now()
				func() {
					defer func() { _ = recover() }()
					for _, err := range client.Pages(t.Context(), refreshtoken.ListOptions{}) {
						if err != nil {
							t.Fatal(err)
						}
						synctest.Wait() // until the next page is under way
						leave()
						break
					}
				}()
				// The bubble would not end with a goroutine left in it.
				if got := time.Since(start); got != time.Hour || begun.Load() != 2 {
					t.Errorf("left after %v and %d requests, want an hour and 2", got, begun.Load())
				}
			})
		})
	}
}

// TestLookaheadLeavesNoBody: the same with a server that never comes to an end.
func TestLookaheadLeavesNoBody(t *testing.T) {
	under := make(chan struct{})
	s := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		if n == 1 {
			answerJSON(w, http.StatusOK, `{"refreshTokens":[{"id":"aje1"}],"nextPageToken":"p2"}`)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"refreshTokens":[`)
		_ = http.NewResponseController(w).Flush()
		close(under)
		<-r.Context().Done()
	})
	for _, err := range s.client().List(t.Context(), refreshtoken.ListOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		<-under
		break
	}
	if n := s.open.Load(); n != 0 {
		t.Errorf("%d bodies were not closed", n)
	}
}

func TestLookaheadKeepsErrorsInTheirPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := &refreshtoken.APIError{Code: refreshtoken.CodePermissionDenied}
		client := refreshtoken.New(&fakeTransport{list: func(_ context.Context, _ tokenapi.Call, req tokenapi.ListRequest) (*refreshtoken.Page, error) {
			if req.PageToken != "" {
				return nil, refused
			}
			return &refreshtoken.Page{RefreshTokens: []*refreshtoken.RefreshToken{{ID: "aje1"}, {ID: "aje2"}}, NextPageToken: "2"}, nil
		}})
		n := 0
		for _, err := range client.List(t.Context(), refreshtoken.ListOptions{}) {
			synctest.Wait() // the error is there by now
			if n++; (err != nil) != (n == 3) {
				t.Errorf("item %d: got %v", n, err)
			}
			if err != nil && !errors.Is(err, refused) {
				t.Errorf("got %v, want %v", err, refused)
			}
		}
		if n != 3 {
			t.Errorf("%d items, want 2 tokens and an error", n)
		}
	})
}

// TestLookaheadEndsWithTheContext: a page that is there already is not served when
// ctx has ended.
func TestLookaheadEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, _ := book(10, time.Millisecond)
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		because := errors.New("enough")
		n := 0
		for _, err := range client.Pages(ctx, refreshtoken.ListOptions{}) {
			if n++; n == 1 {
				time.Sleep(time.Second)
				cancel(because)
				continue
			}
			if !errors.Is(err, context.Canceled) || !errors.Is(err, because) {
				t.Errorf("item %d: got %v", n, err)
			}
			as[*refreshtoken.TransportError](t, err)
		}
		if n != 2 {
			t.Errorf("%d items, want a page and an error", n)
		}
	})
}

// TestLookaheadHoldsTwoPages: the one that the loop works on and the one ahead,
// however many came before.
func TestLookaheadHoldsTwoPages(t *testing.T) {
	const pages = 20
	var made []weak.Pointer[refreshtoken.RefreshToken] // one of each page, which holds it
	ready := make(chan struct{}, pages)
	client := refreshtoken.New(&fakeTransport{list: func(context.Context, tokenapi.Call, tokenapi.ListRequest) (*refreshtoken.Page, error) {
		token := &refreshtoken.RefreshToken{ID: fmt.Sprintf("aje%d", len(made))}
		made = append(made, weak.Make(token))
		page := &refreshtoken.Page{RefreshTokens: []*refreshtoken.RefreshToken{token}}
		if len(made) < pages {
			page.NextPageToken = strconv.Itoa(len(made))
		}
		ready <- struct{}{}
		return page, nil
	}})
	n := 0
	for _, err := range client.Pages(t.Context(), refreshtoken.ListOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		<-ready
		if n++; n == pages-1 {
			<-ready // the last page is there as well, and nobody makes another one
			runtime.GC()
			alive := 0
			for _, p := range made {
				if p.Value() != nil {
					alive++
				}
			}
			if alive > 2 {
				t.Errorf("%d of %d pages are in memory", alive, len(made))
			}
			ready <- struct{}{}
		}
	}
	if n != pages {
		t.Errorf("%d pages, want %d", n, pages)
	}
}

// TestBreakingEarlyCostsOneRequest: most loops that look for one token find it on the
// first page.
func TestBreakingEarlyCostsOneRequest(t *testing.T) {
	for _, c := range []struct{ tokens, requests int }{{1, 1}, {2, 1}, {3, 2}, {4, 2}} {
		s := serve(t, answer(http.StatusOK, `{"refreshTokens":[{"id":"a"},{"id":"b"},{"id":"c"},{"id":"d"}],"nextPageToken":"more"}`))
		n := 0
		for _, err := range s.client().List(t.Context(), refreshtoken.ListOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			if n++; n == c.tokens {
				for wait := 0; len(s.seen()) < c.requests && wait < 1000; wait++ {
					time.Sleep(time.Millisecond)
				}
				break
			}
		}
		if got := len(s.seen()); got != c.requests {
			t.Errorf("%d requests for %d tokens of a page with 4, want %d", got, c.tokens, c.requests)
		}
	}
}

// TestBreakDoesNotWaitForATokenSource that hangs and has no ctx.
func TestBreakDoesNotWaitForATokenSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		goOn := make(chan struct{})
		client := refreshtoken.New(&fakeTransport{list: func(_ context.Context, _ tokenapi.Call, req tokenapi.ListRequest) (*refreshtoken.Page, error) {
			if req.PageToken != "" {
				<-goOn
			}
			return &refreshtoken.Page{RefreshTokens: []*refreshtoken.RefreshToken{{ID: "aje1"}}, NextPageToken: "2"}, nil
		}})
		start := time.Now()
		for _, err := range client.List(t.Context(), refreshtoken.ListOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // until the next page is in flight
			break
		}
		if got := time.Since(start); got != 100*time.Millisecond {
			t.Errorf("the loop was left after %v", got)
		}
		close(goOn)
	})
}

// TestLookaheadOfATransportThatLeaves: a RoundTripper that ends its goroutine ends the listing.
func TestLookaheadOfATransportThatLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := refreshtoken.New(&fakeTransport{list: func(_ context.Context, _ tokenapi.Call, req tokenapi.ListRequest) (*refreshtoken.Page, error) {
			if req.PageToken != "" {
				runtime.Goexit()
			}
			return &refreshtoken.Page{RefreshTokens: []*refreshtoken.RefreshToken{{ID: "aje1"}}, NextPageToken: "p2"}, nil
		}})
		tokens, err := list(client, refreshtoken.ListOptions{})
		if as[*refreshtoken.TransportError](t, err).Method != "List" || len(tokens) != 1 {
			t.Errorf("got %d tokens and %v", len(tokens), err)
		}
	})
}
