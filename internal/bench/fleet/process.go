//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/pgstore"
)

// partVariable carries its part to a process.
const partVariable = "YCAUTH_FLEET_PART"

// A part is what a process is to do.
type part struct {
	Name        string // "p1.2": the second process in the place 1
	Place       int
	Server      string
	Database    string
	Journal     string
	Sessions    int
	Rounds      int
	Done        int // renewals by those who had the place before
	Concurrency int
	Conns       int
	Latency     time.Duration // of the network, in each direction
	Lease       time.Duration
	Until       time.Time // no renewal begins after that
	Break       string
	Seed        uint64

	// For the renewal of all after an outage.
	Outage   bool
	Replicas int
	Rate     float64
}

// child plays the part of a process that a run has started. In another process it returns at once.
func child() {
	value, ok := os.LookupEnv(partVariable)
	if !ok {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { // the run has ended, or asks for an end
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
		time.Sleep(time.Minute)
		os.Exit(1)
	}()
	if err := play(ctx, value); err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// A replica is one process that renews sessions.
type replica struct {
	part
	journal *os.File
	pool    *oauth.Pool
	next    atomic.Int64 // of the renewals
	ended   sync.Map     // sessions that are lost, by number
	waiting sync.WaitGroup
	renewed chan struct{} // closed when all are, after an outage
}

func play(ctx context.Context, value string) error {
	r := &replica{}
	if err := json.Unmarshal([]byte(value), &r.part); err != nil {
		return err
	}
	var err error
	if r.Journal != "" {
		if r.journal, err = os.OpenFile(r.Journal, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err != nil {
			return err
		}
		defer r.journal.Close()
	}
	ctx, cancel := context.WithDeadline(ctx, r.Until)
	defer cancel()
	db, err := openDatabase(context.WithoutCancel(ctx), r.Database, r.Conns)
	if err != nil {
		return err
	}
	defer db.Close()
	set, err := openSet(db, r.Lease)
	if err != nil {
		return err
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 256, IdleConnTimeout: 10 * time.Second}
	defer transport.CloseIdleConnections()
	provider := provider(r.Server)
	if r.Break == breakFence {
		provider.ProofLife = 0
	}
	cfg := oauth.PoolConfig{
		Config: oauth.Config{
			Provider: provider, ClientID: "client", DPoP: prover(),
			HTTPClient:     &http.Client{Transport: &network{r, transport}},
			RequestTimeout: r.Lease * 2 / 3, RenewTimeout: 3 * r.Lease,
		},
		Open:       func(key string) (oauth.Store, error) { return r.store(set.Store(key)), nil },
		Concurrent: r.Concurrency, Rate: r.Rate,
		Idle: 2 * time.Second, // so that sessions leave the memory and come back
	}
	if r.Outage {
		cfg.Idle, cfg.Config.Observer = 0, r.observer()
	}
	if r.pool, err = oauth.NewPool(cfg); err != nil {
		return err
	}
	if r.Outage {
		err = r.afterOutage(ctx)
	} else {
		r.renewAll(ctx)
	}
	return errors.Join(err, r.pool.Close())
}

// renewAll renews all sessions, in as many rounds as it is to.
func (r *replica) renewAll(ctx context.Context) {
	r.next.Store(int64(r.Done))
	var workers sync.WaitGroup
	for range r.Concurrency {
		workers.Go(func() {
			for ctx.Err() == nil {
				i := int(r.next.Add(1)) - 1
				if i >= r.Sessions*r.Rounds {
					return
				}
				r.renew(ctx, r.session(i))
			}
		})
	}
	workers.Wait()
	r.waiting.Wait()
}

// session is that of a renewal. In every other round all processes go through the sessions
// in the same order, so that many want the same one.
func (r *replica) session(i int) int {
	round, at := i/r.Sessions, i%r.Sessions
	seed := uint64(round)
	if round%2 == 1 {
		seed |= uint64(r.Place+1) << 32
	}
	return shuffled(at, r.Sessions, rand.New(rand.NewPCG(r.Seed, seed)))
}

// shuffled is the place of i in some order of 0…n-1.
func shuffled(i, n int, rng *rand.Rand) int {
	step := rng.IntN(n) + 1
	for gcd(step, n) != 1 {
		step++
	}
	return (i*step + rng.IntN(n)) % n
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// renew renews one session, or finds that it is lost. One whose token request has an
// unknown outcome is left for later.
func (r *replica) renew(ctx context.Context, session int) {
	for ctx.Err() == nil {
		if _, lost := r.ended.Load(session); lost {
			break
		}
		_, err := r.pool.TokenSource(key(session)).Renew(ctx)
		var interrupted *oauth.InterruptedError
		switch {
		case err == nil:
			r.note('d', session, 0)
			return
		case errors.Is(err, oauth.ErrLoginRequired):
			r.ended.Store(session, true)
			r.note('x', session, 0)
		case errors.As(err, &interrupted):
			r.waiting.Go(func() {
				pause(ctx, time.Until(interrupted.Until)+time.Duration(rand.IntN(1000))*time.Millisecond)
				r.renew(ctx, session)
			})
			return
		default:
			pause(ctx, time.Duration(100+rand.IntN(900))*time.Millisecond)
		}
	}
	if ctx.Err() == nil {
		r.note('d', session, 0) // nothing is left to do
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// note writes to the journal what must be known if the process is killed: r received the
// refresh token n, s saved it, d renewed, x found that the session has ended. One write(2)
// each, which no signal cuts off.
func (r *replica) note(kind byte, session, n int) {
	if r.journal != nil {
		_, _ = fmt.Fprintf(r.journal, "%s %d %c %d %d\n", r.Name, time.Now().UnixMicro(), kind, session, n)
	}
}

// network is a network between the process and the server that takes its time. A process
// that is stopped in it has looked at its lease for the last time, and sends later.
type network struct {
	r    *replica
	base http.RoundTripper
}

func (t *network) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set(processHeader, t.r.Name)
	t.late()
	resp, err := t.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return nil, err
	}
	t.late()
	var answer struct {
		RefreshToken string `json:"refresh_token"`
	}
	if json.Unmarshal(body, &answer) == nil && answer.RefreshToken != "" {
		if session, n, err := parseToken(answer.RefreshToken); err == nil {
			t.r.note('r', session, n)
		}
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

func (t *network) late() {
	if t.r.Latency > 0 {
		time.Sleep(t.r.Latency/2 + rand.N(t.r.Latency))
	}
}

// The guards that a control leaves out.
const (
	breakStore = "store" // a store without a lock, whose writes do not look at what is there
	breakFence = "fence" // nobody waits until a request of a former holder would be rejected
)

// store writes down what is saved.
func (r *replica) store(s *pgstore.Store) oauth.Store {
	if r.Break == breakStore {
		return blind{s, r}
	}
	return witness{s, r}
}

type witness struct {
	*pgstore.Store
	r *replica
}

func (w witness) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	return w.UpdateLease(ctx, func(_ oauth.Lease, s oauth.Session) (oauth.Session, error) { return fn(s) })
}

func (w witness) UpdateLease(ctx context.Context, fn func(oauth.Lease, oauth.Session) (oauth.Session, error)) error {
	var before, after oauth.Session
	err := w.Store.UpdateLease(ctx, func(lease oauth.Lease, s oauth.Session) (oauth.Session, error) {
		before = s
		next, err := fn(lease, s)
		after = next
		return next, err
	})
	if err == nil && after.RefreshToken != before.RefreshToken {
		w.r.saved(after)
	}
	return err
}

func (r *replica) saved(s oauth.Session) {
	if session, n, err := parseToken(s.RefreshToken.Reveal()); err == nil {
		r.note('s', session, n)
	}
}

// blind is what many programs do.
type blind struct {
	store *pgstore.Store
	r     *replica
}

func (b blind) Load(ctx context.Context) (oauth.Session, error) { return b.store.Load(ctx) }

func (b blind) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	s, err := b.store.Load(ctx)
	if err != nil && !errors.Is(err, oauth.ErrNoSession) {
		return err
	}
	next, err := fn(s)
	if err != nil {
		return err
	}
	err = b.store.Update(context.WithoutCancel(ctx), func(oauth.Session) (oauth.Session, error) { return next, nil })
	if err == nil && next.RefreshToken != s.RefreshToken {
		b.r.saved(next)
	}
	return err
}

// --- what all processes have in common ------------------------------------------

func provider(server string) oauth.Provider {
	return oauth.Provider{Name: "test", TokenURL: server + "/token", ProofLife: proofLife}
}

// prover has the same key in all processes.
func prover() *dpop.Prover {
	p, err := dpop.New(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		panic(err)
	}
	return p
}

func openDatabase(ctx context.Context, url string, conns int) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = int32(conns)
	return pgxpool.NewWithConfig(ctx, cfg)
}

func openSet(db pgstore.DB, lease time.Duration) (*pgstore.Set, error) {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return pgstore.New(db, pgstore.Options{Keys: pgstore.Keys{ByVersion: map[uint32]cipher.AEAD{1: aead}}, Lease: lease})
}
