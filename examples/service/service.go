package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
)

// A service calls an API in its user's name.
type service struct {
	cfg      config
	client   *oauth.Client
	store    *sessionStore
	api      *http.Client
	metrics  *metrics
	stopping atomic.Bool
}

func newService(cfg config) (*service, error) {
	if cfg.clock == nil {
		cfg.clock = time.Now
	}
	key, err := cfg.key()
	if err != nil {
		return nil, err
	}
	prover, err := dpop.New(key)
	if err != nil {
		return nil, err
	}
	store, err := cfg.openStore()
	if err != nil {
		return nil, err
	}
	s := &service{cfg: cfg, store: store, metrics: newMetrics(cfg.clock)}
	s.client, err = oauth.New(oauth.Config{
		Provider:   cfg.provider,
		ClientID:   cfg.clientID,
		DPoP:       prover,
		Store:      store.Store,
		HTTPClient: cfg.iamHTTP,
		UserAgent:  "ycauth-service/1.0",
		Observer:   s.observe,
		Clock:      cfg.clock,
	})
	if err != nil {
		store.close()
		return nil, err
	}
	s.api = &http.Client{
		Transport: &dpop.Transport{Source: s.client.TokenSource(), Prover: prover, Clock: cfg.clock},
		Timeout:   cfg.limits.api,
	}
	return s, nil
}

// observe keeps count, and logs what somebody may want to look into.
func (s *service) observe(e oauth.Event) {
	s.metrics.observe(e)
	switch {
	case e.Err != nil:
		s.cfg.log.Warn("token: "+string(e.Kind), "kind", e.ErrorKind(), "error", e.Err)
	case e.Kind == oauth.EventRenewed:
		s.cfg.log.Info("token: renewed", "cause", e.Cause, "rotated", e.Rotated, "expiry", e.Expiry)
	}
}

// login begins the session. A person does this once.
func (s *service) login(ctx context.Context, in io.Reader, out io.Writer) error {
	session, err := s.begin(ctx, oauth.LoginOptions{Headless: true, In: in, Out: out})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\nLogged in. The session is in %s.\n", s.store.place)
	if session.Warning != "" {
		fmt.Fprintf(out, "It ends with its first token, at %s (%s).\n", session.Expiry.Local().Format(time.DateTime), session.Warning)
	}
	return nil
}

// begin logs in, and ends the service: another one uses the session.
func (s *service) begin(ctx context.Context, options oauth.LoginOptions) (oauth.Session, error) {
	defer s.store.close()
	if err := s.store.prepare(ctx); err != nil {
		return oauth.Session{}, err
	}
	session, err := s.client.Login(ctx, options)
	if err != nil {
		return session, err
	}
	return session, s.client.TokenSource().Close()
}

func (s *service) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.relay)
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("GET /metrics", s.metrics)
	return mux
}

// maxAnswer bounds what is relayed of an answer, in bytes.
const maxAnswer = 1 << 20

// relay asks the API and answers what it answered. A stale token is renewed
// behind the request; only one that has expired keeps it waiting.
func (s *service) relay(w http.ResponseWriter, r *http.Request) {
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, s.cfg.api, nil)
	if err != nil {
		http.Error(w, "the API's URL is wrong", http.StatusInternalServerError)
		return
	}
	resp, err := s.api.Do(req)
	switch {
	case errors.Is(err, oauth.ErrLoginRequired):
		http.Error(w, "the service has to be logged in again", http.StatusServiceUnavailable)
		return
	case err != nil:
		s.cfg.log.Warn("the API was not reached", "error", err)
		http.Error(w, "the API was not reached", http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, io.LimitReader(resp.Body, maxAnswer))
}

// serve runs the service until ctx is canceled, and then stops it in the order in
// which nothing is lost: the probes are told, then new connections, requests, and
// the renewal.
func (s *service) serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:      s.routes(),
		ReadTimeout:  s.cfg.limits.read,
		WriteTimeout: s.cfg.limits.write,
		IdleTimeout:  2 * time.Minute,
		ErrorLog:     slog.NewLogLogger(s.cfg.log.Handler(), slog.LevelWarn),
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	s.cfg.log.Info("serving", "address", l.Addr().String())

	var err error
	settled := make(chan error, 1)
	select {
	case err = <-failed: // never ErrServerClosed: nobody has closed it
		settled <- s.settle()
	case <-ctx.Done():
		s.stopping.Store(true)
		s.cfg.log.Info("stopping")
		// From now on no renewal is begun: requests get the token in hand.
		go func() { settled <- s.settle() }()
		s.awaitProbes(failed)
		err = s.drain(ctx, srv)
		if ended := <-failed; !errors.Is(ended, http.ErrServerClosed) {
			err = errors.Join(err, ended)
		}
	}
	err = errors.Join(err, <-settled)
	s.api.CloseIdleConnections()
	s.store.close()
	s.cfg.log.Info("stopped")
	return err
}

// awaitProbes serves on for a while, so that whoever sends requests here learns from
// /readyz to send them elsewhere: a closed port tells no reason.
func (s *service) awaitProbes(failed chan error) {
	timer := time.NewTimer(s.cfg.announce)
	defer timer.Stop()
	select {
	case <-timer.C:
	case err := <-failed:
		failed <- err // for the one who looks next
	}
}

// drain lets the requests that run finish.
func (s *service) drain(ctx context.Context, srv *http.Server) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.drain)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		srv.Close()
		return fmt.Errorf("requests were cut off: %w", err)
	}
	return nil
}

// settle lets a renewal finish and be saved.
func (s *service) settle() error {
	if err := s.client.TokenSource().Close(); err != nil {
		return fmt.Errorf("the session may be lost: %w", err)
	}
	return nil
}
