package oauth_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
)

// endless is a response whose body ends only when it is closed, whatever becomes of the
// request's context.
func endless(status int) *http.Response {
	resp := answer(status, "", "Connection", "Upgrade", "Upgrade", "h2c")
	resp.Body, _ = io.Pipe()
	resp.ContentLength = -1
	return resp
}

// After 101 package net/http hands the connection to the caller, so nothing but the caller
// ends it. The same applies to the body of a transport that ignores the context.
func TestBodyThatDoesNotEnd(t *testing.T) {
	malformed := func(err error) bool {
		var server *oauth.ServerError
		return errors.Is(err, oauth.ErrMalformedResponse) && errors.As(err, &server) && server.Status == 101
	}
	late := func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }
	logIn := func(c *oauth.Client) error {
		_, err := c.Login(context.Background(), oauth.LoginOptions{OpenURL: func(_ context.Context, u string) error {
			t.Error("the login was begun with", u)
			return nil
		}})
		return err
	}
	for name, tt := range map[string]struct {
		url string // that does not end; everywhere else there are tokens
		do  func(c *oauth.Client, hc *http.Client) error
	}{
		"token": {"https://as.example/token", func(c *oauth.Client, _ *http.Client) error {
			_, err := c.TokenSource().Token()
			return err
		}},
		"revocation": {"https://as.example/revoke", func(c *oauth.Client, _ *http.Client) error {
			return c.Logout(context.Background())
		}},
		"pushed request": {parURL, func(c *oauth.Client, _ *http.Client) error { return logIn(c) }},
		"device": {deviceURL, func(c *oauth.Client, _ *http.Client) error {
			_, err := c.Login(context.Background(), oauth.LoginOptions{Device: true, Out: io.Discard})
			return err
		}},
		"metadata": {"", func(_ *oauth.Client, hc *http.Client) error {
			_, err := oauth.Discover(context.Background(), "https://as.example", hc)
			return err
		}},
	} {
		for status, want := range map[int]func(error) bool{101: malformed, 200: late} {
			if name == "pushed request" && status == 200 {
				continue // the login listens on a port, so the time of the test stands still
			}
			t.Run(name+"/"+http.StatusText(status), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					if name == "revocation" && status == 200 {
						want = func(err error) bool { return err == nil } // the status says it all
					}
					srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
						if r.url == tt.url {
							return endless(status), nil
						}
						return rotate(n, r)
					})
					c, _ := newClient(t, srv, withDevice, withPAR, func(cfg *oauth.Config) {
						cfg.Provider.RevocationURL = "https://as.example/revoke"
						cfg.MaxAttempts, cfg.RequestTimeout = 1, 5*time.Second
					})
					done := make(chan error, 1)
					go func() { done <- tt.do(c, &http.Client{Transport: forAll(status)}) }()
					select {
					case err := <-done:
						if !want(err) {
							t.Errorf("%v", err)
						}
					case <-time.After(time.Hour):
						t.Fatal("an hour later it still waits")
					}
					// The store is not locked any more.
					if err := c.Import(t.Context(), "rt-9"); err != nil {
						t.Errorf("Import: %v", err)
					}
				})
			})
		}
	}
}

// forAll is a transport with one endless response for all requests.
type forAll int

func (status forAll) RoundTrip(*http.Request) (*http.Response, error) {
	return endless(int(status)), nil
}

// A login's code may be spent if its response is 101, and no token can be had.
func TestLoginWithoutAFinalResponse(t *testing.T) {
	srv := newFakeServer(func(int, fakeRequest) (*http.Response, error) { return endless(101), nil })
	c, _ := openClient(t, srv)
	_, err := c.Login(t.Context(), oauth.LoginOptions{OpenURL: browserThatFollows(t)})
	if !errors.Is(err, oauth.ErrMalformedResponse) {
		t.Errorf("%v", err)
	}
}
