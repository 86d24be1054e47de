package conformance

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
)

// The life of a session at atproto's authorization server. It differs from oidc-provider: it
// requires pushed authorization requests of everybody, sends a nonce with every response,
// wants proofs for revocation too, and nobody's scope asks for a refresh token.

const (
	atprotoFirstPAR      = "par 400 use_dpop_nonce: Authorization server requires nonce in DPoP proof"
	atprotoNextToken     = `token 400 use_dpop_nonce: DPoP "nonce" mismatch`
	atprotoFirstResource = "userinfo 401 use_dpop_nonce: Authorization server requires nonce in DPoP proof"
	atprotoNextResource  = `userinfo 401 use_dpop_nonce: DPoP "nonce" mismatch`
	atprotoReused        = "token 400 invalid_grant: Refresh token replayed"
	atprotoGone          = "token 400 invalid_grant: Invalid refresh token"
)

func TestFlowAtproto(t *testing.T) {
	t.Parallel()
	f := newFlowAt(t, startServer(t, "atproto.mjs"))
	consent := "consent"
	f.browse = func(ctx context.Context, _ *http.Client, target string) error {
		return f.decide(ctx, target, consent)
	}
	discovered := f.discovered(t)
	newApp := func(t *testing.T) *app {
		t.Helper()
		return f.newApp(t, f.Clients.Native, key256(t), discovered, func(c *oauth.Config) {
			c.Provider.AuthParams, c.Scopes = nil, []string{"atproto", "transition:generic"}
		})
	}

	t.Run("from the metadata to the logout", func(t *testing.T) {
		a := newApp(t)
		if p := a.cfg.Provider; !p.RequirePAR || !p.RequireIss || p.ThumbprintHash != crypto.SHA256 || p.PushedAuthURL != f.Endpoints.PAR || p.RevocationURL != f.Endpoints.Revocation {
			t.Errorf("%+v", p)
		}
		var session oauth.Session
		log := f.receives(t, func() { session = a.login(t) }, atprotoFirstPAR, "par 201", "token 200")
		if session.RefreshToken == "" || session.KeyThumbprint == "" || session.TokenType != "DPoP" || session.Warning != "" {
			t.Fatalf("session %+v", session)
		}
		for _, e := range log {
			if e.UserAgent == product && !e.NewNonce {
				t.Errorf("no nonce came from %s", f.endpoint(e.Path))
			}
		}
		hc := a.resource()
		f.receives(t, func() { a.get(t, hc, http.StatusOK) }, atprotoFirstResource, "userinfo 200")
		for range 5 { // longer than any nonce is good
			before := a.stored(t).RefreshToken
			f.advance(t, tokenLife)
			f.receives(t, func() { a.get(t, hc, http.StatusOK) }, "token 200", "userinfo 200")
			if a.stored(t).RefreshToken == before {
				t.Error("the refresh token was not replaced")
			}
		}
		f.advance(t, 10*time.Minute)
		f.receives(t, func() { a.get(t, hc, http.StatusOK) }, atprotoNextToken, "token 200", atprotoNextResource, "userinfo 200")
		token := a.stored(t).RefreshToken
		f.receives(t, func() {
			if err := a.Logout(bounded(t)); err != nil {
				t.Fatal(err)
			}
		}, "revocation 200")
		a.adopt(t, token)
		f.receives(t, func() { wantReason(t, a.noToken(t), oauth.ReasonRejected) }, atprotoGone)
	})

	t.Run("a revocation with an old nonce", func(t *testing.T) {
		a := newApp(t)
		token := a.login(t).RefreshToken
		f.advance(t, 10*time.Minute)
		f.receives(t, func() {
			if err := a.Logout(bounded(t)); err != nil {
				t.Fatal(err)
			}
		}, `revocation 400 use_dpop_nonce: DPoP "nonce" mismatch`, "revocation 200")
		a.adopt(t, token)
		f.receives(t, func() { wantReason(t, a.noToken(t), oauth.ReasonRejected) }, atprotoGone)
	})

	t.Run("a refresh token that was used before ends the session", func(t *testing.T) {
		a := newApp(t)
		old := a.login(t).RefreshToken
		a.renews(t)
		newest := a.stored(t).RefreshToken
		a.adopt(t, old)
		f.receives(t, func() { wantReason(t, a.noToken(t), oauth.ReasonRejected) }, atprotoReused)
		a.adopt(t, newest)
		f.receives(t, func() { wantReason(t, a.noToken(t), oauth.ReasonRejected) }, atprotoGone)
	})

	t.Run("a user who rejects", func(t *testing.T) {
		consent = "reject"
		defer func() { consent = "consent" }()
		a := newApp(t)
		f.receives(t, func() {
			_, err := a.tryLogin(t)
			var refused *oauth.AuthorizationError
			if !errors.As(err, &refused) || refused.Code != "access_denied" {
				t.Errorf("error %v", err)
			}
		}, atprotoFirstPAR, "par 201")
	})

	f.audit(t)
}

// An atprotoPage is the script of the server's authorization page, in a browser that says
// where its requests come from.
type atprotoPage struct {
	url, origin string
	cookies     map[string]string
}

// decide opens the authorization page, signs the user in there and decides: "consent" or
// "reject".
func (f *flow) decide(ctx context.Context, target, decision string) error {
	p := &atprotoPage{url: target, origin: f.Issuer, cookies: make(map[string]string)}
	if _, _, err := p.open(ctx, target, "none"); err != nil {
		return err
	}
	var signedIn struct{ EphemeralToken string }
	err := p.call(ctx, "sign-in", "", map[string]string{"locale": "en", "username": f.User.Name, "password": f.User.Password}, &signedIn)
	if err != nil {
		return err
	}
	input := map[string]string{}
	if decision == "consent" {
		input["did"] = f.User.DID
	}
	var decided struct{ URL string }
	if err := p.call(ctx, decision, signedIn.EphemeralToken, input, &decided); err != nil {
		return err
	}
	location, _, err := p.open(ctx, decided.URL, "same-origin")
	if err != nil {
		return err
	}
	answer, err := url.Parse(location)
	if err != nil {
		return err
	}
	f.tap.note("code", answer.Query().Get("code"))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, location, nil)
	if err != nil {
		return err
	}
	resp, page, err := exchangeHTTP(plain, req)
	if err != nil {
		return err
	}
	f.tap.hear("page", string(page))
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the browser ended on %s: %s", resp.Status, page)
	}
	return nil
}

// open navigates to a page, and returns where that leads to.
func (p *atprotoPage) open(ctx context.Context, target, site string) (location string, page []byte, _ error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return "", nil, err
	}
	req.Header.Set("Sec-Fetch-Mode", "navigate")
	req.Header.Set("Sec-Fetch-Dest", "document")
	return p.send(req, site)
}

// call calls a function of the server, as the page does.
func (p *atprotoPage) call(ctx context.Context, name, token string, input, output any) error {
	data, err := json.Marshal(input)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.origin+"/@atproto/oauth-provider/~api/"+name, bytes.NewReader(data))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Origin", p.origin)
	req.Header.Set("Sec-Fetch-Mode", "same-origin")
	req.Header.Set("X-Csrf-Token", p.cookies["csrf-token"])
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	_, answer, err := p.send(req, "same-origin")
	if err != nil {
		return err
	}
	return json.Unmarshal(answer, output)
}

// send sends a request with the cookies, which are Secure and so would not be sent to http
// by a jar.
func (p *atprotoPage) send(req *http.Request, site string) (location string, body []byte, _ error) {
	req.Header.Set("Sec-Fetch-Site", site)
	if site == "same-origin" {
		req.Header.Set("Referer", p.url)
	}
	var cookies []string
	for name, value := range p.cookies {
		cookies = append(cookies, name+"="+value)
	}
	req.Header.Set("Cookie", strings.Join(cookies, "; "))
	resp, err := plain.Transport.RoundTrip(req)
	if err != nil {
		return "", nil, err
	}
	defer resp.Body.Close()
	for _, c := range resp.Cookies() {
		p.cookies[c.Name] = c.Value
	}
	if body, err = io.ReadAll(resp.Body); err != nil {
		return "", nil, err
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return "", nil, fmt.Errorf("%s %s: %s %s", req.Method, req.URL.Path, resp.Status, body)
	}
	return resp.Header.Get("Location"), body, nil
}
