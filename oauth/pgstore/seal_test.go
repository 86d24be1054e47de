//go:build unix

package pgstore

import (
	"crypto/cipher"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/ycauth/ycauth-go/oauth"
)

func keysOfVersions(versions ...byte) Keys {
	k := Keys{ByVersion: map[uint32]cipher.AEAD{}}
	for _, v := range versions {
		k.ByVersion[uint32(v)] = aead(v)
	}
	return k
}

// A row that is not the one that was sealed does not open, and nothing overwrites it.
func TestAlteredRows(t *testing.T) {
	url, _ := addresses(t)
	set, _ := newSet(t, url, Options{Keys: keysOfVersions(1, 2)})
	elsewhere, _ := newSet(t, url, Options{Keys: keysOfVersions(1, 2)})
	for name, tc := range map[string]struct {
		change string // of the row "k"; the row "other" is another one
		want   error
		says   string
	}{
		"another key's session":    {`SET session = (SELECT session FROM {table} WHERE key = 'other')`, ErrSealKey, "Set.Delete"},
		"another key's row":        {`SET (session, base, generation) = (SELECT session, base, generation FROM {table} WHERE key = 'other')`, ErrSealKey, "Set.Delete"},
		"another table's row":      {`SET (session, base, generation) = (SELECT session, base, generation FROM {elsewhere} WHERE key = 'k')`, ErrSealKey, "SealedAs"},
		"a higher generation":      {`SET generation = generation + 1`, ErrSealKey, "Set.Delete"},
		"another version":          {`SET key_version = 1`, ErrSealKey, "bring back the key"},
		"an unknown version":       {`SET key_version = 3`, ErrKeyVersion, "version 3"},
		"a version out of range":   {`SET key_version = 4294967298`, ErrKeyVersion, "version 4294967298"},
		"a negative version":       {`SET key_version = -1`, ErrKeyVersion, "version -1"},
		"in the clear":             {`SET key_version = 0`, ErrInTheClear, "Options.InTheClear"},
		"another refresh token":    {`SET base = '\x00'`, oauth.ErrSessionFormat, "beside"},
		"one bit":                  {`SET session = set_bit(session, 300, 1 - get_bit(session, 300))`, ErrSealKey, ""},
		"cut off":                  {`SET session = substring(session FROM 1 FOR 20)`, ErrSealKey, ""},
		"cut off within the nonce": {`SET session = '\x00'`, ErrSealKey, ""},
		"nothing":                  {`SET session = ''`, ErrSealKey, ""},
		"an older session":         {`SET session = (SELECT session FROM {table} WHERE key = 'k, before')`, ErrSealKey, ""},
	} {
		t.Run(name, func(t *testing.T) {
			for _, s := range []*Set{set, elsewhere} {
				put(t, s.Store("other"), session(2))
				if _, err := s.Delete(t.Context(), "k"); err != nil {
					t.Fatal(err)
				}
				put(t, s.Store("k"), session(1))
				_, err := exec(t.Context(), s.db, `INSERT INTO `+s.sql.table+` (key, session) SELECT 'k, before', session FROM `+s.sql.table+
					` WHERE key = 'k' ON CONFLICT (key) DO UPDATE SET session = EXCLUDED.session`)
				if err != nil {
					t.Fatal(err)
				}
				put(t, s.Store("k"), session(2))
			}
			change := strings.NewReplacer("{table}", set.sql.table, "{elsewhere}", elsewhere.sql.table).Replace(tc.change)
			if n, err := exec(t.Context(), set.db, "UPDATE "+set.sql.table+" "+change+" WHERE key = 'k'"); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			before := sealedRow(t, set, "k")
			_, load := set.Store("k").Load(t.Context())
			update := set.Store("k").Update(t.Context(), func(oauth.Session) (oauth.Session, error) {
				t.Error("fn was called")
				return session(3), nil
			})
			_, reseal := set.Reseal(t.Context())
			for what, err := range map[string]error{"Load": load, "Update": update} {
				var e *Error
				if !errors.Is(err, tc.want) || !errors.Is(err, oauth.ErrSessionFormat) || !errors.As(err, &e) || e.Temporary() ||
					!strings.Contains(err.Error(), tc.says) {
					t.Errorf("%s: %v", what, err)
				}
				noSecret(t, err)
			}
			if before[1] != "2" && !errors.Is(reseal, tc.want) {
				t.Errorf("Reseal: %v", reseal)
			}
			if after := sealedRow(t, set, "k"); after != before {
				t.Error("the row was changed")
			}
			if r := inspect(t, set, "k"); r.held {
				t.Error("the lease is held still")
			}
			if _, err := set.Delete(t.Context(), "k"); err != nil {
				t.Error(err)
			}
			put(t, set.Store("k"), session(1))
		})
	}
}

// sealedRow is what is stored: session, key version.
func sealedRow(t *testing.T, s *Set, key string) [2]string {
	t.Helper()
	r, err := queryOne(t.Context(), s.db, func(rows pgx.Rows) (r [2]string, err error) {
		err = rows.Scan(&r[0], &r[1])
		return r, err
	},
		`SELECT encode(session, 'hex'), key_version::text FROM `+s.sql.table+` WHERE key = $1::text`, key)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// noSecret prints an error in every way there is.
func noSecret(t *testing.T, v any) {
	t.Helper()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T"} {
		if s := fmt.Sprintf(verb, v); strings.Contains(s, "SECRET") || strings.Contains(s, fmt.Sprintf("%x", "SECRET")) {
			t.Errorf("%s prints a secret: %s", verb, s)
		}
	}
}

// Keys are replaced while two processes use the table.
func TestKeyRotation(t *testing.T) {
	bothWays(t, func(t *testing.T, url string) {
		table := newTable()
		first, _ := newSet(t, url, Options{Table: table, Keys: keysOfVersions(1)})
		second, _ := newSet(t, url, Options{Table: table, Keys: keysOfVersions(1)})
		const n = 250
		fill(t, first, n)
		set := func(s *Set, keys Keys) {
			t.Helper()
			if err := s.SetKeys(keys); err != nil {
				t.Fatal(err)
			}
		}
		rotating := keysOfVersions(1, 2)
		rotating.Seal = 1
		set(first, rotating)
		set(second, rotating)
		put(t, first.Store("user 0000"), session(2))
		if r := sealedRow(t, first, "user 0000"); r[1] != "1" {
			t.Errorf("sealed with version %s before all know the new one", r[1])
		}
		set(first, keysOfVersions(1, 2))
		put(t, first.Store("user 0001"), session(2))
		if r := sealedRow(t, first, "user 0001"); r[1] != "2" {
			t.Errorf("sealed with version %s", r[1])
		}
		expect(t, second.Store("user 0001"), 2)
		set(second, keysOfVersions(1, 2))

		// The other process renews while the rows are sealed anew.
		done := make(chan error, 1)
		go func() {
			for i := 2; i < n; i += 5 {
				key := fmt.Sprintf("user %04d", i)
				err := second.Store(key).UpdateLease(t.Context(), func(l oauth.Lease, _ oauth.Session) (oauth.Session, error) {
					return session(2), begin(l)
				})
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
		resealed, err := first.Reseal(t.Context())
		if err != nil || resealed == 0 || resealed > n-1 {
			t.Errorf("Reseal: %d, %v", resealed, err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		counts, err := first.Count(t.Context())
		if err != nil || counts.KeyVersions[2] != n || len(counts.KeyVersions) != 1 {
			t.Errorf("Count: %+v, %v", counts, err)
		}
		set(second, keysOfVersions(2))
		for i := range n {
			generation := uint64(1)
			if i < 2 || i%5 == 2 {
				generation = 2
			}
			expect(t, second.Store(fmt.Sprintf("user %04d", i)), generation)
		}
		// A process that was forgotten says what it lacks.
		set(first, keysOfVersions(1))
		if _, err := first.Store("user 0001").Load(t.Context()); !errors.Is(err, ErrKeyVersion) {
			t.Errorf("Load: %v", err)
		}
	})
}

// Reseal neither undoes a change nor touches a lease.
func TestResealDuringUpdate(t *testing.T) {
	url, _ := addresses(t)
	set, _ := newSet(t, url, Options{Keys: keysOfVersions(1)})
	put(t, set.Store("k"), session(1))
	if err := set.SetKeys(keysOfVersions(1, 2)); err != nil {
		t.Fatal(err)
	}
	tapped := tap(set)
	tapped.on(once(set.sql.reseal, func() { put(t, set.Store("k"), session(2)) }, nil), nil)
	if n, err := set.Reseal(t.Context()); n != 0 || err != nil {
		t.Errorf("Reseal: %d, %v", n, err)
	}
	expect(t, set.Store("k"), 2)

	if err := set.SetKeys(keysOfVersions(2, 3)); err != nil {
		t.Fatal(err)
	}
	err := set.Store("k").UpdateLease(t.Context(), func(l oauth.Lease, _ oauth.Session) (oauth.Session, error) {
		if err := begin(l); err != nil {
			return oauth.Session{}, err
		}
		if n, err := set.Reseal(t.Context()); n != 1 || err != nil {
			t.Errorf("Reseal: %d, %v", n, err)
		}
		if r := inspect(t, set, "k"); !r.held || !r.marked {
			t.Errorf("the row is %+v", r)
		}
		return session(3), nil
	})
	if err != nil {
		t.Error(err)
	}
	expect(t, set.Store("k"), 3)
}

// Sessions in the clear have to be asked for, and can be sealed later.
func TestInTheClear(t *testing.T) {
	url, _ := addresses(t)
	table := newTable()
	plain, pool := newSet(t, url, Options{Table: table, InTheClear: true})
	put(t, plain.Store("k"), session(1))
	put(t, plain.Store("l"), session(1))
	expect(t, plain.Store("k"), 1)
	if n, err := plain.Reseal(t.Context()); n != 0 || err != nil {
		t.Errorf("Reseal: %d, %v", n, err)
	}

	sealing, err := New(pool, Options{Table: table, Keys: oneKey()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sealing.Store("k").Load(t.Context()); !errors.Is(err, ErrInTheClear) {
		t.Errorf("Load: %v", err)
	}
	both, err := New(pool, Options{Table: table, Keys: oneKey(), InTheClear: true})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, both.Store("k"), 1)
	put(t, both.Store("k"), session(2))
	if n, err := both.Reseal(t.Context()); n != 1 || err != nil {
		t.Errorf("Reseal: %d, %v", n, err)
	}
	expect(t, sealing.Store("k"), 2)
	expect(t, sealing.Store("l"), 1)
	if _, err := plain.Store("k").Load(t.Context()); !errors.Is(err, ErrKeyVersion) {
		t.Errorf("Load: %v", err)
	}
	for _, key := range []string{"k", "l"} {
		if r := sealedRow(t, both, key); strings.Contains(r[0], fmt.Sprintf("%x", "SECRET")) {
			t.Errorf("%s is in the clear", key)
		}
	}
}

// A table that was renamed can be read under its former name.
func TestSealedAs(t *testing.T) {
	url, _ := addresses(t)
	set, pool := newSet(t, url, Options{})
	put(t, set.Store("k"), session(1))
	renamed, err := New(pool, Options{Table: "renamed", Keys: oneKey(), SealedAs: "public." + set.tableName})
	if err != nil {
		t.Fatal(err)
	}
	run(t, url, "ALTER TABLE "+set.sql.table+" RENAME TO renamed")
	expect(t, renamed.Store("k"), 1)
	other, err := New(pool, Options{Table: "renamed", Keys: oneKey()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Store("k").Load(t.Context()); !errors.Is(err, ErrSealKey) {
		t.Errorf("Load: %v", err)
	}
}

func TestSealOfNamesWithDots(t *testing.T) {
	direct, _ := addresses(t)
	one, pool := newSet(t, direct, Options{Schema: "a.b", Table: "c"})
	two, _ := newSet(t, direct, Options{Schema: "a", Table: "b.c"})
	put(t, one.Store("u"), session(1))
	doSQL(t, pool, `INSERT INTO "a"."b.c" SELECT * FROM "a.b"."c"`)
	if s, err := two.Store("u").Load(t.Context()); err == nil {
		t.Errorf("a session of table a.b / c opens in table a / b.c: %v", s.Generation)
	}
}
