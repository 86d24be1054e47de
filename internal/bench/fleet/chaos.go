//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ycauth/ycauth-go/internal/pgtest"
	"github.com/ycauth/ycauth-go/oauth"
)

// A plan is what a run is to do.
type plan struct {
	processes   int
	sessions    int
	rounds      int
	concurrency int
	conns       int
	latency     time.Duration
	lease       time.Duration
	every       time.Duration // between two faults
	most        time.Duration // for the renewals
	once        bool          // end when each fault has happened once
	down        bool          // keep the database down for long, too
	control     string
	seed        uint64
	durable     bool
	log         io.Writer
}

const (
	// fence is how long a request can be accepted after its proof was dated, with what the
	// SDK adds for clocks.
	fence = proofLife + 15*time.Second
	// wait is how long a successor waits: after the fence, the former holder can still save
	// what it received.
	wait = fence + 20*time.Second
)

// A fault is something that a run does to the processes or the database.
type fault string

const (
	faultTerminate fault = "pg_terminate_backend"
	faultRestart   fault = "PostgreSQL restarted"
	faultCrash     fault = "PostgreSQL killed and started"
	faultFailover  fault = "failover to the standby"
	faultKill      fault = "SIGKILL"
	faultStop      fault = "SIGSTOP for twice the lease"
	faultLong      fault = "SIGSTOP for longer than lease and wait"
	faultDown      fault = "PostgreSQL down for longer than lease and wait"
)

func (f fault) stops() bool { return f == faultStop || f == faultLong }

// All but faultLong lose nothing, if they kill nobody between the server's commit and ours.
var faults = []fault{faultTerminate, faultRestart, faultCrash, faultKill, faultStop, faultFailover}

// A struck is a fault that has hit a process.
type struck struct {
	fault fault
	from  time.Time
	to    time.Time // of a SIGSTOP
}

// A run is the state of a chaos run.
type run struct {
	plan
	dir     string // of the journals
	server  *server
	primary *pgtest.Server
	standby *pgtest.Server // nil after the failover
	url     string
	admin   *pgxpool.Pool
	rng     *rand.Rand
	until   time.Time

	mu     sync.Mutex
	places []place
	hits   map[string][]struck // by the name of the process
	done   map[fault]int
	begun  time.Time
}

// A place is taken by one process after the other.
type place struct {
	n       int // of processes so far
	name    string
	cmd     *exec.Cmd
	stdin   io.Closer
	stopped bool
	ended   chan struct{}
	err     *error // once it has ended
	output  *bytes.Buffer
}

// chaos runs a plan, and returns what was found.
func chaos(ctx context.Context, p plan) (_ *verdict, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.most+5*time.Minute)
	defer cancel()
	r := &run{
		plan: p, rng: rand.New(rand.NewPCG(p.seed, 0)), places: make([]place, p.processes),
		hits: make(map[string][]struck), done: make(map[fault]int),
	}
	if r.dir, err = os.MkdirTemp("", "fleet"); err != nil {
		return nil, err
	}
	defer os.RemoveAll(r.dir)
	if r.server, err = startServer(p.sessions, time.Hour, 0); err != nil {
		return nil, err
	}
	defer r.server.close()
	r.server.anyProof = p.control == breakFence
	if err := r.startDatabase(ctx); err != nil {
		return nil, err
	}
	defer r.closeDatabase()
	if err := r.seedSessions(ctx); err != nil {
		return nil, err
	}
	r.say("%d sessions are stored; %d processes begin", p.sessions, p.processes)
	r.begun = time.Now()
	r.until = r.begun.Add(p.most)
	defer r.killAll()
	for i := range r.places {
		if err := r.start(i); err != nil {
			return nil, err
		}
	}
	all := make(chan error, 1)
	go func() { all <- r.wait(ctx) }()
	// The database is there when the processes end, which save what is not saved.
	calm := r.until.Add(-2 * time.Second)
	if r.down {
		calm = r.until.Add(-max(r.lease, wait) - 10*time.Second)
	}
	faults, stop := context.WithDeadline(ctx, calm)
	defer stop()
	var disturbing sync.WaitGroup
	disturbing.Go(func() {
		if err = r.disturb(faults); err != nil || r.once {
			r.end()
		}
	})
	waitErr := <-all
	stop()
	disturbing.Wait()
	if err := errors.Join(waitErr, err); err != nil {
		return nil, err
	}
	return r.judge(ctx, time.Since(r.begun))
}

func (r *run) say(format string, args ...any) {
	if r.log != nil {
		at := time.Duration(0)
		if !r.begun.IsZero() {
			at = time.Since(r.begun)
		}
		fmt.Fprintf(r.log, "%8.1fs  %s\n", at.Seconds(), fmt.Sprintf(format, args...))
	}
}

func (r *run) startDatabase(ctx context.Context) (err error) {
	if r.primary, err = pgtest.Start(ctx, r.durable); err != nil {
		return err
	}
	if r.standby, err = r.primary.StartStandby(ctx); err != nil {
		r.closeDatabase()
		return err
	}
	// Two hosts; a connection is to the one that takes writes.
	r.url = fmt.Sprintf("postgres:///postgres?user=postgres&host=%s,%s&port=5432,5432&target_session_attrs=read-write",
		r.primary.Dir(), r.standby.Dir())
	if r.admin, err = openDatabase(ctx, r.url, 8); err != nil {
		r.closeDatabase()
	}
	return err
}

func (r *run) closeDatabase() {
	if r.admin != nil {
		r.admin.Close()
	}
	for _, s := range []*pgtest.Server{r.primary, r.standby} {
		if s != nil {
			_ = s.Close()
		}
	}
}

func (r *run) seedSessions(ctx context.Context) error {
	set, err := openSet(r.admin, r.lease)
	if err != nil {
		return err
	}
	if err := set.Migrate(ctx); err != nil {
		return err
	}
	pool, err := oauth.NewPool(oauth.PoolConfig{
		Config:    oauth.Config{Provider: provider(r.server.url()), ClientID: "client", DPoP: prover()},
		Open:      func(key string) (oauth.Store, error) { return set.Store(key), nil },
		MaxActive: 100,
	})
	if err != nil {
		return err
	}
	return errors.Join(inParallel(16, r.sessions, func(i int) error {
		return pool.Do(ctx, key(i), func(c *oauth.Client) error { return c.Import(ctx, oauth.Secret(refreshToken(i, 0))) })
	}), pool.Close())
}

// inParallel calls f for 0…n-1 and returns the first error.
func inParallel(workers, n int, f func(int) error) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var first error
	next := 0
	take := func() int {
		mu.Lock()
		defer mu.Unlock()
		if first != nil || next == n {
			return -1
		}
		next++
		return next - 1
	}
	for range workers {
		wg.Go(func() {
			for i := take(); i >= 0; i = take() {
				if err := f(i); err != nil {
					mu.Lock()
					first = errors.Join(first, err)
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return first
}

// start starts the next process of a place.
func (r *run) start(i int) error {
	done, err := r.doneBy(i)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p := &r.places[i]
	p.n++
	p.name = fmt.Sprintf("p%d.%d", i+1, p.n)
	return p.start(part{
		Name: p.name, Place: i, Server: r.server.url(), Database: r.url, Journal: r.journal(i),
		Sessions: r.sessions, Rounds: r.rounds, Done: done, Concurrency: r.concurrency, Conns: r.conns, Latency: r.latency,
		Lease: r.lease, Until: r.until, Break: r.control, Seed: r.seed, Rate: 1e5,
	})
}

func (p *place) start(what part) error {
	value, err := json.Marshal(what)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	p.cmd = exec.CommandContext(context.Background(), self)
	p.cmd.Env = append(os.Environ(), partVariable+"="+string(value))
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // also for one that is stopped
	p.output = &bytes.Buffer{}
	p.cmd.Stderr, p.cmd.Stdout = p.output, p.output
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return err
	}
	cmd, started, ended, result := p.cmd, make(chan error), make(chan struct{}), new(error)
	p.ended, p.err = ended, result
	go func() {
		// "The parent" whose death sends a signal is the thread that started the process
		// (prctl(2), PR_SET_PDEATHSIG), so that thread must not end before.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			*result = cmd.Wait()
		}
	}()
	return <-started
}

func (r *run) journal(i int) string { return filepath.Join(r.dir, fmt.Sprintf("p%d", i+1)) }

// doneBy is how many renewals a place is through with.
func (r *run) doneBy(i int) (n int, err error) {
	err = readJournal(r.journal(i), func(e entry) {
		if e.kind == 'd' {
			n++
		}
	})
	return n, err
}

// wait waits until each place is through.
func (r *run) wait(ctx context.Context) error {
	for i := range r.places {
		for {
			r.mu.Lock()
			p := &r.places[i]
			n, name, ended, result, output := p.n, p.name, p.ended, p.err, p.output
			r.mu.Unlock()
			select {
			case <-ended:
			case <-ctx.Done():
				return fmt.Errorf("%s does not end: %w", name, ctx.Err())
			}
			r.mu.Lock()
			again := p.n != n || r.killed(name)
			r.mu.Unlock()
			if !again {
				if err := *result; err != nil {
					return fmt.Errorf("%s: %w\n%s", name, err, output)
				}
				break
			}
			pause(ctx, 20*time.Millisecond) // it is started again
		}
	}
	return nil
}

func (r *run) killed(name string) bool {
	for _, s := range r.hits[name] {
		if s.fault == faultKill {
			return true
		}
	}
	return false
}

// end asks all processes to end.
func (r *run) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.places {
		if in := r.places[i].stdin; in != nil {
			_ = in.Close()
		}
	}
}

func (r *run) killAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.places {
		if p := &r.places[i]; p.cmd != nil && p.cmd.Process != nil {
			_ = p.cmd.Process.Kill()
			<-p.ended
		}
	}
}

// disturb causes one fault after the other: first each once, then any.
func (r *run) disturb(ctx context.Context) error {
	var stops sync.WaitGroup
	defer stops.Wait()
	order := append([]fault(nil), faults...)
	r.rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	for n := 0; ; n++ {
		pause(ctx, r.every/2+rand.N(r.every))
		if ctx.Err() != nil || r.once && n >= len(order) && len(r.done) == len(order) {
			return nil
		}
		f := faults[r.rng.IntN(len(faults))]
		switch {
		case n < len(order):
			f = order[n]
		case n%10 == 0:
			f = faultLong
		case n%10 == 5 && r.down:
			f = faultDown
		}
		if err := r.strike(ctx, f, &stops); err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
	}
}

func (r *run) strike(ctx context.Context, f fault, stops *sync.WaitGroup) error {
	whole := context.WithoutCancel(ctx) // a fault that has begun is brought to its end
	switch f {
	case faultTerminate:
		within, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		var n int
		err := r.admin.QueryRow(within, `
SELECT count(*) FROM (
	SELECT pg_terminate_backend(pid) FROM pg_stat_activity
	WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND random() < 0.5
) AS terminated`).Scan(&n)
		if err != nil {
			return nil // the database is not there at the moment
		}
		r.struck(f, "%d backends", n)
	case faultRestart, faultCrash, faultDown:
		r.primary.Stop(f == faultRestart)
		d := time.Duration(r.rng.IntN(1000)) * time.Millisecond
		if f == faultDown {
			d += max(r.lease, wait) + 5*time.Second
		}
		pause(whole, d)
		if err := r.primary.StartAgain(whole); err != nil {
			return err
		}
		r.struck(f, "")
	case faultFailover:
		if r.standby == nil || !r.synchronous(ctx) {
			return nil
		}
		r.primary.Stop(false)
		if err := r.standby.Promote(whole); err != nil {
			return err
		}
		old := r.primary
		r.primary, r.standby = r.standby, nil
		r.struck(f, "")
		return old.Close()
	case faultKill:
		return r.kill(whole)
	case faultStop:
		r.stop(whole, f, 2*r.lease, stops)
	case faultLong:
		r.stop(whole, f, max(r.lease, wait)+5*time.Second, stops)
	}
	return nil
}

func (r *run) struck(f fault, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done[f]++
	r.say("%s %s", f, fmt.Sprintf(format, args...))
}

// synchronous waits until the standby confirms commits.
func (r *run) synchronous(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		var n int
		err := r.admin.QueryRow(ctx, `SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync' AND state = 'streaming'`).Scan(&n)
		if err == nil && n > 0 {
			return true
		}
		pause(ctx, 100*time.Millisecond)
	}
	return false
}

// running picks a process that runs. r.mu is held.
func (r *run) running() *place {
	for _, i := range r.rng.Perm(len(r.places)) {
		p := &r.places[i]
		select {
		case <-p.ended:
		default:
			if !p.stopped {
				return p
			}
		}
	}
	return nil
}

func (r *run) kill(ctx context.Context) error {
	r.mu.Lock()
	p := r.running()
	if p == nil {
		r.mu.Unlock()
		return nil
	}
	name, ended := p.name, p.ended
	r.hits[name] = append(r.hits[name], struck{fault: faultKill, from: time.Now()})
	err := p.cmd.Process.Kill()
	r.mu.Unlock()
	if err != nil { // it has just ended by itself
		r.mu.Lock()
		defer r.mu.Unlock()
		r.hits[name] = r.hits[name][:len(r.hits[name])-1]
		return nil // there was nobody to hit
	}
	<-ended
	r.struck(faultKill, "%s", name)
	pause(ctx, time.Duration(r.rng.IntN(1000))*time.Millisecond)
	for i := range r.places {
		if p == &r.places[i] {
			return r.start(i)
		}
	}
	return nil
}

// stop stops a process for some time, while other faults go on.
func (r *run) stop(ctx context.Context, f fault, d time.Duration, stops *sync.WaitGroup) {
	r.mu.Lock()
	p := r.running()
	if p == nil {
		r.mu.Unlock()
		return
	}
	p.stopped = true
	name, process := p.name, p.cmd.Process
	from := time.Now()
	_ = process.Signal(syscall.SIGSTOP)
	r.mu.Unlock()
	r.struck(f, "%s, %v", name, d)
	stops.Go(func() {
		pause(ctx, d)
		r.mu.Lock()
		defer r.mu.Unlock()
		_ = process.Signal(syscall.SIGCONT)
		p.stopped = false
		r.hits[name] = append(r.hits[name], struck{fault: f, from: from, to: time.Now()})
	})
}

// An entry is a line of a journal.
type entry struct {
	process string
	at      time.Time
	kind    byte
	session int
	n       int
}

func readJournal(name string, f func(entry)) error {
	file, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		var e entry
		var micros int64
		var kind string
		if _, err := fmt.Sscan(lines.Text(), &e.process, &micros, &kind, &e.session, &e.n); err != nil {
			return fmt.Errorf("%s: %q: %w", name, strings.TrimSpace(lines.Text()), err)
		}
		e.at, e.kind = time.UnixMicro(micros), kind[0]
		f(e)
	}
	return lines.Err()
}
