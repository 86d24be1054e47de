package pgstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ycauth/ycauth-go/internal/retry"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/internal/seal"
)

// Update implements [oauth.Store]. It is UpdateLease with an fn that does not look at the
// lease.
func (s *Store) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	return s.UpdateLease(ctx, func(_ oauth.Lease, current oauth.Session) (oauth.Session, error) { return fn(current) })
}

// UpdateLease implements [oauth.LeaseStore]. It takes the lease with one statement, which also
// reads the session, and stores what fn returns and gives the lease back with another.
// Each call of Lease.Begin is one more. No connection is held meanwhile. Errors that
// are not fn's are of type [*Error].
//
// While another holder has the lease, UpdateLease asks for it again, first after 10 ms and
// later once in half a second, until ctx ends, or half a second longer, in which it
// gives back what it may have taken. Goroutines of one Set that wait for the same
// key do so in memory, and one asks for all.
//
// A statement whose connection breaks is repeated: a few times before fn is called,
// and for Options.SaveTimeout after fn has returned a new session. None takes effect
// twice.
func (s *Store) UpdateLease(ctx context.Context, fn func(oauth.Lease, oauth.Session) (oauth.Session, error)) error {
	if err := s.set.checkKey(opTake, s.key); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return retry.Ended(ctx)
	}
	leave := s.set.gates.Enter(ctx, s.key, s.set.lease)
	defer leave()
	u := &update{s: s.set, key: s.key, owner: s.set.owner + "/" + rand.Text()}
	if err := u.take(ctx); err != nil {
		return err
	}
	return u.run(ctx, fn)
}

const (
	opTake   = "take the lease"
	opBegin  = "begin a token request"
	opSave   = "store the session"
	opRemove = "remove the session"
)

// An update is an UpdateLease that has the lease, or had it.
type update struct {
	s     *Set
	key   string
	owner string // of this update alone
	fence int64

	row     seal.Row // as it was when the lease was taken
	current oauth.Session
	former  *int64        // the mark that another holder left
	ago     time.Duration // how old it was at taken
	taken   time.Time     // when the response came

	begun atomic.Bool // Begin may have set a mark
	over  atomic.Bool // fn has returned
}

// taking is the result of the statement take.
type taking struct {
	mine      bool
	fence     int64
	row       seal.Row
	former    *int64        // in microseconds since 1970
	ago       *int64        // in microseconds
	holder    string        // if it is not mine
	remaining time.Duration // of the holder's lease
}

func scanTaking(rows pgx.Rows) (t taking, err error) {
	var remaining int64
	err = rows.Scan(&t.mine, &t.fence, hexText{&t.row.Session}, &t.row.KeyVersion, &t.row.Generation, hexText{&t.row.Base}, &t.former, &t.ago,
		&t.holder, &remaining)
	t.remaining = time.Duration(remaining) * time.Microsecond
	return t, err
}

// The waits between two attempts to take a lease that another holder has.
const (
	firstWait = 10 * time.Millisecond
	mostWait  = 500 * time.Millisecond
)

// take waits for the lease.
func (u *update) take(ctx context.Context) error {
	var held taking // by somebody else, when it was asked for last
	for wait := firstWait; ; wait = min(2*wait, mostWait) {
		t, err := u.try(ctx)
		if err != nil {
			u.giveBack() // it may have been taken
			if ctx.Err() != nil && held.holder != "" {
				return u.waited(ctx, held)
			}
			return err
		}
		if t.mine {
			u.fence, u.row, u.former, u.taken = t.fence, t.row, t.former, time.Now()
			if t.ago != nil {
				u.ago = max(time.Duration(*t.ago)*time.Microsecond, 0)
			}
			return nil
		}
		held = t
		next := wait/2 + mathrand.N(wait/2)
		if held.remaining > 0 {
			next = min(next, held.remaining+mathrand.N(firstWait))
		}
		timer := time.NewTimer(next)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return u.waited(ctx, held)
		}
	}
}

// waited is about a ctx that ended while another one had the lease.
func (u *update) waited(ctx context.Context, held taking) error {
	e := u.s.ended(ctx, opTake, u.key)
	e.remedy = fmt.Sprintf("%s holds it, for %v at most if it has died", held.holder, held.remaining.Round(time.Millisecond))
	return e
}

// try takes the lease if it is free.
func (u *update) try(ctx context.Context) (taking, error) {
	return attempts(ctx, u.s, opTake, u.key, few, func(ctx context.Context) (taking, error) {
		t, err := queryOne(ctx, u.s.db, scanTaking, u.s.sql.take, u.key, u.owner, micros(u.s.lease))
		if !errors.Is(err, pgx.ErrNoRows) {
			return t, err
		}
		fence, err := queryOne(ctx, u.s.db, scan[int64], u.s.sql.enter, u.key, u.owner, micros(u.s.lease))
		if errors.Is(err, pgx.ErrNoRows) {
			return taking{}, nil // somebody was faster
		}
		return taking{mine: true, fence: fence, row: seal.Row{Base: []byte{}}}, err
	})
}

// giveBack releases what an attempt may have taken without our hearing of it. Somebody
// waits for it whose ctx may have ended; without success, the lease ends by itself.
func (u *update) giveBack() {
	ctx, cancel := context.WithTimeout(context.Background(), min(u.s.timeout, 500*time.Millisecond))
	defer cancel()
	_, _ = exec(ctx, u.s.db, u.s.sql.giveBack, u.key, u.owner)
}

// run calls fn, and does what the table at oauth.LeaseStore says.
func (u *update) run(ctx context.Context, fn func(oauth.Lease, oauth.Session) (oauth.Session, error)) error {
	end := u.keepMark // if fn panics, or calls runtime.Goexit
	defer func() {
		u.over.Store(true)
		end()
	}()
	current, err := u.s.decode(opTake, u.key, u.row)
	if err != nil {
		return err
	}
	u.current = current
	before, err := encoded(current) // now, because fn may change its Scopes
	if err != nil {
		return u.s.unreadable(opTake, u.key, err)
	}

	next, err := fn((*lease)(u), current)
	u.over.Store(true)
	if err != nil {
		if !errors.Is(err, oauth.ErrOutcomeUnknown) {
			end = u.formerMark
		}
		return err
	}
	after, err := encoded(next)
	if err != nil {
		return &Error{Op: opSave, Table: u.s.sql.table, Key: u.key, Err: err}
	}
	if bytes.Equal(before, after) {
		end = u.formerMark
		return nil
	}
	stored, err := u.s.sealer.Encode(u.key, next)
	if err != nil {
		return &Error{Op: opSave, Table: u.s.sql.table, Key: u.key, Err: err, remedy: "the old session is still stored"}
	}
	// ctx has no say: next may hold the only copy of a new refresh token.
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), u.s.saveTimeout, errSaveTimeout)
	defer cancel()
	if stored.Session == nil {
		err = u.remove(ctx)
	} else {
		err = u.save(ctx, stored, next)
	}
	if err == nil {
		end = func() {} // the same statement has released the lease
	}
	return err
}

// errSaveTimeout is why a context ends that is not a caller's.
var errSaveTimeout = errors.New("Options.SaveTimeout has passed")

// encoded is nil for no session.
func encoded(s oauth.Session) ([]byte, error) {
	if s.IsZero() {
		return nil, nil
	}
	return s.Encode()
}

// many is how often a statement is tried that only time ends.
const many = 1 << 30

// save stores a new session in the place of the one that fn was called with, and
// releases the lease, if it is still ours.
func (u *update) save(ctx context.Context, next seal.Row, session oauth.Session) error {
	sql := u.s.sql.save
	if len(u.row.Base) == 0 {
		sql = u.s.sql.saveFirst
	}
	var due *int64 // from now on
	if at := u.s.renewAt(session); !at.IsZero() {
		due = new(int64)
		*due = micros(at.Sub(u.s.now()))
	}
	c := change{update: u, op: opSave, base: next.Base}
	return c.first(ctx, statement{sql, []any{
		u.key, u.owner, u.fence, u.row.Base, secret{next.Session}, next.KeyVersion, next.Generation, next.Base, due,
	}})
}

// remove removes the session that fn was called with.
func (u *update) remove(ctx context.Context) error {
	c := change{update: u, op: opRemove, base: []byte{}}
	return c.first(ctx,
		statement{u.s.sql.remove, []any{u.key, u.owner, u.fence, u.row.Base}},
		statement{u.s.sql.empty, []any{u.key, u.row.Base}})
}

type statement struct {
	sql  string
	args []any
}

// A change replaces the session that fn was called with.
type change struct {
	*update
	op   string
	base []byte // of what replaces it

	repeated bool // an attempt may have had an effect without our hearing of it
}

// first runs statements until one has found the session.
func (c *change) first(ctx context.Context, statements ...statement) error {
	for _, st := range statements {
		tried := false
		n, err := attempts(ctx, c.s, c.op, c.key, many, func(ctx context.Context) (int64, error) {
			c.repeated, tried = c.repeated || tried, true
			return exec(ctx, c.s.db, st.sql, st.args...)
		})
		var failure *Error
		if errors.As(err, &failure) {
			return failure // without the end of ctx, which is not the caller's
		}
		if err != nil || n > 0 {
			return err
		}
	}
	if !c.repeated {
		return c.s.lost(c.op, c.key)
	}
	return c.check(ctx)
}

// check tells what a repeated statement has stored at first from what another process
// has stored meanwhile.
func (c *change) check(ctx context.Context) error {
	stored, err := attempts(ctx, c.s, c.op, c.key, many, func(ctx context.Context) ([]byte, error) {
		return queryOne(ctx, c.s.db, scanHex, c.s.sql.stored, c.key)
	})
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	if !bytes.Equal(stored, c.base) {
		return c.s.lost(c.op, c.key)
	}
	return nil
}

// keepMark gives the lease back and leaves the mark as it is.
func (u *update) keepMark() {
	if len(u.row.Base) == 0 && !u.begun.Load() && u.former == nil && u.leave(u.s.sql.leave, u.key, u.owner, u.fence) {
		return
	}
	u.leave(u.s.sql.release, u.key, u.owner, u.fence)
}

// formerMark gives the lease back, and sets the mark that another holder has left.
func (u *update) formerMark() {
	switch {
	case !u.begun.Load():
		u.keepMark()
	case len(u.row.Base) == 0 && u.former == nil && u.leave(u.s.sql.leave, u.key, u.owner, u.fence):
	default:
		u.leave(u.s.sql.restore, u.key, u.owner, u.fence, u.row.Base, u.former)
	}
}

// leave runs a statement that releases the lease if it is ours, and reports whether it
// did. If it fails, the lease ends by itself.
func (u *update) leave(sql string, args ...any) bool {
	ctx, cancel := context.WithTimeout(context.Background(), u.s.timeout)
	defer cancel()
	n, err := attempts(ctx, u.s, "release the lease", u.key, few, func(ctx context.Context) (int64, error) {
		return exec(ctx, u.s.db, sql, args...)
	})
	return err == nil && n > 0
}

// lease implements [oauth.Lease].
type lease update

// String keeps fmt from reading the session.
func (l *lease) String() string { return "pgstore.Lease" }

// Format implements [fmt.Formatter] for every verb, for the same reason.
func (l *lease) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, l.String()) }

// Begin implements [oauth.Lease].
func (l *lease) Begin(ctx context.Context) (marked time.Time, holds time.Duration, err error) {
	if l.over.Load() {
		return time.Time{}, 0, l.s.lost(opBegin, l.key)
	}
	if ctx.Err() != nil {
		return time.Time{}, 0, retry.Ended(ctx)
	}
	l.begun.Store(true)
	marked, err = attempts(ctx, l.s, opBegin, l.key, few, func(ctx context.Context) (time.Time, error) {
		return queryOne(ctx, l.s.db, scanMicros, l.s.sql.begin, l.key, l.owner, l.fence, l.row.Base, micros(l.s.lease))
	})
	if errors.Is(err, pgx.ErrNoRows) {
		err = l.s.lost(opBegin, l.key)
	}
	if err != nil {
		return time.Time{}, 0, err
	}
	return marked, l.s.lease, nil
}

// Interrupted implements [oauth.Lease].
func (l *lease) Interrupted() (ago time.Duration, interrupted bool) {
	if l.former == nil {
		return 0, false
	}
	return l.ago + time.Since(l.taken), true
}
