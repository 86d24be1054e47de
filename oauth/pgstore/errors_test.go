//go:build unix

package pgstore

import (
	"bytes"
	"context"
	"crypto/cipher"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/tracelog"

	"github.com/ycauth/ycauth-go/oauth"
)

// shortNonces is an AEAD that must not be used with random nonces.
type shortNonces struct{ cipher.AEAD }

func (shortNonces) NonceSize() int { return 8 }

func TestOptions(t *testing.T) {
	good := oneKey()
	for name, tc := range map[string]struct {
		db   DB
		opts Options
		want []string // in the error; none: no error
	}{
		"good":         {&wiretap{}, Options{Keys: good}, nil},
		"in the clear": {&wiretap{}, Options{InTheClear: true}, nil},
		"nothing":      {nil, Options{}, []string{"pass a *pgxpool.Pool", "InTheClear"}},
		"transaction":  {&pgxpool.Tx{}, Options{Keys: good}, []string{"before it is committed"}},
		"names":        {&wiretap{}, Options{Keys: good, Schema: "a\x00", Table: strings.Repeat("x", 51)}, []string{"Schema has", "Table is longer than 50"}},
		"durations":    {&wiretap{}, Options{Keys: good, Lease: -1, Timeout: -1, SaveTimeout: -1}, []string{"Lease is", "Timeout is", "SaveTimeout is"}},
		"owner":        {&wiretap{}, Options{Keys: good, Owner: "\xff"}, []string{"Owner"}},
		"keys": {&wiretap{}, Options{Keys: Keys{ByVersion: map[uint32]cipher.AEAD{0: aead(1), 1: nil, 2: shortNonces{aead(1)}}, Seal: 3}},
			[]string{"version 0", "version 1 is nil", "version 2 has nonces of 8 bytes", "no key of version 3"}},
	} {
		t.Run(name, func(t *testing.T) {
			set, err := New(tc.db, tc.opts)
			if (err == nil) != (tc.want == nil) || (set == nil) != (tc.want != nil) {
				t.Fatal(set, err)
			}
			for _, part := range tc.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q is not in %v", part, err)
				}
			}
		})
	}
	set, err := New(&wiretap{}, Options{Keys: good})
	if err != nil {
		t.Fatal(err)
	}
	for _, keys := range []Keys{{}, {ByVersion: map[uint32]cipher.AEAD{1: nil}}} {
		var e *Error
		if err := set.SetKeys(keys); !errors.As(err, &e) {
			t.Errorf("SetKeys: %v", err)
		}
	}
}

func TestKeys(t *testing.T) {
	set, err := New(&wiretap{}, Options{Keys: oneKey()})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"", "\x00", "\xff", strings.Repeat("k", maxKey+1)} {
		store := set.Store(key)
		_, load := store.Load(t.Context())
		_, deletion := set.Delete(t.Context(), key)
		for what, err := range map[string]error{
			"Load": load, "Update": store.Update(t.Context(), nil), "Delete": deletion, "Postpone": set.Postpone(t.Context(), key, 0, 0),
		} {
			if !errors.Is(err, ErrKey) {
				t.Errorf("%s(%.10q): %v", what, key, err)
			}
		}
	}
}

func TestTableMissing(t *testing.T) {
	url, _ := addresses(t)
	_, pool := newSet(t, url, Options{})
	for _, opts := range []Options{{Table: "missing"}, {Schema: "missing"}} {
		opts.Keys = oneKey()
		set, err := New(pool, opts)
		if err != nil {
			t.Fatal(err)
		}
		_, load := set.Store("k").Load(t.Context())
		_, due := set.Due(t.Context(), 0, 0, 1)
		for what, err := range map[string]error{"Load": load, "Update": set.Store("k").Update(t.Context(), nil), "Due": due} {
			var e *Error
			var pg *pgconn.PgError
			if !errors.Is(err, ErrSchema) || !errors.As(err, &e) || e.Temporary() || !errors.As(err, &pg) || pg.Code != "42P01" ||
				!strings.Contains(err.Error(), "call Set.Migrate") {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
}

func TestStandby(t *testing.T) {
	url, _ := addresses(t)
	set, _ := newSet(t, url, Options{})
	readOnly, err := newPool(url+"&default_transaction_read_only=on", 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(readOnly.Close)
	set.db = readOnly
	err = set.Store("k").Update(t.Context(), nil)
	var e *Error
	if !errors.As(err, &e) || !e.Temporary() || !strings.Contains(err.Error(), "target_session_attrs") {
		t.Errorf("Update: %v", err)
	}
}

// Whatever the isolation level and the mode of execution of the pool.
func TestPoolsOfAllKinds(t *testing.T) {
	bothWays(t, func(t *testing.T, url string) {
		for _, parameters := range []string{
			"default_query_exec_mode=simple_protocol", "default_query_exec_mode=cache_describe", "default_query_exec_mode=exec",
			"default_transaction_isolation=serializable", "TimeZone=Asia/Kathmandu", "DateStyle=German", "bytea_output=escape", "IntervalStyle=iso_8601",
			"standard_conforming_strings=off",
		} {
			if strings.Contains(url, "6432") && !strings.Contains(parameters, "exec_mode") {
				continue // pgbouncer has its own settings
			}
			t.Run(parameters, func(t *testing.T) {
				set, _ := newSet(t, url+"&"+parameters, Options{RenewAt: always})
				wantCount(t, set)
			})
		}
		t.Run("one connection", func(t *testing.T) {
			set, _ := newSet(t, url, Options{RenewAt: always})
			conn, err := pgx.Connect(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(context.Background())
			set.db = conn
			wantCount(t, set)
		})
	})
}

func wantCount(t *testing.T, set *Set) {
	t.Helper()
	if err := through(t.Context(), set, "through"); err != nil {
		t.Fatal(err)
	}
	put(t, set.Store("k"), session(1))
	_ = set.Store("k").UpdateLease(t.Context(), func(l oauth.Lease, s oauth.Session) (oauth.Session, error) {
		return s, errors.Join(oauth.ErrOutcomeUnknown, begin(l))
	})
	if _, err := set.Due(t.Context(), 0, 0, 1); err != nil {
		t.Error(err)
	}
	for _, err := range set.List(t.Context()) {
		if err != nil {
			t.Error(err)
		}
	}
	if c, err := set.Count(t.Context()); err != nil || c.Sessions != 1 || c.Interrupted != 1 {
		t.Errorf("%+v, %v", c, err)
	}
}

// What a trigger or a constraint says can quote a row in the clear; tracers see
// parameters.
func TestSecretsStayIn(t *testing.T) {
	url, _ := addresses(t)
	var log bytes.Buffer
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	config.ConnConfig.Tracer = &tracelog.TraceLog{
		LogLevel: tracelog.LogLevelTrace,
		Logger: tracelog.LoggerFunc(func(ctx context.Context, _ tracelog.LogLevel, msg string, data map[string]any) {
			logger.DebugContext(ctx, msg, "data", data, "printed", fmt.Sprintf("%v %+v %#v", data, data, data))
		}),
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	set, _ := newSet(t, url, Options{InTheClear: true})
	set.db = pool
	store := set.Store("k")
	put(t, store, session(1))
	traced := log.String()

	run(t, url, "ALTER TABLE "+set.sql.table+" ADD CONSTRAINT few CHECK (generation < 2)")
	next := func(l oauth.Lease, _ oauth.Session) (oauth.Session, error) {
		noSecret(t, l)
		return session(2), begin(l)
	}
	constraint := store.UpdateLease(t.Context(), next)
	run(t, url, "ALTER TABLE "+set.sql.table+" DROP CONSTRAINT few")
	run(t, url, `
CREATE OR REPLACE FUNCTION quote() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.generation > 1 THEN RAISE EXCEPTION 'no room for % %', NEW, convert_from(NEW.session, 'UTF8'); END IF;
	RETURN NEW;
END $$`)
	run(t, url, "CREATE TRIGGER quote BEFORE UPDATE ON "+set.sql.table+" FOR EACH ROW EXECUTE FUNCTION quote()")
	trigger := store.UpdateLease(t.Context(), next)
	for code, err := range map[string]error{"23514": constraint, "P0001": trigger} {
		var pg *pgconn.PgError
		if !errors.As(err, &pg) || pg.Code != code {
			t.Errorf("error %v, want one with code %s", err, code)
			continue
		}
		noSecret(t, err)
		noSecret(t, pg)
		noSecret(t, *pg)
	}
	expect(t, store, 1)
	noSecret(t, set)
	noSecret(t, store)
	noSecret(t, secret{[]byte("SECRET")})
	// What the server itself sends a tracer sees before anybody else.
	if !strings.Contains(traced, "a session") {
		t.Errorf("the tracer saw no session:\n%s", traced)
	}
	if strings.Contains(traced, "SECRET") || strings.Contains(traced, fmt.Sprintf("%x", "SECRET")) {
		t.Errorf("the tracer saw a secret:\n%s", traced)
	}
}

// Keys are printed in no way either.
func TestPrintKeys(t *testing.T) {
	keys := Keys{ByVersion: map[uint32]cipher.AEAD{2: leaky{AEAD: aead(1), Text: "SECRET"}, 1: aead(1)}}
	set, err := New(&wiretap{}, Options{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{keys, Options{Keys: keys}, set, *set.Store("k"), set.Store("k"), struct{ s *Set }{set}} {
		noSecret(t, v)
	}
	if s := keys.String(); s != "pgstore.Keys[1 2]" {
		t.Error(s)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "keys", keys, "set", set, "store", set.Store("k"))
	if s := log.String(); strings.Contains(s, "SECRET") || !strings.Contains(s, `pgstore.Store`) {
		t.Error(s)
	}
}

type leaky struct {
	cipher.AEAD
	Text string
}
