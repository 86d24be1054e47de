package iamtest_test

import (
	"fmt"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
	"github.com/ycauth/ycauth-go/oauth/iamtest/internal/iamapi"
)

// heap is what is in use after a collection, in bytes.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestMemoryIsBounded: a program that renews all day does not grow the server.
func TestMemoryIsBounded(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for name, o := range map[string]iamtest.Options{
		"rotation":          {Rotation: iamtest.RotateAlways},
		"no rotation":       {Rotation: iamtest.RotateNever},
		"a nonce each time": {Rotation: iamtest.RotateNever, Nonces: iamtest.NoncesOptional, NonceEvery: 1},
	} {
		t.Run(name, func(t *testing.T) {
			o.AllowUnbound, o.MaxRecords, o.Now = true, 100, func() time.Time { return now }
			srv := iamtest.Start(t, o)
			u := newUser(t, srv)
			u.prover = nil
			u.over(srv.RoundTripper())
			token := srv.Seed(1, nil)[0]
			renew := func(n int) {
				for range n {
					if next := wantOK(t, u.refresh(token)).str("refresh_token"); next != "" {
						token = next
					}
				}
			}
			renew(5_000) // fill what is bounded
			before := heap()
			renew(3_000)
			if grown := heap() - before; grown > 300_000 {
				t.Errorf("3,000 renewals grew the heap by %d bytes", grown)
			}
		})
	}
}

// TestSweep: what has expired is given up, and nothing else.
func TestSweep(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{AllowUnbound: true, MaxRecords: 100, OperationPolls: 1})
	u := newUser(t, srv)
	u.prover = nil
	u.over(srv.RoundTripper())
	kept := u.login().str("refresh_token")
	timeless := srv.Seed(1, func(_ int, s *iamtest.Seed) { s.ExpiresAt = time.Time{} })[0]
	caller := iamapi.Caller{SubjectID: "ajeiamtestuser000001"}
	n := 0
	revoke := func() *iamapi.Operation {
		n++
		id := fmt.Sprintf("%08x-0000-0000-0000-000000000000", n)
		srv.Seed(1, func(_ int, s *iamtest.Seed) { s.ID = id })
		op, err := iamapi.Of(srv).RevokeRefreshTokens(caller, iamapi.RevokeRequest{RefreshTokenID: &id}, id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := iamapi.Of(srv).GetOperation(caller, op.ID); err != nil {
			t.Fatal(err)
		}
		return op
	}
	done := revoke()
	if _, err := iamapi.Of(srv).GetOperation(caller, done.ID); err != nil {
		t.Fatal(err)
	}
	const logins, days, life = 100, 60, 31 + 7 // the days that an expired token is still listed
	for range days {
		for range logins {
			u.login()
			srv.IssueAccessToken("", "")
			revoke()
		}
		wantOK(t, u.refresh(kept))
		srv.Advance(24 * time.Hour)
		if next := u.refresh(kept).str("refresh_token"); next != "" {
			kept = next
		}
	}
	held := srv.Held()
	// A sweep comes when everything together has doubled, so twice of what lives
	// can be there: the tokens of logins, and those that were revoked.
	for name, most := range map[string]int{
		"codes": 2 * logins * life / 2, "refresh": 2 * 2 * logins * life, "access": 2 * logins * life / 2,
		"grants": 2 * 2 * logins * life, "operations": iamtest.MinSweep, "keys": iamtest.MinSweep,
	} {
		if held[name] > most {
			t.Errorf("%d %s are held, want at most %d", held[name], name, most)
		}
	}
	for name, least := range map[string]int{"refresh": 2 * logins * life, "grants": logins * life, "operations": logins, "keys": logins} {
		if held[name] < least {
			t.Errorf("%d %s are held, want at least %d", held[name], name, least)
		}
	}
	srv.Advance(50 * 24 * time.Hour)
	live := srv.Seed(1, nil)[0]
	for range 3 {
		srv.Advance(13 * time.Hour)
		for range 20_000 {
			srv.IssueAccessToken("", "")
		}
	}
	held = srv.Held()
	for name, most := range map[string]int{"codes": 0, "refresh": 2, "ids": 2, "access": 40_000, "grants": 2} {
		if held[name] > most {
			t.Errorf("after everything else has expired, %d %s are held, want at most %d", held[name], name, most)
		}
	}
	for token, want := range map[string]iamtest.TokenState{
		kept: iamtest.TokenUnknown, timeless: iamtest.TokenCurrent, live: iamtest.TokenCurrent} {
		if got := srv.Introspect(token).State; got != want {
			t.Errorf("a token is %s, want %s", got, want)
		}
	}
}

// TestOldestIsForgotten: what the server gives up first is what is oldest.
func TestOldestIsForgotten(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{
		AllowUnbound: true, Rotation: iamtest.RotateAlways, ReuseKeepsGrant: true, MaxRecords: 10,
		ClientID: "app", ClientSecret: "a secret of the client", AuthMethod: oauth.AuthClientSecretPost,
	})
	u := newUser(t, srv)
	u.prover = nil
	u.over(srv.RoundTripper())
	first := srv.Seed(1, nil)[0]
	tokens, access := []string{first}, []string{}
	for range 1500 {
		a := wantOK(t, u.do(u.tokenRequest(withSecret(u.refreshForm(tokens[len(tokens)-1]), srv))))
		tokens, access = append(tokens, a.str("refresh_token")), append(access, a.str("access_token"))
	}
	for _, tt := range []struct {
		n    int
		want iamtest.TokenState
	}{
		{0, iamtest.TokenUnknown}, {499, iamtest.TokenUnknown}, {500, iamtest.TokenReplaced}, {1499, iamtest.TokenReplaced}, {1500, iamtest.TokenCurrent},
	} {
		if got := srv.Introspect(tokens[tt.n]).State; got != tt.want {
			t.Errorf("refresh token %d is %s, want %s", tt.n, got, tt.want)
		}
	}
	for n, want := range map[int]bool{0: false, 499: false, 500: true, 1499: true} {
		if got := !srv.AccessTokenExpiry(access[n]).IsZero(); got != want {
			t.Errorf("access token %d is accepted: %v", n, got)
		}
	}
	secrets := fmt.Sprint(srv.Secrets())
	if n := len(srv.Secrets()); n > 11 || n < 10 {
		t.Errorf("%d secrets are remembered", n)
	}
	for _, want := range []string{tokens[1500], access[1499], "a secret of the client"} {
		if !strings.Contains(secrets, want) {
			t.Error("a secret of the last renewal, or of the client, is forgotten")
		}
	}
}

func withSecret(form url.Values, srv *iamtest.Server) url.Values {
	form.Set("client_secret", srv.ClientSecret().Reveal())
	return form
}
