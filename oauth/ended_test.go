package oauth_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
)

// A token that serves costs no wait, so a caller whose context has ended gets it as well.
func TestEndedContextGetsAUsableToken(t *testing.T) {
	for name, tt := range map[string]struct {
		after       time.Duration // of a token for an hour
		synchronous bool
		invalidate  bool
		want        string
		requests    int
	}{
		"fresh":                            {after: 0, want: "at-1", requests: 1},
		"fresh, a look is due":             {after: 2 * time.Minute, want: "at-1", requests: 1},
		"stale":                            {after: 52 * time.Minute, want: "at-1", requests: 2},
		"stale, Synchronous":               {after: 52 * time.Minute, synchronous: true, want: "at-1", requests: 1},
		"invalid, not yet expired":         {after: time.Hour - 10*time.Second, want: "at-1", requests: 1},
		"rejected":                         {after: time.Minute, invalidate: true, want: "at-1", requests: 1},
		"expired":                          {after: time.Hour, requests: 1},
		"expired a long time ago":          {after: 48 * time.Hour, requests: 1},
		"expired, Synchronous":             {after: time.Hour, synchronous: true, requests: 1},
		"rejected, and then it expired":    {after: time.Hour, invalidate: true, requests: 1},
		"rejected and stale, Synchronous":  {after: 52 * time.Minute, invalidate: true, synchronous: true, want: "at-1", requests: 1},
		"fresh, a look is due, and closed": {after: -2 * time.Minute, want: "at-1", requests: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := newFakeServer(issue)
				c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Synchronous = tt.synchronous })
				ts := c.TokenSource()
				tok, err := ts.Token()
				if err != nil {
					t.Fatal(err)
				}
				if tt.after < 0 {
					closeSource(t, c)
				}
				time.Sleep(max(tt.after, -tt.after))
				if tt.invalidate {
					ts.Invalidate(tok)
				}
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				got, err := ts.TokenContext(ctx)
				switch {
				case tt.want == "" && !errors.Is(err, context.Canceled):
					t.Errorf("%v, want the context's error", err)
				case tt.want != "" && (err != nil || got.AccessToken != tt.want):
					t.Errorf("%v, %v, want %s", got, err, tt.want)
				}
				synctest.Wait()
				if srv.count() != tt.requests {
					t.Errorf("%d requests, want %d", srv.count(), tt.requests)
				}
				closeSource(t, c)
			})
		})
	}
}

func TestDeadTokenStaysDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newRotor(3600)
		store := newFaultyStore()
		c, _ := clientOf(t, srv, store, nil)
		defer c.TokenSource().Close()
		if err := c.Import(t.Context(), srv.issue("ann")); err != nil {
			t.Fatal(err)
		}
		tok, err := c.TokenSource().Token()
		if err != nil {
			t.Fatal(err)
		}
		srv.ended = true // revoked at the server
		c.TokenSource().Invalidate(tok)
		if _, err := c.TokenSource().Token(); !errors.Is(err, oauth.ErrLoginRequired) {
			t.Fatalf("error %v", err)
		}
		time.Sleep(10 * time.Second)
		if _, err := c.TokenSource().Token(); !errors.Is(err, oauth.ErrLoginRequired) {
			t.Fatalf("error %v", err)
		}
		down := errors.New("store: connection refused")
		store.fail(down, down, nil)
		time.Sleep(10 * time.Second)
		if tok, err := c.TokenSource().Token(); err == nil {
			t.Errorf("with the store down for a moment, the rejected token %s is served, whose session has ended", tok.AccessToken)
		}
	})
}

func TestDeadTokenStaysDeadWhileStoreIsLocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, mem := newRotor(12*3600), oauth.NewMemoryStore()
		store := &heldStore{Store: mem}
		c, _ := clientOf(t, srv, store, nil)
		defer c.TokenSource().Close()
		if err := c.Import(t.Context(), srv.issue("ann")); err != nil {
			t.Fatal(err)
		}
		tok, err := c.TokenSource().Token()
		if err != nil {
			t.Fatal(err)
		}
		srv.ended = true
		c.TokenSource().Invalidate(tok)
		if _, err := c.TokenSource().Token(); !errors.Is(err, oauth.ErrLoginRequired) {
			t.Fatal(err)
		}
		hold := make(chan struct{})
		store.hold(hold) // another process logs in, and waits for its user
		time.Sleep(10 * time.Second)
		if tok, err := c.TokenSource().Token(); err == nil {
			t.Errorf("%s is served: the resource has rejected it, and its session has ended", tok.AccessToken)
		}
		close(hold)
	})
}
