//go:build linux && !race

package storehistory

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// Options of a run.
type options struct {
	subject   subject
	seed      uint64
	histories int
	processes int
	logins    int           // per mille of the calls
	delay     time.Duration // of the server; 20 ms if 0
	disturbed time.Duration // how long the histories are
}

// A run is some histories of one subject, in the same processes.
type run struct {
	options

	t        *testing.T
	dir      string
	server   *server
	place    string
	until    int64
	replicas sync.WaitGroup

	mu        sync.Mutex
	ending    bool
	processes []*process
	running   map[*process]*exec.Cmd
	failed    []string
}

// begin starts a run.
func begin(t *testing.T, opts options) *run {
	t.Helper()
	r := &run{options: opts, t: t, dir: t.TempDir(), running: map[*process]*exec.Cmd{}}
	r.server = newServer(opts.histories, opts.seed, opts.delay)
	t.Cleanup(r.server.Close)
	r.place = opts.subject.start(t)
	if err := r.start(part{Name: "begin", Role: toBegin}); err != nil {
		t.Fatal(err)
	}
	r.until = now() + int64(opts.disturbed)
	for i := range opts.processes {
		r.replicas.Go(func() { r.slot(i) })
	}
	t.Cleanup(r.kill)
	return r
}

// slot keeps one process running until the end of the disturbances.
func (r *run) slot(i int) {
	rng := rand.New(rand.NewPCG(r.seed, uint64(1000+i)))
	for n := 0; now() < r.until && !r.over(); n++ {
		skew := time.Duration(0)
		if rng.IntN(100) < 60 {
			skew = time.Duration(rng.IntN(601)-300) * time.Second
		}
		err := r.start(part{
			Name: fmt.Sprintf("p%d.%d", i, n), Role: toLive, Slot: i, Stream: uint64(100*i + n), Logins: r.logins, Until: r.until, Skew: skew,
		})
		if err != nil {
			r.fail(err.Error())
			return
		}
		time.Sleep(time.Duration(rng.IntN(1000)) * time.Millisecond)
	}
}

func (r *run) over() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ending
}

func (r *run) fail(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = append(r.failed, what)
}

// start runs a process until it ends.
func (r *run) start(p part) error {
	p.Subject, p.Place, p.Server = r.subject.name, r.place, r.server.URL
	p.Seed, p.Sessions, p.Record = r.seed, r.histories, filepath.Join(r.dir, p.Name)
	value, err := json.Marshal(p)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), partVariable+"="+string(value))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe() // its end tells the process that the test has ended
	if err != nil {
		return err
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	this := &process{name: p.Name}
	r.mu.Lock()
	if r.ending {
		r.mu.Unlock()
		return nil
	}
	if err := cmd.Start(); err != nil {
		r.mu.Unlock()
		return err
	}
	r.processes = append(r.processes, this)
	this.client = len(r.processes)
	r.running[this] = cmd
	r.mu.Unlock()
	for in := bufio.NewScanner(stdout); in.Scan(); {
		var d int64
		if n, _ := fmt.Sscanf(in.Text(), "stop %d", &d); n == 1 {
			time.AfterFunc(time.Duration(d), func() { r.signal(this, syscall.SIGCONT) })
		}
	}
	err = cmd.Wait()
	r.mu.Lock()
	delete(r.running, this)
	ending := r.ending
	r.mu.Unlock()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL || ending {
		return nil
	}
	if err != nil {
		return fmt.Errorf("process %s: %w: %s", p.Name, err, stderr.String())
	}
	return nil
}

func (r *run) signal(p *process, sig syscall.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if cmd := r.running[p]; cmd != nil {
		_ = cmd.Process.Signal(sig)
	}
}

// kill ends all processes.
func (r *run) kill() {
	r.mu.Lock()
	r.ending = true
	for _, cmd := range r.running {
		_ = cmd.Process.Kill()
	}
	r.mu.Unlock()
	r.replicas.Wait()
}

// settle waits for the end of the disturbances, and lets a process without any renew
// each session once.
func (r *run) settle() {
	r.replicas.Wait()
	r.server.calm()
	err := r.start(part{Name: "settle", Role: toSettle, Stream: 1 << 20, Until: now() + int64(fence+grace+leaseTime+90*time.Second)})
	if err != nil {
		r.fail(err.Error())
	}
}

// A result is what a run shows.
type result struct {
	histories, operations, renewals, reads  int
	kills, pauses, drops, breaks, processes int
	losses                                  map[string]int
	wrong                                   []*judgment
	other                                   []string // not about one history
	checked                                 time.Duration
}

// judge checks what has happened until now.
func (r *run) judge() result {
	r.t.Helper()
	until := now()
	// What an event is the beginning of comes after the event is written, so all that had an
	// effect until now has been written.
	bySession := make([][]event, r.histories)
	var others []event
	res := result{histories: r.histories, losses: map[string]int{}}
	add := func(events []event) {
		for _, e := range events {
			switch e.Kind {
			case killed:
				res.kills++
			case stopped:
				res.pauses++
			case dropped:
				if e.process == nil {
					res.drops++
				} else {
					res.breaks++
				}
			}
			if e.Session >= 0 {
				bySession[e.Session] = append(bySession[e.Session], e)
			} else {
				others = append(others, e)
			}
			if e.Kind == loginRequired && !r.server.hasEnded(e.Session, e.Seen) {
				res.other = append(res.other, fmt.Sprintf("history %d: a client was told to log in again, and no session that it knows has ended: %s",
					e.Session, e.Note))
			}
		}
	}
	r.mu.Lock()
	processes := slices.Clone(r.processes)
	res.other = append(res.other, r.failed...)
	r.mu.Unlock()
	res.processes = len(processes)
	for _, p := range processes {
		this := &process{name: p.name, client: p.client}
		events, err := readRecord(filepath.Join(r.dir, p.name), this, until)
		if errors.Is(err, os.ErrNotExist) {
			continue // it has just been started
		}
		if err != nil {
			r.t.Fatal(err)
		}
		add(events)
	}
	add(r.server.until(until))
	began := time.Now()
	judgments := make([]*judgment, r.histories)
	var wg sync.WaitGroup
	turn := make(chan struct{}, runtime.GOMAXPROCS(0))
	for session, events := range bySession {
		turn <- struct{}{}
		wg.Go(func() {
			defer func() { <-turn }()
			slices.SortStableFunc(events, func(a, b event) int { return int(a.At - b.At) })
			judgments[session] = judge(history{session, r.subject.lease, r.subject.fenced(), events, others, until})
		})
	}
	wg.Wait()
	res.checked = time.Since(began)
	for _, j := range judgments {
		res.operations += len(j.operations)
		res.renewals += j.renewals
		res.reads += j.reads
		for _, l := range j.losses {
			if strings.HasPrefix(l, avoidable) {
				l = "avoidable"
			}
			res.losses[l]++
		}
		if len(j.wrong()) > 0 {
			res.wrong = append(res.wrong, j)
		}
	}
	return res
}

// unavoidable is how many sessions were lost that nobody could have saved.
func (res result) unavoidable() (n int) {
	for why, count := range res.losses {
		if why != "avoidable" {
			n += count
		}
	}
	return n
}

// add adds another run.
func (res *result) add(other result) {
	res.histories += other.histories
	res.operations += other.operations
	res.renewals += other.renewals
	res.reads += other.reads
	res.kills += other.kills
	res.pauses += other.pauses
	res.drops += other.drops
	res.breaks += other.breaks
	res.processes += other.processes
	res.checked += other.checked
	if res.losses == nil {
		res.losses = map[string]int{}
	}
	for why, n := range other.losses {
		res.losses[why] += n
	}
}

func (res result) String() string {
	return fmt.Sprintf("%d histories, %d operations, %d renewals, %d processes, %d kills, %d pauses, %d requests dropped by the server, "+
		"%d connections to the database broken; "+
		"sessions lost: %d unavoidably, %d avoidably %v; checked in %v",
		res.histories, res.operations, res.renewals, res.processes, res.kills, res.pauses, res.drops, res.breaks,
		res.unavoidable(), res.losses["avoidable"], res.losses, res.checked.Round(time.Millisecond))
}

// report prints what is wrong, with a picture of each history.
func (r *run) report(res result) {
	r.t.Helper()
	for _, what := range res.other {
		r.t.Errorf("%s: %s", r.subject.name, what)
	}
	for i, j := range res.wrong {
		if i == 5 {
			r.t.Errorf("and %d more", len(res.wrong)-i)
			break
		}
		r.t.Errorf("%s, history %d: %s\npicture: %s\nevents: %s", r.subject.name, j.session, strings.Join(j.wrong(), "; "), j.picture(), j.write())
	}
	if r.t.Failed() {
		r.t.Logf("again: YCAUTH_SEED=%d YCAUTH_HISTORIES=%d go test -v -run '^TestHistories$/^%s$' ./internal/storehistory",
			r.seed, r.histories, strings.ReplaceAll(r.subject.name, " ", "_"))
	}
}

// picture writes Porcupine's visualization to a file.
func (j *judgment) picture() string {
	return temporary(fmt.Sprintf("history-%d-*.html", j.session), func(w io.Writer) error {
		return porcupine.Visualize(model(j.lease, j.owners), j.info, w)
	})
}

// write writes the events to a file.
func (j *judgment) write() string {
	return temporary(fmt.Sprintf("history-%d-*.txt", j.session), func(w io.Writer) error {
		events := append(slices.Clone(j.events), j.others...)
		slices.SortStableFunc(events, func(a, b event) int { return int(a.At - b.At) })
		for _, e := range events {
			name := "server"
			if e.process != nil {
				name = e.process.name
			}
			fmt.Fprintf(w, "%12.6f %-8s %-8s %-8s %-8s %v -> %v %s %s\n",
				float64(e.At-events[0].At)/1e9, name, e.Kind, e.Op, e.Update, e.Token, e.Next, e.Result, e.Note)
		}
		return nil
	})
}

func temporary(pattern string, write func(io.Writer) error) string {
	f, err := os.CreateTemp("", pattern)
	if err != nil {
		return err.Error()
	}
	if err := errors.Join(write(f), f.Close()); err != nil {
		return err.Error()
	}
	return f.Name()
}
