// Package retry retries an operation if that may help, and waits as long
// as the server asks.
//
// The waits come from github.com/cenkalti/backoff/v4 (exponential, with jitter).
// In addition, this package retries only errors marked
// by [Temporary], waits at least as long as a server's Retry-After, and
// does not wait past ctx's deadline.
package retry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Policy bounds the attempts. The zero value means the defaults.
type Policy struct {
	// Attempts is the most attempts made, the first included.
	// Optional. Default: 4. 1 means no retry.
	Attempts int

	// Initial is the wait before the second attempt, before jitter.
	// Optional. Default: 250 ms. At most 24 hours.
	Initial time.Duration

	// Max is the longest wait that the backoff itself chooses, jitter included.
	// Optional. Default: 5 s, or Initial if that is longer. At most 24 hours.
	Max time.Duration

	// MaxServer is the longest wait that is accepted from a server. A longer
	// Retry-After ends the attempts: the caller learns of it from the error.
	// Optional. Default: 30 s.
	MaxServer time.Duration
	// UntilDeadline has Do wait until ctx ends where the next attempt would come after
	// its deadline, and return ctx's error too. Otherwise Do returns at once. Optional.
	UntilDeadline bool

	// Notify, if set, is called before each wait with the attempt that failed
	// (1 is the first). Optional.
	Notify func(attempt int, err error, wait time.Duration)
}

// Longest is the longest wait of a backoff.
const Longest = 24 * time.Hour

func (p Policy) withDefaults() Policy {
	if p.Attempts <= 0 {
		p.Attempts = 4
	}
	if p.Initial <= 0 {
		p.Initial = 250 * time.Millisecond
	}
	if p.Max <= 0 {
		p.Max = max(5*time.Second, p.Initial)
	}
	// The backoff overflows at a wait near the longest time.Duration, and no longer waits.
	p.Initial, p.Max = min(p.Initial, Longest), min(p.Max, Longest)
	if p.MaxServer <= 0 {
		p.MaxServer = 30 * time.Second
	}
	return p
}

type temporaryError struct {
	err   error
	after time.Duration
}

func (e *temporaryError) Error() string { return e.err.Error() }
func (e *temporaryError) Unwrap() error { return e.err }

// Temporary marks err as worth another attempt, no earlier than after from now
// (0: whenever the backoff says). [Do] takes the mark off again, and with it what
// was wrapped around it: mark last.
func Temporary(err error, after time.Duration) error {
	if err == nil {
		return nil
	}
	return &temporaryError{err, after}
}

// Do calls fn until it succeeds, returns an error without the mark of
// [Temporary], or the policy or ctx ends the attempts. fn receives the number of
// the attempt, from 1.
//
// The error is the last one of fn. Where ctx ended while Do waited, it also
// wraps ctx's error.
func Do[T any](ctx context.Context, p Policy, fn func(ctx context.Context, attempt int) (T, error)) (T, error) {
	p = p.withDefaults()
	waits := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(p.Initial),
		backoff.WithMaxInterval(p.Max),
		backoff.WithMaxElapsedTime(0), // so that it never answers backoff.Stop
	)
	for attempt := 1; ; attempt++ {
		v, err := fn(ctx, attempt)
		if err == nil {
			return v, nil
		}
		var temporary *temporaryError
		if !errors.As(err, &temporary) {
			return v, err
		}
		err = temporary.err
		if attempt >= p.Attempts || temporary.after > p.MaxServer {
			return v, err
		}
		// Jitter reaches half above the interval: it must not exceed Max either.
		wait := max(min(waits.NextBackOff(), p.Max), temporary.after)
		deadline, ok := ctx.Deadline()
		late := ok && time.Until(deadline) <= wait
		if late && !p.UntilDeadline {
			// Waiting would only turn an informative error into "deadline exceeded".
			return v, err
		}
		if ctx.Err() == nil && p.Notify != nil && !late {
			p.Notify(attempt, err, wait)
		}
		if late {
			<-ctx.Done()
		}
		if late || !sleep(ctx, wait) {
			return v, fmt.Errorf("%w while waiting to retry: %w", Ended(ctx), err)
		}
	}
}

// Ended is why ctx ended: its error, which is what callers compare with, and its
// cause where there is another one (errgroup sets one, and net/http returns it
// alone).
func Ended(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if cause == nil || errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// sleep reports whether ctx let it wait for d.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// After reads a Retry-After header (RFC 9110 §10.2.3): seconds or an HTTP date.
// A date is compared with the Date of the same response, so that our own clock
// does not matter; now serves where there is none. The result is 0 where the header
// is missing, malformed or lies in the past, and a year at most.
func After(h http.Header, now time.Time) time.Duration {
	const most = 365 * 24 * time.Hour
	v := strings.TrimSpace(h.Get("Retry-After"))
	if isDigits(v) { // "delay-seconds = 1*DIGIT": no sign
		s, err := strconv.ParseUint(v, 10, 64)
		if err != nil || s > uint64(most/time.Second) {
			return most // more digits than a number holds are not less
		}
		return time.Duration(s) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		if date, err := http.ParseTime(h.Get("Date")); err == nil {
			now = date
		}
		return min(max(t.Sub(now), 0), most)
	}
	return 0
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}
