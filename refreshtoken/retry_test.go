package refreshtoken_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/internal/tokenapi"
	"github.com/ycauth/ycauth-go/refreshtoken"
)

// What is retried, and for every call of the API.
func TestRetries(t *testing.T) {
	status := func(status int, body string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { answerJSON(w, status, body) }
	}
	for _, c := range []struct {
		name  string
		fault func(http.ResponseWriter)
		again bool
	}{
		{"429", status(429, ``), true},
		{"502", status(502, ``), true},
		{"503", status(503, ``), true},
		{"504", status(504, ``), true},
		{"UNAVAILABLE as 500", status(500, `{"code":14}`), true},
		{"500", status(500, `{"code":13}`), false},
		{"501", status(501, ``), false},
		{"400", status(400, `{"code":3}`), false},
		{"UNAVAILABLE as 400", status(400, `{"code":14}`), false},
		{"DEADLINE_EXCEEDED as 408", status(408, `{"code":4}`), false},
		{"RESOURCE_EXHAUSTED as 400", status(400, `{"code":8}`), false},
		{"RESOURCE_EXHAUSTED as 500", status(500, `{"code":8}`), true},
		{"DEADLINE_EXCEEDED as 500", status(500, `{"code":4}`), true},
		{"401", status(401, `{"code":16}`), false},
		{"403", status(403, `{"code":7}`), false},
		{"404", status(404, `{"code":5}`), false},
		{"409", status(409, `{"code":10}`), false},
		{"connection lost", func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, true},
		{"body cut off", func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "1000")
			answerJSON(w, 200, `{"id":"op1"`)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, true},
		{"JSON cut off", status(200, `{"id":"op1"`), true},
		{"empty body", status(200, ``), true},
		{"malformed JSON", status(200, `{"id":oops}`), false},
	} {
		for method, call := range map[string]func(*refreshtoken.Client) error{
			"List": func(c *refreshtoken.Client) error { _, err := list(c, refreshtoken.ListOptions{}); return err },
			"Revoke": func(c *refreshtoken.Client) error {
				_, err := c.Revoke(context.Background(), refreshtoken.ByID("aje1"))
				return err
			},
			"Operation": func(c *refreshtoken.Client) error { _, err := c.Operation(context.Background(), "op1"); return err },
		} {
			t.Run(c.name+"/"+method, func(t *testing.T) {
				fault := func(times int) *server {
					return serve(t, func(n int, w http.ResponseWriter, _ *http.Request) {
						if n <= times {
							c.fault(w)
							return
						}
						answerJSON(w, 200, doneAtAll) // a page, too: unknown members do not matter
					})
				}
				s := fault(2)
				err := call(s.client())
				switch n := len(s.seen()); {
				case c.again && (err != nil || n != 3):
					t.Errorf("got error %v after %d requests, want none after 3", err, n)
				case !c.again && (err == nil || n != 1):
					t.Errorf("got error %v after %d requests, want one after 1", err, n)
				}
				if !c.again {
					return
				}
				s = fault(100)
				err = call(s.client())
				if n := len(s.seen()); err == nil || n != 4 {
					t.Errorf("got error %v after %d requests, want one after 4", err, n)
				}
				wantText(t, err.Error(), "refreshtoken: "+method+": ")
				if n := s.open.Load(); n != 0 {
					t.Errorf("%d bodies were not closed", n)
				}
			})
		}
	}
}

func TestNobodyListens(t *testing.T) {
	c := refreshtoken.NewClient(&http.Client{Transport: &http.Transport{DialContext: nobodyListens}}, refreshtoken.WithEndpoint("http://127.0.0.1:1/"),
		refreshtoken.WithRetry(refreshtoken.RetryPolicy{Initial: time.Millisecond}))
	_, err := list(c, refreshtoken.ListOptions{PageToken: "page-token"})
	e := as[*refreshtoken.TransportError](t, err)
	if !e.Temporary || e.Method != "List" || !errors.Is(err, refreshtoken.ErrUnavailable) || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %#v", e)
	}
	wantText(t, err.Error(), "refreshtoken: List: dial tcp: ")
	if strings.Contains(err.Error(), "page-token") {
		t.Errorf("%q holds the query", err)
	}
}

// HTTP/2 has errors of its own, which are no net.Error.
func TestStreamIsReset(t *testing.T) {
	var requests atomic.Int64
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) <= 2 {
			panic(http.ErrAbortHandler)
		}
		answerJSON(w, http.StatusOK, `{"refreshTokens":[{"id":"`+r.Proto+`"}]}`)
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	c := refreshtoken.NewClient(srv.Client(), refreshtoken.WithEndpoint(srv.URL),
		refreshtoken.WithRetry(refreshtoken.RetryPolicy{Initial: time.Millisecond}))
	tokens, err := list(c, refreshtoken.ListOptions{})
	if err != nil || ids(tokens) != "HTTP/2.0" || requests.Load() != 3 {
		t.Errorf("got %q, %v after %d requests", ids(tokens), err, requests.Load())
	}
}

func TestCertificateIsFinal(t *testing.T) {
	var handshakes atomic.Int64
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		handshakes.Add(1)
		return nil, nil
	}}
	srv.StartTLS()
	defer srv.Close()
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	c := refreshtoken.NewClient(&http.Client{Transport: tr}, refreshtoken.WithEndpoint(srv.URL))
	_, err := list(c, refreshtoken.ListOptions{})
	if e := as[*refreshtoken.TransportError](t, err); e.Temporary || errors.Is(err, refreshtoken.ErrUnavailable) {
		t.Errorf("got %#v", e)
	}
	wantText(t, err.Error(), "certificate")
	if n := handshakes.Load(); n != 1 {
		t.Errorf("%d handshakes", n)
	}
}

// What a RoundTripper returns without having asked for a connection.
func TestRoundTripperErrors(t *testing.T) {
	loginRequired := errors.New("log in again")
	for _, c := range []struct {
		name     string
		err      error
		attempts int
	}{
		{"of a token source", fmt.Errorf("oauth: %w", loginRequired), 1},
		{"of a token source without a network", &url.Error{Op: "Post", URL: "https://auth.example/token", Err: &net.OpError{Op: "dial", Err: loginRequired}}, 1},
		{"of the network", &net.OpError{Op: "read", Err: errors.New("reset")}, 4},
		{"end of file", io.EOF, 4},
		{"unexpected end of file", io.ErrUnexpectedEOF, 4},
		{"of a connection that broke before its first request", errors.New("http2: client conn could not be established"), 4},
		{"of a token source, of such a connection", fmt.Errorf("vault: %w", errors.New("http2: client conn could not be established")), 1},
		{"of HTTP/2, for another reason", errors.New("http2: invalid header field name"), 1},
		{"of a token source on a socket", fmt.Errorf("vault: %w", &net.OpError{Op: "dial", Net: "unix", Err: syscall.ECONNREFUSED}), 1},
		{"of a token source, its own deadline", fmt.Errorf("vault: %w", context.DeadlineExceeded), 1},
		{"of a token source, its own deadline alone", context.DeadlineExceeded, 1},
		{"of a token source, end of file", fmt.Errorf("vault: %w", io.EOF), 1},
		{"of a token source, unexpected end of file", fmt.Errorf("vault: %w", io.ErrUnexpectedEOF), 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := 0
			hc := &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) { n++; return nil, c.err })}
			client := refreshtoken.NewClient(hc, refreshtoken.WithRetry(refreshtoken.RetryPolicy{Initial: time.Millisecond}))
			_, err := list(client, refreshtoken.ListOptions{})
			if n != c.attempts || !errors.Is(err, c.err) {
				t.Errorf("got error %v after %d attempts, want %d", err, n, c.attempts)
			}
			if e := as[*refreshtoken.TransportError](t, err); e.Temporary != (c.attempts > 1) {
				t.Errorf("got %#v", e)
			}
		})
	}
}

// A signingError is that of a RoundTripper that could not sign a proof, as package dpop's.
type signingError struct{ error }

func (signingError) Retryable() bool { return false }

func (e signingError) Unwrap() error { return e.error }

// TestSignerIsAskedOnce: a PIN that was wrong is not taken to the card again, also where
// the request was on the wire before, as after a nonce challenge.
func TestSignerIsAskedOnce(t *testing.T) {
	wrongPIN := errors.New("wrong PIN")
	for name, challenged := range map[string]bool{"first proof": false, "proof after a challenge": true} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, answer(http.StatusUnauthorized, `{"code":16}`))
			asked := 0
			hc := &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				if challenged {
					resp, err := s.httpClient().Transport.RoundTrip(r.Clone(r.Context()))
					if err != nil {
						return nil, err
					}
					resp.Body.Close()
				}
				asked++
				return nil, fmt.Errorf("no proof: %w", signingError{wrongPIN})
			})}
			client := refreshtoken.NewClient(hc, refreshtoken.WithEndpoint(s.URL), refreshtoken.WithRetry(refreshtoken.RetryPolicy{Initial: time.Millisecond}))
			_, err := client.Revoke(t.Context(), refreshtoken.ByID("aje1"))
			if e := as[*refreshtoken.TransportError](t, err); e.Temporary || errors.Is(err, refreshtoken.ErrUnavailable) || !errors.Is(err, wrongPIN) || asked != 1 {
				t.Errorf("got %#v after %d signatures", e, asked)
			}
			report, err := client.RevokeEach(t.Context(), names(5), refreshtoken.RevokeEachOptions{Concurrency: 1})
			if !errors.Is(err, wrongPIN) || len(report.NotTried) != 4 || asked != 2 {
				t.Errorf("a batch: got %+v and %v after %d signatures", report, err, asked-1)
			}
		})
	}
}

// failing is a client whose List fails by err, and the times at which it was
// called.
func failing(times *[]time.Duration, err func() error, opts ...refreshtoken.Option) *refreshtoken.Client {
	start := time.Now()
	return refreshtoken.New(&fakeTransport{
		list: func(context.Context, tokenapi.Call, tokenapi.ListRequest) (*refreshtoken.Page, error) {
			*times = append(*times, time.Since(start))
			return nil, err()
		},
	}, opts...)
}

func TestRetryAfterIsObeyed(t *testing.T) {
	busy := func(after time.Duration) func() error {
		return func() error {
			return &refreshtoken.APIError{Code: refreshtoken.CodeResourceExhausted, RetryAfter: after}
		}
	}
	t.Run("waits", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var times []time.Duration
			_, err := list(failing(&times, busy(20*time.Second)), refreshtoken.ListOptions{})
			if as[*refreshtoken.APIError](t, err).Code != refreshtoken.CodeResourceExhausted || len(times) != 4 {
				t.Fatalf("got error %v after %d attempts", err, len(times))
			}
			for i := range times[1:] {
				if wait := times[i+1] - times[i]; wait != 20*time.Second {
					t.Errorf("attempt %d came after %v", i+2, wait)
				}
			}
		})
	})
	t.Run("asks for too much", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var times []time.Duration
			_, err := list(failing(&times, busy(31*time.Second)), refreshtoken.ListOptions{})
			if e := as[*refreshtoken.APIError](t, err); e.RetryAfter != 31*time.Second || len(times) != 1 {
				t.Errorf("got error %v after %d attempts", err, len(times))
			}
		})
	})
	t.Run("asks for what is allowed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var times []time.Duration
			c := failing(&times, busy(time.Hour), refreshtoken.WithRetry(refreshtoken.RetryPolicy{Attempts: 2, MaxRetryAfter: time.Hour}))
			if _, err := list(c, refreshtoken.ListOptions{}); err == nil || len(times) != 2 || times[1] != time.Hour {
				t.Errorf("got error %v, attempts at %v", err, times)
			}
		})
	})
	t.Run("header", func(t *testing.T) {
		s := serve(t, func(n int, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3600")
			answerJSON(w, http.StatusServiceUnavailable, ``)
		})
		_, err := list(s.client(), refreshtoken.ListOptions{})
		if e := as[*refreshtoken.APIError](t, err); e.RetryAfter != time.Hour || len(s.seen()) != 1 {
			t.Errorf("got %v after %d requests", err, len(s.seen()))
		}
	})
}

func TestRetryWaits(t *testing.T) {
	down := func() error { return &refreshtoken.APIError{Code: refreshtoken.CodeUnavailable} }
	t.Run("policy", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var times []time.Duration
			var log bytes.Buffer
			c := failing(&times, down, refreshtoken.WithLogger(textLogger(&log)),
				refreshtoken.WithRetry(refreshtoken.RetryPolicy{Attempts: 10, Initial: time.Second, Max: 2 * time.Second}))
			if _, err := list(c, refreshtoken.ListOptions{}); !errors.Is(err, refreshtoken.ErrUnavailable) || len(times) != 10 {
				t.Errorf("got error %v after %d attempts", err, len(times))
			}
			for i := range times[1:] {
				if wait := times[i+1] - times[i]; wait < time.Second/2 || wait > 3*time.Second {
					t.Errorf("attempt %d came after %v", i+2, wait)
				}
			}
			if n := strings.Count(log.String(), "trying again"); n != 9 {
				t.Errorf("%d log lines for 9 retries", n)
			}
			wantText(t, log.String(), "method=List attempt=1 wait=", `error="refreshtoken: List: UNAVAILABLE"`)
		})
	})
	t.Run("ctx ends in a wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var times []time.Duration
			cause := errors.New("the user left")
			ctx, cancel := context.WithCancelCause(t.Context())
			c := failing(&times, func() error { time.AfterFunc(time.Second, func() { cancel(cause) }); return down() },
				refreshtoken.WithRetry(refreshtoken.RetryPolicy{Initial: time.Hour}))
			start := time.Now()
			for _, err := range c.List(ctx, refreshtoken.ListOptions{}) {
				if !errors.Is(err, context.Canceled) || !errors.Is(err, cause) || !errors.Is(err, refreshtoken.ErrUnavailable) {
					t.Errorf("got error %v", err)
				}
			}
			if len(times) != 1 || time.Since(start) != time.Second {
				t.Errorf("%d attempts in %v", len(times), time.Since(start))
			}
		})
	})
	t.Run("ctx has no time for a wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var times []time.Duration
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			start := time.Now()
			for _, err := range failing(&times, down, refreshtoken.WithRetry(refreshtoken.RetryPolicy{Initial: time.Hour})).List(ctx, refreshtoken.ListOptions{}) {
				as[*refreshtoken.APIError](t, err)
			}
			if time.Since(start) != 0 {
				t.Errorf("waited %v for nothing", time.Since(start))
			}
		})
	})
}

// A Transport that others write may return any error.
func TestTransportErrors(t *testing.T) {
	cause := errors.New("strange: " + someToken)
	var times []time.Duration
	_, err := list(failing(&times, func() error { return cause }), refreshtoken.ListOptions{})
	e := as[*refreshtoken.TransportError](t, err)
	if e.Method != "List" || e.Temporary || !errors.Is(err, cause) || len(times) != 1 {
		t.Errorf("got %#v after %d attempts", e, len(times))
	}
	if got := err.Error(); got != "refreshtoken: List: strange: REDACTED" {
		t.Errorf("got %q", got)
	}
	if got := (&refreshtoken.TransportError{Method: "List", Err: cause}).Error(); got != "refreshtoken: List: strange: REDACTED" {
		t.Errorf("outside a Client: got %q", got)
	}
}

// The timeout of the http.Client bounds one attempt, and the next may succeed.
func TestTimeoutOfTheHTTPClient(t *testing.T) {
	s := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		if n == 1 {
			<-r.Context().Done()
			return
		}
		answerJSON(w, http.StatusOK, `{"refreshTokens":[{"id":"1"}]}`)
	})
	hc := s.httpClient()
	hc.Timeout = 300 * time.Millisecond
	c := refreshtoken.NewClient(hc, refreshtoken.WithEndpoint(s.URL), refreshtoken.WithRetry(refreshtoken.RetryPolicy{Initial: time.Millisecond}))
	tokens, err := list(c, refreshtoken.ListOptions{})
	if err != nil || ids(tokens) != "1" || len(s.seen()) < 2 {
		t.Errorf("got %q, %v after %d requests", ids(tokens), err, len(s.seen()))
	}
}

// The details of an error come from a transport as they are, and leave the
// client fit to be shown.
func TestTransportDetails(t *testing.T) {
	api := &refreshtoken.APIError{Code: refreshtoken.CodeNotFound, Details: []json.RawMessage{
		json.RawMessage(`{ "kept": ["as", "it is"] }`), json.RawMessage(`{"token":"` + someToken + `"}`), json.RawMessage(`not JSON`),
	}}
	var times []time.Duration
	_, err := list(failing(&times, func() error { return api }), refreshtoken.ListOptions{})
	got := fmt.Sprintf("%s", as[*refreshtoken.APIError](t, err).Details)
	if want := `[{ "kept": ["as", "it is"] } {"token":"REDACTED"} {}]`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
