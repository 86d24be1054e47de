package refreshtoken_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/refreshtoken"
)

// A tokenSource makes a request with the ctx of the call, as a token source does for
// dpop.Transport.
type tokenSource struct {
	hc   *http.Client
	url  string
	fail func(error) error // of the request; nil: succeed
}

func (s tokenSource) Token() (*oauth2.Token, error) { return s.TokenContext(context.Background()) }

func (s tokenSource) TokenContext(ctx context.Context) (*oauth2.Token, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.hc.Do(req)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	if s.fail != nil {
		return nil, s.fail(err)
	}
	return &oauth2.Token{AccessToken: "t1.a", TokenType: "Bearer"}, err
}

// nobodyListens dials in vain. A port that was closed may be another program's by now.
func nobodyListens(_ context.Context, network, _ string) (net.Conn, error) {
	return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
}

// TestTokenSourcesAreFinal: a token source that fails after an exchange of its own has
// retried where that helps, and "log in again" is not the network's failure.
func TestTokenSourcesAreFinal(t *testing.T) {
	loginRequired := errors.New("log in again")
	for _, c := range []struct {
		name string
		dead bool // there is no authorization server
		fail func(error) error
	}{
		{"log in again", false, func(error) error { return loginRequired }},
		{"log in again, because of the network", true, func(err error) error { return fmt.Errorf("%w: %w", loginRequired, err) }},
		{"the same without a URL", true, func(err error) error { return fmt.Errorf("%w: %w", loginRequired, errors.Unwrap(err)) }},
		{"the network alone", true, func(err error) error { return err }},
		{"cut off", false, func(error) error { return fmt.Errorf("%w: %w", loginRequired, io.ErrUnexpectedEOF) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, answer(http.StatusOK, `{}`))
			src := tokenSource{hc: s.Client(), url: s.URL, fail: c.fail}
			if c.dead {
				src.hc = &http.Client{Transport: &http.Transport{DialContext: nobodyListens}}
			}
			hc := &http.Client{Transport: &dpop.Transport{Source: src, Base: s.Client().Transport}}
			n := 0
			client := refreshtoken.NewClient(hc, refreshtoken.WithEndpoint(s.URL), refreshtoken.WithLogger(counting(&n)),
				refreshtoken.WithRetry(refreshtoken.RetryPolicy{Initial: time.Millisecond}))
			_, err := list(client, refreshtoken.ListOptions{})
			if e := as[*refreshtoken.TransportError](t, err); e.Temporary || errors.Is(err, refreshtoken.ErrUnavailable) || n != 0 {
				t.Errorf("got %v, temporary %v, after %d retries", err, e.Temporary, n)
			}
		})
	}
}

// TestConnectionsBehindATokenSource: what happens to the request itself is temporary,
// whatever the token source did before.
func TestConnectionsBehindATokenSource(t *testing.T) {
	auth := serve(t, answer(http.StatusOK, `{}`))
	src := tokenSource{hc: auth.Client(), url: auth.URL}
	aborts := serve(t, func(int, http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	closes, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer closes.Close()
	go func() {
		for {
			conn, err := closes.Accept()
			if err != nil {
				return
			}
			conn.Close() // in the middle of a handshake
		}
	}()
	for name, endpoint := range map[string]string{
		"nobody listens":       "http://127.0.0.1:1",
		"the connection ends":  aborts.URL,
		"the handshake breaks": "https://" + closes.Addr().String(),
	} {
		t.Run(name, func(t *testing.T) {
			base := &http.Transport{}
			defer base.CloseIdleConnections()
			if name == "nobody listens" {
				base.DialContext = nobodyListens
			}
			n := 0
			client := refreshtoken.NewClient(&http.Client{Transport: &dpop.Transport{Source: src, Base: base}},
				refreshtoken.WithEndpoint(endpoint), refreshtoken.WithLogger(counting(&n)), refreshtoken.WithRetry(refreshtoken.RetryPolicy{Initial: time.Millisecond}))
			_, err := list(client, refreshtoken.ListOptions{})
			if e := as[*refreshtoken.TransportError](t, err); !e.Temporary || n != 3 {
				t.Errorf("got %v, temporary %v, after %d retries", err, e.Temporary, n)
			}
		})
	}
}
