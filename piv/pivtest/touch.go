package pivtest

import (
	"context"
	"time"
)

// awaitTouch lets the card blink until it is touched, if the policy wants that. It gives c.mu up while it waits, so that the
// knobs still turn; no other command can run meanwhile, as Card.busy is held.
func (c *Card) awaitTouch(ctx context.Context, policy TouchPolicy) bool {
	switch {
	case policy == TouchNever:
		return true
	case policy == TouchCached && !c.touched.IsZero() && time.Since(c.touched) < c.touchCache:
		return true
	}
	finger, timeout := c.touch, c.touchTimeout
	c.mu.Unlock()
	touched := blink(ctx, finger, timeout)
	c.mu.Lock()
	if touched {
		c.touched = time.Now()
	}
	return touched
}

// blink waits for the finger, but not longer than the time-out and not after the card was removed.
func blink(ctx context.Context, finger TouchFunc, timeout time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if finger(ctx) {
		return ctx.Err() == nil
	}
	<-ctx.Done()
	return false
}
