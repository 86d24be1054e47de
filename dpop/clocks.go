package dpop

import (
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/ycauth/ycauth-go/internal/clock"
)

const (
	// maxSkew bounds what is believed of a server's clock. A certificate is valid
	// for 398 days at most (CA/Browser Forum Baseline Requirements §6.3.2), so a
	// clock that is further off fails in TLS, before there is a Date to learn from.
	maxSkew = 400 * 24 * time.Hour

	// worthCorrecting is the least skew that proofs are corrected for unasked.
	// The Date header has a resolution of a second, and servers allow for some.
	worthCorrecting = 5 * time.Second

	// worthRetrying is the least change of the correction for which a rejected
	// proof is made anew.
	worthRetrying = time.Second

	// maxRoundTrip is the slowest response whose Date still says something: the
	// estimate is off by up to half of it.
	maxRoundTrip = 10 * time.Second
)

// Clocks estimates how far the clock of each origin (scheme, host and port) is
// from ours, from the Date header of its responses (RFC 9110 §6.6.1), so that the
// iat of a proof is right by the server's clock. Only proofs need
// this: expires_in and Retry-After in seconds are durations, counted by our own
// clock.
//
// A correction of less than 5 seconds is applied only after the server rejected a
// proof without it. A server can read its clock at any time between the request and the
// response, so half of that time is subtracted from a difference before it counts.
// A Date more than 400 days from our clock is ignored.
//
// Every estimate is anchored to the monotonic clock, so it stays right if our wall clock
// is set back. If the wall clock moves ahead, the computer may have been suspended, so
// the correction stays until the next Date updates it.
//
// A server whose Date is not known yet gets the smallest correction that any other
// server needs. If our own clock is wrong, it is wrong by the same amount for every
// server with a right one. But if one of them agrees with our clock, ours is probably
// right, and the new server gets no correction.
//
// The zero value is ready to use. A Clocks is safe for concurrent use, and may be shared
// by all clients of a program. It keeps at most 128 origins, dropping the least
// recently used one.
type Clocks struct {
	mu      sync.Mutex
	m       map[string]*serverClock
	counter uint64 // of uses, to find the oldest entry
}

// serverClock is what is known of one origin's clock. Its durations are what to
// add to our wall clock, as it was at the last look.
type serverClock struct {
	at       clock.Instant // of the last look
	measured time.Duration // by the Date
	margin   time.Duration // by which measured can be off, on both sides, because the response was slow
	applied  time.Duration // in proofs
	belief   belief
	dateless bool   // it never sent a Date, and our own clock is tried
	used     uint64 // the counter when it was last heard from
}

// belief is how far a Date is believed to be the clock that judges proofs. Behind
// a proxy with a wrong clock it is not.
type belief uint8

const (
	believed belief = iota
	doubted         // a proof with the server's Date was rejected: our own clock is tried
	settled         // so was one with our own clock: the clocks are not the cause
)

// setBack is how far our wall clock was set back since the last look.
func (s *serverClock) setBack(now clock.Instant) time.Duration {
	return max(0, -now.Set(s.at))
}

// Learn reads the Date header of a response of the server of u. received is when the
// response arrived, by the clock that the proofs use, and roundTrip the time since the
// request was sent, by a monotonic clock. Learn should see every response.
//
// Learn ignores a response that took more than 10 seconds, one from a cache, which has
// an Age header (RFC 9111 §5.1), and one with several Date headers.
func (c *Clocks) Learn(u *url.URL, h http.Header, received time.Time, roundTrip time.Duration) {
	dates := h.Values("Date")
	if age := h.Get("Age"); len(dates) != 1 || (age != "" && age != "0") {
		return
	}
	date, err := http.ParseTime(dates[0])
	if err != nil || roundTrip < 0 || roundTrip > maxRoundTrip {
		return
	}
	// The header cuts the time to the second: half of one is the likely rest. The
	// server read its clock half a round trip ago, more or less.
	measured := date.Add(500*time.Millisecond + roundTrip/2).Sub(received.Round(0))
	if measured.Abs() > maxSkew {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.entry(origin(u))
	margin := roundTrip / 2
	if (measured-s.measured).Abs()-margin-s.margin >= worthCorrecting {
		s.belief = believed // a clock was set: what was found out before is void
	}
	s.at, s.measured, s.margin, s.dateless = clock.At(received), measured, margin, false
	if s.belief != doubted && (measured-s.applied).Abs()-margin >= worthCorrecting {
		s.applied = measured
	}
}

// Correction returns the duration to add to now, our time, for the iat of a proof to the
// server of u.
func (c *Clocks) Correction(u *url.URL, now time.Time) time.Duration {
	i := clock.At(now)
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.m[origin(u)]; s != nil {
		return s.applied + s.setBack(i)
	}
	return c.least(i)
}

// least is the smallest correction that a known server needs, for one that is not
// known.
func (c *Clocks) least(now clock.Instant) time.Duration {
	var least time.Duration
	first := true
	for _, s := range c.m {
		if d := s.applied + s.setBack(now); first || d.Abs() < least.Abs() {
			least, first = d, false
		}
	}
	return least
}

// Rejected records that the server of u rejected a proof with this iat, created age ago by
// a monotonic clock. It reports whether to retry with a new proof, whose iat is now plus
// [Clocks.Correction]. Learn must have seen the rejection before.
//
// If the proof already used the Date of the server, that may be from a proxy with a
// wrong clock, so our own clock is tried once.
func (c *Clocks) Rejected(u *url.URL, iat time.Time, age time.Duration, now time.Time) bool {
	// The correction that gives the same proof now. Our clock may have been set since.
	used := iat.Add(age).Sub(now.Round(0))
	i := clock.At(now)
	c.mu.Lock()
	defer c.mu.Unlock()
	key := origin(u)
	s := c.m[key]
	if s == nil {
		// The server sends no Date. Then used is what other servers needed, and our
		// own clock is tried instead.
		if used.Abs() < worthRetrying {
			return false
		}
		s = c.entry(key)
		s.at, s.dateless = i, true
		return true
	}
	shift := s.setBack(i)
	if (s.applied + shift - used).Abs() >= worthRetrying {
		return true // it has changed since the proof was made
	}
	switch {
	case s.dateless:
		delete(c.m, key) // back to what other servers needed
		return (c.least(i) - used).Abs() >= worthRetrying
	case (s.measured+shift-used).Abs()-s.margin >= worthRetrying:
		if s.belief == doubted {
			s.belief = settled
		}
		s.applied = s.measured
		return true
	case s.belief == believed && used.Abs() >= worthCorrecting:
		s.belief, s.applied = doubted, -shift
		return true
	}
	return false
}

// entry returns that of an origin, a new one if there is none.
func (c *Clocks) entry(key string) *serverClock {
	c.counter++
	s := c.m[key]
	if s == nil {
		if c.m == nil {
			c.m = make(map[string]*serverClock)
		}
		if len(c.m) >= maxOrigins {
			c.dropOldest()
		}
		s = new(serverClock)
		c.m[key] = s
	}
	s.used = c.counter
	return s
}

func (c *Clocks) dropOldest() {
	var oldest string
	var used uint64
	for key, s := range c.m {
		if oldest == "" || s.used < used {
			oldest, used = key, s.used
		}
	}
	delete(c.m, oldest)
}
