package oauth_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
)

// claimsOf decodes the payload of the proof that came with a request.
func claimsOf(t *testing.T, r fakeRequest) (claims struct {
	ID    string `json:"jti"`
	HTM   string `json:"htm"`
	HTU   string `json:"htu"`
	IAT   int64  `json:"iat"`
	Nonce string `json:"nonce"`
}) {
	t.Helper()
	parts := strings.Split(r.header.Get("DPoP"), ".")
	if len(parts) != 3 {
		t.Fatalf("no proof: %q", r.header.Get("DPoP"))
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

func TestRefreshRequest(t *testing.T) {
	srv := newFakeServer(issue)
	c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.DPoP = newProver(t); cfg.UserAgent = "backup/1.2" })
	wantToken(t, c.TokenSource(), "at-1")
	r := srv.request(0)
	if got := r.form.Encode(); got != "client_id=client&grant_type=refresh_token&refresh_token=rt-0" {
		t.Errorf("form %s", got)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json", "User-Agent": "backup/1.2",
	} {
		if got := r.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	var v dpop.Verifier
	if _, err := v.Verify(r.header.Get("DPoP"), dpop.Expected{Method: "POST", URL: "https://as.example/token"}); err != nil {
		t.Errorf("the proof does not verify: %v", err)
	}
}

func TestClientAuthentication(t *testing.T) {
	const id, secret = "app id", "a:b+c/d%e&f=g h"
	for _, tt := range []struct {
		method oauth.AuthMethod
		basic  string // decoded credentials; "" if there is no header
		body   bool
	}{
		{oauth.AuthClientSecretPost, "", true},
		{oauth.AuthClientSecretBasic, "app+id:a%3Ab%2Bc%2Fd%25e%26f%3Dg+h", false},
		{oauth.AuthClientSecretBasicPlain, "app id:a:b+c/d%e&f=g h", false},
	} {
		t.Run(string(tt.method), func(t *testing.T) {
			srv := newFakeServer(issue)
			c, _ := newClient(t, srv, func(cfg *oauth.Config) {
				cfg.ClientID, cfg.ClientSecret, cfg.Provider.AuthMethod = id, secret, tt.method
			})
			wantToken(t, c.TokenSource(), "at-1")
			r := srv.request(0)
			encoded, _ := strings.CutPrefix(r.header.Get("Authorization"), "Basic ")
			basic, err := base64.StdEncoding.DecodeString(encoded)
			if err != nil || string(basic) != tt.basic {
				t.Errorf("Basic %q (%v), want %q", basic, err, tt.basic)
			}
			if inBody := r.form.Get("client_id") == id && r.form.Get("client_secret") == secret; inBody != tt.body {
				t.Errorf("credentials in the body: %v, want %v", inBody, tt.body)
			}
			if !tt.body && (r.form.Has("client_id") || r.form.Has("client_secret")) {
				t.Error("credentials in the header and in the body: RFC 6749 §2.3 allows one way")
			}
		})
	}
}

// TestYandexIDDocument holds the client against the page "Use a refresh token" of
// Yandex OAuth.
func TestYandexIDDocument(t *testing.T) {
	const sample = `{
  "access_token": "AQAAAACy1C6ZAAAAfa6vDLuItEy8pg-iIpnDxIs",
  "refresh_token": "1:GN686QVt0mmakDd9:A4pYuW9LGk0_UnlrMIWklkAuJkUWbq27loFekJVmSYrdfzdePBy7:A-2dHOmBxiXgajnD-kYOwQ",
  "token_type": "bearer",
  "expires_in": 124234123534
}`
	yandexID := func(cfg *oauth.Config) {
		cfg.Provider, cfg.ClientID, cfg.ClientSecret = oauth.YandexID(), "4760187d81bc4b7799476b42b5103713", "password"
	}
	t.Run("sample answer", func(t *testing.T) {
		srv := newFakeServer(func(int, fakeRequest) (*http.Response, error) { return answer(200, sample), nil })
		c, _ := newClient(t, srv, yandexID)
		tok, err := c.TokenSource().Token()
		if err != nil {
			t.Fatal(err)
		}
		if tok.AccessToken != "AQAAAACy1C6ZAAAAfa6vDLuItEy8pg-iIpnDxIs" || tok.TokenType != "Bearer" {
			t.Errorf("token %q of type %q", tok.AccessToken, tok.TokenType)
		}
		if years := time.Until(tok.Expiry).Hours() / 24 / 365; years < 99 || years > 101 {
			t.Errorf("expires_in gave %v years, want it clamped to 100", years)
		}
		s, err := c.Session(t.Context())
		if err != nil || s.RefreshToken != "1:GN686QVt0mmakDd9:A4pYuW9LGk0_UnlrMIWklkAuJkUWbq27loFekJVmSYrdfzdePBy7:A-2dHOmBxiXgajnD-kYOwQ" {
			t.Errorf("the new refresh token was not stored: %v", err)
		}
		if got := srv.request(0).header.Get("Authorization"); got != "Basic "+base64.StdEncoding.EncodeToString([]byte("4760187d81bc4b7799476b42b5103713:password")) {
			t.Errorf("Authorization %q", got)
		}
		if tok2, err := c.TokenSource().Token(); err != nil || tok2 != tok {
			t.Errorf("the second call gave %v, %v: the clamped token must be fresh", tok2, err)
		}
	})
	for code, login := range map[string]bool{
		"invalid_client": false, "invalid_grant": true, "invalid_request": false, "unauthorized_client": false,
		"unsupported_grant_type": false, "Basic auth required": false, "Malformed Authorization header": false,
	} {
		t.Run(code, func(t *testing.T) {
			srv := newFakeServer(func(int, fakeRequest) (*http.Response, error) {
				return answer(400, fmt.Sprintf(`{"error_description": "what went wrong", "error": %q}`, code)), nil
			})
			c, _ := newClient(t, srv, yandexID)
			_, err := c.TokenSource().Token()
			var server *oauth.ServerError
			if !errors.As(err, &server) || server.Code != code || server.Description != "what went wrong" || server.Status != 400 {
				t.Fatalf("error %#v", err)
			}
			if server.Temporary() || srv.count() != 1 {
				t.Errorf("a refusal was taken for temporary (%d requests)", srv.count())
			}
			if errors.Is(err, oauth.ErrLoginRequired) != login {
				t.Errorf("log in again: %v, want %v", !login, login)
			}
		})
	}
}

func TestNonce(t *testing.T) {
	challenge := func(status int, nonce string) *http.Response {
		return answer(status, `{"error":"use_dpop_nonce"}`, "DPoP-Nonce", nonce)
	}
	t.Run("one challenge, then one request a renewal", func(t *testing.T) {
		for _, status := range []int{400, 401} {
			synctest.Test(t, func(t *testing.T) {
				current := "n1"
				srv := newFakeServer(nil)
				srv.handle = func(n int, r fakeRequest) (*http.Response, error) {
					if claimsOf(t, r).Nonce != current {
						return challenge(status, current), nil
					}
					resp, _ := issue(n, r)
					current = fmt.Sprintf("n%d", n+1) // the next nonce comes with the success, also the retried one
					resp.Header.Set("DPoP-Nonce", current)
					return resp, nil
				}
				c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.DPoP = newProver(t) })
				ts := c.TokenSource()
				wantToken(t, ts, "at-2")
				for i := range 3 {
					time.Sleep(2 * time.Hour)
					wantToken(t, ts, fmt.Sprintf("at-%d", i+3))
				}
				if srv.count() != 5 {
					t.Errorf("%d requests, want 1 challenge and 4 renewals", srv.count())
				}
				seen := map[string]bool{}
				for i := range srv.count() {
					id := claimsOf(t, srv.request(i)).ID
					if seen[id] {
						t.Errorf("request %d has the proof of another attempt", i)
					}
					seen[id] = true
				}
			})
		}
	})
	t.Run("a new nonce is answered, three times at most", func(t *testing.T) {
		n := 0
		srv := newFakeServer(func(int, fakeRequest) (*http.Response, error) {
			n++
			return challenge(400, fmt.Sprintf("n%d", n)), nil
		})
		c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.DPoP = newProver(t) })
		_, err := c.TokenSource().Token()
		var server *oauth.ServerError
		if !errors.As(err, &server) || server.Code != "use_dpop_nonce" || srv.count() != 4 {
			t.Errorf("error %v after %d requests", err, srv.count())
		}
	})
	t.Run("the same nonce again is an error", func(t *testing.T) {
		srv := newFakeServer(func(int, fakeRequest) (*http.Response, error) { return challenge(400, "n"), nil })
		c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.DPoP = newProver(t) })
		if _, err := c.TokenSource().Token(); err == nil || srv.count() != 2 {
			t.Errorf("error %v after %d requests", err, srv.count())
		}
	})
	t.Run("the third nonce is accepted", func(t *testing.T) {
		srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
			if n < 4 {
				return challenge(401, fmt.Sprintf("n%d", n)), nil
			}
			return issue(n, r)
		})
		c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.DPoP = newProver(t) })
		wantToken(t, c.TokenSource(), "at-4")
	})
	// A resource of the same origin gives nonces, too, while the token request is on
	// its way: the same one, or one that the token endpoint does not accept.
	for name, nonce := range map[string]string{"a resource gave the same nonce": "n", "a resource gives another nonce": "other"} {
		t.Run(name, func(t *testing.T) {
			var c *oauth.Client
			var meanwhile, inside bool
			visit := func() {
				inside = true
				defer func() { inside = false }()
				resp, err := c.HTTPClient().Post("https://as.example/resource", "text/plain", strings.NewReader("resource"))
				if err != nil {
					t.Error(err)
					return
				}
				resp.Body.Close()
			}
			srv := newFakeServer(nil)
			var nonces []string
			srv.handle = func(_ int, r fakeRequest) (*http.Response, error) {
				if r.form.Has("resource") {
					return answer(200, "", "DPoP-Nonce", nonce), nil
				}
				nonces = append(nonces, claimsOf(t, r).Nonce)
				meanwhile = len(nonces) == 2
				switch len(nonces) {
				case 1:
					return answer(200, `{"access_token":"at-1","token_type":"DPoP","expires_in":3600}`), nil
				case 2:
					visit()
					return challenge(400, "n"), nil
				}
				return answer(200, `{"access_token":"at-2","token_type":"DPoP","expires_in":3600}`), nil
			}
			c, _ = newClient(t, srv, func(cfg *oauth.Config) {
				cfg.DPoP = newProver(t)
				cfg.Clock = func() time.Time {
					if meanwhile && !inside { // the clock is read between a challenge and the next proof
						visit()
					}
					return time.Now()
				}
			})
			wantToken(t, c.TokenSource(), "at-1")
			if tok, err := c.TokenSource().Renew(t.Context()); err != nil || tok.AccessToken != "at-2" {
				t.Errorf("Renew: %v", err)
			}
			if want := []string{"", "", "n"}; !slices.Equal(nonces, want) {
				t.Errorf("requests with the nonces %q, want %q", nonces, want)
			}
		})
	}
	for name, change := range map[string]func(*oauth.Config){
		"no nonce in the challenge": func(cfg *oauth.Config) { cfg.DPoP = newProver(t) },
		"no key to prove":           func(*oauth.Config) {},
	} {
		t.Run(name, func(t *testing.T) {
			srv := newFakeServer(refuse("use_dpop_nonce"))
			c, _ := newClient(t, srv, change)
			_, err := c.TokenSource().Token()
			var server *oauth.ServerError
			if !errors.As(err, &server) || srv.count() != 1 {
				t.Errorf("error %v after %d requests", err, srv.count())
			}
		})
	}
}

func TestClockSkew(t *testing.T) {
	prover := func(cfg *oauth.Config) { cfg.DPoP = newProver(t) }
	// strict refuses a proof that is not made within 3 seconds of its clock.
	strict := func(t *testing.T, ahead time.Duration, date bool) *fakeServer {
		srv := newFakeServer(nil)
		srv.handle = func(n int, r fakeRequest) (*http.Response, error) {
			now := time.Now().Add(ahead)
			var resp *http.Response
			if d := now.Sub(time.Unix(claimsOf(t, r).IAT, 0)); d.Abs() > 3*time.Second {
				resp = answer(400, `{"error":"invalid_dpop_proof"}`)
			} else {
				resp, _ = issue(n, r)
			}
			if date {
				resp.Header.Set("Date", now.UTC().Format(http.TimeFormat))
			}
			return resp, nil
		}
		return srv
	}
	for _, ahead := range []time.Duration{-time.Hour, -20 * time.Second, 4 * time.Second, 10 * time.Minute} {
		t.Run(ahead.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := strict(t, ahead, true)
				c, _ := newClient(t, srv, prover)
				ts := c.TokenSource()
				wantToken(t, ts, "at-2")
				time.Sleep(2 * time.Hour)
				wantToken(t, ts, "at-3")
				if srv.count() != 3 {
					t.Errorf("%d requests, want a refusal and two renewals", srv.count())
				}
				tok, _ := ts.Token()
				if left := time.Until(tok.Expiry); left != time.Hour {
					t.Errorf("the token expires in %v by our clock, want an hour", left)
				}
			})
		})
	}
	for name, srv := range map[string]func(t *testing.T) *fakeServer{
		"a Date beyond belief": func(t *testing.T) *fakeServer { return strict(t, 500*24*time.Hour, true) },
		"no Date":              func(t *testing.T) *fakeServer { return strict(t, time.Hour, false) },
		"the clock is right": func(t *testing.T) *fakeServer {
			return newFakeServer(func(int, fakeRequest) (*http.Response, error) {
				return answer(400, `{"error":"invalid_dpop_proof"}`, "Date", time.Now().UTC().Format(http.TimeFormat)), nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := srv(t)
				c, _ := newClient(t, srv, prover)
				_, err := c.TokenSource().Token()
				var server *oauth.ServerError
				if !errors.As(err, &server) || server.Code != "invalid_dpop_proof" || srv.count() != 1 {
					t.Errorf("error %v after %d requests", err, srv.count())
				}
			})
		})
	}
	t.Run("retried once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			srv := newFakeServer(func(n int, _ fakeRequest) (*http.Response, error) {
				return answer(400, `{"error":"invalid_dpop_proof"}`, "Date",
					time.Now().Add(time.Duration(n)*time.Hour).UTC().Format(http.TimeFormat)), nil
			})
			c, _ := newClient(t, srv, prover)
			if _, err := c.TokenSource().Token(); err == nil || srv.count() != 2 {
				t.Errorf("error %v after %d requests, want 2", err, srv.count())
			}
		})
	})
}

func TestRetries(t *testing.T) {
	dial := &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	for _, tt := range []struct {
		name     string
		handle   func(n int, r fakeRequest) (*http.Response, error) // for the failing attempts
		attempts int                                                // made in all when it never gets better
	}{
		{"503", func(int, fakeRequest) (*http.Response, error) { return answer(503, ""), nil }, 4},
		{"500 with a code", func(int, fakeRequest) (*http.Response, error) { return answer(500, `{"error":"server_error"}`), nil }, 4},
		{"502 of a proxy", func(int, fakeRequest) (*http.Response, error) { return answer(502, "<html>"), nil }, 4},
		{"429", func(int, fakeRequest) (*http.Response, error) { return answer(429, `{"error":"slow_down"}`), nil }, 4},
		{"400 without a code", func(int, fakeRequest) (*http.Response, error) { return answer(400, "<html>"), nil }, 4},
		{"no connection", func(int, fakeRequest) (*http.Response, error) { return nil, dial }, 4},
		{"lost answer", lose, 4},
		{"400 with a code", refuse("invalid_client"), 1},
		{"401", func(int, fakeRequest) (*http.Response, error) { return answer(401, `{"error":"invalid_client"}`), nil }, 1},
		{"redirect", func(int, fakeRequest) (*http.Response, error) {
			return answer(307, "", "Location", "https://elsewhere.example/"), nil
		}, 1},
		{"malformed success", func(int, fakeRequest) (*http.Response, error) { return answer(200, "<html>"), nil }, 1},
		{"Retry-After beyond patience", func(int, fakeRequest) (*http.Response, error) {
			return answer(503, "", "Retry-After", "3600"), nil
		}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := newFakeServer(tt.handle)
				c, log := newClient(t, srv, func(cfg *oauth.Config) { cfg.DPoP = newProver(t) })
				if _, err := c.TokenSource().Token(); err == nil {
					t.Fatal("a token out of nowhere")
				}
				if srv.count() != tt.attempts {
					t.Errorf("%d attempts, want %d", srv.count(), tt.attempts)
				}
				seen := map[string]bool{}
				for i := range srv.count() {
					seen[claimsOf(t, srv.request(i)).ID] = true
				}
				if len(seen) != tt.attempts {
					t.Errorf("%d proofs for %d attempts", len(seen), tt.attempts)
				}
				if retries := log.of(oauth.EventRetry); len(retries) != tt.attempts-1 {
					t.Errorf("%d retry events", len(retries))
				}
			})
			if tt.attempts == 1 {
				return
			}
			t.Run("and recovers", func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					srv := newFakeServer(nil)
					srv.handle = func(n int, r fakeRequest) (*http.Response, error) {
						if n < 3 {
							return tt.handle(n, r)
						}
						return issue(n, r)
					}
					c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.DPoP = newProver(t) })
					wantToken(t, c.TokenSource(), "at-3")
				})
			})
		})
	}
	t.Run("Retry-After is waited for", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
				if n == 1 {
					return answer(503, "", "Retry-After", "17"), nil
				}
				return issue(n, r)
			})
			c, _ := newClient(t, srv)
			start := time.Now()
			wantToken(t, c.TokenSource(), "at-2")
			if d := time.Since(start); d < 17*time.Second {
				t.Errorf("the second attempt came after %v, the server asked for 17s", d)
			}
		})
	})
}

func TestLostAnswer(t *testing.T) {
	t.Run("an unknown outcome, not a lost session", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			srv := newFakeServer(lose)
			c, log := newClient(t, srv)
			_, err := c.TokenSource().Token()
			if !errors.Is(err, oauth.ErrOutcomeUnknown) || !errors.Is(err, errLine) || errors.Is(err, oauth.ErrLoginRequired) {
				t.Errorf("error %v", err)
			}
			if failed := log.of(oauth.EventRenewFailed); len(failed) != 1 || failed[0].ErrorKind() != "outcome_unknown" {
				t.Errorf("events %+v", failed)
			}
			srv.handle = issue // the line is up again
			time.Sleep(time.Minute)
			wantToken(t, c.TokenSource(), "at-5")
		})
	})
	for name, between := range map[string]time.Duration{"in one renewal": 0, "in two renewals": time.Hour} {
		t.Run("the server rotated meanwhile, "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := newFakeServer(nil)
				srv.handle = func(n int, r fakeRequest) (*http.Response, error) {
					if n == 1 {
						return nil, errLine
					}
					return answer(400, `{"error":"invalid_grant"}`), nil
				}
				c, _ := newClient(t, srv, func(cfg *oauth.Config) {
					if between > 0 {
						cfg.MaxAttempts = 1
					}
				})
				_, err := c.TokenSource().Token()
				if between > 0 {
					if !errors.Is(err, oauth.ErrOutcomeUnknown) || errors.Is(err, oauth.ErrLoginRequired) {
						t.Fatalf("error %v", err)
					}
					time.Sleep(between)
					_, err = c.TokenSource().Token()
				}
				wantReason(t, err, oauth.ReasonOutcomeUnknown)
				var server *oauth.ServerError
				if !errors.Is(err, oauth.ErrOutcomeUnknown) || !errors.As(err, &server) || server.Code != "invalid_grant" {
					t.Errorf("error %v", err)
				}
			})
		})
	}
	t.Run("then a refusal that says more", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
				if n == 1 {
					return nil, errLine
				}
				return refuse("invalid_client")(n, r)
			})
			c, log := newClient(t, srv)
			_, err := c.TokenSource().Token()
			var server *oauth.ServerError
			if !errors.As(err, &server) || server.Code != "invalid_client" || errors.Is(err, oauth.ErrOutcomeUnknown) {
				t.Errorf("error %v", err)
			}
			if failed := log.of(oauth.EventRenewFailed); len(failed) != 1 || failed[0].ErrorKind() != "server" {
				t.Errorf("events %+v", failed)
			}
		})
	})
	t.Run("a body that ends early", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			srv := newFakeServer(nil)
			srv.handle = func(n int, r fakeRequest) (*http.Response, error) {
				resp, _ := issue(n, r)
				if n == 1 {
					resp.Body = io.NopCloser(io.MultiReader(strings.NewReader(`{"access_`), failingReader{}))
				}
				return resp, nil
			}
			c, _ := newClient(t, srv)
			wantToken(t, c.TokenSource(), "at-2")
		})
	})
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keep := false
		srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
			switch {
			case keep:
				return issue(n, r) // no refresh_token in the answer
			case n == 3:
				return answer(200, tokenJSON("at-3", "", 3600)[:0]+`{"access_token":"at-3","token_type":"Bearer","expires_in":3600,"refresh_token":""}`), nil
			}
			return rotate(n, r)
		})
		c, log := newClient(t, srv)
		ts := c.TokenSource()
		for i, want := range []string{"rt-1", "rt-2", "rt-2", "rt-4", "rt-4"} {
			keep = i == 4
			wantToken(t, ts, fmt.Sprintf("at-%d", i+1))
			s, err := c.Session(t.Context())
			if err != nil || s.RefreshToken.Reveal() != want || s.Generation != uint64(i+2) {
				t.Fatalf("renewal %d: stored %q of generation %d, %v; want %q", i+1, s.RefreshToken.Reveal(), s.Generation, err, want)
			}
			time.Sleep(2 * time.Hour)
		}
		var rotated []bool
		for _, e := range log.of(oauth.EventRenewed) {
			rotated = append(rotated, e.Rotated)
		}
		if fmt.Sprint(rotated) != "[true true false true false]" {
			t.Errorf("rotated %v", rotated)
		}
	})
}

func TestRotatedTokenIsKeptFromABadAnswer(t *testing.T) {
	for name, body := range map[string]string{
		"no access token":    `{"refresh_token":"rt-new","token_type":"Bearer"}`,
		"unknown token type": `{"refresh_token":"rt-new","access_token":"at","token_type":"mac"}`,
		"wrong type":         `{"refresh_token":"rt-new","access_token":7}`,
		"bound, without key": `{"refresh_token":"rt-new","access_token":"at","token_type":"DPoP"}`,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
					if n == 1 {
						return answer(200, body), nil
					}
					return issue(n, r)
				})
				c, _ := newClient(t, srv)
				_, err := c.TokenSource().Token()
				var server *oauth.ServerError
				if !errors.As(err, &server) || !errors.Is(err, oauth.ErrMalformedResponse) {
					t.Errorf("error %v", err)
				}
				if s, err := c.Session(t.Context()); err != nil || s.RefreshToken != "rt-new" || s.Generation != 2 {
					t.Errorf("the new refresh token was lost: %+v, %v", s, err)
				}
				time.Sleep(time.Minute)
				wantToken(t, c.TokenSource(), "at-2")
				if got := srv.request(1).form.Get("refresh_token"); got != "rt-new" {
					t.Errorf("renewed with %q", got)
				}
			})
		})
	}
}

func TestMalformedAnswers(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	for _, tt := range []struct {
		name, body, contentType, want string
	}{
		{"empty", "", "application/json", "ends too early"},
		{"HTML", "<html>login to the airport wifi</html>", "text/html", `content type is "text/html"`},
		{"truncated", `{"access_token":"at-1"`, "application/json", "ends too early"},
		{"two values", `{"access_token":"a"}{"access_token":"b"}`, "application/json", "text after the value"},
		{"duplicate key", `{"access_token":"a","access_token":"b","token_type":"Bearer"}`, "application/json", "same name twice"},
		{"array", `["at-1"]`, "application/json", "not an object"},
		{"missing access token", `{"token_type":"Bearer"}`, "application/json", "access_token is missing"},
		{"null access token", `{"access_token":null,"token_type":"Bearer"}`, "application/json", "access_token is missing"},
		{"other case", `{"Access_Token":"at-1","token_type":"Bearer"}`, "application/json", "access_token is missing"},
		{"number for a string", `{"access_token":1}`, "application/json", "access_token is not a string"},
		{"line break in the token", `{"access_token":"a\nb"}`, "application/json", "characters"},
		{"bad refresh token", `{"access_token":"a","refresh_token":"й"}`, "application/json", "refresh_token has characters"},
		{"refresh token of a wrong type", `{"access_token":"a","refresh_token":[]}`, "application/json", "refresh_token is not a string"},
		{"scope of a wrong type", `{"access_token":"a","scope":["openid"]}`, "application/json", "scope is not a string"},
		{"token type of a wrong type", `{"access_token":"a","token_type":1}`, "application/json", "token_type is not a string"},
		{"unknown token type", `{"access_token":"a","token_type":"mac"}`, "application/json", "neither Bearer nor DPoP"},
		{"over 1 MiB", `{"access_token":"` + long + `"}`, "application/json", "larger than 1 MiB"},
		{"not UTF-8", "{\"access_token\":\"\xff\"}", "application/json", "not UTF-8"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := newFakeServer(func(int, fakeRequest) (*http.Response, error) {
				return answer(200, tt.body, "Content-Type", tt.contentType, "X-Request-Id", "req-7"), nil
			})
			c, _ := newClient(t, srv)
			_, err := c.TokenSource().Token()
			var server *oauth.ServerError
			if !errors.As(err, &server) || !errors.Is(err, oauth.ErrMalformedResponse) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want one with %q", err, tt.want)
			}
			if server.RequestID != "req-7" || server.Status != 200 || server.Temporary() {
				t.Errorf("error %#v", server)
			}
			if errors.Is(err, oauth.ErrLoginRequired) {
				t.Error("nonsense of the server sent the user to log in")
			}
		})
	}
}

func TestTolerantAnswers(t *testing.T) {
	for _, tt := range []struct {
		name, body, contentType string
		tokenType               string
		life                    time.Duration // 0: unknown
	}{
		{"wrong content type", tokenJSON("at", "", 60), "text/plain", "Bearer", time.Minute},
		{"no content type", tokenJSON("at", "", 60), "", "Bearer", time.Minute},
		{"no token type", `{"access_token":"at","expires_in":60}`, "application/json", "Bearer", time.Minute},
		{"token type in odd case", `{"access_token":"at","token_type":"bEARER","expires_in":60}`, "application/json", "Bearer", time.Minute},
		{"life as a string", `{"access_token":"at","expires_in":"60"}`, "application/json", "Bearer", time.Minute},
		{"life with a fraction", `{"access_token":"at","expires_in":60.5}`, "application/json", "Bearer", 60*time.Second + 500*time.Millisecond},
		{"life in scientific notation", `{"access_token":"at","expires_in":6e1}`, "application/json", "Bearer", time.Minute},
		{"life beyond every float", `{"access_token":"at","expires_in":1e999}`, "application/json", "Bearer", 100 * 365 * 24 * time.Hour},
		{"no life", `{"access_token":"at"}`, "application/json", "Bearer", 0},
		{"life of 0", `{"access_token":"at","expires_in":0}`, "application/json", "Bearer", 0},
		{"negative life", `{"access_token":"at","expires_in":-5}`, "application/json", "Bearer", 0},
		{"life of another type", `{"access_token":"at","expires_in":{}}`, "application/json", "Bearer", 0},
		{"unknown members", `{"access_token":"at","expires_in":60,"id_token":"x","extra":{"a":[1]}}`, "application/json", "Bearer", time.Minute},
		{"a byte order of blanks", " \n\t" + tokenJSON("at", "", 60) + "\n", "application/json", "Bearer", time.Minute},
		{"life of a second", `{"access_token":"at","expires_in":1}`, "application/json", "Bearer", time.Second},
		{"1 MiB", strings.Repeat(" ", 1<<20-len(tokenJSON("at", "", 60))) + tokenJSON("at", "", 60), "application/json", "Bearer", time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := newFakeServer(func(int, fakeRequest) (*http.Response, error) {
					return answer(200, tt.body, "Content-Type", tt.contentType), nil
				})
				c, _ := newClient(t, srv)
				tok, err := c.TokenSource().Token()
				if err != nil {
					t.Fatal(err)
				}
				life := time.Duration(0)
				if !tok.Expiry.IsZero() {
					life = time.Until(tok.Expiry)
				}
				if tok.AccessToken != "at" || tok.TokenType != tt.tokenType || life != tt.life {
					t.Errorf("token %q of type %q for %v, want at, %q, %v", tok.AccessToken, tok.TokenType, life, tt.tokenType, tt.life)
				}
			})
		})
	}
}

func TestEverySuccessfulStatusCounts(t *testing.T) {
	for _, status := range []int{200, 201, 299} {
		srv := newFakeServer(func(int, fakeRequest) (*http.Response, error) { return answer(status, tokenJSON("at", "", 60)), nil })
		c, _ := newClient(t, srv)
		wantToken(t, c.TokenSource(), "at")
	}
}

// idToken is one of a user, without a signature.
func idToken(claims string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + "."
}

func TestIdentity(t *testing.T) {
	whole := oauth.Identity{Subject: "s", Name: "n", Email: "e"}
	for name, tt := range map[string]struct {
		idToken string // in JSON
		want    oauth.Identity
	}{
		"whole":              {fmt.Sprintf("%q", idToken(`{"sub":"s","name":"n","preferred_username":"p","email":"e"}`)), whole},
		"no name":            {fmt.Sprintf("%q", idToken(`{"sub":"s","preferred_username":"p"}`)), oauth.Identity{Subject: "s", Name: "p"}},
		"an empty name":      {fmt.Sprintf("%q", idToken(`{"name":"","preferred_username":"p"}`)), oauth.Identity{Name: "p"}},
		"a name that is 5":   {fmt.Sprintf("%q", idToken(`{"sub":"s","name":5}`)), oauth.Identity{Subject: "s"}},
		"two parts":          {`"e30.e30"`, oauth.Identity{}},
		"no base64":          {`"e30.%.e30"`, oauth.Identity{}},
		"no JSON":            {fmt.Sprintf("%q", idToken("x")), oauth.Identity{}},
		"no string at all":   {`5`, oauth.Identity{}},
		"nothing to be told": {`null`, oauth.Identity{}},
	} {
		t.Run(name, func(t *testing.T) {
			srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
				if n == 1 {
					return answer(200, `{"access_token":"at-1","expires_in":3600,"id_token":`+tt.idToken+`}`), nil
				}
				return issue(n, r)
			})
			c, _ := newClient(t, srv)
			wantToken(t, c.TokenSource(), "at-1")
			if s, err := c.Session(t.Context()); err != nil || s.Identity != tt.want {
				t.Errorf("%+v, %v", s.Identity, err)
			}
			if _, err := c.TokenSource().Renew(t.Context()); err != nil {
				t.Fatal(err)
			}
			if s, err := c.Session(t.Context()); err != nil || s.Identity != tt.want {
				t.Errorf("after a renewal without an id_token: %+v, %v", s.Identity, err)
			}
		})
	}
}

func TestRefreshTokenOfUnknownLife(t *testing.T) {
	for life, want := range map[time.Duration]bool{0: false, time.Hour: true} {
		synctest.Test(t, func(t *testing.T) {
			c, _ := newClient(t, newFakeServer(rotate), func(cfg *oauth.Config) { cfg.Provider.RefreshTokenLife = life })
			wantToken(t, c.TokenSource(), "at-1")
			s, err := c.Session(t.Context())
			if err != nil || s.RefreshExpiry.IsZero() == want || want && !s.RefreshExpiry.Equal(time.Now().Add(life)) {
				t.Errorf("it expires at %v (%v)", s.RefreshExpiry, err)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	const refreshToken = "rt1.c2VjcmV0LXJlZnJlc2gtdG9rZW4.c2lnbmF0dXJl"
	for _, tt := range []struct {
		name   string
		resp   func() *http.Response
		code   string
		want   []string // in the text
		login  bool
		hidden []string // not in the text
	}{
		{"description that echoes the token", func() *http.Response {
			return answer(400, `{"error":"invalid_grant","error_description":"token `+refreshToken+` expired\n\u001b[31m"}`)
		}, "invalid_grant", []string{"REDACTED expired", "log in again"}, true, []string{refreshToken, "\x1b", "\n"}},
		{"code that is a token", func() *http.Response { return answer(400, `{"error":"`+refreshToken+`"}`) },
			"REDACTED", nil, false, []string{refreshToken}},
		{"endless description", func() *http.Response {
			return answer(400, `{"error":"invalid_request","error_description":"`+strings.Repeat("ж", 5000)+`"}`)
		}, "invalid_request", []string{"ж…"}, false, []string{strings.Repeat("ж", 513)}},
		{"description of a wrong type", func() *http.Response { return answer(400, `{"error":"invalid_scope","error_description":5}`) },
			"invalid_scope", []string{"400 Bad Request: invalid_scope"}, false, nil},
		{"wrong secret", func() *http.Response { return answer(401, `{"error":"invalid_client"}`, "X-Request-Id", "abc\x01def") },
			"invalid_client", []string{"check ClientID, ClientSecret", "[request abcdef]"}, false, nil},
		{"redirect", func() *http.Response { return answer(302, "", "Location", "https://evil.example/?"+refreshToken) },
			"", []string{"a redirect, which is not followed"}, false, []string{"evil.example"}},
		{"the first of the redirects", func() *http.Response { return answer(300, `{"error":"invalid_grant"}`) },
			"", []string{"a redirect, which is not followed"}, false, nil},
		{"a status after the redirects", func() *http.Response { return answer(400, `{"error":"invalid_scope"}`) },
			"invalid_scope", nil, false, nil},
		{"OpenID Connect's login_required", func() *http.Response { return answer(400, `{"error":"login_required"}`) },
			"login_required", nil, true, nil},
		{"invalid_grant with status 500 is the server's trouble", func() *http.Response { return answer(500, `{"error":"invalid_grant"}`) },
			"invalid_grant", nil, false, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := newFakeServer(func(int, fakeRequest) (*http.Response, error) { return tt.resp(), nil })
				c, _ := newClient(t, srv)
				if err := c.Import(t.Context(), refreshToken); err != nil {
					t.Fatal(err)
				}
				_, err := c.TokenSource().Token()
				var server *oauth.ServerError
				if !errors.As(err, &server) || server.Code != tt.code {
					t.Fatalf("error %v", err)
				}
				if errors.Is(err, oauth.ErrLoginRequired) != tt.login {
					t.Errorf("log in again: %v", !tt.login)
				}
				for _, s := range []string{err.Error(), fmt.Sprintf("%v %+v %#v", err, err, err)} {
					for _, want := range tt.want {
						if !strings.Contains(s, want) && s == err.Error() {
							t.Errorf("%q is not in %s", want, s)
						}
					}
					for _, hidden := range tt.hidden {
						if strings.Contains(s, hidden) {
							t.Errorf("%q is in %s", hidden, s)
						}
					}
				}
			})
		})
	}
}

// A server that quotes the Authorization header, without its scheme, does not bring the
// client's secret into an error or an event.
func TestQuotedBasicCredentials(t *testing.T) {
	const secret = "the+client/secret: 0123456789"
	for method, credentials := range map[oauth.AuthMethod]string{
		oauth.AuthClientSecretBasicPlain: "client:" + secret,
		oauth.AuthClientSecretBasic:      "client:" + url.QueryEscape(secret),
	} {
		for encoding, value := range map[string]string{
			"as it is": base64.StdEncoding.EncodeToString([]byte(credentials)),
			"unpadded": base64.RawStdEncoding.EncodeToString([]byte(credentials)),
			"in a URL": url.QueryEscape(base64.StdEncoding.EncodeToString([]byte(credentials))),
		} {
			for name, resp := range map[string]func() *http.Response{
				"description": func() *http.Response {
					return answer(401, `{"error":"invalid_client","error_description":"cannot decode '`+value+`'"}`)
				},
				"code":         func() *http.Response { return answer(401, `{"error":"`+value+`"}`) },
				"request id":   func() *http.Response { return answer(503, "", "X-Request-Id", value) },
				"content type": func() *http.Response { return answer(200, "no", "Content-Type", "text/"+value) },
				"transport":    func() *http.Response { return nil },
			} {
				t.Run(string(method)+" "+encoding+" "+name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						srv := newFakeServer(func(int, fakeRequest) (*http.Response, error) {
							if resp := resp(); resp != nil {
								return resp, nil
							}
							return nil, errors.New("malformed HTTP response \"" + value + "\"")
						})
						c, log := newClient(t, srv, func(cfg *oauth.Config) {
							cfg.Provider.AuthMethod, cfg.ClientSecret = method, secret
						})
						_, err := c.TokenSource().Token()
						if text := fmt.Sprint(err, log.events); strings.Contains(text, value[:len(value)-4]) {
							t.Errorf("the client's secret is in: %v", text)
						}
					})
				})
			}
		}
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	followed := false
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed = true }))
	defer elsewhere.Close()
	as := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer as.Close()
	c, err := oauth.New(oauth.Config{Provider: oauth.Provider{Name: "test", TokenURL: as.URL}, ClientID: "client"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Import(t.Context(), "rt-0"); err != nil {
		t.Fatal(err)
	}
	_, err = c.TokenSource().Token()
	var server *oauth.ServerError
	if !errors.As(err, &server) || server.Status != http.StatusTemporaryRedirect || followed {
		t.Errorf("error %v; followed: %v", err, followed)
	}
}

// TestLostAnswerOnARealConnection: net/http tells what was written.
func TestLostAnswerOnARealConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 4096))
			conn.Close()
		}
	}()
	newSource := func(url string) *oauth.TokenSource {
		c, err := oauth.New(oauth.Config{Provider: oauth.Provider{Name: "test", TokenURL: url}, ClientID: "client", MaxAttempts: 2})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Import(t.Context(), "rt-0"); err != nil {
			t.Fatal(err)
		}
		return c.TokenSource()
	}
	if _, err := newSource("http://" + l.Addr().String() + "/token").Token(); !errors.Is(err, oauth.ErrOutcomeUnknown) {
		t.Errorf("closed without an answer: %v, want ErrOutcomeUnknown", err)
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := closed.Addr().String()
	closed.Close()
	if _, err := newSource("http://" + addr + "/token").Token(); err == nil || errors.Is(err, oauth.ErrOutcomeUnknown) {
		t.Errorf("nobody there: %v, which is no unknown outcome", err)
	}
	tls := httptest.NewUnstartedServer(http.NotFoundHandler())
	tls.Config.ErrorLog = log.New(io.Discard, "", 0)
	tls.StartTLS()
	defer tls.Close()
	if _, err := newSource(tls.URL + "/token").Token(); err == nil || errors.Is(err, oauth.ErrOutcomeUnknown) {
		t.Errorf("untrusted certificate: %v, which is no unknown outcome", err)
	}
}

// brokenSigner is a security key that is pulled out, or blocked, after some signatures.
type brokenSigner struct {
	crypto.Signer
	good  int
	err   error
	asked int
}

func (s *brokenSigner) SignContext(_ context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if s.asked++; s.asked > s.good {
		return nil, s.err
	}
	return s.Sign(rand.Reader, digest, opts)
}

// A signer that fails is not asked again by the same request, be it by a caller that
// waits for the server: each try can be one of the few that a card allows for its PIN.
func TestFailingSigner(t *testing.T) {
	for name, good := range map[string]int{"first proof": 0, "proof after a challenge": 1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := newFakeServer(func(n int, _ fakeRequest) (*http.Response, error) {
					return answer(400, `{"error":"use_dpop_nonce"}`, "DPoP-Nonce", fmt.Sprint("n", n)), nil
				})
				errPIN := errors.New("wrong PIN")
				key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
				if err != nil {
					t.Fatal(err)
				}
				signer := &brokenSigner{Signer: key, good: good, err: errPIN}
				prover, err := dpop.New(signer)
				if err != nil {
					t.Fatal(err)
				}
				c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.DPoP = prover })
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				begin := time.Now()
				_, err = c.TokenSource().TokenContext(ctx)
				var failed *dpop.SigningError
				if !errors.Is(err, errPIN) || !errors.As(err, &failed) || errors.Is(err, oauth.ErrOutcomeUnknown) {
					t.Errorf("error %v, want the signer's in a SigningError", err)
				}
				if signer.asked != good+1 || srv.count() != good || time.Since(begin) != 0 {
					t.Errorf("%d signatures and %d requests in %v", signer.asked, srv.count(), time.Since(begin))
				}
			})
		})
	}
}

// A signer that fails may have asked the user for a touch in vain. While a token serves,
// the user is not asked every minute. Without one, callers fail, and a card that was put
// back is used soon.
func TestFailingSignerIsAskedSeldom(t *testing.T) {
	errTouch := errors.New("no touch")
	var wall wallClock
	start := func(t *testing.T) (*brokenSigner, *oauth.Client, *fakeServer, oauth.Store) {
		wall.set(0)
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		signer := &brokenSigner{Signer: key, good: 1, err: errTouch}
		prover, err := dpop.New(signer)
		if err != nil {
			t.Fatal(err)
		}
		srv := newFakeServer(dated)
		store := oauth.NewMemoryStore()
		c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.DPoP, cfg.Store, cfg.Clock = prover, store, wall.now })
		wantToken(t, c.TokenSource(), "at-1")
		return signer, c, srv, store
	}
	// poll calls Token every 10 seconds for d.
	poll := func(t *testing.T, c *oauth.Client, d time.Duration, want string) {
		t.Helper()
		for begin := time.Now(); time.Since(begin) < d; time.Sleep(10 * time.Second) {
			wantToken(t, c.TokenSource(), want)
			synctest.Wait()
		}
	}
	t.Run("while the token is stale", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			signer, c, _, _ := start(t)
			time.Sleep(10 * time.Hour) // of 12: stale
			poll(t, c, 100*time.Minute, "at-1")
			if n := signer.asked - 1; n < 9 || n > 10 {
				t.Errorf("the signer was asked %d times in 100 minutes", n)
			}
			// Somebody who wants a token now gets the card asked.
			asked := signer.asked
			if _, err := c.TokenSource().Renew(t.Context()); !errors.Is(err, errTouch) || signer.asked != asked+1 {
				t.Errorf("Renew: %v, asked %d times", err, signer.asked-asked)
			}
			signer.good = 1000
			time.Sleep(10 * time.Minute)
			wantToken(t, c.TokenSource(), "at-1")
			synctest.Wait()
			wantToken(t, c.TokenSource(), "at-2")
		})
	})
	t.Run("when there is no token", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			signer, c, _, _ := start(t)
			time.Sleep(10 * time.Hour)
			wantToken(t, c.TokenSource(), "at-1")
			synctest.Wait()
			time.Sleep(2 * time.Hour)
			for range 60 {
				if _, err := c.TokenSource().Token(); !errors.Is(err, errTouch) {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Second)
			}
			if n := signer.asked - 2; n < 10 || n > 20 { // 1, 2, 4, … 60 s
				t.Errorf("the signer was asked %d times in 10 minutes", n)
			}
			signer.good = 1000
			time.Sleep(75 * time.Second) // a minute, and the jitter
			wantToken(t, c.TokenSource(), "at-2")
		})
	})
	t.Run("until the token is invalid", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			signer, c, _, _ := start(t)
			time.Sleep(12*time.Hour - 5*time.Minute)
			wantToken(t, c.TokenSource(), "at-1")
			synctest.Wait()
			signer.good = 1000
			time.Sleep(5*time.Minute - 20*time.Second)
			wantToken(t, c.TokenSource(), "at-2")
		})
	})
	t.Run("a sibling renews", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			signer, c, srv, store := start(t)
			time.Sleep(10 * time.Hour)
			wantToken(t, c.TokenSource(), "at-1")
			synctest.Wait()
			put(t, store, func(s *oauth.Session) {
				freshUntil(s, "at-sibling", 12*time.Hour)
				s.RefreshToken, s.Issued = "rt-sibling", time.Now()
			})
			time.Sleep(time.Minute)
			wantToken(t, c.TokenSource(), "at-1") // this one has a look
			synctest.Wait()
			wantToken(t, c.TokenSource(), "at-sibling")
			if signer.asked != 2 || srv.count() != 1 {
				t.Errorf("the signer was asked %d times, %d requests", signer.asked, srv.count())
			}
		})
	})
	t.Run("the wall clock is set again and again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			signer, c, _, _ := start(t)
			time.Sleep(10 * time.Hour)
			for range 10 {
				poll(t, c, 10*time.Second, "at-1")
				wall.set(time.Duration(wall.off.Load()) + 11*time.Minute)
			}
			if n := signer.asked - 1; n > 1+2 { // a clock may end one rest a minute
				t.Errorf("the signer was asked %d times in 100 seconds", n)
			}
		})
	})
}

// slowSigner does not learn that a context has ended.
type slowSigner struct {
	crypto.Signer
	slow time.Duration

	mu   sync.Mutex
	busy int
	most int
}

func (s *slowSigner) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	s.mu.Lock()
	s.busy++
	s.most = max(s.most, s.busy)
	slow := s.slow
	s.mu.Unlock()
	time.Sleep(slow)
	s.mu.Lock()
	s.busy--
	s.mu.Unlock()
	return s.Signer.Sign(rand, digest, opts)
}

// A signer that hangs holds neither the store nor a caller nor Close for longer than a
// renewal may take, and is not asked again before it has returned.
func TestHangingSigner(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		signer := &slowSigner{Signer: key}
		prover, err := dpop.New(signer)
		if err != nil {
			t.Fatal(err)
		}
		signer.slow = time.Hour
		c, _ := newClient(t, newFakeServer(issue), func(cfg *oauth.Config) { cfg.DPoP = prover })
		ts := c.TokenSource()
		for range 3 {
			begin := time.Now()
			_, err = ts.Token()
			var failed *dpop.SigningError
			if d := time.Since(begin); !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &failed) || !strings.Contains(err.Error(), "the signer of the DPoP key") || d > 2*time.Minute+time.Second {
				t.Errorf("%v, after %v", err, d)
			}
			if err := c.Import(t.Context(), "rt-1"); err != nil { // takes the store's lock
				t.Error(err)
			}
		}
		time.Sleep(time.Hour)
		signer.mu.Lock()
		signer.slow = 0
		signer.mu.Unlock()
		time.Sleep(time.Hour)
		if _, err := ts.Token(); err != nil {
			t.Errorf("after the signer has returned: %v", err)
		}
		signer.mu.Lock()
		signer.slow = time.Hour
		signer.mu.Unlock()
		go func() { _, _ = ts.Renew(t.Context()) }()
		time.Sleep(time.Second)
		begin := time.Now()
		closeSource(t, c)
		if d := time.Since(begin); d > time.Second {
			t.Errorf("Close took %v", d)
		}
		time.Sleep(2 * time.Hour)
		signer.mu.Lock()
		defer signer.mu.Unlock()
		if signer.most != 1 {
			t.Errorf("%d signatures at once", signer.most)
		}
	})
}

func TestBodyErrorHoldsNoSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newRotor(3600)
		c, _ := clientOf(t, srv, oauth.NewMemoryStore(), nil)
		defer c.TokenSource().Close()
		const rt = "simple-token-0123456789abcdef"
		if err := c.Import(t.Context(), rt); err != nil {
			t.Fatal(err)
		}
		srv.answer = func(form url.Values) (*http.Response, error) {
			r := jsonResponse(200, nil, map[string]any{})
			r.Body = io.NopCloser(failing{errors.New(`http2: server sent GOAWAY and closed the connection; LastStreamID=1, ErrCode=PROTOCOL_ERROR, debug="bad body: ` + form.Encode() + `"`)})
			return r, nil
		}
		if _, err := c.TokenSource().Token(); err == nil || strings.Contains(err.Error(), rt) {
			t.Error(err)
		}
	})
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
