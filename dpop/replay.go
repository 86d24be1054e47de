package dpop

import (
	"context"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/ycauth/ycauth-go/internal/clock"
)

// A ReplayCache remembers the proofs that the replicas of a server have accepted (RFC 9449
// §11.1), in storage that they share. A [Verifier] calls it once for each proof that passed
// all other checks.
type ReplayCache interface {
	// Add stores id for life or longer, and reports whether id was new. Of all calls with
	// one id by all replicas, only one may return true. So it must be one atomic
	// operation of the storage, such as SET with NX and PX in Redis.
	//
	// id has 22 characters of base64url; it identifies the URL and the jti of the proof.
	// life is at least one second, and at most 90 with the defaults of Verifier. It
	// allows the clocks of the replicas to differ by [Verifier.Leeway].
	//
	// ctx is that of the request, if the Verifier has one, and ends after at most 5
	// seconds. Add must return then: the Verifier waits for it, however long it takes. If
	// Add returns an error, the proof is rejected, because it may have been
	// used before. Add must be safe for concurrent use.
	Add(ctx context.Context, id string, life time.Duration) (added bool, err error)
}

// maxReplayWait is how long a request waits for a ReplayCache.
const maxReplayWait = 5 * time.Second

// century bounds the time for which a ReplayCache remembers a proof.
const century = 100 * 365 * 24 * time.Hour

// replays remembers proofs for as long as they would be accepted: "In the context
// of the target URI, servers can store the jti value of each DPoP proof for the
// time window in which the respective DPoP proof JWT would be accepted to prevent
// multiple uses of the same DPoP proof" (RFC 9449 §11.1).
//
// Hashes are kept instead of the values, so that an entry has one size.
type replays struct {
	mu    sync.Mutex
	known map[proofID]struct{}
	queue []replayEntry // a ring, in the order of arrival, which is nearly that of expiry
	head  int           // the oldest entry in it
	count int
}

// proofID is a SHA-256, cut to half. Somebody who finds two proofs of one hash can
// only have the second one of their own rejected.
type proofID [16]byte

type replayEntry struct {
	id    proofID
	until clock.Limit
}

func replayID(htu, jti string) proofID {
	sum := sha256.Sum256([]byte(htu + "\x00" + jti)) // neither holds a NUL: a URL cannot, and it comes first
	return proofID(sum[:])
}

// add remembers a proof for the given time, by both clocks: the wall clock may be set
// ahead and put right, and a proof is young again when it is set back. It reports
// whether the proof is new. It holds at most limit entries, which must be at least 1.
func (r *replays) add(id proofID, now clock.Instant, life time.Duration, limit int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.known[id]; ok {
		return false
	}
	if r.known == nil {
		r.known = make(map[proofID]struct{})
	}
	for r.count > 0 && (r.count >= limit || r.queue[r.head].until.Passed(now)) {
		delete(r.known, r.queue[r.head].id)
		r.head = (r.head + 1) % len(r.queue)
		r.count--
	}
	if r.count == len(r.queue) {
		r.grow(limit)
	}
	r.known[id] = struct{}{}
	r.queue[(r.head+r.count)%len(r.queue)] = replayEntry{id, now.Limit(life)}
	r.count++
	return true
}

// grow makes room for twice as many entries, but not for more than limit.
func (r *replays) grow(limit int) {
	queue := make([]replayEntry, min(max(2*r.count, 64), limit))
	n := copy(queue, r.queue[r.head:])
	copy(queue[n:], r.queue[:r.head])
	r.queue, r.head = queue, 0
}
