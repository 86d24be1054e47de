package pgstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ycauth/ycauth-go/internal/retry"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/internal/gate"
	"github.com/ycauth/ycauth-go/oauth/internal/seal"
)

// A DB runs statements: a [*github.com/jackc/pgx/v5/pgxpool.Pool], or for one goroutine
// at a time a [*pgx.Conn]. Its mode of query execution does not matter.
type DB interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	Begin(ctx context.Context) (pgx.Tx, error) // for Migrate alone
}

// Options describe a [Set].
type Options struct {
	// Keys seal the sessions. Required, unless InTheClear is set.
	Keys Keys

	// InTheClear allows sessions that are not sealed: anyone who can read the table, a
	// back-up or the server's log of parameters then has refresh tokens. Without Keys,
	// sessions are stored so. With Keys, those that are stored so can be read, until
	// [Set.Reseal] or their next change seals them. Optional.
	InTheClear bool

	// Schema and Table name the table. Table must not end in _migrations, _renew_at_idx or
	// _pkey, which names of tables and indexes are made with. Optional. Default: public and
	// oauth_sessions.
	Schema string
	Table  string

	// SealedAs is the name of the table that sealed sessions are bound to. Set it
	// to the former name after the table was renamed. Optional. Default:
	// Schema.Table, or "Schema"."Table" with quotes if one of them has a dot.
	SealedAs string

	// Lease is how long the lease of a session lasts, if its holder does not give it
	// back. It must be longer than oauth.Config.RequestTimeout. Optional. Default: 1
	// minute, which suits the default there.
	Lease time.Duration

	// Timeout is how long one statement may take, with the wait for a connection of
	// the pool. Optional. Default: 10 seconds.
	Timeout time.Duration

	// SaveTimeout is how long to keep trying to store a new session while the database is not
	// available. Optional. Default: 30 seconds.
	SaveTimeout time.Duration

	// RenewAt is the moment from which [Set.Due] returns a session, by the clock of this
	// process; the zero time means never. It is called when a session is stored. For
	// [oauth.Pool.KeepAlive], set it to the method [oauth.Provider.RenewAt] of the provider.
	// Optional. Default: when a fifth of the time is left between Session.Obtained and
	// Session.RefreshExpiry; never, if that is zero.
	RenewAt func(oauth.Session) time.Time

	// Owner names this process to those who look at the table. Optional. Default: the
	// name of the host and the id of the process.
	Owner string
}

// A Set is the sessions of one table. It is safe for concurrent use if its [DB] is.
type Set struct {
	db          DB
	sql         *statements
	schema      string
	tableName   string
	lease       time.Duration
	timeout     time.Duration
	saveTimeout time.Duration
	renewAt     func(oauth.Session) time.Time
	owner       string
	now         func() time.Time // of this process

	sealer *seal.Sealer
	gates  gate.Gates
}

// New returns the set of sessions in a table of db. It does not connect: a table that is
// missing shows at the first use.
func New(db DB, opts Options) (*Set, error) {
	if opts.Schema == "" {
		opts.Schema = "public"
	}
	if opts.Table == "" {
		opts.Table = "oauth_sessions"
	}
	if opts.SealedAs == "" {
		opts.SealedAs = opts.Schema + "." + opts.Table
		if strings.Contains(opts.Schema+opts.Table, ".") {
			opts.SealedAs = pgx.Identifier{opts.Schema, opts.Table}.Sanitize() // or a.b and c would be a and b.c
		}
	}
	if opts.RenewAt == nil {
		opts.RenewAt = defaultRenewAt
	}
	if opts.Owner == "" {
		host, _ := os.Hostname()
		opts.Owner = fmt.Sprintf("%s/%d", host, os.Getpid())
	}
	s := &Set{
		db: db, sql: newStatements(opts.Schema, opts.Table),
		schema: opts.Schema, tableName: opts.Table, sealer: seal.New(opts.SealedAs, opts.InTheClear),
		lease:   orDefault(opts.Lease, time.Minute),
		timeout: orDefault(opts.Timeout, 10*time.Second), saveTimeout: orDefault(opts.SaveTimeout, 30*time.Second),
		renewAt: opts.RenewAt, owner: opts.Owner, now: time.Now,
	}
	if err := errors.Join(s.sealer.SetKeys(seal.Keys(opts.Keys)), opts.check(db)); err != nil {
		return nil, &Error{Op: "use these Options", Table: s.sql.table, Err: err}
	}
	return s, nil
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// check returns all that is wrong, but for Keys, which the sealer checks.
func (o Options) check(db DB) error {
	var wrong []error
	report := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	if db == nil {
		report("there is no database: pass a *pgxpool.Pool")
	}
	if _, ok := db.(pgx.Tx); ok {
		report("a transaction saves nothing before it is committed: pass a *pgxpool.Pool")
	}
	if reason := badName(o.Schema, maxIdentifier); reason != "" {
		report("Schema %s", reason)
	}
	if reason := badName(o.Table, maxIdentifier-len(indexSuffix)); reason != "" {
		report("Table %s", reason)
	}
	for _, suffix := range []string{versionSuffix, indexSuffix, keySuffix} {
		if strings.HasSuffix(o.Table, suffix) {
			report("Table ends in %s, as what belongs to another table may", suffix)
		}
	}
	for name, d := range map[string]time.Duration{"Lease": o.Lease, "Timeout": o.Timeout, "SaveTimeout": o.SaveTimeout} {
		if d < 0 {
			report("%s is negative", name)
		}
	}
	if !utf8.ValidString(o.Owner) || strings.ContainsRune(o.Owner, 0) {
		report("Owner has a character that a text in PostgreSQL cannot hold")
	}
	return errors.Join(wrong...)
}

const (
	maxIdentifier = 63 // in bytes: PostgreSQL cuts off what is longer
	maxKey        = 1024
)

func badName(name string, most int) string {
	switch {
	case len(name) > most:
		return fmt.Sprintf("is longer than %d bytes", most)
	case !utf8.ValidString(name), strings.ContainsRune(name, 0):
		return "has a character that a name in PostgreSQL cannot hold"
	}
	return ""
}

// defaultRenewAt is when a fifth of the life of the refresh token is left: 6 of 31 days,
// where servers issue another one that late only.
func defaultRenewAt(s oauth.Session) time.Time {
	if s.RefreshExpiry.IsZero() {
		return time.Time{}
	}
	since := s.Obtained
	if since.IsZero() {
		since = s.Created
	}
	if since.IsZero() || !since.Before(s.RefreshExpiry) {
		return s.RefreshExpiry
	}
	return s.RefreshExpiry.Add(-s.RefreshExpiry.Sub(since) / 5)
}

// String keeps fmt from reading the keys.
func (s *Set) String() string { return "pgstore.Set(" + s.sql.table + ")" }

// Format implements [fmt.Formatter] for every verb, for the same reason.
func (s *Set) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue implements [slog.LogValuer].
func (s *Set) LogValue() slog.Value { return slog.StringValue(s.String()) }

// SetKeys replaces the keys while the program runs. See [Keys] for the steps.
func (s *Set) SetKeys(keys Keys) error {
	if err := s.sealer.SetKeys(seal.Keys(keys)); err != nil {
		return &Error{Op: "use these Keys", Table: s.sql.table, Err: err}
	}
	return nil
}

// Store returns the store of one session. It does not connect. A key is any text without
// NUL of 1 to 1,024 bytes, such as the id of a user: it is stored and logged in the
// clear. Errors of calls with another key match [ErrKey].
func (s *Set) Store(key string) *Store { return &Store{set: s, key: key} }

func (s *Set) checkKey(op, key string) error {
	switch {
	case key == "", len(key) > maxKey:
		return &Error{Op: op, Table: s.sql.table, Kind: ErrKey, remedy: "a key has 1 to 1024 bytes"}
	case !utf8.ValidString(key), strings.ContainsRune(key, 0):
		return &Error{Op: op, Table: s.sql.table, Key: key, Kind: ErrKey, remedy: "a key is UTF-8 without NUL"}
	}
	return nil
}

// A Store keeps one session. It implements [oauth.LeaseStore], is safe for concurrent
// use if its [DB] is, and costs nothing while it is not used.
type Store struct {
	set *Set
	key string
}

var _ oauth.LeaseStore = (*Store)(nil)

// Key returns the key of the session.
func (s *Store) Key() string { return s.key }

// String names the store.
func (s *Store) String() string { return fmt.Sprintf("pgstore.Store(%s, %q)", s.set.sql.table, s.key) }

// Format implements [fmt.Formatter] for every verb, which must not print the keys of the set.
func (s *Store) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue implements [slog.LogValuer].
func (s *Store) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Load implements [oauth.Store], with one statement. Errors that do not match
// [oauth.ErrNoSession] are of type [*Error].
func (s *Store) Load(ctx context.Context) (oauth.Session, error) {
	const op = "load the session"
	if err := s.set.checkKey(op, s.key); err != nil {
		return oauth.Session{}, err
	}
	r, err := attempts(ctx, s.set, op, s.key, few, func(ctx context.Context) (seal.Row, error) {
		return queryOne(ctx, s.set.db, func(rows pgx.Rows) (seal.Row, error) {
			var r seal.Row
			err := rows.Scan(hexText{&r.Session}, &r.KeyVersion, &r.Generation, hexText{&r.Base})
			return r, err
		}, s.set.sql.load, s.key)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return oauth.Session{}, oauth.ErrNoSession
	}
	if err != nil {
		return oauth.Session{}, err
	}
	return s.set.decode(op, s.key, r)
}

// decode reads a row.
func (s *Set) decode(op, key string, r seal.Row) (oauth.Session, error) {
	session, err := s.sealer.Decode(key, r)
	if err != nil {
		return oauth.Session{}, s.unreadable(op, key, err)
	}
	return session, nil
}

// queryOne returns the first row; pgx.ErrNoRows if there is none.
func queryOne[T any](ctx context.Context, db DB, scan func(pgx.Rows) (T, error), sql string, args ...any) (T, error) {
	all, err := queryAll(ctx, db, scan, sql, args...)
	if err == nil && len(all) == 0 {
		err = pgx.ErrNoRows
	}
	if err != nil {
		var none T
		return none, err
	}
	return all[0], nil
}

// queryAll needs no prepared statement and no state of a connection: one round trip, with
// parameters apart from the text, so that it works behind a pooler of transactions.
func queryAll[T any](ctx context.Context, db DB, scan func(pgx.Rows) (T, error), sql string, args ...any) ([]T, error) {
	rows, err := db.Query(ctx, sql, append([]any{pgx.QueryExecModeExec}, args...)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

// scan is for rows of one column.
func scan[T any](rows pgx.Rows) (T, error) {
	var v T
	err := rows.Scan(&v)
	return v, err
}

// exec is queryAll for statements that return no rows, but a number of them.
func exec(ctx context.Context, db DB, sql string, args ...any) (int64, error) {
	tag, err := db.Exec(ctx, sql, append([]any{pgx.QueryExecModeExec}, args...)...)
	return tag.RowsAffected(), err
}

// few is how often a statement is tried that somebody waits for.
const few = 4

// attempts runs a statement that can be repeated. It tries it again while the error is
// temporary, most times at most, until ctx ends.
func attempts[T any](ctx context.Context, s *Set, op, key string, most int, statement func(context.Context) (T, error)) (T, error) {
	return retry.Do(ctx, again(most), func(ctx context.Context, _ int) (T, error) {
		within, cancel := context.WithTimeout(ctx, s.timeout)
		defer cancel()
		v, err := statement(within)
		return v, s.judged(ctx, op, key, err)
	})
}

func again(most int) retry.Policy {
	return retry.Policy{Attempts: most, Initial: 50 * time.Millisecond, Max: time.Second}
}

// judged makes an error of a statement one for the caller, marked if it is temporary.
func (s *Set) judged(ctx context.Context, op, key string, err error) error {
	if err == nil || errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	failure := s.failed(ctx, op, key, err)
	if failure.Temporary() {
		return retry.Temporary(failure, 0)
	}
	return failure
}
