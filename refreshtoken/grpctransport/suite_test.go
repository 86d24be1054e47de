package grpctransport_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/oauth2"
	"google.golang.org/grpc"

	"github.com/ycauth/ycauth-go/oauth/iamtest"
	"github.com/ycauth/ycauth-go/oauth/iamtest/iamgrpc"
	"github.com/ycauth/ycauth-go/refreshtoken"
	"github.com/ycauth/ycauth-go/refreshtoken/grpctransport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A source is a token source of one token, or one error, for both transports.
type source struct {
	token string
	err   error
	asked func() // if not nil, called with each request
}

func (s source) Token() (*oauth2.Token, error) {
	if s.asked != nil {
		s.asked()
	}
	return &oauth2.Token{AccessToken: s.token, TokenType: "Bearer"}, s.err
}

func (s source) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	tok, err := s.Token()
	if err != nil {
		return nil, err
	}
	return map[string]string{"authorization": "Bearer " + tok.AccessToken}, nil
}

// transports are the ways to the same server. Each option list comes with retries
// and polls that do not wait long.
var transports = map[string]func(t *testing.T, iam *iamtest.Server, src source) *refreshtoken.Client{
	"REST": func(t *testing.T, iam *iamtest.Server, src source) *refreshtoken.Client {
		t.Helper()
		base := &http.Transport{}
		t.Cleanup(base.CloseIdleConnections)
		return refreshtoken.NewClient(&http.Client{Transport: &oauth2.Transport{Source: src, Base: base}},
			append(quick(), refreshtoken.WithEndpoint(iam.IAMEndpoint()))...)
	},
	"gRPC": func(t *testing.T, iam *iamtest.Server, src source) *refreshtoken.Client {
		t.Helper()
		return grpctransport.NewClient(dial(t, iamgrpc.Start(t, iam).Address, src), quick()...)
	},
}

func quick() []refreshtoken.Option {
	return []refreshtoken.Option{
		refreshtoken.WithRetry(refreshtoken.RetryPolicy{Initial: time.Millisecond, Max: time.Millisecond, MaxRetryAfter: time.Millisecond}),
		refreshtoken.WithPolling(refreshtoken.Polling{Initial: time.Millisecond, Max: time.Millisecond}),
		refreshtoken.WithTraceID("trace-7"),
	}
}

func dial(t *testing.T, address string, src source, opts ...grpc.DialOption) *grpctransport.Conn {
	t.Helper()
	conn, err := grpctransport.Dial(src, grpctransport.DialOptions{Endpoint: address, Plaintext: true, Options: opts})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return conn
}

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// A scenario is something that a caller does, and has to come out alike.
type scenario struct {
	name      string
	options   iamtest.Options
	seed      func(i int, t *iamtest.Seed) // of the 5 tokens aje0 to aje4
	set       func(*iamtest.Server)        // before run
	src       func(*source)
	cancelled bool // the caller's ctx, when the request gets its token
	run       func(ctx context.Context, c *refreshtoken.Client, iam *iamtest.Server) (any, error)
	check     func(t *testing.T, got any, err error)
}

// outcome is what a scenario came to, in a form that can be compared.
type outcome struct {
	Result   any
	Err      any
	Requests []iamtest.Request
}

func TestTransportsAgree(t *testing.T) {
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			got := map[string]outcome{}
			for name, client := range transports {
				t.Run(name, func(t *testing.T) { got[name] = s.play(t, client) })
			}
			rest, grpc := got["REST"], got["gRPC"]
			for _, part := range []struct {
				name       string
				rest, grpc any
			}{
				{"result", rest.Result, grpc.Result}, {"error", rest.Err, grpc.Err}, {"requests", rest.Requests, grpc.Requests},
			} {
				if !reflect.DeepEqual(part.rest, part.grpc) {
					t.Errorf("the %s differs:\nREST %s\ngRPC %s", part.name, dump(part.rest), dump(part.grpc))
				}
			}
		})
	}
}

func dump(v any) string {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// play runs the scenario on a server of its own.
func (s scenario) play(t *testing.T, client func(*testing.T, *iamtest.Server, source) *refreshtoken.Client) outcome {
	t.Helper()
	o := s.options
	o.Subject, o.Now = "ajeme", func() time.Time { return epoch }
	iam := iamtest.Start(t, o)
	iam.Seed(5, func(i int, t *iamtest.Seed) {
		t.ID = fmt.Sprintf("aje%d", i)
		if s.seed != nil {
			s.seed(i, t)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	src := source{token: iam.IssueAccessToken("", "")}
	if s.cancelled {
		src.asked = cancel
	}
	if s.src != nil {
		s.src(&src)
	}
	c := client(t, iam, src)
	if s.set != nil {
		s.set(iam)
	}
	result, err := s.run(ctx, c, iam)
	if s.check != nil {
		s.check(t, result, err)
	} else if err != nil {
		t.Errorf("unexpected: %v", err)
	}
	for _, secret := range iam.Secrets() {
		if err != nil && strings.Contains(fmt.Sprintf("%v %+v", err, err), secret) {
			t.Errorf("the error holds a secret: %v", err)
		}
	}
	if ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) {
		return outcome{normal(result), describe(err), nil} // the server may not have noticed yet
	}
	return outcome{normal(result), describe(err), requests(iam)}
}

// normal takes out of a result what is random.
func normal(v any) any {
	switch v := v.(type) {
	case []*refreshtoken.Page:
		for _, p := range v {
			p.Trace = some(p.Trace)
		}
	case *refreshtoken.RevokeResult:
		if v == nil {
			return nil
		}
		v.OperationID, v.Trace = present(v.OperationID), some(v.Trace)
	}
	return v
}

func present(s string) string {
	if s == "" {
		return ""
	}
	return "…"
}

func some(t refreshtoken.Trace) refreshtoken.Trace {
	return refreshtoken.Trace{RequestID: present(t.RequestID), ServerTraceID: present(t.ServerTraceID)}
}

// describe is an error of package refreshtoken field by field, without what
// belongs to one transport: the HTTP status, and the text of a broken connection.
func describe(err error) any {
	var api *refreshtoken.APIError
	var transport *refreshtoken.TransportError
	var response *refreshtoken.ResponseError
	var argument *refreshtoken.ArgumentError
	switch {
	case errors.As(err, &api):
		e := *api
		e.HTTPStatus, e.OperationID, e.Trace = 0, present(e.OperationID), some(e.Trace)
		e.Details = nil
		for _, d := range api.Details {
			// The request id is another one each time.
			e.Details = append(e.Details, json.RawMessage(strings.ReplaceAll(string(d), api.RequestID, "…")))
		}
		return e
	case errors.As(err, &transport):
		return []any{"transport", transport.Method, transport.Temporary, errors.Is(err, refreshtoken.ErrUnavailable),
			errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, errNoLogin)}
	case errors.As(err, &response):
		return []any{"response", response.Method, errors.Is(err, refreshtoken.ErrPageTokenRepeated), some(response.Trace)}
	case errors.As(err, &argument):
		return *argument
	case err != nil:
		return err.Error()
	}
	return nil
}

// requests are those that the server saw, without what belongs to one transport or
// is random.
func requests(iam *iamtest.Server) []iamtest.Request {
	all := iam.Requests()
	for i := range all {
		r := &all[i]
		r.Method, r.Path, r.UserAgent, r.Time = "", "", "", time.Time{}
		if r.Fault != "" {
			r.Error = "" // an HTTP status alone has no code
		}
		r.ClientRequestID, r.RequestID, r.IdempotencyKey = present(r.ClientRequestID), present(r.RequestID), present(r.IdempotencyKey)
	}
	return all
}

var errNoLogin = errors.New("log in again")
