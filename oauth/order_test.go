package oauth_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"github.com/ycauth/ycauth-go/oauth"
)

// What a session must survive: orders of steps, pauses, and other processes.

// heldStore is a store whose lock somebody else holds, and whose Load can be slow.
type heldStore struct {
	oauth.Store
	mu   sync.Mutex
	lock func(ctx context.Context) error // before Update
	load func(ctx context.Context) error // after Load has read
	save func(ctx context.Context) error // before Update writes
}

func (s *heldStore) hooks() (lock, load, save func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	nothing := func(context.Context) error { return nil }
	lock, load, save = s.lock, s.load, s.save
	for _, f := range []*func(context.Context) error{&lock, &load, &save} {
		if *f == nil {
			*f = nothing
		}
	}
	return lock, load, save
}

func (s *heldStore) set(f func(*heldStore)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

// hold makes the next Update wait until release is closed. waiting is closed when it does.
func (s *heldStore) hold(release <-chan struct{}) (waiting <-chan struct{}) {
	begun := make(chan struct{})
	s.set(func(s *heldStore) {
		s.lock = func(ctx context.Context) error {
			s.set(func(s *heldStore) { s.lock = nil }) // the one after it gets the lock first
			close(begun)
			select {
			case <-release:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	return begun
}

func (s *heldStore) Load(ctx context.Context) (oauth.Session, error) {
	session, err := s.Store.Load(ctx)
	if _, load, _ := s.hooks(); load(ctx) != nil {
		return oauth.Session{}, ctx.Err()
	}
	return session, err
}

func (s *heldStore) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	lock, _, save := s.hooks()
	if err := lock(ctx); err != nil {
		return err
	}
	return s.Store.Update(ctx, func(cur oauth.Session) (oauth.Session, error) {
		next, err := fn(cur)
		if err == nil && fmt.Sprintf("%#v", next) != fmt.Sprintf("%#v", cur) || next.RefreshToken != cur.RefreshToken {
			if err := save(ctx); err != nil {
				return cur, err
			}
		}
		return next, err
	})
}

// until waits for d or the end of ctx.
func until(d time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// hang waits for the end of ctx.
func hang(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

func TestLateLockDoesNotCutTheResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
			select {
			case <-time.After(29 * time.Second):
				return rotate(n, r)
			case <-r.ctx.Done():
				return nil, r.ctx.Err()
			}
		})
		store := &heldStore{Store: oauth.NewMemoryStore()}
		c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store = store })
		store.set(func(s *heldStore) { s.lock = until(2*time.Minute - 100*time.Millisecond) })
		wantToken(t, c.TokenSource(), "at-1")
		wantStored(t, c, "rt-1")
		store.set(func(s *heldStore) { s.lock = until(2*time.Minute + time.Millisecond) })
		time.Sleep(2 * time.Hour)
		var broken *oauth.StoreError
		if _, err := c.TokenSource().Token(); !errors.As(err, &broken) || srv.count() != 1 {
			t.Errorf("%v after %d requests: the lock came too late for a request", err, srv.count())
		}
	})
}

func TestRejectedTokenIsTheLastResort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := false
		srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
			if down {
				return answer(503, ""), nil
			}
			return issue(n, r)
		})
		c, _ := newClient(t, srv)
		wantToken(t, c.TokenSource(), "at-1")
		down = true
		tok, _ := c.TokenSource().Token()
		c.TokenSource().Invalidate(tok)
		for range 50 {
			wantToken(t, c.TokenSource(), "at-1") // another resource may accept it
			time.Sleep(time.Minute)
		}
		down = false
		time.Sleep(2 * time.Minute)
		wantToken(t, c.TokenSource(), "at-1") // nobody waits for a server that failed before
		synctest.Wait()
		if tok, err := c.TokenSource().Token(); err != nil || tok.AccessToken == "at-1" {
			t.Errorf("%v, %v", tok, err)
		}
	})
}

func TestRejectedTokenIsReplacedForCallsOverGRPC(t *testing.T) {
	c, _ := newClient(t, newFakeServer(issue))
	for i := range 2 {
		md, err := c.TokenSource().GetRequestMetadata(t.Context())
		if want := fmt.Sprint("Bearer at-", i+1); err != nil || md["authorization"] != want {
			t.Errorf("%v, %v; want %q", md, err, want)
		}
		tok, _ := c.TokenSource().Token()
		c.TokenSource().Invalidate(tok)
	}
}

func TestRejectedTokenThatCameBackCanBeRejectedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		current := "first"
		srv := newFakeServer(func(int, fakeRequest) (*http.Response, error) {
			return answer(200, tokenJSON(current, "", 12*3600)), nil
		})
		c, _ := newClient(t, srv)
		ts := c.TokenSource()
		for range 2 { // a passing 401, and the server gives the same token
			tok, err := ts.Token()
			if err != nil || tok.AccessToken != "first" {
				t.Fatal(tok, err)
			}
			ts.Invalidate(tok)
			time.Sleep(31 * time.Second)
		}
		current = "second" // now it was revoked
		wantToken(t, ts, "second")
	})
}

func TestCloseWaitsForARotationWhoseCallerHasGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newFakeServer(rotate)
		srv.gate = make(chan struct{})
		c, _ := newClient(t, srv)
		ctx, interrupt := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, err := c.TokenSource().TokenContext(ctx)
			done <- err
		}()
		<-srv.began
		interrupt()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		time.AfterFunc(29*time.Second, func() { close(srv.gate) })
		closeSource(t, c)
		wantStored(t, c, "rt-1")
	})
}

func TestCloseIsBounded(t *testing.T) {
	const request, save = 30 * time.Second, 30 * time.Second
	closing := func(t *testing.T, c *oauth.Client) (time.Duration, error) {
		start := time.Now()
		err := c.TokenSource().Close()
		return time.Since(start), err
	}
	t.Run("a server that hangs", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			srv := newFakeServer(rotate)
			srv.gate = make(chan struct{})
			c, _ := newClient(t, srv)
			result := make(chan error)
			go func() { _, err := c.TokenSource().Token(); result <- err }()
			<-srv.began
			if d, err := closing(t, c); err != nil || d > request {
				t.Errorf("%v, %v", d, err)
			}
			if err := <-result; !errors.Is(err, oauth.ErrOutcomeUnknown) || srv.count() != 1 {
				t.Errorf("%v after %d requests", err, srv.count())
			}
		})
	})
	t.Run("a server that is away", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			srv := newFakeServer(func(int, fakeRequest) (*http.Response, error) { return answer(503, "", "Retry-After", "25"), nil })
			c, _ := newClient(t, srv)
			result := make(chan error)
			go func() { _, err := c.TokenSource().Token(); result <- err }()
			<-srv.began
			synctest.Wait()
			if d, err := closing(t, c); err != nil || d != 0 {
				t.Errorf("%v, %v: the wait before the next attempt goes on", d, err)
			}
			var server *oauth.ServerError
			if err := <-result; !errors.Is(err, oauth.ErrClosed) || !errors.As(err, &server) {
				t.Errorf("%v says neither that it was closed nor what the server said", err)
			}
		})
	})
	t.Run("a server that asks for another nonce", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
				time.Sleep(20 * time.Second)
				if n == 1 {
					return answer(400, `{"error":"use_dpop_nonce"}`, "DPoP-Nonce", "n"), nil
				}
				return rotate(n, r)
			})
			c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.DPoP = newProver(t) })
			go func() { _, _ = c.TokenSource().Token() }()
			<-srv.began
			if d, err := closing(t, c); err != nil || d != 40*time.Second {
				t.Errorf("%v, %v", d, err)
			}
			wantStored(t, c, "rt-2")
		})
	})
	t.Run("a lock that somebody else holds", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			store := &heldStore{Store: oauth.NewMemoryStore()}
			srv := newFakeServer(rotate)
			c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store = store })
			store.set(func(s *heldStore) { s.lock = hang })
			result := make(chan error)
			go func() { _, err := c.TokenSource().Token(); result <- err }()
			time.Sleep(time.Second)
			if d, err := closing(t, c); err != nil || d != 0 {
				t.Errorf("%v, %v: nothing was sent", d, err)
			}
			err := <-result
			if broken := (*oauth.StoreError)(nil); !errors.Is(err, oauth.ErrClosed) || errors.As(err, &broken) || srv.count() != 0 {
				t.Errorf("%v after %d requests: the store did nothing wrong", err, srv.count())
			}
		})
	})
	t.Run("a store that is slow", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			store := &heldStore{Store: oauth.NewMemoryStore()}
			srv := newFakeServer(rotate)
			c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store = store })
			store.set(func(s *heldStore) {
				s.save = func(context.Context) error { time.Sleep(3*request + save - time.Second); return nil }
			})
			go func() { _, _ = c.TokenSource().Token() }()
			<-srv.began
			if d, err := closing(t, c); err != nil || d > 3*request+save {
				t.Errorf("%v after %v", err, d)
			}
			wantStored(t, c, "rt-1")
		})
	})
	for name, stuck := range map[string]func(context.Context) error{
		"a store that hangs": hang, "a store that ignores its context": until(time.Hour),
	} {
		if name == "a store that ignores its context" {
			stuck = func(context.Context) error { time.Sleep(time.Hour); return errDisk }
		}
		t.Run(name+" while it saves", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &heldStore{Store: oauth.NewMemoryStore()}
				c, _ := newClient(t, newFakeServer(rotate), func(cfg *oauth.Config) { cfg.Store = store })
				store.set(func(s *heldStore) { s.save = func(context.Context) error { return errDisk } })
				wantToken(t, c.TokenSource(), "at-1")
				store.set(func(s *heldStore) { s.lock = stuck })
				time.Sleep(10 * time.Second) // an attempt to save hangs
				d, err := closing(t, c)
				var persist *oauth.PersistError
				if limit := 3*request + 2*save + time.Second; !errors.As(err, &persist) || d > limit {
					t.Errorf("%v, %v", d, err)
				}
				if name == "a store that hangs" && d > save {
					t.Errorf("%v: one save takes 30 s", d)
				}
				store.set(func(s *heldStore) { s.lock, s.save = nil, nil })
				time.Sleep(2 * time.Hour)
				closeSource(t, c)
				wantStored(t, c, "rt-1")
			})
		})
		t.Run(name+" while it is looked at", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &heldStore{Store: oauth.NewMemoryStore()}
				c, _ := newClient(t, newFakeServer(rotate), func(cfg *oauth.Config) { cfg.Store = store })
				wantToken(t, c.TokenSource(), "at-1")
				store.set(func(s *heldStore) { s.load = stuck })
				time.Sleep(2 * time.Minute)
				wantToken(t, c.TokenSource(), "at-1")
				time.Sleep(time.Second)
				d, err := closing(t, c)
				if limit := 3*request + save + time.Second; err != nil || d > limit || name == "a store that hangs" && d != 0 {
					t.Errorf("%v, %v", d, err)
				}
				time.Sleep(2 * time.Hour)
			})
		})
	}
}

func TestRevokeRunsBeforeTheLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newFakeServer(rotate)
		var c *oauth.Client
		var revoked []string
		c, log := newClient(t, srv, func(cfg *oauth.Config) {
			cfg.Revoke = func(ctx context.Context, s oauth.Session) error {
				tok, err := c.TokenSource().TokenContext(ctx) // as refreshtoken's client does
				if err == nil {
					revoked = append(revoked, s.RefreshToken.Reveal(), s.AccessToken.Reveal(), tok.AccessToken)
				}
				return err
			}
		})
		wantToken(t, c.TokenSource(), "at-1")
		time.Sleep(2 * time.Hour)
		start := time.Now()
		if err := c.Logout(t.Context()); err != nil || time.Since(start) != 0 {
			t.Fatalf("%v after %v", err, time.Since(start))
		}
		if got := fmt.Sprint(revoked); got != "[rt-2 at-2 at-2]" {
			t.Errorf("revoked %s with an expired token in hand", got)
		}
		if len(log.of(oauth.EventLogout)) != 1 {
			t.Error("no event")
		}
	})
}

func TestLogoutByRevocationRequest(t *testing.T) {
	status := 503
	var form string
	srv := newFakeServer(nil)
	srv.handle = func(n int, r fakeRequest) (*http.Response, error) {
		if r.form.Has("token") {
			form = r.form.Encode()
			return answer(status, `{"error":"temporarily_unavailable"}`), nil
		}
		return rotate(n, r)
	}
	c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Provider.RevocationURL = "https://as.example/revoke" })
	wantToken(t, c.TokenSource(), "at-1")
	var server *oauth.ServerError
	if err := c.Logout(t.Context()); !errors.As(err, &server) || server.Status != 503 {
		t.Errorf("error %v", err)
	}
	wantStored(t, c, "rt-1")
	status = 200
	if err := c.Logout(t.Context()); err != nil || form != "client_id=client&token=rt-1&token_type_hint=refresh_token" {
		t.Errorf("error %v, form %s", err, form)
	}
	if _, err := c.Session(t.Context()); !errors.Is(err, oauth.ErrNoSession) {
		t.Error(err)
	}
}

func TestLogoutRevokesWhatIsNotSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var revoked oauth.Secret
		store := newFaultyStore()
		c, _ := newClient(t, newFakeServer(rotate), func(cfg *oauth.Config) {
			cfg.Store = store
			cfg.Revoke = func(_ context.Context, s oauth.Session) error { revoked = s.RefreshToken; return nil }
		})
		store.set(func(s *faultyStore) { s.failSave = errDisk })
		wantToken(t, c.TokenSource(), "at-1")
		store.set(func(s *faultyStore) { s.failSave = nil })
		if err := c.Logout(t.Context()); err != nil || revoked != "rt-1" {
			t.Errorf("%v, revoked %q", err, revoked.Reveal())
		}
		time.Sleep(5 * time.Minute) // the saver has nothing to save any more
		if _, err := c.Session(t.Context()); !errors.Is(err, oauth.ErrNoSession) {
			t.Errorf("the session came back: %v", err)
		}
		closeSource(t, c)
	})
}

func TestLogoutThatFailsForgetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFaultyStore()
		c, _ := newClient(t, newFakeServer(rotate), func(cfg *oauth.Config) { cfg.Store = store })
		wantToken(t, c.TokenSource(), "at-1")
		store.set(func(s *faultyStore) { s.failSave = errDisk })
		var broken *oauth.StoreError
		if err := c.Logout(t.Context()); !errors.As(err, &broken) {
			t.Error(err)
		}
		wantToken(t, c.TokenSource(), "at-1")
		time.Sleep(2 * time.Hour)
		wantToken(t, c.TokenSource(), "at-2") // with a refresh token in memory only
		store.set(func(s *faultyStore) { s.failSave = nil })
		closeSource(t, c)
		wantStored(t, c, "rt-2")
	})
}

func TestNewestOfTwoUnsavedSessionsIsSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &heldStore{Store: oauth.NewMemoryStore()}
		c, log := newClient(t, newFakeServer(rotate), func(cfg *oauth.Config) { cfg.Store = &unlockedStore{Store: store} })
		store.set(func(s *heldStore) { s.lock = func(context.Context) error { return errDisk } })
		wantToken(t, c.TokenSource(), "at-1")
		// The saver's attempt is slow, and a renewal is faster.
		store.set(func(s *heldStore) { s.lock = until(5 * time.Second) })
		time.Sleep(1500 * time.Millisecond)
		store.set(func(s *heldStore) { s.lock = func(context.Context) error { return errDisk } })
		if tok, err := c.TokenSource().Renew(t.Context()); err != nil || tok.AccessToken != "at-2" {
			t.Fatal(tok, err)
		}
		store.set(func(s *heldStore) { s.lock = nil })
		time.Sleep(10 * time.Second)
		closeSource(t, c)
		wantStored(t, c, "rt-2")
		if len(log.of(oauth.EventSaved)) != 1 {
			t.Errorf("%+v", log.events)
		}
	})
}

func TestRollbackOfTheStoreIsMended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := oauth.NewMemoryStore()
		srv := newFakeServer(rotate)
		c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store = store })
		wantToken(t, c.TokenSource(), "at-1")
		backup, err := store.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.TokenSource().Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := store.Update(t.Context(), func(oauth.Session) (oauth.Session, error) { return backup, nil }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(61 * time.Second)
		wantToken(t, c.TokenSource(), "at-2") // which has a look at the store
		time.Sleep(2 * time.Second)
		wantStored(t, c, "rt-2")
		closeSource(t, c)
		wantStored(t, c, "rt-2")
		if srv.count() != 2 {
			t.Errorf("%d requests", srv.count())
		}
	})
}

func TestSlowLookDoesNotUndoALogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &heldStore{Store: oauth.NewMemoryStore()}
		srv := newFakeServer(issue)
		c, log := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store = store })
		wantToken(t, c.TokenSource(), "at-1")
		time.Sleep(2 * time.Minute)
		store.set(func(s *heldStore) { s.load = until(10 * time.Second) })
		wantToken(t, c.TokenSource(), "at-1") // begins a look, which has read the old session
		time.Sleep(time.Second)
		store.set(func(s *heldStore) { s.load = nil })
		if err := c.Import(t.Context(), "rt-new"); err != nil {
			t.Fatal(err)
		}
		wantToken(t, c.TokenSource(), "at-2")
		time.Sleep(30 * time.Second)
		wantToken(t, c.TokenSource(), "at-2")
		if n := len(log.of(oauth.EventReplaced)); n != 0 {
			t.Errorf("%d events of another login", n)
		}
		closeSource(t, c)
	})
}

func TestLogoutElsewhereIsNoticedWithinAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := oauth.NewMemoryStore()
		c, log := newClient(t, newFakeServer(issue), func(cfg *oauth.Config) { cfg.Store = store })
		wantToken(t, c.TokenSource(), "at-1")
		put(t, store, func(s *oauth.Session) { *s = oauth.Session{} })
		time.Sleep(time.Minute)
		wantToken(t, c.TokenSource(), "at-1") // this one has a look
		synctest.Wait()
		_, err := c.TokenSource().Token()
		wantReason(t, err, oauth.ReasonNoSession)
		if n := len(log.of(oauth.EventLogout)); n != 1 {
			t.Errorf("%d events", n)
		}
	})
}

func TestLoginOfAnotherUserElsewhereIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := oauth.NewMemoryStore()
		srv := newFakeServer(issue)
		c, log := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store = store })
		wantToken(t, c.TokenSource(), "at-1")
		time.Sleep(time.Minute)
		put(t, store, func(s *oauth.Session) {
			s.Created, s.RefreshToken = time.Now(), "rt-other"
			freshUntil(s, "at-other", time.Hour)
		})
		_, _ = c.TokenSource().Token()
		synctest.Wait()
		wantToken(t, c.TokenSource(), "at-other")
		if len(log.of(oauth.EventReplaced)) != 1 || len(log.of(oauth.EventAdopted)) != 0 || srv.count() != 1 {
			t.Errorf("%+v after %d requests", log.events, srv.count())
		}
	})
}

func TestRejectedTokensAreNotServedInTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFaultyStore()
		srv := newFakeServer(issue)
		c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store = store })
		ts := c.TokenSource()
		wantToken(t, ts, "at-1")
		store.set(func(s *faultyStore) { s.failSave = errDisk })
		tok, _ := ts.Token()
		ts.Invalidate(tok)
		wantToken(t, ts, "at-2") // and the store still has at-1
		last := 2
		for range 20 {
			tok, err := ts.Token()
			if err != nil {
				t.Fatal(err)
			}
			var n int
			if _, err := fmt.Sscanf(tok.AccessToken, "at-%d", &n); err != nil || n < last {
				t.Fatalf("%s is served again", tok.AccessToken)
			}
			last = n
			ts.Invalidate(tok)
			time.Sleep(20 * time.Second)
		}
		if last < 10 {
			t.Errorf("%d tokens in 400 s, each of which was rejected", last)
		}
		store.set(func(s *faultyStore) { s.failSave = nil })
		closeSource(t, c)
	})
}

func TestUnsavedDeadRefreshTokenIsSentOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFaultyStore()
		srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
			if n == 1 {
				return rotate(n, r)
			}
			return answer(400, `{"error":"invalid_grant"}`), nil
		})
		c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store = store })
		store.set(func(s *faultyStore) { s.failSave = errDisk })
		wantToken(t, c.TokenSource(), "at-1")
		for range 5 {
			time.Sleep(2 * time.Hour)
			_, err := c.TokenSource().Token()
			wantReason(t, err, oauth.ReasonRejected)
		}
		if srv.count() != 2 || srv.request(1).form.Get("refresh_token") != "rt-1" {
			t.Errorf("%d requests", srv.count())
		}
	})
}

func TestSessionIsBoundToTheServersOrigin(t *testing.T) {
	store := oauth.NewMemoryStore()
	srv := newFakeServer(issue)
	there, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store = store })
	wantToken(t, there.TokenSource(), "at-1")
	for url, ours := range map[string]bool{
		"https://as.elsewhere.example/token": false, "https://as.example:8443/token": false, "https://as.example/v2/token": true, "https://AS.example/token": true,
	} {
		c, _ := openClient(t, srv, func(cfg *oauth.Config) { cfg.Store, cfg.Provider.TokenURL = store, url })
		n := srv.count()
		_, err := c.TokenSource().Token()
		if ours {
			if err != nil {
				t.Errorf("%s: %v", url, err)
			}
			continue
		}
		wantReason(t, err, oauth.ReasonWrongClient)
		if _, err := c.TokenSource().Renew(t.Context()); err == nil || srv.count() != n {
			t.Errorf("%s: the session was sent there", url)
		}
	}
}

func TestRotationThatBindsIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := oauth.NewMemoryStore()
		srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
			if n == 1 {
				return issue(n, r)
			}
			return answer(200, `{"access_token":"at-bound","token_type":"DPoP","expires_in":3600,"refresh_token":"rt-bound","refresh_token_expires_in":86400}`), nil
		})
		before, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store = store })
		wantToken(t, before.TokenSource(), "at-1")
		prover := newProver(t)
		c, _ := openClient(t, srv, func(cfg *oauth.Config) { cfg.Store, cfg.DPoP = store, prover })
		if _, err := c.TokenSource().Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		s, err := c.Session(t.Context())
		if err != nil || s.KeyThumbprint == "" || s.TokenThumbprint != s.KeyThumbprint || !s.RefreshExpiry.Equal(time.Now().Add(24*time.Hour)) {
			t.Errorf("stored %+v, %v", s, err)
		}
		other, _ := openClient(t, srv, func(cfg *oauth.Config) { cfg.Store, cfg.DPoP = store, newProver(t) })
		_, err = other.TokenSource().Token()
		wantReason(t, err, oauth.ReasonWrongKey)
		same, _ := openClient(t, srv, func(cfg *oauth.Config) { cfg.Store, cfg.DPoP = store, prover })
		wantToken(t, same.TokenSource(), "at-bound")
	})
}

func TestBoundTokenIsNotServedWithAnotherKey(t *testing.T) {
	store := oauth.NewMemoryStore()
	srv := newFakeServer(issue)
	c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store = store })
	put(t, store, func(s *oauth.Session) { // a refresh token that is not bound, an access token that is
		freshUntil(s, "at-bound", time.Hour)
		s.TokenType, s.TokenThumbprint = "DPoP", "another key"
	})
	wantToken(t, c.TokenSource(), "at-1")
}

func TestNewRefreshTokenIsSalvaged(t *testing.T) {
	whole := tokenJSON("at-1", "rt-1", 3600)
	for name, tt := range map[string]struct {
		status int
		body   string
		token  bool // whether the access token is good as well
	}{
		"byte order mark":          {200, "\ufeff" + whole, true},
		"NUL before":               {200, "\x00" + whole, true},
		"NUL after":                {200, whole + "\x00", true},
		"bad UTF-8 in a member":    {200, whole[:len(whole)-1] + ",\"hint\":\"\xff\"}", true},
		"a member that is twice":   {200, whole[:len(whole)-1] + `,"hint":1,"hint":2}`, true},
		"a token twice, the same":  {200, whole[:len(whole)-1] + `,"access_token":"at-1"}`, true},
		"another access token too": {200, whole[:len(whole)-1] + `,"access_token":"at-2"}`, false},
		"201":                      {201, whole, true},
		"202":                      {202, whole, true},
		"cut off":                  {200, whole[:len(whole)-1], false},
		"text after it":            {200, whole + "<!-- cached -->", false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
					if n == 1 {
						return answer(tt.status, tt.body), nil
					}
					return issue(n, r)
				})
				c, _ := newClient(t, srv)
				tok, err := c.TokenSource().Token()
				if tt.token != (err == nil) || err == nil && tok.AccessToken != "at-1" {
					t.Errorf("%v, %v", tok, err)
				}
				wantStored(t, c, "rt-1")
			})
		})
	}
}

func TestErrorWithStatus200EndsTheSession(t *testing.T) {
	c, _ := newClient(t, newFakeServer(func(int, fakeRequest) (*http.Response, error) {
		return answer(200, `{"error":"invalid_grant","error_description":"expired"}`), nil
	}))
	_, err := c.TokenSource().Token()
	wantReason(t, err, oauth.ReasonRejected)
}

// The end of a session is told by the code, however odd the JSON around it is, with
// either status.
func TestErrorInOddJSON(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		ended      bool
	}{
		{"windows-1251", "{\"error\":\"invalid_grant\",\"error_description\":\"\xd2\xee\xea\xe5\xed\"}", true},
		{"a byte order mark", "\ufeff" + `{"error":"invalid_grant"}`, true},
		{"a NUL at the end", `{"error":"invalid_grant"}` + "\x00", true},
		{"a description twice", `{"error":"invalid_grant","error_description":"a","error_description":"b"}`, true},
		{"the code twice", `{"error":"invalid_grant","error":"invalid_grant"}`, true},
		{"text after the end", `{"error":"invalid_grant"}{}`, true},
		{"a description that is cut off", `{"error":"invalid_grant","error_description":"expi`, true},
		{"two codes", `{"error":"invalid_grant","error":"server_error"}`, false},
		{"a code that is cut off", `{"error":"invalid_grant`, false},
		{"a code inside of something else", `{"errors":[{"error":"invalid_grant"}],}`, false},
		{"no code", `{"error":null,}`, false},
		{"a code that is no text", `{"error":{"code":"invalid_grant"},}`, false},
	} {
		for _, status := range []int{400, 200} {
			for _, contentType := range []string{"application/json", "text/html"} {
				t.Run(fmt.Sprint(tt.name, " ", status, " ", contentType), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						srv := newFakeServer(func(int, fakeRequest) (*http.Response, error) {
							return answer(status, tt.body, "Content-Type", contentType), nil
						})
						c, _ := newClient(t, srv)
						_, err := c.TokenSource().Token()
						var server *oauth.ServerError
						if !errors.As(err, &server) || errors.Is(err, oauth.ErrLoginRequired) != tt.ended {
							t.Errorf("log in again: %v: %v", !tt.ended, err)
						}
						if tt.ended && srv.count() != 1 {
							t.Errorf("%d requests", srv.count())
						}
					})
				})
			}
		}
	}
}

// The refresh token that was sent, in an error, is no new one.
func TestErrorWithTheSentRefreshToken(t *testing.T) {
	for _, status := range []int{200, 400} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			c, _ := newClient(t, newFakeServer(func(int, fakeRequest) (*http.Response, error) {
				return answer(status, `{"error":"invalid_grant","error_description":"expired","refresh_token":"rt-0"}`), nil
			}))
			_, err := c.TokenSource().Token()
			wantReason(t, err, oauth.ReasonRejected)
		})
	}
	synctest.Test(t, func(t *testing.T) { // nor does it keep the request from being made again
		c, _ := newClient(t, newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
			if n == 1 {
				return answer(503, `{"error":"server_error","access_token":"at","refresh_token":"rt-0"}`), nil
			}
			return issue(n, r)
		}))
		wantToken(t, c.TokenSource(), "at-2")
	})
}

// A new refresh token in a response with the status of an error is kept, if the response
// is a token response in all but its status.
func TestRefreshTokenInAnError(t *testing.T) {
	whole := tokenJSON("at-x", "rt-1", 3600)
	with := func(member string) string { return strings.Replace(whole, "{", "{"+member+",", 1) }
	for _, tt := range []struct {
		name, body, want string
	}{
		{"a token response", whole, "rt-1"},
		{"with a code", with(`"error":"server_error"`), "rt-1"},
		{"with the code that ends sessions", with(`"error":"invalid_grant"`), "rt-1"},
		{"no access token", `{"error":"server_error","refresh_token":"rt-1"}`, "rt-0"},
		{"what is wrong with each member", `{"access_token":"is not accepted","refresh_token":"is missing"}`, "rt-0"},
		{"masked", `{"access_token":"at-****","refresh_token":"rt-****"}`, "rt-0"},
		{"a type that nobody knows", `{"access_token":"at","refresh_token":"rt-1","token_type":"mac"}`, "rt-0"},
		{"inside of something else", `{"error":"server_error","upstream":` + whole + `}`, "rt-0"},
		{"cut off", whole[:len(whole)-1], "rt-0"},
		{"twice", with(`"refresh_token":"rt-2"`), "rt-0"},
	} {
		for _, status := range []int{302, 400, 403, 500, 503} {
			t.Run(fmt.Sprint(tt.name, " ", status), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
						if r.form.Get("refresh_token") == "rt-0" {
							return answer(status, tt.body), nil
						}
						return issue(n, r)
					})
					c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.DPoP = newProver(t) })
					tok, err := c.TokenSource().Token()
					if tok != nil && (tok.AccessToken == "at-x" || tt.want == "rt-0") {
						t.Errorf("token %q, %v", tok.AccessToken, err)
					}
					closeSource(t, c)
					wantStored(t, c, tt.want)
				})
			})
		}
	}
}

// Texts that are too long to be searched for secrets are left out, and so are refresh
// tokens that are too long for anybody.
func TestLongTexts(t *testing.T) {
	const most = 64 << 10
	long := strings.Repeat("a", most)
	for name, resp := range map[string]*http.Response{
		"description":  answer(400, `{"error":"invalid_scope","error_description":"`+strings.Repeat(long, 10)+`"}`),
		"code":         answer(400, `{"error":"`+strings.Repeat(long, 10)+`"}`),
		"content type": answer(200, "", "Content-Type", "text/"+long),
		"request id":   answer(503, "", "X-Request-Id", long),
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := newClient(t, newFakeServer(func(int, fakeRequest) (*http.Response, error) { return resp, nil }),
				func(cfg *oauth.Config) { cfg.MaxAttempts = 1 })
			_, err := c.TokenSource().Token()
			var server *oauth.ServerError
			if !errors.As(err, &server) || strings.Contains(err.Error(), "aaaaa") || len(err.Error()) > 600 {
				t.Errorf("%.1000v", err)
			}
		})
	}
	for n, want := range map[int]string{most: long, most + 1: "rt-0"} {
		c, _ := newClient(t, newFakeServer(func(int, fakeRequest) (*http.Response, error) {
			return answer(200, tokenJSON("at", strings.Repeat("a", n), 3600)), nil
		}))
		if _, err := c.TokenSource().Token(); (err == nil) != (n == most) {
			t.Errorf("a refresh token of %d bytes: %v", n, err)
		}
		closeSource(t, c)
		if s, err := c.Session(t.Context()); err != nil || s.RefreshToken.Reveal() != want {
			t.Errorf("after one of %d bytes, one of %d is stored, %v", n, len(s.RefreshToken.Reveal()), err)
		}
		if err := c.Import(t.Context(), oauth.Secret(strings.Repeat("a", n))); (err == nil) != (n == most) {
			t.Errorf("import of %d bytes: %v", n, err)
		}
	}
}

// idleStore is a store whose Update at times does nothing, and says that all is well.
type idleStore struct {
	oauth.Store
	idle  atomic.Bool
	calls atomic.Int32
}

func (s *idleStore) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	if s.calls.Add(1); s.idle.Load() {
		return nil
	}
	return s.Store.Update(ctx, fn)
}

// A store that does not call fn is broken, and nothing counts as saved.
func TestUpdateThatDoesNotCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faulty := newFaultyStore()
		store := &idleStore{Store: faulty}
		c, log := newClient(t, newFakeServer(rotate), func(cfg *oauth.Config) {
			cfg.Store, cfg.Logger = store, slog.New(slog.DiscardHandler)
		})
		ts := c.TokenSource()
		want := func(err error, what string) {
			t.Helper()
			var broken *oauth.StoreError
			if !errors.As(err, &broken) || !strings.Contains(err.Error(), "did not call fn") {
				t.Errorf("%s: %v", what, err)
			}
		}
		store.idle.Store(true)
		_, err := ts.Token()
		want(err, "Token")
		want(c.Import(t.Context(), "rt-x"), "Import")
		want(c.Logout(t.Context()), "Logout")
		_, err = c.Login(t.Context(), oauth.LoginOptions{Out: io.Discard})
		want(err, "Login")

		// A session that could not be saved goes on being tried.
		store.idle.Store(false)
		faulty.set(func(s *faultyStore) { s.failSave = errors.New("no room") })
		time.Sleep(time.Minute)
		wantToken(t, ts, "at-1")
		store.idle.Store(true)
		before := store.calls.Load()
		time.Sleep(time.Minute)
		if n := store.calls.Load() - before; n > 20 {
			t.Errorf("%d calls in a minute", n)
		}
		var unsaved *oauth.PersistError
		if err := ts.Close(); !errors.As(err, &unsaved) {
			t.Errorf("Close: %v", err)
		}
		if len(log.of(oauth.EventSaved)) != 0 {
			t.Error("it counts as saved")
		}
		store.idle.Store(false)
		faulty.set(func(s *faultyStore) { s.failSave = nil })
		closeSource(t, c)
		wantStored(t, c, "rt-1")
	})
}

// A store that is empty after it could not save means a logout, as TokenSource says; after
// a login that it never had it does not.
func TestEmptyStoreAfterAFailedSave(t *testing.T) {
	for _, login := range []bool{false, true} {
		t.Run(fmt.Sprint("login ", login), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				faulty := newFaultyStore()
				c, log := newClient(t, newFakeServer(rotate), func(cfg *oauth.Config) { cfg.Store = faulty })
				faulty.set(func(s *faultyStore) { s.failSave = errors.New("the disk is gone") })
				if login {
					faulty.set(func(s *faultyStore) { s.failSave = nil })
					var unsaved *oauth.PersistError
					_, err := c.Login(t.Context(), oauth.LoginOptions{OpenURL: func(ctx context.Context, url string) error {
						faulty.set(func(s *faultyStore) { s.failSave = errors.New("the disk is gone") })
						return browserThatFollows(t)(ctx, url)
					}})
					if !errors.As(err, &unsaved) {
						t.Fatalf("%v", err)
					}
				}
				wantToken(t, c.TokenSource(), "at-1")
				faulty.set(func(s *faultyStore) { s.failSave, s.Store = nil, oauth.NewMemoryStore() })
				time.Sleep(2 * time.Minute)
				s, err := c.Session(t.Context())
				if login && (err != nil || s.RefreshToken != "rt-1") || !login && !errors.Is(err, oauth.ErrNoSession) {
					t.Errorf("stored: %q, %v", s.RefreshToken.Reveal(), err)
				}
				if n := len(log.of(oauth.EventLogout)); (n == 1) == login {
					t.Errorf("%d logouts", n)
				}
				closeSource(t, c)
			})
		})
	}
}

func TestSessionIsNoJSON(t *testing.T) {
	s := fullSession()
	for name, v := range map[string]any{"session": s, "pointer": &s, "within": struct{ S oauth.Session }{s}} {
		if data, err := json.Marshal(v); err == nil || !strings.Contains(err.Error(), "Encode") {
			t.Errorf("%s: %s, %v", name, data, err)
		}
	}
	if err := json.Unmarshal([]byte(`{}`), &s); err == nil || !strings.Contains(err.Error(), "DecodeSession") {
		t.Error(err)
	}
}

// No verb of fmt, no handler of slog and no JSON shows a secret of a value of this
// package, however it is handed over.
func TestPrintsNoSecret(t *testing.T) {
	srv := newFakeServer(func(int, fakeRequest) (*http.Response, error) { return nil, errLine })
	store := oauth.NewMemoryStore()
	c, log := newClient(t, srv, func(cfg *oauth.Config) {
		cfg.ClientSecret, cfg.Provider.AuthMethod, cfg.MaxAttempts = "hunter2-client", oauth.AuthClientSecretBasic, 1
		cfg.Store = store
	})
	if err := c.Import(t.Context(), "hunter2-refresh"); err != nil {
		t.Fatal(err)
	}
	_, err := c.TokenSource().Token() // the refresh token is doubtful now
	session, decodeErr := oauth.DecodeSession([]byte(
		`{"version":1,"provider":"test","client_id":"client","refresh_token":"hunter2-refresh","generation":3,"later":"hunter2-later"}`))
	if err == nil || decodeErr != nil {
		t.Fatal(err, decodeErr)
	}
	type nested struct{ V any }
	type opaque struct { // fmt does not ask values in unexported fields
		c  *oauth.Client
		ts *oauth.TokenSource
		s  oauth.Store
		e  error
	}
	held := opaque{c, c.TokenSource(), store, err}
	cfg := oauth.Config{ClientSecret: "hunter2-client", Store: store}
	raw := []byte("hunter2")
	traces := []string{"hunter2"}
	for _, verb := range []string{"%d", "%x", "%X", "% x", "%o", "%b", "%c", "%U"} {
		traces = append(traces, strings.Trim(fmt.Sprintf(verb, raw), "[]"), strings.Trim(fmt.Sprintf(verb, []rune("hunter2")), "[]"))
	}
	for _, v := range []any{
		c, &c, reflect.ValueOf(c).Elem(), c.TokenSource(), reflect.ValueOf(c.TokenSource()).Elem(), store, held, &held,
		cfg, &cfg, session, &session, oauth.Secret("hunter2"), err, log.events,
	} {
		for how, v := range map[string]any{"alone": v, "nested": nested{v}, "in a slice": []any{v}, "in a map": map[string]any{"": v}} {
			printed := map[string]string{}
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%o", "%b", "%c", "%U", "%e", "%t"} {
				printed[verb] = fmt.Sprintf(verb, v)
			}
			var text, js bytes.Buffer
			slog.New(slog.NewTextHandler(&text, nil)).Info("", "v", v)
			slog.New(slog.NewJSONHandler(&js, nil)).Info("", "v", v)
			encoded, err := json.Marshal(v)
			if err != nil {
				encoded = []byte(err.Error())
			}
			printed["slog text"], printed["slog JSON"], printed["JSON"] = text.String(), js.String(), string(encoded)
			for verb, out := range printed {
				for _, trace := range traces {
					if strings.Contains(out, trace) {
						t.Errorf("%T %s, with %s: %q is in %.300s", v, how, verb, trace, out)
						break
					}
				}
			}
		}
	}
}

// What the server asked for stands, whatever a sibling stores: no cause of a renewal makes
// a request before the end of a Retry-After.
func TestRetryAfterOutlivesAnAdoption(t *testing.T) {
	for name, tt := range map[string]struct {
		life   time.Duration // of the sibling's token
		age    time.Duration
		reject bool
		force  bool
		late   bool // whether there is no token at the end
	}{
		"stale":    {life: time.Hour, age: 55 * time.Minute, late: true},
		"rejected": {life: time.Hour, reject: true},
		"expires":  {life: 90 * time.Second, late: true},
		"forced":   {life: time.Hour, force: true},
		"both":     {life: 90 * time.Second, force: true, late: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := oauth.NewMemoryStore()
				start := time.Now()
				srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
					if n == 2 {
						return answer(429, `{"error":"slow_down"}`, "Retry-After", "600"), nil
					}
					return issue(n, r)
				})
				c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store = store })
				ts := c.TokenSource()
				wantToken(t, ts, "at-1")
				var busy *oauth.ServerError
				if _, err := ts.Renew(t.Context()); !errors.As(err, &busy) {
					t.Fatalf("%v", err)
				}
				put(t, store, func(s *oauth.Session) {
					freshUntil(s, "siblings", tt.life)
					s.Obtained, s.Expiry = s.Obtained.Add(-tt.age), s.Expiry.Add(-tt.age)
				})
				var tok *oauth2.Token
				var err error
				for time.Since(start) < 590*time.Second {
					time.Sleep(time.Second)
					if tok, err = ts.Token(); tok != nil && tok.AccessToken == "siblings" && tt.reject {
						ts.Invalidate(tok)
					}
					if tt.force {
						tok, err = ts.Renew(t.Context())
					}
					synctest.Wait()
				}
				if srv.count() != 2 {
					t.Errorf("%d requests, want 2", srv.count())
				}
				if tt.late {
					busy = nil
					if !errors.As(err, &busy) || busy.Status != 429 {
						t.Errorf("at the end: %v, %v, want what the server said", tok, err)
					}
				} else if err != nil || tok.AccessToken != "siblings" {
					t.Errorf("at the end: %v, %v", tok, err)
				}
				time.Sleep(15 * time.Second)
				if _, err := ts.Renew(t.Context()); err != nil || srv.count() < 3 {
					t.Errorf("later: %v, %d requests", err, srv.count())
				}
			})
		})
	}
}

// A Retry-After beside the end of a session does not hide another login.
func TestRetryAfterBesideTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := oauth.NewMemoryStore()
		srv := newFakeServer(func(int, fakeRequest) (*http.Response, error) {
			return answer(400, `{"error":"invalid_grant"}`, "Retry-After", "600"), nil
		})
		c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store = store })
		_, err := c.TokenSource().Token()
		wantReason(t, err, oauth.ReasonRejected)
		put(t, store, func(s *oauth.Session) {
			s.RefreshToken, s.Created = "rt-login", time.Now().Add(time.Second)
			freshUntil(s, "at-login", time.Hour)
		})
		time.Sleep(6 * time.Second)
		wantToken(t, c.TokenSource(), "at-login")
	})
}

func TestRetryAfterIsComparedWithTheServersClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newFakeServer(func(int, fakeRequest) (*http.Response, error) {
			there := time.Now().Add(-3 * time.Hour).UTC() // the server's clock is behind ours
			return answer(503, "", "Date", there.Format(http.TimeFormat), "Retry-After", there.Add(time.Minute).Format(http.TimeFormat)), nil
		})
		c, _ := newClient(t, srv)
		_, err := c.TokenSource().Token()
		var server *oauth.ServerError
		if !errors.As(err, &server) || server.RetryAfter != time.Minute {
			t.Errorf("%v", err)
		}
	})
}

func TestUnreachableServerHasAType(t *testing.T) {
	dns := &net.DNSError{Err: "no such host", Name: "as.example", IsNotFound: true}
	for name, cause := range map[string]error{
		"name": &net.OpError{Op: "dial", Net: "tcp", Err: dns}, "nobody listens": &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, log := newClient(t, newFakeServer(func(int, fakeRequest) (*http.Response, error) { return nil, cause }))
				_, err := c.TokenSource().Token()
				var unreachable *oauth.UnreachableError
				if !errors.As(err, &unreachable) || !unreachable.Temporary() || errors.Is(err, oauth.ErrOutcomeUnknown) || errors.Is(err, oauth.ErrLoginRequired) {
					t.Errorf("error %v", err)
				}
				var found *net.DNSError
				if errors.As(err, &found) != (name == "name") {
					t.Errorf("the cause is not in %v", err)
				}
				if failed := log.of(oauth.EventRenewFailed); len(failed) != 1 || failed[0].ErrorKind() != "unreachable" {
					t.Errorf("%+v", failed)
				}
			})
		})
	}
}

func TestPatientCallerOutlastsAnOutage(t *testing.T) {
	dial := &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	for name, tt := range map[string]struct{ outage, patience time.Duration }{
		"20 s of 30": {20 * time.Second, 30 * time.Second}, "9 min of 10": {9 * time.Minute, 10 * time.Minute}, "for ever": {time.Hour, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				srv := newFakeServer(nil)
				srv.handle = func(n int, r fakeRequest) (*http.Response, error) {
					<-srv.began
					if time.Since(start) < tt.outage {
						return nil, dial
					}
					return issue(n, r)
				}
				c, _ := newClient(t, srv)
				ctx, cancel := context.WithTimeout(t.Context(), tt.patience)
				defer cancel()
				_, err := c.TokenSource().TokenContext(ctx)
				var unreachable *oauth.UnreachableError
				if good := tt.outage < tt.patience; good != (err == nil) || !good && !errors.As(err, &unreachable) {
					t.Errorf("%v after %v", err, time.Since(start))
				}
				if time.Since(start) > tt.patience || srv.count() > 10+int(tt.patience/(5*time.Second)) {
					t.Errorf("%d requests in %v", srv.count(), time.Since(start))
				}
			})
		})
	}
}

// The rest between two renewals counts from the failure, not from when a slow observer
// was done with it.
func TestPatientCallerRestsNoLongerThanNecessary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
			if n == 1 {
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
			}
			return issue(n, r)
		})
		c, _ := newClient(t, srv, func(cfg *oauth.Config) {
			cfg.MaxAttempts = 1
			cfg.Observer = func(e oauth.Event) {
				if e.Kind == oauth.EventRenewFailed {
					time.Sleep(3 * time.Second)
				}
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		if tok, err := c.TokenSource().TokenContext(ctx); err != nil || tok.AccessToken != "at-2" || time.Since(start) != 3*time.Second {
			t.Errorf("%v, %v after %v", tok, err, time.Since(start))
		}
	})
}

// Close ends the wait for the next renewal: of callers who saw the last one fail, and
// of those who came later.
func TestPatientCallerIsToldOfClose(t *testing.T) {
	for name, later := range map[string]time.Duration{"the renewal was theirs": 0, "it was over": 1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := newFakeServer(func(int, fakeRequest) (*http.Response, error) {
					return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
				})
				c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.MaxAttempts = 1 })
				ts := c.TokenSource()
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				if later > 0 {
					if _, err := ts.Token(); err == nil {
						t.Fatal("the server answered")
					}
					time.Sleep(later)
				}
				result := make(chan error)
				for range 3 {
					go func() { _, err := ts.TokenContext(ctx); result <- err }()
				}
				synctest.Wait() // all of them rest now
				start := time.Now()
				for range 2 {
					if err := ts.Close(); err != nil {
						t.Error(err)
					}
				}
				for range 3 {
					if err := <-result; !errors.Is(err, oauth.ErrClosed) {
						t.Errorf("%v, want ErrClosed", err)
					}
				}
				if d := time.Since(start); d != 0 || srv.count() != 1 {
					t.Errorf("%v after Close, %d requests", d, srv.count())
				}
			})
		})
	}
}

func TestObserverRestsAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFaultyStore()
		srv := newFakeServer(rotate)
		var mu sync.Mutex
		closed, late := false, []oauth.Event(nil)
		c, _ := newClient(t, srv, func(cfg *oauth.Config) {
			cfg.Store = store
			cfg.Observer = func(e oauth.Event) {
				time.Sleep(time.Second) // a slow one
				mu.Lock()
				defer mu.Unlock()
				if closed {
					late = append(late, e)
				}
			}
		})
		ts := c.TokenSource()
		store.set(func(s *faultyStore) { s.failSave = errDisk })
		tok, err := ts.Token()
		if err != nil {
			t.Fatal(err)
		}
		srv.gate = make(chan struct{})
		go func() { _, _ = ts.Renew(t.Context()) }()
		time.AfterFunc(5*time.Second, func() { close(srv.gate) })
		time.Sleep(3 * time.Second)
		_ = ts.Close()
		mu.Lock()
		closed = true
		mu.Unlock()
		ts.Invalidate(tok)
		current, _ := ts.Token()
		ts.Invalidate(current)
		_, _ = ts.Renew(t.Context())
		time.Sleep(5 * time.Minute)
		if len(late) != 0 {
			t.Errorf("%+v", late)
		}
	})
}

func TestWaitingForTheLockIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &heldStore{Store: oauth.NewMemoryStore()}
		c, log := newClient(t, newFakeServer(issue), func(cfg *oauth.Config) { cfg.Store = store })
		store.set(func(s *heldStore) { s.lock = until(1900 * time.Millisecond) })
		wantToken(t, c.TokenSource(), "at-1")
		if n := len(log.of(oauth.EventWaiting)); n != 0 {
			t.Errorf("%d events after 1.9 s", n)
		}
		store.set(func(s *heldStore) { s.lock = until(10 * time.Second) })
		time.Sleep(2 * time.Hour)
		wantToken(t, c.TokenSource(), "at-2")
		if waiting := log.of(oauth.EventWaiting); len(waiting) != 1 || waiting[0].Duration != 2*time.Second || waiting[0].Cause != oauth.CauseInvalid {
			t.Errorf("%+v", waiting)
		}
	})
}

func TestSiblingsTokenIsAdoptedWhileTheLockIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &heldStore{Store: oauth.NewMemoryStore()}
		srv := newFakeServer(issue)
		c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store = store })
		put(t, store, func(s *oauth.Session) { freshUntil(s, "siblings", time.Hour) })
		store.set(func(s *heldStore) { s.lock = hang })
		wantToken(t, c.TokenSource(), "siblings")
		if srv.count() != 0 {
			t.Errorf("%d requests", srv.count())
		}
	})
}

func TestScopesAreNotShared(t *testing.T) {
	srv := newFakeServer(rotate)
	c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Scopes = []string{"openid", "offline_access"} })
	login := func() oauth.Session {
		s, err := c.Login(t.Context(), oauth.LoginOptions{OpenURL: browser(t, func(cb *url.URL) { get(t, cb) })})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := login()
	s.Scopes[0] = "changed"
	if q := loginURL(t, c, oauth.LoginOptions{}); q.Get("scope") != "openid offline_access" {
		t.Errorf("the next login asks for %q", q.Get("scope"))
	}
	if stored, err := c.Session(t.Context()); err != nil || stored.Scopes[0] != "openid" {
		t.Errorf("stored %v, %v", stored.Scopes, err)
	}
}

func TestWaiterGetsTheTokenOfTheNewLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
			return answer(200, tokenJSON("at-of-"+r.form.Get("refresh_token"), "", 3600)), nil
		})
		c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store = &unlockedStore{Store: oauth.NewMemoryStore()} })
		srv.gate = make(chan struct{})
		result := make(chan string)
		go func() {
			tok, err := c.TokenSource().Token()
			if err != nil {
				t.Error(err)
				close(result)
				return
			}
			result <- tok.AccessToken
		}()
		<-srv.began
		time.Sleep(time.Second)
		if err := c.Import(t.Context(), "the-new-user"); err != nil {
			t.Fatal(err)
		}
		close(srv.gate)
		if got := <-result; got != "at-of-the-new-user" {
			t.Errorf("a caller waited for %q", got)
		}
		wantStored(t, c, "the-new-user")
	})
}

func TestDroppedSessionIsNotReportedAsSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFaultyStore()
		c, log := newClient(t, newFakeServer(rotate), func(cfg *oauth.Config) { cfg.Store = store })
		store.set(func(s *faultyStore) { s.failSave = errDisk })
		wantToken(t, c.TokenSource(), "at-1")
		store.set(func(s *faultyStore) { s.failSave = nil })
		time.Sleep(time.Millisecond) // no two logins at once
		put(t, store, func(s *oauth.Session) { s.RefreshToken = "rt-login"; s.Created = time.Now() })
		time.Sleep(time.Minute)
		if len(log.of(oauth.EventSaved)) != 0 || len(log.of(oauth.EventReplaced)) != 1 {
			t.Errorf("%+v", log.events)
		}
		closeSource(t, c)
	})
}

func TestUnknownMembersSurviveARenewal(t *testing.T) {
	const stored = `{"version":1,"provider":"test","client_id":"client","refresh_token":"rt-0","generation":3,"later":{"a":[1,2]},"secret_later":"hunter2"}`
	s, err := oauth.DecodeSession([]byte(stored))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%v %+v %#v", s, s, s); strings.Contains(got, "hunter2") {
		t.Errorf("an unknown member is printed: %s", got)
	}
	store := oauth.NewMemoryStore()
	put(t, store, func(cur *oauth.Session) { *cur = s })
	c, _ := openClient(t, newFakeServer(rotate), func(cfg *oauth.Config) { cfg.Store = store })
	wantToken(t, c.TokenSource(), "at-1")
	after, err := c.Session(t.Context())
	if err != nil || after.RefreshToken != "rt-1" {
		t.Fatal(after, err)
	}
	data, err := after.Encode()
	if err != nil || !strings.Contains(string(data), `"later":{"a":[1,2]}`) || !strings.Contains(string(data), `"secret_later":"hunter2"`) {
		t.Errorf("%s, %v", data, err)
	}
}

func TestAllAttemptsOfARenewalFitItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
			if n == 4 {
				return issue(n, r)
			}
			<-r.ctx.Done()
			return nil, r.ctx.Err()
		})
		c, _ := newClient(t, srv)
		wantToken(t, c.TokenSource(), "at-4")
	})
}

func TestBrowserThatDoesNotOpenAndNobodyToTell(t *testing.T) {
	c, _ := newClient(t, newFakeServer(rotate))
	errDisplay := errors.New("no display")
	_, err := c.Login(t.Context(), oauth.LoginOptions{OpenURL: func(context.Context, string) error { return errDisplay }})
	if !errors.Is(err, errDisplay) {
		t.Errorf("error %v", err)
	}
}

func TestEmptyRefusalReadsAsOneError(t *testing.T) {
	c, _ := newClient(t, newFakeServer(func(int, fakeRequest) (*http.Response, error) { return answer(503, ""), nil }), func(cfg *oauth.Config) { cfg.MaxAttempts = 1 })
	_, err := c.TokenSource().Token()
	const want = "oauth: the authorization server responded 503 Service Unavailable: malformed response: no RFC 6749 error"
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestBrokenStoreCostsNoGoroutine(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 50 {
		store := newFaultyStore()
		c, _ := newClient(t, newFakeServer(rotate), func(cfg *oauth.Config) { cfg.Store = store })
		store.set(func(s *faultyStore) { s.failSave = errDisk })
		wantToken(t, c.TokenSource(), "at-1")
		t.Cleanup(func() { _ = c.TokenSource().Close() })
	}
	time.Sleep(10 * time.Millisecond)
	if n := runtime.NumGoroutine() - before; n > 10 {
		t.Errorf("%d goroutines for 50 clients that cannot save", n)
	}
}

func TestIssuerOfAnAuthorizationResponse(t *testing.T) {
	const ours = "https://as.example"
	for name, tt := range map[string]struct {
		require bool
		iss     []string
		ends    bool // the login ends, and nothing is sent to the token endpoint
	}{
		"right":              {true, []string{ours}, false},
		"removed":            {true, nil, true},
		"not required":       {false, nil, false},
		"wrong":              {false, []string{"https://evil.example"}, true},
		"wrong and required": {true, []string{"https://evil.example"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			srv := newFakeServer(rotate)
			c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Provider.Issuer, cfg.Provider.RequireIss = ours, tt.require })
			var page string
			s, err := c.Login(t.Context(), oauth.LoginOptions{OpenURL: browser(t, func(cb *url.URL) {
				_, page = get(t, with(cb, func(q url.Values) { q["iss"] = tt.iss }))
			})})
			if !tt.ends {
				if err != nil || s.RefreshToken != "rt-1" {
					t.Errorf("%v", err)
				}
				return
			}
			if !errors.Is(err, oauth.ErrIssuerMismatch) || srv.count() != 0 || !strings.Contains(page, "The login failed") {
				t.Errorf("error %v after %d requests; page %s", err, srv.count(), page)
			}
			wantStored(t, c, "rt-0")
		})
	}
	t.Run("twice", func(t *testing.T) { // "parameters MUST NOT be included more than once" (RFC 6749 §3.1)
		srv := newFakeServer(rotate)
		c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Provider.Issuer = ours })
		_, err := c.Login(t.Context(), oauth.LoginOptions{OpenURL: browser(t, func(cb *url.URL) {
			twice := with(cb, func(q url.Values) { q["iss"] = []string{ours, "https://evil.example"} })
			if status, _ := get(t, twice); status != http.StatusBadRequest || srv.count() != 0 {
				t.Errorf("status %d, %d requests", status, srv.count())
			}
			get(t, with(cb, func(q url.Values) { q.Set("iss", ours) }))
		})})
		if err != nil {
			t.Error(err)
		}
	})
}

func TestTokenThatDiesDuringTheRequestIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wall wallClock
		srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
			if n == 1 {
				wall.set(24 * time.Hour) // the clock is put right while the first response is on its way
			}
			return issue(n, r)
		})
		c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Clock = wall.now })
		wantToken(t, c.TokenSource(), "at-2")
		if srv.count() != 2 {
			t.Errorf("%d requests", srv.count())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		c, _ := newClient(t, newFakeServer(func(int, fakeRequest) (*http.Response, error) {
			time.Sleep(3 * time.Second)
			return answer(200, tokenJSON("at", "", 2)), nil
		}))
		if tok, err := c.TokenSource().Token(); !errors.Is(err, oauth.ErrMalformedResponse) {
			t.Errorf("%v, %v: it has expired", tok, err)
		}
	})
}

var (
	_ io.Closer = (*oauth.TokenSource)(nil)
)
