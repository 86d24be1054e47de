//go:build linux

package main

import (
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/internal/pgtest"
)

func TestMain(m *testing.M) {
	child()
	os.Exit(m.Run())
}

// small is a run with one of each fault.
func small(seed uint64, control string) *plan {
	return &plan{
		processes: 2, sessions: 50, rounds: 1000, concurrency: 8, conns: 4, latency: 60 * time.Millisecond, lease: 3 * time.Second,
		every: 400 * time.Millisecond, most: 8 * time.Minute, once: true, seed: seed, control: control,
	}
}

func database(t *testing.T) {
	if missing := pgtest.Missing(); missing != "" {
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
}

// No session is lost but those whose process was killed before it saved them. Without a
// guard, a run finds losses that could have been avoided. The runs wait most of the time,
// so they take place at the same time.
func TestChaos(t *testing.T) {
	database(t)
	var wg sync.WaitGroup
	runs := []*plan{small(1, ""), small(2, breakStore), small(3, breakFence)}
	runs[2].lease = 10 * time.Second // a successor waits 6 s even then, so a stop has to last longer
	for _, p := range runs {
		wg.Go(func() {
			// A stop may have hit nobody who was about to send.
			for try := range uint64(5) {
				p.seed += try
				v, err := chaos(t.Context(), *p)
				if err != nil {
					t.Errorf("%q: %v", p.control, err)
					return
				}
				if p.control == "" {
					check(t, v)
					return
				}
				if v.avoidable() > 0 {
					t.Logf("%q: %d of %d losses were avoidable", p.control, v.avoidable(), len(v.lost))
					return
				}
			}
			t.Errorf("%q: nothing was lost", p.control)
		})
	}
	wg.Wait()
}

func check(t *testing.T, v *verdict) {
	var report strings.Builder
	v.print(&report)
	t.Log(report.String())
	if v.avoidable() > 0 || v.renewals == 0 {
		t.Errorf("%d sessions were lost for no reason, %d renewals", v.avoidable(), v.renewals)
	}
	for _, f := range faults {
		if v.faults[f] == 0 {
			t.Errorf("there was no %s", f)
		}
	}
}

func TestMatch(t *testing.T) {
	start := time.Now().Add(-time.Hour)
	at := func(s int) time.Duration { return time.Duration(s) * time.Second }
	moment := func(s int) time.Time { return start.Add(at(s)) }
	commits := []commit{{at: at(1), proof: moment(1).Unix(), process: "p1.1"}, {at: at(2), proof: moment(2).Unix(), process: "p2.1"}}
	kill := struck{fault: faultKill, from: moment(3)}
	for name, c := range map[string]struct {
		stored  int
		reuse   *reuse
		journal []entry
		hits    map[string][]struck
		matched bool
	}{
		"killed":                       {stored: 1, hits: map[string][]struck{"p2.1": {kill}}, matched: true},
		"killed, and another sent":     {stored: 1, reuse: &reuse{n: 1, process: "p1.1"}, hits: map[string][]struck{"p2.1": {kill}}, matched: true},
		"another was killed":           {stored: 1, hits: map[string][]struck{"p1.1": {kill}}},
		"nobody was killed":            {stored: 1},
		"it was saved":                 {stored: 2, reuse: &reuse{at: at(9), n: 1}, journal: []entry{{process: "p2.1", kind: 's', n: 2}}, hits: map[string][]struck{"p2.1": {kill}}},
		"it was received":              {stored: 1, journal: []entry{{process: "p2.1", kind: 'r', n: 2}}, hits: map[string][]struck{"p2.1": {kill}}, matched: true},
		"it was saved too late":        {stored: 2, reuse: &reuse{at: at(40), n: 1}, journal: []entry{{process: "p2.1", kind: 's', n: 2, at: moment(61)}}, hits: map[string][]struck{"p2.1": {{fault: faultLong, from: moment(3), to: moment(60)}}}, matched: true},
		"it was saved in time":         {stored: 2, reuse: &reuse{at: at(40), n: 1}, journal: []entry{{process: "p2.1", kind: 's', n: 2, at: moment(3)}}, hits: map[string][]struck{"p2.1": {{fault: faultLong, from: moment(3), to: moment(60)}}}},
		"an older one was sent":        {stored: 1, reuse: &reuse{n: 0}, hits: map[string][]struck{"p2.1": {kill}}},
		"the newest one is stored":     {stored: 2, reuse: &reuse{n: 1}, hits: map[string][]struck{"p2.1": {kill}}},
		"nothing is stored":            {stored: -1, hits: map[string][]struck{"p2.1": {kill}}},
		"another has read it":          {stored: 0, hits: map[string][]struck{"p1.1": {kill}}},
		"killed long after":            {stored: 1, hits: map[string][]struck{"p2.1": {{fault: faultKill, from: moment(60)}}}},
		"stopped for too short a time": {stored: 1, hits: map[string][]struck{"p2.1": {{fault: faultStop, from: moment(1), to: moment(10)}}}},
		"stopped for long":             {stored: 1, hits: map[string][]struck{"p2.1": {{fault: faultStop, from: moment(1), to: moment(60)}}}, matched: true},
		"stopped before":               {stored: 1, hits: map[string][]struck{"p2.1": {{fault: faultStop, from: moment(-60), to: moment(1)}}}},
	} {
		t.Run(name, func(t *testing.T) {
			r := &run{plan: plan{lease: 3 * time.Second}, server: &server{families: make([]family, 1), started: start}, hits: c.hits}
			f := &r.server.families[0]
			f.commits = commits
			if c.reuse != nil {
				f.ended, f.reuse = true, *c.reuse
			}
			if l := r.match(0, c.stored, c.journal); (l.why != "") != c.matched {
				t.Errorf("%+v", l)
			}
		})
	}
}

// All processes go through all sessions in each round.
func TestOrder(t *testing.T) {
	for _, n := range []int{1, 2, 7, 100} {
		r := &replica{part: part{Sessions: n, Rounds: 3, Seed: 5}}
		seen := make(map[int]int)
		for i := range 3 * n {
			seen[r.session(i)]++
		}
		if len(seen) != n || seen[0] != 3 || seen[n-1] != 3 {
			t.Errorf("%d sessions: %v", n, seen)
		}
	}
}
