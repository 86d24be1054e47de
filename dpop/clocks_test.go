package dpop

import (
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const (
	second = time.Second
	hour   = time.Hour
	day    = 24 * hour
)

// clocksWorld is our machine with its wall clock, and servers with theirs, all
// relative to the true time, which is that of the synctest bubble.
type clocksWorld struct {
	c    Clocks
	ours time.Duration
}

func (w *clocksWorld) now() time.Time { return time.Now().Add(w.ours).Round(0) }

func (w *clocksWorld) url(host string) *url.URL {
	return &url.URL{Scheme: "https", Host: host}
}

func dateHeader(t time.Time, more ...string) http.Header {
	h := http.Header{"Date": {t.UTC().Format(http.TimeFormat)}}
	for i := 0; i < len(more); i += 2 {
		h.Add(more[i], more[i+1])
	}
	return h
}

// exchange is one request to a server whose clock is off by skew, and returns how
// far the proof was from the server's time.
func (w *clocksWorld) exchange(host string, skew time.Duration) time.Duration {
	off := w.off(host, skew)
	w.c.Learn(w.url(host), dateHeader(time.Now().Add(skew)), w.now(), 0)
	return off
}

// rejected is told that a proof of just now with this correction was rejected.
func (w *clocksWorld) rejected(u *url.URL, used time.Duration) bool {
	return w.c.Rejected(u, w.now().Add(used), 0, w.now())
}

// off is how far a proof made now is from the server's time.
func (w *clocksWorld) off(host string, skew time.Duration) time.Duration {
	now := w.now()
	return now.Add(w.c.Correction(w.url(host), now)).Sub(time.Now().Add(skew))
}

func clocksTest(t *testing.T, name string, f func(t *testing.T, w *clocksWorld)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { f(t, &clocksWorld{}) })
	})
}

// The table: a clock that is wrong from the start, or jumps after the look, or
// while the computer sleeps, which the monotonic clock does not count.
func TestClocksJumps(t *testing.T) {
	for _, ours := range []time.Duration{0, -2 * hour, 2 * hour, -3 * day, 300 * day, -300 * day} {
		for _, server := range []time.Duration{0, -2 * hour, 2 * hour} {
			for _, jump := range []time.Duration{0, -3 * hour, 3 * hour, -10 * second, 10 * second} {
				clocksTest(t, fmt.Sprint(ours, server, jump), func(t *testing.T, w *clocksWorld) {
					w.ours = ours
					if got, want := w.exchange("a", server), ours-server; got != want {
						t.Fatalf("a correction out of nowhere: %v off, want %v", got, want)
					}
					if got := w.off("a", server); got.Abs() > second {
						t.Errorf("after the look: %v off", got)
					}
					time.Sleep(hour)
					w.ours += jump
					// A clock that moves ahead may have been asleep with us.
					want := max(0, jump)
					if got := w.off("a", server); (got - want).Abs() > second {
						t.Errorf("after the jump: %v off, want %v", got, want)
					}
					used := w.c.Correction(w.url("a"), w.now())
					w.exchange("a", server)
					if got := w.off("a", server); got.Abs() > second {
						t.Errorf("after another look: %v off", got)
					}
					if jump > 0 && !w.rejected(w.url("a"), used) {
						t.Error("another proof is said to fare no better")
					}
					time.Sleep(hour)
					if got := w.off("a", server); got.Abs() > second {
						t.Errorf("an hour later: %v off", got)
					}
				})
			}
		}
	}
}

// A clock that runs true until the computer sleeps: the wall clock is right.
func TestClocksSleep(t *testing.T) {
	clocksTest(t, "", func(t *testing.T, w *clocksWorld) {
		w.ours = 2 * hour
		w.exchange("a", 0)
		w.ours += 8 * hour // the monotonic clock and that of the bubble stand still
		if got := w.off("a", 8*hour); got.Abs() > second {
			t.Errorf("after a sleep: %v off", got)
		}
	})
}

func TestClocksLearn(t *testing.T) {
	base := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name           string
		h              http.Header
		sent, received time.Time
		want           time.Duration
	}{
		{"ahead", dateHeader(base.Add(2 * hour)), base, base, 2*hour + second/2},
		{"behind", dateHeader(base.Add(-2 * hour)), base, base, -2*hour + second/2},
		{"half a round trip", dateHeader(base.Add(2 * hour)), base, base.Add(4 * second), 2*hour + second/2 - 2*second},
		{"least worth it", dateHeader(base.Add(5 * second)), base.Add(second / 2), base.Add(second / 2), 5 * second},
		{"not worth it", dateHeader(base.Add(5 * second)), base.Add(second/2 + 1), base.Add(second/2 + 1), 0},
		{"least worth it, behind", dateHeader(base.Add(-5 * second)), base.Add(second / 2), base.Add(second / 2), -5 * second},
		{"not worth it, behind", dateHeader(base.Add(-5 * second)), base.Add(second/2 - 1), base.Add(second/2 - 1), 0},
		{"slow, and the Date is that of the end", dateHeader(base.Add(10 * second)), base, base.Add(10 * second), 0},
		{"slow, and the Date is that of the start", dateHeader(base), base, base.Add(10 * second), 0},
		{"slow, least worth it", dateHeader(base.Add(15 * second)), base.Add(second / 2), base.Add(10*second + second/2), 10 * second},
		{"slow, not worth it", dateHeader(base.Add(15 * second)), base.Add(second/2 + 1), base.Add(10*second + second/2 + 1), 0},
		{"slow, least worth it, behind", dateHeader(base.Add(-5 * second)), base.Add(second / 2), base.Add(10*second + second/2), -10 * second},
		{"slow, not worth it, behind", dateHeader(base.Add(-5 * second)), base.Add(second/2 - 1), base.Add(10*second + second/2 - 1), 0},
		{"slowest", dateHeader(base.Add(hour)), base, base.Add(10 * second), hour + second/2 - 5*second},
		{"too slow", dateHeader(base.Add(hour)), base, base.Add(10*second + 1), 0},
		{"received before it was sent", dateHeader(base.Add(hour)), base, base.Add(-1), 0},
		{"furthest", dateHeader(base.Add(400 * day)), base, base.Add(second), 400 * day},
		{"too far", dateHeader(base.Add(400 * day)), base, base.Add(second - 2), 0},
		{"furthest behind", dateHeader(base.Add(-400 * day)), base, base.Add(second), -400 * day},
		{"too far behind", dateHeader(base.Add(-400 * day)), base, base.Add(second + 2), 0},
		{"another millennium", dateHeader(base.AddDate(7000, 0, 0)), base, base, 0},
		{"RFC 850", http.Header{"Date": {base.Add(hour).Format(time.RFC850)}}, base, base, hour + second/2},
		{"none", http.Header{}, base, base, 0},
		{"empty", http.Header{"Date": {""}}, base, base, 0},
		{"malformed", http.Header{"Date": {"yesterday"}}, base, base, 0},
		{"two", dateHeader(base.Add(hour), "Date", base.Add(hour).Format(http.TimeFormat)), base, base, 0},
		{"fresh from a cache", dateHeader(base.Add(hour), "Age", "0"), base, base, hour + second/2},
		{"old from a cache", dateHeader(base.Add(hour), "Age", "1"), base, base, 0},
		{"malformed age", dateHeader(base.Add(hour), "Age", "x"), base, base, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var c Clocks
			u := parseURL(t, "https://h/")
			c.Learn(u, tt.h, tt.received, tt.received.Sub(tt.sent))
			got := c.Correction(parseURL(t, "https://H:443/other"), tt.received)
			if (got - tt.want).Abs() > 100*time.Millisecond { // what the test itself takes
				t.Errorf("correction %v, want %v", got, tt.want)
			}
			if tt.want == 0 && (got < 0 || got > 100*time.Millisecond) {
				t.Errorf("correction %v", got)
			}
		})
	}
}

// The time between the request and the response may have a sleep of the computer
// in it, and then the Date is as old as that. A clock that was set looks the same. The
// Date is taken in both cases, as the first proof that it makes wrong brings another
// Date.
func TestClocksSleepDuringTheRequest(t *testing.T) {
	clocksTest(t, "", func(t *testing.T, w *clocksWorld) {
		date := dateHeader(time.Now())
		w.ours += hour // the monotonic clock and that of the bubble stand still
		w.c.Learn(w.url("a"), date, w.now(), 0)
		for _, want := range []time.Duration{-hour, 0, 0} {
			if got := w.exchange("a", hour); (got - want).Abs() > second {
				t.Errorf("a proof is %v off, want %v", got, want)
			}
		}
	})
}

// A correction changes only by what is worth it, so that the noise of the header
// and of the network does not move what a server accepted.
func TestClocksSteady(t *testing.T) {
	clocksTest(t, "", func(t *testing.T, w *clocksWorld) {
		for _, step := range []struct{ skew, want time.Duration }{
			{2 * hour, 2 * hour},
			{2*hour + 4*second, 2 * hour},
			{2*hour - 4*second, 2 * hour},
			{2*hour + 5*second, 2*hour + 5*second},
			{2*hour + 1*second, 2*hour + 5*second},
			{4 * second, 4 * second},
			{0, 4 * second},
			{-second, -second},
		} {
			w.exchange("a", step.skew)
			if got := w.c.Correction(w.url("a"), w.now()) - second/2; got != step.want {
				t.Errorf("server %v ahead: correction %v, want %v", step.skew, got, step.want)
			}
		}
	})
}

func TestClocksRejected(t *testing.T) {
	clocksTest(t, "a skew that is not worth it unasked", func(t *testing.T, w *clocksWorld) {
		w.exchange("a", 3*second)
		used := w.c.Correction(w.url("a"), w.now())
		if used != 0 {
			t.Fatalf("correction %v", used)
		}
		if !w.rejected(w.url("a"), used) || w.off("a", 3*second).Abs() > second {
			t.Errorf("after the rejection: %v off", w.off("a", 3*second))
		}
		if w.rejected(w.url("a"), w.c.Correction(w.url("a"), w.now())) {
			t.Error("and again")
		}
		w.exchange("a", 3*second)
		if got := w.off("a", 3*second); got.Abs() > second {
			t.Errorf("forgotten: %v off", got)
		}
	})
	clocksTest(t, "least change worth it", func(t *testing.T, w *clocksWorld) {
		w.exchange("a", hour)
		u := w.url("a")
		is := w.c.Correction(u, w.now())
		for _, tt := range []struct {
			used time.Duration
			want bool
		}{{is + second, true}, {is - second, true}, {is - second + 1, false}, {is + second - 1, false}} {
			w.c.m[origin(u)].belief = settled // so that nothing else is tried
			if got := w.rejected(u, tt.used); got != tt.want {
				t.Errorf("used %v of %v: %v", tt.used, is, got)
			}
		}
	})
	clocksTest(t, "several proofs at once", func(t *testing.T, w *clocksWorld) {
		u := w.url("a")
		w.exchange("a", hour) // a wrong Date
		used := w.c.Correction(u, w.now())
		for i := range 3 {
			if !w.rejected(u, used) || w.c.Correction(u, w.now()) != 0 {
				t.Errorf("proof %d is not made anew by our own clock", i)
			}
		}
		if !w.rejected(u, second) || w.c.Correction(u, w.now()) != 0 {
			t.Error("a proof of another time changes what is tried")
		}
		for i := range 3 {
			if !w.rejected(u, 0) || w.c.Correction(u, w.now()) != used {
				t.Errorf("proof %d is not made anew by the Date", i)
			}
		}
	})
	clocksTest(t, "clocks that agree", func(t *testing.T, w *clocksWorld) {
		w.exchange("a", 0)
		if w.rejected(w.url("a"), 0) || w.off("a", 0) != 0 {
			t.Error("another proof is said to fare better")
		}
	})
	clocksTest(t, "a server that was never seen", func(t *testing.T, w *clocksWorld) {
		if w.rejected(w.url("a"), 0) || len(w.c.m) != 0 {
			t.Error("another proof is said to fare better")
		}
	})
	clocksTest(t, "the clock was set right before the rejection", func(t *testing.T, w *clocksWorld) {
		w.ours = -2 * hour
		u := w.url("a")
		iat := w.now()
		time.Sleep(second)
		w.c.Learn(u, dateHeader(time.Now()), w.now(), second)
		w.ours = 0
		w.c.Learn(u, dateHeader(time.Now()), w.now(), second) // another response
		if !w.c.Rejected(u, iat, second, w.now()) {
			t.Error("the time of day is another one than that of the proof, which is said to be no better")
		}
		if got := w.off("a", 0); got.Abs() > second {
			t.Errorf("%v off", got)
		}
	})
	clocksTest(t, "a proof that waited", func(t *testing.T, w *clocksWorld) {
		w.exchange("a", 0)
		iat := w.now()
		time.Sleep(time.Minute) // for a person, say
		if w.c.Rejected(w.url("a"), iat, time.Minute, w.now()) {
			t.Error("our clock is that of the server, and another proof is said to fare better")
		}
	})
	clocksTest(t, "a slow response", func(t *testing.T, w *clocksWorld) {
		u := w.url("a")
		for range 3 {
			w.c.Learn(u, dateHeader(time.Now()), w.now(), 9*second)
			if w.rejected(u, 0) || w.c.Correction(u, w.now()) != 0 {
				t.Errorf("our clock is right, and a correction of %v is tried", w.c.Correction(u, w.now()))
			}
		}
		w.c.Learn(u, dateHeader(time.Now().Add(second)), w.now(), 9*second)
		if !w.rejected(u, 0) || w.c.Correction(u, w.now()) == 0 {
			t.Error("the server is ahead by a second at least, and no correction is tried")
		}
	})
	clocksTest(t, "slow responses after both clocks were tried", func(t *testing.T, w *clocksWorld) {
		u := w.url("a")
		w.exchange("a", hour)
		for range 2 {
			if !w.rejected(u, w.c.Correction(u, w.now())) {
				t.Fatal("not both clocks are tried")
			}
		}
		for _, roundTrip := range []time.Duration{10 * second, 0} {
			w.c.Learn(u, dateHeader(time.Now().Add(hour)), w.now(), roundTrip)
			if w.rejected(u, w.c.Correction(u, w.now())) {
				t.Errorf("after a response that took %v, our own clock is tried again", roundTrip)
			}
		}
	})
	clocksTest(t, "a jump between the proof and the rejection", func(t *testing.T, w *clocksWorld) {
		w.exchange("a", 0)
		used := w.c.Correction(w.url("a"), w.now())
		w.ours -= 3 * hour
		if !w.rejected(w.url("a"), used) {
			t.Error("the clock was set back by 3 h, and the same proof is said to be no better")
		}
		if got := w.off("a", 0); got.Abs() > second {
			t.Errorf("%v off", got)
		}
	})
}

// Behind a proxy with a wrong clock the Date is not that of the server, and our
// own clock is tried. Where that does not help either, it ends there.
func TestClocksWrongDate(t *testing.T) {
	reject := func(w *clocksWorld, date time.Duration) bool {
		used := w.c.Correction(w.url("a"), w.now())
		w.exchange("a", date)
		return w.rejected(w.url("a"), used)
	}
	for _, wrong := range []time.Duration{5 * second, -6 * second, 2 * hour, -2 * hour} {
		clocksTest(t, fmt.Sprint(wrong), func(t *testing.T, w *clocksWorld) {
			w.exchange("a", wrong)
			if got := w.off("a", wrong); got.Abs() > second {
				t.Fatalf("the Date is not believed at first: %v off", got)
			}
			if !reject(w, wrong) || w.off("a", 0) != 0 {
				t.Fatalf("our own clock is not tried: %v off", w.off("a", 0))
			}
			for range 3 { // that helped
				time.Sleep(time.Minute)
				w.exchange("a", wrong+second)
				if got := w.off("a", 0); got != 0 {
					t.Fatalf("the Date is believed again: %v off", got)
				}
			}
			// Another cause: the Date is as good as our clock, and neither is tried again.
			if !reject(w, wrong) || w.off("a", wrong).Abs() > second {
				t.Errorf("not back at the Date: %v off", w.off("a", wrong))
			}
			for range 3 {
				if reject(w, wrong) || w.off("a", wrong).Abs() > second {
					t.Errorf("tried again: %v off", w.off("a", wrong))
				}
			}
			// A server's clock that drifts is followed again.
			w.exchange("a", wrong+3*second)
			w.exchange("a", wrong+6*second)
			if got := w.off("a", wrong+6*second); got.Abs() > second {
				t.Errorf("not followed: %v off", got)
			}
			w.exchange("a", wrong+3*second)
			w.exchange("a", wrong)
			// A clock that is set makes all of that void.
			set := wrong + 5*second
			if wrong < 0 {
				set = wrong - 5*second
			}
			w.exchange("a", set)
			if !reject(w, set) || w.off("a", 0) != 0 {
				t.Errorf("after the clock was set: %v off", w.off("a", 0))
			}
		})
	}
	clocksTest(t, "our clock was set back before the rejection", func(t *testing.T, w *clocksWorld) {
		w.exchange("a", 2*hour)
		w.ours -= hour
		if !w.rejected(w.url("a"), w.c.Correction(w.url("a"), w.now())) || w.c.Correction(w.url("a"), w.now()) != 0 {
			t.Errorf("our own clock is not tried, but %v", w.c.Correction(w.url("a"), w.now()))
		}
	})
	clocksTest(t, "less than is worth correcting", func(t *testing.T, w *clocksWorld) {
		w.exchange("a", 3*second)
		if !reject(w, 3*second) {
			t.Fatal("the Date is not tried")
		}
		if reject(w, 3*second) {
			t.Error("our own clock is tried, which differs by 3 s only")
		}
	})
}

// A server that was not heard from gets the smallest correction of the others.
func TestClocksOtherOrigins(t *testing.T) {
	clocksTest(t, "our clock is wrong", func(t *testing.T, w *clocksWorld) {
		w.ours = -2 * hour
		w.exchange("a", 0)
		w.exchange("b", 0)
		if got := w.off("new", 0); got.Abs() > second {
			t.Errorf("%v off", got)
		}
		w.ours -= hour
		if got := w.off("new", 0); got.Abs() > second {
			t.Errorf("after the clock was set back: %v off", got)
		}
	})
	for _, order := range [][]string{{"right", "wrong"}, {"wrong", "right"}} {
		clocksTest(t, "one server is wrong, learnt "+order[0]+" first", func(t *testing.T, w *clocksWorld) {
			for _, host := range order {
				w.exchange(host, map[string]time.Duration{"wrong": -2 * hour}[host])
			}
			if got := w.off("new", 0); got.Abs() > second {
				t.Errorf("%v off", got)
			}
			if got := w.off("wrong", -2*hour); got.Abs() > second {
				t.Errorf("the wrong one: %v off", got)
			}
		})
	}
	for name, dates := range map[string]bool{"that sends a Date": true, "that sends none": false} {
		clocksTest(t, "the only known server is wrong, another one "+name, func(t *testing.T, w *clocksWorld) {
			w.exchange("wrong", 2*hour)
			used := w.c.Correction(w.url("new"), w.now())
			if dates {
				w.exchange("new", 0)
			}
			if !w.rejected(w.url("new"), used) {
				t.Error("one refused proof does not mend it")
			}
			for range 2 {
				if got := w.off("new", 0); got.Abs() > second {
					t.Errorf("%v off", got)
				}
				time.Sleep(hour)
			}
			if dates && w.rejected(w.url("new"), w.c.Correction(w.url("new"), w.now())) {
				t.Error("and again")
			}
			if got := w.off("wrong", 2*hour); got.Abs() > second {
				t.Errorf("the wrong one: %v off", got)
			}
		})
	}
	clocksTest(t, "a server without a Date rejects a proof for another reason", func(t *testing.T, w *clocksWorld) {
		w.ours = -2 * hour
		w.exchange("a", 0)
		u := w.url("dateless")
		for range 3 {
			if got := w.off("dateless", 0); got.Abs() > second {
				t.Errorf("%v off", got)
			}
			if !w.rejected(u, w.c.Correction(u, w.now())) || w.c.Correction(u, w.now()) != 0 {
				t.Error("our own clock is not tried")
			}
			time.Sleep(hour)
			if !w.rejected(u, 0) {
				t.Error("our own clock is not given up")
			}
		}
		w.rejected(u, w.c.Correction(u, w.now()))
		w.exchange("dateless", 0)
		if got := w.off("dateless", 0); got.Abs() > second {
			t.Errorf("after a Date: %v off", got)
		}
	})
	clocksTest(t, "without a Date, and our clock was put right", func(t *testing.T, w *clocksWorld) {
		w.ours = -2 * hour
		w.exchange("a", 0)
		u := w.url("dateless")
		w.ours = 0
		if !w.rejected(u, w.c.Correction(u, w.now())) {
			t.Error("our own clock is not tried")
		}
		w.exchange("a", 0)
		if got := w.off("dateless", 0); got != 0 {
			t.Errorf("%v off", got)
		}
		w.ours -= hour // what others need follows, so nothing else is there to try
		if w.rejected(u, w.c.Correction(u, w.now())) {
			t.Error("another proof is said to fare better")
		}
	})
	clocksTest(t, "without a Date, and what others need is barely another time", func(t *testing.T, w *clocksWorld) {
		for _, roundTrip := range []time.Duration{second, second - 2} {
			w.ours = -2 * hour
			w.exchange("a", 0)
			u := w.url(fmt.Sprint(roundTrip))
			w.rejected(u, w.c.Correction(u, w.now()))
			w.ours = 0
			w.c.Learn(w.url("a"), dateHeader(time.Now()), w.now(), roundTrip)
			if got := w.rejected(u, 0); got != (roundTrip == second) {
				t.Errorf("others need %v: %v", w.c.Correction(u, w.now()), got)
			}
		}
	})
	clocksTest(t, "a correction that is barely one", func(t *testing.T, w *clocksWorld) {
		for used, want := range map[time.Duration]bool{second: true, -second: true, second - 1: false, 1 - second: false} {
			u := w.url(fmt.Sprint(used))
			if got := w.rejected(u, used); got != want {
				t.Errorf("%v: %v", used, got)
			}
		}
	})
}

func TestClocksBounded(t *testing.T) {
	clocksTest(t, "", func(t *testing.T, w *clocksWorld) {
		host := func(i int) string { return fmt.Sprint(i, ".example.com") }
		for i := range maxOrigins {
			w.exchange(host(i), hour)
		}
		w.exchange(host(0), hour) // so that 1 is now the oldest
		for i := range 10 {
			w.exchange(host(1000+i), hour)
		}
		if len(w.c.m) != maxOrigins {
			t.Fatalf("%d origins", len(w.c.m))
		}
		for i := range maxOrigins {
			_, known := w.c.m[origin(w.url(host(i)))]
			if want := i == 0 || i > 10; known != want {
				t.Errorf("origin %d is known: %v", i, known)
			}
		}
		w.rejected(w.url("one more"), hour)
		if len(w.c.m) != maxOrigins {
			t.Errorf("%d origins", len(w.c.m))
		}
	})
}

func TestClocksConcurrently(t *testing.T) {
	var c Clocks
	var wg sync.WaitGroup
	for i := range 8 {
		own := parseURL(t, fmt.Sprintf("https://%d.example.com", i))
		shared := parseURL(t, "https://shared.example.com")
		wg.Go(func() {
			for range 300 {
				now := time.Now()
				for _, u := range []*url.URL{own, shared} {
					c.Learn(u, dateHeader(now.Add(hour)), now, 0)
					used := c.Correction(u, now)
					if (used - hour).Abs() > 2*second {
						t.Errorf("correction %v", used)
					}
					c.Rejected(u, now.Add(used+2*second), 0, now)
				}
			}
		})
	}
	wg.Wait()
}
