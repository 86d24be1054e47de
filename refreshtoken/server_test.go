package refreshtoken_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ycauth/ycauth-go/internal/tokenapi"
	"github.com/ycauth/ycauth-go/refreshtoken"
)

// No goroutine of the package outlives a call, and the servers and connections of the tests
// are closed.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A request is what the server saw of one.
type request struct {
	method, path string
	query        map[string][]string
	header       http.Header
	body         string
}

// A server answers by a function and remembers what it was asked.
type server struct {
	*httptest.Server
	mu       sync.Mutex
	requests []request
	open     atomic.Int64 // response bodies that the client has not closed
}

// serve starts a server on loopback. answer is given the number of the request,
// from 1.
func serve(t *testing.T, answer func(n int, w http.ResponseWriter, r *http.Request)) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("reading the request: %v", err)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		s.mu.Lock()
		s.requests = append(s.requests, request{r.Method, r.URL.Path, r.URL.Query(), r.Header.Clone(), string(body)})
		n := len(s.requests)
		s.mu.Unlock()
		answer(n, w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) seen() []request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]request(nil), s.requests...)
}

// client returns a client of s that retries and polls without waiting long.
func (s *server) client(opts ...refreshtoken.Option) *refreshtoken.Client {
	return refreshtoken.NewClient(s.httpClient(), append([]refreshtoken.Option{
		refreshtoken.WithEndpoint(s.URL),
		refreshtoken.WithRetry(refreshtoken.RetryPolicy{Initial: time.Millisecond, Max: time.Millisecond}),
		refreshtoken.WithPolling(refreshtoken.Polling{Initial: time.Millisecond, Max: time.Millisecond}),
	}, opts...)...)
}

func (s *server) httpClient() *http.Client {
	return &http.Client{Transport: countBodies{s.Client().Transport, &s.open}}
}

// countBodies counts the bodies that are open.
type countBodies struct {
	base http.RoundTripper
	open *atomic.Int64
}

func (c countBodies) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := c.base.RoundTrip(req)
	if err == nil {
		c.open.Add(1)
		resp.Body = &countedBody{ReadCloser: resp.Body, open: c.open}
	}
	return resp, err
}

type countedBody struct {
	io.ReadCloser
	open *atomic.Int64
	once sync.Once
}

func (b *countedBody) Close() error {
	b.once.Do(func() { b.open.Add(-1) })
	return b.ReadCloser.Close()
}

// roundTrip is an http.RoundTripper that is a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func answerJSON(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprint(w, body)
}

// answer is a handler that always answers the same.
func answer(status int, body string) func(int, http.ResponseWriter, *http.Request) {
	return func(_ int, w http.ResponseWriter, _ *http.Request) { answerJSON(w, status, body) }
}

// list collects a listing.
func list(c *refreshtoken.Client, opts refreshtoken.ListOptions) ([]*refreshtoken.RefreshToken, error) {
	var tokens []*refreshtoken.RefreshToken
	for token, err := range c.List(context.Background(), opts) {
		if err != nil {
			return tokens, err
		}
		tokens = append(tokens, token)
	}
	return tokens, nil
}

// as is errors.As that fails the test.
func as[T error](t *testing.T, err error) T {
	t.Helper()
	var e T
	if !errors.As(err, &e) {
		t.Fatalf("got error %v (%T), want a %T", err, err, e)
	}
	return e
}

// wantText checks that a text holds every one of the parts.
func wantText(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q does not say %q", text, part)
		}
	}
}

// operationState is what a transport says of an operation.
type operationState = tokenapi.Operation[refreshtoken.APIError]

// fakeTransport is a Transport whose calls are functions, for tests in a bubble
// of testing/synctest, where the network would stop the clock.
type fakeTransport struct {
	list      func(context.Context, tokenapi.Call, tokenapi.ListRequest) (*refreshtoken.Page, error)
	revoke    func(context.Context, tokenapi.Call, tokenapi.RevokeRequest) (*operationState, error)
	operation func(context.Context, tokenapi.Call, string) (*operationState, error)
}

func (f *fakeTransport) List(ctx context.Context, call tokenapi.Call, req tokenapi.ListRequest) (*refreshtoken.Page, error) {
	return f.list(ctx, call, req)
}

func (f *fakeTransport) Revoke(ctx context.Context, call tokenapi.Call, req tokenapi.RevokeRequest) (*operationState, error) {
	return f.revoke(ctx, call, req)
}

func (f *fakeTransport) Operation(ctx context.Context, call tokenapi.Call, id string) (*operationState, error) {
	return f.operation(ctx, call, id)
}

// counting is a logger that counts.
func counting(n *int) *slog.Logger { return slog.New(counter{n}) }

type counter struct{ n *int }

func (c counter) Enabled(context.Context, slog.Level) bool { return true }

func (c counter) Handle(context.Context, slog.Record) error {
	*c.n++
	return nil
}

func (c counter) WithAttrs([]slog.Attr) slog.Handler { return c }

func (c counter) WithGroup(string) slog.Handler { return c }
