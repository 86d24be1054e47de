package iamtest

import (
	"sync/atomic"
	"time"
)

// A Clock is the server's clock: Options.Now plus the time added to it. It is safe for
// concurrent use.
type Clock struct {
	base   func() time.Time
	offset atomic.Int64 // nanoseconds
}

// Now returns the time of this clock, in UTC and without a monotonic part. It is the right
// time, which the clients under test can share, even with a [ClockSkew].
func (c *Clock) Now() time.Time {
	return c.base().Add(time.Duration(c.offset.Load())).Round(0).UTC()
}

// Advance moves the clock by d, which may be negative. Tokens whose time has come
// expire at once.
func (c *Clock) Advance(d time.Duration) { c.offset.Add(int64(d)) }
