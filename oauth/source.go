package oauth

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"

	"github.com/ycauth/ycauth-go/internal/clock"
	"github.com/ycauth/ycauth-go/internal/retry"
)

// A TokenSource serves access tokens and renews them. [Client.TokenSource]
// returns it. It is safe for concurrent use by any number of goroutines.
//
// A renewed session that cannot be saved is kept in memory and tried again, until the
// store has it. If the store then has no session at all, somebody logged out, and the
// one in memory is forgotten as well: whoever replaces a broken store by an empty one has
// to log in again.
//
// It implements [oauth2.TokenSource], and credentials.PerRPCCredentials of
// google.golang.org/grpc without importing it.
type TokenSource struct {
	c    *Client
	view atomic.Pointer[view] // never nil; replaced under mu

	silent atomic.Bool // Close has returned: what the source does is not told any more

	closing context.Context    // ended by Close at its beginning
	close   context.CancelFunc // of closing

	mu      sync.Mutex
	looking *looking // the read of the store in progress; nil if there is none
	saver   saver
	begun   time.Time // when the last session began that is known

	hung hung // calls of the store that are left to themselves

	redeeming int           // logins that exchange their codes and save what comes
	redeemed  chan struct{} // closed when there is none any more; nil if there was none
}

var _ oauth2.TokenSource = (*TokenSource)(nil)

// A flight is one renewal, shared by all callers who want one while it runs.
type flight struct {
	cause    Cause
	epoch    uint64             // of the view that the renewal is for
	refusals uint64             // of the view at its beginning
	ctx      context.Context    // read by the renewal alone
	whole    context.Context    // ctx without the limit of RenewTimeout
	cancel   context.CancelFunc // ends both, and so everything but a request that was sent
	once     sync.Once          // for received
	received chan struct{}      // closed when the view has a new token, which the store may not have yet
	done     chan struct{}      // closed when token and err are set
	token    *oauth2.Token
	err      error

	// uncertain: the server may have processed a request without our learning of it.
	// dead: a token was dead on arrival, so that the renewal is no success.
	// graced: a former holder of the lease that is alive had the time to save.
	uncertain, dead, graced bool

	// events happened while the store was locked. They are told once the session is
	// saved: an observer that blocks, panics, or writes to a closed pipe must not
	// come between a new refresh token and the store.
	locked bool
	events []Event

	base       uint64 // the generation that CauseKeepAlive is to replace
	job        *job   // in a Pool, where the renewal waits for its turn
	turnedAway error  // why it did not get one
}

func newTokenSource(c *Client) *TokenSource {
	s := &TokenSource{c: c}
	s.closing, s.close = context.WithCancel(context.Background())
	s.view.Store(&view{})
	return s
}

// Token returns a token that is valid now. It is [TokenSource.TokenContext]
// without a limit of the caller's own: a renewal takes Config.RenewTimeout, and
// then what is left of the request that was sent last, with its nonce challenges. If the
// store takes longer than 2 seconds to save the new session, Token returns before it has:
// call [TokenSource.Close] at the end of the program, which waits for the store.
//
// The token is shared with other callers and must not be changed. It holds no
// refresh token.
func (s *TokenSource) Token() (*oauth2.Token, error) { return s.TokenContext(context.Background()) }

// TokenContext returns a token that is valid now. It waits only if there is
// none, and no longer than ctx allows; if ctx has ended, it returns the token in hand
// while that has not expired. A renewal is shared with other callers, so
// it uses neither the cancellation nor the values of ctx.
//
// If the server cannot be reached and ctx has a deadline, TokenContext goes on
// trying until then. Without a deadline it returns the error of the first renewal.
//
// The errors are those of the package documentation, or ctx's. The token is
// shared with other callers and must not be changed. It holds no refresh token.
func (s *TokenSource) TokenContext(ctx context.Context) (*oauth2.Token, error) {
	v := s.view.Load()
	if s.c.clock.Before(v.served) {
		return v.token, nil
	}
	if d := v.decide(s.c.clock.Now(), s.c.cfg.Synchronous); d.act == actNothing && !patient(ctx, d.err) {
		if d.token == nil && ctx.Err() != nil {
			return nil, retry.Ended(ctx)
		}
		return d.token, d.err
	}
	return s.wait(ctx)
}

// wait does what decide asks for, and returns the result for one caller.
func (s *TokenSource) wait(ctx context.Context) (*oauth2.Token, error) {
	for landed := 0; ; {
		if ctx.Err() != nil {
			// The caller can wait for nothing: only what costs no wait is begun.
			v, now := s.view.Load(), s.c.clock.Now()
			if v.decide(now, s.c.cfg.Synchronous).token == nil {
				return v.orEnded(ctx, now)
			}
		}
		d, f := s.act()
		switch {
		case f == nil && patient(ctx, d.err) && s.rest(ctx):
			continue
		case f == nil:
			return d.token, d.err
		}
		if tok := s.await(ctx, f); tok != nil {
			return tok, nil
		}
		select {
		case <-f.done:
		default:
			return s.view.Load().orEnded(ctx, s.c.clock.Now())
		}
		v := s.view.Load()
		if f.epoch != v.epoch {
			continue // a login or logout overtook the renewal
		}
		landed++
		if f.err == nil {
			// One more round if a resource has rejected the new token already.
			if landed == 1 && v.need(s.c.clock.Now()) == CauseRejected {
				continue
			}
			return f.token, nil
		}
		if tok := v.usable(s.c.clock.Now()); tok != nil {
			return tok, nil
		}
		if !patient(ctx, f.err) || v.closed || !s.rest(ctx) {
			return nil, f.err
		}
	}
}

// await waits until the renewal f has ended, or ctx has. If the store takes long to save the
// new token, the caller gets it before: it is in memory, and saving goes on.
func (s *TokenSource) await(ctx context.Context, f *flight) *oauth2.Token {
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return nil
	case <-f.received:
	}
	timer := time.NewTimer(saveWait)
	defer timer.Stop()
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return nil
	case <-timer.C:
	}
	if v, now := s.view.Load(), s.c.clock.Now(); v.need(now) == "" {
		return v.token
	}
	select {
	case <-f.done:
	case <-ctx.Done():
	}
	return nil
}

// saveWait is how long callers wait for a new session to be saved. A program that got a
// token may end, and most stores need only some milliseconds.
const saveWait = 2 * time.Second

// orEnded is what a caller gets whose context has ended: a token that has not expired, or
// the context's error.
func (v *view) orEnded(ctx context.Context, now clock.Instant) (*oauth2.Token, error) {
	if tok := v.usable(now); tok != nil {
		return tok, nil
	}
	return nil, retry.Ended(ctx)
}

// patient reports whether a caller goes on trying after err: no request was sent, and
// the caller has said how long to try.
func patient(ctx context.Context, err error) bool {
	var unreachable *UnreachableError
	_, limited := ctx.Deadline()
	return limited && errors.As(err, &unreachable) && unreachable.Temporary()
}

// rest waits until another renewal may begin, or none ever will because the source
// was closed, and reports whether ctx allows it.
func (s *TokenSource) rest(ctx context.Context) bool {
	v := s.view.Load()
	left := v.quiet - s.c.clock.Now().MonotonicSince(v.failed)
	if deadline, _ := ctx.Deadline(); time.Until(deadline) <= left {
		return false // waiting would only turn an informative error into "deadline exceeded"
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.closing.Done():
		return true
	case <-ctx.Done():
		return false
	}
}

// act decides, and starts what the decision asks for. The flight is the one to
// wait for, nil if there is none.
func (s *TokenSource) act() (verdict, *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.view.Load()
	d := v.decide(s.c.clock.Now(), s.c.cfg.Synchronous)
	switch d.act {
	case actLook:
		s.look()
	case actBehind:
		s.takeOff(d.cause)
	case actWait:
		f := v.flight
		if f == nil {
			f = s.takeOff(d.cause)
		}
		s.hurry(f)
		return d, f
	}
	return d, nil
}

// Renew obtains a new token, even if the one in hand is fresh, and waits for it.
// A renewal in progress is joined. The cooldown after a failure is not waited
// for, a Retry-After of the server is. The token in hand goes on being served
// until it is replaced.
//
// There are 10 such renewals in a row at most, and then one in 6 seconds: a call in
// between gets the result of the last one.
func (s *TokenSource) Renew(ctx context.Context) (*oauth2.Token, error) {
	if ctx.Err() != nil {
		return nil, retry.Ended(ctx)
	}
	f, tok, err := s.force()
	switch {
	case f != nil:
	case err == nil && tok == nil:
		return s.TokenContext(ctx) // the last renewal succeeded, and its token is gone
	default:
		return tok, err
	}
	if tok := s.await(ctx, f); tok != nil {
		return tok, nil
	}
	select {
	case <-f.done:
		if f.epoch != s.view.Load().epoch {
			return s.TokenContext(ctx) // a login or logout overtook the renewal
		}
		return f.token, f.err
	default:
		return nil, retry.Ended(ctx)
	}
}

func (s *TokenSource) force() (*flight, *oauth2.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.view.Load()
	now := s.c.clock.Now()
	switch {
	case v.flight != nil:
		s.hurry(v.flight)
		return v.flight, nil, nil
	case v.closed:
		return nil, nil, ErrClosed
	case v.asked(now) && v.failure == nil && v.usable(now) != nil:
		return nil, v.token, nil // another process was not told to wait
	case v.asked(now):
		return nil, nil, v.silenced()
	case v.waits(now):
		return nil, nil, v.failure
	case v.mayForce(now):
		return s.takeOff(CauseForced), nil, nil
	case v.failure != nil:
		return nil, nil, v.failure
	}
	return nil, v.usable(now), nil
}

// Invalidate says that a resource rejected the token (401). The next caller
// waits for another one, but not more often than every 30 seconds: in between,
// and while no other token can be had, the rejected one is served until it
// expires, since other resources may accept it. It is not served any more once the
// server has rejected the refresh token as well. A token that is not the current
// one is ignored, because its successor is there already.
func (s *TokenSource) Invalidate(rejected *oauth2.Token) {
	if rejected == nil {
		return
	}
	s.mu.Lock()
	next, changed := s.view.Load().refusedBy(rejected.AccessToken)
	if changed {
		s.view.Store(&next)
	}
	s.mu.Unlock()
	if changed && !next.closed {
		s.c.emit(Event{Kind: EventInvalidated, Generation: next.session.Generation, Expiry: next.session.Expiry})
	}
}

// GetRequestMetadata implements credentials.PerRPCCredentials of
// google.golang.org/grpc: the header authorization with a token for this call.
//
// gRPC does not tell its credentials that a call was rejected, so a token that
// was revoked is sent until it is replaced. Use Authenticate of package
// refreshtoken/grpctransport instead of grpc.WithPerRPCCredentials: it calls
// [TokenSource.Invalidate] and makes the call once more.
func (s *TokenSource) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	tok, err := s.TokenContext(ctx)
	if err != nil {
		return nil, err
	}
	if tok.Type() != "Bearer" {
		return nil, errors.New("oauth: a token of type " + tok.Type() + " cannot be sent over gRPC")
	}
	return map[string]string{"authorization": "Bearer " + tok.AccessToken}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials: it is true,
// because a token never travels in the clear.
func (s *TokenSource) RequireTransportSecurity() bool { return true }

// Close waits for a token request in progress, so that a refresh token it
// receives is saved before the program exits, and saves what could not be saved
// before. It also waits for a login that is exchanging its code, whose request is not
// repeated after that. It ends everything else, and takes no longer than one request (three, if
// the server answers slowly and with nonce challenges) and one save:
// Config.RequestTimeout each, and 30 seconds, and as long again if the store
// does not return when its context ends. If a session could not be saved, the
// error is a [*PersistError]. If a request goes on after all that time, because the
// transport does not return when its context ends, the error matches
// [context.DeadlineExceeded]: the refresh token that it may still receive is saved then, if
// the program goes on. Close can be called again.
//
// A closed source still serves its token while it is valid, and then fails with
// [ErrClosed]. Once Close has returned, no work of the source calls Config.Observer.
func (s *TokenSource) Close() error { return s.closeWithin(context.Background()) }

// closeWithin is Close, which ends with whole at the latest.
func (s *TokenSource) closeWithin(whole context.Context) error {
	s.mu.Lock()
	v := *s.view.Load()
	s.close()
	v.closed = true
	s.view.Store(&v)
	if v.flight != nil {
		v.flight.cancel()
	}
	looking, redeemed := s.looking, s.redeemed
	s.mu.Unlock()
	// All of it ends by itself, unless the store or the transport ignores its context.
	ctx, cancel := context.WithTimeout(whole, closeTimeout(s.c.cfg.RequestTimeout))
	defer cancel()
	if saving := s.saver.stop(); saving != nil {
		within(ctx, saving)
	}
	var unfinished []error
	if v.flight != nil && !within(ctx, v.flight.done) {
		unfinished = append(unfinished, goesOn(ctx, "renewal"))
	}
	if looking != nil {
		looking.cancel()
		within(ctx, looking.done)
	}
	if redeemed != nil && !within(ctx, redeemed) {
		unfinished = append(unfinished, goesOn(ctx, "login"))
	}
	defer s.silent.Store(true)
	err := s.lastSave(whole)
	if unfinished != nil {
		return errors.Join(append(unfinished, err)...)
	}
	return err
}

// goesOn is the error of a Close that has waited for something long enough.
func goesOn(ctx context.Context, what string) error {
	return fmt.Errorf("oauth: a %s goes on (%w): if it receives a new refresh token after the program has exited, that is lost: see what the transport or the store waits for",
		what, retry.Ended(ctx))
}

// lastSave saves what could not be saved before.
func (s *TokenSource) lastSave(whole context.Context) error {
	if s.view.Load().unsaved == nil {
		return nil
	}
	if whole.Err() != nil {
		return &PersistError{retry.Ended(whole)}
	}
	ctx, cancel := context.WithTimeout(whole, saveTimeout)
	defer cancel()
	done := make(chan struct{})
	var err error
	go func() {
		defer close(done)
		err = s.save(ctx, true)
	}()
	if !within(ctx, done) {
		return &PersistError{retry.Ended(ctx)}
	}
	return err
}

// closeTimeout is how long Close waits for what ends by itself: a RequestTimeout that
// stands for "no limit" has no multiple.
func closeTimeout(request time.Duration) time.Duration {
	if request > (forever-saveTimeout)/3 {
		return forever
	}
	return 3*request + saveTimeout
}

// redeem is told that a login exchanges its code, and by done, that what came of it is
// saved.
func (s *TokenSource) redeem() (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.redeeming == 0 {
		s.redeemed = make(chan struct{})
	}
	s.redeeming++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.redeeming--; s.redeeming == 0 {
			close(s.redeemed)
		}
	}
}

// within waits for done, and reports whether it was closed before ctx ended, or
// at the same moment.
func within(ctx context.Context, done <-chan struct{}) bool {
	return withinGrace(ctx, done, closeGrace)
}

// closeGrace is for a call that returns because ctx ended.
const closeGrace = 100 * time.Millisecond

// withinGrace is within, with another meaning of the same moment.
func withinGrace(ctx context.Context, done <-chan struct{}, same time.Duration) bool {
	select {
	case <-done:
		return true
	case <-ctx.Done():
	}
	grace := time.NewTimer(same)
	defer grace.Stop()
	select {
	case <-done:
		return true
	case <-grace.C:
		return false
	}
}

// apply makes the next view with event.
func (s *TokenSource) apply(event func(v view, now clock.Instant) view) view {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := event(*s.view.Load(), s.c.clock.Now())
	s.view.Store(&next)
	return next
}

// read tells the view what the store has, and the observer what that changed.
// The session is zero if the store has none. If f is not nil, the renewal f reads.
func (s *TokenSource) read(stored Session, f *flight) view { return s.readSince(nil, stored, f) }

// readSince is read for a store that was not locked: what it had is ignored if the
// session in hand is another one by now than it was in start.
func (s *TokenSource) readSince(start *view, stored Session, f *flight) view {
	mine := s.c.owns(stored)
	serverTime := s.c.serverTime()
	var told told
	s.mu.Lock()
	if stored.Created.After(s.begun) {
		s.begun = stored.Created // also if the store has lost it when the next one begins
	}
	before := s.view.Load()
	overtaken := f != nil && f.epoch != before.epoch ||
		start != nil && (start.epoch != before.epoch || !holds(start.session, before.session))
	if overtaken {
		s.mu.Unlock()
		return *before // a login or a renewal was faster and knows better
	}
	next, told := before.read(stored, mine, s.c.canUse(stored), s.c.clock.Now(), serverTime, s.c.margins())
	if f != nil {
		f.epoch = next.epoch
	}
	s.view.Store(&next)
	s.mu.Unlock()
	switch told {
	case toldNewer:
		if next.need(next.looked) == CauseInvalid {
			break // newer, and of no use
		}
		s.tell(f, Event{Kind: EventAdopted, Cause: causeOf(f), Generation: stored.Generation, Expiry: stored.Expiry})
	case toldReplaced:
		s.tell(f, Event{Kind: EventReplaced, Cause: causeOf(f), Generation: stored.Generation, Expiry: stored.Expiry})
	case toldGone:
		s.tell(f, Event{Kind: EventLogout})
	case toldNothing:
	}
	return next
}

// tell tells the observer what happened: after the store's lock was left, if the
// renewal f holds it.
func (s *TokenSource) tell(f *flight, e Event) {
	if f != nil && f.locked {
		e.Time = s.c.now()
		f.events = append(f.events, e)
		return
	}
	s.c.emit(e)
}

func causeOf(f *flight) Cause {
	if f == nil {
		return ""
	}
	return f.cause
}

// look reads the store behind the callers, so that a logout or another login
// elsewhere is noticed while the token is fresh. s.mu is held.
func (s *TokenSource) look() {
	if s.looking != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	l := &looking{cancel, make(chan struct{})}
	s.looking = l
	before := s.view.Load()
	ended := func() {
		s.mu.Lock()
		s.looking = nil
		s.mu.Unlock()
		close(l.done)
		cancel()
	}
	s.c.spawn(func() {
		defer ended()
		stored, err := s.c.load(ctx)
		if err == nil || errors.Is(err, ErrNoSession) {
			if s.readSince(before, stored, nil).unsaved != nil {
				s.saveLater()
			}
		} else {
			s.apply(func(v view, now clock.Instant) view {
				v.looked = now
				return v.scheduled()
			})
		}
	}, ended)
}

// looking is a read of the store that nobody waits for.
type looking struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// lookTimeout bounds a read of the store that nobody waits for.
const lookTimeout = 30 * time.Second

// begins is when a new session begins that replaces another one: the time of day, or if
// that is not later than the beginning of a session before, the moment after it. Sessions
// are told from each other by when they began, and a clock may stand still.
func (s *TokenSource) begins(replaced Session) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.c.now()
	for _, before := range []time.Time{replaced.Created, s.view.Load().session.Created, s.begun} {
		if !t.After(before) {
			t = before.Add(1)
		}
	}
	s.begun = t
	return t
}

// loggedIn is told of a login or an import. u is nil if the store has it.
func (s *TokenSource) loggedIn(session Session, u *unsaved) {
	s.apply(func(v view, now clock.Instant) view {
		if v.flight != nil && !sameLogin(v.session, session) {
			v.flight.cancel() // of the former session: only a request that was sent goes on
		}
		return v.loggedIn(session, u, now, s.c.margins())
	})
}

// String keeps fmt from reading the secrets in unexported fields.
func (s *TokenSource) String() string { return "oauth.TokenSource" }

// Format implements [fmt.Formatter] for every verb, for the same reason.
func (s *TokenSource) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }
