package refreshtoken_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/refreshtoken"
)

// TestLimitsAreInclusive: what lies exactly at a limit is accepted.
func TestLimitsAreInclusive(t *testing.T) {
	s := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPost:
			answerJSON(w, http.StatusOK, `{"id":"op1","done":true,"response":{"refreshTokenIds":["aje1"]}}`)
		case strings.HasPrefix(r.URL.Path, "/operations/"):
			answerJSON(w, http.StatusOK, `{"id":"`+strings.TrimPrefix(r.URL.Path, "/operations/")+`"}`)
		default:
			w.Header().Set("X-Request-Id", "!id~")
			w.Header().Set("X-Server-Trace-Id", "~ !")
			answerJSON(w, http.StatusOK, `{}`)
		}
	})
	printable := s.client(refreshtoken.WithUserAgent(" agent ~"), refreshtoken.WithTraceID("trace ~"))
	for page, err := range printable.Pages(t.Context(), refreshtoken.ListOptions{}) {
		if err != nil || page.RequestID != "!id~" || page.ServerTraceID != "~!" {
			t.Errorf("got %+v and %v", page, err)
		}
	}
	for _, id := range []string{"-_09azAZ", strings.Repeat("a", 256)} {
		if _, err := s.client().Operation(t.Context(), id); err != nil {
			t.Errorf("the operation %q: %v", id, err)
		}
	}
	_, err := s.client().Operation(t.Context(), "a\x7f")
	as[*refreshtoken.ArgumentError](t, err)
	if _, err := s.client().Revoke(t.Context(), refreshtoken.ByToken("! ~")); err != nil {
		t.Errorf("a token of the first and the last character: %v", err)
	}
	report, err := s.client().RevokeEach(t.Context(), []string{"aje1"}, refreshtoken.RevokeEachOptions{Concurrency: 32})
	if err != nil || len(report.Revoked) != 1 {
		t.Errorf("32 at a time: %+v and %v", report, err)
	}
}

// TestRevokeEachThatEndsInTime: what happens to ctx after the last token does not matter.
func TestRevokeEachThatEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		report, err := (&revoker{}).client().RevokeEach(ctx, names(2), refreshtoken.RevokeEachOptions{
			Progress: func(p refreshtoken.RevokeProgress) {
				if p.Done == p.Total {
					cancel()
				}
			}})
		if err != nil || len(report.Revoked) != 2 {
			t.Errorf("got %+v and %v", report, err)
		}
	})
}

// TestRevokeEachInterrupted has an error, also where no token is left to begin with.
func TestRevokeEachInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		report, err := (&revoker{}).client().RevokeEach(ctx, names(2), refreshtoken.RevokeEachOptions{})
		if !errors.Is(err, context.DeadlineExceeded) || len(report.Failed) != 2 {
			t.Errorf("got %+v and %v", report, err)
		}
	})
}

// TestContextEndsWithinABody: that is not the network's failure.
func TestContextEndsWithinABody(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte(`{"refreshTokens":[`))
		_ = http.NewResponseController(w).Flush()
		cancel()
		<-r.Context().Done()
	})
	n := 0
	for _, err := range s.client(refreshtoken.WithLogger(counting(&n))).Pages(ctx, refreshtoken.ListOptions{}) {
		e := as[*refreshtoken.TransportError](t, err)
		if !errors.Is(err, context.Canceled) || e.Temporary || errors.Is(err, refreshtoken.ErrUnavailable) || n != 0 {
			t.Errorf("got %v, temporary %v, after %d retries", err, e.Temporary, n)
		}
	}
}

// TestContextEndsAfterABody: what is there is not thrown away.
func TestContextEndsAfterABody(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	hc := &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
		cancel()
		return response(http.StatusOK, "application/json", doneAtAll), nil
	})}
	if _, err := refreshtoken.NewClient(hc).Revoke(ctx, refreshtoken.AllMine()); err != nil {
		t.Errorf("a revocation that was begun is lost: %v", err)
	}
}

// TestPollingDefaultsOneByOne: each of them where the other is given.
func TestPollingDefaultsOneByOne(t *testing.T) {
	for _, c := range []struct {
		polling     refreshtoken.Polling
		least, most time.Duration // of the last wait, which is the longest but for jitter
	}{
		{refreshtoken.Polling{Initial: time.Second}, 2500 * time.Millisecond, 5 * time.Second},
		{refreshtoken.Polling{Max: time.Minute}, 30 * time.Second, time.Minute},
		{refreshtoken.Polling{Max: 100 * time.Millisecond}, 50 * time.Millisecond, 100 * time.Millisecond},
		{refreshtoken.Polling{Initial: time.Minute}, 30 * time.Second, time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			var polls []time.Duration
			op, err := pending(30, &polls, refreshtoken.WithPolling(c.polling)).Revoke(t.Context(), refreshtoken.AllMine())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := op.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			for i := range polls[1:] {
				if wait := polls[i+1] - polls[i]; wait > c.most {
					t.Errorf("%+v: a wait was %v", c.polling, wait)
				}
			}
			if polls[0] > c.most {
				t.Errorf("%+v: the first wait was %v", c.polling, polls[0])
			}
			if last := polls[29] - polls[28]; last < c.least || last > c.most {
				t.Errorf("%+v: the last wait was %v", c.polling, last)
			}
		})
	}
}

// TestBoundsOfFields: the first and the last of what a member can be.
func TestBoundsOfFields(t *testing.T) {
	for level, want := range map[string]refreshtoken.ProtectionLevel{
		"0": refreshtoken.ProtectionLevelUnspecified, "3": refreshtoken.SecureKeyDPoP, "4": "4", "-1": "-1",
	} {
		s := serve(t, answer(http.StatusOK, `{"refreshTokens":[{"protectionLevel":`+level+`,"createdAt":"0001-01-01T00:00:00Z","expiresAt":"9999-12-31T23:59:59.999999999Z"}]}`))
		tokens, err := list(s.client(), refreshtoken.ListOptions{})
		if err != nil || len(tokens) != 1 || tokens[0].ProtectionLevel != want || tokens[0].ExpiresAt.Year() != 9999 || !tokens[0].CreatedAt.IsZero() {
			t.Errorf("level %s: got %+v and %v", level, tokens, err)
		}
	}
	for _, at := range []string{"0000-12-31T23:59:59Z", "9999-12-31T23:59:59-01:00"} {
		s := serve(t, answer(http.StatusOK, `{"refreshTokens":[{"createdAt":"`+at+`"}]}`))
		_, err := list(s.client(), refreshtoken.ListOptions{})
		wantText(t, as[*refreshtoken.ResponseError](t, err).Error(), "createdAt is not in the years 1 to 9999")
	}
	for _, key := range []string{"0a9fAF00-0000-4000-8000-00000000000a", "99999999-ffff-4FFF-8aaa-AAAAAAAAAAAA"} {
		s := serve(t, answer(http.StatusOK, doneAtAll))
		if _, err := s.client().Revoke(t.Context(), refreshtoken.AllMine().WithIdempotencyKey(key)); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
}
