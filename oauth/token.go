package oauth

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"

	"github.com/ycauth/ycauth-go/internal/retry"
)

// A TokenSource serves access tokens and renews them. [Client.TokenSource]
// returns it. It is safe for concurrent use by any number of goroutines.
//
// It implements [oauth2.TokenSource], and credentials.PerRPCCredentials of
// google.golang.org/grpc without importing it.
type TokenSource struct {
	c     *Client
	state atomic.Pointer[tokenState] // never nil

	// flying and quietUntil let a stale token be served without the lock.
	flying     atomic.Bool
	quietUntil atomic.Int64 // Unix nanoseconds; no renewal begins before

	mu       sync.Mutex
	flight   *flight // the one renewal that runs; nil if none
	failure  error   // of the last renewal; nil if it succeeded
	failures int     // in a row
	dead     deadToken
	doubtful Secret // the refresh token that a lost answer may have replaced
	unsaved  *unsavedSession
	saving   chan struct{} // closed when the goroutine that saves ends; nil if none runs
	epoch    int           // counts resets: a renewal from before one must not undo it
	closed   bool
	closing  chan struct{}
}

var _ oauth2.TokenSource = (*TokenSource)(nil)

// tokenState is what callers are served from: one value that never changes (but
// for quick), replaced as a whole. By its times (Unix nanoseconds) the token is
//
//	fresh    until stale:    served
//	stale    until invalid:  served, and renewed in the background
//	invalid  from then on:   callers wait for a renewal; until expires they get
//	                         the token all the same if the renewal fails
type tokenState struct {
	token                   *oauth2.Token // nil if there is none
	stale, invalid, expires int64
	session                 Session
	confirmed               bool // the server issued this token again after a resource had refused it

	// Reading the wall clock costs twice as much as reading the monotonic one,
	// which stands still while a computer sleeps. So the wall clock decides, and
	// for a moment after it did, the other one is enough.
	born  time.Time    // with a monotonic reading
	quick atomic.Int64 // nanoseconds after born until which the token is surely fresh
}

// quickly is how long a look at the wall clock is good for: so long a token that
// expired while the computer slept can be served after it woke up.
const quickly = 100 * time.Millisecond

// noToken is the state before the first token and after one was refused.
func noToken(rejected Session) *tokenState {
	return &tokenState{stale: math.MinInt64, invalid: math.MinInt64, expires: math.MinInt64, session: rejected}
}

func newTokenState(s Session, cfg *Config) *tokenState {
	st := &tokenState{
		token:   &oauth2.Token{AccessToken: s.AccessToken.Reveal(), TokenType: s.TokenType, Expiry: s.Expiry},
		session: s,
		born:    time.Now(),
		stale:   math.MaxInt64, invalid: math.MaxInt64, expires: math.MaxInt64,
	}
	if s.Expiry.IsZero() {
		return st // unknown: good until a resource refuses it
	}
	var life time.Duration // 0 in a session of somebody else's making
	if !s.Obtained.IsZero() {
		life = max(s.Expiry.Sub(s.Obtained), 0)
	}
	staleBefore, invalidBefore := cfg.StaleBefore, cfg.InvalidBefore
	if staleBefore == 0 {
		// A share of what was left when the token came, not of its whole life:
		// a server that gives the same token again is then asked ever more
		// seldom, not all the time.
		staleBefore = life / 6
	}
	if invalidBefore == 0 {
		invalidBefore = min(30*time.Second, life/10)
	}
	staleBefore += time.Duration(rand.Int64N(int64(staleBefore/10) + 1)) // processes should not wake together
	// Margins longer than half the life would renew without end.
	invalidBefore = min(invalidBefore, life/2)
	staleBefore = max(min(staleBefore, life/2), invalidBefore)
	st.expires = s.Expiry.UnixNano()
	st.invalid = st.expires - int64(invalidBefore)
	st.stale = st.expires - int64(staleBefore)
	return st
}

func newTokenSource(c *Client) *TokenSource {
	s := &TokenSource{c: c, closing: make(chan struct{})}
	s.state.Store(noToken(Session{}))
	return s
}

// Token returns a token that is valid now. It is [TokenSource.TokenContext]
// without a limit of the caller's own: a renewal takes Config.RenewTimeout at
// the most.
//
// The token is shared with other callers and must not be changed. It holds no
// refresh token.
func (s *TokenSource) Token() (*oauth2.Token, error) { return s.TokenContext(context.Background()) }

// TokenContext returns a token that is valid now. It waits only if there is
// none, and no longer than ctx allows; ctx does not end the renewal itself, which
// others may wait for. Values of ctx reach the HTTP requests and the signer of
// the renewal that it begins.
//
// The errors are those of the package documentation, or ctx's. The token is
// shared with other callers and must not be changed. It holds no refresh token.
func (s *TokenSource) TokenContext(ctx context.Context) (*oauth2.Token, error) {
	st := s.state.Load()
	if time.Since(st.born) < time.Duration(st.quick.Load()) {
		return st.token, nil
	}
	now := s.c.cfg.Clock().UnixNano()
	if now < st.stale {
		s.c.servesQuickly(st, st.stale-now)
		return st.token, nil
	}
	if now < st.invalid && !s.c.cfg.Synchronous {
		s.renewBehind(ctx, now)
		return st.token, nil
	}
	return s.wait(ctx)
}

// servesQuickly notes that the token is fresh for d more. A clock of the user's
// has nothing to do with the monotonic one, so it is asked every time.
func (c *Client) servesQuickly(st *tokenState, d int64) {
	if c.ownClock {
		st.quick.Store(int64(time.Since(st.born)) + min(d, int64(quickly)))
	}
}

// renewBehind begins a renewal that nobody waits for, unless one runs or the
// last one failed a moment ago.
func (s *TokenSource) renewBehind(ctx context.Context, now int64) {
	if s.flying.Load() || now < s.quietUntil.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.state.Load()
	if s.flight == nil && !s.closed && now >= st.stale && now >= s.quietUntil.Load() {
		s.takeOff(ctx, CauseStale)
	}
}

// wait returns the result of the renewal that runs, or of one that it begins.
func (s *TokenSource) wait(ctx context.Context) (*oauth2.Token, error) {
	// The second round is for a renewal that came up with a token which a
	// resource had refused meanwhile, or that a login or logout overtook.
	for round := 1; ; round++ {
		if ctx.Err() != nil {
			return nil, retry.Ended(ctx)
		}
		f, tok, err := s.join(ctx)
		if f == nil {
			return tok, err
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, retry.Ended(ctx)
		}
		if f.err != nil {
			return s.orStillValid(f.err)
		}
		if round > 1 || s.state.Load().token != nil {
			return f.token, nil
		}
	}
}

// join returns the flight to wait for, or the result if there is nothing to wait
// for.
func (s *TokenSource) join(ctx context.Context) (*flight, *oauth2.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.c.now().UnixNano()
	st := s.state.Load()
	usable := now < st.stale || now < st.invalid && !s.c.cfg.Synchronous
	switch {
	case usable: // somebody was faster
		return nil, st.token, nil
	case s.flight != nil:
		return s.flight, nil, nil
	case s.closed:
		tok, err := s.orStillValid(ErrClosed)
		return nil, tok, err
	case s.failure != nil && now < s.quietUntil.Load():
		tok, err := s.orStillValid(s.failure)
		return nil, tok, err
	}
	cause := CauseInvalid
	if st.token == nil && st.session.AccessToken != "" {
		cause = CauseRejected
	}
	return s.takeOff(ctx, cause), nil, nil
}

// orStillValid serves a token to its very end if there is no better one.
func (s *TokenSource) orStillValid(err error) (*oauth2.Token, error) {
	if st := s.state.Load(); st.token != nil && s.c.now().UnixNano() < st.expires {
		return st.token, nil
	}
	return nil, err
}

// Renew obtains a new token, even if the one in hand is fresh, and waits for it.
// A renewal that is in progress is joined; a cooldown is not waited for. The
// token in hand goes on being served if the renewal fails.
func (s *TokenSource) Renew(ctx context.Context) (*oauth2.Token, error) {
	if ctx.Err() != nil {
		return nil, retry.Ended(ctx)
	}
	s.mu.Lock()
	f := s.flight
	if f == nil && s.closed {
		s.mu.Unlock()
		return nil, ErrClosed
	}
	if f == nil {
		f = s.takeOff(ctx, CauseForced)
	}
	s.mu.Unlock()
	select {
	case <-f.done:
		return f.token, f.err
	case <-ctx.Done():
		return nil, retry.Ended(ctx)
	}
}

// Invalidate says that a resource refused the token (401): it is not served any
// more, and the next caller waits for another one. A token that is not the
// current one is ignored, for its successor is there already; so is one that
// the server issued a second time after it was refused, because a third time
// would not help.
func (s *TokenSource) Invalidate(rejected *oauth2.Token) {
	if rejected == nil {
		return
	}
	for {
		st := s.state.Load()
		if st.token == nil || st.token.AccessToken != rejected.AccessToken || st.confirmed {
			return
		}
		if s.state.CompareAndSwap(st, noToken(st.session)) {
			s.c.emit(Event{Kind: EventInvalidated, Generation: st.session.Generation, Expiry: st.session.Expiry})
			return
		}
	}
}

// GetRequestMetadata implements credentials.PerRPCCredentials of
// google.golang.org/grpc: the header authorization with a token for this call.
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
// a token never travels in the clear.
func (s *TokenSource) RequireTransportSecurity() bool { return true }

// Close waits for a renewal that runs, so that a refresh token it receives is
// saved before the program exits, and saves what could not be saved before. It
// takes no longer than one token request and one save, Config.RequestTimeout and
// 30 seconds. If a session could not be saved, the error is a [*PersistError].
// Close can be called again.
//
// A closed source still serves its token while it is valid, and then fails with
// [ErrClosed].
func (s *TokenSource) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), s.c.cfg.RequestTimeout+saveTimeout)
	defer cancel()
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.closing)
	}
	f, saving := s.flight, s.saving
	s.mu.Unlock()
	if f != nil {
		select {
		case <-f.done:
		case <-ctx.Done():
			return retry.Ended(ctx)
		}
	}
	if saving != nil {
		select {
		case <-saving:
		case <-ctx.Done():
			return retry.Ended(ctx)
		}
	}
	return s.saveUnsaved(ctx)
}

// reset forgets everything, after the session was replaced from outside.
func (s *TokenSource) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget()
}

// replace is reset to the session of a login. saveErr is why the store did not
// take it.
func (s *TokenSource) replace(session Session, saveErr error) {
	s.mu.Lock()
	s.forget()
	s.state.Store(newTokenState(session, &s.c.cfg))
	s.mu.Unlock()
	if saveErr != nil {
		s.keepUnsaved(unsavedSession{session: session, login: true}, saveErr)
	}
}

func (s *TokenSource) forget() {
	s.epoch++
	s.state.Store(noToken(Session{}))
	s.failure, s.failures, s.dead, s.doubtful, s.unsaved = nil, 0, deadToken{}, "", nil
	s.quietUntil.Store(0)
}
