// Package etcdstore keeps sessions in etcd, where any number of processes share them.
//
//	client, err := clientv3.New(clientv3.Config{Endpoints: endpoints})
//	set, err := etcdstore.New(client, etcdstore.Options{Prefix: "my-service/sessions/", Keys: keys})
//	…
//	oauthClient, err := oauth.New(oauth.Config{Store: set.Store("user 17"), DPoP: prover, …})
//
// [Set] is all sessions under a prefix: it lists, counts, deletes and reseals them, and
// returns those that are due for renewal. [Store] is one of them. It works with etcd 3.4 and
// newer.
//
// etcd holds all its data in memory and is made for some gigabytes, and each change is
// written by all of its members. It suits services that have an etcd anyway, and some
// thousands of users. For more, use package pgstore.
//
// # A renewal
//
// Nothing is held open while a renewal waits for the authorization server. Its lock is a key
// that is attached to a lease of etcd, see [oauth.LeaseStore]. Each step is one
// transaction:
//
//	take    if nobody has the lease: the owner gets it and reads the session
//	begin   before each token request, if the owner still has the lease and the refresh
//	        token is unchanged: the session is marked and the lease extended
//	save    if the refresh token is unchanged: the new session is stored. If the owner
//	        still has the lease, it is given back and the mark is removed
//
// It would not be safe for the owner to check its lease first and store afterwards, because
// the lease can end in between. Here the same transaction compares and stores.
//
// # Time
//
// etcd does not tell clients the time. Time is measured by etcd's leases, and so by its
// leader:
//
//   - The lease of a session ends between 1 and 1¼ × Options.Lease after it was taken, in
//     whole seconds. A change of the leader begins it anew.
//   - Lease.Begin returns no time of its mark. So the proof of a request is dated by the
//     clock of the process, corrected by what the authorization server has told it.
//   - The mark also records an hours-long lease; how much of it has elapsed tells every
//     process, at the least, how old the mark is. That is up to two minutes less than its
//     real age, and a change of the leader begins it anew, so that a successor waits for
//     longer, never for less.
//
// One lease is granted for all sessions that begin within a short time, and none is kept
// alive, so a renewal grants none of its own, and a [Set] has no goroutine.
//
// # The keys
//
// A session has these keys, after the prefix, where KEY is its own:
//
//	s/KEY  the sealed session; in the clear its generation, and when it was stored and is due
//	b/KEY  a hash of the refresh token
//	l/KEY  who has the lease; while somebody has it
//	m/KEY  the mark of a token request; until its outcome is stored
//	d/KEY  who renews it because it was due; see Set.Due
//
// c/ID is how the life of a lease can be observed. A user of etcd needs permission to read
// and write all keys with the prefix.
//
// # Seals
//
// Sessions are encrypted with [Keys], which can be replaced while programs run. The seal
// binds a session to the prefix, the key, the version of the sealing key and the
// generation: what is moved to another key, or put under another generation, does not
// open. All keys of a session that are put back from a snapshot do open. Servers that rotate
// refresh tokens then reject the old one, and may end the session because of it: after
// etcd was restored from a snapshot, users may have to log in again.
//
// # What is promised
//
//   - When Update returns nil, most of the members of etcd have written the session to their
//     disks. The death of a minority of them loses nothing, nor does a power failure of all.
//     That needs fsync: --unsafe-no-fsync must not be set.
//   - A session is never stored over one that came from a newer refresh token, even by a
//     process that was paused for hours.
//   - The server accepts a refresh token from one process only, even if processes are
//     paused, cut off or killed, provided that the session is bound to a DPoP key, that
//     oauth.Provider.ProofLife or NonceLife is set and less than an hour, and that the clock
//     of no process is ahead of the server's by more than some seconds when it makes its
//     first request. ProofLife and NonceLife are not known for Yandex Cloud. Without them, a
//     process that is paused for longer than its lease can lose the session.
//   - A connection that breaks within a request, a member that dies, and a restart or a
//     change of the leader that takes less than Options.SaveTimeout, lose nothing.
//
// Not promised: a process that dies between the response of the authorization server and the
// transaction loses the refresh token that it got. The next holder of the lease is told that
// the outcome of a request is unknown. [Set.Due] promises no order among processes and
// no precision: it reads the whole set, and its times are those of the processes' clocks.
//
// A member that hangs, but keeps its connections, is noticed only if
// clientv3.Config.DialKeepAliveTime is set.
//
// # Other stores
//
// The same contract can be kept in Kubernetes: a Secret for each session, replaced only
// with its resourceVersion, with the lease in annotations of the same Secret. That is etcd
// behind an API server, with its promises, but without its leases: time would be that of
// the processes, and a Secret for each user is more than an API server is made for. It makes
// sense for a few sessions of a cluster's own workloads.
//
// Redis and Valkey can compare and store in one script, and tell the time, so a single
// server would do. But a failover to a replica loses writes that were acknowledged, and WAIT
// and appendfsync only make that rarer: then the stored refresh token is one that
// was used already, and the server may end the session. They cannot promise what this package
// does, and suit sessions that may be lost.
package etcdstore
