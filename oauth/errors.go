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
	// ErrLoginRequired means that there is no token until the user logs in
	// again. Errors that match it are of type [*LoginRequiredError].
	ErrLoginRequired = errors.New("oauth: log in again")

	// ErrNoSession means that there is no session, because no user has logged in yet or
	// the user has logged out. A token source's error also matches
	// [ErrLoginRequired].
	ErrNoSession = errors.New("oauth: no session")

	// ErrOutcomeUnknown means that a token request may have reached the server, but
	// its response was lost. If the server rotates refresh tokens, it may
	// have replaced the stored one; the next renewal finds out.
	ErrOutcomeUnknown = errors.New("oauth: the response to the token request was lost")

	// ErrMalformedResponse means that the server's response does not follow
	// RFC 6749 §5. A [*ServerError] wraps it.
	ErrMalformedResponse = errors.New("malformed response")

	// ErrNotRevoked means that the session was deleted locally, but its tokens
	// remain valid at the server, because neither
	// Config.Revoke nor Provider.RevocationURL is set, or the server does not revoke
	// tokens of this kind.
	ErrNotRevoked = errors.New("oauth: the session was deleted locally, but its tokens were not revoked at the server and stay valid there")

	// ErrIssuerMismatch means that an authorization response came from another
	// authorization server than the login was sent to (RFC 9207), or that the metadata
	// found by [Discover] are those of another one (RFC 8414 §3.3). Nothing was sent to the
	// token endpoint.
	ErrIssuerMismatch = errors.New("oauth: the issuer is not the expected one")

	// ErrClosed means that the token source is closed and its last token has
	// expired.
	ErrClosed = errors.New("oauth: the token source is closed")
)

// A Reason is why the user must log in again.
type Reason string

const (
	// ReasonNoSession means that no user has logged in. The error matches [ErrNoSession].
	ReasonNoSession Reason = "no_session"

	// ReasonRejected means that the server no longer accepts the refresh token: it
	// expired, was revoked, or was replaced. The error wraps the [*ServerError].
	ReasonRejected Reason = "rejected"

	// ReasonOutcomeUnknown means that the server rejected the refresh token after
	// the response to an earlier request with it was lost. Most likely that response
	// contained its successor. The error matches [ErrOutcomeUnknown].
	ReasonOutcomeUnknown Reason = "outcome_unknown"

	// ReasonNoRefreshToken means that the login returned no refresh token, and the access
	// token has expired.
	ReasonNoRefreshToken Reason = "no_refresh_token"

	// ReasonWrongKey means that the refresh token is bound to a different DPoP key from the
	// one configured. It was not sent, because some servers end a session for that.
	// Configuring the right key helps as well.
	ReasonWrongKey Reason = "wrong_key"

	// ReasonWrongClient means that the session belongs to another provider or
	// client_id than those configured.
	ReasonWrongClient Reason = "wrong_client"
)

// A LoginRequiredError says why the user must log in again. It matches
// [ErrLoginRequired]. The session has not been deleted from the store.
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

// A ServerError is an error response of the token endpoint (RFC 6749 §5.2) or of another
// endpoint that the client sends requests to, or a malformed response. It contains nothing
// of the request and no body; the server's texts are redacted and truncated to 512
// characters.
type ServerError struct {
	// Code is the error code, of RFC 6749, RFC 9449 or the server's
	// own: Yandex OAuth has "Basic auth required" and "Malformed
	// Authorization header". "" if the response had none.
	Code string

	// Description is the server's error_description. May be "".
	Description string

	// Status is the HTTP status.
	Status int

	// RetryAfter is how long the server asks to wait. 0 if it does not.
	RetryAfter time.Duration

	// RequestID identifies the request to the server's support. May be "".
	RequestID string

	// Err says what is wrong with a malformed response; it
	// matches [ErrMalformedResponse]. Otherwise nil.
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

// Temporary reports whether the same request may succeed later without
// intervention: status 408, 425, 429 or 5xx, the codes temporarily_unavailable,
// server_error and slow_down, or another status of 400 or more without an error code,
// as proxies return. A redirect is not temporary, nor is a success that is no token
// response, such as the page of a captive portal.
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
	"invalid_dpop_proof":             "check the clock, and that Provider.TokenURL is the URL that the server expects",
	"Basic auth required":            "set Provider.AuthMethod to AuthClientSecretBasicPlain or AuthClientSecretPost",
	"Malformed Authorization header": "set Provider.AuthMethod to AuthClientSecretBasicPlain",
}

// An UnreachableError means that no connection to the authorization server could be
// made, so no request was sent and no token was used: the name was not found,
// the connection was refused, the certificate is wrong, or the network is down. [errors.As]
// finds the cause, for instance a *net.DNSError.
type UnreachableError struct {
	Err error
}

func (e *UnreachableError) Error() string {
	return "oauth: the authorization server cannot be reached: " + redact.Text(e.Err.Error())
}

func (e *UnreachableError) Unwrap() error { return e.Err }

// An InterruptedError means that the outcome of a request with the stored refresh token
// is unknown. The request may still be in transit, so no further one is sent with that
// token until the server would reject its proof as too old ([Provider.ProofLife]). If
// another process stores the resulting session in the meantime, it is adopted. The error
// matches [ErrOutcomeUnknown].
type InterruptedError struct {
	// Until is when the next request may be sent, by this machine's clock.
	Until time.Time

	// Err is the error of the request, or nil if another process sent it.
	Err error

	wait  time.Duration // the time until then
	grace bool          // only because the process that sent it may be about to save
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

// A PersistError means that the token is valid but could not be saved. A new refresh
// token, if there is one, is in memory only, as far as the store reports. The token
// source keeps serving the token and retrying the save, until the store has it or reports
// that the session is gone.
type PersistError struct {
	Err error // the store's error
}

func (e *PersistError) Error() string {
	return "oauth: the renewed session could not be saved and is in memory only: " + e.Err.Error()
}

func (e *PersistError) Unwrap() error { return e.Err }

// A StoreError means that the store could not be read or locked, or that it could not
// save an imported session. No token request was sent. A store that does not return within
// a second after the context of its call has ended counts as one that failed.
type StoreError struct {
	Err error // the store's error
}

func (e *StoreError) Error() string { return "oauth: session store: " + e.Err.Error() }
func (e *StoreError) Unwrap() error { return e.Err }

// A ConfigError is a mistake in a [Config].
type ConfigError struct {
	Field  string // for instance "Provider.TokenURL"
	Reason string // what is wrong and how to fix it, as a predicate of Field: "is empty"
}

func (e *ConfigError) Error() string { return "oauth: Config." + e.Field + " " + e.Reason }

// An AuthorizationError means that the server rejected a login (RFC 6749 §4.1.2.1,
// RFC 8628 §3.5): the user denied access, or did not log in before the device code expired
// (expired_token), or the request was not acceptable.
type AuthorizationError struct {
	Code        string // for instance "access_denied"
	Description string // the server's, redacted; may be ""
}

func (e *AuthorizationError) Error() string {
	s := "oauth: the authorization server rejected the login: " + e.Code
	if e.Description != "" {
		s += ": " + e.Description
	}
	return s
}
