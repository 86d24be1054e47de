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
	"slices"
	"sync"
	"sync/atomic"
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
type dueRow struct {
	at, claimed time.Time
	generation  uint64
}

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
		d.rows[key], d.nothing = &dueRow{at: d.provider.RenewAt(s), generation: s.Generation}, time.Time{}
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

func (d *dueSet) Postpone(_ context.Context, key string, generation uint64, by time.Duration) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return d.fail
	}
	if row := d.rows[key]; generation == 0 || generation == row.generation {
		row.claimed, d.nothing = time.Now().Add(by), time.Time{}
	}
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
			t.Parallel()
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

func shortLived(life time.Duration) (*poolServer, oauth.Provider) {
	srv := newPoolServer()
	srv.accessLife, srv.refreshLife, srv.reissue = life/6, life, life+time.Minute
	p := testProvider()
	p.RefreshTokenLife = life
	return srv, p
}

func TestKeepAliveOfTokensThatLiveShortly(t *testing.T) {
	for _, life := range []time.Duration{10 * time.Minute, 30 * time.Minute, time.Hour, 90 * time.Minute, 2 * time.Hour, 8 * time.Hour} {
		t.Run(life.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv, provider := shortLived(life)
				stores := newPoolStores()
				stores.add(t, srv, "u", life/6)
				c, err := oauth.New(oauth.Config{
					Provider: provider, ClientID: "client", HTTPClient: &http.Client{Transport: srv}, Store: stores.stores["u"],
				})
				if err != nil {
					t.Fatal(err)
				}
				go func() { _ = c.TokenSource().KeepAlive(t.Context()) }()
				time.Sleep(2 * day)
				if len(srv.lost) > 0 {
					t.Errorf("lost: %s, after %d requests", srv.lost[0], srv.count())
				}
				if _, err := c.TokenSource().Token(); err != nil {
					t.Error(err)
				}
				closeSource(t, c)
			})
		})
	}
}

// The shortest life that is kept is 10 minutes, or 20 if the provider does not say it.
func TestPoolKeepAliveOfTokensThatLiveShortly(t *testing.T) {
	for _, tt := range []struct {
		life  time.Duration
		known bool
	}{{10 * time.Minute, true}, {20 * time.Minute, false}, {30 * time.Minute, true}, {time.Hour, true}, {90 * time.Minute, false}, {8 * time.Hour, true}} {
		t.Run(fmt.Sprint(tt.life, " ", tt.known), func(t *testing.T) {
			life := tt.life
			synctest.Test(t, func(t *testing.T) {
				srv, provider := shortLived(life)
				if !tt.known {
					provider.RefreshTokenLife = 0
					srv.tellLife = true
				}
				stores := newPoolStores()
				for i, key := range users(20) {
					stores.add(t, srv, key, life/6)
					time.Sleep(life / 40 * time.Duration(i%2))
				}
				set := newDueSet(stores, provider)
				p, _ := newPool(t, srv, stores, func(c *oauth.PoolConfig) { c.Config.Provider = provider })
				go func() { _ = p.KeepAlive(t.Context(), set) }()
				time.Sleep(2 * day)
				if len(srv.lost) > 0 {
					t.Errorf("%d of 20 lost: %s, after %d requests", len(srv.lost), srv.lost[0], srv.count())
				}
				closePool(t, p)
			})
		})
	}
}

func TestRenewAtIsBeforeTheExpiry(t *testing.T) {
	login := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, p := range map[string]oauth.Provider{
		"Yandex Cloud": oauth.YandexCloud(), "life known": {RefreshTokenLife: 31 * day}, "reissue known": {ReissueBefore: day}, "nothing known": {},
	} {
		for _, life := range []time.Duration{time.Second, 10 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, day} {
			s := oauth.Session{RefreshToken: "rt", Created: login, Obtained: login, RefreshExpiry: login.Add(life)}
			if at := p.RenewAt(s); !at.Before(s.RefreshExpiry) {
				t.Errorf("%s: issued for %v, to be renewed after %v", name, life, at.Sub(login))
			}
		}
	}
}

func TestPoolKeepAliveOfAMisconfiguredReplica(t *testing.T) {
	for _, tt := range []struct {
		name  string
		wrong func(t *testing.T, c *oauth.Config)
	}{
		{"another client id", func(_ *testing.T, c *oauth.Config) { c.ClientID = "client-of-staging" }},
		{"another key", func(t *testing.T, c *oauth.Config) { c.DPoP = newProver(t) }},
		{"another provider name", func(_ *testing.T, c *oauth.Config) { c.Provider.Name = "TEST" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv, stores := newPoolServer(), newPoolStores()
				right := newProver(t)
				for _, key := range users(50) {
					stores.add(t, srv, key, 12*time.Hour)
					put(t, stores.stores[key], func(s *oauth.Session) { s.KeyThumbprint = thumbprint(t, right) })
				}
				set := newDueSet(stores, srv.provider())
				time.Sleep(25*day + time.Hour) // 6 days are left

				bad, _ := newPool(t, srv, stores, func(c *oauth.PoolConfig) { c.Config.DPoP = right; tt.wrong(t, &c.Config) })
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				_ = bad.KeepAlive(ctx, set)
				closePool(t, bad)

				good, _ := newPool(t, srv, stores, func(c *oauth.PoolConfig) { c.Config.DPoP = right })
				go func() { _ = good.KeepAlive(t.Context(), set) }()
				time.Sleep(20 * day)
				renewed := srv.count()
				alive := 0
				for _, key := range users(50) {
					if _, err := good.TokenSource(key).Token(); err == nil {
						alive++
					}
				}
				if alive != 50 {
					t.Errorf("%d of 50 sessions are alive; KeepAlive sent %d requests; lost: %v", alive, renewed, srv.lost[0])
				}
				closePool(t, good)
			})
		})
	}
}

func TestPoolKeepAliveBesideAMisconfiguredReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, stores := newPoolServer(), newPoolStores()
		for _, key := range users(100) {
			stores.add(t, srv, key, 12*time.Hour)
			time.Sleep(10 * time.Minute)
		}
		set := newDueSet(stores, srv.provider())
		good, _ := newPool(t, srv, stores)
		go func() { _ = good.KeepAlive(t.Context(), set) }()
		bad, log := newPool(t, srv, stores, func(c *oauth.PoolConfig) { c.Config.ClientID = "client-of-staging" })
		ctx, cancel := context.WithTimeout(t.Context(), 26*day)
		defer cancel()
		_ = bad.KeepAlive(ctx, set)
		closePool(t, bad)
		told := 0
		for _, e := range log.of(oauth.EventRenewFailed) {
			if e.Key == "" && errors.Is(e.Err, oauth.ErrLoginRequired) {
				told++
			}
		}
		if n := len(log.of(oauth.EventRenewFailed)); told == 0 || n > 26*24*10 {
			t.Errorf("%d events, of which %d are about the process", n, told)
		}
		time.Sleep(14 * day)
		alive := 0
		for _, key := range users(100) {
			if _, err := good.TokenSource(key).Token(); err == nil {
				alive++
			}
		}
		if alive != 100 {
			t.Errorf("%d of 100 sessions are alive", alive)
		}
		closePool(t, good)
	})
}

func TestPoolKeepAliveLoginDuringPostpone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newPoolServer()
		srv.refreshLife, srv.reissue = 5*day, 1*day
		stores := newPoolStores()
		stores.add(t, srv, "u", 12*time.Hour)
		set := newDueSet(stores, srv.provider())
		time.Sleep(4*day + 12*time.Hour)
		srv.set(func() { clear(srv.issued) }) // the user was logged out by an admin
		var slow slowSet
		slow.dueSet = set
		p, _ := newPool(t, srv, stores)
		go func() { _ = p.KeepAlive(t.Context(), &slow) }()
		for slow.postponing.Load() == 0 {
			time.Sleep(time.Second)
		}
		srv.set(func() { srv.issued["u/7"] = time.Now() })
		if err := p.Do(t.Context(), "u", func(c *oauth.Client) error { return c.Import(t.Context(), "u/7") }); err != nil {
			t.Fatal(err)
		}
		if _, err := p.TokenSource("u").Token(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * day)
		if len(srv.lost) > 1 {
			t.Error(srv.lost)
		}
		if _, err := p.TokenSource("u").Token(); err != nil {
			t.Error(err)
		}
		closePool(t, p)
	})
}

type slowSet struct {
	*dueSet
	postponing atomic.Int32
}

func (s *slowSet) Postpone(ctx context.Context, key string, generation uint64, d time.Duration) error {
	if s.postponing.Add(1) == 1 {
		time.Sleep(10 * time.Second) // for a connection of the pool
	}
	return s.dueSet.Postpone(ctx, key, generation, d)
}

func TestKeepAliveRequestsWhileRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, stores := newPoolServer(), newPoolStores()
		stores.add(t, srv, "u", 12*time.Hour)
		put(t, stores.stores["u"], func(s *oauth.Session) { s.RefreshExpiry = time.Time{} })
		srv.judge = func(int, string) (*http.Response, error) { return answer(401, `{"error":"invalid_client"}`), nil }
		p := srv.provider()
		p.RefreshTokenLife, p.ReissueBefore = 0, 0
		c, err := oauth.New(oauth.Config{Provider: p, ClientID: "client", HTTPClient: &http.Client{Transport: srv}, Store: stores.stores["u"]})
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = c.TokenSource().KeepAlive(t.Context()) }()
		time.Sleep(15 * day)
		if srv.count() > 10*24*2 {
			t.Errorf("%d requests in 10 days to a server that says no", srv.count())
		}
		closeSource(t, c)
	})
}

func thumbprint(t *testing.T, p *dpop.Prover) string {
	t.Helper()
	s, err := p.Thumbprint(crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

type shardedStore struct{ oauth.Store }

func (s shardedStore) Load(ctx context.Context) (oauth.Session, error) {
	<-ctx.Done()
	return oauth.Session{}, ctx.Err()
}

type hangingLock struct{ oauth.Store }

func (s hangingLock) Update(ctx context.Context, _ func(oauth.Session) (oauth.Session, error)) error {
	<-ctx.Done()
	return ctx.Err()
}

// Work that nobody waits for, and that hangs, leaves room for callers.
func TestPoolKeepAliveIsNotInTheWayOfCallers(t *testing.T) {
	for name, broken := range map[string]func(oauth.Store) oauth.Store{
		"reads":    func(s oauth.Store) oauth.Store { return shardedStore{s} },
		"renewals": func(s oauth.Store) oauth.Store { return hangingLock{s} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv, stores := newPoolServer(), newPoolStores()
				for _, key := range users(64) {
					stores.add(t, srv, key, 12*time.Hour)
				}
				set := newDueSet(stores, srv.provider())
				for _, key := range users(64) {
					stores.stores[key] = broken(stores.stores[key])
				}
				time.Sleep(26 * day)
				stores.add(t, srv, "alice", 0) // her token has expired just now; her shard is well
				p, _ := newPool(t, srv, stores)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go func() { _ = p.KeepAlive(ctx, set) }()
				time.Sleep(time.Second)
				start := time.Now()
				_, err := p.TokenSource("alice").Token()
				if waited := time.Since(start); err != nil || waited > 10*time.Second {
					t.Errorf("alice got her token after %v: %v", waited, err)
				}
				cancel()
				_ = p.Close()
			})
		})
	}
}

// A server may extend the life of the same refresh token with each use, and say so.
func TestKeepAliveOfALifeThatIsExtended(t *testing.T) {
	for _, life := range []time.Duration{2 * time.Hour, 12 * time.Hour, 7 * day} {
		for _, named := range []bool{true, false} {
			t.Run(fmt.Sprint(life, named), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					used, dead := time.Now(), false
					srv := newFakeServer(func(n int, _ fakeRequest) (*http.Response, error) {
						if time.Since(used) >= life {
							dead = true
							return answer(400, `{"error":"invalid_grant"}`), nil
						}
						used = time.Now()
						refresh := ""
						if named || n == 1 {
							refresh = `"refresh_token":"rt-1",`
						}
						return answer(200, fmt.Sprintf(`{"access_token":"at-%d",%s"expires_in":600,"refresh_token_expires_in":%d}`, n, refresh, int(life.Seconds()))), nil
					})
					srv.began = make(chan struct{}, 10000)
					c, _ := newClient(t, srv)
					ctx, cancel := context.WithTimeout(t.Context(), 5*life)
					defer cancel()
					_ = c.TokenSource().KeepAlive(ctx)
					if dead {
						t.Errorf("the session died after %d requests", srv.count())
					}
					s, err := c.Session(t.Context())
					if err != nil || !s.RefreshExpiry.Equal(used.Add(life)) {
						t.Errorf("RefreshExpiry %v, %v; want %v", s.RefreshExpiry, err, used.Add(life))
					}
				})
			})
		}
	}
}

// A forgetfulSet has the same sessions due whenever it is asked.
type forgetfulSet struct {
	keys []string
	asks int
}

func (s *forgetfulSet) DueKeys(_ context.Context, _, _ time.Duration, limit int) ([]string, error) {
	s.asks++
	return slices.Clone(s.keys[:min(limit, len(s.keys))]), nil
}

func (*forgetfulSet) Postpone(context.Context, string, uint64, time.Duration) error { return nil }

// A set that forgets what was claimed causes neither a loop nor a request for each time that it
// is asked.
func TestPoolKeepAliveOfAForgetfulSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, stores := newPoolServer(), newPoolStores()
		keys := users(10)
		for _, key := range keys[:5] { // nobody has logged in as the others
			stores.add(t, srv, key, time.Hour)
		}
		p, _ := newPool(t, srv, stores)
		set := &forgetfulSet{keys: keys}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := p.KeepAlive(ctx, set); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if n := srv.count(); n > 60 || set.asks > 60 {
			t.Errorf("%d requests and %d calls of DueKeys in an hour", n, set.asks)
		}
		closePool(t, p)
	})
}
