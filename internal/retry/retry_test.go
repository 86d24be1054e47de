package retry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

var errBusy = errors.New("busy")

// failing returns an operation that fails as the list says, then succeeds with
// the number of the attempt, and the times at which it was called.
func failing(errs ...error) (fn func(context.Context, int) (int, error), calls *[]time.Time) {
	calls = new([]time.Time)
	return func(_ context.Context, attempt int) (int, error) {
		*calls = append(*calls, time.Now())
		if attempt != len(*calls) {
			return 0, fmt.Errorf("attempt %d at call %d", attempt, len(*calls))
		}
		if attempt <= len(errs) {
			return -attempt, errs[attempt-1]
		}
		return attempt, nil
	}, calls
}

func times(err error, n int) []error { return slices.Repeat([]error{err}, n) }

func TestDoAttempts(t *testing.T) {
	for _, tt := range []struct {
		name      string
		policy    Policy
		errs      []error
		wantCalls int
		wantErr   error
	}{
		{"success at once", Policy{}, nil, 1, nil},
		{"success at last", Policy{}, times(Temporary(errBusy, 0), 3), 4, nil},
		{"four by default", Policy{}, times(Temporary(errBusy, 0), 9), 4, errBusy},
		{"as many as asked for", Policy{Attempts: 7}, times(Temporary(errBusy, 0), 9), 7, errBusy},
		{"no retry", Policy{Attempts: 1}, times(Temporary(errBusy, 0), 9), 1, errBusy},
		{"unmarked error", Policy{}, times(errBusy, 9), 1, errBusy},
		{"unmarked error after a marked one", Policy{}, []error{Temporary(errBusy, 0), context.DeadlineExceeded}, 2, context.DeadlineExceeded},
		{"marked, then wrapped", Policy{}, times(fmt.Errorf("list: %w", Temporary(errBusy, 0)), 9), 4, errBusy},
		{"server asks for too long", Policy{}, times(Temporary(errBusy, 31*time.Second), 9), 1, errBusy},
		{"server asks for just not too long", Policy{}, times(Temporary(errBusy, 30*time.Second), 9), 4, errBusy},
		{"server asks for longer than the policy has it", Policy{MaxServer: time.Second}, times(Temporary(errBusy, 2*time.Second), 9), 1, errBusy},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fn, calls := failing(tt.errs...)
				v, err := Do(t.Context(), tt.policy, fn)
				if !errors.Is(err, tt.wantErr) || len(*calls) != tt.wantCalls {
					t.Fatalf("%d calls, %v; want %d, %v", len(*calls), err, tt.wantCalls, tt.wantErr)
				}
				var mark *temporaryError
				if errors.As(err, &mark) {
					t.Error("the mark is still on the error")
				}
				want := tt.wantCalls // what fn returned comes along, with its error too
				if err != nil {
					want = -want
				}
				if v != want {
					t.Errorf("value %d, want %d", v, want)
				}
			})
		})
	}
}

func TestTemporaryOfNothing(t *testing.T) {
	if err := Temporary(nil, time.Second); err != nil {
		t.Errorf("Temporary(nil) = %v", err)
	}
	if err := Temporary(errBusy, 0); err.Error() != errBusy.Error() || !errors.Is(err, errBusy) {
		t.Errorf("the mark changes the error: %v", err)
	}
}

func TestDoWaits(t *testing.T) {
	for _, tt := range []struct {
		name     string
		policy   Policy
		after    time.Duration
		min, max []time.Duration // of each wait
	}{
		{"grow, with jitter", Policy{Attempts: 4}, 0,
			[]time.Duration{125 * time.Millisecond, 187 * time.Millisecond, 281 * time.Millisecond},
			[]time.Duration{375 * time.Millisecond, 563 * time.Millisecond, 844 * time.Millisecond}},
		{"bounded by Max, jitter included", Policy{Attempts: 40, Max: 300 * time.Millisecond}, 0,
			slices.Repeat([]time.Duration{125 * time.Millisecond}, 39),
			slices.Repeat([]time.Duration{300 * time.Millisecond}, 39)},
		{"never shorter than Retry-After", Policy{Attempts: 20, Max: time.Second}, 2 * time.Second,
			slices.Repeat([]time.Duration{2 * time.Second}, 19),
			slices.Repeat([]time.Duration{2 * time.Second}, 19)},
		{"Initial above the default of Max", Policy{Attempts: 4, Initial: 10 * time.Second}, 0,
			slices.Repeat([]time.Duration{5 * time.Second}, 3),
			slices.Repeat([]time.Duration{10 * time.Second}, 3)},
		{"longer than a short Retry-After", Policy{Attempts: 2, Initial: 4 * time.Second}, time.Second,
			[]time.Duration{2 * time.Second}, []time.Duration{5 * time.Second}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fn, calls := failing(times(Temporary(errBusy, tt.after), 99)...)
				var announced []time.Duration
				tt.policy.Notify = func(attempt int, err error, wait time.Duration) {
					if attempt != len(*calls) || err != errBusy { //nolint:errorlint // the very error, without the mark
						t.Errorf("Notify(%d, %v) after call %d", attempt, err, len(*calls))
					}
					announced = append(announced, wait)
				}
				if _, err := Do(t.Context(), tt.policy, fn); !errors.Is(err, errBusy) {
					t.Fatal(err)
				}
				if len(announced) != len(*calls)-1 || len(announced) != len(tt.min) {
					t.Fatalf("%d waits announced, %d calls", len(announced), len(*calls))
				}
				for i, wait := range announced {
					if real := (*calls)[i+1].Sub((*calls)[i]); real != wait {
						t.Errorf("wait %d announced as %v, was %v", i, wait, real)
					}
					if wait < tt.min[i] || wait > tt.max[i] {
						t.Errorf("wait %d is %v, want %v to %v", i, wait, tt.min[i], tt.max[i])
					}
				}
			})
		})
	}
}

// A Retry-After counts for the wait that follows it, not for later ones.
func TestDoForgetsRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fn, calls := failing(Temporary(errBusy, 20*time.Second), Temporary(errBusy, 0))
		if _, err := Do(t.Context(), Policy{}, fn); err != nil {
			t.Fatal(err)
		}
		if wait := (*calls)[2].Sub((*calls)[1]); wait > time.Second {
			t.Errorf("second wait: %v", wait)
		}
	})
}

func TestDoContext(t *testing.T) {
	cause := errors.New("shutting down")
	t.Run("cancelled while waiting", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			fn, calls := failing(times(Temporary(errBusy, 10*time.Second), 9)...)
			time.AfterFunc(3*time.Second, cancel)
			start := time.Now()
			_, err := Do(ctx, Policy{}, fn)
			if !errors.Is(err, context.Canceled) || !errors.Is(err, errBusy) {
				t.Errorf("Do: %v, want both errors", err)
			}
			if d := time.Since(start); d != 3*time.Second || len(*calls) != 1 {
				t.Errorf("%d calls, %v", len(*calls), d)
			}
		})
	})
	t.Run("cancelled with a cause", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			fn, _ := failing(times(Temporary(errBusy, 10*time.Second), 9)...)
			time.AfterFunc(time.Second, func() { cancel(cause) })
			_, err := Do(ctx, Policy{}, fn)
			if !errors.Is(err, context.Canceled) || !errors.Is(err, cause) || !errors.Is(err, errBusy) {
				t.Errorf("Do: %v, want all three errors", err)
			}
		})
	})
	t.Run("cancelled by the operation", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			notified := false
			_, err := Do(ctx, Policy{Notify: func(int, error, time.Duration) { notified = true }}, func(context.Context, int) (int, error) {
				cancel()
				return 0, Temporary(errBusy, 0)
			})
			if !errors.Is(err, context.Canceled) || !errors.Is(err, errBusy) || notified {
				t.Errorf("Do: %v, notified: %v", err, notified)
			}
		})
	})
	t.Run("deadline too near", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			fn, calls := failing(times(Temporary(errBusy, 5*time.Second), 9)...)
			start := time.Now()
			_, err := Do(ctx, Policy{}, fn)
			if !errors.Is(err, errBusy) || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Do: %v, want what the operation said alone", err)
			}
			if d := time.Since(start); d != 0 || len(*calls) != 1 {
				t.Errorf("%d calls, %v: a wait that cannot end was begun", len(*calls), d)
			}
		})
	})
	t.Run("until a deadline that is too near", func(t *testing.T) {
		for _, after := range []time.Duration{5 * time.Second, 20 * time.Second} {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Second, cause)
				defer cancel()
				fn, calls := failing(times(Temporary(errBusy, after), 9)...)
				start, notified := time.Now(), false
				_, err := Do(ctx, Policy{UntilDeadline: true, Notify: func(int, error, time.Duration) { notified = true }}, fn)
				if !errors.Is(err, errBusy) || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, cause) {
					t.Errorf("Do: %v, want all three errors", err)
				}
				if d := time.Since(start); d != 5*time.Second || len(*calls) != 1 || notified {
					t.Errorf("%d calls, %v, notified: %v", len(*calls), d, notified)
				}
			})
		}
	})
	t.Run("deadline far enough", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
			defer cancel()
			fn, calls := failing(times(Temporary(errBusy, 5*time.Second), 1)...)
			if _, err := Do(ctx, Policy{}, fn); err != nil || len(*calls) != 2 {
				t.Errorf("%d calls, %v", len(*calls), err)
			}
		})
	})
	t.Run("the operation gets the context", func(t *testing.T) {
		type key struct{}
		ctx := context.WithValue(t.Context(), key{}, "v")
		_, err := Do(ctx, Policy{}, func(ctx context.Context, _ int) (int, error) {
			if ctx.Value(key{}) != "v" {
				return 0, errors.New("another context")
			}
			return 0, nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func TestAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	const year = 365 * 24 * time.Hour
	for _, tt := range []struct {
		name, value string
		want        time.Duration
	}{
		{"seconds", "120", 2 * time.Minute},
		{"space around", " 7 ", 7 * time.Second},
		{"leading zeros", "007", 7 * time.Second},
		{"zero", "0", 0},
		{"a year", "31536000", year},
		{"more than a year", "31536001", year},
		{"more than an int64 of nanoseconds", "9223372037", year},
		{"more than an int64", "9223372036854775808", year},
		{"more than a uint64", "99999999999999999999999999", year},
		{"negative", "-1", 0},
		{"sign", "+5", 0},
		{"fraction", "1.5", 0},
		{"hexadecimal", "0x10", 0},
		{"other digits", "٥", 0},
		{"words", "soon", 0},
		{"empty", "", 0},
		{"two values in one", "5, 6", 0},
		{"HTTP date", "Fri, 02 Jan 2026 03:04:35 GMT", 30 * time.Second},
		{"RFC 850 date", "Friday, 02-Jan-26 03:04:35 GMT", 30 * time.Second},
		{"asctime date", "Fri Jan  2 03:04:35 2026", 30 * time.Second},
		{"HTTP date in the past", "Fri, 02 Jan 2026 03:04:04 GMT", 0},
		{"HTTP date in far future", "Fri, 31 Dec 9999 23:59:59 GMT", year},
		{"HTTP date in far past", "Mon, 01 Jan 0001 00:00:00 GMT", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := http.Header{}
			h.Set("Retry-After", tt.value)
			if got := After(h, now); got != tt.want {
				t.Errorf("After(%q) = %v, want %v", tt.value, got, tt.want)
			}
		})
	}
	if got := After(http.Header{}, now); got != 0 {
		t.Errorf("After without a header = %v", got)
	}
}

func FuzzAfter(f *testing.F) {
	for _, s := range []string{"1", "-1", "18446744073709551616", "Fri, 02 Jan 2026 03:04:35 GMT", "Fri Jan  2 03:04:35 2026", " 3\t"} {
		f.Add(s, int64(1767323045))
	}
	f.Fuzz(func(t *testing.T, value string, unix int64) {
		d := After(http.Header{"Retry-After": {value}}, time.Unix(unix, 0))
		if d < 0 || d > 365*24*time.Hour {
			t.Fatalf("After(%q) = %v", value, d)
		}
	})
}
