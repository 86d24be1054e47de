package oauth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"github.com/ycauth/ycauth-go/oauth"
)

var _ oauth2.TokenSource = (*oauth.TokenSource)(nil)

// The method set of credentials.PerRPCCredentials, which is met without gRPC.
var _ interface {
	GetRequestMetadata(ctx context.Context, uri ...string) (map[string]string, error)
	RequireTransportSecurity() bool
} = (*oauth.TokenSource)(nil)

func TestFreshTokenIsServedWithoutARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newFakeServer(issue)
		c, _ := newClient(t, srv)
		ts := c.TokenSource()
		wantToken(t, ts, "at-1")
		time.Sleep(45 * time.Minute) // of 60; stale is at most 11 minutes before the end
		synctest.Wait()
		wantToken(t, ts, "at-1")
		if n := srv.count(); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
		synctest.Wait() // a look at the store is over
		if allocs := testing.AllocsPerRun(100, func() { _, _ = ts.Token() }); allocs != 0 {
			t.Errorf("Token allocates %v times on a fresh token", allocs)
		}
	})
}

func TestStaleTokenIsServedWhileOneRenewalRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newFakeServer(issue)
		c, log := newClient(t, srv)
		ts := c.TokenSource()
		wantToken(t, ts, "at-1")
		time.Sleep(55 * time.Minute)
		srv.gate = make(chan struct{})

		var blocked atomic.Int32
		var wg sync.WaitGroup
		for range 10_000 {
			wg.Go(func() {
				start := time.Now() // the bubble's clock moves only when all are blocked
				tok, err := ts.TokenContext(t.Context())
				if err != nil || tok.AccessToken != "at-1" || time.Since(start) > 0 {
					blocked.Add(1)
				}
			})
		}
		wg.Wait()
		if n := blocked.Load(); n != 0 {
			t.Errorf("%d callers did not get the stale token at once", n)
		}
		close(srv.gate)
		synctest.Wait()
		wantToken(t, ts, "at-2")
		if n := srv.count(); n != 2 {
			t.Errorf("%d requests, want the first and one renewal", n)
		}
		renewed := log.of(oauth.EventRenewed)
		if len(renewed) != 2 || renewed[1].Cause != oauth.CauseStale || renewed[0].Cause != oauth.CauseInvalid {
			t.Errorf("events %+v, want renewals for invalid, stale", renewed)
		}
	})
}

func TestExpiredTokenCostsOneRequestForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newFakeServer(issue)
		c, _ := newClient(t, srv)
		ts := c.TokenSource()
		wantToken(t, ts, "at-1")
		time.Sleep(2 * time.Hour)
		srv.gate = make(chan struct{})

		var wg sync.WaitGroup
		var good atomic.Int32
		for range 10_000 {
			wg.Go(func() {
				if tok, err := ts.TokenContext(t.Context()); err == nil && tok.AccessToken == "at-2" {
					good.Add(1)
				}
			})
		}
		synctest.Wait() // all of them wait now
		close(srv.gate)
		wg.Wait()
		if good.Load() != 10_000 || srv.count() != 2 {
			t.Errorf("%d good tokens from %d requests, want 10000 from 2", good.Load(), srv.count())
		}
	})
}

func TestCancelledWaiterHarmsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newFakeServer(issue)
		srv.gate = make(chan struct{})
		c, _ := newClient(t, srv)
		ts := c.TokenSource()
		first, cancel := context.WithCancelCause(t.Context())
		cause := errors.New("the caller lost interest")
		firstErr := make(chan error, 1)
		go func() {
			_, err := ts.TokenContext(first) // this one begins the renewal
			firstErr <- err
		}()
		<-srv.began
		other := make(chan error, 1)
		go func() {
			_, err := ts.TokenContext(t.Context())
			other <- err
		}()
		short, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer stop()
		start := time.Now()
		if _, err := ts.TokenContext(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiter with a deadline: %v", err)
		}
		if d := time.Since(start); d != 50*time.Millisecond {
			t.Errorf("it waited %v, want 50ms", d)
		}
		cancel(cause)
		if err := <-firstErr; !errors.Is(err, cause) || !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled waiter: %v, want its cause", err)
		}
		if err := srv.request(0).ctx.Err(); err != nil {
			t.Errorf("the request ended with its first waiter: %v", err)
		}
		close(srv.gate)
		if err := <-other; err != nil {
			t.Errorf("the other waiter: %v", err)
		}
		if srv.count() != 1 {
			t.Errorf("%d requests, want 1", srv.count())
		}
	})
}

func TestDeadContextGetsNoToken(t *testing.T) {
	c, _ := newClient(t, newFakeServer(issue))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.TokenSource().TokenContext(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	synctest.Test(t, func(t *testing.T) {
		c, _ := newClient(t, newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
			if n == 2 {
				return refuse("invalid_client")(n, r)
			}
			return issue(n, r)
		}))
		wantToken(t, c.TokenSource(), "at-1")
		tok, _ := c.TokenSource().Token()
		c.TokenSource().Invalidate(tok)
		wantToken(t, c.TokenSource(), "at-1") // the renewal failed, and that is shared
		if tok, err := c.TokenSource().TokenContext(ctx); err != nil || tok.AccessToken != "at-1" {
			t.Errorf("%v, %v, and a token is at hand", tok, err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		c, _ := newClient(t, newFakeServer(refuse("invalid_client")))
		if _, err := c.TokenSource().Token(); err == nil {
			t.Fatal("no error")
		}
		if _, err := c.TokenSource().TokenContext(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want context.Canceled", err)
		}
	})
}

// The renewal is shared: a trace, a span or a transport hook of the caller who
// happened to come first must not see it.
func TestValuesOfTheContextStayWithTheCaller(t *testing.T) {
	type key struct{}
	srv := newFakeServer(issue)
	c, _ := newClient(t, srv)
	traced := httptrace.WithClientTrace(context.WithValue(t.Context(), key{}, "span"), &httptrace.ClientTrace{
		GetConn: func(string) { t.Error("the caller's trace saw the token request") },
	})
	if _, err := c.TokenSource().TokenContext(traced); err != nil {
		t.Fatal(err)
	}
	if got := srv.request(0).ctx.Value(key{}); got != nil {
		t.Errorf("value %v", got)
	}
}

func TestRenewalIsBoundedByItsOwnTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newFakeServer(issue)
		srv.gate = make(chan struct{}) // never opened
		c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.RenewTimeout = 70 * time.Second })
		start := time.Now()
		_, err := c.TokenSource().Token()
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, oauth.ErrOutcomeUnknown) {
			t.Errorf("error %v, want a deadline and an unknown outcome", err)
		}
		// No request begins after 70 s, and none is cut off before its own 30 s.
		if d := time.Since(start); d > 100*time.Second || srv.count() != 3 {
			t.Errorf("it took %v and %d requests", d, srv.count())
		}
	})
}

func TestFailureIsSharedAndCoolsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		healthy := false
		srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
			if healthy {
				return issue(n, r)
			}
			return answer(503, "busy"), nil
		})
		c, log := newClient(t, srv, func(cfg *oauth.Config) { cfg.MaxAttempts = 1 })
		ts := c.TokenSource()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				_, err := ts.TokenContext(t.Context())
				var server *oauth.ServerError
				if !errors.As(err, &server) || server.Status != 503 || !server.Temporary() {
					t.Errorf("error %v, want a temporary ServerError", err)
				}
			})
		}
		wg.Wait()
		for range 50 { // within the cooldown
			if _, err := ts.Token(); err == nil {
				t.Error("a token out of nowhere")
			}
		}
		if n := srv.count(); n != 1 {
			t.Errorf("%d requests for 100 callers, want 1", n)
		}
		healthy = true
		time.Sleep(1300 * time.Millisecond) // the first cooldown is a second, and up to a quarter of jitter
		wantToken(t, ts, "at-2")
		if failed := log.of(oauth.EventRenewFailed); len(failed) != 1 || failed[0].ErrorKind() != "server_temporary" {
			t.Errorf("events %+v", failed)
		}
	})
}

func TestCooldownGrowsAndObeysRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		retryAfter := ""
		srv := newFakeServer(func(int, fakeRequest) (*http.Response, error) {
			return answer(429, `{"error":"slow_down"}`, "Retry-After", retryAfter), nil
		})
		c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.MaxAttempts = 1 })
		ts := c.TokenSource()
		for i, quiet := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
			if _, err := ts.Token(); err == nil || srv.count() != i+1 {
				t.Fatalf("round %d: error %v after %d requests", i, err, srv.count())
			}
			time.Sleep(quiet - time.Millisecond)
			_, _ = ts.Token()
			if srv.count() != i+1 {
				t.Errorf("a request within %v of failure %d", quiet, i+1)
			}
			time.Sleep(quiet/4 + 2*time.Millisecond)
		}
		retryAfter = "300"
		_, _ = ts.Token()
		n := srv.count()
		time.Sleep(299 * time.Second)
		_, err := ts.Token()
		var server *oauth.ServerError
		if srv.count() != n || !errors.As(err, &server) || server.RetryAfter != 300*time.Second {
			t.Errorf("%d requests, want %d; error %v", srv.count(), n, err)
		}
	})
}

func TestValidTokenIsServedWhileRenewalFails(t *testing.T) {
	for _, synchronous := range []bool{false, true} {
		t.Run(fmt.Sprintf("synchronous=%v", synchronous), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
					if n == 1 {
						return issue(n, r)
					}
					return answer(500, ""), nil
				})
				c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.MaxAttempts = 1; cfg.Synchronous = synchronous })
				ts := c.TokenSource()
				wantToken(t, ts, "at-1")
				for _, left := range []time.Duration{5 * time.Minute, 9 * time.Second, time.Second} {
					tok, _ := ts.Token()
					time.Sleep(time.Until(tok.Expiry.Add(-left)))
					wantToken(t, ts, "at-1")
					synctest.Wait()
				}
				if srv.count() < 3 {
					t.Errorf("%d requests: it did not try to renew", srv.count())
				}
				time.Sleep(2 * time.Second)
				if _, err := ts.Token(); err == nil {
					t.Error("an expired token was served")
				}
			})
		})
	}
}

func TestStoredTokenIsServedWhileRenewalFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := oauth.NewMemoryStore()
		srv := newFakeServer(func(int, fakeRequest) (*http.Response, error) { return answer(503, ""), nil })
		c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store = store; cfg.MaxAttempts = 1 })
		put(t, store, func(s *oauth.Session) { freshUntil(s, "stored", time.Hour) })
		time.Sleep(time.Hour - 5*time.Second) // past InvalidBefore: a process that starts now renews first
		wantToken(t, c.TokenSource(), "stored")
		if srv.count() != 1 {
			t.Errorf("%d requests, want one try", srv.count())
		}
	})
}

func TestUnchangedTokenIsNoLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := time.Now().Add(12 * time.Hour)
		srv := newFakeServer(func(int, fakeRequest) (*http.Response, error) {
			return answer(200, tokenJSON("the-same", "", int(time.Until(end).Seconds()))), nil
		})
		c, _ := newClient(t, srv)
		ts := c.TokenSource()
		for time.Until(end) > time.Minute {
			wantToken(t, ts, "the-same")
			synctest.Wait()
			time.Sleep(30 * time.Second)
		}
		// Each renewal waits for five sixths of what is left: 12 h to 1 min takes
		// about log(720)/log(6) of them, twice that with jitter.
		if n := srv.count(); n < 3 || n > 12 {
			t.Errorf("%d requests in 12 hours", n)
		}
	})
}

func TestSiblingsTokenIsAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := oauth.NewMemoryStore()
		srv := newFakeServer(issue)
		c, log := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store = store })
		ts := c.TokenSource()
		wantToken(t, ts, "at-1")
		time.Sleep(2 * time.Hour)
		put(t, store, func(s *oauth.Session) { freshUntil(s, "siblings", time.Hour) })
		wantToken(t, ts, "siblings")
		if srv.count() != 1 {
			t.Errorf("%d requests, want none for the adopted token", srv.count())
		}
		if adopted := log.of(oauth.EventAdopted); len(adopted) != 1 || adopted[0].Generation != 3 {
			t.Errorf("events %+v", adopted)
		}
	})
}

func TestRefusalRereadsTheStore(t *testing.T) {
	store := oauth.NewMemoryStore()
	srv := newFakeServer(nil)
	srv.handle = func(n int, r fakeRequest) (*http.Response, error) {
		if r.form.Get("refresh_token") == "rt-winner" {
			return issue(n, r)
		}
		return answer(400, `{"error":"invalid_grant"}`), nil
	}
	// A store whose lock holds nobody back: while the loser's request is under
	// way, the winner has stored its new refresh token.
	racy := &racyStore{Store: store}
	c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store = racy })
	racy.winner = func() {
		put(t, store, func(s *oauth.Session) { s.RefreshToken = "rt-winner" })
	}
	wantToken(t, c.TokenSource(), "at-2")
	if s, err := store.Load(t.Context()); err != nil || s.RefreshToken != "rt-winner" || s.AccessToken != "at-2" {
		t.Errorf("stored %+v, %v: the winner's session must live", s, err)
	}
}

// racyStore lets somebody else in between the reading and the writing.
type racyStore struct {
	oauth.Store
	winner func()
}

func (s *racyStore) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	if s.winner == nil {
		return s.Store.Update(ctx, fn)
	}
	winner := s.winner
	s.winner = nil
	cur, err := s.Load(ctx)
	if err != nil {
		return err
	}
	_, err = fn(cur)
	winner()
	return err
}

func TestDeadRefreshTokenIsNotSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := oauth.NewMemoryStore()
		srv := newFakeServer(refuse("invalid_grant"))
		c, log := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store = store })
		ts := c.TokenSource()
		for range 5 {
			_, err := ts.Token()
			wantReason(t, err, oauth.ReasonRejected)
			time.Sleep(time.Minute)
		}
		if srv.count() != 1 {
			t.Errorf("%d requests with a dead token, want 1", srv.count())
		}
		if n := len(log.of(oauth.EventRenewFailed)); n != 1 {
			t.Errorf("%d events, want 1: nothing new has happened", n)
		}
		put(t, store, func(s *oauth.Session) { s.ClientID = "another" })
		time.Sleep(time.Minute)
		_, err := ts.Token()
		wantReason(t, err, oauth.ReasonWrongClient)
		if n := len(log.of(oauth.EventRenewFailed)); n != 2 {
			t.Errorf("%d events, want another one for another reason", n)
		}
		put(t, store, func(s *oauth.Session) { s.ClientID = "client" })
		if s, err := c.Session(t.Context()); err != nil || s.RefreshToken != "rt-0" {
			t.Errorf("the session was changed: %+v, %v", s, err)
		}
		// A login in another process ends it.
		srv.handle = issue
		put(t, store, func(s *oauth.Session) { s.RefreshToken = "rt-new-login" })
		time.Sleep(5 * time.Second)
		wantToken(t, ts, "at-2")
	})
}

func TestInvalidate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newFakeServer(issue)
		c, log := newClient(t, srv)
		ts := c.TokenSource()
		ts.Invalidate(nil)
		ts.Invalidate(&oauth2.Token{AccessToken: "at-1"}) // there is no token yet
		first, err := ts.Token()
		if err != nil {
			t.Fatal(err)
		}
		ts.Invalidate(first)
		ts.Invalidate(first) // two goroutines met the same 401
		wantToken(t, ts, "at-2")
		ts.Invalidate(first) // and a third one was slow
		wantToken(t, ts, "at-2")
		if srv.count() != 2 {
			t.Errorf("%d requests, want 2", srv.count())
		}
		renewed := log.of(oauth.EventRenewed)
		if len(renewed) != 2 || renewed[1].Cause != oauth.CauseRejected || len(log.of(oauth.EventInvalidated)) != 1 {
			t.Errorf("events %+v", log.events)
		}
	})
}

func TestInvalidateDuringRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newFakeServer(nil)
		srv.handle = func(n int, r fakeRequest) (*http.Response, error) {
			if n <= 2 {
				return answer(200, tokenJSON("at-1", "", 3600)), nil
			}
			return issue(n, r)
		}
		c, _ := newClient(t, srv)
		ts := c.TokenSource()
		first, err := ts.Token()
		if err != nil {
			t.Fatal(err)
		}
		<-srv.began
		time.Sleep(55 * time.Minute)
		srv.gate = make(chan struct{})
		wantToken(t, ts, "at-1") // begins a renewal that will come up with at-1 again
		<-srv.began
		ts.Invalidate(first)
		done := make(chan string)
		go func() {
			tok, err := ts.Token()
			if err != nil {
				t.Error(err)
				close(done)
				return
			}
			done <- tok.AccessToken
		}()
		synctest.Wait()
		close(srv.gate)
		if got := <-done; got != "at-3" {
			t.Errorf("token %q, want another one than the refused", got)
		}
	})
}

func TestTokenThatComesBackAfterARefusalIsKept(t *testing.T) {
	srv := newFakeServer(func(int, fakeRequest) (*http.Response, error) {
		return answer(200, tokenJSON("stubborn", "", 3600)), nil
	})
	c, _ := newClient(t, srv)
	ts := c.TokenSource()
	for range 10 { // a resource that answers 401 whatever it gets
		tok, err := ts.Token()
		if err != nil {
			t.Fatal(err)
		}
		ts.Invalidate(tok)
	}
	if n := srv.count(); n != 2 {
		t.Errorf("%d requests, want 2: asking again does not help", n)
	}
}

func TestSynchronousRenewsStaleTokensInTheForeground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newFakeServer(issue)
		c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Synchronous = true })
		ts := c.TokenSource()
		wantToken(t, ts, "at-1")
		time.Sleep(55 * time.Minute)
		wantToken(t, ts, "at-2")
	})
}

func TestMarginsAreConfigurable(t *testing.T) {
	for _, tt := range []struct {
		name                       string
		staleBefore, invalidBefore time.Duration
		age                        time.Duration
		want                       string // token served at that age
		requests                   int
	}{
		{"fresh", 10 * time.Minute, time.Minute, 48 * time.Minute, "at-1", 1},
		{"stale", 10 * time.Minute, time.Minute, 51 * time.Minute, "at-1", 2},
		{"invalid", 10 * time.Minute, time.Minute, 59*time.Minute + time.Second, "at-2", 2},
		{"longer than the token's life", 5 * time.Hour, 3 * time.Hour, 29 * time.Minute, "at-1", 1},
		{"longer than the token's life, second half", 5 * time.Hour, 3 * time.Hour, 31 * time.Minute, "at-2", 2},
		{"stale within invalid", time.Second, 10 * time.Minute, 49 * time.Minute, "at-1", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := newFakeServer(issue)
				c, _ := newClient(t, srv, func(cfg *oauth.Config) {
					cfg.StaleBefore, cfg.InvalidBefore = tt.staleBefore, tt.invalidBefore
				})
				ts := c.TokenSource()
				wantToken(t, ts, "at-1")
				time.Sleep(tt.age)
				wantToken(t, ts, tt.want)
				synctest.Wait()
				if srv.count() != tt.requests {
					t.Errorf("%d requests, want %d", srv.count(), tt.requests)
				}
			})
		})
	}
}

func TestUnknownLifeLastsUntilRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newFakeServer(func(n int, _ fakeRequest) (*http.Response, error) {
			return answer(200, fmt.Sprintf(`{"access_token":"at-%d","token_type":"Bearer"}`, n)), nil
		})
		c, _ := newClient(t, srv)
		ts := c.TokenSource()
		wantToken(t, ts, "at-1")
		time.Sleep(365 * 24 * time.Hour)
		tok, err := ts.Token()
		if err != nil || tok.AccessToken != "at-1" || !tok.Expiry.IsZero() {
			t.Fatalf("token %v, %v", tok, err)
		}
		ts.Invalidate(tok)
		wantToken(t, ts, "at-2")
	})
}

func TestClose(t *testing.T) {
	t.Run("waits for a rotation to be saved", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			srv := newFakeServer(rotate)
			srv.gate = make(chan struct{})
			c, _ := newClient(t, srv)
			ts := c.TokenSource()
			go func() { _, _ = ts.Token() }()
			<-srv.began
			closed := make(chan error)
			go func() { closed <- ts.Close() }()
			synctest.Wait()
			select {
			case err := <-closed:
				t.Fatalf("Close returned %v before the renewal", err)
			default:
			}
			close(srv.gate)
			if err := <-closed; err != nil {
				t.Error(err)
			}
			if s, err := c.Session(t.Context()); err != nil || s.RefreshToken != "rt-1" {
				t.Errorf("stored %v, %v: the rotation was lost", s.RefreshToken.Reveal(), err)
			}
		})
	})
	t.Run("a closed source serves its token to the end and begins nothing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			srv := newFakeServer(issue)
			c, _ := newClient(t, srv)
			ts := c.TokenSource()
			wantToken(t, ts, "at-1")
			closeSource(t, c)
			time.Sleep(55 * time.Minute)
			wantToken(t, ts, "at-1")
			time.Sleep(5*time.Minute - 10*time.Second)
			wantToken(t, ts, "at-1")
			time.Sleep(time.Minute)
			if _, err := ts.Token(); !errors.Is(err, oauth.ErrClosed) {
				t.Errorf("error %v, want ErrClosed", err)
			}
			if srv.count() != 1 {
				t.Errorf("%d requests, want 1", srv.count())
			}
		})
	})
}

func TestRequestMetadata(t *testing.T) {
	c, _ := newClient(t, newFakeServer(issue))
	ts := c.TokenSource()
	md, err := ts.GetRequestMetadata(t.Context(), "https://iam.example/yandex.cloud.iam.v1.RefreshTokenService")
	if err != nil || md["authorization"] != "Bearer at-1" || len(md) != 1 {
		t.Errorf("metadata %v, %v", md, err)
	}
	if !ts.RequireTransportSecurity() {
		t.Error("a token may travel in the clear")
	}
	failing, _ := newClient(t, newFakeServer(refuse("invalid_grant")))
	if _, err := failing.TokenSource().GetRequestMetadata(t.Context()); !errors.Is(err, oauth.ErrLoginRequired) {
		t.Errorf("error %v, want ErrLoginRequired", err)
	}
	bound, _ := newClient(t, newFakeServer(func(int, fakeRequest) (*http.Response, error) {
		return answer(200, `{"access_token":"at","token_type":"DPoP","expires_in":60}`), nil
	}), func(cfg *oauth.Config) { cfg.DPoP = newProver(t) })
	if _, err := bound.TokenSource().GetRequestMetadata(t.Context()); err == nil {
		t.Error("a DPoP token was offered as a Bearer token")
	}
}
