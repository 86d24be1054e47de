package dpop

import (
	"crypto/sha256"
	"sync"
	"time"
)

// replays remembers proofs for as long as they would be accepted: "In the context
// of the target URI, servers can store the jti value of each DPoP proof for the
// time window in which the respective DPoP proof JWT would be accepted to prevent
// multiple uses of the same DPoP proof" (RFC 9449 §11.1).
//
// Hashes are kept instead of the values, so that an entry has one size.
type replays struct {
	mu    sync.Mutex
	until map[[sha256.Size]byte]time.Time
	queue []replayEntry // in the order of arrival, which is nearly that of expiry
	head  int
}

type replayEntry struct {
	id    [sha256.Size]byte
	until time.Time
}

// add remembers a proof until the given time and reports whether it is new. It
// holds at most limit entries.
func (r *replays) add(htu, jti string, now, until time.Time, limit int) bool {
	id := sha256.Sum256([]byte(htu + "\x00" + jti)) // neither holds a NUL: a URL cannot, and it comes first
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.until[id]; ok {
		return false
	}
	if r.until == nil {
		r.until = make(map[[sha256.Size]byte]time.Time)
	}
	for r.head < len(r.queue) && (len(r.until) >= limit || r.queue[r.head].until.Before(now)) {
		delete(r.until, r.queue[r.head].id)
		r.head++
	}
	if r.head > len(r.queue)/2 {
		r.queue = append(r.queue[:0], r.queue[r.head:]...)
		r.head = 0
	}
	r.until[id] = until
	r.queue = append(r.queue, replayEntry{id, until})
	return true
}
