package oauth_test

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
)

// wallClock is a clock of the day that somebody sets. The monotonic clock is the
// bubble's.
type wallClock struct{ off atomic.Int64 }

func (w *wallClock) now() time.Time        { return time.Now().Add(time.Duration(w.off.Load())) }
func (w *wallClock) set(off time.Duration) { w.off.Store(int64(off)) }

// dated issues tokens for 12 hours, with the Date of a server whose clock is right.
func dated(n int, _ fakeRequest) (*http.Response, error) {
	return answer(200, tokenJSON(fmt.Sprintf("at-%d", n), "", 12*3600), "Date", time.Now().UTC().Format(http.TimeFormat)), nil
}

// A clock that jumps costs at most one wasted request, and never a token that is
// dead: each row lets the wall clock show something else before the first request,
// after it, and later, and then lives through 36 hours of true time.
func TestClockJumps(t *testing.T) {
	const jump = 3 * time.Hour
	for _, tt := range []struct {
		name                 string
		first, after, second time.Duration
	}{
		{"right", 0, 0, 0},
		{"ahead after the request", 0, jump, jump},
		{"ahead, then put right", jump, 0, 0},
		{"ahead for a while", 0, jump, 0},
		{"behind after the request", 0, -jump, -jump},
		{"behind, then put right", -jump, 0, 0},
		{"behind for a while", 0, -jump, 0},
		{"a week ahead, then right", 7 * 24 * time.Hour, 0, 0},
		{"a week behind, then right", -7 * 24 * time.Hour, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var wall wallClock
				var issued sync.Map // number of the token to true time
				start := time.Now()
				srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
					issued.Store(n, time.Now())
					return dated(n, r)
				})
				c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Clock = wall.now })
				wall.set(tt.first)
				wantToken(t, c.TokenSource(), "at-1")
				wall.set(tt.after)
				for range 36 * 4 {
					time.Sleep(15 * time.Minute)
					if time.Since(start) > 5*time.Hour {
						wall.set(tt.second)
					}
					tok, err := c.TokenSource().Token()
					if err != nil {
						t.Fatal(err)
					}
					var n int
					if _, err := fmt.Sscanf(tok.AccessToken, "at-%d", &n); err != nil {
						t.Fatal(err)
					}
					if at, _ := issued.Load(n); time.Since(at.(time.Time)) > 12*time.Hour {
						t.Fatalf("a token was served %v after its issue", time.Since(at.(time.Time)))
					}
					synctest.Wait()
				}
				// 36 hours are the first request and three renewals, every 10 hours or less.
				if n := srv.count(); n > 5 {
					t.Errorf("%d requests, want 4, and one more for the jump", n)
				}
			})
		})
	}
}

// The same for a process that starts later, with nothing but what is stored.
func TestStoredTokenAndClocks(t *testing.T) {
	for _, tt := range []struct {
		name           string
		writer, reader time.Duration // how far the clocks of the two processes are off
		later          time.Duration // true time in between
		want           string
	}{
		{"right clocks", 0, 0, 8 * time.Hour, "at-1"},
		{"right clocks, dead", 0, 0, 12 * time.Hour, "at-2"},
		{"the writer's was ahead, soon", 3 * time.Hour, 0, time.Hour, "at-1"},
		{"the writer's was ahead, dead", 3 * time.Hour, 0, 13 * time.Hour, "at-2"},
		{"the writer's was behind, dead", -3 * time.Hour, 0, 13 * time.Hour, "at-2"},
		{"the reader's is ahead", 0, 3 * time.Hour, time.Hour, "at-1"},
		{"the reader's is behind, soon", 0, -3 * time.Hour, time.Hour, "at-2"}, // cannot be told from a dead one
		{"both ahead", 3 * time.Hour, 3 * time.Hour, time.Hour, "at-1"},
		{"both ahead, dead", 3 * time.Hour, 3 * time.Hour, 12 * time.Hour, "at-2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := oauth.NewMemoryStore()
				srv := newFakeServer(dated)
				var wall wallClock
				shared := func(cfg *oauth.Config) { cfg.Store, cfg.Clock = store, wall.now }
				wall.set(tt.writer)
				writer, _ := newClient(t, srv, shared)
				wantToken(t, writer.TokenSource(), "at-1")
				time.Sleep(tt.later)
				wall.set(tt.reader)
				reader, _ := openClient(t, srv, shared)
				wantToken(t, reader.TokenSource(), tt.want)
				closeSource(t, reader)
				if srv.count() > 2 {
					t.Errorf("%d requests", srv.count())
				}
			})
		})
	}
}

// A command that is run again and again on a machine whose clock is wrong, with a server
// that rotates refresh tokens and ends the session if it sees an old one. The clock is off
// by the same at each run, or is set once, between two runs.
func TestCommandsAndClocks(t *testing.T) {
	const life = 12 * time.Hour
	offs := []time.Duration{0, 4 * time.Minute, 6 * time.Minute, time.Hour, 9 * time.Hour, 13 * time.Hour, 700 * 24 * time.Hour}
	for _, off := range slices.Clone(offs[1:]) {
		offs = append(offs, -off)
	}
	// at is a run of the command, by a clock that is off, at a true time.
	type served struct {
		access string
		age    time.Duration
	}
	commands := func(t *testing.T) (at func(off, date time.Duration) served, requests func() int) {
		store := oauth.NewMemoryStore()
		var issued sync.Map // access token to true time
		var date atomic.Int64
		current := "rt-0"
		srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
			if got := r.form.Get("refresh_token"); got != current {
				t.Errorf("%q was sent instead of %q: the session is lost", got, current)
				return answer(400, `{"error":"invalid_grant"}`), nil
			}
			access := fmt.Sprint("at-", n)
			current = fmt.Sprint("rt-", n)
			issued.Store(access, time.Now())
			now := time.Now().Add(time.Duration(date.Load()))
			return answer(200, tokenJSON(access, current, int(life.Seconds())), "Date", now.UTC().Format(http.TimeFormat)), nil
		})
		first, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Store = store })
		closeSource(t, first)
		return func(off, dateOff time.Duration) served {
			date.Store(int64(dateOff))
			c, _ := openClient(t, srv, func(cfg *oauth.Config) {
				cfg.Store = store
				cfg.Clock = func() time.Time { return time.Now().Add(off) }
			})
			tok, err := c.TokenSource().Token()
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			closeSource(t, c)
			begun, _ := issued.Load(tok.AccessToken)
			return served{tok.AccessToken, time.Since(begun.(time.Time))}
		}, srv.count
	}
	for _, before := range offs {
		for _, after := range offs {
			for _, later := range []time.Duration{time.Minute, 3 * time.Hour, 12*time.Hour + time.Minute} {
				t.Run(fmt.Sprint(before, " then ", after, " after ", later), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						at, requests := commands(t)
						at(before, 0)
						time.Sleep(later)
						// What the clock is behind by because it was set back cannot be seen.
						unseen := max(0, min(before, 0)-after)
						for i := range 10 {
							if got := at(after, 0); got.age > life+unseen {
								t.Errorf("run %d: %s was served %v after its issue", i, got.access, got.age)
							}
							time.Sleep(time.Minute)
						}
						needed := 1
						if later > life {
							needed++
						}
						if before != after {
							needed++ // the clock was set
						}
						// To a clock that is ahead, a token cannot be told from one that was obtained
						// before the clock was put right: its life is shorter by as much.
						if after < 9*time.Hour && requests() > needed {
							t.Errorf("%d requests, want at most %d", requests(), needed)
						}
					})
				})
			}
		}
	}
	// A Date that is wrong costs nothing if it is in the future. If it is in the past, the
	// token seems older than it is.
	for _, date := range []time.Duration{time.Hour, 13 * time.Hour, 10_000 * time.Hour, -time.Hour, -9 * time.Hour} {
		t.Run("a Date off by "+date.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				at, requests := commands(t)
				for range 10 {
					at(0, date)
					time.Sleep(time.Minute)
				}
				if n := requests(); n != 1 {
					t.Errorf("%d requests", n)
				}
			})
		})
	}
	// One store, two machines, of which one has a clock that is behind.
	for _, off := range []time.Duration{-6 * time.Minute, -time.Hour, -9 * time.Hour} {
		t.Run("another machine off by "+off.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				at, requests := commands(t)
				for range 60 {
					at(0, 0)
					at(off, 0)
					time.Sleep(time.Minute)
				}
				if n := requests(); n > 2 {
					t.Errorf("%d requests", n)
				}
			})
		})
	}
}

// Two processes that see clocks which differ, of servers behind one name or of their own
// computers, do not renew in turns: together they make no more requests than each would
// make alone. No token is served that is dead.
func TestClocksOfTwoProcessesDiffer(t *testing.T) {
	const life, span = 12 * time.Hour, 36 * time.Hour
	const alone = 4 // at 0, 10, 20 and 30 hours
	for _, skew := range []time.Duration{0, 6 * time.Minute, 61 * time.Minute, 13 * time.Hour, -13 * time.Hour, 7 * 24 * time.Hour} {
		for _, whose := range []string{"servers", "computers"} {
			for _, rotating := range []bool{false, true} {
				t.Run(fmt.Sprint(whose, " ", skew, " rotating ", rotating), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						store := oauth.NewMemoryStore()
						var issued sync.Map // access token to true time
						var requests atomic.Int32
						open := func(name string, ahead time.Duration) *oauth.Client {
							srv := newFakeServer(func(n int, _ fakeRequest) (*http.Response, error) {
								access, refresh, date := fmt.Sprint("at-", name, n), "", time.Now()
								if rotating {
									refresh = fmt.Sprint("rt-", name, n)
								}
								if whose == "servers" {
									date = date.Add(ahead)
								}
								requests.Add(1)
								issued.Store(access, time.Now())
								return answer(200, tokenJSON(access, refresh, int(life.Seconds())), "Date", date.UTC().Format(http.TimeFormat)), nil
							})
							srv.began = make(chan struct{}, 10_000)
							c, _ := openClient(t, srv, func(cfg *oauth.Config) {
								cfg.Store = store
								if whose == "computers" {
									cfg.Clock = func() time.Time { return time.Now().Add(ahead) }
								}
							})
							return c
						}
						both := []*oauth.Client{open("a", 0), open("b", skew)}
						if err := both[0].Import(t.Context(), "rt-0"); err != nil {
							t.Fatal(err)
						}
						for start := time.Now(); time.Since(start) < span; time.Sleep(20 * time.Second) {
							for _, c := range both {
								tok, err := c.TokenSource().Token()
								if err != nil {
									t.Fatal(err)
								}
								at, _ := issued.Load(tok.AccessToken)
								if age := time.Since(at.(time.Time)); age > life {
									t.Fatalf("%s was served %v after its issue", tok.AccessToken, age)
								}
								synctest.Wait()
							}
						}
						if n := requests.Load(); n > 2*alone+1 || skew == 0 && n > alone {
							t.Errorf("%d requests in %v for tokens of %v", n, span, life)
						}
					})
				})
			}
		}
	}
}

// A computer that slept: the monotonic clock stood still, the wall clock did not.
func TestSleepOfTheComputer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wall wallClock
		c, _ := newClient(t, newFakeServer(issue), func(cfg *oauth.Config) { cfg.Clock = wall.now })
		wantToken(t, c.TokenSource(), "at-1")
		wall.set(5 * time.Hour)
		wantToken(t, c.TokenSource(), "at-2")
	})
}

// A failure while the clock was hours ahead is not shared for hours after it was
// put right.
func TestCooldownSurvivesTheClock(t *testing.T) {
	for _, off := range []time.Duration{3 * time.Hour, -3 * time.Hour} {
		t.Run(off.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var wall wallClock
				srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
					if n == 1 {
						return answer(503, ""), nil
					}
					return issue(n, r)
				})
				c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.Clock, cfg.MaxAttempts = wall.now, 1 })
				wall.set(off)
				if _, err := c.TokenSource().Token(); err == nil {
					t.Fatal("no error")
				}
				wall.set(0)
				time.Sleep(1300 * time.Millisecond)
				wantToken(t, c.TokenSource(), "at-2")
			})
		})
	}
}

// Whenever the clock of the day is set, which is at the latest when it is next read, no
// renewal fails, and the whole costs one more proof.
func TestClockSetAtAnyReading(t *testing.T) {
	prover := newProver(t)
	offs := []time.Duration{0, 2 * time.Hour, -2 * time.Hour, 90 * time.Second, -90 * time.Second}
	for _, off := range offs {
		for _, then := range offs {
			for at := 1; at < 40; at++ {
				synctest.Test(t, func(t *testing.T) {
					var rejected, readings atomic.Int32
					srv := newFakeServer(func(n int, r fakeRequest) (*http.Response, error) {
						if time.Since(time.Unix(claimsOf(t, r).IAT, 0)).Abs() > time.Minute {
							rejected.Add(1)
							return answer(400, `{"error":"invalid_dpop_proof"}`, "Date", time.Now().UTC().Format(http.TimeFormat)), nil
						}
						return dated(n, r)
					})
					c, _ := newClient(t, srv, func(cfg *oauth.Config) {
						cfg.DPoP = prover
						cfg.Clock = func() time.Time {
							if int(readings.Add(1)) < at {
								return time.Now().Add(off)
							}
							return time.Now().Add(then)
						}
					})
					for i := range 3 {
						if _, err := c.TokenSource().Renew(t.Context()); err != nil {
							t.Errorf("clock off by %v, by %v from reading %d on: renewal %d: %v", off, then, at, i+1, err)
						}
						time.Sleep(time.Minute)
					}
					closeSource(t, c)
					most := int32(0)
					if off != 0 {
						most++ // to see that the clock is wrong
					}
					if then != off {
						most++
					}
					if n := rejected.Load(); n > most {
						t.Errorf("clock off by %v, by %v from reading %d on: %d proofs were rejected, want at most %d", off, then, at, n, most)
					}
				})
			}
		}
	}
}

// A request is made again for three nonces and two corrections of the clock, as the
// package documentation says, and no more.
func TestMostRequestsForOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wall wallClock
		srv := newFakeServer(func(n int, _ fakeRequest) (*http.Response, error) {
			if n <= 3 {
				return answer(400, `{"error":"use_dpop_nonce"}`, "DPoP-Nonce", fmt.Sprint("n", n)), nil
			}
			wall.set(time.Duration(n) * time.Hour)
			return answer(400, `{"error":"invalid_dpop_proof"}`, "Date", time.Now().UTC().Format(http.TimeFormat), "DPoP-Nonce", fmt.Sprint("n", n)), nil
		})
		c, _ := newClient(t, srv, func(cfg *oauth.Config) { cfg.DPoP, cfg.Clock = newProver(t), wall.now })
		if _, err := c.TokenSource().Token(); err == nil || srv.count() != 6 {
			t.Errorf("%d requests (%v), want 6", srv.count(), err)
		}
	})
}
