//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
)

// A verdict is what came of a run.
type verdict struct {
	plan
	took     time.Duration
	done     int   // renewals that the processes are through with
	renewals int64 // that the server granted
	requests int64
	tooOld   int64
	faults   map[fault]int
	lost     []loss
}

// A loss is a session whose stored refresh token is not the one that the server accepts.
type loss struct {
	session int
	why     string // it could not be avoided; "" if that is not so
	trail   []string
}

func (v *verdict) avoidable() (n int) {
	for _, l := range v.lost {
		if l.why == "" {
			n++
		}
	}
	return n
}

// judge compares what the server accepts with what is stored, session by session.
func (r *run) judge(ctx context.Context, took time.Duration) (*verdict, error) {
	v := &verdict{
		plan: r.plan, took: took, renewals: r.server.renewals(), requests: r.server.requests.Load(),
		tooOld: r.server.tooOld.Load(), faults: r.done,
	}
	set, err := openSet(r.admin, r.lease)
	if err != nil {
		return nil, err
	}
	suspects := make([]*int, r.sessions) // what is stored of those that are lost
	err = inParallel(8, r.sessions, func(i int) error {
		stored := -1
		s, err := set.Store(key(i)).Load(ctx)
		if err == nil {
			_, stored, err = parseToken(s.RefreshToken.Reveal())
		}
		if err != nil && !errors.Is(err, oauth.ErrNoSession) {
			return err
		}
		if f := &r.server.families[i]; f.ended || stored != len(f.commits) {
			suspects[i] = &stored
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	journals := make(map[int][]entry)
	for i := range r.places {
		err := readJournal(r.journal(i), func(e entry) {
			if e.kind == 'd' {
				v.done++
			} else if suspects[e.session] != nil {
				journals[e.session] = append(journals[e.session], e)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	for i, stored := range suspects {
		if stored != nil {
			v.lost = append(v.lost, r.match(i, *stored, journals[i]))
		}
	}
	return v, nil
}

// match looks for what made a loss unavoidable: the server replaced a refresh token, and
// before the new one was saved, the process that was to do so was killed, or stopped for
// longer than its lease and the proof lasted. Then the old one was sent again, as it
// must be, or is still stored.
func (r *run) match(session, stored int, journal []entry) loss {
	f := &r.server.families[session]
	l := loss{session: session, trail: r.trail(session, stored, journal)}
	n, end := stored, time.Now()
	if f.ended {
		n, end = f.reuse.n, r.server.started.Add(f.reuse.at)
	}
	late := false // it was saved when the session had ended
	for _, e := range journal {
		if e.kind == 's' && e.n > n {
			if e.at.Before(end) {
				return l
			}
			late = true
		}
	}
	if n < 0 || n >= len(f.commits) || stored != n && !late {
		return l
	}
	by := f.commits[n]
	for _, c := range f.commits[n+1:] {
		if c.process != by.process { // it has read the new one in the store
			return l
		}
	}
	at := r.server.started.Add(by.at)
	lasts := max(r.lease, fence)
	for _, hit := range r.hits[by.process] {
		switch {
		case hit.fault == faultKill && hit.from.Before(at.Add(lasts)):
			l.why = "killed before it was saved"
		case hit.fault.stops() && hit.from.Before(end) && hit.to.Sub(maxTime(hit.from, time.Unix(by.proof, 0))) > max(r.lease, wait):
			l.why = "stopped for longer than lease and wait"
		}
	}
	return l
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// trail is what is known of the end of a session, in the order of time.
func (r *run) trail(session, stored int, journal []entry) []string {
	type line struct {
		at   time.Time
		text string
	}
	var lines []line
	f := &r.server.families[session]
	since, until := r.begun, time.Now()
	first := max(stored-2, 0)
	involved := make(map[string]bool)
	for n := first; n < len(f.commits); n++ {
		c := f.commits[n]
		at := r.server.started.Add(c.at)
		if n == first {
			since = at
		}
		involved[c.process] = true
		lines = append(lines, line{at, fmt.Sprintf("server: %s exchanged %s (proof of %s, response handed over: %t)",
			c.process, refreshToken(session, n), time.Unix(c.proof, 0).UTC().Format(time.TimeOnly), c.delivered)})
	}
	if f.ended {
		until = r.server.started.Add(f.reuse.at)
		involved[f.reuse.process] = true
		lines = append(lines, line{until, fmt.Sprintf("server: %s sent %s again (proof of %s); the session ends",
			f.reuse.process, refreshToken(session, f.reuse.n), time.Unix(f.reuse.proof, 0).UTC().Format(time.TimeOnly))})
	}
	verbs := map[byte]string{'r': "received", 's': "saved"}
	for _, e := range journal {
		if verb := verbs[e.kind]; verb != "" && !e.at.Before(since) {
			lines = append(lines, line{e.at, fmt.Sprintf("%s: %s %s", e.process, verb, refreshToken(session, e.n))})
		}
	}
	for name := range involved {
		for _, h := range r.hits[name] {
			switch {
			case h.from.After(until):
			case h.fault.stops() && h.to.After(since):
				lines = append(lines, line{h.from, fmt.Sprintf("%s: %s until %s", name, h.fault, h.to.UTC().Format("15:04:05.000"))})
			case h.from.After(since):
				lines = append(lines, line{h.from, fmt.Sprintf("%s: %s", name, h.fault)})
			}
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int { return a.at.Compare(b.at) })
	texts := []string{fmt.Sprintf("stored at the end: %s", refreshToken(session, stored))}
	for _, l := range lines {
		texts = append(texts, l.at.UTC().Format("15:04:05.000")+"  "+l.text)
	}
	return texts
}

// maxTrails is how many trails are printed of avoidable losses, and of others.
const maxTrails = 3

func (v *verdict) print(w io.Writer) {
	fmt.Fprintf(w, "\n%d processes × %d sessions × %d renewals, lease %v, wait of a successor %v, seed %d\n",
		v.processes, v.sessions, v.rounds, v.lease, wait, v.seed)
	if v.control != "" {
		fmt.Fprintf(w, "control: the guard %q is left out\n", v.control)
	}
	fmt.Fprintf(w, "%-50s %d of %d\n", "renewals called for and done", v.done, v.processes*v.sessions*v.rounds)
	fmt.Fprintf(w, "%-50s %d in %v, %.0f a second\n", "renewals granted by the server", v.renewals, v.took.Round(time.Second),
		float64(v.renewals)/v.took.Seconds())
	fmt.Fprintf(w, "%-50s %d, of which %d had a proof that was too old\n", "token requests", v.requests, v.tooOld)
	for _, f := range append(slices.Clone(faults), faultLong, faultDown) {
		fmt.Fprintf(w, "%-50s %d\n", f, v.faults[f])
	}
	why := make(map[string]int)
	for _, l := range v.lost {
		why[l.why]++
	}
	fmt.Fprintf(w, "%-50s %d\n", "sessions lost", len(v.lost))
	for _, text := range slices.Sorted(maps.Keys(why)) {
		if text != "" {
			fmt.Fprintf(w, "%-50s %d\n", "  committed at the server, "+text, why[text])
		}
	}
	fmt.Fprintf(w, "%-50s %d\n", "  avoidable", v.avoidable())
	shown := make(map[bool]int)
	for _, l := range v.lost {
		if shown[l.why == ""]++; shown[l.why == ""] <= maxTrails {
			title := "avoidable"
			if l.why != "" {
				title = l.why
			}
			fmt.Fprintf(w, "\nsession %s: %s\n  %s\n", key(l.session), title, strings.Join(l.trail, "\n  "))
		}
	}
}
