package oauth_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
)

// TestSimulation lets two clients of one store live through half an hour of
// everything that can go wrong, many times, and checks after every step what a
// session promises. The seeds of YCAUTH_SIMULATION_SEEDS ("1000", or "17-17" for
// one) run instead of the usual ones. A seed decides what happens, not the order
// in which the scheduler runs goroutines that are ready at the same moment.
func TestSimulation(t *testing.T) {
	eachSeed(t, 120, func(seed uint64) {
		synctest.Test(t, func(t *testing.T) { simulate(t, seed) })
	})
}

// eachSeed runs the usual number of seeds, or those of the environment, until one
// fails.
func eachSeed(t *testing.T, usual uint64, run func(seed uint64)) {
	first, last := uint64(1), usual
	if s := os.Getenv("YCAUTH_SIMULATION_SEEDS"); s != "" {
		from, to, ranged := strings.Cut(s, "-")
		if !ranged {
			from, to = "1", s
		}
		var err1, err2 error
		first, err1 = strconv.ParseUint(from, 10, 64)
		last, err2 = strconv.ParseUint(to, 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
	} else if testing.Short() {
		last = min(last, 30)
	}
	seed := first
	defer func() { // a bubble that fails ends the test
		if t.Failed() {
			t.Logf("run it again: YCAUTH_SIMULATION_SEEDS=%d-%d go test -count=1 -run '^%s$' ./oauth", seed, seed, t.Name())
		}
	}()
	for ; seed <= last && !t.Failed(); seed++ {
		run(seed)
	}
}

// What can go wrong, by seed. The fewer kinds of faults, the more must hold.
type faults struct {
	sibling bool // two clients
	server  bool // 5xx, 429, slow responses, and malformed ones
	lost    bool // responses that never come
	store   bool // the store fails
	clocks  bool // the first client's wall clock jumps
}

func faultsOf(seed uint64) faults {
	return faults{sibling: seed&1 != 0, server: seed&2 != 0, store: seed&4 != 0, clocks: seed&8 != 0, lost: seed&16 != 0}
}

const simulatedLife = 7 * time.Minute

// A simulatedServer rotates at every renewal, and ends the session when a refresh
// token comes a second time.
type simulatedServer struct {
	*fakeServer
	mu       sync.Mutex
	rng      *rand.Rand
	faults   faults
	families map[string]*family // by refresh token
	tokens   map[string]issuedToken
	minutes  map[string]int // requests by client and minute
	serial   int
	reused   []string
	quiet    bool // no faults any more
}

// A family is what began with one login.
type family struct {
	name     string
	live     string // the refresh token
	dead     bool
	doubtful bool          // some response with a refresh token was lost
	to       time.Duration // when it ended; 0 while it is the current login
	endedBy  string        // the client that logged out, or in again
}

type issuedToken struct {
	family *family
	client string
	at     time.Time
}

func (s *simulatedServer) newFamily() *family {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serial++
	f := &family{name: fmt.Sprint("login-", s.serial), live: fmt.Sprint("rt-", s.serial)}
	s.families[f.live] = f
	return f
}

func (s *simulatedServer) chance(percent int) bool { return !s.quiet && s.rng.IntN(100) < percent }

func (s *simulatedServer) handleFrom(n int, r fakeRequest) (*http.Response, error) {
	<-s.began
	client, refreshToken := r.header.Get("User-Agent"), r.form.Get("refresh_token")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.minutes[client+time.Now().Format(" 15:04")]++
	if s.faults.server && s.chance(30) {
		wait := time.Duration(s.rng.IntN(29)) * time.Second
		s.mu.Unlock()
		time.Sleep(wait)
		s.mu.Lock()
	}
	switch {
	case s.faults.server && s.chance(10):
		return answer(503, "", "Retry-After", strconv.Itoa(s.rng.IntN(40))), nil
	case s.faults.server && s.chance(11):
		return answer(429, `{"error":"slow_down"}`), nil
	case s.faults.lost && s.chance(5):
		return nil, errLine // before it was processed
	}
	f := s.families[refreshToken]
	switch {
	case f == nil:
		return answer(400, `{"error":"invalid_grant","error_description":"unknown"}`), nil
	case f.dead:
		return answer(400, `{"error":"invalid_grant","error_description":"revoked"}`), nil
	case f.live != refreshToken:
		f.dead = true
		s.reused = append(s.reused, fmt.Sprintf("%s sent %s of %s, whose successor is %s", client, refreshToken, f.name, f.live))
		return answer(400, `{"error":"invalid_grant","error_description":"used before"}`), nil
	}
	s.serial++
	access := fmt.Sprint("at-", s.serial)
	f.live = fmt.Sprint("rt-", s.serial)
	s.families[f.live] = f
	s.tokens[access] = issuedToken{f, client, time.Now()}
	switch {
	case s.faults.lost && s.chance(5):
		f.doubtful = true
		return nil, errLine
	case s.faults.server && s.chance(5):
		return answer(200, fmt.Sprintf(`{"refresh_token":%q,"access_token":7}`, f.live)), nil
	}
	return answer(200, tokenJSON(access, f.live, int(simulatedLife.Seconds())), "Date", time.Now().UTC().Format(http.TimeFormat)), nil
}

// A simulation is one seed's world.
type simulation struct {
	t       *testing.T
	seed    uint64
	faults  faults
	start   time.Time
	srv     *simulatedServer
	store   *faultyStore
	clients []*oauth.Client
	names   []string
	walls   []*wallClock

	turn chan struct{} // logins and logouts happen one after the other

	mu      sync.Mutex
	current *family // nil after a logout
}

func (s *simulation) errorf(format string, args ...any) {
	s.t.Helper()
	s.t.Errorf("seed %d (%+v), after %v: %s", s.seed, s.faults, time.Since(s.start), fmt.Sprintf(format, args...))
}

func simulate(t *testing.T, seed uint64) {
	rng := func(stream uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, stream)) } //nolint:gosec // repeatable on purpose
	s := &simulation{t: t, seed: seed, faults: faultsOf(seed), start: time.Now(), store: newFaultyStore(), turn: make(chan struct{}, 1)}
	s.srv = &simulatedServer{rng: rng(0), faults: s.faults, families: map[string]*family{}, tokens: map[string]issuedToken{}, minutes: map[string]int{}}
	s.srv.fakeServer = newFakeServer(s.srv.handleFrom)
	for i := range 2 {
		if i == 1 && !s.faults.sibling {
			break
		}
		wall := new(wallClock)
		name := fmt.Sprint("client-", i)
		c, _ := openClient(t, s.srv.fakeServer, func(cfg *oauth.Config) { cfg.Store, cfg.Clock, cfg.UserAgent = s.store, wall.now, name })
		s.clients, s.names, s.walls = append(s.clients, c), append(s.names, name), append(s.walls, wall)
	}
	s.login(0)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	stream := uint64(0)
	act := func(every time.Duration, do func(r *rand.Rand)) {
		stream++
		r := rng(stream)
		wg.Go(func() {
			for {
				select {
				case <-time.After(time.Duration(1 + r.Int64N(int64(2*every)))):
					do(r)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	for i := range s.clients {
		for range 3 {
			act(5*time.Second, func(r *rand.Rand) { s.call(i, r) })
		}
	}
	act(4*time.Minute, func(r *rand.Rand) { s.login(r.IntN(len(s.clients))) })
	act(9*time.Minute, func(r *rand.Rand) { s.logout(r.IntN(len(s.clients))) })
	if s.faults.store {
		act(time.Minute, func(r *rand.Rand) {
			s.store.set(func(f *faultyStore) {
				f.failSave, f.failLoad, f.failLock = nil, nil, nil
				switch r.IntN(6) {
				case 0, 1:
					f.failSave = errDisk
				case 2:
					f.failLock = errDisk
				case 3:
					f.failLoad = errDisk
				}
			})
		})
	}
	if s.faults.clocks {
		act(3*time.Minute, func(r *rand.Rand) { s.walls[0].set(time.Duration(r.IntN(241)-120) * time.Minute) })
	}
	wg.Wait()
	s.end()
}

// call asks for a token as a program does, and checks what it gets.
func (s *simulation) call(i int, r *rand.Rand) {
	ts := s.clients[i].TokenSource()
	patience := time.Duration(r.IntN(60_000)) * time.Millisecond
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	ask := ts.TokenContext
	forced := r.IntN(20) == 0
	if forced {
		ask = ts.Renew
	}
	began := time.Since(s.start)
	tok, err := ask(ctx)
	if took := time.Since(s.start) - began; took > patience {
		s.errorf("a call took %v, and its context allowed %v", took, patience)
	}
	if err != nil {
		s.checkError(err)
		return
	}
	if tok == nil {
		s.errorf("neither a token nor an error")
		return
	}
	s.srv.mu.Lock()
	issued, ok := s.srv.tokens[tok.AccessToken]
	s.srv.mu.Unlock()
	if !ok {
		s.errorf("the token %q was never issued", tok.AccessToken)
		return
	}
	if age := time.Since(issued.at); age >= simulatedLife && (issued.client == s.names[i] || !s.faults.clocks) {
		s.errorf("%s got a token %v after its issue", s.names[i], age)
	}
	s.mu.Lock()
	f := family{name: issued.family.name, to: issued.family.to, endedBy: issued.family.endedBy}
	s.mu.Unlock()
	switch late := began - f.to; {
	case f.to == 0 || late <= 0: // the current login, or was when the call began
	case f.endedBy == s.names[i]:
		s.errorf("%s got a token of %s, which it ended itself %v ago", s.names[i], f.name, late)
	case !s.faults.store && late > 90*time.Second:
		s.errorf("%s got a token of %s, which %s ended %v ago", s.names[i], f.name, f.endedBy, late)
	}
	if r.IntN(10) == 0 {
		ts.Invalidate(tok)
	}
}

func (s *simulation) checkError(err error) {
	var login *oauth.LoginRequiredError
	var server *oauth.ServerError
	var store *oauth.StoreError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
	case errors.As(err, &login):
		s.srv.mu.Lock()
		defer s.srv.mu.Unlock()
		calm := !s.faults.lost && (!s.faults.store || !s.faults.sibling)
		if login.Reason != oauth.ReasonNoSession && calm {
			s.errorf("%v, and nothing was lost; %v", err, s.srv.reused)
		}
	case errors.As(err, &server):
		if !s.faults.server && !s.faults.lost {
			s.errorf("%v", err)
		}
	case errors.As(err, &store):
		if !s.faults.store {
			s.errorf("%v", err)
		}
	case errors.Is(err, oauth.ErrOutcomeUnknown):
		if !s.faults.lost {
			s.errorf("%v", err)
		}
	default:
		s.errorf("an error of no documented type: %v", err)
	}
}

// begins makes f the current login; nil after a logout. Whatever was current ended
// when it began.
func (s *simulation) begins(f *family, client string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.current; old != nil {
		old.to, old.endedBy = time.Since(s.start), client
	}
	s.current = f
	if f != nil {
		f.to = 0
	}
}

func (s *simulation) login(i int) {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	ctx, cancel := context.WithTimeout(s.t.Context(), 3*time.Minute)
	defer cancel()
	f := s.srv.newFamily()
	time.Sleep(time.Millisecond) // no two logins at once
	if err := s.clients[i].Import(ctx, oauth.Secret(f.live)); err == nil {
		s.begins(f, s.names[i])
	} else if !s.faults.store && !errors.Is(err, context.DeadlineExceeded) {
		s.errorf("Import: %v", err)
	}
	time.Sleep(time.Millisecond)
}

func (s *simulation) logout(i int) {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	ctx, cancel := context.WithTimeout(s.t.Context(), 3*time.Minute)
	defer cancel()
	if err := s.clients[i].Logout(ctx); errors.Is(err, oauth.ErrNotRevoked) || err == nil {
		s.begins(nil, s.names[i])
	} else if !s.faults.store && !errors.Is(err, context.DeadlineExceeded) {
		s.errorf("Logout: %v", err)
	}
	time.Sleep(time.Millisecond)
}

// end mends everything, closes the clients, and looks at what is left.
func (s *simulation) end() {
	s.store.set(func(f *faultyStore) { f.failSave, f.failLoad, f.failLock = nil, nil, nil })
	for i, c := range s.clients {
		began := time.Now()
		if err := c.TokenSource().Close(); err != nil {
			s.errorf("Close: %v", err)
		}
		if took := time.Since(began); took > 60*time.Second {
			s.errorf("Close of %s took %v", s.names[i], took)
		}
	}
	s.srv.mu.Lock()
	defer s.srv.mu.Unlock()
	for minute, n := range s.srv.minutes {
		if n > 60 {
			s.errorf("%d requests in %s", n, minute)
		}
	}
	if len(s.srv.reused) > 0 && !s.faults.lost && (!s.faults.store || !s.faults.sibling) {
		s.errorf("%v", s.srv.reused)
	}
	stored, err := s.clients[0].Session(s.t.Context())
	switch {
	case s.current == nil:
		if !errors.Is(err, oauth.ErrNoSession) {
			s.errorf("after a logout the store has %q, %v", stored.RefreshToken.Reveal(), err)
		}
	case err != nil:
		s.errorf("the store has no session of %s: %v", s.current.name, err)
	case s.current.dead || s.current.doubtful:
	case s.current.live != stored.RefreshToken.Reveal():
		s.errorf("the store has %q of %v, and %s has %q", stored.RefreshToken.Reveal(), s.srv.families[stored.RefreshToken.Reveal()].name, s.current.name, s.current.live)
	}
}
