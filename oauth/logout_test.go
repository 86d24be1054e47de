package oauth_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
)

// What Logout does when there is no access token that Config.Revoke could be called with.
func TestLogoutWithoutATokenToRevokeWith(t *testing.T) {
	lostThenRejected := func(n int, r fakeRequest) (*http.Response, error) {
		if n == 1 {
			return lose(n, r)
		}
		return refuse("invalid_grant")(n, r)
	}
	noRefreshToken := func(life time.Duration, tokenType string) func(*oauth.Session) {
		return func(s *oauth.Session) {
			freshUntil(s, "at", life)
			s.RefreshToken, s.KeyThumbprint = "", ""
			if tokenType == "DPoP" {
				s.TokenType, s.TokenThumbprint = tokenType, "the thumbprint of another key"
			}
		}
	}
	for name, tt := range map[string]struct {
		handle  func(n int, r fakeRequest) (*http.Response, error)
		change  func(*oauth.Session)
		kept    bool
		matches error        // nil if Logout succeeds
		reason  oauth.Reason // of a LoginRequiredError in the error
	}{
		"the server has ended the session":      {handle: refuse("invalid_grant")},
		"the outcome of a request is not known": {handle: lostThenRejected, matches: oauth.ErrNotRevoked, reason: oauth.ReasonOutcomeUnknown},
		"an access token that has expired":      {handle: issue, change: noRefreshToken(-48*time.Hour, "Bearer")},
		"an expired token of another key":       {handle: issue, change: noRefreshToken(-48*time.Hour, "DPoP")},
		"an access token of another key":        {handle: issue, change: noRefreshToken(time.Hour, "DPoP"), kept: true, matches: oauth.ErrLoginRequired, reason: oauth.ReasonWrongKey},
		"a refresh token of another key": {
			handle: issue, change: func(s *oauth.Session) { s.KeyThumbprint = "the thumbprint of another key" },
			kept: true, matches: oauth.ErrLoginRequired, reason: oauth.ReasonWrongKey,
		},
		"somebody logged out meanwhile": {handle: issue, change: func(s *oauth.Session) { s.RefreshToken = "gone" }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &heldStore{Store: oauth.NewMemoryStore()}
				c, _ := newClient(t, newFakeServer(tt.handle), func(cfg *oauth.Config) {
					cfg.Store = store
					cfg.Revoke = func(context.Context, oauth.Session) error {
						t.Error("Config.Revoke was called")
						return nil
					}
				})
				if tt.change != nil {
					put(t, store.Store, tt.change)
				}
				if name == "somebody logged out meanwhile" {
					updates := 0
					store.set(func(s *heldStore) {
						s.lock = func(context.Context) error {
							if updates++; updates == 2 {
								return s.Store.Update(context.Background(), func(oauth.Session) (oauth.Session, error) { return oauth.Session{}, nil })
							}
							return nil
						}
					})
				}
				err := c.Logout(t.Context())
				if !errors.Is(err, tt.matches) {
					t.Errorf("Logout: %v, want %v", err, tt.matches)
				}
				if tt.reason != "" {
					wantReason(t, err, tt.reason)
				}
				if _, err := store.Store.Load(t.Context()); errors.Is(err, oauth.ErrNoSession) == tt.kept {
					t.Errorf("the session is kept: %v, want %v", !tt.kept, tt.kept)
				}
				closeSource(t, c)
			})
		})
	}
}

// A session whose end at the server is not known does not keep Logout from revoking the
// one that replaced it.
func TestLogoutRevokesTheSuccessorOfADoubtfulSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &heldStore{Store: oauth.NewMemoryStore()}
		var revoked []oauth.Secret
		c, _ := newClient(t, newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
			switch n {
			case 1:
				return lose(n, r)
			case 2:
				// Before Logout forgets, somebody else logs in.
				updates := 0
				store.set(func(s *heldStore) {
					s.lock = func(context.Context) error {
						if updates++; updates == 1 {
							put(t, s.Store, func(s *oauth.Session) { s.RefreshToken, s.Created = "rt-other", s.Created.Add(time.Hour) })
						}
						return nil
					}
				})
				return refuse("invalid_grant")(n, r)
			}
			return issue(n, r)
		}), func(cfg *oauth.Config) {
			cfg.Store = store
			cfg.Revoke = func(_ context.Context, s oauth.Session) error {
				revoked = append(revoked, s.RefreshToken)
				return nil
			}
		})
		if err := c.Logout(t.Context()); err != nil {
			t.Errorf("Logout: %v", err)
		}
		if len(revoked) != 1 || revoked[0] != "rt-other" {
			t.Errorf("revoked %q", revoked)
		}
		if _, err := c.Session(t.Context()); !errors.Is(err, oauth.ErrNoSession) {
			t.Errorf("Session: %v", err)
		}
		closeSource(t, c)
	})
}

// Without a session Logout does not even lock the store, which may have to create
// something for that.
func TestLogoutWithoutASessionLeavesTheStoreAlone(t *testing.T) {
	store := &heldStore{Store: oauth.NewMemoryStore(), lock: func(context.Context) error {
		t.Error("the store was locked")
		return nil
	}}
	c, log := openClient(t, newFakeServer(issue), func(cfg *oauth.Config) { cfg.Store = store })
	if err := c.Logout(t.Context()); err != nil {
		t.Errorf("Logout: %v", err)
	}
	if n := len(log.of(oauth.EventLogout)); n != 0 {
		t.Errorf("%d logouts", n)
	}
}

// A session that another process deletes around a Logout ends with one event.
func TestLogoutElsewhereIsToldOnce(t *testing.T) {
	gone := func(oauth.Session) (oauth.Session, error) { return oauth.Session{}, nil }
	for name, during := range map[string]bool{"before the Logout": false, "during the Logout, and noticed": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &heldStore{Store: oauth.NewMemoryStore()}
				c, log := newClient(t, newFakeServer(issue), func(cfg *oauth.Config) { cfg.Store = store })
				wantToken(t, c.TokenSource(), "at-1")
				elsewhere := func() {
					if err := store.Store.Update(t.Context(), gone); err != nil {
						t.Error(err)
					}
				}
				if during {
					updates := 0
					store.set(func(s *heldStore) {
						s.lock = func(context.Context) error {
							if updates++; updates == 2 {
								elsewhere()
								time.Sleep(time.Minute)
								wantToken(t, c.TokenSource(), "at-1") // this one has a look
								synctest.Wait()
							}
							return nil
						}
					})
				} else {
					elsewhere()
				}
				if err := c.Logout(t.Context()); during != errors.Is(err, oauth.ErrNotRevoked) {
					t.Errorf("Logout: %v", err)
				}
				closeSource(t, c)
				if n := len(log.of(oauth.EventLogout)); n != 1 {
					t.Errorf("%d logouts", n)
				}
			})
		})
	}
}

// Whether an access token has expired is seen by the clock that its expiry was written by.
func TestLogoutWithAnExpiredTokenAndAWrongClock(t *testing.T) {
	for _, off := range []time.Duration{0, 13 * time.Hour, -13 * time.Hour} {
		t.Run(off.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := oauth.NewMemoryStore()
				now := func() time.Time { return time.Now().Add(off) }
				c, _ := newClient(t, newFakeServer(dated), func(cfg *oauth.Config) {
					cfg.Store, cfg.Clock = store, now
					cfg.Revoke = func(context.Context, oauth.Session) error { return nil }
				})
				wantToken(t, c.TokenSource(), "at-1") // the server's clock is known now
				put(t, store, func(s *oauth.Session) {
					s.Created, s.RefreshToken, s.AccessToken = s.Created.Add(time.Hour), "", "at-short"
					s.Obtained, s.Issued, s.Expiry = now(), time.Now(), now().Add(time.Hour)
				})
				time.Sleep(time.Hour + time.Minute)
				if err := c.Logout(t.Context()); err != nil {
					t.Errorf("Logout: %v", err)
				}
				closeSource(t, c)
			})
		})
	}
}
