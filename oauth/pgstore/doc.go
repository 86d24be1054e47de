// Package pgstore keeps the sessions of many users in PostgreSQL, where any number of
// processes share them.
//
//	pool, err := pgxpool.New(ctx, "postgres://app@db/app")
//	set, err := pgstore.New(pool, pgstore.Options{Keys: keys})
//	err = set.Migrate(ctx) // creates the table
//	…
//	client, err := oauth.New(oauth.Config{Store: set.Store("user 17"), DPoP: prover, …})
//
// A program that acts for many users uses an [oauth.Pool], whose PoolConfig.Open returns
// set.Store(key), and whose KeepAlive renews what the set says is due.
//
// [Set] is all sessions of a table: it lists, counts, deletes and reseals them, and
// returns those that are due for renewal. [Store] is one of them.
//
// # A renewal
//
// A renewal holds no connection, transaction or lock of the database while it waits for
// the authorization server. Its lock is a lease in the row of the session, see
// [oauth.LeaseStore]. Each step is one statement, which is a transaction of its own:
//
//	take    one owner gets the lease and reads the session
//	begin   before each token request: the owner marks the session and extends the lease
//	save    the new session is stored if the stored refresh token still is the one that
//	        it came from; the same statement gives the lease back and clears the mark
//
// That makes three statements for a renewal, two for an Update that makes no request,
// and one for Load. A few connections are enough for many renewals at a time.
//
// All times that decide something are those of the database. No statement needs
// anything of its connection: no prepared statement, session lock, temporary table,
// LISTEN or setting. So poolers of transactions, such as pgbouncer and Odyssey, can be
// in between, and any pool of pgx will do.
//
// # The table
//
// [Set.Migrate] creates the table, or brings it up to date. Any number of processes may
// call it at the same time. [Set.Migrations] returns its SQL for other tools.
//
// A row has the sealed session, and in the clear: the key, a hash of the refresh token,
// the generation of the session, who has the lease and until when, when a token request
// began whose outcome is not stored yet, and when the session was created, changed and
// will be due.
//
// # Seals
//
// Sessions are encrypted with [Keys], which can be replaced while programs run. The seal
// binds a session to the table, the key, the version of the sealing key and the
// generation: what is moved to another row, or put under another generation, does not
// open. A whole row that is put back from a backup of the same key does open. Servers
// that rotate refresh tokens then reject the old one, and may end the session because
// of it: after the table was restored from a backup, users may have to log in again.
//
// # What is promised
//
//   - When Update returns nil, the session is as durable as the database makes a commit:
//     fsync and synchronous_commit must be on, as they are by default, and a standby that
//     may take over must be synchronous. Otherwise a failover loses refresh tokens.
//   - A session is never stored over one that came from a newer refresh token, even by a
//     process that was paused for hours.
//   - The server accepts a refresh token from one process only, even if processes are
//     paused, cut off or killed, provided that the session is bound to a DPoP key and
//     oauth.Provider.ProofLife or NonceLife is set. Neither is known for Yandex Cloud.
//     Without them, a process that is paused for longer than its lease can lose the
//     session.
//   - Clocks of processes may be wrong. That of the database may not jump by more than
//     some seconds, nor may those of a primary and its standby differ by more.
//   - A connection that breaks within a statement, and a restart of the server that takes
//     less than Options.SaveTimeout, lose nothing.
//
// Not promised: a process that dies between the response of the authorization server and the
// commit loses the refresh token that it got. The next holder of the lease is told that
// the outcome of a request is unknown.
package pgstore
