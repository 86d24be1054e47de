package oauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/ycauth/ycauth-go/internal/clock"
)

// One renewal, step by step. The process may die, or be paused, between any two.
//
//	look   read the store without its lock; most often a sibling renewed
//	take   the store's lock or lease (Update or UpdateLease calls back), and look again
//	begin  mark the session; the proof is dated now (again before each request)
//	send   the token request, which nothing cuts off once it was sent
//	judge  renewed · grant refused · server busy · response lost · never sent
//	keep   the new refresh token: first in memory, then in the store
//	leave  the store's lock, with the session durable
//
// A refresh token that was received is kept in the view until the store has it
// or its own successor, a login or a logout replaces it.
//
// Between processes, the stored session is in one of four states. W is how long after
// the mark the server accepts the request that it is about (Client.fence).
//
//	state        lease  mark | how it is left               | the refresh token may be sent by
//	-------------------------+------------------------------+---------------------------------
//	idle         free   no   | take                         | nobody
//	taken        held   no   | begin; leave; the lease ends | nobody
//	begun        held   yes  | keep, or judged without      | the holder, while more than
//	                         | effect: idle. Death, pause,  | RequestTimeout of the lease
//	                         | lost response: interrupted   | is left
//	interrupted  ended  yes  | the former holder keeps what | nobody until W has passed, and
//	                         | came after all: idle. After  | saveGrace under the lease. Then
//	                         | W, a successor takes: taken  | a successor, and a server would
//	                         |                              | reject what the former holder sends
//
// A session is kept if and only if the stored refresh token is still the one that was
// exchanged for it, whoever has the lease; Begin fails if it is not. So two requests with
// one refresh token are never both accepted, and what is lost is only what the server
// issued to a process that died, or was paused for longer than its lease and W, before it
// kept it. A lock that ends with its holder (a file's, a mutex) is a lease without an end:
// there, "interrupted" means that the holder died, or could not save and tries again, and a
// successor waits for lockGrace. Where W is not known, a successor waits
// as long as the access token in hand allows.

// takeOff begins a renewal. s.mu is held.
func (s *TokenSource) takeOff(cause Cause) *flight {
	v := s.view.Load()
	f := &flight{cause: cause, epoch: v.epoch, refusals: v.refusals, base: v.session.Generation, received: make(chan struct{}), done: make(chan struct{})}
	// Neither the cancellation nor the values of a caller's context: the renewal is
	// everybody's, and a trace or a transport hook of one caller must not see it.
	f.ctx, f.cancel = context.WithCancel(context.Background())
	next := v.launched(f, s.c.clock.Now())
	s.view.Store(&next)
	s.launch(f)
	return f
}

// fly runs the renewal f, and tells everybody how it ended.
func (s *TokenSource) fly(f *flight) {
	defer f.cancel()
	f.whole = f.ctx
	f.limit(s.c.cfg.RenewTimeout) // from now on: it may have waited for its turn
	start := s.c.clock.Now()
	before := *s.view.Load()
	err := s.renew(f)
	var again bool // the same refusal as before, and no request was made
	after := s.apply(func(v view, now clock.Instant) view {
		v = v.landed()
		if f.epoch != v.epoch {
			return v
		}
		if err == nil && v.token != nil && v.usable(now) == nil {
			err = errDeadOnArrival
			f.dead = true
		}
		if err != nil {
			if f.dead {
				v.failures = before.failures // renewed took it for a success
			}
			if v.closed && errors.Is(err, context.Canceled) {
				err = fmt.Errorf("%w: %w", ErrClosed, err) // Close ended it, not a caller
			}
			again = before.failure != nil && errors.Is(err, ErrLoginRequired) && err.Error() == before.failure.Error()
			return v.failedWith(err, retryAfter(err), now)
		}
		v.failure, v.failures, v.quiet = nil, 0, 0 // if no request was made, what the server asked for stands
		return v
	})
	f.err = err
	if err == nil {
		f.token = after.token
		if f.epoch != after.epoch || after.token == nil {
			f.err = ErrNoSession // nobody gets it: the callers decide anew
		}
	} else if !again {
		s.c.emit(Event{Kind: EventRenewFailed, Cause: f.cause, Duration: s.c.clock.Now().Since(start), Err: err})
	}
	close(f.done)
}

// limit lets what follows of the renewal take no longer than d.
func (f *flight) limit(d time.Duration) {
	var stop context.CancelFunc
	f.ctx, stop = context.WithTimeout(f.whole, d)
	context.AfterFunc(f.whole, stop)
}

// grace gives a former holder the time to save, and reports false if the renewal was
// ended meanwhile. RenewTimeout does not include it: if it is short, no successor would
// ever send.
func (f *flight) grace(d time.Duration) bool {
	deadline, _ := f.ctx.Deadline()
	left := time.Until(deadline)
	if !sleep(f.whole, d, nil) {
		return false
	}
	f.graced = true
	f.limit(left)
	return true
}

func retryAfter(err error) time.Duration {
	var server *ServerError
	if errors.As(err, &server) {
		return server.RetryAfter
	}
	return 0
}

// renew finds or obtains a session with a token that serves: what a sibling
// stored, or what the server issues.
func (s *TokenSource) renew(f *flight) error {
	if f.turnedAway != nil {
		return f.turnedAway
	}
	// Look. An error is left to Update, which meets it again.
	start := s.view.Load()
	if stored, err := s.c.load(f.ctx); err == nil {
		if v := s.readSince(start, stored, f); s.satisfied(f, v) {
			return nil
		}
	} else if nothingStored(err) && s.view.Load().session.IsZero() {
		return s.c.owns(Session{})
	}
	overtaken := 0
	for first := true; ; {
		sent, err := s.renewLocked(f)
		if errors.Is(err, ErrLeaseLost) && overtaken < maxOvertaken && f.ctx.Err() == nil {
			overtaken++
			continue // what there is now is found under the lease
		}
		if d := graceOf(err); d > 0 && f.grace(d) {
			continue
		}
		if v := s.view.Load(); first && err == nil && f.epoch == v.epoch && v.token != nil && v.usable(s.c.clock.Now()) == nil {
			f.dead, first = true, false
			continue // a clock was set during the request, or the computer slept
		}
		if first && sent != "" && errors.Is(err, ErrLoginRequired) {
			// "The loser's invalid_grant deleted the winner's token": before the
			// session is called dead, see whether it is still the same one.
			// Where the lock holds it always is; not every store can keep it.
			stored, loadErr := s.c.load(f.ctx)
			if loadErr == nil && stored.RefreshToken != "" && stored.RefreshToken != sent {
				if v := s.read(stored, f); s.satisfied(f, v) {
					return nil
				}
				first = false
				continue
			}
		}
		return err
	}
}

// nothingStored reports whether a store's Load has said that Update would find no session.
// ErrNoSession alone does not say it: the first session may be one that Update has to
// recover.
func nothingStored(err error) bool {
	var store interface{ NothingStored() bool }
	return errors.Is(err, ErrNoSession) && errors.As(err, &store) && store.NothingStored()
}

// maxOvertaken bounds how often a renewal starts over because of what others do in the
// store.
const maxOvertaken = 3

// errBehind means that the store had to be told first what it missed.
var errBehind error = &StoreError{fmt.Errorf("%w: it was behind", ErrLeaseLost)}

// errDeadOnArrival is the failure if a token expired before its response had arrived.
var errDeadOnArrival error = &ServerError{
	Status: http.StatusOK, Err: fmt.Errorf("%w: the access token had expired when it arrived", ErrMalformedResponse),
}

// satisfied reports whether what was read makes the renewal needless.
func (s *TokenSource) satisfied(f *flight, v view) bool {
	if f.epoch != v.epoch {
		return true // overtaken: its callers decide anew
	}
	now := s.c.clock.Now()
	switch need := v.need(now); f.cause {
	case CauseForced:
		return false
	case CauseKeepAlive:
		return v.session.Generation > f.base && v.usable(now) != nil
	case CauseInvalid:
		return need == "" || need == CauseStale && !s.c.cfg.Synchronous
	default:
		return need == ""
	}
}

// renewLocked renews under the store's lock. sent is the refresh token that was
// sent, "" if none was.
func (s *TokenSource) renewLocked(f *flight) (sent Secret, err error) {
	var ran bool
	var kept Session // what fn gave the store
	var fnErr error
	told := make(chan struct{})
	waiting := time.AfterFunc(waitingAfter, func() {
		defer close(told)
		s.c.emit(Event{Kind: EventWaiting, Cause: f.cause, Duration: waitingAfter})
	})
	waited := sync.OnceValue(waiting.Stop)
	err = s.c.updateLease(f.ctx, func(lease Lease, stored Session) (Session, error) {
		waited()
		ran = true
		f.locked = true
		kept, sent, fnErr = s.step(f, lease, stored)
		if kept.IsZero() {
			return stored, f.outcome(fnErr)
		}
		return kept, nil // also with fnErr: the store is behind
	})
	if !waited() {
		<-told // so that nobody is told anything after Close; the store is not locked any more
	}
	f.locked = false
	for _, e := range f.events {
		s.c.emit(e)
	}
	f.events = nil
	switch {
	case !ran:
		if f.ctx.Err() != nil && s.view.Load().closed {
			return sent, ErrClosed
		}
		return sent, &StoreError{err}
	case kept.IsZero():
	case err != nil:
		s.unsaved(err)
		if errors.Is(err, ErrLeaseLost) {
			// The store has another session. Whichever is the newer one is kept, now and not
			// at the saver's next attempt.
			ctx, cancel := context.WithTimeout(context.Background(), saveTimeout)
			defer cancel()
			_ = s.save(ctx, false)
		}
		if errors.Is(fnErr, errBehind) {
			return "", &StoreError{err}
		}
	default:
		s.saved(kept)
		if fnErr != nil && f.uncertain && kept.RefreshToken == sent {
			// The store was behind, so the session was saved; now it has to learn that
			// its refresh token may be spent.
			_ = s.c.update(f.ctx, func(stored Session) (Session, error) { return stored, f.outcome(fnErr) })
		}
	}
	return sent, fnErr
}

// outcome is what the store is told of a failure: a store that other processes share
// may keep in mind that the outcome of the request is not known.
func (f *flight) outcome(err error) error {
	if err == nil || !f.uncertain || errors.Is(err, ErrOutcomeUnknown) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
}

// waitingAfter is how long a renewal waits for the store's lock before it says so.
const waitingAfter = 2 * time.Second

// updateLease is UpdateLease of a [LeaseStore], and Update of any other one.
func (c *Client) updateLease(ctx context.Context, fn func(Lease, Session) (Session, error)) error {
	store, ok := c.cfg.Store.(LeaseStore)
	if !ok {
		return c.update(ctx, func(stored Session) (Session, error) { return fn(lock{c.cfg.Store}, stored) })
	}
	call := newCall()
	call.write = leaseWriteGrace
	return c.updated(call, c.bounded(ctx, call, func() error {
		return store.UpdateLease(ctx, func(lease Lease, stored Session) (Session, error) {
			if !call.begin() {
				return stored, errStoreHangs
			}
			defer call.end()
			return fn(lease, stored)
		})
	}))
}

// A lock is the lease of a store whose Update cannot lose its lock.
type lock struct{ store Store }

func (l lock) Begin(context.Context) (time.Time, time.Duration, error) {
	return time.Time{}, forever, nil
}

// Interrupted asks a store that knows whether the process before died in its Update.
func (l lock) Interrupted() (time.Duration, bool) {
	store, ok := l.store.(interface{ Interrupted() (time.Time, bool) })
	if !ok {
		return 0, false
	}
	_, interrupted := store.Interrupted()
	return 0, interrupted // a wait counts only where there is a fence
}

// step is what happens under the store's lock. kept is the session to store: zero
// if the stored one stays.
func (s *TokenSource) step(f *flight, lease Lease, stored Session) (kept Session, sent Secret, err error) {
	v := s.read(stored, f)
	base := stored
	if v.supersedes(stored) {
		base = v.session
		base.Generation = max(base.Generation, generationAfter(stored, base))
		kept = base // whatever comes of the request, the store is behind
	}
	if s.satisfied(f, v) {
		return kept, "", nil
	}
	if err := s.renewable(base); err != nil {
		return kept, "", err
	}
	if _, locked := lease.(lock); !locked && !kept.IsZero() {
		// Others would find the mark of a request beside a refresh token that it was not
		// made with, and a successor that is no successor of what they know.
		return kept, "", errBehind
	}
	if base.RefreshToken == stored.RefreshToken { // else the mark is about a former one, whose successor base has
		if err := s.interrupted(f, lease, base); err != nil {
			return kept, "", err
		}
	}
	start := s.c.clock.Now()
	next, response, err := s.send(f, lease, base)
	rotated := next.RefreshToken != base.RefreshToken
	if err == nil || rotated {
		// A new refresh token is kept even if the rest of the response is useless.
		kept = next
		s.apply(func(v view, _ clock.Instant) view {
			if f.epoch != v.epoch {
				return v
			}
			if err != nil {
				return v.rotated(base, next)
			}
			return v.renewed(base, next, f.refusals, response.sent, s.c.margins())
		})
	}
	if err == nil {
		f.once.Do(func() { close(f.received) })
		s.tell(f, Event{
			Kind: EventRenewed, Cause: f.cause, Duration: s.c.clock.Now().Since(start),
			Generation: next.Generation, Rotated: rotated, Expiry: next.Expiry,
		})
	}
	return kept, base.RefreshToken, err
}

// interrupted reports why the refresh token of base must not be sent yet: a request of
// another process may have replaced it, or still be on its way to the server. Whatever the
// cause: if the server then rejects the refresh token, that is why.
func (s *TokenSource) interrupted(f *flight, lease Lease, base Session) error {
	ago, interrupted := lease.Interrupted()
	if !interrupted || s.c.cfg.Provider.RotationGrace > 0 {
		return nil
	}
	fence := s.c.fence(lease, base)
	v := s.apply(func(v view, now clock.Instant) view { return v.doubts(base.RefreshToken, fence > 0, now) })
	switch now := s.c.clock.Now(); {
	case fence > 0 && ago < fence:
		return &InterruptedError{Until: now.Wall().Add(fence - ago), wait: fence - ago}
	case fence == 0 && (f.cause == CauseStale || f.cause == CauseKeepAlive) && v.usable(now) != nil:
		return ErrOutcomeUnknown
	case f.graced:
	case fence > 0:
		return &InterruptedError{Until: now.Wall().Add(saveGrace), wait: saveGrace, grace: true}
	default:
		// A process that was killed gave the lock back, and so did one that could not save.
		if left := lockGrace - now.MonotonicSince(v.doubted); left > 0 {
			return &InterruptedError{Until: now.Wall().Add(left), wait: left, grace: true}
		}
	}
	return nil
}

// saveGrace is how long a successor waits, without the lease, before it sends the refresh
// token of an old mark. The store may have been unavailable until a moment ago, and the
// former holder may be alive, with the new session in memory. It tries again to save within
// maxSaveRetry, after a statement that began while the store was away, and hangs for 10
// seconds by default (Options.Timeout of pgstore and etcdstore). The rest is for the
// statements that save.
const saveGrace = 20 * time.Second

// lockGrace is that where nothing fences, from when this process first saw the mark: nobody
// knows how long a store is away, and a user may wait.
const lockGrace = maxSaveRetry + 2*time.Second

// graceOf is how long to wait if err says that the former holder may be about to save.
func graceOf(err error) time.Duration {
	var interrupted *InterruptedError
	if errors.As(err, &interrupted) && interrupted.grace {
		return interrupted.wait
	}
	return 0
}

// fence is how long after the mark of a lease a request can be accepted that was
// begun with it; 0 if nothing is known to keep an old one from being accepted.
func (c *Client) fence(lease Lease, base Session) time.Duration {
	life := max(c.cfg.Provider.ProofLife, c.cfg.Provider.NonceLife)
	if _, locked := lease.(lock); locked || life == 0 || base.KeyThumbprint == "" {
		return 0
	}
	return life + fenceSlack
}

// fenceSlack is for clocks: one that is off by less than 5 seconds is not corrected, what
// a Date tells is off by up to 5 (package dpop), and iat and Date are whole seconds.
const fenceSlack = 15 * time.Second

// renewable reports why no request can be made for a session.
func (s *TokenSource) renewable(base Session) error {
	if err := s.c.owns(base); err != nil {
		return err
	}
	if base.RefreshToken == "" {
		return &LoginRequiredError{Reason: ReasonNoRefreshToken, Detail: s.c.explain(base.Warning)}
	}
	if base.Generation >= maxGeneration {
		return errLastGeneration
	}
	if dead := s.view.Load().dead; dead.refreshToken == base.RefreshToken {
		return dead.err
	}
	return nil
}

// send exchanges the refresh token of base. With an error, the session it
// returns is base, or base with a new refresh token.
func (s *TokenSource) send(f *flight, lease Lease, base Session) (Session, tokenResponse, error) {
	g := refreshGrant(base.RefreshToken)
	fence := s.c.fence(lease, base)
	var begun clock.Instant
	g.begin = func(ctx context.Context) (time.Time, time.Duration, error) {
		defer func() { begun = s.c.clock.Now() }()
		return lease.Begin(ctx)
	}
	g.tell = func(e Event) { s.tell(f, e) }
	v := s.view.Load()
	g.attempts = s.c.cfg.MaxAttempts
	if v.failures > 0 || f.dead {
		g.attempts = 1 // the server is in trouble: one request for each cooldown
	}
	// A server with reuse detection ends the session if a refresh token comes a
	// second time after it was replaced, and some then revoke its access tokens as well.
	// So after a lost response the same refresh token is sent again only if the server is
	// known to allow that, or if nothing would be gained by waiting. With a fence it would:
	// when that is over, the lost request cannot be accepted after the next one any more.
	g.repeatable = s.c.cfg.Provider.RotationGrace > 0 || fence == 0 && v.usable(s.c.clock.Now()) == nil
	response, err := s.c.exchange(f.ctx, g)
	next := base
	if response.refreshToken != "" && response.refreshToken != base.RefreshToken {
		// "The authorization server MAY issue a new refresh token, in which case
		// the client MUST discard the old refresh token and replace it with the
		// new refresh token" (RFC 6749 §6). Without one the old one stays.
		next.RefreshToken = response.refreshToken
		next.Generation = base.Generation + 1
		s.c.bind(&next, response)
	}
	if err != nil {
		var ex *exchangeError
		f.uncertain = errors.As(err, &ex) && ex.uncertain
		err = s.judge(base.RefreshToken, fence > 0, err)
		if f.uncertain && fence > 0 && s.c.cfg.Provider.RotationGrace == 0 && next.RefreshToken == base.RefreshToken && !errors.Is(err, ErrLoginRequired) {
			now := s.c.clock.Now()
			wait := max(fence-now.Since(begun), 0)
			err = &InterruptedError{Until: now.Wall().Add(wait), Err: err, wait: wait}
		}
		return next, response, err
	}
	next.Generation = base.Generation + 1
	s.c.setToken(&next, response)
	if response.refreshLife > 0 {
		// Also of the same refresh token: some servers extend its life with each use.
		next.RefreshExpiry = response.sent.Wall().Add(response.refreshLife)
	}
	return next, response, nil
}

// judge turns a failed exchange into what the caller has to do about it.
func (s *TokenSource) judge(refreshToken Secret, fenced bool, err error) error {
	var ex *exchangeError
	if !errors.As(err, &ex) {
		return err
	}
	var server *ServerError
	refused := errors.As(ex.err, &server) && endsSession(server.Code) && !server.Temporary()
	result := ex.err
	s.apply(func(v view, now clock.Instant) view {
		doubtful := v.doubtful == refreshToken
		if ex.uncertain {
			v = v.doubts(refreshToken, fenced, now)
		}
		if !refused {
			return v
		}
		login := &LoginRequiredError{Reason: ReasonRejected, Err: server}
		if doubtful || ex.uncertain {
			login = &LoginRequiredError{Reason: ReasonOutcomeUnknown, Err: errors.Join(ErrOutcomeUnknown, server)}
		}
		result = login
		v.dead = deadToken{refreshToken, login}
		return v
	})
	return result
}

// endsSession reports whether an error code means that the grant is not valid any more, so
// that the user has to log in again. Codes that mean a mistake of the client
// (invalid_client, …) are not among them: a wrong secret must not send people to log in.
func endsSession(code string) bool {
	switch code {
	case "invalid_grant", // RFC 6749 §5.2
		"interaction_required", "login_required", "consent_required": // OpenID Connect Core §3.1.2.6
		return true
	}
	return false
}
