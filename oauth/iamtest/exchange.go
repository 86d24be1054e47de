package iamtest

import (
	"context"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxRequest is the longest request body accepted, in bytes.
const maxRequest = 64 << 10

// An exchange is one request and the answer to it, which is complete before any
// of it is sent: so faults can change it.
type exchange struct {
	s    *Server
	r    *http.Request
	opts *Options
	now  time.Time // by the server's clock, wrong as a fault may have made it
	in   []byte    // body of the request
	form url.Values
	rec  Request

	challenge  bool // a fault wants a newer nonce than any
	repeatPage bool // a fault wants the page token of the request in the answer
	foreignOp  bool // a fault wants somebody else's Operation in the answer

	status   int
	header   http.Header
	body     []byte
	web      bool // the answer is a web server's or a proxy's, and not the API's
	abort    bool // close the connection without an answer
	truncate bool // close it in the middle of the answer
}

// route finds the endpoint of a request and its handler.
func route(r *http.Request) (Endpoint, func(*exchange)) {
	for _, rt := range routes {
		if here := r.URL.Path == rt.path || rt.below && strings.HasPrefix(r.URL.Path, rt.path); !here {
			continue
		}
		if !slices.Contains(rt.methods, r.Method) {
			return EndpointOther, func(e *exchange) { e.methodNotAllowed(strings.Join(rt.methods, ", ")) }
		}
		return rt.endpoint, rt.handle
	}
	return EndpointOther, (*exchange).notFound
}

var routes = []struct {
	path     string
	below    bool // with everything that begins with path
	methods  []string
	endpoint Endpoint
	handle   func(*exchange)
}{
	{"/oauth/authorize", false, []string{http.MethodGet, http.MethodPost}, EndpointAuthorize, (*exchange).authorize},
	{"/oauth/token", false, []string{http.MethodPost}, EndpointToken, (*exchange).token},
	{"/api/whoami", false, []string{http.MethodGet}, EndpointResource, (*exchange).whoami},
	{"/iam/v1/refreshTokens", false, []string{http.MethodGet}, EndpointList, (*exchange).listRefreshTokens},
	{"/iam/v1/refreshTokens:revoke", false, []string{http.MethodPost}, EndpointRevoke, (*exchange).revokeRefreshTokens},
	{"/operations/", true, []string{http.MethodGet}, EndpointOperation, (*exchange).getOperation},
	{"/endpoints", false, []string{http.MethodGet}, EndpointEndpoints, (*exchange).endpoints},
	{"/endpoints/", true, []string{http.MethodGet}, EndpointEndpoints, (*exchange).endpoints},
}

// serve handles every request of the server.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	endpoint, handler := route(r)
	e := s.exchange(r, endpoint)
	fault, skew, faulty := s.takeFault(endpoint)
	e.now = e.now.Add(skew)
	if skew != 0 {
		e.rec.Fault = ClockSkew(skew).String()
	}
	if !faulty {
		handler(e)
	} else {
		e.rec.Fault = fault.String()
		if e.before(fault) {
			handler(e)
		}
		if !e.abort {
			e.after(fault)
		}
	}
	e.send(r.Context(), w)
}

// exchange reads the request. The body is read to its end, so that a client
// which goes away ends the request's context.
func (s *Server) exchange(r *http.Request, endpoint Endpoint) *exchange {
	e := &exchange{s: s, r: r, opts: s.options(), now: s.clock.Now(), header: http.Header{}}
	e.in, _ = io.ReadAll(io.LimitReader(r.Body, maxRequest+1))
	e.rec = Request{
		Endpoint: endpoint, Method: r.Method, Path: r.URL.Path, Proof: peekProof(r),
		UserAgent: r.UserAgent(), IdempotencyKey: r.Header.Get("Idempotency-Key"),
		ClientRequestID: r.Header.Get("X-Client-Request-ID"), ClientTraceID: r.Header.Get("X-Client-Trace-ID"),
		RequestID: newUUID(),
	}
	if isForm(r) {
		e.form, _ = url.ParseQuery(string(e.in))
	}
	if endpoint == EndpointToken || endpoint == EndpointElsewhere {
		e.rec.GrantType, e.rec.ClientID = e.form.Get("grant_type"), e.form.Get("client_id")
	}
	kinds, values := credentials(r.Header, e.form)
	e.rec.Credentials = kinds
	s.mu.Lock()
	s.secret(values...)
	s.mu.Unlock()
	return e
}

// send records the exchange, and then lets the client see the answer.
func (e *exchange) send(ctx context.Context, w http.ResponseWriter) {
	e.rec.Time = e.now
	if !e.abort {
		e.rec.Status = e.status
	}
	e.s.record(ctx, e.rec)
	if e.abort {
		panic(http.ErrAbortHandler) // the documented way to drop a connection
	}
	h := w.Header()
	maps.Copy(h, e.header)
	h.Set("Date", e.now.UTC().Format(http.TimeFormat))
	if !e.web {
		setDefault(h, "X-Request-Id", e.rec.RequestID)
		setDefault(h, "X-Server-Trace-Id", strings.ReplaceAll(e.rec.RequestID, "-", "")+":0:0:0")
		h.Set("Cache-Control", "no-store") // RFC 6749 §5.1
		h.Set("Pragma", "no-cache")
	}
	if !e.opts.Chunked {
		h.Set("Content-Length", strconv.Itoa(len(e.body)))
	}
	w.WriteHeader(e.status)
	rest := e.body
	if e.truncate || e.opts.Chunked {
		_, _ = w.Write(e.body[:len(e.body)/2])
		_ = http.NewResponseController(w).Flush()
		rest = e.body[len(e.body)/2:]
	}
	if e.truncate {
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(rest)
}

func setDefault(h http.Header, name, value string) {
	if h.Get(name) == "" {
		h.Set(name, value)
	}
}

// json is an answer whose body is JSON already.
func (e *exchange) json(status int, body []byte) {
	e.status, e.body = status, body
	e.header.Set("Content-Type", "application/json; charset=utf-8")
}

// notFound answers as a web server does that does not know the path: nothing in
// it is the API's.
func (e *exchange) notFound() {
	e.webError(http.StatusNotFound, "404 page not found\n")
}

func (e *exchange) methodNotAllowed(allow string) {
	e.webError(http.StatusMethodNotAllowed, "Method Not Allowed\n")
	e.header.Set("Allow", allow)
}

func (e *exchange) webError(status int, text string) {
	e.replace(status, "text/plain; charset=utf-8", text)
	e.web = true
}

// serveElsewhere is the other origin. It answers with something that looks like
// a success, so that a client that comes here gets no second thoughts.
func (s *Server) serveElsewhere(w http.ResponseWriter, r *http.Request) {
	e := s.exchange(r, EndpointElsewhere)
	e.json(http.StatusOK, []byte(`{"access_token":"t1.elsewhere","token_type":"Bearer","expires_in":43200,"id":"elsewhere","done":true}`))
	e.send(r.Context(), w)
}

func isForm(r *http.Request) bool {
	mediaType, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	return strings.EqualFold(strings.TrimSpace(mediaType), "application/x-www-form-urlencoded")
}

// cutScheme splits an Authorization header (RFC 9110 §11.4).
func cutScheme(header string) (scheme, credential string, ok bool) {
	scheme, credential, ok = strings.Cut(header, " ")
	credential = strings.TrimLeft(credential, " ")
	return scheme, credential, ok && scheme != "" && credential != "" && !strings.Contains(credential, " ")
}
