package conformance

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

// What somebody can make the user's browser do while a login waits. Each attack
// is refused, and the session from before it stays.

func TestBrowserAttacks(t *testing.T) {
	t.Parallel()
	needChromium(t)
	w := wordings[0]
	c := startChromium(t, w.languages)
	for _, r := range realms(t) {
		for _, attack := range []struct {
			name string

			// The code is issued for a request that differs from ours in this only.
			param string
			value string

			refused map[string]string // why, by realm
		}{
			{"code of another client", "client_id", r.otherClient, map[string]string{
				"iamtest": "another client", "oidc-provider": "client mismatch",
			}},
			{"code injected while PKCE differs", "code_challenge", hash("of the attacker's verifier"), map[string]string{
				"iamtest": "code_verifier", "oidc-provider": "code_verifier",
			}},
		} {
			t.Run(attack.name+", "+r.name, func(t *testing.T) {
				client := r.newClient(t)
				before := r.begin(t, client)
				c.newTab(t).mustOpen(t, before.authURL)
				session := before.succeed(t)

				login := r.begin(t, client)
				code := login.codeFor(t, attack.param, attack.value)
				v := c.newTab(t).mustOpen(t, login.with("code", code))
				_, err := login.end()
				refusal := wantRefusal(t, err, "invalid_grant")
				if why := r.whyRefused(t, refusal); !strings.Contains(why, attack.refused[r.name]) {
					t.Errorf("refused because %q, want %q", why, attack.refused[r.name])
				}
				w.check(t, r, v, w.failed, http.StatusOK)
				wantWorking(t, client, session)
			})
		}
		t.Run("two logins at once, "+r.name, func(t *testing.T) { twoLogins(t, c, r) })
		t.Run("answer that points elsewhere, "+r.name, func(t *testing.T) { pointsElsewhere(t, c, r) })
		t.Run("no credential was told, "+r.name, r.tap.audit)
	}
}

// twoLogins swaps the answers of two logins, and then gives each its own.
func twoLogins(t *testing.T, c *chromium, r *realm) {
	w := wordings[0]
	clients := [2]*oauth.Client{r.newClient(t), r.newClient(t)}
	logins := [2]*pending{r.begin(t, clients[0]), r.begin(t, clients[1])}
	if logins[0].answer.Host == logins[1].answer.Host || logins[0].answer.RawQuery == logins[1].answer.RawQuery {
		t.Fatalf("the logins share what should be their own: %s", logins[0].answer)
	}
	for i, login := range logins {
		other := logins[1-i]
		code := login.codeFor(t, "state", login.answer.Query().Get("state"))
		swapped := *other.answer
		swapped.RawQuery = url.Values{"state": {login.answer.Query().Get("state")}, "code": {code}}.Encode()
		w.check(t, r, c.newTab(t).mustOpen(t, swapped.String()), w.foreign, http.StatusBadRequest)
	}

	type result struct {
		view view
		err  error
	}
	var tabs [2]*tab
	var shown [2]chan result
	for i := range logins {
		tabs[i], shown[i] = c.newTab(t), make(chan result, 1)
	}
	for i, login := range logins {
		go func() {
			v, err := tabs[i].open(login.authURL)
			shown[i] <- result{v, err}
		}()
	}
	var sessions [2]oauth.Session
	for i, login := range logins {
		got := <-shown[i]
		if got.err != nil {
			t.Fatal(got.err)
		}
		w.check(t, r, got.view, w.done, http.StatusOK)
		sessions[i] = login.succeed(t)
	}
	if sessions[0].RefreshToken == sessions[1].RefreshToken || sessions[0].KeyThumbprint == sessions[1].KeyThumbprint {
		t.Error("two logins have ended with one session")
	}
	for i, client := range clients {
		wantWorking(t, client, sessions[i])
	}
}

// pointsElsewhere sends addresses to the callback that name another site, in the
// ways in which redirectors have been fooled.
func pointsElsewhere(t *testing.T, c *chromium, r *realm) {
	w := wordings[0]
	var visitors atomic.Int32
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { visitors.Add(1) }))
	defer elsewhere.Close()
	host := strings.TrimPrefix(elsewhere.URL, "http://")

	client := r.newClient(t)
	login := r.begin(t, client)
	code := login.codeFor(t, "state", login.answer.Query().Get("state"))
	b := c.newTab(t)
	for _, path := range []string{"//" + host + "/auth/callback", "/auth/callback//" + host, "/auth/callback/..//" + host, `/\` + host, "/auth/callback/"} {
		u := "http://" + login.answer.Host + path + "?" + login.answer.RawQuery + "&code=" + code
		if v := b.mustOpen(t, u); v.Status != http.StatusNotFound || !strings.HasPrefix(v.Address, "http://"+login.answer.Host+"/") {
			t.Errorf("%s: %+v", path, v)
		}
	}
	v := b.mustOpen(t, login.with("code", code, "redirect_uri", elsewhere.URL, "next", elsewhere.URL, "url", "//"+host,
		"iss", elsewhere.URL, "error_uri", elsewhere.URL, "target_link_uri", elsewhere.URL))
	w.check(t, r, v, w.done, http.StatusOK)
	if u, err := url.Parse(v.Address); err != nil || u.Host != login.answer.Host || u.Path != login.answer.Path {
		t.Errorf("the browser ended elsewhere: %s", u.Redacted())
	}
	session := login.succeed(t)

	denied := r.begin(t, client)
	v = b.mustOpen(t, denied.with("error", "access_denied", "error_uri", elsewhere.URL, "redirect_uri", elsewhere.URL))
	w.check(t, r, v, w.failed, http.StatusOK)
	var refused *oauth.AuthorizationError
	if _, err := denied.end(); !errors.As(err, &refused) || strings.Contains(err.Error(), host) {
		t.Errorf("error %v", err)
	}
	if n := len(c.wire.requests(host)); n != 0 || visitors.Load() != 0 {
		t.Errorf("elsewhere had %d requests on the wire, %d visitors", n, visitors.Load())
	}
	wantWorking(t, client, session)
}

// A token endpoint that redirects gets the code and the verifier carried no
// further, and the user is told.
func TestBrowserTokenEndpointRedirects(t *testing.T) {
	t.Parallel()
	needChromium(t)
	srv, r := newEmbedded(t)
	w := wordings[0]
	c := startChromium(t, w.languages)
	client := r.newClient(t)
	before := r.begin(t, client)
	c.newTab(t).mustOpen(t, before.authURL)
	session := before.succeed(t)

	srv.Inject(iamtest.EndpointToken, iamtest.Redirect(), 1)
	login := r.begin(t, client)
	v := c.newTab(t).mustOpen(t, login.authURL)
	if _, err := login.end(); err == nil {
		t.Error("the login succeeded")
	}
	w.check(t, r, v, w.failed, http.StatusOK)
	if n := srv.Count(iamtest.EndpointElsewhere); n != 0 {
		t.Errorf("the other origin had %d requests", n)
	}
	wantWorking(t, client, session)
	r.tap.audit(t)
}
