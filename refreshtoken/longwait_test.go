package refreshtoken_test

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/refreshtoken"
)

type answering struct {
	status   int
	requests int
}

func (a *answering) RoundTrip(req *http.Request) (*http.Response, error) {
	a.requests++
	return &http.Response{
		StatusCode: a.status, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(`{"id":"op1","done":false}`)), Request: req,
	}, nil
}

// TestLongestWait: waits that are meant to be without end are of a day, before jitter.
func TestLongestWait(t *testing.T) {
	for _, initial := range []time.Duration{math.MaxInt64, math.MaxInt64 / 2, 25 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			server := &answering{status: 200}
			client := refreshtoken.NewClient(&http.Client{Transport: server},
				refreshtoken.WithPolling(refreshtoken.Polling{Initial: initial}),
				refreshtoken.WithRetry(refreshtoken.RetryPolicy{Attempts: 1000, Initial: initial}))
			op, err := client.Operation(t.Context(), "op1")
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 240*time.Hour)
			defer cancel()
			if _, err := op.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			if server.requests < 10 || server.requests > 22 {
				t.Errorf("%v: %d polls in 10 days", initial, server.requests)
			}
			*server = answering{status: 503}
			if _, err := client.Operation(ctx, "op1"); err == nil || server.requests != 0 {
				t.Errorf("after ctx: %v, %d requests", err, server.requests)
			}
			ctx, cancel = context.WithTimeout(t.Context(), 240*time.Hour)
			defer cancel()
			if _, err := client.Operation(ctx, "op1"); err == nil || server.requests < 9 || server.requests > 22 {
				t.Errorf("%v: %v after %d attempts in 10 days", initial, err, server.requests)
			}
		})
	}
}
