package oauth

import (
	"context"
	"errors"
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
//	renewed, the same one          | after a quarter of its time, at least 1 hour and at
//	                               | most 1 day
//	the session has ended          | after a login
//	the key needs a person         | reported once a day, until somebody uses the session
//	any other failure              | after a tenth of the time left, at least 1 minute and
//	                               | at most 1 hour

const (
	keepAliveDay = 24 * time.Hour

	// unusedFor is how long a refresh token is left unused of which nothing is known.
	unusedFor = 5 * keepAliveDay

	// keepAliveLook is how often KeepAlive of one session reads its store.
	keepAliveLook = time.Hour

	// sweepEvery is how often a set is asked if there was nothing to do.
	sweepEvery = 10 * time.Minute

	// downEvery is how often one session is claimed while the server is down, so that not
	// each session finds that out for itself.
	downEvery = time.Minute

	// endedPause is how long a session is left alone that has ended: a login is a change
	// of the session, which ends the pause.
	endedPause = 7 * keepAliveDay
)

// RenewAt returns when a session that nobody uses must be renewed, so that its refresh
// token does not expire. It is the zero time if the session has none. It can be
// the option RenewAt of a pgstore.Set.
//
// If the expiry of the refresh token is known, that is when 6/7 of ReissueBefore are left,
// and without that, 6/35 of RefreshTokenLife or of what was left after its last use; for
// Yandex Cloud it is 6 days before. If the token is used after that, and not replaced,
// it is used again after a quarter of what is left, at least an hour and at most a day.
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
	return min(max(left/4, time.Hour), keepAliveDay)
}

// afterFailure is how long to wait after a renewal that failed.
func afterFailure(left time.Duration) time.Duration {
	d := min(max(left/10, time.Minute), time.Hour)
	return d + time.Duration(jitter(int64(d/4)))
}

// KeepAlive renews the session whenever its refresh token would expire otherwise, as
// [Provider.RenewAt] says, until ctx ends or the source is closed. It reads the store once
// an hour, and waits for a login if there is no session. The error is ctx's, or
// [ErrClosed]. Failures are reported by events, with [CauseKeepAlive].
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
	before := s.view.Load()
	limited, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	stored, err := s.c.load(limited)
	if err != nil && !errors.Is(err, ErrNoSession) {
		if ctx.Err() == nil {
			s.c.emit(Event{Kind: EventRenewFailed, Cause: CauseKeepAlive, Err: &StoreError{err}})
		}
		return afterFailure(keepAliveLook)
	}
	session := s.readSince(before, stored, nil).session
	now := s.c.now()
	at := s.c.cfg.Provider.RenewAt(session)
	if at.IsZero() {
		return keepAliveLook
	}
	if left := at.Sub(now); left > 0 {
		return min(left, keepAliveLook)
	}
	if s.c.needsPerson() {
		if now.Sub(*told).Abs() >= keepAliveDay {
			*told = now
			s.c.tellNeedsPerson(session)
		}
		return keepAliveLook
	}
	if err := s.keep(ctx); err != nil && !errors.Is(err, ErrLoginRequired) {
		return afterFailure(session.RefreshExpiry.Sub(now))
	}
	return keepAliveLook
}

func (c *Client) needsPerson() bool { return c.cfg.DPoP != nil && c.cfg.DPoP.NeedsPerson() }

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
	// session ends it, too.
	Postpone(ctx context.Context, key string, d time.Duration) error
}

// KeepAlive renews the sessions of a set that are due, until ctx ends or the Pool is
// closed. The error is ctx's, or [ErrClosed]. Every replica can run it: each session is
// claimed by one at a time. Nothing is locked in the set during a request.
//
// These renewals come after all others of the Pool and keep to its limits; at most
// PoolConfig.Concurrent sessions are claimed at a time. A set that has nothing due is
// asked once in 10 minutes. While the server is down, one session is claimed a minute.
// Failures are reported by events, with [CauseKeepAlive]; those of
// the set itself have no Event.Key.
//
// Sessions whose key needs a person to sign ([dpop.Prover.NeedsPerson]) are left alone,
// which [EventNeedsPerson] reports once a day for each.
func (p *Pool) KeepAlive(ctx context.Context, set DueSet) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.closing, func() { cancel(ErrClosed) })()
	var wg sync.WaitGroup
	defer wg.Wait()
	claim := 2*p.base.cfg.RenewTimeout + time.Minute
	swept := make(chan struct{}, p.cfg.Concurrent) // a value for each session that is not claimed any more
	for claimed := 0; ; {
		for first := claimed == cap(swept); claimed > 0; first = false {
			if !first && len(swept) == 0 {
				break
			}
			select {
			case <-swept:
				claimed--
			case <-ctx.Done():
				return ended(ctx)
			}
		}
		limit, pause := cap(swept)-claimed, sweepEvery
		if p.pace.down() {
			limit, pause = 1, downEvery
		}
		keys, err := set.DueKeys(ctx, 0, claim, limit)
		if err != nil && ctx.Err() == nil {
			p.base.emit(Event{Kind: EventRenewFailed, Cause: CauseKeepAlive, Err: &StoreError{err}})
		}
		keys = keys[:min(len(keys), limit)]
		claimed += len(keys)
		for _, key := range keys {
			wg.Go(func() {
				defer func() { swept <- struct{}{} }()
				p.sweep(ctx, set, key)
			})
		}
		if len(keys) == limit && !p.pace.down() {
			continue // there may be more
		}
		if !sleep(ctx, pause+time.Duration(jitter(int64(pause/4))), nil) {
			return ended(ctx)
		}
	}
}

func ended(ctx context.Context) error {
	if errors.Is(context.Cause(ctx), ErrClosed) {
		return ErrClosed
	}
	return retry.Ended(ctx)
}

// sweep renews one session that was claimed, and tells the set when to return it again.
func (p *Pool) sweep(ctx context.Context, set DueSet, key string) {
	pause := p.swept(ctx, key)
	if ctx.Err() != nil {
		pause = 0 // another replica may take it
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookTimeout)
	defer cancel()
	if err := set.Postpone(ctx, key, pause); err != nil {
		p.base.emit(Event{Kind: EventRenewFailed, Key: key, Cause: CauseKeepAlive, Err: &StoreError{err}})
	}
}

func (p *Pool) swept(ctx context.Context, key string) (pause time.Duration) {
	s, err := p.pin(ctx, key, sweeping)
	if s != nil {
		defer p.unpin(s)
	}
	if err != nil {
		if ctx.Err() == nil {
			p.base.emit(Event{Kind: EventRenewFailed, Key: key, Cause: CauseKeepAlive, Err: err})
		}
		return afterFailure(keepAliveLook)
	}
	source := s.client.source
	session := source.view.Load().session
	if s.client.needsPerson() && !session.IsZero() {
		s.client.tellNeedsPerson(session)
		return keepAliveDay
	}
	err = source.keep(ctx)
	session = source.view.Load().session
	left := session.RefreshExpiry.Sub(s.client.now())
	switch {
	case err == nil:
		// The set knows when the session is due next. This is for one whose refresh token
		// was not replaced, and that the set takes to be due still.
		return again(left)
	case errors.Is(err, ErrLoginRequired):
		return endedPause
	case session.RefreshExpiry.IsZero():
		return afterFailure(keepAliveDay)
	}
	return afterFailure(left)
}
