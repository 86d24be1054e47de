package oauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/ycauth/ycauth-go/internal/retry"
)

// A Store keeps one session, for one profile. The token source calls Load when it
// needs a session it does not have, and Update around every request that can
// change the session.
//
// Implementations must be safe for concurrent use. They must not share memory
// with their callers, because a caller may change the Scopes of a session that it
// received or passed. A Store that keeps connections or files open implements [io.Closer];
// its owner must close it, because the client does not. Package storetest tests this
// contract.
type Store interface {
	// Load returns the stored session as it is now, without waiting for an
	// Update that is in progress. The error matches [ErrNoSession] if there is
	// none, and ctx's error if ctx has ended.
	//
	// ErrNoSession means that no user is logged in. A token source then discards its
	// session, even one that could not be saved, unless that comes from its own login
	// and was never saved. So a Store must return another error if it cannot tell,
	// for instance because its disk or server is unavailable. The zero Session without an
	// error counts as a failure of the Store.
	Load(ctx context.Context) (Session, error)

	// Update calls fn once, with the stored session (the zero Session if there is
	// none), and stores the result. From before the read until after the
	// write no other Update of the same session may run, in this process or
	// another, so that one process renews for all. If the lock can be
	// lost, because it is a lease that expires while the process is paused, Update
	// must then return an error and never overwrite the session of
	// the next holder. See [LeaseStore].
	//
	// When Update returns nil, the result of fn is durable: it survives a crash
	// of the process or the machine. After an error it may not be. If fn
	// returns an error, nothing is stored and Update returns that error. A zero
	// Session from fn removes the stored one; a Session equal to the stored one
	// need not be written.
	//
	// Waiting for other Updates ends with ctx. A token source does not wait for a Load or an
	// Update that goes on for more than a second after its ctx has ended; if Update calls fn
	// after that, fn does nothing and returns an error. Once fn has returned a changed
	// session, Update stores it even if ctx is canceled, because it may be the only copy
	// of a new refresh token; after 5 minutes (31 seconds with a lease), the token source does
	// not wait any more and calls Update again. Update must not return while fn runs. After fn returns, the new
	// session should survive a crash of the process as soon as possible. A process that dies
	// during Update must not block the others. If it dies after that moment,
	// the next Update calls its fn with the new session, even if Load does not
	// return it yet.
	Update(ctx context.Context, fn func(Session) (Session, error)) error
}

// errNoTokens is not ErrNoSession, which would discard the session in memory.
var errNoTokens = errors.New("Store.Load returned neither a session nor an error: it has to return ErrNoSession if there is none")

// load is Store.Load, which is left to itself if it does not return when ctx ends.
func (c *Client) load(ctx context.Context) (Session, error) {
	var loaded Session
	err := c.bounded(ctx, newCall(), func() (err error) {
		if c.member != nil {
			c.member.pool.loads.Add(1)
			defer c.member.pool.loads.Add(-1)
		}
		loaded, err = c.cfg.Store.Load(ctx)
		if err == nil && loaded.IsZero() {
			return errNoTokens
		}
		return err
	})
	if errors.Is(err, errStoreHangs) {
		return Session{}, err // loaded may still be written to
	}
	return loaded, err
}

// update is Store.Update, with an error if the store did not call fn. It is left to itself
// if it does not return when ctx ends.
func (c *Client) update(ctx context.Context, fn func(Session) (Session, error)) error {
	return c.updateWith(ctx, newCall(), fn)
}

// updateWith is update with limits of its own.
func (c *Client) updateWith(ctx context.Context, call *callOfFn, fn func(Session) (Session, error)) error {
	return c.updated(call, c.bounded(ctx, call, func() error {
		return c.cfg.Store.Update(ctx, func(stored Session) (Session, error) {
			if !call.begin() {
				return stored, errStoreHangs
			}
			defer call.end()
			return fn(stored)
		})
	}))
}

// updated is err, or an error if the store did not call fn.
func (c *Client) updated(call *callOfFn, err error) error {
	if err == nil && !call.called() {
		return errNotCalled
	}
	return err
}

// A callOfFn is the call of a function that a store makes, or will never make because its
// result is not waited for any more.
type callOfFn struct {
	// write is how long the store may take once fn has returned, whether ctx has ended or
	// not; with cut, not once ctx has ended.
	write time.Duration
	cut   bool

	// now: the call is made even if those before have hung, because it is the last one, or
	// a person waits for it.
	now bool

	returned chan struct{} // closed when fn has returned, even if it is called again

	mu        sync.Mutex
	began     bool
	running   chan struct{} // closed when the last call of fn has returned
	abandoned bool
}

func newCall() *callOfFn { return &callOfFn{write: writeGrace, returned: make(chan struct{})} }

// begin reports whether fn may run: not twice at the same time.
func (c *callOfFn) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.abandoned || c.runs() {
		return false
	}
	c.began, c.running = true, make(chan struct{})
	return true
}

// runs reports whether fn runs. c.mu is held.
func (c *callOfFn) runs() bool {
	select {
	case <-c.running:
		return false
	default:
		return c.began
	}
}

func (c *callOfFn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.returned:
	default:
		close(c.returned) // before running, which await looks at first
	}
	close(c.running)
}

func (c *callOfFn) called() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.began
}

// abandon keeps fn from beginning. If it runs, running is closed when it has returned;
// otherwise running is nil.
func (c *callOfFn) abandon() (running <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.abandoned = true
	if c.runs() {
		return c.running
	}
	return nil
}

const (
	// storeGrace is how long a call of the store may take once ctx has ended.
	storeGrace = time.Second

	// writeGrace is how long it may take once fn has returned. The result of fn is to be
	// stored whether ctx has ended or not. With a lease it is shorter, because a successor
	// does not wait for ever, and another call may get a connection that is not dead: the
	// stores in databases repeat their statements for 30 seconds by default.
	writeGrace      = 5 * time.Minute
	leaseWriteGrace = saveTimeout + storeGrace

	// After maxHanging calls in a row that do not return, the next is made a minute later,
	// and so on up to an hour: the store may work again, although those never return. With
	// mostHanging there is none.
	maxHanging   = 4
	mostHanging  = 1000
	hungPause    = time.Minute
	longestPause = time.Hour
)

// errStoreHangs means that a store ignores its context.
var errStoreHangs = errors.New("the store does not return although its context has ended: see what its file system or server waits for")

// bounded makes a call of the store, and leaves it to itself if the store ignores that ctx
// has ended, or takes too long to write: it must keep neither a renewal nor a caller for
// ever. After that, fn does not begin. While it runs, it is waited for, because it may have
// sent a refresh token; what came of that is in the view, and is saved later if this call
// does not.
func (c *Client) bounded(ctx context.Context, fn *callOfFn, call func() error) error {
	if !c.source.hung.mayCall(fn.now) {
		return errStoreHangs
	}
	var err error
	var panicked any
	done := make(chan struct{})
	go func() {
		returned := false
		defer func() {
			if !returned {
				panicked, err = recover(), errNotReturned
			}
			close(done)
		}()
		err = call()
		returned = true
	}()
	if !fn.await(ctx, done) {
		c.source.hung.left(done)
		if ctx.Err() == nil {
			return errStoreHangs
		}
		return fmt.Errorf("%w: %w", errStoreHangs, retry.Ended(ctx))
	}
	c.source.hung.returned()
	if running := fn.abandon(); running != nil {
		<-running // what it writes to is read next
		err = errors.Join(errReturnedEarly, err)
	}
	if panicked != nil {
		panic(panicked) // in the goroutine of the caller, who may recover
	}
	return err
}

// await waits until a call of the store has returned, and reports false if it has not in
// time.
func (c *callOfFn) await(ctx context.Context, done <-chan struct{}) bool {
	ended, returned := ctx.Done(), c.returned
	var timer *time.Timer
	var limit <-chan time.Time
	setLimit := func(d time.Duration) {
		if timer != nil {
			timer.Stop()
		}
		timer = time.NewTimer(d)
		limit = timer.C
	}
	defer func() {
		if timer != nil {
			timer.Stop()
		}
	}()
	writes := func() {
		returned = nil
		switch {
		case !c.cut:
			ended = nil
			setLimit(c.write)
		case ctx.Err() == nil:
			setLimit(c.write)
		default:
			setLimit(storeGrace)
		}
	}
	for {
		select {
		case <-done:
			return true
		case <-returned:
			writes()
		case <-ended:
			ended = nil
			setLimit(storeGrace)
		case <-limit:
			if running := c.abandon(); running != nil {
				select {
				case <-done:
				case <-running:
				}
			}
			select {
			case <-done:
				return true
			case <-returned: // just now
				writes()
			default:
				return false
			}
		}
	}
}

// hung counts the calls of a store that are left to themselves.
type hung struct {
	mu     sync.Mutex
	total  int       // that have not returned yet
	row    int       // that were made one after the other, with none that returned in time
	probed time.Time // when the last one was left
}

// mayCall reports whether another call may be made; with now, whatever became of those
// before.
func (h *hung) mayCall(now bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now || h.row < maxHanging {
		return h.total < mostHanging
	}
	pause := min(hungPause<<min(h.row-maxHanging, 10), longestPause)
	if h.total >= mostHanging || time.Since(h.probed) < pause {
		return false
	}
	h.probed = time.Now() // one at a time
	return true
}

// left is told of a call that did not return in time. returned is closed when it does.
func (h *hung) left(returned <-chan struct{}) {
	h.mu.Lock()
	h.total++
	h.row++
	h.probed = time.Now()
	h.mu.Unlock()
	go func() {
		<-returned
		h.mu.Lock()
		defer h.mu.Unlock()
		h.total--
		h.row = 0
	}()
}

func (h *hung) returned() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.row = 0
}

var errReturnedEarly = errors.New("its Update returned while the function that it was given still ran, which a Store must not do")

var errNotReturned = errors.New("a call of the store ended without a return")

var errNotCalled = errors.New("its Update returned nil and did not call fn, which a Store must do")

// NewMemoryStore returns a Store that keeps its session in memory only. The
// session is lost when the process ends, and its refresh token with it, if the
// server rotates refresh tokens.
func NewMemoryStore() Store {
	return &memoryStore{updating: make(chan struct{}, 1), session: new(Session)}
}

type memoryStore struct {
	updating chan struct{} // a lock whose wait ends with a ctx

	mu sync.Mutex

	// Behind a pointer, because package fmt prints what lies in a pointer to a
	// struct for a wrong verb, such as %s, where it cannot call Format: in an
	// unexported field of the caller's.
	session *Session
}

// String keeps fmt from reading the session, whose methods it cannot call in an
// unexported field.
func (m *memoryStore) String() string { return "oauth.MemoryStore" }

// Format implements [fmt.Formatter] for every verb, for the same reason.
func (m *memoryStore) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, m.String()) }

// LogValue implements [slog.LogValuer].
func (m *memoryStore) LogValue() slog.Value { return slog.StringValue(m.String()) }

func (m *memoryStore) Load(ctx context.Context) (Session, error) {
	if err := ctx.Err(); err != nil {
		return Session{}, retry.Ended(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.session.IsZero() {
		return Session{}, ErrNoSession
	}
	return m.session.clone(), nil
}

func (m *memoryStore) Update(ctx context.Context, fn func(Session) (Session, error)) error {
	if err := ctx.Err(); err != nil {
		return retry.Ended(ctx)
	}
	select {
	case m.updating <- struct{}{}:
	case <-ctx.Done():
		return retry.Ended(ctx)
	}
	defer func() { <-m.updating }()
	m.mu.Lock()
	current := m.session.clone()
	m.mu.Unlock()
	next, err := fn(current)
	if err != nil {
		return err
	}
	m.mu.Lock()
	*m.session = next.clone()
	m.mu.Unlock()
	return nil
}
