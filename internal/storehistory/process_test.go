//go:build linux && !race

package storehistory

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/oauth2"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
)

// partVariable carries its part to a process.
const partVariable = "YCAUTH_STOREHISTORY_PART"

// A part is what a process is to do.
type part struct {
	Subject  string
	Place    string
	Server   string
	Record   string // a file
	Name     string
	Role     role
	Slot     int // the process takes the place of those with the same one
	Seed     uint64
	Stream   uint64 // of random numbers
	Sessions int
	Logins   int   // per mille of the calls
	Until    int64 // the end of what it does
	Skew     time.Duration
}

// A role is what a process does with all sessions at the same time.
type role string

const (
	toBegin  role = "begin"  // the first login
	toLive   role = "live"   // use them, with disturbances, until the end
	toSettle role = "settle" // renew each once, and give up at the end
)

// A replica is the state of such a process.
type replica struct {
	part
	subject subject
	record  *recorder
	d       *disturber
	prover  *dpop.Prover
	store   func(session int) (oauth.Store, error)
	base    http.RoundTripper
	ids     atomic.Int64
	signal  atomic.Pointer[signal]
}

// A signal comes at some step of a renewal.
type signal struct {
	point point
	stop  time.Duration // SIGSTOP for so long; SIGKILL if 0
}

// A point is a moment between two steps.
type point string

const (
	pointAny      point = "any moment"
	pointTaken    point = "taken"    // with the lock or lease
	pointBegun    point = "begun"    // with the mark
	pointSend     point = "send"     // the request is signed and the lease was looked at for the last time
	pointReceived point = "received" // with the response
	pointSave     point = "save"     // before the session is stored
)

var points = []point{pointAny, pointTaken, pointBegun, pointSend, pointSend, pointReceived, pointSave}

// child plays the part of a process that a test started. In another process it returns at once.
func child() {
	value, ok := os.LookupEnv(partVariable)
	if !ok {
		return
	}
	go func() { // the test has ended
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	if err := play(value); err != nil {
		fmt.Fprintln(os.Stderr, "storehistory:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func play(value string) error {
	r := &replica{}
	if err := json.Unmarshal([]byte(value), &r.part); err != nil {
		return err
	}
	for _, s := range slices.Concat(subjects, controls, []subject{correct}) {
		if s.name == r.Subject {
			r.subject = s
		}
	}
	var err error
	if r.record, err = newRecorder(r.Record); err != nil {
		return err
	}
	disturbed := r.Until
	if r.Role != toLive {
		disturbed = 0
	}
	r.d = newDisturber(r.Seed, r.Stream, disturbed)
	r.d.broken = func() { r.note(dropped, "database") }
	if r.prover, err = dpop.New(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))); err != nil {
		return err
	}
	r.base = &http.Transport{MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Second}
	if r.store, err = r.subject.open(r.Place, r.d); err != nil {
		return err
	}
	r.note(started, fmt.Sprint("clock off by ", r.Skew))
	do := map[role]func(int) error{toBegin: r.begin, toLive: r.live, toSettle: r.settle}[r.Role]
	if r.Role == toLive {
		go r.disturb()
	}
	var wg sync.WaitGroup
	errs := make([]error, r.Sessions)
	for session := range r.Sessions {
		wg.Go(func() { errs[session] = do(session) })
	}
	wg.Wait()
	r.note(ended, "")
	return errors.Join(errs...)
}

func (r *replica) id() string { return fmt.Sprintf("%s.%d", r.Name, r.ids.Add(1)) }

func (r *replica) note(k kind, text string) {
	r.record.write(event{Kind: k, Session: -1, Note: text})
}

// disturb arms one signal after the other.
func (r *replica) disturb() {
	rng := rand.New(rand.NewPCG(r.Seed, r.Stream+1<<32))
	longest := fence + grace + leaseTime
	for {
		between := 4000
		if r.subject.control != nil {
			between = 500
		}
		time.Sleep(time.Duration(500+rng.IntN(between)) * time.Millisecond)
		s := signal{point: points[rng.IntN(len(points))]}
		left := time.Duration(r.Until - now())
		switch n := rng.IntN(100); {
		case n < 35:
		case n < 45:
			s.stop = time.Duration(200+rng.IntN(2000)) * time.Millisecond
		case n < 75 || r.subject.lease == 0:
			s.stop = leaseTime + leaseTime/8 + time.Duration(rng.IntN(4000))*time.Millisecond
		default:
			s.stop = longest + time.Duration(rng.IntN(3000))*time.Millisecond
		}
		if c := r.subject.control; c != nil {
			if r.Slot >= 2 {
				return
			}
			s = c.signal
			s.stop += time.Duration(rng.IntN(2000)) * time.Millisecond
		}
		switch {
		case left < 0:
			return
		case s.stop > left+2*time.Second:
		case s.point == pointAny:
			r.raise(s)
		default:
			r.signal.CompareAndSwap(nil, &s)
		}
	}
}

// at is called at each point.
func (r *replica) at(p point) {
	r.d.late()
	if c := r.subject.control; c != nil && p == c.signal.point && r.d.chance(c.stalls) {
		time.Sleep(c.signal.stop + time.Duration(r.d.any(2000))*time.Millisecond)
	}
	if s := r.signal.Load(); s != nil && s.point == p && r.signal.CompareAndSwap(s, nil) && now() < r.Until {
		r.raise(*s)
	}
}

func (r *replica) raise(s signal) {
	if s.stop == 0 {
		r.note(killed, string(s.point))
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	id := r.id()
	r.record.write(event{Kind: stopped, Session: -1, Op: id, Note: fmt.Sprintf("%s, for %v", s.point, s.stop)})
	fmt.Println("stop", int64(s.stop)) // the test sends SIGCONT
	_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	// On a busy machine it takes a while until the signal arrives. That this has ended must not
	// be recorded before.
	time.Sleep(s.stop)
	r.record.write(event{Kind: continued, Session: -1, Op: id})
}

// A user is a client of one session.
type user struct {
	r       *replica
	session int
	client  *oauth.Client
	update  atomic.Pointer[string] // that makes requests
	seen    atomic.Uint64          // families that were read, a bit for each
}

func (r *replica) user(session int) (*user, error) {
	s := &user{r: r, session: session}
	store, err := r.store(session)
	if err != nil {
		return nil, err
	}
	s.client, err = s.newClient(store)
	return s, err
}

func (s *user) newClient(store oauth.Store) (*oauth.Client, error) {
	cfg := oauth.Config{
		Provider: oauth.Provider{
			Name: "test", TokenURL: s.r.Server + "/token", AuthURL: s.r.Server + "/authorize",
			Scopes: []string{"openid"}, ProofLife: proofLife,
		},
		ClientID: "client", DPoP: s.r.prover, HTTPClient: &http.Client{Transport: s},
		RequestTimeout: requestTimeout, RenewTimeout: 12 * time.Second,
		Clock: func() time.Time { return time.Now().Add(s.r.Skew) },
	}
	cfg.Store = &recordingStore{store, s}
	if leased, ok := store.(oauth.LeaseStore); ok {
		cfg.Store = &recordingLeaseStore{recordingStore{store, s}, leased}
	}
	return oauth.New(cfg)
}

// begin is the first login.
func (r *replica) begin(session int) error {
	s, err := r.user(session)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return errors.Join(s.login(ctx), s.client.TokenSource().Close())
}

// live uses a session as a program does, until the end.
func (r *replica) live(session int) error {
	rng := rand.New(rand.NewPCG(r.Seed, r.Stream<<16+uint64(session)))
	s, err := r.user(session)
	if err != nil {
		return err
	}
	think := 2400
	if r.subject.control != nil {
		think /= 4
	}
	for now() < r.Until {
		time.Sleep(time.Duration(rng.IntN(think)) * time.Millisecond)
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(500+rng.IntN(6000))*time.Millisecond)
		switch n := rng.IntN(1000); {
		case n < r.Logins:
			err = s.login(ctx)
		case n < 750:
			_, err = s.client.TokenSource().TokenContext(ctx)
		case n < 900:
			_, err = s.client.TokenSource().Renew(ctx)
		case n < 950:
			_, err = s.client.Session(ctx)
		default:
			_ = s.client.TokenSource().Close()
			s, err = r.user(session)
		}
		if errors.Is(err, oauth.ErrLoginRequired) {
			r.record.write(event{Kind: loginRequired, Session: session, Seen: s.seen.Load(), Note: err.Error()})
			if rng.IntN(3) == 0 {
				_ = s.login(ctx)
			}
		}
		cancel()
	}
	_ = s.client.TokenSource().Close()
	return nil
}

// login begins another family.
func (s *user) login(ctx context.Context) error {
	form := url.Values{"session": {strconv.Itoa(s.session)}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.r.Server+"/login", strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := s.r.base.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return err
	}
	return s.client.Import(ctx, oauth.Secret(body))
}

// settle renews a session once, or finds that it has ended.
func (r *replica) settle(session int) error {
	s, err := r.user(session)
	if err != nil {
		return err
	}
	for {
		var tok *oauth2.Token
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		tok, err = s.client.TokenSource().Renew(ctx)
		cancel()
		switch {
		case err == nil && tok != nil:
			r.record.write(event{Kind: settled, Session: session, Note: "renewed"})
			return s.client.TokenSource().Close()
		case errors.Is(err, oauth.ErrLoginRequired):
			r.record.write(event{Kind: loginRequired, Session: session, Seen: s.seen.Load(), Note: err.Error()})
			r.record.write(event{Kind: settled, Session: session, Note: "ended"})
			return s.client.TokenSource().Close()
		case now() > r.Until:
			r.record.write(event{Kind: settled, Session: session, Result: failure, Note: fmt.Sprint(err)})
			return nil
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// read is told of a session that the client gets from its store.
func (s *user) read(session oauth.Session) token {
	t := tokenOf(session)
	if t != none {
		s.seen.Or(1 << t.Family)
	}
	return t
}

const idHeader = "Request-Id"

// RoundTrip implements [http.RoundTripper].
func (s *user) RoundTrip(req *http.Request) (*http.Response, error) {
	id := s.r.id()
	update := ""
	if u := s.update.Load(); u != nil {
		update = *u
	}
	req = req.Clone(req.Context())
	req.Header.Set(idHeader, id)
	s.r.at(pointSend)
	if c := s.r.subject.control; c != nil && c.signing {
		proof, err := s.r.prover.Proof(req.Context(), dpop.Claims{Method: req.Method, URL: req.URL.String()})
		if err != nil {
			return nil, err
		}
		req.Header.Set("DPoP", proof)
		// The pause is between this and the server. Otherwise the request would end with its
		// time, most often, and the mistake would show after some more pauses only.
		req = req.WithContext(context.WithoutCancel(req.Context()))
	}
	s.r.record.write(event{Kind: sends, Session: s.session, Op: id, Update: update})
	resp, err := s.r.base.RoundTrip(req)
	e := event{Kind: received, Session: s.session, Op: id, Update: update}
	if err == nil {
		var body []byte
		body, err = io.ReadAll(resp.Body)
		resp.Body.Close()
		resp.Body = io.NopCloser(bytes.NewReader(body))
		e.Note = resp.Status
	}
	if err != nil {
		e.Result, e.Note = failure, err.Error()
	}
	s.r.record.write(e)
	s.r.at(pointReceived)
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// A recordingStore records what a store does.
type recordingStore struct {
	store oauth.Store
	user  *user
}

func tokenOf(s oauth.Session) token {
	if s.IsZero() {
		return none
	}
	_, t, err := parseToken(s.RefreshToken.Reveal())
	if err != nil {
		return none
	}
	return t
}

func (w *recordingStore) write(e event) {
	e.Session = w.user.session
	w.user.r.record.write(e)
}

// Interrupted is what stores with locks have for the renewal.
func (w *recordingStore) Interrupted() (time.Time, bool) {
	store, ok := w.store.(interface{ Interrupted() (time.Time, bool) })
	if !ok {
		return time.Time{}, false
	}
	return store.Interrupted()
}

// Load implements [oauth.Store].
func (w *recordingStore) Load(ctx context.Context) (oauth.Session, error) {
	id := w.user.r.id()
	w.write(event{Kind: loads, Op: id})
	s, err := w.store.Load(ctx)
	e := event{Kind: loaded, Op: id, Token: w.user.read(s)}
	if err != nil && !errors.Is(err, oauth.ErrNoSession) {
		e.Result, e.Note = failure, err.Error()
	}
	w.write(e)
	return s, err
}

// Update implements [oauth.Store].
func (w *recordingStore) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	return w.update(func(update string, inside func(oauth.Session, func() (oauth.Session, error)) (oauth.Session, error)) error {
		return w.store.Update(ctx, func(s oauth.Session) (oauth.Session, error) {
			w.user.update.Store(&update)
			return inside(s, func() (oauth.Session, error) { return fn(s) })
		})
	})
}

func (w *recordingStore) update(do func(update string, inside func(oauth.Session, func() (oauth.Session, error)) (oauth.Session, error)) error) error {
	u := w.user.r.id()
	w.write(event{Kind: takes, Update: u})
	err := do(u, func(s oauth.Session, fn func() (oauth.Session, error)) (oauth.Session, error) {
		base := w.user.read(s)
		w.write(event{Kind: took, Update: u, Token: base})
		w.user.r.at(pointTaken)
		next, err := fn()
		if err != nil || tokenOf(next) == base {
			w.write(event{Kind: leaves, Update: u})
			return next, err
		}
		w.user.r.at(pointSave)
		w.write(event{Kind: saves, Update: u, Token: base, Next: tokenOf(next)})
		return next, nil
	})
	e := event{Kind: left, Update: u}
	switch {
	case errors.Is(err, oauth.ErrLeaseLost):
		e.Result, e.Note = lost, err.Error()
	case err != nil:
		e.Result, e.Note = failure, err.Error()
	}
	w.write(e)
	return err
}

// A recordingLeaseStore is that for a store with leases.
type recordingLeaseStore struct {
	recordingStore

	leased oauth.LeaseStore
}

// UpdateLease implements [oauth.LeaseStore].
func (w *recordingLeaseStore) UpdateLease(ctx context.Context, fn func(oauth.Lease, oauth.Session) (oauth.Session, error)) error {
	return w.update(func(update string, inside func(oauth.Session, func() (oauth.Session, error)) (oauth.Session, error)) error {
		return w.leased.UpdateLease(ctx, func(l oauth.Lease, s oauth.Session) (oauth.Session, error) {
			return inside(s, func() (oauth.Session, error) {
				return fn(&recordingLease{Lease: l, w: w, update: update, base: tokenOf(s)}, s)
			})
		})
	})
}

// Update implements [oauth.Store].
func (w *recordingLeaseStore) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	return w.UpdateLease(ctx, func(_ oauth.Lease, s oauth.Session) (oauth.Session, error) { return fn(s) })
}

type recordingLease struct {
	oauth.Lease

	w      *recordingLeaseStore
	update string
	base   token
}

// Begin implements [oauth.Lease].
func (l *recordingLease) Begin(ctx context.Context) (time.Time, time.Duration, error) {
	id := l.w.user.r.id()
	l.w.write(event{Kind: begins, Op: id, Update: l.update, Token: l.base})
	marked, holds, err := l.Lease.Begin(ctx)
	e := event{Kind: begun, Op: id, Update: l.update, Token: l.base}
	switch {
	case errors.Is(err, oauth.ErrLeaseLost):
		e.Result, e.Note = lost, err.Error()
	case err != nil:
		e.Result, e.Note = failure, err.Error()
	}
	l.w.write(e)
	l.w.user.update.Store(&l.update)
	l.w.user.r.at(pointBegun)
	return marked, holds, err
}
