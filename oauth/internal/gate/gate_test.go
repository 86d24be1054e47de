package gate_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/oauth/internal/gate"
)

func TestGates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gate.Gates
		start := time.Now()
		first := g.Enter(t.Context(), "a", time.Minute)
		g.Enter(t.Context(), "b", time.Minute)() // another key is another gate
		if d := time.Since(start); d != 0 {
			t.Errorf("free gates were waited for: %v", d)
		}

		entered := make(chan time.Duration)
		go func() {
			leave := g.Enter(t.Context(), "a", time.Minute)
			entered <- time.Since(start)
			leave()
		}()
		synctest.Wait()
		time.Sleep(time.Second)
		first()
		if d := <-entered; d != time.Second {
			t.Errorf("entered after %v", d)
		}

		// Patience ends, and so does ctx.
		inside := g.Enter(t.Context(), "a", time.Minute)
		before := time.Now()
		late := g.Enter(t.Context(), "a", time.Minute)
		if d := time.Since(before); d != time.Minute {
			t.Errorf("patience lasted %v", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		before = time.Now()
		canceled := g.Enter(ctx, "a", time.Minute)
		if d := time.Since(before); d != time.Second {
			t.Errorf("ctx ended after %v", d)
		}
		canceled()
		late()
		if n := g.Len(); n != 1 {
			t.Errorf("%d gates with one inside", n)
		}
		inside()
		if n := g.Len(); n != 0 {
			t.Errorf("%d gates are left", n)
		}
	})
}
