package iamtest

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
