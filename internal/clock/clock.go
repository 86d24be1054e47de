// Package clock measures elapsed time when no single clock can be
// trusted: the wall clock jumps when it is set, and the monotonic clock of
// Linux and Windows may stop while the computer is suspended.
package clock

import (
	"math"
	"time"
)

// start is what monotonic readings count from. It lies in the past, so that a
// reading is never 0, which stands for "none".
var start = time.Now().Add(-time.Nanosecond)

// A Clock reads the wall clock and the monotonic clock together. The zero value
// reads those of the system.
type Clock struct {
	// Wall is the wall clock. Optional. Default: [time.Now]. The monotonic reading
	// is always the runtime's, so that a test can let the wall clock jump alone.
	Wall func() time.Time
}

// Now returns the present instant. It does not allocate, unless Wall does.
func (c Clock) Now() Instant {
	if c.Wall != nil {
		return At(c.Wall())
	}
	now := time.Now()
	return Instant{now.Round(0), now.Sub(start)}
}

// A Limit is the end of a span that began at an instant. The zero value lies in
// the past.
type Limit struct {
	mono time.Duration
	wall int64
}

// forever is longer than any program runs. A wall clock that counts nanoseconds in 64
// bits ends in the year 2262.
const forever = 100 * 365 * 24 * time.Hour

// Limit returns the end of the span d, which is not over while Since(i) < d. A span of
// more than a century ends after one.
func (i Instant) Limit(d time.Duration) Limit {
	d = min(d, forever)
	return Limit{i.mono + d, i.wall.UnixNano() + int64(d)}
}

// Passed reports whether i is after l by both clocks.
func (l Limit) Passed(i Instant) bool {
	return i.mono > l.mono && i.wall.UnixNano() > l.wall
}

// Before reports whether it is before l by both clocks. For l = i.Limit(d) it is
// c.Now().Since(i) < d, but cheaper.
func (c Clock) Before(l Limit) bool {
	now := time.Now()
	if now.Sub(start) >= l.mono {
		return false
	}
	if c.Wall != nil {
		now = c.Wall()
	}
	return now.UnixNano() < l.wall
}

// An Instant is one moment by both clocks. The zero value is longer ago than any
// other instant.
type Instant struct {
	wall time.Time     // without a monotonic reading
	mono time.Duration // since start; 0 if there is none
}

// At returns the present instant for a caller who has read the wall clock
// already: the monotonic reading is taken now.
func At(wall time.Time) Instant { return Instant{wall.Round(0), time.Since(start)} }

// Wall returns what the wall clock showed, without a monotonic reading.
func (i Instant) Wall() time.Time { return i.wall }

// IsZero reports whether i is the zero value.
func (i Instant) IsZero() bool { return i == Instant{} }

// MonotonicSince returns how much time passed between earlier and i by the monotonic
// clock alone, which nobody sets. It is the longest span if one of them is the zero
// value.
func (i Instant) MonotonicSince(earlier Instant) time.Duration {
	if i.mono == 0 || earlier.mono == 0 {
		return math.MaxInt64
	}
	return i.mono - earlier.mono
}

// Set returns how far the wall clock was moved between earlier and i: ahead if the
// result is positive, back if it is negative. A sleep that the monotonic clock did not
// count looks like a move ahead. Neither may be the zero value.
func (i Instant) Set(earlier Instant) time.Duration {
	return i.wall.Sub(earlier.wall) - i.MonotonicSince(earlier)
}

// Since returns how much time passed between earlier and i, by the clock that saw
// more of it pass: a wall clock that was set back does not stretch a wait, and
// neither does a sleep, which a monotonic clock may not count. The result is
// negative only if both clocks say that i is before earlier.
func (i Instant) Since(earlier Instant) time.Duration {
	elapsed := i.wall.Sub(earlier.wall)
	if i.mono != 0 && earlier.mono != 0 {
		elapsed = max(elapsed, i.mono-earlier.mono)
	}
	return elapsed
}
