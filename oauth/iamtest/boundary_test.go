package iamtest_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

// TestExactTimes: what ends at an instant is there the moment before, and gone at
// that instant.
func TestExactTimes(t *testing.T) {
	epoch := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	const moment = time.Nanosecond
	for name, tt := range map[string]struct {
		opts    iamtest.Options
		prepare func(u *user) string
		wait    time.Duration // until the instant
		good    func(u *user, value string) bool
	}{
		"code": {iamtest.Options{CodeLife: time.Minute},
			func(u *user) string { return u.authorize(u.authorization()).Get("code") }, time.Minute,
			func(u *user, code string) bool { return u.do(u.tokenRequest(u.codeForm(code))).status == 200 }},
		"access token": {iamtest.Options{AccessLife: time.Hour},
			func(u *user) string { return u.srv.IssueAccessToken("", "") }, time.Hour,
			func(u *user, token string) bool { return u.call("GET", "/api/whoami", "", token).status == 200 }},
		"refresh token": {iamtest.Options{RefreshLife: time.Hour},
			func(u *user) string { return u.login().str("refresh_token") }, time.Hour,
			func(u *user, token string) bool { return u.refresh(token).status == 200 }},
		"listed": {iamtest.Options{RefreshLife: time.Hour, KeepExpired: time.Hour},
			func(u *user) string { return u.login().str("refresh_token") }, 2*time.Hour + moment,
			func(u *user, token string) bool { return u.srv.Introspect(token).State == iamtest.TokenExpired }},
		"far from the end": {iamtest.Options{RefreshLife: 10 * time.Hour, RotateWithin: time.Hour},
			func(u *user) string { return u.login().str("refresh_token") }, 9*time.Hour + moment,
			func(u *user, token string) bool {
				return wantOK(u.t, u.refresh(token)).members["refresh_token"] == nil
			}},
		"grace": {iamtest.Options{Rotation: iamtest.RotateAlways, GracePeriod: time.Minute},
			func(u *user) string {
				token := u.login().str("refresh_token")
				wantOK(u.t, u.refresh(token))
				return token
			}, time.Minute,
			func(u *user, token string) bool { return u.refresh(token).status == 200 }},
		"same token": {iamtest.Options{AccessLife: 10 * time.Hour, SameTokenWhile: time.Hour},
			func(u *user) string {
				a := u.login()
				return a.str("refresh_token") + " " + a.str("access_token")
			}, 9 * time.Hour,
			func(u *user, tokens string) bool {
				refresh, access, _ := strings.Cut(tokens, " ")
				return wantOK(u.t, u.refresh(refresh)).str("access_token") == access
			}},
		"nonce": {iamtest.Options{Nonces: iamtest.NoncesRequired, NonceLife: time.Hour},
			func(u *user) string { return u.login().str("refresh_token") }, time.Hour,
			func(u *user, token string) bool { return u.refresh(token).status == 200 }},
		"newest nonce": {iamtest.Options{Nonces: iamtest.NoncesOptional, NonceLife: time.Hour},
			func(u *user) string {
				return u.do(u.tokenRequest(u.refreshForm("x"))).header.Get(dpop.NonceHeader)
			}, time.Hour / 2,
			func(u *user, nonce string) bool {
				return u.do(u.tokenRequest(u.refreshForm("x"))).header.Get(dpop.NonceHeader) == nonce
			}},
		"operation under way": {iamtest.Options{OperationDelay: time.Minute},
			func(u *user) string {
				u.srv.Seed(1, nil)
				return wantOK(u.t, u.revoke(u.srv.IssueAccessToken("", ""), `{"revokeFilter":{}}`)).str("id")
			}, time.Minute,
			func(u *user, id string) bool {
				op := wantOK(u.t, u.call("GET", "/operations/"+id, "", u.srv.IssueAccessToken("", "")))
				return op.members["done"] == nil
			}},
	} {
		for _, before := range []time.Duration{moment, 0} {
			t.Run(name, func(t *testing.T) {
				o := tt.opts
				o.Now = func() time.Time { return epoch }
				srv := iamtest.Start(t, o)
				u := newUser(t, srv)
				value := tt.prepare(u)
				srv.Advance(tt.wait - before)
				if good := tt.good(u, value); good != (before > 0) {
					t.Errorf("%v before the instant: %v", before, good)
				}
			})
		}
	}
}

// TestExactNumbers: the last one that may, and the first that may not.
func TestExactNumbers(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{Rotation: iamtest.RotateAlways, GracePeriod: time.Hour, GraceUses: 2, MaxRecords: 20, NonceEvery: 2, Nonces: iamtest.NoncesOptional})
	u := newUser(t, srv)
	token := u.login().str("refresh_token")
	for i, want := range []int{200, 200, 200, 400} { // one use, two of grace
		if got := u.refresh(token).status; got != want {
			t.Errorf("use %d of the refresh token: status %d, want %d", i, got, want)
		}
	}

	const limit = 64 << 10 // bytes of a body
	for size, want := range map[int]string{limit: "invalid_grant", limit + 1: "invalid_request"} {
		form := "grant_type=refresh_token&client_id=" + srv.ClientID + "&refresh_token=x&pad="
		req := u.request("POST", "/oauth/token", form+strings.Repeat("x", size-len(form)))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		u.prove(req, "")
		wantError(t, u.do(req), 400, want)
	}
	for n, want := range map[int]string{50: "", 51: "invalid_request"} {
		q := u.authorization()
		q.Set("yc_sub_hint", strings.Repeat("x", n))
		if got := u.authorize(q).Get("error"); got != want {
			t.Errorf("a hint of %d characters: error %q", n, got)
		}
	}

	srv.RotateNonces()
	var nonces []string
	for range 6 {
		nonces = append(nonces, u.do(u.tokenRequest(u.refreshForm("x"))).header.Get(dpop.NonceHeader))
	}
	for i := 1; i < len(nonces); i++ {
		if same := nonces[i] == nonces[i-1]; same != (i%2 == 1) && i > 1 {
			t.Errorf("answer %d has the nonce before: %v", i, same)
		}
	}

	srv.ResetRequests()
	if n := srv.Count(iamtest.EndpointToken); n != 0 || len(srv.Requests()) != 0 {
		t.Errorf("after the reset %d requests are counted", n)
	}
	for n := 1; n <= 21; n++ {
		u.call("GET", "/endpoints", "", "")
		want := n
		if n > 20 {
			want = 19 // a tenth was dropped
		}
		if got := len(srv.Requests()); got != want {
			t.Errorf("after %d requests %d are remembered, want %d", n, got, want)
		}
	}
}

// TestHeadersOfAnswers: RFC 6749 §5.1 asks for two of them, and a client's clock
// goes by the third.
func TestHeadersOfAnswers(t *testing.T) {
	srv := iamtest.Start(t)
	u := newUser(t, srv)
	a := u.login()
	date, err := http.ParseTime(a.header.Get("Date"))
	if a.header.Get("Cache-Control") != "no-store" || a.header.Get("Pragma") != "no-cache" || err != nil || time.Since(date).Abs() > time.Minute {
		t.Errorf("header %v", a.header)
	}
}

// TestClockStays: Configure cannot take the clock away from what was issued by it.
func TestClockStays(t *testing.T) {
	epoch := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	srv := iamtest.Start(t, iamtest.Options{Now: func() time.Time { return epoch }})
	for range 2 {
		if err := srv.Configure(func(o *iamtest.Options) {
			if !o.Now().Equal(epoch) {
				t.Error("the options given have another clock")
			}
			o.Now = time.Now
		}); err != nil {
			t.Fatal(err)
		}
	}
	if !srv.Now().Equal(epoch) {
		t.Errorf("the clock is at %v", srv.Now())
	}
}

// TestNoProofIsNoKey: where a proof may be missing, a missing one is not taken for
// the right one, nor for that of a thief.
func TestNoProofIsNoKey(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{AllowUnbound: true, WrongKeyRevokes: true})
	u := newUser(t, srv)
	bound := u.codeForm(u.authorize(u.authorization()).Get("code"))
	token := u.login().str("refresh_token")
	prover := u.prover
	u.prover = nil
	wantError(t, u.do(u.tokenRequest(bound)), 400, "invalid_grant")
	wantError(t, u.refresh(token), 400, "invalid_grant")
	u.prover = prover
	wantOK(t, u.refresh(token))
}

// TestFirstReasonStays: why a grant is over does not change with what comes later.
func TestFirstReasonStays(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{Rotation: iamtest.RotateAlways})
	u := newUser(t, srv)
	old := u.login().str("refresh_token")
	current := wantOK(t, u.refresh(old)).str("refresh_token")
	wantError(t, u.refresh(old), 400, "invalid_grant")
	srv.RevokeRefreshToken(current)
	if got := srv.Introspect(current).GrantEnded; got != "a replaced refresh token was used" {
		t.Errorf("the grant is over because %q", got)
	}
}

// TestSameTokenIsTheRightOne: neither a revoked token nor one of another scope.
func TestSameTokenIsTheRightOne(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{SameTokenWhile: time.Hour})
	u := newUser(t, srv)
	first := u.login()
	refresh := first.str("refresh_token")
	form := u.refreshForm(refresh)
	form.Set("scope", "openid")
	narrow := wantOK(t, u.do(u.tokenRequest(form))).str("access_token")
	if narrow == first.str("access_token") {
		t.Error("a token of another scope was given")
	}
	if again := wantOK(t, u.do(u.tokenRequest(form))).str("access_token"); again != narrow {
		t.Error("the same scope gave another token")
	}
	srv.RevokeAccessToken(narrow)
	if again := wantOK(t, u.do(u.tokenRequest(form))).str("access_token"); again == narrow {
		t.Error("a revoked token was given")
	}
}

// TestNoncesAreForProofs: a resource gives none to requests with a Bearer token.
func TestNoncesAreForProofs(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{ResourceNonces: iamtest.NoncesRequired})
	u := newUser(t, srv)
	a := wantOK(t, u.call("GET", "/api/whoami", "", srv.IssueAccessToken("", "")))
	if got := a.header.Get(dpop.NonceHeader); got != "" {
		t.Errorf("got the nonce %q", got)
	}
}

// TestTwoAuthorizationHeaders: nobody can say which of them counts.
func TestTwoAuthorizationHeaders(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{ClientID: "app", ClientSecret: "the secret of the app"})
	u := newUser(t, srv)
	form := u.refreshForm("x")
	form.Del("client_id")
	req := u.tokenRequest(form)
	req.SetBasicAuth("app", "the+secret+of+the+app")
	req.Header["Authorization"] = append(req.Header["Authorization"], req.Header["Authorization"]...)
	wantError(t, u.do(req), 400, "invalid_request")
	form.Set("client_id", "another")
	req = u.tokenRequest(form)
	req.SetBasicAuth("app", "the+secret+of+the+app")
	wantError(t, u.do(req), 400, "invalid_request")
}
