package piv

import (
	"context"
	"fmt"
	"sync/atomic"
)

// stage is what an operation waits for, in words.
type stage string

const (
	stageTurn      stage = "its turn at the card"
	stageOpen      stage = "a connection to the card"
	stageBusy      stage = "another program"
	stageCard      stage = "the card"
	stagePIN       stage = "the PIN"
	stageTouch     stage = "a touch"
	stageSignature stage = "the signature"
	stageKey       stage = "the new key"
)

// progress is where an operation stands, for the error of the one who stops
// waiting for it.
type progress struct{ stage atomic.Value }

func (p *progress) at(s stage) { p.stage.Store(s) }

// abandoned is the error of an operation whose ctx ended.
func (p *progress) abandoned(ctx context.Context) error {
	switch s := p.stage.Load(); s {
	case nil:
		return ended(ctx)
	case stageBusy:
		return because(ErrCardBusy, ended(ctx))
	default:
		return fmt.Errorf("%w while waiting for %v", ended(ctx), s)
	}
}

// run calls fn and waits for it no longer than ctx lasts. PC/SC commands cannot
// be stopped, so fn is then left to finish the one it is at, and its result is
// discarded; the card is free again when fn returns.
func run[T any](ctx context.Context, fn func(context.Context, *progress) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var p progress
	done := make(chan result, 1)
	if ctx.Err() == nil {
		go func() {
			value, err := fn(ctx, &p)
			done <- result{value, err}
		}()
	}
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, p.abandoned(ctx)
	}
}
