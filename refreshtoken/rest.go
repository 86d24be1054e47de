package refreshtoken

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/ycauth/ycauth-go/internal/retry"
	"github.com/ycauth/ycauth-go/internal/wire"
)

// rest is the [Transport] over HTTP and JSON (Yandex Cloud IAM API, REST).
type rest struct {
	hc             *http.Client // adds the Authorization header, follows no redirects
	iam, operation *url.URL     // nil where a Discovery finds it
	found          atomic.Pointer[found]
	userAgent      string
}

// found are the endpoints that a Discovery found last.
type found struct{ iam, operation *url.URL }

var _ Transport = (*rest)(nil)

func newREST(hc *http.Client, iam, operation *url.URL, userAgent string) *rest {
	return &rest{hc: wire.NoRedirects(hc), iam: iam, operation: operation, userAgent: userAgent}
}

// locate finds the endpoints that were not set. It has to succeed before the first
// call.
func (t *rest) locate(ctx context.Context, d *Discovery) error {
	at, err := d.Endpoints(ctx)
	if err != nil {
		return err
	}
	iam, err := d.url(at.IAM)
	if err != nil {
		return err
	}
	operation, err := d.url(at.Operation)
	if err != nil {
		return err
	}
	t.found.Store(&found{iam, operation})
	return nil
}

func (t *rest) iamURL() *url.URL {
	if t.iam != nil {
		return t.iam
	}
	return t.found.Load().iam
}

func (t *rest) operationURL() *url.URL {
	if t.operation != nil {
		return t.operation
	}
	return t.found.Load().operation
}

// List is GET /iam/v1/refreshTokens.
func (t *rest) List(ctx context.Context, call Call, req ListRequest) (*Page, error) {
	u := t.iamURL().JoinPath("iam/v1/refreshTokens")
	u.RawQuery = listQuery(req).Encode()
	page, trace, err := exchange(ctx, t, call, http.MethodGet, u, nil, parsePage)
	if err != nil {
		return nil, err
	}
	page.Trace = trace
	return page, nil
}

func listQuery(req ListRequest) url.Values {
	q := url.Values{}
	if req.SubjectID != "" {
		q.Set("subjectId", req.SubjectID)
	}
	if req.PageSize != 0 {
		q.Set("pageSize", strconv.Itoa(req.PageSize))
	}
	if req.PageToken != "" {
		q.Set("pageToken", req.PageToken)
	}
	if req.Filter != "" {
		q.Set("filter", req.Filter)
	}
	return q
}

// Revoke is POST /iam/v1/refreshTokens:revoke.
func (t *rest) Revoke(ctx context.Context, call Call, req RevokeRequest) (*Operation, error) {
	body, err := json.Marshal(struct {
		RefreshTokenID string        `json:"refreshTokenId,omitempty"`
		RefreshToken   string        `json:"refreshToken,omitempty"`
		RevokeFilter   *RevokeFilter `json:"revokeFilter,omitempty"`
	}{req.RefreshTokenID, req.RefreshToken.Reveal(), req.RevokeFilter})
	if err != nil {
		return nil, err
	}
	return t.startOrPoll(ctx, call, http.MethodPost, t.iamURL().JoinPath("iam/v1/refreshTokens:revoke"), body)
}

// Operation is GET /operations/{operation_id} at the operation service.
func (t *rest) Operation(ctx context.Context, call Call, id string) (*Operation, error) {
	return t.startOrPoll(ctx, call, http.MethodGet, t.operationURL().JoinPath("operations", url.PathEscape(id)), nil)
}

func (t *rest) startOrPoll(ctx context.Context, call Call, method string, u *url.URL, body []byte) (*Operation, error) {
	op, trace, err := exchange(ctx, t, call, method, u, body, parseOperation)
	if err != nil {
		return nil, err
	}
	op.Trace = trace
	return op, nil
}

// exchange makes one request and reads its answer with parse.
func exchange[T any](ctx context.Context, t *rest, call Call, method string, u *url.URL, body []byte, parse func([]byte) (T, error)) (T, Trace, error) {
	var zero T
	data, trace, err := t.send(ctx, call, method, u, body)
	if err != nil {
		return zero, trace, err
	}
	v, err := parse(data)
	if err != nil {
		return zero, trace, &ResponseError{Reason: err.Error(), HTTPStatus: http.StatusOK, Err: err, Trace: trace}
	}
	return v, trace, nil
}

// send returns the body of a good answer.
func (t *rest) send(ctx context.Context, call Call, method string, u *url.URL, body []byte) ([]byte, Trace, error) {
	// A token source in hc fails before a connection is asked for. Its errors are
	// final here, because it has retried by itself where that helps.
	var reached atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GetConn: func(string) { reached.Store(true) }})
	req, err := http.NewRequestWithContext(traced, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, Trace{}, &TransportError{Err: withoutURL(err)}
	}
	t.setHeader(req.Header, call, body != nil)
	resp, err := t.hc.Do(req)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return nil, Trace{}, &TransportError{Err: retry.Ended(ctx)}
	default:
		err = withoutURL(err)
		return nil, Trace{}, &TransportError{Temporary: retryable(err, reached.Load()), Err: err}
	}
	defer resp.Body.Close()
	data, err := readAnswer(ctx, call, resp)
	return data, traceOf(resp.Header), err
}

func (t *rest) setHeader(h http.Header, call Call, hasBody bool) {
	h.Set("Accept", "application/json")
	h.Set("User-Agent", t.userAgent)
	h.Set("X-Client-Request-Id", call.ClientRequestID)
	if call.ClientTraceID != "" {
		h.Set("X-Client-Trace-Id", call.ClientTraceID)
	}
	if call.IdempotencyKey != "" {
		h.Set("Idempotency-Key", call.IdempotencyKey)
	}
	if hasBody {
		h.Set("Content-Type", "application/json")
	}
}

// withoutURL drops what net/http puts around an error: the URL has the filter and
// the page token in it.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// retryable reports whether the network failed, and not the caller's credentials
// or the identity of the server.
func retryable(err error, reached bool) bool {
	var certificate *tls.CertificateVerificationError
	if errors.As(err, &certificate) {
		return false
	}
	if reached {
		return true
	}
	// A RoundTripper that does not speak of its connections. An exchange inside
	// the error is that of a token source.
	var inner *url.Error
	if errors.As(err, &inner) {
		return false
	}
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// readAnswer returns the body of a good answer, and an error for any other.
func readAnswer(ctx context.Context, call Call, resp *http.Response) ([]byte, error) {
	wrong := func(reason string, err error) error {
		return &ResponseError{Reason: reason, HTTPStatus: resp.StatusCode, Err: err, Trace: traceOf(resp.Header)}
	}
	data, err := wire.ReadBody(resp)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, &TransportError{Err: retry.Ended(ctx)}
	case resp.StatusCode >= 400:
		return nil, statusError(resp, data)
	case resp.StatusCode >= 300 && resp.Header.Get("Location") != "":
		return nil, wrong("the answer redirects"+redirectedTo(resp, call.clean)+", and a redirect is not followed with credentials: check the endpoint, and whether a proxy is in the way", nil)
	case resp.StatusCode != http.StatusOK:
		return nil, wrong("want HTTP 200 or an error", nil)
	case errors.Is(err, wire.ErrTooLarge):
		return nil, wrong(err.Error()+": a smaller PageSize makes smaller pages", err)
	case err != nil:
		return nil, &TransportError{Temporary: true, Err: fmt.Errorf("the answer is cut off: %w", err)}
	case !wire.IsJSON(resp.Header):
		return nil, wrong("the answer is not JSON: check the endpoint, and whether a proxy is in the way", nil)
	}
	return data, nil
}

// redirectedTo names the host that a redirect leads to, and no more of the URL. The
// URL is cleaned as a whole: a secret in it can be host and path at once.
func redirectedTo(resp *http.Response, clean cleaner) string {
	cleaned := http.Response{Header: http.Header{"Location": {clean(resp.Header.Get("Location"))}}, Request: resp.Request}
	u, err := cleaned.Location()
	if err != nil || u.Hostname() == "" {
		return ""
	}
	return fmt.Sprintf(" to %q", u.Hostname())
}

// statusError reads a google.rpc.Status. Where the answer is anything else, the
// HTTP status has to do.
func statusError(resp *http.Response, data []byte) *APIError {
	e := &APIError{}
	if wire.IsJSON(resp.Header) {
		if s, err := parseStatus(data); err == nil {
			e = s
		}
	}
	if e.Code == 0 {
		e.Code = codeOfHTTP(resp.StatusCode)
	}
	e.HTTPStatus = resp.StatusCode
	e.RetryAfter = retry.After(resp.Header, time.Now())
	e.Trace = traceOf(resp.Header)
	return e
}

// traceOf is as the server sent it: the Client makes it fit to be printed.
func traceOf(h http.Header) Trace {
	return Trace{RequestID: h.Get("X-Request-Id"), ServerTraceID: h.Get("X-Server-Trace-Id")}
}
