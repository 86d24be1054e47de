package etcdstore

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Leases of etcd are the only clock that all processes share: the leader counts their time.
// One is granted for all sessions whose lease is taken or extended within a short time,
// so that a renewal need not grant any, and none is kept alive: a key is attached to a
// newer one instead, in the transaction that also compares its owner. A lease that is
// not needed any more ends by itself.
//
// With each lease that locks are attached to, a second one is granted, which lasts for
// hours: the clock. A mark names the clock of its time. How much of that has passed, less
// the life of the lock, is how long ago the mark was set, at least: when Begin set it, its
// lock was alive, and so at most lockTTL old. A leader that is new gives each lease its
// full time again. Then locks hold for longer, and marks seem younger, which is careful.

// clockTTL is how long a clock runs. That a mark is older nobody can tell, so it must be more
// than any server accepts a proof or a nonce for.
const clockTTL = 2 * time.Hour

// A grant is a pair of leases.
type grant struct {
	lock, clock       clientv3.LeaseID
	lockTTL, clockTTL int64     // in seconds
	asked             time.Time // before they were granted
}

// fresh reports whether a lock that is attached now holds for as long as it should.
func (g *grant) fresh(now time.Time, window time.Duration) bool {
	if g == nil {
		return false
	}
	// A computer that slept may have counted in one of its clocks only.
	monotonic, wall := now.Sub(g.asked), now.Round(0).Sub(g.asked.Round(0))
	return monotonic < window && wall >= 0 && wall < window
}

// grants hands out the newest pair.
type grants struct {
	set     *Set
	newest  atomic.Pointer[grant]
	granted chan struct{} // has room for the one that asks
}

// get returns a pair whose lock lasts for Options.Lease from now at least.
func (g *grants) get(ctx context.Context) (*grant, error) {
	window := g.set.window()
	if newest := g.newest.Load(); newest.fresh(time.Now(), window) {
		return newest, nil
	}
	select {
	case g.granted <- struct{}{}:
		defer func() { <-g.granted }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if newest := g.newest.Load(); newest.fresh(time.Now(), window) {
		return newest, nil
	}
	next := &grant{asked: time.Now()}
	var err error
	if next.lock, next.lockTTL, err = g.set.etcd.grant(ctx, g.set.lease+window); err != nil {
		return nil, err
	}
	// After that of the lock: a clock must not be older.
	if next.clock, next.clockTTL, err = g.set.etcd.grant(ctx, clockTTL); err != nil {
		return nil, err
	}
	_, err = g.set.etcd.txn(ctx, "set a clock", txn{then: []clientv3.Op{
		clientv3.OpPut(g.set.clockKey(next.clock), "", clientv3.WithLease(next.clock)),
	}})
	if err != nil {
		return nil, err
	}
	g.newest.Store(next)
	return next, nil
}

// drop makes sure that a pair is not used again: etcd does not know it.
func (g *grants) drop(old *grant) { g.newest.CompareAndSwap(old, nil) }

// window is for how long a pair is used.
func (s *Set) window() time.Duration { return s.lease / 4 }

// A mark is stored from the moment when a token request may be sent until its outcome is
// stored.
type mark struct {
	Owner    string `json:"owner"`
	Clock    string `json:"clock"`     // the ID of a lease
	LockTTL  int64  `json:"lock_ttl"`  // in seconds
	ClockTTL int64  `json:"clock_ttl"` // in seconds
}

func (g *grant) mark(owner string) mark {
	return mark{Owner: owner, Clock: clockName(g.clock), LockTTL: g.lockTTL, ClockTTL: g.clockTTL}
}

func clockName(id clientv3.LeaseID) string { return fmt.Sprintf("%016x", int64(id)) }

// since returns how long ago a mark was set, at least. What cannot be told is 0.
func (s *Set) since(ctx context.Context, m mark) time.Duration {
	number, err := strconv.ParseInt(m.Clock, 16, 64)
	if err != nil {
		return 0
	}
	id := clientv3.LeaseID(number)
	passed, err := attempts(ctx, s, "read a clock", "", few, func(ctx context.Context) (int64, error) {
		// Only a read of the key can say that the lease has ended. A member of the cluster that
		// is cut off from the others may not have heard of it.
		resp, err := s.etcd.txn(ctx, "read a clock", txn{then: []clientv3.Op{clientv3.OpGet(s.clockKey(id), clientv3.WithKeysOnly())}})
		if err != nil {
			return 0, err
		}
		if len(resp.Responses[0].GetResponseRange().Kvs) == 0 {
			return m.ClockTTL, nil
		}
		granted, remaining, err := s.etcd.timeToLive(ctx, id)
		if err != nil || remaining < 0 {
			return 0, err
		}
		return granted - remaining - 1, nil // remaining is rounded down
	})
	if err != nil {
		return 0
	}
	return time.Duration(max(min(passed, m.ClockTTL)-m.LockTTL, 0)) * time.Second
}
