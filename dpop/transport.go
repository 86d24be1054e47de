package dpop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"

	"github.com/ycauth/ycauth-go/internal/clock"
	"github.com/ycauth/ycauth-go/internal/wire"
)

// A Transport is an [http.RoundTripper] that authorizes requests to protected
// resources with tokens from Source.
//
// A token of type DPoP is sent as "Authorization: DPoP", with a proof that carries
// the token's hash (RFC 9449 §7.1). A token of type Bearer is sent as
// "Authorization: Bearer" and nothing else. The access tokens of Yandex Cloud are
// of that type; only its refresh tokens are bound to a key.
//
// # Repeated requests
//
// A request that was rejected with 401 is sent again if that may help:
//
//   - with the nonce of the response, if the server demands one
//     (use_dpop_nonce, §9) and it differs from the one that was sent, three times at
//     most;
//   - with a corrected time, if the server rejected the proof (invalid_dpop_proof)
//     and its clock differs from the one used for the proof, once, or twice
//     if the clock of this computer was set meanwhile; once more if the proof was
//     5 seconds old or older when it was sent, because the signer was slow, or the
//     connection, or the request waited for a stream of HTTP/2;
//   - with another token, once, if the server sends no error code or rejects the token
//     (invalid_token, RFC 6750 §3.1) and Source returns another one after Invalidate.
//     Any other code, for instance insufficient_user_authentication (RFC 9470), means
//     that the token is valid, and is left to the caller.
//
// Otherwise the 401 is returned to the caller. A request with a body is sent again
// only if it has GetBody, which [http.NewRequest] sets for the usual readers.
//
// [http.Transport] itself retries an idempotent request if a kept-alive
// connection turns out to be dead. If Base is an [*http.Transport], each of these
// attempts gets its own proof. Through another Base the server may see one
// proof twice; if it rejects that, the request is sent once more.
//
// A request can wait for its connection until the proof is too old. If Base is an
// [*http.Transport], a request that waited for 5 seconds or longer gets a new proof, unless
// the key is that of a [PersonSigner] that needs a person. On a connection of HTTP/2
// whose streams are all in use, the request waits once more, and its proof cannot be changed
// any more. If the server rejects it, the request is sent again as above; one whose body
// cannot be repeated is not, and the 401 is the caller's.
//
// # Clocks
//
// Proofs carry the server's time, estimated from the Date header of its
// responses ([Clocks]), so a wrong clock on this computer does not matter.
//
// # Origins
//
// Credentials are sent only over https or to loopback. After a redirect to another
// origin they are no longer sent, not even back to the first one; [http.Client]
// does the same with headers that its caller set. A redirect within the origin gets
// a proof for its own URL.
//
// The origin is that of the target URI (RFC 9110 §7.1): the Host of a request, if
// set, replaces the host of its URL, for redirects, nonces and clocks
// as in the proof. A redirect to the same Host at another address leaves the origin,
// too.
//
// A Transport is safe for concurrent use, and must not be copied after first use.
// The Request of the responses it returns is the caller's, without credentials.
type Transport struct {
	// Source returns the token for each request. Required. If it has a method
	// TokenContext(context.Context) (*oauth2.Token, error), that is called with
	// the request's context. If it has a method Invalidate(*oauth2.Token), that
	// is called with a token that a server rejected. Package oauth's TokenSource
	// has both.
	Source oauth2.TokenSource

	// Prover signs the proofs. Required for tokens of type DPoP.
	Prover *Prover

	// Base sends the requests. Optional. Default: [http.DefaultTransport].
	Base http.RoundTripper

	// Nonces can be shared with other transports or clients that use the same
	// servers. Optional. Default: the transport has its own.
	Nonces *Nonces

	// Clocks can be shared in the same way. If they are shared with a client that renews
	// tokens, a wrong local clock is corrected from the first request on.
	// Optional. Default: the transport has its own.
	Clocks *Clocks

	// Clock is the wall clock of this computer. Optional. Default: [time.Now].
	Clock func() time.Time

	ownNonces Nonces
	ownClocks Clocks
	drains    atomic.Int32 // in progress
}

type contextSource interface {
	TokenContext(ctx context.Context) (*oauth2.Token, error)
}

type invalidator interface{ Invalidate(rejected *oauth2.Token) }

// maxNonces bounds how many new nonces in a row a request is repeated for. One is
// usual. A second one is right where the nonce changed in between, or where
// several servers answer for one origin.
const maxNonces = 3

// maxWait is how long a proof may wait to be sent. Servers accept one for some seconds at
// the least, and usually for a minute.
const maxWait = 5 * time.Second

// RoundTrip implements [http.RoundTripper]. Its errors are those of Source, of
// [Prover.Proof] (a [*SigningError] if the signer fails, also after a challenge of the
// server) and of Base, and errors for a misconfigured Transport or an invalid
// request. A 401 is a response, not an error.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	closeBody := true
	defer func() {
		if closeBody && req.Body != nil {
			req.Body.Close() // RoundTrip must close it, also on errors
		}
	}()
	if req.URL == nil {
		return nil, errors.New("dpop: the request has no URL")
	}
	if crossOrigin(req) {
		closeBody = false
		return t.send(req, req)
	}
	// String escapes the host, of which the zone of an IPv6 address needs it.
	if _, err := wire.CheckURL((&url.URL{Scheme: req.URL.Scheme, Host: req.URL.Host}).String()); err != nil {
		return nil, fmt.Errorf("dpop: credentials are not sent to this URL: its address %w", err)
	}
	if t.Source == nil {
		return nil, errors.New("dpop: Transport.Source is nil")
	}
	tok, err := t.token(req.Context())
	if err != nil {
		return nil, err
	}
	closeBody = false // the first attempt closes it
	body := req.Body
	var rejected []clock.Instant // when the proofs were made that the server rejected
	told := ""                   // the nonce that the responses to this request gave last
	for nonces, tokenTried, lateTried := 0, false, false; ; {
		a := &attempt{t: t, req: req, tok: tok, told: told}
		resp, err := a.do(body)
		if err != nil {
			a.cancel()
			return nil, err
		}
		if resp.StatusCode != http.StatusUnauthorized {
			return a.finish(resp), nil
		}
		if hasNonce(resp.Header) {
			told = resp.Header.Get(NonceHeader)
		}
		again := false
		switch challengeError(resp.Header) {
		case codeUseNonce:
			again = nonces < maxNonces && a.gaveNewNonce(resp.Header)
			nonces++
		case codeInvalidProof:
			if again = a.late() && !lateTried; again {
				lateTried = true // the clocks may be right
				break
			}
			again = a.betterProof(rejected)
			rejected = append(rejected, a.made)
		case codeInvalidToken, "":
			if !tokenTried {
				tok, again = t.replacement(req, tok)
			}
			tokenTried = true
		}
		if !again {
			return a.finish(resp), nil
		}
		var ok bool
		if body, ok = rewind(req); !ok {
			return a.finish(resp), nil
		}
		t.drain(resp, a.cancel)
	}
}

// CloseIdleConnections closes the idle connections of Base, if Base has such a method, for
// [http.Client.CloseIdleConnections].
func (t *Transport) CloseIdleConnections() {
	(&http.Client{Transport: t.Base}).CloseIdleConnections()
}

func (t *Transport) token(ctx context.Context) (*oauth2.Token, error) {
	tok, err := t.sourceToken(ctx)
	if err == nil && (tok == nil || tok.AccessToken == "") {
		return nil, errors.New("dpop: Transport.Source returned no access token")
	}
	return tok, err
}

func (t *Transport) sourceToken(ctx context.Context) (*oauth2.Token, error) {
	if s, ok := t.Source.(contextSource); ok {
		return s.TokenContext(ctx)
	}
	return t.Source.Token()
}

// replacement tells Source that tok was rejected and asks for another one.
func (t *Transport) replacement(req *http.Request, tok *oauth2.Token) (*oauth2.Token, bool) {
	s, ok := t.Source.(invalidator)
	if !ok {
		return tok, false
	}
	s.Invalidate(tok)
	if !rewindable(req) {
		return tok, false // the next request asks for the token
	}
	next, err := t.token(req.Context())
	if err != nil || next.AccessToken == tok.AccessToken {
		return tok, false // the 401 tells the caller more than err would
	}
	return next, true
}

// An attempt is one call of Base, with a proof of its own if the token needs one.
type attempt struct {
	t   *Transport
	req *http.Request // the caller's
	out *http.Request // with credentials
	tok *oauth2.Token

	// cancel ends the context of out, which is not the caller's: an attempt whose response
	// is of no use is given up before the caller's context ends.
	cancel context.CancelFunc

	// told is the nonce to use; "" if the origin's newest one will do. The two differ
	// where several services behind one origin have nonces of their own.
	told string

	nonce string        // in the proof
	iat   time.Time     // in the proof
	made  clock.Instant // when the proof was

	mu    sync.Mutex
	conns int           // that the request was sent on
	sent  clock.Instant // on the last of them
	proof string        // the one in the request
	err   error         // of a proof that was made for a connection
}

func (a *attempt) do(body io.ReadCloser) (*http.Response, error) {
	t := a.t
	ctx, cancel := context.WithCancel(a.req.Context())
	a.cancel = cancel
	a.out = a.req.Clone(ctx) // a RoundTripper must not change the request
	a.out.Body = body
	a.out.Trailer = a.req.Trailer // the caller may set the values while the body is read
	if a.out.Header == nil {
		a.out.Header = make(http.Header)
	}
	// "There is not more than one DPoP HTTP request header field" (RFC 9449 §4.3), also
	// if the caller's map has one by a key that is not in canonical form.
	for name := range a.out.Header {
		if strings.EqualFold(name, "DPoP") || strings.EqualFold(name, "Authorization") {
			delete(a.out.Header, name)
		}
	}
	if !isDPoP(a.tok) {
		a.out.Header.Set("Authorization", a.tok.Type()+" "+a.tok.AccessToken)
		return t.send(a.out, a.req)
	}
	if err := a.prove(); err != nil {
		if body != nil {
			body.Close()
		}
		return nil, err
	}
	a.out.Header.Set("Authorization", "DPoP "+a.tok.AccessToken)
	a.sent = t.clock().Now()
	a.out = a.out.WithContext(httptrace.WithClientTrace(a.out.Context(), &httptrace.ClientTrace{
		GotConn: a.gotConn, WroteHeaderField: a.wroteField,
	}))
	resp, err := t.send(a.out, a.req)
	received := t.clock().Now()

	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		if err == nil {
			resp.Body.Close()
		}
		return nil, a.err
	}
	if err != nil {
		return nil, err
	}
	t.nonces().Learn(target(a.req), resp.Header)
	t.clocks().Learn(target(a.req), resp.Header, received.Wall(), received.MonotonicSince(a.sent))
	return resp, nil
}

// send makes the request out. The response is that to the caller's request, because
// crossOrigin relies on the chain of these.
func (t *Transport) send(out, req *http.Request) (*http.Response, error) {
	resp, err := t.base().RoundTrip(out)
	if err != nil {
		return nil, err
	}
	// Of a RoundTripper that keeps the contract by half, as fakes do, the same is said
	// and borne as by http.Client.
	if resp == nil {
		return nil, fmt.Errorf("dpop: Transport.Base (%T) returned a nil response and a nil error", t.base())
	}
	if resp.Body == nil {
		resp.Body = http.NoBody
	}
	resp.Request = req
	return resp, nil
}

// prove gives the request that is sent a new proof.
func (a *attempt) prove() error {
	t := a.t
	if t.Prover == nil {
		return errors.New("dpop: the access token is bound to a key, and Transport.Prover is nil")
	}
	if a.nonce = a.told; a.nonce == "" {
		a.nonce = t.nonces().Nonce(target(a.req))
	}
	a.made = t.clock().Now()
	now := a.made.Wall()
	a.iat = now.Add(t.clocks().Correction(target(a.req), now))
	claims := Claims{
		Method:      a.req.Method,
		URL:         target(a.req).String(),
		Nonce:       a.nonce,
		AccessToken: a.tok.AccessToken,
		IssuedAt:    a.iat,
	}
	if claims.Method == "" {
		claims.Method = http.MethodGet
	}
	proof, err := t.Prover.Proof(a.req.Context(), claims)
	if err != nil {
		return err
	}
	a.proof = proof
	a.out.Header.Set("DPoP", proof)
	return nil
}

// gotConn is called before the request is written to a connection. A second call
// means that it was written to another one before, whose server may have seen the
// proof.
func (a *attempt) gotConn(httptrace.GotConnInfo) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.conns++
	asked := a.sent
	a.sent = a.t.clock().Now()
	if a.req.Context().Err() != nil {
		return
	}
	if a.conns == 1 && (a.sent.Since(asked) < maxWait || a.t.Prover.NeedsPerson()) {
		return // nobody is asked twice before the server has said that it is necessary
	}
	// Only of net/http's own Transport is it known that it calls this in the
	// goroutine of RoundTrip, sends the header as it is after the call, and is done
	// with the earlier attempt ("Wait for the writeLoop goroutine to terminate to
	// avoid data races on callers who mutate the request on failure").
	if _, ok := a.t.base().(*http.Transport); !ok {
		return
	}
	if a.err == nil {
		a.err = a.prove()
	}
	if a.err != nil { // the hook cannot stop the request, but it can make it worthless
		a.out.Header.Del("Authorization")
		a.out.Header.Del("DPoP")
	}
}

// wroteField is called for each field of the header, right before they are sent. HTTP/2
// can have waited for a stream after gotConn. WroteHeaders would not do, because net/http
// can call it after RoundTrip has returned.
func (a *attempt) wroteField(name string, values []string) {
	if !strings.EqualFold(name, "DPoP") {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if slices.Contains(values, a.proof) { // and not that of a request that Base makes for itself
		a.sent = a.t.clock().Now()
	}
}

// late reports whether the proof was old when it was sent.
func (a *attempt) late() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return isDPoP(a.tok) && a.sent.Since(a.made) >= maxWait
}

// gaveNewNonce reports whether there is a nonce that the proof did not have.
func (a *attempt) gaveNewNonce(h http.Header) bool {
	return isDPoP(a.tok) && hasNonce(h) && h.Get(NonceHeader) != a.nonce
}

// betterProof reports whether another proof can fare better than this one, and those
// that were rejected before.
func (a *attempt) betterProof(rejected []clock.Instant) bool {
	if !isDPoP(a.tok) || len(rejected) > 1 {
		return false
	}
	now := a.t.clock().Now()
	// A second correction helps if our clock was set after the first look at a Date.
	if len(rejected) == 1 && now.Set(rejected[0]).Abs() < worthRetrying {
		return false
	}
	better := a.t.clocks().Rejected(target(a.req), a.iat, now.MonotonicSince(a.made), now.Wall())
	a.mu.Lock()
	defer a.mu.Unlock()
	return better || a.conns > 1 // the server may have seen it twice
}

// target is the URL of the request as the server puts it together: a Host that the
// caller chose stands in the place of the host dialled (RFC 9110 §7.1, §7.2). Its
// origin is the server's: virtual hosts at one address have nothing in common.
func target(req *http.Request) *url.URL {
	if req.Host == "" || req.Host == req.URL.Host {
		return req.URL
	}
	u := *req.URL
	u.Host = req.Host
	return &u
}

func (t *Transport) base() http.RoundTripper {
	if t.Base != nil {
		return t.Base
	}
	return http.DefaultTransport
}

func (t *Transport) nonces() *Nonces {
	if t.Nonces != nil {
		return t.Nonces
	}
	return &t.ownNonces
}

func (t *Transport) clocks() *Clocks {
	if t.Clocks != nil {
		return t.Clocks
	}
	return &t.ownClocks
}

func (t *Transport) clock() clock.Clock { return clock.Clock{Wall: t.Clock} }

func isDPoP(tok *oauth2.Token) bool { return strings.EqualFold(tok.TokenType, "DPoP") }

// rewindable reports whether there is a chance that rewind succeeds.
func rewindable(req *http.Request) bool {
	return req.Body == nil || req.Body == http.NoBody || req.GetBody != nil
}

// rewind gives the body for another attempt.
func rewind(req *http.Request) (io.ReadCloser, bool) {
	if req.Body == nil || req.Body == http.NoBody {
		return req.Body, true
	}
	if req.GetBody == nil {
		return nil, false
	}
	body, err := req.GetBody()
	return body, err == nil
}

const (
	maxDrain     = 64 << 10
	maxDrainTime = 50 * time.Millisecond // about what a new connection takes
	maxDrains    = 16                    // at a time
)

// drain lets the connection be used again, if not much is left to read and it
// comes at once. Otherwise it cancels the attempt, which frees the connection. A body need
// not bear a Close during a Read, so the goroutine that reads is the one that closes. With
// a Base that ignores the context of a request, that goroutine can wait for longer; so
// their number is bounded.
func (t *Transport) drain(resp *http.Response, cancel context.CancelFunc) {
	if resp.ContentLength > maxDrain || resp.Body == http.NoBody {
		cancel()
		resp.Body.Close()
		return
	}
	if t.drains.Add(1) > maxDrains {
		t.drains.Add(-1)
		cancel()
		resp.Body.Close()
		return
	}
	timer := time.NewTimer(maxDrainTime)
	defer timer.Stop()
	done := make(chan struct{})
	end := time.Now().Add(maxDrainTime)
	go func() {
		defer close(done)
		defer t.drains.Add(-1)
		defer resp.Body.Close()
		defer cancel() // first: over HTTP/2, Close waits for the stream to end
		buf := make([]byte, 4<<10)
		for read := 0; read <= maxDrain && time.Now().Before(end); {
			n, err := resp.Body.Read(buf)
			if err != nil {
				return
			}
			read += n
		}
	}()
	select {
	case <-done:
	case <-timer.C:
		cancel()
	}
}

// finish gives the caller the response of the last attempt, whose context must not end
// before the body was read or closed.
func (a *attempt) finish(resp *http.Response) *http.Response {
	if resp.Body == http.NoBody && (a.out.Body == nil || a.out.Body == http.NoBody) {
		a.cancel()
		return resp
	}
	body := &cancelBody{resp.Body, a.cancel}
	if w, ok := resp.Body.(io.Writer); ok { // of 101 Switching Protocols
		resp.Body = &duplexBody{body, w}
	} else {
		resp.Body = &readBody{body}
	}
	return resp
}

// A cancelBody ends the context of its request when it is closed.
type cancelBody struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b *cancelBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}

// A readBody ends it at the end of the body too, for callers that do not close it then.
type readBody struct{ *cancelBody }

func (b *readBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		b.cancel()
	}
	return n, err
}

// A duplexBody can be written to, also after the end of what the server sends.
type duplexBody struct {
	*cancelBody
	io.Writer
}

// CloseWrite is what [net/http/httputil.ReverseProxy] looks for.
func (b *duplexBody) CloseWrite() error {
	if w, ok := b.Writer.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return fmt.Errorf("dpop: CloseWrite: %w", http.ErrNotSupported)
}

// crossOrigin reports whether req follows redirects of which one left the origin
// of the request that the caller made, even if a later one came back: then it is
// another origin that chose this URL. Another address of the same virtual host counts
// as having left, and so does a chain that cannot be followed.
func crossOrigin(req *http.Request) bool {
	for req.Response != nil {
		from := req.Response.Request
		if from == nil || from.URL == nil || origin(from.URL) != origin(req.URL) || origin(target(from)) != origin(target(req)) {
			return true
		}
		req = from
	}
	return false
}
