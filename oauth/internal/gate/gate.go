// Package gate lets the goroutines of one process wait for each other in memory, before
// they ask a store that many processes share.
package gate

import (
	"context"
	"sync"
	"time"
)

// Gates are one gate for each key that is in use. The zero value is ready.
type Gates struct {
	mu   sync.Mutex
	open map[string]*gate
}

type gate struct {
	free  chan struct{} // has room for one
	users int
}

// Enter waits until nobody else of this process is inside, until patience ends, because
// whoever is inside may have lost its lease, or until ctx ends.
func (g *Gates) Enter(ctx context.Context, key string, patience time.Duration) (leave func()) {
	g.mu.Lock()
	if g.open == nil {
		g.open = make(map[string]*gate)
	}
	door := g.open[key]
	if door == nil {
		door = &gate{free: make(chan struct{}, 1)}
		g.open[key] = door
	}
	door.users++
	g.mu.Unlock()
	inside := false
	select {
	case door.free <- struct{}{}: // without a timer
		inside = true
	default:
		timer := time.NewTimer(patience)
		defer timer.Stop()
		select {
		case door.free <- struct{}{}:
			inside = true
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return func() {
		if inside {
			<-door.free
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		if door.users--; door.users == 0 {
			delete(g.open, key)
		}
	}
}

// Len is how many keys are in use.
func (g *Gates) Len() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.open)
}
