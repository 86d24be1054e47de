package oauth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
)

// A session without a refresh token lasts as long as its access token, whatever one
// resource says.
func TestRejectedTokenWithoutRefreshTokenIsServedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := oauth.NewMemoryStore()
		srv := newFakeServer(issue)
		c, _ := openClient(t, srv, func(cfg *oauth.Config) { cfg.Store = store })
		put(t, store, func(s *oauth.Session) {
			freshUntil(s, "only", 12*time.Hour)
			s.Provider, s.ClientID = "test", "client"
		})
		ts := c.TokenSource()
		wantToken(t, ts, "only")
		tok, _ := ts.Token()
		ts.Invalidate(tok)
		for range 3 {
			wantToken(t, ts, "only")
			time.Sleep(time.Hour)
		}
		time.Sleep(10 * time.Hour)
		_, err := ts.Token()
		wantReason(t, err, oauth.ReasonNoRefreshToken)
		if srv.count() != 0 {
			t.Errorf("%d requests", srv.count())
		}
	})
}

// A server that hangs keeps a caller whose token was rejected no longer than that
// caller's context, and after the first failure not at all.
func TestHangingServerDoesNotKeepCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
			if n == 1 {
				return issue(n, r)
			}
			<-r.ctx.Done()
			return nil, r.ctx.Err()
		})
		c, _ := newClient(t, srv)
		ts := c.TokenSource()
		wantToken(t, ts, "at-1")
		tok, _ := ts.Token()
		ts.Invalidate(tok)
		var blocked time.Duration
		for range 100 {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			start := time.Now()
			tok, err := ts.TokenContext(ctx)
			cancel()
			if err != nil || tok.AccessToken != "at-1" {
				t.Fatalf("%v, %v", tok, err)
			}
			blocked += time.Since(start)
			time.Sleep(3 * time.Second)
		}
		if blocked > 31*time.Second { // one request
			t.Errorf("callers were kept for %v in all", blocked)
		}
		closeSource(t, c)
	})
}

// Sessions are told from each other by when they began, even if the clock stands
// still.
func TestLoginsAtTheSameInstant(t *testing.T) {
	noon := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	srv := newFakeServer(rotate)
	c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Clock = func() time.Time { return noon } })
	wantToken(t, c.TokenSource(), "at-1")
	first, err := c.Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	second, err := c.Login(t.Context(), oauth.LoginOptions{OpenURL: browserThatFollows(t)})
	if err != nil || !second.Created.After(first.Created) || second.RefreshToken != "rt-2" {
		t.Fatalf("%+v, %v", second, err)
	}
	wantToken(t, c.TokenSource(), "at-2")
	wantStored(t, c, "rt-2")
	if err := c.Import(t.Context(), "rt-imported"); err != nil {
		t.Fatal(err)
	}
	wantStored(t, c, "rt-imported")
	wantToken(t, c.TokenSource(), "at-3")
}

// browserThatFollows opens the address that it ends on.
func browserThatFollows(t *testing.T) func(context.Context, string) error {
	return browser(t, func(cb *url.URL) { get(t, cb) })
}

// interruptedStore has had an Update that did not come to its end.
type interruptedStore struct{ oauth.Store }

func (interruptedStore) Interrupted() (time.Time, bool) { return time.Now(), true }

// The refresh token of a process that died during its request is not sent again
// just because the access token is stale.
func TestInterruptedRenewalIsNotRepeatedEarly(t *testing.T) {
	for grace, requests := range map[time.Duration]int{0: 0, time.Minute: 1} {
		t.Run(grace.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := interruptedStore{oauth.NewMemoryStore()}
				srv := newFakeServer(issue)
				c, log := openClient(t, srv, func(cfg *oauth.Config) {
					cfg.Store, cfg.Provider.RotationGrace = store, grace
				})
				put(t, store.Store, func(s *oauth.Session) {
					freshUntil(s, "stored", time.Hour)
					s.Provider, s.ClientID, s.RefreshToken = "test", "client", "rt-0"
				})
				time.Sleep(55 * time.Minute)
				wantToken(t, c.TokenSource(), "stored") // adopts it
				wantToken(t, c.TokenSource(), "stored") // finds it stale
				synctest.Wait()
				if srv.count() != requests {
					t.Errorf("%d requests, want %d", srv.count(), requests)
				}
				if failed := log.of(oauth.EventRenewFailed); len(failed) != 1-requests {
					t.Errorf("events %+v", failed)
				}
				time.Sleep(5 * time.Minute)
				wantToken(t, c.TokenSource(), "at-1")
			})
		})
	}
}

// markingStore remembers, as a file store does, that it could not store a session.
type markingStore struct {
	*faultyStore
	marked atomic.Bool
}

func (s *markingStore) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	err := s.faultyStore.Update(ctx, fn)
	if save, _, _ := s.get(); err != nil && errors.Is(err, save) {
		s.marked.Store(true)
	} else if err == nil {
		s.marked.Store(false)
	}
	return err
}

func (s *markingStore) Interrupted() (time.Time, bool) { return time.Now(), s.marked.Load() }

// A process that could not save finds the mark of that in the store. It is about the
// stored refresh token, and not about the successor that the process holds.
func TestOwnMarkDoesNotDelayARenewal(t *testing.T) {
	for _, healed := range []bool{false, true} {
		t.Run(fmt.Sprint("the store works again ", healed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &markingStore{faultyStore: newFaultyStore()}
				srv := newFakeServer(rotate)
				c, log := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store = store })
				store.set(func(s *faultyStore) { s.failSave = errLine })
				wantToken(t, c.TokenSource(), "at-1")
				time.Sleep(55 * time.Minute) // of an hour
				if !store.marked.Load() {
					t.Fatal("there is no mark")
				}
				if healed { // the saver tries every 4 seconds
					store.set(func(s *faultyStore) { s.failSave = nil })
				}
				wantToken(t, c.TokenSource(), "at-1") // stale
				synctest.Wait()
				wantToken(t, c.TokenSource(), "at-2")
				if failed := log.of(oauth.EventRenewFailed); len(failed) != 0 || srv.request(1).form.Get("refresh_token") != "rt-1" {
					t.Errorf("events %+v, %v", failed, srv.request(1).form)
				}
				store.set(func(s *faultyStore) { s.failSave = nil })
				closeSource(t, c)
				wantStored(t, c, "rt-2")
			})
		})
	}
}

func TestRefreshTokenIsSalvagedFromWhatIsNoJSON(t *testing.T) {
	for name, body := range map[string]string{
		"a raw line break before": "{\"scope\":\"a\nb\",\"refresh_token\":\"rt-new\"}",
		"a bad escape before":     `{"scope":"\q","refresh_token" : "rt-new"}`,
		"NaN before":              `{"x":NaN,"refresh_token":"rt-new","access_token":"at"}`,
		"a prefix":                `)]}',` + "\n" + `{"refresh_token":"rt-new","access_token":"at"}`,
	} {
		t.Run(name, func(t *testing.T) {
			srv := newFakeServer(func(int, fakeRequest) (*http.Response, error) { return answer(200, body), nil })
			c, _ := newClient(t, srv)
			if _, err := c.TokenSource().Token(); !errors.Is(err, oauth.ErrMalformedResponse) {
				t.Errorf("error %v", err)
			}
			wantStored(t, c, "rt-new")
		})
	}
	t.Run("two of them", func(t *testing.T) {
		srv := newFakeServer(func(int, fakeRequest) (*http.Response, error) {
			return answer(200, `x{"refresh_token":"rt-a"},{"refresh_token":"rt-b"}`), nil
		})
		c, _ := newClient(t, srv)
		if _, err := c.TokenSource().Token(); err == nil {
			t.Error("no error")
		}
		wantStored(t, c, "rt-0")
	})
}

// A transport may quote what it was to send.
func TestErrorOfATransportIsRedacted(t *testing.T) {
	const secret = "hunter2-hunter2"
	srv := newFakeServer(func(_ int, r fakeRequest) (*http.Response, error) {
		return nil, fmt.Errorf("cannot send %s with %s", r.form.Encode(), r.form.Get("client_secret"))
	})
	c, log := newClient(t, srv, func(cfg *oauth.Config) {
		cfg.Provider.AuthMethod, cfg.ClientSecret = oauth.AuthClientSecretPost, "the-client-secret"
		cfg.MaxAttempts = 1
	})
	if err := c.Import(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	_, err := c.TokenSource().Token()
	for _, text := range []string{fmt.Sprintf("%v %+v %#v %q", err, err, err, err), fmt.Sprintf("%+v", log.of(oauth.EventRenewFailed))} {
		if err == nil || strings.Contains(text, secret) || strings.Contains(text, "the-client-secret") {
			t.Errorf("%s", text)
		}
	}
}

// After a process that was interrupted in a renewal, a refresh token that the server
// rejects was replaced most likely, whatever the cause of the renewal is.
func TestRejectedAfterAnInterruption(t *testing.T) {
	for _, cause := range []oauth.Cause{oauth.CauseForced, oauth.CauseInvalid, oauth.CauseRejected} {
		t.Run(string(cause), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := interruptedStore{oauth.NewMemoryStore()}
				c, _ := newClient(t, newFakeServer(refuse("invalid_grant")), func(cfg *oauth.Config) { cfg.Store = store })
				ts := c.TokenSource()
				renew := ts.TokenContext
				if cause != oauth.CauseInvalid {
					put(t, store, func(s *oauth.Session) { freshUntil(s, "at", time.Hour) })
					wantToken(t, ts, "at")
				}
				switch cause {
				case oauth.CauseForced:
					renew = ts.Renew
				case oauth.CauseRejected:
					tok, _ := ts.Token()
					ts.Invalidate(tok)
				}
				_, err := renew(t.Context())
				wantReason(t, err, oauth.ReasonOutcomeUnknown)
				if !errors.Is(err, oauth.ErrOutcomeUnknown) {
					t.Errorf("%v does not match ErrOutcomeUnknown", err)
				}
			})
		})
	}
}
