package iamtest

import (
	"context"

	"github.com/ycauth/ycauth-go/oauth/iamtest/internal/iamapi"
)

// MakeFault is a Fault that no constructor makes, and Parts what one is made of.
func MakeFault(f iamapi.Fault) Fault { return Fault{f} }

func (f Fault) Parts() iamapi.Fault { return f.is }

// Record is what other faces do, at a time of the test's.
func (s *Server) Record(r Request) { s.record(context.Background(), r) }

// ErrConnectionClosed is what a client sees in the same process.
var ErrConnectionClosed = errConnectionClosed

// ExpireRefreshToken lets a refresh token expire now. It reports whether the
// token is known.
func (s *Server) ExpireRefreshToken(token string) bool {
	return s.withRefresh(token, func(t *refreshToken) { t.expires = s.clock.Now() })
}

// MinSweep is what a server holds before it is swept.
const MinSweep = minSweep

// Held is how much of everything the server remembers.
func (s *Server) Held() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return map[string]int{
		"codes": len(s.state.codes), "refresh": len(s.state.refresh), "ids": len(s.state.ids), "access": len(s.state.access),
		"grants": len(s.state.grants), "operations": len(s.ops.byID), "keys": len(s.ops.byKey), "secrets": len(s.secrets.known),
	}
}
