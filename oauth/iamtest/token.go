package iamtest

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ycauth/ycauth-go/dpop"
)

// The grant types of the token endpoint.
const (
	grantCode    = "authorization_code"
	grantRefresh = "refresh_token"
)

// maxInfo is the longest client instance info, in characters.
const maxInfo = 1000

// An oauthError is an answer of RFC 6749 §5.2.
type oauthError struct {
	code, description string
	status            int // 0: 400
}

func invalidGrant(description string) *oauthError {
	return &oauthError{code: "invalid_grant", description: description}
}

func invalidRequest(description string) *oauthError {
	return &oauthError{code: "invalid_request", description: description}
}

// tokenAnswer is a success of RFC 6749 §5.1.
type tokenAnswer struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in"`
	Scope        string `json:"scope,omitempty"`
	RefreshToken string `json:"refresh_token,omitempty"`
}

// token is the token endpoint.
func (e *exchange) token() {
	out, err := e.exchangeGrant()
	e.giveNonce(e.opts.Nonces)
	if err != nil {
		e.oauthError(err)
		return
	}
	answer := tokenAnswer{
		AccessToken: out.access.value, TokenType: out.access.tokenType(), Scope: out.scope,
		ExpiresIn: int64(out.access.expires.Sub(e.now) / time.Second),
	}
	if e.opts.YandexID {
		answer.TokenType = strings.ToLower(answer.TokenType)
	}
	if out.refresh != nil {
		answer.RefreshToken = out.refresh.value
	}
	body, _ := json.Marshal(answer) //nolint:errchkjson // strings and a number
	e.json(http.StatusOK, body)
}

// exchangeGrant checks the request in an order that spends nothing before the
// client and the proof are known to be right.
func (e *exchange) exchangeGrant() (*issued, *oauthError) {
	if err := e.checkForm(); err != nil {
		return nil, err
	}
	client, err := e.authenticate()
	if err != nil {
		return nil, err
	}
	if g := e.rec.GrantType; g != grantCode && g != grantRefresh {
		return nil, &oauthError{code: "unsupported_grant_type", description: "use authorization_code or refresh_token"}
	}
	proof, err := e.tokenProof()
	if err != nil {
		return nil, err
	}
	p := presented{client: client, proof: proof, userAgent: cut(e.rec.UserAgent, maxInfo), secure: e.opts.attested(proof)}
	if e.opts.OnlyAttestedKeys && !p.secure {
		return nil, &oauthError{code: "invalid_dpop_proof", description: "the organization allows only DPoP keys that a YubiKey keeps, with their attestation"}
	}
	s := e.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle(e.now)
	var out *issued
	if e.rec.GrantType == grantCode {
		out, err = s.state.redeem(e.now, e.opts, p, e.form.Get("code"), e.form.Get("redirect_uri"), e.form.Get("code_verifier"))
	} else {
		out, err = s.state.renew(e.now, e.opts, p, e.form.Get("refresh_token"), e.form.Get("scope"))
	}
	if err != nil {
		return nil, err
	}
	e.rec.Subject = out.access.subject
	s.secret(out.access.value)
	if out.refresh != nil {
		s.secret(out.refresh.value)
	}
	return out, nil
}

// codeVerifier is "a minimum length of 43 characters and a maximum length of 128
// characters" of unreserved characters (RFC 7636 §4.1).
var codeVerifier = regexp.MustCompile(`^[A-Za-z0-9._~-]{43,128}$`)

// checkForm: "Parameters sent without a value MUST be treated as if they were
// omitted" and "Request and response parameters MUST NOT be included more than
// once" (RFC 6749 §3.2); credentials stay out of the URL (§2.3.1).
func (e *exchange) checkForm() *oauthError {
	switch {
	case !isForm(e.r):
		return invalidRequest("the body is not application/x-www-form-urlencoded")
	case len(e.in) > maxRequest:
		return invalidRequest("the body is too long")
	case e.r.URL.RawQuery != "":
		return invalidRequest("parameters belong into the body")
	}
	for name, values := range e.form {
		if len(values) > 1 {
			return invalidRequest("a parameter is there twice: " + cut(name, 50))
		}
	}
	required := []string{"grant_type"}
	switch e.rec.GrantType {
	case grantCode:
		required = append(required, "code", "redirect_uri", "code_verifier")
	case grantRefresh:
		required = append(required, "refresh_token")
	}
	for _, name := range required {
		if e.form.Get(name) == "" {
			return invalidRequest("a parameter is missing: " + name)
		}
	}
	if e.rec.GrantType == grantCode && !codeVerifier.MatchString(e.form.Get("code_verifier")) {
		return invalidRequest("code_verifier is not 43 to 128 unreserved characters")
	}
	return nil
}

// tokenProof verifies the proof of a token request (RFC 9449 §5). It is nil where
// there is none and none is needed.
func (e *exchange) tokenProof() (*dpop.VerifiedProof, *oauthError) {
	proof, err := e.checkProof(e.opts.Nonces, dpop.Expected{})
	if err == errNoProof && e.opts.AllowUnbound { //nolint:errorlint // this very value
		return nil, nil
	}
	if err != nil {
		code, reason := proofCode(err)
		refused := &oauthError{code: code, description: reason}
		if code == "use_dpop_nonce" && e.opts.ChallengeStatus == http.StatusUnauthorized {
			refused.status = http.StatusUnauthorized
			e.header.Set("WWW-Authenticate", nonceChallenge(reason))
		}
		return nil, refused
	}
	return proof, nil
}

func (e *exchange) oauthError(err *oauthError) {
	e.rec.Error = err.code
	body, _ := json.Marshal(struct { //nolint:errchkjson // strings
		Error       string `json:"error"`
		Description string `json:"error_description,omitempty"`
	}{err.code, err.description})
	status := err.status
	if status == 0 {
		status = http.StatusBadRequest
	}
	e.json(status, body)
}

// cut leaves at most n characters of s.
func cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n])
}
