//go:build linux

package pcscd

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// seat is one of the two virtual readers.
type seat struct {
	index  int
	addr   string
	reader string
	events *uint32 // see Card.events
}

// seatCount is how many readers Debian's vpcd offers.
const seatCount = 2

// seatPool hands the readers of the machine out: to one process at a time (a lock file), in it to one test at a time, and to
// that test one by one. pcscd runs while a test has it.
type seatPool struct {
	mu      sync.Mutex
	group   string // the test that has the readers
	users   int
	taken   [seatCount]bool
	daemon  *daemon
	changed chan struct{} // closed when the readers are free again
}

var seats = &seatPool{changed: make(chan struct{})}

// take gives a test a reader, and starts pcscd if the test is the first to want one.
func (p *seatPool) take(ctx context.Context, group string) (seat, error) {
	if err := p.enter(ctx, group); err != nil {
		return seat{}, err
	}
	p.mu.Lock()
	for i := range p.taken {
		if !p.taken[i] {
			p.taken[i] = true
			s := p.daemon.seat(i)
			p.mu.Unlock()
			return s, nil
		}
	}
	p.mu.Unlock()
	return seat{}, errors.Join(errors.New("pivtest: there are two virtual readers, and this test has a card in each"), p.leave())
}

func (p *seatPool) giveBack(s seat) error {
	p.mu.Lock()
	p.taken[s.index] = false
	p.mu.Unlock()
	return p.leave()
}

// enter waits until no other test has the readers, and makes sure that pcscd runs.
func (p *seatPool) enter(ctx context.Context, group string) error {
	for {
		p.mu.Lock()
		if p.users == 0 || p.group == group {
			break
		}
		changed := p.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("pivtest: waiting for the virtual readers, which another test has: %w", ctx.Err())
		}
	}
	defer p.mu.Unlock()
	if p.users == 0 {
		d, err := startDaemon(ctx)
		if err != nil {
			return err
		}
		p.daemon = d
	}
	p.group = group
	p.users++
	return nil
}

// leave stops pcscd when its last user goes.
func (p *seatPool) leave() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.users--
	if p.users > 0 {
		return nil
	}
	err := p.daemon.stop()
	p.daemon, p.group = nil, ""
	close(p.changed)
	p.changed = make(chan struct{})
	return err
}
