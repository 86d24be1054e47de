package refreshtoken_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/internal/tokenapi"
	"github.com/ycauth/ycauth-go/refreshtoken"
)

// revokeDone is a Revoke that is done at once and keeps the token it was given.
func revokeDone(got *func() string) func(context.Context, tokenapi.Call, tokenapi.RevokeRequest) (*operationState, error) {
	return func(_ context.Context, _ tokenapi.Call, req tokenapi.RevokeRequest) (*operationState, error) {
		*got = req.RefreshToken
		return &operationState{Done: true, Response: &tokenapi.Response{}}, nil
	}
}

// operation answers Revoke with the first state, and each poll with the next.
func operation(t *testing.T, states ...string) *server {
	t.Helper()
	return serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		if n > 1 && (r.Method != http.MethodGet || r.URL.EscapedPath() != "/operations/op1") {
			t.Errorf("request %d is %s %s", n, r.Method, r.URL.EscapedPath())
		}
		w.Header().Set("X-Request-Id", fmt.Sprintf("r%d", n))
		answerJSON(w, http.StatusOK, states[min(n, len(states))-1])
	})
}

func TestWait(t *testing.T) {
	for _, c := range []struct {
		name     string
		states   []string
		requests int
		want     *refreshtoken.RevokeResult
	}{
		{"done at once", []string{doneAtAll}, 1,
			&refreshtoken.RevokeResult{OperationID: "op1", SubjectID: "aje9", RefreshTokenIDs: []string{"a"}, Trace: refreshtoken.Trace{RequestID: "r1"}}},
		{"done at the third look", []string{`{"id":"op1"}`, `{"id":"op1","done":false,"metadata":null,"response":null}`, doneAtAll}, 3,
			&refreshtoken.RevokeResult{OperationID: "op1", SubjectID: "aje9", RefreshTokenIDs: []string{"a"}, Trace: refreshtoken.Trace{RequestID: "r3"}}},
		{"nothing was revoked", []string{`{"id":"op1","done":true,"response":{"@type":"type.googleapis.com/yandex.cloud.iam.v1.RevokeRefreshTokenResponse"}}`}, 1,
			&refreshtoken.RevokeResult{OperationID: "op1", Trace: refreshtoken.Trace{RequestID: "r1"}}},
		{"no ID, but done", []string{`{"done":true,"response":{},"new":1}`}, 1, &refreshtoken.RevokeResult{Trace: refreshtoken.Trace{RequestID: "r1"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := operation(t, c.states...)
			op, err := s.client().Revoke(t.Context(), refreshtoken.AllMine())
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				got, err := op.Wait(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(got, c.want) {
					t.Errorf("got %+v, want %+v", got, c.want)
				}
				got.RefreshTokenIDs = append(got.RefreshTokenIDs[:0], "changed by the caller")
			}
			if n := len(s.seen()); n != c.requests {
				t.Errorf("%d requests, want %d", n, c.requests)
			}
			if !op.Done() {
				t.Error("not done after Wait")
			}
			if n := s.open.Load(); n != 0 {
				t.Errorf("%d bodies were not closed", n)
			}
		})
	}
}

func TestWaitFailedOperation(t *testing.T) {
	const failure = `"error":{"code":7,"message":"no rights for ` + someToken + `","details":[{"@type":"x","requestId":"r"}]}`
	for name, states := range map[string][]string{
		"done":             {`{"id":"op1"}`, `{"id":"op1","done":true,` + failure + `}`},
		"not done":         {`{"id":"op1"}`, `{"id":"op1","done":false,` + failure + `}`},
		"at once":          {`{"id":"op1","done":true,` + failure + `}`},
		"at once, not yet": {`{"id":"op1",` + failure + `}`},
	} {
		t.Run(name, func(t *testing.T) {
			s := operation(t, states...)
			op, err := s.client().Revoke(t.Context(), refreshtoken.AllMine())
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				result, err := op.Wait(t.Context())
				e := as[*refreshtoken.APIError](t, err)
				if result != nil || e.Code != refreshtoken.CodePermissionDenied || e.OperationID != "op1" || e.HTTPStatus != 0 || e.Method != "Revoke" {
					t.Errorf("got %+v, %#v", result, e)
				}
				if !errors.Is(err, refreshtoken.ErrPermissionDenied) || errors.Is(err, refreshtoken.ErrNotFound) {
					t.Errorf("%v is of the wrong kind", err)
				}
				wantText(t, e.Error(), `PERMISSION_DENIED: no rights for REDACTED`, `operation "op1"`,
					"organization-manager.federations.userAdmin or iam.userAccounts.refreshTokenRevoker")
				if got := string(e.Details[0]); got != `{"@type":"x","requestId":"r"}` {
					t.Errorf("got the details %s", got)
				}
			}
			if n := len(s.seen()); n != len(states) {
				t.Errorf("%d requests, want %d", n, len(states))
			}
		})
	}
}

func TestMalformedOperation(t *testing.T) {
	for _, c := range []struct{ name, state, reason string }{
		{"neither", `{"id":"op1","done":true}`, "neither an error nor a response"},
		{"both", `{"id":"op1","done":true,"error":{"code":5},"response":{}}`, "both an error and a response"},
		{"both, not done", `{"id":"op1","error":{"code":5},"response":{}}`, "both an error and a response"},
		{"response, not done", `{"id":"op1","response":{}}`, "is not done"},
		{"no ID", `{"done":false}`, "its ID is empty"},
		{"ID is another method", `{"id":"fdv9:cancel"}`, "its ID has a character"},
		{"ID leads elsewhere", `{"id":"../iam/v1/secrets"}`, "its ID has a character"},
		{"done is a string", `{"id":"op1","done":"true"}`, "done is not a boolean"},
		{"error is a string", `{"id":"op1","error":"secret-value"}`, "error is not an object"},
		{"code is an object", `{"id":"op1","error":{"code":{}}}`, "code is not a number"},
		{"code does not fit", `{"id":"op1","error":{"code":4294967296}}`, "code is not a 32-bit integer"},
		{"ids are numbers", `{"id":"op1","done":true,"response":{"refreshTokenIds":[1]}}`, "refreshTokenIds is not an array of strings"},
		{"array", `[]`, "not an object"},
	} {
		t.Run(c.name, func(t *testing.T) {
			check := func(method string, err error) {
				t.Helper()
				e := as[*refreshtoken.ResponseError](t, err)
				wantText(t, e.Error(), "refreshtoken: "+method+": ", c.reason, "request id r")
				if strings.Contains(e.Error(), "secret-value") {
					t.Errorf("%q holds a value of the body", e)
				}
			}
			_, err := operation(t, c.state).client().Revoke(t.Context(), refreshtoken.AllMine())
			check("Revoke", err)
			op, err := operation(t, `{"id":"op1"}`, c.state).client().Revoke(t.Context(), refreshtoken.AllMine())
			if err != nil {
				t.Fatal(err)
			}
			_, err = op.Wait(t.Context())
			check("Operation", err)
			if op.Done() {
				t.Error("a state that makes no sense was taken over")
			}
		})
	}
}

func TestOperationErrorCodes(t *testing.T) {
	for code, want := range map[string]refreshtoken.Code{
		`{}`: refreshtoken.CodeUnknown, `{"code":0}`: refreshtoken.CodeUnknown, `{"code":null}`: refreshtoken.CodeUnknown,
		`{"code":16}`: refreshtoken.CodeUnauthenticated, `{"code":"5"}`: refreshtoken.CodeNotFound, `{"code":77}`: refreshtoken.Code(77),
		`{"code":5.0}`: refreshtoken.CodeNotFound, `{"code":"5.0"}`: refreshtoken.CodeNotFound, `{"code":0.5e1}`: refreshtoken.CodeNotFound,
	} {
		op, err := operation(t, `{"id":"op1","done":true,"error":`+code+`}`).client().Revoke(t.Context(), refreshtoken.AllMine())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := op.Wait(t.Context()); as[*refreshtoken.APIError](t, err).Code != want {
			t.Errorf("%s: got %v, want %v", code, err, want)
		}
	}
}

func TestOperation(t *testing.T) {
	s := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.EscapedPath() != "/base/operations/op1_x-Y" || r.Header.Get("Idempotency-Key") != "" {
			t.Errorf("got %s %s %v", r.Method, r.URL.EscapedPath(), r.Header)
		}
		if n == 1 {
			answerJSON(w, http.StatusOK, `{"id":"op1_x-Y","description":"Revoke","createdAt":"2025-01-02T03:04:05Z","createdBy":"aje9",
				"modifiedAt":"2025-01-02T03:04:06Z","metadata":{"subjectId":"aje9","refreshTokenIds":["a"]}}`)
			return
		}
		answerJSON(w, http.StatusOK, strings.Replace(doneAtAll, "op1", "op1_x-Y", 1))
	})
	c := s.client(refreshtoken.WithEndpoint("https://iam.example"), refreshtoken.WithOperationEndpoint(s.URL+"/base/"))
	op, err := c.Operation(t.Context(), "op1_x-Y")
	if err != nil {
		t.Fatal(err)
	}
	if op.ID() != "op1_x-Y" || op.Done() {
		t.Errorf("got %q, done %t", op.ID(), op.Done())
	}
	if _, err := op.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(s.seen()); n != 2 {
		t.Errorf("%d requests", n)
	}
}

func TestOperationRefusesIDs(t *testing.T) {
	for _, id := range []string{"", ".", "..", "a/b", `a\b`, "a%2Fb", "a?b", "a#b", "a b", "a\n", "я", "fdv9:cancel", ":cancel", "a.b", "a@b", "a~", "a;b", "a\x7f", strings.Repeat("a", 257)} {
		s := serve(t, answer(http.StatusOK, doneAtAll))
		_, err := s.client().Operation(t.Context(), id)
		wantText(t, as[*refreshtoken.ArgumentError](t, err).Error(), "operation ID", "RevokeOperation")
		if n := len(s.seen()); n != 0 {
			t.Errorf("%q was sent", id)
		}
	}
}

// TestOperationIDOfTheServer: an ID that no request may carry ends no revocation that
// has ended, and is not told.
func TestOperationIDOfTheServer(t *testing.T) {
	for _, id := range []string{"fdv9:cancel", "../a", `a\u200bb`} {
		s := operation(t, `{"id":"`+id+`","done":true,"response":{"refreshTokenIds":["aje1"]}}`)
		op, err := s.client().Revoke(t.Context(), refreshtoken.ByID("aje1"))
		if err != nil {
			t.Fatal(err)
		}
		if result, err := op.Wait(t.Context()); err != nil || result.OperationID != "" || op.ID() != "" || len(s.seen()) != 1 {
			t.Errorf("%s: got %+v and %v after %d requests", id, result, err, len(s.seen()))
		}
	}
}

func TestOperationAPIError(t *testing.T) {
	s := serve(t, answer(http.StatusNotFound, `{"code":5,"message":"Operation op1 not found"}`))
	_, err := s.client().Operation(t.Context(), "op1")
	if !errors.Is(err, refreshtoken.ErrNotFound) {
		t.Errorf("got error %v", err)
	}
	wantText(t, err.Error(), "refreshtoken: Operation: NOT_FOUND: Operation op1 not found (HTTP 404)")
}

// pending is a client of an operation that is done at the nth poll.
func pending(n int, polls *[]time.Duration, opts ...refreshtoken.Option) *refreshtoken.Client {
	start := time.Now()
	return refreshtoken.New(&fakeTransport{
		revoke: func(context.Context, tokenapi.Call, tokenapi.RevokeRequest) (*operationState, error) {
			return &operationState{ID: "op1"}, nil
		},
		operation: func(context.Context, tokenapi.Call, string) (*operationState, error) {
			*polls = append(*polls, time.Since(start))
			if len(*polls) < n {
				return &operationState{ID: "op1"}, nil
			}
			return &operationState{ID: "op1", Done: true, Response: &tokenapi.Response{RefreshTokenIDs: []string{"a"}}}, nil
		},
	}, opts...)
}

func TestWaitPollsWithBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var polls []time.Duration
		c := pending(20, &polls, refreshtoken.WithPolling(refreshtoken.Polling{Initial: time.Second, Max: 10 * time.Second}))
		op, err := c.Revoke(t.Context(), refreshtoken.AllMine())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := op.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		last := time.Duration(0)
		for i, at := range polls {
			// The wait grows by half each time, up to 10 s, with jitter of a half.
			wait := 10 * time.Second
			if i < 6 {
				wait = time.Second
				for range i {
					wait += wait / 2
				}
			}
			if got := at - last; got < wait/2 || got > wait+wait/2 {
				t.Errorf("poll %d came after %v, want about %v", i+1, got, wait)
			}
			last = at
		}
	})
}

func TestWaitDefaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var polls []time.Duration
		op, err := pending(50, &polls).Revoke(t.Context(), refreshtoken.AllMine())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := op.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if first := polls[0]; first < 250*time.Millisecond || first > 750*time.Millisecond {
			t.Errorf("the first poll came after %v", first)
		}
		if last := polls[49] - polls[48]; last > 7500*time.Millisecond {
			t.Errorf("the last poll came after %v", last)
		}
	})
}

func TestWaitContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var polls []time.Duration
		op, err := pending(1, &polls, refreshtoken.WithPolling(refreshtoken.Polling{Initial: time.Hour, Max: time.Hour})).
			Revoke(t.Context(), refreshtoken.AllMine())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		_, err = op.Wait(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Minute {
			t.Errorf("got error %v after %v", err, time.Since(start))
		}
		wantText(t, err.Error(), `refreshtoken: Wait: operation "op1" has not ended yet`)
		if len(polls) != 0 {
			t.Errorf("polled at %v", polls)
		}
		if _, err := op.Wait(t.Context()); err != nil {
			t.Errorf("the second Wait: %v", err)
		}
		for range 20 {
			if _, err := op.Wait(ctx); err == nil {
				continue
			}
			t.Errorf("a Wait for what is known to have ended looked at its ctx")
		}
	})
}

func TestWaitTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var polls []time.Duration
		op, err := pending(3, &polls).Revoke(t.Context(), refreshtoken.AllMine())
		if err != nil {
			t.Fatal(err)
		}
		first, leave := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := op.Wait(first); !errors.Is(err, context.Canceled) {
				t.Errorf("the one who left got %v", err)
			}
		})
		synctest.Wait() // the first one polls, so the others wait for it
		for range 9 {
			wg.Go(func() {
				if r, err := op.Wait(t.Context()); err != nil || len(r.RefreshTokenIDs) != 1 {
					t.Errorf("got %v, %v", r, err)
				}
			})
		}
		impatient, leaveToo := context.WithCancel(t.Context())
		wg.Go(func() {
			if _, err := op.Wait(impatient); !errors.Is(err, context.Canceled) {
				t.Errorf("the other one who left got %v", err)
			}
		})
		synctest.Wait()
		leaveToo()
		synctest.Wait()
		leave()
		wg.Wait()
		if len(polls) != 3 {
			t.Errorf("%d polls for all who waited, want 3", len(polls))
		}
	})
}

func TestWaitPollFails(t *testing.T) {
	s := serve(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		switch n {
		case 1:
			answerJSON(w, http.StatusOK, `{"id":"op1"}`)
		case 2:
			answerJSON(w, http.StatusServiceUnavailable, ``) // retried
		case 3:
			answerJSON(w, http.StatusUnauthorized, `{"code":16,"message":"The token has expired"}`)
		default:
			answerJSON(w, http.StatusOK, doneAtAll)
		}
	})
	op, err := s.client().Revoke(t.Context(), refreshtoken.AllMine())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := op.Wait(t.Context()); !errors.Is(err, refreshtoken.ErrUnauthenticated) || as[*refreshtoken.APIError](t, err).Method != "Operation" {
		t.Errorf("got error %v", err)
	}
	if result, err := op.Wait(t.Context()); err != nil || result.OperationID != "op1" {
		t.Errorf("the second Wait: got %v, %v", result, err)
	}
}

// ended is a context that has ended.
func ended(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// TestInterruptedWaits have an error of a documented type.
func TestInterruptedWaits(t *testing.T) {
	s := operation(t, `{"id":"op1"}`)
	op, err := s.client().Revoke(t.Context(), refreshtoken.AllMine())
	if err != nil {
		t.Fatal(err)
	}
	_, err = op.Wait(ended(t))
	if e := as[*refreshtoken.TransportError](t, err); e.Method != "Wait" || e.Temporary || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	_, err = s.client().RevokeEach(ended(t), []string{"aje1"}, refreshtoken.RevokeEachOptions{})
	if e := as[*refreshtoken.TransportError](t, err); e.Method != "RevokeEach" || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
