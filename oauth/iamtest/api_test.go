package iamtest_test

import (
	"crypto"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/oauth/iamtest"
	"github.com/ycauth/ycauth-go/oauth/iamtest/internal/iamapi"
)

// wantStatus checks a google.rpc.Status.
func wantStatus(t *testing.T, a *answer, code iamapi.Code, message string) {
	t.Helper()
	if a.status != code.HTTPStatus() || a.members["code"] != float64(code) || !strings.Contains(a.str("message"), message) {
		t.Fatalf("got %d %s, want %v %q", a.status, a.body, code, message)
	}
}

// ids of the refresh tokens in a list, or in the response of an Operation.
func ids(a *answer) []string {
	out := []string{}
	list, _ := a.members["refreshTokens"].([]any)
	for _, v := range list {
		out = append(out, v.(map[string]any)["id"].(string))
	}
	if response, ok := a.members["response"].(map[string]any); ok {
		list, _ = response["refreshTokenIds"].([]any)
		for _, v := range list {
			out = append(out, v.(string))
		}
	}
	return out
}

func (u *user) list(token string, query ...string) *answer {
	u.t.Helper()
	q := url.Values{}
	for i := 0; i < len(query); i += 2 {
		if query[i+1] != "" {
			q.Add(query[i], query[i+1])
		}
	}
	return u.call("GET", "/iam/v1/refreshTokens?"+q.Encode(), "", token)
}

func (u *user) revoke(token, body string) *answer {
	u.t.Helper()
	return u.call("POST", "/iam/v1/refreshTokens:revoke", body, token)
}

// named gives seeds the ids id0, id1, …
func named(i int, s *iamtest.Seed) { s.ID = fmt.Sprintf("id%d", i) }

func TestListOneOfEverything(t *testing.T) {
	start := time.Date(2025, 11, 20, 12, 0, 0, 123_000_000, time.UTC)
	srv := iamtest.Start(t, iamtest.Options{Now: func() time.Time { return start }})
	u := newUser(t, srv)
	srv.Seed(3, func(i int, s *iamtest.Seed) {
		named(i, s)
		switch i {
		case 0: // as it comes
		case 1:
			s.ClientID, s.ClientInstanceInfo = "my-app", "yc/0.141.0"
			s.CreatedAt, s.LastUsedAt = start.Add(-time.Hour), start.Add(-time.Minute)
			s.ProtectionLevel = iamtest.SecureKeyDPoP
		case 2:
			s.ProtectionLevel, s.KeyThumbprint, s.ExpiresAt = "QUANTUM_KEY_DPOP", "x", start.Add(time.Second)
		}
	})
	a := wantOK(t, u.list(srv.IssueAccessToken("", "")))
	const want = `{"refreshTokens":[` +
		`{"id":"id0","clientId":"yc.oauth.public-sdk","subjectId":"ajeiamtestuser000001","createdAt":"2025-11-20T12:00:00.123Z","expiresAt":"2025-12-21T12:00:00.123Z","protectionLevel":"NO_PROTECTION"},` +
		`{"id":"id1","clientInstanceInfo":"yc/0.141.0","clientId":"my-app","subjectId":"ajeiamtestuser000001","createdAt":"2025-11-20T11:00:00.123Z","expiresAt":"2025-12-21T11:00:00.123Z","lastUsedAt":"2025-11-20T11:59:00.123Z","protectionLevel":"SECURE_KEY_DPOP"},` +
		`{"id":"id2","clientId":"yc.oauth.public-sdk","subjectId":"ajeiamtestuser000001","createdAt":"2025-11-20T12:00:00.123Z","expiresAt":"2025-11-20T12:00:01.123Z","protectionLevel":"QUANTUM_KEY_DPOP"}]}`
	if string(a.body) != want {
		t.Errorf("got\n%s\nwant\n%s", a.body, want)
	}
	for _, name := range []string{"X-Request-Id", "X-Server-Trace-Id", "Content-Type"} {
		if a.header.Get(name) == "" {
			t.Errorf("no header %s", name)
		}
	}
	if got := a.header.Get("Date"); got != "Thu, 20 Nov 2025 12:00:00 GMT" {
		t.Errorf("Date %q", got)
	}
}

func TestListAfterLogin(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{Rotation: iamtest.RotateAlways})
	u := newUser(t, srv)
	login := u.login()
	a := wantOK(t, u.list(login.str("access_token")))
	if got := a.members["refreshTokens"].([]any)[0].(map[string]any); got["clientInstanceInfo"] != "yc/0.141.0" ||
		got["protectionLevel"] != "INSECURE_KEY_DPOP" || got["lastUsedAt"] != nil {
		t.Errorf("listed %v", got)
	}
	renewed := wantOK(t, u.refresh(login.str("refresh_token")))
	wantOK(t, u.refresh(renewed.str("refresh_token")))
	a = wantOK(t, u.list(login.str("access_token")))
	if n := len(ids(a)); n != 1 {
		t.Errorf("%d tokens are listed: those that were replaced should not be", n)
	}
}

func TestListPages(t *testing.T) {
	srv := iamtest.Start(t)
	u := newUser(t, srv)
	token := srv.IssueAccessToken("", "")
	if a := wantOK(t, u.list(token)); string(a.body) != "{}" {
		t.Errorf("an empty list is %s", a.body)
	}
	srv.Seed(250, named)
	for _, tt := range []struct {
		size  string
		pages []int
	}{
		{"", []int{100, 100, 50}},
		{"0", []int{100, 100, 50}},
		{"125", []int{125, 125}},
		{"249", []int{249, 1}},
		{"250", []int{250}},
		{"1000", []int{250}},
	} {
		var sizes []int
		var all []string
		next := ""
		for {
			a := wantOK(t, u.list(token, "pageSize", tt.size, "pageToken", next))
			sizes, all = append(sizes, len(ids(a))), append(all, ids(a)...)
			if next = a.str("nextPageToken"); next == "" {
				break
			}
		}
		if !slices.Equal(sizes, tt.pages) {
			t.Errorf("pageSize %q: pages of %v, want %v", tt.size, sizes, tt.pages)
		}
		for i, id := range all {
			if id != fmt.Sprintf("id%d", i) {
				t.Fatalf("pageSize %q: %s at %d", tt.size, id, i)
			}
		}
	}
}

func TestListFilter(t *testing.T) {
	srv := iamtest.Start(t)
	u := newUser(t, srv)
	token := srv.IssueAccessToken("", "")
	srv.Seed(300, func(i int, s *iamtest.Seed) {
		named(i, s)
		s.ClientInstanceInfo = fmt.Sprintf("yc/0.%d.0", 100+i%3)
		s.ProtectionLevel = []iamtest.ProtectionLevel{iamtest.NoProtection, iamtest.InsecureKeyDPoP, iamtest.SecureKeyDPoP}[i/100]
	})
	count := func(filter string) (n, empty int) {
		next := ""
		for {
			a := wantOK(t, u.list(token, "pageSize", "50", "pageToken", next, "filter", filter))
			n += len(ids(a))
			if len(ids(a)) == 0 {
				empty++
			}
			if next = a.str("nextPageToken"); next == "" {
				return n, empty
			}
		}
	}
	for _, sparse := range []bool{false, true} {
		if err := srv.Configure(func(o *iamtest.Options) { o.SparsePages = sparse }); err != nil {
			t.Fatal(err)
		}
		for filter, want := range map[string]struct{ n, sparseEmpty int }{
			"":                                   {300, 0},
			`client_id="yc.oauth.public-sdk"`:    {300, 0},
			`client_id="another"`:                {0, 6},
			`client_instance_info="yc/0.101.0"`:  {100, 0},
			`protection_level="SECURE_KEY_DPOP"`: {100, 4},
			`protection_level IN ("NO_PROTECTION", "SECURE_KEY_DPOP") AND client_instance_info="yc/0.100.0"`: {67, 2},
		} {
			n, empty := count(filter)
			if n != want.n {
				t.Errorf("sparse %v, %s: %d tokens, want %d", sparse, filter, n, want.n)
			}
			if sparse && empty != want.sparseEmpty {
				t.Errorf("%s: %d empty pages, want %d", filter, empty, want.sparseEmpty)
			}
		}
	}
}

func TestListLimits(t *testing.T) {
	srv := iamtest.Start(t)
	u := newUser(t, srv)
	token := srv.IssueAccessToken("", "")
	srv.Seed(2, nil)
	next := wantOK(t, u.list(token, "pageSize", "1")).str("nextPageToken")
	x := strings.Repeat
	tests := []struct {
		name  string
		query []string
		field string // of the error; "" if there is none
	}{
		{"subjectId of 50", []string{"subjectId", x("я", 50)}, "-"},
		{"subjectId of 51", []string{"subjectId", x("я", 51)}, "subject_id"},
		{"subjectId not UTF-8", []string{"subjectId", "\xff"}, "subject_id"},
		{"pageSize 1000", []string{"pageSize", "1000"}, ""},
		{"pageSize 1001", []string{"pageSize", "1001"}, "page_size"},
		{"pageSize -1", []string{"pageSize", "-1"}, "page_size"},
		{"pageSize text", []string{"pageSize", "many"}, "page_size"},
		{"pageSize 1e2", []string{"pageSize", "1e2"}, "page_size"},
		{"pageSize too large for int64", []string{"pageSize", "9223372036854775808"}, "page_size"},
		{"pageToken", []string{"pageToken", next}, ""},
		{"pageToken of 2001", []string{"pageToken", x("x", 2001)}, "page_token"},
		{"pageToken made up", []string{"pageToken", "made up"}, "page_token"},
		{"pageToken of another filter", []string{"pageToken", next, "filter", `client_id="abc"`}, "page_token"},
		{"filter of 1000", []string{"filter", `client_id="abc"` + x(" ", 985)}, ""},
		{"filter of 1001", []string{"filter", `client_id="abc"` + x(" ", 986)}, "filter"},
		{"filter malformed", []string{"filter", `client_id=abc`}, "filter"},
		{"unknown parameter", []string{"page_size", "10"}, "page_size"},
		{"parameter twice", []string{"pageSize", "10", "pageSize", "20"}, "pageSize"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := u.list(token, tt.query...)
			switch tt.field {
			case "":
				wantOK(t, a)
			case "-":
				wantStatus(t, a, iamapi.PermissionDenied, "a role is required to list")
			default:
				wantStatus(t, a, iamapi.InvalidArgument, "")
				if !strings.Contains(string(a.body), `"field":"`+tt.field+`"`) {
					t.Errorf("the error is not about %s: %s", tt.field, a.body)
				}
			}
		})
	}
	wantStatus(t, u.call("GET", "/iam/v1/refreshTokens?%zz", "", token), iamapi.InvalidArgument, "malformed")
}

func TestAPIAuthentication(t *testing.T) {
	srv := iamtest.Start(t)
	u := newUser(t, srv)
	expired := srv.IssueAccessToken("", "")
	srv.Advance(12 * time.Hour)
	revoked := srv.IssueAccessToken("", "")
	srv.RevokeAccessToken(revoked)
	for _, tt := range []struct{ method, path, body string }{
		{"GET", "/iam/v1/refreshTokens", ""},
		{"POST", "/iam/v1/refreshTokens:revoke", `{"revokeFilter":{}}`},
		{"GET", "/operations/x", ""},
	} {
		for token, message := range map[string]string{
			"": "no access token", "t1.x.y": "unknown", expired: "expired", revoked: "revoked",
		} {
			a := u.call(tt.method, tt.path, tt.body, token)
			wantStatus(t, a, iamapi.Unauthenticated, message)
			challenges := a.header.Values("WWW-Authenticate")
			if !slices.ContainsFunc(challenges, func(c string) bool { return strings.HasPrefix(c, "Bearer") }) {
				t.Errorf("%s: challenges %q", tt.path, challenges)
			}
			if !strings.Contains(string(a.body), `"requestId":"`+a.header.Get("X-Request-Id")+`"`) {
				t.Errorf("%s: the error does not repeat the request id: %s", tt.path, a.body)
			}
		}
	}
}

// TestUnknownPathsAreAWebServers: a mistyped URL must not look like an API that
// knows no such token.
func TestUnknownPathsAreAWebServers(t *testing.T) {
	srv := iamtest.Start(t)
	u := newUser(t, srv)
	for _, tt := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"GET", "/", 404, ""}, {"POST", "/iam/v1/refreshTokens/revoke", 404, ""}, {"POST", "/v1/iam/v1/refreshTokens:revoke", 404, ""},
		{"GET", "/operations", 404, ""}, {"GET", "/oauth/token/", 404, ""}, {"GET", "/endpointsx", 404, ""},
		{"DELETE", "/iam/v1/refreshTokens", 405, "GET"}, {"GET", "/oauth/token", 405, "POST"},
		{"DELETE", "/oauth/authorize", 405, "GET, POST"}, {"POST", "/operations/x", 405, "GET"},
	} {
		a := u.call(tt.method, tt.path, "", srv.IssueAccessToken("", ""))
		if a.status != tt.status || a.header.Get("Content-Type") != "text/plain; charset=utf-8" || a.members != nil || a.header.Get("Allow") != tt.allow {
			t.Errorf("%s %s: got %d %v %s", tt.method, tt.path, a.status, a.header, a.body)
		}
		wantNoAPI(t, a)
		if r := srv.Requests(); r[len(r)-1].Endpoint != iamtest.EndpointOther || r[len(r)-1].Error != "" {
			t.Errorf("recorded %+v", r[len(r)-1])
		}
	}
	if got := srv.Count(iamtest.EndpointOther); got != 10 {
		t.Errorf("%d other requests", got)
	}
}

// wantNoAPI checks that nothing says that the API answered.
func wantNoAPI(t *testing.T, a *answer) {
	t.Helper()
	for _, name := range []string{"X-Request-Id", "X-Server-Trace-Id", "Pragma", "Cache-Control"} {
		if v := a.header.Get(name); v != "" {
			t.Errorf("status %d has %s: %s", a.status, name, v)
		}
	}
}

func TestOtherSubjects(t *testing.T) {
	const me, other = "ajeme000000000000001", "ajeother000000000001"
	byID := `{"refreshTokenId":"id0"}`
	byFilter := `{"revokeFilter":{"subjectId":"` + other + `"}}`
	for _, tt := range []struct {
		role         string
		list, revoke bool
	}{
		{"", false, false},
		{"viewer", false, false},
		{"organization-manager.viewer", true, false},
		{"organization-manager.admin", true, false},
		{"iam.userAccounts.refreshTokenViewer", true, false},
		{"organization-manager.federations.userAdmin", false, true},
		{"iam.userAccounts.refreshTokenRevoker", false, true},
	} {
		t.Run("role "+tt.role, func(t *testing.T) {
			srv := iamtest.Start(t, iamtest.Options{Roles: map[string][]string{me: {tt.role}}})
			u := newUser(t, srv)
			value := srv.Seed(1, func(i int, s *iamtest.Seed) { named(i, s); s.SubjectID = other })[0]
			token := srv.IssueAccessToken(me, "")
			check := func(a *answer, allowed bool, text string) {
				t.Helper()
				if allowed {
					wantOK(t, a)
				} else {
					wantStatus(t, a, iamapi.PermissionDenied, text)
				}
			}
			check(u.list(token, "subjectId", other), tt.list, "a role is required to list")
			check(u.revoke(token, byID), tt.revoke, "a role is required to revoke")
			if got := srv.Introspect(value).State == iamtest.TokenRevoked; got != tt.revoke {
				t.Errorf("revoked: %v", got)
			}
			check(u.revoke(token, byFilter), tt.revoke, "a role is required to revoke")
			wantOK(t, u.list(token, "subjectId", me))
			if len(ids(wantOK(t, u.list(token)))) != 0 {
				t.Error("somebody else's tokens are among mine")
			}
		})
	}
}

func TestRevoke(t *testing.T) {
	tests := []struct {
		name string
		body func(values []string) string
		want []string
	}{
		{"by id", func([]string) string { return `{"refreshTokenId":"id1"}` }, []string{"id1"}},
		{"by token", func(v []string) string { return `{"refreshToken":"` + v[2] + `"}` }, []string{"id2"}},
		{"all mine", func([]string) string { return `{"revokeFilter":{}}` }, []string{"id0", "id1", "id2", "id3"}},
		{"by client", func([]string) string { return `{"revokeFilter":{"clientId":"my-app"}}` }, []string{"id1", "id3"}},
		{"by info", func([]string) string { return `{"revokeFilter":{"clientInstanceInfo":"yc/0.141.0"}}` }, []string{"id2", "id3"}},
		{"by client and info", func([]string) string {
			return `{"revokeFilter":{"clientId":"my-app","clientInstanceInfo":"yc/0.141.0","subjectId":"ajeiamtestuser000001"}}`
		}, []string{"id3"}},
		{"none", func([]string) string { return `{"revokeFilter":{"clientId":"nobody"}}` }, []string{}},
		{"null is not there", func([]string) string { return `{"refreshTokenId":"id0","refreshToken":null}` }, []string{"id0"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := iamtest.Start(t)
			u := newUser(t, srv)
			token := srv.IssueAccessToken("", "")
			values := srv.Seed(4, func(i int, s *iamtest.Seed) {
				named(i, s)
				if i%2 == 1 {
					s.ClientID = "my-app"
				}
				if i >= 2 {
					s.ClientInstanceInfo = "yc/0.141.0"
				}
			})
			a := wantOK(t, u.revoke(token, tt.body(values)))
			if got := ids(a); !slices.Equal(got, tt.want) || a.members["done"] != true {
				t.Errorf("revoked %v, want %v: %s", got, tt.want, a.body)
			}
			for i, v := range values {
				want := iamtest.TokenCurrent
				if slices.Contains(tt.want, fmt.Sprintf("id%d", i)) {
					want = iamtest.TokenRevoked
				}
				if got := srv.Introspect(v).State; got != want {
					t.Errorf("token %d is %v, want %v", i, got, want)
				}
			}
			if got := srv.LiveGrants(); got != 4-len(tt.want) {
				t.Errorf("%d live grants", got)
			}
		})
	}
}

func TestRevokeErrors(t *testing.T) {
	srv := iamtest.Start(t)
	u := newUser(t, srv)
	token := srv.IssueAccessToken("", "")
	values := srv.Seed(2, named)
	srv.RevokeRefreshToken(values[1])
	x := strings.Repeat
	tests := []struct {
		name, body string
		code       iamapi.Code
		message    string
	}{
		{"no body", ``, iamapi.InvalidArgument, "body"},
		{"no object", `[]`, iamapi.InvalidArgument, "body"},
		{"nothing", `{}`, iamapi.InvalidArgument, "exactly one"},
		{"two", `{"refreshTokenId":"id0","revokeFilter":{}}`, iamapi.InvalidArgument, "exactly one"},
		{"the same twice", `{"refreshTokenId":"id0","refreshTokenId":"id1"}`, iamapi.InvalidArgument, "distinct names"},
		{"unknown member", `{"refreshTokenID":"id0"}`, iamapi.InvalidArgument, "not a member of the request"},
		{"unknown filter", `{"revokeFilter":{"clientID":"id0"}}`, iamapi.InvalidArgument, "not a member of the filter"},
		{"filter of numbers", `{"revokeFilter":{"clientId":1}}`, iamapi.InvalidArgument, "not a string"},
		{"filter is text", `{"revokeFilter":"all"}`, iamapi.InvalidArgument, "revoke_filter"},
		{"id is a number", `{"refreshTokenId":1}`, iamapi.InvalidArgument, "not a string"},
		{"empty id", `{"refreshTokenId":""}`, iamapi.InvalidArgument, "empty"},
		{"empty token", `{"refreshToken":""}`, iamapi.InvalidArgument, "empty"},
		{"id of 50", `{"refreshTokenId":"` + x("x", 50) + `"}`, iamapi.NotFound, ""},
		{"id of 51", `{"refreshTokenId":"` + x("x", 51) + `"}`, iamapi.InvalidArgument, "refresh_token_id: has 51"},
		{"token of 1000", `{"refreshToken":"` + x("x", 1000) + `"}`, iamapi.NotFound, ""},
		{"token of 1001", `{"refreshToken":"` + x("x", 1001) + `"}`, iamapi.InvalidArgument, "refresh_token: has 1001"},
		{"client of 51", `{"revokeFilter":{"clientId":"` + x("x", 51) + `"}}`, iamapi.InvalidArgument, "revoke_filter.client_id: has 51"},
		{"subject of 51", `{"revokeFilter":{"subjectId":"` + x("x", 51) + `"}}`, iamapi.InvalidArgument, "revoke_filter.subject_id: has 51"},
		{"info of 1001", `{"revokeFilter":{"clientInstanceInfo":"` + x("x", 1001) + `"}}`, iamapi.InvalidArgument, "revoke_filter.client_instance_info: has 1001"},
		{"revoked already", `{"refreshTokenId":"id1"}`, iamapi.NotFound, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wantStatus(t, u.revoke(token, tt.body), tt.code, tt.message)
		})
	}
	if got := srv.LiveGrants(); got != 1 {
		t.Errorf("%d live grants, want 1", got)
	}
}

func TestOperation(t *testing.T) {
	start := time.Date(2025, 11, 20, 12, 0, 0, 0, time.UTC)
	now := func() time.Time { return start }
	poll := func(u *user, token, id string) *answer {
		return wantOK(u.t, u.call("GET", "/operations/"+id, "", token))
	}
	t.Run("polls", func(t *testing.T) {
		srv := iamtest.Start(t, iamtest.Options{OperationPolls: 2})
		u := newUser(t, srv)
		token, value := srv.IssueAccessToken("", ""), srv.Seed(1, named)[0]
		op := wantOK(t, u.revoke(token, `{"refreshTokenId":"id0"}`))
		if srv.Introspect(value).State != iamtest.TokenCurrent {
			t.Error("revoked before the operation is done")
		}
		for range 3 {
			if op.members["done"] != nil || op.members["response"] != nil {
				t.Fatalf("done too early: %s", op.body)
			}
			metadata := op.members["metadata"].(map[string]any)
			if metadata["subjectId"] != "ajeiamtestuser000001" || fmt.Sprint(metadata["refreshTokenIds"]) != "[id0]" {
				t.Errorf("metadata %v", metadata)
			}
			op = poll(u, token, op.str("id"))
		}
		if op.members["done"] != true || srv.Introspect(value).State != iamtest.TokenRevoked {
			t.Errorf("not done: %s", op.body)
		}
	})
	t.Run("delay", func(t *testing.T) {
		srv := iamtest.Start(t, iamtest.Options{OperationDelay: time.Minute, Now: now})
		u := newUser(t, srv)
		token, value := srv.IssueAccessToken("", ""), srv.Seed(1, named)[0]
		op := wantOK(t, u.revoke(token, `{"refreshTokenId":"id0"}`))
		srv.Advance(time.Minute - 1)
		if op = poll(u, token, op.str("id")); op.members["done"] != nil {
			t.Errorf("done too early: %s", op.body)
		}
		srv.Advance(1)
		if srv.Introspect(value).State != iamtest.TokenRevoked {
			t.Error("not revoked when the operation is over, though nobody polls")
		}
		if op = poll(u, token, op.str("id")); op.members["done"] != true || op.str("modifiedAt") != "2025-11-20T12:01:00Z" {
			t.Errorf("not done: %s", op.body)
		}
	})
	t.Run("error", func(t *testing.T) {
		srv := iamtest.Start(t, iamtest.Options{OperationError: &iamtest.Status{Code: int32(iamapi.Internal), Message: "out of order"}})
		u := newUser(t, srv)
		token, value := srv.IssueAccessToken("", ""), srv.Seed(1, named)[0]
		op := wantOK(t, u.revoke(token, `{"refreshTokenId":"id0"}`))
		if op.members["done"] != true || op.members["response"] != nil || !strings.Contains(string(op.body), `"error":{"code":13,"message":"out of order"}`) {
			t.Errorf("got %s", op.body)
		}
		if srv.Introspect(value).State != iamtest.TokenCurrent {
			t.Error("revoked, and an error")
		}
	})
	t.Run("somebody else's", func(t *testing.T) {
		srv := iamtest.Start(t)
		u := newUser(t, srv)
		srv.Seed(1, named)
		op := wantOK(t, u.revoke(srv.IssueAccessToken("", ""), `{"revokeFilter":{}}`))
		other := srv.IssueAccessToken("ajeother000000000001", "")
		wantStatus(t, u.call("GET", "/operations/"+op.str("id"), "", other), iamapi.PermissionDenied, "another subject's")
		wantStatus(t, u.call("GET", "/operations/x", "", other), iamapi.NotFound, "no such operation")
		wantStatus(t, u.call("GET", "/operations/"+strings.Repeat("x", 51), "", other), iamapi.InvalidArgument, "operation_id")
	})
}

func TestIdempotencyKey(t *testing.T) {
	srv := iamtest.Start(t)
	u := newUser(t, srv)
	token := srv.IssueAccessToken("", "")
	srv.Seed(3, named)
	revoke := func(body, key, token string) *answer {
		req := u.apiRequest("POST", "/iam/v1/refreshTokens:revoke", body, token)
		req.Header.Set("Idempotency-Key", key)
		req.Header.Set("X-Client-Request-ID", "client-request")
		req.Header.Set("X-Client-Trace-ID", "client-trace")
		return u.do(req)
	}
	const key = "0F9D6A3C-54B1-4A8B-9D75-2B1C0E9F8A77"
	first := wantOK(t, revoke(`{"refreshTokenId":"id0"}`, key, token))
	again := wantOK(t, revoke(` { "refreshTokenId" : "id0" } `, key, token))
	if first.str("id") != again.str("id") {
		t.Error("the same key made two operations")
	}
	wantStatus(t, revoke(`{"refreshTokenId":"id1"}`, key, token), iamapi.AlreadyExists, "another request")
	wantStatus(t, revoke(`{"refreshTokenId":"id1"}`, "not a UUID", token), iamapi.InvalidArgument, "not a UUID")
	other := srv.IssueAccessToken("ajeother000000000001", "")
	if op := wantOK(t, revoke(`{"revokeFilter":{}}`, key, other)); op.str("id") == first.str("id") {
		t.Error("the key of one subject served another one")
	}
	wantOK(t, revoke(`{"refreshTokenId":"id1"}`, "", token))
	wantStatus(t, revoke(`{"refreshTokenId":"id1"}`, "", token), iamapi.NotFound, "")
	r := srv.Requests()[0]
	if r.IdempotencyKey != key || r.ClientRequestID != "client-request" || r.ClientTraceID != "client-trace" ||
		r.Subject != "ajeiamtestuser000001" || r.RequestID != first.header.Get("X-Request-Id") {
		t.Errorf("recorded %+v", r)
	}
}

func TestEndpoints(t *testing.T) {
	srv := iamtest.Start(t)
	u := newUser(t, srv)
	host := strings.TrimPrefix(srv.URL, "http://")
	a := wantOK(t, u.call("GET", "/endpoints", "", ""))
	want := `{"endpoints":[{"id":"iam","address":"` + host + `"},{"id":"oauth","address":"` + host + `"},{"id":"operation","address":"` + host + `"}]}`
	if string(a.body) != want {
		t.Errorf("got %s, want %s", a.body, want)
	}
	iamapi.Of(srv).SetEndpoint("iam", "127.0.0.1:1")
	iamapi.Of(srv).SetEndpoint("oauth", "")
	iamapi.Of(srv).SetEndpoint("endpoint", "127.0.0.1:2")
	a = wantOK(t, u.call("GET", "/endpoints", "", ""))
	want = `{"endpoints":[{"id":"endpoint","address":"127.0.0.1:2"},{"id":"iam","address":"127.0.0.1:1"},{"id":"operation","address":"` + host + `"}]}`
	if string(a.body) != want {
		t.Errorf("got %s, want %s", a.body, want)
	}
	if a = wantOK(t, u.call("GET", "/endpoints/iam", "", "")); string(a.body) != `{"id":"iam","address":"127.0.0.1:1"}` {
		t.Errorf("got %s", a.body)
	}
	wantStatus(t, u.call("GET", "/endpoints/x", "", ""), iamapi.NotFound, "no such endpoint")
	for _, e := range iamapi.Of(srv).Endpoints() {
		iamapi.Of(srv).SetEndpoint(e.ID, "")
	}
	if a = wantOK(t, u.call("GET", "/endpoints", "", "")); string(a.body) != `{}` {
		t.Errorf("got %s", a.body)
	}
}

// TestOtherFaces: what a gRPC face stands on.
func TestOtherFaces(t *testing.T) {
	srv := iamtest.Start(t)
	values := srv.Seed(3, named)
	c, err := iamapi.Of(srv).Authenticate(srv.IssueAccessToken("", ""))
	if err != nil || c.SubjectID != "ajeiamtestuser000001" || c.ClientID != srv.ClientID {
		t.Fatalf("Authenticate: %v, %v", c, err)
	}
	status := func(err error, code iamapi.Code) {
		t.Helper()
		var s *iamapi.Status
		if !errors.As(err, &s) || s.Code != code || !strings.Contains(err.Error(), code.String()) {
			t.Errorf("got %v, want %v", err, code)
		}
	}
	_, err = iamapi.Of(srv).Authenticate("t1.x.y")
	status(err, iamapi.Unauthenticated)
	_, err = iamapi.Of(srv).Authenticate(srv.IssueAccessToken("", "thumbprint"))
	status(err, iamapi.Unauthenticated)

	page, err := iamapi.Of(srv).ListRefreshTokens(c, iamapi.ListRequest{PageSize: 2})
	if err != nil || len(page.RefreshTokens) != 2 || page.NextPageToken == "" || page.RefreshTokens[0].ID != "id0" {
		t.Fatalf("ListRefreshTokens: %+v, %v", page, err)
	}
	_, err = iamapi.Of(srv).ListRefreshTokens(c, iamapi.ListRequest{PageSize: 1001})
	status(err, iamapi.InvalidArgument)

	op, err := iamapi.Of(srv).RevokeRefreshTokens(c, iamapi.RevokeRequest{RefreshToken: &values[0]}, "")
	if err != nil || !op.Done || op.Error != nil || len(op.Response.RefreshTokenIDs) != 1 {
		t.Fatalf("RevokeRefreshTokens: %+v, %v", op, err)
	}
	_, err = iamapi.Of(srv).RevokeRefreshTokens(c, iamapi.RevokeRequest{}, "")
	status(err, iamapi.InvalidArgument)
	again, err := iamapi.Of(srv).GetOperation(c, op.ID)
	if err != nil || again.ID != op.ID || !again.Done {
		t.Fatalf("GetOperation: %+v, %v", again, err)
	}
	_, err = iamapi.Of(srv).GetOperation(c, "x")
	status(err, iamapi.NotFound)

	srv.Record(iamtest.Request{Endpoint: iamtest.EndpointList, Method: "/yandex.cloud.iam.v1.RefreshTokenService/List"})
	if r := srv.Requests(); len(r) != 1 || r[0].Time.IsZero() || srv.Count(iamtest.EndpointList) != 1 {
		t.Errorf("recorded %+v", r)
	}
}

func TestCodes(t *testing.T) {
	for code, want := range map[iamapi.Code]struct {
		name   string
		status int
	}{
		iamapi.OK:                {"OK", http.StatusOK},
		iamapi.ResourceExhausted: {"RESOURCE_EXHAUSTED", http.StatusTooManyRequests},
		iamapi.Unavailable:       {"UNAVAILABLE", http.StatusServiceUnavailable},
		iamapi.Code(99):          {"CODE_99", http.StatusInternalServerError},
	} {
		if code.String() != want.name || code.HTTPStatus() != want.status {
			t.Errorf("%d: %v %d", code, code, code.HTTPStatus())
		}
	}
}

func TestSeedMany(t *testing.T) {
	const n = 100_000
	srv := iamtest.Start(t)
	u := newUser(t, srv)
	token := srv.IssueAccessToken("", "")
	values := srv.Seed(n, func(i int, s *iamtest.Seed) {
		s.ID, s.ClientInstanceInfo = strconv.Itoa(i), "yc/0.141.0"
	})
	seen, next := 0, ""
	for pages := 0; ; pages++ {
		page, err := iamapi.Of(srv).ListRefreshTokens(iamapi.Caller{SubjectID: "ajeiamtestuser000001"}, iamapi.ListRequest{PageSize: 1000, PageToken: next})
		if err != nil {
			t.Fatal(err)
		}
		for _, token := range page.RefreshTokens {
			if token.ID != strconv.Itoa(seen) {
				t.Fatalf("%s at %d", token.ID, seen)
			}
			seen++
		}
		if next = page.NextPageToken; next == "" {
			break
		}
		if pages > n/1000 {
			t.Fatal("the pages do not end")
		}
	}
	if seen != n || srv.LiveGrants() != n || len(values) != n {
		t.Errorf("%d listed, %d live", seen, srv.LiveGrants())
	}
	if got := ids(wantOK(t, u.revoke(token, `{"revokeFilter":{}}`))); len(got) != n {
		t.Errorf("%d revoked", len(got))
	}
	srv.Seed(1, named) // makes room
	if got := ids(wantOK(t, u.list(token))); len(got) != 1 {
		t.Errorf("%d listed", len(got))
	}
}

func TestSeededTokenRenews(t *testing.T) {
	srv := iamtest.Start(t)
	u := newUser(t, srv)
	values := srv.Seed(2, func(i int, s *iamtest.Seed) {
		if i == 0 {
			s.KeyThumbprint = thumbprint(t, u.prover, crypto.SHA256)
		} else {
			s.KeyThumbprint = "another key"
		}
	})
	wantOK(t, u.refresh(values[0]))
	wantError(t, u.refresh(values[1]), 400, "invalid_grant")
	info := srv.Introspect(values[0])
	if info.ProtectionLevel != iamtest.InsecureKeyDPoP || info.LastUsedAt.IsZero() || info.Scope != "openid offline_access" {
		t.Errorf("the token is %+v", info)
	}
	if !srv.ExpireRefreshToken(values[0]) || srv.ExpireRefreshToken("rt1.x.y") || srv.RevokeRefreshToken("rt1.x.y") {
		t.Error("ExpireRefreshToken or RevokeRefreshToken does not know what is known")
	}
	wantError(t, u.refresh(values[0]), 400, "invalid_grant")
	if got := srv.Introspect(values[0]).State; got != iamtest.TokenExpired {
		t.Errorf("the token is %v", got)
	}
	if got := srv.Introspect("rt1.x.y"); got != (iamtest.TokenInfo{State: iamtest.TokenUnknown}) {
		t.Errorf("an unknown token is %+v", got)
	}
}

// TestZeroTimes: what a test leaves out, the API leaves out.
func TestZeroTimes(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{AllowUnbound: true})
	u := newUser(t, srv)
	u.prover = nil
	created := srv.Now().Add(-24 * time.Hour)
	values := srv.Seed(4, func(i int, s *iamtest.Seed) {
		s.ID = "id" + strconv.Itoa(i)
		switch i {
		case 0:
			s.CreatedAt, s.ExpiresAt = time.Time{}, time.Time{}
		case 1:
			s.ExpiresAt = time.Time{}
		case 2:
			s.CreatedAt = created
		}
	})
	list := wantOK(t, u.list(srv.IssueAccessToken("", ""))).members["refreshTokens"].([]any)
	for i, want := range []string{"id", "id createdAt", "id createdAt expiresAt", "id createdAt expiresAt"} {
		token, got := list[i].(map[string]any), []string{"id"}
		for _, name := range []string{"createdAt", "expiresAt"} {
			if token[name] != nil {
				got = append(got, name)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("token %d has %v, want %s", i, got, want)
		}
	}
	if got := srv.Introspect(values[2]).ExpiresAt; !got.Equal(created.Add(31 * 24 * time.Hour)) {
		t.Errorf("a token of yesterday expires at %v", got)
	}
	srv.Advance(10 * 365 * 24 * time.Hour)
	for i, want := range []iamtest.TokenState{iamtest.TokenCurrent, iamtest.TokenCurrent, iamtest.TokenUnknown, iamtest.TokenUnknown} {
		if got := srv.Introspect(values[i]).State; got != want {
			t.Errorf("ten years later token %d is %s", i, got)
		}
	}
	if a := wantOK(t, u.refresh(values[1])); a.members["refresh_token"] != nil {
		t.Error("a token that does not expire was replaced as if its end were near")
	}
}
