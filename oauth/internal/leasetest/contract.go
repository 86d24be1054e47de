package leasetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
)

// Contract checks what [oauth.LeaseStore] says. open returns two values for the same
// session, as two processes have them, without a session at first and with a place of
// its own at each call. Their leases last for lease. It is a test of its own for each
// row of the contract, in which time passes: use a short lease, or a bubble.
func Contract(t *testing.T, lease time.Duration, open func(t *testing.T) (a, b oauth.LeaseStore)) {
	type update func(oauth.Lease, oauth.Session) (oauth.Session, error)
	errOther := errors.New("leasetest: another error")
	ctx := context.Background()
	past := func() { time.Sleep(lease + lease/4) }
	do := func(t *testing.T, s oauth.LeaseStore, want error, fn update) {
		t.Helper()
		err := s.UpdateLease(ctx, fn)
		if want == nil && err != nil || !errors.Is(err, want) {
			t.Fatalf("UpdateLease: %v, want %v", err, want)
		}
	}
	put := func(n uint64) update {
		return func(oauth.Lease, oauth.Session) (oauth.Session, error) { return session(n), nil }
	}
	begin := func(t *testing.T, l oauth.Lease, want error) {
		t.Helper()
		_, holds, err := l.Begin(ctx)
		if want == nil && err != nil || !errors.Is(err, want) {
			t.Fatalf("Begin: %v, want %v", err, want)
		}
		if err == nil && (holds <= 0 || holds > lease) {
			t.Fatalf("Begin: the lease holds for %v, of %v", holds, lease)
		}
	}
	// begun begins a request, and returns what an update is to return.
	begun := func(t *testing.T, s oauth.Session, err error) update {
		return func(l oauth.Lease, stored oauth.Session) (oauth.Session, error) {
			begin(t, l, nil)
			if s.IsZero() {
				s = stored
			}
			return s, err
		}
	}
	marked := func(t *testing.T, s oauth.LeaseStore, want bool) {
		t.Helper()
		do(t, s, errOther, func(l oauth.Lease, stored oauth.Session) (oauth.Session, error) {
			if ago, interrupted := l.Interrupted(); interrupted != want || ago < 0 {
				t.Errorf("Interrupted: %v, %v; want %v", ago, interrupted, want)
			}
			return stored, errOther
		})
	}
	stored := func(t *testing.T, s oauth.LeaseStore, want uint64) {
		t.Helper()
		got, err := s.Load(ctx)
		if err != nil || got.RefreshToken != session(want).RefreshToken {
			t.Fatalf("stored: generation %d, %v; want %d", got.Generation, err, want)
		}
	}

	for _, row := range []struct {
		name          string
		fn            func(t *testing.T) update
		want          error
		marked, after bool // after it, and if there was a mark before
	}{
		{"another session", func(t *testing.T) update { return begun(t, session(2), nil) }, nil, false, false},
		{"the session it got", func(t *testing.T) update { return begun(t, oauth.Session{}, nil) }, nil, false, true},
		{"an unknown outcome", func(t *testing.T) update {
			return begun(t, oauth.Session{}, fmt.Errorf("%w: here", oauth.ErrOutcomeUnknown))
		}, oauth.ErrOutcomeUnknown, true, true},
		{"an unknown outcome without Begin", func(*testing.T) update {
			return func(_ oauth.Lease, s oauth.Session) (oauth.Session, error) { return s, oauth.ErrOutcomeUnknown }
		}, oauth.ErrOutcomeUnknown, false, true},
		{"another error", func(t *testing.T) update { return begun(t, session(2), errOther) }, errOther, false, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			a, b := open(t)
			do(t, a, nil, put(1))
			do(t, a, row.want, row.fn(t))
			marked(t, b, row.marked)
		})
		t.Run(row.name+", after a mark", func(t *testing.T) {
			a, b := open(t)
			do(t, a, nil, put(1))
			do(t, a, oauth.ErrOutcomeUnknown, begun(t, oauth.Session{}, oauth.ErrOutcomeUnknown))
			do(t, b, row.want, row.fn(t))
			marked(t, a, row.after)
			marked(t, a, row.after) // asking does not change it
		})
	}
	t.Run("a panic", func(t *testing.T) {
		a, b := open(t)
		do(t, a, nil, put(1))
		func() {
			defer func() { _ = recover() }()
			_ = a.UpdateLease(ctx, func(l oauth.Lease, _ oauth.Session) (oauth.Session, error) {
				begin(t, l, nil)
				panic("as a death")
			})
		}()
		marked(t, b, true)
		stored(t, b, 1)
	})
	t.Run("a lease that was lost", func(t *testing.T) {
		a, b := open(t)
		do(t, a, nil, put(1))
		do(t, a, errOther, func(former oauth.Lease, s oauth.Session) (oauth.Session, error) {
			past()
			do(t, b, nil, func(l oauth.Lease, _ oauth.Session) (oauth.Session, error) {
				begin(t, former, oauth.ErrLeaseLost)
				begin(t, l, nil)
				return session(2), nil
			})
			begin(t, former, oauth.ErrLeaseLost)
			return s, errOther
		})
		stored(t, a, 2)
		marked(t, a, false)
	})
	t.Run("a lease that ended, and nobody took", func(t *testing.T) {
		a, b := open(t)
		do(t, a, nil, put(1))
		do(t, a, nil, func(l oauth.Lease, _ oauth.Session) (oauth.Session, error) {
			past()
			if _, _, err := l.Begin(ctx); err != nil && !errors.Is(err, oauth.ErrLeaseLost) {
				t.Errorf("Begin: %v", err)
			}
			past()
			return session(2), nil
		})
		stored(t, b, 2)
	})
	t.Run("what a former holder gives back", func(t *testing.T) {
		a, b := open(t)
		do(t, a, nil, put(1))
		inside, left := make(chan struct{}), make(chan struct{})
		done := make(chan error, 1)
		do(t, a, errOther, func(former oauth.Lease, s oauth.Session) (oauth.Session, error) {
			begin(t, former, nil)
			past()
			go func() {
				done <- b.UpdateLease(ctx, func(l oauth.Lease, s oauth.Session) (oauth.Session, error) {
					_, _, err := l.Begin(ctx)
					close(inside)
					<-left
					if _, _, again := l.Begin(ctx); err != nil || again != nil {
						t.Errorf("Begin: %v, %v", err, again)
					}
					return s, oauth.ErrOutcomeUnknown
				})
			}()
			<-inside
			return s, errOther // its own mark had no effect; that of the next holder may have
		})
		close(left)
		if err := <-done; !errors.Is(err, oauth.ErrOutcomeUnknown) {
			t.Errorf("%v", err)
		}
		marked(t, a, true)
	})
	t.Run("a late session, before the next one", func(t *testing.T) {
		a, b := open(t)
		do(t, a, nil, put(1))
		inside, saved := make(chan struct{}), make(chan struct{})
		done := make(chan error, 1)
		do(t, a, nil, func(former oauth.Lease, _ oauth.Session) (oauth.Session, error) {
			begin(t, former, nil)
			past()
			go func() {
				done <- b.UpdateLease(ctx, func(l oauth.Lease, _ oauth.Session) (oauth.Session, error) {
					close(inside)
					<-saved
					if _, _, err := l.Begin(ctx); !errors.Is(err, oauth.ErrLeaseLost) {
						t.Errorf("Begin beside another session: %v", err)
					}
					return session(7), nil
				})
			}()
			<-inside
			return session(2), nil
		})
		close(saved)
		if err := <-done; !errors.Is(err, oauth.ErrLeaseLost) {
			t.Errorf("a session was stored over another one: %v", err)
		}
		stored(t, a, 2)
	})
	t.Run("a late session, after the next one", func(t *testing.T) {
		a, b := open(t)
		do(t, a, nil, put(1))
		do(t, a, oauth.ErrLeaseLost, func(former oauth.Lease, _ oauth.Session) (oauth.Session, error) {
			begin(t, former, nil)
			past()
			do(t, b, nil, put(7))
			return session(2), nil
		})
		stored(t, a, 7)
		marked(t, a, false)
	})
	t.Run("ctx ends in fn", func(t *testing.T) {
		a, b := open(t)
		do(t, a, nil, put(1))
		ending, cancel := context.WithCancel(ctx)
		err := a.UpdateLease(ending, func(l oauth.Lease, _ oauth.Session) (oauth.Session, error) {
			begin(t, l, nil)
			cancel()
			if _, _, err := l.Begin(ending); err == nil {
				t.Error("Begin with a ctx that ended")
			}
			return session(2), nil
		})
		if err != nil {
			t.Error(err)
		}
		stored(t, b, 2)
	})
}

func session(n uint64) oauth.Session {
	return oauth.Session{
		Provider: "test", ClientID: "client", RefreshToken: oauth.Secret(fmt.Sprint("rt-", n)), Generation: n,
		Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
}
