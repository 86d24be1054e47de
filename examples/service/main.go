// Service is an HTTP service that calls an API with a token that renews by
// itself, tells how the renewals go, and stops without losing one.
//
//	go run ./examples/service -demo                        everything in one process, without an account
//	go run ./examples/service -login -api URL              once, by a person
//	go run ./examples/service -api URL -listen :8080       from then on
//
// With -store, or SERVICE_STORE, the session is in PostgreSQL (package pgstore), where
// replicas on any number of computers share it:
//
//	export SERVICE_STORE=postgres://app@db/app             the password from PGPASSWORD or ~/.pgpass
//	service -login -key dpop.pem                           once; creates the table, dpop.pem and seal.key
//	service -key dpop.pem -api URL                         each replica, with copies of both files
//
// It answers
//
//	GET /          with what the API answered to a GET of -api
//	GET /healthz   200 while the process lives
//	GET /readyz    200 while there is a valid token; 503 says why not
//	GET /metrics   the renewals, for Prometheus
//
// SIGTERM or an interrupt ends it: no renewal is begun any more and /readyz answers 503
// for a while, then there are no new connections, the requests that run are finished, and so is a renewal that
// runs, because its refresh token may be the only one that is good from then on.
// Further signals change nothing: every step is bounded.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// Not stopped before the end: a second signal must not cut off a renewal.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "service:", err)
		os.Exit(1)
	}
}

// run is the program. Results go to stdout, what it has to say to stderr.
func run(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) error {
	cfg, err := parseConfig(args, getenv, stderr)
	if err != nil {
		return err
	}
	cfg.log = slog.New(slog.NewTextHandler(stderr, nil))
	if cfg.demo {
		end, err := cfg.embed(ctx, stdout)
		if err != nil {
			return err
		}
		defer end()
	}
	s, err := newService(cfg)
	if err != nil {
		return err
	}
	if cfg.login {
		return s.login(ctx, stdin, stderr)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.listen)
	if err != nil {
		s.store.close()
		return fmt.Errorf("-listen: %w", err)
	}
	if cfg.demo {
		explain(stdout, l.Addr().String())
	}
	return s.serve(ctx, l)
}
