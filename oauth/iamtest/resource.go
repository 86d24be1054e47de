package iamtest

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/ycauth/ycauth-go/dpop"
)

// algorithms is the algs parameter of a DPoP challenge (RFC 9449 §7.1).
const algorithms = `algs="ES256 ES384 ES512 EdDSA PS256 RS256"`

// A resourceError is a refused access token (RFC 6750 §3.1, RFC 9449 §7.1).
type resourceError struct{ scheme, code, description string }

// header is the WWW-Authenticate header. Descriptions hold no quotes.
func (err *resourceError) header() string {
	var params []string
	if err.code != "" {
		params = append(params, `error="`+err.code+`"`, `error_description="`+err.description+`"`)
	}
	if err.scheme == "DPoP" {
		params = append(params, algorithms)
	}
	return strings.TrimRight(err.scheme+" "+strings.Join(params, ", "), " ")
}

// caller checks the access token of a request, and its proof where the token is
// bound.
func (e *exchange) caller() (*accessToken, *resourceError) {
	t, err := e.checkAccess()
	if e.rec.Proof.Present || e.challenge { // a bound token that was accepted came with a proof
		e.giveNonce(e.opts.ResourceNonces)
	}
	if err != nil {
		e.header.Set("WWW-Authenticate", err.header())
		return nil, err
	}
	e.rec.ClientID, e.rec.Subject = t.client, t.subject
	return t, nil
}

func (e *exchange) checkAccess() (*accessToken, *resourceError) {
	headers := e.r.Header.Values("Authorization")
	if len(headers) == 0 {
		return nil, &resourceError{scheme: e.opts.TokenType, description: "the request has no access token"}
	}
	scheme, value, ok := cutScheme(headers[0])
	bound := strings.EqualFold(scheme, "DPoP")
	if !ok || len(headers) > 1 || !bound && !strings.EqualFold(scheme, "Bearer") {
		return nil, &resourceError{scheme: "Bearer", code: "invalid_request", description: "the Authorization header is neither Bearer nor DPoP with one token"}
	}
	if e.challenge {
		return nil, &resourceError{"DPoP", "use_dpop_nonce", "the server wants a newer nonce"}
	}
	t, problem := e.s.lookupAccess(e.now, value)
	switch {
	case problem != "" && bound:
		return nil, &resourceError{"DPoP", "invalid_token", problem}
	case problem != "":
		return nil, &resourceError{"Bearer", "invalid_token", problem}
	case t.jkt != "" && !bound:
		return nil, &resourceError{"DPoP", "invalid_token", "the access token is bound to a key: use the scheme DPoP"}
	case t.jkt == "" && bound:
		return nil, &resourceError{"Bearer", "invalid_token", "the access token is not bound to a key: use the scheme Bearer"}
	case !bound:
		return t, nil
	}
	if _, err := e.checkProof(e.opts.ResourceNonces, dpop.Expected{AccessToken: value, Thumbprint: t.jkt}); err != nil {
		code, reason := proofCode(err)
		if errors.Is(err, dpop.ErrWrongKey) {
			code = "invalid_token" // RFC 9449 §7.1: the binding does not match
		}
		return nil, &resourceError{"DPoP", code, strings.ReplaceAll(reason, `"`, "'")}
	}
	return t, nil
}

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
	t, err := e.caller()
	if err != nil {
		e.rec.Error = err.code
		body, _ := json.Marshal(map[string]string{"error": err.code, "error_description": err.description}) //nolint:errchkjson // strings
		e.json(http.StatusUnauthorized, body)
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
