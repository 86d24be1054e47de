//go:build unix

package pgstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ycauth/ycauth-go/oauth"
)

// terminate ends all backends but its own.
func terminate(t testing.TB, where string) {
	t.Helper()
	url, _ := addresses(t)
	run(t, url, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND `+where)
}

// The steps of an update, with the statement of each.
func steps(q *statements) map[string]string {
	return map[string]string{"take": q.take, "begin": q.begin, "save": q.save, "release": q.restore, "enter": q.enter, "first save": q.saveFirst, "remove": q.remove}
}

// through renews the session of a new key, and does what else there is to be done, such that
// each step is taken.
func through(ctx context.Context, set *Set, step string) error {
	store := set.Store(step)
	next := func(s oauth.Session) func(oauth.Lease, oauth.Session) (oauth.Session, error) {
		return func(l oauth.Lease, current oauth.Session) (oauth.Session, error) {
			return s, begin(l)
		}
	}
	var found uint64
	for _, do := range []func() error{
		func() error { return store.UpdateLease(ctx, next(session(1))) },
		func() error { return store.UpdateLease(ctx, next(session(2))) },
		func() error { return store.UpdateLease(ctx, next(session(2))) },
		func() error {
			s, err := store.Load(ctx)
			found = s.Generation
			return err
		},
		func() error { return store.UpdateLease(ctx, next(oauth.Session{})) },
	} {
		if err := do(); err != nil {
			return err
		}
	}
	if found != 2 {
		return fmt.Errorf("generation %d was stored, want 2", found)
	}
	return nil
}

// The connection breaks before or after the server has run a statement, or the backend
// is terminated while it runs. Nobody notices.
func TestConnectionBreaks(t *testing.T) {
	bothWays(t, func(t *testing.T, url string) {
		set, _ := newSet(t, url, Options{Lease: time.Hour}) // none is waited for
		tapped := tap(set)
		for name, sql := range steps(set.sql) {
			t.Run(name+" is not sent", func(t *testing.T) {
				tapped.on(everyOther(sql, nil, io.EOF), nil)
				if err := through(t.Context(), set, t.Name()); err != nil {
					t.Error(err)
				}
			})
			t.Run("the response to "+name+" is lost", func(t *testing.T) {
				tapped.on(nil, everyOther(sql, nil, io.ErrUnexpectedEOF))
				if err := through(t.Context(), set, t.Name()); err != nil {
					t.Error(err)
				}
			})
			t.Run("the backend is terminated before "+name, func(t *testing.T) {
				tapped.on(everyOther(sql, func() { terminate(t, "true") }, nil), nil)
				if err := through(t.Context(), set, t.Name()); err != nil {
					t.Error(err)
				}
			})
			tapped.on(nil, nil)
		}
	})
}

// A store that does not know what it has done itself must be caught.
func TestConnectionControls(t *testing.T) {
	url, _ := addresses(t)
	for name, tc := range map[string]struct {
		breakIt func(*Set)
		lost    func(*statements) string // the statement whose response is lost
	}{
		"its own lease": {func(s *Set) { s.sql.take = strings.Replace(s.sql.take, " OR lease_owner = $2::text", "", 1) },
			func(q *statements) string { return q.take }},
		"its own session": {func(s *Set) { s.sql.stored = "SELECT '' WHERE $1::text <> ''" },
			func(q *statements) string { return q.save }},
	} {
		t.Run(name, func(t *testing.T) {
			set, _ := newSet(t, url, Options{Lease: time.Hour})
			tc.breakIt(set)
			tap(set).on(nil, everyOther(tc.lost(set.sql), nil, io.EOF))
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			err := through(ctx, set, "k")
			if err == nil {
				t.Error("nobody has noticed")
			}
			t.Log(err)
		})
	}
}

// A backend is terminated while it waits within a statement.
func TestTerminatedDuring(t *testing.T) {
	direct, _ := addresses(t)
	bothWays(t, func(t *testing.T, url string) {
		set, _ := newSet(t, url, Options{})
		tapped := tap(set)
		for name, sql := range steps(set.sql) {
			t.Run(name, func(t *testing.T) {
				conn, err := pgx.Connect(t.Context(), direct)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close(context.Background())
				var tx pgx.Tx
				var waiting sync.WaitGroup
				tapped.on(once(sql, func() {
					// The table is locked until the backend that waits for it has been
					// terminated.
					if tx, err = conn.Begin(t.Context()); err != nil {
						t.Error(err)
						return
					}
					if _, err := tx.Exec(t.Context(), "LOCK TABLE "+set.sql.table); err != nil {
						t.Error(err)
						return
					}
					waiting.Go(func() {
						for !terminateWaiting(t, conn) {
							time.Sleep(time.Millisecond)
						}
						if err := tx.Rollback(context.Background()); err != nil {
							t.Error(err)
						}
					})
				}, nil), nil)
				if err := through(t.Context(), set, t.Name()); err != nil {
					t.Error(err)
				}
				waiting.Wait()
				if tx == nil {
					t.Error("the statement was not run")
				}
			})
		}
	})
}

// terminateWaiting ends the backends that wait for a lock, and reports whether there
// was one.
func terminateWaiting(t *testing.T, conn *pgx.Conn) bool {
	t.Helper()
	var n int
	err := conn.QueryRow(context.Background(),
		`SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%Sessions%'`).Scan(&n)
	if err != nil {
		t.Error(err)
		return true
	}
	return n > 0
}

// The server is restarted, or crashes, while a token request is made and the session
// saved.
func TestRestart(t *testing.T) {
	addresses(t)
	for _, tc := range []struct {
		name string
		fast bool
	}{{"shutdown", true}, {"crash", false}} {
		t.Run(tc.name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, url string) {
				// pgbouncer keeps clients waiting while there is no server.
				set, _ := newSet(t, url, Options{Timeout: time.Second})
				store := set.Store("k")
				put(t, store, session(1))
				tapped := tap(set)
				up := make(chan error, 1)
				tapped.on(nil, nil)
				err := store.UpdateLease(t.Context(), func(l oauth.Lease, _ oauth.Session) (oauth.Session, error) {
					if err := begin(l); err != nil {
						return oauth.Session{}, err
					}
					server.pg.Stop(tc.fast)
					tries := 0
					tapped.on(func(sql string) error {
						if tries++; tries == 3 { // two attempts find no server
							go func() { up <- server.pg.StartAgain(context.Background()) }()
						}
						return nil
					}, nil)
					return session(2), nil
				})
				if err != nil {
					t.Error(err)
				}
				if err := <-up; err != nil {
					t.Fatal(err)
				}
				tapped.on(nil, nil)
				expect(t, store, 2)
				if r := inspect(t, set, "k"); r.held || r.marked {
					t.Errorf("the row is %+v", r)
				}
			})
		})
	}
}

// Without a server calls fail soon, and say that it may help to wait.
func TestServerDown(t *testing.T) {
	direct, _ := addresses(t)
	set, _ := newSet(t, direct, Options{SaveTimeout: 300 * time.Millisecond})
	store := set.Store("k")
	put(t, store, session(1))
	var inFn error
	err := store.Update(t.Context(), func(oauth.Session) (oauth.Session, error) {
		server.pg.Stop(true)
		_, inFn = store.Load(t.Context())
		return session(2), nil
	})
	_, load := store.Load(t.Context())
	update := store.Update(t.Context(), func(s oauth.Session) (oauth.Session, error) {
		t.Error("fn was called")
		return s, nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	canceled := store.Update(ctx, nil)
	if err := server.pg.StartAgain(t.Context()); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{"Load in fn": inFn, "save": err, "Load": load, "Update": update} {
		var e *Error
		if !errors.Is(err, ErrUnavailable) || !errors.As(err, &e) || !e.Temporary() || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if !errors.Is(canceled, context.Canceled) {
		t.Errorf("with a ctx that has ended: %v", canceled)
	}
	expect(t, store, 1)
}

// A server that does not respond is given up after Options.Timeout.
func TestNoResponse(t *testing.T) {
	direct, _ := addresses(t)
	patient, pool := newSet(t, direct, Options{})
	put(t, patient.Store("k"), session(1))
	set, err := New(pool, Options{Table: patient.tableName, Keys: oneKey(), Timeout: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), direct)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "LOCK TABLE "+set.sql.table); err != nil {
		t.Fatal(err)
	}
	_, err = set.Store("k").Load(t.Context())
	var e *Error
	if !errors.As(err, &e) || !e.Temporary() || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Load: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := set.Store("k").Load(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Load with a deadline: %v", err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(t, patient.Store("k"), 1)
}
