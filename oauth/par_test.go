package oauth_test

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
)

const parURL = "https://as.example/par"

// pushing is a server that takes pushed authorization requests, and otherwise rotates.
func pushing(par func(n int, r fakeRequest) (*http.Response, error)) *fakeServer {
	pushed := 0
	return newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
		if r.url != parURL {
			return rotate(n, r)
		}
		pushed++
		return par(pushed, r)
	})
}

func withPAR(cfg *oauth.Config) {
	cfg.Provider.PushedAuthURL, cfg.Provider.RequirePAR = parURL, true
	cfg.Provider.ThumbprintHash = crypto.SHA256
	cfg.Provider.AuthURL += "?tenant=1"
	cfg.Provider.AuthParams = url.Values{"prompt": {"consent"}}
	cfg.Scopes = []string{"openid"}
}

// pushedBrowser answers a login whose parameters were pushed with the nth request.
func pushedBrowser(t *testing.T, srv *fakeServer, n int, opened *url.Values) func(context.Context, string) error {
	return func(_ context.Context, raw string) error {
		u, err := url.Parse(raw)
		if err != nil {
			return err
		}
		*opened = u.Query()
		form := srv.request(n).form
		cb, err := url.Parse(form.Get("redirect_uri"))
		if err != nil {
			return err
		}
		cb.RawQuery = url.Values{"state": {form.Get("state")}, "code": {"the-code"}}.Encode()
		get(t, cb)
		return nil
	}
}

func TestPushedAuthorizationRequest(t *testing.T) {
	prover := newProver(t)
	srv := pushing(func(n int, r fakeRequest) (*http.Response, error) {
		claims := claimsOf(t, r)
		if claims.HTU != parURL || claims.HTM != http.MethodPost {
			t.Errorf("proof %+v", claims)
		}
		if n == 1 {
			return answer(400, `{"error":"use_dpop_nonce"}`, "DPoP-Nonce", "the-nonce"), nil
		}
		if claims.Nonce != "the-nonce" {
			t.Errorf("nonce %q", claims.Nonce)
		}
		return answer(201, `{"request_uri":"urn:ietf:params:oauth:request_uri:1","expires_in":60}`, "DPoP-Nonce", "the-next"), nil
	})
	c, _ := openClient(t, srv, withPAR, func(cfg *oauth.Config) {
		cfg.DPoP = prover
		cfg.ClientSecret, cfg.Provider.AuthMethod = "hunter2-secret", oauth.AuthClientSecretBasic
	})
	var opened url.Values
	s, err := c.Login(t.Context(), oauth.LoginOptions{OpenURL: pushedBrowser(t, srv, 1, &opened)})
	if err != nil || s.RefreshToken != "rt-3" {
		t.Fatalf("%+v, %v", s, err)
	}
	if want := (url.Values{"tenant": {"1"}, "client_id": {"client"}, "request_uri": {"urn:ietf:params:oauth:request_uri:1"}}); opened.Encode() != want.Encode() {
		t.Errorf("the browser was sent to %v", opened)
	}
	jkt, err := prover.Thumbprint(crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	pushed := srv.request(1)
	for name, want := range map[string]string{
		"response_type": "code", "client_id": "client", "scope": "openid", "prompt": "consent", "code_challenge_method": "S256", "dpop_jkt": jkt,
	} {
		if pushed.form.Get(name) != want {
			t.Errorf("%s=%q, want %q", name, pushed.form.Get(name), want)
		}
	}
	if pushed.form.Has("tenant") || pushed.form.Has("client_secret") || !strings.HasPrefix(pushed.header.Get("Authorization"), "Basic ") {
		t.Errorf("pushed %v with %v", pushed.form, pushed.header)
	}
	if exchanged := srv.request(2); exchanged.form.Get("redirect_uri") != pushed.form.Get("redirect_uri") || claimsOf(t, exchanged).Nonce != "the-next" {
		t.Errorf("exchanged with %v", exchanged.form)
	}
}

func TestPushedAuthorizationRequestFails(t *testing.T) {
	const ok = `{"request_uri":"urn:x","expires_in":60}`
	for name, tt := range map[string]struct {
		par      func(n int) (*http.Response, error)
		requests int
		want     func(error) bool
	}{
		"rejected": {func(int) (*http.Response, error) {
			return answer(400, `{"error":"invalid_scope","error_description":"hunter2-secret is not a scope"}`), nil
		}, 1, isServerError("invalid_scope")},
		"rejected with status 200": {func(int) (*http.Response, error) {
			return answer(200, `{"error":"invalid_scope","error_description":"hunter2-secret is not a scope"}`), nil
		}, 1, func(err error) bool { return isServerError("invalid_scope")(err) && hasStatus(err, 200) }},
		"malformed with status 200": {func(int) (*http.Response, error) { return answer(200, `{}`), nil }, 1, func(err error) bool {
			return isMalformed(err) && hasStatus(err, 200)
		}},
		"no reference":          {func(int) (*http.Response, error) { return answer(201, `{}`), nil }, 1, isMalformed},
		"reference of no use":   {func(int) (*http.Response, error) { return answer(201, `{"request_uri":"a\nb"}`), nil }, 1, isMalformed},
		"reference that is not": {func(int) (*http.Response, error) { return answer(201, `{"request_uri":5}`), nil }, 1, isMalformed},
		"not JSON":              {func(int) (*http.Response, error) { return answer(200, `<html>`), nil }, 1, isMalformed},
		"redirect":              {func(int) (*http.Response, error) { return answer(307, ``, "Location", "https://evil.example"), nil }, 1, isMalformed},
		"too large":             {func(int) (*http.Response, error) { return answer(201, strings.Repeat(" ", 1<<20)+ok), nil }, 1, isMalformed},
		"nonces without an end": {func(n int) (*http.Response, error) {
			return answer(400, `{"error":"use_dpop_nonce"}`, "DPoP-Nonce", fmt.Sprint("n", n)), nil
		}, 4, isServerError("use_dpop_nonce")},
		"lost": {func(int) (*http.Response, error) { return nil, errLine }, 2, func(err error) bool { return errors.Is(err, errLine) }},
	} {
		t.Run(name, func(t *testing.T) {
			srv := pushing(func(n int, _ fakeRequest) (*http.Response, error) { return tt.par(n) })
			c, _ := newClient(t, srv, withPAR, func(cfg *oauth.Config) {
				cfg.DPoP, cfg.MaxAttempts = newProver(t), 2
				cfg.ClientSecret, cfg.Provider.AuthMethod = "hunter2-secret", oauth.AuthClientSecretPost
			})
			_, err := c.Login(t.Context(), oauth.LoginOptions{OpenURL: func(context.Context, string) error {
				t.Error("a browser was opened")
				return nil
			}})
			if !tt.want(err) || srv.count() != tt.requests {
				t.Errorf("%v after %d requests", err, srv.count())
			}
			if strings.Contains(fmt.Sprint(err), "hunter2") {
				t.Errorf("the secret is in %v", err)
			}
			wantStored(t, c, "rt-0")
		})
	}
	for name, first := range map[string]func() (*http.Response, error){
		"503":  func() (*http.Response, error) { return answer(503, ""), nil },
		"lost": func() (*http.Response, error) { return nil, errLine },
		"a wrong local clock": func() (*http.Response, error) {
			return answer(400, `{"error":"invalid_dpop_proof"}`, "Date", farDate), nil
		},
		"a body that ends soon": func() (*http.Response, error) {
			resp := answer(201, "")
			resp.Body = errBody{}
			return resp, nil
		},
	} {
		t.Run("repeated after "+name, func(t *testing.T) {
			srv := pushing(func(n int, _ fakeRequest) (*http.Response, error) {
				if n == 1 {
					return first()
				}
				return answer(201, ok), nil
			})
			c, _ := openClient(t, srv, withPAR, func(cfg *oauth.Config) { cfg.DPoP = newProver(t) })
			var opened url.Values
			if _, err := c.Login(t.Context(), oauth.LoginOptions{OpenURL: pushedBrowser(t, srv, 1, &opened)}); err != nil {
				t.Fatal(err)
			}
			if one, two := claimsOf(t, srv.request(0)).ID, claimsOf(t, srv.request(1)).ID; one == two {
				t.Error("a proof was sent twice")
			}
		})
	}
}

// farDate is the time of a server whose clock is two days ahead of this one.
var farDate = time.Now().Add(48 * time.Hour).UTC().Format(http.TimeFormat)

type errBody struct{ brokenReader }

func (errBody) Close() error { return nil }

func isServerError(code string) func(error) bool {
	return func(err error) bool {
		var server *oauth.ServerError
		return errors.As(err, &server) && server.Code == code
	}
}

func hasStatus(err error, status int) bool {
	var server *oauth.ServerError
	return errors.As(err, &server) && server.Status == status
}

func isMalformed(err error) bool {
	return isServerError("")(err) && errors.Is(err, oauth.ErrMalformedResponse)
}

// Without RequirePAR nothing is pushed, whatever the server offers.
func TestAuthorizationRequestIsNotPushedUnasked(t *testing.T) {
	c, _ := openClient(t, newFakeServer(issue), func(cfg *oauth.Config) { cfg.Provider.PushedAuthURL = parURL })
	if q := loginURL(t, c, oauth.LoginOptions{}); q.Has("request_uri") || !q.Has("code_challenge") {
		t.Errorf("%v", q)
	}
}
