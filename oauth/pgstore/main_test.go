//go:build unix

package pgstore

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"github.com/ycauth/ycauth-go/internal/pgtest"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/storetest"
)

// server is the one of this test binary, started by the first test that needs it.
var server struct {
	once    sync.Once
	missing string
	pg      *pgtest.Server
	direct  string // addresses
	bouncer string
	err     error
}

// addresses returns those of the database and of pgbouncer before it.
func addresses(t testing.TB) (direct, bouncer string) {
	t.Helper()
	server.once.Do(func() {
		if server.missing = pgtest.Missing(); server.missing != "" {
			return
		}
		ctx := context.Background()
		if server.pg, server.err = pgtest.Start(ctx, false); server.err != nil {
			return
		}
		server.direct = server.pg.URL()
		server.bouncer, server.err = server.pg.StartBouncer(ctx)
	})
	switch {
	case server.err != nil:
		t.Fatal(server.err)
	case server.missing != "" && os.Getenv("CI") == "true":
		t.Fatal(server.missing)
	case server.missing != "":
		t.Skip(server.missing)
	}
	return server.direct, server.bouncer
}

func TestMain(m *testing.M) {
	storetest.Child(direct, pooled)
	status := m.Run()
	if server.pg != nil {
		if err := server.pg.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
	}
	if err := goleak.Find(); status == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

// aead returns a key, which is always the same for the same number.
func aead(number byte) cipher.AEAD {
	block, err := aes.NewCipher([]byte(strings.Repeat(string(rune(number)), 32)))
	if err != nil {
		panic(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return gcm
}

func oneKey() Keys { return Keys{ByVersion: map[uint32]cipher.AEAD{1: aead(1)}} }

// A place is where the processes of package storetest find a session.
type place struct {
	URL, Table, Key string
}

// leases of a place are short, because processes are stopped for longer.
const shortLease = 2 * time.Second

func openPlace(text string) (oauth.Store, error) {
	var p place
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return nil, err
	}
	pool, err := newPool(p.URL, 4)
	if err != nil {
		return nil, err
	}
	set, err := New(pool, Options{Table: p.Table, Keys: oneKey(), Lease: shortLease})
	if err != nil {
		pool.Close()
		return nil, err
	}
	return &closing{set.Store(p.Key), pool}, nil
}

func newPool(url string, most int32) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.MaxConns = most
	return pgxpool.NewWithConfig(context.Background(), config)
}

type closing struct {
	*Store
	pool *pgxpool.Pool
}

func (c *closing) Close() error {
	c.pool.Close()
	return nil
}

var tables atomic.Int64

// newTable returns the name of a table that nobody has.
func newTable() string { return fmt.Sprintf("Sessions %d", tables.Add(1)) }

// newSet returns a set with a table of its own, and the pool that it is on.
func newSet(t testing.TB, url string, opts Options) (*Set, *pgxpool.Pool) {
	t.Helper()
	pool, err := newPool(url, 8)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if opts.Table == "" {
		opts.Table = newTable()
	}
	if opts.Keys.ByVersion == nil && !opts.InTheClear {
		opts.Keys = oneKey()
	}
	set, err := New(pool, opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := set.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return set, pool
}

func newPlace(t *testing.T, url string) string {
	t.Helper()
	table := newTable()
	newSet(t, url, Options{Table: table})
	text, err := json.Marshal(place{url, table, "user 1"})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// session returns one that was renewed from generation 1.
func session(generation uint64) oauth.Session {
	return oauth.Session{
		Provider: "auth.example", ClientID: "client", Generation: generation, TokenType: "Bearer",
		RefreshToken: oauth.Secret(fmt.Sprintf("rt1.SECRET.%d", generation)),
		AccessToken:  oauth.Secret(fmt.Sprintf("t1.SECRET.%d", generation)),
		Scopes:       []string{"openid", "offline_access"},
	}
}

func put(t testing.TB, s oauth.Store, next oauth.Session) {
	t.Helper()
	err := s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) { return next, nil })
	if err != nil {
		t.Fatal(err)
	}
}

// expect checks the generation that is stored; 0 stands for none.
func expect(t testing.TB, s oauth.Store, generation uint64) {
	t.Helper()
	got, err := s.Load(t.Context())
	if generation == 0 {
		if err != oauth.ErrNoSession { //nolint:errorlint // as it is
			t.Fatalf("Load: %v, %v, want no session", got, err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if got.Generation != generation || got.RefreshToken != session(generation).RefreshToken {
		t.Fatalf("generation %d is stored, want %d", got.Generation, generation)
	}
}
