package oauth_test

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/ycauth/ycauth-go/oauth"
)

// These are the deviations that the OpenID Foundation's conformance suite puts into the
// responses for a client of the authorization code flow.

// TestAuthorizationResponses has what comes with the redirect.
func TestAuthorizationResponses(t *testing.T) {
	const ours = "https://as.example"
	set := func(name string, values ...string) func(url.Values) {
		return func(q url.Values) { q[name] = values }
	}
	const (
		accepted = "" // the login goes on
		ignored  = "ignored"
		ended    = "ended"
	)
	for name, tt := range map[string]struct {
		change func(url.Values)
		want   string
		as     func(error) bool // if it has ended
	}{
		"happy path without a nonce": {func(url.Values) {}, accepted, nil},
		"unrecognized parameters":    {func(q url.Values) { q.Set("session_state", "x"); q.Set("nonce", "x") }, accepted, nil},
		"an empty error":             {set("error", ""), accepted, nil},
		"state missing":              {set("state"), ignored, nil},
		"state empty":                {set("state", ""), ignored, nil},
		"state wrong":                {set("state", strings.Repeat("x", 43)), ignored, nil},
		"state in another case":      {func(q url.Values) { q.Set("state", swapCase(q.Get("state"))) }, ignored, nil},
		"state duplicated":           {func(q url.Values) { q.Add("state", q.Get("state")) }, ignored, nil},
		"state and a wrong one":      {func(q url.Values) { q.Add("state", "x") }, ignored, nil},
		"code missing":               {set("code"), ignored, nil},
		"code duplicated":            {func(q url.Values) { q.Add("code", "injected") }, ignored, nil},
		"iss removed":                {set("iss"), ended, func(err error) bool { return errors.Is(err, oauth.ErrIssuerMismatch) }},
		"iss empty":                  {set("iss", ""), ended, func(err error) bool { return errors.Is(err, oauth.ErrIssuerMismatch) }},
		"iss wrong":                  {set("iss", "https://other.example"), ended, func(err error) bool { return errors.Is(err, oauth.ErrIssuerMismatch) }},
		"iss with a slash":           {set("iss", ours+"/"), ended, func(err error) bool { return errors.Is(err, oauth.ErrIssuerMismatch) }},
		"iss duplicated":             {set("iss", ours, ours), ignored, nil},
		"an error":                   {func(q url.Values) { q.Del("code"); q.Set("error", "access_denied") }, ended, isRefused("access_denied")},
		"an error beside a code":     {set("error", "server_error"), ended, isRefused("server_error")},
		"an error of another issuer": {func(q url.Values) { q.Set("error", "access_denied"); q.Set("iss", "https://other.example") }, ended, func(err error) bool {
			return errors.Is(err, oauth.ErrIssuerMismatch) && !isRefused("access_denied")(err)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			srv := newFakeServer(rotate)
			c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Provider.Issuer, cfg.Provider.RequireIss = ours, true })
			_, err := c.Login(t.Context(), oauth.LoginOptions{OpenURL: browser(t, func(cb *url.URL) {
				right := with(cb, set("iss", ours))
				status, _ := get(t, with(right, tt.change))
				if (status != http.StatusOK) != (tt.want == ignored) {
					t.Errorf("status %d", status)
				}
				if tt.want == ignored {
					if srv.count() != 0 {
						t.Error("a code was exchanged")
					}
					get(t, right)
				}
			})})
			if tt.want == ended {
				if !tt.as(err) || srv.count() != 0 {
					t.Errorf("%v after %d requests", err, srv.count())
				}
				wantStored(t, c, "rt-0")
				return
			}
			if err != nil || srv.count() != 1 || !slices.Equal(srv.request(0).form["code"], []string{"the-code"}) {
				t.Errorf("%v after %d requests", err, srv.count())
			}
		})
	}
}

func isRefused(code string) func(error) bool {
	return func(err error) bool {
		var refused *oauth.AuthorizationError
		return errors.As(err, &refused) && refused.Code == code
	}
}

func swapCase(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z':
			return r - 'a' + 'A'
		case 'A' <= r && r <= 'Z':
			return r - 'A' + 'a'
		}
		return r
	}, s)
}

// TestTokenResponses has what the token endpoint says, and how the token is then used.
func TestTokenResponses(t *testing.T) {
	const rest = `"refresh_token":"rt-1"`
	for name, tt := range map[string]struct {
		body   string
		scheme string // at a resource; "" if the login fails
		life   bool   // the session knows when the token expires
		scopes string
	}{
		"happy path":             {`{"access_token":"at","token_type":"DPoP","expires_in":3600,"scope":"openid email",` + rest + `}`, "DPoP", true, "openid email"},
		"token_type dpop":        {`{"access_token":"at","token_type":"dpop","expires_in":3600,` + rest + `}`, "DPoP", true, "openid"},
		"token_type DPOP":        {`{"access_token":"at","token_type":"DPOP","expires_in":3600,` + rest + `}`, "DPoP", true, "openid"},
		"token_type bearer":      {`{"access_token":"at","token_type":"bearer","expires_in":3600,` + rest + `}`, "Bearer", true, "openid"},
		"token_type bEaReR":      {`{"access_token":"at","token_type":"bEaReR","expires_in":3600,` + rest + `}`, "Bearer", true, "openid"},
		"token_type unknown":     {`{"access_token":"at","token_type":"mac","expires_in":3600,` + rest + `}`, "", false, ""},
		"no expires_in":          {`{"access_token":"at","token_type":"DPoP","scope":"openid",` + rest + `}`, "DPoP", false, "openid"},
		"no scope":               {`{"access_token":"at","token_type":"DPoP","expires_in":3600,` + rest + `}`, "DPoP", true, "openid"},
		"empty scope":            {`{"access_token":"at","token_type":"DPoP","expires_in":3600,"scope":"",` + rest + `}`, "DPoP", true, "openid"},
		"unrecognized members":   {`{"access_token":"at","token_type":"DPoP","expires_in":3600,"x":{"access_token":"no"},` + rest + `}`, "DPoP", true, "openid"},
		"members that are null":  {`{"access_token":"at","token_type":"DPoP","expires_in":null,"scope":null,"id_token":null,` + rest + `}`, "DPoP", false, "openid"},
		"an id_token of no use":  {`{"access_token":"at","token_type":"DPoP","expires_in":3600,"id_token":"x",` + rest + `}`, "DPoP", true, "openid"},
		"no access_token":        {`{"token_type":"DPoP","expires_in":3600}`, "", false, ""},
		"an empty access_token":  {`{"access_token":"","token_type":"DPoP"}`, "", false, ""},
		"an access_token object": {`{"access_token":{},"token_type":"DPoP"}`, "", false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) { return answer(200, tt.body), nil })
			var scheme, proof string
			challenged := false
			resource := func(r *http.Request) (*http.Response, error) {
				if r.URL.Host != "api.example" {
					return srv.RoundTrip(r)
				}
				scheme, proof = r.Header.Get("Authorization"), r.Header.Get("DPoP")
				if scheme == "DPoP at" && !challenged {
					challenged = true
					// The scheme of a challenge is case-insensitive as well (RFC 9110 §11.1).
					return answer(401, "", "WWW-Authenticate", `dpop ERROR="use_dpop_nonce"`, "DPoP-Nonce", "n"), nil
				}
				return answer(200, ""), nil
			}
			c, _ := openClient(t, srv, func(cfg *oauth.Config) {
				cfg.DPoP, cfg.Scopes, cfg.HTTPClient = newProver(t), []string{"openid"}, &http.Client{Transport: roundTripper(resource)}
			})
			s, err := c.Login(t.Context(), oauth.LoginOptions{OpenURL: browserThatFollows(t)})
			if tt.scheme == "" {
				if err == nil && s.AccessToken != "" {
					t.Errorf("%+v was accepted", s)
				}
				return
			}
			if err != nil || s.RefreshToken != "rt-1" || !s.Expiry.IsZero() != tt.life || strings.Join(s.Scopes, " ") != tt.scopes {
				t.Fatalf("%+v, %v", s, err)
			}
			resp, err := c.HTTPClient().Get("https://api.example/")
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if scheme != tt.scheme+" at" || (proof != "") != (tt.scheme == "DPoP") || resp.StatusCode != 200 {
				t.Errorf("Authorization: %s, proof %q, status %d", scheme, proof, resp.StatusCode)
			}
		})
	}
}
