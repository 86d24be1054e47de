//go:build unix

package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ycauth/ycauth-go/oauth"
)

type updateFunc = func(oauth.Lease, oauth.Session) (oauth.Session, error)

// begin is Begin where it must succeed.
func begin(l oauth.Lease) error {
	marked, holds, err := l.Begin(context.Background())
	if err == nil && (!marked.IsZero() || holds <= 0) {
		err = fmt.Errorf("Begin returned %v, %v", marked, holds)
	}
	return err
}

// renewed is an update that begins a request and stores a session, or none for 0.
func renewed(generation uint64) updateFunc {
	return func(l oauth.Lease, _ oauth.Session) (oauth.Session, error) {
		if generation == 0 {
			return oauth.Session{}, begin(l)
		}
		return session(generation), begin(l)
	}
}

var errOther = errors.New("another error")

// The table at oauth.LeaseStore, row by row.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	with := func(beginning bool, next func(oauth.Session) (oauth.Session, error)) updateFunc {
		return func(l oauth.Lease, s oauth.Session) (oauth.Session, error) {
			if beginning {
				if err := begin(l); err != nil {
					return s, err
				}
			}
			return next(s)
		}
	}
	another := func(oauth.Session) (oauth.Session, error) { return session(2), nil }
	same := func(s oauth.Session) (oauth.Session, error) { return s, nil }
	unknown := func(s oauth.Session) (oauth.Session, error) {
		return s, fmt.Errorf("no response: %w", oauth.ErrOutcomeUnknown)
	}
	other := func(s oauth.Session) (oauth.Session, error) { return s, errOther }
	gone := func(oauth.Session) (oauth.Session, error) { return oauth.Session{}, nil }
	panics := func(oauth.Session) (oauth.Session, error) { panic("fn's own") }
	notASession := func(oauth.Session) (oauth.Session, error) {
		return oauth.Session{RefreshToken: "rt1.SECRET"}, nil
	}

	set, _ := newSet(t, theServer(t), Options{})
	for name, tc := range map[string]struct {
		fn         updateFunc
		generation int64   // that is stored afterwards; 0: none
		marked     [2]bool // without and with a former mark
		err        error   // that is matched
	}{
		"another session":          {fn: with(true, another), generation: 2},
		"another session, unbegun": {fn: with(false, another), generation: 2},
		"the same":                 {fn: with(true, same), generation: 1, marked: [2]bool{false, true}},
		"the same, unbegun":        {fn: with(false, same), generation: 1, marked: [2]bool{false, true}},
		"unknown":                  {fn: with(true, unknown), generation: 1, marked: [2]bool{true, true}, err: oauth.ErrOutcomeUnknown},
		"unknown, unbegun":         {fn: with(false, unknown), generation: 1, marked: [2]bool{false, true}, err: oauth.ErrOutcomeUnknown},
		"error":                    {fn: with(true, other), generation: 1, marked: [2]bool{false, true}, err: errOther},
		"error, unbegun":           {fn: with(false, other), generation: 1, marked: [2]bool{false, true}, err: errOther},
		"panic":                    {fn: with(true, panics), generation: 1, marked: [2]bool{true, true}},
		"panic, unbegun":           {fn: with(false, panics), generation: 1, marked: [2]bool{false, true}},
		"removal":                  {fn: with(true, gone)},
		"cannot be stored":         {fn: with(true, notASession), generation: 1, marked: [2]bool{true, true}, err: oauth.ErrSessionFormat},
	} {
		for i, former := range []string{"", " after an unknown outcome"} {
			t.Run(name+former, func(t *testing.T) {
				store := set.Store(name + former)
				put(t, store, session(1))
				if i == 1 {
					if err := store.UpdateLease(t.Context(), with(true, unknown)); !errors.Is(err, oauth.ErrOutcomeUnknown) {
						t.Fatal(err)
					}
				}
				err := func() (err error) {
					defer func() { _ = recover() }()
					return store.UpdateLease(t.Context(), func(l oauth.Lease, s oauth.Session) (oauth.Session, error) {
						if ago, interrupted := l.Interrupted(); interrupted != (i == 1) || ago < 0 || ago > time.Hour {
							t.Errorf("Interrupted: %v, %t", ago, interrupted)
						}
						return tc.fn(l, s)
					})
				}()
				if !errors.Is(err, tc.err) || (err != nil) != (tc.err != nil) {
					t.Errorf("error %v, want %v", err, tc.err)
				}
				there := tc.generation > 0
				want := rawState{there: there, based: there, generation: tc.generation, marked: tc.marked[i]}
				if got := inspect(t, set, store.Key()); got != want {
					t.Errorf("etcd has %+v, want %+v", got, want)
				}
			})
		}
	}
	t.Run("without a session", func(t *testing.T) {
		for name, tc := range map[string]struct {
			fn   updateFunc
			want rawState
		}{
			"a login":     {with(true, another), rawState{there: true, based: true, generation: 2}},
			"nothing":     {with(false, same), rawState{}},
			"a beginning": {with(true, same), rawState{}},
			"error":       {with(true, other), rawState{}},
			"unknown":     {with(true, unknown), rawState{marked: true}},
			"panic":       {with(false, panics), rawState{}},
		} {
			store := set.Store("no session, " + name)
			func() {
				defer func() { _ = recover() }()
				_ = store.UpdateLease(t.Context(), tc.fn)
			}()
			if got := inspect(t, set, store.Key()); got != tc.want {
				t.Errorf("%s: etcd has %+v, want %+v", name, got, tc.want)
			}
			expect(t, store, uint64(tc.want.generation))
		}
	})
}

// What a renewal costs.
func TestTransactions(t *testing.T) {
	set, _ := newSet(t, theServer(t), Options{})
	store := set.Store("k")
	put(t, set.Store("another"), session(1)) // a grant of leases is for all sessions
	tapped := tap(set)
	for _, step := range []struct {
		name string
		fn   func() error
		want []string
	}{
		{"first login", func() error {
			return store.Update(t.Context(), func(oauth.Session) (oauth.Session, error) { return session(1), nil })
		}, []string{opTake, opSave}},
		{"renewal", func() error { return store.UpdateLease(t.Context(), renewed(2)) }, []string{opTake, opBegin, opSave}},
		{"nothing to do", func() error {
			return store.Update(t.Context(), func(s oauth.Session) (oauth.Session, error) { return s, nil })
		}, []string{opTake, opRelease}},
		{"load", func() error {
			_, err := store.Load(t.Context())
			return err
		}, []string{"load the session"}},
		{"logout", func() error {
			return store.Update(t.Context(), func(oauth.Session) (oauth.Session, error) { return oauth.Session{}, nil })
		}, []string{opTake, opRemove}},
	} {
		tapped.transactions()
		if err := step.fn(); err != nil {
			t.Fatal(step.name, err)
		}
		if got := tapped.transactions(); !slices.Equal(got, step.want) {
			t.Errorf("%s ran %q, want %q", step.name, got, step.want)
		}
	}
}

// expire ends the lease of etcd that the locks of a set are attached to.
func expire(t testing.TB, s *Set, client *clientv3.Client) {
	t.Helper()
	if _, err := client.Revoke(t.Context(), s.grants.newest.Load().lock); err != nil {
		t.Error(err)
	}
}

// checkLate is about a holder whose lease has ended, and was taken by another one. It
// returns what is wrong with the store.
func checkLate(t *testing.T, edit func(op string, tx *txn)) error {
	t.Helper()
	c, prefix := theServer(t), newPrefix()
	slow, client := newSet(t, c, Options{Prefix: prefix})
	fast, _ := newSet(t, c, Options{Prefix: prefix})
	tap(slow).edit, tap(fast).edit = edit, edit
	var mu sync.Mutex
	var wrong []error
	report := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		wrong = append(wrong, fmt.Errorf(format, args...))
	}
	stored := func(key string) uint64 {
		s, err := fast.Store(key).Load(t.Context())
		if err != nil && !errors.Is(err, oauth.ErrNoSession) {
			t.Fatal(err)
		}
		return s.Generation
	}
	returns := func(s oauth.Session, err error) updateFunc {
		return func(_ oauth.Lease, current oauth.Session) (oauth.Session, error) {
			if err != nil {
				return current, err
			}
			return s, nil
		}
	}

	// The other one has come and gone when the late one returns.
	for _, tc := range []struct {
		key         string
		other, late updateFunc
		want        uint64
	}{
		{"late save after a renewal", returns(session(7), nil), returns(session(2), nil), 7},
		{"late save after a logout", returns(oauth.Session{}, nil), returns(session(2), nil), 0},
		{"late logout after a renewal", returns(session(7), nil), returns(oauth.Session{}, nil), 7},
	} {
		put(t, fast.Store(tc.key), session(1))
		var other error
		err := slow.Store(tc.key).UpdateLease(t.Context(), func(l oauth.Lease, s oauth.Session) (oauth.Session, error) {
			if err := begin(l); err != nil {
				return s, err
			}
			expire(t, slow, client)
			other = fast.Store(tc.key).UpdateLease(t.Context(), tc.other)
			return tc.late(l, s)
		})
		if !errors.Is(err, oauth.ErrLeaseLost) || other != nil || stored(tc.key) != tc.want {
			report("%s: %v, %v, generation %d", tc.key, err, other, stored(tc.key))
		}
	}

	// The other one has the lease.
	notBegun := func(oauth.Lease) error { return nil }
	lateBegin := func(l oauth.Lease, s oauth.Session) (oauth.Session, error) {
		if _, _, err := l.Begin(t.Context()); !errors.Is(err, oauth.ErrLeaseLost) {
			report("late Begin: %v", err)
		}
		return s, errOther
	}
	for _, tc := range []struct {
		key    string
		during func(oauth.Lease) error
		late   updateFunc
		err    error
		want   rawState   // while the other one has the lease
		then   updateFunc // what the other one does
		left   rawState   // when it is done
	}{
		{"a late winner", notBegun, returns(session(2), nil), nil, rawState{generation: 2, held: true}, lateBegin, rawState{generation: 2}},
		{"a late winner of a begun one", begin, returns(session(2), nil), nil, rawState{generation: 2, held: true}, lateBegin, rawState{generation: 2}},
		{"a late winner, outcome unknown", begin, returns(session(2), nil), nil, rawState{generation: 2, held: true}, returns(session(0), oauth.ErrOutcomeUnknown), rawState{generation: 2}},
		{"a late winner, other saves", begin, returns(session(2), nil), nil, rawState{generation: 2, held: true}, returns(session(7), nil), rawState{generation: 2}},
		{"a late removal", begin, returns(oauth.Session{}, nil), nil, rawState{held: true}, returns(session(7), nil), rawState{}},
		{"a late error", begin, returns(session(0), errOther), errOther, rawState{generation: 1, held: true, marked: true}, returns(session(7), nil), rawState{generation: 7}},
		{"a late unknown", begin, returns(session(0), oauth.ErrOutcomeUnknown), oauth.ErrOutcomeUnknown, rawState{generation: 1, held: true, marked: true},
			returns(session(1), nil), rawState{generation: 1, marked: true}},
		{"a late nothing", begin, returns(session(1), nil), nil, rawState{generation: 1, held: true, marked: true}, returns(session(7), nil), rawState{generation: 7}},
		{"a late begin", begin, lateBegin, errOther, rawState{generation: 1, held: true, marked: true}, returns(session(7), nil), rawState{generation: 7}},
		// The server does not rotate, so the refresh token is the same.
		{"a late save of the same token", begin, func(_ oauth.Lease, s oauth.Session) (oauth.Session, error) {
			s.AccessToken, s.Generation = "t1.new", 2
			return s, nil
		}, nil, rawState{generation: 2, held: true, marked: true}, returns(session(7), nil), rawState{generation: 7}},
	} {
		put(t, fast.Store(tc.key), session(1))
		entered, leave, left := make(chan struct{}), make(chan struct{}), make(chan struct{})
		var other error
		err := slow.Store(tc.key).UpdateLease(t.Context(), func(l oauth.Lease, s oauth.Session) (oauth.Session, error) {
			if err := begin(l); err != nil {
				return s, err
			}
			expire(t, slow, client)
			go func() {
				defer close(left)
				other = fast.Store(tc.key).UpdateLease(t.Context(), func(l oauth.Lease, s oauth.Session) (oauth.Session, error) {
					if ago, interrupted := l.Interrupted(); !interrupted || ago < 0 {
						report("%s: Interrupted: %v, %t", tc.key, ago, interrupted)
					}
					if err := tc.during(l); err != nil {
						return s, err
					}
					close(entered)
					<-leave
					return tc.then(l, s)
				})
			}()
			select {
			case <-entered:
			case <-left:
				return s, fmt.Errorf("the other one: %w", other)
			}
			return tc.late(l, s)
		})
		if got := seen(t, fast, tc.key); err != tc.err || got != tc.want { //nolint:errorlint // fn's error as it is
			report("%s: %v, then %+v, want %+v", tc.key, err, got, tc.want)
		}
		close(leave)
		<-left
		if got := seen(t, fast, tc.key); got != tc.left {
			report("%s: when the other one (%v) has left %+v, want %+v", tc.key, other, got, tc.left)
		}
	}
	return errors.Join(wrong...)
}

// seen is the state without what follows from the generation.
func seen(t *testing.T, s *Set, key string) rawState {
	t.Helper()
	state := inspect(t, s, key)
	state.there, state.based = false, false
	return state
}

func TestLate(t *testing.T) {
	t.Parallel()
	if err := checkLate(t, nil); err != nil {
		t.Error(err)
	}
}

// Stores that compare one thing less must be caught by the same check.
func TestLateControls(t *testing.T) {
	t.Parallel()
	blind := func(tx *txn) { tx.cmps = nil }
	inner := func(change func(cmps []clientv3.Cmp, then, otherwise []clientv3.Op) clientv3.Op) func(tx *txn) {
		return func(tx *txn) {
			tx.then = slices.Clone(tx.then)
			last := len(tx.then) - 1
			tx.then[last] = change(tx.then[last].Txn())
		}
	}
	always := inner(func(_ []clientv3.Cmp, then, otherwise []clientv3.Op) clientv3.Op {
		return clientv3.OpTxn(nil, then, otherwise)
	})
	for name, tc := range map[string]struct {
		op     string
		change func(tx *txn)
	}{
		"save does not compare":   {opSave, blind},
		"save releases any lease": {opSave, always},
		"save keeps any mark":     {opSave, inner(func(cmps []clientv3.Cmp, then, _ []clientv3.Op) clientv3.Op { return clientv3.OpTxn(cmps, then, nil) })},
		"save clears any mark": {opSave, inner(func(cmps []clientv3.Cmp, then, _ []clientv3.Op) clientv3.Op {
			return clientv3.OpTxn(cmps, then, then[1:])
		})},
		"a blind removal":          {opRemove, blind},
		"removal with any lease":   {opRemove, always},
		"release without an owner": {opRelease, blind},
		"restore without an owner": {opRestore, blind},
		"restore of another token": {opRestore, always},
		"begin without an owner":   {opBegin, func(tx *txn) { tx.cmps = tx.cmps[1:] }},
		"begin of another token":   {opBegin, func(tx *txn) { tx.cmps = tx.cmps[:1] }},
	} {
		t.Run(name, func(t *testing.T) {
			err := checkLate(t, func(op string, tx *txn) {
				if op == tc.op {
					tc.change(tx)
				}
			})
			if err == nil {
				t.Error("nobody has noticed")
			}
			if err != nil && strings.Contains(err.Error(), "etcdserver:") {
				t.Errorf("it is broken in another way: %v", err)
			}
			t.Log(err)
		})
	}
}

// A wait ends with ctx, and says who has the lease.
func TestWaiting(t *testing.T) {
	c, prefix := theServer(t), newPrefix()
	set, _ := newSet(t, c, Options{Prefix: prefix, Owner: "the holder"})
	other, _ := newSet(t, c, Options{Prefix: prefix})
	err := set.Store("k").Update(t.Context(), func(s oauth.Session) (oauth.Session, error) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		asked := 0
		tap(other).on(func(op string) error {
			if asked++; op == opLook && asked > 4 {
				cancel()
			}
			return nil
		}, nil)
		return s, other.Store("k").Update(ctx, nil)
	})
	var e *Error
	if !errors.Is(err, context.Canceled) || !errors.As(err, &e) || !strings.Contains(err.Error(), "the holder/") {
		t.Errorf("error %v", err)
	}
}

// A lease is of no use after its fn.
func TestLeaseAfterwards(t *testing.T) {
	set, _ := newSet(t, theServer(t), Options{})
	put(t, set.Store("k"), session(1))
	var kept oauth.Lease
	err := set.Store("k").UpdateLease(t.Context(), func(l oauth.Lease, s oauth.Session) (oauth.Session, error) {
		kept = l
		noSecret(t, l)
		return s, io.EOF
	})
	if err != io.EOF { //nolint:errorlint // it must come back as it is
		t.Fatal(err)
	}
	if _, _, err := kept.Begin(t.Context()); !errors.Is(err, oauth.ErrLeaseLost) {
		t.Errorf("Begin: %v", err)
	}
}

// How old a mark is, at least.
func TestSince(t *testing.T) {
	t.Parallel()
	set, client := newSet(t, theServer(t), Options{})
	g, err := set.grants.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if g.clockTTL < int64(clockTTL/time.Second) || g.lockTTL != 75 {
		t.Errorf("%+v", g)
	}
	tapped := tap(set)
	m := g.mark("somebody")
	for name, tc := range map[string]struct {
		granted, remaining int64
		change             func(*mark)
		want               time.Duration
	}{
		"just now":            {7200, 7200, nil, 0},
		"less than a lock":    {7200, 7130, nil, 0},
		"more than a lock":    {7200, 7100, nil, 24 * time.Second},
		"a new leader":        {7200, 7201, nil, 0},
		"a member cut off":    {0, -1, nil, 0},
		"no name of a clock":  {7200, 100, func(m *mark) { m.Clock = "x" }, 0},
		"a clock that is out": {0, -1, func(m *mark) { m.Clock = "0000000000000007" }, (7200 - 75) * time.Second},
		"longer than granted": {7200 * 9, 0, nil, (7200 - 75) * time.Second},
	} {
		tapped.clock = func() (int64, int64) { return tc.granted, tc.remaining }
		m := m
		if tc.change != nil {
			tc.change(&m)
		}
		if got := set.since(t.Context(), m); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
	tapped.on(func(string) error { return context.DeadlineExceeded }, nil)
	m.Clock = "0000000000000007"
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if got := set.since(ended, m); got != 0 {
		t.Errorf("without a response: %v", got)
	}

	// A real clock, of which nothing has to be taken off.
	tapped.clock = nil
	tapped.on(nil, nil)
	began := time.Now()
	set.grants.drop(g)
	if g, err = set.grants.get(t.Context()); err != nil {
		t.Fatal(err)
	}
	m = g.mark("somebody")
	m.LockTTL = 0
	for {
		got := set.since(t.Context(), m)
		if passed := time.Since(began); got > passed {
			t.Fatalf("%v have passed after %v", got, passed)
		}
		if got > 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if _, err := client.Revoke(t.Context(), g.clock); err != nil {
		t.Fatal(err)
	}
	if got := set.since(t.Context(), m); got != time.Duration(g.clockTTL)*time.Second {
		t.Errorf("the clock has ended: %v", got)
	}
}

// What a mark says about itself cannot make a successor wait for less.
func TestUnreadableMark(t *testing.T) {
	set, client := newSet(t, theServer(t), Options{})
	put(t, set.Store("k"), session(1))
	for _, value := range []string{"", "{", `{"clock":7}`, `{"format":2}`} {
		if _, err := client.Put(t.Context(), set.markKey("k"), value); err != nil {
			t.Fatal(err)
		}
		err := set.Store("k").UpdateLease(t.Context(), func(l oauth.Lease, s oauth.Session) (oauth.Session, error) {
			if ago, interrupted := l.Interrupted(); !interrupted || ago > time.Minute {
				t.Errorf("%q: %v, %t", value, ago, interrupted)
			}
			return s, errors.Join(begin(l), errOther)
		})
		if !errors.Is(err, errOther) {
			t.Error(err)
		}
		if resp, err := client.Get(t.Context(), set.markKey("k")); err != nil || string(resp.Kvs[0].Value) != value {
			t.Errorf("the former mark is %v, %v", resp, err)
		}
	}
}

// A pair of leases is for a short time, whatever clock says that it has passed.
func TestGrantIsFresh(t *testing.T) {
	now := time.Now()
	for name, tc := range map[string]struct {
		asked time.Time
		want  bool
	}{
		"now":            {now, true},
		"a while ago":    {now.Add(-14 * time.Second), true},
		"too long ago":   {now.Add(-15 * time.Second), false},
		"asleep":         {now.Round(0).Add(-time.Hour), false},
		"set back":       {now.Round(0).Add(time.Hour), false},
		"no other clock": {now.Round(0).Add(-time.Second), true},
	} {
		if got := (&grant{asked: tc.asked}).fresh(now, 15*time.Second); got != tc.want {
			t.Errorf("%s: %t", name, got)
		}
	}
	if (*grant)(nil).fresh(now, time.Hour) {
		t.Error("none is fresh")
	}
}
