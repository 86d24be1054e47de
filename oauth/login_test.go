package oauth_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/ycauth/ycauth-go/oauth"
)

// loginURL gives the parameters of the authorization request that a login makes.
func loginURL(t *testing.T, c *oauth.Client, opts oauth.LoginOptions) url.Values {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var got url.Values
	opts.OpenURL = func(_ context.Context, raw string) error {
		u, err := url.Parse(raw)
		if err == nil {
			got = u.Query()
		}
		cancel()
		return err
	}
	if _, err := c.Login(ctx, opts); !errors.Is(err, context.Canceled) {
		t.Fatalf("Login: %v", err)
	}
	return got
}

// browser follows the redirect of an authorization server that consents at once.
// change edits the address that the browser ends on.
func browser(t *testing.T, visit func(callback *url.URL)) func(context.Context, string) error {
	return func(_ context.Context, raw string) error {
		u, err := url.Parse(raw)
		if err != nil {
			return err
		}
		callback, err := url.Parse(u.Query().Get("redirect_uri"))
		if err != nil {
			return err
		}
		callback.RawQuery = url.Values{"state": {u.Query().Get("state")}, "code": {"the-code"}}.Encode()
		visit(callback)
		return nil
	}
}

// get opens an address as a browser does.
func get(t *testing.T, u *url.URL, change ...func(*http.Request)) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u.String(), nil)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	for _, f := range change {
		f(req)
	}
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Errorf("the browser got %v", err)
		return 0, ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("the page was cut off: %v", err)
	}
	return resp.StatusCode, string(body)
}

func with(u *url.URL, change func(url.Values)) *url.URL {
	v := *u
	q := v.Query()
	change(q)
	v.RawQuery = q.Encode()
	return &v
}

func TestAuthorizationRequest(t *testing.T) {
	prover := newProver(t)
	c, err := oauth.New(oauth.Config{Provider: oauth.YandexCloud(), ClientID: oauth.YandexCloudClientID, DPoP: prover})
	if err != nil {
		t.Fatal(err)
	}
	q := loginURL(t, c, oauth.LoginOptions{FederationID: "bpf-federation"})
	jkt, err := prover.Thumbprint(oauth.YandexCloud().ThumbprintHash)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"response_type": "code", "client_id": "yc.oauth.public-sdk", "scope": "openid offline_access",
		"code_challenge_method": "S256", "dpop_jkt": jkt, "yc_federation_hint": "bpf-federation", "yc_sub_hint": "",
	} {
		if !q.Has(name) || q.Get(name) != want {
			t.Errorf("%s=%q, want %q", name, q.Get(name), want)
		}
	}
	if u, err := url.Parse(q.Get("redirect_uri")); err != nil || u.Scheme != "http" || u.Hostname() != "127.0.0.1" || u.Port() == "" || u.Path != "/auth/callback" {
		t.Errorf("redirect_uri %q", q.Get("redirect_uri"))
	}
	if len(q.Get("code_challenge")) != 43 || len(q.Get("state")) != 43 {
		t.Errorf("challenge %q, state %q", q.Get("code_challenge"), q.Get("state"))
	}
	again := loginURL(t, c, oauth.LoginOptions{SubjectHint: "user@example.com"})
	if again.Get("state") == q.Get("state") || again.Get("code_challenge") == q.Get("code_challenge") {
		t.Error("state or verifier were used twice")
	}
	if again.Has("yc_federation_hint") || again.Get("yc_sub_hint") != "user@example.com" {
		t.Errorf("hints %v", again)
	}
	if plain := loginURL(t, c, oauth.LoginOptions{}); plain.Has("yc_sub_hint") || plain.Has("yc_federation_hint") {
		t.Errorf("hints %v, want none", plain)
	}
	if c, _ = openClient(t, newFakeServer(issue)); loginURL(t, c, oauth.LoginOptions{}).Has("scope") {
		t.Error("an empty scope is asked for, and none was configured")
	}
}

func TestLogin(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
		if r.form.Get("grant_type") == "authorization_code" {
			return answer(200, `{"access_token":"at-login","token_type":"Bearer","expires_in":3600,"refresh_token":"rt-login","scope":"openid offline_access"}`), nil
		}
		return issue(n, r)
	})
	c, log := newClient(t, srv, func(cfg *oauth.Config) { cfg.DPoP = newProver(t) })
	wantToken(t, c.TokenSource(), "at-1")
	var challenge, redirectURI, page string
	session, err := c.Login(t.Context(), oauth.LoginOptions{OpenURL: func(ctx context.Context, raw string) error {
		u, err := url.Parse(raw)
		if err != nil {
			return err
		}
		challenge, redirectURI = u.Query().Get("code_challenge"), u.Query().Get("redirect_uri")
		return browser(t, func(cb *url.URL) { _, page = get(t, cb) })(ctx, raw)
	}})
	if err != nil {
		t.Fatal(err)
	}
	if session.RefreshToken != "rt-login" || session.AccessToken != "at-login" || session.Warning != "" ||
		session.Generation != 3 || session.KeyThumbprint == "" || strings.Join(session.Scopes, " ") != "openid offline_access" {
		t.Errorf("session %+v", session)
	}
	r := srv.request(1)
	sum := sha256.Sum256([]byte(r.form.Get("code_verifier")))
	if base64.RawURLEncoding.EncodeToString(sum[:]) != challenge || len(r.form.Get("code_verifier")) != 43 {
		t.Error("the verifier does not fit the challenge")
	}
	if r.form.Get("code") != "the-code" || r.form.Get("redirect_uri") != redirectURI || r.form.Get("client_id") != "client" {
		t.Errorf("form %v", r.form)
	}
	if claimsOf(t, r).HTU != "https://as.example/token" {
		t.Error("the exchange of the code has no proof")
	}
	if !strings.Contains(page, "You are logged in") || strings.Contains(page, "the-code") {
		t.Errorf("page %s", page)
	}
	wantToken(t, c.TokenSource(), "at-login")
	wantStored(t, c, "rt-login")
	if n := len(log.of(oauth.EventLogin)); n != 2 {
		t.Errorf("%d login events", n)
	}
}

func TestLoginPages(t *testing.T) {
	for _, tt := range []struct{ accept, lang, text string }{
		{"", "en", "You are logged in"},
		{"ru-RU,ru;q=0.9,en;q=0.8", "ru", "Вы вошли"},
		{"en-GB,en;q=0.9,ru;q=0.8", "en", "You are logged in"},
		{"de, ru;q=0.5", "ru", "Вы вошли"},
		{"de", "en", "You are logged in"},
	} {
		t.Run(tt.accept, func(t *testing.T) {
			c, _ := newClient(t, newFakeServer(rotate))
			var page string
			_, err := c.Login(t.Context(), oauth.LoginOptions{OpenURL: browser(t, func(cb *url.URL) {
				_, page = get(t, cb, func(r *http.Request) { r.Header.Set("Accept-Language", tt.accept) })
			})})
			if err != nil || !strings.Contains(page, tt.text) || !strings.Contains(page, `<html lang="`+tt.lang+`">`) {
				t.Errorf("%v, page %s", err, page)
			}
		})
	}
}

func TestLoginRefusesWhatIsNotItsAnswer(t *testing.T) {
	for _, tt := range []struct {
		name   string
		attack func(t *testing.T, cb *url.URL) (status int, page string)
		status int
	}{
		{"wrong state", func(t *testing.T, cb *url.URL) (int, string) {
			return get(t, with(cb, func(q url.Values) { q.Set("state", strings.Repeat("A", 43)) }))
		}, 400},
		{"missing state", func(t *testing.T, cb *url.URL) (int, string) {
			return get(t, with(cb, func(q url.Values) { q.Del("state") }))
		}, 400},
		{"error with a wrong state", func(t *testing.T, cb *url.URL) (int, string) {
			return get(t, with(cb, func(q url.Values) { q.Set("state", "x"); q.Set("error", "access_denied"); q.Del("code") }))
		}, 400},
		{"no code", func(t *testing.T, cb *url.URL) (int, string) {
			return get(t, with(cb, func(q url.Values) { q.Del("code") }))
		}, 400},
		{"state twice", func(t *testing.T, cb *url.URL) (int, string) {
			return get(t, with(cb, func(q url.Values) { q.Add("state", q.Get("state")) }))
		}, 400},
		{"foreign Host", func(t *testing.T, cb *url.URL) (int, string) {
			return get(t, cb, func(r *http.Request) { r.Host = "rebound.example" })
		}, 421},
		{"localhost instead of the address", func(t *testing.T, cb *url.URL) (int, string) {
			return get(t, cb, func(r *http.Request) { r.Host = "localhost:" + cb.Port() })
		}, 421},
		{"other path", func(t *testing.T, cb *url.URL) (int, string) {
			u := *cb
			u.Path = "/favicon.ico"
			return get(t, &u)
		}, 404},
		{"POST", func(t *testing.T, cb *url.URL) (int, string) {
			return get(t, cb, func(r *http.Request) { r.Method = http.MethodPost })
		}, 405},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := newFakeServer(rotate)
			c, _ := newClient(t, srv)
			session, err := c.Login(t.Context(), oauth.LoginOptions{OpenURL: browser(t, func(cb *url.URL) {
				if status, _ := tt.attack(t, cb); status != tt.status {
					t.Errorf("status %d, want %d", status, tt.status)
				}
				if srv.count() != 0 {
					t.Error("a code was redeemed")
				}
				get(t, cb) // the login goes on, and the true answer is accepted
			})})
			if err != nil || session.RefreshToken != "rt-1" {
				t.Errorf("session %+v, %v", session, err)
			}
		})
	}
	t.Run("second answer", func(t *testing.T) {
		srv := newFakeServer(rotate)
		srv.gate = make(chan struct{})
		c, _ := newClient(t, srv)
		_, err := c.Login(t.Context(), oauth.LoginOptions{OpenURL: browser(t, func(cb *url.URL) {
			first := make(chan int)
			go func() {
				status, _ := get(t, cb)
				first <- status
			}()
			<-srv.began // the first answer's code is being redeemed
			if status, _ := get(t, with(cb, func(q url.Values) { q.Set("code", "injected") })); status != http.StatusConflict {
				t.Errorf("second answer: status %d", status)
			}
			close(srv.gate)
			if status := <-first; status != 200 {
				t.Errorf("first answer: status %d", status)
			}
		})})
		if err != nil || srv.count() != 1 || srv.request(0).form.Get("code") != "the-code" {
			t.Errorf("%v after %d requests", err, srv.count())
		}
	})
}

func TestLoginFailures(t *testing.T) {
	t.Run("access denied", func(t *testing.T) {
		srv := newFakeServer(rotate)
		c, _ := newClient(t, srv)
		var page string
		_, err := c.Login(t.Context(), oauth.LoginOptions{OpenURL: browser(t, func(cb *url.URL) {
			_, page = get(t, with(cb, func(q url.Values) {
				q.Del("code")
				q.Set("error", "access_denied")
				q.Set("error_description", "<script>no</script>")
			}))
		})})
		var refused *oauth.AuthorizationError
		if !errors.As(err, &refused) || refused.Code != "access_denied" || srv.count() != 0 {
			t.Errorf("error %v", err)
		}
		if !strings.Contains(page, "The login failed") || strings.Contains(page, "<script>") {
			t.Errorf("page %s", page)
		}
		wantStored(t, c, "rt-0")
	})
	for name, handle := range map[string]func(int, fakeRequest) (*http.Response, error){
		"refused code": refuse("invalid_grant"),
		"lost answer":  lose,
		"nonsense":     func(int, fakeRequest) (*http.Response, error) { return answer(200, "{}"), nil },
		"5xx":          func(int, fakeRequest) (*http.Response, error) { return answer(500, ""), nil },
	} {
		t.Run(name, func(t *testing.T) {
			srv := newFakeServer(handle)
			c, _ := newClient(t, srv)
			var page string
			_, err := c.Login(t.Context(), oauth.LoginOptions{OpenURL: browser(t, func(cb *url.URL) { _, page = get(t, cb) })})
			if err == nil || errors.Is(err, oauth.ErrLoginRequired) {
				t.Errorf("error %v", err)
			}
			if srv.count() != 1 {
				t.Errorf("the code was sent %d times", srv.count())
			}
			if !strings.Contains(page, "The login failed") {
				t.Errorf("page %s", page)
			}
			wantStored(t, c, "rt-0") // the old session lives
		})
	}
	t.Run("not saved", func(t *testing.T) {
		store := newFaultyStore()
		c, _ := newClient(t, newFakeServer(rotate), func(cfg *oauth.Config) { cfg.Store = store })
		var page string
		session, err := c.Login(t.Context(), oauth.LoginOptions{OpenURL: browser(t, func(cb *url.URL) {
			store.set(func(s *faultyStore) { s.failSave = errDisk })
			_, page = get(t, cb)
		})})
		var persist *oauth.PersistError
		if !errors.As(err, &persist) || session.RefreshToken != "rt-1" || !strings.Contains(page, "You are logged in") {
			t.Errorf("session %+v, %v; page %s", session, err, page)
		}
		wantToken(t, c.TokenSource(), "at-1")
		store.set(func(s *faultyStore) { s.failSave = nil })
		closeSource(t, c)
		wantStored(t, c, "rt-1")
	})
	t.Run("a store that is broken is noticed before the user is asked", func(t *testing.T) {
		store := newFaultyStore()
		c, _ := newClient(t, newFakeServer(rotate), func(cfg *oauth.Config) { cfg.Store = store })
		store.set(func(s *faultyStore) { s.failSave = errDisk })
		_, err := c.Login(t.Context(), oauth.LoginOptions{OpenURL: func(context.Context, string) error {
			t.Error("the browser was opened")
			return nil
		}})
		var broken *oauth.StoreError
		if !errors.As(err, &broken) || !errors.Is(err, errDisk) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
		c, _ := newClient(t, newFakeServer(rotate))
		ctx, cancel := context.WithCancel(t.Context())
		_, err := c.Login(ctx, oauth.LoginOptions{OpenURL: func(context.Context, string) error { cancel(); return nil }})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("cancelled after the code was redeemed", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
			cancel() // too late: the server has issued the tokens
			return rotate(n, r)
		})
		c, _ := newClient(t, srv)
		session, err := c.Login(ctx, oauth.LoginOptions{OpenURL: browser(t, func(cb *url.URL) {
			if resp, err := http.Get(cb.String()); err == nil {
				resp.Body.Close()
			}
		})})
		if err != nil || session.RefreshToken != "rt-1" {
			t.Errorf("session %+v, %v", session, err)
		}
		wantStored(t, c, "rt-1")
	})
	t.Run("impossible options", func(t *testing.T) {
		c, _ := newClient(t, newFakeServer(rotate))
		for _, opts := range []oauth.LoginOptions{{}, {Headless: true}, {Headless: true, Out: io.Discard}} {
			if _, err := c.Login(t.Context(), opts); err == nil {
				t.Errorf("%+v was accepted", opts)
			}
		}
		noAuth, err := oauth.New(oauth.Config{Provider: oauth.Provider{Name: "x", TokenURL: "https://as.example"}, ClientID: "c"})
		if err != nil {
			t.Fatal(err)
		}
		var ce *oauth.ConfigError
		if _, err := noAuth.Login(t.Context(), oauth.LoginOptions{Out: io.Discard}); !errors.As(err, &ce) || ce.Field != "Provider.AuthURL" {
			t.Errorf("error %v", err)
		}
	})
}

func TestLoginWithoutRefreshToken(t *testing.T) {
	for _, tt := range []struct {
		name, scope string // of the answer
		warning     oauth.Warning
	}{
		{"granted, none came", `,"scope":"openid offline_access"`, oauth.WarnRefreshTokensOff},
		{"as requested, none came", ``, oauth.WarnRefreshTokensOff},
		{"dropped from the scope", `,"scope":"openid"`, oauth.WarnNoOfflineScope},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := newFakeServer(func(int, fakeRequest) (*http.Response, error) {
				return answer(200, `{"access_token":"at","token_type":"Bearer","expires_in":3600`+tt.scope+`}`), nil
			})
			c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Scopes = []string{"openid", "offline_access"} })
			session, err := c.Login(t.Context(), oauth.LoginOptions{OpenURL: browser(t, func(cb *url.URL) { get(t, cb) })})
			if err != nil || session.Warning != tt.warning || session.RefreshToken != "" {
				t.Errorf("session %+v, %v; want the warning %s", session, err, tt.warning)
			}
			wantToken(t, c.TokenSource(), "at")
		})
	}
}

func TestHeadlessLogin(t *testing.T) {
	srv := newFakeServer(rotate)
	c, _ := newClient(t, srv)
	in, typed := io.Pipe()
	read, out := io.Pipe()
	go func() {
		defer out.Close()
		_, err := c.Login(t.Context(), oauth.LoginOptions{Headless: true, In: in, Out: out})
		if err != nil {
			t.Errorf("Login: %v", err)
		}
	}()
	screen := bufio.NewScanner(read)
	var callback *url.URL
	for screen.Scan() {
		line := screen.Text()
		if strings.HasPrefix(line, "https://as.example/authorize?") {
			_ = browser(t, func(cb *url.URL) { callback = cb })(t.Context(), line)
		}
		if callback != nil && strings.HasPrefix(line, "The browser then goes") {
			break
		}
	}
	go func() { // the prompts of wrong lines
		_, _ = io.Copy(io.Discard, read)
	}()
	for _, line := range []string{
		"what?",
		"",
		"  ",
		with(callback, func(q url.Values) { q.Set("state", "x") }).String(),
		"  " + callback.String() + "  ",
	} {
		fmt.Fprintln(typed, line)
	}
	<-srv.began
	if got := srv.request(0).form.Get("code"); got != "the-code" {
		t.Errorf("code %q", got)
	}
	t.Run("input ends", func(t *testing.T) {
		_, err := c.Login(t.Context(), oauth.LoginOptions{Headless: true, In: strings.NewReader(""), Out: io.Discard})
		if !errors.Is(err, io.EOF) {
			t.Errorf("error %v", err)
		}
	})
}

func TestBrowserThatDoesNotOpen(t *testing.T) {
	c, _ := newClient(t, newFakeServer(rotate))
	read, out := io.Pipe()
	done := make(chan error)
	go func() {
		_, err := c.Login(t.Context(), oauth.LoginOptions{Out: out, OpenURL: func(context.Context, string) error {
			return errors.New("no display")
		}})
		done <- err
	}()
	screen := bufio.NewScanner(read)
	for screen.Scan() {
		if line := screen.Text(); strings.HasPrefix(line, "https://as.example/authorize?") {
			go func() { _, _ = io.Copy(io.Discard, read) }()
			_ = browser(t, func(cb *url.URL) { get(t, cb) })(t.Context(), line)
			break
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Close waits for a login that exchanges its code, and for what comes of it.
func TestCloseWaitsForALogin(t *testing.T) {
	srv := newFakeServer(rotate)
	srv.gate = make(chan struct{})
	c, _ := openClient(t, srv)
	const logins = 2
	done := make(chan error, logins)
	for range logins {
		go func() {
			_, err := c.Login(context.Background(), oauth.LoginOptions{OpenURL: browserThatFollows(t)})
			done <- err
		}()
	}
	for range logins {
		<-srv.began
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		closeSource(t, c)
		for range logins {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if _, err := c.Session(context.Background()); err != nil {
			t.Errorf("Close did not wait: %v", err)
		}
	}()
	select {
	case <-closed:
		t.Error("Close did not wait for a token request in progress")
	case <-time.After(100 * time.Millisecond):
	}
	close(srv.gate)
	<-closed
}

// Whatever panics in a login, its port is free afterwards and its page complete.
func TestPanicInALoginFreesThePort(t *testing.T) {
	c, _ := openClient(t, newFakeServer(rotate), func(cfg *oauth.Config) {
		cfg.Observer = func(e oauth.Event) {
			if e.Kind == oauth.EventLogin {
				panic("observer")
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var host string
	page := make(chan int, 1)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the observer was not told")
			}
		}()
		_, _ = c.Login(ctx, oauth.LoginOptions{OpenURL: browser(t, func(callback *url.URL) {
			host = callback.Host
			go func() {
				status, _ := get(t, callback)
				page <- status
			}()
		})})
	}()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", host)
	if err == nil {
		conn.Close()
		t.Error("the port is open after the login has ended")
		cancel()
	}
	if status := <-page; status != http.StatusOK {
		t.Errorf("status %d", status)
	}
	wantToken(t, c.TokenSource(), "at-1")
	closeSource(t, c)
}

// A login that cannot begin because of a slow renewal says so, and what helps.
func TestLoginDuringASlowRenewal(t *testing.T) {
	for name, tt := range map[string]struct {
		mine bool
		want string
	}{
		"of this client":     {true, "by a renewal of this client"},
		"of another process": {false, "by another process or client"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := oauth.NewMemoryStore()
				srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
					time.Sleep(29 * time.Second)
					if n == 1 {
						return answer(503, ""), nil
					}
					return rotate(n, r)
				})
				c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store = store })
				renewing := c
				if !tt.mine {
					c, _ = openClient(t, srv, func(cfg *oauth.Config) { cfg.Store = store })
				}
				go func() { _, _ = renewing.TokenSource().Token() }()
				<-srv.began
				reached := errors.New("reached")
				login := func() error {
					_, err := c.Login(t.Context(), oauth.LoginOptions{OpenURL: func(context.Context, string) error { return reached }})
					return err
				}
				err := login()
				var busy *oauth.StoreError
				if !errors.As(err, &busy) || !errors.Is(err, context.DeadlineExceeded) ||
					!strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "retry the login afterwards") {
					t.Errorf("%v", err)
				}
				closeSource(t, renewing)
				if err := login(); !errors.Is(err, reached) {
					t.Errorf("after the renewal: %v", err)
				}
			})
		})
	}
}

func loginAs(t *testing.T, c *oauth.Client, before func()) (oauth.Session, error) {
	t.Helper()
	in, line := io.Pipe()
	text, out := io.Pipe()
	go func() {
		b := make([]byte, 8192)
		var all string
		for {
			n, err := text.Read(b)
			all += string(b[:n])
			if err != nil || strings.Contains(all, "Enter that address") {
				break
			}
		}
		u, _ := url.Parse(regexp.MustCompile(`https://\S+`).FindString(all))
		before()
		_, _ = io.WriteString(line, u.Query().Get("redirect_uri")+"?code=c1&state="+url.QueryEscape(u.Query().Get("state"))+"\n")
		_, _ = io.Copy(io.Discard, text)
	}()
	defer out.Close()
	return c.Login(t.Context(), oauth.LoginOptions{Headless: true, In: in, Out: out})
}

func TestServesTheLoginThatReturned(t *testing.T) {
	srv, mem := newRotor(12*3600), oauth.NewMemoryStore()
	store := &heldStore{Store: mem}
	c, events := clientOf(t, srv, store, nil)
	other, _ := clientOf(t, srv, mem, nil)
	defer c.TokenSource().Close()
	defer other.TokenSource().Close()
	if err := c.Import(t.Context(), srv.issue("old")); err != nil {
		t.Fatal(err)
	}
	mustToken(t, c)
	hold := make(chan struct{})
	srv.answer = func(form url.Values) (*http.Response, error) {
		if form.Get("grant_type") != "authorization_code" {
			return nil, nil
		}
		srv.users["rt-bob-login"] = "bob"
		waiting := store.hold(hold)
		go func() {
			<-waiting // the login saves, and waits for the lock
			_, _ = c.TokenSource().Renew(context.Background())
			close(hold)
		}()
		return jsonResponse(200, nil, map[string]any{"access_token": "at-bob-login", "token_type": "Bearer", "expires_in": 43200, "refresh_token": "rt-bob-login"}), nil
	}
	_, err := loginAs(t, c, func() {
		if err := other.Import(t.Context(), srv.issue("eve")); err != nil {
			t.Error(err)
		}
		mustToken(t, other)
	})
	if err != nil {
		t.Fatal(err)
	}
	got := mustToken(t, c)
	stored, _ := mem.Load(t.Context())
	if !strings.Contains(got, "bob") {
		t.Errorf("Login has returned bob's session, the store has %s, and the source serves %s; events %v", stored.AccessToken.Reveal(), got, events.kinds())
	}
}
