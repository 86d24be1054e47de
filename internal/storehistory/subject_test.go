//go:build linux && !race

package storehistory

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ycauth/ycauth-go/internal/durable"
	"github.com/ycauth/ycauth-go/internal/etcdtest"
	"github.com/ycauth/ycauth-go/internal/pgtest"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/etcdstore"
	"github.com/ycauth/ycauth-go/oauth/filestore"
	"github.com/ycauth/ycauth-go/oauth/pgstore"
)

// A subject is a kind of store.
type subject struct {
	name string

	// lease is how long a lease lasts; 0 for a lock that ends with its process.
	lease time.Duration

	// start prepares a place for the sessions of one run.
	start func(t *testing.T) (place string)

	// open returns the stores of one process: one for each session.
	open func(place string, d *disturber) (store func(session int) (oauth.Store, error), err error)

	*control // nil for what has no known mistake
}

// fenced reports whether a renewal waits before it sends a refresh token that may have been sent.
func (s subject) fenced() bool { return s.lease != 0 && (s.control == nil || !s.unfenced) }

// A control is how a known mistake shows soon.
type control struct {
	signing bool          // a mistake of clients: proofs are dated when they are sent
	signal  signal        // what happens to two processes, up to 2 seconds longer; nothing to the others
	delay   time.Duration // how long a request and its response can take, each; 20 ms if 0
	logins  int           // how many calls of a thousand are logins

	// stalls is how many renewals of a thousand are paused like that alone, without their process.
	stalls int

	// unfenced is for a store that has a lease and calls it a lock: nobody waits for old proofs.
	unfenced bool
}

// leaseTime is longer than requestTimeout, as stores with leases ask for.
const (
	leaseTime      = 4 * time.Second
	requestTimeout = 2 * time.Second
)

// subjects are the stores of this repository. To add one, add a row.
var subjects = []subject{
	{
		name:  "file",
		start: func(t *testing.T) string { t.Helper(); return t.TempDir() },
		open: func(place string, d *disturber) (func(int) (oauth.Store, error), error) {
			return openFile(place, d)
		},
	},
	{
		name:  "sealed file",
		start: func(t *testing.T) string { t.Helper(); return t.TempDir() },
		open: func(place string, d *disturber) (func(int) (oauth.Store, error), error) {
			return openFile(place, d, filestore.WithSeal(aead()))
		},
	},
	{
		name: "pgstore", lease: leaseTime,
		start: func(t *testing.T) string { t.Helper(); url, _ := database(t); return newTable(t, url) },
		open:  openPostgres,
	},
	{
		name: "pgstore behind pgbouncer", lease: leaseTime,
		start: func(t *testing.T) string { t.Helper(); _, url := database(t); return newTable(t, url) },
		open:  openPostgres,
	},
	{name: "etcdstore", lease: leaseTime, start: newPrefix, open: openEtcd},
}

func openFile(place string, d *disturber, opts ...filestore.Option) (func(int) (oauth.Store, error), error) {
	durable.SetHook(&durable.Hook{Before: func(op durable.Op) error {
		switch op.Kind {
		case durable.Write, durable.SyncFile, durable.Rename, durable.SyncDir:
			d.slow()
		}
		return nil
	}})
	return func(session int) (oauth.Store, error) {
		return filestore.New(filepath.Join(place, "sessions"), fmt.Sprintf("s%d", session), opts...)
	}, nil
}

func aead() cipher.AEAD {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		panic(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return gcm
}

// postgres is the server of this test binary, started by the first test that needs it.
var postgres struct {
	once            sync.Once
	server          *pgtest.Server
	direct, bouncer string
	err             error
}

func database(t *testing.T) (direct, bouncer string) {
	t.Helper()
	if missing := pgtest.Missing(); missing != "" {
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	postgres.once.Do(func() {
		ctx := context.Background()
		if postgres.server, postgres.err = pgtest.Start(ctx, false); postgres.err != nil {
			return
		}
		postgres.direct = postgres.server.URL()
		postgres.bouncer, postgres.err = postgres.server.StartBouncer(ctx)
	})
	if postgres.err != nil {
		t.Fatal(postgres.err)
	}
	return postgres.direct, postgres.bouncer
}

// A table is a place in a database.
type table struct{ URL, Name string }

var tables atomic.Int64

func newTable(t *testing.T, url string) (place string) {
	t.Helper()
	at := table{url, fmt.Sprintf("sessions %d", tables.Add(1))}
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	set, err := at.set(pool)
	if err != nil {
		t.Fatal(err)
	}
	if err := set.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(at)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (at table) set(pool *pgxpool.Pool) (*pgstore.Set, error) {
	return pgstore.New(pool, pgstore.Options{
		Table: at.Name, Keys: pgstore.Keys{ByVersion: map[uint32]cipher.AEAD{1: aead()}}, Lease: leaseTime,
		Timeout: 3 * time.Second, SaveTimeout: 5 * time.Second,
	})
}

func openPostgres(place string, d *disturber) (func(int) (oauth.Store, error), error) {
	var at table
	if err := json.Unmarshal([]byte(place), &at); err != nil {
		return nil, err
	}
	config, err := pgxpool.ParseConfig(at.URL)
	if err != nil {
		return nil, err
	}
	config.MaxConns = 8
	dial := config.ConnConfig.DialFunc
	config.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &breaking{conn, d}, nil
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return nil, err
	}
	set, err := at.set(pool)
	if err != nil {
		return nil, err
	}
	return func(session int) (oauth.Store, error) { return set.Store(fmt.Sprintf("user %d", session)), nil }, nil
}

// etcd is the server of this test binary, started by the first test that needs it.
var etcd struct {
	once    sync.Once
	cluster *etcdtest.Cluster
	err     error
}

// A prefix is a place in etcd.
type prefix struct {
	Endpoints []string
	Name      string
}

var prefixes atomic.Int64

func newPrefix(t *testing.T) (place string) {
	t.Helper()
	if missing := etcdtest.Missing(); missing != "" {
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	etcd.once.Do(func() { etcd.cluster, etcd.err = etcdtest.Start(1) })
	if etcd.err != nil {
		t.Fatal(etcd.err)
	}
	text, err := json.Marshal(prefix{etcd.cluster.Endpoints(), fmt.Sprintf("sessions %d", prefixes.Add(1))})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func openEtcd(place string, d *disturber) (func(int) (oauth.Store, error), error) {
	var at prefix
	if err := json.Unmarshal([]byte(place), &at); err != nil {
		return nil, err
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: at.Endpoints, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(addr, "unix://"))
				if err != nil {
					return nil, err
				}
				return &breaking{conn, d}, nil
			}),
		},
	})
	if err != nil {
		return nil, err
	}
	set, err := etcdstore.New(client, etcdstore.Options{
		Prefix: at.Name, Keys: etcdstore.Keys{ByVersion: map[uint32]cipher.AEAD{1: aead()}}, Lease: leaseTime,
		Timeout: 3 * time.Second, SaveTimeout: 5 * time.Second,
	})
	if err != nil {
		return nil, err
	}
	return func(session int) (oauth.Store, error) { return set.Store(fmt.Sprintf("user %d", session)), nil }, nil
}

// breaking is a connection that breaks now and then, before a request is sent or before its
// result is read.
type breaking struct {
	net.Conn

	d *disturber
}

func (b *breaking) Write(p []byte) (int, error) {
	if b.d.chance(2) {
		b.d.broken()
		_ = b.Close()
	}
	return b.Conn.Write(p)
}

func (b *breaking) Read(p []byte) (int, error) {
	n, err := b.Conn.Read(p)
	if b.d.chance(2) {
		b.d.broken()
		_ = b.Close()
		return 0, net.ErrClosed
	}
	return n, err
}

// A disturber is the source of small disturbances in a process. It is safe for concurrent use.
type disturber struct {
	broken func() // is told of connections to a database or etcd

	mu    sync.Mutex
	rng   *rand.Rand
	until int64
}

func newDisturber(seed, stream uint64, until int64) *disturber {
	return &disturber{rng: rand.New(rand.NewPCG(seed, stream)), until: until}
}

// number is one of n, or n itself when there are to be no disturbances any more.
func (d *disturber) number(n int) int {
	if now() > d.until {
		return n
	}
	return d.any(n)
}

func (d *disturber) any(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rng.IntN(n)
}

func (d *disturber) chance(perMille int) bool { return d.number(1000) < perMille }

// slow is how long a disk can take.
func (d *disturber) slow() {
	if d.chance(30) {
		time.Sleep(time.Duration(d.any(60)) * time.Millisecond)
	}
}

// late makes a step of a renewal late.
func (d *disturber) late() {
	if d.chance(20) {
		time.Sleep(time.Duration(d.any(250)) * time.Millisecond)
	}
}
