package oauth_test

import (
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

// A rotor is a server that replaces the refresh token of each user at every renewal, and ends
// all sessions if one is sent twice. Its tokens name their users.
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

// answers sets what is sent instead of the rotor's own response, where it is not nil.
func (r *rotor) answers(f func(form url.Values) (*http.Response, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = f
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

// clientOf makes a client of the rotor, with the store as it is.
func clientOf(t *testing.T, r http.RoundTripper, store oauth.Store, change func(*oauth.Config)) (*oauth.Client, *eventLog) {
	t.Helper()
	events := new(eventLog)
	cfg := oauth.Config{
		Provider: oauth.Provider{Name: "srv", TokenURL: "https://auth.example/token", AuthURL: "https://auth.example/auth", CallbackPath: "/cb"},
		ClientID: "cli", Store: store, HTTPClient: &http.Client{Transport: r}, Observer: events.observe,
	}
	if change != nil {
		change(&cfg)
	}
	c, err := oauth.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c, events
}

func mustToken(t *testing.T, c *oauth.Client) string {
	t.Helper()
	tok, err := c.TokenSource().Token()
	if err != nil {
		t.Fatalf("Token: %v", err)
	}
	return tok.AccessToken
}
