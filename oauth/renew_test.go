package oauth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/ycauth/ycauth-go/oauth"
)

var errDisk = errors.New("no space left on device")

func wantStored(t *testing.T, c *oauth.Client, refreshToken string) {
	t.Helper()
	s, err := c.Session(t.Context())
	if err != nil || s.RefreshToken.Reveal() != refreshToken {
		t.Fatalf("stored %q, %v; want %q", s.RefreshToken.Reveal(), err, refreshToken)
	}
}

func TestFailedSaveStillServes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFaultyStore()
		srv := newFakeServer(rotate)
		c, log := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store = store })
		ts := c.TokenSource()
		store.set(func(s *faultyStore) { s.failSave = errDisk })
		wantToken(t, ts, "at-1")
		failed := log.of(oauth.EventSaveFailed)
		var persist *oauth.PersistError
		if len(failed) != 1 || !errors.As(failed[0].Err, &persist) || !errors.Is(failed[0].Err, errDisk) || failed[0].ErrorKind() != "persist" {
			t.Fatalf("events %+v", failed)
		}
		wantStored(t, c, "rt-0")

		// The next renewals go on with the refresh token in memory.
		time.Sleep(2 * time.Hour)
		wantToken(t, ts, "at-2")
		time.Sleep(2 * time.Hour)
		wantToken(t, ts, "at-3")
		for i, want := range []string{"rt-0", "rt-1", "rt-2"} {
			if got := srv.request(i).form.Get("refresh_token"); got != want {
				t.Errorf("renewal %d was made with %q, want %q", i+1, got, want)
			}
		}

		store.set(func(s *faultyStore) { s.failSave = nil }) // somebody made room
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		wantStored(t, c, "rt-3")
		if saved := log.of(oauth.EventSaved); len(saved) != 1 {
			t.Errorf("%d saved events, want 1", len(saved))
		}
		if srv.count() != 3 {
			t.Errorf("%d requests, want 3", srv.count())
		}
		closeSource(t, c)
	})
}

func TestSavingGoesOnUntilItSucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFaultyStore()
		c, log := newClient(t, newFakeServer(rotate), func(cfg *oauth.Config) { cfg.Store = store })
		store.set(func(s *faultyStore) { s.failSave = errDisk })
		wantToken(t, c.TokenSource(), "at-1")
		time.Sleep(10 * time.Second)
		wantStored(t, c, "rt-0")
		store.set(func(s *faultyStore) { s.failSave = nil })
		time.Sleep(time.Minute)
		wantStored(t, c, "rt-1")
		if n := len(log.of(oauth.EventSaved)); n != 1 {
			t.Errorf("%d events", n)
		}
	})
}

func TestCloseSavesWhatWasNotSaved(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	store := newFaultyStore()
	c, _ := newClient(t, newFakeServer(rotate), func(cfg *oauth.Config) { cfg.Store = store })
	store.set(func(s *faultyStore) { s.failSave = errDisk })
	wantToken(t, c.TokenSource(), "at-1")
	var persist *oauth.PersistError
	if err := c.TokenSource().Close(); !errors.As(err, &persist) || !errors.Is(err, errDisk) {
		t.Fatalf("Close: %v, want a PersistError", err)
	}
	store.set(func(s *faultyStore) { s.failSave = nil })
	closeSource(t, c)
	wantStored(t, c, "rt-1")
}

func TestUnsavedSessionYieldsToANewerLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFaultyStore()
		c, _ := newClient(t, newFakeServer(rotate), func(cfg *oauth.Config) { cfg.Store = store })
		store.set(func(s *faultyStore) { s.failSave = errDisk })
		wantToken(t, c.TokenSource(), "at-1")
		store.set(func(s *faultyStore) { s.failSave = nil })
		put(t, store, func(s *oauth.Session) { s.RefreshToken = "rt-login"; s.Created = time.Now() })
		time.Sleep(time.Minute)
		synctest.Wait()
		wantStored(t, c, "rt-login")
		closeSource(t, c)
	})
}

func TestUnusableStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFaultyStore()
		srv := newFakeServer(rotate)
		c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store = store })
		errLock := errors.New("cannot lock")
		store.set(func(s *faultyStore) { s.failLock, s.failLoad = errLock, errLock })
		_, err := c.TokenSource().Token()
		var storeErr *oauth.StoreError
		if !errors.As(err, &storeErr) || !errors.Is(err, errLock) || srv.count() != 0 {
			t.Errorf("error %v after %d requests: without the lock nothing may be sent", err, srv.count())
		}
		if _, err := c.Session(t.Context()); !errors.As(err, &storeErr) {
			t.Errorf("Session: %v", err)
		}
		if err := c.Import(t.Context(), "rt-x"); !errors.As(err, &storeErr) {
			t.Errorf("Import: %v", err)
		}
		if err := c.Logout(t.Context()); !errors.As(err, &storeErr) {
			t.Errorf("Logout: %v", err)
		}
		store.set(func(s *faultyStore) { s.failLock, s.failLoad = nil, nil })
		time.Sleep(time.Minute)
		wantToken(t, c.TokenSource(), "at-1")
	})
}

func TestSessionsThatAreNotOurs(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*oauth.Session)
		reason oauth.Reason
	}{
		{"other provider", func(s *oauth.Session) { s.Provider = "elsewhere" }, oauth.ReasonWrongClient},
		{"other client", func(s *oauth.Session) { s.ClientID = "somebody" }, oauth.ReasonWrongClient},
		{"other key", func(s *oauth.Session) { s.KeyThumbprint = "AAAA" }, oauth.ReasonWrongKey},
		{"no refresh token, scope missing", func(s *oauth.Session) {
			freshUntil(s, "at", -time.Hour)
			s.RefreshToken, s.Warning = "", oauth.WarnNoOfflineScope
		}, oauth.ReasonNoRefreshToken},
		{"no refresh token, switched off", func(s *oauth.Session) {
			freshUntil(s, "at", -time.Hour)
			s.RefreshToken, s.Warning = "", oauth.WarnRefreshTokensOff
		}, oauth.ReasonNoRefreshToken},
	} {
		t.Run(tt.name, func(t *testing.T) {
			store := oauth.NewMemoryStore()
			srv := newFakeServer(issue)
			c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store = store })
			put(t, store, tt.change)
			_, err := c.TokenSource().Token()
			e := wantReason(t, err, tt.reason)
			if tt.reason == oauth.ReasonWrongKey && e.Detail != "the token's key is AAAA, no key is configured" {
				t.Errorf("detail %q", e.Detail)
			}
			if srv.count() != 0 {
				t.Errorf("%d requests with a session that is not ours", srv.count())
			}
		})
	}
	t.Run("valid token of another key is not adopted", func(t *testing.T) {
		store := oauth.NewMemoryStore()
		c, _ := newClient(t, newFakeServer(issue), func(cfg *oauth.Config) { cfg.Store, cfg.DPoP = store, newProver(t) })
		put(t, store, func(s *oauth.Session) { freshUntil(s, "theirs", time.Hour); s.KeyThumbprint = "AAAA" })
		_, err := c.TokenSource().Token()
		if e := wantReason(t, err, oauth.ReasonWrongKey); !strings.HasPrefix(e.Detail, "the token's key is AAAA, the configured key is ") {
			t.Errorf("detail %q", e.Detail)
		}
	})
}

func TestNoSession(t *testing.T) {
	c, err := oauth.New(oauth.Config{Provider: testProvider(), ClientID: "client"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.TokenSource().Token()
	wantReason(t, err, oauth.ReasonNoSession)
	if !errors.Is(err, oauth.ErrNoSession) {
		t.Errorf("error %v, want ErrNoSession too", err)
	}
	if _, err := c.Session(t.Context()); !errors.Is(err, oauth.ErrNoSession) {
		t.Errorf("Session: %v", err)
	}
	if err := c.Logout(t.Context()); err != nil {
		t.Errorf("Logout without a session: %v", err)
	}
}

func TestLogout(t *testing.T) {
	t.Run("revokes, then forgets", func(t *testing.T) {
		var revoked []oauth.Secret
		errRevoke := errors.New("the server is away")
		fail := true
		c, log := newClient(t, newFakeServer(issue), func(cfg *oauth.Config) {
			cfg.Revoke = func(_ context.Context, s oauth.Session) error {
				revoked = append(revoked, s.RefreshToken)
				if fail {
					return errRevoke
				}
				return nil
			}
		})
		wantToken(t, c.TokenSource(), "at-1")
		if err := c.Logout(t.Context()); !errors.Is(err, errRevoke) {
			t.Fatalf("Logout: %v", err)
		}
		wantStored(t, c, "rt-0") // it can be tried again
		wantToken(t, c.TokenSource(), "at-1")
		fail = false
		if err := c.Logout(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, err := c.TokenSource().Token()
		wantReason(t, err, oauth.ReasonNoSession)
		if len(revoked) != 2 || revoked[1] != "rt-0" || len(log.of(oauth.EventLogout)) != 1 {
			t.Errorf("revoked %d times; events %+v", len(revoked), log.events)
		}
	})
	t.Run("revokes what a sibling renewed meanwhile as well", func(t *testing.T) {
		for siblings, want := range map[int]string{1: "[rt-0 rt-1]", 9: "[rt-0 rt-1 rt-2]"} {
			var revoked []string
			store := oauth.NewMemoryStore()
			c, log := newClient(t, newFakeServer(issue), func(cfg *oauth.Config) {
				cfg.Store = store
				cfg.Revoke = func(_ context.Context, s oauth.Session) error {
					revoked = append(revoked, s.RefreshToken.Reveal())
					if n := len(revoked); n <= siblings {
						put(t, store, func(s *oauth.Session) { s.RefreshToken = oauth.Secret(fmt.Sprint("rt-", n)) })
					}
					return nil
				}
			})
			wantToken(t, c.TokenSource(), "at-1")
			err := c.Logout(t.Context())
			if got := fmt.Sprint(revoked); got != want {
				t.Errorf("revoked %s, want %s", got, want)
			}
			_, loadErr := store.Load(t.Context())
			if forgotten := errors.Is(loadErr, oauth.ErrNoSession); forgotten != (siblings == 1) || (err == nil) != forgotten || (len(log.of(oauth.EventLogout)) == 1) != forgotten {
				t.Errorf("%d siblings: %v, forgotten: %v", siblings, err, forgotten)
			}
		}
	})
	t.Run("forgets what a sibling renewed meanwhile, where nothing is revoked", func(t *testing.T) {
		store := &heldStore{Store: oauth.NewMemoryStore()}
		c, _ := newClient(t, newFakeServer(issue), func(cfg *oauth.Config) { cfg.Store = store })
		wantToken(t, c.TokenSource(), "at-1")
		n := 0
		store.set(func(s *heldStore) {
			s.lock = func(context.Context) error {
				n++
				put(t, s.Store, func(s *oauth.Session) { s.RefreshToken = oauth.Secret(fmt.Sprint("rt-", n)) })
				return nil
			}
		})
		if err := c.Logout(t.Context()); !errors.Is(err, oauth.ErrNotRevoked) || n != 2 {
			t.Errorf("%v after %d locks", err, n)
		}
		if _, err := store.Store.Load(t.Context()); !errors.Is(err, oauth.ErrNoSession) {
			t.Error(err)
		}
	})
	t.Run("says what was revoked and not forgotten", func(t *testing.T) {
		store := newFaultyStore()
		c, _ := newClient(t, newFakeServer(issue), func(cfg *oauth.Config) {
			cfg.Store = store
			cfg.Revoke = func(context.Context, oauth.Session) error {
				store.set(func(s *faultyStore) { s.failSave = errDisk })
				return nil
			}
		})
		err := c.Logout(t.Context())
		if broken := (*oauth.StoreError)(nil); !errors.As(err, &broken) || !strings.Contains(err.Error(), "was revoked, but could not be deleted") {
			t.Errorf("%v", err)
		}
	})
	t.Run("is told after Close", func(t *testing.T) {
		c, log := newClient(t, newFakeServer(issue))
		closeSource(t, c)
		if err := c.Import(t.Context(), "rt-1"); err != nil {
			t.Fatal(err)
		}
		if err := c.Logout(t.Context()); !errors.Is(err, oauth.ErrNotRevoked) {
			t.Fatal(err)
		}
		if logins, logouts := len(log.of(oauth.EventLogin)), len(log.of(oauth.EventLogout)); logins != 2 || logouts != 1 {
			t.Errorf("%d logins, %d logouts", logins, logouts)
		}
	})
	t.Run("overtakes a renewal", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			srv := newFakeServer(issue)
			c, _ := newClient(t, srv)
			srv.gate = make(chan struct{})
			ts := c.TokenSource()
			result := make(chan error)
			go func() {
				_, err := ts.Token()
				result <- err
			}()
			<-srv.began
			out := make(chan error)
			go func() { out <- c.Logout(context.Background()) }() // waits for the store's lock
			synctest.Wait()
			close(srv.gate)
			if err := <-out; !errors.Is(err, oauth.ErrNotRevoked) {
				t.Error(err)
			}
			<-result // a token or "no session", whichever came first
			_, err := ts.Token()
			wantReason(t, err, oauth.ReasonNoSession)
		})
	})
}

// slowStore returns from a client's first Update only when told to, although the
// session is stored.
type slowStore struct {
	oauth.Store
	stored, release chan struct{}
	slow            atomic.Bool // once
}

func (s *slowStore) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	err := s.Store.Update(ctx, fn)
	if s.slow.CompareAndSwap(true, false) {
		close(s.stored)
		<-s.release
	}
	return err
}

func TestLogoutBetweenSavingAndServing(t *testing.T) {
	store := &slowStore{Store: oauth.NewMemoryStore(), stored: make(chan struct{}), release: make(chan struct{})}
	store.slow.Store(true)
	put(t, store.Store, func(s *oauth.Session) { s.Provider, s.ClientID, s.RefreshToken = "test", "client", "rt-0" })
	srv := newFakeServer(issue)
	c, err := oauth.New(oauth.Config{
		Provider: testProvider(), ClientID: "client", HTTPClient: &http.Client{Transport: srv}, Store: store,
	})
	if err != nil {
		t.Fatal(err)
	}
	renewed := make(chan struct{})
	go func() {
		defer close(renewed)
		_, _ = c.TokenSource().Token()
	}()
	<-store.stored
	if err := c.Logout(t.Context()); !errors.Is(err, oauth.ErrNotRevoked) {
		t.Error(err)
	}
	close(store.release)
	<-renewed
	_, err = c.TokenSource().Token()
	wantReason(t, err, oauth.ReasonNoSession)
}

func TestImport(t *testing.T) {
	c, log := newClient(t, newFakeServer(issue), func(cfg *oauth.Config) { cfg.DPoP = newProver(t) })
	wantToken(t, c.TokenSource(), "at-1")
	if err := c.Import(t.Context(), "rt-imported"); err != nil {
		t.Fatal(err)
	}
	s, err := c.Session(t.Context())
	if err != nil || s.RefreshToken != "rt-imported" || s.AccessToken != "" || s.Generation != 3 || s.KeyThumbprint == "" {
		t.Errorf("stored %+v, %v", s, err)
	}
	wantToken(t, c.TokenSource(), "at-2") // the token of the old session is not served on
	if n := len(log.of(oauth.EventLogin)); n != 2 {
		t.Errorf("%d login events, want 2", n)
	}
	for _, bad := range []oauth.Secret{"", "a\nb", "токен"} {
		if err := c.Import(t.Context(), bad); err == nil {
			t.Errorf("%q was imported", bad.Reveal())
		}
	}
	wantStored(t, c, "rt-imported")
}

func TestStoreErrorAfterAdoptionIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFaultyStore()
		srv := newFakeServer(rotate)
		c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store = store })
		ts := c.TokenSource()
		wantToken(t, ts, "at-1")
		time.Sleep(2 * time.Hour)
		put(t, store, func(s *oauth.Session) { freshUntil(s, "siblings", time.Hour) })
		// Load fails, so the sibling's token is found under the lock; then the
		// write of the unchanged session fails.
		store.set(func(s *faultyStore) { s.failLoad, s.failSave = errDisk, errDisk })
		wantToken(t, ts, "siblings")
		store.set(func(s *faultyStore) { s.failLoad, s.failSave = nil, nil })
		closeSource(t, c)
	})
}

func TestSavedIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newRotor(3600)
		store := newFaultyStore()
		c, events := clientOf(t, srv, store, nil)
		defer c.TokenSource().Close()
		if err := c.Import(t.Context(), srv.issue("ann")); err != nil {
			t.Fatal(err)
		}
		store.fail(nil, nil, errors.New("disk full"))
		mustToken(t, c)
		if len(events.of(oauth.EventSaveFailed)) != 1 {
			t.Fatalf("events: %v", events.kinds())
		}
		store.fail(nil, nil, nil)
		if _, err := c.TokenSource().Renew(t.Context()); err != nil { // before the saver's turn
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		stored, err := store.Store.Load(t.Context())
		if err != nil || string(stored.RefreshToken) != srv.current {
			t.Fatalf("not stored: %v %v", stored.Generation, err)
		}
		if len(events.of(oauth.EventSaved)) != 1 {
			t.Errorf("the session is saved, and the events are %v", events.kinds())
		}
	})
}

func TestSavedIsToldAfterRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newRotor(3600)
		store := newFaultyStore()
		c, events := clientOf(t, srv, store, nil)
		defer c.TokenSource().Close()
		if err := c.Import(t.Context(), srv.issue("ann")); err != nil {
			t.Fatal(err)
		}
		store.fail(nil, nil, errors.New("disk full"))
		mustToken(t, c)
		time.Sleep(90 * time.Minute) // the saver tries once a minute, and the token has expired
		store.fail(nil, nil, nil)
		mustToken(t, c) // saves what it gets
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if s, err := store.Store.Load(t.Context()); err != nil || string(s.RefreshToken) != srv.current {
			t.Fatal(s.RefreshToken.Reveal(), err)
		}
		if len(events.of(oauth.EventSaveFailed)) == 0 || len(events.of(oauth.EventSaved)) == 0 {
			t.Errorf("the session is saved, and the events are %v", events.kinds())
		}
	})
}
