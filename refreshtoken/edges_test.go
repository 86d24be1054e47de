package refreshtoken_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/internal/tokenapi"
	"github.com/ycauth/ycauth-go/refreshtoken"
)

// TestHintOfAMissingToken is for a revocation that found nothing, and for nothing else.
func TestHintOfAMissingToken(t *testing.T) {
	const hint = "this does not prove that the refresh token is gone"
	for _, c := range []struct {
		method string
		code   refreshtoken.Code
		want   bool
	}{
		{"Revoke", refreshtoken.CodeNotFound, true},
		{"Revoke", refreshtoken.CodeInternal, false},
		{"Operation", refreshtoken.CodeNotFound, false},
		{"List", refreshtoken.CodeNotFound, false},
	} {
		e := &refreshtoken.APIError{Method: c.method, Code: c.code}
		if got := strings.Contains(e.Error(), hint); got != c.want {
			t.Errorf("%s of %s: got %v", c.method, c.code, e)
		}
	}
}

// TestNoResponse: a RoundTripper without a response or an error breaks its contract, but
// not the program.
func TestNoResponse(t *testing.T) {
	hc := &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) { return nil, nil })} //nolint:nilnil // the fault that is tested
	client := refreshtoken.NewClient(hc, refreshtoken.WithRetry(refreshtoken.RetryPolicy{Attempts: 1}))
	_, err := list(client, refreshtoken.ListOptions{})
	as[*refreshtoken.TransportError](t, err)
}

// TestErrorBesideAnOperation: what came with an error does not count.
func TestErrorBesideAnOperation(t *testing.T) {
	done := &operationState{ID: "op1", Done: true, Response: &tokenapi.Response{RefreshTokenIDs: []string{"aje1"}}}
	client := refreshtoken.New(&fakeTransport{
		revoke: func(context.Context, tokenapi.Call, tokenapi.RevokeRequest) (*operationState, error) {
			return done, io.ErrUnexpectedEOF
		},
	}, refreshtoken.WithRetry(refreshtoken.RetryPolicy{Attempts: 1}))
	if op, err := client.Revoke(t.Context(), refreshtoken.ByID("aje1")); op != nil || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v and %v", op, err)
	}
}

// TestContextEndsWithinAnError: that of a response which is complete is kept.
func TestContextEndsWithinAnError(t *testing.T) {
	for _, c := range []struct {
		name     string
		complete bool
	}{{"complete", true}, {"cut off", false}} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			body := strings.NewReader(`{"code":9,"message":"not now"}`)
			hc := &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
				resp := response(http.StatusBadRequest, "application/json", "")
				resp.Body = io.NopCloser(readerFunc(func(p []byte) (int, error) {
					cancel()
					n, err := body.Read(p)
					if err != nil && !c.complete {
						err = ctx.Err()
					}
					return n, err
				}))
				return resp, nil
			})}
			_, err := refreshtoken.NewClient(hc).Revoke(ctx, refreshtoken.AllMine())
			if c.complete {
				if e := as[*refreshtoken.APIError](t, err); e.Code != refreshtoken.CodeFailedPrecondition {
					t.Errorf("got %v", e)
				}
				return
			}
			if e := as[*refreshtoken.TransportError](t, err); !errors.Is(err, context.Canceled) || e.Temporary {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A namedSource makes a request that has an x-client-request-id of its own.
type namedSource struct {
	hc  *http.Client
	url string
}

func (s namedSource) Token() (*oauth2.Token, error) { return s.TokenContext(context.Background()) }

func (s namedSource) TokenContext(ctx context.Context) (*oauth2.Token, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Client-Request-Id", "of-the-token-source")
	resp, err := s.hc.Do(req)
	if err != nil {
		return nil, err
	}
	resp.Body.Close()
	return nil, errors.New("succeeded")
}

// TestRequestIDOfATokenSource is not that of the call, which was never sent.
func TestRequestIDOfATokenSource(t *testing.T) {
	auth := serve(t, func(int, http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	hc := &http.Client{Transport: &dpop.Transport{Source: namedSource{auth.Client(), auth.URL}, Base: auth.Client().Transport}}
	n := 0
	client := refreshtoken.NewClient(hc, refreshtoken.WithEndpoint(auth.URL), refreshtoken.WithLogger(counting(&n)),
		refreshtoken.WithRetry(refreshtoken.RetryPolicy{Initial: time.Millisecond}))
	_, err := list(client, refreshtoken.ListOptions{})
	if e := as[*refreshtoken.TransportError](t, err); e.Temporary || n != 0 {
		t.Errorf("got %v, temporary %v, after %d retries", err, e.Temporary, n)
	}
}
