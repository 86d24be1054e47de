package oauth_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/internal/leasetest"
)

// A countingStore counts its Updates, and what it was told of doubtful requests. It loses
// its lease as often as it is told, before fn runs.
type countingStore struct {
	oauth.Store
	mu                      sync.Mutex
	updates, doubtful, lose int
	bare                    bool // Load finds no refresh token
}

func (s *countingStore) Load(ctx context.Context) (oauth.Session, error) {
	stored, err := s.Store.Load(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bare {
		stored.RefreshToken = ""
	}
	return stored, err
}

func (s *countingStore) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	s.mu.Lock()
	s.updates++
	lost := s.lose > 0
	if lost {
		s.lose--
	}
	s.mu.Unlock()
	if lost {
		return oauth.ErrLeaseLost
	}
	return s.Store.Update(ctx, func(stored oauth.Session) (oauth.Session, error) {
		next, err := fn(stored)
		if errors.Is(err, oauth.ErrOutcomeUnknown) {
			s.mu.Lock()
			s.doubtful++
			s.mu.Unlock()
		}
		return next, err
	})
}

// expect is told how many leases are lost next.
func (s *countingStore) expect(lose int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.updates, s.doubtful, s.lose = 0, 0, lose
}

func (s *countingStore) counts() (updates, doubtful int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.updates, s.doubtful
}

// TestLostLeases: a renewal starts over three times.
func TestLostLeases(t *testing.T) {
	for lose, ok := range map[int]bool{1: true, 3: true, 4: false} {
		store := &countingStore{Store: oauth.NewMemoryStore()}
		srv := newFakeServer(issue)
		c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store = store })
		store.expect(lose)
		_, err := c.TokenSource().Token()
		updates, _ := store.counts()
		if ok && (err != nil || updates != lose+1 || srv.count() != 1) || !ok && (!errors.Is(err, oauth.ErrLeaseLost) || updates != 4 || srv.count() != 0) {
			t.Errorf("%d lost: %v after %d updates and %d requests", lose, err, updates, srv.count())
		}
		closeSource(t, c)
	}
}

// TestRejectedTokenIsLookedForOnce: a refresh token that was rejected is not renewed with
// once more if the store has no other one.
func TestRejectedTokenIsLookedForOnce(t *testing.T) {
	for name, change := range map[string]func(*faultyStore, *countingStore){
		"the same one": func(*faultyStore, *countingStore) {},
		"none": func(_ *faultyStore, s *countingStore) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.bare = true
		},
		"the store is off": func(s *faultyStore, _ *countingStore) { s.set(func(s *faultyStore) { s.failLoad = errLine }) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				faulty := newFaultyStore()
				store := &countingStore{Store: faulty}
				srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
					change(faulty, store)
					return refuse("invalid_grant")(n, r)
				})
				c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store = store })
				for i := range 2 { // the second time nothing is sent
					store.expect(0)
					_, err := c.TokenSource().Token()
					wantReason(t, err, oauth.ReasonRejected)
					if updates, _ := store.counts(); updates != 1 || srv.count() != 1 {
						t.Errorf("call %d: %d updates, %d requests", i, updates, srv.count())
					}
					if name == "none" {
						break // it was another session
					}
					time.Sleep(time.Hour)
				}
				closeSource(t, c)
			})
		})
	}
}

// TestCanceledElsewhere: a request that ends with "canceled" was not ended by Close.
func TestCanceledElsewhere(t *testing.T) {
	srv := newFakeServer(func(int, fakeRequest) (*http.Response, error) { return nil, context.Canceled })
	c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.MaxAttempts = 1 })
	if _, err := c.TokenSource().Token(); err == nil || errors.Is(err, oauth.ErrClosed) {
		t.Errorf("got %v", err)
	}
	closeSource(t, c)
}

// TestDoubtfulOutcomeOfAStoreThatWasBehind: one that is sent a session learns of the doubt
// after that.
func TestDoubtfulOutcomeOfAStoreThatWasBehind(t *testing.T) {
	for name, tt := range map[string]struct {
		response func() (*http.Response, error)
		doubtful int
	}{
		"lost":           {func() (*http.Response, error) { return nil, errLine }, 1},
		"a refusal":      {func() (*http.Response, error) { return answer(400, `{"error":"invalid_request"}`), nil }, 0},
		"rotated by it":  {func() (*http.Response, error) { return answer(200, `{"refresh_token":"rt-9"}`), nil }, 0},
		"a good outcome": {func() (*http.Response, error) { return answer(200, tokenJSON("at-9", "", 3600)), nil }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				faulty := newFaultyStore()
				store := &countingStore{Store: faulty}
				srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
					if n == 1 {
						return rotate(n, r)
					}
					faulty.set(func(s *faultyStore) { s.failSave = nil })
					return tt.response()
				})
				c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store, cfg.MaxAttempts = store, 1 })
				faulty.set(func(s *faultyStore) { s.failSave = errLine })
				wantToken(t, c.TokenSource(), "at-1")
				time.Sleep(2 * time.Hour)
				store.expect(0)
				_, err := c.TokenSource().Token()
				if updates, doubtful := store.counts(); doubtful != tt.doubtful || updates != 1+tt.doubtful {
					t.Errorf("%v after %d updates, %d of them doubtful", err, updates, doubtful)
				}
				closeSource(t, c)
			})
		})
	}
}

// TestNonceForABearer: a client without proofs has no use for a nonce.
func TestNonceForABearer(t *testing.T) {
	srv := newFakeServer(func(int, fakeRequest) (*http.Response, error) {
		return answer(400, `{"error":"use_dpop_nonce"}`, "DPoP-Nonce", "n"), nil
	})
	c, _ := newClient(t, srv)
	if _, err := c.TokenSource().Token(); err == nil || srv.count() != 1 {
		t.Errorf("%v after %d requests", err, srv.count())
	}
	closeSource(t, c)
}

// TestChallengeWithoutANonce cannot be met, also by a client that has a nonce.
func TestChallengeWithoutANonce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
			if n > 1 {
				return answer(400, `{"error":"use_dpop_nonce"}`), nil
			}
			resp, err := issue(n, r)
			resp.Header.Set("DPoP-Nonce", "n")
			return resp, err
		})
		c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.DPoP = newProver(t) })
		wantToken(t, c.TokenSource(), "at-1")
		time.Sleep(2 * time.Hour)
		if _, err := c.TokenSource().Token(); err == nil || srv.count() != 2 {
			t.Errorf("%v after %d requests", err, srv.count())
		}
		closeSource(t, c)
	})
}

// TestErrorBesideAToken does not make the token a bad one.
func TestErrorBesideAToken(t *testing.T) {
	srv := newFakeServer(func(int, fakeRequest) (*http.Response, error) {
		return answer(200, `{"access_token":"at-1","token_type":"Bearer","expires_in":3600,"error":"invalid_scope"}`), nil
	})
	c, _ := newClient(t, srv)
	wantToken(t, c.TokenSource(), "at-1")
	closeSource(t, c)
}

// TestLeaseThatHoldsJustLongEnough for one request.
func TestLeaseThatHoldsJustLongEnough(t *testing.T) {
	srv := fleetServer(t)
	synctest.Test(t, func(t *testing.T) {
		const pause = 40 * time.Second
		w := newFleet(t, srv, 1, flaw{}, []happening{{point: leasetest.Begun, pause: pause}},
			func(c *oauth.Config) { c.RequestTimeout = leaseLife - pause })
		if _, err := w.members[0].c.TokenSource().Token(); err != nil {
			t.Error(err)
		}
		closeSource(t, w.members[0].c)
	})
}

// TestWaitAfterASlowLostResponse is counted from the beginning of the request.
func TestWaitAfterASlowLostResponse(t *testing.T) {
	srv := fleetServer(t)
	synctest.Test(t, func(t *testing.T) {
		w := newFleet(t, srv, 1, flaw{}, []happening{{point: leasetest.Send, pause: 10 * time.Second, err: errLine}})
		start := time.Now()
		_, err := w.members[0].c.TokenSource().Token()
		var interrupted *oauth.InterruptedError
		if !errors.As(err, &interrupted) {
			t.Fatalf("%v", err)
		}
		if got := interrupted.Until.Sub(start); got != fence {
			t.Errorf("until %v, want %v", got, fence)
		}
		closeSource(t, w.members[0].c)
	})
}

// TestStaleTokenAfterADoubtfulRequest is not renewed early, where it can cost the session.
func TestStaleTokenAfterADoubtfulRequest(t *testing.T) {
	for name, tt := range map[string]struct {
		marked   bool // the request was that of a process that died
		requests int
	}{"its own": {false, 1}, "of another process": {true, 0}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := newFakeServer(lose)
				store := oauth.NewMemoryStore()
				if tt.marked {
					store = interruptedStore{store}
				}
				c, log := openClient(t, srv, func(cfg *oauth.Config) { cfg.Store, cfg.MaxAttempts = store, 1 })
				put(t, store, func(s *oauth.Session) {
					freshUntil(s, "stored", 2*time.Hour)
					s.Provider, s.ClientID, s.RefreshToken = "test", "client", "rt-0"
				})
				time.Sleep(90 * time.Minute)
				for range 5 {
					wantToken(t, c.TokenSource(), "stored")
					synctest.Wait()
					time.Sleep(3 * time.Minute)
				}
				if failed := log.of(oauth.EventRenewFailed); srv.count() != tt.requests || len(failed) != 1 {
					t.Errorf("%d requests, events %+v", srv.count(), failed)
				}
				closeSource(t, c)
			})
		})
	}
}

// TestStaleTokenAfterAFence: once the lost request cannot be accepted any more, a stale
// token is renewed.
func TestStaleTokenAfterAFence(t *testing.T) {
	srv := fleetServer(t)
	synctest.Test(t, func(t *testing.T) {
		w := newFleet(t, srv, 1, flaw{}, []happening{{point: leasetest.Send, n: 2, err: errLine}},
			func(c *oauth.Config) { c.StaleBefore, c.InvalidBefore = accessLife/2, time.Minute })
		m := w.members[0]
		for _, wait := range []time.Duration{0, accessLife * 3 / 4, fence + time.Second} {
			time.Sleep(wait)
			if _, err := m.c.TokenSource().Token(); err != nil {
				t.Fatalf("after %v: %v", wait, err)
			}
			synctest.Wait()
		}
		time.Sleep(30 * time.Second) // a former holder would have the time to save
		if renewed, failed := len(m.of(oauth.EventRenewed)), len(m.of(oauth.EventRenewFailed)); renewed != 2 || failed != 1 {
			t.Errorf("%d renewals, and %d failed", renewed, failed)
		}
		closeSource(t, m.c)
	})
}

// A gatedStore waits before each Update until its gate opens, whatever happens to ctx.
type gatedStore struct {
	oauth.Store
	gate atomic.Pointer[chan struct{}]
}

func (s *gatedStore) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	if gate := s.gate.Load(); gate != nil {
		<-*gate
	}
	return s.Store.Update(ctx, fn)
}

// TestSilenceAfterClose: what a store that ignores its context lets go on is not told.
func TestSilenceAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &gatedStore{Store: oauth.NewMemoryStore()}
		c, log := newClient(t, newFakeServer(issue), func(cfg *oauth.Config) { cfg.Store = store })
		gate := make(chan struct{})
		store.gate.Store(&gate)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.TokenSource().TokenContext(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		_ = c.TokenSource().Close() // it may say that the renewal goes on
		count := func() (n int) {
			for _, kind := range []oauth.EventKind{oauth.EventRenewed, oauth.EventRenewFailed, oauth.EventWaiting} {
				n += len(log.of(kind))
			}
			return n
		}
		before := count()
		close(gate)
		synctest.Wait()
		if after := count(); after != before {
			t.Errorf("%d events came after Close", after-before)
		}
	})
}

// TestStoreThatCannotBeLocked says what it says, and not that it was in use.
func TestStoreThatCannotBeLocked(t *testing.T) {
	store := newFaultyStore()
	c, _ := openClient(t, newFakeServer(issue), func(cfg *oauth.Config) { cfg.Store = store })
	store.set(func(s *faultyStore) { s.failLock = errLine })
	_, err := c.Login(t.Context(), oauth.LoginOptions{OpenURL: func(context.Context, string) error { return nil }})
	if !errors.Is(err, errLine) || strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v", err)
	}
}

// TestLogoutOfNothing is no event.
func TestLogoutOfNothing(t *testing.T) {
	c, log := openClient(t, newFakeServer(issue))
	if err := c.Logout(t.Context()); err != nil && !errors.Is(err, oauth.ErrNoSession) {
		t.Error(err)
	}
	if events := log.of(oauth.EventLogout); len(events) != 0 {
		t.Errorf("got %+v", events)
	}
}

// A keepingStore stores everything but that there is nothing any more.
type keepingStore struct{ oauth.Store }

func (s keepingStore) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	return s.Store.Update(ctx, func(stored oauth.Session) (oauth.Session, error) {
		next, err := fn(stored)
		if err == nil && next.IsZero() {
			err = errLine
		}
		return next, err
	})
}

// TestLogoutThatForgetsNothing says that the session was revoked, if it was.
func TestLogoutThatForgetsNothing(t *testing.T) {
	for name, revoke := range map[string]func(context.Context, oauth.Session) error{
		"revoked": func(context.Context, oauth.Session) error { return nil }, "not revoked": nil,
	} {
		c, _ := newClient(t, newFakeServer(issue), func(cfg *oauth.Config) {
			cfg.Store, cfg.Revoke = keepingStore{oauth.NewMemoryStore()}, revoke
		})
		err := c.Logout(t.Context())
		if !errors.Is(err, errLine) || strings.Contains(err.Error(), "was revoked") != (revoke != nil) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
