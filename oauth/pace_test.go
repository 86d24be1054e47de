package oauth

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

var (
	errSlow  = &ServerError{Status: 429, RetryAfter: 10 * time.Second}
	errDown  = &ServerError{Status: 503}
	errNo    = &ServerError{Status: 400, Code: "invalid_grant"}
	errLater = &ServerError{Status: 503, RetryAfter: time.Hour}
)

// When the next request may be sent, after what was heard.
func TestPaceTurn(t *testing.T) {
	for _, tt := range []struct {
		name  string
		heard []error
		login bool
		want  time.Duration
		err   bool
	}{
		{"at the rate", []error{nil, nil, nil}, false, 0, false},
		{"a short quiet time is waited for", []error{&ServerError{Status: 503, RetryAfter: 4 * time.Second}}, false, 4 * time.Second, false},
		{"a long one is not", []error{errSlow}, false, 0, true},
		{"nor a very long one", []error{errLater, nil}, false, 0, true},
		{"a login does not wait", []error{errLater}, true, 0, false},
		{"a Retry-After of what is not temporary", []error{&ServerError{Status: 400, Code: "invalid_grant", RetryAfter: time.Hour}}, false, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			defer noJitter()()
			synctest.Test(t, func(t *testing.T) {
				p := newPace(1000)
				for _, err := range tt.heard {
					p.heard(err)
				}
				start := time.Now()
				err := p.turn(t.Context(), tt.login)
				if waited := time.Since(start); waited != tt.want || (err != nil) != tt.err {
					t.Errorf("%v after %v, want %v", err, waited, tt.want)
				}
				var server *ServerError
				if tt.err && (!errors.As(err, &server) || server.RetryAfter == 0 || server.RetryAfter > maxServerCooldown) {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

func noJitter() (reset func()) {
	before := jitter
	jitter = func(int64) int64 { return 0 }
	return func() { jitter = before }
}

// Requests that wait for their turn when the server asks for silence are not sent.
func TestPaceQuietBegins(t *testing.T) {
	defer noJitter()()
	synctest.Test(t, func(t *testing.T) {
		p := newPace(1)
		var sent []time.Duration
		start := time.Now()
		done := make(chan error, 5)
		for range 5 {
			go func() {
				err := p.turn(t.Context(), false)
				if err == nil {
					sent = append(sent, time.Since(start)) // one after the other
					p.heard(nil)
				}
				done <- err
			}()
		}
		time.Sleep(1500 * time.Millisecond)
		p.heard(&ServerError{Status: 429, RetryAfter: time.Minute})
		failed := 0
		for range 5 {
			if err := <-done; err != nil {
				failed++
			}
		}
		if len(sent) != 2 || failed != 3 || time.Since(start) > 5*time.Second {
			t.Errorf("sent at %v, %d failed, after %v", sent, failed, time.Since(start))
		}
	})
}

// The first request is alone, but not for ever.
func TestPaceFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace(1000)
		start := time.Now()
		for i, want := range []time.Duration{0, firstWait, firstWait + time.Millisecond} {
			if err := p.turn(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			if at := time.Since(start); at != want {
				t.Errorf("request %d after %v, want %v", i, at, want)
			}
		}
		p = newPace(1000)
		if err := p.turn(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.turn(ctx, false); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

func TestPaceDown(t *testing.T) {
	lost := &lostError{errors.New("the line went dead")}
	for _, tt := range []struct {
		name  string
		heard []error
		down  bool
	}{
		{"nothing", nil, false},
		{"nine failures", repeat(errDown, 9), false},
		{"ten", repeat(errDown, 10), true},
		{"ten lost responses", repeat(lost, 10), true},
		{"ten connections that fail", repeat(&UnreachableError{errors.New("refused")}, 10), true},
		{"ten malformed responses", repeat(&ServerError{Status: 200, Err: ErrMalformedResponse}, 10), true},
		{"a success between", append(repeat(errDown, 9), nil, errDown), false},
		{"a refusal between", append(repeat(errDown, 9), errNo, errDown), false},
		{"a success after", append(repeat(errDown, 20), nil), false},
		{"what is not the server's", append(repeat(errDown, 9), repeat(context.Canceled, 5)...), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPace(1000)
			for _, err := range tt.heard {
				p.heard(err)
			}
			if p.down() != tt.down {
				t.Errorf("down: %v", p.down())
			}
			until, patient, one, err := p.held(time.Now())
			if one != tt.down || patient == tt.down || until.IsZero() == tt.down || (err != nil) != tt.down {
				t.Errorf("%v, %v, %v, %v", until, patient, one, err)
			}
			var gone *lostError
			if errors.As(err, &gone) || errors.Is(err, ErrOutcomeUnknown) {
				t.Errorf("the outcome of another one's request is known: %v", err)
			}
		})
	}
}

func repeat(err error, n int) []error {
	all := make([]error, n)
	for i := range all {
		all[i] = err
	}
	return all
}

func TestPaceRetries(t *testing.T) {
	p := newPace(1000)
	for i := range maxRetries + 2 {
		if ok := p.mayRetry(); ok != (i < maxRetries) {
			t.Errorf("retry %d: %v", i, ok)
		}
	}
	for range 11 { // 10 tenths may be less than 1
		p.heard(nil)
	}
	if !p.mayRetry() || p.mayRetry() {
		t.Error("10 successes are not worth one retry")
	}
}

// A time that was reserved is given back if nothing is sent then.
func TestPaceGivesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace(1)
		start := time.Now()
		if err := p.turn(t.Context(), false); err != nil { // at 0 s
			t.Fatal(err)
		}
		p.heard(nil)
		short, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		for range 100 {
			if err := p.turn(short, false); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 0 {
				t.Fatalf("%v after %v", err, time.Since(start))
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan time.Duration, 10)
		for _, ctx := range []context.Context{ctx, t.Context(), ctx, ctx} { // at 1, 2, 3 and 4 s
			go func() {
				if p.turn(ctx, false) == nil {
					done <- time.Since(start)
				} else {
					done <- -1
				}
			}()
			synctest.Wait()
		}
		cancel()
		synctest.Wait()
		for i, want := range []time.Duration{-1, -1, -1} {
			if got := <-done; got != want {
				t.Errorf("%d: %v, want %v", i, got, want)
			}
		}
		for _, want := range []time.Duration{time.Second, 3 * time.Second, 4 * time.Second} {
			if err := p.turn(t.Context(), false); err != nil || time.Since(start) != want {
				t.Errorf("%v after %v, want %v", err, time.Since(start), want)
			}
		}
		if got := <-done; got != 2*time.Second {
			t.Errorf("the one that waited on was sent after %v", got)
		}
	})
}
