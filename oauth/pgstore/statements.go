package pgstore

import (
	"database/sql/driver"
	"encoding/hex"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// statements are the SQL of one table. All time in them is that of the server at
// the moment of the statement, clock_timestamp(), also after a wait for a row lock. Each is a
// transaction of its own. Times and bytes cross in forms that no setting of the
// connection changes (DateStyle, bytea_output): microseconds since 1970, and hexadecimal.
type statements struct {
	table string // quoted, with its schema

	load                              string
	take, enter, begin                string
	save, saveFirst, remove, empty    string
	release, restore, leave, stored   string
	list, due, postpone, drop, counts string
	giveBack                          string
	versions, toReseal, reseal        string
}

func newStatements(schema, table string) *statements {
	s := &statements{table: pgx.Identifier{schema, table}.Sanitize()}
	names := strings.NewReplacer(
		"{table}", s.table,
		"{now}", "clock_timestamp()",
		"{epoch}", "'epoch'::timestamptz",
		"{mine}", "lease_owner = $2::text AND lease_fence = $3::bigint",
	)
	sql := func(text string) string {
		return names.Replace(inMicros.ReplaceAllString(strings.TrimSpace(text), "(extract(epoch FROM $1) * 1000000)::bigint"))
	}

	s.load = sql(`
SELECT encode(session, 'hex'), key_version, generation, encode(base, 'hex') FROM {table} WHERE key = $1::text AND session IS NOT NULL`)

	// take: key, owner, length of the lease. No row if the key has none, and a row
	// without the lease if another owner has it. A repetition by the same owner takes
	// what the first attempt has taken without our hearing of it.
	s.take = sql(`
WITH taken AS (
	UPDATE {table}
	SET lease_owner = $2::text, lease_fence = lease_fence + 1, lease_until = {now} + $3::bigint * interval '1 microsecond'
	WHERE key = $1::text AND (lease_until IS NULL OR lease_until <= {now} OR lease_owner = $2::text)
	RETURNING lease_fence, encode(session, 'hex') AS session, key_version, generation, encode(base, 'hex') AS base,
		{micros marked_at} AS marked, {micros {now}} - {micros marked_at} AS ago
)
SELECT true, lease_fence, session, key_version, generation, base, marked, ago, '', 0 FROM taken
UNION ALL
SELECT false, 0, NULL, 0, 0, '', NULL, NULL, coalesce(lease_owner, ''), coalesce({micros lease_until} - {micros {now}}, 0)
FROM {table} WHERE key = $1::text AND NOT EXISTS (SELECT FROM taken)`)

	// enter takes the lease of a key that has no row: key, owner, length. The fence
	// begins with the time, so that it grows even where a row was removed.
	s.enter = sql(`
INSERT INTO {table} (key, lease_owner, lease_fence, lease_until)
VALUES ($1::text, $2::text, {micros {now}}, {now} + $3::bigint * interval '1 microsecond')
ON CONFLICT (key) DO NOTHING
RETURNING lease_fence`)

	// begin: key, owner, fence, base, length.
	s.begin = sql(`
UPDATE {table}
SET marked_at = {now}, lease_until = {now} + $5::bigint * interval '1 microsecond'
WHERE key = $1::text AND {mine} AND base = $4::bytea
RETURNING {micros marked_at}`)

	// save: key, owner, fence, base; the new session, key version, generation, base,
	// and the time until it is due. The lease and the mark of another holder stay, but a
	// mark that is about a refresh token which is replaced here is about nothing.
	const assignments = `
	session = $5::bytea, key_version = $6::bigint, generation = $7::bigint, base = $8::bytea,
	renew_at = {now} + $9::bigint * interval '1 microsecond', claimed_until = NULL, updated_at = {now},
	marked_at = CASE WHEN t.base <> $8::bytea OR {mine} THEN NULL ELSE t.marked_at END,
	lease_until = CASE WHEN {mine} THEN NULL ELSE t.lease_until END,
	lease_owner = CASE WHEN {mine} THEN NULL ELSE t.lease_owner END`
	own := strings.NewReplacer("{mine}", "t.lease_owner = $2::text AND t.lease_fence = $3::bigint")
	s.save = sql(own.Replace(`UPDATE {table} AS t SET` + assignments + `
WHERE t.key = $1::text AND t.base = $4::bytea`))

	// saveFirst is save where there was no session: the row may be gone since.
	s.saveFirst = sql(own.Replace(`
INSERT INTO {table} AS t (key, lease_fence, session, key_version, generation, base, renew_at)
VALUES ($1::text, {micros {now}}, $5::bytea, $6::bigint, $7::bigint, $8::bytea,
	{now} + $9::bigint * interval '1 microsecond')
ON CONFLICT (key) DO UPDATE SET` + assignments + `
WHERE t.base = $4::bytea`))

	// remove: key, owner, fence, base.
	s.remove = sql(`
DELETE FROM {table}
WHERE key = $1::text AND base = $4::bytea AND (lease_owner IS NULL OR lease_until <= {now} OR {mine})`)

	// empty removes the session from a row whose lease another holder has: key, base.
	s.empty = sql(`
UPDATE {table}
SET session = NULL, key_version = 0, generation = 0, base = '', marked_at = NULL, renew_at = NULL, claimed_until = NULL, updated_at = {now}
WHERE key = $1::text AND base = $2::bytea`)

	// release gives the lease back: key, owner, fence. restore sets the former mark,
	// too, unless the session has changed meanwhile: base, mark.
	s.release = sql(`
UPDATE {table} SET lease_owner = NULL, lease_until = NULL WHERE key = $1::text AND {mine}`)
	s.restore = sql(`
UPDATE {table}
SET lease_owner = NULL, lease_until = NULL, marked_at = CASE WHEN base = $4::bytea THEN {epoch} + $5::bigint * interval '1 microsecond' ELSE marked_at END
WHERE key = $1::text AND {mine}`)

	// leave removes a row that had only the lease: key, owner, fence.
	s.leave = sql(`
DELETE FROM {table} WHERE key = $1::text AND {mine} AND session IS NULL`)

	// giveBack is release without the fence: key, owner. Owners are those of one update.
	s.giveBack = sql(`
UPDATE {table} SET lease_owner = NULL, lease_until = NULL WHERE key = $1::text AND lease_owner = $2::text`)

	s.stored = sql(`
SELECT encode(base, 'hex') FROM {table} WHERE key = $1::text`)

	// The whole set.
	const columns = `t.key, t.generation, t.key_version, {micros t.created_at}, {micros t.updated_at}, {micros t.renew_at},
	{micros t.claimed_until}, t.lease_owner, {micros t.lease_until}, {micros t.marked_at}`
	s.list = sql(`
SELECT ` + columns + `
FROM {table} AS t WHERE session IS NOT NULL AND key > $1::text ORDER BY key LIMIT $2::bigint`)

	// due: how far ahead, how long the claim lasts, limit. The moment is computed once,
	// or the index on renew_at could not be used.
	s.due = sql(`
WITH due AS MATERIALIZED (
	SELECT key FROM {table}
	WHERE renew_at <= (SELECT {now} + $1::bigint * interval '1 microsecond')
		AND (claimed_until IS NULL OR claimed_until <= {now})
		AND (lease_until IS NULL OR lease_until <= {now})
	ORDER BY renew_at LIMIT $3::bigint
	FOR UPDATE SKIP LOCKED
)
UPDATE {table} AS t
SET claimed_until = {now} + $2::bigint * interval '1 microsecond'
FROM due WHERE t.key = due.key
RETURNING ` + columns)

	// postpone: key, for how long, the generation or 0.
	s.postpone = sql(`
UPDATE {table} SET claimed_until = {now} + $2::bigint * interval '1 microsecond'
WHERE key = $1::text AND session IS NOT NULL AND ($3::bigint = 0 OR generation = $3::bigint)`)
	s.drop = sql(`
DELETE FROM {table} WHERE key = $1::text`)
	s.counts = sql(`
SELECT count(*),
	count(*) FILTER (WHERE renew_at <= {now}),
	count(*) FILTER (WHERE lease_until > {now}),
	count(*) FILTER (WHERE marked_at IS NOT NULL AND (lease_until IS NULL OR lease_until <= {now}))
FROM {table} WHERE session IS NOT NULL`)
	s.versions = sql(`
SELECT key_version, count(*) FROM {table} WHERE session IS NOT NULL GROUP BY key_version`)

	// toReseal: the version that seals, the last key, limit. reseal changes a row only
	// if it still has what was sealed: key, old, new, version.
	s.toReseal = sql(`
SELECT key, encode(session, 'hex'), key_version, generation, encode(base, 'hex')
FROM {table} WHERE session IS NOT NULL AND key_version <> $1::bigint AND key > $2::text ORDER BY key LIMIT $3::bigint`)
	s.reseal = sql(`
UPDATE {table} SET session = $3::bytea, key_version = $4::bigint WHERE key = $1::text AND session = $2::bytea`)

	return s
}

// inMicros finds what stands for a time in microseconds.
var inMicros = regexp.MustCompile(`\{micros ([a-z._]+|\{now\})\}`)

// micros is a duration for a statement.
func micros(d time.Duration) int64 { return d.Microseconds() }

// secret is a parameter that holds a session, which may be in the clear. Tracers and
// errors of pgx print parameters.
type secret struct{ b []byte }

// Value implements [driver.Valuer].
func (s secret) Value() (driver.Value, error) { return s.b, nil }

// String and Format keep every verb of package fmt from printing it.
func (s secret) String() string { return "a session" }

// Format implements [fmt.Formatter].
func (s secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText is for loggers that encode parameters.
func (s secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A hexText scans bytes that a statement has encoded.
type hexText struct{ b *[]byte }

// Scan implements [sql.Scanner].
func (h hexText) Scan(v any) error {
	text, ok := v.(string)
	if !ok {
		*h.b = nil
		return nil
	}
	var err error
	*h.b, err = hex.DecodeString(text)
	return err
}

func scanHex(rows pgx.Rows) ([]byte, error) {
	var b []byte
	err := rows.Scan(hexText{&b})
	return b, err
}

func scanMicros(rows pgx.Rows) (time.Time, error) {
	var t time.Time
	err := rows.Scan(microTime{&t})
	return t, err
}

// A microTime scans a time; the zero time if there is none.
type microTime struct{ t *time.Time }

// Scan implements [sql.Scanner].
func (m microTime) Scan(v any) error {
	*m.t = time.Time{}
	if n, ok := v.(int64); ok {
		*m.t = time.UnixMicro(n)
	}
	return nil
}
