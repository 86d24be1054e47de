package iamtest

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// An Endpoint is a part of the server whose requests are counted and can be made to
// fail.
type Endpoint string

// The endpoints.
const (
	EndpointAuthorize Endpoint = "authorize" // GET or POST /oauth/authorize
	EndpointToken     Endpoint = "token"     // POST /oauth/token
	EndpointList      Endpoint = "list"      // GET /iam/v1/refreshTokens
	EndpointRevoke    Endpoint = "revoke"    // POST /iam/v1/refreshTokens:revoke
	EndpointOperation Endpoint = "operation" // GET /operations/{id}
	EndpointEndpoints Endpoint = "endpoints" // GET /endpoints and /endpoints/{id}
	EndpointResource  Endpoint = "resource"  // GET /api/whoami

	// EndpointOther is any other path or method, answered as a web server does
	// that is no API: 404 or 405 in plain text, without request ids.
	EndpointOther Endpoint = "other"

	// EndpointElsewhere is the other origin that [Redirect] points to. A client
	// under test should never get there.
	EndpointElsewhere Endpoint = "elsewhere"
)

// A Request is the server's record of one request and its response. It contains no
// secret.
type Request struct {
	Number   int // from 1, since the start of the server
	Time     time.Time
	Endpoint Endpoint
	Method   string
	Path     string // without query

	// Status of the response; 0 if there was none.
	Status int

	// Error is the OAuth error code of the response, or the name of a google.rpc.Code.
	// "" if it is not an error.
	Error string

	// GrantType of a token request.
	GrantType string

	// ClientID that was sent, even if unknown. At the API it is the client that the
	// access token was issued to.
	ClientID string

	// Subject that logged in, or that the access token is for.
	Subject string

	// Credentials are the kinds of credentials in the request, in alphabetical order:
	// "authorization", "client_secret", "code", "code_verifier", "dpop",
	// "refresh_token".
	Credentials []string

	// Proof is the proof in the DPoP header.
	Proof Proof

	// Scope, FederationHint, SubjectHint and KeyHint (dpop_jkt) are parameters of
	// an authorization request.
	Scope, FederationHint, SubjectHint, KeyHint string

	// UserAgent, IdempotencyKey, ClientRequestID and ClientTraceID are request
	// headers; RequestID is the x-request-id of the response.
	UserAgent, IdempotencyKey, ClientRequestID, ClientTraceID, RequestID string

	// Fault that was injected, as [Fault.String] returns it. "" if none was.
	Fault string
}

// A Proof describes a DPoP proof that the server received.
type Proof struct {
	Present    bool
	Verified   bool      // it passed every check
	ID         string    // jti
	Nonce      string    // nonce; "" if it has none
	IssuedAt   time.Time // iat
	Thumbprint string    // SHA-256 JWK thumbprint of the key, if the proof was verified
}

// counter is what requests are counted by.
type counter struct {
	endpoint  Endpoint
	grantType string
}

// records are the requests so far. Methods are called with Server.mu held.
type records struct {
	number int
	list   []Request
	counts map[counter]int
}

func (rs *records) add(r Request, limit int) {
	rs.number++
	r.Number = rs.number
	if rs.counts == nil {
		rs.counts = map[counter]int{}
	}
	rs.counts[counter{r.Endpoint, r.GrantType}]++
	if len(rs.list) >= limit { // drop a tenth at once, so that it costs little
		rs.list = append(rs.list[:0], rs.list[max(1, limit/10):]...)
	}
	rs.list = append(rs.list, r)
}

// Requests returns the requests since the start, or since [Server.ResetRequests], in
// the order of their responses. A request is recorded before its client gets the
// response.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.records.list)
}

// Count returns how many requests reached the endpoint; with grant types, only token
// requests of those types. It includes requests that a fault left without a response.
func (s *Server) Count(e Endpoint, grantTypes ...string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for c, m := range s.records.counts {
		if c.endpoint == e && (len(grantTypes) == 0 || slices.Contains(grantTypes, c.grantType)) {
			n += m
		}
	}
	return n
}

// ResetRequests deletes the recorded requests and resets the counts to 0. Tokens,
// faults and the clock stay.
func (s *Server) ResetRequests() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records.list, s.records.counts = nil, nil
}

// record adds a request to those that [Server.Requests] returns. Number is set, and
// Time if it is zero.
func (s *Server) record(ctx context.Context, r Request) {
	if r.Time.IsZero() {
		r.Time = s.clock.Now()
	}
	o := s.options()
	s.mu.Lock()
	s.records.add(r, o.MaxRecords)
	s.mu.Unlock()
	if o.Logger == nil {
		return
	}
	attrs := []slog.Attr{
		slog.String("endpoint", string(r.Endpoint)), slog.String("method", r.Method),
		slog.String("path", r.Path), slog.Int("status", r.Status),
	}
	for _, a := range []slog.Attr{
		slog.String("grant_type", r.GrantType), slog.String("error", r.Error), slog.String("fault", r.Fault),
	} {
		if a.Value.String() != "" {
			attrs = append(attrs, a)
		}
	}
	if r.Proof.Present {
		attrs = append(attrs, slog.Bool("proof_verified", r.Proof.Verified), slog.Bool("proof_nonce", r.Proof.Nonce != ""))
	}
	o.Logger.LogAttrs(ctx, slog.LevelInfo, "iamtest: request", attrs...)
}

// minSecret is the length from which on a text is searched for in logs; shorter
// ones are ordinary words.
const minSecret = 8

// Secrets returns the newest credentials that the server issued or received, at most
// Options.MaxRecords: tokens, codes, code verifiers and proofs, and every client
// secret. Tests can search their logs and error texts for them.
func (s *Server) Secrets() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Collect(maps.Keys(s.secrets.known))
	for _, c := range s.options().Clients {
		if len(c.Secret) >= minSecret {
			all = append(all, c.Secret.Reveal())
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// secrets are the newest credentials.
type secrets struct {
	known map[string]struct{}
	order []string // the newest one last
}

// secret remembers credentials. It is called with Server.mu held.
func (s *Server) secret(values ...string) {
	limit, k := s.options().MaxRecords, &s.secrets
	for _, v := range values {
		if _, ok := k.known[v]; ok || len(v) < minSecret {
			continue
		}
		if n := max(1, limit/10); len(k.order) >= limit { // drop a tenth at once, so that it costs little
			for _, old := range k.order[:n] {
				delete(k.known, old)
			}
			k.order = append(k.order[:0], k.order[n:]...)
		}
		k.known[v] = struct{}{}
		k.order = append(k.order, v)
	}
}

// credentials names the kinds of credentials in a request, and returns their
// values. A Basic header is given whole and in its parts.
func credentials(h http.Header, form url.Values) (kinds, values []string) {
	for _, name := range []string{"client_secret", "code", "code_verifier", "refresh_token"} {
		if v := form[name]; len(v) > 0 {
			kinds, values = append(kinds, name), append(values, v...)
		}
	}
	for _, v := range h.Values("Authorization") {
		kinds = append(kinds, "authorization")
		if _, token, ok := cutScheme(v); ok {
			values = append(values, token)
		}
		r := http.Request{Header: http.Header{"Authorization": {v}}}
		if _, password, ok := r.BasicAuth(); ok {
			values = append(values, password)
			if plain, err := url.QueryUnescape(password); err == nil {
				values = append(values, plain)
			}
		}
	}
	if v := h.Values("DPoP"); len(v) > 0 {
		kinds, values = append(kinds, "dpop"), append(values, v...)
	}
	slices.Sort(kinds)
	return slices.Compact(kinds), values
}
