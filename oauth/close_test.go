package oauth

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// served is a client whose server is handle, with a session whose refresh token is rt-0.
func served(t *testing.T, handle func(*http.Request) (*http.Response, error), change ...func(*Config)) *Client {
	t.Helper()
	cfg := Config{
		Provider: Provider{Name: "p", TokenURL: "https://as.example/token"}, ClientID: "c", Store: NewMemoryStore(),
		HTTPClient: &http.Client{Transport: roundTripFunc(handle)},
	}
	for _, f := range change {
		f(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Import(t.Context(), "rt-0"); err != nil {
		t.Fatal(err)
	}
	return c
}

func respond(r *http.Request, status int, body string, header http.Header) *http.Response {
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body)), Request: r}
}

func wantSaved(t *testing.T, c *Client, want Secret) {
	t.Helper()
	if s, err := c.Session(context.Background()); err != nil || s.RefreshToken != want {
		t.Errorf("the store has %q, %v, want %q", s.RefreshToken.Reveal(), err, want.Reveal())
	}
}

// A RequestTimeout that stands for "no limit" limits neither a request nor Close.
func TestCloseWaitsForARequestWithoutALimit(t *testing.T) {
	for _, timeout := range []time.Duration{time.Minute, math.MaxInt64 / 4, math.MaxInt64 / 3, math.MaxInt64 / 2, math.MaxInt64} {
		t.Run(timeout.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := served(t, func(r *http.Request) (*http.Response, error) {
					time.Sleep(50 * time.Second)
					return respond(r, http.StatusOK, renewedBody, http.Header{}), nil
				}, func(cfg *Config) { cfg.RequestTimeout = timeout })
				done := make(chan error, 1)
				go func() {
					_, err := c.TokenSource().Renew(context.Background())
					done <- err
				}()
				time.Sleep(time.Second) // the server has replaced the refresh token, and its response is on the way
				if err := c.TokenSource().Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
				wantSaved(t, c, "rt-renewed")
				if err := <-done; err != nil {
					t.Errorf("Renew: %v", err)
				}
			})
		})
	}
}

// A lock without an end leaves time for a request of any length, however long the
// request took to begin.
func TestRequestWithoutALimitNeedsNoLease(t *testing.T) {
	var ticks atomic.Int64
	start := time.Now()
	c := served(t, func(r *http.Request) (*http.Response, error) {
		return respond(r, http.StatusOK, renewedBody, http.Header{}), nil
	}, func(cfg *Config) {
		cfg.RequestTimeout = math.MaxInt64
		cfg.Clock = func() time.Time { return start.Add(time.Duration(ticks.Add(1)) * time.Millisecond) }
	})
	if _, err := c.TokenSource().Token(); err != nil {
		t.Error(err)
	}
	if err := c.TokenSource().Close(); err != nil {
		t.Error(err)
	}
}

// A transport that ignores its context cannot be waited for without end. What Close
// returns then says that a refresh token may still come, and it can be called again.
func TestCloseSaysThatARequestGoesOn(t *testing.T) {
	for name, begin := range map[string]func(c *Client) error{
		"renewal": func(c *Client) error {
			_, err := c.TokenSource().Renew(context.Background())
			return err
		},
		"login": func(c *Client) error {
			_, err := c.redeem(context.Background(), codeGrant("code", "verifier", "http://127.0.0.1/"), Session{})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hang := make(chan struct{})
				c := served(t, func(r *http.Request) (*http.Response, error) {
					<-hang
					return respond(r, http.StatusOK, renewedBody, http.Header{}), nil
				})
				done := make(chan error, 1)
				go func() { done <- begin(c) }()
				synctest.Wait()
				start := time.Now()
				err := c.TokenSource().Close()
				if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), name) {
					t.Errorf("Close: %v", err)
				}
				if took := time.Since(start); took > closeTimeout(c.cfg.RequestTimeout)+time.Second {
					t.Errorf("Close took %v", took)
				}
				close(hang)
				if err := <-done; err != nil {
					var persist *PersistError
					if name != "login" || !errors.As(err, &persist) {
						t.Error(err)
					}
				}
				if err := c.TokenSource().Close(); err != nil {
					t.Errorf("Close again: %v", err)
				}
				wantSaved(t, c, "rt-renewed")
			})
		})
	}
}

// Close ends a login's wait between two attempts, and waits for one that was sent.
func TestCloseEndsTheWaitOfALogin(t *testing.T) {
	for name, tt := range map[string]struct {
		closeAfter time.Duration
		bodies     []string // "" is a 503 that asks for 20 s
		requests   int
		takes      time.Duration
		saved      Secret
	}{
		"while it waits":                   {15 * time.Second, []string{"", renewedBody}, 1, 0, "rt-0"},
		"while a request fails":            {5 * time.Second, []string{"", renewedBody}, 1, 5 * time.Second, "rt-0"},
		"while a second one fails":         {35 * time.Second, []string{"", "", renewedBody}, 2, 5 * time.Second, "rt-0"},
		"while a request gets its session": {35 * time.Second, []string{"", renewedBody}, 2, 5 * time.Second, "rt-renewed"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				requests := 0
				c := served(t, func(r *http.Request) (*http.Response, error) {
					body := tt.bodies[requests]
					requests++
					time.Sleep(10 * time.Second)
					if body == "" {
						return respond(r, http.StatusServiceUnavailable, "", http.Header{"Retry-After": {"20"}}), nil
					}
					return respond(r, http.StatusOK, body, http.Header{}), nil
				})
				imported, err := c.Session(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				done := make(chan error, 1)
				go func() {
					_, err := c.redeem(context.Background(), codeGrant("code", "verifier", "http://127.0.0.1/"), imported)
					done <- err
				}()
				time.Sleep(tt.closeAfter)
				start := time.Now()
				if err := c.TokenSource().Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
				if took := time.Since(start); took != tt.takes {
					t.Errorf("Close took %v, want %v", took, tt.takes)
				}
				select {
				case err = <-done:
				case <-time.After(time.Nanosecond):
					t.Error("the login goes on")
					err = <-done
				}
				var server *ServerError
				switch {
				case tt.saved == "rt-0" && (!errors.Is(err, ErrClosed) || !errors.As(err, &server)):
					t.Errorf("the login: %v", err)
				case tt.saved != "rt-0" && err != nil:
					t.Errorf("the login: %v", err)
				}
				if requests != tt.requests {
					t.Errorf("%d requests, want %d", requests, tt.requests)
				}
				wantSaved(t, c, tt.saved)
			})
		})
	}
}
