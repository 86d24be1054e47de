package oauth

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/ycauth/ycauth-go/internal/clock"
	"github.com/ycauth/ycauth-go/internal/redact"
	"github.com/ycauth/ycauth-go/internal/retry"
	"github.com/ycauth/ycauth-go/internal/strictjson"
	"github.com/ycauth/ycauth-go/internal/wire"
)

// jktHash is the hash that names a DPoP key in a Session.
const jktHash = crypto.SHA256

// maxLifetime caps expires_in. Yandex OAuth's own sample has 124234123534
// seconds, which overflows a time.Duration.
const maxLifetime = 100 * 365 * 24 * time.Hour

// A tokenResponse is a successful response of the token endpoint (RFC 6749 §5.1).
type tokenResponse struct {
	accessToken  Secret
	refreshToken Secret // "" if the response has none: the old one stays good (§6)
	tokenType    string // "Bearer" or "DPoP"
	lifetime     time.Duration
	refreshLife  time.Duration // of the refresh token, or the old one; 0 if the server does not say
	scopes       []string      // nil if the response has none: they are what was asked for
	identity     Identity
	sent         clock.Instant // when the request was sent
	date         time.Time     // the server's own time; zero if it did not say
}

// parseResponse reads a response of the token endpoint. readErr is what went
// wrong while the body was read. With an error, the result can still hold a
// refresh token, another one than that of g.
func (c *Client) parseResponse(resp *http.Response, body []byte, readErr error, g grant) (tokenResponse, error) {
	response, err := c.parseAnswer(resp, body, readErr, g)
	if err != nil && response.refreshToken.Reveal() == g.form.Get("refresh_token") {
		response.refreshToken, response.refreshLife = "", 0 // an echo
	}
	return response, err
}

func (c *Client) parseAnswer(resp *http.Response, body []byte, readErr error, g grant) (tokenResponse, error) {
	secrets := c.secrets(g)
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		response := tokenResponse{}
		if readErr == nil {
			response = misplacedTokens(body)
		}
		return response, parseRefusal(resp, body, readErr, "Provider.TokenURL", secrets)
	}
	response, err := parseToken(body)
	isNew := response.refreshToken != "" && response.refreshToken.Reveal() != g.form.Get("refresh_token")
	if code, description, codeErr := parseErrorAnswer(body, secrets); err != nil && !isNew && readErr == nil && codeErr == nil {
		// Some servers send their errors with status 200.
		return tokenResponse{}, &ServerError{
			Status: resp.StatusCode, Code: code, Description: description,
			RetryAfter: retry.After(resp.Header, time.Now()), RequestID: wire.RequestID(resp.Header, secrets...),
		}
	}
	if date, dateErr := http.ParseTime(resp.Header.Get("Date")); dateErr == nil {
		response.date = date
	}
	switch {
	case readErr != nil && !errors.Is(readErr, wire.ErrTooLarge):
		return response, &lostError{redacted(readErr, secrets)}
	case readErr != nil:
		err = readErr
	case err == nil && response.tokenType == "DPoP" && c.cfg.DPoP == nil:
		err = errors.New("the token is of type DPoP, and no key is configured")
	}
	if err == nil {
		return response, nil
	}
	reason := err.Error()
	if !wire.IsJSON(resp.Header) {
		reason += "; its content type is " + strconv.Quote(redact.Text(brief(resp.Header.Get("Content-Type")), secrets...))
	}
	return response, &ServerError{
		Status: resp.StatusCode, RequestID: wire.RequestID(resp.Header, secrets...),
		Err: fmt.Errorf("%w: %s", ErrMalformedResponse, reason),
	}
}

// misplacedTokens are the tokens in the body of an error: something between us and the
// server changed the status, or the server set a wrong one. The refresh token that was
// sent may be spent, so its successor is kept. The access token is not used.
//
// What an error says of a refresh token, or quotes, must not take its place: the whole
// body has to be a token response, with an access token that was never sent. No known
// server puts one into an error.
func misplacedTokens(body []byte) tokenResponse {
	m, err := strictjson.Object(body)
	if err != nil {
		return tokenResponse{}
	}
	response, err := readMembers(m)
	if err != nil || strings.ContainsAny(response.refreshToken.Reveal()+response.accessToken.Reveal(), " *") {
		return tokenResponse{} // a sentence, or a token that was masked
	}
	return tokenResponse{refreshToken: response.refreshToken, refreshLife: response.refreshLife}
}

// parseToken reads a response as RFC 6749 §5.1 describes it. The content type is
// not looked at: a rotated refresh token must not be lost to a wrong header.
// A missing token_type means Bearer, a missing or senseless expires_in means that
// the life is unknown.
//
// With an error the result can still hold a refresh token.
func parseToken(body []byte) (tokenResponse, error) {
	m, err := strictjson.Object(body)
	if err != nil {
		// The refresh token that was sent may be spent, so what can be had of its
		// successor is kept, and what is whole is accepted.
		members, whole, ambiguous := salvage(body)
		response, salvageErr := readMembers(members)
		for _, name := range []string{"access_token", "refresh_token", "token_type", "expires_in"} {
			whole = whole && !ambiguous[name]
		}
		if whole && salvageErr == nil {
			return response, nil
		}
		if m := refreshTokenMember.FindAllSubmatch(body, 2); response.refreshToken == "" && len(m) == 1 && isRefreshToken(string(m[0][1])) {
			response.refreshToken = Secret(m[0][1])
		}
		return tokenResponse{refreshToken: response.refreshToken, refreshLife: response.refreshLife}, err
	}
	return readMembers(m)
}

// refreshTokenMember finds the refresh token in what is no JSON at all.
var refreshTokenMember = regexp.MustCompile(`"refresh_token"\s*:\s*"([^"\\]+)"`)

func readMembers(m map[string]json.RawMessage) (tokenResponse, error) {
	var response tokenResponse
	refreshToken, err := stringMember(m, "refresh_token")
	if err != nil {
		return response, err
	}
	if refreshToken != "" {
		switch {
		case !isVSChars(refreshToken):
			return response, errors.New("refresh_token has characters that RFC 6749 does not allow")
		case !isRefreshToken(refreshToken):
			return response, errors.New("refresh_token is longer than 64 KiB")
		}
		response.refreshToken = Secret(refreshToken)
	}
	for _, name := range []string{"refresh_token_expires_in", "refresh_expires_in"} {
		response.refreshLife = max(response.refreshLife, parseLifetime(m[name]))
	}
	accessToken, err := stringMember(m, "access_token")
	switch {
	case err != nil:
		return response, err
	case accessToken == "":
		return response, errors.New("access_token is missing")
	case !isVSChars(accessToken):
		return response, errors.New("access_token has characters that RFC 6749 does not allow")
	}
	tokenType, err := stringMember(m, "token_type")
	if err != nil {
		return response, err
	}
	switch strings.ToLower(tokenType) { // "Value is case insensitive"
	case "", "bearer":
		response.tokenType = "Bearer"
	case "dpop":
		response.tokenType = "DPoP"
	default:
		// "A client MUST NOT use an access token if it does not understand the
		// token type" (§7.1).
		return response, errors.New("token_type is neither Bearer nor DPoP")
	}
	scope, err := stringMember(m, "scope")
	if err != nil {
		return response, err
	}
	response.accessToken = Secret(accessToken)
	if scope != "" {
		response.scopes = strings.Fields(scope)
	}
	response.lifetime = parseLifetime(m["expires_in"])
	if idToken, err := stringMember(m, "id_token"); err == nil {
		response.identity = parseIdentity(idToken)
	}
	return response, nil
}

// salvage reads the members of a JSON object that [strictjson.Object] does not
// accept: with a byte order mark, NULs, invalid UTF-8, a member that is there
// twice, or cut off. whole reports whether the object is complete, and nothing follows
// it; ambiguous are the members that are there with several values, of which the last
// one is returned.
func salvage(body []byte) (members map[string]json.RawMessage, whole bool, ambiguous map[string]bool) {
	body = bytes.TrimPrefix(body, []byte(byteOrderMark))
	body = bytes.ReplaceAll(body, []byte{0}, []byte{' '})
	dec := json.NewDecoder(bytes.NewReader(body))
	if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
		return nil, false, nil
	}
	members, ambiguous = make(map[string]json.RawMessage), make(map[string]bool)
	for dec.More() {
		tok, err := dec.Token()
		name, ok := tok.(string)
		if err != nil || !ok {
			return members, false, ambiguous
		}
		var value json.RawMessage
		if dec.Decode(&value) != nil {
			return members, false, ambiguous
		}
		if old, twice := members[name]; twice && !bytes.Equal(old, value) {
			ambiguous[name] = true
		}
		members[name] = value
	}
	_, err := dec.Token()
	return members, err == nil && !dec.More(), ambiguous
}

const byteOrderMark = "\ufeff"

func stringMember(m map[string]json.RawMessage, name string) (string, error) {
	raw, ok := m[name]
	if !ok {
		return "", nil
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return "", errors.New(name + " is not a string")
	}
	return s, nil
}

// parseLifetime reads expires_in: a number, or a string that holds one, of
// seconds. 0 means unknown; so does less than a second, which is of no use.
func parseLifetime(raw json.RawMessage) time.Duration {
	seconds, err := strconv.ParseFloat(string(bytes.Trim(raw, "\" ")), 64)
	if err != nil && !math.IsInf(seconds, 1) || !(seconds >= 1) { // NaN is not >= 1 either
		return 0
	}
	if seconds >= maxLifetime.Seconds() {
		return maxLifetime
	}
	return time.Duration(seconds * float64(time.Second))
}

// parseIdentity reads who logged in from the claims of an id_token. Whatever is
// malformed is left out: nothing depends on it.
func parseIdentity(idToken string) Identity {
	parts := strings.Split(idToken, ".")
	if len(parts) != 3 {
		return Identity{}
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return Identity{}
	}
	m, err := strictjson.Object(payload)
	if err != nil {
		return Identity{}
	}
	claim := func(names ...string) string {
		for _, name := range names {
			if s, err := stringMember(m, name); err == nil && s != "" {
				return redact.Text(s)
			}
		}
		return ""
	}
	return Identity{Subject: claim("sub"), Name: claim("name", "preferred_username"), Email: claim("email")}
}

// isVSChars implements 1*VSCHAR of RFC 6749 Appendix A.12 and A.17.
func isVSChars(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// maxRefreshToken bounds a refresh token, in bytes. RFC 6749 sets no limit. Those of
// known servers have less than 1 KiB (Yandex Cloud) to some KiB (JWTs that list what
// the user may do).
const maxRefreshToken = 64 << 10

func isRefreshToken(s string) bool { return isVSChars(s) && len(s) <= maxRefreshToken }

// brief is a text of a server that is short enough to be searched for secrets, which is
// done before it is cut to what is shown: half a secret would not be recognized.
func brief(text string) string {
	if len(text) > maxSearched {
		return "(a text of more than 16 KiB)"
	}
	return text
}

const maxSearched = 16 << 10

// parseRefusal makes a ServerError of any response that is not a success. readErr
// is what went wrong while the body was read, location the field that has the URL.
func parseRefusal(resp *http.Response, body []byte, readErr error, location string, secrets []string) *ServerError {
	e := &ServerError{
		Status:     resp.StatusCode,
		RetryAfter: retry.After(resp.Header, time.Now()),
		RequestID:  wire.RequestID(resp.Header, secrets...),
	}
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		e.Err = fmt.Errorf("%w: a redirect, which is not followed, so that no credential goes elsewhere: check %s", ErrMalformedResponse, location)
		return e
	}
	if readErr != nil {
		e.Err = fmt.Errorf("%w: %s", ErrMalformedResponse, redact.Text(brief(readErr.Error()), secrets...))
		return e
	}
	text := bytes.TrimSpace(bytes.TrimPrefix(body, []byte(byteOrderMark)))
	if len(text) == 0 || !wire.IsJSON(resp.Header) && text[0] != '{' {
		e.Err = fmt.Errorf("%w: no RFC 6749 error", ErrMalformedResponse) // a proxy's page, or nothing: the status says it all
		return e
	}
	code, description, err := parseErrorAnswer(body, secrets)
	if err != nil {
		e.Err = fmt.Errorf("%w: not an RFC 6749 error: %w", ErrMalformedResponse, err)
		return e
	}
	e.Code, e.Description = code, description
	return e
}

// parseErrorAnswer reads the error of RFC 6749 §5.2. The code is also read from what is
// not quite JSON, such as one with a description in windows-1251, unless it is ambiguous:
// a session that has ended must not pass for a server in trouble.
func parseErrorAnswer(body []byte, secrets []string) (code, description string, err error) {
	m, err := strictjson.Object(body)
	if err != nil {
		var ambiguous map[string]bool
		if m, _, ambiguous = salvage(body); m["error"] == nil || ambiguous["error"] {
			return "", "", err
		}
	}
	code, err = stringMember(m, "error")
	if err != nil {
		return "", "", err
	}
	if len(code) > maxSearched {
		code = ""
	}
	if code = redact.Text(code, secrets...); code == "" || len(code) > 128 {
		return "", "", errors.New("error is missing")
	}
	description, err = stringMember(m, "error_description")
	if err != nil {
		description = "" // the code is what matters
	}
	return code, redact.Text(brief(description), secrets...), nil
}

// setToken takes over the access token of a response.
func (c *Client) setToken(s *Session, response tokenResponse) {
	s.AccessToken, s.TokenType = response.accessToken, response.tokenType
	s.TokenThumbprint = ""
	if response.tokenType == "DPoP" {
		s.TokenThumbprint = c.thumbprint
	}
	s.TokenOrigin = c.tokenOrigin
	s.Obtained = response.sent.Wall() // it is compared across processes and after sleep
	s.Issued = response.date
	s.Expiry = time.Time{}
	if response.lifetime > 0 {
		s.Expiry = s.Obtained.Add(response.lifetime)
	}
	if response.scopes != nil {
		s.Scopes = response.scopes
	}
	if response.identity != (Identity{}) {
		s.Identity = response.identity
	}
}

// bind records what a new refresh token is bound to, and how long it lives.
func (c *Client) bind(s *Session, response tokenResponse) {
	s.KeyThumbprint = c.thumbprint
	s.RefreshExpiry = time.Time{}
	life := response.refreshLife
	if life == 0 {
		life = c.cfg.Provider.RefreshTokenLife
	}
	if life > 0 {
		s.RefreshExpiry = response.sent.Wall().Add(life)
	}
}
