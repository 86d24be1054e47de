package oauth

import (
	"context"
	"sync"

	"github.com/ycauth/ycauth-go/internal/retry"
)

// A Store keeps one session, for one profile. The token source calls Load when it
// needs a session it does not have, and Update around every request that can
// change the session.
//
// Implementations must be safe for concurrent use. Package storetest checks that
// one keeps this contract.
type Store interface {
	// Load returns the stored session as it is now, without waiting for an
	// Update that is going on. The error matches [ErrNoSession] if there is none.
	Load(ctx context.Context) (Session, error)

	// Update calls fn once, with the stored session (the zero Session if there is
	// none), and stores what fn returns. From before the read until after the
	// write no other Update of the same session runs, in this process or
	// another: that is what lets one process renew for all.
	//
	// When Update returns nil, what fn returned is durable: it survives a crash
	// of the process or the machine. If fn returns an error, nothing is stored
	// and Update returns that error. A zero Session from fn removes the stored
	// one; a Session equal to the stored one need not be written.
	//
	// Waiting for other Updates ends with ctx. Once fn has returned a changed
	// session, it is stored even if ctx has ended: it may hold the only copy of a
	// new refresh token. A process that dies inside of Update must not block the
	// others.
	Update(ctx context.Context, fn func(Session) (Session, error)) error
}

// NewMemoryStore returns a Store that keeps its session in memory only. It dies
// with the process, and the session's refresh token with it, if the server
// rotates refresh tokens.
func NewMemoryStore() Store {
	return &memoryStore{updating: make(chan struct{}, 1)}
}

type memoryStore struct {
	updating chan struct{} // a lock whose wait ends with a ctx

	mu      sync.Mutex
	session Session
}

func (m *memoryStore) Load(ctx context.Context) (Session, error) {
	if err := ctx.Err(); err != nil {
		return Session{}, retry.Ended(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.session.IsZero() {
		return Session{}, ErrNoSession
	}
	return m.session, nil
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
	current := m.session
	m.mu.Unlock()
	next, err := fn(current)
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.session = next
	m.mu.Unlock()
	return nil
}
