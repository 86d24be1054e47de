//go:build linux && !race

package storehistory

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/internal/filelock"
	"github.com/ycauth/ycauth-go/oauth"
)

// A mistake of a control.
type mistake int

const (
	noMistake  mistake = iota
	ttlLock            // a lock that ends after a time, and what fn returns is stored whatever is there
	anyRelease         // a lease is given back without a look at its owner
	noLineage          // nobody looks at the session that is replaced
)

// correct is a store without a mistake.
var correct = inRow("a lease in a file", noMistake, nil)

// controls are stores and clients with known mistakes.
var controls = []subject{
	inRow("a lock with a TTL and a blind write", ttlLock, &control{signal: signal{pointSend, leaseTime}, unfenced: true}),
	// Whoever wakes up without its lease has to meet another one who has it.
	inRow("a release without a look at the owner", anyRelease, &control{
		signal: signal{pointTaken, leaseTime + time.Second/2}, delay: 700 * time.Millisecond, stalls: 200,
	}),
	// A login replaces the session meanwhile.
	inRow("no look at the lineage", noLineage, &control{
		signal: signal{pointSave, leaseTime + 2*time.Second}, logins: 150,
	}),
	inRow("proofs dated when they are sent", noMistake, &control{
		signing: true, signal: signal{pointSend, fence + grace + leaseTime},
	}),
}

func inRow(name string, m mistake, c *control) subject {
	return subject{
		name: name, lease: leaseTime, control: c,
		start: func(t *testing.T) string { t.Helper(); return t.TempDir() },
		open: func(place string, d *disturber) (func(int) (oauth.Store, error), error) {
			return func(session int) (oauth.Store, error) {
				path := filepath.Join(place, fmt.Sprintf("s%d", session))
				s := &rowStore{path: path, lock: filelock.New(path + ".lock"), mistake: m, d: d}
				if m == ttlLock {
					return struct{ oauth.Store }{s}, nil // it has no lease to speak of
				}
				return s, nil
			}, nil
		},
	}
}

// A row is what a database would have of a session.
type row struct {
	Session json.RawMessage
	Fence   int64
	Until   time.Time // the end of the lease
	Mark    time.Time
}

// A rowStore has the row in a file. Each step is short, and alone.
type rowStore struct {
	path    string
	lock    *filelock.Lock
	mistake mistake
	d       *disturber
}

// do changes the row in one step.
func (s *rowStore) do(ctx context.Context, change func(*row) error) error {
	s.d.slow()
	release, err := s.lock.Acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	var r row
	data, err := os.ReadFile(s.path)
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := change(&r); err != nil {
		return err
	}
	next, err := json.Marshal(r)
	if err != nil || bytes.Equal(next, data) {
		return err
	}
	if err := os.WriteFile(s.path+".new", next, 0o600); err != nil {
		return err
	}
	return os.Rename(s.path+".new", s.path)
}

func decode(raw json.RawMessage) (oauth.Session, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return oauth.Session{}, nil
	}
	return oauth.DecodeSession(raw)
}

// Load implements [oauth.Store].
func (s *rowStore) Load(ctx context.Context) (session oauth.Session, err error) {
	err = s.do(ctx, func(r *row) error {
		session, err = decode(r.Session)
		return err
	})
	if err == nil && session.IsZero() {
		err = oauth.ErrNoSession
	}
	return session, err
}

// Update implements [oauth.Store].
func (s *rowStore) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	return s.UpdateLease(ctx, func(_ oauth.Lease, current oauth.Session) (oauth.Session, error) { return fn(current) })
}

// UpdateLease implements [oauth.LeaseStore].
func (s *rowStore) UpdateLease(ctx context.Context, fn func(oauth.Lease, oauth.Session) (oauth.Session, error)) error {
	l := &rowLease{s: s}
	if err := l.take(ctx); err != nil {
		return err
	}
	current, err := decode(l.base)
	if err != nil {
		return err
	}
	before := current.RefreshToken
	next, err := fn(l, current)
	ctx = context.WithoutCancel(ctx)
	if err == nil && next.RefreshToken != before { // the tests change nothing else
		data, err := next.Encode()
		if err != nil {
			return err
		}
		return s.do(ctx, func(r *row) error {
			stored, err := decode(r.Session)
			if err != nil {
				return err
			}
			if stored.RefreshToken != before && s.mistake != noLineage && s.mistake != ttlLock {
				return oauth.ErrLeaseLost
			}
			r.Session, r.Mark = data, time.Time{}
			if l.mine(r) || s.mistake == anyRelease {
				r.Until = time.Time{}
			}
			return nil
		})
	}
	_ = s.do(ctx, func(r *row) error {
		if l.mine(r) || s.mistake == anyRelease {
			r.Until = time.Time{}
			if !errors.Is(err, oauth.ErrOutcomeUnknown) {
				r.Mark = l.former
			}
		}
		return nil
	})
	return err
}

// rowLease implements [oauth.Lease].
type rowLease struct {
	s      *rowStore
	fence  int64
	base   json.RawMessage
	former time.Time
	ago    time.Duration
}

func (l *rowLease) mine(r *row) bool { return r.Fence == l.fence }

var errHeld = errors.New("another process has the lease")

func (l *rowLease) take(ctx context.Context) error {
	for {
		err := l.s.do(ctx, func(r *row) error {
			now := time.Now()
			if now.Before(r.Until) {
				return errHeld
			}
			r.Fence++
			r.Until = now.Add(leaseTime)
			l.fence, l.base, l.former = r.Fence, r.Session, r.Mark
			if !r.Mark.IsZero() {
				l.ago = now.Sub(r.Mark)
			}
			return nil
		})
		if !errors.Is(err, errHeld) {
			return err
		}
		timer := time.NewTimer(rand.N(100 * time.Millisecond))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// Begin implements [oauth.Lease].
func (l *rowLease) Begin(ctx context.Context) (marked time.Time, holds time.Duration, err error) {
	err = l.s.do(ctx, func(r *row) error {
		if !l.mine(r) || !bytes.Equal(r.Session, l.base) && l.s.mistake != noLineage {
			return oauth.ErrLeaseLost
		}
		marked = time.Now()
		r.Mark, r.Until = marked, marked.Add(leaseTime)
		return nil
	})
	return marked, leaseTime, err
}

// Interrupted implements [oauth.Lease].
func (l *rowLease) Interrupted() (ago time.Duration, interrupted bool) {
	return l.ago, !l.former.IsZero()
}
