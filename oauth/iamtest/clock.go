package iamtest

import (
	"sync/atomic"
	"time"
)

// A Clock is the server's: Options.Now and what was added to it. It is safe for
// concurrent use.
type Clock struct {
	base   func() time.Time
	offset atomic.Int64 // nanoseconds
}

// Now is the time by this clock, in UTC and without a monotonic part. A faulty
// clock ([ClockSkew]) does not show here: this is the right time, which the
// clients under test can share.
func (c *Clock) Now() time.Time {
	return c.base().Add(time.Duration(c.offset.Load())).Round(0).UTC()
}

// Advance moves the clock, forwards if d is positive. Nothing waits for it: what
// has expired by then has expired.
func (c *Clock) Advance(d time.Duration) { c.offset.Add(int64(d)) }
