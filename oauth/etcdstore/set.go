package etcdstore

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ycauth/ycauth-go/oauth/internal/seal"
)

// An Entry describes a session without its secrets.
type Entry struct {
	Key        string
	Generation uint64
	KeyVersion uint32    // of the key that sealed it; 0: stored in the clear
	Updated    time.Time // when it was stored last, by the clock of the process that did it
	RenewAt    time.Time // from when on it is due for renewal, by the same; zero: never
	LeaseOwner string    // who has the lease; "" if nobody has it

	// Marked is whether a token request has begun whose outcome is not stored yet: it is in
	// progress, or its outcome is unknown.
	Marked bool

	revision int64 // when the record was changed last
}

// page is how many sessions a request reads at most.
const page = 200

// A found is a key with its value, without what the set puts before the key.
type found struct {
	key      string
	value    []byte
	revision int64
}

// scan reads the keys that begin with kind, a page with each request.
func (s *Set) scan(ctx context.Context, op, kind string, opts ...clientv3.OpOption) iter.Seq2[[]found, error] {
	return func(yield func([]found, error) bool) {
		end := clientv3.GetPrefixRangeEnd(kind)
		for from := kind; ; {
			all, err := s.readRange(ctx, op, kind, from, end, append([]clientv3.OpOption{clientv3.WithLimit(page)}, opts...)...)
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(all, nil) || len(all) < page {
				return
			}
			from = kind + all[len(all)-1].key + "\x00"
		}
	}
}

func (s *Set) readRange(ctx context.Context, op, kind, from, end string, opts ...clientv3.OpOption) ([]found, error) {
	return attempts(ctx, s, op, "", few, func(ctx context.Context) ([]found, error) {
		resp, err := s.etcd.txn(ctx, op, txn{then: []clientv3.Op{clientv3.OpGet(from, append([]clientv3.OpOption{clientv3.WithRange(end)}, opts...)...)}})
		if err != nil {
			return nil, err
		}
		var all []found
		for _, kv := range resp.Responses[0].GetResponseRange().Kvs {
			all = append(all, found{strings.TrimPrefix(string(kv.Key), kind), kv.Value, kv.ModRevision})
		}
		return all, nil
	})
}

// among are the keys and values that begin with kind, for the same sessions.
func (s *Set) among(ctx context.Context, op, kind string, sessions []found) (map[string]string, error) {
	all, err := s.readRange(ctx, op, kind, kind+sessions[0].key, kind+sessions[len(sessions)-1].key+"\x00")
	values := make(map[string]string, len(all))
	for _, f := range all {
		values[f.key] = string(f.value)
	}
	return values, err
}

func (s *Set) entry(op string, f found) (Entry, error) {
	r, err := recordOf(f.value)
	if err != nil {
		return Entry{Key: f.key, revision: f.revision}, s.unreadable(op, f.key, err)
	}
	return Entry{
		Key: f.key, Generation: uint64(r.Generation), KeyVersion: uint32(r.KeyVersion),
		Updated: r.Updated, RenewAt: r.RenewAt, revision: f.revision,
	}, nil
}

// List returns all sessions in the order of the bytes of their keys, and reads them whole.
// The set may change meanwhile: what is there all the time is returned once. An error
// is of type [*Error]. One about a session that cannot be read comes with its key, and the
// others follow; any other error is the last that is returned.
func (s *Set) List(ctx context.Context) iter.Seq2[Entry, error] {
	const op = "list sessions"
	return func(yield func(Entry, error) bool) {
		for sessions, err := range s.scan(ctx, op, s.sessionKey("")) {
			var owners, marks map[string]string
			if err == nil && len(sessions) > 0 {
				if owners, err = s.among(ctx, op, s.leaseKey(""), sessions); err == nil {
					marks, err = s.among(ctx, op, s.markKey(""), sessions)
				}
			}
			if err != nil {
				yield(Entry{}, err)
				return
			}
			for _, f := range sessions {
				e, err := s.entry(op, f)
				e.LeaseOwner = owners[f.key]
				_, e.Marked = marks[f.key]
				if !yield(e, err) {
					return
				}
			}
		}
	}
}

// Delete removes the session of a key, whoever has its lease, and reports whether there
// was one. A renewal in progress then cannot store its session. It revokes nothing at the
// server: to log a user out in order, use oauth.Client.Logout.
func (s *Set) Delete(ctx context.Context, key string) (bool, error) {
	const op = "delete the session"
	if err := s.checkKey(op, key); err != nil {
		return false, err
	}
	return attempts(ctx, s, op, key, few, func(ctx context.Context) (bool, error) {
		resp, err := s.etcd.txn(ctx, op, txn{then: []clientv3.Op{
			clientv3.OpDelete(s.sessionKey(key)), clientv3.OpDelete(s.baseKey(key)), clientv3.OpDelete(s.leaseKey(key)),
			clientv3.OpDelete(s.markKey(key)), clientv3.OpDelete(s.claimKey(key)),
		}})
		return err == nil && resp.Responses[0].GetResponseDeleteRange().Deleted > 0, err
	})
}

// Due claims up to limit sessions that are due for renewal, or will be within ahead, and
// whose lease is free; those that have waited longest come first. Until claim has passed,
// rounded up to seconds, no other call of Due returns them, in this process or another, so
// that several sweepers share the work. A claim keeps nobody from renewing the session; a
// new session ends it.
//
// etcd has no index on anything but keys, so each call reads the whole set, and compares
// times with the clock of this process. Call it once in some minutes or hours, not for each
// session. Renew the sessions with a token source on the store of each key. A session that
// cannot be renewed is returned again when claim has passed: [Set.Postpone] leaves it alone
// for longer.
func (s *Set) Due(ctx context.Context, ahead, claim time.Duration, limit int) ([]Entry, error) {
	const op = "claim sessions"
	if limit <= 0 {
		return nil, nil
	}
	var due []Entry
	for e, err := range s.dueEntries(ctx, op, s.now().Add(ahead)) {
		if err != nil {
			return nil, err
		}
		due = append(due, e)
	}
	slices.SortStableFunc(due, func(a, b Entry) int { return a.RenewAt.Compare(b.RenewAt) })
	var claimed []Entry
	var until clientv3.LeaseID
	for _, e := range due {
		if len(claimed) == limit {
			break
		}
		if until == 0 && claim > 0 {
			var err error
			if until, err = s.grantFor(ctx, op, "", claim); err != nil {
				return nil, err
			}
		}
		ok, err := s.claim(ctx, op, e, until)
		if err != nil {
			return claimed, err
		}
		if ok {
			claimed = append(claimed, e)
		}
	}
	return claimed, nil
}

// dueEntries are those that are due at a moment. What cannot be read is left alone.
func (s *Set) dueEntries(ctx context.Context, op string, moment time.Time) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for sessions, err := range s.scan(ctx, op, s.sessionKey("")) {
			if err != nil {
				yield(Entry{}, err)
				return
			}
			for _, f := range sessions {
				if e, err := s.entry(op, f); err != nil || e.RenewAt.IsZero() || e.RenewAt.After(moment) {
					continue
				} else if !yield(e, nil) {
					return
				}
			}
		}
	}
}

// claim claims a session that nobody else has claimed, leased or changed. If the response is
// lost, nobody renews it until the claim ends.
func (s *Set) claim(ctx context.Context, op string, e Entry, until clientv3.LeaseID) (bool, error) {
	var then []clientv3.Op
	if until != 0 {
		then = []clientv3.Op{clientv3.OpPut(s.claimKey(e.Key), s.owner, clientv3.WithLease(until))}
	}
	return attempts(ctx, s, op, e.Key, few, func(ctx context.Context) (bool, error) {
		resp, err := s.etcd.txn(ctx, op, txn{
			cmps: []clientv3.Cmp{
				clientv3.Compare(clientv3.ModRevision(s.sessionKey(e.Key)), "=", e.revision),
				clientv3.Compare(clientv3.CreateRevision(s.claimKey(e.Key)), "=", 0),
				clientv3.Compare(clientv3.CreateRevision(s.leaseKey(e.Key)), "=", 0),
			},
			then: then,
		})
		return err == nil && resp.Succeeded, err
	})
}

func (s *Set) grantFor(ctx context.Context, op, key string, d time.Duration) (clientv3.LeaseID, error) {
	return attempts(ctx, s, op, key, few, func(ctx context.Context) (clientv3.LeaseID, error) {
		id, _, err := s.etcd.grant(ctx, d)
		return id, err
	})
}

// Postpone keeps Due from returning the session of a key for some time, rounded up to
// seconds, for instance because its user has to log in again; 0 ends a claim. A new session
// ends it, too. It does nothing if there is no session, or one of another generation than the
// one given, because somebody has logged in or renewed it since; 0 stands for any.
func (s *Set) Postpone(ctx context.Context, key string, generation uint64, d time.Duration) error {
	const op = "postpone the renewal"
	if err := s.checkKey(op, key); err != nil {
		return err
	}
	unchanged := clientv3.Compare(clientv3.CreateRevision(s.sessionKey(key)), ">", 0)
	if generation != 0 {
		f, err := s.readRange(ctx, op, s.sessionKey(""), s.sessionKey(key), s.sessionKey(key)+"\x00")
		if err != nil || len(f) == 0 {
			return err
		}
		if e, err := s.entry(op, f[0]); err != nil || e.Generation != generation {
			return err
		}
		unchanged = clientv3.Compare(clientv3.ModRevision(s.sessionKey(key)), "=", f[0].revision)
	}
	then := clientv3.OpDelete(s.claimKey(key))
	if d > 0 {
		until, err := s.grantFor(ctx, op, key, d)
		if err != nil {
			return err
		}
		then = clientv3.OpPut(s.claimKey(key), s.owner, clientv3.WithLease(until))
	}
	_, err := attempts(ctx, s, op, key, few, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return s.etcd.txn(ctx, op, txn{
			cmps: []clientv3.Cmp{unchanged},
			then: []clientv3.Op{then},
		})
	})
	return err
}

// Counts are what there is in a [Set].
type Counts struct {
	Sessions    int64
	Due         int64            // sessions that are due for renewal by the clock of this process, claimed or not
	Leased      int64            // sessions whose lease somebody has
	Interrupted int64            // sessions with a token request whose outcome is unknown, and with a free lease
	KeyVersions map[uint32]int64 // sessions by the version of the key that sealed them; 0: in the clear
}

// Count counts the sessions, those that cannot be read included. It reads the whole set,
// as List does, so its numbers are not those of one moment.
func (s *Set) Count(ctx context.Context) (Counts, error) {
	c := Counts{KeyVersions: make(map[uint32]int64)}
	now := s.now()
	for e, err := range s.List(ctx) {
		if err != nil && e.Key == "" {
			return Counts{}, err
		}
		c.Sessions++
		if e.LeaseOwner != "" {
			c.Leased++
		} else if e.Marked {
			c.Interrupted++
		}
		if err != nil {
			continue
		}
		c.KeyVersions[e.KeyVersion]++
		if !e.RenewAt.IsZero() && !e.RenewAt.After(now) {
			c.Due++
		}
	}
	return c, nil
}

// Reseal seals all sessions with the key that seals now, also those that are stored in
// the clear, and returns how many. Programs can go on using the set: a session that changes
// meanwhile has been sealed by that, and the lease of none is needed. Sessions that
// cannot be opened are left as they are; the error joins one for each, up to 100.
func (s *Set) Reseal(ctx context.Context) (int, error) {
	const op = "reseal sessions"
	done, wrong := 0, []error(nil)
	for sessions, err := range s.scan(ctx, op, s.sessionKey("")) {
		if err != nil {
			return done, errors.Join(append(wrong, err)...)
		}
		for _, f := range sessions {
			if e, err := s.entry(op, f); err == nil && e.KeyVersion == s.sealer.Version() {
				continue
			}
			changed, err := s.reseal(ctx, f.key)
			if ctx.Err() != nil {
				return done, errors.Join(append(wrong, err)...)
			}
			if err != nil && len(wrong) < 100 {
				wrong = append(wrong, err)
			}
			if changed {
				done++
			}
		}
	}
	return done, errors.Join(wrong...)
}

func (s *Set) reseal(ctx context.Context, key string) (bool, error) {
	const op, opRead = "reseal the session", "read the session to reseal"
	resp, err := attempts(ctx, s, op, key, few, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return s.etcd.txn(ctx, opRead, txn{then: s.getSession(key)})
	})
	if err != nil {
		return false, err
	}
	session, base := valueOf(resp, 0), valueOf(resp, 1)
	if session == nil && base == nil {
		return false, nil // deleted meanwhile
	}
	old, err := recordOf(session)
	if err != nil {
		return false, s.unreadable(op, key, err)
	}
	next, err := s.sealer.Reseal(key, seal.Row{Session: old.Session, KeyVersion: old.KeyVersion, Generation: old.Generation, Base: base})
	if err != nil {
		return false, s.unreadable(op, key, err)
	}
	value, err := recordValue(next, old.Updated, old.RenewAt)
	if err != nil {
		return false, &Error{Op: op, Prefix: s.prefix, Key: key, Err: err}
	}
	return attempts(ctx, s, op, key, few, func(ctx context.Context) (bool, error) {
		resp, err := s.etcd.txn(ctx, op, txn{
			cmps: []clientv3.Cmp{clientv3.Compare(clientv3.Value(s.sessionKey(key)), "=", string(session))},
			then: []clientv3.Op{clientv3.OpPut(s.sessionKey(key), value)},
		})
		return err == nil && resp.Succeeded, err
	})
}
