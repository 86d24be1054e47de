package storetest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/ycauth/ycauth-go/internal/filelock"
	"github.com/ycauth/ycauth-go/oauth"
)

// chatty is a store like one on a database: a value of it holds a connection, of
// which there are not many, and its driver prints what it likes.
var chatty = Subject{
	Name:       "chatty",
	Kills:      3,
	Goroutines: 5,
	Open: func(place string) (oauth.Store, error) {
		fmt.Print("driver: connecting\nstored 99\nready")
		open := connections.Add(1)
		mostConnections.Store(max(mostConnections.Load(), open))
		return &connection{faulty{path: place, lock: filelock.New(place + ".lock")}}, nil
	},
	NewPlace: func(t *testing.T) string {
		t.Helper()
		return filepath.Join(t.TempDir(), "database")
	},
}

var connections, mostConnections, atOnce, mostAtOnce atomic.Int64

type connection struct{ faulty }

func (c *connection) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	mostAtOnce.Store(max(mostAtOnce.Load(), atOnce.Add(1)))
	defer atOnce.Add(-1)
	fmt.Fprint(os.Stdout, "driver: begin")
	return c.faulty.Update(ctx, fn)
}

func (c *connection) Close() error { connections.Add(-1); return nil }

func TestConnections(t *testing.T) {
	Run(t, chatty)
	if n := connections.Load(); n != 0 {
		t.Errorf("%d values were not closed", n)
	}
	if most := mostConnections.Load(); most > 4 {
		t.Errorf("%d values were open at the same time, want 4 at most", most)
	}
	if most := mostAtOnce.Load(); most > 5 {
		t.Errorf("%d Updates ran at the same time, want 5 at most", most)
	}
}

// A value that cannot be closed fails the check that used it.
func TestCloseFails(t *testing.T) {
	b := newBench(t, Subject{Open: func(place string) (oauth.Store, error) {
		return &unclosable{faulty{path: place, lock: filelock.New(place + ".lock")}}, nil
	}})
	if err := b.bounded(t.Context(), check{run: checkUnchanged}); err == nil {
		t.Error("nobody notices")
	}
}

type unclosable struct{ faulty }

func (*unclosable) Close() error { return os.ErrInvalid }
