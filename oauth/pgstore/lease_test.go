//go:build unix

package pgstore

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

	"github.com/ycauth/ycauth-go/oauth"
)

// bothWays runs a test with the database itself and behind pgbouncer.
func bothWays(t *testing.T, test func(t *testing.T, url string)) {
	t.Helper()
	direct, bouncer := addresses(t)
	t.Run("direct", func(t *testing.T) { test(t, direct) })
	t.Run("pgbouncer", func(t *testing.T) { test(t, bouncer) })
}

// begin is Begin where it must succeed.
func begin(l oauth.Lease) error {
	marked, holds, err := l.Begin(context.Background())
	if err == nil && (marked.IsZero() || holds <= 0) {
		err = fmt.Errorf("Begin returned %v, %v", marked, holds)
	}
	return err
}

var errOther = errors.New("another error")

// The table at oauth.LeaseStore, row by row.
func TestOutcomes(t *testing.T) {
	type fn = func(oauth.Lease, oauth.Session) (oauth.Session, error)
	with := func(beginning bool, next func(oauth.Session) (oauth.Session, error)) fn {
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

	bothWays(t, func(t *testing.T, url string) {
		set, _ := newSet(t, url, Options{})
		for name, tc := range map[string]struct {
			fn         fn
			generation int64   // that is stored afterwards; 0: no row
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
						err := store.UpdateLease(t.Context(), with(true, unknown))
						if !errors.Is(err, oauth.ErrOutcomeUnknown) {
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
					got := inspect(t, set, store.Key())
					want := rawRow{there: tc.generation > 0, generation: tc.generation, marked: tc.marked[i]}
					if got != want {
						t.Errorf("the row is %+v, want %+v", got, want)
					}
				})
			}
		}
		t.Run("without a session", func(t *testing.T) {
			for name, tc := range map[string]struct {
				fn   fn
				want rawRow
			}{
				"a login":     {with(true, another), rawRow{there: true, generation: 2}},
				"nothing":     {with(false, same), rawRow{}},
				"a beginning": {with(true, same), rawRow{}},
				"error":       {with(true, other), rawRow{}},
				"unknown":     {with(true, unknown), rawRow{there: true, marked: true}},
				"panic":       {with(false, panics), rawRow{}},
			} {
				store := set.Store("no session, " + name)
				func() {
					defer func() { _ = recover() }()
					_ = store.UpdateLease(t.Context(), tc.fn)
				}()
				if got := inspect(t, set, store.Key()); got != tc.want {
					t.Errorf("%s: the row is %+v, want %+v", name, got, tc.want)
				}
				expect(t, store, uint64(tc.want.generation))
			}
		})
	})
}

// What a renewal costs.
func TestStatements(t *testing.T) {
	url, _ := addresses(t)
	set, pool := newSet(t, url, Options{})
	tapped := tap(set)
	store := set.Store("k")
	q := set.sql
	for _, step := range []struct {
		name string
		fn   func() error
		want []string
	}{
		{"first login", func() error {
			return store.Update(t.Context(), func(oauth.Session) (oauth.Session, error) { return session(1), nil })
		}, []string{q.take, q.enter, q.saveFirst}},
		{"renewal", func() error {
			return store.UpdateLease(t.Context(), func(l oauth.Lease, _ oauth.Session) (oauth.Session, error) {
				if n := pool.Stat().AcquiredConns(); n != 0 {
					t.Errorf("%d connections are held while fn runs", n)
				}
				return session(2), begin(l)
			})
		}, []string{q.take, q.begin, q.save}},
		{"nothing to do", func() error {
			return store.Update(t.Context(), func(s oauth.Session) (oauth.Session, error) { return s, nil })
		}, []string{q.take, q.release}},
		{"load", func() error {
			_, err := store.Load(t.Context())
			return err
		}, []string{q.load}},
		{"logout", func() error {
			return store.Update(t.Context(), func(oauth.Session) (oauth.Session, error) { return oauth.Session{}, nil })
		}, []string{q.take, q.remove}},
	} {
		tapped.statements()
		if err := step.fn(); err != nil {
			t.Fatal(step.name, err)
		}
		if got := tapped.statements(); !slices.Equal(got, step.want) {
			t.Errorf("%s ran\n%q, want\n%q", step.name, got, step.want)
		}
	}
}

// checkLate is about a holder whose lease has ended, and was taken by another one. It
// returns what is wrong with the store.
func checkLate(t *testing.T, url string, breakIt func(*Set)) error {
	t.Helper()
	table := newTable()
	slow, _ := newSet(t, url, Options{Table: table, Lease: 50 * time.Millisecond})
	fast, _ := newSet(t, url, Options{Table: table})
	if breakIt != nil {
		breakIt(slow)
		breakIt(fast)
	}
	type fn = func(oauth.Lease, oauth.Session) (oauth.Session, error)
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
	renewed := func(n uint64) fn {
		return func(oauth.Lease, oauth.Session) (oauth.Session, error) {
			if n == 0 {
				return oauth.Session{}, nil
			}
			return session(n), nil
		}
	}

	// The other one has come and gone when the late one returns.
	for _, tc := range []struct {
		key         string
		other, late fn
		want        uint64
	}{
		{"late save after a renewal", renewed(7), renewed(2), 7},
		{"late save after a logout", renewed(0), renewed(2), 0},
		{"late logout after a renewal", renewed(7), renewed(0), 7},
	} {
		put(t, fast.Store(tc.key), session(1))
		var other error
		err := slow.Store(tc.key).UpdateLease(t.Context(), func(l oauth.Lease, s oauth.Session) (oauth.Session, error) {
			if err := begin(l); err != nil {
				return s, err
			}
			other = fast.Store(tc.key).UpdateLease(t.Context(), tc.other)
			return tc.late(l, s)
		})
		if !errors.Is(err, oauth.ErrLeaseLost) || other != nil || stored(tc.key) != tc.want {
			report("%s: %v, %v, generation %d", tc.key, err, other, stored(tc.key))
		}
	}

	// The other one has the lease.
	notBegun := func(oauth.Lease) error { return nil }
	returns := func(err error) fn {
		return func(_ oauth.Lease, s oauth.Session) (oauth.Session, error) { return s, err }
	}
	lateBegin := func(l oauth.Lease, s oauth.Session) (oauth.Session, error) {
		if _, _, err := l.Begin(t.Context()); !errors.Is(err, oauth.ErrLeaseLost) {
			report("late Begin: %v", err)
		}
		return s, errOther
	}
	for _, tc := range []struct {
		key    string
		during func(oauth.Lease) error
		late   fn
		err    error
		want   rawRow // while the other one has the lease
		then   fn     // what the other one does
		left   rawRow // when it is done
	}{
		{"a late winner", notBegun, renewed(2), nil, rawRow{generation: 2, held: true}, lateBegin, rawRow{generation: 2}},
		{"a late winner of a begun one", begin, renewed(2), nil, rawRow{generation: 2, held: true}, lateBegin, rawRow{generation: 2}},
		{"a late winner, outcome unknown", begin, renewed(2), nil, rawRow{generation: 2, held: true}, returns(oauth.ErrOutcomeUnknown), rawRow{generation: 2}},
		{"a late winner, other saves", begin, renewed(2), nil, rawRow{generation: 2, held: true}, renewed(7), rawRow{generation: 2}},
		{"a late removal", begin, renewed(0), nil, rawRow{held: true}, renewed(7), rawRow{}},
		{"a late error", begin, returns(errOther), errOther, rawRow{generation: 1, held: true, marked: true}, renewed(7), rawRow{generation: 7}},
		{"a late unknown", begin, returns(oauth.ErrOutcomeUnknown), oauth.ErrOutcomeUnknown, rawRow{generation: 1, held: true, marked: true}, returns(nil), rawRow{generation: 1, marked: true}},
		{"a late nothing", begin, returns(nil), nil, rawRow{generation: 1, held: true, marked: true}, renewed(7), rawRow{generation: 7}},
		{"a late begin", begin, lateBegin, errOther, rawRow{generation: 1, held: true, marked: true}, renewed(7), rawRow{generation: 7}},
		// The server does not rotate, so the refresh token is the same.
		{"a late save of the same token", begin, func(_ oauth.Lease, s oauth.Session) (oauth.Session, error) {
			s.AccessToken, s.Generation = "t1.new", 2
			return s, nil
		}, nil, rawRow{generation: 2, held: true, marked: true}, renewed(7), rawRow{generation: 7}},
	} {
		put(t, fast.Store(tc.key), session(1))
		entered, leave, left := make(chan struct{}), make(chan struct{}), make(chan struct{})
		var other error
		err := slow.Store(tc.key).UpdateLease(t.Context(), func(l oauth.Lease, s oauth.Session) (oauth.Session, error) {
			if err := begin(l); err != nil {
				return s, err
			}
			go func() {
				defer close(left)
				other = fast.Store(tc.key).UpdateLease(t.Context(), func(l oauth.Lease, s oauth.Session) (oauth.Session, error) {
					if ago, interrupted := l.Interrupted(); !interrupted || ago <= 0 {
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

// seen is a row without the names.
func seen(t *testing.T, s *Set, key string) rawRow {
	t.Helper()
	r := inspect(t, s, key)
	r.there, r.owner = false, nil
	return r
}

func TestLate(t *testing.T) {
	bothWays(t, func(t *testing.T, url string) {
		if err := checkLate(t, url, nil); err != nil {
			t.Error(err)
		}
	})
}

// Stores that look at one thing less must be caught by the same check.
func TestLateControls(t *testing.T) {
	url, _ := addresses(t)
	const (
		mine = "lease_owner = $2::text AND lease_fence = $3::bigint"
		own  = "t.lease_owner = $2::text AND t.lease_fence = $3::bigint"
		free = "(lease_owner IS NULL OR lease_until <= clock_timestamp() OR " + mine + ")"
	)
	always := func(guard string) string { return "((" + guard + ") OR true)" }
	never := func(guard string) string { return "((" + guard + ") AND false)" }
	for name, tc := range map[string]struct {
		statement   func(*statements) *string
		guard, with string
	}{
		"save does not compare":               {func(q *statements) *string { return &q.save }, "t.base = $4::bytea", always("t.base = $4::bytea")},
		"save releases any lease":             {func(q *statements) *string { return &q.save }, "CASE WHEN " + own, "CASE WHEN " + always(own)},
		"save keeps the mark":                 {func(q *statements) *string { return &q.save }, "t.base <> $8::bytea", never("t.base <> $8::bytea")},
		"save clears the mark of another one": {func(q *statements) *string { return &q.save }, "t.base <> $8::bytea", always("t.base <> $8::bytea")},
		"a blind removal":                     {func(q *statements) *string { return &q.remove }, "base = $4::bytea", always("base = $4::bytea")},
		"removal with another one's lease":    {func(q *statements) *string { return &q.remove }, free, always(free)},
		"release without a look at the owner": {func(q *statements) *string { return &q.release }, mine, always(mine)},
		"restore without a look at the owner": {func(q *statements) *string { return &q.restore }, mine, always(mine)},
		"restore without a look at the token": {func(q *statements) *string { return &q.restore }, "base = $4::bytea", always("base = $4::bytea")},
		"begin without a look at the owner":   {func(q *statements) *string { return &q.begin }, mine, always(mine)},
		"begin without a look at the token":   {func(q *statements) *string { return &q.begin }, "base = $4::bytea", always("base = $4::bytea")},
	} {
		t.Run(name, func(t *testing.T) {
			err := checkLate(t, url, func(s *Set) {
				q := tc.statement(s.sql)
				if !strings.Contains(*q, tc.guard) {
					t.Fatalf("%q is not in\n%s", tc.guard, *q)
				}
				*q = strings.ReplaceAll(*q, tc.guard, tc.with)
			})
			if err == nil {
				t.Error("nobody has noticed")
			}
			if err != nil && strings.Contains(err.Error(), "SQLSTATE") {
				t.Errorf("it is broken in another way: %v", err)
			}
			t.Log(err)
		})
	}
}

// A wait ends with ctx, and says who has the lease.
func TestWaiting(t *testing.T) {
	url, _ := addresses(t)
	set, _ := newSet(t, url, Options{Owner: "the holder"})
	other, err := New(set.db, Options{Table: set.tableName, Keys: oneKey()})
	if err != nil {
		t.Fatal(err)
	}
	err = set.Store("k").Update(t.Context(), func(s oauth.Session) (oauth.Session, error) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		asked := 0
		tap(other).on(func(sql string) error {
			if asked++; asked == 3 {
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
	url, _ := addresses(t)
	set, _ := newSet(t, url, Options{})
	put(t, set.Store("k"), session(1))
	var kept oauth.Lease
	err := set.Store("k").UpdateLease(t.Context(), func(l oauth.Lease, s oauth.Session) (oauth.Session, error) {
		kept = l
		return s, io.EOF
	})
	if err != io.EOF { //nolint:errorlint // it must come back as it is
		t.Fatal(err)
	}
	if _, _, err := kept.Begin(t.Context()); !errors.Is(err, oauth.ErrLeaseLost) {
		t.Errorf("Begin: %v", err)
	}
}
