package oauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

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
	// for instance because its disk or server is unavailable.
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
	// Waiting for other Updates ends with ctx. Once fn has returned a changed
	// session, Update stores it even if ctx is canceled, because it may be the only copy
	// of a new refresh token. After fn returns, the new session should survive a crash of
	// the process as soon as possible. A process that dies
	// during Update must not block the others. If it dies after that moment,
	// the next Update calls its fn with the new session, even if Load does not
	// return it yet.
	Update(ctx context.Context, fn func(Session) (Session, error)) error
}

// update is Store.Update, with an error if the store did not call fn.
func (c *Client) update(ctx context.Context, fn func(Session) (Session, error)) error {
	called := false
	err := c.cfg.Store.Update(ctx, func(stored Session) (Session, error) {
		called = true
		return fn(stored)
	})
	if err == nil && !called {
		return errNotCalled
	}
	return err
}

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
