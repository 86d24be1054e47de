package oauth

import (
	"context"
	"errors"
	"time"
)

// A LeaseStore is a [Store] whose lock is a lease: a right with an end, which the
// holder can lose without noticing while it is paused. Stores that many machines share
// are of this kind. A token source renews with UpdateLease instead of Update.
//
// A lease alone does not keep two processes from sending the same refresh token: one
// may look at its lease, be paused until the lease has ended, and then send what its
// successor has spent meanwhile, and a server with reuse detection ends the session.
// The DPoP proof does, because the server checks its age before it looks at the
// refresh token. Each proof is dated before the lease was looked at, and a successor
// that finds the mark of a request without an outcome waits until the server would
// reject that proof ([Provider.ProofLife]).
type LeaseStore interface {
	Store

	// UpdateLease is Update, and gives fn the lease that its lock is. What happens then
	// depends on what fn returns, where "the mark" is the one that Begin set, and "the
	// former mark" the one that Interrupted is about:
	//
	//	fn returns                   | session    | mark that stays
	//	-----------------------------+------------+-------------------------------
	//	another session              | stored (*) | none; the mark, if not stored
	//	the session it got           | as it was  | the former mark
	//	ErrOutcomeUnknown            | as it was  | the mark; the former mark, if
	//	                             |            | Begin was not called
	//	any other error              | as it was  | the former mark
	//	not at all: panic or death   | as it was  | the mark
	//
	// (*) The session is stored if and only if the stored refresh token still is the one
	// that fn was called with, even if the lease has ended meanwhile, and even if ctx
	// has: it then is the only one that the server accepts. Otherwise the error matches
	// [ErrLeaseLost]. All else that a holder does once another one has the lease leaves
	// that one's lease and mark as they are.
	//
	// A lease ends by itself, so that the death of a holder blocks the others no longer
	// than that. It has to hold for longer than [Config.RequestTimeout], from each call of
	// Begin on: for a minute, if that is the default.
	UpdateLease(ctx context.Context, fn func(Lease, Session) (Session, error)) error
}

// A Lease is the exclusive right to use the refresh token of a session for some time.
// It is for the fn that it was given to, and of no use after that.
type Lease interface {
	// Begin is called before each token request, and again before a request is
	// repeated. In one step it makes sure that nobody else has taken the lease and that
	// the session is still the one that fn was called with, extends the lease, and marks
	// the session durably: from now on the outcome of a request may be unknown. After an
	// error nothing is sent; it matches [ErrLeaseLost] if it was too late.
	//
	// The lease holds for a time that is counted from the call. marked is the moment
	// of the mark by the store's clock, the zero time if the store has none. The proof of
	// the request is dated at the call, or at marked if that seems to be earlier: so no
	// replica's clock that is ahead makes proofs for a time to come.
	Begin(ctx context.Context) (marked time.Time, holds time.Duration, err error)

	// Interrupted reports that a former holder has set a mark that stayed, and how long
	// ago at least. A store that has no clock counts from when it first saw the mark.
	Interrupted() (ago time.Duration, interrupted bool)
}

// ErrLeaseLost means that somebody else has taken the lease of a [LeaseStore], or has
// changed the session meanwhile: too late to begin a request, or to store what came of
// one.
var ErrLeaseLost = errors.New("oauth: another process has the lease of the session, or has changed the session")
