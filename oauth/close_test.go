package oauth

import (
	"context"
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
