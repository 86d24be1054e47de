package conformance

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/ycauth/ycauth-go/oauth"
)

// How a session ends, and how it does not.

func TestFlowReuse(t *testing.T) {
	t.Parallel()
	f := newFlow(t)
	signer := key256(t)
	owner, other := f.newApp(t, f.Clients.Native, signer), f.newApp(t, f.Clients.Native, signer)
	first := owner.login(t)
	owner.renews(t)
	newest := owner.stored(t)

	t.Run("a refresh token that was replaced is rejected", func(t *testing.T) {
		other.adopt(t, first.RefreshToken)
		session := other.stored(t)
		f.receives(t, func() { wantReason(t, other.noToken(t), oauth.ReasonRejected) }, firstTokenChallenge, reusedToken)
		other.keeps(t, session)
	})

	t.Run("and the server has ended the session of the newest one too", func(t *testing.T) {
		f.advance(t, tokenLife)
		f.receives(t, func() { wantReason(t, owner.noToken(t), oauth.ReasonRejected) }, goneToken)
		owner.keeps(t, newest)
	})

	t.Run("what was rejected is not sent again", func(t *testing.T) {
		for range 3 {
			f.advance(t, time.Hour)
			f.receives(t, func() { wantReason(t, owner.noToken(t), oauth.ReasonRejected) })
		}
		owner.keeps(t, newest)
	})

	t.Run("a login heals", func(t *testing.T) {
		f.receives(t, func() { owner.login(t) }, nextTokenChallenge, "token 200") // the nonce is hours old
		owner.renews(t)
	})

	f.audit(t)
}

func TestFlowWrongKey(t *testing.T) {
	t.Parallel()
	f := newFlow(t)

	t.Run("a stored session of another key makes no request", func(t *testing.T) {
		store := oauth.NewMemoryStore()
		shared := func(c *oauth.Config) { c.Store = store }
		a, b := f.newApp(t, f.Clients.Native, key256(t), shared), f.newApp(t, f.Clients.Native, key256(t), shared)
		session := a.login(t)
		f.receives(t, func() { wantReason(t, b.noToken(t), oauth.ReasonWrongKey) })
		f.advance(t, tokenLife)
		f.receives(t, func() { wantReason(t, b.noToken(t), oauth.ReasonWrongKey) })
		b.keeps(t, session)
		f.receives(t, func() { a.token(t) }, "token 200")
	})

	t.Run("an imported token of another key is rejected, and stays good for its own", func(t *testing.T) {
		a, b := f.newApp(t, f.Clients.Native, key256(t)), f.newApp(t, f.Clients.Native, key256(t))
		a.login(t)
		b.adopt(t, a.stored(t).RefreshToken)
		f.receives(t, func() { wantReason(t, b.noToken(t), oauth.ReasonRejected) }, firstTokenChallenge, othersToken)
		a.renews(t)
	})

	t.Run("an imported token of the same key is renewed", func(t *testing.T) {
		signer := key256(t)
		a, b := f.newApp(t, f.Clients.Native, signer), f.newApp(t, f.Clients.Native, signer)
		b.adopt(t, a.login(t).RefreshToken)
		f.receives(t, func() { b.token(t) }, firstTokenChallenge, "token 200")
		b.renews(t)
	})

	f.audit(t)
}

func TestFlowLogout(t *testing.T) {
	t.Parallel()
	f := newFlow(t)

	for _, client := range f.registrations() {
		t.Run(client.String()+", the refresh token is dead afterwards", func(t *testing.T) {
			signer := key256(t)
			a := f.newApp(t, client, signer, f.revokes(client))
			session := a.login(t)
			keeper := a.transport(oauth2.StaticTokenSource(a.token(t))) // somebody who goes on using the access token
			a.get(t, keeper, http.StatusOK)

			f.receives(t, func() {
				if err := a.Logout(bounded(t)); err != nil {
					t.Fatal(err)
				}
			}, "revocation 200")
			f.receives(t, func() { wantReason(t, a.noToken(t), oauth.ReasonNoSession) })
			if _, err := a.Session(t.Context()); !errors.Is(err, oauth.ErrNoSession) {
				t.Errorf("session after the logout: %v", err)
			}

			other := f.newApp(t, client, signer)
			other.adopt(t, session.RefreshToken)
			f.receives(t, func() { wantReason(t, other.noToken(t), oauth.ReasonRejected) }, firstTokenChallenge, goneToken)
			a.get(t, keeper, http.StatusUnauthorized)
		})
	}

	t.Run("a refused revocation forgets nothing", func(t *testing.T) {
		wrong := f.Clients.Basic
		wrong.Secret += "x"
		a := f.newApp(t, f.Clients.Basic, key256(t), f.revokes(wrong))
		session := a.login(t)
		f.receives(t, func() {
			err := a.Logout(bounded(t))
			f.tap.hear("error", err)
			if !errors.Is(err, errNotRevoked) {
				t.Fatalf("error %v", err)
			}
		}, "revocation 401 invalid_client: invalid secret provided")
		a.keeps(t, session)
		a.renews(t)
	})

	f.audit(t)
}

var errNotRevoked = errors.New("the token was not revoked")

// revokes sets a Config.Revoke that follows RFC 7009 §2.1.
func (f *flow) revokes(client registration) func(*oauth.Config) {
	return func(c *oauth.Config) {
		hc := c.HTTPClient
		c.Revoke = func(ctx context.Context, s oauth.Session) error {
			form := url.Values{"token": {s.RefreshToken.Reveal()}, "token_type_hint": {"refresh_token"}}
			req, err := formRequest(ctx, f.Endpoints.Revocation, client, form)
			if err != nil {
				return err
			}
			req.Header.Set("User-Agent", product)
			resp, err := hc.Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return fmt.Errorf("%w: %s", errNotRevoked, resp.Status)
			}
			return nil
		}
	}
}
