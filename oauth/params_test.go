package oauth_test

import (
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/ycauth/ycauth-go/oauth"
)

// TestResourcesAndParams looks for them in the authorization request, and in the token
// requests of the login and of a renewal.
func TestResourcesAndParams(t *testing.T) {
	resources := []string{"https://api.example/v1?tenant=1", "urn:example:mail"}
	srv := newFakeServer(rotate)
	c, _ := openClient(t, srv, func(cfg *oauth.Config) {
		cfg.Resources = resources
		cfg.Provider.AuthParams = url.Values{"prompt": {"consent"}}
		cfg.Provider.TokenParams = url.Values{"audience": {"https://api.example"}}
	})
	q := loginURL(t, c, oauth.LoginOptions{})
	if !slices.Equal(q["resource"], resources) || q.Get("prompt") != "consent" || q.Has("audience") {
		t.Errorf("authorization request %v", q)
	}
	s, err := c.Login(t.Context(), oauth.LoginOptions{OpenURL: browserThatFollows(t)})
	if err != nil || s.RefreshToken == "" {
		t.Fatal(err)
	}
	if _, err := c.TokenSource().Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, grant := range []string{"authorization_code", "refresh_token"} {
		form := srv.request(i).form
		if form.Get("grant_type") != grant || !slices.Equal(form["resource"], resources) || !slices.Equal(form["audience"], []string{"https://api.example"}) || form.Has("prompt") {
			t.Errorf("%s: %v", grant, form)
		}
	}
}

// Yandex Cloud gets what it got before.
func TestNoParamsForYandexCloud(t *testing.T) {
	srv := newFakeServer(issue)
	c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Provider, cfg.DPoP = oauth.YandexCloud(), newProver(t) })
	wantToken(t, c.TokenSource(), "at-1")
	if names := slices.Sorted(maps.Keys(srv.request(0).form)); strings.Join(names, " ") != "client_id grant_type refresh_token" {
		t.Errorf("a renewal has %q", names)
	}
	if names := slices.Sorted(maps.Keys(loginURL(t, c, oauth.LoginOptions{}))); strings.Join(names, " ") != "client_id code_challenge code_challenge_method dpop_jkt redirect_uri response_type scope state" {
		t.Errorf("a login has %q", names)
	}
}

func TestParamsThatThePackageSets(t *testing.T) {
	for field, names := range map[string]string{
		"Provider.AuthParams":  "response_type client_id redirect_uri state scope resource code_challenge code_challenge_method dpop_jkt request request_uri client_secret client_assertion",
		"Provider.TokenParams": "grant_type code code_verifier redirect_uri refresh_token device_code resource client_id client_secret client_assertion client_assertion_type",
	} {
		for name := range strings.FieldsSeq(names) {
			cfg := oauth.Config{Provider: testProvider(), ClientID: "client"}
			params := url.Values{name: {"hunter2"}}
			if field == "Provider.AuthParams" {
				cfg.Provider.AuthParams = params
			} else {
				cfg.Provider.TokenParams = params
			}
			var ce *oauth.ConfigError
			if _, err := oauth.New(cfg); !errors.As(err, &ce) || ce.Field != field || !strings.Contains(ce.Reason, name) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s in %s: %v", name, field, err)
			}
		}
	}
}

// What the caller does with its Config after New changes nothing.
func TestParamsAreCopied(t *testing.T) {
	auth, token := url.Values{"prompt": {"consent"}}, url.Values{"audience": {"a"}}
	srv := newFakeServer(rotate)
	c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Provider.AuthParams, cfg.Provider.TokenParams = auth, token })
	auth["prompt"][0], token["audience"][0] = "changed", "changed"
	wantToken(t, c.TokenSource(), "at-1")
	if got := srv.request(0).form.Get("audience"); got != "a" {
		t.Errorf("audience %q", got)
	}
	if got := loginURL(t, c, oauth.LoginOptions{}).Get("prompt"); got != "consent" {
		t.Errorf("prompt %q", got)
	}
	closeSource(t, c)
}
