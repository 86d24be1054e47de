package oauth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
)

// The tokens of one server are not sent to another, and not forgotten either.
func TestLogoutOfAForeignSession(t *testing.T) {
	for name, change := range map[string]func(*oauth.Config){
		"another region": func(cfg *oauth.Config) { cfg.Provider.TokenURL = "https://region-b.example/token" },
		"another client": func(cfg *oauth.Config) { cfg.ClientID = "other" },
		"another name":   func(cfg *oauth.Config) { cfg.Provider.Name = "other" },
	} {
		for _, way := range []string{"RFC 7009", "Config.Revoke"} {
			t.Run(name+", "+way, func(t *testing.T) {
				store := oauth.NewMemoryStore()
				srv := newFakeServer(issue)
				newClient(t, srv, func(cfg *oauth.Config) { cfg.Store = store })
				c, _ := openClient(t, srv, func(cfg *oauth.Config) { cfg.Store = store }, change, func(cfg *oauth.Config) {
					cfg.Provider.RevocationURL = "https://region-b.example/revoke"
					if way == "Config.Revoke" {
						cfg.Revoke = func(context.Context, oauth.Session) error {
							t.Error("it was revoked")
							return nil
						}
					}
				})
				wantReason(t, c.Logout(t.Context()), oauth.ReasonWrongClient)
				if srv.count() != 0 {
					t.Errorf("%d requests", srv.count())
				}
				wantStored(t, c, "rt-0")
			})
		}
	}
}

// A refresh token that was rejected once is alive if a sibling has renewed with it.
func TestRejectedRefreshTokenThatASiblingUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := oauth.NewMemoryStore()
		srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
			if n == 1 {
				return answer(400, `{"error":"invalid_grant"}`), nil
			}
			return issue(n, r)
		})
		shared := func(cfg *oauth.Config) { cfg.Store = store }
		a, _ := newClient(t, srv, shared)
		_, err := a.TokenSource().Token()
		wantReason(t, err, oauth.ReasonRejected)
		b, _ := openClient(t, srv, shared)
		wantToken(t, b.TokenSource(), "at-2")
		time.Sleep(10 * time.Second)
		wantToken(t, a.TokenSource(), "at-2")
		time.Sleep(2 * time.Hour)
		wantToken(t, a.TokenSource(), "at-3")
	})
}

// rememberingStore remembers what it was told of the last Update.
type rememberingStore struct {
	oauth.Store
	told error
}

func (s *rememberingStore) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	return s.Store.Update(ctx, func(stored oauth.Session) (oauth.Session, error) {
		next, err := fn(stored)
		s.told = err
		return next, err
	})
}

// A store that other processes share learns of every request whose outcome is not
// known.
func TestStoreLearnsOfADoubtfulOutcome(t *testing.T) {
	for name, tt := range map[string]struct {
		response func() (*http.Response, error)
		doubtful bool
	}{
		"lost":      {func() (*http.Response, error) { return nil, errLine }, true},
		"500":       {func() (*http.Response, error) { return answer(500, ""), nil }, true},
		"504":       {func() (*http.Response, error) { return answer(504, "<html>"), nil }, true},
		"malformed": {func() (*http.Response, error) { return answer(200, "{}"), nil }, true},
		"503":       {func() (*http.Response, error) { return answer(503, ""), nil }, false},
		"a refusal": {func() (*http.Response, error) { return answer(400, `{"error":"invalid_request"}`), nil }, false},
	} {
		t.Run(name, func(t *testing.T) {
			store := &rememberingStore{Store: oauth.NewMemoryStore()}
			srv := newFakeServer(func(int, fakeRequest) (*http.Response, error) { return tt.response() })
			c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store, cfg.MaxAttempts = store, 1 })
			if _, err := c.TokenSource().Token(); err == nil {
				t.Fatal("no error")
			}
			if errors.Is(store.told, oauth.ErrOutcomeUnknown) != tt.doubtful {
				t.Errorf("the store was told %v", store.told)
			}
		})
	}
}

// A second Logout that fails does not undo the first.
func TestLogoutThatFailsBesideAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &slowStore{Store: oauth.NewMemoryStore(), stored: make(chan struct{}), release: make(chan struct{})}
		c, log := newClient(t, newFakeServer(issue), func(cfg *oauth.Config) {
			cfg.Store = store
			cfg.Revoke = func(context.Context, oauth.Session) error {
				store.slow.Store(true) // the next Update is the one that forgets
				return nil
			}
		})
		wantToken(t, c.TokenSource(), "at-1")
		first := make(chan error)
		go func() { first <- c.Logout(context.Background()) }()
		<-store.stored
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.Logout(ended); err == nil {
			t.Error("a Logout whose context has ended succeeded")
		}
		close(store.release)
		if err := <-first; err != nil {
			t.Error(err)
		}
		_, err := c.TokenSource().Token()
		wantReason(t, err, oauth.ReasonNoSession)
		if len(log.of(oauth.EventLogout)) != 1 {
			t.Errorf("%d logouts", len(log.of(oauth.EventLogout)))
		}
	})
}

// A server whose tokens are dead on arrival, and which then fails, gets no more
// requests than one that only fails.
func TestDeadOnArrivalResetsNoCooldown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		odd := false
		srv := newFakeServer(func(n int, _ fakeRequest) (*http.Response, error) {
			if odd = !odd; odd {
				time.Sleep(1100 * time.Millisecond)
				return answer(200, tokenJSON(fmt.Sprintf("at-%d", n), "", 1)), nil
			}
			return answer(503, ""), nil
		})
		c, _ := newClient(t, srv)
		for range 600 {
			_, _ = c.TokenSource().Token()
			time.Sleep(time.Second)
		}
		if n := srv.count(); n > 60 {
			t.Errorf("%d requests in 10 minutes", n)
		}
		closeSource(t, c)
	})
}

// The server's Retry-After holds for Renew, whatever another process stored meanwhile.
func TestRenewObeysRetryAfterAfterAnAdoption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := oauth.NewMemoryStore()
		srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
			if n == 2 {
				return answer(429, `{"error":"slow_down"}`, "Retry-After", "300"), nil
			}
			return issue(n, r)
		})
		c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store = store })
		wantToken(t, c.TokenSource(), "at-1")
		if _, err := c.TokenSource().Renew(t.Context()); err == nil {
			t.Fatal("no error")
		}
		put(t, store, func(s *oauth.Session) { freshUntil(s, "siblings", time.Hour) })
		time.Sleep(61 * time.Second)
		wantToken(t, c.TokenSource(), "at-1") // looks at the store
		synctest.Wait()
		wantToken(t, c.TokenSource(), "siblings")
		if tok, err := c.TokenSource().Renew(t.Context()); err != nil || tok.AccessToken != "siblings" || srv.count() != 2 {
			t.Errorf("%v, %v after %d requests", tok, err, srv.count())
		}
		time.Sleep(5 * time.Minute)
		if tok, err := c.TokenSource().Renew(t.Context()); err != nil || tok.AccessToken != "at-3" {
			t.Errorf("%v, %v", tok, err)
		}
	})
}

// Sessions without a refresh token are told apart by their access tokens.
func TestLogoutRevokesTheSessionThatIsStoredByThen(t *testing.T) {
	store := oauth.NewMemoryStore()
	var revoked []string
	set := func(access string) {
		put(t, store, func(s *oauth.Session) {
			freshUntil(s, access, time.Hour)
			s.Provider, s.ClientID = "test", "client"
		})
	}
	c, _ := openClient(t, newFakeServer(issue), func(cfg *oauth.Config) {
		cfg.Store = store
		cfg.Revoke = func(_ context.Context, s oauth.Session) error {
			if revoked = append(revoked, s.AccessToken.Reveal()); len(revoked) == 1 {
				set("second") // somebody logs in meanwhile
			}
			return nil
		}
	})
	set("first")
	if err := c.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(revoked) != 2 || revoked[1] != "second" {
		t.Errorf("revoked %q", revoked)
	}
}

// What walks the tree of an error finds no secret in it.
func TestTreeOfAnErrorHoldsNoSecret(t *testing.T) {
	const secret = "hunter2-hunter2"
	srv := newFakeServer(func(int, fakeRequest) (*http.Response, error) { return nil, errLine })
	c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.MaxAttempts = 1 })
	if err := c.Import(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	_, err := c.TokenSource().Token()
	nodes := 0
	var walk func(error)
	walk = func(err error) {
		nodes++
		for _, verb := range []string{"%v", "%+v", "%#v", "%t", "%d", "%s", "%q", "%x"} {
			if text := fmt.Sprintf(verb, err); strings.Contains(text, secret) || strings.Contains(text, fmt.Sprintf("%x", secret)) {
				t.Errorf("%s of a %T prints %s", verb, err, text)
			}
		}
		switch e := err.(type) { //nolint:errorlint // it walks the tree
		case interface{ Unwrap() error }:
			if next := e.Unwrap(); next != nil {
				walk(next)
			}
		case interface{ Unwrap() []error }:
			for _, next := range e.Unwrap() {
				walk(next)
			}
		}
	}
	if walk(err); nodes < 3 {
		t.Errorf("%d nodes", nodes)
	}
}

// A login whose response broke off after the refresh token is a login.
func TestLoginWhoseResponseBreaksOff(t *testing.T) {
	srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
		if n == 1 {
			return answer(200, `{"refresh_token":"rt-1","access_token":"at-1`), nil
		}
		return issue(n, r)
	})
	c, _ := openClient(t, srv)
	s, err := c.Login(t.Context(), oauth.LoginOptions{OpenURL: browserThatFollows(t)})
	if err != nil || s.RefreshToken != "rt-1" || s.AccessToken != "" {
		t.Fatalf("%+v, %v", s, err)
	}
	wantToken(t, c.TokenSource(), "at-2")
	if got := srv.request(1).form.Get("refresh_token"); got != "rt-1" {
		t.Errorf("renewed with %q", got)
	}
}

// twoClients are two processes that share the session of ann. The first one has a token. The
// events are its own.
func twoClients(t *testing.T, life int) (srv *rotor, c, other *oauth.Client, events *eventLog) {
	t.Helper()
	srv, store := newRotor(life), oauth.NewMemoryStore()
	c, events = clientOf(t, srv, store, nil)
	other, _ = clientOf(t, srv, store, nil)
	t.Cleanup(func() {
		_ = c.TokenSource().Close()
		_ = other.TokenSource().Close()
	})
	if err := c.Import(t.Context(), srv.issue("ann")); err != nil {
		t.Fatal(err)
	}
	mustToken(t, c)
	return srv, c, other, events
}

// While it is not known what a request led to, the store is looked at: another user logged in.
func TestLogoutIsNoticedInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, c, other, events := twoClients(t, 12*3600)
		time.Sleep(10*time.Hour + 15*time.Minute)
		lost := true
		srv.answer = func(url.Values) (*http.Response, error) {
			if lost {
				lost = false
				return nil, errors.New("connection reset by peer")
			}
			return nil, nil
		}
		mustToken(t, c)
		synctest.Wait()
		time.Sleep(5 * time.Minute)
		// Somebody else logs in.
		if err := other.Import(t.Context(), srv.issue("bob")); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		for time.Since(start) < time.Hour {
			time.Sleep(time.Minute)
			mustToken(t, c)
			synctest.Wait()
		}
		if got := mustToken(t, c); !strings.Contains(got, "bob") {
			t.Errorf("an hour after another login, %s is served; events %v", got, events.kinds())
		}
	})
}

// Or another process renewed.
func TestSiblingIsAdoptedInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, c, other, events := twoClients(t, 12*3600)
		time.Sleep(10*time.Hour + 15*time.Minute)
		srv.answer = func(url.Values) (*http.Response, error) {
			return nil, errors.New("connection reset by peer") // before the server had it
		}
		mustToken(t, c)
		synctest.Wait()
		srv.answers(nil)
		renewed, err := other.TokenSource().Renew(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for range 30 {
			time.Sleep(time.Minute)
			mustToken(t, c)
			synctest.Wait()
		}
		if got := mustToken(t, c); got != renewed.AccessToken {
			t.Errorf("half an hour after another process renewed, %s is served, the store has %s; events %v", got, renewed.AccessToken, events.kinds())
		}
	})
}

// So it is while the server asks for silence.
func TestLogoutIsNoticedDuringRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, c, other, events := twoClients(t, 3600)
		time.Sleep(52 * time.Minute) // stale
		srv.answer = func(url.Values) (*http.Response, error) {
			return jsonResponse(429, http.Header{"Retry-After": {"600"}}, map[string]any{"error": "slow_down"}), nil
		}
		mustToken(t, c)
		synctest.Wait()
		if err := other.Logout(t.Context()); err != nil && !errors.Is(err, oauth.ErrNotRevoked) {
			t.Fatal(err)
		}
		for range 5 {
			time.Sleep(time.Minute)
			_, _ = c.TokenSource().Token()
			synctest.Wait()
		}
		if tok, err := c.TokenSource().Token(); err == nil {
			t.Errorf("5 minutes after the logout %s is served; events %v", tok.AccessToken, events.kinds())
		}
	})
}

func TestSiblingIsAdoptedDuringRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, c, other, events := twoClients(t, 3600)
		time.Sleep(2 * time.Hour)
		srv.answer = func(url.Values) (*http.Response, error) {
			return jsonResponse(429, http.Header{"Retry-After": {"600"}}, map[string]any{"error": "slow_down"}), nil
		}
		if _, err := c.TokenSource().Token(); err == nil {
			t.Fatal("a token")
		}
		srv.answers(nil)
		if _, err := other.TokenSource().Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		var last error
		start := time.Now()
		for time.Since(start) < 5*time.Minute {
			time.Sleep(10 * time.Second)
			if _, last = c.TokenSource().Token(); last == nil {
				break
			}
			synctest.Wait()
		}
		if last != nil {
			t.Errorf("for 5 minutes the store has had a fresh token, and callers get %v; events %v", last, events.kinds())
		}
	})
}

// A token whose lifetime the server does not tell is adopted like any other.
func TestAdoptWithoutLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, a, b, events := twoClients(t, 0)
		first := mustToken(t, a)
		if got := mustToken(t, b); got != first {
			t.Fatalf("b has %s", got)
		}
		renewed, err := b.TokenSource().Renew(t.Context()) // the server forgets the first access token
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(61 * time.Second)
		mustToken(t, a) // looks
		synctest.Wait()
		got := mustToken(t, a)
		if len(events.of(oauth.EventAdopted)) > 0 && got != renewed.AccessToken {
			t.Errorf("a reported EventAdopted and serves %s; the store has %s", got, renewed.AccessToken)
		}
		// The resource rejects it: the store has a good one.
		before := srv.count()
		tok, _ := a.TokenSource().Token()
		if tok.AccessToken != renewed.AccessToken {
			a.TokenSource().Invalidate(tok)
			mustToken(t, a)
		}
		if n := srv.count() - before; n != 0 {
			t.Errorf("%d token requests, although the store had another token", n)
		}
	})
}

// Two processes whose server revokes the former access token at a renewal do not renew in turns.
func TestNoTurnsWithoutLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, store := newRotor(0), oauth.NewMemoryStore()
		var clients []*oauth.Client
		for range 2 {
			c, _ := clientOf(t, srv, store, nil)
			defer c.TokenSource().Close()
			clients = append(clients, c)
		}
		if err := clients[0].Import(t.Context(), srv.issue("ann")); err != nil {
			t.Fatal(err)
		}
		valid := func(at string) bool { // only the newest access token
			srv.mu.Lock()
			defer srv.mu.Unlock()
			return strings.TrimPrefix(at, "at") == strings.TrimPrefix(srv.current, "rt")
		}
		call := func(c *oauth.Client) {
			for range 2 {
				tok, err := c.TokenSource().Token()
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(50 * time.Millisecond) // the way to the resource
				if valid(tok.AccessToken) {
					return
				}
				c.TokenSource().Invalidate(tok)
			}
		}
		call(clients[0])
		call(clients[1])
		_, _ = clients[0].TokenSource().Renew(t.Context()) // the one cause of it all
		before := srv.count()
		for range 20 { // half an hour, one call each 90 s
			time.Sleep(90 * time.Second)
			for _, c := range clients {
				call(c)
				synctest.Wait()
			}
		}
		if n := srv.count() - before; n > 1 {
			t.Errorf("%d token requests in half an hour; nothing was revoked from outside", n)
		}
	})
}
