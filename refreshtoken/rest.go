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
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ycauth/ycauth-go/internal/retry"
	"github.com/ycauth/ycauth-go/internal/tokenapi"
	"github.com/ycauth/ycauth-go/internal/wire"
)

// rest is the transport over HTTP and JSON (Yandex Cloud IAM API, REST).
type rest struct {
	hc             *http.Client // adds the Authorization header, follows no redirects
	iam, operation *url.URL
	userAgent      string
}

var _ transport = (*rest)(nil)

func newREST(hc *http.Client, iam, operation *url.URL, userAgent string) *rest {
	hc = wire.NoRedirects(hc)
	hc.Transport = locations{hc.Transport}
	return &rest{hc: hc, iam: iam, operation: operation, userAgent: userAgent}
}

// locations finds redirects to what is no URL. An http.Client would make a failure to
// send of them, which cannot be told from one of the network.
type locations struct{ base http.RoundTripper }

// A locationError is a response with a Location that cannot be parsed. It does not hold
// the Location.
type locationError struct{ resp *http.Response }

func (e *locationError) Error() string { return "the Location cannot be parsed" }

func (l locations) RoundTrip(req *http.Request) (*http.Response, error) {
	base := l.base
	if base == nil {
		base = http.DefaultTransport
	}
	resp, err := base.RoundTrip(req)
	if err != nil || resp == nil || resp.StatusCode < 300 || resp.StatusCode > 399 {
		return resp, err
	}
	if to := resp.Header.Get("Location"); to != "" {
		if _, err := req.URL.Parse(to); err != nil {
			if resp.Body != nil { // of a RoundTripper that keeps the contract by half
				resp.Body.Close()
			}
			return nil, &locationError{resp}
		}
	}
	return resp, nil
}

// List is GET /iam/v1/refreshTokens.
func (t *rest) List(ctx context.Context, call tokenapi.Call, req tokenapi.ListRequest) (*Page, error) {
	u := t.iam.JoinPath("iam/v1/refreshTokens")
	u.RawQuery = listQuery(req).Encode()
	page, trace, err := exchange(ctx, t, call, http.MethodGet, u, nil, func(body io.Reader) (*Page, error) {
		return parsePage(body, req)
	})
	if err != nil {
		return nil, err
	}
	page.Trace = trace
	return page, nil
}

func listQuery(req tokenapi.ListRequest) url.Values {
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
func (t *rest) Revoke(ctx context.Context, call tokenapi.Call, req tokenapi.RevokeRequest) (*operation, error) {
	var token string
	if req.RefreshToken != nil {
		token = req.RefreshToken()
	}
	body, err := json.Marshal(struct {
		RefreshTokenID string                 `json:"refreshTokenId,omitempty"`
		RefreshToken   string                 `json:"refreshToken,omitempty"`
		RevokeFilter   *tokenapi.RevokeFilter `json:"revokeFilter,omitempty"`
	}{req.RefreshTokenID, token, req.RevokeFilter})
	if err != nil {
		return nil, err
	}
	return t.startOrPoll(ctx, call, http.MethodPost, t.iam.JoinPath("iam/v1/refreshTokens:revoke"), body)
}

// Operation is GET /operations/{operation_id} at the operation service.
func (t *rest) Operation(ctx context.Context, call tokenapi.Call, id string) (*operation, error) {
	return t.startOrPoll(ctx, call, http.MethodGet, t.operation.JoinPath("operations", url.PathEscape(id)), nil)
}

func (t *rest) startOrPoll(ctx context.Context, call tokenapi.Call, method string, u *url.URL, body []byte) (*operation, error) {
	op, trace, err := exchange(ctx, t, call, method, u, body, parseOperation)
	if err != nil {
		return nil, err
	}
	op.Trace = tokenapi.Trace(trace)
	return op, nil
}

// exchange makes one request and reads the good response to it with parse.
func exchange[T any](ctx context.Context, t *rest, call tokenapi.Call, method string, u *url.URL, body []byte, parse func(io.Reader) (*T, error)) (*T, Trace, error) {
	resp, trace, err := t.send(ctx, call, method, u, body)
	if err != nil {
		return nil, trace, err
	}
	defer resp.Body.Close()
	in := &boundedBody{ctx: ctx, LimitedReader: io.LimitedReader{R: resp.Body, N: maxBody + 1}}
	v, err := parse(in)
	switch {
	case errors.Is(in.err, errTooLarge):
		err = &ResponseError{Reason: errTooLarge.Error() + ": a smaller PageSize makes smaller pages", HTTPStatus: resp.StatusCode, Err: errTooLarge, Trace: trace}
	case in.err != nil && ctx.Err() != nil:
		err = &TransportError{Err: retry.Ended(ctx)}
	case in.err != nil:
		err = &TransportError{Temporary: true, Err: fmt.Errorf("the response is cut off: %w", in.err)}
	case err != nil:
		err = &ResponseError{Reason: err.Error(), HTTPStatus: resp.StatusCode, Err: err, Trace: trace}
	}
	return v, trace, err
}

// maxBody is the most that is read of a response, in bytes. The largest page that the
// API allows has 1000 tokens with 1000 characters of client_instance_info and some 250
// more in each, and JSON may take 12 bytes for a character.
const maxBody = 16 << 20

var errTooLarge = errors.New("the response is larger than 16 MiB")

// A boundedBody reads a body up to maxBody, and remembers why that ended early.
type boundedBody struct {
	io.LimitedReader
	ctx context.Context // of the call
	err error           // nil for the end of the body
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.LimitedReader.Read(p)
	switch {
	case b.N <= 0:
		err = errTooLarge
	case b.N <= maxBody-jsonBuffer && b.ctx.Err() != nil:
		// net/http looks at ctx where it waits for the network, but not where it
		// decompresses. A short response that is there counts even so.
		err = b.ctx.Err()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
	return n, err
}

// send returns a good response, whose body is still to be read, and an error for any
// other.
func (t *rest) send(ctx context.Context, call tokenapi.Call, method string, u *url.URL, body []byte) (*http.Response, Trace, error) {
	var seen progress
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, seen.trace(call)), method, u.String(), bytes.NewReader(body))
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
		if redirect, ok := err.(*locationError); ok { //nolint:errorlint // only the outermost
			trace := traceOf(redirect.resp.Header)
			return nil, trace, &ResponseError{Reason: "the response " + redirects(" to what is no URL"), HTTPStatus: redirect.resp.StatusCode, Trace: trace}
		}
		return nil, Trace{}, &TransportError{Temporary: seen.retryable(err), Err: err}
	}
	trace := traceOf(resp.Header)
	if err := check(ctx, call, resp); err != nil {
		resp.Body.Close()
		return nil, trace, err
	}
	return resp, trace, nil
}

// check returns an error for a response that is not good.
func check(ctx context.Context, call tokenapi.Call, resp *http.Response) error {
	var reason string
	switch {
	case resp.StatusCode >= 400:
		data, err := wire.ReadBody(resp) // a part of it says nothing
		if err != nil && ctx.Err() != nil {
			return &TransportError{Err: retry.Ended(ctx)}
		}
		return statusError(resp, data)
	case resp.StatusCode >= 300 && resp.Header.Get("Location") != "":
		reason = "the response " + redirects(redirectedTo(resp, call.Clean))
	case resp.StatusCode != http.StatusOK:
		reason = "want HTTP 200 or an error"
	case !wire.IsJSON(resp.Header):
		reason = "the response is not JSON: check the endpoint, and whether a proxy is in the way"
	default:
		return nil
	}
	return &ResponseError{Reason: reason, HTTPStatus: resp.StatusCode, Trace: traceOf(resp.Header)}
}

// A progress tells how far a request came. A RoundTripper that authenticates can make
// requests of its own with the same ctx, and so with the same trace, before it makes
// this one.
type progress struct{ sent atomic.Bool }

const clientRequestID = "X-Client-Request-Id"

func (p *progress) trace(call tokenapi.Call) *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		WroteHeaderField: func(name string, value []string) {
			if strings.EqualFold(name, clientRequestID) && slices.Contains(value, call.ClientRequestID) {
				p.sent.Store(true)
			}
		},
	}
}

// retryable reports whether the network failed, and not the caller's credentials
// or the identity of the server or of this client. The errors of a token source are final
// here, because it has retried by itself where that helps. So are those that say so: a signer
// that fails, such as dpop's for a second proof after the request was sent once, may cost one
// of the tries that a card allows for its PIN.
func (p *progress) retryable(err error) bool {
	var certificate *tls.CertificateVerificationError
	var known interface{ Retryable() bool }
	var inner *url.Error
	switch {
	case errors.As(err, &certificate), certificateRejected(err):
		return false
	case errors.As(err, &known) && !known.Retryable():
		return false
	case p.sent.Load():
		return true
	case errors.As(err, &inner): // an exchange of a token source
		return false
	}
	// No connection for this request, or a token source that failed. net/http returns
	// the error of the former as it is; that of the latter is inside another one, or is
	// the deadline of the source's own ctx: the ctx of the call has not ended.
	_, network := err.(net.Error)                                                                       //nolint:errorlint // only the outermost
	broken := network && err != context.DeadlineExceeded || err == io.EOF || err == io.ErrUnexpectedEOF //nolint:errorlint // only the outermost
	return broken || garbledHandshake(err) || unusableConnection(err)
}

// certificateRejected reports whether the server sent a TLS alert about the certificate of
// this client, such as that there is none. In TLS 1.3 it comes after the request was sent.
// crypto/tls does not export the type of an alert, so the text must do.
func certificateRejected(err error) bool {
	var op *net.OpError
	for ; errors.As(err, &op); err = op.Err {
		if op.Op == "remote error" && op.Err != nil {
			text := op.Err.Error()
			return strings.Contains(text, "certificate") || strings.Contains(text, "access denied")
		}
	}
	return false
}

// garbledHandshake reports whether err is one of crypto/tls itself, for what a server sent in
// a handshake, and net/http returned it as it is. Those that mention a certificate, and the
// signature of a client's, can be of a server or a key that is wrong.
func garbledHandshake(err error) bool {
	text, ok := strings.CutPrefix(err.Error(), "tls: ")
	return ok && !strings.Contains(text, "certificate") && !strings.Contains(text, "failed to sign")
}

// unusableConnection reports whether a connection of HTTP/2 broke before this request was sent
// on it, and net/http has not repeated that by itself, as for the first request of a
// connection. It has no error values for that.
func unusableConnection(err error) bool {
	return strings.HasPrefix(err.Error(), "http2: client conn ")
}

func (t *rest) setHeader(h http.Header, call tokenapi.Call, hasBody bool) {
	h.Set("Accept", "application/json")
	h.Set("User-Agent", t.userAgent)
	h.Set(clientRequestID, call.ClientRequestID)
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

func redirects(to string) string {
	return "redirects" + to + ", and a redirect is not followed with credentials: check the endpoint, and whether a proxy is in the way"
}

// redirectedTo names the host that a redirect leads to, and no more of the URL. The
// URL is cleaned as a whole, because a secret in it can be host and path at once, and
// the host once more, because to parse it undoes escapes.
func redirectedTo(resp *http.Response, clean cleaner) string {
	location := resp.Header.Get("Location")
	if len(location) > maxText {
		return ""
	}
	cleaned := http.Response{Header: http.Header{"Location": {clean(location)}}, Request: resp.Request}
	u, err := cleaned.Location()
	if err != nil || u.Hostname() == "" {
		return ""
	}
	return fmt.Sprintf(" to %q", clean(u.Hostname()))
}

// statusError reads a google.rpc.Status. Where the response is anything else, the
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
