package main

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// healthz says that the process lives. It looks at nothing: to restart it would
// bring no token back.
func (s *service) healthz(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }

// readyz says whether requests can be served, and if not, why. To ask for the
// token also keeps it fresh in a service that has no requests: a probe that finds
// it stale begins a renewal. The probe waits for it for a moment; it goes on without
// the probe, and the next one meets its result.
func (s *service) readyz(w http.ResponseWriter, r *http.Request) {
	if s.stopping.Load() {
		http.Error(w, "stopping", http.StatusServiceUnavailable)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.cfg.limits.ready)
	defer cancel()
	tok, err := s.client.TokenSource().TokenContext(ctx)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable) // holds no secret
		return
	}
	if tok.Expiry.IsZero() {
		fmt.Fprintln(w, "ready")
		return
	}
	fmt.Fprintf(w, "ready, with a token for another %v\n", tok.Expiry.Sub(s.cfg.clock()).Round(time.Second))
}
