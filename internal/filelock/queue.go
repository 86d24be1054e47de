package filelock

import (
	"context"
	"sync"

	"github.com/ycauth/ycauth-go/internal/retry"
)

// A queue is where the goroutines of this process line up for one path, so that
// only the first of them looks at the file. It also tells the race detector, and
// Go's memory model, of an order that a file lock keeps from them.
type queue struct {
	head  chan struct{}
	users int // those in line; guarded by queues
}

var queues = struct {
	sync.Mutex
	byPath map[string]*queue
}{byPath: map[string]*queue{}}

// lineUp waits to be the first, until ctx ends. leave must be called once.
func lineUp(ctx context.Context, path string) (leave func(), err error) {
	q := join(path)
	select {
	case q.head <- struct{}{}:
		return func() { <-q.head; q.part(path) }, nil
	case <-ctx.Done():
		q.part(path)
		return nil, retry.Ended(ctx)
	}
}

func join(path string) *queue {
	queues.Lock()
	defer queues.Unlock()
	q := queues.byPath[path]
	if q == nil {
		q = &queue{head: make(chan struct{}, 1)}
		queues.byPath[path] = q
	}
	q.users++
	return q
}

// part forgets the queue with its last user.
func (q *queue) part(path string) {
	queues.Lock()
	defer queues.Unlock()
	if q.users--; q.users == 0 {
		delete(queues.byPath, path)
	}
}
