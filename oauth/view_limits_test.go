package oauth

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/dpop"
)

func TestHolds(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Session)
		want   bool
	}{
		"the same":              {func(*Session) {}, true},
		"another generation":    {func(s *Session) { s.Generation++ }, true},
		"another login":         {func(s *Session) { s.Created = s.Created.Add(1) }, false},
		"another provider":      {func(s *Session) { s.Provider = "q" }, false},
		"another client":        {func(s *Session) { s.ClientID = "d" }, false},
		"another refresh token": {func(s *Session) { s.RefreshToken = "rt" }, false},
		"another access token":  {func(s *Session) { s.AccessToken = "at" }, false},
	} {
		a, b := loginAt(0, 1), loginAt(0, 1)
		tt.change(&b)
		if holds(a, b) != tt.want || holds(b, a) != tt.want {
			t.Errorf("%s: want %v", name, tt.want)
		}
	}
}

// TestNothingWasAsked: without a wish of the server there is no silence, also for a caller
// that looked at the clock before the failure.
func TestNothingWasAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := at(0)
		time.Sleep(time.Second)
		for busy, want := range map[time.Duration]bool{0: false, time.Minute: true} {
			v := view{failed: at(time.Second), busy: busy}
			if got := v.asked(now); got != want {
				t.Errorf("asked for %v: %v", busy, got)
			}
		}
	})
}

// TestDeadTokenOfASibling: one with nothing left does not replace one that serves.
func TestDeadTokenOfASibling(t *testing.T) {
	for left, want := range map[time.Duration]string{-1: "at-0s-1", 0: "at-0s-1", 1: "at-0s-2"} {
		v := view{}.loggedIn(loginAt(0, 1), nil, at(0), fixedMargins)
		s := loginAt(0, 2)
		s.Obtained, s.Expiry = day.Add(-time.Hour), day.Add(left)
		if v = v.took(s, nil, true, at(0), day, fixedMargins); v.token == nil || v.token.AccessToken != want {
			t.Errorf("%v left: got %v, want %s", left, v.token, want)
		}
	}
}

// TestProofThatIsSentLate may be rejected for that alone, under a lease.
func TestProofThatIsSentLate(t *testing.T) {
	for _, tt := range []struct {
		holds, after time.Duration
		want         bool
	}{
		{time.Minute, lateProof, true},
		{time.Minute, lateProof - 1, false},
		{forever, lateProof, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := beginning{holds: tt.holds, made: at(0)}
			time.Sleep(tt.after)
			if got := b.late(tokenResponse{sent: at(tt.after)}); got != tt.want {
				t.Errorf("%+v: got %v", tt, got)
			}
		})
	}
}

// TestPatienceThatIsCanceled does not pass for a timeout.
func TestPatienceThatIsCanceled(t *testing.T) {
	parent, end := context.WithCancel(t.Context())
	defer end()
	for _, cancelParent := range []bool{false, true} {
		ctx, cancel := patience(parent, time.Hour)
		if err := ctx.Err(); err != nil {
			t.Errorf("at once: %v", err)
		}
		if cancelParent {
			end()
		} else {
			cancel()
		}
		if err := ctx.Err(); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		cancel()
	}
}

// TestSalvageTakesAnObject, and nothing else, however much it looks like one inside.
func TestSalvageTakesAnObject(t *testing.T) {
	for body, want := range map[string]int{
		`{"refresh_token":"rt-1"`: 1, `{"refresh_token":"rt-1","a":`: 1, `{}`: 0,
		`["refresh_token","rt-1"]`: -1, `"refresh_token"`: -1, ``: -1, `}`: -1,
	} {
		members, _, _ := salvage([]byte(body))
		if members == nil && want >= 0 || members != nil && len(members) != want {
			t.Errorf("%s: got %v, want %d members", body, members, want)
		}
	}
}

// TestIssuerOfACallback compares iss (RFC 9207 §2.4) where the provider has an issuer.
func TestIssuerOfACallback(t *testing.T) {
	const ours = "https://as.example"
	for _, tt := range []struct {
		from   expectedIssuer
		theirs string
		ok     bool
	}{
		{expectedIssuer{}, "", true},
		{expectedIssuer{}, ours, true},
		{expectedIssuer{ours, false}, "", true},
		{expectedIssuer{ours, false}, ours, true},
		{expectedIssuer{ours, false}, "https://evil.example", false},
		{expectedIssuer{ours, true}, ours, true},
		{expectedIssuer{ours, true}, "", false},
		{expectedIssuer{ours, true}, ours + "/", false},
		{expectedIssuer{ours, true}, "https://AS.example", false},
	} {
		for _, response := range []url.Values{{"code": {"c"}}, {"error": {"access_denied"}}} {
			response.Set("state", "s")
			if tt.theirs != "" {
				response.Set("iss", tt.theirs)
			}
			got, err := parseCallback(response, "s", tt.from)
			if err != nil || errors.Is(got.err, ErrIssuerMismatch) == tt.ok || !tt.ok && got.code != "" {
				t.Errorf("%+v, %v: got %v and %v", tt, response, got.err, err)
			}
			response.Set("state", "of another login")
			if _, err := parseCallback(response, "s", tt.from); err == nil {
				t.Errorf("%+v, %v: the response of another login was accepted", tt, response)
			}
		}
	}
}

// TestPastedText says what is wrong with it.
func TestPastedText(t *testing.T) {
	for text, want := range map[string]string{
		"://": "not an address", "http://127.0.0.1/": "not an address", "the-code": "not an address",
		"http://127.0.0.1/?state=t&code=c": "to this login", "http://127.0.0.1/?state=s&code=c": "",
	} {
		_, err := parsePasted(text, &callback{state: "s"})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

func TestInterruptedErrorText(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{nil, "oauth: the outcome of a token request of another process is not known, so none is made before 2026-11-21T12:00:00Z"},
		{errors.New("oauth: lost"), "oauth: the outcome of the token request is not known, so the next is not made before 2026-11-21T12:00:00Z: lost"},
	} {
		if got := (&InterruptedError{Until: day, Err: tt.err}).Error(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// proving is a client that makes proofs, and the number of requests that it sent.
func proving(t *testing.T, handle func(n int, r *http.Request) (status int, body string, err error)) (*Client, *int) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	prover, err := dpop.New(key)
	if err != nil {
		t.Fatal(err)
	}
	n := new(int)
	c, err := New(Config{
		Provider: Provider{Name: "p", TokenURL: "https://as.example/token"}, ClientID: "c", DPoP: prover,
		HTTPClient: &http.Client{Transport: tripper(func(r *http.Request) (*http.Response, error) {
			*n++
			status, body, err := handle(*n, r)
			if err != nil {
				return nil, err
			}
			header := http.Header{"Content-Type": {"application/json"}, "Dpop-Nonce": {"n"}}
			return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
		})},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c, n
}

// TestCodeThatIsCanceled: the request for a code ends with its ctx, also after a challenge.
func TestCodeThatIsCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c, n := proving(t, func(n int, r *http.Request) (int, string, error) {
			if n == 1 {
				return 400, `{"error":"use_dpop_nonce"}`, nil
			}
			cancel()
			<-r.Context().Done()
			return 0, "", r.Context().Err()
		})
		begin := time.Now()
		_, err := c.attempt(ctx, codeGrant("c", "v", "http://127.0.0.1/"))
		if took := time.Since(begin); !errors.Is(err, context.Canceled) || took != 0 || *n != 2 {
			t.Errorf("%v after %v and %d requests", err, took, *n)
		}
	})
}

// TestRejectedProofThatWasLate is made anew, once, under a lease alone.
func TestRejectedProofThatWasLate(t *testing.T) {
	for _, tt := range []struct {
		pause, holds time.Duration
		requests     int
	}{{0, time.Minute, 1}, {lateProof, time.Minute, 2}, {lateProof, forever, 1}} {
		synctest.Test(t, func(t *testing.T) {
			c, n := proving(t, func(int, *http.Request) (int, string, error) {
				return 400, `{"error":"invalid_dpop_proof"}`, nil
			})
			g := refreshGrant("rt")
			g.begin = func(context.Context) (time.Time, time.Duration, error) {
				time.Sleep(tt.pause)
				return time.Time{}, tt.holds, nil
			}
			if _, err := c.attempt(t.Context(), g); err == nil || *n != tt.requests {
				t.Errorf("%+v: %v after %d requests", tt, err, *n)
			}
		})
	}
}

// TestSearchedTexts: a text that is too long to be searched for secrets is not shown.
func TestSearchedTexts(t *testing.T) {
	for n, want := range map[int]bool{maxSearched: true, maxSearched + 1: false} {
		text := strings.Repeat("a", n)
		if got := brief(text); (got == text) != want {
			t.Errorf("a text of %d bytes became %.40q", n, got)
		}
		const code = "invalid_grant"
		body := `{"error":"` + strings.Repeat(" ", n-len(code)) + code + `"}`
		if got, _, err := parseErrorAnswer([]byte(body), nil); (got == code) != want || (err == nil) != want {
			t.Errorf("a code of %d bytes: got %.40q and %v", n, got, err)
		}
	}
}

// TestAmbiguousErrorCode is none, but one that is there twice is one.
func TestAmbiguousErrorCode(t *testing.T) {
	for body, want := range map[string]string{
		`{"error":"invalid_grant","error":"invalid_grant"}`:   "invalid_grant",
		`{"error":"invalid_grant","error":"temporary"}`:       "",
		`{"a":1,"a":2,"error":"invalid_grant"}`:               "invalid_grant",
		`{"error":"invalid_grant","error_description":"cut o`: "invalid_grant",
	} {
		if got, _, err := parseErrorAnswer([]byte(body), nil); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: got %q and %v", body, got, err)
		}
	}
}
