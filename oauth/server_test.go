package oauth_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
)

// fakeServer is a token endpoint behind an http.RoundTripper: no sockets, so that
// it works inside a testing/synctest bubble, and it can fail in ways that no
// server can.
type fakeServer struct {
	mu       sync.Mutex
	requests []fakeRequest
	handle   func(n int, r fakeRequest) (*http.Response, error)
	gate     chan struct{} // if set, requests wait until it is closed
	began    chan struct{} // receives one value per request
}

type fakeRequest struct {
	url    string
	form   url.Values
	header http.Header
	ctx    context.Context
}

func newFakeServer(handle func(n int, r fakeRequest) (*http.Response, error)) *fakeServer {
	return &fakeServer{handle: handle, began: make(chan struct{}, 100)}
}

func (s *fakeServer) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	r := fakeRequest{req.URL.String(), form, req.Header.Clone(), req.Context()}
	s.mu.Lock()
	s.requests = append(s.requests, r)
	n := len(s.requests)
	s.mu.Unlock()
	s.began <- struct{}{}
	if s.gate != nil {
		select {
		case <-s.gate:
		case <-req.Context().Done():
			return nil, req.Context().Err()
		}
	}
	resp, err := s.handle(n, r)
	if resp != nil {
		resp.Request = req
	}
	return resp, err
}

func (s *fakeServer) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests)
}

func (s *fakeServer) request(i int) fakeRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[i]
}

// answer makes a response; header is alternating names and values.
func answer(status int, body string, header ...string) *http.Response {
	h := http.Header{"Content-Type": {"application/json"}}
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{
		StatusCode: status, Status: strconv.Itoa(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}
}

func tokenJSON(access, refresh string, expiresIn int) string {
	s := fmt.Sprintf(`{"access_token":%q,"token_type":"Bearer","expires_in":%d`, access, expiresIn)
	if refresh != "" {
		s += fmt.Sprintf(`,"refresh_token":%q`, refresh)
	}
	return s + "}"
}

// issue answers the nth request with access token at-n, for an hour.
func issue(n int, _ fakeRequest) (*http.Response, error) {
	return answer(200, tokenJSON(fmt.Sprintf("at-%d", n), "", 3600)), nil
}

// rotate also replaces the refresh token by rt-n.
func rotate(n int, _ fakeRequest) (*http.Response, error) {
	return answer(200, tokenJSON(fmt.Sprintf("at-%d", n), fmt.Sprintf("rt-%d", n), 3600)), nil
}

func refuse(code string) func(int, fakeRequest) (*http.Response, error) {
	return func(int, fakeRequest) (*http.Response, error) {
		return answer(400, fmt.Sprintf(`{"error":%q}`, code)), nil
	}
}

var errLine = errors.New("the line went dead")

// lose is a request that was sent and never answered.
func lose(int, fakeRequest) (*http.Response, error) { return nil, errLine }

func testProvider() oauth.Provider {
	return oauth.Provider{
		Name: "test", TokenURL: "https://as.example/token", AuthURL: "https://as.example/authorize",
		OfflineScope: "offline_access",
	}
}

// eventLog collects events.
type eventLog struct {
	mu     sync.Mutex
	events []oauth.Event
}

func (l *eventLog) observe(e oauth.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, e)
}

func (l *eventLog) of(kind oauth.EventKind) []oauth.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []oauth.Event
	for _, e := range l.events {
		if e.Kind == kind {
			out = append(out, e)
		}
	}
	return out
}

func (l *eventLog) kinds() []oauth.EventKind {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []oauth.EventKind
	for _, e := range l.events {
		out = append(out, e.Kind)
	}
	return out
}

func (l *eventLog) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.events)
}

// newClient makes a client of the fake server with a session whose refresh token
// is rt-0.
func newClient(t *testing.T, srv *fakeServer, change ...func(*oauth.Config)) (*oauth.Client, *eventLog) {
	t.Helper()
	c, log := openClient(t, srv, change...)
	if err := c.Import(t.Context(), "rt-0"); err != nil {
		t.Fatal(err)
	}
	return c, log
}

// openClient makes a client with whatever session its store has.
func openClient(t *testing.T, srv *fakeServer, change ...func(*oauth.Config)) (*oauth.Client, *eventLog) {
	t.Helper()
	log := new(eventLog)
	cfg := oauth.Config{
		Provider: testProvider(), ClientID: "client", HTTPClient: &http.Client{Transport: srv}, Observer: log.observe,
	}
	for _, f := range change {
		f(&cfg)
	}
	c, err := oauth.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c, log
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newProver(t testing.TB) *dpop.Prover {
	t.Helper()
	p, err := dpop.New(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func wantToken(t *testing.T, ts *oauth.TokenSource, want string) {
	t.Helper()
	tok, err := ts.TokenContext(t.Context())
	if err != nil {
		t.Fatalf("TokenContext: %v", err)
	}
	if tok.AccessToken != want {
		t.Fatalf("token %q, want %q", tok.AccessToken, want)
	}
}

func wantReason(t *testing.T, err error, want oauth.Reason) *oauth.LoginRequiredError {
	t.Helper()
	var e *oauth.LoginRequiredError
	if !errors.As(err, &e) || !errors.Is(err, oauth.ErrLoginRequired) {
		t.Fatalf("error %v, want a LoginRequiredError", err)
	}
	if e.Reason != want {
		t.Fatalf("reason %q (%v), want %q", e.Reason, err, want)
	}
	return e
}

func closeSource(t *testing.T, c *oauth.Client) {
	t.Helper()
	if err := c.TokenSource().Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
}

// faultyStore is a memory store whose steps can be made to fail.
type faultyStore struct {
	oauth.Store
	mu       sync.Mutex
	failSave error
	failLock error
	failLoad error
}

func newFaultyStore() *faultyStore { return &faultyStore{Store: oauth.NewMemoryStore()} }

func (s *faultyStore) set(f func(*faultyStore)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

func (s *faultyStore) fail(load, lock, save error) {
	s.set(func(s *faultyStore) { s.failLoad, s.failLock, s.failSave = load, lock, save })
}

func (s *faultyStore) get() (save, lock, load error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failSave, s.failLock, s.failLoad
}

func (s *faultyStore) Load(ctx context.Context) (oauth.Session, error) {
	if _, _, err := s.get(); err != nil {
		return oauth.Session{}, err
	}
	return s.Store.Load(ctx)
}

func (s *faultyStore) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	_, lock, _ := s.get()
	if lock != nil {
		return lock
	}
	return s.Store.Update(ctx, func(cur oauth.Session) (oauth.Session, error) {
		next, err := fn(cur)
		if err != nil {
			return next, err
		}
		if save, _, _ := s.get(); save != nil {
			return cur, save
		}
		return next, nil
	})
}

// put stores a session behind the client's back, as another process does.
func put(t *testing.T, s oauth.Store, change func(*oauth.Session)) {
	t.Helper()
	err := s.Update(t.Context(), func(cur oauth.Session) (oauth.Session, error) {
		cur.Generation++
		change(&cur)
		return cur, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func freshUntil(s *oauth.Session, access string, life time.Duration) {
	s.AccessToken, s.TokenType = oauth.Secret(access), "Bearer"
	s.Obtained = time.Now()
	s.Expiry = s.Obtained.Add(life)
}

// safeBuffer is a buffer for the output of a process.
type safeBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
