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

	"github.com/ycauth/ycauth-go/oauth"
)

// A sloppyStore stores, and says that it did not, as a database whose connection breaks
// after the commit.
type sloppyStore struct {
	*faultyStore
	sloppy atomic.Bool
}

func (s *sloppyStore) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	if s.sloppy.Swap(false) {
		if err := s.Store.Update(ctx, fn); err != nil {
			return err
		}
		return errLine
	}
	return s.faultyStore.Update(ctx, fn)
}

// A store that has a session in spite of its error, and then takes none for long, is
// behind: what it has is never taken for newer than what the process holds.
func TestManyRenewalsAfterALostCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &sloppyStore{faultyStore: newFaultyStore()}
		current := "rt-0"
		srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
			if got := r.form.Get("refresh_token"); got != current {
				t.Errorf("%q was sent instead of %q: the session is lost", got, current)
			}
			current = fmt.Sprint("rt-", n)
			return rotate(n, r)
		})
		srv.began = make(chan struct{}, 10_000)
		c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store = store })
		wantToken(t, c.TokenSource(), "at-1")
		store.sloppy.Store(true)
		if _, err := c.TokenSource().Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantStored(t, c, "rt-2")
		store.set(func(s *faultyStore) { s.failSave = errLine })
		for i := range 100 {
			if _, err := c.TokenSource().Renew(t.Context()); err != nil {
				t.Fatal(i, err)
			}
			time.Sleep(6 * time.Second)
		}
		store.set(func(s *faultyStore) { s.failSave = nil })
		closeSource(t, c)
		wantStored(t, c, fmt.Sprint("rt-", srv.count()))
	})
}

// Two processes with keys of their own cannot use each other's access tokens. Each goes on
// with the one that it has, and does not renew because the other has.
func TestTwoKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := oauth.NewMemoryStore()
		srv := newFakeServer(func(n int, _ fakeRequest) (*http.Response, error) {
			return answer(200, fmt.Sprintf(`{"access_token":"at-%d","token_type":"DPoP","expires_in":3600}`, n)), nil
		})
		srv.began = make(chan struct{}, 10_000)
		var all []*oauth.Client
		for range 2 {
			p := newProver(t)
			c, _ := openClient(t, srv, func(cfg *oauth.Config) { cfg.Store, cfg.DPoP = store, p })
			all = append(all, c)
		}
		put(t, store, func(s *oauth.Session) {
			s.Provider, s.ClientID, s.RefreshToken = "test", "client", "rt-0"
		})
		for begin := time.Now(); time.Since(begin) < 150*time.Minute; time.Sleep(20 * time.Second) {
			for _, c := range all {
				if _, err := c.TokenSource().Token(); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
			}
		}
		if n := srv.count(); n > 2*4 { // at 0, 50, 100 and 150 minutes, less the jitter
			t.Errorf("%d requests", n)
		}
	})
}

func TestLoginsAtOneInstant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, store := newRotor(12*3600), oauth.NewMemoryStore()
		at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		frozen := func(cfg *oauth.Config) { cfg.Clock = func() time.Time { return at } }
		service, events := clientOf(t, srv, store, frozen)
		cli, _ := clientOf(t, srv, store, frozen)
		defer service.TokenSource().Close()
		defer cli.TokenSource().Close()
		if err := service.Import(t.Context(), srv.issue("ann")); err != nil {
			t.Fatal(err)
		}
		mustToken(t, service)
		if err := cli.Logout(t.Context()); err != nil && !errors.Is(err, oauth.ErrNotRevoked) {
			t.Fatal(err)
		}
		if err := cli.Import(t.Context(), srv.issue("bob")); err != nil {
			t.Fatal(err)
		}
		tok, err := service.TokenSource().Renew(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		stored, _ := store.Load(t.Context())
		if !strings.Contains(tok.AccessToken, "bob") || !strings.Contains(stored.RefreshToken.Reveal(), "bob") {
			t.Errorf("ann has logged out and bob has logged in; the service serves %s, the store has %s; events %v",
				tok.AccessToken, stored.RefreshToken.Reveal(), events.kinds())
		}
	})
}
