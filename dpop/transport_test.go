package dpop

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/oauth2"
)

// resource is a protected resource that checks what RFC 9449 §7.1 and §4.3 ask
// for. The nonce it wants can change at any time.
type resource struct {
	*httptest.Server
	verifier Verifier // where a nonce is wanted
	plain    Verifier
	tokens   map[string]string // token → thumbprint of its key, "" for a Bearer token

	mu    sync.Mutex
	nonce string // "" wants none
	seen  []seen
}

type seen struct {
	method, path, body, authorization string
	proofs                            []string
	status                            int
}

func newResource(t *testing.T, tokens map[string]string, handler http.HandlerFunc) *resource {
	t.Helper()
	s := &resource{tokens: tokens}
	s.verifier.CheckNonce = func(nonce string) bool { return nonce == s.nonce }
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		rec := httptest.NewRecorder()
		s.protect(rec, r, handler)
		s.mu.Lock()
		s.seen = append(s.seen, seen{r.Method, r.URL.Path, string(body), r.Header.Get("Authorization"), r.Header.Values("DPoP"), rec.Code})
		s.mu.Unlock()
		maps.Copy(w.Header(), rec.Header())
		w.WriteHeader(rec.Code)
		_, _ = io.Copy(w, rec.Body)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *resource) protect(w http.ResponseWriter, r *http.Request, handler http.HandlerFunc) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	jkt, ok := s.tokens[token]
	switch {
	case !ok || scheme != map[bool]string{true: "DPoP", false: "Bearer"}[jkt != ""]:
		w.Header().Set("WWW-Authenticate", scheme+` error="invalid_token"`)
		http.Error(w, "token", http.StatusUnauthorized)
		return
	case jkt != "":
		s.mu.Lock()
		nonce := s.nonce
		v := &s.verifier
		if nonce == "" {
			v = &s.plain
		}
		_, err := v.VerifyRequest(r, Expected{URL: "http://" + r.Host + r.URL.Path, AccessToken: token, Thumbprint: jkt})
		s.mu.Unlock()
		if nonce != "" {
			w.Header().Set(NonceHeader, nonce)
		}
		if pe := (*ProofError)(nil); errors.As(err, &pe) {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf("DPoP error=%q, error_description=%q", pe.Code(), pe.Reason))
			http.Error(w, "proof", http.StatusUnauthorized)
			return
		}
	}
	if handler != nil {
		handler(w, r)
	}
}

func (s *resource) setNonce(nonce string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nonce = nonce
}

// statuses of the requests so far, which it forgets.
func (s *resource) statuses() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	var codes []int
	for _, r := range s.seen {
		codes = append(codes, r.status)
	}
	s.seen = nil
	return codes
}

func dpopToken(s string) *oauth2.Token {
	return &oauth2.Token{AccessToken: s, TokenType: "DPoP"}
}

// source is a token source with the optional methods.
type source struct {
	mu          sync.Mutex
	tokens      []*oauth2.Token // the first is current
	err         error
	ctx         context.Context
	invalidated []string
}

func (s *source) Token() (*oauth2.Token, error) {
	return nil, errors.New("Token was called, not TokenContext")
}

func (s *source) TokenContext(ctx context.Context) (*oauth2.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ctx = ctx
	if len(s.tokens) == 0 {
		return nil, s.err
	}
	return s.tokens[0], nil
}

func (s *source) Invalidate(rejected *oauth2.Token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.invalidated = append(s.invalidated, rejected.AccessToken)
	if len(s.tokens) > 0 && s.tokens[0].AccessToken == rejected.AccessToken {
		s.tokens = s.tokens[1:]
	}
}

// newTransport is a Transport on connections of its own, closed with the test.
func newTransport(t *testing.T, src oauth2.TokenSource) *Transport {
	t.Helper()
	base := &http.Transport{}
	t.Cleanup(base.CloseIdleConnections)
	return &Transport{Source: src, Prover: newProver(t, p256Key()), Base: base}
}

func get(t *testing.T, tr http.RoundTripper, url string) *http.Response {
	t.Helper()
	resp, err := (&http.Client{Transport: tr}).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	drain(resp)
	return resp
}

func TestTransportSchemes(t *testing.T) {
	srv := newResource(t, map[string]string{"bound": thumbprintOf(t, p256Key()), "plain": ""}, nil)
	for _, tt := range []struct {
		name string
		tok  *oauth2.Token
		want int
	}{
		{"DPoP", dpopToken("bound"), 200},
		{"dpop in other case", &oauth2.Token{AccessToken: "bound", TokenType: "dpop"}, 200},
		{"Bearer", &oauth2.Token{AccessToken: "plain", TokenType: "Bearer"}, 200},
		{"bearer in other case", &oauth2.Token{AccessToken: "plain", TokenType: "bearer"}, 200},
		{"no type", &oauth2.Token{AccessToken: "plain"}, 200},
		{"DPoP token sent as Bearer", &oauth2.Token{AccessToken: "bound"}, 401},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp := get(t, newTransport(t, oauth2.StaticTokenSource(tt.tok)), srv.URL+"/a?b=c")
			if resp.StatusCode != tt.want {
				t.Errorf("status %d, want %d", resp.StatusCode, tt.want)
			}
			last := srv.seen[len(srv.seen)-1]
			if want := map[bool]int{true: 1}[isDPoP(tt.tok)]; len(last.proofs) != want {
				t.Errorf("%d proofs, want %d", len(last.proofs), want)
			}
			if resp.Request.Header.Get("Authorization") != "" || resp.Request.Header.Get("DPoP") != "" {
				t.Error("the response shows the credentials to whoever logs it")
			}
		})
	}
}

// A nonce costs one more request once, and none afterwards: it is learnt from
// challenges and from successes.
func TestTransportNonce(t *testing.T) {
	srv := newResource(t, map[string]string{"bound": thumbprintOf(t, p256Key())}, nil)
	tr := newTransport(t, oauth2.StaticTokenSource(dpopToken("bound")))
	step := func(name string, want ...int) {
		t.Helper()
		if resp := get(t, tr, srv.URL); resp.StatusCode != want[len(want)-1] {
			t.Errorf("%s: status %d", name, resp.StatusCode)
		}
		if got := srv.statuses(); !slices.Equal(got, want) {
			t.Errorf("%s: requests %v, want %v", name, got, want)
		}
	}
	step("no nonce wanted", 200)
	srv.setNonce("one")
	step("challenge", 401, 200)
	step("known", 200)
	srv.setNonce("two")
	step("old nonce", 401, 200)

	// The server sends another nonce with a success and wants that one from now on.
	handler := srv.Config.Handler
	srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, r)
		srv.setNonce("three")
		w.Header().Set(NonceHeader, "three")
		w.WriteHeader(rec.Code)
	})
	step("told with a success", 200)
	srv.Config.Handler = handler
	step("learnt from the success", 200)
}

// A server that is never content gets three new nonces back, or one that it gave
// twice once, and its last response is the caller's.
func TestTransportSecondChallenge(t *testing.T) {
	for _, tt := range []struct {
		name   string
		nonces []string // by request; the last one is used for all that follow
		until  int      // the first request that succeeds; 0: none
		want   int      // requests
	}{
		{"with a new nonce each time", []string{"1", "2", "3", "4", "5", "6"}, 0, 4},
		{"with the same nonce", []string{"same"}, 0, 2},
		{"with the same nonce after a new one", []string{"1", "2"}, 0, 3},
		{"with two in turns", []string{"1", "2", "1", "2", "1"}, 0, 4},
		{"content at the second", []string{"1", "2"}, 3, 3},
		{"content at the third", []string{"1", "2", "3"}, 4, 4},
		{"without a nonce the second time", []string{"1", ""}, 0, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var requests atomic.Int32
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				n := int(requests.Add(1))
				if n > 1 {
					if got := takeApart(t, r.Header.Get("DPoP")).claim(t, "nonce"); got != tt.nonces[min(n-2, len(tt.nonces)-1)] {
						t.Errorf("request %d has the nonce %q", n, got)
					}
				}
				if n == tt.until {
					fmt.Fprintf(w, "answer %d", n)
					return
				}
				w.Header().Set("WWW-Authenticate", `DPoP error="use_dpop_nonce"`)
				if nonce := tt.nonces[min(n-1, len(tt.nonces)-1)]; nonce != "" {
					w.Header().Set(NonceHeader, nonce)
				}
				w.WriteHeader(http.StatusUnauthorized)
				fmt.Fprintf(w, "answer %d", n)
			}))
			defer srv.Close()
			resp, err := (&http.Client{Transport: newTransport(t, oauth2.StaticTokenSource(dpopToken("bound")))}).Get(srv.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			wantStatus := map[bool]int{true: 401, false: 200}[tt.until == 0]
			if err != nil || resp.StatusCode != wantStatus || string(body) != fmt.Sprint("answer ", tt.want) || int(requests.Load()) != tt.want {
				t.Errorf("%d requests; status %d, %q, %v", requests.Load(), resp.StatusCode, body, err)
			}
		})
	}
}

// Which 401 leads to another request, and whether the token is invalidated.
func TestTransport401(t *testing.T) {
	with := func(challenges ...string) http.Header {
		h := nonceHeader("n")
		h["Www-Authenticate"] = challenges
		return h
	}
	malformed := nonceHeader("a b")
	malformed.Set("WWW-Authenticate", `DPoP error="use_dpop_nonce"`)
	for _, tt := range []struct {
		name        string
		h           http.Header
		tok         *oauth2.Token
		requests    int
		invalidated bool
	}{
		{"nonce", with(`DPoP error="use_dpop_nonce", error_description="x"`), dpopToken("a"), 2, false},
		{"nonce, unquoted", with(`DPoP error=use_dpop_nonce`), dpopToken("a"), 2, false},
		{"nonce, in the second challenge", with(`Bearer`, `DPoP error="use_dpop_nonce"`), dpopToken("a"), 2, false},
		{"nonce wanted of a Bearer token", with(`DPoP error="use_dpop_nonce"`), &oauth2.Token{AccessToken: "a"}, 1, false},
		{"nonce wanted, none given", http.Header{"Www-Authenticate": {`DPoP error="use_dpop_nonce"`}}, dpopToken("a"), 1, false},
		{"nonce wanted, a malformed one given", malformed, dpopToken("a"), 1, false},
		{"bad proof", with(`DPoP error="invalid_dpop_proof"`), dpopToken("a"), 1, false},
		{"bad token", with(`DPoP error="invalid_token"`), dpopToken("a"), 2, true},
		{"bad Bearer token", with(`Bearer error="invalid_token"`), &oauth2.Token{AccessToken: "a"}, 2, true},
		{"no reason given", http.Header{}, &oauth2.Token{AccessToken: "a"}, 2, true},
		{"no reason given, but a scheme", with(`Bearer realm="x"`), &oauth2.Token{AccessToken: "a"}, 2, true},
		{"bad proof of a Bearer token", with(`DPoP error="invalid_dpop_proof"`), &oauth2.Token{AccessToken: "a"}, 1, false},
		{"too few rights", with(`Bearer error="insufficient_scope", scope="admin"`), &oauth2.Token{AccessToken: "a"}, 1, false},
		{"too few rights of a bound token", with(`DPoP error="insufficient_scope"`), dpopToken("a"), 1, false},
		{"a login too weak (RFC 9470)", with(`Bearer error="insufficient_user_authentication"`), &oauth2.Token{AccessToken: "a"}, 1, false},
		{"a malformed request", with(`Bearer error="invalid_request"`), &oauth2.Token{AccessToken: "a"}, 1, false},
		{"bad token, said beside another scheme", with(`Basic realm="x"`, `DPoP algs="ES256", error="invalid_token"`), dpopToken("a"), 2, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			requests := 0
			src := &source{tokens: []*oauth2.Token{tt.tok, {AccessToken: "b", TokenType: tt.tok.TokenType}}}
			tr := &Transport{Source: src, Prover: newProver(t, edKey()), Base: roundTripper(func(r *http.Request) (*http.Response, error) {
				requests++
				if requests > 1 {
					return response(r, 200, http.Header{}), nil
				}
				return response(r, 401, tt.h), nil
			})}
			resp, err := tr.RoundTrip(must(http.NewRequest(http.MethodGet, "https://api.example.com/", nil)))
			if err != nil {
				t.Fatal(err)
			}
			if requests != tt.requests || (resp.StatusCode == http.StatusOK) != (requests == 2) {
				t.Errorf("%d requests, status %d", requests, resp.StatusCode)
			}
			if (len(src.invalidated) == 1 && src.invalidated[0] == "a") != tt.invalidated {
				t.Errorf("invalidated %q", src.invalidated)
			}
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

type closer struct {
	http.RoundTripper
	closed int
}

func (c *closer) CloseIdleConnections() { c.closed++ }

func TestTransportCloseIdleConnections(t *testing.T) {
	base := &closer{}
	client := &http.Client{Transport: &Transport{Base: base}}
	client.CloseIdleConnections()
	if base.closed != 1 {
		t.Errorf("called %d times", base.closed)
	}
	client.Transport = &Transport{Base: roundTripper(nil)} // has no such method
	client.CloseIdleConnections()
	client.Transport = &Transport{} // uses http.DefaultTransport
	client.CloseIdleConnections()
}

// response is one without the request that led to it, as some RoundTrippers
// make them.
func response(_ *http.Request, code int, h http.Header) *http.Response {
	return &http.Response{StatusCode: code, Header: h, Body: http.NoBody}
}

func TestTransportInvalidToken(t *testing.T) {
	jkt := thumbprintOf(t, p256Key())
	srv := newResource(t, map[string]string{"good": jkt, "plain": ""}, nil)
	srv.setNonce("n")
	for _, tt := range []struct {
		name        string
		tokens      []*oauth2.Token
		want        []int
		invalidated string
	}{
		{"another token helps", []*oauth2.Token{dpopToken("bad"), dpopToken("good")}, []int{401, 401, 200}, "bad"}, // the nonce is learnt on the way
		{"another token is as bad", []*oauth2.Token{dpopToken("bad"), dpopToken("worse")}, []int{401, 401}, "bad"},
		{"the same token again", []*oauth2.Token{dpopToken("bad"), dpopToken("bad")}, []int{401}, "bad"},
		{"no other token", []*oauth2.Token{dpopToken("bad")}, []int{401}, "bad"},
		{"an empty token", []*oauth2.Token{dpopToken("bad"), {}}, []int{401}, "bad"},
		{"from DPoP to Bearer", []*oauth2.Token{dpopToken("bad"), {AccessToken: "plain"}}, []int{401, 200}, "bad"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src := &source{tokens: tt.tokens, err: errors.New("log in again")}
			resp := get(t, newTransport(t, src), srv.URL)
			if got := srv.statuses(); !slices.Equal(got, tt.want) || resp.StatusCode != got[len(got)-1] {
				t.Errorf("requests %v, want %v; status %d", got, tt.want, resp.StatusCode)
			}
			if got := strings.Join(src.invalidated, " "); got != tt.invalidated {
				t.Errorf("invalidated %q, want %q", got, tt.invalidated)
			}
		})
	}
	t.Run("a source that cannot be told", func(t *testing.T) {
		resp := get(t, newTransport(t, oauth2.StaticTokenSource(dpopToken("bad"))), srv.URL)
		if got := srv.statuses(); !slices.Equal(got, []int{401}) || resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("requests %v, status %d", got, resp.StatusCode)
		}
	})
}

// tracked is a body that knows whether it was closed.
type tracked struct {
	io.Reader
	closed atomic.Bool
}

func (b *tracked) Close() error { b.closed.Store(true); return nil }

func TestTransportBodies(t *testing.T) {
	srv := newResource(t, map[string]string{"bound": thumbprintOf(t, p256Key())}, nil)
	for _, tt := range []struct {
		name    string
		getBody func(*[]*tracked) func() (io.ReadCloser, error)
		want    []int
		bodies  int // made by GetBody
	}{
		{"that can be sent again", func(made *[]*tracked) func() (io.ReadCloser, error) {
			return func() (io.ReadCloser, error) {
				b := &tracked{Reader: strings.NewReader("the body")}
				*made = append(*made, b)
				return b, nil
			}
		}, []int{401, 200}, 1},
		{"that cannot be sent again", nil, []int{401}, 0},
		{"that fails when it has to be sent again", func(*[]*tracked) func() (io.ReadCloser, error) {
			return func() (io.ReadCloser, error) { return nil, errors.New("the file has gone") }
		}, []int{401}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv.setNonce(strings.ReplaceAll(tt.name, " ", "-"))
			first := &tracked{Reader: strings.NewReader("the body")}
			var made []*tracked
			req := must(http.NewRequest(http.MethodPut, srv.URL+"/x", first))
			req.ContentLength = int64(len("the body"))
			if tt.getBody != nil {
				req.GetBody = tt.getBody(&made)
			}
			resp, err := newTransport(t, oauth2.StaticTokenSource(dpopToken("bound"))).RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			drain(resp)
			for _, r := range srv.seen {
				if r.body != "the body" || r.method != "PUT" {
					t.Errorf("%s with %q", r.method, r.body)
				}
			}
			if got := srv.statuses(); !slices.Equal(got, tt.want) {
				t.Errorf("requests %v, want %v", got, tt.want)
			}
			if len(made) != tt.bodies {
				t.Errorf("%d bodies made", len(made))
			}
			for _, b := range append(made, first) {
				if !b.closed.Load() {
					t.Error("a body is still open")
				}
			}
		})
	}
}

// What goes wrong before a request is made: an error, and the body is closed.
func TestTransportRefuses(t *testing.T) {
	lost, gone := errors.New("connection lost"), errors.New("card removed")
	good := func() *Transport {
		return &Transport{
			Source: oauth2.StaticTokenSource(dpopToken("hunter2")),
			Prover: newProver(t, p256Key()),
			Base: roundTripper(func(r *http.Request) (*http.Response, error) {
				r.Body.Close()
				return nil, errors.New("a request was made")
			}),
		}
	}
	for _, tt := range []struct {
		name, url string
		change    func(*Transport, *http.Request)
		want      string
		is        error
	}{
		{"http", "http://api.example.com/hunter2", nil, "uses http to api.example.com", nil},
		{"http to an address in the network", "http://10.0.0.1/", nil, "uses http", nil},
		{"other scheme", "ftp://api.example.com/", nil, "neither https nor http", nil},
		{"no host", "https:///a", nil, "with a host", nil},
		{"a host with a path in it", "https://api.example.com/", func(_ *Transport, r *http.Request) { r.URL.Host = "api.example.com/a" }, "not a URL", nil},
		{"no URL", "https://api.example.com/", func(_ *Transport, r *http.Request) { r.URL = nil }, "no URL", nil},
		{"user in the URL of a bound request", "https://u:hunter2@api.example.com/", nil, "user information", nil},
		{"no source", "https://api.example.com/", func(tr *Transport, _ *http.Request) { tr.Source = nil }, "Source is nil", nil},
		{"source fails", "https://api.example.com/", func(tr *Transport, _ *http.Request) { tr.Source = &source{err: lost} }, "connection lost", lost},
		{"source returns nothing", "https://api.example.com/", func(tr *Transport, _ *http.Request) { tr.Source = &source{} }, "no access token", nil},
		{"source returns an empty token", "https://api.example.com/", func(tr *Transport, _ *http.Request) { tr.Source = &source{tokens: []*oauth2.Token{{}}} }, "no access token", nil},
		{"no prover", "https://api.example.com/", func(tr *Transport, _ *http.Request) { tr.Prover = nil }, "Prover is nil", nil},
		{"signer fails", "https://api.example.com/", func(tr *Transport, _ *http.Request) {
			tr.Prover = newProver(t, stub{p256Key().Public(), func([]byte) ([]byte, error) { return nil, gone }})
		}, "card removed", gone},
		{"method", "https://api.example.com/", func(_ *Transport, r *http.Request) { r.Method = "G T" }, "method", nil},
		{"base fails", "https://api.example.com/", func(tr *Transport, _ *http.Request) {
			tr.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
				r.Body.Close() // as RoundTrippers have to
				return nil, lost
			})
		}, "connection lost", lost},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body := &tracked{Reader: strings.NewReader("x")}
			req := must(http.NewRequest(http.MethodPost, tt.url, body))
			tr := good()
			if tt.change != nil {
				tt.change(tr, req)
			}
			resp, err := tr.RoundTrip(req)
			if resp != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("RoundTrip: %v, %v; want an error with %q", resp, err, tt.want)
			}
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("errors.Is(%v, %v) is false", err, tt.is)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error holds a secret: %v", err)
			}
			if !body.closed.Load() {
				t.Error("the body is still open")
			}
		})
	}
	t.Run("without a body", func(t *testing.T) {
		if _, err := good().RoundTrip(must(http.NewRequest(http.MethodGet, "http://api.example.com/", nil))); err == nil {
			t.Error("no error")
		}
		tr := good()
		tr.Prover = nil
		if _, err := tr.RoundTrip(must(http.NewRequest(http.MethodGet, "https://api.example.com/", nil))); err == nil {
			t.Error("no error")
		}
	})
}

// The answer that led to another request is read and closed, so that its
// connection can be used again.
func TestTransportClosesAnswers(t *testing.T) {
	first := &tracked{Reader: strings.NewReader(strings.Repeat("x", 1000))}
	rest := first.Reader.(*strings.Reader)
	challenge := nonceHeader("n")
	challenge.Set("WWW-Authenticate", `DPoP error="use_dpop_nonce"`)
	answers := []*http.Response{
		{StatusCode: 401, Body: first, Header: challenge},
		{StatusCode: 200, Body: http.NoBody, Header: http.Header{}},
	}
	tr := &Transport{Source: oauth2.StaticTokenSource(dpopToken("t")), Prover: newProver(t, p256Key()), Base: roundTripper(func(*http.Request) (*http.Response, error) {
		resp := answers[0]
		answers = answers[1:]
		return resp, nil
	})}
	if _, err := tr.RoundTrip(must(http.NewRequest(http.MethodGet, "https://h/", nil))); err != nil {
		t.Fatal(err)
	}
	if !first.closed.Load() || rest.Len() != 0 {
		t.Errorf("closed: %v, %d octets left", first.closed.Load(), rest.Len())
	}
}

// The server gets one header of each name, whatever the caller's map has.
func TestTransportOneHeaderEach(t *testing.T) {
	for _, tt := range []struct {
		tok  *oauth2.Token
		want string
	}{
		{dpopToken("t"), "1 Authorization, 1 DPoP"},
		{&oauth2.Token{AccessToken: "t"}, "1 Authorization, 0 DPoP"},
	} {
		for _, name := range []string{"Authorization", "authorization", "AUTHORIZATION", "Dpop", "DPoP", "dpop", "DPOP"} {
			t.Run(tt.tok.Type()+"/"+name, func(t *testing.T) {
				got := ""
				srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					got = fmt.Sprintf("%d Authorization, %d DPoP", len(r.Header.Values("Authorization")), len(r.Header.Values("DPoP")))
					if slices.Contains(r.Header.Values(name), "of the caller") {
						t.Error("the caller's own was sent")
					}
				}))
				defer srv.Close()
				req := must(http.NewRequest(http.MethodGet, srv.URL, nil))
				req.Header[name] = []string{"of the caller"}
				resp, err := newTransport(t, oauth2.StaticTokenSource(tt.tok)).RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				drain(resp)
				if got != tt.want {
					t.Errorf("%s, want %s", got, tt.want)
				}
				if len(req.Header) != 1 || req.Header[name][0] != "of the caller" {
					t.Errorf("the request was changed: %v", req.Header)
				}
			})
		}
	}
}

func TestTransportLeavesTheRequestAlone(t *testing.T) {
	srv := newResource(t, map[string]string{"bound": thumbprintOf(t, p256Key())}, nil)
	srv.setNonce("n")
	tr := newTransport(t, oauth2.StaticTokenSource(dpopToken("bound")))
	req := must(http.NewRequest(http.MethodPost, srv.URL+"/a?b", strings.NewReader("body")))
	req.Header.Set("Authorization", "Basic of-the-caller")
	req.Header.Set("X-Own", "1")
	header, u := req.Header.Clone(), *req.URL
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	drain(resp)
	if !maps.EqualFunc(req.Header, header, slices.Equal) || *req.URL != u {
		t.Errorf("the request was changed: %v %v", req.URL, req.Header)
	}
	if resp.Request != req {
		t.Error("the response is of another request")
	}

	req = &http.Request{URL: parseURL(t, srv.URL)} // no method, no header
	resp, err = tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	drain(resp)
	if resp.StatusCode != http.StatusOK || req.Header != nil || req.Method != "" {
		t.Errorf("status %d; the request was changed: %+v", resp.StatusCode, req)
	}
}

func TestTransportUsesTheContext(t *testing.T) {
	type key struct{}
	srv := newResource(t, map[string]string{"bound": thumbprintOf(t, p256Key())}, nil)
	src := &source{tokens: []*oauth2.Token{dpopToken("bound")}}
	tr := newTransport(t, src)
	signed := false
	tr.Prover = newProver(t, patient{opaque{p256Key()}, func(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
		signed = ctx.Value(key{}) == "v"
		return p256Key().Sign(nil, digest, opts)
	}})
	ctx := context.WithValue(t.Context(), key{}, "v")
	resp, err := tr.RoundTrip(must(http.NewRequestWithContext(ctx, http.MethodGet, srv.URL, nil)))
	if err != nil {
		t.Fatal(err)
	}
	drain(resp)
	if resp.StatusCode != http.StatusOK || src.ctx.Value(key{}) != "v" || !signed {
		t.Errorf("status %d, source had the context: %v, signer: %v", resp.StatusCode, src.ctx.Value(key{}) == "v", signed)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	body := &tracked{Reader: strings.NewReader("x")}
	if _, err := tr.RoundTrip(must(http.NewRequestWithContext(ctx, http.MethodPost, srv.URL, body))); !errors.Is(err, context.Canceled) || !body.closed.Load() {
		t.Errorf("cancelled: %v, body closed: %v", err, body.closed.Load())
	}
}

func TestTransportClock(t *testing.T) {
	var proof string
	tr := &Transport{Source: oauth2.StaticTokenSource(dpopToken("t")), Prover: newProver(t, p256Key()), Clock: at(testTime), Base: roundTripper(func(r *http.Request) (*http.Response, error) {
		proof = r.Header.Get("DPoP")
		return response(r, 200, http.Header{}), nil
	})}
	if _, err := tr.RoundTrip(must(http.NewRequest(http.MethodGet, "https://h/", nil))); err != nil {
		t.Fatal(err)
	}
	if got := string(takeApart(t, proof).payload["iat"]); got != strconv.FormatInt(testTime.Unix(), 10) {
		t.Errorf("iat = %s", got)
	}
}

// The server puts the target URI together from the Host that it received.
// The zone of an address is for the dialer: no server sees it.
func TestTransportZone(t *testing.T) {
	for _, address := range []string{"https://[fe80::1%25eth0]:8443/", "https://[fe80::1%25eth0]/", "http://[::1%25lo]/"} {
		tr := newTransport(t, oauth2.StaticTokenSource(dpopToken("bound")))
		var dialled, htu string
		tr.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
			dialled, htu = r.URL.String(), takeApart(t, r.Header.Get("DPoP")).claim(t, "htu")
			return response(r, 200, http.Header{}), nil
		})
		_, err := tr.RoundTrip(must(http.NewRequest(http.MethodGet, address, nil)))
		plain, _, _ := strings.Cut(address, "%")
		_, rest, _ := strings.Cut(address, "]")
		if want := plain + "]" + rest; err != nil && !strings.HasPrefix(address, "http:") || err == nil && (dialled != address || htu != want) {
			t.Errorf("%s: sent to %s with a proof for %s, %v", address, dialled, htu, err)
		}
	}
}

func TestTransportHost(t *testing.T) {
	srv := newResource(t, map[string]string{"bound": thumbprintOf(t, p256Key())}, nil)
	req := must(http.NewRequest(http.MethodGet, srv.URL+"/a", nil))
	req.Host = "api.example.com"
	resp, err := newTransport(t, oauth2.StaticTokenSource(dpopToken("bound"))).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	drain(resp)
	if resp.StatusCode != http.StatusOK {
		t.Errorf("status %d", resp.StatusCode)
	}
	if got := takeApart(t, srv.seen[0].proofs[0]).claim(t, "htu"); got != "http://api.example.com/a" {
		t.Errorf("htu = %s", got)
	}
}

// Virtual hosts at one address: each has its own nonces and its own clock.
func TestTransportVirtualHosts(t *testing.T) {
	type request struct{ host, nonce, iat string }
	var got []request
	tr := &Transport{Source: oauth2.StaticTokenSource(dpopToken("t")), Prover: newProver(t, p256Key()), Clock: at(testTime), Base: roundTripper(func(r *http.Request) (*http.Response, error) {
		p := takeApart(t, r.Header.Get("DPoP"))
		got = append(got, request{r.Host, p.claim(t, "nonce"), string(p.payload["iat"])})
		h := nonceHeader("nonce-of-" + r.Host)
		if r.Host == "a.example" { // two hours ahead
			h.Set("Date", testTime.Add(2*hour).UTC().Format(http.TimeFormat))
		} else {
			h.Set("Date", testTime.UTC().Format(http.TimeFormat))
		}
		return response(r, 200, h), nil
	})}
	send := func(host string) {
		req := must(http.NewRequest(http.MethodGet, "https://192.0.2.1/", nil))
		req.Host = host
		if _, err := tr.RoundTrip(req); err != nil {
			t.Fatal(err)
		}
	}
	now, ahead := strconv.FormatInt(testTime.Unix(), 10), strconv.FormatInt(testTime.Add(2*hour).Unix(), 10)
	want := []request{
		{"b.example", "", now}, {"a.example", "", now},
		{"b.example", "nonce-of-b.example", now}, {"a.example", "nonce-of-a.example", ahead},
		{"B.example:443", "nonce-of-b.example", now},
	}
	for _, r := range want {
		send(r.host)
	}
	if !slices.Equal(got, want) {
		t.Errorf("requests\n%v\nwant\n%v", got, want)
	}
}

// A redirect to another virtual host, or to another address of the same one, leaves
// the origin.
func TestTransportRedirectBetweenVirtualHosts(t *testing.T) {
	for name, tt := range map[string]struct {
		location string
		want     []string
	}{
		"relative":                     {"/there", []string{"192.0.2.1 a.example/go, credentials: true", "192.0.2.1 a.example/there, credentials: true"}},
		"to the address itself":        {"https://192.0.2.1/there", []string{"192.0.2.1 a.example/go, credentials: true", "192.0.2.1 192.0.2.1/there, credentials: false"}},
		"to another address":           {"https://192.0.2.2/there", []string{"192.0.2.1 a.example/go, credentials: true", "192.0.2.2 192.0.2.2/there, credentials: false"}},
		"to the same host by its name": {"https://a.example/there", []string{"192.0.2.1 a.example/go, credentials: true", "a.example a.example/there, credentials: false"}},
	} {
		for _, tok := range []*oauth2.Token{dpopToken("t"), {AccessToken: "t"}} {
			t.Run(name+"/"+tok.Type(), func(t *testing.T) {
				var got []string
				tr := newTransport(t, oauth2.StaticTokenSource(tok))
				tr.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
					host := r.Host
					if host == "" {
						host = r.URL.Host
					}
					got = append(got, fmt.Sprintf("%s %s%s, credentials: %v", r.URL.Host, host, r.URL.Path, r.Header.Get("Authorization") != ""))
					if r.URL.Path == "/go" {
						return response(r, http.StatusTemporaryRedirect, http.Header{"Location": {tt.location}}), nil
					}
					return response(r, 200, http.Header{}), nil
				})
				req := must(http.NewRequest(http.MethodGet, "https://192.0.2.1/go", nil))
				req.Host = "a.example"
				resp, err := (&http.Client{Transport: tr}).Do(req)
				if err != nil {
					t.Fatal(err)
				}
				drain(resp)
				if !slices.Equal(got, tt.want) {
					t.Errorf("requests\n%q\nwant\n%q", got, tt.want)
				}
			})
		}
	}
}

func TestTransportSharedNonces(t *testing.T) {
	srv := newResource(t, map[string]string{"bound": thumbprintOf(t, p256Key())}, nil)
	srv.setNonce("n")
	var shared Nonces
	for _, want := range [][]int{{401, 200}, {200}} {
		tr := newTransport(t, oauth2.StaticTokenSource(dpopToken("bound")))
		tr.Nonces = &shared
		get(t, tr, srv.URL)
		if got := srv.statuses(); !slices.Equal(got, want) {
			t.Errorf("requests %v, want %v", got, want)
		}
	}
	if got := shared.Nonce(parseURL(t, srv.URL)); got != "n" {
		t.Errorf("the shared nonce is %q", got)
	}
}

func TestTransportDefaultBase(t *testing.T) {
	srv := newResource(t, map[string]string{"plain": ""}, nil)
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	tr := &Transport{Source: oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "plain"})}
	if resp := get(t, tr, srv.URL); resp.StatusCode != http.StatusOK {
		t.Errorf("status %d", resp.StatusCode)
	}
}

// A redirect within the origin is a new request with a proof of its own.
func TestTransportSameOriginRedirect(t *testing.T) {
	srv := newResource(t, map[string]string{"bound": thumbprintOf(t, p256Key())}, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/one":
			http.Redirect(w, r, "/two?x", http.StatusTemporaryRedirect)
		case "/two":
			http.Redirect(w, r, "/three", http.StatusFound)
		}
	})
	srv.setNonce("n")
	client := &http.Client{Transport: newTransport(t, oauth2.StaticTokenSource(dpopToken("bound")))}
	resp, err := client.Post(srv.URL+"/one", "text/plain", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	drain(resp)
	var got []string
	ids := map[string]bool{}
	for _, r := range srv.seen {
		p := takeApart(t, r.proofs[0])
		got = append(got, fmt.Sprint(r.status, " ", r.method, " ", strings.TrimPrefix(p.claim(t, "htu"), srv.URL), " ", r.body))
		ids[p.claim(t, "jti")] = true
	}
	want := []string{"401 POST /one body", "307 POST /one body", "302 POST /two body", "200 GET /three "}
	if !slices.Equal(got, want) || len(ids) != len(want) {
		t.Errorf("requests %q with %d proofs, want %q", got, len(ids), want)
	}
}

// Once a redirect has left the origin, no request gets credentials: not there,
// and not where the other origin leads to, be it back.
func TestTransportCrossOriginRedirect(t *testing.T) {
	for _, tok := range []*oauth2.Token{dpopToken("secret"), {AccessToken: "secret"}} {
		for name, base := range map[string]func(http.RoundTripper) http.RoundTripper{
			"net/http": func(rt http.RoundTripper) http.RoundTripper { return rt },
			"a base that does not say which request it answers": func(rt http.RoundTripper) http.RoundTripper {
				return roundTripper(func(r *http.Request) (*http.Response, error) {
					resp, err := rt.RoundTrip(r)
					if err == nil {
						resp.Request = nil
					}
					return resp, err
				})
			},
		} {
			t.Run(tok.Type()+"/"+name, func(t *testing.T) {
				var log []string
				record := func(w http.ResponseWriter, r *http.Request) {
					line := r.Method + " " + r.Host + r.URL.Path
					if r.Header.Get("Authorization") != "" || r.Header.Get("DPoP") != "" {
						line += " with credentials"
					}
					log = append(log, line)
				}
				var home, away *httptest.Server
				home = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					record(w, r)
					switch r.URL.Path {
					case "/start":
						http.Redirect(w, r, "/second", http.StatusTemporaryRedirect)
					case "/second":
						http.Redirect(w, r, away.URL+"/there", http.StatusTemporaryRedirect)
					}
				}))
				defer home.Close()
				away = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					record(w, r)
					switch r.URL.Path {
					case "/there":
						http.Redirect(w, r, "/there/again", http.StatusTemporaryRedirect)
					case "/there/again":
						http.Redirect(w, r, home.URL+"/back", http.StatusTemporaryRedirect)
					}
				}))
				defer away.Close()

				tr := newTransport(t, oauth2.StaticTokenSource(tok))
				tr.Base = base(tr.Base)
				resp, err := (&http.Client{Transport: tr}).Get(home.URL + "/start")
				if err != nil {
					t.Fatal(err)
				}
				drain(resp)
				h, a := strings.TrimPrefix(home.URL, "http://"), strings.TrimPrefix(away.URL, "http://")
				want := []string{
					"GET " + h + "/start with credentials", "GET " + h + "/second with credentials",
					"GET " + a + "/there", "GET " + a + "/there/again", "GET " + h + "/back",
				}
				if !slices.Equal(log, want) {
					t.Errorf("requests\n%s\nwant\n%s", strings.Join(log, "\n"), strings.Join(want, "\n"))
				}
			})
		}
	}
}

// A Base may make requests of its own, as those that record or trace do. The chain of
// redirects then leads to the caller's requests all the same.
func TestTransportRedirectThroughAnotherBase(t *testing.T) {
	for _, tok := range []*oauth2.Token{dpopToken("bound"), {AccessToken: "plain"}} {
		var there []string
		away := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			there = append(there, r.URL.Path)
			for _, name := range []string{"Authorization", "DPoP"} {
				if v := r.Header.Get(name); v != "" {
					t.Errorf("%s at the other origin: %s: %s", r.URL.Path, name, v)
				}
			}
			if r.URL.Path == "/1" {
				http.Redirect(w, r, "/2", http.StatusFound)
			}
		}))
		defer away.Close()
		home := httptest.NewServer(http.RedirectHandler(away.URL+"/1", http.StatusFound))
		defer home.Close()
		tr := newTransport(t, oauth2.StaticTokenSource(tok))
		inner := tr.Base
		tr.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
			out, err := http.NewRequestWithContext(r.Context(), r.Method, r.URL.String(), r.Body)
			if err != nil {
				return nil, err
			}
			out.Header = r.Header
			return inner.RoundTrip(out)
		})
		if resp := get(t, tr, home.URL); resp.StatusCode != 200 || !slices.Equal(there, []string{"/1", "/2"}) {
			t.Errorf("status %d, requests at the other origin: %v", resp.StatusCode, there)
		}
	}
}

// Where it cannot be told which request led to a redirect, credentials stay home.
func TestTransportUnknownOrigin(t *testing.T) {
	for name, cause := range map[string]*http.Response{
		"no request": {},
		"no URL":     {Request: &http.Request{}},
	} {
		t.Run(name, func(t *testing.T) {
			req := must(http.NewRequest(http.MethodPost, "https://h/", strings.NewReader("x")))
			req.Response = cause
			tr := &Transport{Base: roundTripper(func(r *http.Request) (*http.Response, error) {
				if r != req {
					t.Error("the request was changed")
				}
				return response(r, 200, http.Header{}), nil
			})}
			if resp, err := tr.RoundTrip(req); err != nil || resp.StatusCode != http.StatusOK {
				t.Errorf("%v, %v", resp, err)
			}
		})
	}
}

func TestTransportConcurrently(t *testing.T) {
	srv := newResource(t, map[string]string{"bound": thumbprintOf(t, p256Key())}, nil)
	srv.setNonce("n")
	tr := newTransport(t, oauth2.StaticTokenSource(dpopToken("bound")))
	client := &http.Client{Transport: tr, Timeout: time.Minute}
	const routines, each = 8, 20
	var wg sync.WaitGroup
	for range routines {
		wg.Go(func() {
			for i := range each {
				resp, err := client.Post(srv.URL+"/"+strconv.Itoa(i), "text/plain", strings.NewReader("body"))
				if err != nil {
					t.Error(err)
					return
				}
				drain(resp)
				if resp.StatusCode != http.StatusOK {
					t.Errorf("status %d", resp.StatusCode)
				}
			}
		})
	}
	wg.Wait()
	ids := map[string]bool{}
	good := 0
	for _, r := range srv.seen {
		ids[takeApart(t, r.proofs[0]).claim(t, "jti")] = true
		if r.status == http.StatusOK {
			good++
		}
	}
	if good != routines*each || len(ids) != len(srv.seen) || len(srv.seen) > good+routines {
		t.Errorf("%d requests, %d good, %d proofs", len(srv.seen), good, len(ids))
	}
}

func TestTarget(t *testing.T) {
	for _, tt := range []struct{ url, host, want string }{
		{"https://h/a?b", "", "https://h/a?b"},
		{"https://h/a", "h", "https://h/a"},
		{"https://h:8443/a", "other", "https://other/a"},
		{"https://h/a%2Fb", "other:1", "https://other:1/a%2Fb"},
	} {
		u := parseURL(t, tt.url)
		if got := target(&http.Request{URL: u, Host: tt.host}).String(); got != tt.want || u.String() != tt.url {
			t.Errorf("target(%s, %s) = %s", tt.url, tt.host, got)
		}
	}
	opaque := &url.URL{Scheme: "https", Host: "h", Opaque: "//h/a%2fb"}
	if got := target(&http.Request{URL: opaque}).String(); got != "https://h/a%2fb" {
		t.Errorf("opaque: %s", got)
	}
}
