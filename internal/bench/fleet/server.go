//go:build linux

package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// What the server accepts, and for how long.
const (
	proofAge    = 3 * time.Second
	proofLeeway = 2 * time.Second // for clocks that are ahead
	proofLife   = proofAge + proofLeeway
)

// processHeader names the process that sends a request.
const processHeader = "X-Process"

// A server is an authorization server that replaces the refresh token at each renewal, and
// ends a session when a refresh token comes a second time. It writes down all that it does.
// Its refresh tokens are "u17.5": the session, and how many renewals came before.
type server struct {
	access   time.Duration // the life of an access token
	latency  time.Duration // of each response
	nonce    string        // demanded, if it is set
	anyProof bool          // accept proofs of any age

	families []family
	requests atomic.Int64
	tooOld   atomic.Int64           // proofs
	seconds  [8 * 3600]atomic.Int64 // requests in each
	started  time.Time

	http     *http.Server
	listener net.Listener
}

// A family is the refresh tokens of one session.
type family struct {
	mu      sync.Mutex
	commits []commit // commits[n] replaced the refresh token n
	ended   bool
	reuse   reuse // what ended it
}

// A commit is a refresh token that was accepted.
type commit struct {
	at        time.Duration // since the start of the server
	proof     int64         // the iat of the proof, in seconds since 1970
	process   string
	delivered bool // the response was handed to the network
}

type reuse struct {
	at      time.Duration
	n       int
	proof   int64
	process string
}

func startServer(sessions int, access, latency time.Duration) (*server, error) {
	s := &server{access: access, latency: latency, families: make([]family, sessions), started: time.Now()}
	var err error
	if s.listener, err = new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", s.token)
	s.http = &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = s.http.Serve(s.listener) }()
	return s, nil
}

func (s *server) close() { _ = s.http.Close() }

func (s *server) url() string { return "http://" + s.listener.Addr().String() }

// renewals is how many refresh tokens were accepted.
func (s *server) renewals() (n int64) {
	for i := range s.families {
		f := &s.families[i]
		f.mu.Lock()
		n += int64(len(f.commits))
		f.mu.Unlock()
	}
	return n
}

// busiest is the most requests that came in one second.
func (s *server) busiest() (most int64) {
	for i := range s.seconds {
		most = max(most, s.seconds[i].Load())
	}
	return most
}

func (s *server) token(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	s.seconds[int(time.Since(s.started)/time.Second)%len(s.seconds)].Add(1)
	process := r.Header.Get(processHeader)
	session, n, err := parseToken(r.FormValue("refresh_token"))
	if err != nil || session >= len(s.families) {
		_ = respond(w, http.StatusBadRequest, `{"error":"invalid_grant"}`)
		return
	}
	iat, nonce, err := readProof(r.Header.Get("DPoP"))
	age := time.Since(time.Unix(iat, 0))
	switch {
	case err != nil, !s.anyProof && (age > proofAge+time.Second || age < -proofLeeway): // iat is in whole seconds
		s.tooOld.Add(1)
		_ = respond(w, http.StatusBadRequest, `{"error":"invalid_dpop_proof"}`)
		return
	case nonce != s.nonce:
		w.Header().Set("DPoP-Nonce", s.nonce)
		_ = respond(w, http.StatusBadRequest, `{"error":"use_dpop_nonce"}`)
		return
	}
	f := &s.families[session]
	if !f.redeem(n, commit{at: time.Since(s.started), proof: iat, process: process}) {
		_ = respond(w, http.StatusBadRequest, `{"error":"invalid_grant"}`)
		return
	}
	time.Sleep(s.latency)
	err = respond(w, http.StatusOK, fmt.Sprintf(`{"access_token":"at.%d.%d","token_type":"DPoP","expires_in":%d,"refresh_token":%q}`,
		session, n+1, int(s.access/time.Second), refreshToken(session, n+1)))
	if err == nil && r.Context().Err() == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.commits[n].delivered = true
	}
}

func (f *family) redeem(n int, c commit) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.ended:
		return false
	case n != len(f.commits):
		f.ended, f.reuse = true, reuse{c.at, n, c.proof, c.process}
		return false
	}
	f.commits = append(f.commits, c)
	return true
}

func respond(w http.ResponseWriter, status int, body string) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, err := io.WriteString(w, body)
	return err
}

func key(session int) string { return fmt.Sprintf("u%d", session) }

func refreshToken(session, n int) string { return fmt.Sprintf("u%d.%d", session, n) }

func parseToken(text string) (session, n int, err error) {
	before, after, ok := strings.Cut(strings.TrimPrefix(text, "u"), ".")
	session, err1 := strconv.Atoi(before)
	n, err2 := strconv.Atoi(after)
	if !ok || err1 != nil || err2 != nil || session < 0 || n < 0 {
		return 0, 0, fmt.Errorf("%q is no refresh token", text)
	}
	return session, n, nil
}

// readProof does not verify the signature: what matters here is the date.
func readProof(proof string) (iat int64, nonce string, err error) {
	parts := strings.Split(proof, ".")
	if len(parts) != 3 {
		return 0, "", errors.New("no proof")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return 0, "", err
	}
	var claims struct {
		IAT   int64  `json:"iat"`
		Nonce string `json:"nonce"`
	}
	err = json.Unmarshal(payload, &claims)
	return claims.IAT, claims.Nonce, err
}
