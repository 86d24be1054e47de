package refreshtoken_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/ycauth/ycauth-go/refreshtoken"
)

const (
	someToken = "rt1.9euelZqOm8ucnY-dzM.q1w2e3r4t5y6u7i8o9p0a1s2d3f4g5h6j7k8l9z0x1c2v3b4n5m6"
	oddToken  = "opaque token+/=<&>'" // no shape by which it could be recognised
	doneAtAll = `{"id":"op1","done":true,"metadata":{"subjectId":"aje9","refreshTokenIds":["a","b"]},"response":{"refreshTokenIds":["a"]}}`
)

var uuidV4 = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

func TestRevokeRequest(t *testing.T) {
	for _, c := range []struct {
		name   string
		target refreshtoken.Target
		want   string
	}{
		{"by ID", refreshtoken.ByID("aje1"), `{"refreshTokenId":"aje1"}`},
		{"by token", refreshtoken.ByToken(someToken), `{"refreshToken":"` + someToken + `"}`},
		{"by the longest ID", refreshtoken.ByID(strings.Repeat("я", 50)), `{"refreshTokenId":"` + strings.Repeat("я", 50) + `"}`},
		{"by the longest token", refreshtoken.ByToken(strings.Repeat("a", 1000)), `{"refreshToken":"` + strings.Repeat("a", 1000) + `"}`},
		{"by filter", refreshtoken.ByFilter(refreshtoken.RevokeFilter{ClientID: "c", SubjectID: "s", ClientInstanceInfo: `i"\`}),
			`{"revokeFilter":{"clientId":"c","subjectId":"s","clientInstanceInfo":"i\"\\"}}`},
		{"by subject only", refreshtoken.ByFilter(refreshtoken.RevokeFilter{SubjectID: "s"}), `{"revokeFilter":{"subjectId":"s"}}`},
		{"all mine", refreshtoken.AllMine(), `{"revokeFilter":{}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, answer(http.StatusOK, doneAtAll))
			if _, err := s.client(refreshtoken.WithTraceID("trace-7")).Revoke(t.Context(), c.target); err != nil {
				t.Fatal(err)
			}
			r := s.seen()[0]
			if r.method != http.MethodPost || r.path != "/iam/v1/refreshTokens:revoke" || len(r.query) != 0 {
				t.Errorf("got %s %s %v", r.method, r.path, r.query)
			}
			if r.body != c.want {
				t.Errorf("got the body %s, want %s", r.body, c.want)
			}
			for name, want := range map[string]string{
				"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "ycauth-go", "X-Client-Trace-Id": "trace-7",
			} {
				if got := r.header.Get(name); got != want {
					t.Errorf("header %s: got %q, want %q", name, got, want)
				}
			}
			for _, name := range []string{"Idempotency-Key", "X-Client-Request-Id"} {
				if got := r.header.Get(name); !uuidV4.MatchString(got) {
					t.Errorf("header %s: got %q, want a UUID of version 4", name, got)
				}
			}
			if n := s.open.Load(); n != 0 {
				t.Errorf("%d bodies were not closed", n)
			}
		})
	}
}

func TestRevokeRefusesTargets(t *testing.T) {
	for _, c := range []struct {
		name   string
		target refreshtoken.Target
		field  string
		reason string
	}{
		{"zero", refreshtoken.Target{}, "Target", "ByID, ByToken, ByFilter or AllMine"},
		{"no ID", refreshtoken.ByID(""), "ByID", "is empty"},
		{"long ID", refreshtoken.ByID(someToken), "ByID", "the token itself goes to ByToken"},
		{"ID not UTF-8", refreshtoken.ByID("\xff"), "ByID", "UTF-8"},
		{"no token", refreshtoken.ByToken(""), "ByToken", "is empty"},
		{"token with its newline", refreshtoken.ByToken(someToken + "\n"), "ByToken", "white space"},
		{"token with a space before", refreshtoken.ByToken(" " + someToken), "ByToken", "white space"},
		{"token with a letter outside ASCII", refreshtoken.ByToken(someToken + "я"), "ByToken", "a character other than printable ASCII, which no refresh token has: pass the token alone"},
		{"token with a control character", refreshtoken.ByToken(someToken[:9] + "\x00" + someToken[9:]), "ByToken", "a character other than printable ASCII"},
		{"long token", refreshtoken.ByToken(strings.Repeat("a", 1001)), "ByToken", "1001 characters, but the API takes 1000"},
		{"empty filter", refreshtoken.ByFilter(refreshtoken.RevokeFilter{}), "ByFilter", "AllMine"},
		{"long client", refreshtoken.ByFilter(refreshtoken.RevokeFilter{ClientID: strings.Repeat("a", 51)}), "RevokeFilter.ClientID", "50"},
		{"long subject", refreshtoken.ByFilter(refreshtoken.RevokeFilter{SubjectID: strings.Repeat("a", 51)}), "RevokeFilter.SubjectID", "50"},
		{"long instance", refreshtoken.ByFilter(refreshtoken.RevokeFilter{ClientInstanceInfo: strings.Repeat("a", 1001)}), "RevokeFilter.ClientInstanceInfo", "1000"},
		{"key", refreshtoken.AllMine().WithIdempotencyKey("once"), "Target.WithIdempotencyKey", "UUID"},
		{"key with a wrong digit", refreshtoken.AllMine().WithIdempotencyKey("3f0c1c5e-8d5b-4b0a-9b57-0a6f5b6f7d1g"), "Target.WithIdempotencyKey", "UUID"},
		{"key with a wrong dash", refreshtoken.AllMine().WithIdempotencyKey("3f0c1c5e08d5b-4b0a-9b57-0a6f5b6f7d11"), "Target.WithIdempotencyKey", "UUID"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, answer(http.StatusOK, doneAtAll))
			op, err := s.client().Revoke(t.Context(), c.target)
			e := as[*refreshtoken.ArgumentError](t, err)
			if op != nil || e.Field != c.field {
				t.Errorf("got the operation %v, field %q", op, e.Field)
			}
			wantText(t, e.Error(), c.field, c.reason)
			if strings.Contains(e.Error(), someToken[:20]) {
				t.Errorf("%q holds the token", e)
			}
			if n := len(s.seen()); n != 0 {
				t.Errorf("%d requests were sent", n)
			}
		})
	}
}

func TestRevokeIdempotencyKey(t *testing.T) {
	const key = "3F0c1c5e-8d5b-4b0a-9b57-0a6f5b6f7d11"
	s := serve(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		if n%3 != 0 {
			answerJSON(w, http.StatusServiceUnavailable, `{"code":14}`)
			return
		}
		answerJSON(w, http.StatusOK, doneAtAll)
	})
	c := s.client()
	for _, target := range []refreshtoken.Target{
		refreshtoken.ByID("aje1"), refreshtoken.ByID("aje1"), refreshtoken.ByID("aje1").WithIdempotencyKey(key),
	} {
		if _, err := c.Revoke(t.Context(), target); err != nil {
			t.Fatal(err)
		}
	}
	seen := s.seen()
	if len(seen) != 9 {
		t.Fatalf("%d requests, want 3 for each Revoke", len(seen))
	}
	keys, requestIDs, traces := map[string]int{}, map[string]bool{}, map[string]bool{}
	for _, r := range seen {
		keys[r.header.Get("Idempotency-Key")]++
		requestIDs[r.header.Get("X-Client-Request-Id")] = true
		traces[r.header.Get("X-Client-Trace-Id")] = true
		if r.body != `{"refreshTokenId":"aje1"}` {
			t.Errorf("a retry sent the body %q", r.body)
		}
	}
	if len(keys) != 3 || keys[key] != 3 {
		t.Errorf("got the keys %v, want one for each Revoke", keys)
	}
	if len(requestIDs) != 9 {
		t.Errorf("%d request ids for 9 requests", len(requestIDs))
	}
	if len(traces) != 1 {
		t.Errorf("%d trace ids for one client", len(traces))
	}
}

// A server or something on the way may send the token back, and its shape may
// be any.
func TestRevokeErrorsHoldNoToken(t *testing.T) {
	escaped := strings.ReplaceAll(oddToken, "&", `\u0026`)
	for _, c := range []struct {
		name      string
		transport roundTrip
	}{
		{"API error", func(*http.Request) (*http.Response, error) {
			return response(http.StatusBadRequest, "application/json", `{"code":3,"message":"unknown token `+escaped+`",`+
				`"details":[{"@type":"x","value":"`+escaped+`","n":12345678901234567890},{"list":["`+escaped+`"],"`+escaped+`":1}]}`), nil
		}},
		{"operation", func(*http.Request) (*http.Response, error) {
			return response(http.StatusOK, "application/json", `{"id":"1","done":true,"error":{"code":5,"message":"`+escaped+`","details":["`+escaped+`"]}}`), nil
		}},
		{"malformed operation", func(*http.Request) (*http.Response, error) {
			return response(http.StatusOK, "application/json", `{"id":["`+escaped+`"]}`), nil
		}},
		{"page of a proxy", func(*http.Request) (*http.Response, error) {
			return response(http.StatusForbidden, "text/html", "<p>"+oddToken), nil
		}},
		{"transport", func(r *http.Request) (*http.Response, error) {
			return nil, errors.New("cannot send " + oddToken)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log strings.Builder
			client := refreshtoken.NewClient(&http.Client{Transport: c.transport}, refreshtoken.WithLogger(textLogger(&log)))
			op, err := client.Revoke(t.Context(), refreshtoken.ByToken(oddToken))
			if err == nil {
				_, err = op.Wait(t.Context())
			}
			if err == nil {
				t.Fatal("no error")
			}
			for _, text := range []string{printed(err), printed(op), log.String()} {
				if strings.Contains(text, oddToken) || strings.Contains(text, "opaque") {
					t.Errorf("%s holds the token", text)
				}
			}
		})
	}
}

func response(status int, contentType, body string) *http.Response {
	return &http.Response{
		StatusCode: status, Header: http.Header{"Content-Type": {contentType}}, Body: io.NopCloser(strings.NewReader(body)),
	}
}

func TestRevokeContext(t *testing.T) {
	s := serve(t, answer(http.StatusOK, doneAtAll))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.client().Revoke(ctx, refreshtoken.AllMine()); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v", err)
	}
	if n := len(s.seen()); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}
