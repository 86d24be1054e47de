package refreshtoken_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/ycauth/ycauth-go/refreshtoken"
)

// echoed are refresh tokens of shapes that are hard to find again.
var echoed = map[string]string{
	"of the cloud":     someToken,
	"opaque":           oddToken,
	"in quotes":        `opa"que\token'1`,
	"of digits":        "1618033988",
	"as a host":        "Opaque-Token.Example",
	"as host and path": "opaque/token/0123456789",
	"a long one":       strings.Repeat("opaque-token-", 70),
}

// TestEchoes: a server that sends the token back, in every header and every member.
func TestEchoes(t *testing.T) {
	for name, token := range echoed {
		text, err := json.Marshal(token)
		if err != nil {
			t.Fatal(err)
		}
		number := string(text)
		if strings.Trim(token, "0123456789") == "" {
			number = token
		}
		in := strings.NewReplacer("TOKEN", string(text), "NUMBER", number)
		const metadata = `"description":TOKEN,"createdBy":TOKEN,"metadata":{"subjectId":TOKEN,"refreshTokenIds":[TOKEN,"aje1"]}`
		const failure = `"message":TOKEN,"details":[TOKEN,NUMBER,[NUMBER],{"@type":TOKEN,TOKEN:NUMBER}]`
		for kind, body := range map[string]string{
			"running":               `{"id":"op1",` + metadata + `}`,
			"running, by its token": `{"id":TOKEN,` + metadata + `}`,
			"done":                  `{"id":TOKEN,"done":true,` + metadata + `,"response":{"refreshTokenIds":[TOKEN]}}`,
			"failed":                `{"id":TOKEN,"done":true,` + metadata + `,"error":{"code":9,` + failure + `}}`,
			"error":                 `{"code":9,` + failure + `}`,
			"error with its code":   `{"code":NUMBER,` + failure + `}`,
			"redirect":              ``,
			"HTML":                  ``,
			"unavailable":           ``,
		} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				s := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
					for _, h := range []string{"X-Request-Id", "X-Server-Trace-Id", "X-Client-Request-Id", "Server", "Date", "Retry-After", "Www-Authenticate", "Grpc-Message"} {
						w.Header().Set(h, token)
					}
					switch kind {
					case "redirect":
						u := url.URL{Scheme: "https", Host: "login.example", Path: "/" + token}
						if host, path, _ := strings.Cut(token, "/"); !strings.ContainsAny(token, ` "'`) {
							u.Host, u.Path = host, "/"+path
							u.RawPath = u.Path
						}
						w.Header().Set("Location", u.String())
						w.WriteHeader(http.StatusTemporaryRedirect)
					case "HTML":
						w.Header().Set("Content-Type", token)
						fmt.Fprint(w, token)
					case "unavailable":
						http.Error(w, token, http.StatusServiceUnavailable)
					case "error", "error with its code":
						answerJSON(w, http.StatusBadRequest, in.Replace(body))
					default:
						answerJSON(w, http.StatusOK, in.Replace(body))
					}
				})
				var log strings.Builder
				client := s.client(refreshtoken.WithLogger(textLogger(&log)), refreshtoken.WithRetry(refreshtoken.RetryPolicy{Attempts: 2, Initial: 1}))
				op, err := client.Revoke(t.Context(), refreshtoken.ByToken(token))
				texts := []string{printed(err), log.String()}
				if err == nil {
					result, err := op.Wait(ended(t))
					texts = append(texts, printed(err), printed(op), printed(op.ID()), printed(result))
				}
				checkSilence(t, token, texts...)
			})
		}
	}
}

// TestEchoesInIdentifiers: what is taken out of an identifier does not put a token
// together again.
func TestEchoesInIdentifiers(t *testing.T) {
	for _, token := range []string{someToken, oddToken, "opaque-token-0123456789"} {
		for _, gap := range []string{"", " ", "\t", "\u00a0", "\u200b", "\xff", "\u2028", "\u202e"} {
			for _, status := range []int{http.StatusOK, http.StatusForbidden} {
				t.Run(fmt.Sprintf("%.6s/%q/%d", token, gap, status), func(t *testing.T) {
					s := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
						for _, name := range []string{"X-Request-Id", "X-Server-Trace-Id"} {
							w.Header().Set(name, "a"+gap+"b/"+token[:3]+gap+token[3:9]+gap+token[9:])
						}
						if status == http.StatusOK {
							answerJSON(w, status, `{"id":"op1","done":true,"response":{"refreshTokenIds":["aje1"]}}`)
							return
						}
						answerJSON(w, status, `{"code":7}`)
					})
					op, err := s.client().Revoke(t.Context(), refreshtoken.ByToken(token))
					texts := []string{printed(err)}
					if err == nil {
						result, err := op.Wait(t.Context())
						texts = append(texts, printed(result), printed(op), printed(err))
						if result.RequestID != "ab/REDACTED" {
							t.Errorf("got the request ID %q", result.RequestID)
						}
					}
					checkSilence(t, token, texts...)
					checkSilence(t, strings.ReplaceAll(token, " ", ""), texts...)
				})
			}
		}
	}
}

// checkSilence fails where a text holds the token, or much of it, in any form.
func checkSilence(t *testing.T, token string, texts ...string) {
	t.Helper()
	quoted, err := json.Marshal(token)
	if err != nil {
		t.Fatal(err)
	}
	part := token[:min(len(token), 40)]
	if before, _, ok := strings.Cut(token, "/"); ok && len(before) > 4 {
		part = before
	}
	for _, text := range texts {
		lower := strings.ToLower(text)
		for _, form := range []string{token, part, strings.Trim(fmt.Sprintf("%q", token), `"`), strings.Trim(string(quoted), `"`), url.QueryEscape(token), url.PathEscape(token)} {
			if strings.Contains(lower, strings.ToLower(form)) {
				t.Errorf("%s holds the token as %s", text, form)
				break
			}
		}
	}
}

// TestEscapedEchoes: a server that sends back the request as it logged it, in the way that
// its JSON, HTML or URL encoder writes texts.
func TestEscapedEchoes(t *testing.T) {
	const token = "Q29tcGxldGVseS/PcGFxdWU+dG9rZW4xMjM0NTY3OA=="
	for name, echo := range map[string]string{
		"as it is":           token,
		"PHP":                strings.ReplaceAll(token, "/", `\/`),
		"Gson":               strings.NewReplacer("=", `\u003d`, "+", `\u002B`).Replace(token),
		"JSON in JSON":       strings.ReplaceAll(token, "=", `\\u003d`),
		"HTML, decimal":      strings.NewReplacer("+", "&#43;", "=", "&#61;").Replace(token),
		"HTML, hexadecimal":  strings.NewReplacer("+", "&#x2B;", "=", "&#x3D;", "/", "&#x2F;").Replace(token),
		"HTML, by name":      strings.NewReplacer("+", "&plus;", "=", "&equals;", "/", "&sol;").Replace(token),
		"HTML in HTML":       strings.ReplaceAll(token, "=", "&amp;#61;"),
		"URL":                url.QueryEscape(token),
		"URL in a URL":       url.QueryEscape(url.QueryEscape(token)),
		"URL, in lower case": strings.ToLower(url.QueryEscape(token)),
	} {
		t.Run(name, func(t *testing.T) {
			message, err := json.Marshal(`bad request: {"refreshToken":"` + echo + `"}`)
			if err != nil {
				t.Fatal(err)
			}
			status := fmt.Sprintf(`{"code":3,"message":%s,"details":[{"@type":"x","a":%[1]s,%[1]s:1}]}`, message)
			for _, r := range []reply{
				jsonReply(400, status), jsonReply(200, `{"id":"op1","error":`+status+`}`),
				jsonReply(200, fmt.Sprintf(`{"id":"op1","done":true,"metadata":{"subjectId":%s},"response":{"refreshTokenIds":[%[1]s]}}`, message)),
			} {
				op, err := revokeThen(t, r, r).client().Revoke(t.Context(), refreshtoken.ByToken(token))
				texts := []string{printed(err)}
				if err == nil {
					result, err := op.Wait(t.Context())
					texts = append(texts, printed(err), printed(result))
				}
				checkSilence(t, token, texts...)
				for _, text := range texts {
					if strings.Contains(strings.ToLower(text), strings.ToLower("dG9rZW4xMjM0NTY3OA")) {
						t.Errorf("%s holds much of the token", text)
					}
				}
			}
		})
	}
}

// TestQuotedEchoes: an error of net/http quotes what the server sent.
func TestQuotedEchoes(t *testing.T) {
	for name, token := range echoed {
		t.Run(name, func(t *testing.T) {
			for _, cause := range []error{
				fmt.Errorf("net/http: malformed MIME header line: %q", token),
				fmt.Errorf("http2: server sent GOAWAY and closed the connection; debug=%q", token),
				&url.Error{Op: "Post", URL: "https://iam.example/" + url.PathEscape(token), Err: errors.New(token)},
			} {
				hc := &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) { return nil, cause })}
				_, err := refreshtoken.NewClient(hc).Revoke(t.Context(), refreshtoken.ByToken(token))
				if !errors.Is(err, cause) {
					t.Errorf("got %v, want it to wrap %v", err, cause)
				}
				checkSilence(t, token, printed(err))
			}
		})
	}
}

// TestTransportErrorPrintsNoCause: not even where a printer looks inside.
func TestTransportErrorPrintsNoCause(t *testing.T) {
	type goAway struct {
		error
		DebugData string
	}
	err := &refreshtoken.TransportError{Method: "List", Temporary: true, Err: &goAway{errors.New("GOAWAY"), "secret-debug-data"}}
	const want = "refreshtoken: List: GOAWAY"
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d"} {
		if got := fmt.Sprintf(verb, err); got != want {
			t.Errorf("%s prints %s", verb, got)
		}
	}
	if got, e := json.Marshal(err); string(got) != `"`+want+`"` || e != nil {
		t.Errorf("JSON is %s, %v", got, e)
	}
	report := &refreshtoken.RevokeReport{Failed: []refreshtoken.RevokeFailure{{ID: "aje1", Err: err}}}
	if text := printed(report); strings.Contains(text, "secret-debug-data") || !strings.Contains(text, "GOAWAY") {
		t.Errorf("a report prints %s", text)
	}
}
