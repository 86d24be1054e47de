package conformance

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// What a client does, by hand: single requests, nothing retried and nothing
// remembered but what a test says.

// plain keeps no connection, so that no test leaves one behind.
var plain = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}

// send returns the answer with its body read.
func send(t *testing.T, req *http.Request) (*http.Response, []byte) {
	t.Helper()
	resp, err := plain.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, body
}

// A key makes DPoP proofs with go-jose alone.
type key struct{ *ecdsa.PrivateKey }

func newKey(t *testing.T) key {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key{private}
}

// proof returns a proof of RFC 9449 §4.2 for one request, with the claims that
// extra adds or replaces.
func (k key) proof(t *testing.T, method, target string, extra map[string]any) string {
	t.Helper()
	claims := map[string]any{"jti": rand.Text(), "htm": method, "htu": target, "iat": time.Now().Unix()}
	maps.Copy(claims, extra)
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.ES256, Key: k.PrivateKey},
		(&jose.SignerOptions{EmbedJWK: true}).WithType("dpop+jwt"))
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	compact, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

// thumbprint is the dpop_jkt of RFC 9449 §10.
func (k key) thumbprint(t *testing.T) string {
	t.Helper()
	sum, err := (&jose.JSONWebKey{Key: k.Public()}).Thumbprint(crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(sum)
}

// hash is the ath of RFC 9449 §4.2 and the S256 challenge of RFC 7636 §4.2.
func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// newBrowser returns what stands for the user's browser: it keeps cookies and
// follows redirects, to the redirect URI too.
func newBrowser(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Jar: jar, Transport: plain.Transport, Timeout: plain.Timeout}
}

// visit opens a URL as a browser would and returns the parameters with which it
// was sent to redirect, where nobody needs to listen. It returns nil, and what
// the last page said, when the browser was not sent there.
func visit(t *testing.T, target, redirect string) (url.Values, string) {
	t.Helper()
	browser := newBrowser(t)
	browser.CheckRedirect = func(req *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(req.URL.String(), redirect+"?") {
			return http.ErrUseLastResponse
		}
		return nil
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := browser.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if end, err := resp.Location(); err == nil {
		return end.Query(), ""
	}
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return nil, string(page)
}

// A loginRequest is an authorization request; params adds to what every login
// sends, an empty value takes away.
type loginRequest struct {
	client   registration
	redirect string // "" is a redirect URI that the server accepts
	params   map[string]string
}

// A code is an authorization code and what is needed to exchange it.
type code struct {
	client   registration
	redirect string
	verifier string
	value    string
}

func (p *provider) authorize(t *testing.T, r loginRequest) (code, url.Values, string) {
	t.Helper()
	c := code{client: r.client, redirect: r.redirect, verifier: rand.Text() + rand.Text()}
	if c.redirect == "" {
		c.redirect = "http://127.0.0.1:49152/auth/callback"
	}
	query := url.Values{
		"response_type":         {"code"},
		"client_id":             {r.client.ID},
		"redirect_uri":          {c.redirect},
		"scope":                 {"openid offline_access"},
		"prompt":                {"consent"},
		"state":                 {rand.Text()},
		"code_challenge":        {hash(c.verifier)},
		"code_challenge_method": {"S256"},
	}
	for name, value := range r.params {
		query.Set(name, value)
		if value == "" {
			query.Del(name)
		}
	}
	end, page := visit(t, p.Endpoints.Authorization+"?"+query.Encode(), c.redirect)
	if end != nil && end.Get("state") != query.Get("state") {
		t.Fatalf("state %q came back as %q", query.Get("state"), end.Get("state"))
	}
	c.value = end.Get("code")
	return c, end, page
}

// login is authorize for logins that succeed.
func (p *provider) login(t *testing.T, r loginRequest) code {
	t.Helper()
	c, end, page := p.authorize(t, r)
	if c.value == "" {
		t.Fatalf("no code: %v %s", end, page)
	}
	return c
}

// An answer is what the token endpoint or the userinfo endpoint said.
type answer struct {
	status int
	header http.Header

	AccessToken      string `json:"access_token"`
	RefreshToken     string `json:"refresh_token"`
	TokenType        string `json:"token_type"`
	ExpiresIn        int    `json:"expires_in"`
	Scope            string `json:"scope"`
	Error            string `json:"error"`
	ErrorDescription string `json:"error_description"`
	Subject          string `json:"sub"`
}

func (a answer) nonce() string { return a.header.Get("DPoP-Nonce") }

// expect fails the test when the answer is not a success, if errorCode is "", or
// not that error.
func (a answer) expect(t *testing.T, status int, errorCode string) {
	t.Helper()
	if a.status != status || a.Error != errorCode {
		t.Fatalf("answer %d %q (%s), want %d %q", a.status, a.Error, a.ErrorDescription, status, errorCode)
	}
}

func do(t *testing.T, req *http.Request) answer {
	t.Helper()
	resp, body := send(t, req)
	a := answer{status: resp.StatusCode, header: resp.Header}
	if err := json.Unmarshal(body, &a); err != nil {
		t.Fatalf("%s: %v: %s", resp.Status, err, body)
	}
	return a
}

// token sends one token request. A proof of "" sends none.
func (p *provider) token(t *testing.T, client registration, form url.Values, proof string) answer {
	t.Helper()
	return do(t, newForm(t, p.Endpoints.Token, client, form, proof))
}

// newForm is a POST of a form with the client's authentication and, unless it is
// "", a proof.
func newForm(t *testing.T, endpoint string, client registration, form url.Values, proof string) *http.Request {
	t.Helper()
	req, err := formRequest(t.Context(), endpoint, client, form)
	if err != nil {
		t.Fatal(err)
	}
	if proof != "" {
		req.Header.Set("DPoP", proof)
	}
	return req
}

func formRequest(ctx context.Context, endpoint string, client registration, form url.Values) (*http.Request, error) {
	form = maps.Clone(form)
	if client.Auth != "client_secret_basic" {
		form.Set("client_id", client.ID)
	}
	if client.Auth == "client_secret_post" {
		form.Set("client_secret", client.Secret)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if client.Auth == "client_secret_basic" {
		// RFC 6749 §2.3.1: both are form-urlencoded first.
		req.SetBasicAuth(url.QueryEscape(client.ID), url.QueryEscape(client.Secret))
	}
	return req, nil
}

// nonce asks for the newest nonce, as a request without one does.
func (p *provider) nonce(t *testing.T) string {
	t.Helper()
	a := p.token(t, p.Clients.Native, refreshForm("no such token"), p.tokenProof(t, newKey(t), ""))
	a.expect(t, http.StatusBadRequest, "use_dpop_nonce")
	return a.nonce()
}

// tokenProof is a proof for the token endpoint, with a nonce unless it is "".
func (p *provider) tokenProof(t *testing.T, k key, nonce string) string {
	t.Helper()
	if nonce == "" {
		return k.proof(t, http.MethodPost, p.Endpoints.Token, nil)
	}
	return k.proof(t, http.MethodPost, p.Endpoints.Token, map[string]any{"nonce": nonce})
}

func codeForm(c code) url.Values {
	return url.Values{
		"grant_type":    {"authorization_code"},
		"code":          {c.value},
		"redirect_uri":  {c.redirect},
		"code_verifier": {c.verifier},
	}
}

func refreshForm(refreshToken string) url.Values {
	return url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refreshToken}}
}

// exchange redeems a code with a fresh proof.
func (p *provider) exchange(t *testing.T, c code, k key, nonce string) answer {
	t.Helper()
	return p.token(t, c.client, codeForm(c), p.tokenProof(t, k, nonce))
}

// refresh renews with a fresh proof.
func (p *provider) refresh(t *testing.T, client registration, refreshToken string, k key, nonce string) answer {
	t.Helper()
	return p.token(t, client, refreshForm(refreshToken), p.tokenProof(t, k, nonce))
}

// tokens logs in and redeems the code: a session to test with.
func (p *provider) tokens(t *testing.T, client registration, k key) answer {
	t.Helper()
	a := p.exchange(t, p.login(t, loginRequest{client: client}), k, p.nonce(t))
	a.expect(t, http.StatusOK, "")
	return a
}

// userinfo calls the resource with a proof that has the given claims on top.
func (p *provider) userinfo(t *testing.T, scheme, accessToken string, k key, extra map[string]any) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.Endpoints.Userinfo, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", scheme+" "+accessToken)
	req.Header.Set("DPoP", k.proof(t, http.MethodGet, p.Endpoints.Userinfo, extra))
	return do(t, req)
}
