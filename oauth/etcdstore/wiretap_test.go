//go:build unix

package etcdstore

import (
	"context"
	"sync"
	"sync/atomic"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A wiretap sees every transaction of a set, can fail it before or after etcd has run it, and
// can change it.
type wiretap struct {
	etcd

	mu            sync.Mutex
	seen          []string
	before, after func(op string) error   // optional
	edit          func(op string, t *txn) // optional
	clock         func() (int64, int64)   // of timeToLive; optional
}

// tap puts a wiretap on a set.
func tap(s *Set) *wiretap {
	w := &wiretap{etcd: s.etcd}
	s.etcd = w
	return w
}

// on sets what happens before and after transactions.
func (w *wiretap) on(before, after func(op string) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.before, w.after = before, after
}

// transactions returns what was run since the last call.
func (w *wiretap) transactions() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := w.seen
	w.seen = nil
	return seen
}

func (w *wiretap) txn(ctx context.Context, op string, t txn) (*clientv3.TxnResponse, error) {
	w.mu.Lock()
	w.seen = append(w.seen, op)
	before, after := w.before, w.after
	w.mu.Unlock()
	if before != nil {
		if err := before(op); err != nil {
			return nil, err
		}
	}
	if w.edit != nil {
		w.edit(op, &t)
	}
	resp, err := w.etcd.txn(ctx, op, t)
	if err == nil && after != nil {
		err = after(op)
	}
	if err != nil {
		return nil, err
	}
	return resp, nil
}

func (w *wiretap) timeToLive(ctx context.Context, id clientv3.LeaseID) (granted, remaining int64, err error) {
	if w.clock != nil {
		granted, remaining = w.clock()
		return granted, remaining, nil
	}
	return w.etcd.timeToLive(ctx, id)
}

// everyOther fails the first, third, fifth … transaction of a name, after it has called do,
// so that each attempt is followed by one that succeeds.
func everyOther(op string, do func(), err error) func(string) error {
	var n atomic.Int64
	return func(s string) error {
		if s != op || n.Add(1)%2 == 0 {
			return nil
		}
		if do != nil {
			do()
		}
		return err
	}
}

// once calls do before the first transaction of a name.
func once(op string, do func()) func(string) error {
	var first sync.Once
	return func(s string) error {
		if s == op {
			first.Do(do)
		}
		return nil
	}
}
