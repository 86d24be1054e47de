package refreshtoken_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
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
	for name, try := range map[string]func() (*refreshtoken.RevokeReport, error){
		"an empty ID": func() (*refreshtoken.RevokeReport, error) {
			return r.client().RevokeEach(t.Context(), []string{"aje1", ""}, refreshtoken.RevokeEachOptions{})
		},
		"too many at a time": func() (*refreshtoken.RevokeReport, error) {
			return r.client().RevokeEach(t.Context(), names(1), refreshtoken.RevokeEachOptions{Concurrency: 33})
		},
		"a mistake in an option": func() (*refreshtoken.RevokeReport, error) {
			return refreshtoken.NewClient(nil, refreshtoken.WithEndpoint("")).RevokeEach(t.Context(), names(1), refreshtoken.RevokeEachOptions{})
		},
	} {
		report, err := try()
		as[*refreshtoken.ArgumentError](t, err)
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
