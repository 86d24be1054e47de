//go:build unix

package pgstore

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ycauth/ycauth-go/oauth"
)

// A wiretap is a DB that sees every statement, and can fail it before or after the
// server has run it.
type wiretap struct {
	DB

	mu            sync.Mutex
	seen          []string
	before, after func(sql string) error // optional
}

// tap puts a wiretap on a set.
func tap(s *Set) *wiretap {
	w := &wiretap{DB: s.db}
	s.db = w
	return w
}

// on sets what happens before and after statements.
func (w *wiretap) on(before, after func(sql string) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.before, w.after = before, after
}

// statements returns what was run since the last call.
func (w *wiretap) statements() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := w.seen
	w.seen = nil
	return seen
}

func (w *wiretap) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	after, err := w.note(sql)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	tag, err := w.DB.Exec(ctx, sql, args...)
	if err == nil {
		err = after(sql)
	}
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	return tag, nil
}

func (w *wiretap) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	after, err := w.note(sql)
	if err != nil {
		return nil, err
	}
	rows, err := w.DB.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	if err := after(sql); err != nil {
		rows.Close() // which waits for the server
		return nil, err
	}
	return rows, nil
}

func (w *wiretap) note(sql string) (after func(string) error, err error) {
	w.mu.Lock()
	w.seen = append(w.seen, sql)
	before, after := w.before, w.after
	w.mu.Unlock()
	if after == nil {
		after = func(string) error { return nil }
	}
	if before != nil {
		err = before(sql)
	}
	return after, err
}

// once returns a function that returns err for the first statement that is sql, after it has
// called do.
func once(sql string, do func(), err error) func(string) error {
	var first sync.Once
	return func(s string) (result error) {
		if s == sql {
			first.Do(func() {
				if do != nil {
					do()
				}
				result = err
			})
		}
		return result
	}
}

// everyOther is once for the first, third, fifth … time, so that each attempt is followed
// by one that succeeds.
func everyOther(sql string, do func(), err error) func(string) error {
	var n atomic.Int64
	return func(s string) error {
		if s != sql || n.Add(1)%2 == 0 {
			return nil
		}
		if do != nil {
			do()
		}
		return err
	}
}

// inspect returns a row as the table has it.
type rawRow struct {
	there      bool
	generation int64
	owner      *string
	held       bool
	marked     bool
}

func inspect(t testing.TB, s *Set, key string) rawRow {
	t.Helper()
	rows, err := queryAll(t.Context(), s.db, func(rows pgx.Rows) (r rawRow, err error) {
		r.there = true
		err = rows.Scan(&r.generation, &r.owner, &r.held, &r.marked)
		return r, err
	}, `SELECT generation, lease_owner, coalesce(lease_until > clock_timestamp(), false), marked_at IS NOT NULL FROM `+
		s.sql.table+` WHERE key = $1::text`, key)
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) == 0 {
		return rawRow{}
	}
	return rows[0]
}

func TestCallersWhoseContextEnds(t *testing.T) {
	direct, _ := addresses(t)
	set, pool := newSet(t, direct, Options{})
	put(t, set.Store("u"), session(1))
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(t.Context(), "LOCK TABLE "+set.sql.table+" IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func(ctx context.Context) error{
		"Load": func(ctx context.Context) error { _, err := set.Store("u").Load(ctx); return err },
		"Update": func(ctx context.Context) error {
			return set.Store("u").Update(ctx, func(s oauth.Session) (oauth.Session, error) { return s, nil })
		},
		"Due": func(ctx context.Context) error { _, err := set.Due(ctx, 0, 0, 1); return err },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		start := time.Now()
		err := call(ctx)
		cancel()
		if d := time.Since(start); d > 1500*time.Millisecond || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s returned after %v, of which 300 ms were its own: %v", name, d, err)
		}
	}
}
