package iamtest

import (
	"encoding/base64"
	"html"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Parameters of an authorization request that Yandex Cloud knows besides those
// of the RFCs.
const (
	federationHint = "yc_federation_hint"
	subjectHint    = "yc_sub_hint"
)

// callbackPath is the path of a client's redirect URI if it registers no other.
const callbackPath = "/auth/callback"

// codeChallenge is a SHA-256 hash in base64url (RFC 7636 §4.2).
var codeChallenge = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

// authorize is the authorization endpoint (RFC 6749 §3.1). There is nobody to
// ask, so it answers at once, in the user's name.
func (e *exchange) authorize() {
	q := e.r.URL.Query()
	if e.r.Method == http.MethodPost {
		q = e.form
	}
	e.rec.ClientID, e.rec.Scope, e.rec.KeyHint = q.Get("client_id"), q.Get("scope"), q.Get("dpop_jkt")
	e.rec.FederationHint, e.rec.SubjectHint = q.Get(federationHint), q.Get(subjectHint)

	redirect, problem := e.redirectURI(q)
	if problem != "" {
		// "the authorization server SHOULD inform the resource owner of the error
		// and MUST NOT automatically redirect the user-agent to the invalid
		// redirection URI" (§4.1.2.1).
		e.rec.Error = "invalid_request"
		e.replace(http.StatusBadRequest, "text/html; charset=utf-8",
			"<!DOCTYPE html>\n<title>Error</title><p>This login cannot go on: "+html.EscapeString(problem)+".</p>\n")
		return
	}
	answer := redirect.Query()
	if state := q.Get("state"); state != "" {
		answer.Set("state", state)
	}
	if err := e.checkAuthorization(q); err != nil {
		e.rec.Error = err.code
		answer.Set("error", err.code)
		answer.Set("error_description", err.description)
	} else {
		answer.Set("code", e.issueCode(q))
	}
	redirect.RawQuery = answer.Encode()
	e.replace(http.StatusFound, "text/html; charset=utf-8", "<!DOCTYPE html>\n<title>Logged in</title>\n")
	e.header.Set("Location", redirect.String())
}

// redirectURI returns where the answer goes, or what is wrong with the client or
// its redirect URI.
func (e *exchange) redirectURI(q url.Values) (u *url.URL, problem string) {
	client, ok := e.opts.client(q.Get("client_id"))
	if !ok {
		return nil, "the client is not registered"
	}
	if len(q["client_id"]) > 1 || len(q["redirect_uri"]) > 1 {
		return nil, "client_id or redirect_uri is there twice"
	}
	if !client.redirects(q.Get("redirect_uri")) {
		return nil, "redirect_uri is not registered for the client, which has " + strings.Join(client.RedirectURIs, " and ")
	}
	u, err := url.Parse(q.Get("redirect_uri"))
	if err != nil {
		return nil, "redirect_uri is not a URI"
	}
	return u, ""
}

// redirects reports whether a redirect URI is registered. URIs are compared by
// "simple string comparison" (RFC 6749 §3.1.2.3), but "the authorization server
// MUST allow any port to be specified at the time of the request for loopback IP
// redirect URIs" (RFC 8252 §7.3), which localhost is not.
func (c *Client) redirects(uri string) bool {
	anyPort, loopback := withoutPort(uri)
	return slices.ContainsFunc(c.RedirectURIs, func(registered string) bool {
		if registered == uri {
			return true
		}
		without, _ := withoutPort(registered)
		return loopback && without == anyPort
	})
}

var loopbackURI = regexp.MustCompile(`^(http://(?:127\.0\.0\.1|\[::1\]))(?::([1-9][0-9]{0,4}))?(/.*)?$`)

// withoutPort takes the port off a URI of a loopback IP. ok is false for others,
// and for ports that there are not.
func withoutPort(uri string) (rest string, ok bool) {
	m := loopbackURI.FindStringSubmatch(uri)
	if m == nil {
		return "", false
	}
	if port, err := strconv.Atoi(m[2]); err == nil && port > math.MaxUint16 {
		return "", false
	}
	return m[1] + m[3], true
}

// checkAuthorization is everything that the client is told of.
func (e *exchange) checkAuthorization(q url.Values) *oauthError {
	for name, values := range q {
		if len(values) > 1 {
			return invalidRequest("a parameter is there twice: " + cut(name, 50))
		}
	}
	switch {
	case q.Get("response_type") != "code":
		return &oauthError{code: "unsupported_response_type", description: "response_type is not code"}
	case q.Get("code_challenge_method") != "S256" || !codeChallenge.MatchString(q.Get("code_challenge")):
		return invalidRequest("PKCE with code_challenge_method S256 is required")
	case q.Get("dpop_jkt") != "" && !e.isThumbprint(q.Get("dpop_jkt")):
		return invalidRequest("dpop_jkt is not a thumbprint made with " + e.opts.ThumbprintHash.String())
	case len(q.Get(subjectHint)) > maxID:
		return invalidRequest(subjectHint + " is too long")
	case !e.scopesKnown(q.Get("scope")):
		return &oauthError{code: "invalid_scope", description: "a scope is malformed, or one that the server does not know"}
	case e.opts.DenyLogin:
		return &oauthError{code: "access_denied", description: "the user did not allow the login"}
	}
	return nil
}

func (e *exchange) isThumbprint(s string) bool {
	b, err := base64.RawURLEncoding.DecodeString(s)
	return err == nil && len(b) == e.opts.ThumbprintHash.Size()
}

// scopeList is scope of RFC 6749 §3.3: tokens with one space between them.
var scopeList = regexp.MustCompile(`^([!#-\[\]-~]+( [!#-\[\]-~]+)*)?$`)

func (o *Options) knows(scope string) bool {
	return o.Scopes == nil || slices.Contains(o.Scopes, scope)
}

// scopesKnown reports whether the scopes asked for do not fail the request.
func (e *exchange) scopesKnown(scope string) bool {
	if !scopeList.MatchString(scope) {
		return false
	}
	return !e.opts.RefuseUnknownScopes ||
		!slices.ContainsFunc(strings.Fields(scope), func(s string) bool { return !e.opts.knows(s) })
}

func (e *exchange) issueCode(q url.Values) string {
	scopes := slices.DeleteFunc(strings.Fields(q.Get("scope")), func(s string) bool {
		return !e.opts.knows(s) || s == offlineAccess && e.opts.DropOfflineAccess
	})
	c := &code{
		client: q.Get("client_id"), subject: q.Get(subjectHint), scope: strings.Join(scopes, " "),
		redirect: q.Get("redirect_uri"), challenge: q.Get("code_challenge"), jkt: q.Get("dpop_jkt"),
		expires: e.now.Add(e.opts.CodeLife),
	}
	if c.subject == "" {
		c.subject = e.opts.Subject
	}
	e.rec.Subject = c.subject
	value := random(24)
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	e.s.state.codes[value] = c
	e.s.state.sweep(e.now, e.opts)
	e.s.secret(value)
	return value
}
