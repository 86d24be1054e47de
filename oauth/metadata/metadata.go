// Package metadata serves IAM tokens in the way of the metadata service of a virtual
// machine in Yandex Cloud, so that programs written for virtual machines have fresh tokens
// elsewhere:
//
//	server := metadata.New(client.TokenSource(), metadata.Options{})
//	defer server.Close()
//	l, err := net.Listen("tcp", "127.0.0.1:0")
//	…
//	go server.Serve(ctx, l)
//	cmd.Env = append(os.Environ(), "YC_METADATA_ADDR="+l.Addr().String())
//
// The official SDKs for Go and Python read YC_METADATA_ADDR, a host with an optional port.
// Programs with the fixed address need the server at 169.254.169.254:80.
//
//	GET /computeMetadata/v1/instance/service-accounts/default/token
//	Metadata-Flavor: Google
//
//	{"access_token":"t1.…","expires_in":41234,"token_type":"Bearer"}
//
// # Latency
//
// Clients wait for a second or less. A response comes from memory: the token is asked for
// in the background, every few seconds, so an *oauth.TokenSource renews it ahead of its
// expiry, and finds out about logins and logouts in other processes. While a renewal takes
// its time or fails, the token in memory is served until it expires. Only if there is none,
// a request waits for one, for less than a second, and then the response is 503 with a text
// for people.
//
// # Who gets a token
//
// A token is good for everything that its user may do, so the server must answer only
// that user's programs. These requests are rejected with 403:
//
//   - Those of other users of this machine. On Linux the kernel says who owns the other end
//     of a connection: the user of this process, root and Options.Users get a token. Other
//     systems do not say it to every program. There, set Options.Secret, and pass it to
//     clients in their environment, which other users cannot read. Root is not kept out on
//     any system.
//   - Those of web pages. The header Metadata-Flavor is required, which a page cannot send
//     to another origin, and requests with a header that browsers add (Origin, Referer,
//     Sec-*) are rejected. Host must be the address of the connection or one of
//     Options.Hosts: the name of a site that resolves to this machine (DNS rebinding) is
//     neither.
//   - Those that a proxy passed on (Forwarded, X-Forwarded-*, X-Real-IP, Via).
//
// Programs of the same user are not told apart.
package metadata

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"

	"github.com/ycauth/ycauth-go/internal/redact"
)

// TokenPath is where clients ask for a token.
const TokenPath = "/computeMetadata/v1/instance/service-accounts/default/token"

const (
	// askEvery is how often the source is asked while nobody waits. An *oauth.TokenSource
	// answers from memory nearly always.
	askEvery = 5 * time.Second

	// askPause is the least time between two calls of a source that has no token.
	askPause = time.Second

	// patience is how long a request waits if there is no token. The Python SDK
	// gives up after a second.
	patience = 800 * time.Millisecond

	// leastLife is how long a token must last to be served.
	leastLife = time.Second

	// unknownLife is what clients are told of a token whose expiry is not known: to ask again.
	unknownLife = time.Minute
)

// A TokenSource provides the tokens of a [Server]. *oauth.TokenSource implements it.
type TokenSource interface {
	// TokenContext returns a token that is valid now. It is called by one goroutine. ctx
	// ends with the server and has no deadline. An error says that there is no token that
	// may be used, and ends the one in memory: a source that cannot renew a token must
	// return it for as long as it is valid.
	TokenContext(ctx context.Context) (*oauth2.Token, error)
}

// Options configure a [Server].
type Options struct {
	// Hosts are accepted as the header Host, besides the address of the connection: names
	// or addresses, with a port unless the connection has port 80. Optional.
	Hosts []string

	// Secret is the first element of the path: clients get ADDRESS/SECRET for an address.
	// It must be one element, of characters that need no escape there, for instance
	// [crypto/rand.Text]. Optional.
	Secret string

	// Users are the IDs of users that get tokens, besides the one of this process and
	// root. Only Linux tells users apart. Optional.
	Users []int

	// AnyUser gives tokens to everybody who reaches the server. It is for an address that
	// other machines or containers reach, whose users are not known.
	AnyUser bool

	// ErrorText is the text for people of a response without a token. It must contain no
	// secrets. Optional: the default is the error's text without what looks like a token.
	ErrorText func(error) string

	// Clock returns the time. Optional.
	Clock func() time.Time

	// Logger is told of rejected requests, and of a source that has no token. Optional.
	Logger *slog.Logger
}

// A Server is an [http.Handler] that answers as the metadata service. It is safe for
// concurrent use. [Server.Serve] adds timeouts and limits. A Server must be closed.
type Server struct {
	src   TokenSource
	opts  Options
	hosts map[string]bool
	key   [sha256.Size]byte // of opts.Secret

	ctx    context.Context // ended by Close
	cancel context.CancelFunc
	done   chan struct{} // closed when ask has ended
	wanted chan struct{} // of capacity 1: somebody waits
	latest atomic.Pointer[result]
}

// result is what the source returned last. It does not change.
type result struct {
	token *oauth2.Token // nil if there is none
	err   error
	at    time.Time
	next  chan struct{} // closed when there is a newer result
}

// errStarting is the result of a source that has not returned yet.
var errStarting = errors.New("metadata: the token source has not returned a token yet")

// New returns a server of the tokens of src, which it asks for the first one at once. It
// panics if opts.Secret cannot be an element of a path.
func New(src TokenSource, opts Options) *Server {
	if opts.Secret != url.PathEscape(opts.Secret) || opts.Secret == "." || opts.Secret == ".." {
		panic("metadata: Options.Secret must be one element of a path, without characters that need an escape")
	}
	s := &Server{
		src: src, opts: opts, hosts: make(map[string]bool), key: sha256.Sum256([]byte(opts.Secret)),
		done: make(chan struct{}), wanted: make(chan struct{}, 1),
	}
	if s.opts.Clock == nil {
		s.opts.Clock = time.Now
	}
	if s.opts.Logger == nil {
		s.opts.Logger = slog.New(slog.DiscardHandler)
	}
	if s.opts.ErrorText == nil {
		s.opts.ErrorText = func(err error) string { return redact.Text(err.Error()) }
	}
	for _, host := range opts.Hosts {
		s.hosts[strings.ToLower(host)] = true
	}
	s.latest.Store(&result{err: errStarting, next: make(chan struct{})})
	s.ctx, s.cancel = context.WithCancel(context.Background())
	go s.ask()
	return s
}

// Close ends the work in the background and waits for it: for a call of the source, whose
// context has ended. Requests get the response 503 from then on. Close does not close the source.
func (s *Server) Close() error {
	s.cancel()
	<-s.done
	return nil
}

// ask keeps the token in memory fresh.
func (s *Server) ask() {
	defer close(s.done)
	for {
		token, err := s.src.TokenContext(s.ctx)
		if s.ctx.Err() != nil {
			s.keep(nil, errClosed)
			return
		}
		s.keep(token, err)
		timer := time.NewTimer(askPause) // at least
		select {
		case <-s.ctx.Done():
		case <-timer.C:
			timer.Reset(askEvery - askPause)
			select {
			case <-s.ctx.Done():
			case <-timer.C:
			case <-s.wanted:
			}
		}
		timer.Stop()
	}
}

var errClosed = errors.New("metadata: the server is closed")

// keep makes what the source returned the latest result.
func (s *Server) keep(token *oauth2.Token, err error) {
	switch {
	case err != nil:
		token = nil
	case token == nil || token.AccessToken == "":
		token, err = nil, errors.New("metadata: the token source returned no token")
	case token.Type() != "Bearer":
		token, err = nil, errors.New("metadata: a token of type "+redact.Text(token.Type())+" is of no use without its key")
	}
	before := s.latest.Load()
	if err != nil && (before.err == nil || before.err.Error() != err.Error()) && s.ctx.Err() == nil {
		s.opts.Logger.Warn("metadata: no token", slog.String("error", redact.Text(err.Error())))
	}
	s.latest.Store(&result{token: token, err: err, at: s.opts.Clock(), next: make(chan struct{})})
	close(before.next)
}

// usable reports whether there is a token that lasts.
func (r *result) usable(now time.Time) bool {
	return r.token != nil && (r.token.Expiry.IsZero() || r.token.Expiry.Sub(now) >= leastLife)
}

// token returns the token in memory, or waits for one.
func (s *Server) token(ctx context.Context) (*oauth2.Token, error) {
	r := s.latest.Load()
	if r.usable(s.opts.Clock()) {
		return r.token, nil
	}
	if age := s.opts.Clock().Sub(r.at); !errors.Is(r.err, errStarting) && r.err != nil && age >= 0 && age < askPause {
		return nil, r.err // the source was asked a moment ago
	}
	select {
	case s.wanted <- struct{}{}:
	default:
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-r.next:
	case <-timer.C:
	case <-ctx.Done():
	case <-s.done:
	}
	r = s.latest.Load()
	if r.usable(s.opts.Clock()) {
		return r.token, nil
	}
	return nil, cmp.Or(r.err, errExpired)
}

// errExpired is the result of a source that goes on trying to renew an expired token.
var errExpired = errors.New("metadata: the token has expired and its renewal is in progress")

// response is that of the metadata service.
type response struct {
	AccessToken string `json:"access_token"`
	ExpiresIn   int64  `json:"expires_in"`
	TokenType   string `json:"token_type"`
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if p := s.check(r); p != nil {
		s.opts.Logger.Warn("metadata: request rejected", slog.String("reason", p.reason), slog.String("peer", r.RemoteAddr))
		h.Set("Connection", "close") // its place is for somebody else
		http.Error(w, p.reason, http.StatusForbidden)
		return
	}
	h.Set("Metadata-Flavor", "Google")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		h.Set("Connection", "close")
		http.Error(w, "only GET is supported", http.StatusMethodNotAllowed)
		return
	}
	path, found := s.path(r.URL.EscapedPath())
	switch {
	case found && path == TokenPath:
		s.serveToken(w, r)
	case found && path == "/":
		// Libraries that look for a metadata service ask for this, and read the header.
		h.Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("computeMetadata/\n"))
	default:
		h.Set("Connection", "close") // the secret may be missing
		http.Error(w, "only "+TokenPath+" is served", http.StatusNotFound)
	}
}

func (s *Server) serveToken(w http.ResponseWriter, r *http.Request) {
	token, err := s.token(r.Context())
	if err != nil {
		w.Header().Set("Retry-After", strconv.Itoa(int(askPause/time.Second)))
		http.Error(w, "no IAM token: "+s.opts.ErrorText(err), http.StatusServiceUnavailable)
		return
	}
	life := unknownLife
	if !token.Expiry.IsZero() {
		life = token.Expiry.Sub(s.opts.Clock())
	}
	body, err := json.Marshal(response{token.AccessToken, int64(life / time.Second), "Bearer"})
	if err != nil { // a token is a string
		http.Error(w, "no IAM token", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body)
}

// path is the path without the secret.
func (s *Server) path(path string) (rest string, found bool) {
	if s.opts.Secret == "" {
		return path, true
	}
	given, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	key := sha256.Sum256([]byte(given))
	return "/" + rest, subtle.ConstantTimeCompare(key[:], s.key[:]) == 1
}

const (
	headerTimeout   = 5 * time.Second
	responseTimeout = 5 * time.Second
	idleTimeout     = 2 * time.Minute
	maxHeader       = 8 << 10
	maxConnections  = 2048
	maxStrangers    = 64
	closeTimeout    = time.Second
)

// Serve answers the connections of l until ctx ends, and closes l. It bounds the time that
// a request takes, the size of its header, and the number of connections. Where the system
// tells who owns a connection, those of other users have few places of their own. If all
// places are taken, an idle connection is closed. The error is nil if ctx ended. Serve may be
// called for several listeners.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	return s.serve(ctx, newLimited(l, maxConnections, maxStrangers, s.stranger))
}

func (s *Server) serve(ctx context.Context, l *limited) error {
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       headerTimeout,
		WriteTimeout:      headerTimeout + responseTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		// What a client sends could be a secret.
		ErrorLog: log.New(discard{}, "", 0),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, &c.(*limitedConn).peer)
		},
		ConnState:                    l.connState,
		DisableGeneralOptionsHandler: true,
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		if srv.Shutdown(ctx) != nil {
			_ = srv.Close() // what is open is dropped
		}
	})
	err := srv.Serve(l)
	if stop() {
		_ = srv.Close() // the listener failed
		return err
	}
	<-ended
	return nil
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
