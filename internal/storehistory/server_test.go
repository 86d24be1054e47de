//go:build linux && !race

package storehistory

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"time"
)

// What the server accepts, and for how long.
const (
	proofAge    = 3 * time.Second
	proofLeeway = 2 * time.Second // for clocks that are ahead
	proofLife   = proofAge + proofLeeway
	accessLife  = 2 // seconds
)

// families is how many logins a session can have.
const families = 40

// A server is an authorization server that replaces the refresh token at each renewal, and
// ends a session when a refresh token is used twice.
type server struct {
	*httptest.Server

	most time.Duration // of a delay

	mu       sync.Mutex
	rng      *rand.Rand
	quiet    bool
	sessions []serverSession
	events   []event
}

type serverSession struct {
	families int
	current  [families]int
	ended    [families]bool
}

func newServer(sessions int, seed uint64, delay time.Duration) *server {
	s := &server{most: cmp.Or(delay, 20*time.Millisecond), rng: rand.New(rand.NewPCG(seed, 1)), sessions: make([]serverSession, sessions)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", s.token)
	mux.HandleFunc("POST /login", s.login)
	s.Server = httptest.NewServer(mux)
	return s
}

// calm ends the disturbances.
func (s *server) calm() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quiet = true
}

// until returns the events until the given time.
func (s *server) until(at int64) []event {
	s.mu.Lock()
	defer s.mu.Unlock()
	var events []event
	for _, e := range s.events {
		if e.At <= at {
			events = append(events, e)
		}
	}
	return events
}

// hasEnded reports whether the server has ended one of some families.
func (s *server) hasEnded(session int, families uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, ended := range s.sessions[session].ended {
		if ended && families>>i&1 != 0 {
			return true
		}
	}
	return false
}

// first returns the refresh token of another login; false if there were enough.
func (s *server) first(session int) (token, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := &s.sessions[session]
	if x.families == families {
		return token{}, false
	}
	x.families++
	return token{Family: x.families - 1}, true
}

func (s *server) login(w http.ResponseWriter, r *http.Request) {
	session, _ := strconv.Atoi(r.FormValue("session"))
	t, ok := s.first(session)
	if !ok {
		w.WriteHeader(http.StatusTooManyRequests)
		return
	}
	fmt.Fprint(w, t.text(session))
}

// delay is that of one direction.
func (s *server) delay() time.Duration {
	if s.rng.IntN(100) < 3 && !s.quiet {
		return time.Duration(s.rng.IntN(400)) * time.Millisecond
	}
	return time.Duration(s.rng.Int64N(int64(s.most)))
}

func (s *server) token(w http.ResponseWriter, r *http.Request) {
	id := r.Header.Get(idHeader)
	session, sent, err := parseToken(r.FormValue("refresh_token"))
	if err != nil || session < 0 || session >= len(s.sessions) {
		http.Error(w, "unknown", http.StatusNotFound)
		return
	}
	s.mu.Lock()
	there, back := s.delay(), s.delay()
	chance := s.rng.IntN(1000)
	if s.quiet {
		chance = 1000
	}
	s.mu.Unlock()
	time.Sleep(there) // also if the client has gone meanwhile
	note := func(k kind, next token, note string) {
		s.events = append(s.events, event{At: now(), Kind: k, Session: session, Op: id, Token: sent, Next: next, Note: note})
	}
	if chance < 8 {
		s.mu.Lock()
		note(dropped, none, "before")
		s.mu.Unlock()
		if chance < 4 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		drop(w)
		return
	}
	status, body := s.judge(session, sent, r.Header.Get("DPoP"), note)
	time.Sleep(back)
	if chance < 12 {
		s.mu.Lock()
		note(dropped, none, "after")
		s.mu.Unlock()
		drop(w)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// judge processes a request at one instant.
func (s *server) judge(session int, sent token, proof string, note func(kind, token, string)) (status int, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	dated, err := proofDate(proof)
	if age := time.Since(dated); err != nil || age > proofAge+time.Second || age < -proofLeeway {
		note(tooOld, none, fmt.Sprintf("%v old", age.Round(time.Millisecond)))
		return http.StatusBadRequest, []byte(`{"error":"invalid_dpop_proof"}`)
	}
	x := &s.sessions[session]
	switch {
	case x.ended[sent.Family]:
		note(refused, none, "")
	case x.current[sent.Family] != sent.N:
		x.ended[sent.Family] = true
		note(reused, none, "")
	default:
		x.current[sent.Family]++
		next := token{sent.Family, sent.N + 1}
		note(redeemed, next, "")
		return http.StatusOK, fmt.Appendf(nil, `{"access_token":"at.%d.%v","token_type":"DPoP","expires_in":%d,"refresh_token":%q}`,
			session, next, accessLife, next.text(session))
	}
	return http.StatusBadRequest, []byte(`{"error":"invalid_grant"}`)
}

// drop closes a connection without a response.
func drop(w http.ResponseWriter) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_ = conn.Close()
	}
}

// proofDate is the iat of a proof. The signature is none of this server's business.
func proofDate(proof string) (time.Time, error) {
	parts := strings.Split(proof, ".")
	if len(parts) != 3 {
		return time.Time{}, fmt.Errorf("%q is no proof", proof)
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}, err
	}
	var claims struct {
		IAT int64 `json:"iat"`
	}
	err = json.Unmarshal(payload, &claims)
	return time.Unix(claims.IAT, 0), err
}
