package oauth

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/ycauth/ycauth-go/internal/redact"
)

// callback receives the one redirect that ends a login (RFC 8252 §7.3).
type callback struct {
	redirectURI string
	state       Secret
	from        expectedIssuer
	host        string
	path        string
	srv         *http.Server
	answers     chan callbackResponse // of capacity 1: there is one
	failed      chan error            // the login cannot go on; of capacity 1
	outcome     chan struct{}         // closed when err says how the login ended
	err         error
	answered    atomic.Bool   // a request has brought the response
	paged       chan struct{} // closed when the page of that request is out
	served      chan struct{} // closed when Serve has returned
}

// callbackResponse is what the server said: a code, or why not.
type callbackResponse struct {
	code Secret
	err  error
}

// expectedIssuer is what the parameter iss of an authorization response must be
// (RFC 9207 §2.4).
type expectedIssuer struct {
	issuer   string // "" if it is not known
	required bool   // the server always sends iss
}

// listenCallback opens a port on the loopback interface. It is an IP address
// literal, not "localhost", which could be made to resolve elsewhere (RFC 8252
// §8.3).
func listenCallback(ctx context.Context, p Provider) (*callback, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("oauth: no port for the browser's response: %w", err)
	}
	cb := &callback{
		state: randomText(), from: expectedIssuer{p.Issuer, p.RequireIss}, host: l.Addr().String(), path: p.CallbackPath,
		answers: make(chan callbackResponse, 1), failed: make(chan error, 1),
		outcome: make(chan struct{}), paged: make(chan struct{}), served: make(chan struct{}),
	}
	cb.redirectURI = (&url.URL{Scheme: "http", Host: cb.host, Path: p.CallbackPath}).String()
	cb.srv = &http.Server{
		Handler:           cb,
		ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:    64 << 10,
		// The handler of the response waits for the end of the login; ctx ends the wait.
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    discardLog(),
	}
	go func() {
		defer close(cb.served)
		if err := cb.srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			cb.fail(fmt.Errorf("oauth: waiting for the browser's response: %w", err))
		}
	}()
	return cb, nil
}

// fail ends the login, unless something else has failed already.
func (cb *callback) fail(err error) {
	select {
	case cb.failed <- err:
	default:
	}
}

// finish tells the browser how the login ended, and frees the port.
func (cb *callback) finish(err error) {
	cb.err = err
	close(cb.outcome)
	// Shutdown would wait for connections that browsers open in advance; what
	// matters is the page of the response.
	if cb.answered.Load() {
		<-cb.paged
	}
	cb.srv.Close()
	<-cb.served
}

// ServeHTTP accepts the one response to this login.
func (cb *callback) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Host != cb.host:
		// A foreign page whose name resolves to 127.0.0.1 (DNS rebinding).
		http.Error(w, "misdirected request", http.StatusMisdirectedRequest)
		return
	case r.URL.Path != cb.path:
		http.NotFound(w, r)
		return
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	a, err := parseCallback(r.URL.Query(), cb.state, cb.from)
	if err != nil {
		writePage(w, r, http.StatusBadRequest, pageForeign)
		return
	}
	if !cb.answered.CompareAndSwap(false, true) {
		writePage(w, r, http.StatusConflict, pageRepeated)
		return
	}
	defer close(cb.paged)
	cb.answers <- a
	select {
	case <-cb.outcome:
	case <-r.Context().Done():
		return
	}
	var persist *PersistError // the user is logged in all the same
	if cb.err != nil && !errors.As(cb.err, &persist) {
		writePage(w, r, http.StatusOK, pageFailed)
		return
	}
	writePage(w, r, http.StatusOK, pageDone)
}

// parseCallback reads the response of RFC 6749 §4.1.2 or the error of §4.1.2.1.
// An error means that it does not belong to this login.
func parseCallback(q url.Values, state Secret, from expectedIssuer) (callbackResponse, error) {
	for name, values := range q {
		if len(values) > 1 {
			// "Request and response parameters MUST NOT be included more than once" (§3.1)
			return callbackResponse{}, fmt.Errorf("the address has the parameter %s twice", redact.Text(name))
		}
	}
	if subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(state.Reveal())) != 1 {
		return callbackResponse{}, errors.New("that address does not belong to this login")
	}
	if err := from.check(q); err != nil {
		return callbackResponse{err: err}, nil
	}
	if code := q.Get("error"); code != "" {
		return callbackResponse{err: &AuthorizationError{
			Code: redact.Text(code), Description: redact.Text(q.Get("error_description"), state.Reveal()),
		}}, nil
	}
	code := q.Get("code")
	if !isVSChars(code) {
		return callbackResponse{}, errors.New("that address has no code in it")
	}
	return callbackResponse{code: Secret(code)}, nil
}

// check compares iss by "simple string comparison". If it "does not match the expected
// issuer identifier, clients MUST reject the authorization response and MUST NOT proceed
// with the authorization grant", and "for error responses, clients MUST NOT assume that the
// error originates from the intended authorization server" (RFC 9207 §2.4). So the login
// ends: the state shows that the response belongs to it.
func (from expectedIssuer) check(q url.Values) error {
	iss := q.Get("iss")
	switch {
	case from.issuer == "" || iss == from.issuer || iss == "" && !from.required:
		return nil
	case iss == "":
		return fmt.Errorf("%w: the authorization response has no iss, and %s sends it with each", ErrIssuerMismatch, from.issuer)
	}
	return fmt.Errorf("%w: the authorization response is from %q, not from %s", ErrIssuerMismatch, redact.Text(iss), from.issuer)
}
