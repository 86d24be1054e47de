package iamtest_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
	"github.com/ycauth/ycauth-go/oauth/iamtest/internal/iamapi"
)

// TestPageTokenEnds: no page token leads to a page on which nothing can be.
func TestPageTokenEnds(t *testing.T) {
	srv := iamtest.Start(t)
	c := iamapi.Caller{SubjectID: "ajeiamtestuser000001"}
	values := srv.Seed(4, func(i int, s *iamtest.Seed) {
		if named(i, s); i > 0 {
			s.ClientID = "another"
		}
	})
	srv.RevokeRefreshToken(values[3])
	list := func(size int64, filter string) *iamapi.ListResponse {
		t.Helper()
		page, err := iamapi.Of(srv).ListRefreshTokens(c, iamapi.ListRequest{PageSize: size, Filter: filter})
		if err != nil {
			t.Fatal(err)
		}
		return page
	}
	const one = `client_id="yc.oauth.public-sdk"`
	for _, tt := range []struct {
		size   int64
		filter string
		sparse bool
		n      int
		more   bool
	}{
		{1, one, false, 1, false}, {3, "", false, 3, false}, {2, "", false, 2, true}, {1, one, true, 1, true},
	} {
		if err := srv.Configure(func(o *iamtest.Options) { o.SparsePages = tt.sparse }); err != nil {
			t.Fatal(err)
		}
		if page := list(tt.size, tt.filter); len(page.RefreshTokens) != tt.n || (page.NextPageToken != "") != tt.more {
			t.Errorf("%d of %q, sparse %v: %d tokens, next page %q", tt.size, tt.filter, tt.sparse, len(page.RefreshTokens), page.NextPageToken)
		}
	}
}

// TestPageTokenOfAnother: a page token is good for its subject and filter only, and
// nobody can make one.
func TestPageTokenOfAnother(t *testing.T) {
	const me, other = "ajeme000000000000001", "ajeother000000000001"
	srv := iamtest.Start(t, iamtest.Options{Roles: map[string][]string{me: {"organization-manager.viewer"}}})
	c := iamapi.Caller{SubjectID: me}
	srv.Seed(2, func(_ int, s *iamtest.Seed) { s.SubjectID = me })
	page, err := iamapi.Of(srv).ListRefreshTokens(c, iamapi.ListRequest{PageSize: 1})
	if err != nil || page.NextPageToken == "" {
		t.Fatal(page, err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(page.NextPageToken)
	if err != nil {
		t.Fatal(err)
	}
	_, mark, _ := strings.Cut(string(raw), ".")
	forged := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	for name, tt := range map[string]struct {
		req  iamapi.ListRequest
		want string // "": good
	}{
		"the same":           {iamapi.ListRequest{PageToken: page.NextPageToken}, ""},
		"by name":            {iamapi.ListRequest{PageToken: page.NextPageToken, SubjectID: me}, ""},
		"of another subject": {iamapi.ListRequest{PageToken: page.NextPageToken, SubjectID: other}, "of another subject_id or filter"},
		"of another filter":  {iamapi.ListRequest{PageToken: page.NextPageToken, Filter: `client_id="abc"`}, "of another subject_id or filter"},
		"made of 0":          {iamapi.ListRequest{PageToken: forged("0." + mark)}, ""},
		"made of -1":         {iamapi.ListRequest{PageToken: forged("-1." + mark)}, "not one that the server made"},
		"made of a word":     {iamapi.ListRequest{PageToken: forged("one." + mark)}, "not one that the server made"},
		"without its mark":   {iamapi.ListRequest{PageToken: forged("1")}, "not one that the server made"},
		"too long":           {iamapi.ListRequest{PageToken: strings.Repeat("x", 2001)}, "has 2001 characters, and may have 2000"},
	} {
		_, err := iamapi.Of(srv).ListRefreshTokens(c, tt.req)
		if (tt.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}

// TestEveryoneSeesTheEnd: an operation that is over is over for whatever asks next.
func TestEveryoneSeesTheEnd(t *testing.T) {
	c := iamapi.Caller{SubjectID: "ajeiamtestuser000001"}
	const key = "0F9D6A3C-54B1-4A8B-9D75-2B1C0E9F8A77"
	for name, revoked := range map[string]func(u *user, value string) bool{
		"List": func(u *user, _ string) bool {
			page, err := iamapi.Of(u.srv).ListRefreshTokens(c, iamapi.ListRequest{})
			return err == nil && len(page.RefreshTokens) == 0
		},
		"Introspect": func(u *user, value string) bool { return u.srv.Introspect(value).State == iamtest.TokenRevoked },
		"LiveGrants": func(u *user, _ string) bool { return u.srv.LiveGrants() == 0 },
		"a renewal":  func(u *user, value string) bool { return u.refresh(value).status == 400 },
		"the same revocation": func(u *user, _ string) bool {
			op, err := iamapi.Of(u.srv).RevokeRefreshTokens(c, iamapi.RevokeRequest{RevokeFilter: &iamapi.RevokeFilter{}}, key)
			return err == nil && op.Done && len(op.Response.RefreshTokenIDs) == 1
		},
		"another revocation": func(u *user, value string) bool {
			_, err := iamapi.Of(u.srv).RevokeRefreshTokens(c, iamapi.RevokeRequest{RefreshToken: &value}, "")
			return err != nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			srv := iamtest.Start(t, iamtest.Options{OperationDelay: time.Minute, AllowUnbound: true})
			u := newUser(t, srv)
			u.prover = nil
			value := srv.Seed(1, nil)[0]
			op, err := iamapi.Of(srv).RevokeRefreshTokens(c, iamapi.RevokeRequest{RevokeFilter: &iamapi.RevokeFilter{}}, key)
			if err != nil || op.Done {
				t.Fatal(op, err)
			}
			srv.Advance(time.Minute)
			if !revoked(u, value) {
				t.Error("does not know that the token was revoked")
			}
		})
	}
}

// TestOperationIsACopy: what a caller does with an Operation or a list of endpoints is
// its own affair.
func TestOperationIsACopy(t *testing.T) {
	srv := iamtest.Start(t)
	c := iamapi.Caller{SubjectID: "ajeiamtestuser000001"}
	srv.Seed(1, named)
	op, err := iamapi.Of(srv).RevokeRefreshTokens(c, iamapi.RevokeRequest{RevokeFilter: &iamapi.RevokeFilter{}}, "")
	if err != nil {
		t.Fatal(err)
	}
	op.Metadata.RefreshTokenIDs[0] = "changed"
	if op.Response.RefreshTokenIDs[0] != "id0" {
		t.Error("the metadata and the response share their ids")
	}
	op.Response.RefreshTokenIDs[0] = "changed"
	again, err := iamapi.Of(srv).GetOperation(c, op.ID)
	if err != nil || again.Metadata.RefreshTokenIDs[0] != "id0" || again.Response.RefreshTokenIDs[0] != "id0" {
		t.Errorf("the server has %+v, %v", again, err)
	}
	iamapi.Of(srv).Endpoints()[0].Address = "changed"
	if got := iamapi.Of(srv).Endpoints()[0].Address; got == "changed" {
		t.Error("the server's endpoint changed")
	}
}

// TestWhatASweepKeeps: a sweep takes nothing that somebody can still ask for.
func TestWhatASweepKeeps(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	c := iamapi.Caller{SubjectID: "ajeiamtestuser000001"}
	serve := func(t *testing.T, o iamtest.Options) *user {
		o.AllowUnbound, o.Now, o.MaxRecords = true, func() time.Time { return start }, 10
		u := newUser(t, iamtest.Start(t, o))
		u.prover = nil
		u.over(u.srv.RoundTripper())
		return u
	}
	sweepTokens := func(u *user) {
		for range iamtest.MinSweep {
			u.srv.IssueAccessToken("", "")
		}
	}
	sweepOperations := func(u *user) {
		for range iamtest.MinSweep + 1 {
			if _, err := iamapi.Of(u.srv).RevokeRefreshTokens(c, iamapi.RevokeRequest{RevokeFilter: &iamapi.RevokeFilter{ClientID: "nobody"}}, ""); err != nil {
				u.t.Fatal(err)
			}
		}
	}
	t.Run("a code that was used", func(t *testing.T) {
		u := serve(t, iamtest.Options{CodeLife: time.Minute})
		code := u.authorize(u.authorization()).Get("code")
		token := wantOK(t, u.do(u.tokenRequest(u.codeForm(code)))).str("refresh_token")
		u.srv.Advance(2 * time.Minute)
		sweepTokens(u)
		wantError(t, u.do(u.tokenRequest(u.codeForm(code))), 400, "invalid_grant")
		if info := u.srv.Introspect(token); info.State != iamtest.TokenRevoked {
			t.Errorf("its second use did not end the grant: %+v", info)
		}
	})
	t.Run("no code that has expired", func(t *testing.T) {
		u := serve(t, iamtest.Options{CodeLife: time.Minute})
		for range iamtest.MinSweep - 1 {
			u.authorize(u.authorization())
		}
		u.srv.Advance(time.Hour)
		u.authorize(u.authorization())
		if got := u.srv.Held()["codes"]; got != 1 {
			t.Errorf("%d codes are held", got)
		}
	})
	t.Run("a token with the id of one that is gone", func(t *testing.T) {
		u := serve(t, iamtest.Options{KeepExpired: time.Minute})
		id := "the same"
		values := u.srv.Seed(2, func(i int, s *iamtest.Seed) {
			if s.ID = id; i == 0 {
				s.ExpiresAt = start.Add(time.Minute)
			}
		})
		u.srv.Advance(time.Hour)
		sweepTokens(u)
		if _, err := iamapi.Of(u.srv).RevokeRefreshTokens(c, iamapi.RevokeRequest{RefreshTokenID: &id}, ""); err != nil {
			t.Error(err)
		}
		if got := u.srv.Introspect(values[1]).State; got != iamtest.TokenRevoked {
			t.Errorf("the token is %s", got)
		}
	})
	for name, tt := range map[string]struct {
		delay, after time.Duration
		want         bool
	}{
		"an operation of a day":               {0, 24 * time.Hour, true},
		"no operation of more than a day":     {0, 24*time.Hour + 1, false},
		"an operation that is not done":       {48 * time.Hour, 47 * time.Hour, true},
		"an operation that was done just now": {48 * time.Hour, 72 * time.Hour, true},
	} {
		t.Run(name, func(t *testing.T) {
			u := serve(t, iamtest.Options{OperationDelay: tt.delay})
			op, err := iamapi.Of(u.srv).RevokeRefreshTokens(c, iamapi.RevokeRequest{RevokeFilter: &iamapi.RevokeFilter{}}, "")
			if err != nil {
				t.Fatal(err)
			}
			if tt.after > tt.delay { // it is done when it is looked at
				u.srv.Advance(tt.delay)
				u.srv.LiveGrants()
				u.srv.Advance(-tt.delay)
			}
			u.srv.Advance(tt.after)
			sweepOperations(u)
			if _, err := iamapi.Of(u.srv).GetOperation(c, op.ID); (err == nil) != tt.want {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestSecretsAreKnownAtOnce: what the server gave is known before it is used, and
// what it does not have any more stays known.
func TestSecretsAreKnownAtOnce(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{
		ClientID: "app", ClientSecret: "a first+secret", AuthMethod: oauth.AuthClientSecretBasic,
		Clients: []iamtest.Client{{ID: "short", Secret: "short", AuthMethod: oauth.AuthClientSecretPost}},
	})
	u := newUser(t, srv)
	want := map[string]string{
		"code": u.authorize(u.authorization()).Get("code"), "seeded": srv.Seed(1, nil)[0], "issued": srv.IssueAccessToken("", ""),
		"of the client": "a first+secret", "of a request": "rt1.nobody.knows.it", "sent": "sent not+here", "sent, encoded": "sent+not%2Bhere",
	}
	unknown := want["of a request"]
	if _, err := iamapi.Of(srv).RevokeRefreshTokens(iamapi.Caller{}, iamapi.RevokeRequest{RefreshToken: &unknown}, ""); err == nil {
		t.Error("a token that nobody knows was revoked")
	}
	req := u.tokenRequest(u.refreshForm("x"))
	req.SetBasicAuth("app", "sent+not%2Bhere")
	req.Header.Add("Authorization", "Bearer another")
	wantError(t, u.do(req), 400, "invalid_request")
	if r := srv.Requests(); !slices.Equal(r[len(r)-1].Credentials, []string{"authorization", "dpop", "refresh_token"}) {
		t.Errorf("recorded %q", r[len(r)-1].Credentials)
	}
	for _, secret := range []oauth.Secret{"a second secret", "a third secret"} {
		want[string(secret)] = string(secret)
		if err := srv.Configure(func(o *iamtest.Options) { o.ClientSecret = secret }); err != nil {
			t.Fatal(err)
		}
	}
	secrets := srv.Secrets()
	for name, secret := range want {
		if !slices.Contains(secrets, secret) {
			t.Errorf("the secret is not known: %s", name)
		}
	}
	if slices.Contains(secrets, "short") || slices.Contains(secrets, "x") {
		t.Error("an ordinary word is taken for a secret")
	}
}

// TestFewRecords: a limit of a few is kept as well.
func TestFewRecords(t *testing.T) {
	for limit := 1; limit <= 10; limit++ {
		srv := iamtest.Start(t, iamtest.Options{MaxRecords: limit})
		at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		for n := 1; n <= 20; n++ {
			srv.Record(iamtest.Request{Endpoint: iamtest.EndpointList, Time: at})
			token := srv.IssueAccessToken("", "")
			if got := len(srv.Requests()); got != min(n, limit) || !srv.Requests()[got-1].Time.Equal(at) {
				t.Errorf("MaxRecords %d: after %d requests %d are remembered, the last at %v", limit, n, got, srv.Requests()[got-1].Time)
			}
			if got := srv.Secrets(); len(got) != min(n, limit) || !slices.Contains(got, token) {
				t.Errorf("MaxRecords %d: after %d tokens %d are remembered", limit, n, len(got))
			}
		}
	}
}

// TestFailedProofs: what an answer to a proof that failed says.
func TestFailedProofs(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{Nonces: iamtest.NoncesRequired, QuietNonces: true, ChallengeStatus: http.StatusUnauthorized})
	u := newUser(t, srv)
	token := u.login().str("refresh_token")
	u.skew = -time.Hour
	a := u.refresh(token)
	wantError(t, a, 400, "invalid_dpop_proof") // and not ChallengeStatus
	if got := a.header.Get(dpop.NonceHeader); got != "" {
		t.Errorf("the proof has the newest nonce, and got %q", got)
	}
	u.skew = 0
	req := u.tokenRequest(u.refreshForm(token))
	req.Header.Add("DPoP", req.Header.Get("DPoP"))
	wantError(t, u.do(req), 400, "invalid_dpop_proof")
	if r := srv.Requests(); r[len(r)-1].Proof != (iamtest.Proof{Present: true}) {
		t.Errorf("of two proofs one was recorded: %+v", r[len(r)-1].Proof)
	}
}

// TestNoncesOffAreIgnored: where no nonces are given, one of another server does no harm.
func TestNoncesOffAreIgnored(t *testing.T) {
	srv := iamtest.Start(t)
	u := newUser(t, srv)
	req := u.request("GET", "/", "")
	u.nonces.Learn(req.URL, http.Header{dpop.NonceHeader: {"of-another-server"}})
	u.nonces.Learn(req.URL, http.Header{http.CanonicalHeaderKey(dpop.NonceHeader): {"of-another-server"}})
	wantOK(t, u.refresh(u.login().str("refresh_token")))
	if r := srv.Requests(); r[len(r)-1].Proof.Nonce != "of-another-server" {
		t.Errorf("recorded %+v", r[len(r)-1].Proof)
	}
}

// TestSubjectIsRecorded: who a token request was for.
func TestSubjectIsRecorded(t *testing.T) {
	srv := iamtest.Start(t)
	u := newUser(t, srv)
	token := u.login(map[string][]string{"yc_sub_hint": {"ajesomebodyelse00001"}}).str("refresh_token")
	wantOK(t, u.refresh(token))
	wantError(t, u.refresh("x"), 400, "invalid_grant")
	for i, want := range []string{"ajesomebodyelse00001", "ajesomebodyelse00001", "ajesomebodyelse00001", ""} {
		if r := srv.Requests()[i]; r.Subject != want {
			t.Errorf("request %d is recorded with the subject %q", i, r.Subject)
		}
	}
}

// TestErrorPageIsText: what a client has registered is no HTML.
func TestErrorPageIsText(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{RedirectURIs: []string{"http://127.0.0.1/?a=1&copy=<b>"}})
	u := newUser(t, srv)
	a := u.do(u.request("GET", "/oauth/authorize?"+u.authorization().Encode(), ""))
	if a.status != 400 || !strings.Contains(string(a.body), "http://127.0.0.1/?a=1&amp;copy=&lt;b&gt;") {
		t.Errorf("got %d %s", a.status, a.body)
	}
}

// TestGraceNeedsASuccessor: a replaced token is not forgiven with one that has expired.
func TestGraceNeedsASuccessor(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{Rotation: iamtest.RotateAlways, GracePeriod: time.Hour, ReuseKeepsGrant: true})
	u := newUser(t, srv)
	first := u.login().str("refresh_token")
	second := wantOK(t, u.refresh(first)).str("refresh_token")
	wantOK(t, u.refresh(first))
	srv.ExpireRefreshToken(second)
	wantError(t, u.refresh(first), 400, "invalid_grant")
}

// TestSeedWithoutCreation: the life of a token that was never created ends like that
// of one that was created now.
func TestSeedWithoutCreation(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	srv := iamtest.Start(t, iamtest.Options{Now: func() time.Time { return start }})
	value := srv.Seed(1, func(_ int, s *iamtest.Seed) { s.CreatedAt = time.Time{} })[0]
	if info := srv.Introspect(value); !info.CreatedAt.IsZero() || !info.ExpiresAt.Equal(start.Add(31*24*time.Hour)) {
		t.Errorf("the token is %+v", info)
	}
}

// TestLongNames: what is cut is cut between characters.
func TestLongNames(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{AllowUnbound: true})
	u := newUser(t, srv)
	for n, want := range map[int]int{999: 999, 1000: 1000, 1001: 1000} {
		req := u.tokenRequest(u.codeForm(u.authorize(u.authorization()).Get("code")))
		req.Header.Set("User-Agent", strings.Repeat("é", n))
		info := srv.Introspect(wantOK(t, u.do(req)).str("refresh_token")).ClientInstanceInfo
		if info != strings.Repeat("é", want) {
			t.Errorf("of %d characters %d bytes are kept", n, len(info))
		}
	}
	form := u.refreshForm("x")
	form[strings.Repeat("é", 40)] = []string{"1", "2"}
	a := u.do(u.tokenRequest(form))
	wantError(t, a, 400, "invalid_request")
	if got := a.str("error_description"); !strings.HasSuffix(got, ": "+strings.Repeat("é", 40)) {
		t.Errorf("the description is %q", got)
	}
	req := u.tokenRequest(u.refreshForm("x"))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded ; charset=utf-8")
	wantError(t, u.do(req), 400, "invalid_grant") // it was read
}

// TestHTTP2IsAnOption: without it the server speaks HTTP/1.1 alone.
func TestHTTP2IsAnOption(t *testing.T) {
	for _, o := range []iamtest.Options{{}, {TLS: true}, {HTTP2: true}, {TLS: true, HTTP2: true}} {
		srv := iamtest.Start(t, o)
		both := &http.Transport{Protocols: new(http.Protocols), TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		both.Protocols.SetHTTP1(o.TLS) // without TLS a client has to know
		both.Protocols.SetHTTP2(true)
		both.Protocols.SetUnencryptedHTTP2(true)
		u := newUser(t, srv)
		u.over(both)
		resp, err := u.http.Do(u.request("GET", "/endpoints", ""))
		switch {
		case err == nil && resp.ProtoMajor != 1+bit(o.HTTP2), err != nil && (o.TLS || o.HTTP2):
			t.Errorf("%+v: got %v, %v", o, resp, err)
		case err == nil:
			resp.Body.Close()
		}
		both.CloseIdleConnections()
	}
}

// watched is a body that says whether it was closed.
type watched struct {
	io.Reader
	closed bool
}

func (w *watched) Close() error { w.closed = true; return nil }

// TestRoundTripperEnds: what a caller without a network can rely on.
func TestRoundTripperEnds(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{VerifyAttestation: func([]*x509.Certificate) bool { panic("of the test's function") }})
	u := newUser(t, srv)
	u.over(srv.RoundTripper())
	t.Run("a context that is done", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		resp, err := srv.RoundTripper().RoundTrip(u.request("GET", "/endpoints", "").WithContext(ctx))
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, %v", resp, err)
			resp.Body.Close()
		}
		if n := srv.Count(iamtest.EndpointEndpoints); n != 0 {
			t.Errorf("%d requests arrived", n)
		}
	})
	t.Run("a context that ends meanwhile", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		srv.Inject(iamtest.EndpointEndpoints, iamtest.Slow(time.Minute), 1)
		resp, err := srv.RoundTripper().RoundTrip(u.request("GET", "/endpoints", "").WithContext(ctx))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, %v", resp, err)
			resp.Body.Close()
		}
	})
	t.Run("the body", func(t *testing.T) {
		body := &watched{Reader: strings.NewReader("body")}
		req := u.request("GET", "/endpoints", "")
		req.Body = body
		wantOK(t, u.do(req))
		if !body.closed {
			t.Error("the body was not closed")
		}
		req.Body = nil
		wantOK(t, u.do(req))
	})
	t.Run("a panic that is no end of a connection", func(t *testing.T) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if u.prover, err = dpop.New(key, dpop.WithCertificateChain([]*x509.Certificate{certificate(t, key, "x")})); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if v := recover(); v != "of the test's function" {
				t.Errorf("recovered %v", v)
			}
		}()
		_, err = u.try(u.tokenRequest(u.refreshForm("x")))
		t.Errorf("got %v", err)
	})
}
