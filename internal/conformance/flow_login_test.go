package conformance

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
)

func TestFlowLogin(t *testing.T) {
	t.Parallel()
	f := newFlow(t)

	for _, client := range f.registrations() {
		t.Run(client.String()+", the first login costs one challenge", func(t *testing.T) {
			k := newKey(t)
			a := f.newApp(t, client, k.PrivateKey)
			var session oauth.Session
			log := f.receives(t, func() { session = a.login(t) }, firstTokenChallenge, "token 200")
			f.checkLoginRequests(t, log, client, k.thumbprint(t))

			want := oauth.Session{
				Provider: "oidc-provider", ClientID: client.ID,
				RefreshToken: session.RefreshToken, AccessToken: session.AccessToken, TokenType: "DPoP",
				Created: f.clock.now(), Obtained: f.clock.now(), Expiry: f.clock.now().Add(tokenLife),
				Scopes: []string{"openid", "offline_access"}, KeyThumbprint: k.thumbprint(t), Generation: 1,
				Issued: session.Issued, TokenThumbprint: k.thumbprint(t), TokenOrigin: session.TokenOrigin,
				Identity: oauth.Identity{Subject: "alice"},
			}
			if session.Issued.Sub(f.clock.now()).Abs() > time.Minute || !strings.HasPrefix(a.cfg.Provider.TokenURL, session.TokenOrigin+"/") {
				t.Errorf("issued %v by %s", session.Issued, session.TokenOrigin)
			}
			if session.RefreshToken == "" || session.AccessToken == "" || !reflect.DeepEqual(session, want) {
				t.Errorf("session %+v, want %+v with tokens", session, want)
			}
			a.keeps(t, session)

			f.receives(t, func() {
				if tok := a.token(t); tok.AccessToken != session.AccessToken.Reveal() || tok.Type() != "DPoP" {
					t.Error("the token is not that of the login")
				}
			})
			f.receives(t, func() { a.login(t) }, "token 200")
		})
	}

	t.Run("without prompt=consent the session says that it cannot be renewed", func(t *testing.T) {
		a := f.newApp(t, f.Clients.Native, key256(t), func(c *oauth.Config) { c.Provider.AuthParams = nil })
		session := a.login(t)
		if session.Warning != oauth.WarnNoOfflineScope || session.RefreshToken != "" || session.KeyThumbprint != "" || !slices.Equal(session.Scopes, []string{"openid"}) {
			t.Fatalf("session %+v", session)
		}
		if a.token(t).AccessToken != session.AccessToken.Reveal() {
			t.Error("the access token is not served")
		}
		f.advance(t, tokenLife)
		f.receives(t, func() { wantReason(t, a.noToken(t), oauth.ReasonNoRefreshToken) })
		a.keeps(t, session)
	})

	t.Run("the user denies", func(t *testing.T) {
		a := f.newApp(t, f.Clients.Native, key256(t))
		session := a.login(t)
		f.setDeny(t, true)
		defer f.setDeny(t, false)
		f.receives(t, func() {
			_, err := a.tryLogin(t)
			var denied *oauth.AuthorizationError
			if !errors.As(err, &denied) || denied.Code != "access_denied" || denied.Description != "the user said no" || errors.Is(err, oauth.ErrLoginRequired) {
				t.Fatalf("error %v", err)
			}
		})
		a.keeps(t, session)
		a.renews(t)
	})

	f.audit(t)
}

// checkLoginRequests looks at the requests of a login that were not judged by
// the server's answer.
func (f *flow) checkLoginRequests(t *testing.T, log []exchange, client registration, thumbprint string) {
	t.Helper()
	want := []string{"client_id", "code_challenge", "code_challenge_method", "dpop_jkt", "prompt", "redirect_uri", "response_type", "scope", "state"}
	if asked := f.requests(log, "authorization"); len(asked) != 1 || !slices.Equal(asked[0].Params, want) {
		t.Errorf("authorization requests %+v, want one with %v", asked, want)
	}

	want = []string{"code", "code_verifier", "grant_type", "redirect_uri"}
	scheme := ""
	switch client.Auth {
	case "none":
		want = append(want, "client_id")
	case "client_secret_post":
		want = append(want, "client_id", "client_secret")
	case "client_secret_basic":
		scheme = "Basic"
	}
	slices.Sort(want)
	for i, e := range f.requests(log, "token") {
		if e.Client != client.ID || e.GrantType != "authorization_code" || e.Scheme != scheme || !slices.Equal(e.Params, want) {
			t.Errorf("token request %+v, want parameters %v and scheme %q", e, want, scheme)
		}
		if e.Proof.JKT != thumbprint || e.Proof.Alg != "ES256" || e.Proof.Nonce != (i > 0) {
			t.Errorf("proof %+v of token request %d, key %s", *e.Proof, i, thumbprint)
		}
	}
}

// The key of the proof has to be the one that the authorization request named
// (RFC 9449 §10), by the SHA-256 thumbprint.
func TestFlowThumbprint(t *testing.T) {
	t.Parallel()
	f := newFlow(t)
	for _, c := range []struct {
		name string
		hash crypto.Hash
		sent bool

		answer string
		code   string
	}{
		{"SHA-256 is right", crypto.SHA256, true, "token 200", ""},
		{"SHA-512 is another key to this server", crypto.SHA512, true, "token 400 invalid_grant: DPoP proof key thumbprint does not match dpop_jkt", "invalid_grant"},
		{"without a hash it is not sent", 0, false, "token 200", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := f.newApp(t, f.Clients.Native, key256(t), func(cfg *oauth.Config) { cfg.Provider.ThumbprintHash = c.hash })
			var err error
			log := f.receives(t, func() { _, err = a.tryLogin(t) }, firstTokenChallenge, c.answer)
			if asked := f.requests(log, "authorization"); slices.Contains(asked[0].Params, "dpop_jkt") != c.sent {
				t.Errorf("dpop_jkt was sent: %t", !c.sent)
			}
			if c.code == "" {
				if err != nil {
					t.Fatal(err)
				}
				a.renews(t)
				return
			}
			wantRefusal(t, err, c.code)
			if _, err := a.Session(t.Context()); !errors.Is(err, oauth.ErrNoSession) {
				t.Errorf("session of a login that failed: %v", err)
			}
		})
	}
	f.audit(t)
}

func TestFlowAlgorithms(t *testing.T) {
	t.Parallel()
	f := newFlow(t)
	ec := func(curve elliptic.Curve) crypto.Signer {
		k, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, dpop.MinRSABits)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		alg    jose.SignatureAlgorithm
		signer crypto.Signer
		opts   []dpop.Option
	}{
		{jose.ES256, ec(elliptic.P256()), nil},
		{jose.ES384, ec(elliptic.P384()), nil},
		{jose.ES512, ec(elliptic.P521()), nil},
		{jose.EdDSA, edwards, nil},
		{jose.PS256, rsaKey, nil},
		{jose.RS256, rsaKey, []dpop.Option{dpop.WithAlgorithm(jose.RS256)}},
	} {
		t.Run(string(c.alg), func(t *testing.T) {
			a := f.newApp(t, f.Clients.Native, c.signer, func(cfg *oauth.Config) {
				prover, err := dpop.New(c.signer, c.opts...)
				if err != nil {
					t.Fatal(err)
				}
				cfg.DPoP = prover
			})
			log := f.receives(t, func() {
				a.login(t)
				f.advance(t, tokenLife)
				a.get(t, a.resource(), http.StatusOK)
			}, firstTokenChallenge, "token 200", "token 200", firstUserinfoChallenge, "userinfo 200")
			for _, e := range log {
				if e.Proof != nil && e.Proof.Alg != string(c.alg) {
					t.Errorf("a proof with %s", e.Proof.Alg)
				}
			}
		})
	}
	f.audit(t)
}

// An authorization code is good for one token request (RFC 6749 §4.1.2).
func TestFlowCodeUsedTwice(t *testing.T) {
	t.Parallel()
	f := newFlow(t)

	t.Run("before us: the login fails and the session before it stays", func(t *testing.T) {
		k := newKey(t)
		var spy interceptor
		a := f.newApp(t, f.Clients.Native, k.PrivateKey, func(c *oauth.Config) {
			c.HTTPClient = interceptor(func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
				if spy != nil {
					return spy(req, next)
				}
				return next.RoundTrip(req)
			}).into(c.HTTPClient)
		})
		session := a.login(t)
		spy = func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
			spy = nil
			f.exchange(t, codeOf(f.Clients.Native, req), k, f.nonce(t)).expect(t, http.StatusOK, "")
			return next.RoundTrip(req)
		}
		f.receives(t, func() {
			_, err := a.tryLogin(t)
			wantRefusal(t, err, "invalid_grant")
		}, "token 400 invalid_grant: authorization code already consumed")
		if spy != nil {
			t.Fatal("the code was not intercepted")
		}
		a.keeps(t, session)
		a.renews(t)
	})

	t.Run("after us: the server ends the session", func(t *testing.T) {
		k := newKey(t)
		var c code
		a := f.newApp(t, f.Clients.Native, k.PrivateKey, func(cfg *oauth.Config) {
			cfg.HTTPClient = interceptor(func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
				c = codeOf(f.Clients.Native, req)
				return next.RoundTrip(req)
			}).into(cfg.HTTPClient)
		})
		session := a.login(t)
		f.exchange(t, c, k, f.nonce(t)).expect(t, http.StatusBadRequest, "invalid_grant")
		f.advance(t, tokenLife)
		f.receives(t, func() { wantReason(t, a.noToken(t), oauth.ReasonRejected) }, goneToken)
		a.keeps(t, session)
		a.login(t)
		a.renews(t)
	})

	f.audit(t)
}

// codeOf is the code of a token request, with what somebody who saw the request
// needs to exchange it.
func codeOf(client registration, req *http.Request) code {
	form := formOf(req)
	return code{client: client, redirect: form.Get("redirect_uri"), verifier: form.Get("code_verifier"), value: form.Get("code")}
}
