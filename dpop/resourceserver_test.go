package dpop

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/oauth2"
)

const (
	apiBase = "https://api.example.com/v1"
	apiURL  = apiBase + "/things"
	algs    = `algs="ES256 ES384 ES512 EdDSA Ed25519 PS256 RS256"`
)

var errLookup = errors.New("the database with the password hunter2 is down")

// newServer is a resource server whose clock stands still, which accepts the tokens
// "bound", of the usual key, "other", of another one, and "plain".
func newServer(tb testing.TB, change func(*ResourceServer)) *ResourceServer {
	tb.Helper()
	tokens := map[string]TokenInfo{
		"bound": {Thumbprint: thumbprintOf(tb, p256Key()), Value: "alice"},
		"other": {Thumbprint: thumbprintOf(tb, edKey()), Value: "bob"},
		"plain": {Value: "carol"},
	}
	s := &ResourceServer{
		BaseURL:  apiBase,
		Bearer:   true,
		Verifier: &Verifier{Now: at(testTime)},
		Lookup: func(_ context.Context, token string) (TokenInfo, error) {
			if token == "down" {
				return TokenInfo{}, errLookup
			}
			info, ok := tokens[token]
			if !ok {
				return info, fmt.Errorf("%w: hunter2 is not a token", ErrInvalidToken)
			}
			return info, nil
		},
	}
	if change != nil {
		change(s)
	}
	return s
}

// handler answers with the subject of the token.
func (s *ResourceServer) handler() http.Handler {
	return s.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello %v", TokenInfoFromContext(r.Context()).Value)
	}))
}

// apiProof is a proof for apiRequest with the token "bound".
func apiProof(tb testing.TB, changes ...func(*forgery)) string {
	return forge(tb, func(f *forgery) {
		f.payload["jti"], f.payload["htm"], f.payload["htu"] = rand.Text(), "GET", apiURL
		f.payload["ath"] = string(appendATH(nil, "bound"))
		for _, change := range changes {
			change(f)
		}
	})
}

// apiRequest is a request as it arrives behind a proxy that removed the prefix of apiBase.
// proof is left out if it is "".
func apiRequest(authorization, proof string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "http://10.0.0.7:8080/things", nil)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	if proof != "" {
		r.Header.Set("DPoP", proof)
	}
	return r
}

func serve(h http.Handler, r *http.Request) *http.Response {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

// wantResponse checks the status and every WWW-Authenticate header.
func wantResponse(tb testing.TB, resp *http.Response, status int, challenges ...string) {
	tb.Helper()
	if got := resp.Header.Values("WWW-Authenticate"); resp.StatusCode != status || !slices.Equal(got, challenges) {
		tb.Errorf("%d\n got %q\nwant %d\n     %q", resp.StatusCode, got, status, challenges)
	}
}

func failed(scheme, code, description string) string {
	c := fmt.Sprintf(`%s error="%s", error_description="%s"`, scheme, code, description)
	if scheme == "DPoP" {
		c += ", " + algs
	}
	return c
}

const (
	plainDPoP   = "DPoP " + algs
	plainBearer = "Bearer"
)

func TestResourceServerAccepts(t *testing.T) {
	for _, tt := range []struct {
		name, authorization, proof string
		body                       string
	}{
		{"DPoP", "DPoP bound", apiProof(t), "hello alice"},
		{"in other case", "dPOP bound", apiProof(t), "hello alice"},
		{"several spaces", "DPoP   bound", apiProof(t), "hello alice"},
		{"Bearer", "Bearer plain", "", "hello carol"},
		{"Bearer in other case, with a proof that nobody asked for", "bEARER plain", "not a proof", "hello carol"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var seen []Outcome
			s := newServer(t, func(s *ResourceServer) {
				s.Observe = func(_ context.Context, o Outcome) { seen = append(seen, o) }
			})
			resp := serve(s.handler(), apiRequest(tt.authorization, tt.proof))
			wantResponse(t, resp, http.StatusOK)
			if body, _ := io.ReadAll(resp.Body); string(body) != tt.body || resp.Header.Get(NonceHeader)+resp.Header.Get("Cache-Control") != "" {
				t.Errorf("%q, %v", body, resp.Header)
			}
			scheme, _, _ := parseAuthorization(tt.authorization)
			if !slices.Equal(seen, []Outcome{{Scheme: scheme}}) {
				t.Errorf("observed %+v", seen)
			}
		})
	}
}

func TestTokenInfoFromContext(t *testing.T) {
	if got := TokenInfoFromContext(t.Context()); got != nil {
		t.Errorf("%+v without a ResourceServer", got)
	}
	forged := &VerifiedProof{ID: "of Lookup"}
	s := newServer(t, nil)
	lookup := s.Lookup
	s.Lookup = func(ctx context.Context, token string) (TokenInfo, error) {
		info, err := lookup(ctx, token)
		info.Proof = forged
		return info, err
	}
	var got *TokenInfo
	h := s.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = TokenInfoFromContext(r.Context()) }))
	serve(h, apiRequest("DPoP bound", apiProof(t, claim("jti", "an-id"))))
	if got == nil || got.Value != "alice" || got.Thumbprint != thumbprintOf(t, p256Key()) || got.Proof == nil || got.Proof.ID != "an-id" || got.Proof.URL != apiURL {
		t.Errorf("%+v", got)
	}
	serve(h, apiRequest("Bearer plain", ""))
	if got == nil || got.Value != "carol" || got.Thumbprint != "" || got.Proof != nil {
		t.Errorf("%+v", got)
	}
}

// hmacProof is signed with HS256, with the octets of the public key as the secret.
func hmacProof(tb testing.TB) string {
	return apiProof(tb, func(f *forgery) {
		f.header["alg"] = "HS256"
		input := base64.RawURLEncoding.EncodeToString(must(json.Marshal(f.header))) + "." + base64.RawURLEncoding.EncodeToString(must(json.Marshal(f.payload)))
		mac := hmac.New(sha256.New, must(jose.JSONWebKey{Key: f.key.Public()}.MarshalJSON()))
		mac.Write([]byte(input))
		f.signature = mac.Sum(nil)
	})
}

// TestResourceServerRefuses: attacks and mistakes, each with its exact challenge.
func TestResourceServerRefuses(t *testing.T) {
	const (
		badProof = "invalid_dpop_proof"
		badToken = "invalid_token"
		badReq   = "invalid_request"
	)
	other := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	header := func(name string, values ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header[http.CanonicalHeaderKey(name)] = values }
	}
	query := func(q string) func(*http.Request) { return func(r *http.Request) { r.URL.RawQuery = q } }
	dpopFailed := func(code, description string) []string {
		return []string{failed("DPoP", code, description), plainBearer}
	}
	bearerFailed := func(code, description string) []string {
		return []string{failed("Bearer", code, description), plainDPoP}
	}
	none := []string{plainDPoP, plainBearer}
	one := "the Authorization header is not a scheme and one access token of at most 16 KiB"

	for _, tt := range []struct {
		name          string
		authorization string
		proof         string
		change        func(*http.Request)
		status        int
		challenges    []string
		is            error
	}{
		// No credentials, or several (RFC 6750 §2, §3.1).
		{"no token", "", "", nil, 401, none, nil},
		{"a proof only", "", apiProof(t), nil, 401, none, nil},
		{"an empty header", "", "", header("Authorization", ""), 401, none, nil},
		{"another scheme", "Basic eHl6", "", nil, 401, none, nil},
		{"a scheme that begins as ours", "DPoPs bound", apiProof(t), nil, 401, none, nil},
		{"token in the query", "", apiProof(t), query("access_token=bound"), 401, none, nil},
		{"token in the query as well", "DPoP bound", apiProof(t), query("a=b&access_token=bound"), 400, dpopFailed(badReq, "the request has a second access token in the query"), nil},
		{"escaped in the query", "Bearer plain", "", query("%61ccess_token="), 400, bearerFailed(badReq, "the request has a second access token in the query"), nil},
		{"two Authorization headers", "", apiProof(t), header("Authorization", "DPoP bound", "DPoP bound"), 400, dpopFailed(badReq, "the request has more than one Authorization header"), nil},
		{"one of each scheme", "", apiProof(t), header("Authorization", "Bearer plain", "DPoP bound"), 400, dpopFailed(badReq, "the request has more than one Authorization header"), nil},
		{"two in one header", "DPoP bound, DPoP bound", apiProof(t), nil, 400, dpopFailed(badReq, one), nil},
		{"no token after the scheme", "DPoP", apiProof(t), nil, 400, dpopFailed(badReq, one), nil},
		{"spaces after the scheme", "Bearer   ", "", nil, 400, bearerFailed(badReq, one), nil},
		{"two tokens", "Bearer plain plain", "", nil, 400, bearerFailed(badReq, one), nil},
		{"a tab", "DPoP\tbound", apiProof(t), nil, 401, none, nil},
		{"a quote in the token", `DPoP bo"und`, apiProof(t), nil, 400, dpopFailed(badReq, one), nil},
		{"an equals sign in the token", "DPoP bo=und", apiProof(t), nil, 400, dpopFailed(badReq, one), nil},
		{"nothing but padding", "DPoP ==", apiProof(t), nil, 400, dpopFailed(badReq, one), nil},
		{"an oversized token", "DPoP " + strings.Repeat("a", maxAccessToken+1), apiProof(t), nil, 400, dpopFailed(badReq, one), nil},

		// The token (RFC 9449 §7.1, §7.2).
		{"unknown", "DPoP gone", apiProof(t), nil, 401, dpopFailed(badToken, "the access token is unknown, expired or revoked"), ErrInvalidToken},
		{"unknown, as Bearer", "Bearer gone", "", nil, 401, bearerFailed(badToken, "the access token is unknown, expired or revoked"), ErrInvalidToken},
		{"of the longest size", "Bearer " + strings.Repeat("a", maxAccessToken), "", nil, 401, bearerFailed(badToken, "the access token is unknown, expired or revoked"), ErrInvalidToken},
		{"downgrade", "Bearer bound", "", nil, 401, bearerFailed(badToken, "the access token is bound to a key: its scheme is DPoP"), nil},
		{"downgrade, with the proof", "Bearer bound", apiProof(t), nil, 401, bearerFailed(badToken, "the access token is bound to a key: its scheme is DPoP"), nil},
		{"not bound, as DPoP", "DPoP plain", apiProof(t), nil, 401, dpopFailed(badToken, "the access token is not bound to a key"), ErrUnboundToken},
		{"of another key", "DPoP other", apiProof(t, claim("ath", string(appendATH(nil, "other")))), nil, 401, dpopFailed(badToken, "made with another key than the token is bound to"), ErrWrongKey},
		{"stolen, with a key of the thief's", "DPoP bound", apiProof(t, func(f *forgery) { f.key, f.header["jwk"] = other, jose.JSONWebKey{Key: other.Public()} }), nil, 401, dpopFailed(badToken, "made with another key than the token is bound to"), ErrWrongKey},

		// The proof (RFC 9449 §4.3).
		{"no proof", "DPoP bound", "", nil, 401, dpopFailed(badProof, "the request has no DPoP header"), nil},
		{"two proofs", "DPoP bound", "", header("DPoP", apiProof(t), apiProof(t)), 401, dpopFailed(badProof, "the request has more than one DPoP header"), nil},
		{"two proofs in one header", "DPoP bound", apiProof(t) + ", " + apiProof(t), nil, 401, dpopFailed(badProof, "not a compact JWS with a public key"), nil},
		{"alg none", "DPoP bound", apiProof(t, func(f *forgery) { f.header["alg"], f.signature = "none", []byte{} }), nil, 401, dpopFailed(badProof, "the algorithm is not an accepted one (alg)"), nil},
		{"HS256 with the public key", "DPoP bound", hmacProof(t), nil, 401, dpopFailed(badProof, "the algorithm is not an accepted one (alg)"), nil},
		{"oversized", "DPoP bound", apiProof(t, claim("pad", strings.Repeat("x", maxProof))), nil, 401, dpopFailed(badProof, "longer than 16 KiB"), nil},
		{"signed by another key", "DPoP bound", apiProof(t, func(f *forgery) { f.key = other }), nil, 401, dpopFailed(badProof, "the signature does not verify with the key in the header"), nil},
		{"for a token endpoint", "DPoP bound", apiProof(t, without("ath")), nil, 401, dpopFailed(badProof, "no hash of the access token (ath)"), nil},
		{"for another token", "DPoP bound", apiProof(t, claim("ath", string(appendATH(nil, "other")))), nil, 401, dpopFailed(badProof, "made for another access token (ath)"), nil},
		{"for another method", "DPoP bound", apiProof(t, claim("htm", "POST")), nil, 401, dpopFailed(badProof, "made for another method (htm)"), nil},
		{"for another path", "DPoP bound", apiProof(t, claim("htu", apiBase+"/other")), nil, 401, dpopFailed(badProof, "made for another URL (htu)"), nil},
		{"for another host", "DPoP bound", apiProof(t, claim("htu", "https://other.example.com/v1/things")), nil, 401, dpopFailed(badProof, "made for another URL (htu)"), nil},
		{"for plain http", "DPoP bound", apiProof(t, claim("htu", "http://api.example.com/v1/things")), nil, 401, dpopFailed(badProof, "made for another URL (htu)"), nil},
		{"too old", "DPoP bound", apiProof(t, claim("iat", testTime.Unix()-71)), nil, 401, dpopFailed(badProof, "made 1m11s ago (iat): the prover's clock is behind, or the proof is old"), ErrIssuedAt},
		{"from the future", "DPoP bound", apiProof(t, claim("iat", testTime.Unix()+11)), nil, 401, dpopFailed(badProof, "made 11s in the future (iat): the prover's clock is ahead"), ErrIssuedAt},

		// What cannot be checked.
		{"the lookup fails", "DPoP down", apiProof(t), nil, 503, nil, errLookup},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var seen []Outcome
			s := newServer(t, func(s *ResourceServer) {
				s.Observe = func(_ context.Context, o Outcome) { seen = append(seen, o) }
			})
			r := apiRequest(tt.authorization, tt.proof)
			if tt.change != nil {
				tt.change(r)
			}
			resp := serve(s.handler(), r)
			wantResponse(t, resp, tt.status, tt.challenges...)
			if got := resp.Header.Get("Retry-After"); (got == "5") != (tt.status == 503) {
				t.Errorf("Retry-After %q", got)
			}
			if len(seen) != 1 || seen[0].Status != tt.status || seen[0].Reason == "" {
				t.Fatalf("observed %+v", seen)
			}
			o := seen[0]
			if tt.is != nil && !errors.Is(o.Err, tt.is) {
				t.Errorf("error %v, want %v", o.Err, tt.is)
			}
			if o.Code != "" && !slices.ContainsFunc(tt.challenges, func(c string) bool { return strings.Contains(c, `error="`+o.Code+`"`) }) {
				t.Errorf("observed the code %q", o.Code)
			}
			if !validParam(o.Reason) {
				t.Errorf("the reason %q cannot be quoted", o.Reason)
			}
			// Nothing of the request, nor of an error of the program, is sent back.
			text := strings.Join(append(resp.Header.Values("WWW-Authenticate"), string(must(io.ReadAll(resp.Body)))), "\n")
			for _, part := range append(strings.Split(tt.proof, "."), "hunter2", "gone", "plain", "eHl6", "10.0.0.7", "example") {
				if part != "" && strings.Contains(text, part) {
					t.Errorf("%q is in the response: %s", part, text)
				}
			}
		})
	}
}

// A server that accepts bound tokens only says nothing of Bearer.
func TestResourceServerDPoPOnly(t *testing.T) {
	s := newServer(t, func(s *ResourceServer) {
		s.Bearer = false
		s.Verifier.Algorithms = []jose.SignatureAlgorithm{jose.ES256}
		s.Realm, s.ResourceMetadata = "things", "https://api.example.com/.well-known/oauth-protected-resource"
	})
	const challenge = `DPoP realm="things", algs="ES256", resource_metadata="https://api.example.com/.well-known/oauth-protected-resource"`
	for _, authorization := range []string{"", "Bearer plain", "Bearer bound", "Bearer", "Bearer gone"} {
		wantResponse(t, serve(s.handler(), apiRequest(authorization, "")), 401, challenge)
	}
	wantResponse(t, serve(s.handler(), apiRequest("DPoP gone", "")), 401,
		`DPoP realm="things", error="invalid_token", error_description="the access token is unknown, expired or revoked", algs="ES256", resource_metadata="https://api.example.com/.well-known/oauth-protected-resource"`)
	wantResponse(t, serve(s.handler(), apiRequest("DPoP bound", apiProof(t))), 200)
}

// WriteError writes in the format of the API, and finds the headers set.
func TestResourceServerWriteError(t *testing.T) {
	s := newServer(t, func(s *ResourceServer) {
		s.WriteError = func(w http.ResponseWriter, _ *http.Request, o Outcome) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(o.Status)
			_ = json.NewEncoder(w).Encode(map[string]string{"error": o.Code, "message": o.Reason})
		}
	})
	resp := serve(s.handler(), apiRequest("DPoP bound", ""))
	wantResponse(t, resp, 401, failed("DPoP", "invalid_dpop_proof", "the request has no DPoP header"), plainBearer)
	if body := string(must(io.ReadAll(resp.Body))); body != `{"error":"invalid_dpop_proof","message":"the request has no DPoP header"}`+"\n" {
		t.Errorf("body %q", body)
	}
}

// A WriteError that sets no status does not turn a rejection into a success.
func TestResourceServerWriteErrorWithoutStatus(t *testing.T) {
	for name, write := range map[string]func(http.ResponseWriter){
		"nothing": func(http.ResponseWriter) {},
		"a body":  func(w http.ResponseWriter) { _, _ = io.WriteString(w, "{}") },
		"copied":  func(w http.ResponseWriter) { _, _ = io.Copy(w, strings.NewReader("{}")) },
		"flushed": func(w http.ResponseWriter) { w.(http.Flusher).Flush() },
		"flushed by a controller": func(w http.ResponseWriter) {
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
		},
		"early hints": func(w http.ResponseWriter) { w.WriteHeader(http.StatusEarlyHints) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, func(s *ResourceServer) {
				s.WriteError = func(w http.ResponseWriter, _ *http.Request, _ Outcome) { write(w) }
			})
			srv := httptest.NewServer(s.handler())
			defer srv.Close()
			resp, err := srv.Client().Get(srv.URL)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			wantResponse(t, resp, 401, plainDPoP, plainBearer)
		})
	}
}

func TestResourceServerMisconfigured(t *testing.T) {
	for name, change := range map[string]func(*ResourceServer){
		"BaseURL is":     func(s *ResourceServer) { s.BaseURL = "" },
		"BaseURL a path": func(s *ResourceServer) { s.BaseURL = "/v1" },
		"BaseURL query":  func(s *ResourceServer) { s.BaseURL = "https://h/?a" },
		"Lookup":         func(s *ResourceServer) { s.Lookup = nil },
		"Realm":          func(s *ResourceServer) { s.Realm = `a"b` },
		"Metadata":       func(s *ResourceServer) { s.ResourceMetadata = "https://h/\n" },
		"Nonces":         func(s *ResourceServer) { s.Nonces = new(NonceIssuer) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				field, _, _ := strings.Cut(name, " ")
				if got := fmt.Sprint(recover()); !strings.Contains(got, "ResourceServer.") || !strings.Contains(got, field) {
					t.Errorf("%s", got)
				}
			}()
			newServer(t, change).handler()
		})
	}
	defer func() {
		if got := fmt.Sprint(recover()); !strings.Contains(got, "handler") {
			t.Errorf("%s", got)
		}
	}()
	newServer(t, nil).Handler(nil)
}

// TestResourceServerProxy: the URL of the proof is the client's, and no header of a
// request changes what it is compared with.
func TestResourceServerProxy(t *testing.T) {
	refused := failed("DPoP", "invalid_dpop_proof", "made for another URL (htu)")
	for _, tt := range []struct {
		name, base, path, htu string
		ok                    bool
	}{
		{"prefix removed by the proxy", apiBase, "/things", apiURL, true},
		{"slash at the end of the base", apiBase + "/", "/things", apiURL, true},
		{"port", "https://api.example.com:8443", "/things", "https://api.example.com:8443/things", true},
		{"not in normal form", "HTTPS://API.example.com:443/v1", "/%74hings", apiURL, true},
		{"the base itself", apiBase, "/", apiBase + "/", true},
		{"escapes", apiBase, "/a%2fb%20c", apiBase + "/a%2Fb%20c", true},
		{"the URL behind the proxy", apiBase, "/things", "http://10.0.0.7:8080/things", false},
		{"the URL without the prefix", apiBase, "/things", "https://api.example.com/things", false},
		{"path beside the base", apiBase, "/../admin", "https://api.example.com/admin", false},
		{"escaped", apiBase, "/%2e%2e/admin", "https://api.example.com/admin", false},
		{"path that has the base twice", apiBase, "/v1/things", apiURL, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t, func(s *ResourceServer) { s.BaseURL, s.Bearer = tt.base, false })
			r := apiRequest("DPoP bound", apiProof(t, claim("htu", tt.htu)))
			r.URL = parseURL(t, "http://10.0.0.7:8080"+tt.path)
			if resp := serve(s.handler(), r); tt.ok {
				wantResponse(t, resp, 200)
			} else {
				wantResponse(t, resp, 401, refused)
			}
		})
	}

	// A thief's proof for a host of the thief's.
	forwarded := func(r *http.Request) {
		r.Host = "evil.example"
		for name, value := range map[string]string{
			"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/v1",
			"Forwarded": "host=evil.example;proto=https", "X-Original-Url": "https://evil.example/v1/things",
		} {
			r.Header.Set(name, value)
		}
	}
	request := func(htu string) *http.Request {
		r := apiRequest("DPoP bound", apiProof(t, claim("htu", htu)))
		forwarded(r)
		return r
	}
	s := newServer(t, func(s *ResourceServer) { s.Bearer = false })
	wantResponse(t, serve(s.handler(), request("https://evil.example/v1/things")), 401, refused)
	wantResponse(t, serve(s.handler(), request(apiURL)), 200)

	// A function of the program's may believe what it knows to be right.
	byHost := newServer(t, func(s *ResourceServer) {
		s.Bearer, s.BaseURL = false, ""
		s.BaseURLFunc = func(r *http.Request) string {
			return map[string]string{"evil.example": apiBase, "a": "https://a.example", "b": "not a URL"}[r.Host]
		}
	})
	wantResponse(t, serve(byHost.handler(), request(apiURL)), 200)
	wantResponse(t, serve(byHost.handler(), request("https://evil.example/v1/things")), 401, refused)
	for _, host := range []string{"b", "unknown"} {
		r := request(apiURL)
		r.Host = host
		wantResponse(t, serve(byHost.handler(), r), 400, failed("DPoP", "invalid_request", "this server has no resource at the URL of the request"))
	}

	// A prefix that the program itself removes, and a request that is for no path.
	stripped := http.StripPrefix("/v1", s.handler())
	r := apiRequest("DPoP bound", apiProof(t))
	r.URL = parseURL(t, "http://10.0.0.7:8080/v1/things")
	wantResponse(t, serve(stripped, r), 200)
	r = apiRequest("DPoP bound", apiProof(t, claim("htm", "OPTIONS"), claim("htu", apiBase+"/")))
	r.Method, r.URL.Path, r.RequestURI = "OPTIONS", "*", "*"
	wantResponse(t, serve(s.handler(), r), 200)
}

// TestResourceServerStripPrefix: a prefix with a slash at its end leaves paths without one at
// their beginning, and each is still a path of its own.
func TestResourceServerStripPrefix(t *testing.T) {
	refused := failed("DPoP", "invalid_dpop_proof", "made for another URL (htu)")
	s := newServer(t, func(s *ResourceServer) { s.Bearer = false })
	for _, prefix := range []string{"/v1", "/v1/"} {
		h := http.StripPrefix(prefix, s.handler())
		for _, tt := range []struct {
			method, path, htu string
			ok                bool
		}{
			{"GET", "/v1/things", apiURL, true},
			{"GET", "/v1/things", apiBase + "/", false},
			{"GET", "/v1/things", apiBase + "/other", false},
			{"GET", "/v1/%2e%2e/things", "https://api.example.com/things", false},
			{"OPTIONS", "/v1/*", apiBase + "/*", true},
			{"OPTIONS", "/v1/*", apiBase + "/", false},
		} {
			r := httptest.NewRequest(tt.method, tt.path, nil)
			r.Header.Set("Authorization", "DPoP bound")
			r.Header.Set("DPoP", apiProof(t, claim("htm", tt.method), claim("htu", tt.htu)))
			t.Run(prefix+" "+tt.path+" "+tt.htu, func(t *testing.T) {
				if resp := serve(h, r); tt.ok {
					wantResponse(t, resp, 200)
				} else {
					wantResponse(t, resp, 401, refused)
				}
			})
		}
	}
}

// TestResourceServerTarget: a proof for the base reaches nothing else through a proxy, in
// whatever form the target of the request is.
func TestResourceServerTarget(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "served ", r.URL.Path)
	}))
	defer backend.Close()
	target := parseURL(t, backend.URL)
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: &http.Transport{DisableKeepAlives: true},
	}
	s := newServer(t, nil)
	front := httptest.NewServer(s.Handler(proxy))
	defer front.Close()
	for _, tt := range []struct {
		method, target, path string
		status               int
	}{
		{"GET", "/", "/", 200},
		{"GET", "/things?a=b", "/things", 200},
		{"GET", "http://evil.example/things", "/things", 200},
		{"GET", "HTTPS://evil.example/things", "/things", 200},
		{"OPTIONS", "*", "/", 200},
		{"GET", "//evil.example/things", "/", 401},
		{"GET", "a:http://x/things", "/", 400},
		{"GET", "http:http://x/things", "/", 400},
		{"GET", "http:things", "/", 400},
		{"GET", "http:/things", "/things", 400},
		{"GET", "http:///things", "/things", 400},
		{"GET", "http://x", "/", 400},
		{"GET", "http://x?a=/", "/", 400},
		{"GET", "a:/things", "/things", 400},
		{"GET", "a://x/things", "/things", 400},
		{"GET", "*", "/", 400},
		{"CONNECT", "x:443", "/", 400},
		{"CONNECT", "x:443/things", "/things", 400},
	} {
		for _, authorization := range []string{"DPoP bound", "Bearer plain"} {
			t.Run(tt.method+" "+tt.target+" "+authorization, func(t *testing.T) {
				scheme, _, _ := strings.Cut(authorization, " ")
				c, err := net.Dial("tcp", front.Listener.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: %s\r\nDPoP: %s\r\n\r\n",
					tt.method, tt.target, authorization, apiProof(t, claim("htm", tt.method), claim("htu", apiBase+tt.path)))
				resp, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				body := must(io.ReadAll(resp.Body))
				switch {
				case scheme == "Bearer" && tt.status == 401: // no proof is compared
				case resp.StatusCode != tt.status:
					t.Errorf("%d %s, want %d", resp.StatusCode, body, tt.status)
				case tt.status == 400 && !strings.Contains(resp.Header.Get("WWW-Authenticate"), scheme+` error="invalid_request"`):
					t.Errorf("%v", resp.Header)
				}
			})
		}
	}

	// In a request that the program made itself.
	r := apiRequest("DPoP bound", apiProof(t, claim("htu", apiBase+"/")))
	r.RequestURI, r.URL = "", &url.URL{Scheme: "a", Opaque: "http://x/things"}
	wantResponse(t, serve(s.handler(), r), 400, failed("DPoP", "invalid_request", "the target of the request is neither a path nor an http or https URL with a path"), plainBearer)
}

// sharedReplays is a ReplayCache in memory.
type sharedReplays struct {
	mu    sync.Mutex
	until map[string]time.Time
	lives []time.Duration
	err   error
	hang  bool
}

func (c *sharedReplays) Add(ctx context.Context, id string, life time.Duration) (bool, error) {
	if c.hang {
		<-ctx.Done()
		return false, ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return true, c.err
	}
	if until, ok := c.until[id]; ok && time.Now().Before(until) {
		return false, nil
	}
	if c.until == nil {
		c.until = map[string]time.Time{}
	}
	c.until[id], c.lives = time.Now().Add(life), append(c.lives, life)
	return true, nil
}

// TestResourceServerReplay: a proof is accepted once, by one server and by two replicas with a
// shared cache.
func TestResourceServerReplay(t *testing.T) {
	refused := []string{failed("DPoP", "invalid_dpop_proof", "the same proof was sent before (jti)"), plainBearer}
	proof := apiProof(t)
	s := newServer(t, nil)
	wantResponse(t, serve(s.handler(), apiRequest("DPoP bound", proof)), 200)
	wantResponse(t, serve(s.handler(), apiRequest("DPoP bound", proof)), 401, refused...) // another handler of the same server

	own := newServer(t, func(s *ResourceServer) { s.Verifier = nil })
	now := apiProof(t, claim("iat", time.Now().Unix()))
	wantResponse(t, serve(own.handler(), apiRequest("DPoP bound", now)), 200)
	wantResponse(t, serve(own.handler(), apiRequest("DPoP bound", now)), 401, refused...)

	shared := new(sharedReplays)
	replica := func() http.Handler {
		return newServer(t, func(s *ResourceServer) { s.Verifier.Replays = shared }).handler()
	}
	a, b := replica(), replica()
	wantResponse(t, serve(a, apiRequest("DPoP bound", proof)), 200)
	wantResponse(t, serve(b, apiRequest("DPoP bound", proof)), 401, refused...)
	wantResponse(t, serve(b, apiRequest("DPoP bound", apiProof(t))), 200)
	// A proof that fails another check is not remembered: nobody can use up that of somebody else.
	wantResponse(t, serve(b, apiRequest("DPoP other", proof)), 401, failed("DPoP", "invalid_dpop_proof", "made for another access token (ath)"), plainBearer)
	if want := 80 * time.Second; !slices.Equal(shared.lives, []time.Duration{want, want}) {
		t.Errorf("remembered for %v, want twice %v: MaxAge and Leeway, and Leeway for the other replica's clock", shared.lives, want)
	}
}

// TestReplayCacheLife: from the least to the most that is asked of a cache.
func TestReplayCacheLife(t *testing.T) {
	for _, tt := range []struct {
		name   string
		maxAge time.Duration
		iat    int64
		want   time.Duration
	}{
		{"as old as is accepted", 0, -70, 11 * time.Second},
		{"as young as is accepted", 0, 10, 90 * time.Second},
		{"without end", 1<<63 - 1, 0, century + 10*time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cache := new(sharedReplays)
			v := Verifier{Now: at(testTime), MaxAge: tt.maxAge, Replays: cache}
			if _, err := v.Verify(forge(t, claim("iat", testTime.Unix()+tt.iat)), wantPOST); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(cache.lives, []time.Duration{tt.want}) {
				t.Errorf("%v, want %v", cache.lives, tt.want)
			}
		})
	}
}

// TestResourceServerReplayCacheFails: what cannot be checked is rejected, and the next request is
// accepted again.
func TestResourceServerReplayCacheFails(t *testing.T) {
	broken := errors.New("the cache with the password hunter2 is down")
	cache := &sharedReplays{err: broken}
	var seen Outcome
	h := newServer(t, func(s *ResourceServer) {
		s.Verifier.Replays = cache
		s.Observe = func(_ context.Context, o Outcome) { seen = o }
	}).handler()
	proof := apiProof(t)
	resp := serve(h, apiRequest("DPoP bound", proof))
	wantResponse(t, resp, 503)
	if body := string(must(io.ReadAll(resp.Body))); strings.Contains(body, "hunter2") || resp.Header.Get("Retry-After") != "5" {
		t.Errorf("body %q, %v", body, resp.Header)
	}
	if bad := (*ProofError)(nil); !errors.Is(seen.Err, broken) || errors.As(seen.Err, &bad) {
		t.Errorf("observed %v", seen.Err)
	}
	cache.err = nil
	wantResponse(t, serve(h, apiRequest("DPoP bound", proof)), 200)

	synctest.Test(t, func(t *testing.T) {
		cache.hang = true
		began := time.Now()
		wantResponse(t, serve(h, apiRequest("DPoP bound", apiProof(t))), 503)
		if waited := time.Since(began); waited != maxReplayWait || !errors.Is(seen.Err, context.DeadlineExceeded) {
			t.Errorf("waited for %v: %v", waited, seen.Err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began = time.Now()
		wantResponse(t, serve(h, apiRequest("DPoP bound", apiProof(t)).WithContext(ctx)), 503)
		if waited := time.Since(began); waited != time.Second {
			t.Errorf("waited for %v", waited)
		}
	})
}

// TestResourceServerNonces: a challenge brings the nonce, and a response brings the next one
// when that of the proof is no longer the current one.
func TestResourceServerNonces(t *testing.T) {
	challenge := []string{failed("DPoP", "use_dpop_nonce", "the nonce is missing or not accepted any more"), plainBearer}
	now := testTime.Truncate(time.Minute)
	issuer := newIssuer(t, time.Minute, nonceKey(1))
	issuer.now = func() time.Time { return now }
	called := false
	h := newServer(t, func(s *ResourceServer) {
		s.Nonces = issuer
		s.Verifier.CheckNonce = func(string) bool { called = true; return true } // Nonces takes its place
		s.Verifier.Now = issuer.now
	}).handler()
	do := func(nonce string) *http.Response {
		return serve(h, apiRequest("DPoP bound", apiProof(t, claim("nonce", nonce), claim("iat", now.Unix()))))
	}
	offered := func(resp *http.Response, want string) {
		t.Helper()
		if got, cache := resp.Header.Get(NonceHeader), resp.Header.Get("Cache-Control"); got != want || (cache == "no-store") != (want != "") {
			t.Errorf("nonce %q, want %q; Cache-Control %q", got, want, cache)
		}
	}

	first := issuer.Nonce()
	resp := do("")
	wantResponse(t, resp, 401, challenge...)
	offered(resp, first)
	resp = serve(h, apiRequest("", "")) // a client can have one before its first proof
	wantResponse(t, resp, 401, plainDPoP, plainBearer)
	offered(resp, first)
	resp = do(first)
	wantResponse(t, resp, 200)
	offered(resp, "")
	offered(serve(h, apiRequest("Bearer plain", "")), "")
	offered(serve(h, apiRequest("Bearer", "")), "")    // 400
	offered(serve(h, apiRequest("DPoP down", "")), "") // 503

	now = now.Add(time.Minute)
	second := issuer.Nonce()
	resp = do(first)
	wantResponse(t, resp, 200)
	offered(resp, second)
	resp = do(second)
	wantResponse(t, resp, 200)
	offered(resp, "")

	now = now.Add(2 * time.Minute)
	resp = do(second)
	wantResponse(t, resp, 401, challenge...)
	offered(resp, issuer.Nonce())
	for _, nonce := range []string{"made up", strings.Repeat("n", 5000), "\x00"} {
		wantResponse(t, do(nonce), 401, challenge...)
	}
	if called {
		t.Error("Verifier.CheckNonce was called")
	}

	// Without Nonces, the nonces of the Verifier are demanded.
	own := newServer(t, func(s *ResourceServer) { s.Verifier.CheckNonce = func(n string) bool { return n == "n-1" } }).handler()
	wantResponse(t, serve(own, apiRequest("DPoP bound", apiProof(t))), 401, challenge...)
	wantResponse(t, serve(own, apiRequest("DPoP bound", apiProof(t, claim("nonce", "n-1")))), 200)
}

// TestResourceServerTransport: our own client passes, with one challenge at most, one server
// and two replicas that take turns.
func TestResourceServerTransport(t *testing.T) {
	for _, tt := range []struct {
		name     string
		replicas int
		nonces   bool
		requests int32 // for 20 calls
	}{
		{"no nonces", 1, false, 20},
		{"nonces", 1, true, 21},
		{"two replicas", 2, false, 20},
		{"two replicas with nonces", 2, true, 21},
	} {
		t.Run(tt.name, func(t *testing.T) {
			shared := new(sharedReplays)
			var replicas []http.Handler
			var requests atomic.Int32
			api := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				n := int(requests.Add(1))
				replicas[n%len(replicas)].ServeHTTP(w, r)
			}))
			base := "http://" + api.Listener.Addr().String()
			for range tt.replicas {
				replicas = append(replicas, newServer(t, func(s *ResourceServer) {
					s.BaseURL = base
					s.Verifier = &Verifier{Replays: shared}
					if tt.nonces { // an hour, so that no period ends during the test
						s.Nonces = newIssuer(t, time.Hour, nonceKey(1))
						s.Nonces.now = at(testTime)
					}
				}).handler())
			}
			api.Start()
			defer api.Close()
			hc := &http.Client{Transport: &Transport{
				Source: oauth2.StaticTokenSource(dpopToken("bound")), Prover: newProver(t, p256Key()), Base: api.Client().Transport,
			}}
			for i := range 20 {
				resp, err := hc.Post(api.URL+"/things/%7e"+strconv.Itoa(i)+"?q=1", "text/plain", strings.NewReader("a body"))
				if err != nil {
					t.Fatal(err)
				}
				drain(resp)
				wantResponse(t, resp, 200)
			}
			if got := requests.Load(); got != tt.requests {
				t.Errorf("%d requests, want %d", got, tt.requests)
			}
		})
	}
}

// TestResourceServerMemory: neither hosts, nor tokens, nor proofs fill the memory.
func TestResourceServerMemory(t *testing.T) {
	const limit, valid, requests = 100, 400, 10_000
	v := &Verifier{Now: at(testTime), MaxReplays: limit}
	issuer := newIssuer(t, time.Minute, nonceKey(1))
	issuer.now = at(testTime)
	h := newServer(t, func(s *ResourceServer) { s.Verifier, s.Nonces = v, issuer }).handler()
	proofs := make([]string, valid)
	for i := range proofs {
		proofs[i] = apiProof(t, claim("jti", strings.Repeat("j", 500)+strconv.Itoa(i)), claim("nonce", issuer.Nonce()))
	}
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	accepted := 0
	for i := range requests {
		r := apiRequest("DPoP token-"+strconv.Itoa(i), proofs[i%valid])
		if i < valid {
			r.Header.Set("Authorization", "DPoP bound")
		}
		r.Host = fmt.Sprintf("host-%d.example", i)
		r.Header.Set("Origin", "https://"+r.Host)
		if serve(h, r).StatusCode == http.StatusOK {
			accepted++
		}
	}
	if accepted != valid || len(v.seen.known) != limit {
		t.Errorf("%d accepted, %d remembered", accepted, len(v.seen.known))
	}
	if grown := heap() - before; grown > 1<<20 {
		t.Errorf("%d bytes more than before", grown)
	}
	runtime.KeepAlive(proofs)
	runtime.KeepAlive(h)
}

// TestResourceServerOversizedHeaders: net/http rejects headers that are longer than the
// server's limit before the ResourceServer sees them.
func TestResourceServerOversizedHeaders(t *testing.T) {
	var looked atomic.Bool
	s := newServer(t, func(s *ResourceServer) {
		s.Observe = func(context.Context, Outcome) { looked.Store(true) }
	})
	api := httptest.NewUnstartedServer(s.handler())
	api.Config.MaxHeaderBytes = 64 << 10
	api.Start()
	defer api.Close()
	req := must(http.NewRequestWithContext(t.Context(), http.MethodGet, api.URL, nil))
	req.Header.Set("Authorization", "DPoP bound")
	req.Header.Set("DPoP", strings.Repeat("x", 128<<10))
	resp, err := api.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	drain(resp)
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge || looked.Load() {
		t.Errorf("status %d, looked at: %v", resp.StatusCode, looked.Load())
	}
}

func TestResourceServerConcurrently(t *testing.T) {
	h := newServer(t, nil).handler()
	proof := apiProof(t)
	var accepted atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if serve(h, apiRequest("DPoP bound", proof)).StatusCode == http.StatusOK {
				accepted.Add(1)
			}
		})
	}
	wg.Wait()
	if accepted.Load() != 1 {
		t.Errorf("one proof was accepted %d times", accepted.Load())
	}
}

// FuzzParseAuthorization: what is accepted is a scheme, spaces and one token68, and none of
// it is lost.
func FuzzParseAuthorization(f *testing.F) {
	for _, seed := range []string{
		"", " ", "DPoP", "DPoP ", "DPoP a", "dpop  a==", "Bearer a.b-c_d~e+f/g=", "BEARER a b", "Bearer a,Bearer b",
		"Basic eHl6", "DPoP\ta", "DPoP =", `DPoP token="a"`, "DPoP a\x00", "DPoP ä", "Bearer\u00a0a", "DPoPa",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		scheme, token, ok := parseAuthorization(value)
		if scheme != "" && scheme != schemeDPoP && scheme != schemeBearer {
			t.Fatalf("scheme %q", scheme)
		}
		if !ok {
			if token != "" {
				t.Fatalf("token %q, but not ok", token)
			}
			return
		}
		spaces := len(value) - len(scheme) - len(token)
		if scheme == "" || token == "" || spaces < 1 || !strings.EqualFold(value, scheme+strings.Repeat(" ", spaces)+token) || !strings.HasSuffix(value, token) {
			t.Fatalf("%q gave %q and %q", value, scheme, token)
		}
		if strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune(`",\`, c) }) {
			t.Fatalf("token %q", token)
		}
	})
}

// BenchmarkResourceServer compares a bare handler, one verification of an ES256 signature,
// and the handler behind a ResourceServer, without the network. Each proof is new to the
// server, because its memory of proofs is full and smaller than the list.
func BenchmarkResourceServer(b *testing.B) {
	const proofs, memory = 2048, 1024
	bare := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	issuer := newIssuer(b, time.Hour, nonceKey(1))
	issuer.now = at(testTime)
	list := make([]string, proofs)
	for i := range list {
		list[i] = apiProof(b, claim("nonce", issuer.Nonce()))
	}
	run := func(name, authorization string, h http.Handler) {
		i := 0 // goes on if the benchmark is repeated, as the memory of proofs does
		b.Run(name, func(b *testing.B) {
			r := apiRequest(authorization, "")
			b.ReportAllocs()
			for ; b.Loop(); i++ {
				r.Header["Dpop"] = list[i%proofs : i%proofs+1]
				w := httptest.NewRecorder()
				if h.ServeHTTP(w, r); w.Code != http.StatusOK {
					b.Fatalf("%d: %s", w.Code, w.Body)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
		})
	}
	server := func(nonces *NonceIssuer) http.Handler {
		return newServer(b, func(s *ResourceServer) { s.Verifier.MaxReplays, s.Nonces = memory, nonces }).Handler(bare)
	}
	run("bare", "", bare)
	b.Run("ES256", func(b *testing.B) {
		key := p256Key().(*ecdsa.PrivateKey)
		sum := sha256.Sum256([]byte("a proof"))
		sig := must(ecdsa.SignASN1(rand.Reader, key, sum[:]))
		for b.Loop() {
			if !ecdsa.VerifyASN1(&key.PublicKey, sum[:], sig) {
				b.Fatal("does not verify")
			}
		}
	})
	run("Bearer", "Bearer plain", server(nil))
	run("DPoP", "DPoP bound", server(nil))
	run("DPoP with nonces", "DPoP bound", server(issuer))
}
