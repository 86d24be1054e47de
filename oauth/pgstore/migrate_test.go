//go:build unix

package pgstore

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ycauth/ycauth-go/oauth"
)

// describeTable is what PostgreSQL says of a table and of what belongs to it, without
// its name.
func describeTable(t *testing.T, set *Set) []string {
	t.Helper()
	lines, err := queryAll(t.Context(), set.db, scan[string], `
SELECT format('%s %s %s %s', attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid))
FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attrelid = $1::regclass AND attnum > 0
UNION ALL SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = $1::regclass
UNION ALL SELECT reloptions::text FROM pg_class WHERE oid = $1::regclass
ORDER BY 1`, set.sql.table)
	if err != nil {
		t.Fatal(err)
	}
	for i := range lines {
		lines[i] = strings.NewReplacer(set.tableName, "TABLE", strings.ReplaceAll(set.tableName, `"`, `""`), "TABLE", set.schema, "SCHEMA").Replace(lines[i])
	}
	return lines
}

// Processes that start together migrate together.
func TestConcurrentMigrations(t *testing.T) {
	bothWays(t, func(t *testing.T, url string) {
		for round := range 5 {
			pool, err := newPool(url, 8)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(pool.Close)
			schema, table := fmt.Sprint("schema ", tables.Add(1)), "s"
			if round%2 == 1 {
				schema, table = "", newTable()
			}
			var wg sync.WaitGroup
			errs := make([]error, 8)
			start := make(chan struct{})
			for i := range errs {
				set, err := New(pool, Options{Schema: schema, Table: table, Keys: oneKey()})
				if err != nil {
					t.Fatal(err)
				}
				wg.Go(func() {
					<-start
					errs[i] = set.Migrate(t.Context())
					if errs[i] == nil {
						_, errs[i] = set.Count(t.Context()) // it is ready for everybody
					}
				})
			}
			close(start)
			wg.Wait()
			if err := errors.Join(errs...); err != nil {
				t.Fatal(err)
			}
			n := 0
			if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM "+pgx.Identifier{orPublic(schema), table + versionSuffix}.Sanitize(),
				pgx.QueryExecModeExec).Scan(&n); err != nil || n != len(migrations) {
				t.Errorf("%d migrations are noted, %v", n, err)
			}
		}
	})
}

func orPublic(schema string) string {
	if schema == "" {
		return "public"
	}
	return schema
}

// From each version to the newest one, with Migrate and by hand.
func TestMigrations(t *testing.T) {
	url, _ := addresses(t)
	fresh, pool := newSet(t, url, Options{})
	want := describeTable(t, fresh)
	for from := range len(migrations) + 1 {
		for _, byHand := range []bool{false, true} {
			t.Run(fmt.Sprint(from, byHand), func(t *testing.T) {
				set, err := New(pool, Options{Table: newTable(), Keys: oneKey()})
				if err != nil {
					t.Fatal(err)
				}
				all := set.Migrations()
				for _, m := range all[:from] {
					run(t, url, "BEGIN;"+m.SQL+"COMMIT;")
				}
				if byHand {
					for _, m := range all { // those that were applied do no harm
						run(t, url, m.SQL)
					}
				}
				if err := set.Migrate(t.Context()); err != nil {
					t.Fatal(err)
				}
				if got := describeTable(t, set); !slices.Equal(got, want) {
					t.Errorf("the table is\n%s, want\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
				put(t, set.Store("k"), session(1))
				expect(t, set.Store("k"), 1)
			})
		}
	}
	t.Run("a newer release was here", func(t *testing.T) {
		run(t, url, "INSERT INTO "+pgx.Identifier{"public", fresh.tableName + versionSuffix}.Sanitize()+" VALUES (1000)")
		if err := fresh.Migrate(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// Names of any kind, which nobody must take for SQL.
func TestNames(t *testing.T) {
	url, _ := addresses(t)
	for _, name := range []string{
		"select", `quoted "name"`, `"; DROP TABLE x; --`, "Upper", "with.dot", "таблица", "{table}", "{now}", strings.Repeat("x", maxIdentifier-len(indexSuffix)), "%s$1",
	} {
		schema := name
		if strings.HasPrefix(schema, "xxx") {
			schema = "public"
		}
		set, _ := newSet(t, url, Options{Schema: schema, Table: name, RenewAt: always})
		for _, key := range []string{"k", `'; DROP TABLE x; --`, "ключ \\ \n", strings.Repeat("k", maxKey)} {
			put(t, set.Store(key), session(1))
			put(t, set.Store(key), session(2))
			expect(t, set.Store(key), 2)
		}
		if entries, err := set.Due(t.Context(), 0, 0, 10); err != nil || len(entries) != 4 {
			t.Errorf("%s: %v, %v", name, entries, err)
		}
		if c, err := set.Count(t.Context()); err != nil || c.Sessions != 4 {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
}

// A user without the right to create tables can use one that is there.
func TestRights(t *testing.T) {
	url, _ := addresses(t)
	set, _ := newSet(t, url, Options{})
	run(t, url, `CREATE ROLE app LOGIN; GRANT USAGE ON SCHEMA public TO app`)
	asApp := strings.Replace(url, "user=postgres", "user=app", 1)
	pool, err := newPool(asApp, 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	app, err := New(pool, Options{Table: set.tableName, Keys: oneKey()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := app.Store("k").Load(t.Context()); err == nil || !strings.Contains(err.Error(), "grant the user") {
		t.Errorf("Load without rights: %v", err)
	}
	run(t, url, "GRANT SELECT, INSERT, UPDATE, DELETE ON "+set.sql.table+" TO app; GRANT SELECT ON "+
		pgx.Identifier{"public", set.tableName + versionSuffix}.Sanitize()+" TO app")
	if err := app.Migrate(t.Context()); err != nil {
		t.Error(err)
	}
	put(t, app.Store("k"), session(1))
	err = app.Store("k").UpdateLease(t.Context(), func(l oauth.Lease, _ oauth.Session) (oauth.Session, error) {
		return session(2), begin(l)
	})
	if err != nil {
		t.Error(err)
	}
	put(t, app.Store("k"), oauth.Session{})
	other, err := New(pool, Options{Table: newTable(), Keys: oneKey()})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Migrate(t.Context()); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("Migrate without rights: %v", err)
	}
}

func doSQL(t *testing.T, pool *pgxpool.Pool, sql string) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func TestMigrateCreatesAMissingTable(t *testing.T) {
	direct, _ := addresses(t)
	for name, sql := range map[string]string{
		"dropped":                   `DROP TABLE public.%[1]s`,
		"renamed, as SealedAs says": `ALTER TABLE public.%[1]s RENAME TO "%[2]s"`,
	} {
		t.Run(name, func(t *testing.T) {
			set, pool := newSet(t, direct, Options{})
			table := pgx.Identifier{set.tableName}.Sanitize()
			doSQL(t, pool, fmt.Sprintf(sql, table, set.tableName+" old"))
			if _, err := set.Store("u").Load(t.Context()); !errors.Is(err, ErrSchema) {
				t.Errorf("Load: %v", err)
			}
			if err := set.Migrate(t.Context()); err != nil {
				t.Errorf("Migrate: %v", err)
			}
			if n := indexes(t, pool, set.tableName); n != 1 {
				t.Errorf("%d indexes on renew_at", n)
			}
			if _, err := set.Store("u").Load(t.Context()); !errors.Is(err, oauth.ErrNoSession) {
				t.Errorf("Load after Migrate, which has reported success: %v", err)
			}
		})
	}
}

func TestMigrateCreatesTheIndexAfterARename(t *testing.T) {
	direct, _ := addresses(t)
	set, pool := newSet(t, direct, Options{})
	old := set.tableName
	doSQL(t, pool, fmt.Sprintf(`ALTER TABLE %q RENAME TO %q; ALTER TABLE %q RENAME TO %q`, old, old+" old", old+"_migrations", old+" old_migrations"))
	if err := set.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, set.Store("u"), session(1))
	for range 2 {
		if n := indexes(t, pool, old); n != 1 {
			t.Errorf("%d indexes on renew_at", n)
		}
		if err := set.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// indexes is how many indexes on renew_at a table has.
func indexes(t *testing.T, pool *pgxpool.Pool, table string) (n int) {
	t.Helper()
	err := pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_indexes WHERE tablename = $1 AND indexdef LIKE '%(renew_at)%'`, table).Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestMigrateWithoutTheRightToCreate(t *testing.T) {
	direct, _ := addresses(t)
	_, admin := newSet(t, direct, Options{})
	doSQL(t, admin, `DROP SCHEMA IF EXISTS closed CASCADE; DROP ROLE IF EXISTS poor;
CREATE ROLE poor LOGIN PASSWORD 'poor'; CREATE SCHEMA closed; GRANT USAGE ON SCHEMA closed TO poor`)
	config := admin.Config()
	config.ConnConfig.User, config.ConnConfig.Password = "poor", "poor"
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	set, err := New(pool, Options{Schema: "closed", Keys: oneKey()})
	if err != nil {
		t.Fatal(err)
	}
	err = set.Migrate(t.Context())
	if err == nil || !strings.Contains(err.Error(), "CREATE") {
		t.Errorf("no remedy: %v", err)
	}
}
