package oauth

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/ycauth/ycauth-go/internal/strictjson"
)

// A Session holds one user's tokens from one authorization server: the refresh
// token, and the access token that it was last exchanged for. The zero value
// means that there is none.
type Session struct {
	// Provider and ClientID name the issuer of the refresh token and the client that
	// it was issued to. It must not be sent to any other server.
	Provider string
	ClientID string

	// RefreshToken is "" in a session that cannot be renewed; Warning says why.
	RefreshToken Secret

	// AccessToken, TokenType and Expiry are from the server's latest response.
	// AccessToken is "" in a session that was imported and not used since. Expiry is
	// zero if the server did not send it.
	AccessToken Secret
	TokenType   string
	Expiry      time.Time

	// Obtained is when the access token was requested; with Expiry it gives the
	// token's lifetime. Both are by the clock of the process that requested it.
	Obtained time.Time

	// Issued is the same moment by the server's clock (its Date header). Zero if the
	// server did not send it.
	Issued time.Time

	// TokenThumbprint names the DPoP key that an access token of type DPoP is bound
	// to, as KeyThumbprint does for the refresh token. "" for type Bearer.
	TokenThumbprint string

	// TokenOrigin is the origin (scheme, host and port) of the token endpoint that
	// issued the tokens. "" if the session is older than this field.
	TokenOrigin string

	// Scopes were granted, in the server's order.
	Scopes []string

	// KeyThumbprint names the DPoP key that the refresh token is bound to: the
	// SHA-256 JWK thumbprint (RFC 7638). "" if it is not bound.
	KeyThumbprint string

	// RefreshExpiry is when the refresh token expires, according to the server or
	// Provider.RefreshTokenLife. Zero if unknown.
	RefreshExpiry time.Time

	// Identity is the user, as far as the server identified one.
	Identity Identity

	// Created is when the user logged in, or the token was imported.
	Created time.Time

	// Generation counts the changes of the session, starting at 1. A copy with a
	// lower Generation is older.
	Generation uint64

	// Warning says why the server issued no refresh token at login. "" if it did.
	Warning Warning

	// extra holds members of the stored form that this release does not know, so
	// that a newer release does not lose them when this one renews.
	extra *unknownMembers
}

// unknownMembers are JSON members by name. They are behind a pointer and never
// change: package fmt would print a map in an unexported field, secrets and all.
type unknownMembers struct{ m map[string]json.RawMessage }

// An Identity names the logged-in user, as the id_token of the token response
// does (OpenID Connect Core 1.0 §2, §5.1). It is for display only. The id_token came
// over TLS from the token endpoint and its signature was not verified (§3.1.3.7),
// so do not base access decisions on it.
type Identity struct {
	Subject string `json:"subject,omitempty"` // sub: the user's identifier at the server
	Name    string `json:"name,omitempty"`    // name, else preferred_username
	Email   string `json:"email,omitempty"`   // email
}

// A Warning is the reason why a session cannot be renewed.
type Warning string

const (
	// WarnNoOfflineScope means that the scope that asks for a refresh token (usually
	// offline_access) was not requested or not granted.
	WarnNoOfflineScope Warning = "no_offline_scope"

	// WarnRefreshTokensOff means that the scope was granted, but the server issued no
	// refresh token. In Yandex Cloud, refresh tokens are disabled in the organization.
	WarnRefreshTokensOff Warning = "refresh_tokens_off"
)

// IsZero reports whether there is no session.
func (s Session) IsZero() bool { return s.RefreshToken == "" && s.AccessToken == "" }

// clone returns a copy that shares nothing with s.
func (s Session) clone() Session {
	s.Scopes = slices.Clone(s.Scopes)
	return s
}

// sessionVersion is the version of the stored form. A reader rejects versions
// that it does not know; additions that old readers may ignore keep it.
const sessionVersion = 1

// storedSession is the stored form of a Session: the one place where secrets are
// written in the clear.
type storedSession struct {
	Version       int        `json:"version"`
	Provider      string     `json:"provider"`
	ClientID      string     `json:"client_id"`
	RefreshToken  string     `json:"refresh_token,omitempty"`
	AccessToken   string     `json:"access_token,omitempty"`
	TokenType     string     `json:"token_type,omitempty"`
	Expiry        *time.Time `json:"expiry,omitempty"`
	Obtained      *time.Time `json:"obtained,omitempty"`
	Scopes        []string   `json:"scopes,omitempty"`
	KeyThumbprint string     `json:"key_thumbprint,omitempty"`
	RefreshExpiry *time.Time `json:"refresh_expiry,omitempty"`
	Identity      *Identity  `json:"identity,omitempty"`
	Issued        *time.Time `json:"issued,omitempty"`
	TokenKey      string     `json:"token_key_thumbprint,omitempty"`
	TokenOrigin   string     `json:"token_origin,omitempty"`
	Created       *time.Time `json:"created,omitempty"`
	Generation    uint64     `json:"generation"`
	Warning       Warning    `json:"warning,omitempty"`
}

// maxGeneration is far from the numbers that have no successor in a [Store]: 2^64-1, and
// 2^63-1 in databases. A session of that generation can be read and cannot be renewed: its
// successor could not be stored.
const maxGeneration = 1 << 62

// errLastGeneration means that the session in the store was not made by counting changes.
var errLastGeneration error = &StoreError{fmt.Errorf("%w: no generation follows %d: set it to 1, or log in again",
	ErrSessionFormat, uint64(maxGeneration))}

// generationAfter is that of next, which replaces the stored session. A new login need not
// have a higher one: it is told from the one before by [Session.Created].
func generationAfter(stored, next Session) uint64 {
	if stored.Generation >= maxGeneration && !sameLogin(stored, next) {
		return 1
	}
	return stored.Generation + 1
}

// ErrSessionFormat means that the data is not a session. Errors of [DecodeSession]
// match it.
var ErrSessionFormat = errors.New("oauth: not a stored session")

// Encode returns the encoding in which a [Store] keeps the session: a JSON object with
// the members
//
//	version         number, 1
//	provider        string, Provider.Name
//	client_id       string
//	refresh_token   string, in the clear
//	access_token    string, in the clear
//	token_type      string, "Bearer" or "DPoP"
//	expiry          string, RFC 3339
//	obtained        string, RFC 3339
//	scopes          array of strings
//	key_thumbprint  string, base64url
//	issued          string, RFC 3339
//	token_origin    string, for instance "https://auth.example"
//	token_key_thumbprint  string, base64url
//	refresh_expiry  string, RFC 3339
//	identity        object of strings: subject, name, email
//	created         string, RFC 3339
//	generation      number
//	warning         string
//
// All but version, provider, client_id and generation are optional.
// The encoding contains the secrets in plain text: keep it where only the user can read it.
func (s Session) Encode() ([]byte, error) {
	st := storedSession{
		Version: sessionVersion, Provider: s.Provider, ClientID: s.ClientID,
		RefreshToken: s.RefreshToken.Reveal(), AccessToken: s.AccessToken.Reveal(), TokenType: s.TokenType,
		Expiry: optionalTime(s.Expiry), Obtained: optionalTime(s.Obtained), Created: optionalTime(s.Created),
		RefreshExpiry: optionalTime(s.RefreshExpiry), Issued: optionalTime(s.Issued),
		TokenKey: s.TokenThumbprint, TokenOrigin: s.TokenOrigin,
		Scopes: s.Scopes, KeyThumbprint: s.KeyThumbprint, Generation: s.Generation, Warning: s.Warning,
	}
	if s.Identity != (Identity{}) {
		st.Identity = &s.Identity
	}
	if s.extra == nil {
		return json.Marshal(st)
	}
	known, err := json.Marshal(st)
	if err != nil {
		return nil, err
	}
	all := maps.Clone(s.extra.m)
	if err := json.Unmarshal(known, &all); err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

// MarshalJSON returns an error that names [Session.Encode], because a session in
// JSON without its tokens would be a lost one.
func (s Session) MarshalJSON() ([]byte, error) {
	return nil, errors.New("oauth: a Session holds secrets and is not encoded as JSON by accident: use its method Encode and DecodeSession")
}

// UnmarshalJSON returns an error that names [DecodeSession].
func (s *Session) UnmarshalJSON([]byte) error {
	return errors.New("oauth: use DecodeSession to read a stored Session")
}

// DecodeSession reads what [Session.Encode] wrote. Members that it does not know
// are kept and written again by Encode. Its errors match [ErrSessionFormat], name the cause, and hold
// nothing of the data.
func DecodeSession(data []byte) (Session, error) {
	members, err := strictjson.Object(data)
	if err != nil {
		return Session{}, fmt.Errorf("%w: %w", ErrSessionFormat, err)
	}
	var st storedSession
	if err := json.Unmarshal(data, &st); err != nil {
		return Session{}, fmt.Errorf("%w: a member has a wrong type", ErrSessionFormat) // err can quote the data
	}
	if st.Version != sessionVersion {
		return Session{}, fmt.Errorf("%w: version %d, and this program knows version %d: a newer release may have written it", ErrSessionFormat, st.Version, sessionVersion)
	}
	s := Session{
		Provider: st.Provider, ClientID: st.ClientID,
		RefreshToken: Secret(st.RefreshToken), AccessToken: Secret(st.AccessToken), TokenType: st.TokenType,
		Expiry: timeOrZero(st.Expiry), Obtained: timeOrZero(st.Obtained), Created: timeOrZero(st.Created),
		RefreshExpiry: timeOrZero(st.RefreshExpiry), Issued: timeOrZero(st.Issued),
		TokenThumbprint: st.TokenKey, TokenOrigin: st.TokenOrigin,
		Scopes: st.Scopes, KeyThumbprint: st.KeyThumbprint, Generation: st.Generation, Warning: st.Warning,
	}
	if st.Identity != nil {
		s.Identity = *st.Identity
	}
	for _, t := range []time.Time{s.Expiry, s.Obtained, s.Created, s.RefreshExpiry, s.Issued} {
		if y := t.UTC().Year(); y < 0 || y > 9999 {
			return Session{}, fmt.Errorf("%w: a time is outside of the years 0 to 9999", ErrSessionFormat) // Encode could not write it
		}
	}
	if s.IsZero() || s.Provider == "" || s.ClientID == "" || s.Generation == 0 {
		return Session{}, fmt.Errorf("%w: a required member is missing", ErrSessionFormat)
	}
	if s.Generation > maxGeneration {
		return Session{}, fmt.Errorf("%w: the generation is above %d, which no count of changes reaches: set it to 1, or log in again", ErrSessionFormat, uint64(maxGeneration))
	}
	for name, value := range members {
		if !knownMembers[name] {
			if s.extra == nil {
				s.extra = &unknownMembers{make(map[string]json.RawMessage)}
			}
			s.extra.m[name] = value
		}
	}
	return s, nil
}

// knownMembers are the names of storedSession.
var knownMembers = func() map[string]bool {
	known := make(map[string]bool)
	for _, field := range reflect.VisibleFields(reflect.TypeFor[storedSession]()) {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		known[name] = true
	}
	return known
}()

func optionalTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func timeOrZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}
