package conformance

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
)

func TestFlowRenewal(t *testing.T) {
	t.Parallel()
	f := newFlow(t)
	const renewals = 10 // more than twice as long as any nonce is good

	for _, client := range f.registrations() {
		t.Run(client.String()+", ten renewals are ten requests", func(t *testing.T) {
			a := f.newApp(t, client, key256(t))
			before := a.login(t)
			newNonces := 0
			for n := range renewals {
				f.advance(t, tokenLife)
				log := f.receives(t, func() {
					if tok := a.token(t); tok.AccessToken == before.AccessToken.Reveal() || !tok.Expiry.Equal(f.clock.now().Add(tokenLife)) {
						t.Errorf("renewal %d: token until %v, it is %v", n, tok.Expiry, f.clock.now())
					}
				}, "token 200")
				if e := log[0]; e.Client != client.ID || e.GrantType != "refresh_token" || !e.Proof.Nonce {
					t.Errorf("renewal %d: %+v", n, e)
				} else if e.NewNonce {
					newNonces++
				}
				after := a.stored(t)
				if after.RefreshToken == "" || after.RefreshToken == before.RefreshToken || after.Generation != before.Generation+1 {
					t.Errorf("renewal %d: the rotation was not saved: %+v", n, after)
				}
				if after.AccessToken.Reveal() != a.token(t).AccessToken || !after.Created.Equal(before.Created) {
					t.Errorf("renewal %d: stored %+v", n, after)
				}
				before = after
			}
			if newNonces != renewals {
				t.Errorf("the nonce changed with %d of %d renewals", newNonces, renewals)
			}
		})
	}

	t.Run("a nonce that has changed costs a request only once it is refused", func(t *testing.T) {
		a := f.newApp(t, f.Clients.Native, key256(t))
		a.login(t)
		for _, c := range []struct {
			idle, rest time.Duration // the rest makes it a whole minute
			want       []string
		}{
			{3*time.Minute + 59*time.Second, time.Second, []string{"token 200"}},
			{time.Minute, 0, []string{"token 200"}},
			{4 * time.Minute, 0, []string{nextTokenChallenge, "token 200"}},
			{time.Minute, 0, []string{"token 200"}},
			{time.Hour, 0, []string{nextTokenChallenge, "token 200"}},
		} {
			f.advance(t, c.idle)
			f.receives(t, func() { a.token(t) }, c.want...)
			f.advance(t, c.rest)
		}
	})

	t.Run("a stale token is served while it is renewed", func(t *testing.T) {
		renewed := make(chan struct{}, 1)
		a := f.newApp(t, f.Clients.Native, key256(t), func(c *oauth.Config) {
			observer := c.Observer
			c.Observer = func(e oauth.Event) {
				observer(e)
				if e.Kind == oauth.EventRenewed {
					renewed <- struct{}{}
				}
			}
		})
		a.login(t)
		old := a.token(t)
		f.advance(t, tokenLife*52/60) // a sixth of its life and some jitter are left at 49
		f.receives(t, func() {
			if a.token(t) != old {
				t.Error("the stale token was not served")
			}
			select {
			case <-renewed:
			case <-bounded(t).Done():
				t.Fatal("no renewal")
			}
			if a.token(t) == old {
				t.Error("the stale token is still served")
			}
		}, "token 200")
	})

	t.Run("a program that starts anew goes on", func(t *testing.T) {
		signer, store := key256(t), oauth.NewMemoryStore()
		shared := func(c *oauth.Config) { c.Store = store }
		a := f.newApp(t, f.Clients.Native, signer, shared)
		a.login(t)
		b := f.newApp(t, f.Clients.Native, signer, shared)
		f.receives(t, func() { b.token(t) })
		f.advance(t, tokenLife)
		f.receives(t, func() { b.token(t) }, firstTokenChallenge, "token 200")
		f.receives(t, func() { a.token(t) })
		a.renews(t)
		b.renews(t)
	})

	f.audit(t)
}

func TestFlowNoncesNotRequired(t *testing.T) {
	t.Parallel()
	f := newFlow(t)
	f.setRequireNonce(t, false)
	a := f.newApp(t, f.Clients.Native, key256(t))

	log := f.receives(t, func() { a.login(t) }, "token 200")
	if e := f.requests(log, "token")[0]; e.Proof.Nonce || !e.NewNonce {
		t.Errorf("%+v, want no nonce in the proof and one in the answer", e)
	}
	f.advance(t, tokenLife)
	log = f.receives(t, func() { a.token(t) }, "token 200")
	if !log[0].Proof.Nonce {
		t.Error("the nonce that was offered was not used")
	}
	f.audit(t)
}

// A proof is judged by the server's clock. Ours may be wrong: the first answer
// tells by how much.
func TestFlowWrongClock(t *testing.T) {
	t.Parallel()
	f := newFlow(t)
	for name, off := range map[string]time.Duration{"behind": -10 * time.Minute, "ahead": 10 * time.Minute} {
		t.Run("ten minutes "+name, func(t *testing.T) {
			a := f.newApp(t, f.Clients.Native, key256(t), func(c *oauth.Config) {
				c.Clock = func() time.Time { return f.clock.now().Add(off) }
			})
			log := f.receives(t, func() { a.login(t) },
				"token 400 use_dpop_nonce: DPoP proof iat is not recent enough, use a DPoP nonce instead", "token 200")
			requests := f.requests(log, "token")
			if got := requests[0].Proof.Problem; got != "iat is missing or not recent" {
				t.Errorf("first proof: %q", got)
			}
			for range 3 {
				f.advance(t, tokenLife)
				requests = append(requests, f.receives(t, func() { a.token(t) }, "token 200")...)
			}
			for i, e := range requests[1:] {
				if !e.Proof.Verified {
					t.Errorf("proof %d: %s", i+1, e.Proof.Problem)
				}
			}
		})
	}
	t.Run("no credential was told to errors, events, log lines or pages", f.tap.audit)
}

// An answer that is lost takes the rotated token with it, and repeating the
// request looks like theft to a server that detects reuse.
func TestFlowLostAnswer(t *testing.T) {
	t.Parallel()
	f := newFlow(t)
	lose := false
	a := f.newApp(t, f.Clients.Native, key256(t), func(c *oauth.Config) {
		c.HTTPClient = interceptor(func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
			resp, err := next.RoundTrip(req)
			if lose && err == nil && resp.StatusCode == http.StatusOK {
				lose = false
				resp.Body.Close()
				return nil, errors.New("the line went dead")
			}
			return resp, err
		}).into(c.HTTPClient)
	})
	session := a.login(t)
	f.advance(t, tokenLife)
	lose = true
	f.receives(t, func() { wantReason(t, a.noToken(t), oauth.ReasonOutcomeUnknown) }, "token 200", reusedToken)
	a.keeps(t, session)
	a.login(t)
	a.renews(t)
	f.audit(t)
}
