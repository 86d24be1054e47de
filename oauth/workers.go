package oauth

import (
	"container/list"
	"context"
	"fmt"
	"sync"
	"time"
)

// workers run the jobs of a pool with a bounded number of goroutines. Jobs that wait for
// their turn are entries of a list.
//
//	state    | how it is left
//	---------+---------------------------------------------------------------
//	waiting  | a goroutine is free, and the pace allows it: running.
//	         | hurry: waiting, as urgent. Urgent for longer than patience, or
//	         | the pace turns urgent jobs away, or close: turned away
//	running  | its run returned: over
//
// Each job either runs or is turned away. Those that nobody waits for never use all
// goroutines, because they may hang for as long as a store does: see room.
type workers struct {
	size     int
	patience time.Duration // how long urgent jobs wait at most
	pace     *pace         // nil: nothing holds jobs back

	mu      sync.Mutex
	running [urgencies]int
	waiting [urgencies]list.List // of *job
	away    []func()             // jobs that are turned away, and were not told yet
	telling bool
	wake    *time.Timer
	closed  error
}

// An urgency is who waits for a job. The most urgent one is next.
type urgency int

const (
	urgent     urgency = iota // somebody waits
	background                // somebody uses the session
	sweeping                  // nobody uses it
	urgencies
)

type job struct {
	run      func()
	turnAway func(error)
	urgency  urgency
	until    time.Time     // if it is urgent: when it is turned away
	place    *list.Element // in workers.waiting; nil once it was taken out
}

// add runs j when it is its turn. It does not wait and may be called with the mutex of a
// token source held.
func (w *workers) add(j *job) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.enqueue(j, j.urgency)
	w.dispatch()
}

func (w *workers) enqueue(j *job, u urgency) {
	j.urgency = u
	if u == urgent {
		j.until = time.Now().Add(w.patience)
	}
	j.place = w.waiting[u].PushBack(j)
}

// hurry makes a job that waits urgent, because somebody waits for it from now on.
func (w *workers) hurry(j *job) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if j.place == nil || j.urgency == urgent {
		return
	}
	w.waiting[j.urgency].Remove(j.place)
	w.enqueue(j, urgent)
	w.dispatch()
}

// close turns all jobs away that wait, and all that are added.
func (w *workers) close(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = err
	w.dispatch()
}

// dispatch starts what can start, and turns away what cannot wait. w.mu is held.
func (w *workers) dispatch() {
	if w.closed != nil {
		for u := range w.waiting {
			for w.waiting[u].Len() > 0 {
				w.reject(w.takeOut(urgency(u)), w.closed)
			}
		}
		return
	}
	now := time.Now()
	var until time.Time
	var one bool
	if w.pace != nil {
		var patient bool
		var err error
		until, patient, one, err = w.pace.held(now)
		for until.After(now) && !patient && w.waiting[urgent].Len() > 0 {
			w.reject(w.takeOut(urgent), err)
		}
	}
	for next := w.waiting[urgent].Front(); next != nil && !now.Before(next.Value.(*job).until); next = w.waiting[urgent].Front() {
		w.reject(w.takeOut(urgent), &turnError{w.patience})
	}
	for u := range w.waiting {
		for w.waiting[u].Len() > 0 && w.room(urgency(u)) && !until.After(now) {
			if one {
				w.pace.probing(now)
				until, _, _, _ = w.pace.held(now)
			}
			w.running[u]++
			go w.work(w.takeOut(urgency(u)))
		}
	}
	w.setWake(until, now)
}

// room reports whether one more job of an urgency may run. Those that nobody waits for use
// at most 7 of 8 goroutines, and those of KeepAlive at most half; one in any case. w.mu is
// held.
func (w *workers) room(u urgency) bool {
	all := 0
	for _, n := range w.running {
		all += n
	}
	switch {
	case all >= w.size:
		return false
	case u == urgent:
		return true
	case u == sweeping && w.running[sweeping] >= w.sweepers():
		return false
	}
	return all-w.running[urgent] < max(w.size-max(w.size/8, 1), 1)
}

// sweepers is how many jobs of KeepAlive run at the same time at most.
func (w *workers) sweepers() int { return max(w.size/2, 1) }

// setWake dispatches again when time alone changes something. w.mu is held.
func (w *workers) setWake(until, now time.Time) {
	waiting := 0
	for u := range w.waiting {
		waiting += w.waiting[u].Len()
	}
	if waiting == 0 {
		if w.wake != nil {
			w.wake.Stop()
		}
		return
	}
	wait := forever
	if until.After(now) {
		wait = until.Sub(now)
	}
	if first := w.waiting[urgent].Front(); first != nil {
		wait = min(wait, first.Value.(*job).until.Sub(now))
	}
	switch {
	case wait == forever:
	case w.wake == nil:
		w.wake = time.AfterFunc(wait, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.dispatch()
		})
	default:
		w.wake.Reset(wait)
	}
}

func (w *workers) takeOut(u urgency) *job {
	j := w.waiting[u].Remove(w.waiting[u].Front()).(*job)
	j.place = nil
	return j
}

func (w *workers) work(j *job) {
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.running[j.urgency]--
		w.dispatch()
	}()
	j.run()
}

// A turnError means that a job has waited for its turn for long enough.
type turnError struct{ waited time.Duration }

func (e *turnError) Error() string {
	return fmt.Sprintf("oauth: the session waited for its turn for %v, behind those of other users: %v", e.waited, context.DeadlineExceeded)
}

func (e *turnError) Unwrap() error { return context.DeadlineExceeded }

// reject turns j away, in one goroutine for all jobs. w.mu is held.
func (w *workers) reject(j *job, err error) {
	w.away = append(w.away, func() { j.turnAway(err) })
	if w.telling {
		return
	}
	w.telling = true
	go func() {
		for {
			w.mu.Lock()
			away := w.away
			w.away = nil
			w.telling = len(away) > 0
			w.mu.Unlock()
			if len(away) == 0 {
				return
			}
			for _, tell := range away {
				tell()
			}
		}
	}()
}
