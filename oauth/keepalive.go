package oauth

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ycauth/ycauth-go/internal/retry"
)

// A refresh token that nobody uses expires, at Yandex Cloud after 31 days. Some servers
// issue another one only late in its life, so one renewal at the right time is what keeps
// a session alive:
//
//	 issued                                    RenewAt              RefreshExpiry
//	 |------------------------------------------|--|-----------------|
//	                                 ReissueBefore                    (6 of 31 days are left
//	                                                                   for outages)
//
// A renewal in time has one of these results:
//
//	result                         | the next one
//	-------------------------------+-------------------------------------------------------
//	renewed, another refresh token | at its RenewAt
//	renewed, the same one          | after a quarter of its time, at least 1 hour or half of
//	                               | it, and at most 1 day
//	the session has ended          | after a login, or in a week or at RefreshExpiry: another
//	                               | process may be configured otherwise
//	the key needs a person         | reported once a day, until somebody uses the session
//	a mistake of this process: its | after a tenth of the time left, at least 10 seconds and
//	key, its client, its secret    | at most 15 minutes, so that another process can take it
//	any other failure              | after a tenth of the time left, at least 10 seconds and
//	                               | at most 1 hour

const (
	keepAliveDay = 24 * time.Hour

	// unusedFor is how long a refresh token is left unused of which nothing is known.
	unusedFor = 5 * keepAliveDay

	// keepAliveLook is how often KeepAlive of one session reads its store.
	keepAliveLook = time.Hour

	// sweepEvery is how often a set is asked if there was nothing to do.
	sweepEvery = 10 * time.Minute

	// leastLook is how often a set or a store is read at most for sessions that do not live long.
	leastLook = time.Minute

	// downEvery is how often one session is claimed while the server is down, so that not
	// each session finds that out for itself.
	downEvery = time.Minute

	// endedPause is how long a session is left alone that has ended: a login is a change
	// of the session, which ends the pause.
	endedPause = 7 * keepAliveDay

	// After unusableInARow sessions that this process cannot use, because of a mistake of its
	// own, it claims unusableInARow at a time, and less and less often, down to once in
	// unusableMost. One that it can use ends that.
	unusableInARow = 8
	unusableMost   = time.Hour
	unusablePause  = 15 * time.Minute
)

// RenewAt returns when a session that nobody uses must be renewed, so that its refresh
// token does not expire. It is the zero time if the session has none. It can be
// the option RenewAt of a pgstore.Set.
//
// If the expiry of the refresh token is known, that is when 6/7 of ReissueBefore are left,
// and without that, 6/35 of RefreshTokenLife or of what was left after its last use; for
// Yandex Cloud it is 6 days before. If the token is used after that, and not replaced,
// it is used again after a quarter of what is left, at least an hour, or half of it if
// that is less, and at most a day. So the result is before RefreshExpiry if the session was
// used before that.
// If the expiry is not known, it is 6/7 of ReissueBefore after the last
// use, or else 5 days. A session that was imported and never used is due at once.
func (p Provider) RenewAt(s Session) time.Time {
	used := s.Obtained
	switch {
	case s.RefreshToken == "":
		return time.Time{}
	case s.RefreshExpiry.IsZero() && used.IsZero():
		return s.Created
	case s.RefreshExpiry.IsZero() && p.ReissueBefore > 0:
		return used.Add(p.ReissueBefore / 7 * 6)
	case s.RefreshExpiry.IsZero():
		return used.Add(unusedFor)
	case used.IsZero():
		used = s.Created
	}
	window := p.ReissueBefore
	switch {
	case window > 0:
	case p.RefreshTokenLife > 0:
		window = p.RefreshTokenLife / 5
	default:
		window = max(s.RefreshExpiry.Sub(used), 0) / 5
	}
	if at := s.RefreshExpiry.Add(-window / 7 * 6); used.Before(at) {
		return at
	}
	return used.Add(again(s.RefreshExpiry.Sub(used)))
}

// again is how long after a use that brought no other refresh token the next one is,
// with left to live.
func again(left time.Duration) time.Duration {
	if left <= 0 {
		return keepAliveDay // the server goes on accepting it
	}
	return min(max(left/4, min(time.Hour, left/2)), keepAliveDay)
}

// afterFailure is how long to wait after a renewal that failed. The session is
// zero if it could not be read.
func afterFailure(s Session, now time.Time) time.Duration {
	d := time.Hour
	if !s.RefreshExpiry.IsZero() {
		// Since it has expired it matters less and less.
		d = min(max(s.RefreshExpiry.Sub(now).Abs()/10, 10*time.Second), time.Hour)
	}
	return d + time.Duration(jitter(int64(d/4)))
}

// unread is how long to wait after a session could not be read.
const unread = 6 * time.Minute

// lookEvery is how often KeepAlive looks whether there is something to do, so that no session
// is found too late.
func (p Provider) lookEvery(most time.Duration) time.Duration {
	for _, life := range []time.Duration{p.RefreshTokenLife, p.ReissueBefore} {
		if life > 0 {
			most = min(most, life/4)
		}
	}
	return max(most, leastLook)
}

// KeepAlive renews the session whenever its refresh token would expire otherwise, as
// [Provider.RenewAt] says, until ctx ends or the source is closed. It reads the store once
// an hour, or in a quarter of Provider.RefreshTokenLife if that is less, and waits for a login if
// there is no session. Refresh tokens that live for less than 10 minutes may expire. The error is
// ctx's, or [ErrClosed]. Failures are reported by events, with [CauseKeepAlive].
//
// A session whose key needs a person to sign ([dpop.Prover.NeedsPerson]) is left alone,
// which [EventNeedsPerson] reports once a day: somebody has to use it.
//
// For the sessions of a [Pool], use [Pool.KeepAlive].
func (s *TokenSource) KeepAlive(ctx context.Context) error {
	var told time.Time
	for {
		timer := time.NewTimer(s.keptAlive(ctx, &told))
		select {
		case <-timer.C:
		case <-s.closing.Done():
			timer.Stop()
			return ErrClosed
		case <-ctx.Done():
			timer.Stop()
			return retry.Ended(ctx)
		}
	}
}

// keptAlive renews the session if it is time, and returns when to look again.
func (s *TokenSource) keptAlive(ctx context.Context, told *time.Time) time.Duration {
	p := s.c.cfg.Provider
	look := p.lookEvery(keepAliveLook)
	before := s.view.Load()
	limited, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	stored, err := s.c.load(limited)
	if err != nil && !errors.Is(err, ErrNoSession) {
		if ctx.Err() == nil {
			s.c.emit(Event{Kind: EventRenewFailed, Cause: CauseKeepAlive, Err: &StoreError{err}})
		}
		return min(afterFailure(before.session, s.c.now()), unread)
	}
	session := s.readSince(before, stored, nil).session
	now := s.c.now()
	at := p.RenewAt(session)
	if at.IsZero() {
		return look
	}
	if left := at.Sub(now); left > 0 {
		return min(left, look)
	}
	if s.c.needsPerson() {
		if now.Sub(*told).Abs() >= keepAliveDay {
			*told = now
			s.c.tellNeedsPerson(session)
		}
		return look
	}
	err = s.keep(ctx)
	session, now = s.view.Load().session, s.c.now()
	switch {
	case errors.Is(err, ErrLoginRequired):
		return look
	case err != nil:
		return afterFailure(session, now)
	}
	return max(min(p.RenewAt(session).Sub(now), look), leastLook)
}

func (c *Client) needsPerson() bool {
	return c.cfg.DPoP != nil && c.cfg.DPoP.NeedsPerson() || c.assertions != nil && c.assertions.needsPerson()
}

func (c *Client) tellNeedsPerson(s Session) {
	c.emit(Event{Kind: EventNeedsPerson, Cause: CauseKeepAlive, Generation: s.Generation, Expiry: s.Expiry})
}

// keep renews the session in hand, or waits for the renewal in progress.
func (s *TokenSource) keep(ctx context.Context) error {
	f, err := s.keeping()
	if err != nil {
		return err
	}
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return retry.Ended(ctx)
	}
}

func (s *TokenSource) keeping() (*flight, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, now := s.view.Load(), s.c.clock.Now()
	if v.flight != nil {
		return v.flight, nil
	}
	cause := CauseInvalid
	if v.usable(now) != nil {
		cause = CauseStale // there is something to lose
	}
	if err := v.resting(now, cause); err != nil {
		return nil, err
	}
	return s.takeOff(CauseKeepAlive), nil
}

// A DueSet knows which of many sessions are due for renewal, and shares them out to all
// processes that ask. A *pgstore.Set is one; set its option RenewAt to the method
// [Provider.RenewAt] of the provider.
type DueSet interface {
	// DueKeys claims the sessions that are due, or will be within ahead, and returns their
	// keys, up to limit. Nobody else gets them until claim has passed, or the session has
	// changed.
	DueKeys(ctx context.Context, ahead, claim time.Duration, limit int) (keys []string, err error)

	// Postpone extends the claim of a session to d from now; 0 ends it. A change of the
	// session ends it, too. It does nothing if the stored session has another generation than
	// the one given, because somebody has logged in or renewed it since; 0 stands for any.
	Postpone(ctx context.Context, key string, generation uint64, d time.Duration) error
}

// KeepAlive renews the sessions of a set that are due, until ctx ends or the Pool is
// closed. The error is ctx's, or [ErrClosed]. Every replica can run it: each session is
// claimed by one at a time. Nothing is locked in the set during a request.
//
// These renewals come after all others of the Pool and keep to its limits; at most half of
// PoolConfig.Concurrent sessions are claimed at a time. A set that has nothing due is
// asked once in 10 minutes, or in a quarter of Provider.RefreshTokenLife or ReissueBefore, but
// at most once a minute, and for what will be due before it is asked again. The shortest
// life of refresh tokens that is kept is 10 minutes if Provider.RefreshTokenLife says so, and 20
// minutes if it is not known. While the server is down, one session is claimed a minute.
// Failures are reported by events, with [CauseKeepAlive]; those of
// the set itself have no Event.Key.
//
// All sessions of the set must be those of the client of the Pool. If this process cannot use
// what it claims, because its key, its client or its secret is a wrong one, it soon leaves
// the sessions to other replicas: after 8 in a row, it claims 8 at a time and less and less
// often, down to once an hour, until it can use one. An event without Event.Key reports that.
//
// Sessions whose key needs a person to sign ([dpop.Prover.NeedsPerson]) are left alone,
// which [EventNeedsPerson] reports once a day for each.
func (p *Pool) KeepAlive(ctx context.Context, set DueSet) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.closing, func() { cancel(ErrClosed) })()
	var wg sync.WaitGroup
	defer wg.Wait()
	w := &sweeper{pool: p, set: set, done: make(chan swept, p.reads.sweepers()), look: p.base.cfg.Provider.lookEvery(sweepEvery), resting: map[string]time.Time{}}
	w.ahead = w.look + w.look/4 // with the jitter
	if window := p.base.cfg.Provider.ReissueBefore; window > 0 {
		w.ahead = min(w.ahead, window/7) // RenewAt is as long after the window has begun
	}
	for {
		if !w.next.After(time.Now()) {
			w.next = time.Time{}
		}
		if more := w.claim(ctx, &wg); more {
			if !w.wait(ctx, forever, func() bool { return w.claimed < cap(w.done) }) {
				return ended(ctx)
			}
			continue
		}
		pause := w.pause()
		if !w.wait(ctx, pause+time.Duration(jitter(int64(pause/4))), nil) {
			return ended(ctx)
		}
	}
}

// A sweeper is one call of Pool.KeepAlive.
type sweeper struct {
	pool        *Pool
	set         DueSet
	look, ahead time.Duration

	claimed  int                  // sessions whose sweep is not over
	done     chan swept           // has room for each of them
	next     time.Time            // when a session that was swept has to be claimed again; zero: not soon
	resting  map[string]time.Time // when a session may be swept again, for those claimed lately
	unusable int                  // sessions in a row
	why      error                // of the last one
	pauses   int                  // made for that reason in a row
}

// swept is what became of a session that was claimed.
type swept struct {
	key        string
	generation uint64 // of the session that pause is about; 0 if it is not known
	pause      time.Duration
	soon       bool  // it is due again after pause
	mistake    error // of this process, so that it cannot use the session
}

// claim starts to sweep what is due, and reports whether there may be more.
func (w *sweeper) claim(ctx context.Context, wg *sync.WaitGroup) (more bool) {
	p := w.pool
	limit := cap(w.done) - w.claimed
	switch {
	case p.pace.down():
		limit = min(limit, 1)
	case w.unusable >= unusableInARow:
		limit = min(limit, unusableInARow)
	}
	if limit <= 0 {
		return false
	}
	// Each of them may wait behind all others.
	lasts := 2*p.base.cfg.RenewTimeout + time.Minute + time.Duration(cap(w.done))*p.pace.every
	keys, err := w.set.DueKeys(ctx, w.ahead, lasts, limit)
	if err != nil && ctx.Err() == nil {
		p.base.emit(Event{Kind: EventRenewFailed, Cause: CauseKeepAlive, Err: &StoreError{err}})
	}
	keys = keys[:min(len(keys), limit)]
	full := len(keys) == limit
	// A set that forgets its claims must not cause a request for each time that it is asked.
	now := time.Now()
	maps.DeleteFunc(w.resting, func(_ string, until time.Time) bool { return !until.After(now) })
	keys = slices.DeleteFunc(keys, func(key string) bool { return !w.resting[key].IsZero() })
	w.claimed += len(keys)
	for _, key := range keys {
		w.resting[key] = now.Add(lasts)
		wg.Go(func() { w.done <- p.sweep(ctx, w.set, key) })
	}
	return full && len(keys) > 0 && !p.pace.down() && w.unusable < unusableInARow
}

// pause is how long to wait before the set is asked again.
func (w *sweeper) pause() time.Duration {
	switch {
	case w.pool.pace.down():
		return min(downEvery, w.look)
	case w.unusable < unusableInARow:
		w.pauses = 0
		return w.look
	}
	pause := max(min(w.look<<min(w.pauses, 10), unusableMost), w.look)
	w.pauses++
	w.pool.base.emit(Event{Kind: EventRenewFailed, Cause: CauseKeepAlive, Err: fmt.Errorf(
		"oauth: this process cannot use the sessions that it claims for KeepAlive, so it claims the next ones in %v: %w", pause, w.why)})
	return pause
}

// wait waits for d, until stop reports true, or until a session has to be claimed
// again. It reports false if ctx ended before.
func (w *sweeper) wait(ctx context.Context, d time.Duration, stop func() bool) bool {
	began := time.Now()
	timer := time.NewTimer(d)
	defer timer.Stop()
	for stop == nil || !stop() {
		if stop == nil && !w.next.IsZero() && w.unusable < unusableInARow && w.next.Before(began.Add(d)) {
			timer.Reset(time.Until(w.next))
		}
		select {
		case s := <-w.done:
			w.over(s)
		case <-timer.C:
			return true
		case <-ctx.Done():
			return false
		}
	}
	return ctx.Err() == nil
}

func (w *sweeper) over(s swept) {
	w.claimed--
	w.resting[s.key] = time.Now().Add(min(s.pause, w.look))
	if s.mistake != nil {
		w.unusable++
		w.why = s.mistake
	} else {
		w.unusable = 0
	}
	if next := time.Now().Add(max(s.pause, leastLook)); s.soon && (w.next.IsZero() || next.Before(w.next)) {
		w.next = next
	}
}

func ended(ctx context.Context) error {
	if errors.Is(context.Cause(ctx), ErrClosed) {
		return ErrClosed
	}
	return retry.Ended(ctx)
}

// sweep renews one session that was claimed, and tells the set when to return it again.
func (p *Pool) sweep(ctx context.Context, set DueSet, key string) swept {
	s := p.swept(ctx, key)
	s.key = key
	if ctx.Err() != nil {
		s.pause = 0 // another replica may take it
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookTimeout)
	defer cancel()
	if err := set.Postpone(ctx, key, s.generation, s.pause); err != nil {
		p.base.emit(Event{Kind: EventRenewFailed, Key: key, Cause: CauseKeepAlive, Err: &StoreError{err}})
	}
	return s
}

func (p *Pool) swept(ctx context.Context, key string) swept {
	s, err := p.pin(ctx, key, sweeping)
	if s != nil {
		defer p.unpin(s)
	}
	if err != nil {
		if ctx.Err() == nil {
			p.base.emit(Event{Kind: EventRenewFailed, Key: key, Cause: CauseKeepAlive, Err: err})
		}
		return swept{pause: unread, soon: true, mistake: err}
	}
	source := s.client.source
	session := source.view.Load().session
	if s.client.needsPerson() && !session.IsZero() {
		s.client.tellNeedsPerson(session)
		return swept{generation: session.Generation, pause: keepAliveDay}
	}
	err = source.keep(ctx)
	session = source.view.Load().session
	now := s.client.now()
	left := session.RefreshExpiry.Sub(now)
	done := swept{generation: session.Generation}
	var login *LoginRequiredError
	switch {
	case err == nil:
		// The set knows when the session is due next. This is for one that the set takes
		// to be due still, because its refresh token was not replaced or does not live long.
		done.pause = again(left)
		if next := s.client.cfg.Provider.RenewAt(session).Sub(now); next > 0 {
			done.pause = max(min(done.pause, next/2), 10*time.Second)
		}
		done.soon = true
	case ownMistake(err):
		done.pause, done.mistake = min(afterFailure(session, now), unusablePause), err
	case errors.As(err, &login):
		done.pause = endedPause
		if left > 0 {
			done.pause = min(done.pause, left)
		}
	default:
		done.pause, done.soon = afterFailure(session, now), true
	}
	return done
}

// ownMistake reports whether a renewal failed because of how this process is
// configured, so that another one may succeed.
func ownMistake(err error) bool {
	var login *LoginRequiredError
	var server *ServerError
	switch {
	case errors.As(err, &login):
		return login.Reason == ReasonWrongKey || login.Reason == ReasonWrongClient
	case errors.As(err, &server) && !server.Temporary():
		return codeHints[server.Code] != ""
	}
	return signerFailed(err)
}
