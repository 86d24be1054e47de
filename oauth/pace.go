package oauth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ycauth/ycauth-go/internal/retry"
)

// A pace decides when the clients of a pool may send their next token request. It has
// three limits:
//
//	limit      | begins with                      | ends with           | what waits
//	-----------+----------------------------------+---------------------+----------------------------
//	the rate   | each request                     | 1/Rate later        | the next request
//	quiet      | a Retry-After                    | its end, and a      | all renewals; those that
//	           |                                  | jitter of at most   | somebody waits for fail if
//	           |                                  | a tenth or 5 s      | it is longer than 30 s
//	probing    | the tripAfter-th failure in a    | a response that is  | all renewals but one in 1 to
//	           | row: unreachable, no response,   | no failure          | 5 s; those that somebody
//	           | or a temporary error             |                     | waits for fail at once
//
// The request of a login keeps to the rate alone, because its code expires soon.
type pace struct {
	every time.Duration // the least time between two requests

	mu    sync.Mutex
	next  time.Time   // when a request may be sent that comes after all that wait
	free  []time.Time // times before next that were given back, the first one first
	quiet time.Time   // when renewals may be sent again
	why   error       // what the server said when it asked for that

	failures int       // in a row
	probe    time.Time // while the server fails: when the next renewal may begin
	failure  error     // the last one

	retries float64 // how many requests may be sent again

	// first is closed when the first request, which began at began, was answered or
	// failed. Until then, but not longer than firstWait, it is the only one: it may bring
	// the nonce and the time for all others.
	first    chan struct{}
	began    time.Time
	answered bool
}

const (
	// tripAfter failures in a row, whoever they are about, mean that the server is down.
	tripAfter = 10

	firstProbe = time.Second
	maxProbe   = 5 * time.Second

	// A request is sent again while there is one left of maxRetries, which a success
	// adds perSuccess to.
	maxRetries = 10
	perSuccess = 0.1

	// shortQuiet is how long a renewal that has the store's lock waits for the end of a
	// quiet time, and the most jitter that is added to one.
	shortQuiet = 5 * time.Second

	// longQuiet is the longest quiet time that renewals wait for if somebody waits for
	// them: the longest Retry-After that a request waits for, too.
	longQuiet = 30 * time.Second

	// firstWait is how long others wait for the first response of all.
	firstWait = 5 * time.Second
)

func newPace(rate float64) *pace {
	return &pace{every: time.Duration(float64(time.Second) / rate), retries: maxRetries, first: make(chan struct{})}
}

// A heldError means that a request was not sent because of what the server said to
// another one.
type heldError struct{ err error }

func (e *heldError) Error() string {
	return "oauth: no request was sent, because that of another session failed: " + strings.TrimPrefix(brief(e.err.Error()), "oauth: ")
}
func (e *heldError) Unwrap() error { return e.err }

// quietError is why nothing is sent for left; p.mu is held.
func (p *pace) quietError(left time.Duration) error {
	var server *ServerError
	if !errors.As(p.why, &server) {
		return &heldError{p.why}
	}
	// Neither the description nor the id of the request: they are another user's.
	return &heldError{&ServerError{Code: server.Code, Status: server.Status, RetryAfter: left}}
}

// failureError is the error of others while the server fails; p.mu is held.
func (p *pace) failureError() error {
	var server *ServerError
	var unreachable *UnreachableError
	switch {
	case errors.As(p.failure, &server):
		return &heldError{&ServerError{Code: server.Code, Status: server.Status, Err: server.Err}}
	case errors.As(p.failure, &unreachable):
		return &heldError{unreachable}
	}
	return &heldError{&UnreachableError{errors.New("the last requests had no response")}}
}

// turn waits until a request may be sent. If that is after the deadline of ctx, it fails
// at once.
func (p *pace) turn(ctx context.Context, login bool) error {
	for {
		p.mu.Lock()
		now := time.Now()
		switch left := p.quiet.Sub(now); {
		case left <= 0 || login:
		case left > shortQuiet:
			defer p.mu.Unlock()
			return p.quietError(left)
		default:
			p.mu.Unlock()
			if !sleep(ctx, left, nil) {
				return retry.Ended(ctx)
			}
			continue
		}
		if p.began.IsZero() {
			p.began = now
		} else if left := p.began.Add(firstWait).Sub(now); left > 0 && !p.answered {
			p.mu.Unlock()
			if !sleep(ctx, left, p.first) {
				return retry.Ended(ctx)
			}
			continue
		}
		at, err := p.reserve(ctx, now)
		p.mu.Unlock()
		if err != nil {
			return err
		}
		if !sleep(ctx, at.Sub(now), nil) {
			p.giveBack(at)
			return retry.Ended(ctx)
		}
		if login || p.over() {
			return nil
		} // else the server asked for silence in the meantime
	}
}

// reserve returns when a request may be sent, which nobody else gets. p.mu is held.
func (p *pace) reserve(ctx context.Context, now time.Time) (time.Time, error) {
	for len(p.free) > 0 && p.free[0].Before(now) {
		p.free = p.free[1:] // nobody wanted it
	}
	at := now
	switch {
	case len(p.free) > 0:
		at = p.free[0]
	case p.next.After(now):
		at = p.next
	}
	if deadline, ok := ctx.Deadline(); ok && at.After(deadline) {
		return at, fmt.Errorf("oauth: the request was not sent, because PoolConfig.Rate allows the next one in %v, and Config.RenewTimeout ends before: %w",
			at.Sub(now).Round(time.Millisecond), context.DeadlineExceeded)
	}
	if len(p.free) > 0 {
		p.free = p.free[1:]
	} else {
		p.next = at.Add(p.every)
	}
	return at, nil
}

// giveBack is told that no request is sent at a time that was reserved.
func (p *pace) giveBack(at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i, _ := slices.BinarySearchFunc(p.free, at, time.Time.Compare)
	p.free = slices.Insert(p.free, i, at)
	// What was given back at the end is not reserved any more.
	for last := len(p.free) - 1; last >= 0 && p.free[last].Add(p.every).Equal(p.next); last-- {
		p.next = p.free[last]
		p.free = p.free[:last]
	}
}

// sleep waits for d or until woken, and reports false if ctx ended before.
func sleep(ctx context.Context, d time.Duration, woken <-chan struct{}) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-woken:
	case <-ctx.Done():
		return false
	}
	return true
}

// over reports whether no quiet time is left.
func (p *pace) over() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.quiet.After(time.Now())
}

// heard is told what became of a request.
func (p *pace) heard(err error) {
	var server *ServerError
	var unreachable *UnreachableError
	var lost *lostError
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.answered {
		p.answered = true
		close(p.first)
	}
	now := time.Now()
	switch {
	case err == nil:
		p.retries = min(p.retries+perSuccess, maxRetries)
		p.failures, p.failure = 0, nil
		return
	case errors.As(err, &server):
		if server.RetryAfter > 0 && server.Temporary() {
			wait := min(server.RetryAfter, maxServerCooldown)
			wait += time.Duration(jitter(int64(min(wait/10, shortQuiet)) + 1)) // replicas should not go on together
			if until := now.Add(wait); until.After(p.quiet) {
				p.quiet, p.why = until, server
			}
		}
		if !server.Temporary() && !errors.Is(server, ErrMalformedResponse) {
			p.failures, p.failure = 0, nil // the server is there, and says no
			return
		}
	case errors.As(err, &lost), errors.As(err, &unreachable):
	default:
		return // nothing was sent
	}
	p.failures++
	p.failure = err
	if p.failures == tripAfter {
		p.probe = now.Add(firstProbe)
	}
}

// mayRetry reports whether one more request may be sent again.
func (p *pace) mayRetry() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.retries < 1 {
		return false
	}
	p.retries--
	return true
}

// held says until when no renewal begins, or the zero time; patient reports
// whether those that somebody waits for are to wait for it, too, else err is for
// them. one reports whether only one may begin after that.
func (p *pace) held(now time.Time) (until time.Time, patient, one bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if left := p.quiet.Sub(now); left > 0 {
		return p.quiet, left <= longQuiet, false, p.quietError(left)
	}
	if p.failures < tripAfter {
		return time.Time{}, true, false, nil
	}
	return p.probe, false, true, p.failureError()
}

// down reports whether the server seems to be down.
func (p *pace) down() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failures >= tripAfter
}

// probing is told that a renewal begins to find out whether the server is back.
func (p *pace) probing(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.probe = now.Add(min(firstProbe<<min(max(p.failures-tripAfter, 0), 8), maxProbe))
}
