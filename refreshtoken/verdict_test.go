package refreshtoken_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/ycauth/ycauth-go/refreshtoken"
)

// A reply is one response of a server.
type reply struct {
	status            int
	contentType, body string
}

func jsonReply(status int, body string) reply { return reply{status, "application/json", body} }

func (r reply) write(w http.ResponseWriter) {
	if r.contentType != "" {
		w.Header().Set("Content-Type", r.contentType)
	}
	w.WriteHeader(r.status)
	io.WriteString(w, r.body)
}

// revokeThen is a server that responds to a Revoke and then to each poll.
func revokeThen(t *testing.T, revoke, poll reply) *server {
	t.Helper()
	return serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			revoke.write(w)
		} else {
			poll.write(w)
		}
	})
}

const (
	resourceInfo = `{"@type":"type.googleapis.com/google.rpc.ResourceInfo",`
	errorInfo    = `{"@type":"type.googleapis.com/google.rpc.ErrorInfo",`
	localized    = `{"@type":"type.googleapis.com/google.rpc.LocalizedMessage",`
)

// TestVerdict is the only table of what a response says about a refresh token. What
// is not certain must be an error that is no ErrGone, since a program forgets the
// session of a token that is gone.
func TestVerdict(t *testing.T) {
	running := jsonReply(200, `{"id":"op1"}`)
	done := func(members string) reply { return jsonReply(200, `{"id":"op1","done":true,`+members+`}`) }
	missing := jsonReply(404, `{"code":5,"message":"there is no such refresh token"}`)
	const revoked, gone, failed = "revoked", "gone", "failed"
	for _, c := range []struct {
		name         string
		revoke, poll reply
		byID         string
		byToken      string
	}{
		{"the token is missing", missing, running, gone, gone},
		{"as a string", jsonReply(404, `{"code":"5","message":"RefreshToken not found."}`), running, gone, gone},
		{"with its ResourceInfo", jsonReply(404, `{"code":5,"details":[`+resourceInfo+`"resourceType":"iam.refreshToken","resourceName":"aje1"}]}`), running, gone, gone},
		{"with a ResourceInfo that names nothing", jsonReply(404, `{"code":5,"details":[`+resourceInfo+`"resourceType":"refresh_token"}]}`), running, gone, gone},
		{"with a ResourceInfo and what is no detail", jsonReply(404, `{"code":5,"details":[`+resourceInfo+`"resourceType":"refresh_token"},5]}`), running, failed, failed},
		{"with a ResourceInfo in snake case", jsonReply(404, `{"code":5,"details":[`+resourceInfo+`"resource_type":"refresh_token","resource_name":"aje1"}]}`), running, gone, gone},
		{"with a reason", jsonReply(404, `{"code":5,"message":"Token not found","details":[`+errorInfo+`"reason":"REFRESH_TOKEN_NOT_FOUND","domain":"iam"}]}`), running, gone, gone},
		{"with another detail", jsonReply(404, `{"code":5,"message":"token not found","details":[{"@type":"x/google.rpc.RequestInfo","resourceName":"aje2"}]}`), running, gone, gone},

		{"page of a proxy", reply{404, "text/html", "<h1>404 Not Found</h1>"}, running, failed, failed},
		{"page of a proxy that is a Status", reply{404, "text/html", missing.body}, running, failed, failed},
		{"nothing", reply{404, "", ""}, running, failed, failed},
		{"JSON and nothing", jsonReply(404, ``), running, failed, failed},
		{"JSON that is no Status", jsonReply(404, `{"error":"not_found"}`), running, failed, failed},
		{"JSON that is no object", jsonReply(404, `[5]`), running, failed, failed},
		{"JSON that is cut off", jsonReply(404, `{"code":5,"message":"there`), running, failed, failed},
		{"a Status without a code", jsonReply(404, `{"message":"no Route matched"}`), running, failed, failed},
		{"a Status with the code of HTTP", jsonReply(404, `{"code":404,"message":"gone"}`), running, failed, failed},
		{"a Status with another code", jsonReply(404, `{"code":12,"message":"no such method"}`), running, failed, failed},
		{"a Status with a message that is none", jsonReply(404, `{"code":5,"message":["x"]}`), running, failed, failed},
		{"a gateway without the route", jsonReply(404, `{"code":5,"message":"Not Found","details":[]}`), running, failed, failed},
		{"a Status of an operation", jsonReply(404, `{"code":5,"details":[`+resourceInfo+`"resourceType":"operation","resourceName":"aje1"}]}`), running, failed, failed},
		{"NOT_FOUND as 400", jsonReply(400, missing.body), running, failed, failed},
		{"NOT_FOUND as 503", jsonReply(500, missing.body), running, failed, failed},
		{"NOT_FOUND as 200", jsonReply(200, missing.body), running, failed, failed},
		{"410", jsonReply(410, `{}`), running, failed, failed},
		{"a Status of another token", jsonReply(404, `{"code":5,"details":[`+resourceInfo+`"resourceType":"refreshToken","resourceName":"aje2"}]}`), running, failed, gone},

		{"an empty ID revoked", done(`"response":{"refreshTokenIds":[""]}`), running, failed, failed},
		{"empty IDs revoked", done(`"response":{"refreshTokenIds":["","",""]}`), running, failed, failed},
		{"IDs without a letter or digit revoked", running, done(`"response":{"refreshTokenIds":[" ","\t","\u200b","-","."]}`), failed, failed},
		{"a token that was sent back revoked", done(`"response":{"refreshTokenIds":["` + someToken + `"]}`), running, failed, revoked},
		{"an empty ID and another revoked", done(`"response":{"refreshTokenIds":["","aje1"]}`), running, revoked, revoked},

		{"revoked at once", done(`"response":{"refreshTokenIds":["aje1"]}`), running, revoked, revoked},
		{"revoked among others", done(`"response":{"refreshTokenIds":["aje0","aje1"]}`), running, revoked, revoked},
		{"revoked later", running, done(`"metadata":{"refreshTokenIds":["aje1"]},"response":{"refreshTokenIds":["aje1"]}`), revoked, revoked},
		{"nothing revoked", done(`"response":{}`), running, failed, failed},
		{"nothing revoked, by an empty list", running, done(`"metadata":{"refreshTokenIds":["aje1"]},"response":{"refreshTokenIds":[]}`), failed, failed},
		{"a response of another kind", done(`"response":{"@type":"type.googleapis.com/yandex.cloud.iam.v1.Key","refreshTokenIds":["aje1"]}`), running, failed, failed},
		{"metadata of another kind", done(`"metadata":{"@type":"x/y.Z","refreshTokenIds":["aje2"]},"error":{"code":5,"message":"refresh_token: not found"}`), running, gone, gone},
		{"a response of its kind", done(`"response":{"@type":"type.googleapis.com/yandex.cloud.iam.v1.RevokeRefreshTokenResponse","refreshTokenIds":["aje1"]}`), running, revoked, revoked},
		{"another token revoked", running, done(`"response":{"refreshTokenIds":["aje2"]}`), failed, revoked},
		{"an operation that turns to another token", running, done(`"metadata":{"refreshTokenIds":["aje2"]},"error":{"code":5,"message":"no such refresh token"}`), failed, gone},

		{"the operation finds no token", running, done(`"error":{"code":5,"message":"there is no such refresh token"}`), gone, gone},
		{"the operation finds no account", running, done(`"error":{"code":5,"details":[` + resourceInfo + `"resourceType":"subject"}]}`), failed, failed},
		{"the operation is not found", running, jsonReply(404, `{"code":5,"message":"there is no such operation"}`), failed, failed},
		{"the operation is behind a proxy", running, reply{404, "text/html", "404"}, failed, failed},
		{"another operation", running, jsonReply(200, `{"id":"op2","done":true,"response":{"refreshTokenIds":["aje1"]}}`), failed, failed},
		{"another operation failed", running, jsonReply(200, `{"id":"op2","done":true,"error":{"code":5}}`), failed, failed},
		{"an operation without an ID", running, jsonReply(200, `{"done":true,"response":{"refreshTokenIds":["aje1"]}}`), failed, failed},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := revokeThen(t, c.revoke, c.poll)
			report, err := s.client().RevokeEach(t.Context(), []string{"aje1"}, refreshtoken.RevokeEachOptions{})
			if report == nil {
				t.Fatal(err)
			}
			want := &refreshtoken.RevokeReport{}
			switch c.byID {
			case revoked:
				want.Revoked = []string{"aje1"}
			case gone:
				want.Gone = []string{"aje1"}
			case failed:
				if len(report.Failed) == 1 {
					want.Failed = report.Failed
					checkFailure(t, report.Failed[0].Err)
				}
			}
			if !reflect.DeepEqual(report, want) || len(report.Failed) == 0 && c.byID == failed {
				t.Errorf("by ID: got %+v, want it %s", report, c.byID)
			}
			op, err := s.client().Revoke(t.Context(), refreshtoken.ByToken(someToken))
			if err == nil {
				_, err = op.Wait(t.Context())
			}
			switch got := errors.Is(err, refreshtoken.ErrGone); {
			case got != (c.byToken == gone), (err == nil) != (c.byToken == revoked):
				t.Errorf("by token: got %v, want it %s", err, c.byToken)
			case c.byToken == failed:
				checkFailure(t, err)
			}
		})
	}
}

// TestGoneTakesEvidence: a NOT_FOUND of a revocation is about the refresh token only
// if it says so, in the response to the revocation and at the end of its operation.
func TestGoneTakesEvidence(t *testing.T) {
	const (
		gone, kept = true, false
		foreignID  = "ajeb0f3k7u1q9d5s2n8p"
	)
	about := func(members string) string {
		return `{"code":5,"message":"x","details":[` + resourceInfo + members + `}]}`
	}
	message := func(m string) string { return fmt.Sprintf(`{"code":5,"message":%q}`, m) }
	for _, c := range []struct {
		status        string
		byID, byToken bool
	}{
		{message("there is no such refresh token"), gone, gone},
		{message("Refresh token not found"), gone, gone},
		{message("RefreshToken aje1 not found"), gone, kept},
		{message(`Refresh token with id "aje1" not found.`), gone, kept},
		{message("Token aje1 not found"), gone, kept},
		{message("refresh-token 'aje2' was not found"), kept, kept},
		{message("The refresh token " + foreignID + " does not exist"), kept, gone},
		{message("refresh token " + someToken + " has expired or been revoked"), gone, gone},
		{message("refresh_token_id: refresh_token not found"), gone, gone},
		{about(`"resource_type":"yandex.cloud.iam.v1.RefreshToken","resource_name":"aje1"`), gone, gone},
		{about(`"resourceType":"refresh-token"`), gone, gone},

		{message("UserAccount aje1 not found"), kept, kept},
		{message("UserAccount " + foreignID + " not found"), kept, kept},
		{message("Subject aje123 not found"), kept, kept},
		{message("Operation fdv123 not found"), kept, kept},
		{message("the operation of the refresh token was not found"), kept, kept},
		{message("the subject of refresh token aje1 was not found"), kept, kept},
		{message("IAM token not found"), kept, kept},
		{message("access token not found"), kept, kept},
		{message("token " + someToken + " not found"), kept, kept},
		{message("page token not found"), kept, kept},
		{message("refresh token service not found"), kept, kept},
		{message("RefreshTokenService not found"), kept, kept},
		{message("no such method: RefreshToken.Revoke"), kept, kept},
		{message("refresh token не найден"), kept, kept},
		{message(strings.Repeat("token ", 100) + "operation"), kept, kept},
		{message("not found"), kept, kept},
		{message("Not Found"), kept, kept},
		{message("no such method"), kept, kept},
		{message("refresh"), kept, kept},
		{message("aje1 not found"), kept, kept},
		{message(""), kept, kept},
		{`{"code":5}`, kept, kept},
		{`{"code":5,"message":"Token not found","details":[` + errorInfo + `"reason":"SUBJECT_NOT_FOUND","domain":"iam"}]}`, kept, kept},
		{`{"code":5,"details":[` + errorInfo + `"reason":"REFRESH_TOKEN_NOT_FOUND","domain":"iam"}]}`, kept, kept},
		{`{"code":5,"message":"token not found","details":[` + resourceInfo + `"resource_type":"operation"}]}`, kept, kept},
		{about(`"resource_type":"user-account","resource_name":"aje"`), kept, kept},
		{about(`"resourceType":"user-account","resourceName":"aje1"`), kept, kept},
		{about(`"resourceType":"refreshToken","resource_type":"operation"`), kept, kept},
		{about(`"resourceType":"refreshTokenService"`), kept, kept},
		{about(`"resourceName":"aje1"`), kept, kept},
		{about(`"resource_type":"refreshToken","resource_name":"aje2"`), kept, gone},
	} {
		for way, revoke := range map[string]reply{
			"at once":   jsonReply(404, c.status),
			"operation": jsonReply(200, `{"id":"op1","done":true,"error":`+c.status+`}`),
		} {
			t.Run(way+"/"+c.status, func(t *testing.T) {
				client := revokeThen(t, revoke, revoke).client()
				for _, target := range []struct {
					refreshtoken.Target
					want bool
				}{
					{refreshtoken.ByID("aje1"), c.byID},
					{refreshtoken.ByToken("opaque-token-0123456789"), c.byToken},
					{refreshtoken.AllMine(), kept},
				} {
					op, err := client.Revoke(t.Context(), target.Target)
					if err == nil {
						_, err = op.Wait(t.Context())
					}
					if got := errors.Is(err, refreshtoken.ErrGone); got != target.want || !errors.Is(err, refreshtoken.ErrNotFound) {
						t.Errorf("%v: gone is %v, want %v: %v", target.Target, got, target.want, err)
					}
				}
			})
		}
	}
}

// TestDetailsThatSaySomethingElse: a detail that is about something else, or that cannot be
// read, is believed more than a message, and a message about something else more than a
// ResourceInfo.
func TestDetailsThatSaySomethingElse(t *testing.T) {
	const token = "token not found"
	for _, c := range []struct {
		name, message, details string
		gone                   bool
	}{
		{"no details", token, ``, true},
		{"an empty detail", token, `{}`, false},
		{"no object", token, `"organization"`, false},
		{"a type that is none", token, `{"@type":5}`, false},
		{"a type that is null", token, `{"@type":null}`, false},
		{"an unknown type", token, `{"@type":"x/y.Z","resourceType":5}`, true},
		{"a ResourceInfo of nothing", token, resourceInfo + `"resourceName":"aje1"}`, false},
		{"a ResourceInfo of its type alone", token, `{"@type":"type.googleapis.com/google.rpc.ResourceInfo"}`, false},
		{"a resource with a number for a name", token, resourceInfo + `"resourceType":"organization","resourceName":7}`, false},
		{"a token with a number for a name", token, resourceInfo + `"resourceType":"refreshToken","resourceName":7}`, false},
		{"a token with an object for an owner", token, resourceInfo + `"resourceType":"refreshToken","owner":{}}`, false},
		{"types in an array", token, resourceInfo + `"resourceType":["organization"]}`, false},
		{"a token and another resource", token, resourceInfo + `"resourceType":"refreshToken"},` + resourceInfo + `"resourceType":"organization"}`, false},
		{"a description of another resource", token, resourceInfo + `"resourceType":"refreshToken","description":"the subject of the token was not found"}`, false},
		{"a description of the token", token, resourceInfo + `"resourceType":"refreshToken","description":"no such refresh token"}`, true},
		{"a description in other words", "x", resourceInfo + `"resourceType":"refreshToken","description":"y"}`, true},
		{"an ErrorInfo of another resource", token, errorInfo + `"reason":"ORGANIZATION_NOT_FOUND","domain":{}}`, false},
		{"an ErrorInfo with a number for a reason", token, errorInfo + `"reason":5}`, false},
		{"an ErrorInfo without a reason", token, errorInfo + `"domain":"iam"}`, false},
		{"an ErrorInfo of its type alone", token, `{"@type":"type.googleapis.com/google.rpc.ErrorInfo"}`, false},
		{"an ErrorInfo of the token", token, errorInfo + `"reason":"TOKEN_EXPIRED","metadata":{"a":"b"}}`, true},
		{"an ErrorInfo of an ID token", token, errorInfo + `"reason":"ID_TOKEN_NOT_FOUND"}`, false},
		{"an ErrorInfo that denies it", token, errorInfo + `"reason":"REFRESH_TOKEN_NOT_EXPIRED"}`, false},
		{"an ErrorInfo with words like an ID", token, errorInfo + `"reason":"OAUTH2_CLIENT_NOT_FOUND"}`, false},
		{"an ErrorInfo with words of the token and like an ID", token, errorInfo + `"reason":"REFRESH_TOKEN_V2_1234567890_NOT_FOUND"}`, false},
		{"an ErrorInfo with an ID", token, errorInfo + `"reason":"ajeb0f3k7u1q9d5s2n8p"}`, false},
		{"a type in another case", token, resourceInfo + `"RESOURCETYPE":"refreshToken"}`, false},
		{"two types in two cases", "x", resourceInfo + `"resourceType":"operation","resourcetype":"refreshToken"}`, false},
		{"two types of the detail", "x", `{"@type":"type.googleapis.com/google.rpc.ErrorInfo","@TYPE":"type.googleapis.com/google.rpc.ResourceInfo","resourceType":"refreshToken"}`, false},
		{"two reasons in two cases", token, errorInfo + `"reason":"ORGANIZATION_NOT_FOUND","rea\u017fon":"TOKEN_EXPIRED"}`, false},
		{"metadata that are no texts", token, errorInfo + `"reason":"TOKEN_EXPIRED","metadata":{"a":5}}`, false},
		{"a localized message", token, localized + `"locale":"en","message":"the refresh token was not found"}`, true},
		{"a localized message in other words", token, localized + `"locale":"ru","message":"не найден"}`, false},
		{"a localized message in other words of ASCII", token, localized + `"locale":"fr","message":"Le compte n'existe pas"}`, false},
		{"a localized message with more words", token, localized + `"locale":"en","message":"The refresh token was not found. Please log in."}`, false},
		{"a localized message with an ID", token, localized + `"locale":"en","message":"Refresh token was not found."}`, true},
		{"an empty localized message", token, localized + `"locale":"ru"}`, true},
		{"a description in another alphabet", "x", resourceInfo + `"resourceType":"refreshToken","description":"Аккаунт не найден"}`, false},
		{"a message in another alphabet", "Аккаунт не найден", resourceInfo + `"resourceType":"refreshToken"}`, false},
		{"a message with a word in another alphabet", "refresh token не найден", resourceInfo + `"resourceType":"refreshToken"}`, false},
		{"a localized message about another resource", token, localized + `"message":"The organization was not found"}`, false},
		{"a localized message that is none", token, localized + `"message":5}`, false},
		{"a localized message alone", "x", localized + `"message":"the refresh token was not found"}`, false},
		{"a wrong field", token, `{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":"client_id"}]}`, false},
		{"a precondition", token, `{"@type":"type.googleapis.com/google.rpc.PreconditionFailure"}`, false},
		{"a quota", token, `{"@type":"type.googleapis.com/google.rpc.QuotaFailure"}`, false},
		{"a message about another resource", "the organization of the caller was not found", resourceInfo + `"resourceType":"refreshToken"}`, false},
		{"a message that denies it", "this refresh token cannot be revoked", resourceInfo + `"resourceType":"refreshToken"}`, false},
		{"a message in other words", "nicht gefunden", resourceInfo + `"resourceType":"refreshToken"}`, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, answer(http.StatusNotFound, fmt.Sprintf(`{"code":5,"message":%q,"details":[%s]}`, c.message, c.details)))
			for _, target := range []refreshtoken.Target{refreshtoken.ByID("aje1"), refreshtoken.ByToken(someToken)} {
				_, err := s.client().Revoke(t.Context(), target)
				if errors.Is(err, refreshtoken.ErrGone) != c.gone || !errors.Is(err, refreshtoken.ErrNotFound) {
					t.Errorf("%v: got %v, want gone: %v", target, err, c.gone)
				}
			}
		})
	}
}

// checkFailure checks that the error has one of the documented types, and tells what
// to look at.
func checkFailure(t *testing.T, err error) {
	t.Helper()
	var api *refreshtoken.APIError
	var response *refreshtoken.ResponseError
	switch {
	case errors.Is(err, refreshtoken.ErrGone):
		t.Errorf("%v is gone and failed", err)
	case errors.As(err, &api):
		if api.HTTPStatus == 404 && api.Method == "Revoke" && api.Code != refreshtoken.Code(404) {
			wantText(t, err.Error(), "check the endpoint")
		}
	case !errors.As(err, &response):
		t.Errorf("got %v (%T)", err, err)
	}
}

// TestIDsAreComparedAsTheyCame: what stands for a credential is the ID of no token.
func TestIDsAreComparedAsTheyCame(t *testing.T) {
	const mark, credential = "REDACTED", "t1.9euelZqOnJWKkZ2ZlJeK.abcdefghij"
	for _, c := range []struct {
		name, id string
		revoke   reply
		revoked  bool
	}{
		{"another token", mark, jsonReply(200, `{"id":"op1","done":true,"response":{"refreshTokenIds":["`+credential+`"]}}`), false},
		{"the token", mark, jsonReply(200, `{"id":"op1","done":true,"response":{"refreshTokenIds":["`+mark+`"]}}`), true},
		{"a token with a strange ID", credential, jsonReply(200, `{"id":"op1","done":true,"response":{"refreshTokenIds":["`+credential+`"]}}`), true},
		{"another token is missing", mark, jsonReply(404, `{"code":5,"message":"token `+credential+` not found"}`), false},
		{"a resource is missing", mark, jsonReply(404, `{"code":5,"details":[`+resourceInfo+`"resourceType":"refreshToken","resourceName":"`+credential+`"}]}`), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := revokeThen(t, c.revoke, c.revoke).client()
			report, err := client.RevokeEach(t.Context(), []string{c.id}, refreshtoken.RevokeEachOptions{})
			if err != nil || len(report.Gone) > 0 || (len(report.Revoked) == 1) != c.revoked {
				t.Errorf("got %+v and %v", report, err)
			}
		})
	}
}

// TestOperationOfAnotherService: an ID can be that of any operation of the cloud.
func TestOperationOfAnotherService(t *testing.T) {
	const metadata, response = `"metadata":{"@type":"type.googleapis.com/yandex.cloud.compute.v1.CreateInstanceMetadata","instanceId":"i"}`,
		`"response":{"@type":"type.googleapis.com/yandex.cloud.compute.v1.Instance","id":"i","refreshTokenIds":5}`
	s := operation(t, `{"id":"op1","description":"Create instance",`+metadata+`}`, `{"id":"op1","done":true,`+metadata+`,`+response+`}`)
	op, err := s.client().Operation(t.Context(), "op1")
	if err != nil {
		t.Fatal(err)
	}
	result, err := op.Wait(t.Context())
	if result != nil {
		t.Errorf("got %+v", result)
	}
	wantText(t, as[*refreshtoken.ResponseError](t, err).Error(), "refreshtoken: Revoke: the operation was no revocation of refresh tokens")
}

// TestGoneIsOneToken: a NOT_FOUND is not about a token where none was named.
func TestGoneIsOneToken(t *testing.T) {
	s := serve(t, answer(404, `{"code":5,"message":"there is no such account"}`))
	for _, target := range []refreshtoken.Target{
		refreshtoken.AllMine(), refreshtoken.ByFilter(refreshtoken.RevokeFilter{SubjectID: "aje9"}),
	} {
		if _, err := s.client().Revoke(t.Context(), target); !errors.Is(err, refreshtoken.ErrNotFound) || errors.Is(err, refreshtoken.ErrGone) {
			t.Errorf("%v: got %v", target, err)
		}
	}
	if _, err := s.client().Operation(t.Context(), "op1"); !errors.Is(err, refreshtoken.ErrNotFound) || errors.Is(err, refreshtoken.ErrGone) {
		t.Errorf("an operation: got %v", err)
	}
	if _, err := list(s.client(), refreshtoken.ListOptions{}); !errors.Is(err, refreshtoken.ErrNotFound) || errors.Is(err, refreshtoken.ErrGone) {
		t.Errorf("a list: got %v", err)
	}
	if errors.Is(&refreshtoken.APIError{Code: refreshtoken.CodeNotFound}, refreshtoken.ErrGone) {
		t.Error("a NOT_FOUND that is the answer to nothing is gone")
	}
}

// TestRevokeEachAtAWrongEndpoint: every token may still be there.
func TestRevokeEachAtAWrongEndpoint(t *testing.T) {
	s := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "404 page not found", http.StatusNotFound)
	})
	report, err := s.client().RevokeEach(t.Context(), names(5), refreshtoken.RevokeEachOptions{})
	if err != nil || len(report.Failed) != 5 || as[*refreshtoken.APIError](t, report.Err()).Code != refreshtoken.CodeUnimplemented {
		t.Errorf("got %+v and %v", report, err)
	}
	wantText(t, report.Err().Error(), "check the endpoint, and whether a proxy is in the way")
}

// TestOperationOfAnother: what the server says about another operation is not the
// state of this one.
func TestOperationOfAnother(t *testing.T) {
	s := serve(t, answer(200, `{"id":"op2","done":true,"response":{}}`))
	_, err := s.client().Operation(t.Context(), "op1")
	wantText(t, as[*refreshtoken.ResponseError](t, err).Error(), "refreshtoken: Operation: the response is about another operation")
	s = operation(t, `{"id":"op1"}`, `{"id":"op2","done":true,"response":{}}`)
	op, err := s.client().Revoke(t.Context(), refreshtoken.AllMine())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := op.Wait(t.Context()); as[*refreshtoken.ResponseError](t, err).RequestID != "r2" || op.Done() {
		t.Errorf("got %v", err)
	}
}
