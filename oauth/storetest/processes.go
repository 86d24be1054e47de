package storetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
)

// checkProcesses: four processes and two goroutines here count up at once.
func checkProcesses(ctx context.Context, b *bench) error {
	const processes, times = 4, 10
	var started []*process
	for range processes {
		p, err := b.start(ctx, "count", times)
		if err != nil {
			return err
		}
		defer p.kill()
		if _, err := p.hear(ctx, "ready"); err != nil {
			return err
		}
		started = append(started, p)
	}
	for _, p := range started {
		if err := p.tell("go"); err != nil {
			return err
		}
	}
	here := make(chan error, 2)
	for range cap(here) {
		b.background.Go(func() { here <- b.countHere(ctx, times) })
	}
	for _, p := range started {
		if _, err := p.hear(ctx, "done"); err != nil {
			return err
		}
	}
	for range cap(here) {
		if err := <-here; err != nil {
			return err
		}
	}
	s, err := b.open()
	if err != nil {
		return err
	}
	return b.expect(ctx, s, numbered(times*(processes+uint64(cap(here)))))
}

func (b *bench) countHere(ctx context.Context, times int) error {
	s, err := b.open()
	if err != nil {
		return err
	}
	for range times {
		err := b.update(ctx, s, func(current oauth.Session) (oauth.Session, error) {
			leave, err := enter(b.scratch)
			if err != nil {
				return current, err
			}
			defer leave()
			return numbered(current.Generation + 1), nil
		})
		if err != nil {
			return failed("Update", err)
		}
	}
	return nil
}

// checkVisible: what one process stores the others see, each in turn.
func checkVisible(ctx context.Context, b *bench) error {
	s, err := b.open()
	if err != nil {
		return err
	}
	for _, before := range []oauth.Session{{}, numbered(5)} {
		if err := b.put(ctx, s, before); err != nil {
			return failed("Update", err)
		}
		if err := b.expect(ctx, s, before); err != nil {
			return err
		}
		if err := b.seenAndChanged(ctx, s, before); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) seenAndChanged(ctx context.Context, s oauth.Store, before oauth.Session) error {
	p, err := b.start(ctx, "hold", 0)
	if err != nil {
		return err
	}
	defer p.kill()
	seen, err := p.hear(ctx, "inside")
	if err != nil {
		return err
	}
	if seen != before.Generation {
		return fmt.Errorf("another process got generation %d in Update, want %d", seen, before.Generation)
	}
	if _, err := p.ask(ctx, "store", "stored"); err != nil {
		return err
	}
	if err := b.expect(ctx, s, numbered(before.Generation+1)); err != nil {
		return failed("after an Update of another process", err)
	}
	return nil
}

// checkLockedByProcess: while another process is in Update, Load works
// everywhere, Update waits, and ctx ends the wait.
func checkLockedByProcess(ctx context.Context, b *bench) error {
	s, err := b.open()
	if err != nil {
		return err
	}
	if err := b.put(ctx, s, numbered(1)); err != nil {
		return failed("Update", err)
	}
	p, err := b.start(ctx, "hold", 0)
	if err != nil {
		return err
	}
	defer p.kill()
	if _, err := p.hear(ctx, "inside"); err != nil {
		return err
	}
	if err := b.expect(ctx, s, numbered(1)); err != nil {
		return failed("during an Update of another process", err)
	}
	seen, err := p.ask(ctx, "load", "loaded")
	if err != nil {
		return err
	}
	if seen != 1 {
		return fmt.Errorf("Load within Update, in another process, gave generation %d, want 1", seen)
	}
	if err := b.waitInVain(ctx, s); err != nil {
		return err
	}
	waiter := b.waiter(ctx, s)
	if _, err := p.ask(ctx, "store", "stored"); err != nil {
		return err
	}
	if err := <-waiter; err != nil {
		return err
	}
	return b.expect(ctx, s, numbered(3))
}

// waiter begins an Update that counts up, in another goroutine.
func (b *bench) waiter(ctx context.Context, s oauth.Store) <-chan error {
	result := make(chan error, 1)
	b.background.Go(func() {
		result <- b.update(ctx, s, func(current oauth.Session) (oauth.Session, error) {
			return numbered(current.Generation + 1), whole(current)
		})
	})
	return result
}

// checkOwnerStopped: a process is stopped in fn, as a suspended machine is, longer
// than a lock may last that is a lease. Whoever gets the lock then counts up, and
// so does the first process, which must be told if that is not stored.
func checkOwnerStopped(ctx context.Context, b *bench) error {
	s, err := b.open()
	if err != nil {
		return err
	}
	if err := b.put(ctx, s, numbered(1)); err != nil {
		return failed("Update", err)
	}
	p, err := b.start(ctx, "hold", 1)
	if err != nil {
		return err
	}
	defer p.kill()
	if _, err := p.hear(ctx, "inside"); err != nil {
		return err
	}
	waiter := b.waiter(ctx, s)
	p.pause()
	stopped := time.NewTimer(b.hold)
	defer stopped.Stop()
	select {
	case <-stopped.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	p.resume()
	if err := p.tell("store"); err != nil {
		return err
	}
	stored, err := p.hearEither(ctx, "stored", "rejected")
	if err != nil {
		return err
	}
	if err := <-waiter; err != nil {
		return failed("Update that waited for a process that was stopped", err)
	}
	want := uint64(2)
	if stored {
		want = 3
	}
	found, err := s.Load(ctx)
	if err != nil {
		return failed("Load", err)
	}
	if found.Generation != want {
		return fmt.Errorf("%d Updates counted up from 1, and generation %d is stored: one has undone another", want-1, found.Generation)
	}
	return whole(found)
}

// checkOwnerKilled: the lock of a process that is killed in fn goes to whoever
// waits for it, and the session is the old one.
func checkOwnerKilled(ctx context.Context, b *bench) error {
	s, err := b.open()
	if err != nil {
		return err
	}
	if err := b.put(ctx, s, numbered(1)); err != nil {
		return failed("Update", err)
	}
	for generation := uint64(1); generation <= 3; generation++ {
		p, err := b.start(ctx, "hold", 0)
		if err != nil {
			return err
		}
		defer p.kill()
		if _, err := p.hear(ctx, "inside"); err != nil {
			return err
		}
		waiter := b.waiter(ctx, s)
		p.kill()
		if err := <-waiter; err != nil {
			return failed("Update that waited for a process that was killed", err)
		}
		if err := b.expect(ctx, s, numbered(generation+1)); err != nil {
			return failed("after the owner of the lock was killed", err)
		}
	}
	return nil
}

// checkWriterKilled: a writer is killed at random moments.
func checkWriterKilled(ctx context.Context, b *bench) error {
	kills := b.subject.Kills
	if kills == 0 {
		kills = 20
	}
	for i := range kills {
		if err := b.killWriter(ctx); err != nil {
			return failed(fmt.Sprintf("kill %d", i+1), err)
		}
	}
	return nil
}

func (b *bench) killWriter(ctx context.Context) error {
	p, err := b.start(ctx, "write", 0)
	if err != nil {
		return err
	}
	defer p.kill()
	heard, err := p.hear(ctx, "stored")
	if err != nil {
		return err
	}
	begin := time.Now()
	for range 3 {
		if heard, err = p.hear(ctx, "stored"); err != nil {
			return err
		}
	}
	// Some moment within the next updates: this is no wait for anything.
	moment := time.NewTimer(rand.N(time.Since(begin) + time.Millisecond))
	defer moment.Stop()
	select {
	case <-moment.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	p.kill()
	if heard, err = p.rest("stored", heard); err != nil {
		return err
	}
	return b.survived(ctx, heard)
}

// survived checks that the session is the last one that was reported, or the
// next, which the writer did not live to report, and that the store goes on. An
// Update may know of that next one before Load does.
func (b *bench) survived(ctx context.Context, reported uint64) error {
	s, err := b.open()
	if err != nil {
		return err
	}
	found, err := s.Load(ctx)
	if err != nil {
		return failed("Load after the writer was killed", err)
	}
	if err := whole(found); err != nil {
		return err
	}
	if found.Generation < reported || found.Generation > reported+1 {
		return fmt.Errorf("generation %d was stored when Update returned, and %d is found", reported, found.Generation)
	}
	var last uint64
	err = b.update(ctx, s, func(current oauth.Session) (oauth.Session, error) {
		last = current.Generation
		if last < found.Generation || last > reported+1 {
			return current, fmt.Errorf("generation %d was stored when Update returned, Load finds %d and Update %d", reported, found.Generation, last)
		}
		return numbered(last + 1), whole(current)
	})
	if err != nil {
		return failed("Update after the writer was killed", err)
	}
	return b.expect(ctx, s, numbered(last+1))
}
