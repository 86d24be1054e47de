package iamtest_test

import (
	"bytes"
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
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk" // RFC 7636 Appendix B
	redirect = "http://127.0.0.1:40404/auth/callback"
)

// user is a client at the level of the protocol: it does nothing by itself.
type user struct {
	t      *testing.T
	srv    *iamtest.Server
	http   *http.Client
	prover *dpop.Prover // nil: no proofs
	nonces dpop.Nonces
	skew   time.Duration // of the proofs' time from the server's
}

func newUser(t *testing.T, srv *iamtest.Server) *user {
	t.Helper()
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	u := &user{t: t, srv: srv, prover: newProver(t)}
	u.over(tr)
	return u
}

// over makes the requests another way.
func (u *user) over(tr http.RoundTripper) {
	u.http = &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func newProver(t *testing.T, opts ...dpop.Option) *dpop.Prover {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p, err := dpop.New(key, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func thumbprint(t *testing.T, p *dpop.Prover, h crypto.Hash) string {
	t.Helper()
	s, err := p.Thumbprint(h)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// answer is an HTTP answer with its body read.
type answer struct {
	status  int
	header  http.Header
	body    []byte
	members map[string]any // nil if the body is not a JSON object
}

func (a *answer) str(name string) string {
	s, _ := a.members[name].(string)
	return s
}

func (u *user) try(req *http.Request) (*answer, error) {
	resp, err := u.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	u.nonces.Learn(req.URL, resp.Header)
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	a := &answer{status: resp.StatusCode, header: resp.Header, body: body}
	_ = json.Unmarshal(body, &a.members)
	return a, nil
}

func (u *user) do(req *http.Request) *answer {
	u.t.Helper()
	a, err := u.try(req)
	if err != nil {
		u.t.Fatal(err)
	}
	return a
}

func (u *user) request(method, path string, body string) *http.Request {
	u.t.Helper()
	req, err := http.NewRequestWithContext(u.t.Context(), method, u.srv.URL+path, strings.NewReader(body))
	if err != nil {
		u.t.Fatal(err)
	}
	req.Header.Set("User-Agent", "yc/0.141.0")
	return req
}

// prove adds a proof with the newest nonce, made at the server's time.
func (u *user) prove(req *http.Request, accessToken string) {
	u.t.Helper()
	if u.prover == nil {
		return
	}
	proof, err := u.prover.Proof(u.t.Context(), dpop.Claims{
		Method: req.Method, URL: req.URL.String(), Nonce: u.nonces.Nonce(req.URL), AccessToken: accessToken, IssuedAt: u.srv.Now().Add(u.skew),
	})
	if err != nil {
		u.t.Fatal(err)
	}
	req.Header.Set("DPoP", proof)
}

func (u *user) tokenRequest(form url.Values) *http.Request {
	u.t.Helper()
	req := u.request("POST", "/oauth/token", form.Encode())
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	u.prove(req, "")
	return req
}

// authorization is a right authorization request.
func (u *user) authorization() url.Values {
	u.t.Helper()
	sum := sha256.Sum256([]byte(verifier))
	q := url.Values{
		"response_type": {"code"}, "client_id": {u.srv.ClientID}, "redirect_uri": {redirect},
		"scope": {"openid offline_access"}, "state": {"a state"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}
	if u.prover != nil {
		q.Set("dpop_jkt", thumbprint(u.t, u.prover, crypto.SHA512))
	}
	return q
}

// authorize sends the request and returns the parameters of the redirect.
func (u *user) authorize(q url.Values) url.Values {
	u.t.Helper()
	a := u.do(u.request("GET", "/oauth/authorize?"+q.Encode(), ""))
	if a.status != http.StatusFound {
		u.t.Fatalf("authorize answered %d: %s", a.status, a.body)
	}
	loc, err := url.Parse(a.header.Get("Location"))
	if err != nil {
		u.t.Fatal(err)
	}
	return loc.Query()
}

func (u *user) codeForm(code string) url.Values {
	return url.Values{
		"grant_type": {"authorization_code"}, "client_id": {u.srv.ClientID}, "code": {code},
		"redirect_uri": {redirect}, "code_verifier": {verifier},
	}
}

func (u *user) refreshForm(token string) url.Values {
	return url.Values{"grant_type": {"refresh_token"}, "client_id": {u.srv.ClientID}, "refresh_token": {token}}
}

// login is a whole login that has to succeed.
func (u *user) login(more ...url.Values) *answer {
	u.t.Helper()
	q := u.authorization()
	for _, m := range more {
		maps.Copy(q, m)
	}
	code := u.authorize(q).Get("code")
	if code == "" {
		u.t.Fatal("the login gave no code")
	}
	a := u.do(u.tokenRequest(u.codeForm(code)))
	if a.str("error") == "use_dpop_nonce" {
		a = u.do(u.tokenRequest(u.codeForm(code)))
	}
	if a.status != http.StatusOK {
		u.t.Fatalf("the token endpoint answered %d: %s", a.status, a.body)
	}
	return a
}

func (u *user) refresh(token string) *answer {
	u.t.Helper()
	return u.do(u.tokenRequest(u.refreshForm(token)))
}

// call makes an API request with a Bearer token.
func (u *user) call(method, path, body, accessToken string) *answer {
	u.t.Helper()
	return u.do(u.apiRequest(method, path, body, accessToken))
}

func (u *user) apiRequest(method, path, body, accessToken string) *http.Request {
	u.t.Helper()
	req := u.request(method, path, body)
	if accessToken != "" {
		req.Header.Set("Authorization", "Bearer "+accessToken)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	return req
}

func wantError(t *testing.T, a *answer, status int, code string) {
	t.Helper()
	if a.status != status || a.str("error") != code {
		t.Fatalf("got %d %s, want %d %s", a.status, a.body, status, code)
	}
}

func wantOK(t *testing.T, a *answer) *answer {
	t.Helper()
	if a.status != http.StatusOK {
		t.Fatalf("got %d %s, want 200", a.status, bytes.TrimSpace(a.body))
	}
	return a
}
