package dpop

import (
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/internal/clock"
)

func TestReplays(t *testing.T) { synctest.Test(t, testReplays) }

func testReplays(t *testing.T) {
	start := time.Now()
	var r replays
	add := func(htu, jti string, after time.Duration) bool {
		time.Sleep(time.Until(start.Add(after)))
		return r.add(replayID(htu, jti), clock.Clock{}.Now(), time.Minute, 100)
	}
	for _, step := range []struct {
		name, htu, jti string
		after          time.Duration
		want           bool
	}{
		{"first", "https://h/", "a", 0, true},
		{"again", "https://h/", "a", 0, false},
		{"another id", "https://h/", "b", 0, true},
		{"another target", "https://h/2", "a", 0, true},
		{"parts moved", "https://h/\x00a", "", 0, true}, // no URL has a NUL: only so that the hash is of both
		{"at the end of its time", "https://h/", "a", time.Minute, false},
		{"still there, though expired, as nothing was added", "https://h/", "a", 2 * time.Minute, false},
		{"something new", "https://h/", "c", 2 * time.Minute, true},
		{"forgotten", "https://h/", "a", 2 * time.Minute, true},
	} {
		if got := add(step.htu, step.jti, step.after); got != step.want {
			t.Errorf("%s: %v", step.name, got)
		}
	}
	if len(r.known) != 2 {
		t.Errorf("%d remembered, want 2", len(r.known))
	}
}

func TestReplaysBounded(t *testing.T) {
	now := clock.Clock{}.Now()
	var r replays
	const limit = 50
	add := func(i int) bool { return r.add(replayID("https://h/", strconv.Itoa(i)), now, time.Minute, limit) }
	for i := range 10_000 {
		if !add(i) {
			t.Fatalf("%d is not new", i)
		}
		if len(r.known) > limit || len(r.queue) > limit {
			t.Fatalf("after %d: %d remembered, room for %d", i, len(r.known), len(r.queue))
		}
	}
	for i := 10_000 - limit; i < 10_000; i++ {
		if add(i) {
			t.Errorf("%d, one of the newest, was forgotten", i)
		}
	}
	if !add(10_000 - limit - 1) {
		t.Error("the oldest was not forgotten")
	}
}

// With a lower limit than before, the surplus goes.
func TestReplaysLimitLowered(t *testing.T) {
	now := clock.Clock{}.Now()
	var r replays
	for i := range 100 {
		r.add(replayID("https://h/", strconv.Itoa(i)), now, time.Minute, 100)
	}
	r.add(replayID("https://h/", "x"), now, time.Minute, 1)
	if len(r.known) != 1 {
		t.Errorf("%d remembered", len(r.known))
	}
}

// What [Verifier.MaxReplays] says of the memory, with every entry in use and
// after they were replaced several times, which is when a map is largest.
func TestReplaysMemory(t *testing.T) {
	const limit, most = 100_000, 8_000_000
	now := clock.Clock{}.Now()
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	r := new(replays)
	for _, n := range []int{limit, limit / 2, 3 * limit} {
		for i := range n {
			r.add(replayID("https://h/", strconv.Itoa(n+i)), now, time.Minute, limit)
		}
		if got := heap() - before; got > most {
			t.Errorf("%d entries take %d bytes, want %d at most", len(r.known), got, most)
		}
	}
	runtime.KeepAlive(r)
}

// Entries leave in the order in which they came, also when the ring has gone
// round, and not before their time.
func TestReplaysExpiry(t *testing.T) { synctest.Test(t, testReplaysExpiry) }

func testReplaysExpiry(t *testing.T) {
	var r replays
	for i := range 1000 {
		time.Sleep(time.Second)
		now := clock.Clock{}.Now()
		if !r.add(replayID("https://h/", strconv.Itoa(i)), now, 70*time.Second, 100_000) {
			t.Fatalf("%d is not new", i)
		}
		if want := min(i+1, 71); len(r.known) != want || r.count != want || len(r.queue) > 256 {
			t.Fatalf("after %d: %d known, %d counted, want %d; room for %d", i, len(r.known), r.count, want, len(r.queue))
		}
		if oldest := max(0, i-70); r.add(replayID("https://h/", strconv.Itoa(oldest)), now, 0, 100_000) {
			t.Fatalf("%d was forgotten at %d", oldest, i)
		}
	}
}

// Of many that bring the same proof at once, one is the first.
func TestReplaysConcurrently(t *testing.T) {
	now := clock.Clock{}.Now()
	var r replays
	var first atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 200 {
				if r.add(replayID("https://h/", strconv.Itoa(i)), now, time.Minute, 1000) {
					first.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if first.Load() != 200 {
		t.Errorf("%d were new, want 200", first.Load())
	}
}
