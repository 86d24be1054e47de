package iamtest

import (
	"slices"
	"time"
)

// nonces are those that the server gave and still accepts. Methods are called
// with Server.mu held.
type nonces struct {
	spaces map[string]*nonceSpace
}

// A nonceSpace is where a nonce is good: everywhere, unless
// Options.SeparateNonces.
type nonceSpace struct {
	newest  string
	answers int                  // that carried the newest
	made    map[string]time.Time // of every nonce that is still remembered
	order   []string             // of those in made, the newest one last
}

// maxNonces bounds the memory where each answer has a new nonce.
const maxNonces = 4096

// space of an endpoint; grantType is "" but for token requests.
func (n *nonces) space(o *Options, grantType string) *nonceSpace {
	name := ""
	if o.SeparateNonces && (grantType == grantCode || grantType == grantRefresh) {
		name = grantType
	}
	if n.spaces == nil {
		n.spaces = map[string]*nonceSpace{}
	}
	s := n.spaces[name]
	if s == nil {
		s = &nonceSpace{made: map[string]time.Time{}}
		n.spaces[name] = s
	}
	return s
}

// valid reports whether a proof may carry the nonce.
func (s *nonceSpace) valid(now time.Time, o *Options, nonce string) bool {
	made, ok := s.made[nonce]
	return ok && now.Sub(made) < o.NonceLife
}

// current returns the newest nonce for one answer, made just now where it is
// time for one.
func (s *nonceSpace) current(now time.Time, o *Options) string {
	worn := o.NonceEvery > 0 && s.answers >= o.NonceEvery
	if s.newest == "" || worn || now.Sub(s.made[s.newest]) >= o.NonceLife/2 {
		s.renew(now)
	}
	s.answers++
	return s.newest
}

func (s *nonceSpace) renew(now time.Time) {
	if len(s.order) >= maxNonces {
		delete(s.made, s.order[0])
		s.order = slices.Delete(s.order, 0, 1)
	}
	s.newest, s.answers = random(18), 0
	s.made[s.newest] = now
	s.order = append(s.order, s.newest)
}

// RotateNonces invalidates every nonce sent so far. The next proof gets a challenge if
// nonces are required.
func (s *Server) RotateNonces() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nonces = nonces{}
}
