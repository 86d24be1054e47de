// Package leasetest is an [oauth.LeaseStore] in memory whose replicas can be paused,
// killed and cut off at every step, and what every other one must do as well.
package leasetest

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
)

// A Point is a moment between two steps of a replica.
type Point string

// The points, in their order.
const (
	Load     Point = "load"     // before the store is read
	Take     Point = "take"     // before the lease is taken
	Taken    Point = "taken"    // with the lease, before fn is called
	Begin    Point = "begin"    // before the mark is set
	Begun    Point = "begun"    // the mark is set
	Send     Point = "send"     // the request is signed, and the server does not have it
	Received Point = "received" // the server has processed it
	Save     Point = "save"     // before the new session is stored
	Saved    Point = "saved"    // the new session is stored
	Leave    Point = "leave"    // before a lease is given back without a new session
)

// Points are all of them.
var Points = []Point{Load, Take, Taken, Begin, Begun, Send, Received, Save, Saved, Leave}

// A Fault is a mistake that a store can have.
type Fault int

// What a store can lack.
const (
	BlindWrite Fault = iota + 1 // what fn returns is stored whatever is there
	NoOwner                     // Begin and the end of fn take any lease for their own
	NoMark                      // Begin sets no mark
	NoLineage                   // Begin does not look at the session
	NoClock                     // Begin does not say when it was; no mistake if clocks are right
)

// ErrDead is what everything returns to a replica that was killed.
var ErrDead = errors.New("leasetest: this replica was killed")

// A Store has one session. Its replicas share it.
type Store struct {
	lease time.Duration
	now   func() time.Time
	fault Fault

	mu      sync.Mutex
	stored  func(oauth.Session)
	session oauth.Session
	fence   uint64 // of the newest lease
	until   time.Time
	mark    time.Time
}

// New returns a store without a session. Its leases last for lease, by the clock now.
func New(lease time.Duration, now func() time.Time, fault Fault) *Store {
	return &Store{lease: lease, now: now, fault: fault}
}

// OnStore sets what is called with every session that is stored, under the store's lock.
func (s *Store) OnStore(f func(oauth.Session)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stored = f
}

// Session is what is stored.
func (s *Store) Session() oauth.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return clone(s.session)
}

// Mark is the mark of the request whose outcome is not known; the zero time without one.
func (s *Store) Mark() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mark
}

// A Replica is one process's access to the store. It implements [oauth.LeaseStore].
type Replica struct {
	*Store

	// At, if set, is called at every point. It may wait, which is a pause of the
	// process. With an error, the step before or after the point fails.
	At func(ctx context.Context, p Point) error

	dead atomic.Bool
}

// Replica returns one more process's access.
func (s *Store) Replica(at func(ctx context.Context, p Point) error) *Replica {
	return &Replica{Store: s, At: at}
}

// Kill ends the process: nothing that it does has an effect any more.
func (r *Replica) Kill() { r.dead.Store(true) }

func (r *Replica) at(ctx context.Context, p Point) error {
	var err error
	if r.At != nil && !r.dead.Load() {
		err = r.At(ctx, p)
	}
	if r.dead.Load() {
		return ErrDead
	}
	return err
}

// Load implements [oauth.Store].
func (r *Replica) Load(ctx context.Context) (oauth.Session, error) {
	if err := r.at(ctx, Load); err != nil {
		return oauth.Session{}, err
	}
	if err := ctx.Err(); err != nil {
		return oauth.Session{}, err
	}
	if s := r.Session(); !s.IsZero() {
		return s, nil
	}
	return oauth.Session{}, oauth.ErrNoSession
}

// Update implements [oauth.Store].
func (r *Replica) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	return r.UpdateLease(ctx, func(_ oauth.Lease, s oauth.Session) (oauth.Session, error) { return fn(s) })
}

// UpdateLease implements [oauth.LeaseStore].
func (r *Replica) UpdateLease(ctx context.Context, fn func(oauth.Lease, oauth.Session) (oauth.Session, error)) error {
	if err := r.at(ctx, Take); err != nil {
		return err
	}
	l, err := r.take(ctx)
	if err != nil {
		return err
	}
	if err := r.at(ctx, Taken); err != nil {
		return errors.Join(err, r.leave(ctx, l, false))
	}
	next, err := fn(l, clone(l.session))
	if err != nil {
		_ = r.leave(ctx, l, errors.Is(err, oauth.ErrOutcomeUnknown))
		return err
	}
	if same(next, l.session) {
		return r.leave(ctx, l, false)
	}
	if err := r.at(ctx, Save); err != nil {
		return err
	}
	if err := r.save(l, next); err != nil {
		return err
	}
	return r.at(ctx, Saved)
}

// poll is how often a lease is asked for.
const poll = 300 * time.Millisecond

func (r *Replica) take(ctx context.Context) (*lease, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if r.dead.Load() {
			return nil, ErrDead
		}
		if l := r.tryTake(); l != nil {
			return l, nil
		}
		timer := time.NewTimer(poll)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

func (r *Replica) tryTake() *lease {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if now.Before(r.until) {
		return nil
	}
	r.fence++
	r.until = now.Add(r.lease)
	l := &lease{r: r, fence: r.fence, session: clone(r.session), former: r.mark}
	if !l.former.IsZero() {
		l.ago = now.Sub(l.former)
	}
	return l
}

// holds reports whether nobody has taken the lease since.
func (s *Store) holds(l *lease) bool { return s.fence == l.fence || s.fault == NoOwner }

func (r *Replica) save(l *lease, next oauth.Session) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.session.RefreshToken != l.session.RefreshToken && r.fault != BlindWrite {
		return oauth.ErrLeaseLost
	}
	r.session, r.mark = clone(next), time.Time{}
	if r.stored != nil {
		r.stored(clone(next))
	}
	if r.holds(l) {
		r.until = time.Time{}
	}
	return nil
}

func (r *Replica) leave(ctx context.Context, l *lease, unknown bool) error {
	if err := r.at(ctx, Leave); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.holds(l) {
		return nil
	}
	r.until = time.Time{}
	if !unknown {
		r.mark = l.former
	}
	return nil
}

// lease implements [oauth.Lease].
type lease struct {
	r       *Replica
	fence   uint64
	session oauth.Session
	former  time.Time // the former mark
	ago     time.Duration
}

// Begin implements [oauth.Lease].
func (l *lease) Begin(ctx context.Context) (marked time.Time, holds time.Duration, err error) {
	if err := l.r.at(ctx, Begin); err != nil {
		return time.Time{}, 0, err
	}
	if err := ctx.Err(); err != nil {
		return time.Time{}, 0, err
	}
	s := l.r.Store
	s.mu.Lock()
	now := s.now()
	if !s.holds(l) || s.session.RefreshToken != l.session.RefreshToken && s.fault != NoLineage {
		s.mu.Unlock()
		return time.Time{}, 0, oauth.ErrLeaseLost
	}
	s.until = now.Add(s.lease)
	if s.fault != NoMark {
		s.mark = now
	}
	s.mu.Unlock()
	if s.fault == NoClock {
		now = time.Time{}
	}
	return now, s.lease, l.r.at(ctx, Begun)
}

// Interrupted implements [oauth.Lease].
func (l *lease) Interrupted() (ago time.Duration, interrupted bool) {
	return l.ago, !l.former.IsZero()
}

// Transport is the replica's way to a server.
func (r *Replica) Transport(base http.RoundTripper) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		if err := r.at(req.Context(), Send); err != nil {
			return nil, err
		}
		resp, err := base.RoundTrip(req)
		if cut := r.at(req.Context(), Received); cut != nil {
			if err == nil {
				_ = resp.Body.Close()
			}
			return nil, cut
		}
		return resp, err
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func clone(s oauth.Session) oauth.Session {
	s.Scopes = slices.Clone(s.Scopes)
	return s
}

// same reports whether two sessions are stored as the same bytes.
func same(a, b oauth.Session) bool {
	x, _ := a.Encode()
	y, _ := b.Encode()
	return bytes.Equal(x, y)
}
