package pgstore

import (
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/internal/seal"
)

// An Entry describes a session without its secrets. Times are by the clock of the
// database; a zero time means that there is none.
type Entry struct {
	Key        string
	Generation uint64
	KeyVersion uint32    // of the key that sealed it; 0: stored in the clear
	Created    time.Time // when the key got its row
	Updated    time.Time // when the session was stored last
	RenewAt    time.Time // from when on it is due for renewal
	Claimed    time.Time // until when Due does not return it

	// LeaseOwner has, or had, the lease until LeaseUntil. "" if it was given back.
	LeaseOwner string
	LeaseUntil time.Time

	// Marked is when a token request began whose outcome is not stored yet: it is in
	// progress, or its outcome is unknown.
	Marked time.Time
}

func scanEntry(rows pgx.Rows) (Entry, error) {
	var e Entry
	var generation, version int64
	var owner *string
	err := rows.Scan(&e.Key, &generation, &version, microTime{&e.Created}, microTime{&e.Updated}, microTime{&e.RenewAt},
		microTime{&e.Claimed}, &owner, microTime{&e.LeaseUntil}, microTime{&e.Marked})
	e.Generation, e.KeyVersion = uint64(generation), uint32(version)
	if owner != nil {
		e.LeaseOwner = *owner
	}
	return e, err
}

// page is how many rows a statement reads at most.
const page = 1000

// List returns all sessions in the order of the bytes of their keys. It reads up to 1,000
// with each statement; no connection is held while the loop body runs. The set may change
// meanwhile: what is there all the time is returned once. An error, of type [*Error], is
// the last that is returned.
func (s *Set) List(ctx context.Context) iter.Seq2[Entry, error] {
	const op = "list sessions"
	return func(yield func(Entry, error) bool) {
		for after := ""; ; {
			entries, err := attempts(ctx, s, op, "", few, func(ctx context.Context) ([]Entry, error) {
				return queryAll(ctx, s.db, scanEntry, s.sql.list, after, int64(page))
			})
			if err != nil {
				yield(Entry{}, err)
				return
			}
			for _, e := range entries {
				if !yield(e, nil) {
					return
				}
			}
			if len(entries) < page {
				return
			}
			after = entries[len(entries)-1].Key
		}
	}
}

// Delete removes the session of a key, whoever has its lease, and reports whether there
// was one. A renewal in progress then cannot store its session. It revokes nothing at the
// server: to log a user out in order, use oauth.Client.Logout.
func (s *Set) Delete(ctx context.Context, key string) (bool, error) {
	const op = "delete the session"
	if err := s.checkKey(op, key); err != nil {
		return false, err
	}
	n, err := attempts(ctx, s, op, key, few, func(ctx context.Context) (int64, error) {
		return exec(ctx, s.db, s.sql.drop, key)
	})
	return n > 0, err
}

// Due claims up to limit sessions that are due for renewal, or will be within ahead, and
// whose lease is free; those that have waited longest come first. Until claim has passed,
// no other call of Due returns them, in this process or another, so that several sweepers
// share the work. A claim keeps nobody from renewing the session; a new session ends it.
//
// Due is one statement, and its locks end with it. Renew the sessions with a token
// source on the store of each key. A session that cannot be renewed is returned again
// when claim has passed: [Set.Postpone] leaves it alone for longer.
func (s *Set) Due(ctx context.Context, ahead, claim time.Duration, limit int) ([]Entry, error) {
	if limit <= 0 {
		return nil, nil
	}
	// Not repeated if the connection breaks: that would claim others.
	entries, err := attempts(ctx, s, "claim sessions", "", 1, func(ctx context.Context) ([]Entry, error) {
		return queryAll(ctx, s.db, scanEntry, s.sql.due, micros(ahead), micros(claim), int64(limit))
	})
	slices.SortStableFunc(entries, func(a, b Entry) int { return a.RenewAt.Compare(b.RenewAt) })
	return entries, err
}

var _ oauth.DueSet = (*Set)(nil)

// DueKeys is [Set.Due] without all but the keys, for [oauth.Pool.KeepAlive].
func (s *Set) DueKeys(ctx context.Context, ahead, claim time.Duration, limit int) ([]string, error) {
	entries, err := s.Due(ctx, ahead, claim, limit)
	keys := make([]string, len(entries))
	for i, e := range entries {
		keys[i] = e.Key
	}
	return keys, err
}

// Postpone keeps Due from returning the session of a key for some time, for instance
// because its user has to log in again; 0 ends a claim. A new session ends it, too. It
// does nothing if there is no session, or one of another generation than the one given,
// because somebody has logged in or renewed it since; 0 stands for any.
func (s *Set) Postpone(ctx context.Context, key string, generation uint64, d time.Duration) error {
	const op = "postpone the renewal"
	if err := s.checkKey(op, key); err != nil {
		return err
	}
	_, err := attempts(ctx, s, op, key, few, func(ctx context.Context) (int64, error) {
		return exec(ctx, s.db, s.sql.postpone, key, micros(d), int64(generation))
	})
	return err
}

// Counts are what there is in a [Set] at one moment.
type Counts struct {
	Sessions    int64
	Due         int64            // sessions that are due for renewal, claimed or not
	Leased      int64            // sessions whose lease somebody has
	Interrupted int64            // sessions with a token request whose outcome is unknown, and with a free lease
	KeyVersions map[uint32]int64 // sessions by the version of the key that sealed them; 0: in the clear
}

// Count counts the sessions. It reads the whole table, twice.
func (s *Set) Count(ctx context.Context) (Counts, error) {
	const op = "count sessions"
	c, err := attempts(ctx, s, op, "", few, func(ctx context.Context) (Counts, error) {
		return queryOne(ctx, s.db, func(rows pgx.Rows) (Counts, error) {
			var c Counts
			err := rows.Scan(&c.Sessions, &c.Due, &c.Leased, &c.Interrupted)
			return c, err
		}, s.sql.counts)
	})
	if err != nil {
		return Counts{}, err
	}
	type count struct{ version, rows int64 }
	versions, err := attempts(ctx, s, op, "", few, func(ctx context.Context) ([]count, error) {
		return queryAll(ctx, s.db, func(rows pgx.Rows) (count, error) {
			var v count
			err := rows.Scan(&v.version, &v.rows)
			return v, err
		}, s.sql.versions)
	})
	if err != nil {
		return Counts{}, err
	}
	c.KeyVersions = make(map[uint32]int64, len(versions))
	for _, v := range versions {
		c.KeyVersions[uint32(v.version)] = v.rows
	}
	return c, nil
}

// Reseal seals all sessions with the key that seals now, also those that are stored in
// the clear, and returns how many. Programs can go on using the set: a row that changes
// meanwhile has been sealed by that, and the lease of none is needed. Sessions that
// cannot be opened are left as they are; the error joins one for each, up to 100.
func (s *Set) Reseal(ctx context.Context) (int, error) {
	const op = "reseal sessions"
	type found struct {
		key string
		row seal.Row
	}
	done, wrong := 0, []error(nil)
	for after := ""; ; {
		rows, err := attempts(ctx, s, op, "", few, func(ctx context.Context) ([]found, error) {
			return queryAll(ctx, s.db, func(rows pgx.Rows) (found, error) {
				var f found
				err := rows.Scan(&f.key, hexText{&f.row.Session}, &f.row.KeyVersion, &f.row.Generation, hexText{&f.row.Base})
				return f, err
			}, s.sql.toReseal, int64(s.sealer.Version()), after, int64(100))
		})
		if err != nil {
			return done, errors.Join(append(wrong, err)...)
		}
		for _, f := range rows {
			changed, err := s.reseal(ctx, f.key, f.row)
			if ctx.Err() != nil {
				return done, errors.Join(append(wrong, err)...)
			}
			if err != nil && len(wrong) < 100 {
				wrong = append(wrong, err)
			}
			done += changed
		}
		if len(rows) < 100 {
			return done, errors.Join(wrong...)
		}
		after = rows[len(rows)-1].key
	}
}

func (s *Set) reseal(ctx context.Context, key string, r seal.Row) (int, error) {
	const op = "reseal the session"
	next, err := s.sealer.Reseal(key, r)
	if err != nil {
		return 0, s.unreadable(op, key, err)
	}
	n, err := attempts(ctx, s, op, key, few, func(ctx context.Context) (int64, error) {
		return exec(ctx, s.db, s.sql.reseal, key, secret{r.Session}, secret{next.Session}, next.KeyVersion)
	})
	return int(n), err
}
