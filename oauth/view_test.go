package oauth

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/internal/clock"
)

var day = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// at is the instant when the wall clock shows day and d. The monotonic clock stands
// still, or nearly so.
func at(d time.Duration) clock.Instant { return clock.At(day.Add(d)) }

// loginAt is a session of the login at day and d, with tokens of the generation.
func loginAt(d time.Duration, generation uint64) Session {
	return Session{
		Provider: "p", ClientID: "c", Created: day.Add(d), Generation: generation,
		RefreshToken: Secret(fmt.Sprintf("rt-%v-%d", d, generation)), AccessToken: Secret(fmt.Sprintf("at-%v-%d", d, generation)),
		TokenType: "Bearer", Obtained: day, Expiry: day.Add(time.Hour),
	}
}

var fixedMargins = margins{stale: 20 * time.Minute, invalid: 10 * time.Minute}

var errBusy, errOver = errors.New("busy"), error(&LoginRequiredError{Reason: ReasonRejected})

// TestDecide is the table in the documentation of decide, column by column. A
// token lives for an hour from day on; it is stale after 38 to 40 minutes (jitter)
// and invalid after 50.
func TestDecide(t *testing.T) {
	good := view{}.loggedIn(loginAt(0, 1), nil, at(0), fixedMargins)
	refused, ok := good.refusedBy("at-0s-1")
	if !ok {
		t.Fatal("the refusal was ignored")
	}
	over := refused
	over.failure, over.failed, over.quiet = errOver, at(-time.Hour), loginCooldown
	over.dead = deadToken{over.session.RefreshToken, errOver}
	const (
		fresh, stale, invalid, expired = 10 * time.Minute, 45 * time.Minute, 55 * time.Minute, time.Hour
	)
	type want struct {
		token bool
		err   error
		act   action
	}
	serve, wait := want{token: true}, want{act: actWait}
	for _, row := range []struct {
		name        string
		v           view
		age         time.Duration
		synchronous bool
		cause       Cause
		flying      want
		resting     want // an error of nil stands for that of the rest
		otherwise   want
	}{
		{"fresh", good, fresh, false, "", serve, serve, want{token: true, act: actLook}},
		{"fresh, looked", good, 0, false, "", serve, serve, serve},
		{"fresh, Synchronous", good, fresh, true, "", serve, serve, want{token: true, act: actLook}},
		{"stale", good, stale, false, CauseStale, serve, serve, want{token: true, act: actBehind}},
		{"stale, Synchronous", good, stale, true, CauseStale, wait, serve, wait},
		{"invalid, not yet expired", good, invalid, false, CauseInvalid, wait, serve, wait},
		{"invalid, Synchronous", good, invalid, true, CauseInvalid, wait, serve, wait},
		{"refused", refused, fresh, false, CauseRejected, wait, serve, wait},
		{"refused, invalid", refused, invalid, false, CauseRejected, wait, serve, wait},
		{"refused, session ended", over, fresh, false, CauseRejected, wait, want{}, wait},
		{"expired", good, expired, false, CauseInvalid, wait, want{}, wait},
		{"refused and expired", refused, expired, false, CauseInvalid, wait, want{}, wait},
		{"none", view{}, 0, false, CauseInvalid, wait, want{}, wait},
	} {
		now := at(row.age)
		check := func(t *testing.T, v view, w want) {
			t.Helper()
			d := v.decide(now, row.synchronous)
			if (d.token != nil) != w.token || !errors.Is(d.err, w.err) || d.act != w.act || w.token && d.token != v.token {
				t.Errorf("got %+v, want %+v", d, w)
			}
			if (d.act == actWait || d.act == actBehind) && d.cause != row.cause {
				t.Errorf("the cause is %q, want %q", d.cause, row.cause)
			}
			if got := v.need(now); got != row.cause {
				t.Errorf("the need is %q, want %q", got, row.cause)
			}
		}
		t.Run(row.name+"/a renewal runs", func(t *testing.T) {
			v := row.v
			v.flight = new(flight)
			check(t, v, row.flying)
		})
		for name, rest := range map[string]struct {
			change func(v *view)
			err    error
		}{
			"closed":  {func(v *view) { v.closed = true }, ErrClosed},
			"failure": {func(v *view) { v.failure, v.failed, v.quiet = errBusy, now, time.Second }, errBusy},
			"login": {func(v *view) {
				if v.failure == nil {
					v.failure = errOver
				}
				v.failed, v.quiet = now, time.Second
				v.dead = deadToken{v.session.RefreshToken, errOver}
			}, errOver},
			"silence": {func(v *view) {
				v.failure, v.failed, v.busy, v.silence = nil, now, time.Second, errBusy
			}, errBusy},
		} {
			t.Run(row.name+"/resting: "+name, func(t *testing.T) {
				v, w := row.v, row.resting
				rest.change(&v)
				if name == "login" && v.refused {
					w = want{}
				}
				if !w.token {
					w.err = rest.err
				}
				if name == "silence" && row.name == "none" {
					w.err = ErrLoginRequired // nobody has to wait before a login
				}
				pause := lookEvery
				if !w.token {
					pause = loginCooldown
				}
				if name != "closed" && now.Since(v.looked) >= pause {
					w.act = actLook // it costs no request
				}
				check(t, v, w)
			})
			t.Run(row.name+"/rested: "+name, func(t *testing.T) {
				if name == "closed" {
					return // there is no end to that
				}
				v := row.v
				rest.change(&v)
				v.failed = at(row.age - time.Second)
				check(t, v, row.otherwise)
			})
		}
		t.Run(row.name+"/otherwise", func(t *testing.T) { check(t, row.v, row.otherwise) })
	}

	t.Run("refused a moment ago", func(t *testing.T) {
		v := refused
		v.rejected, v.looked = at(fresh), at(fresh)
		for _, tt := range []struct {
			after time.Duration
			act   action
		}{{0, actNothing}, {rejectedPause - 1, actNothing}, {rejectedPause, actWait}} {
			if d := v.decide(at(fresh+tt.after), false); d.act != tt.act || (d.token != nil) != (tt.act == actNothing) || d.err != nil {
				t.Errorf("after %v: %+v", tt.after, d)
			}
		}
		v.failure, v.failed, v.quiet = errOver, at(fresh), loginCooldown
		v.dead = deadToken{v.session.RefreshToken, errOver}
		if d := v.decide(at(fresh+loginCooldown), false); d.act != actWait {
			t.Errorf("a login elsewhere is not looked for: %+v", d)
		}
		v.failure = errBusy
		if d := v.decide(at(fresh+loginCooldown), false); d.act != actWait {
			t.Errorf("once the store has failed, a login elsewhere is not looked for: %+v", d)
		}
		v.failure, v.dead = nil, deadToken{}
		v.rejected = at(expired - time.Second)
		if d := v.decide(at(expired), false); d.act != actWait || d.cause != CauseInvalid {
			t.Errorf("an expired token waits for the pause of refusals: %+v", d)
		}
	})
	t.Run("doubtful", func(t *testing.T) {
		v := good
		v.doubtful, v.looked = v.session.RefreshToken, at(stale)
		if d := v.decide(at(stale), false); d.act != actNothing || d.token == nil {
			t.Errorf("the refresh token is sent again while the access token is good: %+v", d)
		}
		if d := v.decide(at(stale+lookEvery), false); d.act != actLook || d.token == nil {
			t.Errorf("nobody looks whether another process has renewed: %+v", d)
		}
		if d := v.decide(at(invalid), false); d.act != actWait {
			t.Errorf("nothing can be lost any more: %+v", d)
		}
		v.doubtful = "another"
		if d := v.decide(at(stale), false); d.act != actBehind {
			t.Errorf("another refresh token was doubtful: %+v", d)
		}
	})
	t.Run("doubtful and fenced", func(t *testing.T) {
		v := good.doubts(good.session.RefreshToken, true, at(0))
		if d := v.decide(at(stale), false); d.act != actBehind {
			t.Errorf("the end of the rest is enough: %+v", d)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		for _, tt := range []struct {
			name  string
			v     view
			age   time.Duration
			pause time.Duration // until the store is looked at
			want  want          // before
		}{
			{"a token serves", good, stale, lookEvery, want{token: true}},
			{"no token serves", good, expired, loginCooldown, want{err: ErrOutcomeUnknown}},
		} {
			v := tt.v.failedWith(&InterruptedError{wait: time.Hour}, 0, at(tt.age))
			v.looked = at(tt.age)
			check := func(after time.Duration, w want) {
				d := v.decide(at(tt.age+after), false)
				if (d.token != nil) != w.token || !errors.Is(d.err, w.err) || d.act != w.act {
					t.Errorf("%s, after %v: %+v", tt.name, after, d)
				}
			}
			check(tt.pause-1, tt.want)
			w := tt.want
			w.act = actLook
			check(tt.pause, w)
			if v.failures != 0 {
				t.Errorf("%s: a wait for another process's request counts as a failure", tt.name)
			}
			if v.waits(at(tt.age+time.Hour)) || !v.waits(at(tt.age+time.Hour-1)) {
				t.Errorf("%s: Renew waits for another time", tt.name)
			}
		}
	})
	t.Run("to the nanosecond", func(t *testing.T) {
		v := view{token: good.token, born: at(0), stale: stale, invalid: invalid, expires: expired}
		for age, want := range map[time.Duration]Cause{
			stale - 1: "", stale: CauseStale, invalid - 1: CauseStale, invalid: CauseInvalid, expired - 1: CauseInvalid, expired: CauseInvalid,
		} {
			if got := v.need(at(age)); got != want {
				t.Errorf("at %v: %q, want %q", age, got, want)
			}
		}
	})
	t.Run("looks", func(t *testing.T) {
		if d := good.decide(at(lookEvery-1), false); d.act != actNothing {
			t.Errorf("too soon: %+v", d)
		}
		if d := good.decide(at(lookEvery), false); d.act != actLook {
			t.Errorf("too late: %+v", d)
		}
	})
}

func TestMargins(t *testing.T) {
	for _, tt := range []struct {
		name                   string
		m                      margins
		life                   time.Duration
		stale, jitter, invalid time.Duration // before the end; stale without jitter
	}{
		{"default, 12 hours", margins{}, 12 * time.Hour, 2 * time.Hour, 12 * time.Minute, 30 * time.Second},
		{"default, 1 minute", margins{}, time.Minute, 10 * time.Second, time.Second, 6 * time.Second},
		{"default, 5 minutes", margins{}, 5 * time.Minute, 50 * time.Second, 5 * time.Second, 30 * time.Second},
		{"configured", margins{10 * time.Minute, time.Minute}, time.Hour, 10 * time.Minute, time.Minute, time.Minute},
		{"over half of the life", margins{10 * time.Hour, 10 * time.Hour}, time.Hour, 30 * time.Minute, 0, 30 * time.Minute},
		{"stale within invalid", margins{time.Minute, 10 * time.Minute}, time.Hour, 10 * time.Minute, 0, 10 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := loginAt(0, 1)
			s.Expiry = s.Obtained.Add(tt.life)
			least, most := forever, time.Duration(0)
			for range 2000 {
				v := view{}.loggedIn(s, nil, at(0), tt.m)
				if v.expires != tt.life || v.invalid != tt.life-tt.invalid {
					t.Fatalf("expires after %v, invalid after %v", v.expires, v.invalid)
				}
				before := tt.life - v.stale
				least, most = min(least, before), max(most, before)
			}
			if least < tt.stale || most > tt.stale+tt.jitter || most-least < tt.jitter*9/10 {
				t.Errorf("stale %v to %v before the end, want %v and a jitter of %v", least, most, tt.stale, tt.jitter)
			}
		})
	}
	t.Run("unknown life", func(t *testing.T) {
		s := loginAt(0, 1)
		s.Expiry = time.Time{}
		v := view{}.loggedIn(s, nil, at(0), margins{})
		if !(clock.Clock{Wall: func() time.Time { return day }}).Before(v.served) {
			t.Error("a fresh token is not served without a decision")
		}
		if v.expires != forever || v.invalid != forever || v.stale != forever {
			t.Errorf("%+v", v)
		}
	})
	t.Run("no times at all", func(t *testing.T) { // another program made the session
		s := loginAt(0, 1)
		s.Obtained = time.Time{}
		v, _ := view{}.read(s, nil, true, at(0), day, margins{})
		if v.expires != time.Hour || v.invalid != time.Hour || v.stale != time.Hour {
			t.Errorf("%+v", v)
		}
	})
}

func TestCooldownGrows(t *testing.T) {
	v, want := view{}, firstCooldown
	for i := range 80 {
		v = v.failedWith(errBusy, 0, at(0))
		if v.quiet < want || v.quiet > want+want/4 || v.busy != 0 || v.failures != i+1 {
			t.Fatalf("failure %d: quiet for %v, want %v and up to a quarter", i+1, v.quiet, want)
		}
		want = min(2*want, maxCooldown)
	}
	if v = v.failedWith(errBusy, 5*time.Minute, at(0)); v.quiet != 5*time.Minute || v.busy != v.quiet {
		t.Errorf("quiet for %v, the server asked for 5 min", v.quiet)
	}
	if v = v.failedWith(errBusy, time.Hour, at(0)); v.quiet != maxServerCooldown {
		t.Errorf("quiet for %v, the server asked for an hour", v.quiet)
	}
	if v = v.failedWith(errOver, 0, at(0)); v.quiet != loginCooldown {
		t.Errorf("quiet for %v after a session ended", v.quiet)
	}
}

func TestRenewMayBeCalledTenTimesInARow(t *testing.T) {
	for name, wall := range map[string]func() time.Time{
		"a right clock": time.Now,
		"a clock that flaps": func() time.Time { // ahead by 3 hours in every other second
			now := time.Now()
			return now.Add(time.Duration(now.Unix()%2) * 3 * time.Hour)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var v view
				c := clock.Clock{Wall: wall}
				allowed := func(span time.Duration) (n int) {
					for end := time.Now().Add(span); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
						if v.mayForce(c.Now()) {
							v = v.launched(&flight{cause: CauseForced}, c.Now()).landed()
							n++
						}
					}
					return n
				}
				if n := allowed(time.Second); n != 10 {
					t.Errorf("%d in the first second", n)
				}
				if n := allowed(time.Minute); n < 10 || n > 21 {
					t.Errorf("%d in the next minute", n)
				}
				time.Sleep(10 * time.Minute)
				if n := allowed(time.Second); n != 10 {
					t.Errorf("%d after a pause", n)
				}
			})
		})
	}
}

// A computer that slept through a rest, while its monotonic clock stood still, need
// not rest on; a wall clock that is set again and again ends no other rest.
func TestWallClockEndsOneRestAMinute(t *testing.T) {
	v := view{}.failedWith(errBusy, 5*time.Minute, at(0))
	if v.resting(at(4*time.Minute), CauseInvalid) == nil {
		t.Error("it rests no more, by neither clock")
	}
	if err := v.resting(at(time.Hour), CauseInvalid); err != nil {
		t.Errorf("after the sleep: %v", err)
	}
	v = v.launched(&flight{cause: CauseInvalid}, at(time.Hour)).landed().failedWith(errBusy, 5*time.Minute, at(time.Hour))
	if v.resting(at(2*time.Hour), CauseInvalid) == nil {
		t.Error("the wall clock ended two rests at once")
	}
}

func TestSupersedes(t *testing.T) {
	base := loginAt(0, 5)
	next := base
	next.RefreshToken, next.AccessToken, next.Generation = "rt-next", "at-next", 6
	later := next
	later.RefreshToken, later.AccessToken, later.Generation = "rt-later", "at-later", 7
	held := view{}.loggedIn(base, nil, at(0), fixedMargins)
	unsavedOnce := held.renewed(base, next, 0, at(0), fixedMargins)
	unsavedTwice := unsavedOnce.renewed(next, later, 0, at(0), fixedMargins)
	savedOnce := unsavedOnce.saved(next)
	old := loginAt(-time.Hour, 4)
	login := view{}.loggedIn(base, &unsaved{login: true, replaced: old}, at(0), fixedMargins)
	loginRenewed := login.renewed(base, next, 0, at(0), fixedMargins)
	leaving := login
	leaving.leaving = true
	fork := base
	fork.RefreshToken, fork.AccessToken, fork.Generation = "rt-fork", "at-fork", 6
	oldRenewed := old
	oldRenewed.RefreshToken, oldRenewed.Generation = "rt-old-renewed", 5
	behind := base
	behind.Generation = 4
	rolled := base
	rolled.RefreshToken, rolled.Generation = "rt-rolled", 3
	for _, tt := range []struct {
		name   string
		v      view
		stored Session
		want   bool
	}{
		{"nothing in hand", view{}, base, false},
		{"nothing anywhere", view{}, Session{}, false},
		{"the same", held, base, false},
		{"the same, saved before", held, behind, true},
		{"logged out elsewhere", held, Session{}, false},
		{"logged out elsewhere, before the renewal was saved", unsavedOnce, Session{}, false},
		{"another login, later", held, loginAt(time.Hour, 6), false},
		{"another login, earlier", held, old, false},
		{"a sibling renewed", held, next, false},
		{"unsaved, the store is behind", unsavedOnce, base, true},
		{"unsaved twice, the store is behind", unsavedTwice, base, true},
		{"unsaved twice, the first was saved after all", unsavedTwice, next, true},
		{"unsaved, a sibling was faster", unsavedOnce, fork, false},
		{"unsaved, another login", unsavedOnce, loginAt(time.Hour, 6), false},
		{"unsaved, the store was rolled back", unsavedOnce, rolled, true},
		{"saved", savedOnce, next, false},
		{"saved, the store was rolled back", savedOnce, base, true},
		{"saved, the store was rolled back to something unknown", savedOnce, rolled, true},
		{"unsaved login, nothing stored", login, Session{}, true},
		{"unsaved login, being logged out", leaving, Session{}, false},
		{"unsaved login, the replaced one is stored", login, old, true},
		{"unsaved login, the replaced one was renewed", login, oldRenewed, true},
		{"unsaved login, an earlier one is stored, by another clock", login, loginAt(-time.Minute, 9), false},
		{"unsaved login, a later one is stored", login, loginAt(time.Minute, 9), false},
		{"renewed login, never saved, nothing stored", loginRenewed, Session{}, true},
		{"renewed login, never saved, the replaced one is stored", loginRenewed, old, true},
		{"renewed login, was saved after all", loginRenewed, base, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.v.supersedes(tt.stored); got != tt.want {
				t.Errorf("supersedes: %v, want %v", got, tt.want)
			}
		})
	}
	t.Run("a login that replaces one with a clock ahead", func(t *testing.T) {
		ahead := loginAt(time.Hour, 4)
		v := view{}.loggedIn(base, &unsaved{login: true, replaced: ahead}, at(0), fixedMargins)
		ahead.RefreshToken, ahead.Generation = "renewed since", 5
		if !v.supersedes(ahead) {
			t.Error("the login was given up for the one that it replaces")
		}
	})
	t.Run("unsaved for ever", func(t *testing.T) {
		v, s := held, base
		for i := range 100 {
			n := s
			n.RefreshToken, n.Generation = Secret(fmt.Sprint("rt-", i)), s.Generation+1
			v = v.renewed(s, n, 0, at(0), fixedMargins)
			s = n
			if !v.supersedes(base) {
				t.Fatalf("after %d renewals the store's token counts as newer", i+1)
			}
		}
		if len(v.ancestors) != maxAncestors {
			t.Errorf("%d refresh tokens are kept", len(v.ancestors))
		}
	})
}

func TestRead(t *testing.T) {
	base := loginAt(0, 5)
	newer := loginAt(0, 6)
	other := loginAt(time.Hour, 1)
	held := view{}.loggedIn(base, nil, at(0), fixedMargins)
	dirty := held.renewed(base, newer, 0, at(0), fixedMargins)
	refused, _ := held.refusedBy("at-0s-5")
	sameToken := newer
	sameToken.AccessToken = base.AccessToken
	foreign := errors.New("of another client")
	fork := newer
	fork.RefreshToken, fork.AccessToken = "rt-fork", "at-fork"
	forkOfOld := fork
	forkOfOld.Generation = 5
	behind := base
	behind.RefreshToken, behind.Generation = "rt-old", 4
	for _, tt := range []struct {
		name    string
		v       view
		stored  Session
		mine    error
		usable  bool
		told    told
		token   string // "" for none
		session Session
		unsaved bool
		epochs  uint64
	}{
		{"nothing anywhere", view{}, Session{}, nil, true, toldNothing, "", Session{}, false, 0},
		{"the first read", view{}, base, nil, true, toldNewer, "at-0s-5", base, false, 0},
		{"the same", held, base, nil, true, toldNothing, "at-0s-5", base, false, 0},
		{"a sibling renewed", held, newer, nil, true, toldNewer, "at-0s-6", newer, false, 0},
		{"a sibling renewed with another key", held, newer, nil, false, toldNewer, "at-0s-5", newer, false, 0},
		{"a sibling renewed with another key, and ours was rejected", refused, newer, nil, false, toldNewer, "", newer, false, 0},
		{"another client's", held, newer, foreign, true, toldNewer, "", newer, false, 0},
		{"another login", held, other, nil, true, toldReplaced, "at-1h0m0s-1", other, false, 1},
		{"another login before a renewal was saved", dirty, other, nil, true, toldReplaced, "at-1h0m0s-1", other, false, 1},
		{"a logout", held, Session{}, nil, true, toldGone, "", Session{}, false, 1},
		{"a logout before a renewal was saved", dirty, Session{}, nil, true, toldGone, "", Session{}, false, 1},
		{"the store is behind", dirty, base, nil, true, toldNothing, "at-0s-6", newer, true, 0},
		{"a sibling was faster to save", dirty, fork, nil, true, toldNewer, "at-fork", fork, false, 0},
		{"the store was rolled back, and renewed from there", held, forkOfOld, nil, true, toldNewer, "at-fork", forkOfOld, false, 0},
		{"the store was rolled back", held, behind, nil, true, toldNothing, "at-0s-5", base, true, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			now := at(time.Minute)
			v, told := tt.v.read(tt.stored, tt.mine, tt.usable, now, now.Wall(), fixedMargins)
			token := ""
			if v.token != nil {
				token = v.token.AccessToken
			}
			if told != tt.told || token != tt.token || !holds(v.session, tt.session) || (v.unsaved != nil) != tt.unsaved || v.epoch != tt.v.epoch+tt.epochs {
				t.Errorf("told %v, token %q, session %v, unsaved %v, epoch %d", told, token, v.session.Generation, v.unsaved, v.epoch)
			}
			if v.looked != now {
				t.Error("the look was not noted")
			}
		})
	}
	t.Run("a refusal outlives a renewal that brings the same token", func(t *testing.T) {
		if v, _ := refused.read(sameToken, nil, true, at(0), day, fixedMargins); !v.refused {
			t.Error("forgotten")
		}
		if v, _ := refused.read(newer, nil, true, at(0), day, fixedMargins); v.refused {
			t.Error("another token counts as refused")
		}
		if v := refused.renewed(base, sameToken, refused.refusals, at(0), fixedMargins); v.refused {
			t.Error("the server gave the same token again after the refusal: it is good for now")
		}
		if v := refused.renewed(base, sameToken, refused.refusals-1, at(0), fixedMargins); !v.refused {
			t.Error("the refusal came after the renewal began")
		}
	})
	t.Run("forgets failures", func(t *testing.T) {
		v := held.failedWith(errBusy, time.Minute, at(0))
		v, _ = v.read(newer, nil, true, at(0), day, fixedMargins)
		if v.failure != nil || v.failures != 0 || v.quiet != 0 {
			t.Errorf("%v, %d, %v", v.failure, v.failures, v.quiet)
		}
	})
}

// remaining is told what the clocks say, in hours since the token was obtained
// with a life of 12.
func TestRemaining(t *testing.T) {
	const none = -1000
	for _, tt := range []struct {
		name           string
		wall           float64 // our clock
		issued, server float64 // by the server's clock, as far as known
		left           float64
		plausible      bool
	}{
		{"new", 0, none, 0, 12, true},
		{"old", 11, none, 11, 1, true},
		{"dead", 13, none, 13, -1, true},
		{"our clock is a little behind", -0.08, none, 0, 12, true},
		{"our clock is behind", -0.1, none, 0, 12, false},
		{"the server agrees", 3, 0, 3, 9, true},
		{"the writer's clock was behind", 3, 2, 3, 9, true},
		{"the writer's clock was ahead, the server knows", 3, -5, 3, 4, true},
		{"our clock was set back, the server knows", -3, 0, 13, -1, true},
		{"the server's time is unknown and ours is behind", -3, 0, -3, 12, false},
		{"our clock is behind, and was then", 1, 4, 1, 11, true},
		{"our clock is behind, and was then, the server knows", 1, 4, 5, 11, true},
		{"our clock is behind, and was then, dead", 13, 16, 13, -1, true},
		{"our clock is further behind than then", -1, 4, -1, 12, false},
		{"our clock is ahead, and was then", 1, -2, 1, 9, true},
		{"the server's Date is far in the future", 1, 1e5, 1, 11, true},
		{"both from the future", -1, 1e5, 0, 12, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := func(hours float64) time.Time { return day.Add(time.Duration(hours * float64(time.Hour))) }
			s := Session{Obtained: day, Expiry: in(12)}
			if tt.issued != none {
				s.Issued = in(tt.issued)
			}
			left, plausible := remaining(s, in(tt.wall), in(tt.server))
			if left != time.Duration(tt.left*float64(time.Hour)) || plausible != tt.plausible {
				t.Errorf("%v left, plausible: %v", left, plausible)
			}
		})
	}
}

// A wall clock that jumps between the birth of a token and a look, and is put
// right, does not put off the next look.
func TestServeSpanSurvivesTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := view{}.loggedIn(loginAt(0, 1), nil, clock.At(day), fixedMargins)
		v, _ = v.read(v.session, nil, true, clock.At(day.Add(30*time.Minute)), day, fixedMargins)
		time.Sleep(2 * time.Minute)
		if (clock.Clock{Wall: func() time.Time { return day.Add(2 * time.Minute) }}).Before(v.served) {
			t.Error("2 minutes are served without a look")
		}
	})
}

// --- FuzzView ----------------------------------------------------------------

// A fuzzedView is a view, and a world around it that knows what must hold.
type fuzzedView struct {
	t      *testing.T
	v      view
	off    time.Duration // of the wall clock
	serial int

	stored  Session
	history []Session // of the store
	live    map[string]Secret
	born    map[string]clock.Instant // of the tokens that were issued to this process
	lives   map[string]time.Duration
}

func (f *fuzzedView) now() clock.Instant { return clock.At(time.Now().Add(f.off)) }

func (f *fuzzedView) put(s Session) {
	if !f.stored.IsZero() {
		f.history = append(f.history, f.stored)
	}
	f.stored = s
}

func login(s Session) string { return s.Created.Format(time.RFC3339Nano) }

// issue is a response of the server to whoever holds base.
func (f *fuzzedView) issue(base Session, life time.Duration, rotate bool) Session {
	f.serial++
	next := base
	now := f.now()
	next.AccessToken, next.TokenType = Secret(fmt.Sprint("at-", f.serial)), "Bearer"
	next.Obtained, next.Expiry = now.Wall(), now.Wall().Add(life)
	next.Generation = base.Generation + 1
	if rotate {
		next.RefreshToken = Secret(fmt.Sprint("rt-", f.serial))
		f.live[login(next)] = next.RefreshToken
	}
	f.lives[next.AccessToken.Reveal()] = life
	return next
}

func (f *fuzzedView) newLogin(life time.Duration) Session {
	time.Sleep(time.Nanosecond) // no two logins at once
	s := Session{Provider: "p", ClientID: "c", Created: time.Now()}
	return f.issue(s, life, true)
}

// renew does what a renewal does under the store's lock: arg says how the request
// and the save end.
func (f *fuzzedView) renew(arg byte, life time.Duration) {
	now := f.now()
	f.read(f.stored)
	base := f.stored
	if f.v.supersedes(f.stored) {
		base = f.v.session
		base.Generation = max(base.Generation, f.stored.Generation+1)
	}
	if base.RefreshToken == "" {
		return
	}
	current := f.live[login(base)]
	if sameLogin(f.v.session, base) && f.v.session.RefreshToken == current && base.RefreshToken != current {
		f.t.Fatalf("%v was sent, and %v is in hand", base.RefreshToken.Reveal(), current.Reveal())
	}
	if arg&1 != 0 {
		err := errBusy
		if arg&16 != 0 {
			err = errOver
		}
		f.v = f.v.failedWith(err, 0, now)
		return
	}
	next := f.issue(base, life, arg&2 != 0)
	f.born[next.AccessToken.Reveal()] = now
	if arg&4 != 0 && next.RefreshToken != base.RefreshToken {
		next.AccessToken, next.Obtained, next.Expiry = base.AccessToken, base.Obtained, base.Expiry
		f.v = f.v.rotated(base, next) // the rest of the response was useless
	} else {
		f.v = f.v.renewed(base, next, f.v.refusals, now, fixedMargins)
	}
	if arg&8 != 0 {
		f.v = f.v.notSaved(errBusy)
		return
	}
	f.put(next)
	f.v = f.v.saved(next)
}

func (f *fuzzedView) read(stored Session) {
	before := f.v
	v, what := f.v.read(stored, nil, stored.AccessToken != "", f.now(), f.now().Wall(), fixedMargins)
	f.v = v
	dropped := before.unsaved != nil && !before.session.IsZero() && v.session.RefreshToken != before.session.RefreshToken
	if dropped && what == toldNothing {
		f.t.Fatal("an unsaved session was dropped, and nobody is told")
	}
	if dropped && what == toldNewer && slices.Contains(before.ancestors, stored.RefreshToken) {
		f.t.Fatal("an unsaved session was dropped for one that it came from")
	}
}

// save does what the saver does.
func (f *fuzzedView) save() {
	switch {
	case f.v.unsaved == nil:
		return
	case f.v.supersedes(f.stored):
		kept := f.v.session
		kept.Generation = max(kept.Generation, f.stored.Generation+1)
		f.put(kept)
		f.v = f.v.saved(kept)
	default:
		if holds(f.stored, f.v.session) {
			f.v = f.v.saved(f.stored)
			break
		}
		f.read(f.stored)
	}
	if f.v.unsaved != nil {
		f.t.Fatal("saved, and still unsaved")
	}
	if f.v.session.RefreshToken != f.stored.RefreshToken {
		f.t.Fatalf("%q is in hand and counts as saved, the store has %q", f.v.session.RefreshToken.Reveal(), f.stored.RefreshToken.Reveal())
	}
}

// check holds the view against the rules that a view alone can break.
func (f *fuzzedView) check() {
	f.t.Helper()
	now := f.now()
	for _, synchronous := range []bool{false, true} {
		d := f.v.decide(now, synchronous)
		if d.act == actWait && (d.token != nil || d.err != nil) || d.act != actWait && (d.token == nil) == (d.err == nil) {
			f.t.Fatalf("the verdict is no verdict: %+v", d)
		}
		if d.err != nil && errors.Is(d.err, errRejectedAgain) {
			f.t.Fatal("a caller sees errRejectedAgain")
		}
		if f.v.closed && (d.act == actWait && f.v.flight == nil || d.act == actBehind || d.act == actLook) {
			f.t.Fatalf("a closed source begins %v", d.act)
		}
		begins := (d.act == actWait || d.act == actBehind) && f.v.flight == nil
		if begins && f.v.failure != nil && now.Since(f.v.failed) < f.v.quiet {
			f.t.Fatal("a renewal begins during the rest")
		}
		if begins && d.cause == CauseRejected && now.Since(f.v.rejected) < rejectedPause {
			f.t.Fatal("a second renewal for a refusal within 30 s")
		}
		if fast := (clock.Clock{Wall: now.Wall}).Before(f.v.served); fast && (d.act != actNothing || d.token == nil || f.v.refused) {
			f.t.Fatalf("served without a decision, which would be %+v", d)
		}
		if d.token == nil {
			continue
		}
		token := d.token.AccessToken
		if token != f.v.session.AccessToken.Reveal() {
			f.t.Fatalf("%q is served, and the session has %q", token, f.v.session.AccessToken.Reveal())
		}
		if born, mine := f.born[token]; mine && now.Since(born) >= f.lives[token] {
			f.t.Fatalf("a token is served %v after its issue", now.Since(born))
		}
		if !now.Wall().Before(d.token.Expiry) {
			f.t.Fatal("an expired token is served")
		}
	}
	if f.v.unsaved != nil && f.v.session.IsZero() {
		f.t.Fatal("nothing is unsaved")
	}
	if len(f.v.ancestors) > maxAncestors || slices.Contains(f.v.ancestors, f.v.session.RefreshToken) {
		f.t.Fatalf("the ancestors are %v", len(f.v.ancestors))
	}
}

func FuzzView(f *testing.F) {
	for _, seed := range [][]byte{
		{8, 0, 1, 2, 12, 60, 1, 2},                               // login, renew, an hour, renew
		{8, 0, 1, 10, 1, 10, 5, 0, 1, 2},                         // unsaved renewal of an unsaved renewal, saved
		{8, 1, 3, 0, 5, 0, 7, 0},                                 // unsaved login, a look, saved
		{8, 0, 1, 2, 6, 0, 3, 0, 1, 2},                           // the store is rolled back
		{8, 0, 1, 10, 4, 0, 5, 0},                                // a sibling renews from the same token
		{8, 0, 9, 0, 12, 1, 9, 0, 1, 2, 9, 0, 12, 200},           // refusals
		{8, 0, 1, 1, 1, 1, 12, 1, 1, 0, 10, 0, 12, 200},          // failures, then closed
		{8, 0, 13, 200, 3, 0, 13, 56, 12, 5, 3, 0, 1, 2},         // the clock jumps ahead and back
		{8, 0, 11, 0, 3, 0, 8, 1, 11, 1, 3, 0, 7, 0, 2, 0, 5, 0}, // logouts and logins elsewhere
		{8, 0, 9, 0, 0, 3, 1, 17, 0, 0, 12, 0, 9, 0},             // a refusal, and the session has ended
		{8, 1, 1, 14, 1, 6, 1, 12, 5, 0},                         // useless responses with a refresh token
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, events []byte) {
		if len(events) > 400 {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			w := &fuzzedView{t: t, live: map[string]Secret{}, born: map[string]clock.Instant{}, lives: map[string]time.Duration{}}
			for i := 0; i+1 < len(events); i += 2 {
				w.event(events[i]%14, events[i+1])
				w.check()
			}
			w.save()
			w.check()
		})
	})
}

func (f *fuzzedView) event(kind, arg byte) {
	life := time.Hour
	now := f.now()
	switch kind {
	case 0: // a renewal begins, and ends
		cause := []Cause{CauseStale, CauseInvalid, CauseForced, CauseRejected}[arg&3]
		if f.v.flight == nil {
			f.v = f.v.launched(&flight{cause: cause}, now)
		} else {
			f.v = f.v.landed()
		}
	case 1:
		f.renew(arg, life)
	case 2: // another login, elsewhere
		f.put(f.newLogin(life))
	case 3:
		f.read(f.stored)
	case 4: // a sibling renews
		if f.stored.RefreshToken != "" && (arg&1 != 0 || f.live[login(f.stored)] == f.stored.RefreshToken) {
			f.put(f.issue(f.stored, life, arg&2 == 0))
			f.live[login(f.stored)] = f.stored.RefreshToken // with arg&1, the server is lenient
		}
	case 5:
		f.save()
	case 6: // somebody restores a backup of this login
		if n := len(f.history); n > 0 {
			if old := f.history[int(arg)%n]; sameLogin(old, f.stored) {
				f.put(old)
			}
		}
	case 7:
		f.v = f.v.notSaved(errBusy)
	case 8: // a login here
		s := f.newLogin(life)
		f.born[s.AccessToken.Reveal()] = now
		f.v = f.v.loggedIn(s, &unsaved{login: true, replaced: f.stored}, now, fixedMargins)
		if arg&1 == 0 {
			s.Generation = max(s.Generation, f.stored.Generation+1)
			f.put(s)
			f.v = f.v.saved(s)
		}
	case 9: // a resource refuses
		if f.v.token != nil {
			f.v, _ = f.v.refusedBy(f.v.token.AccessToken)
		}
	case 10:
		f.v.closed = arg&1 == 0
	case 11: // a logout, here or elsewhere
		f.put(Session{})
		if arg&1 != 0 {
			f.v = f.v.loggedOut()
		}
	case 12:
		time.Sleep(time.Duration(arg) * time.Minute)
	case 13:
		f.off += time.Duration(int8(arg)) * 7 * time.Minute
	}
}
