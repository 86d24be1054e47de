package oauth

import (
	"context"
	"sync"
	"time"

	"github.com/ycauth/ycauth-go/internal/clock"
)

const (
	firstSaveRetry = time.Second
	maxSaveRetry   = time.Minute

	// saveTimeout bounds one attempt to save.
	saveTimeout = 30 * time.Second
)

// A saver goes on trying to save the session that the store did not take. Between
// attempts it is a timer, not a goroutine. It keeps its source alive on purpose:
// the source may hold the only copy of a refresh token.
type saver struct {
	mu      sync.Mutex
	timer   *time.Timer // nil if nothing has to be saved
	wait    time.Duration
	running sync.WaitGroup
	stopped bool
}

// start sets the timer, unless it runs.
func (sv *saver) start(attempt func() (saved bool)) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	if sv.timer != nil || sv.stopped {
		return
	}
	sv.wait = firstSaveRetry
	sv.timer = time.AfterFunc(sv.wait, func() { sv.run(attempt) })
}

func (sv *saver) run(attempt func() bool) {
	sv.mu.Lock()
	if sv.stopped {
		sv.mu.Unlock()
		return
	}
	sv.running.Add(1)
	sv.mu.Unlock()
	saved := attempt()
	sv.mu.Lock()
	sv.timer = nil
	if !saved && !sv.stopped {
		sv.wait = min(2*sv.wait, maxSaveRetry)
		sv.timer = time.AfterFunc(sv.wait, func() { sv.run(attempt) })
	}
	sv.mu.Unlock()
	sv.running.Done()
}

// stop ends the attempts and waits for one in progress.
func (sv *saver) stop() {
	sv.mu.Lock()
	sv.stopped = true
	if sv.timer != nil {
		sv.timer.Stop()
		sv.timer = nil
	}
	sv.mu.Unlock()
	sv.running.Wait()
}

// unsaved is told that the store did not take the session in hand.
func (s *TokenSource) unsaved(err error) {
	v := s.apply(func(v view, _ clock.Instant) view { return v.notSaved(err) })
	if v.unsaved == nil {
		return // replaced meanwhile
	}
	s.c.emit(Event{Kind: EventSaveFailed, Generation: v.session.Generation, Err: &PersistError{err}})
	s.saver.start(func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), saveTimeout)
		defer cancel()
		return s.save(ctx) == nil
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

// save tries once to save the session in hand, if the store does not have it.
func (s *TokenSource) save(ctx context.Context) error {
	for {
		if s.view.Load().unsaved == nil {
			return nil
		}
		var kept Session
		err := s.c.cfg.Store.Update(ctx, func(stored Session) (Session, error) {
			// The newest session at this moment, not the one of a moment ago.
			v := s.view.Load()
			if v.unsaved == nil || !v.supersedes(stored) {
				kept = Session{}
				s.yield(stored)
				return stored, nil
			}
			kept = v.session
			kept.Generation = max(kept.Generation, stored.Generation+1)
			return kept, nil
		})
		switch {
		case err != nil:
			s.apply(func(v view, _ clock.Instant) view { return v.notSaved(err) })
			return &PersistError{err}
		case kept.IsZero():
			return nil
		}
		s.saved(kept)
	}
}

// yield gives up the session in hand for the one in the store, which a login, a
// logout or a sibling's renewal put there.
func (s *TokenSource) yield(stored Session) {
	s.apply(func(v view, _ clock.Instant) view {
		v.unsaved = nil
		if !stored.IsZero() && sameLogin(stored, v.session) {
			v.session.Generation = 0 // so that read takes the stored one
		}
		return v
	})
	s.read(stored, nil)
}
