//go:build linux

package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ycauth/ycauth-go/internal/pgtest"
	"github.com/ycauth/ycauth-go/oauth"
)

// printFigures measures everything in one run.
func printFigures(ctx context.Context, w io.Writer, outage int, durable bool) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Minute)
	defer cancel()
	db, err := pgtest.Start(ctx, durable)
	if err != nil {
		return err
	}
	defer db.Close()
	fmt.Fprintf(w, "%d CPUs, load average %s, PostgreSQL on the same machine, fsync %t\n\n", runtime.NumCPU(), load(), durable)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(figure, ours, beside string) { fmt.Fprintf(table, "%s\t%s\t%s\n", figure, ours, beside) }
	row("figure", "Pool and pgstore", "beside it")
	err = errors.Join(
		throughput(ctx, db.URL(), row), nonces(ctx, row), idle(ctx, row), statements(ctx, db.URL(), row),
	)
	if err == nil && outage > 0 {
		err = afterOutage(ctx, db.URL(), outage, row)
	}
	return errors.Join(err, table.Flush())
}

func load() string {
	b, _ := os.ReadFile("/proc/loadavg")
	before, _, _ := strings.Cut(string(b), " ")
	return before
}

// config is that of the pools and clients here.
func config(s *server, transport http.RoundTripper) oauth.Config {
	return oauth.Config{
		Provider: provider(s.url()), ClientID: "client", DPoP: prover(), HTTPClient: &http.Client{Transport: transport},
	}
}

func newTransport() *http.Transport {
	return &http.Transport{MaxIdleConnsPerHost: 2000, IdleConnTimeout: 10 * time.Second}
}

// aSession is one that the server knows, with an access token that was issued 12 hours
// ago less what is left.
func aSession(s *server, i int, left time.Duration) oauth.Session {
	now := time.Now()
	thumbprint, err := prover().Thumbprint(crypto.SHA256)
	if err != nil {
		panic(err)
	}
	return oauth.Session{
		Provider: "test", ClientID: "client", RefreshToken: oauth.Secret(refreshToken(i, 0)), AccessToken: oauth.Secret(fmt.Sprint("at.", i)),
		TokenType: "Bearer", TokenOrigin: s.url(), KeyThumbprint: thumbprint,
		Obtained: now.Add(left - 12*time.Hour), Expiry: now.Add(left), Created: now, Generation: 1,
	}
}

// stored puts sessions into a store each.
func stored(ctx context.Context, s *server, left time.Duration, open func(string) (oauth.Store, error)) error {
	return inParallel(16, len(s.families), func(i int) error {
		store, err := open(key(i))
		if err != nil {
			return err
		}
		return store.Update(ctx, func(oauth.Session) (oauth.Session, error) { return aSession(s, i, left), nil })
	})
}

// --- renewals per second ----------------------------------------------------------

const measured = 15 * time.Second

func throughput(ctx context.Context, url string, row func(figure, ours, beside string)) error {
	const conns, sessions = 8, 4000
	measure := func(callers int, open func(*pgxpool.Pool) (func(string) (oauth.Store, error), error)) (float64, error) {
		s, err := startServer(sessions, 12*time.Hour, 200*time.Millisecond)
		if err != nil {
			return 0, err
		}
		defer s.close()
		db, err := openDatabase(ctx, url, conns)
		if err != nil {
			return 0, err
		}
		defer db.Close()
		openStore, err := open(db)
		if err != nil {
			return 0, err
		}
		if err := stored(ctx, s, time.Hour, openStore); err != nil {
			return 0, err
		}
		transport := newTransport()
		defer transport.CloseIdleConnections()
		pool, err := oauth.NewPool(oauth.PoolConfig{Config: config(s, transport), Open: openStore, Rate: 1e5, Concurrent: callers})
		if err != nil {
			return 0, err
		}
		within, cancel := context.WithTimeout(ctx, measured)
		defer cancel()
		var next atomic.Int64
		var wg sync.WaitGroup
		start := time.Now()
		for range callers {
			wg.Go(func() {
				for within.Err() == nil {
					_, _ = pool.TokenSource(key(int(next.Add(1)) % sessions)).Renew(within)
				}
			})
		}
		<-within.Done()
		n, took := s.renewals(), time.Since(start)
		wg.Wait()
		return float64(n) / took.Seconds(), pool.Close()
	}
	ours, err := measure(1000, func(db *pgxpool.Pool) (func(string) (oauth.Store, error), error) {
		set, err := openSet(db, time.Minute)
		if err != nil {
			return nil, err
		}
		return func(key string) (oauth.Store, error) { return set.Store(key), nil }, set.Migrate(ctx)
	})
	if err != nil {
		return err
	}
	theirs, err := measure(64, func(db *pgxpool.Pool) (func(string) (oauth.Store, error), error) {
		_, err := db.Exec(ctx, `CREATE TABLE locked (key text PRIMARY KEY, session bytea)`)
		return func(key string) (oauth.Store, error) { return locked{db, key}, nil }, err
	})
	if err != nil {
		return err
	}
	row("renewals a second, 8 connections, a server of 200 ms", fmt.Sprintf("%.0f", ours), fmt.Sprintf("%.0f with SELECT … FOR UPDATE across the request", theirs))
	return nil
}

// locked is a store whose lock is a transaction.
type locked struct {
	db  *pgxpool.Pool
	key string
}

func (l locked) Load(ctx context.Context) (oauth.Session, error) {
	var b []byte
	err := l.db.QueryRow(ctx, `SELECT session FROM locked WHERE key = $1`, l.key).Scan(&b)
	if errors.Is(err, pgx.ErrNoRows) {
		return oauth.Session{}, oauth.ErrNoSession
	}
	if err != nil {
		return oauth.Session{}, err
	}
	return oauth.DecodeSession(b)
}

func (l locked) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	tx, err := l.db.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	var b []byte
	err = tx.QueryRow(ctx, `SELECT session FROM locked WHERE key = $1 FOR UPDATE`, l.key).Scan(&b)
	var s oauth.Session
	if err == nil {
		s, err = oauth.DecodeSession(b)
	}
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	next, err := fn(s)
	if err != nil {
		return err
	}
	if b, err = next.Encode(); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	const save = `INSERT INTO locked VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET session = $2`
	if _, err := tx.Exec(ctx, save, l.key, b); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// --- requests per renewal ---------------------------------------------------------

func nonces(ctx context.Context, row func(figure, ours, beside string)) error {
	const sessions = 1000
	measure := func(renew func(cfg oauth.Config, stores map[string]oauth.Store) error) (float64, error) {
		s, err := startServer(sessions, 12*time.Hour, 0)
		if err != nil {
			return 0, err
		}
		defer s.close()
		s.nonce = "a-nonce"
		transport := newTransport()
		defer transport.CloseIdleConnections()
		stores := make(map[string]oauth.Store, sessions)
		for i := range sessions {
			stores[key(i)] = oauth.NewMemoryStore()
		}
		err = stored(ctx, s, -time.Hour, func(key string) (oauth.Store, error) { return stores[key], nil })
		if err != nil {
			return 0, err
		}
		err = renew(config(s, transport), stores)
		return float64(s.requests.Load()) / float64(s.renewals()), err
	}
	ours, err := measure(func(cfg oauth.Config, stores map[string]oauth.Store) error {
		pool, err := oauth.NewPool(oauth.PoolConfig{Config: cfg, Open: func(key string) (oauth.Store, error) { return stores[key], nil }, Rate: 1e5})
		if err != nil {
			return err
		}
		return errors.Join(inParallel(16, sessions, func(i int) error {
			_, err := pool.TokenSource(key(i)).TokenContext(ctx)
			return err
		}), pool.Close())
	})
	if err != nil {
		return err
	}
	theirs, err := measure(func(cfg oauth.Config, stores map[string]oauth.Store) error {
		return inParallel(16, sessions, func(i int) error {
			cfg := cfg
			cfg.Store = stores[key(i)]
			client, err := oauth.New(cfg)
			if err != nil {
				return err
			}
			_, err = client.TokenSource().TokenContext(ctx)
			return errors.Join(err, client.TokenSource().Close())
		})
	})
	if err != nil {
		return err
	}
	row(fmt.Sprintf("requests per renewal, a server that demands nonces, %d users", sessions), fmt.Sprintf("%.3f", ours), fmt.Sprintf("%.3f with a Client for each user", theirs))
	return nil
}

// --- memory -----------------------------------------------------------------------

// made is a store that takes no memory.
type made struct {
	s *server
	i int
}

func (m made) Load(context.Context) (oauth.Session, error) {
	return aSession(m.s, m.i, 11*time.Hour), nil
}

func (m made) Update(context.Context, func(oauth.Session) (oauth.Session, error)) error {
	return errors.New("nothing is renewed here")
}

func idle(ctx context.Context, row func(figure, ours, beside string)) error {
	const users = 20_000
	s, err := startServer(users, 12*time.Hour, 0)
	if err != nil {
		return err
	}
	defer s.close()
	cfg := config(s, http.DefaultTransport)

	before := heap()
	pool, err := oauth.NewPool(oauth.PoolConfig{
		Config: cfg, Idle: 15 * time.Second, MaxActive: users,
		Open: func(key string) (oauth.Store, error) {
			i, _, err := parseToken(key + ".0")
			return made{s, i}, err
		},
	})
	if err != nil {
		return err
	}
	sources := make([]*oauth.PoolSource, users) // what a program keeps
	err = inParallel(8, users, func(i int) error {
		sources[i] = pool.TokenSource(key(i))
		_, err := sources[i].TokenContext(ctx)
		return err
	})
	if err != nil {
		return err
	}
	used := heap() - before
	after := used
	for range 60 { // until they have left
		pause(ctx, time.Second)
		if after = heap() - before; after < users*150 {
			break
		}
	}
	runtime.KeepAlive(sources)
	if err := pool.Close(); err != nil {
		return err
	}
	sources = nil

	before = heap()
	clients := make([]*oauth.Client, users)
	err = inParallel(8, users, func(i int) error {
		cfg := cfg
		cfg.Store = made{s, i}
		var err error
		if clients[i], err = oauth.New(cfg); err != nil {
			return err
		}
		_, err = clients[i].TokenSource().TokenContext(ctx)
		return err
	})
	if err != nil {
		return err
	}
	theirs := heap() - before
	runtime.KeepAlive(clients)
	row(fmt.Sprintf("bytes per idle user, of %d (the source that the program keeps included)", users), strconv.FormatInt(after/users, 10),
		fmt.Sprintf("%d with a Client for each user", theirs/users))
	row("bytes per user in memory, used within PoolConfig.Idle", strconv.FormatInt(used/users, 10), "")
	return nil
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// --- statements -------------------------------------------------------------------

// counter counts statements as pgx sends them.
type counter struct{ atomic.Int64 }

func (c *counter) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	c.Add(1)
	return ctx
}

func (c *counter) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func statements(ctx context.Context, url string, row func(figure, ours, beside string)) error {
	const sessions = 500
	s, err := startServer(sessions, 12*time.Hour, 0)
	if err != nil {
		return err
	}
	defer s.close()
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return err
	}
	var count counter
	cfg.ConnConfig.Tracer = &count
	db, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer db.Close()
	set, err := openSet(db, time.Minute)
	if err != nil {
		return err
	}
	open := func(key string) (oauth.Store, error) { return set.Store(key), nil }
	if err := errors.Join(set.Migrate(ctx), stored(ctx, s, time.Hour, open)); err != nil {
		return err
	}
	pool, err := oauth.NewPool(oauth.PoolConfig{Config: config(s, http.DefaultTransport), Open: open, Rate: 1e5})
	if err != nil {
		return err
	}
	perRenewal := func() (float64, error) {
		before := count.Load()
		err := inParallel(8, sessions, func(i int) error {
			_, err := pool.TokenSource(key(i)).Renew(ctx)
			return err
		})
		return float64(count.Load()-before) / sessions, err
	}
	cold, err1 := perRenewal()
	warm, err2 := perRenewal()
	if err := errors.Join(err1, err2, pool.Close()); err != nil {
		return err
	}
	row("database statements per renewal", fmt.Sprintf("%.2f", warm), "")
	row("database statements per renewal of a session that was not in memory", fmt.Sprintf("%.2f", cold), "")
	return nil
}

// --- after an outage --------------------------------------------------------------

// afterOutage renews sessions that are all stale, by 4 processes of 50 requests a second each.
func afterOutage(ctx context.Context, url string, sessions int, row func(figure, ours, beside string)) error {
	const replicas, rate = 4, 50
	s, err := startServer(sessions, 12*time.Hour, 200*time.Millisecond)
	if err != nil {
		return err
	}
	defer s.close()
	db, err := openDatabase(ctx, url, 16)
	if err != nil {
		return err
	}
	defer db.Close()
	set, err := openSet(db, time.Minute)
	if err != nil {
		return err
	}
	if err := set.Migrate(ctx); err != nil {
		return err
	}
	if err := stored(ctx, s, time.Hour, func(key string) (oauth.Store, error) { return set.Store(key), nil }); err != nil {
		return err
	}
	most := time.Duration(sessions)*time.Second/(replicas*rate)*2 + time.Minute
	places := make([]place, replicas)
	defer func() {
		for i := range places {
			if p := &places[i]; p.cmd != nil && p.cmd.Process != nil {
				_ = p.cmd.Process.Kill()
				<-p.ended
			}
		}
	}()
	start := time.Now()
	for i := range places {
		err := places[i].start(part{
			Name: fmt.Sprintf("p%d.1", i+1), Place: i, Server: s.url(), Database: url, Sessions: sessions, Concurrency: 64, Conns: 8,
			Lease: time.Minute, Until: start.Add(most), Outage: true, Replicas: replicas, Rate: rate,
		})
		if err != nil {
			return err
		}
	}
	deadline, took := start.Add(most), time.Duration(0)
	for time.Now().Before(deadline) && ctx.Err() == nil {
		pause(ctx, time.Second)
		if s.renewals() == int64(sessions) {
			took = time.Since(start)
			break
		}
	}
	if took == 0 {
		return fmt.Errorf("%d of %d sessions were renewed in %v", s.renewals(), sessions, most)
	}
	var callers []string
	for i := range places {
		<-places[i].ended
		if err := *places[i].err; err != nil {
			return fmt.Errorf("%w: %s", err, places[i].output)
		}
		callers = append(callers, strings.TrimSpace(places[i].output.String()))
	}
	row(fmt.Sprintf("%d stale sessions renewed after an outage, %d processes, %d requests a second each", sessions, replicas, rate),
		fmt.Sprintf("%v, %d requests, %d in the busiest second", took.Round(time.Second), s.requests.Load(), s.busiest()), "callers: "+strings.Join(callers, "; "))
	return nil
}

// afterOutage asks for the token of each session of a replica, and waits until all are renewed.
func (r *replica) afterOutage(ctx context.Context) error {
	mine := r.mine()
	var mu sync.Mutex
	var longest time.Duration
	err := inParallel(32, len(mine), func(i int) error {
		start := time.Now()
		_, err := r.pool.TokenSource(key(mine[i])).TokenContext(ctx)
		mu.Lock()
		defer mu.Unlock()
		longest = max(longest, time.Since(start))
		return err
	})
	if err != nil {
		return err
	}
	fmt.Printf("waited %v at most\n", longest.Round(time.Millisecond))
	select {
	case <-r.renewed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *replica) mine() (sessions []int) {
	for i := r.Place; i < r.Sessions; i += r.Replicas {
		sessions = append(sessions, i)
	}
	return sessions
}

// observer closes r.renewed when all sessions of the replica are renewed.
func (r *replica) observer() func(oauth.Event) {
	r.renewed = make(chan struct{})
	left := atomic.Int64{}
	left.Store(int64(len(r.mine())))
	return func(e oauth.Event) {
		if e.Kind == oauth.EventRenewed && left.Add(-1) == 0 {
			close(r.renewed)
		}
	}
}
