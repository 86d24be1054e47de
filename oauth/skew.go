package oauth

import (
	"net/http"
	"sync/atomic"
	"time"
)

const (
	// maxSkew bounds what is believed of a server's clock: a Date that is further
	// away is a broken server, not a wrong clock here.
	maxSkew = 24 * time.Hour

	// worthCorrecting is the least skew that proofs are corrected for unasked.
	// The Date header has a resolution of a second, and servers allow for some.
	worthCorrecting = 5 * time.Second

	// worthRetrying is the least change of the correction for which a proof that
	// the server refused is made anew.
	worthRetrying = time.Second

	// maxRoundTrip is the slowest answer whose Date still says something: the
	// estimate is off by up to half of it.
	maxRoundTrip = 10 * time.Second
)

// clockSkew estimates how far the server's clock is ahead of ours, from the Date
// header (RFC 9110 §6.6.1) of its answers, so that a proof's iat is right by the
// clock that it is checked against. Expiry needs no such correction: expires_in
// is a duration, counted by our own clock.
type clockSkew struct {
	estimate atomic.Int64 // nanoseconds
	applied  atomic.Int64
}

func (s *clockSkew) observe(h http.Header, sent, received time.Time) {
	date, err := http.ParseTime(h.Get("Date"))
	roundTrip := received.Sub(sent)
	if err != nil || roundTrip < 0 || roundTrip > maxRoundTrip {
		return
	}
	// The header cuts the time to the second: half of one is the likely rest.
	offset := date.Add(500 * time.Millisecond).Sub(sent.Add(roundTrip / 2))
	if offset.Abs() > maxSkew {
		return
	}
	s.estimate.Store(int64(offset))
	if (offset - time.Duration(s.applied.Load())).Abs() >= worthCorrecting {
		s.applied.Store(int64(offset))
	}
}

// rejected is told that the server refused a proof made with the given
// correction, and reports whether another one could fare better.
func (s *clockSkew) rejected(used time.Duration) bool {
	estimate := time.Duration(s.estimate.Load())
	if (estimate - used).Abs() < worthRetrying {
		return false
	}
	s.applied.Store(int64(estimate))
	return true
}

// correction is what to add to our time.
func (s *clockSkew) correction() time.Duration { return time.Duration(s.applied.Load()) }
