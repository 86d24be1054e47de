package oauth

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ycauth/ycauth-go/internal/clock"
)

// What happens at the very limit of a rule, and just beyond it.

func TestWhatAResponseSaysOfTheGrant(t *testing.T) {
	for _, tt := range []struct {
		status  int
		code    string
		spent   bool // the grant may have been
		refusal bool
	}{
		{200, "", true, false},
		{299, "", true, false},
		{200, "invalid_grant", false, true},
		{300, "", false, true},
		{400, "invalid_grant", false, true},
		{400, "", false, false}, // of a proxy
		{499, "x", false, true},
		{500, "", true, false},
		{503, "", false, false},
		{504, "", true, false},
	} {
		e := &ServerError{Status: tt.status, Code: tt.code}
		if got := e.mayHaveSpent(); got != tt.spent {
			t.Errorf("%d %q: may have spent the grant: %v", tt.status, tt.code, got)
		}
		if got := isRefusal(e); got != tt.refusal {
			t.Errorf("%d %q: a refusal: %v", tt.status, tt.code, got)
		}
	}
	if isRefusal(errBusy) {
		t.Error("whatever fails counts as a refusal")
	}
}

func TestCharactersOfATokenAndOfAScope(t *testing.T) {
	for s, want := range map[string]struct{ token, scope bool }{
		"": {false, false}, "\x1f": {false, false}, " ": {true, false}, "!": {true, true}, "~": {true, true},
		"\x7f": {false, false}, "\"": {true, false}, "\\": {true, false}, "ж": {false, false},
	} {
		if token, scope := isVSChars(s), isScopeToken(s); token != want.token || scope != want.scope {
			t.Errorf("%q: a token %v, a scope %v", s, token, scope)
		}
	}
}

func TestParseLifetime(t *testing.T) {
	for raw, want := range map[string]time.Duration{
		"": 0, "null": 0, "0.999": 0, "1": time.Second, `" 1 "`: time.Second, "1.5": 1500 * time.Millisecond, "NaN": 0, "Inf": maxLifetime, "-Inf": 0,
		"3153599999": maxLifetime - time.Second, "3153600000": maxLifetime, "3153600001": maxLifetime,
	} {
		if got := parseLifetime([]byte(raw)); got != want {
			t.Errorf("%s: %v, want %v", raw, got, want)
		}
	}
}

func TestLongErrorCode(t *testing.T) {
	for length, ok := range map[int]bool{128: true, 129: false} {
		code, _, err := parseErrorAnswer([]byte(`{"error":"`+strings.Repeat("x", length)+`"}`), nil)
		if (err == nil) != ok || ok && len(code) != length {
			t.Errorf("%d bytes: %q, %v", length, code, err)
		}
	}
}

// A proof that was rejected is made anew once, and once more if our clock was set in
// between.
func TestBetterProof(t *testing.T) {
	for _, tt := range []struct {
		name     string
		set      time.Duration // our clock, after the first rejection
		rejected int
		want     bool
	}{
		{"the first", 0, 0, true},
		{"the second, and the clock runs on", 0, 1, false},
		{"the second, and the clock was set a little", time.Second - 1, 1, false},
		{"the second, and the clock was set", time.Second, 1, true},
		{"the second, and the clock was set back", -time.Second, 1, true},
		{"the third", time.Hour, 2, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var off time.Duration
				c, err := New(Config{
					Provider: Provider{Name: "p", TokenURL: "https://as.example/token"}, ClientID: "c",
					Clock: func() time.Time { return time.Now().Add(off) },
				})
				if err != nil {
					t.Fatal(err)
				}
				var rejected []clock.Instant
				for range tt.rejected {
					rejected = append(rejected, c.clock.Now())
				}
				off = tt.set
				made := c.clock.Now()
				if got := c.betterProof(beginning{made: made, iat: made.Wall().Add(time.Hour)}, rejected); got != tt.want {
					t.Errorf("%v", got)
				}
			})
		})
	}
}

func TestCanUse(t *testing.T) {
	for _, tt := range []struct {
		name string
		key  string // of the client
		s    Session
		want bool
	}{
		{"no token", "k", Session{}, false},
		{"a bearer token", "", Session{AccessToken: "at", TokenType: "Bearer"}, true},
		{"a bearer token, for a client with a key", "k", Session{AccessToken: "at", TokenType: "Bearer", KeyThumbprint: "other"}, true},
		{"our key", "k", Session{AccessToken: "at", TokenType: "DPoP", TokenThumbprint: "k", KeyThumbprint: "other"}, true},
		{"our key, without a token", "k", Session{TokenType: "DPoP", TokenThumbprint: "k"}, false},
		{"another key", "k", Session{AccessToken: "at", TokenType: "DPoP", TokenThumbprint: "other", KeyThumbprint: "k"}, false},
		{"our key, by an older release", "k", Session{AccessToken: "at", TokenType: "DPoP", KeyThumbprint: "k"}, true},
		{"another key, by an older release", "k", Session{AccessToken: "at", TokenType: "DPoP", KeyThumbprint: "other"}, false},
		{"a key, and the client has none", "", Session{AccessToken: "at", TokenType: "DPoP", TokenThumbprint: "k"}, false},
		{"no key anywhere", "", Session{AccessToken: "at", TokenType: "DPoP"}, false},
	} {
		if got := (&Client{thumbprint: tt.key}).canUse(tt.s); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestRemainingToleratesFiveMinutes(t *testing.T) {
	for ahead, want := range map[time.Duration]bool{clockTolerance: true, clockTolerance + 1: false} {
		s := Session{Obtained: day.Add(ahead), Expiry: day.Add(time.Hour)}
		if _, plausible := remaining(s, day, day); plausible != want {
			t.Errorf("obtained %v from now: plausible: %v", ahead, plausible)
		}
		s.Obtained, s.Issued = day.Add(24*time.Hour), day.Add(ahead)
		if _, plausible := remaining(s, day, day); plausible != want {
			t.Errorf("issued %v from now: plausible: %v", ahead, plausible)
		}
		s.Obtained = time.Time{} // by other software
		if _, plausible := remaining(s, day, day); plausible != want {
			t.Errorf("issued %v from now, and obtained nobody knows when: plausible: %v", ahead, plausible)
		}
	}
}

func TestRestsEndOnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := view{failure: errBusy, failed: clock.At(time.Now()), quiet: 10 * time.Second, credited: clock.At(time.Now())}
		time.Sleep(v.quiet - 1)
		if v.resting(clock.At(time.Now()), CauseInvalid) == nil {
			t.Error("it rests no more before the end")
		}
		time.Sleep(time.Nanosecond)
		if err := v.resting(clock.At(time.Now()), CauseInvalid); err != nil {
			t.Errorf("it rests on: %v", err)
		}
		time.Sleep(creditPause - v.quiet - 1)
		if v.hasCredit(clock.At(time.Now())) {
			t.Error("the wall clock alone may end two rests within a minute")
		}
		time.Sleep(time.Nanosecond)
		if !v.hasCredit(clock.At(time.Now())) {
			t.Error("the wall clock alone may not end a rest after a minute")
		}
	})
}

// A renewal costs credit only if it would have had to wait by the monotonic clock.
func TestCreditIsSpentOnlyForARest(t *testing.T) {
	failed := func(v *view, now clock.Instant) { v.failure, v.failed, v.quiet = errBusy, now, rejectedPause }
	rejected := func(v *view, now clock.Instant) { v.rejected = now }
	for _, tt := range []struct {
		name   string
		before func(*view, clock.Instant)
		cause  Cause
		after  time.Duration
		spent  bool
	}{
		{"nothing to wait for", nil, CauseInvalid, 0, false},
		{"the first rejected token", nil, CauseRejected, 0, false},
		{"during the rest after a failure", failed, CauseInvalid, rejectedPause - 1, true},
		{"at its end", failed, CauseInvalid, rejectedPause, false},
		{"Renew during the rest", failed, CauseForced, 0, false},
		{"a second rejected token, too soon", rejected, CauseRejected, rejectedPause - 1, true},
		{"a second rejected token", rejected, CauseRejected, rejectedPause, false},
		{"an expired one instead", rejected, CauseInvalid, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var v view
				if tt.before != nil {
					tt.before(&v, clock.At(time.Now()))
				}
				time.Sleep(tt.after)
				v = v.launched(&flight{cause: tt.cause}, clock.At(time.Now()))
				if spent := !v.credited.IsZero(); spent != tt.spent {
					t.Errorf("spent: %v", spent)
				}
			})
		})
	}
}

// After the computer slept, Renew may be called again, as often as the wall clock says.
func TestSleepAllowsRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var v view
		for i := range forcedBurst {
			if !v.mayForce(at(0)) {
				t.Fatalf("not the %dth in a row", i+1)
			}
			v = v.launched(&flight{cause: CauseForced}, at(0)).landed()
		}
		for slept, want := range map[time.Duration]bool{0: false, forcedPause - 1: false, forcedPause: true, time.Hour: true} {
			if got := v.mayForce(at(slept)); got != want {
				t.Errorf("after %v: %v", slept, got)
			}
		}
	})
}

func TestPatienceEndsWithTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := redeeming(t, NewMemoryStore())
		for patience, want := range map[time.Duration]bool{time.Second: false, time.Second + 1: true} {
			start := time.Now()
			c.source.view.Store(&view{failed: c.clock.Now(), quiet: time.Second})
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			got := c.source.rest(ctx)
			cancel()
			if got != want || !want && time.Since(start) != 0 {
				t.Errorf("%v: %v after %v", patience, got, time.Since(start))
			}
		}
	})
}

func TestWithin(t *testing.T) {
	for late, want := range map[time.Duration]bool{0: true, 50 * time.Millisecond: true, 200 * time.Millisecond: false} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			done := make(chan struct{})
			time.AfterFunc(late, func() { close(done) })
			if got := within(ctx, done); got != want {
				t.Errorf("%v after the end: %v", late, got)
			}
			time.Sleep(time.Second)
		})
	}
}

// The session of a login that was not saved counts on from the stored one: whoever
// reads both must take it for the newer one.
func TestUnsavedLoginCountsOn(t *testing.T) {
	old := loginAt(-time.Hour, 5)
	for name, save := range map[string]func(t *testing.T, c *Client) (generation uint64){
		"saved as it is": func(t *testing.T, c *Client) uint64 {
			if err := c.source.save(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			return 6
		},
		"renewed": func(t *testing.T, c *Client) uint64 {
			if _, err := c.source.Renew(t.Context()); err != nil {
				t.Fatal(err)
			}
			return 7
		},
	} {
		t.Run(name, func(t *testing.T) {
			store := NewMemoryStore()
			if err := store.Update(t.Context(), func(Session) (Session, error) { return old, nil }); err != nil {
				t.Fatal(err)
			}
			c := redeeming(t, store, renewedBody)
			c.source.loggedIn(loginAt(0, 1), &unsaved{login: true, replaced: old})
			want := save(t, c)
			if s, err := store.Load(t.Context()); err != nil || s.Generation != want {
				t.Errorf("stored generation %d, want %d (%v)", s.Generation, want, err)
			}
		})
	}
}

func TestListenerOfALoginIsBounded(t *testing.T) {
	cb, err := listenCallback(t.Context(), redirect{host: "127.0.0.1", path: "/"}, expectedIssuer{})
	if err != nil {
		t.Fatal(err)
	}
	defer cb.finish(errors.New("nobody logs in"))
	if cb.srv.ReadHeaderTimeout != 10*time.Second || cb.srv.MaxHeaderBytes != http.DefaultMaxHeaderBytes/16 {
		t.Errorf("a request may take %v and have %d bytes", cb.srv.ReadHeaderTimeout, cb.srv.MaxHeaderBytes)
	}
}
