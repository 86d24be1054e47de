package oauth_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
)

type rotor struct {
	mu       sync.Mutex
	n        int
	current  string            // the refresh token that is accepted
	users    map[string]string // of refresh tokens
	spent    map[string]int    // how often each refresh token was sent
	requests int
	life     int // expires_in; 0: not sent
	answer   func(form url.Values) (*http.Response, error)
	ended    bool
}

func newRotor(life int) *rotor {
	return &rotor{users: map[string]string{}, spent: map[string]int{}, life: life}
}

func (r *rotor) issue(user string) oauth.Secret {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
	rt := fmt.Sprintf("rt-%s-%d", user, r.n)
	r.users[rt] = user
	r.current = rt
	return oauth.Secret(rt)
}

func (r *rotor) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.requests
}

func jsonResponse(status int, header http.Header, body any) *http.Response {
	b, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	if header == nil {
		header = http.Header{}
	}
	header.Set("Content-Type", "application/json")
	header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(string(b))), ContentLength: int64(len(b))}
}

func (r *rotor) RoundTrip(req *http.Request) (*http.Response, error) {
	b, _ := io.ReadAll(req.Body)
	form, _ := url.ParseQuery(string(b))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests++
	if r.answer != nil {
		if resp, err := r.answer(form); resp != nil || err != nil {
			return resp, err
		}
	}
	rt := form.Get("refresh_token")
	r.spent[rt]++
	user, ok := r.users[rt]
	if !ok || r.ended {
		return jsonResponse(400, nil, map[string]any{"error": "invalid_grant"}), nil
	}
	if r.spent[rt] > 1 {
		r.ended = true
		return jsonResponse(400, nil, map[string]any{"error": "invalid_grant", "error_description": "reuse"}), nil
	}
	r.n++
	next := fmt.Sprintf("rt-%s-%d", user, r.n)
	r.users[next] = user
	r.current = next
	out := map[string]any{"access_token": fmt.Sprintf("at-%s-%d", user, r.n), "token_type": "Bearer", "refresh_token": next}
	if r.life > 0 {
		out["expires_in"] = r.life
	}
	return jsonResponse(200, nil, out), nil
}

type recorder struct {
	mu     sync.Mutex
	events []oauth.Event
}

func (r *recorder) observe(e oauth.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func (r *recorder) kinds() (all []oauth.EventKind) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		all = append(all, e.Kind)
	}
	return all
}

func (r *recorder) count(k oauth.EventKind) (n int) {
	for _, have := range r.kinds() {
		if have == k {
			n++
		}
	}
	return n
}

func clientOf(t *testing.T, r http.RoundTripper, store oauth.Store, change func(*oauth.Config)) (*oauth.Client, *recorder) {
	t.Helper()
	rec := new(recorder)
	cfg := oauth.Config{
		Provider: oauth.Provider{Name: "srv", TokenURL: "https://auth.example/token", AuthURL: "https://auth.example/auth", CallbackPath: "/cb"},
		ClientID: "cli", Store: store, HTTPClient: &http.Client{Transport: r}, Observer: rec.observe,
	}
	if change != nil {
		change(&cfg)
	}
	c, err := oauth.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c, rec
}

type faulty struct {
	oauth.Store
	mu           sync.Mutex
	load, update error
	afterFn      error
}

func (f *faulty) set(load, update, afterFn error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.load, f.update, f.afterFn = load, update, afterFn
}

func (f *faulty) Load(ctx context.Context) (oauth.Session, error) {
	f.mu.Lock()
	err := f.load
	f.mu.Unlock()
	if err != nil {
		return oauth.Session{}, err
	}
	return f.Store.Load(ctx)
}

func (f *faulty) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	f.mu.Lock()
	err, after := f.update, f.afterFn
	f.mu.Unlock()
	if err != nil {
		return err
	}
	return f.Store.Update(ctx, func(s oauth.Session) (oauth.Session, error) {
		next, err := fn(s)
		if err == nil && after != nil && next.Generation != s.Generation {
			return s, after
		}
		return next, err
	})
}

func mustToken(t *testing.T, c *oauth.Client) string {
	t.Helper()
	tok, err := c.TokenSource().Token()
	if err != nil {
		t.Fatalf("Token: %v", err)
	}
	return tok.AccessToken
}

type held struct {
	oauth.Store
	mu      sync.Mutex
	hold    chan struct{}
	waiting chan struct{} // closed when an Update waits
}

func (h *held) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	h.mu.Lock()
	hold, waiting := h.hold, h.waiting
	h.hold = nil // the next one gets the lock first
	h.mu.Unlock()
	if hold != nil {
		close(waiting)
		select {
		case <-hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return h.Store.Update(ctx, fn)
}

// set makes the next Update wait until hold is closed.
func (h *held) set(hold chan struct{}) (waiting <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hold, h.waiting = hold, make(chan struct{})
	return h.waiting
}
