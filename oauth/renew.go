package oauth

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"golang.org/x/oauth2"
)

// A flight is one renewal, shared by all who want one while it runs.
type flight struct {
	cause Cause
	epoch int
	done  chan struct{} // closed when token and err are set
	token *oauth2.Token
	err   error
}

// deadToken is a refresh token that the server refused for good, with the error
// that said so: it is not sent again.
type deadToken struct {
	refreshToken Secret
	err          error
}

// unsavedSession is a session that the store did not take.
type unsavedSession struct {
	session Session
	base    Secret // the refresh token that the store still has, if session is its renewal
	login   bool   // session is a new one, which replaces whatever is older
}

// takeOff begins a renewal. s.mu is held.
//
// The renewal is nobody's: the ctx of whoever came first gives it values, but
// neither its end nor its deadline.
func (s *TokenSource) takeOff(ctx context.Context, cause Cause) *flight {
	f := &flight{cause: cause, epoch: s.epoch, done: make(chan struct{})}
	s.flight = f
	s.flying.Store(true)
	before := s.state.Load()
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.c.cfg.RenewTimeout)
		defer cancel()
		start := s.c.now()
		next, event, err := s.renew(ctx, f, before)
		event.Cause, event.Duration = cause, s.c.now().Sub(start)
		s.land(f, before, next, err)
		if err != nil {
			event = Event{Kind: EventRenewFailed, Cause: cause, Duration: event.Duration, Err: err}
		}
		s.c.emit(event)
		close(f.done)
	}()
	return f
}

// land publishes the result of a renewal.
func (s *TokenSource) land(f *flight, before *tokenState, next Session, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.err = err
	if err == nil {
		st := newTokenState(next, &s.c.cfg)
		st.confirmed = f.cause == CauseRejected && next.AccessToken == before.session.AccessToken
		f.token = st.token
		if f.epoch == s.epoch {
			// A resource may have refused a token meanwhile; if the renewal came
			// up with just that one, the refusal stands.
			now := s.state.Load()
			if now == before || now.token != nil || now.session.AccessToken != next.AccessToken {
				s.state.Store(st)
			}
		}
	}
	if f.epoch == s.epoch {
		s.failure = err
		if err == nil {
			s.failures = 0
			s.quietUntil.Store(0)
		} else {
			s.failures++
			s.quietUntil.Store(s.c.now().Add(s.cooldown(err)).UnixNano())
		}
	}
	s.flight = nil
	s.flying.Store(false)
}

const (
	firstCooldown = time.Second
	maxCooldown   = time.Minute

	// maxServerCooldown is the longest Retry-After that is believed.
	maxServerCooldown = 10 * time.Minute

	// loginCooldown is how soon a login in another process is noticed. No
	// request is made to find out.
	loginCooldown = 5 * time.Second
)

// cooldown is how long a failure is shared before the next renewal begins.
func (s *TokenSource) cooldown(err error) time.Duration {
	if errors.Is(err, ErrLoginRequired) {
		return loginCooldown
	}
	d := min(firstCooldown<<min(s.failures-1, 16), maxCooldown)
	d += time.Duration(rand.Int64N(int64(d)/4 + 1))
	var server *ServerError
	if errors.As(err, &server) {
		d = max(d, min(server.RetryAfter, maxServerCooldown))
	}
	return d
}

// renew finds or obtains a session with a valid access token: what a sibling
// stored, or what the server answers. The event says which it was.
func (s *TokenSource) renew(ctx context.Context, f *flight, before *tokenState) (Session, Event, error) {
	// Most often a sibling has been here, and the store's lock is not needed.
	// An error is left to Update, which meets it again.
	if stored, err := s.c.cfg.Store.Load(ctx); err == nil {
		if s.adoptable(stored, f, before) {
			return stored, adopted(stored), nil
		}
		s.offer(stored, f, before)
	}
	for round := 1; ; round++ {
		sent, next, event, err := s.renewLocked(ctx, f, before)
		if round == 1 && sent != "" && errors.Is(err, ErrLoginRequired) {
			// "The loser's invalid_grant deleted the winner's token": before the
			// session is called dead, see whether it is still the same one.
			// Where the lock holds it always is; not every store can keep it.
			stored, loadErr := s.c.cfg.Store.Load(ctx)
			if loadErr == nil && stored.RefreshToken != "" && stored.RefreshToken != sent {
				continue
			}
		}
		if sent != "" && errors.Is(err, ErrLoginRequired) {
			s.mu.Lock()
			s.dead = deadToken{sent, err}
			s.mu.Unlock()
		}
		return next, event, err
	}
}

// offer puts a stored token that is past its best behind the renewal: it is
// served if the renewal fails and it has not expired.
func (s *TokenSource) offer(stored Session, f *flight, before *tokenState) {
	if before.token != nil || f.cause == CauseRejected || stored.AccessToken == "" || s.c.owns(stored) != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.epoch == s.epoch {
		s.state.CompareAndSwap(before, newTokenState(stored, &s.c.cfg))
	}
}

func adopted(session Session) Event {
	return Event{Kind: EventAdopted, Generation: session.Generation, Expiry: session.Expiry}
}

// adoptable reports whether the stored session has a token that serves, other
// than the one that has to be replaced.
func (s *TokenSource) adoptable(stored Session, f *flight, before *tokenState) bool {
	if f.cause == CauseForced || stored.AccessToken == "" || s.c.owns(stored) != nil {
		return false
	}
	if stored.AccessToken == before.session.AccessToken && f.cause == CauseRejected {
		return false
	}
	st := newTokenState(stored, &s.c.cfg)
	now := s.c.now().UnixNano()
	if before.token != nil && stored.AccessToken == before.session.AccessToken {
		// The token that we have, at another jitter: it is not newer for that.
		return stored.Expiry.After(before.session.Expiry) && now < st.stale
	}
	if f.cause == CauseStale || s.c.cfg.Synchronous {
		return now < st.stale
	}
	return now < st.invalid
}

// renewLocked renews under the store's lock. sent is the refresh token that was
// sent, "" if none was.
func (s *TokenSource) renewLocked(ctx context.Context, f *flight, before *tokenState) (sent Secret, result Session, event Event, err error) {
	var base Session
	var fnErr error
	var ran bool
	err = s.c.cfg.Store.Update(ctx, func(stored Session) (Session, error) {
		ran = true
		base = s.withUnsaved(stored)
		if s.adoptable(base, f, before) {
			result, event = base, adopted(base)
			return base, nil
		}
		if fnErr = s.renewable(base); fnErr != nil {
			return stored, fnErr
		}
		sent = base.RefreshToken
		start := s.c.now()
		result, fnErr = s.refresh(ctx, base)
		event = Event{
			Kind: EventRenewed, Duration: s.c.now().Sub(start), Generation: result.Generation,
			Rotated: result.RefreshToken != base.RefreshToken, Expiry: result.Expiry,
		}
		if fnErr != nil && !event.Rotated {
			return stored, fnErr
		}
		return result, nil // a new refresh token is kept even if the rest of the answer is of no use
	})
	switch {
	case !ran:
		return sent, Session{}, event, &StoreError{err}
	case err != nil && (fnErr == nil || event.Rotated):
		s.keepUnsaved(unsavedSession{session: result, base: base.RefreshToken}, err)
	case err == nil:
		s.dropUnsaved()
	}
	if fnErr != nil {
		return sent, Session{}, event, fnErr
	}
	return sent, result, event, nil
}

// renewable reports why no request can be made for a session.
func (s *TokenSource) renewable(base Session) error {
	if err := s.c.owns(base); err != nil {
		return err
	}
	if base.RefreshToken == "" {
		return &LoginRequiredError{Reason: ReasonNoRefreshToken, Detail: s.c.explain(base.Warning)}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead.refreshToken == base.RefreshToken {
		return s.dead.err
	}
	return nil
}

// refresh exchanges the refresh token. With an error, the session it returns is
// base, or base with a new refresh token.
func (s *TokenSource) refresh(ctx context.Context, base Session) (Session, error) {
	ans, err := s.c.exchange(ctx, refreshGrant(base.RefreshToken))
	next := base
	if ans.refreshToken != "" {
		// "The authorization server MAY issue a new refresh token, in which case
		// the client MUST discard the old refresh token and replace it with the
		// new refresh token" (RFC 6749 §6). Without one the old one stays.
		next.RefreshToken = ans.refreshToken
		next.Generation = base.Generation + 1
	}
	if err != nil {
		return next, s.refused(base.RefreshToken, err)
	}
	s.mu.Lock()
	s.doubtful = ""
	s.mu.Unlock()
	next.Generation = base.Generation + 1
	next.setToken(ans)
	return next, nil
}

// setToken takes over the access token of an answer.
func (s *Session) setToken(ans tokenAnswer) {
	s.AccessToken, s.TokenType = ans.accessToken, ans.tokenType
	s.Obtained = ans.received.Round(0) // wall time alone: it is compared across processes and after sleep
	s.Expiry = time.Time{}
	if ans.lifetime > 0 {
		s.Expiry = s.Obtained.Add(ans.lifetime)
	}
	if ans.scopes != nil {
		s.Scopes = ans.scopes
	}
}

// refused turns a failed exchange into what the caller has to do about it.
func (s *TokenSource) refused(refreshToken Secret, err error) error {
	var ex *exchangeError
	var server *ServerError
	if !errors.As(err, &ex) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	doubtful := s.doubtful == refreshToken
	if ex.uncertain {
		s.doubtful = refreshToken
	}
	if !errors.As(ex.err, &server) || !endsSession(server.Code) || server.Temporary() {
		return ex.err
	}
	if doubtful || ex.uncertain {
		return &LoginRequiredError{Reason: ReasonOutcomeUnknown, Err: errors.Join(ErrOutcomeUnknown, server)}
	}
	return &LoginRequiredError{Reason: ReasonRejected, Err: server}
}

// endsSession: the grant's fault, which only the user can mend. Codes for the
// client's fault (invalid_client, …) are not among them: a wrong secret must not
// send people to log in.
func endsSession(code string) bool {
	switch code {
	case "invalid_grant", // RFC 6749 §5.2
		"interaction_required", "login_required", "consent_required": // OpenID Connect Core §3.1.2.6
		return true
	}
	return false
}

// withUnsaved returns the session that is ours to renew: the stored one, or the
// newer one that the store did not take.
func (s *TokenSource) withUnsaved(stored Session) Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unsaved != nil && s.unsaved.supersedes(stored) {
		return s.unsaved.session
	}
	return stored
}

func (u *unsavedSession) supersedes(stored Session) bool {
	if u.login {
		return stored.Created.Before(u.session.Created)
	}
	return stored.RefreshToken == u.base && stored.Generation < u.session.Generation
}

// keepUnsaved remembers a session that could not be saved, and goes on trying.
func (s *TokenSource) keepUnsaved(u unsavedSession, cause error) {
	s.mu.Lock()
	if s.unsaved != nil && s.unsaved.session.RefreshToken == u.base && !u.login {
		u.base, u.login = s.unsaved.base, s.unsaved.login // a renewal of one that was not saved either
	}
	s.unsaved = &u
	if s.saving == nil && !s.closed {
		s.saving = make(chan struct{})
		go s.keepSaving(s.saving)
	}
	s.mu.Unlock()
	s.c.emit(Event{Kind: EventSaveFailed, Generation: u.session.Generation, Err: &PersistError{cause}})
}

func (s *TokenSource) dropUnsaved() {
	s.mu.Lock()
	dropped := s.unsaved
	s.unsaved = nil
	s.mu.Unlock()
	if dropped != nil {
		s.c.emit(Event{Kind: EventSaved, Generation: dropped.session.Generation})
	}
}

const (
	firstSaveRetry = time.Second
	maxSaveRetry   = time.Minute
	saveTimeout    = 30 * time.Second
)

// keepSaving tries to save until it succeeds or the source is closed.
func (s *TokenSource) keepSaving(done chan struct{}) {
	defer close(done)
	for wait := firstSaveRetry; ; wait = min(2*wait, maxSaveRetry) {
		timer := time.NewTimer(wait)
		select {
		case <-s.closing:
			timer.Stop()
			return
		case <-timer.C:
		}
		ctx, cancel := context.WithTimeout(context.Background(), saveTimeout)
		err := s.saveUnsaved(ctx)
		cancel()
		s.mu.Lock()
		if err == nil && s.unsaved == nil {
			s.saving = nil
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
	}
}

// saveUnsaved tries once to save what is not saved.
func (s *TokenSource) saveUnsaved(ctx context.Context) error {
	s.mu.Lock()
	u := s.unsaved
	s.mu.Unlock()
	if u == nil {
		return nil
	}
	err := s.c.cfg.Store.Update(ctx, func(stored Session) (Session, error) {
		if !u.supersedes(stored) {
			return stored, nil // a login or a sibling's renewal came in between
		}
		next := u.session
		next.Generation = max(next.Generation, stored.Generation+1)
		return next, nil
	})
	if err != nil {
		return &PersistError{err}
	}
	s.mu.Lock()
	saved := s.unsaved == u
	if saved {
		s.unsaved = nil
	}
	s.mu.Unlock()
	if saved {
		s.c.emit(Event{Kind: EventSaved, Generation: u.session.Generation})
	}
	return nil
}
