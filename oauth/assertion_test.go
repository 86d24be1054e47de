package oauth_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
)

// An assertion is what a client with private_key_jwt sends (RFC 7523 §3).
type assertion struct {
	Issuer    string `json:"iss"`
	Subject   string `json:"sub"`
	Audience  string `json:"aud"` // one, and not a list
	ID        string `json:"jti"`
	IssuedAt  int64  `json:"iat"`
	ExpiresAt int64  `json:"exp"`

	header jose.Header
}

// assertionOf verifies the assertion of a request as a server does.
func assertionOf(t *testing.T, r fakeRequest, key crypto.PublicKey) assertion {
	t.Helper()
	if got := r.form.Get("client_assertion_type"); got != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
		t.Fatalf("client_assertion_type %q", got)
	}
	if r.form.Has("client_secret") || r.header.Get("Authorization") != "" || r.form.Get("client_id") != "client" {
		t.Errorf("another authentication as well: %v", r.form)
	}
	jws, err := jose.ParseSignedCompact(r.form.Get("client_assertion"), []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.ES512, jose.EdDSA, jose.PS256, jose.RS256})
	if err != nil {
		t.Fatal(err)
	}
	payload, err := jws.Verify(key)
	if err != nil {
		t.Fatal(err)
	}
	a := assertion{header: jws.Signatures[0].Protected}
	if err := json.Unmarshal(payload, &a); err != nil {
		t.Fatal(err)
	}
	return a
}

func newClientKey(t *testing.T, signer crypto.Signer) *oauth.ClientKey {
	t.Helper()
	key, err := oauth.NewClientKey(signer, "")
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func withClientKey(t *testing.T, signer crypto.Signer) func(*oauth.Config) {
	return func(cfg *oauth.Config) {
		cfg.Provider.AuthMethod, cfg.ClientKey = oauth.AuthPrivateKeyJWT, newClientKey(t, signer)
	}
}

func TestPrivateKeyJWT(t *testing.T) {
	key := newKey(t)
	srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
		switch {
		case r.url == parURL:
			return answer(201, `{"request_uri":"urn:x","expires_in":60}`), nil
		case strings.HasSuffix(r.url, "/revoke"):
			return answer(200, ""), nil
		case n == 2:
			return answer(400, `{"error":"use_dpop_nonce"}`, "DPoP-Nonce", "n"), nil
		}
		return rotate(n, r)
	})
	named, err := oauth.NewClientKey(key, "key-1")
	if err != nil {
		t.Fatal(err)
	}
	c, _ := openClient(t, srv, withPAR, func(cfg *oauth.Config) {
		cfg.Provider.AuthMethod, cfg.ClientKey, cfg.DPoP = oauth.AuthPrivateKeyJWT, named, newProver(t)
		cfg.Provider.Issuer, cfg.Provider.RevocationURL = asIssuer, asIssuer+"/revoke"
	})
	var opened url.Values
	if _, err := c.Login(t.Context(), oauth.LoginOptions{OpenURL: pushedBrowser(t, srv, 0, &opened)}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.TokenSource().Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	if srv.count() != 5 { // pushed, challenged, exchanged, renewed, revoked
		t.Errorf("%d requests", srv.count())
	}
	seen := make(map[string]bool)
	for i := range srv.count() {
		a := assertionOf(t, srv.request(i), key.Public())
		if a.Issuer != "client" || a.Subject != "client" || a.Audience != asIssuer || a.header.KeyID != "key-1" || a.header.Algorithm != "ES256" {
			t.Errorf("%s: %+v", srv.request(i).url, a)
		}
		if age := time.Now().Unix() - a.IssuedAt; age < 0 || age > 60 || a.ExpiresAt-a.IssuedAt != 60 {
			t.Errorf("issued %d s ago, for %d s", age, a.ExpiresAt-a.IssuedAt)
		}
		if len(a.ID) < 22 || seen[a.ID] {
			t.Errorf("jti %q", a.ID)
		}
		seen[a.ID] = true
	}
}

func TestAssertionAlgorithms(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, dpop.MinRSABits)
	if err != nil {
		t.Fatal(err)
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		key     crypto.Signer
		accepts []string
		want    string
	}{
		{newKey(t), nil, "ES256"}, {p384, nil, "ES384"}, {p521, nil, "ES512"}, {edwards, nil, "EdDSA"}, {rsaKey, nil, "RS256"},
		{rsaKey, []string{"RS256", "PS256"}, "PS256"}, {rsaKey, []string{"RS256"}, "RS256"}, {rsaKey, []string{"PS256"}, "PS256"},
		{newKey(t), []string{"HS256", "RS256", "ES256"}, "ES256"}, {edwards, []string{"ES256", "EdDSA"}, "EdDSA"},
	} {
		t.Run(fmt.Sprintf("%T %v", tt.key, tt.accepts), func(t *testing.T) {
			srv := newFakeServer(issue)
			c, _ := newClient(t, srv, withClientKey(t, tt.key), func(cfg *oauth.Config) { cfg.Provider.AuthSigningAlgs = tt.accepts })
			wantToken(t, c.TokenSource(), "at-1")
			a := assertionOf(t, srv.request(0), tt.key.Public())
			if a.header.Algorithm != tt.want || a.header.KeyID != "" {
				t.Errorf("header %+v, want %s", a.header, tt.want)
			}
			if a.Audience != testProvider().TokenURL { // there is no issuer
				t.Errorf("audience %q", a.Audience)
			}
		})
	}
	t.Run("Ed25519 by its own name", func(t *testing.T) { // RFC 9864
		srv := newFakeServer(issue)
		c, _ := newClient(t, srv, withClientKey(t, edwards), func(cfg *oauth.Config) { cfg.Provider.AuthSigningAlgs = []string{"Ed25519"} })
		wantToken(t, c.TokenSource(), "at-1")
	})
}

// The assertion is made by the server's clock.
func TestAssertionClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := newKey(t)
		ahead := 48 * time.Hour
		srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
			resp, err := issue(n, r)
			resp.Header.Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
			return resp, err
		})
		c, _ := newClient(t, srv, withClientKey(t, key))
		wantToken(t, c.TokenSource(), "at-1")
		if _, err := c.TokenSource().Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		a := assertionOf(t, srv.request(1), key.Public())
		if off := a.IssuedAt - time.Now().Add(ahead).Unix(); off < -2 || off > 2 {
			t.Errorf("%d s off", off)
		}
	})
}

// An assertion that the server holds to have expired is made again, once, by its clock.
func TestAssertionOfAWrongClock(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"behind": 48 * time.Hour, "ahead": -48 * time.Hour, "right": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				key := newKey(t)
				srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
					now := time.Now().Add(ahead)
					date := now.UTC().Format(http.TimeFormat)
					if a := assertionOf(t, r, key.Public()); ahead == 0 || a.ExpiresAt < now.Unix() || a.IssuedAt > now.Unix()+5 {
						return answer(401, `{"error":"invalid_client"}`, "Date", date), nil
					}
					resp, err := issue(n, r)
					resp.Header.Set("Date", date)
					return resp, err
				})
				c, _ := newClient(t, srv, withClientKey(t, key))
				_, err := c.TokenSource().Token()
				if ahead == 0 { // nothing that another assertion would mend
					if !isServerError("invalid_client")(err) || srv.count() != 1 {
						t.Errorf("%v after %d requests", err, srv.count())
					}
					return
				}
				if err != nil || srv.count() != 2 {
					t.Errorf("%v after %d requests", err, srv.count())
				}
			})
		})
	}
}

// A faultySigner does what sign does.
type faultySigner struct {
	*ecdsa.PrivateKey
	sign func() ([]byte, error)
}

func (s faultySigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return s.sign() }

// patientSigner is told when the caller gives up.
type patientSigner struct{ *ecdsa.PrivateKey }

func (s patientSigner) SignContext(ctx context.Context, _ []byte, _ crypto.SignerOpts) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestNewClientKey(t *testing.T) {
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, signer := range map[string]crypto.Signer{"nil": nil, "a nil pointer": (*ecdsa.PrivateKey)(nil), "P-224": p224} {
		if key, err := oauth.NewClientKey(signer, ""); err == nil || key != nil {
			t.Errorf("%s: %v, %v", name, key, err)
		}
	}
}

func TestAssertionSigner(t *testing.T) {
	errCard := errors.New("the card was removed")
	for name, sign := range map[string]func() ([]byte, error){
		"fails":         func() ([]byte, error) { return nil, errCard },
		"returns noise": func() ([]byte, error) { return []byte("noise"), nil },
		"is too wide": func() ([]byte, error) {
			return append([]byte("\x30\x26\x02\x21\x40"), append(make([]byte, 32), 2, 1, 1)...), nil
		},
		"is negative": func() ([]byte, error) { return []byte("\x30\x06\x02\x01\x80\x02\x01\x01"), nil },
	} {
		t.Run(name, func(t *testing.T) {
			srv := newFakeServer(issue)
			c, _ := newClient(t, srv, withClientKey(t, faultySigner{newKey(t), sign}))
			_, err := c.TokenSource().Token()
			var signing *dpop.SigningError
			if !errors.As(err, &signing) || srv.count() != 0 || !strings.Contains(err.Error(), "no client assertion was made") || strings.Contains(err.Error(), "proof") || name == "fails" && !errors.Is(err, errCard) {
				t.Errorf("%v after %d requests", err, srv.count())
			}
		})
	}
	t.Run("hangs", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			srv := newFakeServer(issue)
			c, _ := newClient(t, srv, withClientKey(t, faultySigner{newKey(t), func() ([]byte, error) { <-release; return nil, errCard }}))
			_, err := c.TokenSource().Token()
			if !errors.Is(err, context.DeadlineExceeded) || srv.count() != 0 || !strings.Contains(err.Error(), "the client key") || strings.Contains(err.Error(), "proof") {
				t.Errorf("%v after %d requests", err, srv.count())
			}
			close(release)
			synctest.Wait()
		})
	})
	t.Run("is told of the end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := newClient(t, newFakeServer(issue), withClientKey(t, patientSigner{newKey(t)}))
			if _, err := c.TokenSource().Token(); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error %v", err)
			}
		})
	})
}

// Neither the key nor an assertion is printed.
func TestClientKeyDoesNotPrint(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var sent string
	srv := newFakeServer(func(_ int, r fakeRequest) (*http.Response, error) {
		sent = r.form.Get("client_assertion")
		return answer(400, fmt.Sprintf(`{"error":"invalid_request","error_description":"what is %s"}`, sent)), nil
	})
	cfg := oauth.Config{Provider: testProvider(), ClientID: "client", HTTPClient: &http.Client{Transport: srv}}
	withClientKey(t, key)(&cfg)
	c, err := oauth.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Import(t.Context(), "rt-0"); err != nil {
		t.Fatal(err)
	}
	_, refused := c.TokenSource().Token()
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		fmt.Fprintf(&out, verb+verb+verb+verb, cfg, &cfg, c, refused)
	}
	seed := key.Seed()
	for _, form := range []string{hex.EncodeToString(seed), strings.Trim(fmt.Sprintf("%d", seed[:8]), "[]"), string(seed), sent} {
		if strings.Contains(out.String(), form) {
			t.Errorf("%q was printed", form)
		}
	}
	if sent == "" || !strings.Contains(refused.Error(), "invalid_request") {
		t.Errorf("error %v", refused)
	}
}
