package conformance

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/ycauth/ycauth-go/oauth"
)

// What a user sees of a login in a real browser, in the language that the
// browser asks for.

// A wording is the headings of the pages in one language.
type wording struct {
	lang, languages                 string
	done, failed, repeated, foreign string
}

var wordings = []wording{
	{"en", english, "You are logged in", "The login failed", "Already received", "Not this login"},
	{"ru", russian, "Вы вошли", "Войти не удалось", "Ответ уже получен", "Другой вход"},
}

func TestBrowserLogin(t *testing.T) {
	t.Parallel()
	needChromium(t)
	servers := realms(t)
	for _, w := range wordings {
		t.Run(w.lang, func(t *testing.T) {
			c := startChromium(t, w.languages)
			for _, r := range servers {
				t.Run(r.name+", success", func(t *testing.T) {
					client, b := r.newClient(t), c.newTab(t)
					login := r.begin(t, client)
					v := b.mustOpen(t, login.authURL)
					session := login.succeed(t)
					w.check(t, r, v, w.done, http.StatusOK)
					b.photograph(t, r.name+"-done-"+w.lang)
					leavesNoTrace(t, c, b, login)
					wantWorking(t, client, session)
				})
				t.Run(r.name+", denied", func(t *testing.T) {
					r.deny(t, true)
					defer r.deny(t, false)
					client, b := r.newClient(t), c.newTab(t)
					login := r.begin(t, client)
					v := b.mustOpen(t, login.authURL)
					_, err := login.end()
					var denied *oauth.AuthorizationError
					if !errors.As(err, &denied) || denied.Code != "access_denied" {
						t.Errorf("error %v", err)
					}
					w.check(t, r, v, w.failed, http.StatusOK)
					b.photograph(t, r.name+"-failed-"+w.lang)
					leavesNoTrace(t, c, b, login)
					if _, err := client.Session(t.Context()); !errors.Is(err, oauth.ErrNoSession) {
						t.Errorf("session of a login that was denied: %v", err)
					}
				})
			}
		})
	}
	for _, r := range servers {
		t.Run("no credential was told, "+r.name, r.tap.audit)
	}
}

// check looks at a page of ours, which shows nothing of the request.
func (w wording) check(t *testing.T, r *realm, v view, heading string, status int64) {
	t.Helper()
	if v.Lang != w.lang || v.Heading != heading || v.Title != heading || v.Status != status {
		t.Errorf("page %+v, want %q in %s with status %d", v, heading, w.lang, status)
	}
	if !strings.Contains(v.Text, heading) || len(v.Text) < len(heading)+10 {
		t.Errorf("the page says only %q", v.Text)
	}
	if len(v.Loaded) != 0 {
		t.Errorf("the page has loaded %q", v.Loaded)
	}
	r.tap.hear("page", v.Title+"\n"+v.Text)
}

// leavesNoTrace looks for what the page in b, at an address with a code and the
// state, makes the browser do: the code must get nowhere else, be it as the
// Referer of an icon or of the page that the user goes to next.
func leavesNoTrace(t *testing.T, c *chromium, b *tab, login *pending) {
	t.Helper()
	other := newOtherSite(t)
	c.newTab(t).mustOpen(t, other.URL+"/control")
	// The browser has asked for the icon of a page that it loaded later than
	// ours: it has had the time to ask for ours as well.
	other.awaitIcon(t)

	next := `document.body.append(Object.assign(document.createElement("a"), {id: "next", href: "` + other.URL + `/next", innerText: "next"}))`
	resp, err := chromedp.RunResponse(b.ctx, chromedp.Evaluate[chromedp.Void](next), chromedp.Click("#next"))
	if err != nil || resp.URL != other.URL+"/next" {
		t.Fatalf("the user could not go on: %v, %+v", err, resp)
	}

	asked := c.wire.requests(login.answer.Host)
	if len(asked) != 1 || asked[0].URL.Path != login.answer.Path {
		t.Fatalf("requests to the callback: %+v, want the answer alone", asked)
	}
	state, code := asked[0].URL.Query().Get("state"), asked[0].URL.Query().Get("code")
	for _, r := range c.wire.requests("") {
		for what, text := range map[string]string{"state": state, "code": code} {
			if text != "" && r.carried(text) {
				t.Errorf("the %s was in a header of %s %s", what, r.Method, r.URL.Redacted())
			}
		}
		if code != "" && r.URL.Host != login.answer.Host && strings.Contains(r.URL.String(), code) {
			t.Errorf("the code went to %s", r.URL.Host)
		}
		if r.Referer != "" && strings.Contains(r.Referer, login.answer.Host) {
			t.Errorf("%s was told where the user came from: %s", r.URL.Redacted(), r.Referer)
		}
	}
}

// An otherSite is where users go after a login. It has an icon.
type otherSite struct {
	*httptest.Server
	icon chan struct{} // closed when the browser has asked for it
}

func newOtherSite(t *testing.T) *otherSite {
	t.Helper()
	s := &otherSite{icon: make(chan struct{})}
	asked := sync.OnceFunc(func() { close(s.icon) })
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/favicon.ico" {
			asked()
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(`<!doctype html><html lang="en"><title>Elsewhere</title><h1>Elsewhere</h1>`))
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *otherSite) awaitIcon(t *testing.T) {
	t.Helper()
	select {
	case <-s.icon:
	case <-bounded(t).Done():
		t.Fatal("the browser asks for no icons, so this test would prove nothing")
	}
}

// While a code is being redeemed, other answers come: to this login, and not.
func TestBrowserOtherAnswers(t *testing.T) {
	t.Parallel()
	needChromium(t)
	_, r := newEmbedded(t)
	for _, w := range wordings {
		t.Run(w.lang, func(t *testing.T) {
			c := startChromium(t, w.languages)
			redeeming, goOn := make(chan struct{}), make(chan struct{})
			began := sync.OnceFunc(func() { close(redeeming) })
			client := r.newClient(t, func(cfg *oauth.Config) {
				cfg.HTTPClient = interceptor(func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
					began()
					select {
					case <-goOn:
						return next.RoundTrip(req)
					case <-req.Context().Done():
						return nil, req.Context().Err()
					}
				}).into(cfg.HTTPClient)
			})
			login := r.begin(t, client)

			first := c.newTab(t)
			type result struct {
				view view
				err  error
			}
			shown := make(chan result, 1)
			go func() {
				v, err := first.open(login.authURL)
				shown <- result{v, err}
			}()
			select {
			case <-redeeming:
			case <-bounded(t).Done():
				t.Fatal("no code was redeemed")
			}

			second := c.newTab(t)
			w.check(t, r, second.mustOpen(t, login.with("code", "injected")), w.repeated, http.StatusConflict)
			second.photograph(t, "repeated-"+w.lang)
			w.check(t, r, second.mustOpen(t, login.with("code", "injected", "state", "of-another-login")), w.foreign, http.StatusBadRequest)
			second.photograph(t, "foreign-"+w.lang)
			icon := *login.answer
			icon.Path, icon.RawQuery = "/favicon.ico", ""
			if v := second.mustOpen(t, icon.String()); v.Status != http.StatusNotFound {
				t.Errorf("an icon: %+v", v)
			}

			close(goOn)
			got := <-shown
			if got.err != nil {
				t.Fatal(got.err)
			}
			session := login.succeed(t)
			w.check(t, r, got.view, w.done, http.StatusOK)
			wantWorking(t, client, session)
		})
	}
	t.Run("no credential was told", r.tap.audit)
}
