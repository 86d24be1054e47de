package oauth

import (
	"container/list"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/internal/clock"
	"github.com/ycauth/ycauth-go/internal/retry"
)

// A PoolConfig describes a [Pool].
type PoolConfig struct {
	// Config describes the client; all sessions have it in common. Config.Store must not
	// be set. Config.Observer receives the events of all sessions, with Event.Key.
	// Required.
	Config Config

	// Open returns the store of the session of a key, for instance that of a
	// pgstore.Set. It is called when the session is needed and not in memory, by at most
	// Concurrent goroutines. It must not use the Pool. If the store implements
	// [io.Closer], the Pool closes it when the session leaves the memory.
	// Required.
	Open func(key string) (Store, error)

	// DPoP returns the prover of a key, for users who have one of their own. It is called
	// after Open, under the same conditions. Optional. Default: Config.DPoP for all.
	DPoP func(key string) (*dpop.Prover, error)

	// Rate is how many token requests are sent per second at most, by this process: if N
	// replicas share the server, set it to an Nth of what it allows. Requests are sent at
	// least 1/Rate seconds apart, so that no second has more. It must be at least 0.001, and
	// 1/Rate at most Config.RenewTimeout, or a renewal would end before its turn.
	// Optional. Default: 50.
	Rate float64

	// Concurrent is how many renewals run at the same time at most, and as many reads of
	// stores and as many repeated saves. With a low Rate there are no more renewals than
	// requests in 5 seconds, or in half of Config.RenewTimeout, because a renewal that waits
	// to send has the store's lock. Renewals and reads that nobody waits for use
	// at most 7/8 of them, and those of KeepAlive half; one in any case.
	// Optional. Default: 64.
	Concurrent int

	// Idle is how long after its last use a session leaves the memory. Its next use reads
	// the store. Optional. Default: 10 minutes.
	Idle time.Duration

	// MaxActive is how many sessions are kept in memory, about 3 KB each with their tokens.
	// Beyond that, the least recently used ones leave, before Idle has passed. Sessions in
	// use or with work to do stay. Optional. Default: 10,000.
	MaxActive int
}

// A Pool keeps the sessions of many users, each in a store of its own, with one
// authorization server. It is safe for concurrent use.
//
//	pool, err := oauth.NewPool(oauth.PoolConfig{
//		Config: oauth.Config{Provider: oauth.YandexCloud(), ClientID: id, DPoP: prover},
//		Open:   func(user string) (oauth.Store, error) { return set.Store(user), nil }, // package pgstore
//	})
//	…
//	defer pool.Close()
//	go pool.KeepAlive(ctx, set)
//	…
//	resp, err := pool.HTTPClient(user).Get(url)
//
// # Memory
//
// A session is in memory while it is used, and for [PoolConfig.Idle] after that. One that
// is not costs nothing, however many users there are, except up to 800 bytes if the
// server has rejected its refresh token, until the next use finds another one, or if a
// resource has rejected its access token, until that expires, a day at most. A
// [PoolSource] or [http.Client] of the Pool refers to the key, not to the session, so both
// work until the Pool is closed, whether the session is in memory or not.
//
// A session stays in memory while it has work to do: a renewal, a save that has failed, or
// a rest after a failure, up to 10 minutes. What is
// known of the refresh token outlives it: that the server has rejected it, that a
// response was lost, or that a resource has rejected the access token. So a token that was
// rejected is not sent again. What is forgotten is how many renewals have failed in a row:
// a session that is used less often than once in Idle may send Config.MaxAttempts requests
// at each use, instead of one.
//
// # Requests
//
// All sessions share the HTTP client, the nonces and what is known of the server's clock:
// N sessions that renew for the first time send N+1 token requests to a server that
// demands nonces. The very first request is sent alone for that reason.
//
// After an outage, all sessions are stale at once. Then [PoolConfig.Rate] limits the
// requests of this process, each attempt, nonce challenge and login included. Whoever
// waits for a token comes before renewals behind the callers, and those before
// [Pool.KeepAlive]. A renewal that becomes urgent while it waits for its turn moves ahead.
// One that somebody waits for fails after Config.RenewTimeout if it was not its turn.
//
// If the server responds with Retry-After, it gets no renewal of any session until then,
// 10 minutes at most, and a jitter. Renewals that somebody waits for fail at
// once with an error that matches the response, a [*ServerError], if that is more
// than 30 seconds away. All others wait. Logins are not held back, because their codes
// expire soon.
//
// A request is repeated only while the budget for that lasts: 10 repetitions, and one
// more for every 10 requests that succeeded. After 10 failures in a row, of whichever
// sessions, one renewal in 1 to 5 seconds tests whether the server is back. Until
// then, renewals that somebody waits for fail at once with the last
// error, and others wait. A token that has not expired is served all the time.
//
// # Stores that fail
//
// A store that hangs or fails costs 4 × Concurrent goroutines at most, however many
// sessions have one; [Pool.KeepAlive] adds half a Concurrent. A call that goes on although its
// context has ended keeps one goroutine more, until it returns; with 1,000 such calls of Load,
// no other session is read. Callers wait for their turn without a goroutine of
// the Pool's, and return when their contexts end.
type Pool struct {
	cfg      PoolConfig
	base     *Client // what the clients have in common
	reads    *workers
	renewals *workers
	pace     *pace
	working  chan struct{} // holds a value for each repeated save
	loads    atomic.Int64  // calls of Store.Load that have not returned yet
	closing  context.Context
	close    context.CancelFunc

	mu       sync.Mutex
	sessions map[string]*pooled
	recent   list.List // of *pooled, those used longest ago first
	marks    map[string]marks
	passing  bool        // some of the marks are about access tokens, which expire
	trimmed  time.Time   // when those that have expired were removed last
	tidying  *time.Timer // nil if there is no session
	closed   bool
}

// A pooled session is one in memory. It is in one of these states:
//
//	state    | how it is left
//	---------+-----------------------------------------------------------------------
//	opening  | the store was opened and read: open. Open failed: failed
//	open     | not pinned, no work, and not used for Idle or too many are in memory:
//	         | gone. The caller of Pool.Do has closed its source: gone
//	failed   | a second later: gone, with the next use; or while Pool.Do uses it,
//	         | read again
//	gone     | its marks stay in Pool.marks; the next use opens it anew
type pooled struct {
	key   string
	ready chan struct{} // closed when it is open or has failed

	// Set before ready is closed.
	client   *Client
	resource http.RoundTripper

	// failure is why it cannot be used; nil if it can. If client is set, Pool.Do can use it.
	failure atomic.Pointer[openFailure]

	// Under Pool.mu.
	job   *job          // that opens it, or reads it again
	again chan struct{} // closed when it was read again; nil if it is not being
	pins  int
	used  time.Time
	swept bool // nobody but KeepAlive has used it
	place *list.Element
}

// An openFailure is why a session could not be opened or read, and since when.
type openFailure struct {
	err error
	at  time.Time
}

// A member is what a client knows of its pool.
type member struct {
	pool *Pool
	key  string
}

// NewPool checks cfg and returns a pool. It opens no store and sends no request. The
// error joins an error for each mistake, a [*ConfigError] if it is in cfg.Config.
func NewPool(cfg PoolConfig) (*Pool, error) {
	var wrong []error
	report := func(text string) { wrong = append(wrong, errors.New("oauth: PoolConfig."+text)) }
	if cfg.Config.Store != nil {
		report("Config.Store is set, but each session has a store of its own: set Open instead")
	}
	if cfg.Open == nil {
		report("Open is missing: it returns the store of a key")
	}
	if !(cfg.Rate >= 0) || cfg.Rate > 1e6 || cfg.Rate > 0 && cfg.Rate < 1e-3 {
		report("Rate is not between 0.001 and 1,000,000")
	}
	if cfg.Concurrent < 0 {
		report("Concurrent is negative")
	}
	if cfg.Idle < 0 {
		report("Idle is negative")
	}
	if cfg.MaxActive < 0 {
		report("MaxActive is negative")
	}
	base, err := New(cfg.Config)
	if err := errors.Join(append(wrong, err)...); err != nil {
		return nil, err
	}
	base.cfg.Store = nil
	if cfg.Rate == 0 {
		cfg.Rate = 50
	}
	every := time.Duration(float64(time.Second) / cfg.Rate)
	if every > base.cfg.RenewTimeout {
		return nil, fmt.Errorf("oauth: PoolConfig.Rate allows one request in %v, which is longer than Config.RenewTimeout (%v): raise one of them",
			every, base.cfg.RenewTimeout)
	}
	if cfg.Concurrent == 0 {
		cfg.Concurrent = 64
	}
	if cfg.Idle == 0 {
		cfg.Idle = 10 * time.Minute
	}
	if cfg.MaxActive == 0 {
		cfg.MaxActive = 10_000
	}
	cfg.Config = Config{} // New has copied it
	base.signing = make(chan struct{}, cfg.Concurrent)
	p := &Pool{
		cfg: cfg, base: base, pace: newPace(cfg.Rate),
		working:  make(chan struct{}, cfg.Concurrent),
		sessions: make(map[string]*pooled), marks: make(map[string]marks),
	}
	p.closing, p.close = context.WithCancel(context.Background())
	patience := base.cfg.RenewTimeout
	p.reads = &workers{size: cfg.Concurrent, patience: patience}
	p.renewals = &workers{size: max(1, int(min(float64(cfg.Concurrent), cfg.Rate*min(5, patience.Seconds()/2)))), patience: patience, pace: p.pace}
	return p, nil
}

// String keeps fmt from reading the secrets in unexported fields.
func (p *Pool) String() string { return "oauth.Pool(" + p.base.cfg.Provider.Name + ")" }

// Format implements [fmt.Formatter] for every verb, for the same reason.
func (p *Pool) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, p.String()) }

// TokenSource returns the token source of a key. It costs no more than the key, reads
// nothing, and works until the Pool is closed.
func (p *Pool) TokenSource(key string) *PoolSource { return &PoolSource{p, key} }

// HTTPClient returns an HTTP client for resources, as [Client.HTTPClient] does, that uses
// the session of a key. It works until the Pool is closed.
func (p *Pool) HTTPClient(key string) *http.Client {
	return &http.Client{Transport: poolTransport{p, key}}
}

// Do calls fn with the client of a key, to log in, to import, to log out or to look at the
// session. The client must not be used after fn has returned, and fn should not close its
// token source. The error is that of fn, [ErrClosed], ctx's if it ends before fn
// begins, or a [*StoreError] if the store cannot be opened.
func (p *Pool) Do(ctx context.Context, key string, fn func(*Client) error) error {
	s, err := p.pin(ctx, key, urgent)
	if s == nil {
		return err
	}
	defer p.unpin(s)
	if err != nil {
		defer p.forget(s) // fn may have mended what kept the session from being read
	}
	return fn(s.client)
}

// forget makes the next use open a session anew that could not be opened.
func (p *Pool) forget(s *pooled) {
	if f := s.failure.Load(); f != nil {
		s.failure.CompareAndSwap(f, &openFailure{err: f.err})
	}
}

// Close ends the Pool as [TokenSource.Close] ends a source, for all sessions: it waits for
// requests that were sent, saves what was not saved, and closes the stores. It does so for
// PoolConfig.Concurrent sessions at a time, and for 30 seconds longer than one source may take: for each
// session that is not saved by then, its error contains a [*PersistError] with the key. It can be called again, to
// try those once more. A closed Pool still serves the tokens in memory while they are valid, and
// fails with [ErrClosed] otherwise.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.closed = true
	p.close()
	if p.tidying != nil {
		p.tidying.Stop()
	}
	var sessions []*pooled
	for _, s := range p.sessions {
		sessions = append(sessions, s)
	}
	p.mu.Unlock()
	p.reads.close(ErrClosed)
	p.renewals.close(ErrClosed)
	limit := closeTimeout(p.base.cfg.RequestTimeout)
	ctx, cancel := context.WithTimeout(context.Background(), limit+min(saveTimeout, forever-limit))
	defer cancel()
	var mu sync.Mutex
	var wrong []error
	var wg sync.WaitGroup
	for _, s := range sessions {
		if !s.isReady() || s.client == nil {
			continue // whoever opens it closes it
		}
		shut := func() {
			err := errors.Join(s.client.source.closeWithin(ctx), closeStore(s.client.cfg.Store))
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				wrong = append(wrong, fmt.Errorf("%q: %w", s.key, err))
			}
		}
		if _, rests := s.client.source.rests(); rests {
			shut()
			continue
		}
		select {
		case p.working <- struct{}{}:
			wg.Go(func() {
				defer func() { <-p.working }()
				shut()
			})
		case <-ctx.Done():
			shut()
		}
	}
	wg.Wait()
	return errors.Join(wrong...)
}

func closeStore(s Store) error {
	if c, ok := s.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// pin returns the session of a key, which stays in memory until unpin. With an error, the
// session is nil unless its client can be used all the same, by Do.
func (p *Pool) pin(ctx context.Context, key string, u urgency) (*pooled, error) {
	s, known := p.use(key, u)
	if s == nil {
		return nil, ErrClosed
	}
	select {
	case <-known:
	default:
		select {
		case <-known:
		case <-ctx.Done():
			p.unpin(s)
			return nil, retry.Ended(ctx)
		}
	}
	if s.client == nil {
		p.unpin(s)
		return nil, s.failure.Load().err
	}
	return s, s.problem()
}

// problem is why the session cannot be used: its store could not be read, and nobody has
// logged in since.
func (s *pooled) problem() error {
	f := s.failure.Load()
	if f == nil || s.client != nil && !s.client.source.view.Load().session.IsZero() {
		return nil
	}
	return f.err
}

// use finds or opens a session, and pins it; nil if the pool is closed. known is closed when
// the session is open or has failed.
func (p *Pool) use(key string, u urgency) (s *pooled, known <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s = p.sessions[key]
	if s != nil && p.spent(s) {
		p.drop(s)
		if s.pins == 0 {
			p.closeLater(s)
		}
		s = nil
	}
	if s == nil {
		if p.closed {
			return nil, nil
		}
		s = &pooled{key: key, ready: make(chan struct{}), swept: u == sweeping}
		s.job = &job{urgency: u, run: func() { p.open(s) }, turnAway: func(err error) { p.opened(s, nil, err) }}
		p.sessions[key] = s
		s.place = p.recent.PushBack(s)
		p.makeRoom()
		p.reads.add(s.job)
	} else {
		if s.again == nil && !p.closed && s.failedLongAgo() && s.client != nil {
			p.readAgain(s, u)
		}
		if u == urgent && (s.again != nil || !s.isReady()) {
			p.reads.hurry(s.job)
		}
	}
	known = s.ready
	if s.again != nil {
		known = s.again
	}
	s.pins++
	s.swept = s.swept && u == sweeping
	s.used = time.Now()
	p.recent.MoveToBack(s.place)
	p.tidyLater()
	return s, known
}

// tidyLater lets tidy run after some time. p.mu is held.
func (p *Pool) tidyLater() {
	if p.tidying == nil && !p.closed {
		p.tidying = time.AfterFunc(p.cfg.Idle/2+1, p.tidy)
	}
}

// spent reports whether a session can be used no more: it could not be opened, a second
// ago, or somebody has closed its source. p.mu is held.
func (p *Pool) spent(s *pooled) bool {
	if !s.isReady() || p.closed {
		return false
	}
	return s.failedLongAgo() && (s.pins == 0 || s.client == nil) ||
		s.client != nil && s.client.source.view.Load().closed
}

// failedLongAgo reports whether a session could not be read, a second ago. Pool.mu is held.
func (s *pooled) failedLongAgo() bool {
	if !s.isReady() || s.problem() == nil {
		return false
	}
	f := s.failure.Load()
	return f != nil && time.Since(f.at) >= firstCooldown
}

// readAgain reads a session that Pool.Do uses and that could not be read before. p.mu is
// held.
func (p *Pool) readAgain(s *pooled, u urgency) {
	again := make(chan struct{})
	end := func(err error) {
		if err == nil {
			s.failure.Store(nil)
		} else {
			s.failure.Store(&openFailure{err, time.Now()})
		}
		p.mu.Lock()
		s.again = nil
		p.mu.Unlock()
		close(again)
		p.unpin(s)
	}
	s.again = again
	s.pins++ // so that its store is not closed meanwhile
	s.job = &job{urgency: u, run: func() { end(p.read(s.key, s.client)) }, turnAway: end}
	p.reads.add(s.job)
}

func (p *Pool) unpin(s *pooled) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.pins--
	s.used = time.Now()
	switch {
	case s.pins > 0 || p.closed:
	case s.place == nil: // it was dropped while it was in use
		p.closeLater(s)
	case s.swept:
		p.evict(s)
	}
}

// closeLater closes the store of a session that left the memory. p.mu is held.
func (p *Pool) closeLater(s *pooled) {
	if s.client == nil {
		return
	}
	if c, ok := s.client.cfg.Store.(io.Closer); ok {
		run := func() { _ = c.Close() } // it has saved all it had to
		p.reads.add(&job{urgency: background, run: run, turnAway: func(error) { run() }})
	}
}

func (s *pooled) isReady() bool {
	select {
	case <-s.ready:
		return true
	default:
		return false
	}
}

// open opens the store of a session, and reads it.
func (p *Pool) open(s *pooled) {
	store, err := p.cfg.Open(s.key)
	if err == nil && store == nil {
		err = errors.New("PoolConfig.Open returned no store")
	}
	if err != nil {
		p.opened(s, nil, &StoreError{err})
		return
	}
	client, err := p.client(s.key, store)
	if err != nil {
		_ = closeStore(store)
		p.opened(s, nil, err)
		return
	}
	p.opened(s, client, p.read(s.key, client))
}

// read tells a client what its store has.
func (p *Pool) read(key string, client *Client) error {
	ctx, cancel := context.WithTimeout(p.closing, lookTimeout)
	defer cancel()
	if p.loads.Load() >= mostHanging {
		return &StoreError{errStoreHangs}
	}
	stored, err := client.load(ctx)
	if err != nil && !errors.Is(err, ErrNoSession) {
		return &StoreError{err}
	}
	mine, canUse, serverTime := client.owns(stored), client.canUse(stored), client.serverTime()
	p.mu.Lock()
	known := p.marks[key]
	delete(p.marks, key)
	p.mu.Unlock()
	client.source.apply(func(v view, now clock.Instant) view {
		if !v.session.IsZero() {
			return v // somebody has logged in meanwhile
		}
		v, _ = v.read(stored, mine, canUse, now, serverTime, client.margins())
		return known.on(v)
	})
	return nil
}

func (p *Pool) opened(s *pooled, client *Client, err error) {
	if client != nil {
		base := client.HTTPClient().Transport
		s.client, s.resource = client, base
	}
	if err != nil {
		s.failure.Store(&openFailure{err, time.Now()})
	}
	p.mu.Lock()
	closed := p.closed
	close(s.ready)
	p.mu.Unlock()
	if closed && client != nil {
		_ = client.source.Close()
		_ = closeStore(client.cfg.Store)
	}
}

// client makes the client of a key.
func (p *Pool) client(key string, store Store) (*Client, error) {
	c := *p.base
	if p.cfg.DPoP != nil {
		prover, err := p.cfg.DPoP(key)
		if err != nil {
			return nil, fmt.Errorf("oauth: the DPoP key: %w", err)
		}
		if prover != c.cfg.DPoP {
			c.cfg.DPoP, c.thumbprint, c.dpopJKT = prover, "", ""
			c.cfg.ClientSecret = c.secret() // for check alone
			if err := c.check(); err != nil {
				return nil, err
			}
			c.cfg.ClientSecret = ""
			c.signing = make(chan struct{}, 1)
		}
	}
	c.cfg.Store = store
	c.member = &member{p, key}
	c.source = newTokenSource(&c)
	return &c, nil
}

// --- what leaves the memory ---------------------------------------------------

// tidy lets the sessions go that were not used for Idle.
func (p *Pool) tidy() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for n := p.recent.Len(); n > 0; n-- {
		s := p.recent.Front().Value.(*pooled)
		if now.Sub(s.used) < p.cfg.Idle {
			break
		}
		if !p.evict(s) {
			s.used = now // it is looked at again after Idle
			p.recent.MoveToBack(s.place)
		}
	}
	if p.passing && now.Sub(p.trimmed) >= p.cfg.Idle {
		p.trim(now)
	}
	switch {
	case p.closed:
	case p.recent.Len() == 0 && !p.passing:
		p.tidying = nil
	default:
		p.tidying.Reset(p.cfg.Idle/2 + 1)
	}
}

// trim forgets what is known of access tokens that have expired. p.mu is held.
func (p *Pool) trim(now time.Time) {
	kept := make(map[string]marks) // a map does not shrink
	p.passing, p.trimmed = false, now
	for key, m := range p.marks {
		if m.refused && now.After(m.until) {
			m.access, m.refused, m.until = [sha256.Size]byte{}, false, time.Time{}
		}
		if m != (marks{}) {
			kept[key] = m
			p.passing = p.passing || m.refused
		}
	}
	p.marks = kept
}

// makeRoom lets a few sessions go if there are too many. p.mu is held.
func (p *Pool) makeRoom() {
	const tries = 4
	for n := 0; n < tries && len(p.sessions) > p.cfg.MaxActive; n++ {
		if s := p.recent.Front().Value.(*pooled); !p.evict(s) {
			p.recent.MoveToBack(s.place)
		}
	}
}

// evict lets a session go if nobody uses it and it has nothing to do. p.mu is held.
func (p *Pool) evict(s *pooled) bool {
	if !s.isReady() || s.pins > 0 {
		return false
	}
	if s.client != nil {
		m, rests := s.client.source.rests()
		if !rests {
			return false
		}
		if m != (marks{}) {
			p.marks[s.key] = m
			p.passing = p.passing || m.refused
		}
	}
	p.drop(s)
	p.closeLater(s)
	return true
}

func (p *Pool) drop(s *pooled) {
	delete(p.sessions, s.key)
	p.recent.Remove(s.place)
	s.place = nil
}

// marks are what must not be forgotten of a session that leaves the memory. Tokens are
// kept as hashes.
type marks struct {
	refresh    [sha256.Size]byte // of the refresh token that the rest is about
	generation uint64
	dead       error // the server rejected it
	doubtful   bool  // a lost response may have replaced it
	fenced     bool
	access     [sha256.Size]byte // of the access token if a resource rejected it
	refused    bool
	until      time.Time // when access has expired
}

// maxRefused is how long a rejected access token is remembered at most. One that lives longer is
// rejected once more.
const maxRefused = 24 * time.Hour

// refuse marks an access token that a resource has rejected.
func (m *marks) refuse(tok *oauth2.Token, now time.Time) {
	m.refused, m.access = true, sha256.Sum256([]byte(tok.AccessToken))
	m.until = now.Add(maxRefused)
	if !tok.Expiry.IsZero() && tok.Expiry.Before(m.until) {
		m.until = tok.Expiry
	}
}

// on is what a source knows that has just read its session.
func (m marks) on(v view) view {
	s := v.session
	if m == (marks{}) || s.IsZero() {
		return v
	}
	if m.refused && sha256.Sum256([]byte(s.AccessToken)) == m.access {
		v, _ = v.refusedBy(s.AccessToken.Reveal())
	}
	// A newer generation with the same refresh token has shown that it is good.
	if (m.dead != nil || m.doubtful) && m.generation == s.Generation && sha256.Sum256([]byte(s.RefreshToken)) == m.refresh {
		if m.dead != nil {
			v.dead = deadToken{s.RefreshToken, m.dead}
		}
		if m.doubtful {
			v = v.doubts(s.RefreshToken, m.fenced, clock.Instant{})
		}
	}
	return v
}

// rests reports whether the source has nothing to do and nothing to wait for, and
// what must not be forgotten of it.
func (s *TokenSource) rests() (marks, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, now := s.view.Load(), s.c.clock.Now()
	level, _, _ := v.forcedLevel(now)
	switch {
	case v.flight != nil, v.unsaved != nil, v.leaving, s.looking != nil, s.redeeming > 0, s.saver.busy():
		return marks{}, false
	case v.failure != nil && now.MonotonicSince(v.failed) < v.quiet, v.busy > 0 && now.MonotonicSince(v.failed) < v.busy,
		now.MonotonicSince(v.rejected) < rejectedPause, level > 0:
		return marks{}, false // a limit that would be forgotten
	}
	var m marks
	if refresh := v.session.RefreshToken; refresh != "" {
		if v.dead.refreshToken == refresh {
			m.dead = v.dead.err
		}
		m.doubtful = v.doubtful == refresh
		m.fenced = m.doubtful && v.fenced
		if m.dead != nil || m.doubtful {
			m.refresh, m.generation = sha256.Sum256([]byte(refresh)), v.session.Generation
		}
	}
	if v.refused && v.token != nil {
		m.refuse(v.token, now.Wall())
	}
	return m, true
}

func (sv *saver) busy() bool {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	return sv.timer != nil || sv.running != nil
}

// --- what the clients of a pool do differently --------------------------------

// launch starts a renewal: at once, or in a pool when it is its turn. s.mu is held.
func (s *TokenSource) launch(f *flight) {
	if s.c.member == nil {
		go s.fly(f)
		return
	}
	f.job = &job{
		run:      func() { s.fly(f) },
		turnAway: func(err error) { f.turnedAway = err; s.fly(f) },
	}
	switch f.cause {
	case CauseStale:
		f.job.urgency = background
	case CauseKeepAlive:
		f.job.urgency = sweeping
	default:
		f.job.urgency = urgent
	}
	s.c.member.pool.renewals.add(f.job)
}

// hurry is told that somebody waits for f. s.mu is held.
func (s *TokenSource) hurry(f *flight) {
	if f.job != nil {
		s.c.member.pool.renewals.hurry(f.job)
	}
}

// spawn runs something that nobody waits for. turnAway is called in its place if it will
// not run.
func (c *Client) spawn(run, turnAway func()) {
	if c.member == nil {
		go run()
		return
	}
	c.member.pool.reads.add(&job{urgency: background, run: run, turnAway: func(error) { turnAway() }})
}

// mayWork reports whether a save may be tried again now.
func (c *Client) mayWork() (leave func(), ok bool) {
	if c.member == nil {
		return func() {}, true
	}
	working := c.member.pool.working
	select {
	case working <- struct{}{}:
		return func() { <-working }, true
	default:
		return nil, false
	}
}

func (c *Client) awaitTurn(ctx context.Context, g grant) error {
	if c.member == nil {
		return nil
	}
	return c.member.pool.pace.turn(ctx, !g.uncut)
}

func (c *Client) heard(err error) {
	if c.member != nil {
		c.member.pool.pace.heard(err)
	}
}

func (c *Client) mayRetry() bool { return c.member == nil || c.member.pool.pace.mayRetry() }

// --- what callers see ---------------------------------------------------------

// A PoolSource serves the access tokens of one key of a [Pool]. It is like a [TokenSource],
// but has no Close: it works until the Pool is closed, even if the session left the memory
// in between. It is safe for concurrent use.
type PoolSource struct {
	pool *Pool
	key  string
}

var _ oauth2.TokenSource = (*PoolSource)(nil)

// Token is TokenContext without a limit of the caller's own. In addition to what
// [TokenSource.Token] says, it waits for its turn, Config.RenewTimeout at most to read
// the store, and as long to renew.
func (s *PoolSource) Token() (*oauth2.Token, error) { return s.TokenContext(context.Background()) }

// String names the source.
func (s *PoolSource) String() string { return fmt.Sprintf("oauth.PoolSource(%q)", s.key) }

// Format implements [fmt.Formatter] for every verb, which must not print the pool.
func (s *PoolSource) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// TokenContext returns a token that is valid now, as [TokenSource.TokenContext] does. If
// the session is not in memory, it is read from the store first. If that fails, the error
// is a [*StoreError], and is shared for one second.
func (s *PoolSource) TokenContext(ctx context.Context) (*oauth2.Token, error) {
	return s.with(ctx, func(ts *TokenSource) (*oauth2.Token, error) { return ts.TokenContext(ctx) })
}

// Renew obtains a new token, as [TokenSource.Renew] does, and under the limits of the
// Pool.
func (s *PoolSource) Renew(ctx context.Context) (*oauth2.Token, error) {
	return s.with(ctx, func(ts *TokenSource) (*oauth2.Token, error) { return ts.Renew(ctx) })
}

func (s *PoolSource) with(ctx context.Context, f func(*TokenSource) (*oauth2.Token, error)) (*oauth2.Token, error) {
	session, err := s.pool.pin(ctx, s.key, urgent)
	if session != nil {
		defer s.pool.unpin(session)
	}
	if err != nil {
		return nil, err
	}
	return f(session.client.source)
}

// Invalidate says that a resource rejected the token, as [TokenSource.Invalidate] does. It
// reads nothing.
func (s *PoolSource) Invalidate(rejected *oauth2.Token) {
	if rejected == nil {
		return
	}
	p := s.pool
	p.mu.Lock()
	session := p.sessions[s.key]
	if session != nil && !session.isReady() {
		session = nil // it is being read
	}
	if session == nil {
		m := p.marks[s.key]
		m.refuse(rejected, time.Now())
		p.marks[s.key], p.passing = m, true
		p.tidyLater()
	}
	p.mu.Unlock()
	if session != nil && session.client != nil {
		session.client.source.Invalidate(rejected)
	}
}

// GetRequestMetadata implements credentials.PerRPCCredentials of google.golang.org/grpc,
// as [TokenSource.GetRequestMetadata] does.
func (s *PoolSource) GetRequestMetadata(ctx context.Context, uri ...string) (map[string]string, error) {
	session, err := s.pool.pin(ctx, s.key, urgent)
	if session != nil {
		defer s.pool.unpin(session)
	}
	if err != nil {
		return nil, err
	}
	return session.client.source.GetRequestMetadata(ctx, uri...)
}

// RequireTransportSecurity implements credentials.PerRPCCredentials: it is true.
func (s *PoolSource) RequireTransportSecurity() bool { return true }

// poolTransport is the transport of [Pool.HTTPClient].
type poolTransport struct {
	pool *Pool
	key  string
}

// Format keeps fmt from printing the pool.
func (t poolTransport) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "oauth.PoolTransport(%q)", t.key)
}

// CloseIdleConnections is for [http.Client.CloseIdleConnections]. The connections are those of
// all keys.
func (t poolTransport) CloseIdleConnections() { t.pool.base.http.CloseIdleConnections() }

func (t poolTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	session, err := t.pool.pin(req.Context(), t.key, urgent)
	if session != nil {
		defer t.pool.unpin(session)
	}
	if err != nil {
		if req.Body != nil {
			req.Body.Close() // as a RoundTripper must
		}
		return nil, err
	}
	return session.resource.RoundTrip(req)
}
