package keyringstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/ycauth/ycauth-go/internal/retry"
	"github.com/ycauth/ycauth-go/oauth"
)

// maxCalls is how many calls of the keyring run at once in a process, those that
// hang included.
const maxCalls = 16

// systemPlaces is for all stores: they have the one keyring.
var systemPlaces = make(chan struct{}, maxCalls)

// errLimit ends the context of a call. It is not seen outside.
var errLimit = errors.New("time limit")

// run runs f, which calls the keyring, in a goroutine of its own, and waits for
// it as long as ctx and the time limit allow. f's ctx ends when the wait does;
// f can return long after that. Then, or now if f is never run, comes after.
func (s *Store) run(ctx context.Context, f func(context.Context) error, after func()) error {
	limited, cancel := context.WithTimeoutCause(ctx, s.timeout, errLimit)
	defer cancel()
	select {
	case s.places <- struct{}{}:
	case <-limited.Done():
		after()
		return s.tooLate(ctx)
	}
	result := make(chan error, 1)
	go func() {
		err := caught(limited, f)
		<-s.places
		after()
		result <- err
	}()
	select {
	case err := <-result:
		return s.outcome(ctx, err)
	case <-limited.Done():
		return s.tooLate(ctx)
	}
}

// caught makes a panic an error. Package keyring has some for answers that it
// does not expect, for instance when the D-Bus connection ends during a prompt;
// nobody but us could catch one in our goroutine.
func caught(ctx context.Context, f func(context.Context) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("package keyring panicked: %v", r)
		}
	}()
	return f(ctx)
}

// outcome gives an error of f its type.
func (s *Store) outcome(ctx context.Context, err error) error {
	switch {
	case err == nil, errors.Is(err, oauth.ErrNoSession):
		return err
	case errors.Is(err, errLimit), ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
		return s.tooLate(ctx)
	case errors.Is(err, oauth.ErrSessionFormat):
		return s.error(oauth.ErrSessionFormat, err)
	}
	var r *ringError
	if errors.As(err, &r) {
		return s.error(kindOf(r.err), err)
	}
	return s.error(nil, err)
}

// tooLate says whether it was ctx that ended, or our own limit.
func (s *Store) tooLate(ctx context.Context) error {
	if ctx.Err() != nil {
		return retry.Ended(ctx)
	}
	return s.error(ErrTimeout, fmt.Errorf("nothing within %v", s.timeout))
}
