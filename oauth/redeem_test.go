package oauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// slowStore is a store with something to do before an Update.
type slowStore struct {
	Store
	before func(ctx context.Context) error
}

func (s *slowStore) Update(ctx context.Context, fn func(Session) (Session, error)) error {
	if before := s.before; before != nil {
		if err := before(ctx); err != nil {
			return err
		}
	}
	return s.Store.Update(ctx, fn)
}

// redeeming returns a client whose server gives out the bodies one after the other.
func redeeming(t *testing.T, store Store, bodies ...string) *Client {
	t.Helper()
	c, err := New(Config{
		Provider: Provider{Name: "p", TokenURL: "https://as.example/token"}, ClientID: "c", Store: store,
		HTTPClient: &http.Client{Transport: roundTripFunc(func(r *http.Request) (*http.Response, error) {
			if len(bodies) == 0 {
				t.Error("one request too many")
				return nil, errBusy
			}
			body := bodies[0]
			bodies = bodies[1:]
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
		})},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const (
	loginBody   = `{"access_token":"at-login","token_type":"Bearer","expires_in":3600,"refresh_token":"rt-login"}`
	renewedBody = `{"access_token":"at-renewed","token_type":"Bearer","expires_in":3600,"refresh_token":"rt-renewed"}`
)

func TestSaveOfALoginIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var free atomic.Bool
		store := &slowStore{Store: NewMemoryStore(), before: func(ctx context.Context) error {
			if free.Load() {
				return nil
			}
			<-ctx.Done() // a holder of the lock that was stopped
			return ctx.Err()
		}}
		c := redeeming(t, store, loginBody)
		start := time.Now()
		s, err := c.redeem(t.Context(), codeGrant("code", "verifier", "http://127.0.0.1/"), Session{})
		var persist *PersistError
		if !errors.As(err, &persist) || s.RefreshToken != "rt-login" || time.Since(start) != saveTimeout {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if tok, err := c.TokenSource().Token(); err != nil || tok.AccessToken != "at-login" {
			t.Errorf("%v, %v: it is not served from memory", tok, err)
		}
		free.Store(true)
		time.Sleep(5 * time.Minute)
		if s, err := store.Load(t.Context()); err != nil || s.RefreshToken != "rt-login" {
			t.Errorf("%v: it is not saved when the lock is free", err)
		}
		if err := c.TokenSource().Close(); err != nil {
			t.Error(err)
		}
	})
}

// A login that waits for the store's lock, while its own first renewal is faster.
func TestLoginIsNotSavedOverItsOwnRenewal(t *testing.T) {
	for name, saves := range map[string]bool{"saved": true, "not saved": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &slowStore{Store: NewMemoryStore()}
				c := redeeming(t, store, loginBody, renewedBody)
				first := true
				store.before = func(context.Context) error {
					if !first {
						if saves {
							return nil
						}
						return errBusy
					}
					first = false
					if !saves {
						// The renewal goes on in memory only.
						base := c.source.view.Load().session
						next := base
						next.RefreshToken, next.AccessToken, next.Generation = "rt-renewed", "at-renewed", base.Generation+1
						now := c.clock.Now()
						v := c.source.view.Load().renewed(base, next, 0, now, c.margins())
						c.source.view.Store(&v)
						return nil
					}
					_, err := c.TokenSource().Renew(t.Context())
					return err
				}
				s, err := c.redeem(t.Context(), codeGrant("code", "verifier", "http://127.0.0.1/"), Session{})
				if err != nil || s.RefreshToken != "rt-renewed" {
					t.Errorf("%q, %v", s.RefreshToken.Reveal(), err)
				}
				if s, err := store.Load(t.Context()); err != nil || s.RefreshToken != "rt-renewed" {
					t.Errorf("stored %q, %v", s.RefreshToken.Reveal(), err)
				}
				if v := c.source.view.Load(); v.unsaved != nil || v.session.RefreshToken != "rt-renewed" {
					t.Errorf("unsaved: %v", v.unsaved)
				}
			})
		})
	}
}

// An import that the store is faster to tell of than Import itself, and that was
// renewed since.
func TestImportDoesNotUndoItsOwnRenewal(t *testing.T) {
	imported := loginAt(0, 3)
	v, _ := view{}.read(imported, nil, true, at(0), day, fixedMargins)
	if same := v.loggedIn(imported, nil, at(0), fixedMargins); same.epoch != v.epoch || same.token != v.token {
		t.Error("the session that was read is forgotten")
	}
	renewed := imported
	renewed.RefreshToken, renewed.AccessToken, renewed.Generation = "rt-renewed", "at-renewed", 4
	v = v.renewed(imported, renewed, 0, at(0), fixedMargins)
	if v = v.loggedIn(imported, nil, at(0), fixedMargins); v.session.RefreshToken != "rt-renewed" || v.unsaved == nil {
		t.Errorf("%q is in hand", v.session.RefreshToken.Reveal())
	}
	if again := v.loggedIn(loginAt(time.Hour, 1), nil, at(0), fixedMargins); again.session.Generation != 1 || again.unsaved != nil || again.epoch != v.epoch+1 {
		t.Error("the next login is ignored")
	}
}

// A login that was never saved is not brought back by the saver while a logout
// removes it.
func TestSaverDoesNotUndoALogout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mended atomic.Bool
		store := &slowStore{Store: NewMemoryStore(), before: func(context.Context) error {
			if mended.Load() {
				return nil
			}
			return errBusy
		}}
		pausing := &pausingStore{Store: store}
		c := redeeming(t, pausing, loginBody)
		if _, err := c.redeem(t.Context(), codeGrant("code", "verifier", "http://127.0.0.1/"), Session{}); err == nil {
			t.Fatal("saved")
		}
		mended.Store(true)
		pausing.once.Store(true)
		if err := c.Logout(t.Context()); !errors.Is(err, ErrNotRevoked) {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if s, err := store.Load(t.Context()); !errors.Is(err, ErrNoSession) {
			t.Errorf("%q came back, %v", s.RefreshToken.Reveal(), err)
		}
		if tok, err := c.TokenSource().Token(); !errors.Is(err, ErrNoSession) {
			t.Errorf("%v, %v", tok, err)
		}
		if err := c.TokenSource().Close(); err != nil {
			t.Error(err)
		}
	})
}

// pausingStore returns 10 seconds late from one Update.
type pausingStore struct {
	Store
	once atomic.Bool
}

func (s *pausingStore) Update(ctx context.Context, fn func(Session) (Session, error)) error {
	pause := s.once.CompareAndSwap(true, false)
	err := s.Store.Update(ctx, fn)
	if pause {
		time.Sleep(10 * time.Second)
	}
	return err
}

func TestSaver(t *testing.T) {
	t.Run("what comes during an attempt is saved after it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var sv saver
			attempts := 0
			var attempt func(context.Context) bool
			attempt = func(context.Context) bool {
				if attempts++; attempts == 1 {
					sv.start(attempt) // another session could not be saved, just now
				}
				return true
			}
			sv.start(attempt)
			sv.start(attempt)
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			if attempts != 2 {
				t.Errorf("%d attempts, want 2", attempts)
			}
			sv.start(attempt) // it starts again when it has ended
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			if attempts != 3 {
				t.Errorf("%d attempts, want 3", attempts)
			}
		})
	})
	t.Run("every 4 seconds in the end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var sv saver
			var at []time.Duration
			start := time.Now()
			sv.start(func(ctx context.Context) bool {
				if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) != saveTimeout {
					t.Errorf("an attempt may take until %v", deadline)
				}
				at = append(at, time.Since(start)/time.Second)
				return false
			})
			time.Sleep(20 * time.Second)
			sv.stop()
			time.Sleep(4 * time.Minute)
			synctest.Wait()
			want := []time.Duration{1, 3, 7, 11, 15, 19}
			if len(at) != len(want) {
				t.Fatalf("attempts at %d s, want %d", at, want)
			}
			for i := range at {
				if at[i] != want[i] {
					t.Errorf("attempts at %d s, want %d", at, want)
				}
			}
		})
	})
	t.Run("stopped", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var sv saver
			if done := sv.stop(); done != nil {
				t.Error("an attempt of nobody is in progress")
			}
			sv.start(func(context.Context) bool { t.Error("an attempt after stop"); return true })
			time.Sleep(time.Minute)

			sv = saver{}
			ended := false
			sv.start(func(ctx context.Context) bool {
				<-ctx.Done()
				time.Sleep(time.Second)
				ended = true
				return false
			})
			time.Sleep(2 * time.Second)
			<-sv.stop() // stop cancels the attempt
			if !ended {
				t.Error("stop does not wait for the attempt in progress")
			}
			time.Sleep(5 * time.Minute)
		})
	})
}

// An observer that panics in the goroutine of Login's caller, who recovers as net/http does
// for handlers, does not come between a session that was not saved and the next attempt.
func TestObserverThatPanicsDoesNotKeepALoginFromBeingSaved(t *testing.T) {
	for _, kind := range []EventKind{EventLogin, EventSaveFailed} {
		t.Run(string(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mended atomic.Bool
				store := &slowStore{Store: NewMemoryStore(), before: func(context.Context) error {
					if mended.Load() {
						return nil
					}
					return errBusy
				}}
				c := redeeming(t, store, loginBody)
				var first atomic.Pointer[EventKind]
				c.cfg.Observer = func(e Event) {
					first.CompareAndSwap(nil, &e.Kind)
					if e.Kind == kind {
						panic("observer")
					}
				}
				func() {
					defer func() {
						if recover() == nil {
							t.Error("the observer was not told")
						}
					}()
					_, _ = c.redeem(t.Context(), codeGrant("code", "verifier", "http://127.0.0.1/"), Session{})
				}()
				if told := first.Load(); told == nil || *told != EventLogin {
					t.Errorf("told %v first", told)
				}
				mended.Store(true)
				time.Sleep(firstSaveRetry)
				synctest.Wait()
				if s, err := store.Load(t.Context()); err != nil || s.RefreshToken != "rt-login" {
					t.Errorf("the store has %q, %v", s.RefreshToken.Reveal(), err)
				}
				if err := c.TokenSource().Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// keepingStore keeps in mind what was saved.
type keepingStore struct {
	Store
	mu    sync.Mutex
	saved []Session
}

func (s *keepingStore) Update(ctx context.Context, fn func(Session) (Session, error)) error {
	return s.Store.Update(ctx, func(stored Session) (Session, error) {
		next, err := fn(stored)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.saved = append(s.saved, next)
		return next, err
	})
}

// Sessions are told from each other by when they began, also if they began at one instant
// of a clock that stands still.
func TestSessionsThatBeginAtOneInstantDiffer(t *testing.T) {
	const sessions = 100
	store := &keepingStore{Store: NewMemoryStore()}
	instant := time.Now()
	var responses atomic.Int32
	all := make(chan struct{})
	c := served(t, func(r *http.Request) (*http.Response, error) {
		n := responses.Add(1)
		if n == sessions {
			close(all)
		}
		<-all
		return respond(r, http.StatusOK, strings.ReplaceAll(loginBody, "-login", fmt.Sprint("-login-", n)), http.Header{}), nil
	}, func(cfg *Config) {
		cfg.Store = store
		cfg.Clock = func() time.Time {
			runtime.Gosched()
			return instant
		}
	})
	var wg sync.WaitGroup
	for i := range sessions {
		wg.Go(func() {
			if _, err := c.redeem(context.Background(), codeGrant("code", "verifier", "http://127.0.0.1/"), Session{}); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			<-all
			if err := c.Import(context.Background(), Secret(fmt.Sprint("rt-", i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	began := map[int64]Secret{}
	for _, s := range store.saved {
		at := s.Created.UnixNano()
		if other, ok := began[at]; ok && other != s.RefreshToken {
			t.Errorf("%q and %q began at the same instant", other.Reveal(), s.RefreshToken.Reveal())
		}
		began[at] = s.RefreshToken
	}
	if len(began) < sessions {
		t.Errorf("%d sessions", len(began))
	}
	if err := c.TokenSource().Close(); err != nil {
		t.Error(err)
	}
}
