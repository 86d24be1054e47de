package refreshtoken

import (
	"fmt"
	"strings"

	"github.com/ycauth/ycauth-go/internal/redact"
	"github.com/ycauth/ycauth-go/internal/tokenapi"
)

// A Target selects the refresh tokens that [Client.Revoke] revokes. Create one with
// [ByID], [ByToken], [ByFilter] or [AllMine]; the zero Target is rejected, so that
// a forgotten argument never means "all".
//
// In fmt, JSON and slog a Target prints its selection, and never a
// refresh token.
type Target struct {
	kind           targetKind
	id             string
	token          func() string
	filter         RevokeFilter
	idempotencyKey string
}

type targetKind int

const (
	targetNone targetKind = iota
	targetID
	targetToken
	targetFilter
	targetAllMine
)

// RevokeFilter selects refresh tokens by client and account. Conditions
// are joined by AND. At least one is required: see [AllMine].
type RevokeFilter struct {
	// ClientID selects the tokens of an OAuth client, at most 50 characters.
	// Optional.
	ClientID string
	// SubjectID selects the tokens of an account, at most 50 characters.
	// Optional. Default: the account of the caller.
	SubjectID string
	// ClientInstanceInfo selects the tokens of an application instance, at
	// most 1000 characters. Optional.
	ClientInstanceInfo string
}

// ByID selects the refresh token with an ID, which has at most 50 characters:
// see [RefreshToken].
func ByID(id string) Target { return Target{kind: targetID, id: id} }

// ByToken selects a refresh token by the token itself, which has at most 1000
// characters.
func ByToken(token string) Target {
	return Target{kind: targetToken, token: func() string { return token }}
}

// ByFilter selects every refresh token that f matches. A filter without a
// condition is rejected; use [AllMine] instead.
func ByFilter(f RevokeFilter) Target { return Target{kind: targetFilter, filter: f} }

// AllMine selects every refresh token of the caller's account,
// including that of the current login. Confirm with the user first.
func AllMine() Target { return Target{kind: targetAllMine} }

// WithIdempotencyKey returns t with the key that [Client.Revoke] sends instead of
// a new random one. The server treats repeated calls with the same target and key, for
// example after a crash, as one revocation. The key is a UUID
// (RFC 9562), preferably of version 4.
func (t Target) WithIdempotencyKey(key string) Target {
	t.idempotencyKey = key
	return t
}

// secret is the refresh token, or "".
func (t Target) secret() string {
	if t.token == nil {
		return ""
	}
	return t.token()
}

// request is the request that selects t. Exactly one of its members is set,
// as the protobuf definition demands.
func (t Target) request() (tokenapi.RevokeRequest, error) {
	if t.idempotencyKey != "" && !isUUID(t.idempotencyKey) {
		return tokenapi.RevokeRequest{}, &ArgumentError{"Target.WithIdempotencyKey", "is not a UUID such as 3f0c1c5e-8d5b-4b0a-9b57-0a6f5b6f7d11"}
	}
	switch t.kind {
	case targetID:
		return tokenapi.RevokeRequest{RefreshTokenID: t.id}, checkTokenID("ByID", t.id)
	case targetToken:
		return tokenapi.RevokeRequest{RefreshToken: t.token}, checkToken(t.token())
	case targetFilter:
		return tokenapi.RevokeRequest{RevokeFilter: (*tokenapi.RevokeFilter)(&t.filter)}, t.filter.check()
	case targetAllMine:
		// The documentation says that a request with nothing set revokes every
		// token of the caller, the protobuf definition that exactly one member
		// is set. A filter without conditions satisfies both.
		return tokenapi.RevokeRequest{RevokeFilter: &tokenapi.RevokeFilter{}}, nil
	}
	return tokenapi.RevokeRequest{}, &ArgumentError{"Target", "is empty: use ByID, ByToken, ByFilter or AllMine"}
}

func checkTokenID(field, id string) error {
	if id == "" {
		return &ArgumentError{field, "is empty: it takes the ID of a refresh token, as List returns it"}
	}
	return checkText(field, id, maxID, "it takes the ID of a refresh token; the token itself goes to ByToken")
}

func checkToken(token string) error {
	if token == "" {
		return &ArgumentError{"ByToken", "is empty: it takes a refresh token"}
	}
	if strings.TrimSpace(token) != token {
		return &ArgumentError{"ByToken", "has white space around it, which no refresh token has: take it off"}
	}
	// RFC 6749 Appendix A.17: a refresh token is 1*VSCHAR, and VSCHAR is %x20-7E.
	if strings.ContainsFunc(token, func(r rune) bool { return r < 0x20 || r > 0x7e }) {
		return &ArgumentError{"ByToken", "has a character other than printable ASCII, which no refresh token has: pass the token alone, as it was issued"}
	}
	return checkText("ByToken", token, maxRefreshToken, "it takes a refresh token")
}

func (f RevokeFilter) check() error {
	if f == (RevokeFilter{}) {
		return &ArgumentError{"ByFilter", "has no condition: set one, or use AllMine to revoke every refresh token of the caller"}
	}
	for _, c := range []struct {
		field, value string
		most         int
	}{
		{"RevokeFilter.ClientID", f.ClientID, maxID},
		{"RevokeFilter.SubjectID", f.SubjectID, maxID},
		{"RevokeFilter.ClientInstanceInfo", f.ClientInstanceInfo, maxClientInstanceInfo},
	} {
		if err := checkText(c.field, c.value, c.most, "it is compared as a whole, so copy it from List"); err != nil {
			return err
		}
	}
	return nil
}

// String describes the refresh tokens that t selects.
func (t Target) String() string {
	switch t.kind {
	case targetID:
		return fmt.Sprintf("the refresh token with ID %q", t.id)
	case targetToken:
		return "the refresh token " + redact.Mark
	case targetFilter:
		return "the refresh tokens with " + t.filter.terms()
	case targetAllMine:
		return "all refresh tokens of the caller"
	}
	return "no refresh token"
}

// terms lists the conditions of f.
func (f RevokeFilter) terms() string {
	var terms []string
	for _, c := range []struct{ name, value string }{
		{"client_id", f.ClientID}, {"subject_id", f.SubjectID}, {"client_instance_info", f.ClientInstanceInfo},
	} {
		if c.value != "" {
			terms = append(terms, fmt.Sprintf("%s=%q", c.name, c.value))
		}
	}
	if terms == nil {
		return "no condition"
	}
	return strings.Join(terms, " AND ")
}

// Format prints [Target.String] for every verb.
func (t Target) Format(f fmt.State, _ rune) { fmt.Fprint(f, t.String()) }

// MarshalText returns [Target.String], for JSON and other encodings.
func (t Target) MarshalText() ([]byte, error) { return []byte(t.String()), nil }
