package oauth_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
)

// calm lets 1,000 goroutines ask for tokens, for half an hour of the bubble's time,
// and returns how many token requests were made in each minute. If rejects is set,
// a resource answers 401 to every token.
func calm(t *testing.T, srv *fakeServer, rejects bool, also func(ctx context.Context, c *oauth.Client), change ...func(*oauth.Config)) (perMinute [30]int) {
	t.Helper()
	var mu sync.Mutex
	start := time.Now()
	handle := srv.handle
	srv.handle = func(n int, r fakeRequest) (*http.Response, error) {
		<-srv.began
		mu.Lock()
		if minute := int(time.Since(start) / time.Minute); minute < len(perMinute) {
			perMinute[minute]++
		}
		mu.Unlock()
		return handle(n, r)
	}
	c, _ := newClient(t, srv, change...)
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(len(perMinute))*time.Minute-time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Go(func() {
			time.Sleep(time.Duration(i) * 37 * time.Millisecond)
			for ctx.Err() == nil {
				tok, err := c.TokenSource().TokenContext(context.Background())
				if err == nil && rejects {
					c.TokenSource().Invalidate(tok)
				}
				time.Sleep(37 * time.Second) // all together: 27 times a second
			}
		})
	}
	if also != nil {
		wg.Go(func() { also(ctx, c) })
	}
	wg.Wait()
	closeSource(t, c)
	return perMinute
}

// The limits that the package documents, held against resources that reject
// everything and servers that fail in every way, alone and together.
func TestRequestsAreBounded(t *testing.T) {
	status := func(code int, body string, header ...string) func(int, fakeRequest) (*http.Response, error) {
		return func(int, fakeRequest) (*http.Response, error) { return answer(code, body, header...), nil }
	}
	failures := map[string]func(int, fakeRequest) (*http.Response, error){
		"401":                  status(401, `{"error":"invalid_client"}`),
		"429":                  status(429, `{"error":"slow_down"}`),
		"429 with Retry-After": status(429, `{"error":"slow_down"}`, "Retry-After", "240"),
		"500":                  status(500, ""),
		"502":                  status(502, "<html>"),
		"503":                  status(503, ""),
		"lost responses":       lose,
		"unreachable":          func(int, fakeRequest) (*http.Response, error) { return nil, &net.OpError{Op: "dial", Err: errLine} },
		"nonsense":             status(200, "<html>"),
		"a dead refresh token": refuse("invalid_grant"),
		"nonces without an end": func(n int, _ fakeRequest) (*http.Response, error) {
			return answer(400, `{"error":"use_dpop_nonce"}`, "DPoP-Nonce", strconv.Itoa(n)), nil
		},
	}
	total := func(counts [30]int) (n int) {
		for _, c := range counts {
			n += c
		}
		return n
	}
	for name, fail := range failures {
		first, later := 10, 2 // a minute; the pauses of 60 to 75 s do not fall on our minutes
		switch name {
		case "429 with Retry-After":
			first, later = 1, 1
		case "a dead refresh token":
			first, later = 1, 0
		case "unreachable":
			first, later = 17, 12
		}
		factor := 1
		var change []func(*oauth.Config)
		if name == "nonces without an end" {
			factor, change = 4, append(change, func(cfg *oauth.Config) { cfg.DPoP = newProver(t) })
		}
		t.Run(name+" from the beginning", func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				counts := calm(t, newFakeServer(fail), false, nil, change...)
				for minute, n := range counts {
					if limit := factor * later; minute > 0 && n > limit || n > factor*first {
						t.Errorf("%d requests in minute %d, want %d at most", n, minute, limit)
					}
				}
				if total(counts) > factor*(first+30*max(later-1, 1)) || total(counts) == 0 {
					t.Errorf("%v requests a minute", counts)
				}
			})
		})
		t.Run(name+" after a good token, which a resource rejects", func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				counts := calm(t, newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
					if n == 1 {
						return issue(n, r)
					}
					return fail(n, r)
				}), true, nil, change...)
				for minute, n := range counts {
					if limit := factor * (later + 1); n > factor*(first+1) || minute > 0 && n > limit {
						t.Errorf("%d requests in minute %d, want %d at most", n, minute, limit)
					}
				}
				if total(counts) > factor*(first+30*max(later-1, 1)+1)+1 || total(counts) < 2 {
					t.Errorf("%v requests a minute", counts)
				}
			})
		})
	}
	t.Run("a resource that rejects every token", func(t *testing.T) {
		for name, handle := range map[string]func(int, fakeRequest) (*http.Response, error){
			"new tokens": issue, "rotation": rotate, "the same token": status(200, tokenJSON("same", "", 3600)),
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					counts := calm(t, newFakeServer(handle), true, nil)
					for minute, n := range counts {
						if n > 2 && minute > 0 || n > 3 {
							t.Errorf("%d requests in minute %d, want 2 at most", n, minute)
						}
					}
					if total(counts) < 30 {
						t.Errorf("%v requests a minute: nobody tried", counts)
					}
				})
			})
		}
	})
	t.Run("Renew in a loop", func(t *testing.T) {
		for name, handle := range map[string]func(int, fakeRequest) (*http.Response, error){"good": issue, "503": failures["503"], "401": failures["401"]} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					counts := calm(t, newFakeServer(handle), false, func(ctx context.Context, c *oauth.Client) {
						for ctx.Err() == nil {
							if tok, err := c.TokenSource().Renew(ctx); (tok == nil) == (err == nil) {
								t.Errorf("Renew returned %v, %v", tok, err)
							}
							time.Sleep(100 * time.Millisecond)
						}
					})
					for minute, n := range counts {
						if minute == 0 && n > 32 || minute > 0 && n > 12 {
							t.Errorf("%d requests in minute %d", n, minute)
						}
					}
					if total(counts) < 30*8 {
						t.Errorf("%v requests a minute: Renew does not renew", counts)
					}
				})
			})
		}
	})
	t.Run("tokens that are dead on arrival", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			counts := calm(t, newFakeServer(func(n int, _ fakeRequest) (*http.Response, error) {
				time.Sleep(3 * time.Second)
				return answer(200, tokenJSON(fmt.Sprint("at-", n), "", 2)), nil
			}), false, nil)
			for minute, n := range counts {
				if minute == 0 && n > 20 || minute > 1 && n > 4 {
					t.Errorf("%d requests in minute %d", n, minute)
				}
			}
		})
	})
	t.Run("tokens that live for less than a second", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			counts := calm(t, newFakeServer(status(200, `{"access_token":"at","token_type":"Bearer","expires_in":0.001}`)), false, nil)
			if total(counts) != 1 {
				t.Errorf("%v requests a minute", counts)
			}
		})
	})
}

func TestRenewThatMayNotReturnsTheLastFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
			if n == 1 {
				return issue(n, r)
			}
			return refuse("invalid_client")(n, r)
		})
		c, _ := newClient(t, srv)
		wantToken(t, c.TokenSource(), "at-1")
		for range 12 {
			if tok, err := c.TokenSource().Renew(t.Context()); err == nil {
				t.Errorf("%q is no new token", tok.AccessToken)
			}
		}
		if srv.count() != 11 {
			t.Errorf("%d requests", srv.count())
		}
	})
}

func TestRenew(t *testing.T) {
	t.Run("10 times in a row, then once in 6 seconds", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			srv := newFakeServer(issue)
			c, _ := newClient(t, srv)
			for i := range 10 {
				tok, err := c.TokenSource().Renew(t.Context())
				if want := fmt.Sprint("at-", i+1); err != nil || tok.AccessToken != want {
					t.Fatalf("renewal %d: %v, %v", i+1, tok, err)
				}
			}
			for range 50 {
				if tok, err := c.TokenSource().Renew(t.Context()); err != nil || tok.AccessToken != "at-10" {
					t.Fatalf("in between: %v, %v", tok, err)
				}
			}
			time.Sleep(6*time.Second - time.Millisecond)
			if _, err := c.TokenSource().Renew(t.Context()); err != nil || srv.count() != 10 {
				t.Errorf("%d requests, %v", srv.count(), err)
			}
			time.Sleep(time.Millisecond)
			for range 2 {
				if tok, err := c.TokenSource().Renew(t.Context()); err != nil || tok.AccessToken != "at-11" {
					t.Errorf("after 6 s: %v, %v", tok, err)
				}
			}
		})
	})
	t.Run("skips the cooldown, not a Retry-After", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var retryAfter []string
			srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
				if n <= 3 {
					return answer(503, "", retryAfter...), nil
				}
				return issue(n, r)
			})
			c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.MaxAttempts = 1 })
			ts := c.TokenSource()
			if _, err := ts.Token(); err == nil || srv.count() != 1 {
				t.Fatal(err)
			}
			if _, err := ts.Renew(t.Context()); err == nil || srv.count() != 2 {
				t.Fatalf("%d requests, %v: the cooldown was waited for", srv.count(), err)
			}
			retryAfter = []string{"Retry-After", "60"}
			if _, err := ts.Renew(t.Context()); err == nil || srv.count() != 3 {
				t.Fatalf("%d requests, %v", srv.count(), err)
			}
			time.Sleep(59 * time.Second)
			var server *oauth.ServerError
			if _, err := ts.Renew(t.Context()); !errors.As(err, &server) || srv.count() != 3 {
				t.Errorf("%d requests, %v: the server asked for 60 s of silence", srv.count(), err)
			}
			time.Sleep(time.Second)
			if tok, err := ts.Renew(t.Context()); err != nil || tok.AccessToken != "at-4" {
				t.Errorf("%v, %v", tok, err)
			}
		})
	})
	t.Run("a failure costs one request, and the token in hand is served on", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
				if n == 1 {
					return issue(n, r)
				}
				return answer(503, ""), nil
			})
			c, _ := newClient(t, srv)
			ts := c.TokenSource()
			wantToken(t, ts, "at-1")
			if _, err := ts.Renew(t.Context()); err == nil || srv.count() != 1+4 {
				t.Errorf("%d requests, %v", srv.count(), err)
			}
			for range 3 {
				n := srv.count()
				if _, err := ts.Renew(t.Context()); err == nil || srv.count() != n+1 {
					t.Errorf("%d requests, %v: the server is in trouble", srv.count()-n, err)
				}
			}
			wantToken(t, ts, "at-1")
		})
	})
	t.Run("its own token is dead when it is asked too often", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			srv := newFakeServer(func(n int, _ fakeRequest) (*http.Response, error) {
				return answer(200, tokenJSON(fmt.Sprint("at-", n), "", 2)), nil
			})
			c, _ := newClient(t, srv)
			for range 10 {
				if _, err := c.TokenSource().Renew(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(3 * time.Second)
			if tok, err := c.TokenSource().Renew(t.Context()); err != nil || tok == nil || tok.AccessToken != "at-11" {
				t.Errorf("%v, %v", tok, err)
			}
		})
	})
	t.Run("closed, canceled, joined", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			srv := newFakeServer(issue)
			c, _ := newClient(t, srv)
			ts := c.TokenSource()
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := ts.Renew(ctx); !errors.Is(err, context.Canceled) || srv.count() != 0 {
				t.Errorf("%v after %d requests", err, srv.count())
			}
			srv.gate = make(chan struct{})
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					if tok, err := ts.Renew(t.Context()); err != nil || tok.AccessToken != "at-1" {
						t.Errorf("%v, %v", tok, err)
					}
				})
			}
			ctx, cancel = context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := ts.Renew(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("its own context does not end it: %v", err)
			}
			close(srv.gate)
			wg.Wait()
			closeSource(t, c)
			if _, err := ts.Renew(t.Context()); !errors.Is(err, oauth.ErrClosed) || srv.count() != 1 {
				t.Errorf("%v after %d requests", err, srv.count())
			}
		})
	})
	t.Run("a login overtakes it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			srv := newFakeServer(issue)
			store := oauth.NewMemoryStore()
			c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store = &unlockedStore{Store: store} })
			srv.gate = make(chan struct{})
			result := make(chan string)
			go func() {
				tok, err := c.TokenSource().Renew(t.Context())
				if err != nil {
					t.Error(err)
					close(result)
					return
				}
				result <- tok.AccessToken
			}()
			<-srv.began
			time.Sleep(time.Second)
			if err := c.Import(t.Context(), "rt-new"); err != nil {
				t.Fatal(err)
			}
			close(srv.gate)
			if got := <-result; got != "at-2" {
				t.Errorf("%q is of the former login", got)
			}
		})
	})
}

// unlockedStore holds nobody back.
type unlockedStore struct{ oauth.Store }

func (s *unlockedStore) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	cur, err := s.Load(ctx)
	if err != nil && !errors.Is(err, oauth.ErrNoSession) {
		return err
	}
	next, err := fn(cur)
	if err != nil {
		return err
	}
	return s.Store.Update(ctx, func(now oauth.Session) (oauth.Session, error) {
		if now.Generation > next.Generation || !now.Created.Equal(cur.Created) {
			return now, nil // compare and swap, as databases do
		}
		return next, nil
	})
}

// A margin without a limit is cut like any other that is longer than half the life.
func TestStaleBeforeWithoutALimit(t *testing.T) {
	defer oauth.SetJitter(func(n int64) int64 { return n - 1 })()
	for _, before := range []time.Duration{time.Hour, 10000 * time.Hour, math.MaxInt64 / 10 * 9, math.MaxInt64 - 1, math.MaxInt64} {
		t.Run(before.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := newFakeServer(issue)
				c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.StaleBefore = before })
				wantToken(t, c.TokenSource(), "at-1")
				time.Sleep(30*time.Minute - time.Second)
				wantToken(t, c.TokenSource(), "at-1")
				synctest.Wait()
				if srv.count() != 1 {
					t.Errorf("%d requests before half the life is over", srv.count())
				}
				time.Sleep(time.Second)
				wantToken(t, c.TokenSource(), "at-1")
				synctest.Wait()
				wantToken(t, c.TokenSource(), "at-2")
				closeSource(t, c)
			})
		})
	}
}

func TestRetryAfterOutlivesImport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, store := newRotor(3600), oauth.NewMemoryStore()
		c, _ := clientOf(t, srv, store, nil)
		defer c.TokenSource().Close()
		srv.answer = func(url.Values) (*http.Response, error) {
			return jsonResponse(429, http.Header{"Retry-After": {"600"}}, map[string]any{"error": "slow_down"}), nil
		}
		for range 5 {
			if err := c.Import(t.Context(), srv.issue("ann")); err != nil {
				t.Fatal(err)
			}
			_, _ = c.TokenSource().Token()
			time.Sleep(time.Second)
		}
		if n := srv.count(); n > 1 {
			t.Errorf("%d requests within 5 s, and the server asked for 600 s without any", n)
		}
	})
}
