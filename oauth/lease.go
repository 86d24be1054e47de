package oauth

import (
	"context"
	"errors"
	"time"
)

// A LeaseStore is a [Store] whose lock expires, such as one in a database that many
// machines share. A holder that is paused can lose the lock without noticing. A token
// source renews with UpdateLease instead of Update.
//
// A lease alone does not prevent two processes from sending the same refresh token. One
// may check its lease, be paused until the lease has expired, and then send the token
// that its successor has already used. A server with reuse detection then ends the
// session. The DPoP proof prevents this, because the server checks its age before the
// refresh token. Each proof is dated before the lease is checked. A successor that finds
// the mark of a request with an unknown outcome waits until the server would reject that
// request's proof ([Provider.ProofLife]). If neither ProofLife nor NonceLife is set, or
// the session is not bound to a key, this protection is missing.
type LeaseStore interface {
	Store

	// UpdateLease is like Update and passes the lease to fn. The result depends on what
	// fn returns. "The mark" is the one that Begin set, "the former mark" the one that
	// Interrupted reports:
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
	// (*) The session is stored if and only if the stored refresh token is still the one
	// that fn was called with, even if the lease has expired or ctx is canceled, because
	// the new one is then the only one that the server accepts. Otherwise the error
	// matches [ErrLeaseLost]. A holder that has lost its lease must not change the lease
	// or the mark of its successor.
	//
	// A lease expires, so that a holder that dies does not block the others for longer. It
	// must last longer than [Config.RequestTimeout] from each call of Begin: one minute
	// suits the default.
	UpdateLease(ctx context.Context, fn func(Lease, Session) (Session, error)) error
}

// A Lease is the exclusive right to use the refresh token of a session for some time.
// It must not be used after fn has returned.
type Lease interface {
	// Begin is called before each token request, and again before a request is
	// repeated. In one step it checks that no other process has taken the lease and that
	// the session is still the one that fn was called with, extends the lease, and durably
	// marks the session: from now on the outcome of a request may be unknown. If Begin
	// returns an error, nothing is sent; the error matches [ErrLeaseLost] if another
	// process has taken the lease or changed the session. It must return when ctx ends: it
	// is waited for.
	//
	// holds is how long the lease lasts, from the call. marked is the time of the mark by
	// the store's clock, or zero if the store has no clock. The proof of the request is
	// dated at the call, or at marked if that is earlier, so that a replica whose clock is
	// ahead does not make proofs that stay valid for longer.
	Begin(ctx context.Context) (marked time.Time, holds time.Duration, err error)

	// Interrupted reports whether a former holder left a mark, and how long ago at least.
	// A store without a clock counts from when it first saw the mark.
	Interrupted() (ago time.Duration, interrupted bool)
}

// ErrLeaseLost means that another process has taken the lease of a [LeaseStore] or has
// changed the session, so that no request can begin and no session can be stored.
var ErrLeaseLost = errors.New("oauth: another process has the lease of the session, or has changed the session")
