//go:build linux && !race

package storehistory

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// A script is a history by hand, a line for each event:
//
//	MILLISECONDS PROCESS KIND ARGUMENTS
//
// with one update per process and number: "a1" is the first one of process a.
func script(t *testing.T, lease time.Duration, text string) *judgment {
	t.Helper()
	h := history{lease: lease, fenced: lease != 0, until: int64(time.Hour)}
	processes := map[string]*process{}
	for line := range strings.Lines(strings.TrimSpace(text)) {
		var ms int64
		var who string
		var k kind
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if _, err := fmt.Sscan(strings.Join(words[:3], " "), &ms, &who, &k); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		e := event{At: ms * int64(time.Millisecond), Kind: k, Op: who, Update: who}
		name := who[:1]
		p := processes[name]
		if p == nil {
			p = &process{name: name, client: len(processes) + 1, died: 0}
			processes[name] = p
		}
		e.process = p
		tokens := []*token{&e.Token, &e.Next}
		for _, word := range words[3:] {
			if word == lost || word == failure {
				e.Result = word
				continue
			}
			if _, err := fmt.Sscanf(word, "%d.%d", &tokens[0].Family, &tokens[0].N); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			tokens = tokens[1:]
		}
		switch k {
		case killed:
			p.died = e.At
			continue
		case stopped:
			p.stops = append(p.stops, span{e.At, forever})
			continue
		case continued:
			p.stops[len(p.stops)-1].to = e.At
			continue
		case redeemed, reused, refused:
			e.process = nil
		}
		h.events = append(h.events, e)
	}
	return judge(h)
}

// login stores 0.0, renewal the token after it, by process a.
const login = `
0 a1 take
1 a1 took -1.0
2 a1 save -1.0 0.0
3 a1 left
`

const renewal = login + `
10 a2 take
11 a2 took 0.0
12 a2 begin 0.0
13 a2 begun 0.0
14 a2 send
15 a2 redeem 0.0 0.1
16 a2 received
17 a2 save 0.0 0.1
18 a2 left
`

// TestJudge shows what a history may be like, and what not.
func TestJudge(t *testing.T) {
	const lease = 4 * time.Second
	for name, row := range map[string]struct {
		lease time.Duration
		text  string
		wrong string // what is said of it; "" for nothing
		loss  string // the cause for a loss
	}{
		"a renewal":           {lease, renewal, "", ""},
		"a read of the new":   {lease, renewal + "20 b1 load\n21 b1 loaded 0.1", "", ""},
		"a read of the old":   {lease, renewal + "20 b1 load\n21 b1 loaded 0.0", `nothing explains "load: 0.0", 0.021 s`, ""},
		"a read meanwhile":    {lease, "9 b1 load\n" + renewal + "30 b1 loaded 0.0", "", ""},
		"a read that is late": {lease, renewal + "17 b1 load\n19 b1 loaded 0.0", "", ""},
		"a store over a newer": {lease, login + `
10 b1 take
11 b1 took 0.0
5000 a2 take
5001 a2 took 0.0
5002 a2 save 0.0 1.0
5003 a2 left
5004 b1 save 0.0 2.0
5005 b1 left`, "not linearizable", ""},
		"a store over a newer that is rejected": {lease, login + `
10 b1 take
11 b1 took 0.0
5000 a2 take
5001 a2 took 0.0
5002 a2 save 0.0 1.0
5003 a2 left
5004 b1 save 0.0 2.0
5005 b1 left lost`, "", ""},
		"a store of no successor": {lease, renewal + "20 b1 take\n21 b1 took 0.1\n22 b1 save 0.1 0.2\n23 b1 left", "not linearizable", ""},
		"a login":                 {lease, renewal + "20 b1 take\n21 b1 took 0.1\n22 b1 save 0.1 1.0\n23 b1 left", "", ""},
		"a lease that is held": {lease, login + `
10 a2 take
11 a2 took 0.0
12 b1 take
4005 b1 took 0.0`, "", ""},
		"a lease that was taken too early": {lease, login + `
10 a2 take
11 a2 took 0.0
12 b1 take
3000 b1 took 0.0`, "not linearizable", ""},
		"a lease that was extended": {lease, login + `
10 a2 take
11 a2 took 0.0
12 b1 take
2000 a2 begin 0.0
2001 a2 begun 0.0
4500 b1 took 0.0`, "not linearizable", ""},
		"a mark without the lease": {lease, login + `
10 a2 take
11 a2 took 0.0
12 b1 take
5000 b1 took 0.0
5001 a2 begin 0.0
5002 a2 begun 0.0`, "not linearizable", ""},
		"a lock that is held": {0, login + `
10 a2 take
11 a2 took 0.0
12 b1 take
90000 b1 took 0.0`, "not linearizable", ""},
		"a lock of a process that died": {0, login + `
10 a2 take
11 a2 took 0.0
12 b1 take
50 a2 kill
90 b1 took 0.0`, "", ""},
		"a store that nobody knows of": {lease, login + `
10 a2 take
11 a2 took 0.0
12 a2 begin 0.0
13 a2 begun 0.0
14 a2 send
15 a2 redeem 0.0 0.1
16 a2 received
17 a2 save 0.0 0.1
18 a2 left error
19 b1 load
20 b1 loaded 0.0
21 b2 load
22 b2 loaded 0.1`, "", ""},
		"a store that was rejected, and was not over anything": {lease, strings.Replace(renewal, "18 a2 left", "18 a2 left lost", 1) + `
19 b1 load
20 b1 loaded 0.0`, "not linearizable", ""},
		"killed":                    {lease, interrupted + "16 a2 kill\n" + again(20015), "", wasKilled},
		"killed, and nobody waited": {lease, interrupted + "16 a2 kill\n" + again(4020), "its proof could still be accepted", ""},
		"stopped":                   {lease, interrupted + "15 a2 stop\n" + again(20015), "", wasPaused},
		"no response":               {lease, interrupted + "16 a2 received error\n" + again(20015), "", noResponse},
		"the store was away":        {lease, interrupted + "16 a2 received\n17 a2 save 0.0 0.1\n18 a2 left error\n" + again(20015), "", noStore},
		"nothing happened":          {lease, interrupted + again(20015), "nothing kept a2", ""},
		"though it was stored": {lease, renewal + `
20 b1 take
21 b1 took 0.1
22 b1 begin 0.1
23 b1 begun 0.1
24 b1 send
25 b1 reuse 0.0`, "had been stored", ""},
		"late": {lease, login + `
10 b1 take
11 b1 took 0.0
12 b1 begin 0.0
13 b1 begun 0.0
14 b1 stop
5000 a2 take
5001 a2 took 0.0
20200 a2 begin 0.0
20201 a2 begun 0.0
20202 a2 send
20203 a2 redeem 0.0 0.1
20204 a2 received
20205 a2 save 0.0 0.1
20206 a2 left
25000 b1 continue
25001 b1 send
25002 b1 reuse 0.0`, "accepted after it", ""},
		"overtaken, under a lock": {0, login + `
10 b1 take
11 b1 took 0.0
12 b1 send
13 b1 kill
14 a2 take
15 a2 took 0.0
16 a2 send
17 a2 redeem 0.0 0.1
18 a2 received
19 a2 save 0.0 0.1
20 a2 left
21 b1 reuse 0.0`, "", wasOvertaken},
	} {
		t.Run(name, func(t *testing.T) {
			j := script(t, row.lease, row.text)
			got := strings.Join(j.wrong(), "; ")
			if row.wrong == "" && got != "" || !strings.Contains(got, row.wrong) {
				t.Errorf("got %q, want %q", got, row.wrong)
			}
			if (row.wrong == "") != (j.result == porcupine.Ok) {
				t.Errorf("porcupine says %v", j.result)
			}
			if row.loss != "" && (len(j.losses) != 1 || j.losses[0] != row.loss) {
				t.Errorf("losses: %q, want %q", j.losses, row.loss)
			}
		})
	}
}

// interrupted is a renewal of process a that the server has processed, and again is
// the next one, of process b, at a time in milliseconds.
const interrupted = login + `
10 a2 take
11 a2 took 0.0
12 a2 begin 0.0
13 a2 begun 0.0
14 a2 send
15 a2 redeem 0.0 0.1
`

func again(ms int) string {
	var b strings.Builder
	for i, what := range []string{"take", "took 0.0", "begin 0.0", "begun 0.0", "send", "reuse 0.0"} {
		fmt.Fprintf(&b, "%d b1 %s\n", ms+i, what)
	}
	return b.String()
}

// A pause can begin before the end of the one before is recorded.
func TestReadRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "record")
	text := `{"t":10,"k":"stop","s":-1,"op":"a"}
{"t":30,"k":"stop","s":-1,"op":"b"}
{"t":29,"k":"continue","s":-1,"op":"a"}
{"t":40,"k":"stop","s":-1,"op":"c"}
{"t":39,"k":"continue","s":-1,"op":"b"}
{"t":50,"k":"kill","s":-1}
{"t":70,"k":"load","s":1,"op":"d"}
{"t":45,"k":"load","s":1,`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &process{}
	events, err := readRecord(path, p, 60)
	if err != nil {
		t.Fatal(err)
	}
	if want := []span{{10, 29}, {30, 39}, {40, 60}}; !slices.Equal(p.stops, want) || p.died != 50 {
		t.Errorf("stopped %v, want %v; died at %d", p.stops, want, p.died)
	}
	if len(events) != 6 || !slices.IsSortedFunc(events, func(a, b event) int { return int(a.At - b.At) }) {
		t.Errorf("events: %v", events)
	}
}
