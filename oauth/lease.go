package oauth

import (
	"context"
	"time"
)

// A LeaseStore is a [Store] whose lock is a lease: a right with an end, which the
// holder can lose without noticing while it is paused. Stores that many machines share
// are of this kind. A token source prefers UpdateLease to Update.
//
// A lease alone does not keep two processes from sending the same refresh token: one
// may look at its lease, be paused until the lease has ended, and then send what its
// successor has spent meanwhile, and a server with reuse detection ends the session.
// The DPoP proof does, because the server checks its age before it looks at the
// refresh token. Each proof is dated at the moment when the lease was looked at, and a
// successor that finds the mark of a request without an outcome waits until the server
// would reject that proof ([Provider.ProofLife]).
type LeaseStore interface {
	Store

	// UpdateLease is Update, and gives fn the lease that its lock is. The lease holds
	// for at least as long as [Lease.Begin] says.
	//
	// If fn returns an error that matches [ErrOutcomeUnknown], or does not return
	// because the process dies, the mark that Begin set stays, and so does the mark
	// of a former holder if fn returns any error. A session that fn returns removes the
	// mark. What fn returns is stored only if the refresh token in the store still is
	// the one that fn was called with, even if the lease has ended meanwhile: that
	// session then is the only one that the server accepts. Otherwise the error says
	// that it was not stored.
	UpdateLease(ctx context.Context, fn func(Lease, Session) (Session, error)) error
}

// A Lease is the exclusive right to use the refresh token of a session for some time.
// It is valid until the fn that it was given to returns.
type Lease interface {
	// Begin is called before each token request, and again before a request is
	// repeated. It makes sure that the lease is still held, extends it, and marks the session
	// durably: from now on the outcome of a request may be unknown. An error means
	// that nothing may be sent.
	//
	// It returns the moment of the mark by this machine's clock, at the latest, and
	// how long from then the lease holds. The proof of the request is dated at that
	// moment, and no request is sent that may take longer than the lease holds.
	Begin(ctx context.Context) (marked time.Time, holds time.Duration, err error)

	// Interrupted returns how long ago, by the store's clock, a former holder set the
	// last mark, if that holder neither stored a session nor said that its requests had no
	// effect.
	Interrupted() (ago time.Duration, interrupted bool)
}
