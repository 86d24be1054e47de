package oauth

import (
	"context"
	"sync"
	"time"

	"github.com/ycauth/ycauth-go/internal/clock"
)

const (
	firstSaveRetry = time.Second
	maxSaveRetry   = 4 * time.Second

	// saveTimeout bounds one attempt to save. With leases it is shorter, because a successor
	// waits for saveGrace only, and an attempt may be made on a connection that is dead.
	saveTimeout      = 30 * time.Second
	leaseSaveTimeout = 10 * time.Second
)

// A saver goes on trying to save the session that the store did not take. Between
// attempts it is a timer, not a goroutine. It keeps its source alive on purpose:
// the source may hold the only copy of a refresh token.
type saver struct {
	mu      sync.Mutex
	timer   *time.Timer // nil if nothing has to be saved
	again   bool        // start was called since the timer fired
	wait    time.Duration
	running chan struct{}      // closed when the attempt in progress has ended; nil if there is none
	cancel  context.CancelFunc // of the attempt in progress
	stopped bool
}

// start sets the timer, unless it runs.
func (sv *saver) start(attempt func(context.Context) (saved bool)) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	if sv.timer != nil || sv.stopped {
		sv.again = true
		return
	}
	sv.wait = firstSaveRetry
	sv.timer = time.AfterFunc(sv.wait, func() { sv.run(attempt) })
}

func (sv *saver) run(attempt func(context.Context) bool) {
	ctx, cancel := context.WithTimeout(context.Background(), saveTimeout)
	defer cancel()
	sv.mu.Lock()
	if sv.stopped {
		sv.mu.Unlock()
		return
	}
	sv.again = false
	sv.running, sv.cancel = make(chan struct{}), cancel
	sv.mu.Unlock()
	saved := attempt(ctx)
	sv.mu.Lock()
	defer sv.mu.Unlock()
	close(sv.running)
	sv.running, sv.timer = nil, nil
	if (!saved || sv.again) && !sv.stopped {
		sv.wait = min(2*sv.wait, maxSaveRetry)
		sv.timer = time.AfterFunc(sv.wait, func() { sv.run(attempt) })
	}
}

// stop ends the attempts. The channel is closed when the one in progress has
// ended; it is nil if there is none.
func (sv *saver) stop() <-chan struct{} {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	sv.stopped = true
	if sv.timer != nil {
		sv.timer.Stop()
		sv.timer = nil
	}
	if sv.running != nil {
		sv.cancel()
	}
	return sv.running
}

// unsaved is told that the store did not take the session in hand. The observer gets the
// events of first, and then this one, only after the saver was started, because it may panic.
func (s *TokenSource) unsaved(err error, first ...Event) {
	v := s.apply(func(v view, _ clock.Instant) view { return v.notSaved(err) })
	if v.unsaved != nil { // else it was replaced meanwhile
		s.saveLater()
		first = append(first, Event{Kind: EventSaveFailed, Generation: v.session.Generation, Err: &PersistError{err}})
	}
	for _, e := range first {
		s.c.emit(e)
	}
}

// saveLater goes on trying to save the session in hand, behind the callers.
func (s *TokenSource) saveLater() {
	s.saver.start(func(ctx context.Context) bool {
		leave, ok := s.c.mayWork()
		if !ok {
			return false // later
		}
		defer leave()
		if _, ok := s.c.cfg.Store.(LeaseStore); ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, leaseSaveTimeout)
			defer cancel()
		}
		return s.save(ctx, false) == nil
	})
}

// saved is told that the store has kept.
func (s *TokenSource) saved(kept Session) {
	var before *unsaved
	v := s.apply(func(v view, _ clock.Instant) view {
		before = v.unsaved
		return v.saved(kept)
	})
	if before != nil && before.err != nil && v.unsaved == nil {
		s.c.emit(Event{Kind: EventSaved, Generation: kept.Generation})
	}
}

// save tries once to save the session in hand, if the store does not have it. now is that of
// callOfFn.
func (s *TokenSource) save(ctx context.Context, now bool) error {
	for {
		if s.view.Load().unsaved == nil {
			return nil
		}
		var kept Session // zero if the store keeps what it has
		call := newCall()
		call.now = now
		if _, ok := s.c.cfg.Store.(LeaseStore); ok {
			call.write = leaseSaveTimeout
		}
		err := s.c.updateWith(ctx, call, func(stored Session) (Session, error) {
			// The newest session at this moment, not the one of a moment ago.
			v := s.view.Load()
			if v.unsaved == nil {
				return stored, nil
			}
			if !v.supersedes(stored) {
				s.yield(stored)
				return stored, nil
			}
			kept = v.session
			kept.Generation = max(kept.Generation, generationAfter(stored, kept))
			return kept, nil
		})
		switch {
		case err != nil:
			s.apply(func(v view, _ clock.Instant) view { return v.notSaved(err) })
			return &PersistError{err}
		case !kept.IsZero():
			s.saved(kept)
		}
	}
}

// yield gives up the session in hand for the one in the store, which a login, a
// logout or a sibling's renewal put there.
func (s *TokenSource) yield(stored Session) {
	if v := s.view.Load(); holds(stored, v.session) {
		s.saved(stored) // by an attempt that seemed to have failed
		return
	}
	s.read(stored, nil)
}
