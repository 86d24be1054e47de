package etcdstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ycauth/ycauth-go/internal/retry"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/internal/seal"
)

// Update implements [oauth.Store]. It is UpdateLease with an fn that does not look at the
// lease.
func (s *Store) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	return s.UpdateLease(ctx, func(_ oauth.Lease, current oauth.Session) (oauth.Session, error) { return fn(current) })
}

// UpdateLease implements [oauth.LeaseStore]. It takes the lease with one transaction, which
// also reads the session, and stores what fn returns and gives the lease back with another.
// Each call of Lease.Begin is one more. Errors that are not fn's are of type [*Error].
//
// While another holder has the lease, UpdateLease looks again, first after 10 ms and
// later once in half a second, until ctx ends, or half a second longer, in which it
// gives back what it may have taken. Goroutines of one Set that wait for the same
// key do so in memory, and one looks for all.
//
// A request whose connection breaks is repeated: a few times before fn is called,
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

// The transactions of an update, by their names in errors.
const (
	opTake    = "take the lease"
	opLook    = "look at the lease"
	opBegin   = "begin a token request"
	opSave    = "store the session"
	opRemove  = "remove the session"
	opRelease = "release the lease"
	opRestore = "restore the mark"
	opCheck   = "check what is stored"
)

// An update is an UpdateLease that has the lease, or had it.
type update struct {
	s     *Set
	key   string
	owner string // of this update alone: nobody else ever has it

	row     seal.Row // as it was when the lease was taken
	current oauth.Session
	former  []byte        // the mark that another holder left; nil if there was none
	ago     time.Duration // how old it was at taken, at least
	taken   time.Time     // when the response came

	begun atomic.Bool // Begin may have set a mark
	over  atomic.Bool // fn has returned
}

// mine holds while this update has the lease.
func (u *update) mine() clientv3.Cmp {
	return clientv3.Compare(clientv3.Value(u.s.leaseKey(u.key)), "=", u.owner)
}

// unchanged holds while the refresh token is the one that fn was called with.
func (u *update) unchanged() clientv3.Cmp {
	if len(u.row.Base) == 0 {
		return clientv3.Compare(clientv3.CreateRevision(u.s.baseKey(u.key)), "=", 0)
	}
	return clientv3.Compare(clientv3.Value(u.s.baseKey(u.key)), "=", string(u.row.Base))
}

// The waits between two looks at a lease that another holder has.
const (
	firstWait = 10 * time.Millisecond
	mostWait  = 500 * time.Millisecond
)

// take waits for the lease.
func (u *update) take(ctx context.Context) error {
	holder, err := u.try(ctx)
	for wait := firstWait; ; wait = min(2*wait, mostWait) {
		if err != nil {
			u.giveBack() // it may have been taken
			return err
		}
		if holder == "" {
			return nil
		}
		timer := time.NewTimer(wait/2 + mathrand.N(wait/2))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			u.giveBack()
			e := u.s.ended(ctx, opTake, u.key)
			e.remedy = fmt.Sprintf("%s holds it; if it has died, etcd releases it", holder)
			return e
		}
		// A look is a read, which the members need not agree on and write down.
		var now string
		if now, err = u.look(ctx); err == nil && now == "" {
			now, err = u.try(ctx)
		}
		if err != nil && ctx.Err() != nil {
			err = nil // the end of ctx is told with the holder
			continue
		}
		holder = now
	}
}

func (u *update) look(ctx context.Context) (holder string, err error) {
	return attempts(ctx, u.s, opLook, u.key, few, func(ctx context.Context) (string, error) {
		resp, err := u.s.etcd.txn(ctx, opLook, txn{then: []clientv3.Op{clientv3.OpGet(u.s.leaseKey(u.key))}})
		if err != nil {
			return "", err
		}
		return string(valueOf(resp, 0)), nil
	})
}

// try takes the lease if it is free, and returns who has it if not.
func (u *update) try(ctx context.Context) (holder string, err error) {
	resp, err := attached(ctx, u.s, opTake, u.key, func(ctx context.Context, g *grant) (*clientv3.TxnResponse, error) {
		read := append(u.s.getSession(u.key), clientv3.OpGet(u.s.markKey(u.key)))
		return u.s.etcd.txn(ctx, opTake, txn{
			cmps:      []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(u.s.leaseKey(u.key)), "=", 0)},
			then:      append([]clientv3.Op{clientv3.OpPut(u.s.leaseKey(u.key), u.owner, clientv3.WithLease(g.lock))}, read...),
			otherwise: append([]clientv3.Op{clientv3.OpGet(u.s.leaseKey(u.key))}, read...),
		})
	})
	if err != nil {
		return "", err
	}
	if !resp.Succeeded {
		// A repetition finds what the first attempt has taken without our hearing of it.
		if holder := string(valueOf(resp, 0)); holder != u.owner {
			return holder, nil
		}
	}
	u.taken = time.Now()
	if u.row, err = rowOf(valueOf(resp, 1), valueOf(resp, 2)); err != nil {
		return "", u.s.unreadable(opTake, u.key, err)
	}
	if u.former = valueOf(resp, 3); u.former != nil {
		var m mark
		if json.Unmarshal(u.former, &m) == nil {
			u.ago = u.s.since(ctx, m)
		}
	}
	return "", nil
}

// giveBack releases what an attempt may have taken without our hearing of it. Somebody
// waits for it whose ctx may have ended; without success, the lease ends by itself.
func (u *update) giveBack() {
	ctx, cancel := context.WithTimeout(context.Background(), min(u.s.timeout, 500*time.Millisecond))
	defer cancel()
	_, _ = u.s.etcd.txn(ctx, opRelease, u.release())
}

func (u *update) release() txn {
	return txn{cmps: []clientv3.Cmp{u.mine()}, then: []clientv3.Op{clientv3.OpDelete(u.s.leaseKey(u.key))}}
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
		return &Error{Op: opSave, Prefix: u.s.prefix, Key: u.key, Err: err}
	}
	if bytes.Equal(before, after) {
		end = u.formerMark
		return nil
	}
	stored, err := u.s.sealer.Encode(u.key, next)
	if err != nil {
		return &Error{Op: opSave, Prefix: u.s.prefix, Key: u.key, Err: err, remedy: "the old session is still stored"}
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
		end = func() {} // the same transaction has released the lease
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

// many is how often a request is tried that only time ends.
const many = 1 << 30

// save stores a new session in the place of the one that fn was called with, and
// releases the lease, if it is still ours. The lease and the mark of another holder
// stay, but a mark that is about a refresh token which is replaced here is about nothing.
func (u *update) save(ctx context.Context, next seal.Row, session oauth.Session) error {
	value, err := recordValue(next, u.s.now(), u.s.renewAt(session))
	if err != nil {
		return &Error{Op: opSave, Prefix: u.s.prefix, Key: u.key, Err: err, remedy: "the old session is still stored"}
	}
	unmark := clientv3.OpDelete(u.s.markKey(u.key))
	var theirs []clientv3.Op
	if !bytes.Equal(u.row.Base, next.Base) {
		theirs = []clientv3.Op{unmark}
	}
	return u.change(ctx, opSave, next.Base, []clientv3.Op{
		clientv3.OpPut(u.s.sessionKey(u.key), value),
		clientv3.OpPut(u.s.baseKey(u.key), string(next.Base)),
		clientv3.OpDelete(u.s.claimKey(u.key)),
		clientv3.OpTxn([]clientv3.Cmp{u.mine()}, []clientv3.Op{clientv3.OpDelete(u.s.leaseKey(u.key)), unmark}, theirs),
	})
}

// remove removes the session that fn was called with.
func (u *update) remove(ctx context.Context) error {
	return u.change(ctx, opRemove, []byte{}, []clientv3.Op{
		clientv3.OpDelete(u.s.sessionKey(u.key)),
		clientv3.OpDelete(u.s.baseKey(u.key)),
		clientv3.OpDelete(u.s.markKey(u.key)),
		clientv3.OpDelete(u.s.claimKey(u.key)),
		clientv3.OpTxn([]clientv3.Cmp{u.mine()}, []clientv3.Op{clientv3.OpDelete(u.s.leaseKey(u.key))}, nil),
	})
}

// change replaces the session that fn was called with, if its refresh token is stored
// still. base is of what replaces it.
func (u *update) change(ctx context.Context, op string, base []byte, then []clientv3.Op) error {
	tried := 0
	succeeded, err := attempts(ctx, u.s, op, u.key, many, func(ctx context.Context) (bool, error) {
		tried++
		resp, err := u.s.etcd.txn(ctx, op, txn{cmps: []clientv3.Cmp{u.unchanged()}, then: then})
		return err == nil && resp.Succeeded, err
	})
	var failure *Error
	switch {
	case errors.As(err, &failure):
		return failure // without the end of ctx, which is not the caller's
	case err != nil:
		return err
	case succeeded:
		return nil
	case tried == 1:
		return u.s.lost(op, u.key)
	}
	return u.check(ctx, op, base)
}

// check tells what a repeated transaction has stored at first from what another process
// has stored meanwhile.
func (u *update) check(ctx context.Context, op string, base []byte) error {
	stored, err := attempts(ctx, u.s, op, u.key, many, func(ctx context.Context) ([]byte, error) {
		resp, err := u.s.etcd.txn(ctx, opCheck, txn{then: []clientv3.Op{clientv3.OpGet(u.s.baseKey(u.key))}})
		if err != nil {
			return nil, err
		}
		return valueOf(resp, 0), nil
	})
	if err != nil {
		return err
	}
	if !bytes.Equal(stored, base) {
		return u.s.lost(op, u.key)
	}
	return nil
}

// keepMark gives the lease back and leaves the mark as it is.
func (u *update) keepMark() { u.leave(opRelease, u.release()) }

// formerMark gives the lease back, and sets the mark that another holder has left, unless
// the session has changed meanwhile.
func (u *update) formerMark() {
	if !u.begun.Load() {
		u.keepMark()
		return
	}
	restore := clientv3.OpDelete(u.s.markKey(u.key))
	if u.former != nil {
		restore = clientv3.OpPut(u.s.markKey(u.key), string(u.former))
	}
	t := u.release()
	t.then = append(t.then, clientv3.OpTxn([]clientv3.Cmp{u.unchanged()}, []clientv3.Op{restore}, nil))
	u.leave(opRestore, t)
}

// leave releases the lease if it is ours. If that fails, the lease ends by itself.
func (u *update) leave(op string, t txn) {
	ctx, cancel := context.WithTimeout(context.Background(), u.s.timeout)
	defer cancel()
	_, _ = attempts(ctx, u.s, op, u.key, few, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return u.s.etcd.txn(ctx, op, t)
	})
}

// lease implements [oauth.Lease].
type lease update

// String keeps fmt from reading the session.
func (l *lease) String() string { return "etcdstore.Lease" }

// Format implements [fmt.Formatter] for every verb, for the same reason.
func (l *lease) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, l.String()) }

// Begin implements [oauth.Lease]. marked is zero, because etcd tells no client its time.
func (l *lease) Begin(ctx context.Context) (marked time.Time, holds time.Duration, err error) {
	u := (*update)(l)
	if u.over.Load() {
		return time.Time{}, 0, u.s.lost(opBegin, u.key)
	}
	if ctx.Err() != nil {
		return time.Time{}, 0, retry.Ended(ctx)
	}
	u.begun.Store(true)
	succeeded, err := attached(ctx, u.s, opBegin, u.key, func(ctx context.Context, g *grant) (bool, error) {
		value, err := json.Marshal(g.mark(u.owner))
		if err != nil {
			return false, err
		}
		// Attached to a newer lease, the key lasts for longer.
		resp, err := u.s.etcd.txn(ctx, opBegin, txn{
			cmps: []clientv3.Cmp{u.mine(), u.unchanged()},
			then: []clientv3.Op{
				clientv3.OpPut(u.s.markKey(u.key), string(value)),
				clientv3.OpPut(u.s.leaseKey(u.key), u.owner, clientv3.WithLease(g.lock)),
			},
		})
		return err == nil && resp.Succeeded, err
	})
	switch {
	case err != nil:
		return time.Time{}, 0, err
	case !succeeded:
		return time.Time{}, 0, u.s.lost(opBegin, u.key)
	}
	return time.Time{}, u.s.lease, nil
}

// Interrupted implements [oauth.Lease].
func (l *lease) Interrupted() (ago time.Duration, interrupted bool) {
	if l.former == nil {
		return 0, false
	}
	return l.ago + time.Since(l.taken), true
}
