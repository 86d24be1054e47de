package oauth_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
)

// A store in memory does not print what it keeps, alone or in a configuration.
func TestMemoryStoreDoesNotPrint(t *testing.T) {
	const secret = "rt1.hunter2"
	store := oauth.NewMemoryStore()
	err := store.Update(t.Context(), func(oauth.Session) (oauth.Session, error) {
		return oauth.Session{Provider: "x", ClientID: "c", RefreshToken: secret, Generation: 1}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	config := oauth.Config{Store: store}
	type private struct{ store oauth.Store }
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d"} {
		for _, v := range []any{store, &store, config, &config, private{store}, []oauth.Store{store}} {
			fmt.Fprintf(&out, verb+"|", v)
		}
	}
	if got := fmt.Sprint(store); got != "oauth.MemoryStore" {
		t.Errorf("it prints as %q", got)
	}
	b, err := json.Marshal(store)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(b)
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		before := out.Len()
		slog.New(h).Info("x", "store", store)
		if line := out.String()[before:]; !strings.Contains(line, "oauth.MemoryStore") {
			t.Errorf("slog does not name the store: %s", line)
		}
	}
	for _, form := range []string{secret, fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), fmt.Sprintf("% x", secret)} {
		if strings.Contains(out.String(), form) {
			t.Errorf("%q came through in:\n%s", form, out.String())
		}
	}
}

type stuck struct {
	oauth.Store
	until chan struct{}
	calls atomic.Int32
}

func (s *stuck) Load(ctx context.Context) (oauth.Session, error) {
	s.calls.Add(1)
	<-s.until
	return s.Store.Load(ctx)
}

func (s *stuck) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	s.calls.Add(1)
	<-s.until
	return s.Store.Update(ctx, fn)
}

func TestTokenEndsWithStuckStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &stuck{Store: oauth.NewMemoryStore(), until: make(chan struct{})}
		srv := newRotor(3600)
		put(t, store.Store, func(s *oauth.Session) {
			s.Provider, s.ClientID, s.RefreshToken = "srv", "cli", srv.issue("ann")
		})
		c, _ := clientOf(t, srv, store, nil)
		done := make(chan error, 1)
		go func() { _, err := c.TokenSource().Token(); done <- err }()
		select {
		case err := <-done:
			var e *oauth.StoreError
			if !errors.As(err, &e) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		case <-time.After(time.Hour):
			t.Error("Token has not returned for an hour; Config.RenewTimeout is 2 minutes")
		}
		for range 1000 { // no goroutine for each call that nobody waits for
			time.Sleep(time.Minute)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if _, err := c.TokenSource().TokenContext(ctx); err == nil {
				t.Error("a token without a session")
			}
			cancel()
		}
		if n := store.calls.Load(); n > 30 {
			t.Errorf("the store was called %d times, and has not returned once", n)
		}
		close(store.until)
		synctest.Wait()
		if n := srv.count(); n != 0 {
			t.Errorf("%d requests that nobody waits for", n)
		}
		time.Sleep(2 * time.Minute)
		if got := mustToken(t, c); got != "at-ann-2" {
			t.Errorf("got %s", got)
		}
		closeSource(t, c)
	})
}

// hangsInWrite is a store that does not return from its next Update, although it has stored.
type hangsInWrite struct {
	oauth.Store
	hangs atomic.Bool
	until chan struct{}
}

func (s *hangsInWrite) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	hangs := false
	err := s.Store.Update(ctx, func(stored oauth.Session) (oauth.Session, error) {
		next, err := fn(stored)
		hangs = err == nil && next.RefreshToken != stored.RefreshToken && s.hangs.Swap(false)
		return next, err
	})
	if hangs {
		<-s.until
	}
	return err
}

// What a store that hangs while it writes was to store is served, and stored later.
func TestStoreHangsWhileItWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newRotor(3600)
		store := &hangsInWrite{Store: oauth.NewMemoryStore(), until: make(chan struct{})}
		c, events := clientOf(t, srv, store, nil)
		if err := c.Import(t.Context(), srv.issue("ann")); err != nil {
			t.Fatal(err)
		}
		store.hangs.Store(true)
		start := time.Now()
		if got := mustToken(t, c); got != "at-ann-2" || time.Since(start) > 3*time.Second {
			t.Errorf("%s after %v", got, time.Since(start))
		}
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		if len(events.of(oauth.EventSaveFailed)) != 1 || len(events.of(oauth.EventSaved)) != 1 {
			t.Errorf("events: %v", events.kinds())
		}
		close(store.until)
		closeSource(t, c)
		wantStored(t, c, srv.current)
	})
}

func TestCallsEndWithStuckStore(t *testing.T) {
	for name, call := range map[string]func(context.Context, *oauth.Client) error{
		"TokenContext": func(ctx context.Context, c *oauth.Client) error {
			_, err := c.TokenSource().TokenContext(ctx)
			return err
		},
		"Renew":   func(ctx context.Context, c *oauth.Client) error { _, err := c.TokenSource().Renew(ctx); return err },
		"Session": func(ctx context.Context, c *oauth.Client) error { _, err := c.Session(ctx); return err },
		"Logout":  func(ctx context.Context, c *oauth.Client) error { return c.Logout(ctx) },
		"Import":  func(ctx context.Context, c *oauth.Client) error { return c.Import(ctx, "rt-x") },
		"Login": func(ctx context.Context, c *oauth.Client) error {
			_, err := c.Login(ctx, oauth.LoginOptions{OpenURL: func(context.Context, string) error { return nil }})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &stuck{Store: oauth.NewMemoryStore(), until: make(chan struct{})}
				c, _ := clientOf(t, newRotor(3600), store, nil)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				done := make(chan error, 1)
				go func() { done <- call(ctx, c) }()
				select {
				case <-done:
				case <-time.After(10 * time.Minute):
					t.Error("has not returned 10 minutes after its context ended")
				}
				close(store.until)
				synctest.Wait()
				_ = c.TokenSource().Close()
			})
		})
	}
}

// A Store that returns neither a session nor an error has made a mistake: nobody is taken to be
// logged out for that.
func TestLoadOfNothing(t *testing.T) {
	c, _ := openClient(t, newFakeServer(rotate), func(cfg *oauth.Config) { cfg.Store = nothingStore{oauth.NewMemoryStore()} })
	s, err := c.Session(t.Context())
	if err == nil || errors.Is(err, oauth.ErrNoSession) {
		t.Errorf("%v, %v", s, err)
	}
}

type nothingStore struct{ oauth.Store }

func (nothingStore) Load(context.Context) (oauth.Session, error) { return oauth.Session{}, nil }
