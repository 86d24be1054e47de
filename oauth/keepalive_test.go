package oauth_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
)

const day = 24 * time.Hour

// dueSet finds what is due in the stores of a test, as the table of a database does.
type dueSet struct {
	stores   *poolStores
	provider oauth.Provider

	mu      sync.Mutex
	fail    error
	calls   int
	rows    map[string]*dueRow
	nothing time.Time // until when nothing is due
}

// A dueRow is a session that is due at a time, but not before the end of a claim.
type dueRow struct{ at, claimed time.Time }

func newDueSet(stores *poolStores, p oauth.Provider) *dueSet {
	d := &dueSet{stores: stores, provider: p, rows: make(map[string]*dueRow)}
	stores.mu.Lock()
	defer stores.mu.Unlock()
	for key := range stores.stores {
		d.watch(key)
	}
	return d
}

// watch notes each change of the session of a key.
func (d *dueSet) watch(key string) {
	store := watchedStore{d.stores.stores[key], func(s oauth.Session) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.rows[key], d.nothing = &dueRow{at: d.provider.RenewAt(s)}, time.Time{}
	}}
	d.stores.stores[key] = store
	s, _ := store.Load(context.Background())
	store.changed(s)
}

type watchedStore struct {
	oauth.Store
	changed func(oauth.Session)
}

func (s watchedStore) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	changed := false
	var next oauth.Session
	err := s.Store.Update(ctx, func(stored oauth.Session) (oauth.Session, error) {
		var err error
		next, err = fn(stored)
		changed = err == nil && next.Generation != stored.Generation
		return next, err
	})
	if err == nil && changed {
		s.changed(next)
	}
	return err
}

func (d *dueSet) DueKeys(ctx context.Context, ahead, lasts time.Duration, limit int) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls++
	if d.fail != nil {
		return nil, d.fail
	}
	now := time.Now()
	if now.Before(d.nothing) {
		return nil, nil
	}
	d.nothing = now.Add(1000 * day)
	var keys []string
	for key, row := range d.rows {
		free := row.at.Add(-ahead)
		if row.claimed.After(free) {
			free = row.claimed
		}
		switch {
		case row.at.IsZero():
			continue
		case !free.After(now) && len(keys) < limit:
			row.claimed = now.Add(lasts)
			keys = append(keys, key)
			free = row.claimed
		}
		if free.Before(d.nothing) {
			d.nothing = free
		}
	}
	return keys, ctx.Err()
}

func (d *dueSet) Postpone(_ context.Context, key string, by time.Duration) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return d.fail
	}
	d.rows[key].claimed, d.nothing = time.Now().Add(by), time.Time{}
	return nil
}

// 1,000 sessions that nobody uses for 90 days.
func TestPoolKeepAlive(t *testing.T) {
	for _, tt := range []struct {
		name     string
		replicas int
		down     time.Duration // how long the server is, from the day on that the first one is due
		most     int           // requests
	}{
		{"one replica", 1, 0, 3000},
		{"three replicas", 3, 0, 3000},
		{"the server is down for 2 days", 1, 2 * day, 3000 + 2*24*60 + 100},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const sessions = 1000
				srv, stores := newPoolServer(), newPoolStores()
				start := time.Now()
				srv.judge = func(int, string) (*http.Response, error) {
					if on := time.Since(start); on >= 25*day && on < 25*day+tt.down {
						return answer(503, ""), nil
					}
					return nil, nil
				}
				for i, key := range users(sessions) {
					stores.add(t, srv, key, 12*time.Hour)
					if i%10 == 0 {
						time.Sleep(30 * time.Minute) // the logins are spread over 2 days
					}
				}
				set := newDueSet(stores, srv.provider())
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				var pools []*oauth.Pool
				for range tt.replicas {
					p, _ := newPool(t, srv, stores)
					pools = append(pools, p)
					wg.Go(func() {
						if err := p.KeepAlive(ctx, set); !errors.Is(err, context.Canceled) {
							t.Error(err)
						}
					})
				}
				time.Sleep(90*day - time.Since(start))
				cancel()
				wg.Wait()
				t.Logf("%d sessions, 90 days: %d token requests, %d questions to the set, %d in the busiest second, %d sessions lost",
					sessions, srv.count(), set.calls, srv.busiest(), len(srv.lost))
				if len(srv.lost) > 0 {
					t.Errorf("%d sessions lost: %s", len(srv.lost), srv.lost[0])
				}
				if srv.count() > tt.most || srv.count() < 3*sessions || srv.busiest() > 50*tt.replicas {
					t.Errorf("%d requests, %d in the busiest second", srv.count(), srv.busiest())
				}
				time.Sleep(13 * time.Hour)
				for i, key := range users(sessions) {
					if _, err := pools[i%len(pools)].TokenSource(key).Token(); err != nil {
						t.Fatal(err)
					}
				}
				for _, p := range pools {
					closePool(t, p)
				}
			})
		})
	}
}

// What becomes of a session that was claimed, and when it is tried again.
func TestPoolKeepAliveResults(t *testing.T) {
	due := func(t *testing.T, srv *poolServer, stores *poolStores, key string) {
		stores.add(t, srv, key, 12*time.Hour)
		time.Sleep(26 * day)
	}
	for _, tt := range []struct {
		name  string
		setUp func(t *testing.T, srv *poolServer, stores *poolStores, c *oauth.PoolConfig)
		most  int // requests in 5 days
		kinds map[oauth.EventKind]int

		setFails bool
	}{
		{"renewed", func(t *testing.T, srv *poolServer, stores *poolStores, _ *oauth.PoolConfig) {
			due(t, srv, stores, "u")
		}, 1, map[oauth.EventKind]int{oauth.EventRenewed: 1}, false},
		{"the refresh token is not replaced", func(t *testing.T, srv *poolServer, stores *poolStores, _ *oauth.PoolConfig) {
			srv.reissue = 0
			srv.refreshLife = 365 * day
			due(t, srv, stores, "u")
			put(t, stores.stores["u"], func(s *oauth.Session) { s.RefreshExpiry = s.Created.Add(31 * day) })
		}, 20, nil, false},
		{"the session has ended", func(t *testing.T, srv *poolServer, stores *poolStores, _ *oauth.PoolConfig) {
			due(t, srv, stores, "u")
			clear(srv.issued)
		}, 1, map[oauth.EventKind]int{oauth.EventRenewFailed: 1}, false},
		{"the key needs a person", func(t *testing.T, srv *poolServer, stores *poolStores, c *oauth.PoolConfig) {
			due(t, srv, stores, "u")
			c.Config.DPoP = touchProver(t)
		}, 0, map[oauth.EventKind]int{oauth.EventNeedsPerson: 5}, false},
		{"the server is down", func(t *testing.T, srv *poolServer, stores *poolStores, _ *oauth.PoolConfig) {
			due(t, srv, stores, "u")
			srv.judge = func(int, string) (*http.Response, error) { return answer(500, ""), nil }
		}, 8 * 24 * 5, nil, false},
		{"the set fails", func(t *testing.T, srv *poolServer, stores *poolStores, _ *oauth.PoolConfig) {
			due(t, srv, stores, "u")
		}, 0, nil, true},
		{"the store cannot be opened", func(t *testing.T, srv *poolServer, stores *poolStores, c *oauth.PoolConfig) {
			due(t, srv, stores, "u")
			c.Open = func(string) (oauth.Store, error) { return nil, errLine }
		}, 0, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv, stores := newPoolServer(), newPoolStores()
				var set *dueSet
				p, log := newPool(t, srv, stores, func(c *oauth.PoolConfig) {
					tt.setUp(t, srv, stores, c)
					set = newDueSet(stores, srv.provider())
				})
				if tt.setFails {
					set.fail = errLine
				}
				done := make(chan error)
				go func() { done <- p.KeepAlive(t.Context(), set) }()
				time.Sleep(5*day - time.Hour)
				if n := srv.count(); n > tt.most {
					t.Errorf("%d requests, want at most %d", n, tt.most)
				}
				for kind, want := range tt.kinds {
					events := log.of(kind)
					if len(events) != want {
						t.Errorf("%d × %s, want %d", len(events), kind, want)
					}
					for _, e := range events {
						if e.Cause != oauth.CauseKeepAlive || e.Key != "u" {
							t.Errorf("%+v", e)
						}
					}
				}
				if tt.kinds == nil && log.len() == 0 {
					t.Error("no event")
				}
				closePool(t, p)
				if err := <-done; !errors.Is(err, oauth.ErrClosed) {
					t.Errorf("KeepAlive returned %v", err)
				}
			})
		})
	}
}

// A session that a sweep has renewed does not stay in memory.
func TestPoolKeepAliveLeavesNothingInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, stores := newPoolServer(), newPoolStores()
		stores.add(t, srv, "u", 12*time.Hour)
		time.Sleep(26 * day)
		p, _ := newPool(t, srv, stores)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute/2)
		defer cancel()
		if err := p.KeepAlive(ctx, newDueSet(stores, srv.provider())); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if srv.count() != 1 {
			t.Errorf("%d requests", srv.count())
		}
		before := stores.opened
		if _, err := p.TokenSource("u").Token(); err != nil || stores.opened != before+1 {
			t.Errorf("%v, opened %d times", err, stores.opened-before)
		}
		closePool(t, p)
	})
}

// touchSigner is a key that somebody has to touch.
type touchSigner struct{ crypto.Signer }

func (touchSigner) NeedsPerson() bool { return true }

func touchProver(t *testing.T) *dpop.Prover {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p, err := dpop.New(touchSigner{key})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// One session, without a database.
func TestKeepAlive(t *testing.T) {
	for _, tt := range []struct {
		name     string
		change   func(t *testing.T, srv *poolServer, c *oauth.Config, store oauth.Store)
		min, max int // requests in 90 days
		lost     bool
		person   int // times that EventNeedsPerson is told
	}{
		{"idle", func(*testing.T, *poolServer, *oauth.Config, oauth.Store) {}, 3, 3, false, 0},
		{"the server is down for 5 days", func(_ *testing.T, srv *poolServer, _ *oauth.Config, _ oauth.Store) {
			start := time.Now()
			srv.judge = func(int, string) (*http.Response, error) {
				if on := time.Since(start); on >= 25*day && on < 30*day {
					return nil, errLine
				}
				return nil, nil
			}
		}, 3, 1000, false, 0},
		{"the store fails for 5 days", func(_ *testing.T, _ *poolServer, c *oauth.Config, store oauth.Store) {
			broken := newFaultyStore()
			broken.Store, c.Store = store, broken
			time.AfterFunc(25*day, func() { broken.set(func(s *faultyStore) { s.failLoad, s.failLock = errLine, errLine }) })
			time.AfterFunc(30*day, func() { broken.set(func(s *faultyStore) { s.failLoad, s.failLock = nil, nil }) })
		}, 3, 3, false, 0},
		{"imported", func(t *testing.T, _ *poolServer, _ *oauth.Config, store oauth.Store) {
			put(t, store, func(s *oauth.Session) {
				s.AccessToken, s.Expiry, s.Obtained, s.RefreshExpiry = "", time.Time{}, time.Time{}, time.Time{}
			})
		}, 4, 20, false, 0},
		{"a key that needs a person", func(t *testing.T, _ *poolServer, c *oauth.Config, _ oauth.Store) {
			c.DPoP = touchProver(t)
		}, 0, 0, true, 65},
		{"the server has ended the session", func(_ *testing.T, srv *poolServer, _ *oauth.Config, _ oauth.Store) {
			clear(srv.issued)
		}, 1, 1, true, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv, stores := newPoolServer(), newPoolStores()
				stores.add(t, srv, "u", 12*time.Hour)
				log := new(eventLog)
				cfg := oauth.Config{
					Provider: srv.provider(), ClientID: "client", HTTPClient: &http.Client{Transport: srv},
					Store: stores.stores["u"], Observer: log.observe,
				}
				tt.change(t, srv, &cfg, stores.stores["u"])
				c, err := oauth.New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				done := make(chan error)
				go func() { done <- c.TokenSource().KeepAlive(t.Context()) }()
				time.Sleep(90 * day)
				if n := srv.count(); n < tt.min || n > tt.max {
					t.Errorf("%d requests, want %d to %d", n, tt.min, tt.max)
				}
				if events := log.of(oauth.EventNeedsPerson); len(events) < tt.person-5 || len(events) > tt.person+5 || tt.person == 0 && len(events) > 0 {
					t.Errorf("%d × needs a person, want about %d", len(events), tt.person)
				}
				if _, err := c.TokenSource().Token(); (err != nil) != tt.lost {
					t.Error(err)
				}
				closeSource(t, c)
				if err := <-done; !errors.Is(err, oauth.ErrClosed) {
					t.Error(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				if err := c.TokenSource().KeepAlive(ctx); !errors.Is(err, oauth.ErrClosed) && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		})
	}
}

// KeepAlive begins with the first login.
func TestKeepAliveWaitsForALogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newPoolServer()
		c, err := oauth.New(oauth.Config{Provider: srv.provider(), ClientID: "client", HTTPClient: &http.Client{Transport: srv}})
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = c.TokenSource().KeepAlive(t.Context()) }()
		time.Sleep(3 * day)
		srv.set(func() { srv.issued["u/0"] = time.Now() })
		if err := c.Import(t.Context(), "u/0"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(90 * day)
		if _, err := c.TokenSource().Token(); err != nil {
			t.Error(err)
		}
		closeSource(t, c)
	})
}

func TestRenewAt(t *testing.T) {
	login := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	yc := oauth.YandexCloud()
	life := oauth.Provider{RefreshTokenLife: 35 * day}
	for _, tt := range []struct {
		name     string
		provider oauth.Provider
		used     time.Duration // after the login; -1: never
		expiry   time.Duration // after the login; 0: not known
		want     time.Duration
	}{
		{"Yandex Cloud", yc, 0, 31 * day, 25 * day},
		{"Yandex Cloud, used since", yc, 20 * day, 31 * day, 25 * day},
		{"Yandex Cloud, used late and not replaced", yc, 26 * day, 31 * day, 27 * day},
		{"Yandex Cloud, used very late", yc, 31*day - 8*time.Hour, 31 * day, 31*day - 6*time.Hour},
		{"Yandex Cloud, used in the last hours", yc, 31*day - 2*time.Hour, 31 * day, 31*day - time.Hour},
		{"Yandex Cloud, accepted longer than expected", yc, 40 * day, 31 * day, 41 * day},
		{"Yandex Cloud, imported", yc, -1, 0, 0},
		{"Yandex Cloud, imported and used", yc, 2 * day, 0, 8 * day},
		{"life known", life, 0, 35 * day, 29 * day},
		{"expiry of the response", oauth.Provider{}, 0, 35 * day, 29 * day},
		{"expiry known, and never used", yc, -1, 31 * day, 25 * day},
		{"nothing known", oauth.Provider{}, 3 * day, 0, 8 * day},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := oauth.Session{RefreshToken: "rt", Created: login}
			if tt.used >= 0 {
				s.Obtained = login.Add(tt.used)
			}
			if tt.expiry > 0 {
				s.RefreshExpiry = login.Add(tt.expiry)
			}
			if got := tt.provider.RenewAt(s).Sub(login); got != tt.want {
				t.Errorf("after %v, want %v", got, tt.want)
			}
		})
	}
	if at := yc.RenewAt(oauth.Session{AccessToken: "at", Created: login}); !at.IsZero() {
		t.Errorf("a session without a refresh token is due at %v", at)
	}
	if got := fmt.Sprint(newProver(t).NeedsPerson(), touchProver(t).NeedsPerson()); got != "false true" {
		t.Error(got)
	}
}
