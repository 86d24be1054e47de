package iamtest

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/ycauth/ycauth-go/dpop"
)

// A refusal is what is wrong with the credentials of a request.
type refusal struct {
	status            int
	code, description string
}

// caller checks the access token of a request, and its proof where the token is
// bound.
func (e *exchange) caller() (t *accessToken, refused *refusal) {
	if e.challenge && e.r.Header.Get("Authorization") != "" { // whatever the token
		refused = &refusal{http.StatusUnauthorized, "use_dpop_nonce", "the server wants a newer nonce"}
		e.header.Set("WWW-Authenticate", nonceChallenge(refused.description))
	} else {
		t, refused = e.authorized()
	}
	if e.rec.Proof.Present || e.challenge { // a bound token that was accepted came with a proof
		e.giveNonce(e.opts.ResourceNonces)
	}
	if refused == nil {
		e.rec.ClientID, e.rec.Subject = t.client, t.subject
	}
	return t, refused
}

// nonceChallenge is the WWW-Authenticate header that demands a nonce (RFC 9449 §9).
func nonceChallenge(reason string) string {
	return `DPoP error="use_dpop_nonce", error_description="` + reason + `"`
}

// authorized is what a dpop.ResourceServer with the rules of this exchange says.
func (e *exchange) authorized() (t *accessToken, refused *refusal) {
	v := e.s.proofs.verifier(e, e.opts.ResourceNonces)
	defer e.s.proofs.mu.Unlock()
	var problem string
	server := dpop.ResourceServer{
		BaseURL:  e.s.URL,
		Bearer:   true,
		Verifier: v,
		Lookup: func(_ context.Context, value string) (dpop.TokenInfo, error) {
			t, p := e.s.lookupAccess(e.now, value)
			if problem = p; p != "" {
				return dpop.TokenInfo{}, dpop.ErrInvalidToken
			}
			return dpop.TokenInfo{Thumbprint: t.jkt, Value: t}, nil
		},
		WriteError: func(_ http.ResponseWriter, _ *http.Request, o dpop.Outcome) {
			refused = &refusal{o.Status, o.Code, cmp.Or(problem, o.Reason)}
		},
	}
	server.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		info := dpop.TokenInfoFromContext(r.Context())
		t = info.Value.(*accessToken)
		e.verified(info.Proof)
	})).ServeHTTP(headerOnly{e.header}, e.r)
	return t, refused
}

// headerOnly is a response whose body somebody else writes.
type headerOnly struct{ header http.Header }

func (w headerOnly) Header() http.Header         { return w.header }
func (w headerOnly) Write(b []byte) (int, error) { return len(b), nil }
func (w headerOnly) WriteHeader(int)             {}

// lookupAccess returns the token, or why it is not accepted.
func (s *Server) lookupAccess(now time.Time, value string) (t *accessToken, problem string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t = s.state.access[value]
	switch {
	case t == nil:
		return nil, "the access token is unknown"
	case t.revoked:
		return nil, "the access token was revoked"
	case !now.Before(t.expires):
		return nil, "the access token has expired"
	}
	return t, ""
}

// whoami is an ordinary protected resource.
func (e *exchange) whoami() {
	t, refused := e.caller()
	if refused != nil {
		e.rec.Error = refused.code
		body, _ := json.Marshal(map[string]string{"error": refused.code, "error_description": refused.description}) //nolint:errchkjson // strings
		e.json(refused.status, body)
		return
	}
	body, _ := json.Marshal(struct { //nolint:errchkjson // strings
		Subject   string `json:"subject"`
		ClientID  string `json:"clientId"`
		Scope     string `json:"scope,omitempty"`
		TokenType string `json:"tokenType"`
		ExpiresAt string `json:"expiresAt"`
	}{t.subject, t.client, t.scope, t.tokenType(), string(appendTimestamp(nil, t.expires))})
	e.json(http.StatusOK, body)
}
