package oauth

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/ycauth/ycauth-go/internal/redact"
)

var (
	// ErrLoginRequired means that no token can be had until the user logs in
	// again. Errors that match it are of type [*LoginRequiredError].
	ErrLoginRequired = errors.New("oauth: log in again")

	// ErrNoSession means that there is no session: nobody has logged in yet, or
	// somebody has logged out. From a token source it comes with
	// [ErrLoginRequired].
	ErrNoSession = errors.New("oauth: no session")

	// ErrOutcomeUnknown means that a token request may have reached the server,
	// and its response never came. If the server rotates refresh tokens, it may
	// have replaced the one that is stored; the next renewal shows.
	ErrOutcomeUnknown = errors.New("oauth: the response to the token request was lost")

	// ErrMalformedAnswer is matched by a [*ServerError] whose cause is a response
	// that is not what RFC 6749 §5 describes.
	ErrMalformedAnswer = errors.New("malformed response")

	// ErrNotRevoked means that the session was forgotten here while its tokens
	// stay valid at the server, because there is no way to revoke them: neither
	// Config.Revoke nor Provider.RevocationURL is set.
	ErrNotRevoked = errors.New("oauth: the session was forgotten, but its tokens were not revoked at the server and stay valid there")

	// ErrClosed means that the token source was closed, and the token it had has
	// expired since.
	ErrClosed = errors.New("oauth: the token source is closed")
)

// A Reason is why the user has to log in again.
type Reason string

const (
	// ReasonNoSession means that nobody has logged in. The error matches [ErrNoSession].
	ReasonNoSession Reason = "no_session"

	// ReasonRejected means that the server does not accept the refresh token any more: it
	// expired, was revoked, or was replaced. The error wraps the [*ServerError].
	ReasonRejected Reason = "rejected"

	// ReasonOutcomeUnknown means that the server does not accept the refresh token, after
	// the response to an earlier request with it was lost. Most likely that response
	// held its successor. The error matches [ErrOutcomeUnknown].
	ReasonOutcomeUnknown Reason = "outcome_unknown"

	// ReasonNoRefreshToken means that the login gave no refresh token, and the access
	// token has expired.
	ReasonNoRefreshToken Reason = "no_refresh_token"

	// ReasonWrongKey means that the refresh token is bound to another DPoP key than the
	// one configured. It was not sent: some servers end a session for that.
	// Configuring the right key helps as well.
	ReasonWrongKey Reason = "wrong_key"

	// ReasonWrongClient means that the session was made by another provider or for another
	// client_id than those configured.
	ReasonWrongClient Reason = "wrong_client"
)

// A LoginRequiredError says why the user has to log in again. It matches
// [ErrLoginRequired]. Nothing was deleted: the session is still stored.
type LoginRequiredError struct {
	Reason Reason
	Detail string // what the user can do, in one sentence; may be ""
	Err    error  // the cause; may be nil
}

func (e *LoginRequiredError) Error() string {
	var b strings.Builder
	if e.Reason == ReasonNoSession { // nothing that could be done again
		b.WriteString("oauth: log in: there is no session")
	} else {
		b.WriteString(ErrLoginRequired.Error())
	}
	switch e.Reason {
	case ReasonRejected:
		b.WriteString(": the refresh token expired, was revoked or was replaced")
	case ReasonOutcomeUnknown:
		b.WriteString(": the refresh token was replaced, and the response with the new one was lost")
	case ReasonNoRefreshToken:
		b.WriteString(": the access token expired and the session has no refresh token")
	case ReasonWrongKey:
		b.WriteString(": the refresh token is bound to another DPoP key")
	case ReasonWrongClient:
		b.WriteString(": the session belongs to another provider or client")
	}
	if e.Detail != "" {
		b.WriteString(" (" + e.Detail + ")")
	}
	var server *ServerError
	if errors.As(e.Err, &server) {
		b.WriteString(": " + strings.TrimPrefix(server.Error(), "oauth: "))
	}
	return b.String()
}

// Unwrap makes the error match ErrLoginRequired and its cause.
func (e *LoginRequiredError) Unwrap() []error {
	if e.Err == nil {
		return []error{ErrLoginRequired}
	}
	return []error{ErrLoginRequired, e.Err}
}

// A ServerError is a refusal of the token endpoint (RFC 6749 §5.2), or a response
// that makes no sense. It holds nothing of the request and no body; texts of the
// server have credentials taken out and are cut at 512 characters.
type ServerError struct {
	// Code is the error code. Besides those of RFC 6749 and RFC 9449, servers
	// have their own: Yandex OAuth has "Basic auth required" and "Malformed
	// Authorization header". "" if the response had none.
	Code string

	// Description is the server's error_description. May be "".
	Description string

	// Status is the HTTP status.
	Status int

	// RetryAfter is how long the server asks to wait. 0 if it did not.
	RetryAfter time.Duration

	// RequestID identifies the request to the server's support. May be "".
	RequestID string

	// Err says what was wrong with a response that is not an RFC 6749 error; it
	// matches [ErrMalformedAnswer]. Otherwise nil.
	Err error
}

func (e *ServerError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "oauth: the authorization server responded %d", e.Status)
	if text := http.StatusText(e.Status); text != "" {
		b.WriteString(" " + text)
	}
	if e.Code != "" {
		fmt.Fprintf(&b, ": %s", e.Code)
	}
	if e.Description != "" {
		fmt.Fprintf(&b, ": %s", e.Description)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	if hint := codeHints[e.Code]; hint != "" {
		fmt.Fprintf(&b, " (%s)", hint)
	}
	if e.RetryAfter > 0 {
		fmt.Fprintf(&b, " (retry after %v)", e.RetryAfter)
	}
	if e.RequestID != "" {
		fmt.Fprintf(&b, " [request %s]", e.RequestID)
	}
	return b.String()
}

func (e *ServerError) Unwrap() error { return e.Err }

// Temporary reports whether the same request can succeed later without anybody
// doing anything: status 408, 425, 429 or 5xx, the codes temporarily_unavailable,
// server_error and slow_down, or another status of 400 or more without an error code,
// as proxies give. A success that is no token response, such as the page of a captive
// portal, and a redirect are not temporary.
func (e *ServerError) Temporary() bool {
	switch e.Status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	if e.Status >= 500 || e.Code == "temporarily_unavailable" || e.Code == "server_error" || e.Code == "slow_down" {
		return true
	}
	return e.Code == "" && e.Status >= 400
}

// codeHints are remedies for codes that mean a mistake of the program, not of
// the user.
var codeHints = map[string]string{
	"invalid_client":                 "check ClientID, ClientSecret and Provider.AuthMethod",
	"unauthorized_client":            "the client is not allowed this grant: check its registration",
	"unsupported_grant_type":         "the server does not renew tokens at this URL: check Provider.TokenURL",
	"invalid_dpop_proof":             "check the clock, and that Provider.TokenURL is the URL the server knows itself by",
	"Basic auth required":            "set Provider.AuthMethod to AuthClientSecretBasicPlain or AuthClientSecretPost",
	"Malformed Authorization header": "set Provider.AuthMethod to AuthClientSecretBasicPlain",
}

// An UnreachableError means that no connection to the authorization server was
// made, so that no request was sent and nothing was spent: the name was not found,
// nobody listens, the certificate is wrong, or the network is down. [errors.As]
// finds the cause in it, for instance a *net.DNSError.
type UnreachableError struct {
	Err error
}

func (e *UnreachableError) Error() string {
	return "oauth: the authorization server cannot be reached: " + redact.Text(e.Err.Error())
}

func (e *UnreachableError) Unwrap() error { return e.Err }

// An InterruptedError means that the outcome of a request with the stored refresh token
// is not known, and that none is made with it until the server would reject that one for
// the age of its proof ([Provider.ProofLife]), in case it is still on its way. It matches
// [ErrOutcomeUnknown]. A session that comes of that request meanwhile is found.
type InterruptedError struct {
	// Until is when the next request may be made, by this machine's clock.
	Until time.Time

	// Err is what became of the request, nil if another process made it.
	Err error

	wait time.Duration // the time until then
}

func (e *InterruptedError) Error() string {
	s := "oauth: the outcome of a token request of another process is not known, so none is made before "
	if e.Err != nil {
		s = "oauth: the outcome of the token request is not known, so the next is not made before "
	}
	s += e.Until.UTC().Format(time.RFC3339)
	if e.Err != nil {
		s += ": " + strings.TrimPrefix(e.Err.Error(), "oauth: ")
	}
	return s
}

// Unwrap makes the error match ErrOutcomeUnknown and its cause.
func (e *InterruptedError) Unwrap() []error {
	if e.Err == nil {
		return []error{ErrOutcomeUnknown}
	}
	return []error{ErrOutcomeUnknown, e.Err}
}

// A PersistError means that the token is good and could not be saved: as far as the
// store knows, the new refresh token, if there is one, is in memory only. The token
// source goes on serving the token and trying to save, until the store has it or says
// that there is no session any more.
type PersistError struct {
	Err error // what the store said
}

func (e *PersistError) Error() string {
	return "oauth: the renewed session could not be saved and is in memory only: " + e.Err.Error()
}

func (e *PersistError) Unwrap() error { return e.Err }

// A StoreError means that the store could not be read or locked, or that it did not
// take an imported session. No token request was made.
type StoreError struct {
	Err error // what the store said
}

func (e *StoreError) Error() string { return "oauth: session store: " + e.Err.Error() }
func (e *StoreError) Unwrap() error { return e.Err }

// A ConfigError is a mistake in a [Config].
type ConfigError struct {
	Field  string // for instance "Provider.TokenURL"
	Reason string // what is wrong with it, and what would be right
}

func (e *ConfigError) Error() string { return "oauth: Config." + e.Field + ": " + e.Reason }

// An AuthorizationError is the server's refusal of a login (RFC 6749 §4.1.2.1):
// the user denied access, or the request was not acceptable.
type AuthorizationError struct {
	Code        string // for instance "access_denied"
	Description string // of the server, with credentials taken out; may be ""
}

func (e *AuthorizationError) Error() string {
	s := "oauth: the authorization server refused the login: " + e.Code
	if e.Description != "" {
		s += ": " + e.Description
	}
	return s
}
