package storetest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
)

func checkNoSession(ctx context.Context, b *bench) error {
	s, err := b.open()
	if err != nil {
		return err
	}
	if err := b.expect(ctx, s, oauth.Session{}); err != nil {
		return err
	}
	err = b.update(ctx, s, func(current oauth.Session) (oauth.Session, error) {
		return oauth.Session{}, same(current, oauth.Session{})
	})
	if err != nil {
		return failed("Update without a session", err)
	}
	return b.expect(ctx, s, oauth.Session{})
}

func checkRoundTrip(ctx context.Context, b *bench) error {
	for name, session := range sessions() {
		if err := b.roundTrip(ctx, session); err != nil {
			return failed("a session "+name, err)
		}
	}
	return nil
}

func checkLarge(ctx context.Context, b *bench) error {
	for i, padding := range []int{1000, 2000, 10_000, 1500, 30_000, 1} {
		if err := b.roundTrip(ctx, padded(uint64(i)+1, padding)); err != nil {
			return failed(fmt.Sprintf("a session with two tokens of %d characters", padding), err)
		}
	}
	return nil
}

// roundTrip stores with one value and reads with two.
func (b *bench) roundTrip(ctx context.Context, session oauth.Session) error {
	s, err := b.open()
	if err != nil {
		return err
	}
	if err := b.put(ctx, s, session); err != nil {
		return failed("Update", err)
	}
	other, err := b.open()
	if err != nil {
		return err
	}
	for _, value := range []oauth.Store{s, other} {
		if err := b.expect(ctx, value, session); err != nil {
			return err
		}
		err := b.update(ctx, value, func(current oauth.Session) (oauth.Session, error) {
			return current, same(current, session)
		})
		if err != nil {
			return failed("Update", err)
		}
	}
	return b.close()
}

func checkUnchanged(ctx context.Context, b *bench) error {
	s, err := b.open()
	if err != nil {
		return err
	}
	if err := b.put(ctx, s, numbered(1)); err != nil {
		return failed("Update", err)
	}
	for range 2 {
		err := b.update(ctx, s, func(current oauth.Session) (oauth.Session, error) { return current, nil })
		if err != nil {
			return failed("Update that changes nothing", err)
		}
		if err := b.expect(ctx, s, numbered(1)); err != nil {
			return err
		}
	}
	return nil
}

func checkRemoval(ctx context.Context, b *bench) error {
	s, err := b.open()
	if err != nil {
		return err
	}
	for _, session := range []oauth.Session{numbered(1), numbered(3)} {
		for _, step := range []oauth.Session{session, {}, {}} {
			if err := b.put(ctx, s, step); err != nil {
				return failed("Update to "+describe(step), err)
			}
			other, err := b.open()
			if err != nil {
				return err
			}
			if err := errors.Join(b.expect(ctx, s, step), b.expect(ctx, other, step)); err != nil {
				return err
			}
			if err := b.close(); err != nil {
				return err
			}
			if s, err = b.open(); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkFnError(ctx context.Context, b *bench) error {
	s, err := b.open()
	if err != nil {
		return err
	}
	refused := errors.New("refused")
	for _, before := range []oauth.Session{{}, numbered(1)} {
		if err := b.put(ctx, s, before); err != nil {
			return failed("Update", err)
		}
		for _, result := range []oauth.Session{{}, numbered(2), before} {
			err := b.update(ctx, s, func(oauth.Session) (oauth.Session, error) { return result, refused })
			if err != refused { //nolint:errorlint // it must come back as it is
				return fmt.Errorf("Update returned %s, want fn's error as it is", said(err))
			}
			if err := b.expect(ctx, s, before); err != nil {
				return failed("after an error of fn", err)
			}
		}
	}
	return nil
}

func checkFnPanic(ctx context.Context, b *bench) error {
	s, err := b.open()
	if err != nil {
		return err
	}
	if err := b.put(ctx, s, numbered(1)); err != nil {
		return failed("Update", err)
	}
	if err := b.panicInside(ctx, s); err != nil {
		return err
	}
	if err := b.expect(ctx, s, numbered(1)); err != nil {
		return failed("after a panic of fn", err)
	}
	if err := b.put(ctx, s, numbered(2)); err != nil {
		return failed("Update after a panic of fn", err)
	}
	return b.expect(ctx, s, numbered(2))
}

func (b *bench) panicInside(ctx context.Context, s oauth.Store) (err error) {
	defer func() {
		if r := recover(); r != "fn's own" {
			err = fmt.Errorf("Update let a panic of fn out as %v and returned %s", r, said(err))
		}
	}()
	return b.update(ctx, s, func(oauth.Session) (oauth.Session, error) { panic("fn's own") })
}

func checkLoadDuringUpdate(ctx context.Context, b *bench) error {
	for _, before := range []oauth.Session{{}, numbered(1)} {
		s, err := b.open()
		if err != nil {
			return err
		}
		other, err := b.open()
		if err != nil {
			return err
		}
		if err := b.put(ctx, s, before); err != nil {
			return failed("Update", err)
		}
		err = b.update(ctx, s, func(oauth.Session) (oauth.Session, error) {
			for _, value := range []oauth.Store{s, other} {
				if err := b.expect(ctx, value, before); err != nil {
					return oauth.Session{}, failed("during an Update", err)
				}
			}
			return numbered(2), nil
		})
		if err != nil {
			return err
		}
		if err := errors.Join(b.expect(ctx, s, numbered(2)), b.expect(ctx, other, numbered(2))); err != nil {
			return failed("after an Update", err)
		}
		if err := b.close(); err != nil {
			return err
		}
	}
	return nil
}

func checkEndedBefore(ctx context.Context, b *bench) error {
	s, err := b.open()
	if err != nil {
		return err
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	for _, before := range []oauth.Session{{}, numbered(1)} {
		if err := b.put(ctx, s, before); err != nil {
			return failed("Update", err)
		}
		if err := b.updateUncalled(ended, s, context.Canceled); err != nil {
			return err
		}
		if _, err := s.Load(ended); !errors.Is(err, context.Canceled) {
			return fmt.Errorf("Load with a ctx that ended returned %s, which does not match %q", said(err), context.Canceled.Error())
		}
		if err := b.expect(ctx, s, before); err != nil {
			return err
		}
	}
	return nil
}

func checkCopies(ctx context.Context, b *bench) error {
	s, err := b.open()
	if err != nil {
		return err
	}
	given := numbered(1)
	if err := b.put(ctx, s, given); err != nil {
		return failed("Update", err)
	}
	given.Scopes[0] = "changed"
	if err := b.expect(ctx, s, numbered(1)); err != nil {
		return failed("after the caller changed the Scopes that it gave to Update", err)
	}
	loaded, err := s.Load(ctx)
	if err != nil {
		return failed("Load", err)
	}
	loaded.Scopes[0] = "changed"
	if err := b.expect(ctx, s, numbered(1)); err != nil {
		return failed("after the caller changed the Scopes that it got from Load", err)
	}
	refused := errors.New("refused")
	err = b.update(ctx, s, func(current oauth.Session) (oauth.Session, error) {
		current.Scopes[0] = "changed"
		return current, refused
	})
	if !errors.Is(err, refused) {
		return fmt.Errorf("Update returned %s, want fn's error as it is", said(err))
	}
	if err := b.expect(ctx, s, numbered(1)); err != nil {
		return failed("after fn changed the Scopes that it got, and failed", err)
	}
	err = b.update(ctx, s, func(current oauth.Session) (oauth.Session, error) {
		current.Scopes[0] = "changed"
		return current, nil
	})
	if err != nil {
		return failed("Update", err)
	}
	want := numbered(1)
	want.Scopes[0] = "changed"
	if err := b.expect(ctx, s, want); err != nil {
		return failed("after fn changed the Scopes that it got, and returned them", err)
	}
	return nil
}

func checkBroken(ctx context.Context, b *bench) error {
	s, err := b.open()
	if err != nil {
		return err
	}
	for _, before := range []oauth.Session{{}, numbered(1)} {
		for _, inFn := range []bool{false, true} {
			if err := b.put(ctx, s, before); err != nil {
				return failed("Update", err)
			}
			if err := b.whileBroken(ctx, s, before, inFn); err != nil {
				return err
			}
		}
	}
	return nil
}

// whileBroken is an Update of a store that cannot write, from the beginning or
// from fn on, and what comes after it.
func (b *bench) whileBroken(ctx context.Context, s oauth.Store, before oauth.Session, inFn bool) error {
	next := numbered(before.Generation + 1)
	mend := func() {}
	if !inFn {
		mend = b.breakIt()
	}
	err := b.update(ctx, s, func(oauth.Session) (oauth.Session, error) {
		if inFn {
			mend = b.breakIt()
		}
		return next, nil
	})
	mend()
	if err == nil {
		return errors.New("Update of a store that cannot write returned no error")
	}
	// Nobody knows whether it was stored, but nothing else may have been.
	known := func(found oauth.Session) error {
		if same(found, before) == nil {
			return nil
		}
		return same(found, next)
	}
	found, err := s.Load(ctx)
	if err != nil && !errors.Is(err, oauth.ErrNoSession) {
		return failed("Load after the store was mended", err)
	}
	if err := known(found); err != nil {
		return failed("Load after the store was mended", err)
	}
	err = b.update(ctx, s, func(current oauth.Session) (oauth.Session, error) { return numbered(5), known(current) })
	if err != nil {
		return failed("Update after the store was mended", err)
	}
	return b.expect(ctx, s, numbered(5))
}

func checkPowerFailure(ctx context.Context, b *bench) error {
	for round := range 20 {
		s, err := b.open()
		if err != nil {
			return err
		}
		cut := b.watch()
		var want oauth.Session
		for i := range round%3 + 1 {
			if want = numbered(uint64(i) + 1); round%4 == 3 && i == 2 {
				want = oauth.Session{}
			}
			if err := b.put(ctx, s, want); err != nil {
				cut()
				return failed("Update", err)
			}
		}
		left, err := b.openAt(cut())
		if err != nil {
			return failed("after a failure of the power", err)
		}
		if err := b.expect(ctx, left, want); err != nil {
			return failed("after a failure of the power", err)
		}
		if err := errors.Join(b.put(ctx, s, oauth.Session{}), b.close()); err != nil {
			return err
		}
	}
	return nil
}

// updateUncalled is an Update that must fail with an error that matches want
// before it calls fn.
func (b *bench) updateUncalled(ctx context.Context, s oauth.Store, want error) error {
	called := false
	err := b.update(ctx, s, func(oauth.Session) (oauth.Session, error) {
		called = true
		return numbered(9), nil
	})
	switch {
	case called:
		return errors.New("Update called fn, though ctx had ended before it could")
	case !errors.Is(err, want):
		return fmt.Errorf("Update with a ctx that ended returned %s, which does not match %q", said(err), want.Error())
	}
	return nil
}

func checkEndsWaiting(ctx context.Context, b *bench) error {
	s, err := b.open()
	if err != nil {
		return err
	}
	waiter, err := b.open()
	if err != nil {
		return err
	}
	for _, value := range []oauth.Store{s, waiter} {
		err := b.update(ctx, s, func(oauth.Session) (oauth.Session, error) {
			return numbered(1), b.waitInVain(ctx, value)
		})
		if err != nil {
			return err
		}
	}
	return b.expect(ctx, waiter, numbered(1))
}

// waitInVain updates s, which is locked, with contexts that end meanwhile. The
// lock stays taken until they have given up.
func (b *bench) waitInVain(ctx context.Context, s oauth.Store) error {
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	result := make(chan error, 1)
	go func() { result <- b.updateUncalled(waiting, s, context.Canceled) }()
	for range 100 {
		runtime.Gosched() // most often the wait has begun by now; either way it has to end
	}
	cancel()
	if err := <-result; err != nil {
		return err
	}
	short, cancel := context.WithTimeout(ctx, b.patience/1000)
	defer cancel()
	return b.updateUncalled(short, s, context.DeadlineExceeded)
}

func checkEndsInFn(ctx context.Context, b *bench) error {
	s, err := b.open()
	if err != nil {
		return err
	}
	for _, next := range []oauth.Session{numbered(1), numbered(3), {}} {
		inFn, cancel := context.WithCancel(ctx)
		var runs atomic.Bool
		err := b.update(inFn, s, func(oauth.Session) (oauth.Session, error) {
			runs.Store(true)
			defer runs.Store(false)
			cancel()
			time.Sleep(20 * time.Millisecond)
			return next, nil
		})
		cancel()
		if runs.Load() {
			return errors.New("Update returned while fn ran")
		}
		if err != nil {
			return failed("Update whose ctx ended in fn", err)
		}
		if err := b.expect(ctx, s, next); err != nil {
			return failed("after an Update whose ctx ended in fn", err)
		}
	}
	return nil
}

func checkGoroutines(ctx context.Context, b *bench) error {
	s, err := b.open()
	if err != nil {
		return err
	}
	return b.countUp(ctx, []oauth.Store{s}, b.goroutines(100))
}

func checkValues(ctx context.Context, b *bench) error {
	var values []oauth.Store
	for range 3 {
		s, err := b.open()
		if err != nil {
			return err
		}
		values = append(values, s)
	}
	return b.countUp(ctx, values, b.goroutines(15))
}

func (b *bench) goroutines(most int) int {
	if n := b.subject.Goroutines; n > 0 {
		return min(n, most)
	}
	return most
}

// countUp has many goroutines count the generation up, over several values.
func (b *bench) countUp(ctx context.Context, values []oauth.Store, goroutines int) error {
	var wg sync.WaitGroup
	var inside atomic.Int32
	errs := make([]error, goroutines)
	for i := range goroutines {
		s := values[i%len(values)]
		wg.Go(func() {
			errs[i] = b.update(ctx, s, func(current oauth.Session) (oauth.Session, error) {
				if inside.Add(1) != 1 {
					return current, errors.New("fn ran twice at the same time")
				}
				defer inside.Add(-1)
				for range 10 {
					runtime.Gosched()
				}
				return numbered(current.Generation + 1), nil
			})
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return firstLine(err)
	}
	return b.expect(ctx, values[0], numbered(uint64(goroutines)))
}

// firstLine is the first of many errors that are much the same.
func firstLine(err error) error {
	first, _, more := strings.Cut(err.Error(), "\n")
	if !more {
		return err
	}
	return errors.New(first + " (and more)")
}
