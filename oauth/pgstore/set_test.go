//go:build unix

package pgstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ycauth/ycauth-go/oauth"
)

// Many renewals share few connections.
func TestManyGoroutines(t *testing.T) {
	bothWays(t, func(t *testing.T, url string) {
		set, pool := newSet(t, url, Options{})
		const goroutines, keys = 1000, 250
		var inside [keys]atomic.Int32
		var wg sync.WaitGroup
		errs := make(chan error, goroutines)
		for i := range goroutines {
			wg.Go(func() {
				k := i % keys
				errs <- set.Store(fmt.Sprint("user ", k)).UpdateLease(t.Context(), func(l oauth.Lease, s oauth.Session) (oauth.Session, error) {
					if inside[k].Add(1) != 1 {
						return s, errors.New("fn ran twice at the same time")
					}
					defer inside[k].Add(-1)
					return session(s.Generation + 1), begin(l)
				})
			})
		}
		wg.Wait()
		close(errs)
		for err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
		n := 0
		for e, err := range set.List(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if n++; e.Generation != goroutines/keys || e.LeaseOwner != "" || !e.Marked.IsZero() || e.Created.IsZero() || e.KeyVersion != 1 {
				t.Fatalf("%+v", e)
			}
		}
		if n != keys || pool.Stat().TotalConns() > 8 {
			t.Errorf("%d sessions, %d connections", n, pool.Stat().TotalConns())
		}
		if n := set.gates.Len(); n != 0 {
			t.Errorf("%d gates are left", n)
		}
	})
}

// The clocks of the processes are hours off.
func TestWrongClocks(t *testing.T) {
	url, _ := addresses(t)
	table := newTable()
	for _, off := range []time.Duration{-6 * time.Hour, 0, 6 * time.Hour} {
		set, _ := newSet(t, url, Options{Table: table})
		now := time.Now().Add(off)
		set.now = func() time.Time { return now }
		for key, left := range map[string]time.Duration{"due": 0, "in an hour": time.Hour} {
			s := session(1)
			s.Obtained = now.Add(left - 24*24*time.Hour) // by this process's clock
			s.RefreshExpiry = s.Obtained.Add(30 * 24 * time.Hour)
			put(t, set.Store(fmt.Sprint(key, " ", off)), s)
		}
	}
	set, _ := newSet(t, url, Options{Table: table})
	set.now = func() time.Time { return time.Unix(0, 0) }
	for _, tc := range []struct {
		ahead time.Duration
		want  []string
	}{
		{0, []string{"due -6h0m0s", "due 0s", "due 6h0m0s"}},
		{0, nil},
		{2 * time.Hour, []string{"in an hour -6h0m0s", "in an hour 0s", "in an hour 6h0m0s"}},
	} {
		entries, err := set.Due(t.Context(), tc.ahead, time.Hour, 10)
		if err != nil {
			t.Fatal(err)
		}
		if got := keysOf(entries); !slices.Equal(got, tc.want) {
			t.Errorf("due within %v: %q, want %q", tc.ahead, got, tc.want)
		}
	}
	// A lease is the database's, too.
	err := set.Store("k").Update(t.Context(), func(s oauth.Session) (oauth.Session, error) {
		other, err := New(set.db, Options{Table: table, Keys: oneKey()})
		if err != nil {
			return s, err
		}
		other.now = func() time.Time { return time.Now().Add(24 * time.Hour) }
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := other.Store("k").Update(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("another process took the lease: %v", err)
		}
		return s, nil
	})
	if err != nil {
		t.Error(err)
	}
}

func keysOf(entries []Entry) []string {
	var keys []string
	for _, e := range entries {
		keys = append(keys, e.Key)
	}
	slices.Sort(keys)
	return keys
}

// always makes every session due.
func always(oauth.Session) time.Time { return time.Unix(1, 0) }

// fill stores n sessions.
func fill(t testing.TB, set *Set, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := g; i < n; i += 8 {
				put(t, set.Store(fmt.Sprintf("user %04d", i)), session(1))
			}
		})
	}
	wg.Wait()
}

// checkSweepers: several sweepers take all that is due, and nothing twice.
func checkSweepers(t *testing.T, url string, breakIt func(*statements)) error {
	t.Helper()
	const sessions, sweepers = 300, 4
	table := newTable()
	seed, _ := newSet(t, url, Options{Table: table, RenewAt: always})
	fill(t, seed, sessions)
	var mu sync.Mutex
	taken := map[string]int{}
	share := make([]int, sweepers)
	var wg sync.WaitGroup
	errs := make([]error, sweepers)
	for i := range sweepers {
		set, _ := newSet(t, url, Options{Table: table})
		if breakIt != nil {
			breakIt(set.sql)
		}
		wg.Go(func() {
			for range sessions {
				entries, err := set.Due(t.Context(), 0, time.Hour, 7)
				if err != nil || len(entries) == 0 {
					errs[i] = err
					return
				}
				mu.Lock()
				for _, e := range entries {
					taken[e.Key]++
				}
				share[i] += len(entries)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	wrong := errs
	for key, n := range taken {
		if n != 1 {
			wrong = append(wrong, fmt.Errorf("%s was taken %d times", key, n))
		}
	}
	if len(taken) != sessions {
		wrong = append(wrong, fmt.Errorf("%d of %d were taken", len(taken), sessions))
	}
	t.Log("shares:", share)
	return errors.Join(wrong...)
}

func TestSweepers(t *testing.T) {
	bothWays(t, func(t *testing.T, url string) {
		if err := checkSweepers(t, url, nil); err != nil {
			t.Error(err)
		}
	})
}

func TestSweeperControls(t *testing.T) {
	url, _ := addresses(t)
	for name, old := range map[string]string{
		"without a lock":  "FOR UPDATE SKIP LOCKED",
		"without a claim": "AND (claimed_until IS NULL OR claimed_until <= clock_timestamp())",
	} {
		t.Run(name, func(t *testing.T) {
			err := checkSweepers(t, url, func(q *statements) {
				if !strings.Contains(q.due, old) {
					t.Fatalf("%q is not in\n%s", old, q.due)
				}
				q.due = strings.Replace(q.due, old, "", 1)
			})
			if err == nil {
				t.Error("nobody has noticed")
			}
		})
	}
}

// What is due, and what is not.
func TestDue(t *testing.T) {
	url, _ := addresses(t)
	set, _ := newSet(t, url, Options{RenewAt: always})
	due := func(want ...string) {
		t.Helper()
		entries, err := set.Due(t.Context(), 0, 0, 10)
		if err != nil {
			t.Fatal(err)
		}
		if got := keysOf(entries); !slices.Equal(got, want) {
			t.Errorf("%q are due, want %q", got, want)
		}
	}
	due()
	put(t, set.Store("a"), session(1))
	put(t, set.Store("b"), session(1))
	due("a", "b")
	due("a", "b") // the claims lasted no time
	if err := set.Postpone(t.Context(), "a", 0, time.Hour); err != nil {
		t.Fatal(err)
	}
	due("b")
	put(t, set.Store("a"), session(2)) // its user has logged in
	due("a", "b")
	err := set.Store("a").Update(t.Context(), func(s oauth.Session) (oauth.Session, error) {
		due("b") // a is being renewed
		return s, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	put(t, set.Store("b"), oauth.Session{})
	due("a")
	set.renewAt = func(oauth.Session) time.Time { return time.Time{} }
	put(t, set.Store("a"), session(3))
	due()
	keys, err := set.DueKeys(t.Context(), 0, time.Hour, 10)
	if err != nil || len(keys) != 0 {
		t.Errorf("%q, %v", keys, err)
	}
	set.renewAt = always
	put(t, set.Store("a"), session(4))
	for _, want := range []int{1, 0} {
		if keys, err := set.DueKeys(t.Context(), 0, time.Hour, 10); err != nil || len(keys) != want {
			t.Errorf("%q, %v; want %d", keys, err, want)
		}
	}
	entries, err := set.Due(t.Context(), 1000*time.Hour, time.Hour, 0)
	if err != nil || entries != nil {
		t.Errorf("a limit of 0: %v, %v", entries, err)
	}
}

func TestDefaultRenewAt(t *testing.T) {
	at := time.Date(2026, 5, 17, 9, 30, 0, 0, time.UTC)
	const day = 24 * time.Hour
	for name, tc := range map[string]struct {
		session oauth.Session
		want    time.Time
	}{
		"unknown":           {oauth.Session{Obtained: at}, time.Time{}},
		"31 days":           {oauth.Session{Obtained: at, RefreshExpiry: at.Add(31 * day)}, at.Add(31 * day * 4 / 5)},
		"imported":          {oauth.Session{Created: at, RefreshExpiry: at.Add(10 * day)}, at.Add(8 * day)},
		"no beginning":      {oauth.Session{RefreshExpiry: at}, at},
		"ends before begun": {oauth.Session{Obtained: at.Add(day), RefreshExpiry: at}, at},
	} {
		if got := defaultRenewAt(tc.session); !got.Equal(tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

// The index is used, or a sweep would read the whole table.
func TestDueUsesTheIndex(t *testing.T) {
	url, _ := addresses(t)
	set, pool := newSet(t, url, Options{})
	fill(t, set, 50)
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := exec(t.Context(), tx, "SET LOCAL enable_seqscan = off"); err != nil {
		t.Fatal(err)
	}
	lines, err := queryAll(t.Context(), tx, scan[string],
		"EXPLAIN "+set.sql.due, int64(0), int64(0), int64(10))
	if err != nil {
		t.Fatal(err)
	}
	if plan := strings.Join(lines, "\n"); !strings.Contains(plan, "Index Cond: (renew_at <=") {
		t.Errorf("the plan is\n%s", plan)
	}
}

func TestList(t *testing.T) {
	url, _ := addresses(t)
	set, pool := newSet(t, url, Options{RenewAt: always})
	const n = page + 1
	fill(t, set, n)
	var keys []string
	for e, err := range set.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if len(keys) == 0 {
			if n := pool.Stat().AcquiredConns(); n != 0 {
				t.Errorf("%d connections are held while the loop body runs", n)
			}
			if _, err := set.Delete(t.Context(), "user 0001"); err != nil { // it has been read
				t.Fatal(err)
			}
		}
		keys = append(keys, e.Key)
	}
	if len(keys) != n || !slices.IsSorted(keys) {
		t.Errorf("%d keys, want %d, sorted", len(keys), n)
	}
	for range set.List(t.Context()) {
		break
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for e, err := range set.List(ctx) {
		if e.Key != "" || !errors.Is(err, context.Canceled) {
			t.Errorf("%v, %v", e, err)
		}
	}
}

func TestCountAndDelete(t *testing.T) {
	url, _ := addresses(t)
	set, _ := newSet(t, url, Options{RenewAt: always})
	put(t, set.Store("a"), session(1))
	put(t, set.Store("b"), session(1))
	_ = set.Store("b").UpdateLease(t.Context(), func(l oauth.Lease, s oauth.Session) (oauth.Session, error) {
		if err := begin(l); err != nil {
			t.Error(err)
		}
		return s, oauth.ErrOutcomeUnknown
	})
	err := set.Store("a").Update(t.Context(), func(s oauth.Session) (oauth.Session, error) {
		got, err := set.Count(t.Context())
		want := Counts{Sessions: 2, Due: 2, Leased: 1, Interrupted: 1, KeyVersions: map[uint32]int64{1: 2}}
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("Count: %+v, %v, want %+v", got, err, want)
		}
		deleted, err := set.Delete(t.Context(), "a")
		if !deleted || err != nil {
			t.Errorf("Delete: %t, %v", deleted, err)
		}
		return session(2), nil
	})
	if !errors.Is(err, oauth.ErrLeaseLost) {
		t.Errorf("Update of a session that was deleted: %v", err)
	}
	expect(t, set.Store("a"), 0)
	if deleted, err := set.Delete(t.Context(), "a"); deleted || err != nil {
		t.Errorf("Delete again: %t, %v", deleted, err)
	}
}

// The interrupted token request of a process that is gone.
func TestInterrupted(t *testing.T) {
	url, _ := addresses(t)
	set, _ := newSet(t, url, Options{})
	put(t, set.Store("k"), session(1))
	_ = set.Store("k").UpdateLease(t.Context(), func(l oauth.Lease, s oauth.Session) (oauth.Session, error) {
		return s, errors.Join(oauth.ErrOutcomeUnknown, begin(l))
	})
	if _, err := exec(t.Context(), set.db, "UPDATE "+set.sql.table+" SET marked_at = marked_at - interval '1 hour'"); err != nil {
		t.Fatal(err)
	}
	for e, err := range set.List(t.Context()) {
		if err != nil || e.Marked.IsZero() {
			t.Errorf("%+v, %v", e, err)
		}
	}
	err := set.Store("k").UpdateLease(t.Context(), func(l oauth.Lease, s oauth.Session) (oauth.Session, error) {
		first, ok := l.Interrupted()
		if !ok || first < time.Hour || first > 2*time.Hour {
			t.Errorf("Interrupted: %v, %t", first, ok)
		}
		if err := begin(l); err != nil {
			return s, err
		}
		if again, _ := l.Interrupted(); again < first { // it is about the former request
			t.Errorf("Interrupted: %v, then %v", first, again)
		}
		return session(2), nil
	})
	if err != nil {
		t.Error(err)
	}
}

// What is postponed is the session that the caller has seen.
func TestPostponeOfAGeneration(t *testing.T) {
	direct, _ := addresses(t)
	set, _ := newSet(t, direct, Options{RenewAt: func(oauth.Session) time.Time { return time.Now().Add(-time.Hour) }})
	for _, tt := range []struct {
		generation uint64
		due        int
	}{{6, 1}, {8, 1}, {7, 0}, {0, 0}} {
		key := strconv.FormatUint(tt.generation, 10)
		put(t, set.Store(key), session(7))
		if err := set.Postpone(t.Context(), key, tt.generation, time.Hour); err != nil {
			t.Error(err)
		}
		due, err := set.DueKeys(t.Context(), 0, time.Hour, 10)
		if err != nil || len(due) != tt.due {
			t.Errorf("postponed for generation %d of 7: %q are due, %v", tt.generation, due, err)
		}
	}
}

func TestNewRejectsNamesOfOtherTables(t *testing.T) {
	for _, name := range []string{"x_migrations", "x_renew_at_idx", "x_pkey", "x_migrations_pkey"} {
		if _, err := New(new(pgxpool.Pool), Options{Table: name, InTheClear: true}); err == nil || !strings.Contains(err.Error(), "ends in") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
