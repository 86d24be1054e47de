package refreshtoken_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/refreshtoken"
)

func TestAPIError(t *testing.T) {
	s := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Request-Id", "req-1")
		w.Header().Set("X-Server-Trace-Id", "trace-1")
		w.Header().Set("Retry-After", "120")
		answerJSON(w, http.StatusForbidden, `{"code":7,"message":"Permission denied\nfor Bearer t1.abcdefgh.ijklmnop",
			"details":[{"@type":"type.googleapis.com/google.rpc.RequestInfo","requestId":"r","n":12345678901234567890},5,null],"more":1}`)
	})
	_, err := list(s.client(), refreshtoken.ListOptions{})
	e := as[*refreshtoken.APIError](t, err)
	if e.Method != "List" || e.Code != refreshtoken.CodePermissionDenied || e.HTTPStatus != 403 || e.RetryAfter != 2*time.Minute ||
		e.RequestID != "req-1" || e.ServerTraceID != "trace-1" || e.OperationID != "" {
		t.Errorf("got %#v", e)
	}
	if e.Message != "Permission denied for REDACTED" {
		t.Errorf("got the message %q", e.Message)
	}
	if got, want := fmt.Sprintf("%s", e.Details), `[{"@type":"type.googleapis.com/google.rpc.RequestInfo","n":12345678901234567890,"requestId":"r"} 5 null]`; got != want {
		t.Errorf("got the details %s, want %s", got, want)
	}
	want := "refreshtoken: List: PERMISSION_DENIED: Permission denied for REDACTED (HTTP 403, request id req-1, retry after 2m0s); " +
		"to list the refresh tokens of another subject, the caller needs the role organization-manager.viewer, organization-manager.admin or iam.userAccounts.refreshTokenViewer"
	if e.Error() != want {
		t.Errorf("got  %s\nwant %s", e, want)
	}
	if !errors.Is(err, refreshtoken.ErrPermissionDenied) {
		t.Error("it is no ErrPermissionDenied")
	}
	for _, other := range []error{nil, refreshtoken.ErrNotFound, refreshtoken.ErrUnauthenticated, refreshtoken.ErrUnavailable, refreshtoken.ErrGone} {
		if errors.Is(err, other) {
			t.Errorf("it is also %v", other)
		}
	}
	if n := len(s.seen()); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestAPIErrorTellsTheRoles(t *testing.T) {
	s := serve(t, answer(http.StatusForbidden, `{"code":7}`))
	_, err := s.client().Revoke(t.Context(), refreshtoken.AllMine())
	wantText(t, err.Error(), "organization-manager.federations.userAdmin or iam.userAccounts.refreshTokenRevoker")
	_, err = s.client().Operation(t.Context(), "op1")
	if strings.Contains(err.Error(), "role") {
		t.Errorf("%q names a role, but none is known", err)
	}
}

// Whatever a proxy answers, the error is typed and holds nothing of the body.
func TestErrorAnswers(t *testing.T) {
	const html = "<html><title>Sorry</title>body-of-the-answer</html>"
	for _, c := range []struct {
		name        string
		status      int
		contentType string
		body        string
		want        refreshtoken.Code
	}{
		{"400 empty", 400, "", "", refreshtoken.CodeInvalidArgument},
		{"401 empty", 401, "", "", refreshtoken.CodeUnauthenticated},
		{"403 HTML", 403, "text/html", html, refreshtoken.CodePermissionDenied},
		{"404 HTML", 404, "text/html", html, refreshtoken.CodeUnimplemented},
		{"407 HTML", 407, "text/html", html, refreshtoken.CodeUnknown},
		{"409 text", 409, "text/plain", "body-of-the-answer", refreshtoken.CodeAborted},
		{"429 empty", 429, "", "", refreshtoken.CodeResourceExhausted},
		{"499 empty", 499, "", "", refreshtoken.CodeCanceled},
		{"500 HTML", 500, "text/html", html, refreshtoken.CodeInternal},
		{"501 empty", 501, "", "", refreshtoken.CodeUnimplemented},
		{"502 HTML", 502, "text/html", html, refreshtoken.CodeUnavailable},
		{"503 empty", 503, "", "", refreshtoken.CodeUnavailable},
		{"504 HTML", 504, "text/html", html, refreshtoken.CodeDeadlineExceeded},
		{"599 HTML", 599, "text/html", html, refreshtoken.CodeUnknown},
		{"JSON of another kind", 404, "application/json", `{"error":"body-of-the-answer"}`, refreshtoken.CodeUnimplemented},
		{"JSON that is no object", 404, "application/json", `"body-of-the-answer"`, refreshtoken.CodeUnimplemented},
		{"JSON that is cut off", 404, "application/json", `{"message":"body-of-the-answer`, refreshtoken.CodeUnimplemented},
		{"message of the wrong type", 404, "application/json", `{"code":9,"message":["body-of-the-answer"]}`, refreshtoken.CodeUnimplemented},
		{"code of the wrong type", 404, "application/json", `{"code":true,"message":"body-of-the-answer"}`, refreshtoken.CodeUnimplemented},
		{"code out of range", 404, "application/json", `{"code":1e99,"message":"body-of-the-answer"}`, refreshtoken.CodeUnimplemented},
		{"larger than 1 MiB", 404, "application/json", `{"message":"body-of-the-answer ` + strings.Repeat("x", 1<<20) + `"}`, refreshtoken.CodeUnimplemented},
		{"code as a string", 400, "application/problem+json; charset=utf-8", `{"code":"9"}`, refreshtoken.CodeFailedPrecondition},
		{"code 0", 404, "application/json", `{"code":0}`, refreshtoken.CodeUnimplemented},
		{"code that is not known", 400, "application/json", `{"code":77}`, refreshtoken.Code(77)},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", c.contentType)
				w.WriteHeader(c.status)
				io.WriteString(w, c.body)
			})
			_, err := list(s.client(refreshtoken.WithRetry(refreshtoken.RetryPolicy{Attempts: 1})), refreshtoken.ListOptions{})
			e := as[*refreshtoken.APIError](t, err)
			if e.Code != c.want || e.HTTPStatus != c.status {
				t.Errorf("got %v and HTTP %d, want %v", e.Code, e.HTTPStatus, c.want)
			}
			wantText(t, e.Error(), c.want.String(), fmt.Sprintf("HTTP %d", c.status))
			if strings.Contains(printed(err), "body-of-the-answer") {
				t.Errorf("%v holds the body", err)
			}
			if n := s.open.Load(); n != 0 {
				t.Errorf("%d bodies were not closed", n)
			}
		})
	}
}

func TestWrongAnswers(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(w http.ResponseWriter)
		reason string
	}{
		{"HTML", func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			io.WriteString(w, "<p>body-of-the-answer")
		}, "the response is not JSON: check the endpoint"},
		{"no content type", func(w http.ResponseWriter) {
			w.Header()["Content-Type"] = nil
			io.WriteString(w, `{"body-of-the-answer":1}`)
		}, "the response is not JSON"},
		{"larger than 16 MiB", func(w http.ResponseWriter) {
			answerJSON(w, 200, `{"body-of-the-answer":"`+strings.Repeat("x", 16<<20)+`"}`)
		}, "larger than 16 MiB: a smaller PageSize makes smaller pages"},
		{"no content", func(w http.ResponseWriter) { w.WriteHeader(http.StatusNoContent) }, "want HTTP 200 or an error (HTTP 204"},
		{"not modified", func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotModified) }, "want HTTP 200 or an error (HTTP 304"},
		{"redirect without an address", func(w http.ResponseWriter) { w.WriteHeader(http.StatusTemporaryRedirect) }, "(HTTP 307"},
		{"redirect to a path", func(w http.ResponseWriter) {
			w.Header().Set("Location", "/login?body-of-the-answer")
			w.WriteHeader(http.StatusFound)
		}, `the response redirects to "127.0.0.1"`},
		{"redirect to another host", func(w http.ResponseWriter) {
			w.Header().Set("Location", "https://user:body-of-the-answer@login.example/body-of-the-answer")
			w.WriteHeader(http.StatusPermanentRedirect)
		}, `the response redirects to "login.example", and a redirect is not followed`},
		{"several choices", func(w http.ResponseWriter) {
			w.Header().Set("Location", "https://login.example/")
			w.WriteHeader(http.StatusMultipleChoices)
		}, `the response redirects to "login.example"`},
		{"redirect to nowhere", func(w http.ResponseWriter) {
			w.Header().Set("Location", "mailto:body-of-the-answer")
			w.WriteHeader(http.StatusMovedPermanently)
		}, `the response redirects, and`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-Server-Trace-Id", "trace-1")
				c.answer(w)
			})
			_, err := list(s.client(), refreshtoken.ListOptions{})
			e := as[*refreshtoken.ResponseError](t, err)
			wantText(t, e.Error(), "refreshtoken: List: ", c.reason, "server trace id trace-1")
			if strings.Contains(printed(err), "body-of-the-answer") {
				t.Errorf("%v holds the body", err)
			}
			if n := len(s.seen()); n != 1 {
				t.Errorf("%d requests: another attempt cannot help", n)
			}
			if n := s.open.Load(); n != 0 {
				t.Errorf("%d bodies were not closed", n)
			}
		})
	}
}

// A redirect must not carry the refresh token to another place.
func TestRedirectIsNotFollowed(t *testing.T) {
	other := serve(t, answer(http.StatusOK, doneAtAll))
	s := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+"/elsewhere", http.StatusTemporaryRedirect)
	})
	hc := s.httpClient()
	followed := errors.New("the caller's own CheckRedirect")
	hc.CheckRedirect = func(*http.Request, []*http.Request) error { return followed }
	c := refreshtoken.NewClient(hc, refreshtoken.WithEndpoint(s.URL))
	_, err := c.Revoke(t.Context(), refreshtoken.ByToken(someToken))
	as[*refreshtoken.ResponseError](t, err)
	if n := len(other.seen()); n != 0 {
		t.Errorf("the redirect was followed")
	}
	if err := hc.CheckRedirect(nil, nil); !errors.Is(err, followed) {
		t.Error("the caller's client was changed")
	}
}

func TestTraceIsFitForALog(t *testing.T) {
	s := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Request-Id", strings.Repeat("r", 5000))
		w.Header().Set("X-Server-Trace-Id", "a\tb c\u00e9")
		answerJSON(w, http.StatusNotFound, `{}`)
	})
	_, err := list(s.client(), refreshtoken.ListOptions{})
	e := as[*refreshtoken.APIError](t, err)
	if len(e.RequestID) != 128 || e.ServerTraceID != "abc" {
		t.Errorf("got %q and %q", e.RequestID, e.ServerTraceID)
	}
}

func TestCode(t *testing.T) {
	for code, want := range map[refreshtoken.Code]string{
		0: "OK", refreshtoken.CodeCanceled: "CANCELLED", refreshtoken.CodeUnknown: "UNKNOWN",
		refreshtoken.CodeInvalidArgument: "INVALID_ARGUMENT", refreshtoken.CodeDeadlineExceeded: "DEADLINE_EXCEEDED",
		refreshtoken.CodeNotFound: "NOT_FOUND", refreshtoken.CodeAlreadyExists: "ALREADY_EXISTS",
		refreshtoken.CodePermissionDenied: "PERMISSION_DENIED", refreshtoken.CodeResourceExhausted: "RESOURCE_EXHAUSTED",
		refreshtoken.CodeFailedPrecondition: "FAILED_PRECONDITION", refreshtoken.CodeAborted: "ABORTED",
		refreshtoken.CodeOutOfRange: "OUT_OF_RANGE", refreshtoken.CodeUnimplemented: "UNIMPLEMENTED",
		refreshtoken.CodeInternal: "INTERNAL", refreshtoken.CodeUnavailable: "UNAVAILABLE",
		refreshtoken.CodeDataLoss: "DATA_LOSS", refreshtoken.CodeUnauthenticated: "UNAUTHENTICATED",
		17: "CODE(17)", -1: "CODE(-1)",
	} {
		if code.String() != want {
			t.Errorf("got %s, want %s", code, want)
		}
	}
}

// TestZeroErrors print something: a caller may make one for a test.
func TestZeroErrors(t *testing.T) {
	for _, err := range []error{
		&refreshtoken.APIError{}, &refreshtoken.ResponseError{}, &refreshtoken.ArgumentError{},
		&refreshtoken.TransportError{}, &refreshtoken.TransportError{Method: "List", Temporary: true},
	} {
		if text := printed(err); !strings.Contains(text, "refreshtoken: ") || strings.Contains(text, "PANIC") {
			t.Errorf("%T prints %s", err, text)
		}
		if errors.Is(err, io.EOF) {
			t.Errorf("%T is an end of file", err)
		}
	}
	if !errors.Is(&refreshtoken.TransportError{Temporary: true}, refreshtoken.ErrUnavailable) {
		t.Error("a temporary error without a cause is not ErrUnavailable")
	}
}

// TestRedirectWithoutBody: a RoundTripper that leaves out the body makes no panic.
func TestRedirectWithoutBody(t *testing.T) {
	for _, to := range []string{"://", "https://h.example/", ""} {
		hc := &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusFound, Header: http.Header{"Location": {to}}, Request: r}, nil
		})}
		_, err := refreshtoken.NewClient(hc).Revoke(t.Context(), refreshtoken.ByID("aje1"))
		if e := as[*refreshtoken.ResponseError](t, err); e.HTTPStatus != http.StatusFound {
			t.Errorf("%s: got %v", to, err)
		}
	}
}

// TestRedirectToNoURL is a response, not a failure of the network.
func TestRedirectToNoURL(t *testing.T) {
	for _, to := range []string{"://", "%zz", "https://h.example:port/", "https://" + someToken + ":x/"} {
		for _, status := range []int{300, 301, 303, 307, 308, 399} {
			s := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-Request-Id", "req-1")
				w.Header().Set("Location", to)
				w.WriteHeader(status)
			})
			_, err := s.client().Revoke(t.Context(), refreshtoken.ByToken(someToken))
			e := as[*refreshtoken.ResponseError](t, err)
			if e.HTTPStatus != status || e.Method != "Revoke" || e.RequestID != "req-1" || errors.Is(err, refreshtoken.ErrUnavailable) || len(s.seen()) != 1 || s.open.Load() != 0 {
				t.Errorf("%s: got %#v after %d requests, %d open", to, e, len(s.seen()), s.open.Load())
			}
			wantText(t, e.Error(), "redirects to what is no URL", "check the endpoint")
			checkSilence(t, someToken, printed(err))
		}
	}
}
