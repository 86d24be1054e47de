package iamtest

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/iamtest/internal/iamapi"
)

// A Rotation is when a renewal returns a new refresh token.
type Rotation string

const (
	// RotateNearEnd replaces a refresh token that is used with less than
	// Options.RotateWithin left, as Yandex Cloud does.
	RotateNearEnd Rotation = "near_end"

	// RotateNever keeps a refresh token until it expires.
	RotateNever Rotation = "never"

	// RotateAlways replaces a refresh token with every use (RFC 9700 §4.14.2).
	RotateAlways Rotation = "always"
)

// A NonceMode is what the server wants of nonces in proofs (RFC 9449 §8, §9).
type NonceMode string

const (
	// NoncesOff sends no nonces and ignores those in proofs. It is the default.
	NoncesOff NonceMode = "off"

	// NoncesOptional sends nonces and accepts proofs without one. A nonce that the
	// server did not send, or that is too old, is still rejected.
	NoncesOptional NonceMode = "optional"

	// NoncesRequired responds use_dpop_nonce to a proof without a current nonce.
	NoncesRequired NonceMode = "required"
)

// A Client is a registered OAuth client.
type Client struct {
	ID string

	// Secret is "" for a public client.
	Secret oauth.Secret

	// AuthMethod is the only way in which the client may authenticate; with
	// YandexID the body always works as well.
	// Optional. Default: AuthNone without a Secret, else
	// [oauth.AuthClientSecretBasic], or with YandexID [oauth.AuthClientSecretBasicPlain].
	AuthMethod oauth.AuthMethod

	// RedirectURIs must match exactly, except that the port of those with the host
	// 127.0.0.1 or [::1] is ignored (RFC 8252 §7.3). Optional. Default:
	// http://127.0.0.1/auth/callback and http://[::1]/auth/callback.
	RedirectURIs []string
}

// A Status is an error of the API, a google.rpc.Status.
type Status struct {
	Code    int32 // a google.rpc.Code
	Message string

	// Field is the request field that the error is about, in snake case; it travels
	// as a google.rpc.BadRequest detail. Optional.
	Field string
}

// Options change what the server does. The zero value is Yandex Cloud as far as
// it is documented: a public client, DPoP required, nonces off, rotation near
// the end of life, Bearer access tokens.
type Options struct {
	// YandexID has the habits of Yandex OAuth at oauth.yandex.com: clients with a
	// secret, in the body or in a Basic header of plain base64; token_type in lower
	// case; no DPoP; a new refresh token with every answer, which lives as long as the
	// access token; error codes of its own for a wrong Authorization header.
	// Optional. Default: those of Yandex Cloud: public clients, DPoP-bound refresh
	// tokens that live 31 days, IAM tokens that live 12 hours.
	YandexID bool

	// ClientID, ClientSecret, AuthMethod and RedirectURIs describe the first client.
	// Optional. Default: [oauth.YandexCloudClientID], a public client; with
	// YandexID "iamtest-app" with the secret "iamtest-app-secret".
	ClientID     string
	ClientSecret oauth.Secret
	AuthMethod   oauth.AuthMethod
	RedirectURIs []string

	// Clients are further clients. Optional.
	Clients []Client

	// Subject is the user who logs in if the request has no subject hint. Optional.
	// Default: "ajeiamtestuser000001".
	Subject string

	// Roles are what a subject may do with the tokens of others: role names by
	// subject. Optional. To list them takes organization-manager.viewer,
	// organization-manager.admin or iam.userAccounts.refreshTokenViewer, and to revoke
	// them organization-manager.federations.userAdmin or
	// iam.userAccounts.refreshTokenRevoker.
	Roles map[string][]string

	// Scopes are those that the server knows. Optional. Default: openid,
	// offline_access, profile and email; with YandexID any scope.
	Scopes []string

	// RefuseUnknownScopes answers invalid_scope where others are asked for (RFC 6749
	// §4.1.2.1). Optional. Default: they are left out of what is granted (§3.3).
	RefuseUnknownScopes bool

	// DenyLogin responds to an authorization request with access_denied, as if the
	// user had clicked "no". Optional.
	DenyLogin bool

	// RefreshTokensOff issues no refresh tokens, regardless of the scope, like an
	// organization that has not enabled them. Optional.
	RefreshTokensOff bool

	// DropOfflineAccess omits offline_access from the granted scope, as some servers
	// do without prompt=consent; no refresh token is issued. Optional.
	DropOfflineAccess bool

	// ThumbprintHash is the hash of dpop_jkt in authorization requests. Optional.
	// Default: SHA-512, as observed at Yandex Cloud; set SHA-256 for RFC 9449 §10.
	ThumbprintHash crypto.Hash

	// CodeLife is the lifetime of an authorization code. Optional. Default: 1 minute.
	CodeLife time.Duration

	// AllowUnbound accepts token requests without a proof. What they get is bound
	// to no key: NO_PROTECTION. Optional. Default: a proof is required, but for
	// YandexID.
	AllowUnbound bool

	// OnlyAttestedKeys is the switch "Allow DPoP key storage only on YubiKeys": a
	// proof by a key that VerifyAttestation does not accept is rejected with
	// invalid_dpop_proof. Optional.
	OnlyAttestedKeys bool

	// VerifyAttestation reports whether a certificate chain, from the x5c header of a
	// proof, attests a key that its device generated and keeps. The first certificate
	// is the key's, as package dpop ensures. If it returns true, the refresh token is
	// SECURE_KEY_DPOP, otherwise INSECURE_KEY_DPOP. It must be safe for concurrent
	// use. Optional. Default: false for every chain.
	VerifyAttestation func(chain []*x509.Certificate) bool

	// Nonces is the mode of the token endpoint, ResourceNonces that of the API
	// and of /api/whoami for access tokens of type DPoP. Both have the same
	// origin, and so the same nonces. Optional. Default: [NoncesOff].
	Nonces         NonceMode
	ResourceNonces NonceMode

	// ChallengeStatus is the status of use_dpop_nonce at the token endpoint: 400, as
	// in RFC 9449 §8, or 401, as at some servers. Resources always respond 401 (§9).
	// Optional. Default: 400.
	ChallengeStatus int

	// NonceEvery creates a new nonce after that many responses; 1 creates one for
	// every response. Optional. Default: 0, a nonce is replaced after half of
	// NonceLife.
	NonceEvery int

	// NonceLife is how long a nonce is accepted.
	// Optional. Default: 5 minutes.
	NonceLife time.Duration

	// QuietNonces sends DPoP-Nonce only with a challenge, and with responses to proofs
	// whose nonce is no longer the newest. Optional. Default: with every response of
	// an endpoint whose mode is not [NoncesOff].
	QuietNonces bool

	// SeparateNonces keeps separate nonces for the two grant types and for resources.
	// Optional.
	SeparateNonces bool

	// ProofMaxAge and ProofLeeway are [dpop.Verifier]'s MaxAge and Leeway.
	// Optional. Default: those of the Verifier.
	ProofMaxAge time.Duration
	ProofLeeway time.Duration

	// WrongKeyRevokes ends a grant if its refresh token comes with a proof of another
	// key, as at some servers. Optional. Default: invalid_grant, and the token stays
	// valid for the right key.
	WrongKeyRevokes bool

	// AccessLife is how long access tokens live. Optional. Default: 12 hours;
	// 365 days with YandexID.
	AccessLife time.Duration

	// RefreshLife is how long refresh tokens live. Optional. Default: 31 days;
	// AccessLife with YandexID.
	RefreshLife time.Duration

	// KeepExpired is how long an expired refresh token is still listed.
	// Optional. Default: 7 days.
	KeepExpired time.Duration

	// Rotation is when a refresh replaces the refresh token. Optional. Default:
	// [RotateNearEnd]; [RotateAlways] with YandexID.
	Rotation Rotation

	// RotateWithin is the remaining lifetime that [RotateNearEnd] considers near the
	// end. Optional. Default: 7 days.
	RotateWithin time.Duration

	// ReuseKeepsGrant answers invalid_grant to a refresh token that is used again
	// after it was replaced, outside of GracePeriod, and the newest token stays good.
	// Optional. Default: that ends the whole grant, the newest refresh token included,
	// because the server cannot tell who of the two is the thief (RFC 9700 §4.14.2).
	ReuseKeepsGrant bool

	// GracePeriod is how long a replaced refresh token is still accepted; the response
	// has the newest refresh token, not another new one. GraceUses is how often; 0
	// means any number of times. Optional. Default: 0, no grace.
	GracePeriod time.Duration
	GraceUses   int

	// TokenType is "Bearer" or "DPoP": whether access tokens are bound to the key
	// of the proof as well. Optional. Default: "Bearer".
	TokenType string

	// SameTokenWhile returns the newest access token of the grant again while it has
	// more than this left. Optional. Default: 0, every response has a new one.
	SameTokenWhile time.Duration

	// RevokeAccessTokens ends the access tokens of a grant together with its
	// refresh token. Optional. Default: they stay valid until they expire.
	RevokeAccessTokens bool

	// OperationDelay is how long an Operation takes, by the server's clock.
	// Optional. Default: 0.
	OperationDelay time.Duration

	// OperationPolls is how many polls see an Operation unfinished, in addition to the
	// response to Revoke itself. Optional. Default: 0; with an OperationDelay of 0 the
	// response to Revoke is the finished Operation.
	OperationPolls int

	// OperationError is the error of all Operations, which then revoke nothing.
	// Optional. Default: nil, they succeed.
	OperationError *Status

	// SparsePages filters after paging: a page contains the matches among the next
	// pageSize tokens, and may be empty and still have a nextPageToken. Optional.
	SparsePages bool

	// Port is the port of 127.0.0.1 that the server listens on. Optional. Default: 0,
	// any free one.
	Port int

	// TLS serves https, with a self-signed certificate: [Server.HTTPClient] trusts it.
	// Optional. Default: plain http.
	TLS bool

	// HTTP2 serves HTTP/2 in addition to HTTP/1.1: by ALPN with TLS, and without TLS
	// to clients that start with it. [Server.HTTPClient] uses it. Optional.
	HTTP2 bool

	// Chunked sends responses in two pieces, without Content-Length. Optional.
	Chunked bool

	// Now is the clock to which [Server.Advance] adds. The server uses no other.
	// Optional. Default: [time.Now].
	Now func() time.Time

	// Logger gets one line for every request, without secrets, at the level
	// Info. Optional. Default: requests are not logged.
	Logger *slog.Logger

	// MaxRecords is how many requests [Server.Requests] remembers, and how many
	// credentials [Server.Secrets]; older ones are forgotten, and requests stay
	// counted. Optional. Default: 100 000.
	MaxRecords int
}

// resolve returns the options with every default filled in, or every mistake in
// one error.
func (o Options) resolve() (*Options, error) {
	o.Clients = slices.Clone(o.Clients)
	o.Roles = maps.Clone(o.Roles)
	if !o.YandexID {
		def(&o.ClientID, oauth.YandexCloudClientID)
		def(&o.AccessLife, 12*time.Hour)
		def(&o.RefreshLife, 31*24*time.Hour)
		def(&o.Rotation, RotateNearEnd)
		if o.Scopes == nil {
			o.Scopes = []string{"openid", offlineAccess, "profile", "email"}
		}
	} else {
		if o.ClientID == "" {
			o.ClientID = "iamtest-app"
			def(&o.ClientSecret, "iamtest-app-secret")
		}
		o.AllowUnbound = true
		def(&o.AccessLife, 365*24*time.Hour)
		def(&o.RefreshLife, o.AccessLife)
		def(&o.Rotation, RotateAlways)
	}
	def(&o.Subject, "ajeiamtestuser000001")
	def(&o.ThumbprintHash, crypto.SHA512)
	def(&o.CodeLife, time.Minute)
	def(&o.ChallengeStatus, http.StatusBadRequest)
	def(&o.Nonces, NoncesOff)
	def(&o.ResourceNonces, NoncesOff)
	def(&o.NonceLife, 5*time.Minute)
	def(&o.KeepExpired, 7*24*time.Hour)
	def(&o.RotateWithin, 7*24*time.Hour)
	def(&o.TokenType, "Bearer")
	def(&o.MaxRecords, 100_000)
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Clients = append([]Client{{ID: o.ClientID, Secret: o.ClientSecret, AuthMethod: o.AuthMethod, RedirectURIs: o.RedirectURIs}}, o.Clients...)
	for i := range o.Clients {
		o.Clients[i].resolve(o.YandexID)
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	return &o, nil
}

// def sets *p to v if it is the zero value.
func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// api is the status as the API has it; nil for nil.
func (s *Status) api() *iamapi.Status {
	if s == nil {
		return nil
	}
	return &iamapi.Status{Code: iamapi.Code(s.Code), Message: s.Message, Field: s.Field}
}

func (c *Client) resolve(yandexID bool) {
	if c.RedirectURIs == nil {
		c.RedirectURIs = []string{"http://127.0.0.1" + callbackPath, "http://[::1]" + callbackPath}
	}
	if c.AuthMethod != "" {
		return
	}
	switch {
	case c.Secret == "":
		c.AuthMethod = oauth.AuthNone
	case yandexID:
		c.AuthMethod = oauth.AuthClientSecretBasicPlain
	default:
		c.AuthMethod = oauth.AuthClientSecretBasic
	}
}

func (o *Options) check() error {
	var errs []error
	add := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("iamtest: Options."+field+": "+format, args...))
	}
	oneOf(add, "Rotation", o.Rotation, RotateNearEnd, RotateNever, RotateAlways)
	oneOf(add, "ChallengeStatus", o.ChallengeStatus, http.StatusBadRequest, http.StatusUnauthorized)
	oneOf(add, "Nonces", o.Nonces, NoncesOff, NoncesOptional, NoncesRequired)
	oneOf(add, "ResourceNonces", o.ResourceNonces, NoncesOff, NoncesOptional, NoncesRequired)
	oneOf(add, "TokenType", o.TokenType, "Bearer", "DPoP")
	if o.Port < 0 || o.Port > 65535 {
		add("Port", "is %d, want 0 to 65535", o.Port)
	}
	oneOf(add, "ThumbprintHash", o.ThumbprintHash, crypto.SHA256, crypto.SHA512)
	for field, d := range map[string]time.Duration{
		"CodeLife": o.CodeLife, "NonceLife": o.NonceLife, "ProofMaxAge": o.ProofMaxAge, "ProofLeeway": o.ProofLeeway,
		"AccessLife": o.AccessLife, "RefreshLife": o.RefreshLife, "KeepExpired": o.KeepExpired, "RotateWithin": o.RotateWithin,
		"GracePeriod": o.GracePeriod, "SameTokenWhile": o.SameTokenWhile, "OperationDelay": o.OperationDelay,
		"NonceEvery": time.Duration(o.NonceEvery), "GraceUses": time.Duration(o.GraceUses),
		"OperationPolls": time.Duration(o.OperationPolls), "MaxRecords": time.Duration(o.MaxRecords),
	} {
		if d < 0 {
			add(field, "is negative")
		}
	}
	seen := map[string]bool{}
	for _, c := range o.Clients {
		if c.ID == "" || seen[c.ID] {
			add("Clients", "a client has no ID, or that of another one: %q", c.ID)
		}
		seen[c.ID] = true
		for _, uri := range c.RedirectURIs {
			// "The redirection endpoint URI MUST be an absolute URI … MUST NOT include
			// a fragment component" (RFC 6749 §3.1.2).
			if u, err := url.Parse(uri); err != nil || !u.IsAbs() || strings.Contains(uri, "#") {
				add("RedirectURIs", "one of %q is not an absolute URI without fragment", c.ID)
			}
		}
		if !slices.Contains(authMethods, c.AuthMethod) {
			add("AuthMethod", "%q is not a method of package oauth", c.AuthMethod)
		} else if (c.AuthMethod == oauth.AuthNone) != (c.Secret == "") {
			add("ClientSecret", "a public client has none, and any other needs one: %q", c.ID)
		}
	}
	if o.OperationError != nil && o.OperationError.Code == 0 {
		add("OperationError", "its code is OK")
	}
	return errors.Join(errs...)
}

var authMethods = []oauth.AuthMethod{
	oauth.AuthNone, oauth.AuthClientSecretPost, oauth.AuthClientSecretBasic, oauth.AuthClientSecretBasicPlain,
}

func oneOf[T comparable](add func(field, format string, args ...any), field string, v T, known ...T) {
	if !slices.Contains(known, v) {
		add(field, "%v is none of %v", v, known)
	}
}

func (o *Options) client(id string) (Client, bool) {
	i := slices.IndexFunc(o.Clients, func(c Client) bool { return c.ID == id })
	if i < 0 {
		return Client{}, false
	}
	return o.Clients[i], true
}
