package oauth_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/internal/leasetest"
)

// TestFleetSimulation lets several machines share several sessions over stores with
// leases: machines stop for longer than a lease, die and start again, their clocks are
// wrong, requests arrive late, responses and saves fail. The server revokes at a reuse. A
// session may be lost only if the server issued a refresh token that was never saved,
// because a machine died or stopped, or a response or the store failed, and even then
// only after the wait. Seeds are chosen as for TestSimulation.
func TestFleetSimulation(t *testing.T) {
	total := map[string]int{}
	eachSeed(t, 50, func(seed uint64) {
		synctest.Test(t, func(t *testing.T) {
			s := newFleetSimulation(t, seed, flaw{})
			for _, w := range s.run() {
				t.Errorf("seed %d (%+v): %s", seed, s.faults, w)
			}
			for what, n := range s.counts {
				total[what] += n
			}
		})
	})
	t.Logf("%v", total)
}

// The simulation finds what a fleet does wrong: most of it within a few seeds, the rest,
// which TestLeaseWithoutAGuard arranges, within hundreds.
func TestFleetSimulationFindsFlaws(t *testing.T) {
	flaws := []flaw{
		{name: "blind write", fault: leasetest.BlindWrite},
		{name: "no mark", fault: leasetest.NoMark},
		{name: "proof dated at signing", sign: true},
		{name: "no wait of the successor", hasty: true},
	}
	if os.Getenv("YCAUTH_SIMULATION_SEEDS") != "" {
		flaws = append(flaws, []flaw{
			{name: "no look at the owner", fault: leasetest.NoOwner},
			{name: "no look at the session at Begin", fault: leasetest.NoLineage},
			{name: "no clock of the store, and a replica's that is wrong", fault: leasetest.NoClock},
		}...)
	}
	for _, flaw := range flaws {
		t.Run(flaw.name, func(t *testing.T) {
			const most = 4000
			for seed := uint64(1); seed <= most; seed++ {
				var wrong []string
				synctest.Test(t, func(t *testing.T) { wrong = newFleetSimulation(t, seed, flaw).run() })
				if len(wrong) > 0 {
					t.Logf("found by seed %d: %s", seed, wrong[0])
					return
				}
			}
			t.Errorf("not found by %d seeds", most)
		})
	}
}

const (
	simLease     = time.Minute
	simProofAge  = time.Minute
	simLeeway    = 5 * time.Second // of the server, for clocks that are ahead, and added to simProofAge
	simProofLife = simProofAge + simLeeway
	simTimeout   = 20 * time.Second // of a request
	simAccess    = 3 * time.Minute
	simRuns      = 30 * time.Minute
)

type fleetFaults struct {
	pauses, deaths bool
	store          bool // its operations fail
	network        bool // requests and responses are late or lost
	clocks         bool // of the machines
	nonce          bool // the server judges the nonce alone
}

func fleetFaultsOf(seed uint64) fleetFaults {
	bit := func(i int) bool { return seed>>i&1 != 0 }
	return fleetFaults{pauses: !bit(0) || bit(1), deaths: bit(0), store: bit(2), network: bit(3), clocks: bit(4), nonce: bit(5)}
}

type fleetSimulation struct {
	t      *testing.T
	faults fleetFaults
	flaw   flaw
	prover *dpop.Prover
	start  time.Time
	seed   uint64

	mu       sync.Mutex
	rng      *rand.Rand // for what has no stream of its own
	wrong    []string
	counts   map[string]int
	families map[string]*simFamily // by refresh token
	next     map[string]*simCommit // what a refresh token was exchanged for
	serial   int
	quiet    bool // no faults any more
	stores   []*leasetest.Store
	newest   []int // family serial that was stored, by session
	stored   map[string]time.Time
	begun    map[*leasetest.Replica]time.Time
	machines []*simMachine
	closing  sync.WaitGroup
}

// A simFamily is what began with one login.
type simFamily struct {
	serial, session int
	live            *simCommit
	dead            bool
	replaced        bool // by another login
}

// A simCommit is a refresh token that the server issued.
type simCommit struct {
	token string
	iat   time.Time // of the proof that it was issued for, or when its nonce was issued
	why   []string  // it may never have been saved
}

// A simMachine runs one process at a time, which keeps all sessions.
type simMachine struct {
	s    *fleetSimulation
	i    int
	rngs []*rand.Rand // by session
	skew time.Duration

	// Under s.mu:
	until    time.Time // stopped until then
	replicas []*leasetest.Replica
	clients  []*oauth.Client
	last     []*simCommit // what the server issued to it last, by session
	requests map[string]int
}

func newFleetSimulation(t *testing.T, seed uint64, flaw flaw) *fleetSimulation {
	stream := func(n uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1000+n)) } //nolint:gosec // repeatable on purpose
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	prover, err := dpop.New(key)
	if err != nil {
		t.Fatal(err)
	}
	s := &fleetSimulation{
		t: t, seed: seed, faults: fleetFaultsOf(seed), flaw: flaw, prover: prover, start: time.Now(), rng: stream(0),
		counts: map[string]int{}, families: map[string]*simFamily{}, next: map[string]*simCommit{}, stored: map[string]time.Time{}, begun: map[*leasetest.Replica]time.Time{},
	}
	for range 1 + s.rng.IntN(3) {
		var off time.Duration // the store's clock may be behind, and hardly ahead
		if s.faults.clocks {
			off = time.Duration(s.rng.IntN(42)-40) * time.Second
		}
		store := leasetest.New(simLease, func() time.Time { return time.Now().Add(off) }, flaw.fault)
		session := len(s.stores)
		store.OnStore(func(o oauth.Session) { s.onStore(session, o) })
		s.stores, s.newest = append(s.stores, store), append(s.newest, 0)
	}
	for i := range 2 + s.rng.IntN(3) {
		m := &simMachine{s: s, i: i}
		for j := range s.stores {
			m.rngs = append(m.rngs, stream(uint64(100+10*i+j)))
		}
		if s.faults.clocks {
			m.skew = time.Duration(s.rng.IntN(601)-300) * time.Second
		}
		s.machines = append(s.machines, m)
	}
	for _, m := range s.machines {
		m.boot()
	}
	return s
}

// boot starts a process.
func (m *simMachine) boot() {
	s := m.s
	m.replicas, m.clients = nil, nil
	m.last, m.requests = make([]*simCommit, len(s.stores)), map[string]int{}
	for i, store := range s.stores {
		var r *leasetest.Replica
		r = store.Replica(func(_ context.Context, p leasetest.Point) error { return m.at(r, i, p) })
		cfg := oauth.Config{
			Provider: testProvider(), ClientID: "client", DPoP: s.prover, Store: r, RequestTimeout: simTimeout,
			HTTPClient: &http.Client{Transport: r.Transport(simNetwork{m, i, r})},
			Clock:      func() time.Time { return time.Now().Add(m.skew) },
		}
		cfg.Provider.ProofLife = simProofLife
		if s.faults.nonce {
			cfg.Provider.ProofLife, cfg.Provider.NonceLife = 0, simProofLife
		}
		if s.flaw.hasty {
			cfg.Provider.ProofLife, cfg.Provider.NonceLife = 1, 1
		}
		c, err := oauth.New(cfg)
		if err != nil {
			s.t.Fatal(err)
		}
		m.replicas, m.clients = append(m.replicas, r), append(m.clients, c)
	}
}

func (s *fleetSimulation) errorf(format string, args ...any) {
	s.wrong = append(s.wrong, fmt.Sprintf("after %v: ", time.Since(s.start))+fmt.Sprintf(format, args...))
}

// at is called between two steps of a process of m.
func (m *simMachine) at(r *leasetest.Replica, session int, p leasetest.Point) error {
	s := m.s
	s.mu.Lock()
	defer s.mu.Unlock()
	mine := slices.Contains(m.replicas, r)
	because := func(why string) {
		if c := m.last[session]; mine && c != nil && s.stored[c.token].IsZero() {
			c.why = append(c.why, why)
		}
	}
	rng := m.rngs[session]
	chance := func(perMille int) bool { return !s.quiet && rng.IntN(1000) < perMille }
	if p == leasetest.Begun {
		s.begun[r] = time.Now()
	}
	if s.faults.pauses && chance(12) {
		spans := []time.Duration{20 * time.Second, 55 * time.Second, 70 * time.Second, 100 * time.Second, 4 * time.Minute}
		m.until = time.Now().Add(spans[rng.IntN(len(spans))] + time.Duration(rng.IntN(10_000))*time.Millisecond)
		s.counts["pauses"]++
	}
	if s.faults.deaths && mine && chance(5) {
		because("death")
		s.counts["deaths"]++
		m.die()
		return nil // r was killed
	}
	for wait := time.Until(m.until); wait > 0 && mine; wait = time.Until(m.until) {
		because("pause")
		s.mu.Unlock()
		time.Sleep(wait)
		s.mu.Lock()
		mine = slices.Contains(m.replicas, r)
	}
	onWire := p == leasetest.Send || p == leasetest.Received
	if s.faults.network && onWire && chance(20) {
		because("response lost")
		s.counts["lost"]++
		return errLine
	}
	if s.faults.store && !onWire && chance(20) {
		because("store")
		s.counts["store errors"]++
		return errDisk
	}
	return nil
}

// die ends the process of m, and starts another one. s.mu is held.
func (m *simMachine) die() {
	for i, r := range m.replicas {
		if c := m.last[i]; c != nil && m.s.stored[c.token].IsZero() {
			c.why = append(c.why, "death")
		}
		r.Kill()
	}
	old := m.clients
	m.s.closing.Go(func() {
		for _, c := range old {
			_ = c.TokenSource().Close()
		}
	})
	m.until = time.Time{}
	m.boot()
}

// onStore is told of every session that a store takes.
func (s *fleetSimulation) onStore(session int, o oauth.Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	token := o.RefreshToken.Reveal()
	if s.stored[token].IsZero() {
		s.stored[token] = time.Now()
	}
	f := s.families[token]
	switch {
	case f.session != session:
		s.errorf("store %d took a session of store %d", session, f.session)
	case f.serial < s.newest[session]:
		s.errorf("login %d was stored over login %d", f.serial, s.newest[session])
	}
	s.newest[session] = max(s.newest[session], f.serial)
}

// A simNetwork carries the requests of one machine for one session.
type simNetwork struct {
	m       *simMachine
	session int
	r       *leasetest.Replica
}

func (n simNetwork) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	s := n.m.s
	s.mu.Lock()
	rng := n.m.rngs[n.session]
	late := time.Duration(rng.IntN(300_000)) * time.Microsecond
	if s.faults.network && !s.quiet && rng.IntN(100) < 4 {
		late += time.Duration(rng.IntN(150)) * time.Second
	}
	busy := s.faults.network && !s.quiet && rng.IntN(100) < 4
	begun := s.begun[n.r]
	s.mu.Unlock()
	type result struct {
		resp *http.Response
		c    *simCommit
	}
	arrived := make(chan result, 1)
	gone := make(chan struct{})
	s.closing.Go(func() {
		time.Sleep(late)
		proof := req.Header.Get("DPoP")
		if s.flaw.sign {
			proof, _ = s.prover.Proof(context.Background(), dpop.Claims{Method: req.Method, URL: req.URL.String(), Nonce: s.nonce(time.Now())})
		}
		resp, c := s.handle(n, form.Get("refresh_token"), proof, begun, busy)
		select {
		case <-gone:
			s.lose(c)
		default:
			arrived <- result{resp, c}
		}
	})
	select {
	case r := <-arrived:
		return r.resp, nil
	case <-req.Context().Done():
		close(gone)
		select {
		case r := <-arrived:
			s.lose(r.c)
		default:
		}
		return nil, req.Context().Err()
	}
}

// lose says that a response does not arrive.
func (s *fleetSimulation) lose(c *simCommit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c != nil {
		c.why = append(c.why, "response too late")
	}
}

const simNonceEvery = 20 * time.Second

func (s *fleetSimulation) nonce(now time.Time) string {
	return fmt.Sprint("n", now.Truncate(simNonceEvery).Unix())
}

// handle is the token endpoint. The request was begun, by its lease, at the given time.
func (s *fleetSimulation) handle(n simNetwork, refreshToken, proof string, begun time.Time, busy bool) (*http.Response, *simCommit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	reply := func(status int, body string) *http.Response {
		return answer(status, body, "Date", now.UTC().Format(http.TimeFormat), "DPoP-Nonce", s.nonce(now))
	}
	minute := fmt.Sprint(n.session, now.Format(" 15:04"))
	if n.m.requests[minute]++; n.m.requests[minute] > 40 {
		s.errorf("machine %d made %d requests for session %d in a minute", n.m.i, n.m.requests[minute], n.session)
	}
	s.counts["requests"]++
	if busy {
		resp := reply(503, "")
		resp.Header.Set("Retry-After", "7") // longer than any backoff, whose length is random
		return resp, nil
	}
	dated, code := s.judge(proof, now)
	if code != "" {
		return reply(400, fmt.Sprintf(`{"error":%q}`, code)), nil
	}
	f := s.families[refreshToken]
	switch {
	case f == nil:
		s.errorf("an unknown refresh token")
		return reply(400, `{"error":"invalid_grant"}`), nil
	case f.dead:
		return reply(400, `{"error":"invalid_grant"}`), nil
	case f.live.token != refreshToken:
		f.dead = true
		s.reused(f, n, refreshToken, begun)
		return reply(400, `{"error":"invalid_grant"}`), nil
	}
	s.serial++
	c := &simCommit{token: fmt.Sprint("rt-", s.serial), iat: dated}
	if !slices.Contains(n.m.replicas, n.r) {
		c.why = []string{"death"}
	}
	f.live, s.next[refreshToken] = c, c
	s.families[c.token] = f
	if c.why == nil {
		n.m.last[n.session] = c
	}
	s.counts["renewals"]++
	return reply(200, tokenJSON(fmt.Sprint("at-", s.serial), c.token, int(simAccess.Seconds()))), c
}

// judge returns from when a proof is, or why it is rejected.
func (s *fleetSimulation) judge(proof string, now time.Time) (dated time.Time, code string) {
	var claims struct {
		IAT   int64  `json:"iat"`
		Nonce string `json:"nonce"`
	}
	parts := strings.Split(proof, ".")
	if len(parts) != 3 {
		return dated, "invalid_dpop_proof"
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(payload, &claims) != nil {
		return dated, "invalid_dpop_proof"
	}
	if s.faults.nonce {
		var unix int64
		if n, _ := fmt.Sscanf(claims.Nonce, "n%d", &unix); n != 1 || now.Sub(time.Unix(unix, 0)) > simProofLife {
			return dated, "use_dpop_nonce"
		}
		return time.Unix(unix, 0), ""
	}
	dated = time.Unix(claims.IAT, 0)
	if age := now.Sub(dated); age > simProofLife || age < -simLeeway {
		return dated, "invalid_dpop_proof"
	}
	return dated, ""
}

// reused is told that a session was lost, and looks whether it had to be.
func (s *fleetSimulation) reused(f *simFamily, n simNetwork, sent string, begun time.Time) {
	c := s.next[sent]
	saved := s.stored[c.token]
	who := fmt.Sprintf("machine %d sent %s of session %d, whose successor %s", n.m.i, sent, n.session, c.token)
	switch {
	case f.replaced:
		s.counts["lost: replaced anyway"]++
	case !saved.IsZero() && !saved.After(begun):
		s.errorf("%s had been saved", who)
	case len(c.why) == 0:
		s.errorf("%s was not saved for no reason", who)
	case begun.Sub(c.iat) < simProofLife:
		s.errorf("%s was issued for a proof that was only %v old (%v)", who, begun.Sub(c.iat), c.why)
	case !saved.IsZero():
		s.counts["lost: committed, saved too late: "+c.why[0]]++
	default:
		s.counts["lost: committed, not saved: "+c.why[0]]++
	}
}

// run lets them live, and returns what was wrong.
func (s *fleetSimulation) run() []string {
	defer oauth.SetJitter(func(n int64) int64 {
		x := rand.New(rand.NewPCG(s.seed, uint64(time.Since(s.start)))) //nolint:gosec // repeatable on purpose
		return x.Int64N(n)
	})()
	for i := range s.stores {
		s.login(i)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), simRuns)
	var wg sync.WaitGroup
	for _, m := range s.machines {
		for i := range s.stores {
			r := rand.New(rand.NewPCG(s.seed, uint64(5000+100*m.i+i))) //nolint:gosec // repeatable on purpose
			wg.Go(func() {
				for sleep(ctx, time.Duration(1+r.IntN(20_000))*time.Millisecond) {
					m.call(ctx, i, r)
				}
			})
		}
	}
	wg.Go(func() {
		for sleep(ctx, time.Minute) {
			for i := range s.stores {
				s.mu.Lock()
				again := s.rng.IntN(20) == 0
				s.mu.Unlock()
				if f := s.current(i); f == nil || f.dead || again {
					s.login(i)
				}
			}
		}
	})
	wg.Wait()
	cancel()
	s.mu.Lock()
	s.quiet = true
	s.mu.Unlock()
	s.end()
	s.closing.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wrong
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// current is the family of the stored session.
func (s *fleetSimulation) current(session int) *simFamily {
	token := s.stores[session].Session().RefreshToken.Reveal()
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.families[token]; f != nil {
		c := *f
		return &c
	}
	return nil
}

// login begins another family, in the place of the current one.
func (s *fleetSimulation) login(session int) {
	s.mu.Lock()
	s.serial++
	f := &simFamily{serial: s.serial, session: session, live: &simCommit{token: fmt.Sprint("rt-", s.serial)}}
	s.families[f.live.token] = f
	m := s.machines[s.rng.IntN(len(s.machines))]
	c := m.clients[session]
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Minute)
	defer cancel()
	_ = c.Import(ctx, oauth.Secret(f.live.token)) // an error does not say that it was not stored
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stored[f.live.token].IsZero() || s.newest[session] == f.serial {
		for _, other := range s.families {
			other.replaced = other.replaced || other.session == session && other.serial < f.serial
		}
	}
}

// call asks for a token as a program does.
func (m *simMachine) call(ctx context.Context, session int, r *rand.Rand) {
	m.s.mu.Lock()
	c, stopped := m.clients[session], time.Now().Before(m.until)
	m.s.mu.Unlock()
	if stopped {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(r.IntN(40_000))*time.Millisecond)
	defer cancel()
	tok, err := c.TokenSource().TokenContext(ctx)
	switch {
	case err != nil:
	case tok == nil:
		m.s.mu.Lock()
		m.s.errorf("neither a token nor an error")
		m.s.mu.Unlock()
	case r.IntN(30) == 0:
		c.TokenSource().Invalidate(tok)
	}
}

// end lets everybody settle without faults, and looks at what is left.
func (s *fleetSimulation) end() {
	time.Sleep(5 * time.Minute) // for the longest pause
	got := make([][]error, len(s.machines))
	for range 60 {
		for i, m := range s.machines {
			got[i] = make([]error, len(s.stores))
			for j, c := range m.clients {
				ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
				_, got[i][j] = c.TokenSource().TokenContext(ctx)
				cancel()
			}
		}
		time.Sleep(10 * time.Second)
	}
	for i, m := range s.machines {
		for j, c := range m.clients {
			f, stored := s.current(j), s.stores[j].Session().RefreshToken.Reveal()
			s.mu.Lock()
			switch err := got[i][j]; {
			case f == nil:
				s.errorf("session %d is gone", j)
			case f.dead: // reused has looked into it
			case f.live.token != stored:
				s.errorf("session %d: %s is stored, and the server has %s (%v)", j, stored, f.live.token, f.live.why)
			case err != nil:
				s.errorf("session %d is alive, and machine %d cannot use it: %v", j, i, err)
			}
			s.mu.Unlock()
			if err := c.TokenSource().Close(); err != nil && !errors.Is(err, leasetest.ErrDead) {
				s.mu.Lock()
				s.errorf("Close: %v", err)
				s.mu.Unlock()
			}
		}
	}
}
