//go:build linux && !race

package storehistory

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// now is the time by the clock that all processes of this machine share, in nanoseconds. Nobody sets it.
func now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err)
	}
	return ts.Nano()
}

// A kind of event.
type kind string

const (
	// Operations of a store. What has a beginning only was cut off by a death.
	loads, loaded kind = "load", "loaded"
	takes, took   kind = "take", "took"
	begins, begun kind = "begin", "begun"
	saves         kind = "save"  // fn has returned another session
	leaves        kind = "leave" // fn has returned nothing to store
	left          kind = "left"  // after saves or leaves, or without took

	// A token request, as its client sees it.
	sends, received kind = "send", "received"

	// The process.
	started, killed, stopped, continued, ended kind = "start", "kill", "stop", "continue", "end"

	// The end of a history: the session can be renewed, or the server has ended it.
	settled kind = "settled"

	// A client was told to log in again. Seen are the families that it has ever read.
	loginRequired kind = "login"

	// The server.
	redeemed kind = "redeem" // the token was replaced
	reused   kind = "reuse"  // it had been replaced before: the session has ended now
	refused  kind = "refuse" // the session had ended before
	tooOld   kind = "old"    // the proof was rejected
	dropped  kind = "drop"   // the connection was closed, or the server was busy
)

// Results of an operation.
const (
	failure = "error"
	lost    = "lost" // oauth.ErrLeaseLost
)

// An event is one line of a record.
type event struct {
	At      int64  `json:"t"`
	Kind    kind   `json:"k"`
	Session int    `json:"s"`
	Op      string `json:"op,omitempty"` // begins and ends with the same one
	Update  string `json:"u,omitempty"`  // that the operation belongs to
	Token   token  `json:"tok"`
	Next    token  `json:"next"`
	Result  string `json:"r,omitempty"` // "" for success
	Note    string `json:"note,omitempty"`
	Seen    uint64 `json:"seen,omitempty"` // a bit for each family

	process *process // that wrote it, nil for the server
}

// A token is the refresh token number N of a family, which begins with a login.
type token struct {
	Family int `json:"f"`
	N      int `json:"n"`
}

func (t token) String() string { return fmt.Sprintf("%d.%d", t.Family, t.N) }

// text is the refresh token of a session.
func (t token) text(session int) string {
	return fmt.Sprintf("rt.%d.%d.%d", session, t.Family, t.N)
}

func parseToken(text string) (session int, t token, err error) {
	_, err = fmt.Sscanf(text, "rt.%d.%d.%d", &session, &t.Family, &t.N)
	return session, t, err
}

// none stands for no session.
var none = token{Family: -1}

// A recorder writes events to a file that outlives the process: each with one system call
// before what it is the beginning of, or after what it is the end of.
type recorder struct {
	mu   sync.Mutex
	file *os.File
}

func newRecorder(path string) (*recorder, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	return &recorder{file: f}, err
}

func (r *recorder) write(e event) {
	e.At = now()
	line, err := json.Marshal(e)
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		_, err = r.file.Write(append(line, '\n'))
	}
	if err != nil {
		panic(err)
	}
}

// A process is what the record of one says.
type process struct {
	name   string
	client int   // its row in pictures
	died   int64 // when it was killed; 0 if it was not
	gone   int64 // when it ended by itself, perhaps with an update in progress after a pause; 0 if it did not
	stops  []span
}

type span struct{ from, to int64 }

// readRecord reads the events of a process, until the given time.
func readRecord(path string, p *process, until int64) ([]event, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var events []event
	pauses := map[string]int{} // index in p.stops, by operation: one can begin before the record of the last has ended
	for line := range bytes.Lines(data) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // still being written
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("%s: %w: %s", path, err, line)
		}
		if e.At > until {
			continue // goroutines write in any order
		}
		e.process = p
		switch e.Kind {
		case killed:
			p.died = e.At
		case ended:
			p.gone = e.At
		case stopped:
			pauses[e.Op] = len(p.stops)
			p.stops = append(p.stops, span{e.At, until})
		case continued:
			p.stops[pauses[e.Op]].to = e.At
		}
		events = append(events, e)
	}
	slices.SortStableFunc(events, func(a, b event) int { return int(a.At - b.At) })
	return events, nil
}
