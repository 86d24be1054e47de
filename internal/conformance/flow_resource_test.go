package conformance

import (
	"bytes"
	"cmp"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
)

// The userinfo endpoint is a resource whose tokens are bound to the key
// (RFC 9449 §7.1).
func TestFlowResource(t *testing.T) {
	t.Parallel()
	f := newFlow(t)

	t.Run("one challenge, then one request each", func(t *testing.T) {
		f.setAccessTokenTTL(t, time.Hour)
		defer f.setAccessTokenTTL(t, tokenLife)
		a := f.newApp(t, f.Clients.Native, key256(t))
		a.login(t)
		hc := a.resource()
		f.receives(t, func() { a.get(t, hc, http.StatusOK) }, firstUserinfoChallenge, "userinfo 200")
		for range 10 { // longer than any nonce is good: the new ones are learnt from successes
			f.advance(t, time.Minute)
			log := f.receives(t, func() { a.get(t, hc, http.StatusOK) }, "userinfo 200")
			if e := log[0]; e.Scheme != "DPoP" || !e.Proof.ATH || !e.Proof.Nonce || !e.NewNonce {
				t.Errorf("%+v %+v", e, *e.Proof)
			}
		}
		f.advance(t, 4*time.Minute)
		f.receives(t, func() { a.get(t, hc, http.StatusOK) }, nextUserinfoChallenge, "userinfo 200")
	})

	t.Run("an expired token is renewed first", func(t *testing.T) {
		a, hc := f.newResource(t)
		f.advance(t, tokenLife)
		f.receives(t, func() { a.get(t, hc, http.StatusOK) }, "token 200", "userinfo 200")
	})

	t.Run("a refused token is renewed and the request repeated", func(t *testing.T) {
		a, hc := f.newResource(t)
		before := a.token(t)
		f.serverAhead(t, tokenLife, func() {
			f.receives(t, func() { a.get(t, hc, http.StatusOK) }, expiredToken, "token 200", "userinfo 200")
		})
		if a.token(t).AccessToken == before.AccessToken {
			t.Error("the refused token is still served")
		}
	})

	t.Run("a refused nonce and a refused token in one request", func(t *testing.T) {
		a, hc := f.newResource(t)
		f.serverAhead(t, 4*time.Minute, func() {
			f.receives(t, func() { a.get(t, hc, http.StatusOK) },
				nextUserinfoChallenge, expiredToken, nextTokenChallenge, "token 200", "userinfo 200")
		})
	})

	t.Run("a body is sent again whole", func(t *testing.T) {
		form := url.Values{"first": {"1"}, "middle": {strings.Repeat("m", 32<<10)}, "second": {"2"}}
		want := []string{"first", "middle", "second"}
		check := func(log []exchange) {
			t.Helper()
			for _, e := range f.requests(log, "userinfo") {
				if e.Method != http.MethodPost || !slices.Equal(e.Params, want) {
					t.Errorf("%s with parameters %v, want %v", e.Method, e.Params, want)
				}
			}
		}
		a := f.newApp(t, f.Clients.Native, key256(t))
		a.login(t)
		hc := a.resource()
		check(f.receives(t, func() { a.post(t, hc, strings.NewReader(form.Encode()), http.StatusOK) }, firstUserinfoChallenge, "userinfo 200"))
		f.serverAhead(t, tokenLife, func() {
			check(f.receives(t, func() { a.post(t, hc, strings.NewReader(form.Encode()), http.StatusOK) },
				expiredToken, "token 200", "userinfo 200"))
		})
	})

	t.Run("a body that cannot be read twice is sent once", func(t *testing.T) {
		a := f.newApp(t, f.Clients.Native, key256(t))
		a.login(t)
		hc := a.resource()
		once := func() io.Reader { return io.MultiReader(strings.NewReader("first=1")) }
		f.receives(t, func() { a.post(t, hc, once(), http.StatusUnauthorized) }, firstUserinfoChallenge)
		f.receives(t, func() { a.post(t, hc, once(), http.StatusOK) }, "userinfo 200") // with the nonce of the challenge
	})

	t.Run("the refusal of a session that has ended comes back", func(t *testing.T) {
		a, hc := f.newResource(t, f.revokes(f.Clients.Native))
		session := a.stored(t)
		f.receives(t, func() {
			if err := a.cfg.Revoke(bounded(t), session); err != nil {
				t.Fatal(err)
			}
		}, "revocation 200")
		f.receives(t, func() { a.get(t, hc, http.StatusUnauthorized) }, expiredToken, goneToken)
		f.receives(t, func() { wantReason(t, a.noToken(t), oauth.ReasonRejected) })
	})

	f.audit(t)
}

// serverAhead runs fn while the server's clock is ahead of the program's, which
// catches up then.
func (f *flow) serverAhead(t *testing.T, d time.Duration, fn func()) {
	t.Helper()
	f.provider.advance(t, d)
	fn()
	f.clock.nanoseconds.Add(int64(d))
}

// newResource is a program that has logged in and knows the nonce.
func (f *flow) newResource(t *testing.T, change ...func(*oauth.Config)) (*app, *http.Client) {
	t.Helper()
	a := f.newApp(t, f.Clients.Native, key256(t), change...)
	a.login(t)
	hc := a.resource()
	f.receives(t, func() { a.get(t, hc, http.StatusOK) }, firstUserinfoChallenge, "userinfo 200")
	return a, hc
}

// resource is the client with which a program calls the resource.
func (a *app) resource() *http.Client { return a.transport(a.TokenSource()) }

func (a *app) transport(source oauth2.TokenSource) *http.Client {
	return &http.Client{Timeout: patience, Transport: &dpop.Transport{
		Source: source, Prover: a.cfg.DPoP, Base: a.flow.tap, Clock: a.cfg.Clock,
	}}
}

func (a *app) get(t *testing.T, hc *http.Client, status int) {
	t.Helper()
	a.call(t, hc, http.MethodGet, nil, status)
}

func (a *app) post(t *testing.T, hc *http.Client, body io.Reader, status int) {
	t.Helper()
	a.call(t, hc, http.MethodPost, body, status)
}

// call makes one request to the resource, which answers it with the subject if
// the status is 200.
func (a *app) call(t *testing.T, hc *http.Client, method string, body io.Reader, status int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, a.flow.Endpoints.Userinfo, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("User-Agent", product)
	if body != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := hc.Do(req)
	if err != nil {
		a.flow.tap.hear("error", err)
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		Subject string `json:"sub"`
	}
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(&claims); err != nil {
		t.Fatalf("%s: %v", resp.Status, err)
	}
	if resp.StatusCode != status || (claims.Subject == cmp.Or(a.flow.User.DID, "alice")) != (status == http.StatusOK) {
		t.Fatalf("%s: %s, want status %d", resp.Status, data, status)
	}
}
