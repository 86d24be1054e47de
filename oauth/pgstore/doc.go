// Package pgstore keeps the sessions of many users in PostgreSQL, shared by any number of processes.
//
//	pool, err := pgxpool.New(ctx, "postgres://app@db/app")
//	set, err := pgstore.New(pool, pgstore.Options{Keys: keys})
//	err = set.Migrate(ctx)
//	store := set.Store("user 17")
//	client, err := oauth.New(oauth.Config{Store: store, DPoP: prover, …})
//
// # Leases
//
// A renewal holds no connection, no lock and no transaction of the database. Its lock is a lease in
// the row of the session, see [oauth.LeaseStore]. Each step is one statement and one transaction:
//
//	take         the lease is given to one owner, and the session is read
//	begin        Lease.Begin extends the lease and marks the session, before each token request
//	save, leave  the new session is stored, and the lease is given back
//
// So a renewal takes three statements, and one connection of a small pool serves many. A
// session is stored if the stored refresh token still is the one that it came from, never
// over another. All times are the database's.
//
// No statement needs a state of the connection: no prepared statements, session locks, LISTEN
// or temporary tables. Poolers of transactions, such as pgbouncer, can be in between.
//
// # The table
//
// [Set.Migrate] creates the table; any number of processes can call it at their start. [Set.Migrations] returns
// the same as SQL. A row has the key, the session, sealed, and these columns in the clear: the hash of the refresh token, the
// session's generation, the lease, the mark, and the times when it was created, changed and is due.
//
// # Seals
//
// Sessions are encrypted with [Keys]. A row that is moved to another key or table, or
// whose generation is changed, does not open. Somebody who can write to the table can still
// put back a whole older row of the same key: that is why a session's refresh token should be bound to a key (package
// dpop), and why servers detect that a refresh token is used twice. Keys can be replaced while programs run.
//
// # What is promised
//
//   - When Update returns nil, the session is durable, if the server's synchronous_commit and fsync are on, as they are by
//     default. With standbys, they must be synchronous: after a failover to one that lags behind, refresh tokens are lost.
//   - One refresh token is used by one process at a time, even if processes are paused or clocks differ, with a server that checks the age of DPoP proofs.
//     The clocks of a primary and the standby that takes over may differ by seconds, not by minutes.
//   - A session is not overwritten by one that came from an older refresh token.
//
// Not promised: a process that dies after the server has issued a refresh token and before it is stored loses it.
// What comes next is told that the outcome is unknown.
package pgstore
