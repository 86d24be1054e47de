package keyringstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/ycauth/ycauth-go/internal/retry"
)

// maxCalls is how many calls of the keyring run at once in a process, those that
// hang included.
const maxCalls = 16

// systemPlaces is for all vaults: they have the one keyring.
var systemPlaces = make(chan struct{}, maxCalls)

// errLimit ends the context of a call. It is not seen outside.
var errLimit = errors.New("time limit")

// run runs f, which calls the keyring, in a goroutine of its own, and waits for
// it as long as ctx and the time limit allow. f's ctx ends when the wait does;
// f can return long after that. Then, or now if f is never run, comes after.
func (v *vault) run(ctx context.Context, f func(context.Context) ([]byte, error), after func()) ([]byte, error) {
	limited, cancel := context.WithTimeoutCause(ctx, v.timeout, errLimit)
	defer cancel()
	select {
	case v.places <- struct{}{}:
	case <-limited.Done():
		after()
		return nil, errLimit
	}
	type outcome struct {
		key []byte
		err error
	}
	result := make(chan outcome, 1)
	go func() {
		key, err := caught(limited, f)
		<-v.places
		after()
		result <- outcome{key, err}
	}()
	select {
	case o := <-result:
		return o.key, o.err
	case <-limited.Done():
		return nil, errLimit
	}
}

// caught makes a panic an error. Package keyring has some for answers that it
// does not expect, for instance when the D-Bus connection ends during a prompt;
// nobody but us could catch one in our goroutine.
func caught(ctx context.Context, f func(context.Context) ([]byte, error)) (key []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			key, err = nil, fmt.Errorf("package keyring panicked: %v", r)
		}
	}()
	return f(ctx)
}

// wrap gives an error its type. It says whether it was ctx that ended, or our own
// limit.
func (v *vault) wrap(ctx context.Context, err error) error {
	if ctx.Err() != nil && (errors.Is(err, errLimit) || errors.Is(err, context.Cause(ctx))) {
		if errors.Is(err, errLimit) {
			return retry.Ended(ctx)
		}
		return err // it says who holds the lock
	}
	var r *ringError
	switch {
	case errors.Is(err, errLimit):
		return v.error(ErrTimeout, fmt.Errorf("nothing within %v", v.timeout))
	case errors.Is(err, ErrKey):
		return v.error(ErrKey, nil)
	case errors.As(err, &r):
		return v.error(kindOf(r.err), err)
	}
	return v.error(nil, err)
}
