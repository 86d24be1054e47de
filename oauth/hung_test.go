package oauth_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/internal/leasetest"
)

// deadLines is a store some of whose connections are dead: a call that began on one
// of them never returns. All other calls work.
type deadLines struct {
	oauth.Store
	dead    atomic.Int32 // so many calls of Load that follow never return
	fails   atomic.Bool  // Update does not take anything
	forever chan struct{}
}

func (s *deadLines) Load(ctx context.Context) (oauth.Session, error) {
	if s.dead.Add(-1) >= 0 {
		<-s.forever
	}
	return s.Store.Load(ctx)
}

func (s *deadLines) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	if !s.fails.Load() {
		return s.Store.Update(ctx, fn)
	}
	errFails := errors.New("not now")
	return s.Store.Update(ctx, func(cur oauth.Session) (oauth.Session, error) {
		next, err := fn(cur)
		if err == nil {
			err = errFails
		}
		return next, err
	})
}

// Calls that never return do not keep a session from being saved once others return.
func TestFewDeadCallsDoNotEndTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &deadLines{Store: oauth.NewMemoryStore(), forever: make(chan struct{})}
		defer close(store.forever)
		srv := newFakeServer(rotate)
		c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store = store })
		store.fails.Store(true)
		wantToken(t, c.TokenSource(), "at-1") // rt-1 is in memory alone
		store.dead.Store(4)
		for range 4 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			_, err := c.Session(ctx)
			cancel()
			if err == nil {
				t.Fatal("a dead call returned a session")
			}
		}
		store.fails.Store(false) // the store works: Load, Update, everything
		time.Sleep(10 * time.Minute)
		if s, err := store.Store.Load(t.Context()); err != nil || s.RefreshToken != "rt-1" {
			t.Errorf("ten minutes after the store works again it has %q, %v; want rt-1", s.RefreshToken.Reveal(), err)
		}
		time.Sleep(2 * time.Hour)
		if _, err := c.TokenSource().Token(); err != nil {
			t.Errorf("Token: %v", err)
		}
		if err := c.TokenSource().Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if s, err := store.Store.Load(t.Context()); err != nil || s.RefreshToken == "rt-0" {
			t.Errorf("after Close the store has %q, %v: the newer refresh token is lost", s.RefreshToken.Reveal(), err)
		}
	})
}

// A statement that began while the store was away hangs for a while, as on a connection
// that is dead, and is then repeated until the call's context ends, or for 30 seconds with a
// new session (Options.Timeout and SaveTimeout of the stores in databases). The holder, who is
// alive, saves the new session all the same before anybody sends the former refresh token.
func TestLeaseStoreWasAway(t *testing.T) {
	srv := fleetServer(t)
	for _, statement := range []time.Duration{time.Second, 10 * time.Second} {
		for away := 4 * time.Minute; away < 8*time.Minute; away += 7 * time.Second {
			t.Run(statement.String()+"/"+away.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newFleet(t, srv, 2, flaw{}, nil)
					var mu sync.Mutex
					var back time.Time
					isAway := func() bool {
						mu.Lock()
						defer mu.Unlock()
						return time.Now().Before(back)
					}
					for i, m := range w.members {
						m.At = func(ctx context.Context, p leasetest.Point) error {
							switch p {
							case leasetest.Received:
								mu.Lock()
								if i == 0 && back.IsZero() {
									back = time.Now().Add(away) // the server has exchanged the token
								}
								mu.Unlock()
								return nil
							case leasetest.Send:
								return nil
							case leasetest.Save, leasetest.Leave:
								var cancel context.CancelFunc
								ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
								defer cancel()
							}
							for isAway() {
								select {
								case <-time.After(statement):
								case <-ctx.Done():
									return ctx.Err()
								}
							}
							return nil
						}
					}
					if !w.live() {
						t.Error("the session is lost, although its new refresh token was in the memory of a process that ran all the time")
					}
				})
			})
		}
	}
}

// stuckWrites is a store whose first writes hang once they have the session: it is not
// stored, unless free is closed.
type stuckWrites struct {
	oauth.Store
	stuck atomic.Int32 // so many writes that follow hang
	free  chan struct{}
}

func (s *stuckWrites) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	cur, err := s.Load(ctx)
	if err != nil && !errors.Is(err, oauth.ErrNoSession) {
		return err
	}
	next, err := fn(cur)
	if err != nil {
		return err
	}
	if s.stuck.Add(-1) >= 0 {
		<-s.free
		return errors.New("it was stuck")
	}
	return s.Store.Update(ctx, func(oauth.Session) (oauth.Session, error) { return next, nil })
}

type stuckLeaseWrites struct{ stuckWrites }

func (s *stuckLeaseWrites) UpdateLease(ctx context.Context, fn func(oauth.Lease, oauth.Session) (oauth.Session, error)) error {
	return s.Update(ctx, func(cur oauth.Session) (oauth.Session, error) { return fn(freeLease{}, cur) })
}

type freeLease struct{}

func (freeLease) Begin(context.Context) (time.Time, time.Duration, error) {
	return time.Now(), time.Hour, nil
}
func (freeLease) Interrupted() (time.Duration, bool) { return 0, false }

// A write that hangs keeps callers only for a moment from a token that is in memory, and the
// session from being saved for 5 minutes. With leases it is half a minute, and each further
// write may take 10 seconds, so that the session is saved within the time that a successor
// waits.
func TestStuckWrite(t *testing.T) {
	for name, tt := range map[string]struct {
		lease bool
		stuck int32
		saved time.Duration
	}{
		"one":              {false, 1, 5*time.Minute + 10*time.Second},
		"one, with leases": {true, 1, 36 * time.Second},
		"two, with leases": {true, 2, 50 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				stuck := &stuckLeaseWrites{stuckWrites{Store: oauth.NewMemoryStore(), free: make(chan struct{})}}
				defer close(stuck.free)
				srv := newFakeServer(rotate)
				var events eventLog
				c, _ := newClient(t, srv, func(cfg *oauth.Config) {
					cfg.Observer = events.observe
					if cfg.Store = &stuck.stuckWrites; tt.lease {
						cfg.Store = stuck
					}
				})
				ts := c.TokenSource()
				stuck.stuck.Store(tt.stuck)
				start := time.Now()
				wantToken(t, ts, "at-1")
				if d := time.Since(start); d > 3*time.Second {
					t.Errorf("the caller waited for %v", d)
				}
				for time.Since(start) < 10*time.Minute {
					if s, err := stuck.Load(t.Context()); err == nil && s.RefreshToken == "rt-1" {
						break
					}
					time.Sleep(time.Second)
				}
				if d := time.Since(start); d > tt.saved {
					t.Errorf("saved after %v, want %v at most", d, tt.saved)
				}
				synctest.Wait()
				if len(events.of(oauth.EventSaveFailed)) != 1 || len(events.of(oauth.EventSaved)) != 1 {
					t.Errorf("%v", events.kinds())
				}
				closeSource(t, c)
			})
		})
	}
}

// Renew and callers with a short time get the token as well.
func TestRenewWhileAWriteIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := &stuckWrites{Store: oauth.NewMemoryStore(), free: make(chan struct{})}
		defer close(stuck.free)
		c, _ := newClient(t, newFakeServer(rotate), func(cfg *oauth.Config) { cfg.Store = stuck })
		stuck.stuck.Store(1)
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			tok, err := c.TokenSource().Renew(ctx)
			cancel()
			if err != nil || tok.AccessToken != "at-1" {
				t.Errorf("%v, %v", tok, err)
			}
		}
		time.Sleep(6 * time.Minute) // until the call is left to itself
		closeSource(t, c)
	})
}

// Import waits for a store for half a minute, and no longer than its caller.
func TestImportIntoAStuckStore(t *testing.T) {
	for _, limit := range []time.Duration{0, time.Second, 10 * time.Second} {
		t.Run(limit.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				stuck := &stuckWrites{Store: oauth.NewMemoryStore(), free: make(chan struct{})}
				defer close(stuck.free)
				c, _ := newClient(t, newFakeServer(rotate), func(cfg *oauth.Config) { cfg.Store = stuck })
				stuck.stuck.Store(1)
				ctx, most := t.Context(), 32*time.Second
				if limit > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, limit)
					defer cancel()
					most = limit + 2*time.Second
				}
				start := time.Now()
				var store *oauth.StoreError
				if err := c.Import(ctx, "rt-9"); !errors.As(err, &store) {
					t.Error(err)
				}
				if d := time.Since(start); d > most {
					t.Errorf("after %v, want %v at most", d, most)
				}
				wantToken(t, c.TokenSource(), "at-1") // of the session before
				closeSource(t, c)
			})
		})
	}
}

// hastyStore returns from Update when ctx ends, while the function that it was given runs.
type hastyStore struct{ oauth.Store }

func (s hastyStore) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	done := make(chan error, 1)
	go func() { done <- s.Store.Update(context.WithoutCancel(ctx), fn) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// The function that a store was given is waited for, even if the store does not.
func TestUpdateReturnsTooEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
			time.Sleep(20 * time.Second)
			return rotate(n, r)
		})
		c, _ := newClient(t, srv, func(cfg *oauth.Config) {
			cfg.Store = hastyStore{oauth.NewMemoryStore()}
			cfg.RenewTimeout = 10 * time.Second
		})
		wantToken(t, c.TokenSource(), "at-1")
		closeSource(t, c)
		if s, err := c.Session(t.Context()); err != nil || s.RefreshToken != "rt-1" {
			t.Errorf("%q, %v", s.RefreshToken.Reveal(), err)
		}
	})
}

// stuckStore is a store whose calls never return while it is stuck, as on a mount that is
// dead. Later ones work.
type stuckStore struct {
	oauth.Store
	fails, stuck atomic.Bool
	forever      chan struct{}
}

func (s *stuckStore) Load(ctx context.Context) (oauth.Session, error) {
	if s.stuck.Load() {
		<-s.forever
	}
	return s.Store.Load(ctx)
}

func (s *stuckStore) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	if s.stuck.Load() {
		<-s.forever
	}
	return s.Store.Update(ctx, func(cur oauth.Session) (oauth.Session, error) {
		next, err := fn(cur)
		if err == nil && s.fails.Load() {
			err = errors.New("not now")
		}
		return next, err
	})
}

// After calls that hung, the store is left alone for up to an hour. What is done once, or
// for a person, does not wait for that.
func TestLastCallsAfterAHang(t *testing.T) {
	for name, do := range map[string]func(*testing.T, *oauth.Client) error{
		"Close":  func(_ *testing.T, c *oauth.Client) error { return c.TokenSource().Close() },
		"Import": func(t *testing.T, c *oauth.Client) error { return c.Import(t.Context(), "rt-1") },
		"Login": func(t *testing.T, c *oauth.Client) error {
			_, err := c.Login(t.Context(), oauth.LoginOptions{Device: true, Out: io.Discard})
			return err
		},
	} {
		for _, hang := range []time.Duration{3 * time.Minute, 8 * time.Minute, 3 * time.Hour} {
			t.Run(name+"/"+hang.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := &stuckStore{Store: oauth.NewMemoryStore(), forever: make(chan struct{})}
					defer close(store.forever)
					srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
						if r.url == deviceURL {
							return answer(200, deviceResponse), nil
						}
						return answer(200, tokenJSON("at-1", "rt-1", 3600)), nil
					})
					c, _ := newClient(t, srv, withDevice, func(cfg *oauth.Config) { cfg.Store = store })
					store.fails.Store(true)
					wantToken(t, c.TokenSource(), "at-1") // rt-1 is in memory alone
					store.stuck.Store(true)
					time.Sleep(hang)
					store.stuck.Store(false)
					store.fails.Store(false)
					if err := do(t, c); err != nil {
						t.Errorf("%v", err)
					}
					if s, err := store.Store.Load(t.Context()); err != nil || s.RefreshToken != "rt-1" {
						t.Errorf("the store has %q, %v; want rt-1", s.RefreshToken.Reveal(), err)
					}
				})
			})
		}
	}
}
