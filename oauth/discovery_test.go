package oauth_test

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
)

// A metadataServer has documents at URLs, and says 404 anywhere else.
type metadataServer struct {
	mu        sync.Mutex
	documents map[string]func(*http.Request) (*http.Response, error)
	asked     []string
}

func (s *metadataServer) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.asked = append(s.asked, r.URL.String())
	s.mu.Unlock()
	document := s.documents[r.URL.String()]
	if document == nil {
		return answer(404, "not found", "Content-Type", "text/plain"), nil
	}
	return document(r)
}

func (s *metadataServer) client() *http.Client { return &http.Client{Transport: s} }

func document(body string) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) { return answer(200, body), nil }
}

// metadataOf is a document with changes; nil takes a member away.
func metadataOf(t *testing.T, issuer string, change map[string]any) string {
	t.Helper()
	m := map[string]any{
		"issuer": issuer, "token_endpoint": issuer + "/token", "authorization_endpoint": issuer + "/authorize",
		"response_types_supported": []string{"code"},
	}
	maps.Copy(m, change)
	maps.DeleteFunc(m, func(_ string, v any) bool { return v == nil })
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const (
	asIssuer   = "https://as.example"
	asMetadata = asIssuer + "/.well-known/oauth-authorization-server"
)

func TestDiscover(t *testing.T) {
	srv := &metadataServer{documents: map[string]func(*http.Request) (*http.Response, error){
		asMetadata: func(r *http.Request) (*http.Response, error) {
			if r.Method != http.MethodGet || r.Header.Get("Accept") != "application/json" || r.Header.Get("Authorization") != "" {
				t.Errorf("%s with %v", r.Method, r.Header)
			}
			return answer(200, metadataOf(t, asIssuer, map[string]any{
				"revocation_endpoint":                              "https://other.example/revoke",
				"authorization_response_iss_parameter_supported":   true,
				"scopes_supported":                                 []string{"email", "offline_access", "openid"},
				"dpop_signing_alg_values_supported":                []string{"ES256"},
				"device_authorization_endpoint":                    asIssuer + "/device",
				"pushed_authorization_request_endpoint":            asIssuer + "/par",
				"require_pushed_authorization_requests":            true,
				"token_endpoint_auth_signing_alg_values_supported": []string{"PS256", "ES256"},
				"mtls_endpoint_aliases":                            map[string]string{"token_endpoint": "https://mtls.example"},
			})), nil
		},
	}}
	p, err := oauth.Discover(t.Context(), asIssuer, srv.client())
	if err != nil {
		t.Fatal(err)
	}
	want := oauth.Provider{
		Name: asIssuer, Issuer: asIssuer, RequireIss: true,
		TokenURL: asIssuer + "/token", AuthURL: asIssuer + "/authorize", RevocationURL: "https://other.example/revoke",
		DeviceAuthURL: asIssuer + "/device", PushedAuthURL: asIssuer + "/par", RequirePAR: true, AuthSigningAlgs: []string{"PS256", "ES256"},
		Scopes: []string{"openid", "offline_access"}, OfflineScope: "offline_access", ThumbprintHash: crypto.SHA256,
	}
	if !reflect.DeepEqual(p, want) {
		t.Errorf("got %+v, want %+v", p, want)
	}
	if _, err := oauth.New(oauth.Config{Provider: p, ClientID: "client", DPoP: newProver(t)}); err != nil {
		t.Error(err)
	}
}

// What few servers have is not invented.
func TestDiscoverLittle(t *testing.T) {
	srv := &metadataServer{documents: map[string]func(*http.Request) (*http.Response, error){
		asMetadata: document(metadataOf(t, asIssuer, map[string]any{"authorization_endpoint": nil})),
	}}
	p, err := oauth.Discover(t.Context(), asIssuer, srv.client())
	want := oauth.Provider{Name: asIssuer, Issuer: asIssuer, TokenURL: asIssuer + "/token"}
	if err != nil || !reflect.DeepEqual(p, want) {
		t.Errorf("got %+v, %v", p, err)
	}
}

func TestDiscoverLocations(t *testing.T) {
	const tenant = "https://as.example/t/1"
	for name, tt := range map[string]struct {
		issuer   string
		at       string
		requests int
	}{
		"RFC 8414":                             {asIssuer, asMetadata, 1},
		"OpenID Connect":                       {asIssuer, asIssuer + "/.well-known/openid-configuration", 2},
		"RFC 8414 with a path":                 {tenant, "https://as.example/.well-known/oauth-authorization-server/t/1", 1},
		"RFC 8414 §5 with a path":              {tenant, "https://as.example/.well-known/openid-configuration/t/1", 2},
		"OpenID Connect with a path":           {tenant, tenant + "/.well-known/openid-configuration", 3},
		"a trailing slash":                     {asIssuer + "/", asMetadata, 1},
		"OpenID Connect with a trailing slash": {tenant + "/", tenant + "/.well-known/openid-configuration", 3},
		"http to a loopback address":           {"http://127.0.0.1:8080", "http://127.0.0.1:8080/.well-known/oauth-authorization-server", 1},
	} {
		t.Run(name, func(t *testing.T) {
			srv := &metadataServer{documents: map[string]func(*http.Request) (*http.Response, error){tt.at: document(metadataOf(t, tt.issuer, nil))}}
			p, err := oauth.Discover(t.Context(), tt.issuer, srv.client())
			if err != nil || p.Issuer != tt.issuer || len(srv.asked) != tt.requests {
				t.Errorf("got %+v, %v after %q", p, err, srv.asked)
			}
		})
	}
	t.Run("another issuer at the first location", func(t *testing.T) { // tenants behind a proxy that drops the path
		srv := &metadataServer{documents: map[string]func(*http.Request) (*http.Response, error){
			"https://as.example/.well-known/oauth-authorization-server/t/1": document(metadataOf(t, asIssuer, nil)),
			tenant + "/.well-known/openid-configuration":                    document(metadataOf(t, tenant, nil)),
		}}
		p, err := oauth.Discover(t.Context(), tenant, srv.client())
		if err != nil || p.TokenURL != tenant+"/token" || len(srv.asked) != 3 {
			t.Errorf("got %+v, %v after %q", p, err, srv.asked)
		}
	})
	t.Run("a page at the first location", func(t *testing.T) { // of a site that has one for every path
		srv := &metadataServer{documents: map[string]func(*http.Request) (*http.Response, error){
			asMetadata: func(*http.Request) (*http.Response, error) {
				return answer(200, "<!doctype html>", "Content-Type", "text/html"), nil
			},
			asIssuer + "/.well-known/openid-configuration": document(metadataOf(t, asIssuer, nil)),
		}}
		if p, err := oauth.Discover(t.Context(), asIssuer, srv.client()); err != nil || p.TokenURL == "" {
			t.Errorf("got %+v, %v", p, err)
		}
	})
}

func TestDiscoverErrors(t *testing.T) {
	with := func(change map[string]any) func(*http.Request) (*http.Response, error) {
		return document(metadataOf(t, asIssuer, change))
	}
	for name, tt := range map[string]struct {
		document func(*http.Request) (*http.Response, error)
		want     string
	}{
		"no token endpoint":           {with(map[string]any{"token_endpoint": nil}), "token_endpoint is missing"},
		"no issuer":                   {with(map[string]any{"issuer": nil}), "issuer is missing"},
		"issuer of another type":      {with(map[string]any{"issuer": 5}), "issuer is not a string"},
		"token endpoint with http":    {with(map[string]any{"token_endpoint": "http://as.example/token"}), "token_endpoint uses http"},
		"token endpoint on loopback":  {with(map[string]any{"token_endpoint": "http://127.0.0.1/token"}), "token_endpoint uses http"},
		"https on loopback":           {with(map[string]any{"token_endpoint": "https://127.0.0.1:8443/token"}), "token_endpoint is on a loopback address"},
		"an empty fragment":           {with(map[string]any{"token_endpoint": "https://as.example/token#"}), "token_endpoint has a fragment"},
		"an impossible port":          {with(map[string]any{"token_endpoint": "https://as.example:65536/token"}), "token_endpoint has a port above 65535"},
		"relative endpoint":           {with(map[string]any{"token_endpoint": "/token"}), "token_endpoint is not an absolute URL"},
		"authorization with a script": {with(map[string]any{"authorization_endpoint": "javascript:alert(1)"}), "authorization_endpoint is not"},
		"revocation with a user":      {with(map[string]any{"revocation_endpoint": "https://u:p@as.example"}), "revocation_endpoint has user information"},
		"PAR is required nowhere":     {with(map[string]any{"require_pushed_authorization_requests": true}), "pushed_authorization_request_endpoint is missing"},
		"a boolean that is none":      {with(map[string]any{"authorization_response_iss_parameter_supported": "true"}), "is not a boolean"},
		"scopes that are no list":     {with(map[string]any{"scopes_supported": "openid"}), "is not an array"},
		"a list":                      {document("[]"), "not an object"},
		"a member twice":              {document(`{"issuer":"https://as.example","issuer":"https://as.example"}`), "same name twice"},
		"too large":                   {document(`{"a":"` + strings.Repeat("x", 1<<20) + `"}`), "larger than 1 MiB"},
		"a redirect": {func(*http.Request) (*http.Response, error) {
			return answer(302, "", "Location", "https://evil.example"), nil
		}, "check the issuer"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := &metadataServer{documents: map[string]func(*http.Request) (*http.Response, error){asMetadata: tt.document}}
			p, err := oauth.Discover(t.Context(), asIssuer, srv.client())
			var server *oauth.ServerError
			if !errors.As(err, &server) || !errors.Is(err, oauth.ErrMalformedResponse) || !strings.Contains(err.Error(), tt.want) || !reflect.DeepEqual(p, oauth.Provider{}) {
				t.Errorf("got %+v and %v, want %s", p, err, tt.want)
			}
			for _, asked := range srv.asked {
				if !strings.HasPrefix(asked, asIssuer+"/") {
					t.Errorf("%s was asked", asked)
				}
			}
		})
	}
	t.Run("nothing", func(t *testing.T) {
		_, err := oauth.Discover(t.Context(), asIssuer, new(metadataServer).client())
		var server *oauth.ServerError
		if !errors.As(err, &server) || server.Status != 404 || err.Error() != "oauth: metadata of https://as.example: oauth: the authorization server responded 404 Not Found" {
			t.Errorf("error %v", err)
		}
	})
	t.Run("trouble says more than nothing", func(t *testing.T) {
		srv := &metadataServer{documents: map[string]func(*http.Request) (*http.Response, error){
			asIssuer + "/.well-known/openid-configuration": func(*http.Request) (*http.Response, error) { return answer(503, "", "Retry-After", "7"), nil },
		}}
		_, err := oauth.Discover(t.Context(), asIssuer, srv.client())
		var server *oauth.ServerError
		if !errors.As(err, &server) || server.Status != 503 || !server.Temporary() || server.RetryAfter != 7*time.Second {
			t.Errorf("error %v", err)
		}
	})
	for _, found := range []string{"https://evil.example", asIssuer + "/", "https://AS.example"} {
		t.Run("issuer "+found, func(t *testing.T) {
			srv := &metadataServer{documents: map[string]func(*http.Request) (*http.Response, error){asMetadata: with(map[string]any{"issuer": found})}}
			p, err := oauth.Discover(t.Context(), asIssuer, srv.client())
			if !errors.Is(err, oauth.ErrIssuerMismatch) || p.TokenURL != "" || len(srv.asked) != 2 {
				t.Errorf("got %+v, %v after %q", p, err, srv.asked)
			}
		})
	}
	for _, issuer := range []string{"", "as.example", "http://as.example", "https://as.example?tenant=1", "https://as.example?", "https://as.example#x", "https://as.example#", "https://as.example:65536", "https://u:p@as.example"} {
		t.Run("not an issuer "+issuer, func(t *testing.T) {
			srv := new(metadataServer)
			_, err := oauth.Discover(t.Context(), issuer, srv.client())
			var ce *oauth.ConfigError
			if !errors.As(err, &ce) || ce.Field != "Provider.Issuer" || len(srv.asked) != 0 {
				t.Errorf("error %v after %q", err, srv.asked)
			}
		})
	}
}

func TestDiscoverWhatDoesNotRespond(t *testing.T) {
	hang := func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	srv := &metadataServer{documents: map[string]func(*http.Request) (*http.Response, error){asMetadata: hang}}
	t.Run("a server that hangs", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			_, err := oauth.Discover(t.Context(), asIssuer, srv.client())
			var unreachable *oauth.UnreachableError // it may have been sent: the transport does not say
			if !errors.Is(err, context.DeadlineExceeded) || errors.As(err, &unreachable) || time.Since(start) != 30*time.Second {
				t.Errorf("%v after %v", err, time.Since(start))
			}
		})
	})
	t.Run("a server that nobody reaches", func(t *testing.T) {
		srv := &metadataServer{documents: map[string]func(*http.Request) (*http.Response, error){
			asMetadata: func(*http.Request) (*http.Response, error) { return nil, errRefused },
		}}
		_, err := oauth.Discover(t.Context(), asIssuer, srv.client())
		var unreachable *oauth.UnreachableError
		if !errors.As(err, &unreachable) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a caller that gives up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := oauth.Discover(ctx, asIssuer, srv.client()); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error %v", err)
			}
		})
	})
	t.Run("a body that breaks off", func(t *testing.T) {
		srv := &metadataServer{documents: map[string]func(*http.Request) (*http.Response, error){
			asMetadata: func(*http.Request) (*http.Response, error) {
				resp := answer(200, "")
				resp.Body = io.NopCloser(io.MultiReader(strings.NewReader(`{"issuer":`), brokenReader{}))
				return resp, nil
			},
		}}
		if _, err := oauth.Discover(t.Context(), asIssuer, srv.client()); !errors.Is(err, errLine) {
			t.Errorf("error %v", err)
		}
	})
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errLine }
