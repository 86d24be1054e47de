package oauth_test

import (
	"context"
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
	"github.com/ycauth/ycauth-go/oauth/iamtest"
	"github.com/ycauth/ycauth-go/oauth/internal/leasetest"
)

const (
	leaseLife  = time.Minute
	proofAge   = 2 * time.Minute            // that the server accepts
	proofLife  = proofAge + 10*time.Second  // with its leeway
	fence      = proofLife + 15*time.Second // until a successor may look again
	saveGrace  = 20 * time.Second           // and from then until it may send
	accessLife = time.Hour
)

// A happening is what happens to one replica when it comes to a point for the nth time.
type happening struct {
	replica int
	point   leasetest.Point
	n       int
	pause   time.Duration
	kill    bool
	err     error
	do      func(w *fleet)
}

// A fleet is some replicas of one session, at a server that rotates at every renewal and
// revokes at a reuse.
type fleet struct {
	t       *testing.T
	srv     *iamtest.Server
	store   *leasetest.Store
	prover  *dpop.Prover
	members []*member
	token   string    // the refresh token to begin with
	second  string    // and of another login
	login   time.Time // when the current one began

	mu     sync.Mutex
	script []happening
}

// A member is one replica.
type member struct {
	*leasetest.Replica
	*eventLog
	c      *oauth.Client
	skew   time.Duration
	visits map[leasetest.Point]int
	until  time.Time // the process is paused until then
}

// A flaw is what a fleet does wrong on purpose.
type flaw struct {
	name  string
	fault leasetest.Fault
	sign  bool // proofs are dated when they are sent
	hasty bool // a successor does not wait
	loose bool // the refresh token is not bound to a key
}

func fleetServer(t *testing.T, change ...func(*iamtest.Options)) *iamtest.Server {
	o := iamtest.Options{Rotation: iamtest.RotateAlways, AccessLife: accessLife, ProofMaxAge: proofAge}
	for _, f := range change {
		f(&o)
	}
	return iamtest.Start(t, o)
}

// newFleet is called in a bubble, with a server that was started outside of it.
func newFleet(t *testing.T, srv *iamtest.Server, n int, flaw flaw, script []happening, change ...func(*oauth.Config)) *fleet {
	t.Helper()
	w := &fleet{t: t, srv: srv, store: leasetest.New(leaseLife, time.Now, flaw.fault), prover: newProver(t)}
	thumbprint, err := w.prover.Thumbprint(5) // crypto.SHA256
	if err != nil {
		t.Fatal(err)
	}
	tokens := srv.Seed(2, func(_ int, s *iamtest.Seed) {
		if !flaw.loose {
			s.KeyThumbprint = thumbprint
		}
	})
	w.token, w.second = tokens[0], tokens[1]
	for i := range n {
		m := &member{eventLog: new(eventLog), visits: map[leasetest.Point]int{}}
		m.Replica = w.store.Replica(func(_ context.Context, p leasetest.Point) error { return w.at(i, p) })
		var base http.RoundTripper = arrives{srv.RoundTripper()}
		if flaw.sign {
			base = signsLate{w, base}
		}
		cfg := oauth.Config{
			Provider: srv.Provider(), ClientID: srv.ClientID, DPoP: w.prover, Store: m.Replica, Observer: m.observe,
			HTTPClient: &http.Client{Transport: m.Transport(base)},
			Clock:      func() time.Time { return time.Now().Add(m.skew) },
		}
		cfg.Provider.ProofLife = proofLife
		if flaw.hasty {
			cfg.Provider.ProofLife = time.Nanosecond
		}
		if flaw.loose {
			cfg.DPoP = nil
		}
		for _, f := range change {
			f(&cfg)
		}
		if m.c, err = oauth.New(cfg); err != nil {
			t.Fatal(err)
		}
		w.members = append(w.members, m)
	}
	if err := w.members[0].c.Import(t.Context(), oauth.Secret(w.token)); err != nil {
		t.Fatal(err)
	}
	for _, m := range w.members {
		clear(m.visits)
	}
	w.script, w.login = script, w.store.Session().Created
	return w
}

func (w *fleet) at(i int, p leasetest.Point) error {
	w.mu.Lock()
	m := w.members[i]
	m.visits[p]++
	for wait := time.Until(m.until); wait > 0; wait = time.Until(m.until) {
		w.mu.Unlock()
		time.Sleep(wait)
		w.mu.Lock()
	}
	at := slices.IndexFunc(w.script, func(h happening) bool {
		return h.replica == i && h.point == p && max(h.n, 1) == m.visits[p]
	})
	if at < 0 {
		w.mu.Unlock()
		return nil
	}
	h := w.script[at]
	w.script = slices.Delete(w.script, at, at+1)
	m.until = time.Now().Add(h.pause)
	w.mu.Unlock()
	time.Sleep(h.pause)
	if h.do != nil {
		h.do(w)
	}
	if h.kill {
		m.Kill()
	}
	return h.err
}

func (w *fleet) visited(i int, p leasetest.Point) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.members[i].visits[p]
}

// arrives delivers a request that was sent, even if the replica has given it up.
type arrives struct{ http.RoundTripper }

func (a arrives) RoundTrip(req *http.Request) (*http.Response, error) {
	return a.RoundTripper.RoundTrip(req.WithContext(context.WithoutCancel(req.Context())))
}

// signsLate makes the proof of a request anew when it is sent.
type signsLate struct {
	w    *fleet
	base http.RoundTripper
}

func (s signsLate) RoundTrip(req *http.Request) (*http.Response, error) {
	proof, err := s.w.prover.Proof(req.Context(), dpop.Claims{Method: req.Method, URL: req.URL.String()})
	if err != nil {
		return nil, err
	}
	req = req.Clone(req.Context())
	req.Header.Set("DPoP", proof)
	return s.base.RoundTrip(req)
}

// live lets replica 0 begin a renewal and the others ask every few seconds, for
// half an hour. Then everybody but the dead renews once more. It reports whether the
// session is alive.
func (w *fleet) live() bool {
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for i, m := range w.members {
		wg.Go(func() {
			for wait := time.Duration(i) * time.Second; ; wait = 5 * time.Second {
				select {
				case <-time.After(wait):
				case <-ctx.Done():
					return
				}
				_, _ = m.c.TokenSource().TokenContext(ctx)
			}
		})
	}
	wg.Wait()
	time.Sleep(2 * accessLife)
	alive := w.store.Session().Created.Equal(w.login)
	for i, m := range w.members {
		if _, err := m.c.TokenSource().Renew(w.t.Context()); err != nil && !errors.Is(err, leasetest.ErrDead) {
			w.t.Logf("replica %d: %v", i, err)
			alive = false
		}
		_ = m.c.TokenSource().Close()
	}
	return alive
}

// What happens to the holder of a lease, and whether the session survives it.
type fate struct {
	name   string
	script []happening
	lost   bool // committed at the server, and never saved
	server func(*iamtest.Options)
	client func(*oauth.Config)
	skew   time.Duration // of replica 0's clock
}

const (
	pastLease = leaseLife + 30*time.Second // and the proof is accepted still
	pastAll   = 5 * leaseLife              // and past the fence
)

// At the server, these points are after the exchange, and at the store before it.
func unsaved(p leasetest.Point) bool { return p == leasetest.Received || p == leasetest.Save }

func fates() []fate {
	var all []fate
	one := func(name string, lost bool, script ...happening) {
		all = append(all, fate{name: name, script: script, lost: lost})
	}
	for _, p := range leasetest.Points {
		one := one
		if p == leasetest.Leave { // without a new session
			inner := one
			one = func(name string, lost bool, script ...happening) {
				inner(name, lost, append(script, happening{point: leasetest.Begun, err: errDisk})...)
			}
		}
		one("death at "+string(p), unsaved(p), happening{point: p, kill: true})
		one("a pause past the lease at "+string(p), false, happening{point: p, pause: pastLease})
		one("a pause past lease and proof at "+string(p), unsaved(p), happening{point: p, pause: pastAll})
		one("an error at "+string(p), p == leasetest.Received, happening{point: p, err: errDisk})
	}
	one("a late begin, while a successor is at it", false,
		happening{point: leasetest.Begin, pause: leaseLife + 10*time.Second},
		happening{replica: 1, point: leasetest.Send, pause: 20 * time.Second})
	one("a late save, before a successor begins", false,
		happening{point: leasetest.Save, pause: fence + saveGrace + 10*time.Second},
		happening{replica: 1, point: leasetest.Begin, pause: 30 * time.Second})
	one("a late save, after another login", false,
		happening{point: leasetest.Save, pause: pastLease, do: func(w *fleet) {
			if err := w.members[1].c.Import(w.t.Context(), oauth.Secret(w.second)); err != nil {
				w.t.Error(err)
			}
			w.login = w.store.Session().Created
		}})
	one("a save without an acknowledgment, and a pause", false,
		happening{point: leasetest.Saved, pause: pastLease, err: errDisk})
	nonces := func(o *iamtest.Options) { o.Nonces, o.NonceEvery = iamtest.NoncesRequired, 1 }
	for _, pause := range []time.Duration{pastLease, pastAll} {
		all = append(all, fate{
			name: fmt.Sprintf("a pause of %v at a nonce challenge", pause), server: nonces,
			script: []happening{{point: leasetest.Begin, n: 2, pause: pause}},
		}, fate{
			name:   fmt.Sprintf("a pause of %v before a nonce is sent, at a server that judges nothing else", pause),
			server: func(o *iamtest.Options) { nonces(o); o.NonceLife, o.ProofMaxAge = proofLife, 24*time.Hour },
			client: func(c *oauth.Config) { c.Provider.ProofLife, c.Provider.NonceLife = 0, c.Provider.ProofLife },
			script: []happening{{point: leasetest.Send, n: 2, pause: pause}},
		}, fate{
			name: fmt.Sprintf("a pause of %v and a clock that is as much ahead", pause), skew: pause,
			script: []happening{{point: leasetest.Send, pause: pause}},
		}, fate{
			name: fmt.Sprintf("a pause of %v and a clock that is as much behind", pause), skew: -pause,
			script: []happening{{point: leasetest.Send, n: 2, pause: pause}},
		})
	}
	return all
}

// liveThrough reports whether the session survives.
func liveThrough(t *testing.T, f fate, flaw flaw) (alive bool, w *fleet) {
	srv := fleetServer(t, func(o *iamtest.Options) {
		if f.server != nil {
			f.server(o)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w = newFleet(t, srv, 2, flaw, slices.Clone(f.script), func(c *oauth.Config) {
			if f.client != nil && !flaw.hasty {
				f.client(c)
			}
		})
		w.members[0].skew = f.skew
		alive = w.live()
		if len(w.script) > 0 {
			t.Errorf("it did not come to %+v", w.script)
		}
	})
	return alive, w
}

func TestLease(t *testing.T) {
	for _, f := range fates() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			if alive, _ := liveThrough(t, f, flaw{}); alive == f.lost {
				t.Errorf("alive: %v, want %v", alive, !f.lost)
			}
		})
	}
}

// Each part of the protocol is needed: without it, the same test loses a session that
// it should not.
func TestLeaseWithoutAGuard(t *testing.T) {
	for _, flaw := range []flaw{
		{name: "blind write", fault: leasetest.BlindWrite},
		{name: "no look at the owner", fault: leasetest.NoOwner},
		{name: "no mark", fault: leasetest.NoMark},
		{name: "no look at the session at Begin", fault: leasetest.NoLineage},
		{name: "no clock of the store, and a replica's that is wrong", fault: leasetest.NoClock},
		{name: "proof dated at signing", sign: true},
		{name: "no wait of the successor", hasty: true},
	} {
		t.Run(flaw.name, func(t *testing.T) {
			t.Parallel()
			var lost []string
			for _, f := range fates() {
				if f.lost || f.server != nil && flaw.sign {
					continue
				}
				if alive, _ := liveThrough(t, f, flaw); !alive {
					lost = append(lost, f.name)
				}
			}
			if len(lost) == 0 {
				t.Error("no session was lost")
			}
			t.Logf("lost by %d: %q", len(lost), lost)
		})
	}
}

// begun lets replica 0 die with a request begun, and replica 1 read the session with a
// token that has left to live.
func begun(t *testing.T, srv *iamtest.Server, left time.Duration, flaw flaw, change ...func(*oauth.Config)) *fleet {
	w := newFleet(t, srv, 2, flaw, nil, change...)
	wantRenewed := func(i int) {
		if _, err := w.members[i].c.TokenSource().Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	wantRenewed(0)
	_, _ = w.members[1].c.TokenSource().Token()
	time.Sleep(accessLife - left)
	w.script = []happening{{point: leasetest.Begun, kill: true, n: w.members[0].visits[leasetest.Begun] + 1}}
	_, _ = w.members[0].c.TokenSource().Renew(t.Context())
	if w.store.Mark().IsZero() {
		t.Fatal("there is no mark")
	}
	return w
}

// While a successor waits, it serves the token in hand, and does not ask the store over
// and over.
func TestSuccessorServesWhileItWaits(t *testing.T) {
	srv := fleetServer(t)
	synctest.Test(t, func(t *testing.T) {
		w := begun(t, srv, 9*time.Minute, flaw{})
		start, requests := time.Now(), srv.Count(iamtest.EndpointToken)
		m := w.members[1]
		before := w.visited(1, leasetest.Take)
		ts := m.c.TokenSource()
		defer closeSource(t, m.c)
		for time.Since(start) < fence-time.Second {
			if _, err := ts.Token(); err != nil {
				t.Fatalf("after %v: %v", time.Since(start), err)
			}
			time.Sleep(time.Second)
		}
		if n := w.visited(1, leasetest.Take) - before; n != 1 {
			t.Errorf("it took the lease %d times", n)
		}
		if n := srv.Count(iamtest.EndpointToken) - requests; n != 0 {
			t.Errorf("%d requests", n)
		}
		failed := m.of(oauth.EventRenewFailed)
		var interrupted *oauth.InterruptedError
		if len(failed) != 1 || !errors.As(failed[0].Err, &interrupted) || !errors.Is(failed[0].Err, oauth.ErrOutcomeUnknown) || failed[0].ErrorKind() != "outcome_unknown" {
			t.Fatalf("events %+v", failed)
		}
		if got := interrupted.Until.Sub(start); got < fence || got > fence+leaseLife {
			t.Errorf("until %v", got)
		}
		if _, err := ts.Renew(t.Context()); !errors.As(err, &interrupted) {
			t.Errorf("Renew: %v", err)
		}
		time.Sleep(time.Until(interrupted.Until))
		_, _ = ts.Token()
		time.Sleep(30 * time.Second) // a former holder would have the time to save
		if n := srv.Count(iamtest.EndpointToken) - requests; n != 1 || len(m.of(oauth.EventRenewed)) != 1 {
			t.Errorf("%d requests, %+v", n, m.of(oauth.EventRenewed))
		}
	})
}

// A renewal that may take less time than a former holder has to save ends nevertheless.
func TestSuccessorWithAShortRenewTimeout(t *testing.T) {
	srv := fleetServer(t)
	synctest.Test(t, func(t *testing.T) {
		w := begun(t, srv, 0, flaw{}, func(c *oauth.Config) { c.RenewTimeout = saveGrace / 4 })
		ts := w.members[1].c.TokenSource()
		defer closeSource(t, w.members[1].c)
		time.Sleep(leaseLife)
		_, err := ts.Token()
		var interrupted *oauth.InterruptedError
		if !errors.As(err, &interrupted) {
			t.Fatal(err)
		}
		time.Sleep(time.Until(interrupted.Until))
		start := time.Now()
		if _, err := ts.Token(); err != nil {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		if d := time.Since(start); d < saveGrace {
			t.Errorf("after %v: the former holder had no time to save", d)
		}
	})
}

// The store is unavailable for longer than a successor waits. When it is back, the holder,
// who is alive, saves the new session before anybody sends the former refresh token.
func TestStoreIsAwayForLongerThanTheFence(t *testing.T) {
	srv := fleetServer(t)
	synctest.Test(t, func(t *testing.T) {
		var away atomic.Bool
		w := newFleet(t, srv, 2, flaw{}, nil, func(c *oauth.Config) { c.Store = &awayStore{c.Store.(*leasetest.Replica), &away} })
		for _, m := range w.members {
			if _, err := m.c.TokenSource().Renew(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		w.script = []happening{{point: leasetest.Send, n: w.visited(0, leasetest.Send) + 1, do: func(*fleet) { away.Store(true) }}}
		renewed, err := w.members[0].c.TokenSource().Renew(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(fence + 10*time.Minute)
		away.Store(false)
		got, err := w.members[1].c.TokenSource().Renew(t.Context())
		if err != nil {
			t.Fatalf("the successor: %v", err)
		}
		if got.AccessToken == renewed.AccessToken {
			t.Error("the successor did not renew")
		}
		for i, m := range w.members {
			if _, err := m.c.TokenSource().Renew(t.Context()); err != nil {
				t.Errorf("replica %d: %v", i, err)
			}
			closeSource(t, m.c)
		}
	})
}

// awayStore is a store that fails while it is away.
type awayStore struct {
	*leasetest.Replica
	away *atomic.Bool
}

func (s *awayStore) Load(ctx context.Context) (oauth.Session, error) {
	if s.away.Load() {
		return oauth.Session{}, errLine
	}
	return s.Replica.Load(ctx)
}

func (s *awayStore) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	return s.UpdateLease(ctx, func(_ oauth.Lease, stored oauth.Session) (oauth.Session, error) { return fn(stored) })
}

func (s *awayStore) UpdateLease(ctx context.Context, fn func(oauth.Lease, oauth.Session) (oauth.Session, error)) error {
	if s.away.Load() {
		return errLine
	}
	lost := false
	err := s.Replica.UpdateLease(ctx, func(l oauth.Lease, stored oauth.Session) (oauth.Session, error) {
		next, err := fn(l, stored)
		if s.away.Load() {
			lost = true
			return stored, oauth.ErrOutcomeUnknown // the mark stays
		}
		return next, err
	})
	if lost {
		return errLine
	}
	return err
}

// If nothing keeps an old request from being accepted, a successor waits as long as
// the token in hand allows.
func TestSuccessorWithoutAFence(t *testing.T) {
	for name, life := range map[string]time.Duration{"unknown ProofLife": 0, "no key": proofLife} {
		t.Run(name, func(t *testing.T) {
			srv := fleetServer(t, func(o *iamtest.Options) { o.AllowUnbound = true })
			synctest.Test(t, func(t *testing.T) {
				const left = 9 * time.Minute
				w := begun(t, srv, left, flaw{loose: life > 0}, func(c *oauth.Config) { c.Provider.ProofLife = life })
				requests := srv.Count(iamtest.EndpointToken)
				ts := w.members[1].c.TokenSource()
				defer closeSource(t, w.members[1].c)
				for range int((left - time.Minute) / time.Second) {
					if _, err := ts.Token(); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Second)
				}
				if n := srv.Count(iamtest.EndpointToken) - requests; n != 0 {
					t.Errorf("%d requests", n)
				}
				time.Sleep(time.Minute)
				if _, err := ts.Token(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// What a former holder saves after all is found by a successor that has no token,
// before the end of the wait.
func TestSuccessorFindsALateSave(t *testing.T) {
	srv := fleetServer(t)
	synctest.Test(t, func(t *testing.T) {
		w := newFleet(t, srv, 2, flaw{}, []happening{{point: leasetest.Save, pause: pastLease}})
		start := time.Now()
		go func() { _, _ = w.members[0].c.TokenSource().Token() }()
		time.Sleep(leaseLife + time.Second)
		var got time.Duration
		for got == 0 && time.Since(start) < 10*time.Minute {
			if _, err := w.members[1].c.TokenSource().Token(); err == nil {
				got = time.Since(start)
			} else if !errors.Is(err, oauth.ErrOutcomeUnknown) {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if got < pastLease || got > pastLease+10*time.Second {
			t.Errorf("after %v", got)
		}
		if len(w.members[1].of(oauth.EventAdopted)) != 1 {
			t.Errorf("%+v", w.members[1].events)
		}
		for _, m := range w.members {
			closeSource(t, m.c)
		}
	})
}

// A session that a login elsewhere has overtaken is given up in so many words.
func TestLateSessionIsNotLostSilently(t *testing.T) {
	srv := fleetServer(t)
	synctest.Test(t, func(t *testing.T) {
		w := newFleet(t, srv, 2, flaw{}, nil)
		w.script = []happening{
			{point: leasetest.Begun, pause: 25 * time.Second}, {point: leasetest.Received, pause: 20 * time.Second},
			{point: leasetest.Save, do: func(w *fleet) { // when the lease has ended
				if err := w.members[1].c.Import(t.Context(), oauth.Secret(w.second)); err != nil {
					t.Error(err)
				}
			}},
		}
		tok, err := w.members[0].c.TokenSource().Token()
		if err != nil || tok == nil {
			t.Fatal(err)
		}
		time.Sleep(leaseLife)
		m := w.members[0]
		failed := m.of(oauth.EventSaveFailed)
		if len(failed) != 1 || !errors.Is(failed[0].Err, oauth.ErrLeaseLost) {
			t.Errorf("%+v", failed)
		}
		if len(m.of(oauth.EventReplaced)) != 1 {
			t.Errorf("%+v", m.events)
		}
		if got := w.store.Session(); got.RefreshToken.Reveal() == w.token || got.Created.Equal(w.login) {
			t.Errorf("stored %+v", got)
		}
		for _, m := range w.members {
			closeSource(t, m.c)
		}
	})
}

// The proof says when the lease was looked at, by the server's clock, not when it
// was signed or sent.
func TestProofIsDatedAtTheLease(t *testing.T) {
	for skew, n := range map[time.Duration]int{0: 1, time.Hour: 1, -time.Hour: 2} { // the nth proof is accepted
		t.Run(skew.String(), func(t *testing.T) {
			srv := fleetServer(t)
			synctest.Test(t, func(t *testing.T) {
				const pause = 20 * time.Second
				w := newFleet(t, srv, 1, flaw{}, []happening{
					{point: leasetest.Begun, n: n, pause: pause}, {point: leasetest.Send, n: n, pause: pause},
				})
				w.members[0].skew = skew
				if _, err := w.members[0].c.TokenSource().Token(); err != nil {
					t.Fatal(err)
				}
				closeSource(t, w.members[0].c)
				all := srv.Requests()
				last := all[len(all)-1]
				if age := last.Time.Sub(last.Proof.IssuedAt); age < 2*pause-time.Second || age > 2*pause+2*time.Second {
					t.Errorf("the proof was %v old", age)
				}
			})
		})
	}
}

// A sender whose request may take longer than the lease holds does not send.
func TestLeaseThatEndsTooSoon(t *testing.T) {
	for _, pause := range []time.Duration{0, leaseLife - 29*time.Second, leaseLife - 31*time.Second} {
		t.Run(pause.String(), func(t *testing.T) {
			srv := fleetServer(t)
			synctest.Test(t, func(t *testing.T) {
				w := newFleet(t, srv, 1, flaw{}, []happening{{point: leasetest.Begun, pause: pause}}, func(c *oauth.Config) {
					if pause == 0 {
						c.RequestTimeout = leaseLife + 1
					}
				})
				_, err := w.members[0].c.TokenSource().Token()
				var store *oauth.StoreError
				if sends := pause == leaseLife-31*time.Second; sends != (err == nil) || !sends && !errors.As(err, &store) {
					t.Errorf("%v", err)
				}
				if !w.store.Mark().IsZero() {
					t.Error("a mark stays, and nothing was sent")
				}
				closeSource(t, w.members[0].c)
			})
		})
	}
}

// After a response that was lost, the same replica waits as a successor does.
func TestLostResponseUnderALease(t *testing.T) {
	srv := fleetServer(t)
	synctest.Test(t, func(t *testing.T) {
		w := newFleet(t, srv, 1, flaw{}, []happening{{point: leasetest.Send, err: errLine}})
		start := time.Now()
		ts := w.members[0].c.TokenSource()
		_, err := ts.Token()
		var interrupted *oauth.InterruptedError
		if !errors.As(err, &interrupted) || !errors.Is(err, errLine) || !errors.Is(err, oauth.ErrOutcomeUnknown) {
			t.Fatalf("%v", err)
		}
		if got := interrupted.Until.Sub(start); got != fence {
			t.Errorf("until %v", got)
		}
		if w.store.Mark().IsZero() {
			t.Error("there is no mark")
		}
		time.Sleep(fence - 1)
		if _, err := ts.Token(); !errors.As(err, &interrupted) {
			t.Errorf("%v", err)
		}
		time.Sleep(time.Nanosecond)
		if _, err := ts.Token(); err != nil {
			t.Error(err)
		}
		closeSource(t, w.members[0].c)
	})
}

// Each request begins with a look at the lease, those for a nonce and after a 503 too.
func TestEachRequestBegins(t *testing.T) {
	srv := fleetServer(t, func(o *iamtest.Options) { o.Nonces = iamtest.NoncesRequired })
	srv.Inject(iamtest.EndpointToken, iamtest.HTTPStatus(http.StatusServiceUnavailable, 0), 1)
	synctest.Test(t, func(t *testing.T) {
		w := newFleet(t, srv, 1, flaw{}, nil)
		if _, err := w.members[0].c.TokenSource().Token(); err != nil {
			t.Fatal(err)
		}
		if begun, sent := w.visited(0, leasetest.Begun), w.visited(0, leasetest.Send); begun != 3 || sent != 3 {
			t.Errorf("%d requests were begun, and %d sent", begun, sent)
		}
		closeSource(t, w.members[0].c)
	})
}
