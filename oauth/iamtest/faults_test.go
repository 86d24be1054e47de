package iamtest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
	"github.com/ycauth/ycauth-go/oauth/iamtest/internal/iamapi"
)

// probe is a request to one endpoint that is right, and a look at whether it had
// an effect.
type probe struct {
	endpoint iamtest.Endpoint
	request  func(u *user) *http.Request
	effect   func(u *user) bool
}

var probes = map[string]func(u *user) probe{
	"authorize": func(*user) probe {
		return probe{
			endpoint: iamtest.EndpointAuthorize,
			request: func(u *user) *http.Request {
				return u.request("GET", "/oauth/authorize?"+u.authorization().Encode(), "")
			},
		}
	},
	"code": func(u *user) probe {
		form := u.codeForm(u.authorize(u.authorization()).Get("code"))
		return probe{
			endpoint: iamtest.EndpointToken,
			request:  func(u *user) *http.Request { return u.tokenRequest(form) },
			effect:   func(u *user) bool { return u.srv.LiveGrants() == 1 },
		}
	},
	"refresh": func(u *user) probe {
		token := u.login().str("refresh_token")
		return probe{
			endpoint: iamtest.EndpointToken,
			request:  func(u *user) *http.Request { return u.tokenRequest(u.refreshForm(token)) },
			effect:   func(u *user) bool { return u.srv.Introspect(token).State == iamtest.TokenReplaced },
		}
	},
	"list": func(u *user) probe {
		token := u.srv.IssueAccessToken("", "")
		u.srv.Seed(1, nil)
		return probe{
			endpoint: iamtest.EndpointList,
			request:  func(u *user) *http.Request { return u.apiRequest("GET", "/iam/v1/refreshTokens", "", token) },
		}
	},
	"revoke": func(u *user) probe {
		token, value := u.srv.IssueAccessToken("", ""), u.srv.Seed(1, nil)[0]
		return probe{
			endpoint: iamtest.EndpointRevoke,
			request: func(u *user) *http.Request {
				return u.apiRequest("POST", "/iam/v1/refreshTokens:revoke", `{"revokeFilter":{}}`, token)
			},
			effect: func(u *user) bool { return u.srv.Introspect(value).State == iamtest.TokenRevoked },
		}
	},
	"operation": func(u *user) probe {
		token := u.srv.IssueAccessToken("", "")
		id := wantOK(u.t, u.revoke(token, `{"revokeFilter":{}}`)).str("id")
		return probe{
			endpoint: iamtest.EndpointOperation,
			request:  func(u *user) *http.Request { return u.apiRequest("GET", "/operations/"+id, "", token) },
		}
	},
	"endpoints": func(*user) probe {
		return probe{
			endpoint: iamtest.EndpointEndpoints,
			request:  func(u *user) *http.Request { return u.request("GET", "/endpoints", "") },
		}
	},
	"resource": func(u *user) probe {
		token := u.srv.IssueAccessToken("", "")
		return probe{
			endpoint: iamtest.EndpointResource,
			request:  func(u *user) *http.Request { return u.apiRequest("GET", "/api/whoami", "", token) },
		}
	},
}

// seen is what a client saw of a fault.
func seen(f iamtest.Fault, a *answer, err error, began time.Time) error {
	if f.Parts().Kind == iamapi.FaultLostRequest || f.Parts().Kind == iamapi.FaultLostAnswer || f.Parts().Kind == iamapi.FaultTruncated {
		if err == nil {
			return fmt.Errorf("a whole answer came: %d", a.status)
		}
		if f.Parts().Kind == iamapi.FaultTruncated && !errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("the body did not end early: %w", err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	contentType := a.header.Get("Content-Type")
	good := a.status == 200 || a.status == 302
	isJSON := json.Valid(a.body) && strings.HasPrefix(contentType, "application/json")
	date, err := http.ParseTime(a.header.Get("Date"))
	if err != nil {
		return err
	}
	ok := false
	switch f.Parts().Kind {
	case iamapi.FaultHTTPStatus:
		want := ""
		if f.Parts().RetryAfter > 0 {
			want = strconv.Itoa(int(f.Parts().RetryAfter.Seconds()))
		}
		ok = a.status == f.Parts().Status && a.header.Get("Retry-After") == want && !isJSON && a.header.Get("X-Request-Id") == ""
	case iamapi.FaultSlow:
		ok = good && time.Since(began) >= f.Parts().Duration
	case iamapi.FaultOversized:
		ok = good && isJSON && len(a.body) > 16<<20
	case iamapi.FaultEmptyBody:
		ok = good && len(a.body) == 0
	case iamapi.FaultHTML:
		ok = a.status == f.Parts().Status && strings.HasPrefix(contentType, "text/html") && !isJSON && a.header.Get("X-Request-Id") == ""
	case iamapi.FaultRedirect:
		loc, err := url.Parse(a.header.Get("Location"))
		ok = err == nil && a.header.Get("X-Request-Id") == "" && a.status == 307 && loc.Host != "" && strings.HasPrefix(loc.Path, "/")
	case iamapi.FaultWrongContentType:
		ok = good && strings.HasPrefix(contentType, "text/html") && json.Valid(a.body)
	case iamapi.FaultDuplicateMember:
		ok = isJSON && strings.Contains(string(a.body), `:"duplicate","`) || string(a.body) == "{}"
	case iamapi.FaultUnknownMembers:
		ok = good && isJSON && a.members["futureObject"] != nil
	case iamapi.FaultNonceChallenge:
		ok = a.str("error") == "use_dpop_nonce" && a.header.Get(dpop.NonceHeader) != ""
	case iamapi.FaultRepeatedPage:
		ok = good && a.str("nextPageToken") != ""
	case iamapi.FaultOperationNotFound:
		ok = a.status == 404 && isJSON && a.members["code"] == float64(5) && a.header.Get("X-Request-Id") != ""
	case iamapi.FaultForeignOperation:
		ok = good && isJSON && a.members["done"] == true && strings.HasPrefix(a.str("createdBy"), "aje")
	case iamapi.FaultEcho:
		ok = json.Valid(a.body) && (good || a.status == f.Parts().Status)
	case iamapi.FaultClockSkew:
		ok = date.Sub(time.Now().Add(f.Parts().Duration)).Abs() < time.Minute
	}
	if !ok {
		return fmt.Errorf("status %d, header %v, body %.200s", a.status, a.header, a.body)
	}
	return nil
}

// TestFaults lets every fault happen at every endpoint.
func TestFaults(t *testing.T) {
	for _, f := range iamtest.AllFaults() {
		for name, make := range probes {
			t.Run(f.String()+"/"+name, func(t *testing.T) {
				t.Parallel()
				srv := iamtest.Start(t, iamtest.Options{Rotation: iamtest.RotateAlways})
				u := newUser(t, srv)
				p := make(u)
				if !f.AppliesTo(p.endpoint) {
					return
				}
				u.http.CloseIdleConnections() // on a new connection http.Transport does not try again by itself
				srv.ResetRequests()
				srv.Inject(p.endpoint, f, 1)
				began := time.Now()
				for range max(1, f.Parts().Times) {
					a, err := u.try(p.request(u))
					if err := seen(f, a, err, began); err != nil {
						t.Fatal(err)
					}
				}
				skewed := f.Parts().Kind == iamapi.FaultClockSkew
				if p.effect != nil && !skewed {
					if got := p.effect(u); got != (f.Parts().TakesEffect || f.Parts().Kind == iamapi.FaultSlow) {
						t.Errorf("it took effect: %v", got)
					}
				}
				r := srv.Requests()[0]
				if r.Endpoint != p.endpoint || r.Fault != f.String() {
					t.Errorf("recorded %+v", r)
				}
				if srv.Count(p.endpoint) != max(1, f.Parts().Times) {
					t.Errorf("%d requests", srv.Count(p.endpoint))
				}
				if got := srv.PendingFaults(); got != 0 && !skewed {
					t.Errorf("%d faults are left", got)
				}
				srv.ClearFaults()
				if skewed {
					a := u.do(p.request(u))
					date, _ := http.ParseTime(a.header.Get("Date"))
					if time.Until(date).Abs() > time.Minute {
						t.Errorf("the clock is still wrong: %v", date)
					}
				}
				if srv.Count(iamtest.EndpointElsewhere) != 0 {
					t.Error("something went elsewhere")
				}
			})
		}
	}
}

// TestEcho: what the request must not show comes back everywhere.
func TestEcho(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{OperationPolls: 1})
	u := newUser(t, srv)
	refresh, access := u.login().str("refresh_token"), srv.IssueAccessToken("", "")
	value := srv.Seed(1, nil)[0]
	op := wantOK(t, u.revoke(access, `{"refreshTokenId":"`+srv.Introspect(value).ID+`"}`)).str("id")
	for name, tt := range map[string]struct {
		endpoint iamtest.Endpoint
		request  func() *http.Request
		secret   string
		fields   []string // of the right answer
	}{
		"refresh":   {iamtest.EndpointToken, func() *http.Request { return u.tokenRequest(u.refreshForm(refresh)) }, refresh, nil},
		"code":      {iamtest.EndpointToken, func() *http.Request { return u.tokenRequest(u.codeForm("the-code-of-a-login")) }, "the-code-of-a-login", nil},
		"list":      {iamtest.EndpointList, func() *http.Request { return u.apiRequest("GET", "/iam/v1/refreshTokens", "", access) }, access, nil},
		"operation": {iamtest.EndpointOperation, func() *http.Request { return u.apiRequest("GET", "/operations/"+op, "", access) }, access, []string{"id", "description", "createdBy"}},
		"revoke": {iamtest.EndpointRevoke, func() *http.Request {
			return u.apiRequest("POST", "/iam/v1/refreshTokens:revoke", `{"refreshToken":"`+refresh+`"}`, access)
		}, refresh, []string{"id", "description", "createdBy"}},
		"endpoints": {iamtest.EndpointEndpoints, func() *http.Request { return u.request("GET", "/endpoints", "") }, "the-request-had-no-credential", nil},
	} {
		for _, f := range []iamtest.Fault{iamtest.Echo(0), iamtest.Echo(400), iamtest.Echo(307)} {
			if !f.AppliesTo(tt.endpoint) {
				continue
			}
			srv.Inject(tt.endpoint, f, 1)
			a := u.do(tt.request())
			for _, h := range []string{"X-Request-Id", "X-Server-Trace-Id", "Retry-After", "Server", "DPoP-Nonce"} {
				if a.header.Get(h) != tt.secret {
					t.Errorf("%s, %v: %s is %q", name, f, h, a.header.Get(h))
				}
			}
			for _, h := range []string{"Location", "WWW-Authenticate", "Content-Type"} {
				if !strings.Contains(a.header.Get(h), tt.secret) {
					t.Errorf("%s, %v: %s is %q", name, f, h, a.header.Get(h))
				}
			}
			fields := tt.fields
			if f.Parts().Status != 0 {
				fields = []string{"error", "error_description", "message"}
				if a.members["code"] != float64(iamapi.InvalidArgument) || a.status != f.Parts().Status {
					t.Errorf("%s, %v: got %d %s", name, f, a.status, a.body)
				}
			}
			for _, field := range fields {
				if !strings.HasSuffix(a.str(field), tt.secret) {
					t.Errorf("%s, %v: %s is %q", name, f, field, a.str(field))
				}
			}
			if !strings.Contains(string(a.body), tt.secret) {
				t.Errorf("%s, %v: got %s", name, f, a.body)
			}
		}
	}
}

func TestForeignOperation(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{OperationPolls: 1, OperationError: &iamtest.Status{Code: int32(iamapi.Internal)}})
	u := newUser(t, srv)
	token := srv.IssueAccessToken("", "")
	op := wantOK(t, u.revoke(token, `{"revokeFilter":{}}`))
	for _, e := range []iamtest.Endpoint{iamtest.EndpointOperation, iamtest.EndpointRevoke} {
		srv.Inject(e, iamtest.ForeignOperation(), 1)
	}
	for _, a := range []*answer{u.call("GET", "/operations/"+op.str("id"), "", token), u.revoke(token, `{"revokeFilter":{}}`)} {
		wantOK(t, a)
		response, _ := a.members["response"].(map[string]any)
		tokens, _ := response["refreshTokenIds"].([]any)
		if a.str("id") == op.str("id") || a.str("createdBy") == op.str("createdBy") || a.members["done"] != true || len(tokens) != 1 {
			t.Errorf("got %s", a.body)
		}
	}
	srv.Inject(iamtest.EndpointOperation, iamtest.ForeignOperation(), 1)
	wantStatus(t, u.call("GET", "/operations/x", "", token), iamapi.NotFound, "no such operation")
	srv.Inject(iamtest.EndpointOperation, iamtest.OperationNotFound(), 1)
	wantStatus(t, u.call("GET", "/operations/"+op.str("id"), "", token), iamapi.NotFound, "no such operation")
	if a := wantOK(t, u.call("GET", "/operations/"+op.str("id"), "", token)); a.members["done"] != true {
		t.Errorf("the operation did not go on: %s", a.body)
	}
}

func TestFaultVariants(t *testing.T) {
	for name, f := range map[string]iamtest.Fault{
		"redirect": iamtest.Redirect().AfterEffect(),
		"HTML":     iamtest.HTML(200).AfterEffect(),
		"lost":     iamtest.LostRequest().AfterEffect(),
	} {
		srv := iamtest.Start(t, iamtest.Options{Rotation: iamtest.RotateAlways})
		u := newUser(t, srv)
		token := u.login().str("refresh_token")
		u.http.CloseIdleConnections()
		srv.Inject(iamtest.EndpointToken, f, 1)
		_, _ = u.try(u.tokenRequest(u.refreshForm(token)))
		if got := srv.Introspect(token).State; got != iamtest.TokenReplaced {
			t.Errorf("%s: the token is %v", name, got)
		}
	}
}

func TestFaultsComeInOrder(t *testing.T) {
	srv := iamtest.Start(t)
	u := newUser(t, srv)
	token := srv.IssueAccessToken("", "")
	srv.Inject(iamtest.EndpointResource, iamtest.HTTPStatus(500, 0), 2)
	srv.Inject(iamtest.EndpointList, iamtest.HTTPStatus(501, 0), 1)
	srv.Inject(iamtest.EndpointResource, iamtest.ClockSkew(24*time.Hour), 1)
	srv.Inject(iamtest.EndpointResource, iamtest.HTTPStatus(502, 0), 1)
	srv.Inject(iamtest.EndpointResource, iamtest.HTTPStatus(503, 0), 0)
	if got := srv.PendingFaults(); got != 4 {
		t.Errorf("%d faults are pending", got)
	}
	for _, want := range []int{500, 500, 502, 401, 401} { // a day later the token has expired
		if got := u.call("GET", "/api/whoami", "", token).status; got != want {
			t.Errorf("status %d, want %d", got, want)
		}
	}
	if got := srv.Requests()[0].Fault; got != "status 500" {
		t.Errorf("recorded the fault %q", got)
	}
	if got := u.list(token).status; got != 501 {
		t.Errorf("status %d", got)
	}
	srv.ClearFaults()
	wantOK(t, u.call("GET", "/api/whoami", "", token))
	srv.Inject(iamtest.EndpointResource, iamtest.HTTPStatus(500, 0), -1)
	for range 5 {
		if got := u.call("GET", "/api/whoami", "", token).status; got != 500 {
			t.Errorf("status %d", got)
		}
	}
}

func TestFollowedRedirectIsSeen(t *testing.T) {
	srv := iamtest.Start(t)
	u := newUser(t, srv)
	token := u.login().str("refresh_token")
	u.http.CheckRedirect = nil // as careless as http.DefaultClient
	srv.Inject(iamtest.EndpointToken, iamtest.Redirect(), 1)
	a := wantOK(t, u.refresh(token))
	if a.str("access_token") != "t1.elsewhere" {
		t.Errorf("got %s", a.body)
	}
	if srv.Count(iamtest.EndpointElsewhere, "refresh_token") != 1 {
		t.Error("what followed the redirect was not counted")
	}
	r := srv.Requests()[len(srv.Requests())-1]
	if r.Endpoint != iamtest.EndpointElsewhere || strings.Join(r.Credentials, " ") != "dpop refresh_token" || r.Path != "/oauth/token" {
		t.Errorf("recorded %+v", r)
	}
}

func TestSkewedClockRefusesProofs(t *testing.T) {
	srv := iamtest.Start(t)
	u := newUser(t, srv)
	token := u.login().str("refresh_token")
	for _, d := range []time.Duration{5 * time.Minute, -5 * time.Minute} {
		srv.Inject(iamtest.EndpointToken, iamtest.ClockSkew(d), 1)
		for range 2 { // a wrong clock stays wrong
			a := u.refresh(token)
			wantError(t, a, 400, "invalid_dpop_proof")
			date, err := http.ParseTime(a.header.Get("Date"))
			if err != nil {
				t.Fatal(err)
			}
			u.skew = date.Sub(srv.Now()) // with the server's time in the proof it goes through
			wantOK(t, u.refresh(token))
			u.skew = 0
		}
		srv.ClearFaults()
		wantOK(t, u.refresh(token))
	}
}

func TestRepeatedPage(t *testing.T) {
	srv := iamtest.Start(t)
	u := newUser(t, srv)
	token := srv.IssueAccessToken("", "")
	srv.Seed(3, named)
	srv.Inject(iamtest.EndpointList, iamtest.RepeatedPage(), -1)
	first := wantOK(t, u.list(token, "pageSize", "2")).str("nextPageToken")
	for range 3 {
		a := wantOK(t, u.list(token, "pageSize", "2", "pageToken", first))
		if got := a.str("nextPageToken"); got != first || len(ids(a)) != 1 || ids(a)[0] != "id2" {
			t.Fatalf("the second page, whose token %q came with it again: %s", first, a.body)
		}
	}
	whole := wantOK(t, u.list(token))
	next := wantOK(t, u.list(token, "pageToken", whole.str("nextPageToken")))
	if len(ids(whole)) != 3 || len(ids(next)) != 0 || next.str("nextPageToken") != whole.str("nextPageToken") {
		t.Errorf("after the last page came %s", next.body)
	}
}

func TestChallengeOfBoundResource(t *testing.T) {
	srv := iamtest.Start(t, iamtest.Options{TokenType: "DPoP"})
	u := newUser(t, srv)
	token := u.login().str("access_token")
	call := func() *answer {
		req := u.request("GET", "/api/whoami", "")
		req.Header.Set("Authorization", "DPoP "+token)
		u.prove(req, token)
		return u.do(req)
	}
	wantOK(t, call())
	srv.Inject(iamtest.EndpointResource, iamtest.NonceChallenge(), 2)
	first := call()
	wantError(t, first, 401, "use_dpop_nonce")
	second := call()
	wantError(t, second, 401, "use_dpop_nonce")
	if first.header.Get(dpop.NonceHeader) == second.header.Get(dpop.NonceHeader) {
		t.Error("the second challenge has the same nonce")
	}
	if got := first.header.Get("WWW-Authenticate"); !strings.HasPrefix(got, `DPoP error="use_dpop_nonce"`) {
		t.Errorf("challenge %q", got)
	}
	wantOK(t, call())
}

// logLines receives what a slog handler writes.
type logLines chan string

func (l logLines) Write(b []byte) (int, error) { l <- string(b); return len(b), nil }

func TestSlowEndsWithTheClient(t *testing.T) {
	for _, f := range []iamtest.Fault{iamtest.Slow(time.Hour), iamtest.Slow(time.Hour).AfterEffect()} {
		if f.Parts().Duration != time.Minute {
			t.Errorf("the wait is not bounded: %v", f.Parts().Duration)
		}
		lines := make(logLines, 10)
		srv := iamtest.Start(t, iamtest.Options{Rotation: iamtest.RotateAlways, Logger: slog.New(slog.NewTextHandler(lines, nil))})
		u := newUser(t, srv)
		token := u.login().str("refresh_token")
		<-lines
		<-lines
		srv.Inject(iamtest.EndpointToken, f, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if _, err := u.try(u.tokenRequest(u.refreshForm(token)).WithContext(ctx)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		cancel()
		if line := <-lines; !strings.Contains(line, "status=0") || !strings.Contains(line, "fault=\""+f.String()) {
			t.Errorf("logged %s", line)
		}
		want := iamtest.TokenCurrent
		if f.Parts().TakesEffect {
			want = iamtest.TokenReplaced
		}
		if got := srv.Introspect(token).State; got != want {
			t.Errorf("%v: the token is %v", f, got)
		}
	}
}

// TestMistypedFaults: a fault that cannot happen does not wait in silence.
func TestMistypedFaults(t *testing.T) {
	status := func(n int) iamtest.Fault {
		return iamtest.MakeFault(iamapi.Fault{Kind: iamapi.FaultHTTPStatus, Status: n})
	}
	for name, c := range map[string]struct {
		endpoint iamtest.Endpoint
		fault    iamtest.Fault
		reason   string
	}{
		"endpoint":                {"tokens", iamtest.LostAnswer(), "no such endpoint"},
		"no endpoint":             {"", iamtest.LostAnswer(), "no such endpoint"},
		"elsewhere":               {iamtest.EndpointElsewhere, iamtest.LostAnswer(), "no client"},
		"kind":                    {iamtest.EndpointToken, iamtest.MakeFault(iamapi.Fault{Kind: "lost"}), "no such kind"},
		"no kind":                 {iamtest.EndpointToken, iamtest.Fault{}, "no such kind"},
		"no status":               {iamtest.EndpointToken, status(0), "status"},
		"status 199":              {iamtest.EndpointToken, status(199), "status"},
		"status 600":              {iamtest.EndpointToken, iamtest.HTML(600), "status"},
		"echo 100":                {iamtest.EndpointToken, iamtest.Echo(100), "status"},
		"status of a lost answer": {iamtest.EndpointToken, iamtest.MakeFault(iamapi.Fault{Kind: iamapi.FaultLostAnswer, Status: 500}), "no status"},
		"Retry-After in ms":       {iamtest.EndpointToken, iamtest.HTTPStatus(503, 1500*time.Millisecond), "Retry-After"},
		"Retry-After below 0":     {iamtest.EndpointToken, iamtest.HTTPStatus(503, -time.Second), "Retry-After"},
		"Retry-After of HTML":     {iamtest.EndpointToken, iamtest.MakeFault(iamapi.Fault{Kind: iamapi.FaultHTML, Status: 503, RetryAfter: time.Second}), "no Retry-After"},
		"duration of HTML":        {iamtest.EndpointToken, iamtest.MakeFault(iamapi.Fault{Kind: iamapi.FaultHTML, Status: 503, Duration: time.Second}), "no duration"},
		"slow by less than 0":     {iamtest.EndpointToken, iamtest.Slow(-1), "less than no time"},
		"times":                   {iamtest.EndpointToken, iamtest.MakeFault(iamapi.Fault{Kind: iamapi.FaultLostAnswer, Times: -1}), "Times"},
		"challenge of List":       {iamtest.EndpointList, iamtest.NonceChallenge(), "no sense"},
		"body of a redirect":      {iamtest.EndpointAuthorize, iamtest.EmptyBody(), "no sense"},
		"operation of List":       {iamtest.EndpointList, iamtest.OperationNotFound(), "no sense"},
		"operation of token":      {iamtest.EndpointToken, iamtest.ForeignOperation(), "no sense"},
		"echoed tokens":           {iamtest.EndpointToken, iamtest.Echo(0), "no sense"},
	} {
		t.Run(name, func(t *testing.T) {
			fake := &fakeTB{}
			srv := iamtest.Start(fake)
			defer fake.end()
			err := srv.Inject(c.endpoint, c.fault, 1)
			var fe *iamtest.FaultError
			if !errors.As(err, &fe) || fe.Endpoint != c.endpoint || fe.Fault != c.fault || !strings.Contains(fe.Reason, c.reason) {
				t.Errorf("got %v", err)
			}
			if len(fake.errors) != 1 || fake.errors[0] != err.Error() {
				t.Errorf("the test failed with %q", fake.errors)
			}
			if n := srv.PendingFaults(); n != 0 {
				t.Errorf("%d faults are pending", n)
			}
		})
	}
	srv, err := iamtest.New(iamtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	if err := srv.Inject("tokens", iamtest.LostAnswer(), 1); err == nil {
		t.Error("a server without a test took it")
	}
	for _, n := range []int{200, 599} {
		if err := srv.Inject(iamtest.EndpointToken, status(n), 0); err != nil {
			t.Error(err)
		}
	}
}

// TestUnfiredFaults: a test whose fault never happened has shown nothing.
func TestUnfiredFaults(t *testing.T) {
	for name, c := range map[string]struct {
		inject func(t *testing.T, u *user)
		want   []string
	}{
		"none":     {func(*testing.T, *user) {}, nil},
		"never":    {func(_ *testing.T, u *user) { u.srv.Inject(iamtest.EndpointList, iamtest.HTML(502), 1) }, []string{`"HTML 502"`, `"list"`}},
		"for ever": {func(_ *testing.T, u *user) { u.srv.Inject(iamtest.EndpointList, iamtest.HTML(502), -1) }, []string{`"HTML 502"`}},
		"skew":     {func(_ *testing.T, u *user) { u.srv.Inject(iamtest.EndpointList, iamtest.ClockSkew(time.Hour), 1) }, []string{`"clock skew 1h0m0s"`}},
		"behind another": {func(t *testing.T, u *user) {
			u.srv.Inject(iamtest.EndpointResource, iamtest.HTML(502), 1)
			u.srv.Inject(iamtest.EndpointResource, iamtest.HTML(503), 1)
			u.call("GET", "/api/whoami", "", "")
		}, []string{`"HTML 503"`}},
		"once of two": {func(t *testing.T, u *user) {
			u.srv.Inject(iamtest.EndpointResource, iamtest.HTML(502), 2)
			u.call("GET", "/api/whoami", "", "")
		}, nil},
		"once of many": {func(t *testing.T, u *user) {
			u.srv.Inject(iamtest.EndpointResource, iamtest.HTML(502), -1)
			u.srv.Inject(iamtest.EndpointResource, iamtest.ClockSkew(time.Hour), -1)
			u.call("GET", "/api/whoami", "", "")
		}, nil},
		"for ever and again": {func(t *testing.T, u *user) {
			u.srv.Inject(iamtest.EndpointResource, iamtest.HTML(502), -1)
			u.srv.Inject(iamtest.EndpointResource, iamtest.HTML(502), -1)
			u.call("GET", "/api/whoami", "", "")
		}, nil},
		"cleared": {func(_ *testing.T, u *user) {
			u.srv.Inject(iamtest.EndpointList, iamtest.HTML(502), 1)
			u.srv.ClearFaults()
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var log strings.Builder
			fake := &fakeTB{}
			srv := iamtest.Start(fake, iamtest.Options{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))})
			c.inject(t, newUser(t, srv))
			fake.end()
			srv.Close()
			if (len(fake.errors) == 1) != (c.want != nil) || strings.Count(log.String(), "never happened") != 2*len(fake.errors) {
				t.Fatalf("the test failed with %q, and the log has %s", fake.errors, log.String())
			}
			for _, want := range c.want {
				if !strings.Contains(fake.errors[0], want) {
					t.Errorf("%s is not in %q", want, fake.errors[0])
				}
			}
		})
	}
}

func TestFaultNames(t *testing.T) {
	names := map[string]bool{}
	for _, f := range iamtest.AllFaults() {
		if names[f.String()] {
			t.Errorf("two faults are called %s", f)
		}
		names[f.String()] = true
	}
	for _, want := range []string{
		"request lost", "answer lost", "status 503, Retry-After 1s", "status 504, after the effect", "slow 200ms, after the effect",
		"truncated body", "HTML 200", "redirect 307", "nonce challenge, 2 in a row", "clock skew -5m0s",
	} {
		if !names[want] {
			t.Errorf("no fault is called %q; there are %v", want, names)
		}
	}
}
