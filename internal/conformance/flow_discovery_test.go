package conformance

import (
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ycauth/ycauth-go/oauth"
)

// A client that knows no more of the server than its issuer.

// discovered changes a Config to what the server's metadata say.
func (f *flow) discovered(t *testing.T) func(*oauth.Config) {
	t.Helper()
	p, err := oauth.Discover(bounded(t), f.Issuer, plain)
	if err != nil {
		t.Fatal(err)
	}
	return func(c *oauth.Config) {
		p := p
		p.AuthMethod, p.AuthParams = c.Provider.AuthMethod, c.Provider.AuthParams
		c.Provider, c.Scopes = p, nil
	}
}

// withKey sets the key of a client with private_key_jwt.
func withKey(t *testing.T, client registration) func(*oauth.Config) {
	t.Helper()
	signer, ok := client.Key.Key.(crypto.Signer)
	if !ok {
		t.Fatalf("the key of %s is a %T", client.ID, client.Key.Key)
	}
	key, err := oauth.NewClientKey(signer, client.Key.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	return func(c *oauth.Config) { c.ClientKey = key }
}

func requirePAR(c *oauth.Config) { c.Provider.RequirePAR = true }

func TestFlowDiscover(t *testing.T) {
	t.Parallel()
	f := newFlow(t)
	p, err := oauth.Discover(bounded(t), f.Issuer, plain)
	if err != nil {
		t.Fatal(err)
	}
	if p.Name != f.Issuer || p.Issuer != f.Issuer || !p.RequireIss || p.RequirePAR || p.ThumbprintHash != crypto.SHA256 ||
		p.AuthURL != f.Endpoints.Authorization || p.TokenURL != f.Endpoints.Token || p.RevocationURL != f.Endpoints.Revocation ||
		p.PushedAuthURL != f.Endpoints.PAR || p.DeviceAuthURL != f.Endpoints.Device ||
		!slices.Equal(p.Scopes, []string{"openid", "offline_access"}) || p.OfflineScope != "offline_access" || !slices.Contains(p.AuthSigningAlgs, "ES256") {
		t.Errorf("%+v", p)
	}
	for _, other := range []string{f.Issuer + "/", strings.Replace(f.Issuer, "127.0.0.1", "localhost", 1)} {
		if _, err := oauth.Discover(bounded(t), other, plain); !errors.Is(err, oauth.ErrIssuerMismatch) {
			t.Errorf("%s: %v", other, err)
		}
	}
}

// TestFlowDiscovered goes from the metadata to the login, to renewals and to the logout.
func TestFlowDiscovered(t *testing.T) {
	t.Parallel()
	f := newFlow(t)
	const resource = "https://api.example/v1"
	for _, tt := range []struct {
		name   string
		client registration
		change []func(*oauth.Config)
		login  []string
	}{
		{"public client", f.Clients.Native, nil, []string{firstTokenChallenge, "token 200"}},
		{"client_secret_basic", f.Clients.Basic, nil, []string{firstTokenChallenge, "token 200"}},
		{"PAR", f.Clients.Pushing, []func(*oauth.Config){requirePAR}, []string{firstPARChallenge, "par 201", "token 200"}},
		{"PAR with a secret", f.Clients.Post, []func(*oauth.Config){requirePAR}, []string{firstPARChallenge, "par 201", "token 200"}},
		{"private_key_jwt", f.Clients.JWT, []func(*oauth.Config){withKey(t, f.Clients.JWT)}, []string{firstTokenChallenge, "token 200"}},
		{"private_key_jwt and PAR", f.Clients.JWT, []func(*oauth.Config){withKey(t, f.Clients.JWT), requirePAR}, []string{firstPARChallenge, "par 201", "token 200"}},
		{"resource", f.Clients.Native, []func(*oauth.Config){forResource(resource)}, []string{firstTokenChallenge, "token 200"}},
		{"resource and PAR", f.Clients.Pushing, []func(*oauth.Config){forResource(resource), requirePAR}, []string{firstPARChallenge, "par 201", "token 200"}},
		{"fixed redirect", f.Clients.Native, []func(*oauth.Config){func(c *oauth.Config) { c.RedirectURL = "http://127.0.0.1/auth/callback" }}, []string{firstTokenChallenge, "token 200"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := f.newApp(t, tt.client, key256(t), append([]func(*oauth.Config){f.discovered(t)}, tt.change...)...)
			var session oauth.Session
			log := f.receives(t, func() { session = a.login(t) }, tt.login...)
			if session.RefreshToken == "" || session.KeyThumbprint == "" {
				t.Fatalf("session %+v", session)
			}
			if a.cfg.Provider.RequirePAR {
				if asked := f.requests(log, "authorization"); len(asked) != 1 || !slices.Equal(asked[0].Params, []string{"client_id", "request_uri"}) {
					t.Errorf("authorization requests %+v", asked)
				}
			}
			if a.cfg.ClientKey != nil {
				f.checkAssertions(t, log)
			}
			wantAudience(t, session.AccessToken, a.cfg.Resources)
			a.renews(t)
			wantAudience(t, a.stored(t).AccessToken, a.cfg.Resources)
			a.endsByLogout(t)
		})
	}
	t.Run("a client that must push and does not", func(t *testing.T) {
		a := f.newApp(t, f.Clients.Pushing, key256(t), f.discovered(t))
		f.receives(t, func() {
			_, err := a.tryLogin(t)
			var refused *oauth.AuthorizationError
			if !errors.As(err, &refused) || refused.Code != "invalid_request" {
				t.Errorf("error %v", err)
			}
		})
	})
	t.Run("an assertion of another key", func(t *testing.T) {
		other := f.Clients.JWT
		jwk := *other.Key
		jwk.Key = key256(t)
		other.Key = &jwk
		a := f.newApp(t, other, key256(t), f.discovered(t), withKey(t, other))
		f.receives(t, func() {
			_, err := a.tryLogin(t)
			wantRefusal(t, err, "invalid_client")
		}, "token 401 invalid_client: signature verification failed")
	})
	t.Run("a resource that the server does not know", func(t *testing.T) {
		a := f.newApp(t, f.Clients.Native, key256(t), f.discovered(t), requirePAR, forResource("https://api.example/v2"))
		f.receives(t, func() {
			_, err := a.tryLogin(t)
			wantRefusal(t, err, "invalid_target")
		}, "par 400 invalid_target: resource indicator is missing, or unknown")
	})
	f.audit(t)
}

const firstPARChallenge = "par 400 use_dpop_nonce: nonce is required in the DPoP proof"

// forResource asks for access to a resource (RFC 8707).
func forResource(resource string) func(*oauth.Config) {
	return func(c *oauth.Config) {
		c.Resources, c.Scopes = []string{resource}, []string{"openid", "offline_access", "api:read"}
	}
}

// wantAudience wants the token to be for the resource, if there is one.
func wantAudience(t *testing.T, token oauth.Secret, resources []string) {
	t.Helper()
	if len(resources) == 0 {
		return
	}
	parts := strings.Split(token.Reveal(), ".")
	if len(parts) != 3 {
		t.Fatal("the token is not a JWT")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims struct{ Aud, Scope string }
	if err := json.Unmarshal(payload, &claims); err != nil || claims.Aud != resources[0] || claims.Scope != "api:read" {
		t.Errorf("the token is for %+v: %v", claims, err)
	}
}

// checkAssertions looks at the parameters of requests with private_key_jwt.
func (f *flow) checkAssertions(t *testing.T, log []exchange) {
	t.Helper()
	for _, e := range log {
		if e.UserAgent != product {
			continue
		}
		if !slices.Contains(e.Params, "client_assertion") || !slices.Contains(e.Params, "client_assertion_type") || slices.Contains(e.Params, "client_secret") || e.Scheme != "" {
			t.Errorf("%s has the parameters %v and the scheme %q", f.endpoint(e.Path), e.Params, e.Scheme)
		}
	}
}

// endsByLogout revokes the session at the server that the metadata name.
func (a *app) endsByLogout(t *testing.T) {
	t.Helper()
	token := a.stored(t).RefreshToken
	log := a.flow.receives(t, func() {
		if err := a.Logout(bounded(t)); err != nil {
			t.Fatal(err)
		}
	}, "revocation 200")
	if a.cfg.ClientKey != nil {
		a.flow.checkAssertions(t, log)
	}
	a.adopt(t, token)
	a.flow.receives(t, func() { wantReason(t, a.noToken(t), oauth.ReasonRejected) }, goneToken)
}

func TestFlowDevice(t *testing.T) {
	t.Parallel()
	f := newFlow(t)
	const resource = "https://api.example/v1"
	f.newApp(t, f.Clients.Native, key256(t)).login(t) // a login in a browser, which leaves no trace in the others
	const isPending = "token 400 authorization_pending: authorization request is still pending as the end-user hasn't yet completed the user interaction steps"
	for _, tt := range []struct {
		name   string
		client registration
		change []func(*oauth.Config)
		deny   bool
		login  []string
	}{
		{"public client", f.Clients.Native, nil, false, []string{"device 200", firstTokenChallenge, isPending, "token 200"}},
		{"private_key_jwt and resource", f.Clients.JWT, []func(*oauth.Config){withKey(t, f.Clients.JWT), forResource(resource)}, false, []string{"device 200", firstTokenChallenge, isPending, "token 200"}},
		{"denied", f.Clients.Native, nil, true, []string{"device 200", firstTokenChallenge, isPending, "token 400 access_denied: the user said no"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asked := make(chan struct{}, 10)
			a := f.newApp(t, tt.client, key256(t), append([]func(*oauth.Config){f.discovered(t)}, tt.change...)...)
			// The user approves while the client polls.
			client, err := oauth.New(with(a.cfg, func(c *oauth.Config) {
				c.HTTPClient = interceptor(func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
					resp, err := next.RoundTrip(req)
					asked <- struct{}{}
					return resp, err
				}).into(c.HTTPClient)
			}))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := client.TokenSource().Close(); err != nil {
					t.Error(err)
				}
			})
			a.Client = client
			f.setDeny(t, tt.deny)
			defer f.setDeny(t, false)
			var session oauth.Session
			log := f.receives(t, func() {
				approved := make(chan error, 1)
				ctx := bounded(t)
				session, err = a.Login(ctx, oauth.LoginOptions{Device: true, ShowCode: func(_ context.Context, code oauth.DeviceCode) error {
					go func() {
						for range 3 { // the code, and the first poll with and without a nonce
							<-asked
						}
						approved <- f.approve(ctx, newBrowser(t), code)
					}()
					return nil
				}})
				if problem := <-approved; problem != nil {
					t.Error(problem)
				}
			}, tt.login...)
			f.tap.hear("session", session)
			f.tap.hear("error", err)
			if tt.deny {
				var refused *oauth.AuthorizationError
				if !errors.As(err, &refused) || refused.Code != "access_denied" {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil || session.RefreshToken == "" || session.KeyThumbprint == "" {
				t.Fatalf("session %+v, %v", session, err)
			}
			if a.cfg.ClientKey != nil {
				f.checkAssertions(t, log)
			}
			wantAudience(t, session.AccessToken, a.cfg.Resources)
			a.renews(t)
			wantAudience(t, a.stored(t).AccessToken, a.cfg.Resources)
			a.endsByLogout(t)
		})
	}
	f.audit(t)
}

func with(c oauth.Config, change func(*oauth.Config)) oauth.Config {
	change(&c)
	return c
}

var formInput = regexp.MustCompile(`name="(xsrf|user_code)" value="([^"]+)"`)

// approve is a user who opens the complete verification URI on another device, and
// confirms the code.
func (f *flow) approve(ctx context.Context, browser *http.Client, code oauth.DeviceCode) error {
	var form url.Values
	for _, step := range []string{"open", "enter the code", "confirm"} {
		method, target, body := http.MethodGet, code.VerificationURIComplete, io.Reader(nil)
		if step != "open" {
			method, target, body = http.MethodPost, code.VerificationURI, strings.NewReader(form.Encode())
		}
		req, err := http.NewRequestWithContext(ctx, method, target, body)
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := browser.Do(req)
		if err != nil {
			return err
		}
		content, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return err
		}
		page := string(content)
		f.tap.hear("page", page)
		form = url.Values{}
		for _, m := range formInput.FindAllStringSubmatch(page, -1) {
			form.Set(m[1], m[2])
		}
		if step == "enter the code" {
			form.Set("confirm", "yes")
		}
		if step != "confirm" && (resp.StatusCode != http.StatusOK || form.Get("user_code") == "" || form.Get("xsrf") == "") {
			return fmt.Errorf("%s: %d %s", step, resp.StatusCode, page)
		}
	}
	return nil
}
