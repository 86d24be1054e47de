package pgstore

import (
	"context"
	"errors"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ycauth/ycauth-go/internal/retry"
)

// A Migration is one step of the schema. Releases only add steps, and only such that
// the programs of older releases can go on using the table.
type Migration struct {
	Version int
	SQL     string // several statements, for one transaction; running it again does no harm
}

const opMigrate = "migrate"

const (
	versionSuffix = "_migrations"
	indexSuffix   = "_renew_at_idx" // the longest of what names are made with
	keySuffix     = "_pkey"         // which PostgreSQL chooses

	indexVersion = 2 // the step that creates the index
)

// migrations are the steps, from version 1. A step is never changed after a release.
var migrations = []string{
	`
CREATE TABLE IF NOT EXISTS {table} (
	key           text COLLATE "C" PRIMARY KEY,
	session       bytea,                      -- sealed; NULL: there is only a lease
	key_version   bigint NOT NULL DEFAULT 0,  -- of the key that sealed it; 0: in the clear
	generation    bigint NOT NULL DEFAULT 0,
	base          bytea NOT NULL DEFAULT '',  -- hash of the refresh token
	lease_owner   text,
	lease_fence   bigint NOT NULL DEFAULT 0,
	lease_until   timestamptz,
	marked_at     timestamptz,                -- a token request has begun whose outcome is not stored
	renew_at      timestamptz,
	claimed_until timestamptz,                -- a sweeper looks after it
	created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
	updated_at    timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 70);                     -- room for leases, which change no index
`,
	`
CREATE INDEX IF NOT EXISTS {index} ON {table} (renew_at) WHERE renew_at IS NOT NULL;
`,
}

// Migrations returns the steps that create the table of the set, for those who migrate
// with their own tools. The schema must exist. [Set.Migrate] runs the same steps, and
// goes on after those that were applied by hand.
func (s *Set) Migrations() []Migration {
	versions := pgx.Identifier{s.schema, s.tableName + versionSuffix}.Sanitize()
	names := strings.NewReplacer(
		"{table}", s.sql.table, "{index}", pgx.Identifier{s.tableName + indexSuffix}.Sanitize(), "{versions}", versions)
	var all []Migration
	for i, step := range migrations {
		if i == 0 {
			step = `
CREATE TABLE IF NOT EXISTS {versions} (
	version    bigint PRIMARY KEY,
	applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);` + step
		}
		step += "INSERT INTO {versions} (version) VALUES (" + strconv.Itoa(i+1) + ") ON CONFLICT DO NOTHING;\n"
		all = append(all, Migration{Version: i + 1, SQL: strings.TrimLeft(names.Replace(step), "\n")})
	}
	return all
}

// Migrate creates the table, and its schema if that is missing, or brings it up to what
// this release needs. Any number of processes may call it at the same time, for instance
// each at its start: one migrates, in one transaction, and the others wait. It does
// nothing if all is done. A table that was dropped or renamed is created again.
//
// The user needs the right to create tables in the schema. A program that has no such
// right leaves Migrate out, and somebody else calls it or applies [Set.Migrations].
func (s *Set) Migrate(ctx context.Context) error {
	// Options.Timeout does not apply: a step can take long on a large table.
	_, err := retry.Do(ctx, again(few), func(ctx context.Context, _ int) (struct{}, error) {
		err := s.migrate(ctx)
		var pg *pgconn.PgError
		if errors.As(err, &pg) && slices.Contains(createdMeanwhile, pg.Code) {
			return struct{}{}, retry.Temporary(s.failed(ctx, opMigrate, "", err), 0)
		}
		return struct{}{}, s.judged(ctx, opMigrate, "", err)
	})
	return err
}

// createdMeanwhile are the SQLSTATEs of what somebody else has created, who does not use
// Migrate: unique_violation, of a catalog, and duplicate_schema, _table and _object.
var createdMeanwhile = []string{"23505", "42P06", "42P07", "42710"}

func (s *Set) migrate(ctx context.Context) error {
	all := s.Migrations()
	versions := pgx.Identifier{s.schema, s.tableName + versionSuffix}.Sanitize()
	// Most often all is done, and the user need not have a right to change the schema.
	if n, err := s.applied(ctx, s.db, versions); err != nil || n >= len(all) {
		return err
	}
	tx, err := s.db.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	// The lock ends with the transaction, also behind a pooler.
	h := fnv.New64a()
	_, _ = h.Write([]byte("ycauth-go pgstore " + versions))
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1::bigint)`, pgx.QueryExecModeExec, int64(h.Sum64())); err != nil {
		return err
	}
	n, err := s.applied(ctx, tx, versions)
	if err != nil {
		return err
	}
	index := pgx.Identifier{s.tableName + indexSuffix}.Sanitize()
	taken, err := s.exists(ctx, tx, s.tableName+indexSuffix)
	if err != nil {
		return err
	}
	if n == 0 {
		if err := s.createSchema(ctx, tx); err != nil {
			return err
		}
	}
	for _, m := range all[min(n, len(all)):] {
		// Several statements need the simple protocol. There are no parameters.
		sql := m.SQL
		if m.Version == indexVersion && taken {
			// A table that was renamed has kept its index, and the name of that. The
			// server chooses another one.
			sql = strings.Replace(sql, "CREATE INDEX IF NOT EXISTS "+index, "CREATE INDEX", 1)
		}
		if _, err := tx.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			return err
		}
	}
	return tx.Commit(ctx)
}

// applied returns the highest version that was applied, but none that is missing: somebody
// may have dropped or renamed the table, and not the one with the versions. Steps can be
// repeated.
//
// It reads the catalog as a table. Functions such as to_regclass read a cache, which a
// wait for an advisory lock does not refresh.
func (s *Set) applied(ctx context.Context, db DB, versions string) (int, error) {
	for _, table := range []string{s.tableName, s.tableName + versionSuffix} {
		if there, err := s.exists(ctx, db, table); err != nil || !there {
			return 0, err
		}
	}
	n, err := queryOne(ctx, db, scan[int], `SELECT coalesce(max(version), 0) FROM `+versions)
	if err != nil || n < indexVersion {
		return n, err
	}
	indexed, err := queryOne(ctx, db, scan[bool], `
SELECT EXISTS (
	SELECT FROM pg_catalog.pg_index AS i
		JOIN pg_catalog.pg_class AS c ON c.oid = i.indrelid
		JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
		JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
	WHERE n.nspname = $1::text AND c.relname = $2::text AND a.attname = 'renew_at'
)`, s.schema, s.tableName)
	if err == nil && !indexed {
		n = indexVersion - 1
	}
	return n, err
}

// exists reports whether the schema has a table or an index of a name.
func (s *Set) exists(ctx context.Context, db DB, name string) (bool, error) {
	return queryOne(ctx, db, scan[bool], `
SELECT EXISTS (
	SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
	WHERE n.nspname = $1::text AND c.relname = $2::text
)`, s.schema, name)
}

// createSchema creates the schema if it is missing: "IF NOT EXISTS" would need the right to
// create one in any case.
func (s *Set) createSchema(ctx context.Context, db DB) error {
	there, err := queryOne(ctx, db, scan[bool],
		`SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1::text)`, s.schema)
	if err != nil || there {
		return err
	}
	_, err = exec(ctx, db, `CREATE SCHEMA IF NOT EXISTS `+pgx.Identifier{s.schema}.Sanitize())
	return err
}
