package clock

import (
	"math"
	"testing"
	"testing/synctest"
	"time"
)

func TestSince(t *testing.T) {
	const h = time.Hour
	for _, tt := range []struct {
		name          string
		sleep         time.Duration // by the monotonic clock, and by the wall clock before it jumps
		jump          time.Duration // of the wall clock
		want          time.Duration
		wallIsDefault bool
	}{
		{name: "no time"},
		{name: "steady", sleep: h, want: h},
		{name: "steady by the system's clock", sleep: h, want: h, wallIsDefault: true},
		{name: "set back", sleep: h, jump: -3 * h, want: h},
		{name: "set back a little", sleep: h, jump: -time.Nanosecond, want: h},
		{name: "ahead, as after a sleep of the computer", sleep: h, jump: 3 * h, want: 4 * h},
		{name: "ahead a little", sleep: h, jump: time.Nanosecond, want: h + time.Nanosecond},
		{name: "set back before any time passed", jump: -3 * h, want: 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var jump time.Duration
				c := Clock{Wall: func() time.Time { return time.Now().Add(jump) }}
				if tt.wallIsDefault {
					c.Wall = nil
				}
				earlier := c.Now()
				time.Sleep(tt.sleep)
				jump = tt.jump
				now := c.Now()
				if got := now.Since(earlier); got != tt.want {
					t.Errorf("Since = %v, want %v", got, tt.want)
				}
				if got := now.Wall().Sub(earlier.Wall()); got != tt.sleep+tt.jump {
					t.Errorf("the wall clock moved by %v, want %v", got, tt.sleep+tt.jump)
				}
			})
		})
	}
}

// Both clocks have to agree before an instant counts as earlier.
func TestSinceNegative(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		early := Clock{}.Now()
		time.Sleep(time.Minute)
		late := Clock{}.Now()
		if got := early.Since(late); got != -time.Minute {
			t.Errorf("Since = %v", got)
		}
	})
}

func TestZeroInstant(t *testing.T) {
	const far = 100 * 365 * 24 * time.Hour
	var zero Instant
	now := Clock{}.Now()
	if !zero.IsZero() || now.IsZero() || At(time.Time{}).IsZero() {
		t.Error("IsZero is wrong")
	}
	if got := now.Since(zero); got < far {
		t.Errorf("the zero instant is only %v ago", got)
	}
	if got := zero.Since(now); got > -far {
		t.Errorf("the zero instant lies %v ahead", got)
	}
	if got := zero.Since(zero); got != 0 {
		t.Errorf("zero since zero: %v", got)
	}
}

func TestWall(t *testing.T) {
	wall := time.Date(2026, 5, 1, 12, 0, 0, 5, time.FixedZone("there", 3600))
	for name, i := range map[string]Instant{"At": At(wall), "Now": Clock{Wall: func() time.Time { return wall }}.Now()} {
		if i.Wall() != wall {
			t.Errorf("%s: %v, want %v", name, i.Wall(), wall)
		}
	}
	for name, i := range map[string]Instant{"At": At(time.Now()), "Now": Clock{}.Now()} {
		if w := i.Wall(); w != w.Round(0) {
			t.Errorf("%s: the wall time has a monotonic reading", name)
		}
	}
}

// A reading is never 0, which stands for none.
func TestStart(t *testing.T) {
	if early := time.Until(start); early >= 0 {
		t.Errorf("readings count from %v ahead", early)
	}
	if i := (Clock{}).Now(); i.mono <= 0 || i.mono > time.Hour {
		t.Errorf("the monotonic reading is %v", i.mono)
	}
	if i := At(time.Time{}); i.mono <= 0 || i.mono > time.Hour {
		t.Errorf("the monotonic reading is %v", i.mono)
	}
}

func TestAllocations(t *testing.T) {
	wall := time.Now()
	c, fixed := Clock{}, Clock{Wall: func() time.Time { return wall }}
	earlier := c.Now()
	var sum time.Duration
	if n := testing.AllocsPerRun(100, func() {
		sum += c.Now().Since(earlier) + fixed.Now().Since(earlier)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if sum < 0 {
		t.Error(sum)
	}
}

func BenchmarkNowSince(b *testing.B) {
	var c Clock
	earlier := c.Now()
	b.ReportAllocs()
	for b.Loop() {
		if c.Now().Since(earlier) < 0 {
			b.Fatal("backwards")
		}
	}
}

func TestBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if (Clock{}).Before(Limit{}) {
			t.Error("the zero limit lies ahead")
		}
		for name, c := range map[string]Clock{"the system's": {}, "another": {Wall: time.Now}, "set back": {Wall: func() time.Time { return time.Now().Add(-time.Hour) }}} {
			for _, earlier := range []Instant{c.Now(), At(time.Now().Add(-time.Hour)), At(time.Now().Add(time.Hour))} {
				time.Sleep(time.Minute)
				for _, d := range []time.Duration{-time.Hour, 0, time.Minute, time.Minute + 1, 61 * time.Minute, 61*time.Minute + 1, 3 * time.Hour} {
					if got, want := c.Before(earlier.Limit(d)), c.Now().Since(earlier) < d; got != want {
						t.Errorf("%s: before %v from %v ago: %v, want %v", name, d, c.Now().Since(earlier), got, want)
					}
				}
			}
		}
	})
}

// What passed by the monotonic clock alone, and what the wall clock made of it.
func TestSet(t *testing.T) {
	for _, jump := range []time.Duration{0, time.Hour, -time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			var off time.Duration
			c := Clock{Wall: func() time.Time { return time.Now().Add(off) }}
			earlier := c.Now()
			time.Sleep(time.Minute)
			off = jump
			now := c.Now()
			if got := now.MonotonicSince(earlier); got != time.Minute {
				t.Errorf("%v by the monotonic clock, want a minute", got)
			}
			if got := now.Set(earlier); got != jump {
				t.Errorf("set by %v, want %v", got, jump)
			}
		})
	}
}

// A limit has passed when both clocks say so.
func TestPassed(t *testing.T) {
	for _, tt := range []struct {
		name        string
		span, sleep time.Duration
		jump        time.Duration
		want        bool
	}{
		{"before", time.Minute, time.Minute - 1, 0, false},
		{"at the end", time.Minute, time.Minute, 0, false},
		{"after", time.Minute, time.Minute + 1, 0, true},
		{"set ahead", time.Minute, time.Second, time.Hour, false},
		{"at the end, set ahead", time.Minute, time.Minute, time.Hour, false},
		{"set back", time.Minute, time.Hour, -time.Hour, false},
		{"at the end, set back after it", time.Minute, 2 * time.Minute, -time.Minute, false},
		{"after, set ahead", time.Minute, time.Minute + 1, time.Hour, true},
		{"without end", math.MaxInt64, 1000 * time.Hour, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var off time.Duration
				c := Clock{Wall: func() time.Time { return time.Now().Add(off) }}
				limit := c.Now().Limit(tt.span)
				time.Sleep(tt.sleep)
				off = tt.jump
				if got := limit.Passed(c.Now()); got != tt.want {
					t.Errorf("passed: %v", got)
				}
			})
		})
	}
}
