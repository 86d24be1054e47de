package oauth

import (
	"cmp"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
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

// A redirect is where the server sends the browser (RFC 8252 §7.3).
type redirect struct {
	host string // as the redirect URI has it: 127.0.0.1, [::1] or localhost
	port string // "": any
	path string
}

// parseRedirect reads a redirect URI of the loopback interface, as it is registered.
func parseRedirect(raw string) (redirect, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(raw, "#"):
		return redirect{}, errors.New("is not an http URL such as http://127.0.0.1/auth/callback, without query and fragment")
	case !slices.Contains([]string{"127.0.0.1", "::1", "localhost"}, u.Hostname()):
		return redirect{}, errors.New("has a host other than 127.0.0.1, [::1] and localhost")
	}
	r := redirect{host: strings.TrimSuffix(u.Host, ":"+u.Port()), port: u.Port(), path: u.EscapedPath()}
	if n, err := strconv.ParseUint(r.port, 10, 16); u.Port() != "" && (err != nil || n == 0 || strconv.FormatUint(n, 10) != r.port) || strings.HasSuffix(u.Host, ":") {
		return redirect{}, errors.New("has a port that does not exist")
	}
	if r.path != "" && !isPlainPath(r.path) {
		return redirect{}, errors.New("does not have a plain path such as /auth/callback")
	}
	return r, nil
}

func isPlainPath(path string) bool {
	return strings.HasPrefix(path, "/") && !strings.ContainsAny(path, "?#% ")
}

// listen opens the port, with all the addresses that the host has.
func (r redirect) listen(ctx context.Context) (listeners []net.Listener, port string, err error) {
	for range 3 { // another program may have the port that was free at the first address
		listeners, port, err = r.listenOnce(ctx)
		if err == nil || r.port != "" {
			break
		}
	}
	return listeners, port, err
}

// listenOnce listens on both addresses of localhost, which is a name and no address: a
// browser may try either, and neither should be left to another program.
func (r redirect) listenOnce(ctx context.Context) (listeners []net.Listener, port string, err error) {
	addresses := []string{strings.Trim(r.host, "[]")}
	if r.host == "localhost" {
		addresses = []string{"127.0.0.1", "::1"}
	}
	port = cmp.Or(r.port, "0")
	for i, address := range addresses {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(address, port))
		if err == nil {
			listeners = append(listeners, l)
			_, port, _ = net.SplitHostPort(l.Addr().String())
			continue
		}
		if probe, noAddress := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(address, "0")); noAddress == nil {
			probe.Close() // so only the port is taken
		} else if i > 0 {
			continue
		}
		for _, l := range listeners {
			l.Close()
		}
		return nil, "", err
	}
	return listeners, port, nil
}

// listenCallback opens a port on the loopback interface. By default it is that of an IP
// address literal, not of "localhost", which could be made to resolve elsewhere (RFC 8252
// §8.3).
func listenCallback(ctx context.Context, r redirect, from expectedIssuer) (*callback, error) {
	listeners, port, err := r.listen(ctx)
	if err != nil {
		return nil, fmt.Errorf("oauth: no port for the browser's response: %w", err)
	}
	cb := &callback{
		state: randomText(), from: from, host: r.host + ":" + port, path: cmp.Or(r.path, "/"),
		answers: make(chan callbackResponse, 1), failed: make(chan error, 1),
		outcome: make(chan struct{}), paged: make(chan struct{}), served: make(chan struct{}),
	}
	cb.redirectURI = (&url.URL{Scheme: "http", Host: cb.host, Path: r.path}).String()
	if port == "80" {
		cb.host = r.host // a browser leaves it out
	}
	cb.srv = &http.Server{
		Handler:           cb,
		ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:    64 << 10,
		// The handler of the response waits for the end of the login; ctx ends the wait.
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    discardLog(),
	}
	var serving sync.WaitGroup
	for _, l := range listeners {
		serving.Go(func() {
			if err := cb.srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				cb.fail(fmt.Errorf("oauth: waiting for the browser's response: %w", err))
			}
		})
	}
	go func() {
		defer close(cb.served)
		serving.Wait()
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
	if wrong := from.mismatch(q.Get("iss")); wrong != "" {
		return callbackResponse{err: fmt.Errorf("%w: the authorization response %s", ErrIssuerMismatch, wrong)}, nil
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

// mismatch says what is wrong with iss, by "simple string comparison"; "" if nothing is. If
// it "does not match the expected issuer identifier, clients MUST reject the authorization
// response and MUST NOT proceed with the authorization grant", and "for error responses,
// clients MUST NOT assume that the error originates from the intended authorization server"
// (RFC 9207 §2.4). So the login ends: the state shows that the response belongs to it.
func (from expectedIssuer) mismatch(iss string) string {
	switch {
	case from.issuer == "" || iss == from.issuer || iss == "" && !from.required:
		return ""
	case iss == "":
		return "has no iss, and " + from.issuer + " sends it with each"
	}
	return fmt.Sprintf("is from %q, not from %s", redact.Text(iss), from.issuer)
}
