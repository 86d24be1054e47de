package oauth_test

import (
	"context"
	"errors"
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
