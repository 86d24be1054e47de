package oauth_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
)

// poolServer is a token endpoint for many users. Refresh tokens are "key/n"; they live for
// refreshLife, and are replaced if they are used with less than reissue left.
type poolServer struct {
	latency     time.Duration
	accessLife  time.Duration
	refreshLife time.Duration
	tellLife    bool // responses say how long the refresh token lives
	reissue     time.Duration
	nonce       string // demanded if it is set

	// judge, if set, may answer in the place of the server.
	judge func(n int, key string) (*http.Response, error)

	mu       sync.Mutex
	requests int
	arrivals []time.Time
	keys     []string             // in the order of arrival
	issued   map[string]time.Time // by refresh token: the current one of each key, when it was issued
	lost     []string             // why sessions were lost
}

func newPoolServer() *poolServer {
	const day = 24 * time.Hour
	return &poolServer{
		latency: 200 * time.Millisecond, accessLife: 12 * time.Hour, refreshLife: 31 * day, reissue: 7 * day,
		issued: make(map[string]time.Time),
	}
}

func (s *poolServer) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	token := form.Get("refresh_token")
	key, serial, _ := strings.Cut(token, "/")
	s.mu.Lock()
	s.requests++
	n := s.requests
	s.arrivals = append(s.arrivals, time.Now())
	s.keys = append(s.keys, key)
	judge := s.judge
	s.mu.Unlock()
	select {
	case <-time.After(s.latency):
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
	resp, err := s.answer(n, req, key, serial, token, judge)
	if resp != nil {
		resp.Request = req
	}
	return resp, err
}

func (s *poolServer) answer(n int, req *http.Request, key, serial, token string, judge func(int, string) (*http.Response, error)) (*http.Response, error) {
	if judge != nil {
		if resp, err := judge(n, key); resp != nil || err != nil {
			return resp, err
		}
	}
	if s.nonce != "" && !strings.Contains(proofClaims(req), `"nonce":"`+s.nonce+`"`) {
		return answer(400, `{"error":"use_dpop_nonce"}`, "DPoP-Nonce", s.nonce), nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	issued, ok := s.issued[token]
	age := time.Since(issued)
	if !ok || age >= s.refreshLife {
		s.lost = append(s.lost, fmt.Sprintf("%s after %v", token, age))
		return answer(400, `{"error":"invalid_grant"}`), nil
	}
	refresh := ""
	if s.refreshLife-age < s.reissue {
		i, _ := strconv.Atoi(serial)
		refresh = fmt.Sprint(key, "/", i+1)
		delete(s.issued, token)
		s.issued[refresh] = time.Now()
	}
	body := tokenJSON(fmt.Sprintf("at-%s-%d", key, n), refresh, int(s.accessLife/time.Second))
	if s.tellLife {
		body = fmt.Sprintf(`%s,"refresh_token_expires_in":%d}`, strings.TrimSuffix(body, "}"), int(s.refreshLife/time.Second))
	}
	return answer(200, body), nil
}

// proofClaims are those of the proof of a request, as JSON; "" if it has none.
func proofClaims(req *http.Request) string {
	parts := strings.Split(req.Header.Get("DPoP"), ".")
	if len(parts) != 3 {
		return ""
	}
	claims, _ := base64.RawURLEncoding.DecodeString(parts[1])
	return string(claims)
}

func (s *poolServer) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *poolServer) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// busiest is the most requests that arrived within any second.
func (s *poolServer) busiest() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	most, first := 0, 0
	for i, at := range s.arrivals { // in order: they were noted under the mutex
		for at.Sub(s.arrivals[first]) >= time.Second {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

func (s *poolServer) provider() oauth.Provider {
	p := testProvider()
	p.RefreshTokenLife, p.ReissueBefore = s.refreshLife, s.reissue
	return p
}

// poolStores are the stores of many users.
type poolStores struct {
	mu     sync.Mutex
	stores map[string]oauth.Store
	opened int
}

func newPoolStores() *poolStores { return &poolStores{stores: make(map[string]oauth.Store)} }

func (s *poolStores) open(key string) (oauth.Store, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened++
	store := s.stores[key]
	if store == nil {
		store = oauth.NewMemoryStore()
		s.stores[key] = store
	}
	return store, nil
}

// add stores a session of key that was issued now, and whose access token lives on for
// left of 12 hours.
func (s *poolStores) add(t *testing.T, srv *poolServer, key string, left time.Duration) {
	store, _ := s.open(key)
	now := time.Now()
	token := key + "/0"
	srv.set(func() { srv.issued[token] = now })
	put(t, store, func(stored *oauth.Session) {
		*stored = oauth.Session{
			Provider: "test", ClientID: "client", RefreshToken: oauth.Secret(token), AccessToken: oauth.Secret("at-" + key),
			TokenType: "Bearer", Obtained: now.Add(left - 12*time.Hour), Expiry: now.Add(left), Created: now, Generation: 1,
			RefreshExpiry: now.Add(srv.refreshLife),
		}
	})
}

func newPool(t testing.TB, srv *poolServer, stores *poolStores, change ...func(*oauth.PoolConfig)) (*oauth.Pool, *eventLog) {
	t.Helper()
	log := new(eventLog)
	cfg := oauth.PoolConfig{
		Config: oauth.Config{
			Provider: srv.provider(), ClientID: "client", HTTPClient: &http.Client{Transport: srv}, Observer: log.observe,
		},
		Open: stores.open,
	}
	for _, f := range change {
		f(&cfg)
	}
	p, err := oauth.NewPool(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p, log
}

func closePool(t testing.TB, p *oauth.Pool) {
	t.Helper()
	if err := p.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func users(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprint("user-", i)
	}
	return keys
}

// All sessions are stale at once, as after an outage: nobody waits for a token, and no
// second has more requests than the rates allow together.
func TestPoolHerd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const replicas = 4
		sessions := 4000
		if n, err := strconv.Atoi(os.Getenv("YCAUTH_POOL_SESSIONS")); err == nil {
			sessions = n
		}
		rate := sessions / 2000 // by each: all are renewed in 500 s
		srv, stores := newPoolServer(), newPoolStores()
		for _, key := range users(sessions) {
			stores.add(t, srv, key, time.Hour)
		}
		var pools [replicas]*oauth.Pool
		for i := range pools {
			pools[i], _ = newPool(t, srv, stores, func(c *oauth.PoolConfig) { c.Rate = float64(rate) })
		}
		start := time.Now()
		for i, key := range users(sessions) {
			tok, err := pools[i%replicas].TokenSource(key).Token()
			if err != nil || tok.AccessToken != "at-"+key {
				t.Fatalf("%v, %v", tok, err)
			}
		}
		if waited := time.Since(start); waited != 0 {
			t.Errorf("callers waited %v", waited)
		}
		for srv.count() < sessions && time.Since(start) < 10*time.Minute {
			time.Sleep(time.Second)
		}
		took := time.Since(start)
		time.Sleep(time.Minute)
		t.Logf("%d sessions renewed by %d pools in %v, with %d requests, %d in the busiest second", sessions, replicas, took, srv.count(), srv.busiest())
		if srv.count() != sessions || srv.busiest() > replicas*rate || took >= 10*time.Minute {
			t.Errorf("%d requests, %d in the busiest second, in %v", srv.count(), srv.busiest(), took)
		}
		for i, key := range users(sessions) {
			if tok, err := pools[i%replicas].TokenSource(key).Token(); err != nil || tok.AccessToken == "at-"+key {
				t.Fatalf("%s was not renewed: %v", key, err)
			}
		}
		for _, p := range pools {
			closePool(t, p)
		}
	})
}

// Users of one key share the nonce that the server demands.
func TestPoolSharesNonces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const sessions = 500
		srv, stores := newPoolServer(), newPoolStores()
		srv.nonce = "n-1"
		for _, key := range users(sessions) {
			stores.add(t, srv, key, -time.Hour)
		}
		p, _ := newPool(t, srv, stores, func(c *oauth.PoolConfig) { c.Config.DPoP = newProver(t) })
		defer closePool(t, p)
		var wg sync.WaitGroup
		for _, key := range users(sessions) {
			wg.Go(func() {
				if _, err := p.TokenSource(key).Token(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := srv.count(); n != sessions+1 {
			t.Errorf("%d requests of %d sessions", n, sessions)
		}
	})
}

// Whoever needs a token now comes before renewals behind the callers, also if the
// renewal was one of those at first.
func TestPoolServesWaitingCallersFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, stores := newPoolServer(), newPoolStores()
		p, _ := newPool(t, srv, stores, func(c *oauth.PoolConfig) { c.Rate = 1 })
		defer closePool(t, p)
		for _, key := range users(100) {
			stores.add(t, srv, key, 90*time.Second) // stale
			if _, err := p.TokenSource(key).Token(); err != nil {
				t.Fatal(err)
			}
		}
		stores.add(t, srv, "urgent", -time.Hour)
		start := time.Now()
		if _, err := p.TokenSource("urgent").Token(); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(start); waited > 7*time.Second {
			t.Errorf("a caller without a token waited %v", waited)
		}
		time.Sleep(65 * time.Second) // no token is served any more, and most renewals wait
		for name, get := range map[string]func() (*oauth2.Token, error){
			"Token": p.TokenSource("user-98").Token,
			"Renew": func() (*oauth2.Token, error) { return p.TokenSource("user-99").Renew(t.Context()) },
		} {
			start = time.Now()
			if _, err := get(); err != nil {
				t.Fatal(err)
			}
			if waited := time.Since(start); waited > 7*time.Second {
				t.Errorf("%s: a renewal that became urgent waited %v", name, waited)
			}
		}
	})
}

// The Retry-After of one response quiets the whole pool.
func TestPoolQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, stores := newPoolServer(), newPoolStores()
		srv.judge = func(n int, _ string) (*http.Response, error) {
			if n == 1 {
				return answer(429, `{"error":"slow_down"}`, "Retry-After", "120", "X-Request-Id", "first"), nil
			}
			return nil, nil
		}
		p, _ := newPool(t, srv, stores)
		defer closePool(t, p)
		for _, key := range users(50) {
			stores.add(t, srv, key, -time.Hour)
		}
		for _, key := range users(20)[10:] {
			stores.add(t, srv, key, time.Hour) // stale
		}
		start := time.Now()
		for i, key := range users(50) {
			tok, err := p.TokenSource(key).Token()
			if i >= 10 && i < 20 {
				if err != nil {
					t.Errorf("a stale token is not served: %v", err)
				}
				continue
			}
			var server *oauth.ServerError
			if !errors.As(err, &server) || server.Status != 429 || server.RetryAfter != 120*time.Second-time.Since(start)+srv.latency && i > 0 && server.RetryAfter < 110*time.Second {
				t.Fatalf("%v, %v", tok, err)
			}
			if i > 0 && server.RequestID != "" {
				t.Error("the id of another user's request")
			}
		}
		time.Sleep(110 * time.Second)
		if n := srv.count(); n != 1 {
			t.Errorf("%d requests in the quiet time", n)
		}
		time.Sleep(3 * time.Minute)
		if n := srv.count(); n != 11 {
			t.Errorf("%d requests after it, want those of the 10 stale sessions", n)
		}
		if _, err := p.TokenSource("user-30").Token(); err != nil {
			t.Error(err)
		}
	})
}

// A short Retry-After is waited for.
func TestPoolQuietForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, stores := newPoolServer(), newPoolStores()
		srv.judge = func(n int, _ string) (*http.Response, error) {
			if n == 1 {
				return answer(503, `{"error":"temporarily_unavailable"}`, "Retry-After", "20"), nil
			}
			return nil, nil
		}
		p, _ := newPool(t, srv, stores)
		defer closePool(t, p)
		var wg sync.WaitGroup
		start := time.Now()
		for _, key := range users(50) {
			stores.add(t, srv, key, -time.Hour)
			wg.Go(func() {
				if _, err := p.TokenSource(key).Token(); err != nil && time.Since(start) > time.Second {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		srv.mu.Lock()
		defer srv.mu.Unlock()
		for i, at := range srv.arrivals {
			// What was on its way when the response came cannot be held back.
			if after := at.Sub(start); after > srv.latency && after < 20*time.Second {
				t.Errorf("request %d came after %v", i, after)
			}
		}
	})
}

// While the server is down, it is asked once in some seconds, whoever asks.
func TestPoolServerDown(t *testing.T) {
	for name, down := range map[string]func() (*http.Response, error){
		"503":         func() (*http.Response, error) { return answer(503, ""), nil },
		"no response": func() (*http.Response, error) { return nil, errLine },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv, stores := newPoolServer(), newPoolStores()
				srv.judge = func(int, string) (*http.Response, error) { return down() }
				p, _ := newPool(t, srv, stores)
				defer closePool(t, p)
				for _, key := range users(200) {
					stores.add(t, srv, key, -time.Hour)
				}
				start := time.Now()
				var slowest time.Duration
				for range 10 {
					var wg sync.WaitGroup
					var mu sync.Mutex
					for _, key := range users(200) {
						wg.Go(func() {
							began := time.Now()
							if _, err := p.TokenSource(key).Token(); err == nil || errors.Is(err, oauth.ErrLoginRequired) {
								t.Error(err)
							}
							mu.Lock()
							defer mu.Unlock()
							slowest = max(slowest, time.Since(began))
						})
					}
					wg.Wait()
					time.Sleep(time.Minute)
				}
				n, took := srv.count(), time.Since(start)
				t.Logf("%d requests in %v, the slowest caller waited %v", n, took, slowest)
				if n > 20+int(took/(5*time.Second))+80 || slowest > 10*time.Second {
					t.Errorf("%d requests in %v, slowest caller %v", n, took, slowest)
				}
				srv.set(func() { srv.judge = nil })
				var wg sync.WaitGroup
				for _, key := range users(200) {
					wg.Go(func() {
						ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
						defer cancel()
						for ctx.Err() == nil {
							if _, err := p.TokenSource(key).TokenContext(ctx); err == nil {
								return
							}
							time.Sleep(time.Second)
						}
						t.Errorf("%s is not served", key)
					})
				}
				wg.Wait()
			})
		})
	}
}

// hangingStore is a store that does not return, whatever its context says.
type hangingStore struct {
	oauth.Store
	hang chan struct{}
}

func (s hangingStore) Load(context.Context) (oauth.Session, error) {
	<-s.hang
	return oauth.Session{}, errors.New("it hung")
}

// A store that hangs costs a bounded number of goroutines, and its callers return when
// their contexts end.
func TestPoolHangingStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, stores := newPoolServer(), newPoolStores()
		hang := make(chan struct{})
		p, _ := newPool(t, srv, stores, func(c *oauth.PoolConfig) {
			c.Concurrent = 8
			c.Open = func(string) (oauth.Store, error) { return hangingStore{oauth.NewMemoryStore(), hang}, nil }
		})
		before := runtime.NumGoroutine()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for _, key := range users(10_000) {
			if _, err := p.TokenSource(key).TokenContext(ctx); !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
		}
		limited, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if _, err := p.TokenSource("user-9999").TokenContext(limited); !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := runtime.NumGoroutine() - before; n > 4*8 {
			t.Errorf("%d goroutines", n)
		}
		start := time.Now()
		if _, err := p.TokenSource("patient").Token(); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if waited := time.Since(start); waited != 2*time.Minute {
			t.Errorf("a caller without a limit waited %v", waited)
		}
		closePool(t, p)
		close(hang)
	})
}

// The store is read, and hangs in Update.
type hangingUpdate struct {
	oauth.Store
	hang chan struct{}
}

func (s hangingUpdate) Update(context.Context, func(oauth.Session) (oauth.Session, error)) error {
	<-s.hang
	return errors.New("it hung")
}

func TestPoolHangingUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, stores := newPoolServer(), newPoolStores()
		hang := make(chan struct{})
		p, _ := newPool(t, srv, stores, func(c *oauth.PoolConfig) {
			c.Concurrent = 8
			c.Open = func(key string) (oauth.Store, error) {
				store, err := stores.open(key)
				return hangingUpdate{store, hang}, err
			}
		})
		before := runtime.NumGoroutine()
		for _, key := range users(1000) {
			stores.add(t, srv, key, -time.Hour)
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			if _, err := p.TokenSource(key).TokenContext(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			cancel()
		}
		if n := runtime.NumGoroutine() - before; n > 4*8 {
			t.Errorf("%d goroutines", n)
		}
		close(hang)
		closePool(t, p)
	})
}

// userStore makes up the session of a user when it is read.
type userStore struct {
	oauth.Store
	key string
}

func (s userStore) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	stored, err := s.Load(ctx)
	if err == nil {
		_, err = fn(stored)
	}
	return err
}

func (s userStore) Load(context.Context) (oauth.Session, error) {
	now := time.Now()
	return oauth.Session{
		Provider: "test", ClientID: "client", RefreshToken: oauth.Secret(strings.Repeat("r", 200) + s.key),
		AccessToken: oauth.Secret(strings.Repeat("a", 300) + s.key), TokenType: "Bearer",
		Obtained: now, Expiry: now.Add(12 * time.Hour), Created: now, Generation: 1, RefreshExpiry: now.Add(31 * 24 * time.Hour),
	}, nil
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// An idle user costs less than 1 KB, one in memory about 5 KB, and neither a goroutine.
func TestPoolMemory(t *testing.T) {
	const all, active = 20_000, 2_000
	p, _ := newPool(t, newPoolServer(), newPoolStores(), func(c *oauth.PoolConfig) {
		c.MaxActive = active
		c.Open = func(key string) (oauth.Store, error) { return userStore{key: key}, nil }
	})
	defer closePool(t, p)
	keys := users(all)
	sources := make([]*oauth.PoolSource, all)
	goroutines, start := runtime.NumGoroutine(), heap()
	use := func(from, to int) {
		for i := from; i < to; i++ {
			sources[i] = p.TokenSource(keys[i])
			if _, err := sources[i].Token(); err != nil {
				t.Fatal(err)
			}
		}
	}
	use(0, active)
	first := heap()
	use(active, all)
	second := heap()
	inMemory, idle := (int64(first)-int64(start))/active, (int64(second)-int64(first))/(all-active)
	t.Logf("%d bytes for a session in memory, %d for an idle one", inMemory, idle)
	if inMemory > 6<<10 || idle > 1<<10 {
		t.Errorf("%d bytes for a session in memory, %d for an idle one", inMemory, idle)
	}
	if n := runtime.NumGoroutine() - goroutines; n > 10 {
		t.Errorf("%d goroutines", n)
	}
	runtime.KeepAlive(sources)
}

// What is kept of an idle user whose refresh token was rejected.
func TestPoolMemoryOfRejectedTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const all = 2000
		srv := newPoolServer()
		p, _ := newPool(t, srv, newPoolStores(), func(c *oauth.PoolConfig) {
			c.Rate = 1e6
			c.Open = func(key string) (oauth.Store, error) { return userStore{oauth.NewMemoryStore(), key}, nil }
		})
		keys := users(all)
		use := func(from, to int) {
			for _, key := range keys[from:to] {
				src := p.TokenSource(key)
				tok, err := src.Token()
				if err != nil {
					t.Fatal(err)
				}
				src.Invalidate(tok)
				if _, err := src.Token(); err == nil {
					t.Fatal("the server has rejected the refresh token")
				}
			}
			idled(t)
			srv.set(func() { srv.arrivals, srv.keys, srv.lost = nil, nil, nil })
		}
		use(0, all/2)
		before := heap()
		use(all/2, all)
		idle := (int64(heap()) - int64(before)) / (all / 2)
		t.Logf("%d bytes", idle)
		if idle > 1<<10 {
			t.Errorf("%d bytes", idle)
		}
		closePool(t, p)
	})
}

func BenchmarkPoolToken(b *testing.B) {
	p, _ := newPool(b, newPoolServer(), newPoolStores(), func(c *oauth.PoolConfig) {
		c.Open = func(key string) (oauth.Store, error) { return userStore{key: key}, nil }
	})
	defer closePool(b, p)
	for name, n := range map[string]int{"one user": 1, "1000 users": 1000} {
		b.Run(name, func(b *testing.B) {
			keys := users(n)
			var next atomic.Uint64
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := p.TokenSource(keys[next.Add(1)%uint64(n)]).Token(); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// idled lets a session leave the memory.
func idled(t *testing.T) {
	t.Helper()
	time.Sleep(31 * time.Minute)
	synctest.Wait()
}

// A session that leaves the memory is read again, and what must not be forgotten is not.
func TestPoolForgetsNothing(t *testing.T) {
	for _, tt := range []struct {
		name string
		run  func(t *testing.T, srv *poolServer, stores *poolStores, p *oauth.Pool, src *oauth.PoolSource)
	}{
		{"a token", func(t *testing.T, srv *poolServer, stores *poolStores, p *oauth.Pool, src *oauth.PoolSource) {
			stores.add(t, srv, "u", 12*time.Hour)
			for range 3 {
				if tok, err := src.Token(); err != nil || tok.AccessToken != "at-u" {
					t.Fatal(tok, err)
				}
				idled(t)
			}
			if stores.opened != 4 || srv.count() != 0 { // add is one
				t.Errorf("opened %d times, %d requests", stores.opened, srv.count())
			}
		}},
		{"a rejected refresh token", func(t *testing.T, srv *poolServer, stores *poolStores, p *oauth.Pool, src *oauth.PoolSource) {
			stores.add(t, srv, "u", -time.Hour)
			srv.set(func() { clear(srv.issued) })
			for range 5 {
				_, err := src.Token()
				wantReason(t, err, oauth.ReasonRejected)
				idled(t)
			}
			if n := srv.count(); n != 1 {
				t.Errorf("it was sent %d times", n)
			}
			stores.add(t, srv, "u", 12*time.Hour) // another login
			if _, err := src.Token(); err != nil {
				t.Error(err)
			}
		}},
		{"a refresh token that somebody else has used since", func(t *testing.T, srv *poolServer, stores *poolStores, p *oauth.Pool, src *oauth.PoolSource) {
			stores.add(t, srv, "u", -time.Hour)
			srv.set(func() { clear(srv.issued) })
			_, err := src.Token()
			wantReason(t, err, oauth.ReasonRejected)
			idled(t)
			store, _ := stores.open("u")
			put(t, store, func(s *oauth.Session) { freshUntil(s, "other", time.Minute) })
			srv.set(func() { srv.issued["u/0"] = time.Now() })
			time.Sleep(time.Hour)
			if _, err := src.Token(); err != nil {
				t.Error(err)
			}
		}},
		{"a lost response", func(t *testing.T, srv *poolServer, stores *poolStores, p *oauth.Pool, src *oauth.PoolSource) {
			stores.add(t, srv, "u", 110*time.Minute) // stale
			srv.set(func() { srv.judge = func(int, string) (*http.Response, error) { return nil, errLine } })
			for range 2 {
				if _, err := src.Token(); err != nil {
					t.Error(err)
				}
				idled(t)
			}
			if n := srv.count(); n != 1 {
				t.Errorf("%d requests while there is something to lose", n)
			}
			time.Sleep(time.Hour)
			srv.set(func() { srv.judge = nil; clear(srv.issued) })
			_, err := src.Token()
			wantReason(t, err, oauth.ReasonOutcomeUnknown)
		}},
		{"a rejected access token", func(t *testing.T, srv *poolServer, stores *poolStores, p *oauth.Pool, src *oauth.PoolSource) {
			stores.add(t, srv, "u", 12*time.Hour)
			tok, err := src.Token()
			if err != nil {
				t.Fatal(err)
			}
			idled(t)
			src.Invalidate(nil)
			src.Invalidate(&oauth2.Token{AccessToken: "another"})
			src.Invalidate(tok)
			if next, err := src.Token(); err != nil || next.AccessToken == tok.AccessToken {
				t.Errorf("%v, %v", next, err)
			}
			if n := srv.count(); n != 1 {
				t.Errorf("%d requests", n)
			}
		}},
		{"limits", func(t *testing.T, srv *poolServer, stores *poolStores, p *oauth.Pool, src *oauth.PoolSource) {
			stores.add(t, srv, "u", 12*time.Hour)
			for range 20 {
				if _, err := src.Renew(t.Context()); err != nil {
					t.Fatal(err)
				}
				stores.add(t, srv, "other", 12*time.Hour) // MaxActive is 1: u would have to go
				if _, err := p.TokenSource("other").Token(); err != nil {
					t.Fatal(err)
				}
			}
			if n := srv.count(); n > 11 {
				t.Errorf("%d forced renewals", n)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv, stores := newPoolServer(), newPoolStores()
				p, _ := newPool(t, srv, stores, func(c *oauth.PoolConfig) { c.MaxActive = 1 })
				tt.run(t, srv, stores, p, p.TokenSource("u"))
				closePool(t, p)
			})
		})
	}
}

// A session that is not saved stays in memory until the store has it.
func TestPoolKeepsWhatIsNotSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, stores := newPoolServer(), newPoolStores()
		srv.reissue = srv.refreshLife + 1 // each renewal brings a new refresh token
		stores.add(t, srv, "u", -time.Hour)
		store := newFaultyStore()
		store.Store, _ = stores.open("u")
		store.failSave = errors.New("disk full")
		stores.stores["u"] = store
		p, log := newPool(t, srv, stores, func(c *oauth.PoolConfig) { c.MaxActive = 1 })
		if _, err := p.TokenSource("u").Token(); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			idled(t)
			stores.add(t, srv, "other", 12*time.Hour)
			if _, err := p.TokenSource("other").Token(); err != nil {
				t.Fatal(err)
			}
		}
		store.set(func(s *faultyStore) { s.failSave = nil })
		time.Sleep(2 * time.Minute)
		if s, err := store.Load(t.Context()); err != nil || s.RefreshToken != "u/1" {
			t.Errorf("%s, %v", s.RefreshToken.Reveal(), err)
		}
		saved := log.of(oauth.EventSaved)
		if len(saved) != 1 || saved[0].Key != "u" {
			t.Errorf("%+v", saved)
		}
		closePool(t, p)
		if len(srv.lost) > 0 {
			t.Error(srv.lost)
		}
	})
}

// closingStore counts its closes.
type closingStore struct {
	oauth.Store
	closed *atomic.Int32
}

func (s closingStore) Close() error { s.closed.Add(1); return nil }

func TestPoolDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, stores := newPoolServer(), newPoolStores()
		var closed atomic.Int32
		p, log := newPool(t, srv, stores, func(c *oauth.PoolConfig) {
			c.Open = func(key string) (oauth.Store, error) {
				s, err := stores.open(key)
				return closingStore{s, &closed}, err
			}
		})
		src := p.TokenSource("u")
		_, err := src.Token()
		wantReason(t, err, oauth.ReasonNoSession)
		srv.set(func() { srv.issued["u/0"] = time.Now() })
		if err := p.Do(t.Context(), "u", func(c *oauth.Client) error { return c.Import(t.Context(), "u/0") }); err != nil {
			t.Fatal(err)
		}
		if tok, err := src.Token(); err != nil || tok.AccessToken != "at-u-1" {
			t.Fatal(tok, err)
		}
		err = p.Do(t.Context(), "u", func(c *oauth.Client) error {
			s, err := c.Session(t.Context())
			if err != nil || s.RefreshToken != "u/0" {
				t.Errorf("%v", err)
			}
			return c.TokenSource().Close()
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := src.Renew(t.Context()); err != nil {
			t.Errorf("after somebody closed the source: %v", err)
		}
		err = p.Do(t.Context(), "u", func(c *oauth.Client) error { return c.Logout(t.Context()) })
		if !errors.Is(err, oauth.ErrNotRevoked) {
			t.Error(err)
		}
		_, err = src.Token()
		wantReason(t, err, oauth.ReasonNoSession)
		for _, e := range log.events {
			if e.Key != "u" {
				t.Errorf("%+v has no key", e)
			}
		}
		if err := p.Do(t.Context(), "u", func(*oauth.Client) error { return errLine }); !errors.Is(err, errLine) {
			t.Error(err)
		}
		stores.add(t, srv, "v", 12*time.Hour)
		if _, err := p.TokenSource("v").Token(); err != nil {
			t.Fatal(err)
		}
		closePool(t, p)
		closePool(t, p)
		if tok, err := p.TokenSource("v").Token(); err != nil || tok.AccessToken != "at-v" {
			t.Errorf("a valid token after Close: %v", err)
		}
		for _, key := range []string{"u", "w"} {
			if _, err := p.TokenSource(key).Token(); !errors.Is(err, oauth.ErrClosed) {
				t.Errorf("%s after Close: %v", key, err)
			}
		}
		if err := p.Do(t.Context(), "w", func(*oauth.Client) error { return nil }); !errors.Is(err, oauth.ErrClosed) {
			t.Error(err)
		}
		if n := closed.Load(); int(n) < 2 {
			t.Errorf("%d stores were closed", n)
		}
	})
}

// A session stays in memory, with its store open, while Do uses it.
func TestPoolKeepsWhatIsInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, stores := newPoolServer(), newPoolStores()
		var closed atomic.Int32
		p, _ := newPool(t, srv, stores, func(c *oauth.PoolConfig) {
			c.MaxActive = 1
			c.Open = func(key string) (oauth.Store, error) {
				s, err := stores.open(key)
				return closingStore{s, &closed}, err
			}
		})
		stores.add(t, srv, "u", 12*time.Hour)
		err := p.Do(t.Context(), "u", func(c *oauth.Client) error {
			opened := stores.opened
			for _, key := range users(20) {
				if _, err := p.TokenSource(key).Token(); !errors.Is(err, oauth.ErrNoSession) {
					t.Error(err)
				}
			}
			idled(t)
			if _, err := p.TokenSource("u").Token(); err != nil || stores.opened != opened+20 || closed.Load() != 20 {
				t.Errorf("%v, %d opened, %d closed", err, stores.opened-opened, closed.Load())
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		idled(t)
		if n := closed.Load(); n != 21 {
			t.Errorf("%d stores were closed, want all", n)
		}
		closePool(t, p)
	})
}

// Stores and keys that cannot be opened are tried again after a second.
func TestPoolOpenFails(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(c *oauth.PoolConfig, broken *atomic.Bool)
	}{
		{"store", func(c *oauth.PoolConfig, broken *atomic.Bool) {
			open := c.Open
			c.Open = func(key string) (oauth.Store, error) {
				if broken.Load() {
					return nil, errLine
				}
				return open(key)
			}
		}},
		{"key", func(c *oauth.PoolConfig, broken *atomic.Bool) {
			c.DPoP = func(string) (*dpop.Prover, error) {
				if broken.Load() {
					return nil, errLine
				}
				return nil, nil
			}
		}},
		{"load", func(c *oauth.PoolConfig, broken *atomic.Bool) {
			open := c.Open
			c.Open = func(key string) (oauth.Store, error) {
				s, err := open(key)
				store := newFaultyStore()
				store.Store = s
				if broken.Load() {
					store.failLoad = errLine
				}
				return store, err
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv, stores := newPoolServer(), newPoolStores()
				stores.add(t, srv, "u", 12*time.Hour)
				var broken atomic.Bool
				broken.Store(true)
				p, _ := newPool(t, srv, stores, func(c *oauth.PoolConfig) { tt.change(c, &broken) })
				defer closePool(t, p)
				src := p.TokenSource("u")
				if _, err := src.Token(); !errors.Is(err, errLine) {
					t.Errorf("%v", err)
				}
				if _, err := src.Renew(t.Context()); !errors.Is(err, errLine) {
					t.Errorf("%v", err)
				}
				broken.Store(false)
				time.Sleep(time.Second)
				if tok, err := src.Token(); err != nil || tok.AccessToken != "at-u" {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

// A login mends a store that could not be read.
func TestPoolLoginAfterABrokenSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, stores := newPoolServer(), newPoolStores()
		store := newFaultyStore()
		store.failLoad = errLine
		stores.stores["u"] = store
		p, _ := newPool(t, srv, stores)
		defer closePool(t, p)
		if _, err := p.TokenSource("u").Token(); !errors.Is(err, errLine) {
			t.Fatal(err)
		}
		srv.set(func() { srv.issued["u/0"] = time.Now() })
		if err := p.Do(t.Context(), "u", func(c *oauth.Client) error { return c.Import(t.Context(), "u/0") }); err != nil {
			t.Fatal(err)
		}
		if _, err := p.TokenSource("u").Token(); err != nil {
			t.Error(err)
		}
	})
}

// Users can have keys of their own.
func TestPoolKeyPerUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, stores := newPoolServer(), newPoolStores()
		srv.nonce = "n-1"
		provers := map[string]*dpop.Prover{"a": newProver(t), "b": newProver(t)}
		p, _ := newPool(t, srv, stores, func(c *oauth.PoolConfig) {
			c.DPoP = func(key string) (*dpop.Prover, error) { return provers[key], nil }
			c.Config.ClientSecret, c.Config.Provider.AuthMethod = "secret", oauth.AuthClientSecretPost
		})
		defer closePool(t, p)
		for key, prover := range provers {
			stores.add(t, srv, key, -time.Hour)
			store, _ := stores.open(key)
			put(t, store, func(s *oauth.Session) { s.KeyThumbprint, _ = prover.Thumbprint(5) })
			if _, err := p.TokenSource(key).Token(); err != nil {
				t.Error(err)
			}
		}
		if n := srv.count(); n != 3 {
			t.Errorf("%d requests", n)
		}
	})
}

// The HTTP client renews as one of a client does.
func TestPoolHTTPClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, stores := newPoolServer(), newPoolStores()
		stores.add(t, srv, "u", 12*time.Hour)
		var seen []string
		resource := roundTripper(func(req *http.Request) (*http.Response, error) {
			if req.URL.Host == "as.example" {
				return srv.RoundTrip(req)
			}
			seen = append(seen, req.Header.Get("Authorization"))
			if len(seen) == 1 {
				return answer(401, "", "WWW-Authenticate", `Bearer error="invalid_token"`), nil
			}
			return answer(200, ""), nil
		})
		p, _ := newPool(t, srv, stores, func(c *oauth.PoolConfig) { c.Config.HTTPClient = &http.Client{Transport: resource} })
		defer closePool(t, p)
		client := p.HTTPClient("u")
		for range 2 {
			resp, err := client.Get("https://api.example/")
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			idled(t)
		}
		if fmt.Sprint(seen) != "[Bearer at-u Bearer at-u-1 Bearer at-u-1]" {
			t.Error(seen)
		}
		if _, err := p.HTTPClient("nobody").Post("https://api.example/", "text/plain", strings.NewReader("x")); !errors.Is(err, oauth.ErrNoSession) {
			t.Error(err)
		}
		md, err := p.TokenSource("u").GetRequestMetadata(t.Context())
		if err != nil || md["authorization"] != "Bearer at-u-1" || !p.TokenSource("u").RequireTransportSecurity() {
			t.Error(md, err)
		}
		if _, err := p.TokenSource("nobody").GetRequestMetadata(t.Context()); !errors.Is(err, oauth.ErrNoSession) {
			t.Error(err)
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

type idleCloser struct {
	roundTripper
	closed int
}

func (c *idleCloser) CloseIdleConnections() { c.closed++ }

func TestCloseIdleConnections(t *testing.T) {
	base := &idleCloser{}
	cfg := oauth.Config{Provider: testProvider(), ClientID: "client", HTTPClient: &http.Client{Transport: base}}
	p, err := oauth.NewPool(oauth.PoolConfig{Config: cfg, Open: newPoolStores().open})
	if err != nil {
		t.Fatal(err)
	}
	p.HTTPClient("u").CloseIdleConnections()
	cfg.Store = oauth.NewMemoryStore()
	c, err := oauth.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.HTTPClient().CloseIdleConnections()
	if base.closed != 2 {
		t.Errorf("called %d times, want one for the client of the pool and one for the other", base.closed)
	}
}

func TestPoolConfig(t *testing.T) {
	good := oauth.PoolConfig{
		Config: oauth.Config{Provider: testProvider(), ClientID: "client"},
		Open:   newPoolStores().open,
	}
	for _, tt := range []struct {
		want   string
		change func(*oauth.PoolConfig)
	}{
		{"", func(*oauth.PoolConfig) {}},
		{"Config.Store is set", func(c *oauth.PoolConfig) { c.Config.Store = oauth.NewMemoryStore() }},
		{"Open", func(c *oauth.PoolConfig) { c.Open = nil }},
		{"Rate", func(c *oauth.PoolConfig) { c.Rate = -1 }},
		{"Rate", func(c *oauth.PoolConfig) { c.Rate = 1e-9 }},
		{"Concurrent", func(c *oauth.PoolConfig) { c.Concurrent = -1 }},
		{"Idle", func(c *oauth.PoolConfig) { c.Idle = -1 }},
		{"MaxActive", func(c *oauth.PoolConfig) { c.MaxActive = -1 }},
		{"ClientID", func(c *oauth.PoolConfig) { c.Config.ClientID = "" }},
		{"Provider.ReissueBefore", func(c *oauth.PoolConfig) { c.Config.Provider.ReissueBefore = -1 }},
	} {
		cfg := good
		tt.change(&cfg)
		p, err := oauth.NewPool(cfg)
		switch {
		case tt.want == "":
			if err != nil {
				t.Error(err)
			}
			for _, format := range []string{"%v", "%+v", "%#v", "%s", "%d"} {
				if s := fmt.Sprintf(format, p); s != "oauth.Pool(test)" {
					t.Errorf("%s: %s", format, s)
				}
				if s := fmt.Sprintf(format, p.TokenSource("u")); s != `oauth.PoolSource("u")` {
					t.Errorf("%s: %s", format, s)
				}
				if s := fmt.Sprintf(format, p.HTTPClient("u").Transport); s != `oauth.PoolTransport("u")` {
					t.Errorf("%s: %s", format, s)
				}
			}
		case err == nil || !strings.Contains(err.Error(), "Config."+tt.want):
			t.Errorf("%v, want one about %s", err, tt.want)
		}
	}
}

func TestPoolAfterMuchDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, stores := newPoolServer(), newPoolStores()
		keys := users(2000)
		for _, key := range append(keys, "alice") {
			stores.add(t, srv, key, 0)
		}
		p, _ := newPool(t, srv, stores, func(c *oauth.PoolConfig) {
			c.Rate, c.Config.RenewTimeout, c.Config.RequestTimeout = 1, 3*time.Second, 3*time.Second
		})
		ctx, cancel := context.WithCancel(t.Context())
		for _, key := range keys[:200] {
			go func() {
				for ctx.Err() == nil {
					_, _ = p.TokenSource(key).TokenContext(ctx)
					_ = sleepFor(ctx, time.Second)
				}
			}()
		}
		time.Sleep(time.Hour)
		cancel()
		time.Sleep(10 * time.Minute) // nobody asks for anything
		before := srv.count()
		start := time.Now()
		var err error
		for time.Since(start) < 10*time.Minute {
			if _, err = p.TokenSource("alice").Token(); err == nil {
				break
			}
			time.Sleep(time.Second)
		}
		if err != nil {
			t.Errorf("10 to 20 minutes after the last of the others, and %d requests in the hour before: %v (%d requests sent)", before, err, srv.count()-before)
		}
		closePool(t, p)
	})
}

func sleepFor(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
	return ctx.Err()
}

// A renewal that waits for its turn in vain takes none from the others.
func TestPoolLowRate(t *testing.T) {
	for _, tt := range []struct {
		rate    float64
		timeout time.Duration // Config.RenewTimeout; 0: 2 minutes
	}{{0.01, 0}, {0.1, 0}, {1, 4 * time.Second}} {
		t.Run(fmt.Sprint(tt.rate, " ", tt.timeout), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv, stores := newPoolServer(), newPoolStores()
				keys := users(200)
				for _, key := range keys {
					stores.add(t, srv, key, 0)
				}
				p, _ := newPool(t, srv, stores, func(c *oauth.PoolConfig) {
					c.Rate, c.Config.RenewTimeout, c.Config.RequestTimeout = tt.rate, tt.timeout, min(tt.timeout, 30*time.Second)
				})
				ctx, cancel := context.WithCancel(t.Context())
				for _, key := range keys { // who wait for a token, and ask again
					go func() {
						for ctx.Err() == nil {
							_, _ = p.TokenSource(key).TokenContext(ctx)
							_ = sleepFor(ctx, time.Second)
						}
					}()
				}
				const want = 100.0 // requests
				time.Sleep(time.Duration(want / tt.rate * float64(time.Second)))
				n := srv.count()
				t.Logf("%d requests in the time of %v", n, want)
				if float64(n) < want*3/4 {
					t.Errorf("%d requests in the time of %v", n, want)
				}
				cancel()
				_ = p.Close()
			})
		})
	}
}

func TestNewPoolRejectsRatesThatNeverWork(t *testing.T) {
	for _, tt := range []struct {
		rate    float64
		timeout time.Duration
		ok      bool
	}{{0.001, 0, false}, {0.01, 0, true}, {0.001, 20 * time.Minute, true}, {1, time.Second, true}, {0, 10 * time.Millisecond, false}} {
		cfg := oauth.PoolConfig{
			Config: oauth.Config{Provider: testProvider(), ClientID: "client", RenewTimeout: tt.timeout}, Rate: tt.rate,
			Open: func(string) (oauth.Store, error) { return oauth.NewMemoryStore(), nil },
		}
		if p, err := oauth.NewPool(cfg); (err == nil) != tt.ok {
			t.Errorf("%v a second, RenewTimeout %v: %v", tt.rate, tt.timeout, err)
		} else if p != nil {
			closePool(t, p)
		}
	}
}

// An error of the store is shared for one second, also while somebody is in Do.
func TestPoolReadsAgainDuringDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, stores := newPoolServer(), newPoolStores()
		stores.add(t, srv, "u", 12*time.Hour)
		store := newFaultyStore()
		store.Store = stores.stores["u"]
		store.set(func(s *faultyStore) { s.failLoad = errLine })
		p, _ := newPool(t, srv, stores, func(c *oauth.PoolConfig) {
			c.Open = func(string) (oauth.Store, error) { return store, nil }
		})
		begun, end := make(chan struct{}), make(chan struct{})
		go func() {
			_ = p.Do(t.Context(), "u", func(*oauth.Client) error { close(begun); <-end; return nil }) // a login: the user is at lunch
		}()
		<-begun
		store.set(func(s *faultyStore) { s.failLoad = nil }) // it was a hiccup
		time.Sleep(time.Hour)
		if _, err := p.TokenSource("u").Token(); err != nil {
			t.Errorf("an hour after the store is back: %v", err)
		}
		close(end)
		synctest.Wait()
		closePool(t, p)
	})
}

// What a resource has rejected is kept until it has expired.
func TestPoolForgetsRejectedTokens(t *testing.T) {
	for _, tt := range []struct {
		name             string
		used, invalidate bool
	}{{"never used", false, true}, {"used once", true, true}, {"used once and not rejected", true, false}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const all = 8_000
				srv := newPoolServer()
				p, _ := newPool(t, srv, newPoolStores(), func(c *oauth.PoolConfig) {
					c.Rate = 1e6
					c.Config.Observer = nil
					c.Open = func(key string) (oauth.Store, error) { return userStore{oauth.NewMemoryStore(), key}, nil }
				})
				before := heap()
				for _, key := range users(all) {
					src := p.TokenSource(key)
					tok := &oauth2.Token{AccessToken: "at-" + key}
					if tt.used {
						var err error
						if tok, err = src.Token(); err != nil {
							t.Fatal(err)
						}
					}
					if tt.invalidate {
						src.Invalidate(tok)
					}
				}
				time.Sleep(365 * day) // the tokens have expired long ago
				synctest.Wait()
				srv.set(func() { srv.arrivals, srv.keys, srv.lost = nil, nil, nil })
				if each := (int64(heap()) - int64(before)) / all; each > 100 {
					t.Errorf("%d bytes for each key", each)
				}
				runtime.KeepAlive(p)
				closePool(t, p)
			})
		})
	}
}

// Reads that never return do not take the places of others for good.
func TestPoolAfterReadsThatNeverReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		forever := make(chan struct{})
		defer close(forever)
		const concurrent = 8
		var opened atomic.Int32
		p, err := oauth.NewPool(oauth.PoolConfig{
			Config: oauth.Config{Provider: testProvider(), ClientID: "client", HTTPClient: &http.Client{Transport: newFakeServer(rotate)}},
			Open: func(string) (oauth.Store, error) {
				s := &stuckStore{Store: oauth.NewMemoryStore(), forever: forever}
				s.stuck.Store(opened.Add(1) <= concurrent)
				return s, nil
			},
			Concurrent: concurrent,
		})
		if err != nil {
			t.Fatal(err)
		}
		for i := range concurrent {
			go func() { _, _ = p.TokenSource(strconv.Itoa(i)).Token() }()
		}
		time.Sleep(time.Minute)
		if _, err := p.TokenSource("other").Token(); !errors.Is(err, oauth.ErrNoSession) {
			t.Errorf("%v; want that there is no session", err)
		}
		if err := p.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
}

// The time of Close does not grow with the number of sessions that cannot be saved.
func TestPoolCloseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const concurrent, sessions = 8, 200
		forever := make(chan struct{})
		defer close(forever)
		srv := newFakeServer(rotate)
		srv.began = make(chan struct{}, sessions)
		var mu sync.Mutex
		var stores []*stuckStore
		all := func(change func(*stuckStore)) {
			mu.Lock()
			defer mu.Unlock()
			for _, s := range stores {
				change(s)
			}
		}
		p, err := oauth.NewPool(oauth.PoolConfig{
			Config: oauth.Config{Provider: testProvider(), ClientID: "client", HTTPClient: &http.Client{Transport: srv}},
			Open: func(string) (oauth.Store, error) {
				s := &stuckStore{Store: oauth.NewMemoryStore(), forever: forever}
				mu.Lock()
				defer mu.Unlock()
				stores = append(stores, s)
				return s, nil
			},
			Concurrent: concurrent,
			Rate:       1000,
		})
		if err != nil {
			t.Fatal(err)
		}
		for i := range sessions {
			if err := p.Do(t.Context(), strconv.Itoa(i), func(c *oauth.Client) error { return c.Import(t.Context(), "rt-0") }); err != nil {
				t.Fatal(err)
			}
		}
		all(func(s *stuckStore) { s.fails.Store(true) })
		for i := range sessions {
			_, _ = p.TokenSource(strconv.Itoa(i)).Token()
		}
		all(func(s *stuckStore) { s.stuck.Store(true) })
		start := time.Now()
		err = p.Close()
		var unsaved *oauth.PersistError
		if took := time.Since(start); took > 4*time.Minute || !errors.As(err, &unsaved) {
			t.Errorf("Close took %v and returned %.200v", took, err)
		}
		if n := strings.Count(err.Error(), "could not be saved"); n != sessions {
			t.Errorf("%d of %d sessions are in the error: %.300v", n, sessions, err)
		}
	})
}
