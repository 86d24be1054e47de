//go:build unix

package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ycauth/ycauth-go/oauth"
)

// Many renewals of one process, and of another, at a time.
func TestManyGoroutines(t *testing.T) {
	t.Parallel()
	c, prefix := theServer(t), newPrefix()
	first, _ := newSet(t, c, Options{Prefix: prefix})
	second, _ := newSet(t, c, Options{Prefix: prefix})
	const goroutines, keys = 400, 100
	var inside [keys]atomic.Int32
	var wg sync.WaitGroup
	errs := make(chan error, goroutines)
	for i := range goroutines {
		wg.Go(func() {
			set, k := first, i%keys
			if i >= goroutines/2 {
				set = second
			}
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
	for e, err := range first.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; e.Generation != goroutines/keys || e.LeaseOwner != "" || e.Marked || e.Updated.IsZero() || e.KeyVersion != 1 {
			t.Fatalf("%+v", e)
		}
	}
	if n != keys || first.gates.Len() != 0 {
		t.Errorf("%d sessions, %d gates", n, first.gates.Len())
	}
}

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

// Pages end and begin wherever there are sessions, and keys are any texts.
func TestList(t *testing.T) {
	t.Parallel()
	set, _ := newSet(t, theServer(t), Options{})
	neighbour, _ := newSet(t, theServer(t), Options{Prefix: set.prefix[:len(set.prefix)-1] + "0"})
	put(t, neighbour.Store("not ours"), session(1))
	for e, err := range set.List(t.Context()) {
		t.Fatal("an empty set has", e, err)
	}
	const n = page
	fill(t, set, n)
	odd := []string{"a/b", "a", "a/", "\x01", "ключ", "\U0010ffff", "s/x", " "}
	want := slices.Clone(odd)
	for _, key := range odd {
		put(t, set.Store(key), session(7))
	}
	for i := range n {
		want = append(want, fmt.Sprintf("user %04d", i))
	}
	slices.Sort(want)
	err := set.Store("a/b").UpdateLease(t.Context(), func(l oauth.Lease, s oauth.Session) (oauth.Session, error) {
		if err := begin(l); err != nil {
			return s, err
		}
		var got []string
		for e, err := range set.List(t.Context()) {
			if err != nil {
				return s, err
			}
			if held := e.Key == "a/b"; e.Marked != held || (e.LeaseOwner != "") != held {
				t.Errorf("%+v", e)
			}
			got = append(got, e.Key)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d keys %q, want %d", len(got), got, len(want))
		}
		for range set.List(t.Context()) {
			break
		}
		counts, err := set.Count(t.Context())
		if err != nil || counts.Sessions != int64(len(want)) || counts.Leased != 1 || counts.Interrupted != 0 || counts.Due != 0 {
			t.Errorf("Count: %+v, %v", counts, err)
		}
		return s, oauth.ErrOutcomeUnknown
	})
	if !errors.Is(err, oauth.ErrOutcomeUnknown) {
		t.Fatal(err)
	}
	counts, err := set.Count(t.Context())
	if err != nil || counts.Leased != 0 || counts.Interrupted != 1 || counts.KeyVersions[1] != counts.Sessions {
		t.Errorf("Count: %+v, %v", counts, err)
	}
	if there, err := set.Delete(t.Context(), "a"); !there || err != nil {
		t.Errorf("Delete: %t, %v", there, err)
	}
	if there, err := set.Delete(t.Context(), "a"); there || err != nil {
		t.Errorf("Delete: %t, %v", there, err)
	}
	expect(t, set.Store("a/b"), 7)
	expect(t, set.Store("a/"), 7)
}

func TestListFails(t *testing.T) {
	set, _ := newSet(t, theServer(t), Options{})
	fill(t, set, 3)
	tapped := tap(set)
	for fails := range 3 {
		n := 0
		tapped.on(func(string) error {
			if n++; n > fails {
				return rpctypes.ErrPermissionDenied
			}
			return nil
		}, nil)
		var got []error
		for e, err := range set.List(t.Context()) {
			if e.Key != "" {
				t.Errorf("%+v", e)
			}
			got = append(got, err)
		}
		var failure *Error
		if len(got) != 1 || !errors.As(got[0], &failure) {
			t.Errorf("List: %v", got)
		}
	}
	tapped.on(func(string) error { return rpctypes.ErrPermissionDenied }, nil)
	_, count := set.Count(t.Context())
	_, due := set.Due(t.Context(), 0, time.Hour, 1)
	_, reseal := set.Reseal(t.Context())
	_, remove := set.Delete(t.Context(), "k")
	for what, err := range map[string]error{
		"Count": count, "Due": due, "Reseal": reseal, "Delete": remove, "Postpone": set.Postpone(t.Context(), "k", 0, time.Hour),
	} {
		var failure *Error
		if !errors.As(err, &failure) || failure.Temporary() || failure.Op == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Several sweepers take all that is due, and nothing twice.
func TestSweepers(t *testing.T) {
	t.Parallel()
	const sessions, sweepers = 120, 3
	c, prefix := theServer(t), newPrefix()
	seed, _ := newSet(t, c, Options{Prefix: prefix, RenewAt: func(oauth.Session) time.Time { return time.Unix(1, 0) }})
	fill(t, seed, sessions)
	var mu sync.Mutex
	taken := map[string]int{}
	var wg sync.WaitGroup
	for range sweepers {
		set, _ := newSet(t, c, Options{Prefix: prefix})
		wg.Go(func() {
			for {
				entries, err := set.Due(t.Context(), 0, time.Hour, 25)
				if err != nil {
					t.Error(err)
					return
				}
				if len(entries) == 0 {
					return
				}
				mu.Lock()
				for _, e := range entries {
					taken[e.Key]++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for key, n := range taken {
		if n != 1 {
			t.Errorf("%s was claimed %d times", key, n)
		}
	}
	if len(taken) != sessions {
		t.Errorf("%d sessions were claimed, want %d", len(taken), sessions)
	}
}

func TestDue(t *testing.T) {
	t.Parallel()
	set, client := newSet(t, theServer(t), Options{})
	now := time.Now()
	set.now = func() time.Time { return now }
	expiring := func(generation uint64, at time.Duration) oauth.Session { // due at a fifth of 30 days before
		s := session(generation)
		s.Obtained = now.Add(at - 24*24*time.Hour)
		s.RefreshExpiry = s.Obtained.Add(30 * 24 * time.Hour)
		return s
	}
	put(t, set.Store("never"), session(1))
	put(t, set.Store("later"), expiring(1, time.Hour))
	put(t, set.Store("due"), expiring(1, -time.Hour))
	put(t, set.Store("longer"), expiring(1, -2*time.Hour))
	if _, err := client.Put(t.Context(), set.sessionKey("unreadable"), "x"); err != nil {
		t.Fatal(err)
	}
	due := func(ahead, claim time.Duration, limit int, want ...string) {
		t.Helper()
		entries, err := set.Due(t.Context(), ahead, claim, limit)
		var got []string
		for _, e := range entries {
			got = append(got, e.Key)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("Due(%v, %v, %d): %q, %v, want %q", ahead, claim, limit, got, err, want)
		}
	}
	due(0, 0, 0)
	due(0, 0, 1, "longer")
	due(0, 0, 10, "longer", "due")
	due(2*time.Hour, 0, 10, "longer", "due", "later")
	if c, err := set.Count(t.Context()); err != nil || c.Due != 2 || c.Sessions != 5 {
		t.Errorf("Count: %+v, %v", c, err)
	}
	due(0, time.Hour, 1, "longer")
	due(0, time.Hour, 10, "due")
	due(0, time.Hour, 10)

	// A claim ends with the session, when it is taken back, and with its lease.
	put(t, set.Store("longer"), expiring(2, -3*time.Hour))
	due(0, 0, 10, "longer")
	if err := set.Postpone(t.Context(), "due", 0, 0); err != nil {
		t.Error(err)
	}
	due(0, 0, 10, "longer", "due")
	for key, d := range map[string]time.Duration{"due": time.Hour, "longer": time.Second, "nobody": time.Hour} {
		if err := set.Postpone(t.Context(), key, 0, d); err != nil {
			t.Error(err)
		}
	}
	if resp, err := client.Get(t.Context(), set.claimKey("nobody")); err != nil || len(resp.Kvs) != 0 {
		t.Errorf("a claim without a session: %v, %v", resp, err)
	}
	for inspect(t, set, "longer").claims {
		time.Sleep(20 * time.Millisecond)
	}
	due(0, 0, 10, "longer")

	// Nobody claims what is being renewed, or was since it was read.
	err := set.Store("longer").Update(t.Context(), func(s oauth.Session) (oauth.Session, error) {
		due(0, time.Hour, 10)
		return s, nil
	})
	if err != nil {
		t.Error(err)
	}
	tapped := tap(set)
	reads := 0
	tapped.on(func(op string) error {
		if reads++; op == "claim sessions" && reads == 2 {
			put(t, set.Store("longer"), expiring(3, time.Hour))
		}
		return nil
	}, nil)
	due(0, 0, 10)
}

func TestDefaultRenewAt(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	for name, tc := range map[string]struct {
		session oauth.Session
		want    time.Time
	}{
		"no end":      {oauth.Session{Obtained: at}, time.Time{}},
		"a fifth":     {oauth.Session{Obtained: at, RefreshExpiry: at.Add(30 * day)}, at.Add(24 * day)},
		"created":     {oauth.Session{Created: at, RefreshExpiry: at.Add(30 * day)}, at.Add(24 * day)},
		"no begin":    {oauth.Session{RefreshExpiry: at}, at},
		"has expired": {oauth.Session{Obtained: at.Add(day), RefreshExpiry: at}, at},
	} {
		if got := defaultRenewAt(tc.session); !got.Equal(tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

// What RenewAt returns keeps no session from being stored.
func TestOddRenewAt(t *testing.T) {
	var at time.Time
	set, _ := newSet(t, theServer(t), Options{RenewAt: func(oauth.Session) time.Time { return at }})
	for i, year := range []int{-5, 0, 1, 2026, 9999, 10000, 300000} {
		at = time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)
		put(t, set.Store("k"), session(uint64(i)+1))
		expect(t, set.Store("k"), uint64(i)+1)
	}
}

// A member that is asked to do nothing is not asked.
func TestEnded(t *testing.T) {
	set, err := New(&clientv3.Client{}, Options{Keys: keysOfVersions(1)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := set.Store("k").Load(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Load: %v", err)
	}
	if err := set.Store("k").Update(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Update: %v", err)
	}
}

func dueNow(oauth.Session) time.Time { return time.Now().Add(-time.Hour) }

func TestPostponeForLong(t *testing.T) {
	set, _ := newSet(t, theServer(t), Options{RenewAt: dueNow})
	for name, d := range map[string]time.Duration{"the longest": math.MaxInt64, "290 years": 290 * 365 * 24 * time.Hour, "a year": 365 * 24 * time.Hour} {
		put(t, set.Store(name), session(1))
		err := set.Postpone(t.Context(), name, 0, d)
		if err != nil {
			t.Errorf("Postpone(%s): %v", name, err)
		}
		due, err := set.Due(t.Context(), 0, time.Minute, 10)
		for _, e := range due {
			t.Errorf("%s: %s is due", name, e.Key)
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// What is postponed is the session that the caller has seen.
func TestPostponeOfAGeneration(t *testing.T) {
	set, _ := newSet(t, theServer(t), Options{RenewAt: dueNow})
	for _, tt := range []struct {
		generation uint64
		due        int
	}{{6, 1}, {8, 1}, {7, 0}, {0, 0}} {
		key := strconv.FormatUint(tt.generation, 10)
		put(t, set.Store(key), session(7))
		if err := set.Postpone(t.Context(), key, tt.generation, time.Hour); err != nil {
			t.Error(err)
		}
		due, err := set.Due(t.Context(), 0, time.Hour, 10)
		if err != nil || len(due) != tt.due {
			t.Errorf("postponed for generation %d of 7: %v are due, %v", tt.generation, due, err)
		}
	}
	if err := set.Postpone(t.Context(), "nobody", 1, time.Hour); err != nil {
		t.Error(err)
	}
}

// A session that is too large stays too large.
func TestTooLargeSession(t *testing.T) {
	set, _ := newSet(t, theServer(t), Options{})
	for _, kib := range []int{1800, 3000} { // too large for etcd, and for its client
		put(t, set.Store("u"), session(1))
		err := set.Store("u").Update(t.Context(), func(s oauth.Session) (oauth.Session, error) {
			s = session(2)
			s.AccessToken = oauth.Secret(strings.Repeat("a", kib<<10))
			return s, nil
		})
		var failure *Error
		if !errors.As(err, &failure) || failure.Temporary() || !strings.Contains(err.Error(), "max-request-bytes") {
			t.Errorf("%d KiB: %.300v", kib, err)
		}
		if _, err := set.Delete(t.Context(), "u"); err != nil {
			t.Error(err)
		}
	}
}
