package oauth_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
)

// TestRevocationRequest is what Logout makes of the responses of RFC 7009 §2.2.
func TestRevocationRequest(t *testing.T) {
	ok := func() (*http.Response, error) { return answer(200, ""), nil }
	for name, tt := range map[string]struct {
		responses []func() (*http.Response, error) // the last one is given from then on
		requests  int
		kept      bool
		want      func(error) bool
	}{
		"success":           {responses: []func() (*http.Response, error){ok}, requests: 1, want: func(err error) bool { return err == nil }},
		"a body of no use":  {responses: []func() (*http.Response, error){func() (*http.Response, error) { return answer(200, strings.Repeat("x", 2<<20)), nil }}, requests: 1, want: func(err error) bool { return err == nil }},
		"a body that ends":  {responses: []func() (*http.Response, error){func() (*http.Response, error) { r := answer(200, ""); r.Body = errBody{}; return r, nil }}, requests: 1, want: func(err error) bool { return err == nil }},
		"trouble that ends": {responses: []func() (*http.Response, error){func() (*http.Response, error) { return answer(503, "", "Retry-After", "9"), nil }, ok}, requests: 2, want: func(err error) bool { return err == nil }},
		"lost once":         {responses: []func() (*http.Response, error){func() (*http.Response, error) { return nil, errLine }, ok}, requests: 2, want: func(err error) bool { return err == nil }},
		"trouble": {responses: []func() (*http.Response, error){func() (*http.Response, error) { return answer(503, ""), nil }}, requests: 4, kept: true, want: func(err error) bool {
			var server *oauth.ServerError
			return errors.As(err, &server) && server.Status == 503
		}},
		"rejected": {responses: []func() (*http.Response, error){func() (*http.Response, error) { return answer(401, `{"error":"invalid_client"}`), nil }}, requests: 1, kept: true, want: isServerError("invalid_client")},
		"not supported": {responses: []func() (*http.Response, error){func() (*http.Response, error) { return answer(400, `{"error":"unsupported_token_type"}`), nil }}, requests: 1, want: func(err error) bool {
			return errors.Is(err, oauth.ErrNotRevoked) && isServerError("unsupported_token_type")(err)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
					if r.url != "https://as.example/revoke" || r.form.Get("token") != "rt-0" || r.form.Get("token_type_hint") != "refresh_token" ||
						r.form.Get("client_id") != "client" || r.header.Get("DPoP") == "" {
						t.Errorf("%s: %v with %v", r.url, r.form, r.header)
					}
					return tt.responses[min(n, len(tt.responses))-1]()
				})
				c, _ := newClient(t, srv, func(cfg *oauth.Config) {
					cfg.Provider.RevocationURL, cfg.DPoP = "https://as.example/revoke", newProver(t)
				})
				start := time.Now()
				err := c.Logout(t.Context())
				if !tt.want(err) || srv.count() != tt.requests {
					t.Errorf("%v after %d requests", err, srv.count())
				}
				if name == "trouble that ends" && time.Since(start) < 9*time.Second {
					t.Errorf("Retry-After was not obeyed: %v", time.Since(start))
				}
				if _, err := c.Session(t.Context()); errors.Is(err, oauth.ErrNoSession) == tt.kept {
					t.Errorf("session: %v", err)
				}
			})
		})
	}
}

// TestRevocationProof: a bound session is revoked with a proof of its key, and with another
// one if the server wants a nonce. There are servers that revoke nothing otherwise, and say 200.
func TestRevocationProof(t *testing.T) {
	for name, tt := range map[string]struct {
		otherKey bool
		proofs   []string // the nonces of the proofs; "none" without a proof
	}{
		"the configured key": {proofs: []string{"", "fresh"}},
		"another key":        {otherKey: true, proofs: []string{"none"}},
	} {
		t.Run(name, func(t *testing.T) {
			const revocationURL = "https://as.example/revoke"
			var proofs []string
			srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
				if r.url != revocationURL {
					return rotate(n, r)
				}
				nonce := "none"
				if r.header.Get("DPoP") != "" {
					proof := claimsOf(t, r)
					nonce = proof.Nonce
					if proof.HTU != revocationURL || proof.HTM != http.MethodPost {
						t.Errorf("proof for %s %s", proof.HTM, proof.HTU)
					}
				}
				proofs = append(proofs, nonce)
				if nonce == "" {
					return answer(400, `{"error":"use_dpop_nonce"}`, "DPoP-Nonce", "fresh"), nil
				}
				return answer(200, ""), nil
			})
			store := oauth.NewMemoryStore()
			change := func(cfg *oauth.Config) {
				cfg.Store, cfg.DPoP, cfg.Provider.RevocationURL = store, newProver(t), revocationURL
			}
			c, _ := newClient(t, srv, change)
			if _, err := c.TokenSource().Renew(t.Context()); err != nil {
				t.Fatal(err)
			}
			if tt.otherKey {
				c, _ = openClient(t, srv, change)
			}
			if err := c.Logout(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(proofs, tt.proofs) {
				t.Errorf("revoked with %q, want %q", proofs, tt.proofs)
			}
		})
	}
}

// After a lost response the server may have issued a successor of the refresh token that is
// revoked.
func TestRevocationInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newFakeServer(func(_ int, r fakeRequest) (*http.Response, error) {
			if r.form.Get("token") != "" {
				return answer(200, ""), nil
			}
			return nil, errLine
		})
		c, _ := newClient(t, srv, func(cfg *oauth.Config) {
			cfg.Provider.RevocationURL, cfg.MaxAttempts = "https://as.example/revoke", 1
		})
		if _, err := c.TokenSource().Token(); !errors.Is(err, oauth.ErrOutcomeUnknown) {
			t.Fatal(err)
		}
		if err := c.Logout(t.Context()); !errors.Is(err, oauth.ErrNotRevoked) {
			t.Errorf("Logout: %v", err)
		}
		if _, err := c.Session(t.Context()); !errors.Is(err, oauth.ErrNoSession) {
			t.Errorf("Session: %v", err)
		}
	})
}
