package iamtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
)

// A Server is a running IAM on a loopback address. All its methods are safe for
// concurrent use.
type Server struct {
	// URL of the server, for instance http://127.0.0.1:40123, without a slash at
	// the end.
	URL string

	// ClientID is the first client's.
	ClientID string

	clock     *Clock
	elsewhere string // URL of the other origin
	opts      atomic.Pointer[Options]
	listeners []*listener
	proofs    proofs

	mu      sync.Mutex // guards what follows; proofs.mu is taken before it
	raw     Options    // as they were given
	state   *state
	nonces  nonces
	faults  []*injected
	records records
	secrets map[string]struct{}
	ops     operations
	api     []APIEndpoint
}

// New starts a server with the options given. It fails if the options make no
// sense, or if no port is free on 127.0.0.1. Close ends it.
func New(opts Options) (*Server, error) {
	o, err := opts.resolve()
	if err != nil {
		return nil, err
	}
	s := &Server{
		ClientID: o.ClientID,
		clock:    &Clock{base: o.Now},
		raw:      opts,
		state:    newState(),
		secrets:  map[string]struct{}{},
		ops:      newOperations(),
	}
	s.opts.Store(o)
	for _, c := range o.Clients {
		s.secret(c.Secret.Reveal())
	}
	main, err := listen(http.HandlerFunc(s.serve), o.Logger)
	if err != nil {
		return nil, err
	}
	other, err := listen(http.HandlerFunc(s.serveElsewhere), o.Logger)
	if err != nil {
		main.close()
		return nil, err
	}
	s.URL, s.elsewhere, s.listeners = main.url(), other.url(), []*listener{main, other}
	s.api = []APIEndpoint{{"iam", main.addr()}, {"oauth", main.addr()}, {"operation", main.addr()}}
	main.start()
	other.start()
	return s, nil
}

// TB is the part of testing.TB that [Start] needs; *testing.T and *testing.B
// have it.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// Start is [New] for tests: it ends the test if the server cannot start, and the
// server when the test ends. It takes no Options, or one.
func Start(t TB, opts ...Options) *Server {
	t.Helper()
	var o Options
	switch len(opts) {
	case 0:
	case 1:
		o = opts[0]
	default:
		t.Fatalf("iamtest: Start takes one Options, not %d", len(opts))
		return nil
	}
	s, err := New(o)
	if err != nil {
		t.Fatalf("%v", err)
		return nil
	}
	t.Cleanup(s.Close)
	return s
}

// Close ends the server: requests that are going on lose their connection. When
// it returns, no goroutine of the server runs any more. It can be called more
// than once.
func (s *Server) Close() {
	for _, l := range s.listeners {
		l.close()
	}
}

// Configure changes the options while the server runs; requests that come after
// it see the change. fn gets the options as they were given, without defaults.
// It fails, and changes nothing, if the new options make no sense. The first
// client's ID and the clock cannot be changed.
func (s *Server) Configure(fn func(*Options)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	raw := s.raw
	fn(&raw)
	raw.Now = s.raw.Now
	o, err := raw.resolve()
	if err != nil {
		return err
	}
	if o.ClientID != s.ClientID {
		return errors.New("iamtest: Options.ClientID: cannot change while the server runs: use Clients")
	}
	for _, c := range o.Clients {
		s.secret(c.Secret.Reveal())
	}
	s.raw = raw
	s.opts.Store(o)
	return nil
}

func (s *Server) options() *Options { return s.opts.Load() }

// Clock is the server's clock.
func (s *Server) Clock() *Clock { return s.clock }

// Now is the time by the server's clock.
func (s *Server) Now() time.Time { return s.clock.Now() }

// Advance moves the server's clock forwards, see [Clock.Advance].
func (s *Server) Advance(d time.Duration) { s.clock.Advance(d) }

// Provider describes the server to package oauth.
func (s *Server) Provider() oauth.Provider {
	o := s.options()
	p := oauth.Provider{
		Name:       "iamtest",
		AuthURL:    s.URL + "/oauth/authorize",
		TokenURL:   s.URL + "/oauth/token",
		AuthMethod: o.Clients[0].AuthMethod,
	}
	if o.Flavor == FlavorYandexID {
		return p
	}
	p.Scopes = []string{"openid", offlineAccess}
	p.ThumbprintHash = o.ThumbprintHash
	p.FederationHintParam = federationHint
	p.SubjectHintParam = subjectHint
	p.OfflineScope = offlineAccess
	p.RefreshTokenSwitch = "set iamtest.Options.RefreshTokensOff to false"
	return p
}

// ClientSecret is the first client's; "" for a public client.
func (s *Server) ClientSecret() oauth.Secret { return s.options().ClientSecret }

// IAMEndpoint is the base URL of the RefreshToken API.
func (s *Server) IAMEndpoint() string { return s.URL }

// OperationEndpoint is the base URL of the Operation API.
func (s *Server) OperationEndpoint() string { return s.URL }

// A listener is one port and the HTTP server behind it.
type listener struct {
	net    net.Listener
	http   http.Server
	cancel context.CancelFunc
	served chan struct{}  // closed when Serve has returned
	conns  sync.WaitGroup // one for every connection that is open
	once   sync.Once
}

func listen(h http.Handler, logger *slog.Logger) (*listener, error) {
	n, err := new(net.ListenConfig).Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("iamtest: cannot listen: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &listener{net: n, cancel: cancel, served: make(chan struct{})}
	l.http = http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnState:         l.track,
	}
	if logger != nil {
		l.http.ErrorLog = slog.NewLogLogger(logger.Handler(), slog.LevelError)
	} else {
		l.http.ErrorLog = log.New(io.Discard, "", 0)
	}
	return l, nil
}

func (l *listener) track(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		l.conns.Add(1)
	case http.StateClosed, http.StateHijacked:
		l.conns.Done()
	}
}

func (l *listener) start() {
	go func() {
		defer close(l.served)
		_ = l.http.Serve(l.net) // ErrServerClosed
	}()
}

func (l *listener) addr() string { return l.net.Addr().String() }
func (l *listener) url() string  { return "http://" + l.addr() }

// close waits for Serve to return before it closes the connections a second
// time: one that was accepted in between is not known to the first Close.
func (l *listener) close() {
	l.once.Do(func() {
		l.cancel()
		_ = l.net.Close()
		_ = l.http.Close()
		<-l.served
		_ = l.http.Close()
		l.conns.Wait()
	})
}
