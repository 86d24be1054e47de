//go:build unix

package pgstore

import (
	"encoding/json"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/ycauth/ycauth-go/oauth/storetest"
)

var direct = storetest.Subject{
	Name: "pgstore",
	Open: openPlace,
	NewPlace: func(t *testing.T) string {
		t.Helper()
		url, _ := addresses(t)
		return newPlace(t, url)
	},
	Hold:  2 * shortLease,
	Kills: 5,
	Break: rejectWrites,
	PowerLoss: func(t *testing.T, place string) (cut func() string) {
		t.Helper()
		return func() string {
			server.pg.Stop(false)
			if err := server.pg.StartAgain(t.Context()); err != nil {
				t.Fatal(err)
			}
			return place
		}
	},
}

// pooled is behind a pooler that gives each statement another connection.
var pooled = storetest.Subject{
	Name: "pgstore behind pgbouncer",
	Open: openPlace,
	NewPlace: func(t *testing.T) string {
		t.Helper()
		_, url := addresses(t)
		return newPlace(t, url)
	},
	Hold:  2 * shortLease,
	Kills: 5,
	Break: rejectWrites,
}

func TestContract(t *testing.T) {
	addresses(t)
	storetest.Run(t, direct)
}

func TestContractBehindPgbouncer(t *testing.T) {
	addresses(t)
	storetest.Run(t, pooled)
}

// rejectWrites makes the table reject them.
func rejectWrites(t *testing.T, text string) (mend func()) {
	t.Helper()
	var p place
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		t.Fatal(err)
	}
	url, _ := addresses(t)
	table := pgx.Identifier{"public", p.Table}.Sanitize()
	run(t, url, `
CREATE OR REPLACE FUNCTION reject() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'no room for %', NEW; END $$`)
	run(t, url, `CREATE TRIGGER reject BEFORE INSERT OR UPDATE OR DELETE ON `+table+` FOR EACH ROW EXECUTE FUNCTION reject()`)
	return func() { run(t, url, `DROP TRIGGER reject ON `+table) }
}

// run runs a statement on a connection of its own.
func run(t testing.TB, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
}
