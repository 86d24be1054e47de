package iamtest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/iamtest/internal/iamapi"
)

// A Server is a running IAM on a loopback address. All its methods are safe for
// concurrent use.
type Server struct {
	// URL of the server, for instance http://127.0.0.1:40123, without a slash at
	// the end; https with Options.TLS.
	URL string

	// ClientID is that of the first client.
	ClientID string

	clock     *Clock
	elsewhere string // URL of the other origin
	opts      atomic.Pointer[Options]
	proofs    proofs
	identity  *identity // nil without TLS
	client    *http.Client
	t         TB // nil but for Start
	listeners []*listener
	closed    atomic.Bool // nothing listens

	mu      sync.Mutex // guards what follows; proofs.mu is taken before it
	raw     Options    // as they were given
	state   *state
	nonces  nonces
	faults  []*injected
	records records
	secrets secrets
	ops     operations
	api     []iamapi.Endpoint
}

// New starts a server. It fails if the options are invalid, or if the port is not free
// on 127.0.0.1. Close stops it.
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
		secrets:  secrets{known: map[string]struct{}{}},
		ops:      newOperations(),
	}
	s.opts.Store(o)
	if o.TLS {
		if s.identity, err = newIdentity(); err != nil {
			return nil, err
		}
	}
	s.client = &http.Client{Transport: s.newTransport()}
	if s.listeners, err = s.open(fmt.Sprintf("127.0.0.1:%d", o.Port), "127.0.0.1:0"); err != nil {
		return nil, err
	}
	main := s.listeners[0]
	s.URL, s.elsewhere = main.url(), s.listeners[1].url()
	s.api = []iamapi.Endpoint{{ID: "iam", Address: main.addr()}, {ID: "oauth", Address: main.addr()}, {ID: "operation", Address: main.addr()}}
	for _, l := range s.listeners {
		l.start()
	}
	return s, nil
}

// open opens the server's ports, for itself and for the other origin.
func (s *Server) open(addresses ...string) (opened []*listener, err error) {
	for i, h := range []http.HandlerFunc{s.serve, s.serveElsewhere} {
		l, err := s.listen(addresses[i], h)
		if err != nil {
			for _, l := range opened {
				l.abandon()
			}
			return nil, err
		}
		opened = append(opened, l)
	}
	return opened, nil
}

// TB is the part of testing.TB that [Start] needs; *testing.T and *testing.B
// have it.
type TB interface {
	Helper()
	Cleanup(func())
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Start is [New] for tests. It fails the test if the server cannot start, and closes
// the server when the test ends. An injected fault that has not happened by then fails
// the test. It takes at most one Options.
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
	s.t = t
	t.Cleanup(func() {
		t.Helper()
		if err := s.checkFaults(); err != nil {
			t.Errorf("%v", err)
		}
		s.Close()
	})
	return s
}

// Close stops the server and closes its connections. When it returns, no goroutine of
// the server is running. It can be called more than once.
func (s *Server) Close() {
	if !s.closed.Swap(true) {
		if err, l := s.checkFaults(), s.options().Logger; err != nil && l != nil {
			l.Warn("iamtest: faults that never happened", "error", err)
		}
	}
	for _, l := range s.listeners {
		l.close()
	}
	s.client.CloseIdleConnections()
}

// Quiet waits until no client has a connection to the server. By then everything
// that clients sent has been handled, also what a process sent just before it was
// killed. Clients that live have to close their idle connections first, or Quiet
// waits for them. It fails with ctx's error if that ends, and if the server is
// closed.
func (s *Server) Quiet(ctx context.Context) error {
	if err := s.listeners[0].quiet(ctx); err != nil {
		return fmt.Errorf("iamtest: waiting for clients to go: %w", err)
	}
	return nil
}

// Configure changes the options while the server runs; later requests see the change.
// fn gets the options as they were passed, without defaults. If the new options are
// invalid, Configure returns an error and changes nothing. The first client's ID, the
// clock, the port, TLS and HTTP2 cannot be changed.
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
	if was := s.options(); o.TLS != was.TLS || o.HTTP2 != was.HTTP2 || o.Port != was.Port {
		return errors.New("iamtest: Options.Port, TLS and HTTP2: cannot change while the server runs")
	}
	if o.ClientID != s.ClientID {
		return errors.New("iamtest: Options.ClientID: cannot change while the server runs: use Clients")
	}
	for _, c := range s.options().Clients { // Secrets knows those of the new ones
		s.secret(c.Secret.Reveal())
	}
	s.raw = raw
	s.opts.Store(o)
	return nil
}

func (s *Server) options() *Options { return s.opts.Load() }

// Clock returns the server's clock.
func (s *Server) Clock() *Clock { return s.clock }

// Now returns the time of the server's clock.
func (s *Server) Now() time.Time { return s.clock.Now() }

// Advance moves the server's clock forwards, see [Clock.Advance].
func (s *Server) Advance(d time.Duration) { s.clock.Advance(d) }

// Provider describes the server to package oauth, including its clock, which clients
// without a Config.Clock share.
func (s *Server) Provider() oauth.Provider {
	o := s.options()
	p := oauth.Provider{
		Name:       "iamtest",
		AuthURL:    s.URL + "/oauth/authorize",
		TokenURL:   s.URL + "/oauth/token",
		AuthMethod: o.Clients[0].AuthMethod,
		Clock:      s.Now,
	}
	if o.YandexID {
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

// ClientSecret returns that of the first client; "" for a public client.
func (s *Server) ClientSecret() oauth.Secret { return s.options().ClientSecret }

// IAMEndpoint returns the base URL of the RefreshToken API.
func (s *Server) IAMEndpoint() string { return s.URL }

// OperationEndpoint returns the base URL of the Operation API.
func (s *Server) OperationEndpoint() string { return s.URL }
