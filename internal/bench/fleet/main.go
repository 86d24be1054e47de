//go:build linux

// Fleet runs many processes that share the sessions of many users in PostgreSQL (oauth.Pool
// over pgstore), at a server that ends a session when a refresh token comes a second time:
//
//	go run ./fleet            while processes and databases are killed, stopped and restarted
//	go run ./fleet -break store   as a control: without a guard, sessions must be lost
//	go run ./fleet -figures   what renewals cost, beside other ways to do them
//
// At the end of the first, each session that is lost is matched with what made that
// unavoidable: the server had replaced the refresh token, and the process that was to save
// the new one was killed before it did, or stopped for too long. Any other loss is printed with what led to it, and
// the exit code is 1. It needs PostgreSQL (Debian: postgresql).
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"
)

func main() {
	child()
	p := plan{log: os.Stderr}
	flag.IntVar(&p.processes, "processes", 4, "how many processes share the sessions")
	flag.IntVar(&p.sessions, "sessions", 10_000, "how many sessions there are")
	flag.IntVar(&p.rounds, "renewals", 20, "how often each process renews each session")
	flag.IntVar(&p.concurrency, "concurrency", 64, "renewals at a time in each process")
	flag.IntVar(&p.conns, "conns", 8, "connections to the database of each process")
	flag.DurationVar(&p.latency, "latency", 10*time.Millisecond, "of the network to the server in each direction, on average")
	flag.DurationVar(&p.lease, "lease", 8*time.Second, "the lease; a process is stopped for twice as long")
	flag.DurationVar(&p.every, "every", 5*time.Second, "the time between two faults, on average")
	flag.DurationVar(&p.most, "for", 2*time.Hour, "no renewal begins after that")
	flag.BoolVar(&p.once, "once", false, "end when each fault has happened once")
	flag.BoolVar(&p.down, "down", false, "now and then, stop PostgreSQL for longer than the lease and the wait of a successor")
	flag.StringVar(&p.control, "break", "", "leave out a `guard`: \"store\" (lock and comparison) or \"fence\" (the wait for old proofs)")
	flag.Uint64Var(&p.seed, "seed", uint64(time.Now().UnixNano()), "for the order of faults and renewals")
	flag.BoolVar(&p.durable, "fsync", false, "let PostgreSQL wait for the disk")
	figures := flag.Bool("figures", false, "measure, and break nothing")
	outage := flag.Int("outage", 20_000, "with -figures: how many sessions are renewed after an outage; 0 leaves it out")
	flag.Parse()
	if flag.NArg() > 0 || p.processes < 1 || p.sessions < 1 || p.rounds < 1 || p.control != "" && p.control != breakStore && p.control != breakFence {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := 0
	var err error
	if *figures {
		err = printFigures(ctx, os.Stdout, *outage, p.durable)
	} else {
		var v *verdict
		if v, err = chaos(ctx, p); err == nil {
			v.print(os.Stdout)
			code = min(v.avoidable(), 1)
		}
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		code = 1
	}
	os.Exit(code)
}
