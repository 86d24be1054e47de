package refreshtoken_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/internal/tokenapi"
	"github.com/ycauth/ycauth-go/refreshtoken"
)

// revoker is a service that takes a second for each token and fails as told.
type revoker struct {
	fails   map[string]error
	running atomic.Int64
	most    atomic.Int64
	asked   atomic.Int64
}

func (r *revoker) client() *refreshtoken.Client {
	return refreshtoken.New(&fakeTransport{
		revoke: func(ctx context.Context, _ tokenapi.Call, req tokenapi.RevokeRequest) (*operationState, error) {
			r.asked.Add(1)
			if n := r.running.Add(1); n > r.most.Load() {
				r.most.Store(n)
			}
			defer r.running.Add(-1)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return nil, &refreshtoken.TransportError{Err: ctx.Err()}
			}
			if err := r.fails[req.RefreshTokenID]; err != nil {
				return nil, err
			}
			return &operationState{ID: "ajo1", Done: true, Response: &tokenapi.Response{RefreshTokenIDs: []string{req.RefreshTokenID}}}, nil
		},
	}, refreshtoken.WithRetry(refreshtoken.RetryPolicy{Attempts: 1}))
}

func names(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("aje%02d", i)
	}
	return ids
}

func TestRevokeEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inUse := &refreshtoken.APIError{Code: refreshtoken.CodeFailedPrecondition}
		r := &revoker{fails: map[string]error{"aje02": &refreshtoken.APIError{Code: refreshtoken.CodeNotFound, Message: "there is no such refresh token"}, "aje05": inUse}}
		start := time.Now()
		var seen []refreshtoken.RevokeProgress
		report, err := r.client().RevokeEach(t.Context(), append(names(8), "aje01"), refreshtoken.RevokeEachOptions{
			Progress: func(p refreshtoken.RevokeProgress) { seen = append(seen, p) },
		})
		if err != nil {
			t.Fatal(err)
		}
		if r.most.Load() != 4 || time.Since(start) != 2*time.Second {
			t.Errorf("%d at a time took %v, want 4 and 2s", r.most.Load(), time.Since(start))
		}
		want := &refreshtoken.RevokeReport{
			Revoked: []string{"aje00", "aje01", "aje03", "aje04", "aje06", "aje07"},
			Gone:    []string{"aje02"},
			Failed:  []refreshtoken.RevokeFailure{{ID: "aje05", Err: inUse}},
		}
		if !reflect.DeepEqual(report, want) {
			t.Errorf("got %+v, want %+v", report, want)
		}
		if err := report.Err(); !errors.Is(err, inUse) || !strings.Contains(err.Error(), `"aje05"`) {
			t.Errorf("got %v", err)
		}
		if len(seen) != 8 {
			t.Fatalf("told of %d tokens", len(seen))
		}
		for i, p := range seen {
			if p.Done != i+1 || p.Total != 8 || (p.Err != nil) != (p.ID == "aje02" || p.ID == "aje05") {
				t.Errorf("progress %d: %+v", i, p)
			}
		}
	})
}

func TestRevokeEachDryRun(t *testing.T) {
	r := &revoker{}
	told := 0
	report, err := r.client().RevokeEach(t.Context(), names(3), refreshtoken.RevokeEachOptions{
		DryRun: true, Progress: func(refreshtoken.RevokeProgress) { told++ },
	})
	if want := (&refreshtoken.RevokeReport{DryRun: true, Revoked: names(3)}); err != nil || !reflect.DeepEqual(report, want) {
		t.Errorf("got %+v and %v, want %+v", report, err, want)
	}
	if r.asked.Load() != 0 || told != 3 || report.Err() != nil {
		t.Errorf("%d requests, told of %d tokens, %v", r.asked.Load(), told, report.Err())
	}
}

// TestRevokeEachStops where no other token would fare better.
func TestRevokeEachStops(t *testing.T) {
	noLogin := errors.New("log in again")
	for name, failure := range map[string]error{
		"refused credentials": &refreshtoken.APIError{Code: refreshtoken.CodeUnauthenticated},
		"no credentials":      &refreshtoken.TransportError{Err: noLogin},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &revoker{fails: map[string]error{"aje02": failure}}
				report, err := r.client().RevokeEach(t.Context(), names(6), refreshtoken.RevokeEachOptions{Concurrency: 1})
				if !errors.Is(err, failure) || len(report.Revoked) != 2 || len(report.Failed) != 1 || strings.Join(report.NotTried, " ") != "aje03 aje04 aje05" {
					t.Errorf("got %+v and %v", report, err)
				}
			})
		})
	}
}

func TestRevokeEachEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		r := &revoker{}
		report, err := r.client().RevokeEach(ctx, names(6), refreshtoken.RevokeEachOptions{Concurrency: 2})
		if !errors.Is(err, context.DeadlineExceeded) || len(report.Revoked) != 2 || len(report.Failed) != 2 || len(report.NotTried) != 2 {
			t.Errorf("got %+v and %v", report, err)
		}
		report, err = r.client().RevokeEach(ctx, names(3), refreshtoken.RevokeEachOptions{})
		if !errors.Is(err, context.DeadlineExceeded) || len(report.NotTried) != 3 {
			t.Errorf("after the end: got %+v and %v", report, err)
		}
	})
}

func TestRevokeEachRefuses(t *testing.T) {
	r := &revoker{}
	fields := map[string]string{"an empty ID": "ids[1]", "a long ID": "ids[20]", "a negative time": "RevokeEachOptions.Timeout", "too many at a time": "RevokeEachOptions.Concurrency"}
	for name, try := range map[string]func() (*refreshtoken.RevokeReport, error){
		"an empty ID": func() (*refreshtoken.RevokeReport, error) {
			return r.client().RevokeEach(t.Context(), []string{"aje1", ""}, refreshtoken.RevokeEachOptions{})
		},
		"a long ID": func() (*refreshtoken.RevokeReport, error) {
			return r.client().RevokeEach(t.Context(), append(names(20), strings.Repeat("a", 51)), refreshtoken.RevokeEachOptions{})
		},
		"a negative time": func() (*refreshtoken.RevokeReport, error) {
			return r.client().RevokeEach(t.Context(), names(1), refreshtoken.RevokeEachOptions{Timeout: -1})
		},
		"too many at a time": func() (*refreshtoken.RevokeReport, error) {
			return r.client().RevokeEach(t.Context(), names(1), refreshtoken.RevokeEachOptions{Concurrency: 33})
		},
		"a mistake in an option": func() (*refreshtoken.RevokeReport, error) {
			return refreshtoken.NewClient(nil, refreshtoken.WithEndpoint("")).RevokeEach(t.Context(), names(1), refreshtoken.RevokeEachOptions{})
		},
	} {
		report, err := try()
		wantText(t, as[*refreshtoken.ArgumentError](t, err).Field, fields[name])
		if report != nil {
			t.Errorf("%s: got %+v", name, report)
		}
	}
	if report, err := r.client().RevokeEach(t.Context(), nil, refreshtoken.RevokeEachOptions{}); err != nil || report == nil {
		t.Errorf("no tokens: got %+v and %v", report, err)
	}
	if n := r.asked.Load(); n != 0 {
		t.Errorf("%d requests", n)
	}
}

// TestRevokeEachGoesOnAfterAnOperation: one that ended as unauthenticated is about one
// token, since the request to start it was accepted.
func TestRevokeEachGoesOnAfterAnOperation(t *testing.T) {
	failure := func() *refreshtoken.APIError { return &refreshtoken.APIError{Code: refreshtoken.CodeUnauthenticated} }
	for _, c := range []struct {
		name  string
		state func() (*operationState, error)
		stops bool
	}{
		{"an operation", func() (*operationState, error) {
			return &operationState{ID: "op1", Done: true, Err: failure()}, nil
		}, false},
		{"an operation without an ID", func() (*operationState, error) {
			return &operationState{Done: true, Err: failure()}, nil
		}, false},
		{"a request", func() (*operationState, error) { return nil, failure() }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := refreshtoken.New(&fakeTransport{revoke: func(context.Context, tokenapi.Call, tokenapi.RevokeRequest) (*operationState, error) {
				return c.state()
			}})
			report, err := client.RevokeEach(t.Context(), names(3), refreshtoken.RevokeEachOptions{Concurrency: 1})
			if got := len(report.NotTried) > 0; got != c.stops || errors.Is(err, refreshtoken.ErrUnauthenticated) != c.stops {
				t.Errorf("got %+v and %v", report, err)
			}
		})
	}
}

// TestRevokeEachInterruptedInARetry: the error of a token that was going to be tried again
// is that of the service, but the batch was interrupted.
func TestRevokeEachInterruptedInARetry(t *testing.T) {
	for _, n := range []int{1, 2, 4, 5} {
		synctest.Test(t, func(t *testing.T) {
			client := refreshtoken.New(&fakeTransport{revoke: func(context.Context, tokenapi.Call, tokenapi.RevokeRequest) (*operationState, error) {
				return nil, &refreshtoken.APIError{Code: refreshtoken.CodeUnavailable, RetryAfter: 20 * time.Second}
			}})
			ctx, cancel := context.WithCancelCause(t.Context())
			left := errors.New("the user left")
			time.AfterFunc(time.Second, func() { cancel(left) })
			report, err := client.RevokeEach(ctx, names(n), refreshtoken.RevokeEachOptions{})
			if e := as[*refreshtoken.TransportError](t, err); e.Method != "RevokeEach" || !errors.Is(err, context.Canceled) || !errors.Is(err, left) {
				t.Errorf("%d tokens: got %v", n, err)
			}
			if len(report.Failed) != min(n, 4) || len(report.NotTried) != n-min(n, 4) || !errors.Is(report.Err(), refreshtoken.ErrUnavailable) {
				t.Errorf("%d tokens: got %+v", n, report)
			}
		})
	}
}

// TestRevokeEachObeysRetryAfter: a server that asks to wait does not mean one token.
func TestRevokeEachObeysRetryAfter(t *testing.T) {
	quota := func(code refreshtoken.Code, after time.Duration) *refreshtoken.APIError {
		return &refreshtoken.APIError{Code: code, RetryAfter: after}
	}
	for _, c := range []struct {
		name     string
		err      *refreshtoken.APIError
		requests int // of one worker
		stops    bool
	}{
		{"longer than is allowed", quota(refreshtoken.CodeResourceExhausted, time.Hour), 1, true},
		{"at every attempt", quota(refreshtoken.CodeUnavailable, 10*time.Second), 4, true},
		{"without a time", quota(refreshtoken.CodeUnavailable, 0), 4 * 5, false},
		{"of a failure that is final", quota(refreshtoken.CodeFailedPrecondition, time.Hour), 5, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				requests := 0
				client := refreshtoken.New(&fakeTransport{revoke: func(context.Context, tokenapi.Call, tokenapi.RevokeRequest) (*operationState, error) {
					requests++
					return nil, c.err
				}})
				report, err := client.RevokeEach(t.Context(), names(5), refreshtoken.RevokeEachOptions{Concurrency: 1})
				if requests != c.requests || errors.Is(err, c.err) != c.stops || (err != nil) != c.stops || (len(report.NotTried) == 4) != c.stops {
					t.Errorf("got %+v and %v after %d requests", report, err, requests)
				}
			})
		})
	}
	t.Run("several at a time", func(t *testing.T) {
		s := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3600")
			answerJSON(w, http.StatusTooManyRequests, `{"code":8}`)
		})
		report, err := s.client().RevokeEach(t.Context(), names(100), refreshtoken.RevokeEachOptions{})
		if e := as[*refreshtoken.APIError](t, err); e.RetryAfter != time.Hour || len(s.seen()) > 4 || len(report.Failed)+len(report.NotTried) != 100 {
			t.Errorf("got %v after %d requests, %d failed", err, len(s.seen()), len(report.Failed))
		}
	})
}

// TestRevokeEachLeavesWhatHangs: operations that never end do not keep the other tokens
// from being revoked.
func TestRevokeEachLeavesWhatHangs(t *testing.T) {
	for timeout, took := range map[time.Duration]time.Duration{0: 2 * time.Minute, 10 * time.Second: 10 * time.Second} {
		for _, where := range []string{"operation", "request"} {
			synctest.Test(t, func(t *testing.T) {
				client := refreshtoken.New(&fakeTransport{
					revoke: func(ctx context.Context, _ tokenapi.Call, req tokenapi.RevokeRequest) (*operationState, error) {
						switch hangs := req.RefreshTokenID < "aje04"; {
						case hangs && where == "request":
							<-ctx.Done()
							return nil, &refreshtoken.TransportError{Err: context.Cause(ctx)}
						case hangs:
							return &operationState{ID: "op1"}, nil
						}
						return &operationState{ID: "op2", Done: true, Response: &tokenapi.Response{RefreshTokenIDs: []string{req.RefreshTokenID}}}, nil
					},
					operation: func(context.Context, tokenapi.Call, string) (*operationState, error) {
						return &operationState{ID: "op1"}, nil
					},
				})
				start := time.Now()
				report, err := client.RevokeEach(t.Context(), names(54), refreshtoken.RevokeEachOptions{Timeout: timeout})
				if err != nil || len(report.Revoked) != 50 || len(report.Failed) != 4 || time.Since(start) != took {
					t.Errorf("%s, %v: got %d revoked, %d failed and %v after %v", where, timeout, len(report.Revoked), len(report.Failed), err, time.Since(start))
				}
				wantText(t, report.Err().Error(), "the Timeout of RevokeEachOptions has passed")
				if where == "operation" && !errors.Is(report.Err(), context.DeadlineExceeded) {
					t.Errorf("got %v", report.Err())
				}
			})
		}
	}
}

// TestRevokeEachTimeoutBeforeRetryAfter: a server that asks to wait for longer than one
// token may take ends the time of that token, and neither the batch nor the wait.
func TestRevokeEachTimeoutBeforeRetryAfter(t *testing.T) {
	busy := &refreshtoken.APIError{Code: refreshtoken.CodeUnavailable, RetryAfter: 20 * time.Second}
	for _, where := range []string{"request", "operation"} {
		t.Run(where, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				requests := map[string]int{}
				client := refreshtoken.New(&fakeTransport{
					revoke: func(_ context.Context, _ tokenapi.Call, req tokenapi.RevokeRequest) (*operationState, error) {
						requests[req.RefreshTokenID]++
						switch {
						case req.RefreshTokenID == "aje01" && where == "request":
							return nil, busy
						case req.RefreshTokenID == "aje01":
							return &operationState{ID: "op1"}, nil
						}
						return &operationState{ID: "op2", Done: true, Response: &tokenapi.Response{RefreshTokenIDs: []string{req.RefreshTokenID}}}, nil
					},
					operation: func(context.Context, tokenapi.Call, string) (*operationState, error) { return nil, busy },
				})
				start := time.Now()
				report, err := client.RevokeEach(t.Context(), names(4), refreshtoken.RevokeEachOptions{Concurrency: 1, Timeout: 10 * time.Second})
				if err != nil || strings.Join(report.Revoked, " ") != "aje00 aje02 aje03" || len(report.Failed) != 1 {
					t.Fatalf("got %+v and %v", report, err)
				}
				failure := report.Failed[0].Err
				if !errors.Is(failure, context.DeadlineExceeded) || !errors.Is(failure, busy) {
					t.Errorf("got %v", failure)
				}
				wantText(t, failure.Error(), "the Timeout of RevokeEachOptions has passed")
				if time.Since(start) != 10*time.Second || requests["aje01"] != 1 {
					t.Errorf("%v after %v", requests, time.Since(start))
				}
			})
		})
	}
	t.Run("the deadline of the batch", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			client := refreshtoken.New(&fakeTransport{revoke: func(context.Context, tokenapi.Call, tokenapi.RevokeRequest) (*operationState, error) {
				return nil, busy
			}})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			start := time.Now()
			report, err := client.RevokeEach(ctx, names(4), refreshtoken.RevokeEachOptions{Concurrency: 1, Timeout: 15 * time.Second})
			if !errors.Is(err, busy) || len(report.NotTried) != 3 || time.Since(start) != 0 {
				t.Errorf("got %+v and %v after %v", report, err, time.Since(start))
			}
		})
	})
}

// TestRevokeEachProgressLeaves: a panic of Progress, and the FailNow of a test in it, are
// those of the caller, and nothing goes on.
func TestRevokeEachProgressLeaves(t *testing.T) {
	for name, leave := range map[string]func(){"panic": func() { panic("left") }, "Goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &revoker{}
				var returned bool
				var left any
				done := make(chan struct{})
				go func() {
					defer close(done)
					defer func() { left = recover() }()
					r.client().RevokeEach(t.Context(), names(10), refreshtoken.RevokeEachOptions{
						Progress: func(refreshtoken.RevokeProgress) { leave() },
					})
					returned = true
				}()
				<-done
				if returned || (left == "left") != (name == "panic") || r.running.Load() != 0 || r.asked.Load() != 4 {
					t.Errorf("returned: %v, %v; %d running of %d", returned, left, r.running.Load(), r.asked.Load())
				}
			})
		})
	}
}

// TestRevokeEachProgressCancels: no token is begun after that.
func TestRevokeEachProgressCancels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &revoker{}
		ctx, cancel := context.WithCancel(t.Context())
		report, err := r.client().RevokeEach(ctx, names(10), refreshtoken.RevokeEachOptions{
			Concurrency: 1,
			Progress:    func(refreshtoken.RevokeProgress) { cancel() },
		})
		if !errors.Is(err, context.Canceled) || len(report.Revoked) != 1 || len(report.NotTried) != 9 || r.asked.Load() != 1 {
			t.Errorf("got %+v and %v", report, err)
		}
	})
}

// TestRevokeEachTransportLeaves: a RoundTripper that ends its goroutine ends the batch.
func TestRevokeEachTransportLeaves(t *testing.T) {
	client := refreshtoken.New(&fakeTransport{revoke: func(context.Context, tokenapi.Call, tokenapi.RevokeRequest) (*operationState, error) {
		runtime.Goexit()
		return nil, nil
	}})
	report, err := client.RevokeEach(t.Context(), names(6), refreshtoken.RevokeEachOptions{})
	if as[*refreshtoken.TransportError](t, err).Temporary || len(report.Failed) != 4 || len(report.NotTried) != 2 {
		t.Errorf("got %+v and %v", report, err)
	}
}
