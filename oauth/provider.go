package oauth

import (
	"crypto"
	"maps"
	"net/url"
	"slices"
	"time"
)

// An AuthMethod is how a client authenticates at the token endpoint. The values
// are those of token_endpoint_auth_method (RFC 7591 §2), and one more.
//
// The package never tries several methods, because sending a grant twice may
// invalidate it.
type AuthMethod string

const (
	// AuthNone is for public clients and sends only client_id, in the body
	// (RFC 6749 §3.2.1). It is the default.
	AuthNone AuthMethod = "none"

	// AuthClientSecretPost sends client_id and client_secret in the body
	// (RFC 6749 §2.3.1).
	AuthClientSecretPost AuthMethod = "client_secret_post"

	// AuthClientSecretBasic is HTTP Basic with identifier and secret form-encoded
	// first, as RFC 6749 §2.3.1 requires.
	AuthClientSecretBasic AuthMethod = "client_secret_basic"

	// AuthClientSecretBasicPlain is HTTP Basic without that encoding, for
	// servers that only decode the base64, such as Yandex OAuth. An
	// identifier with a colon cannot be sent this way.
	AuthClientSecretBasicPlain AuthMethod = "client_secret_basic_plain"

	// AuthPrivateKeyJWT sends an assertion that Config.ClientKey signs (RFC 7523 §2.2,
	// OpenID Connect Core 1.0 §9). Its audience is Provider.Issuer, or TokenURL if there
	// is none; it expires after a minute, and none is sent twice.
	AuthPrivateKeyJWT AuthMethod = "private_key_jwt"
)

// A Provider describes an authorization server. [YandexCloud] and [YandexID] are
// predefined, and [Discover] reads the metadata of a server; any other server that implements RFC 6749 can be described too.
//
// URLs must be https, or http to a loopback address.
type Provider struct {
	// Name is stored with each session, as is the origin of TokenURL, so that a
	// session is used only at the server that issued it. Required.
	Name string

	// TokenURL is the token endpoint (RFC 6749 §3.2). Required.
	TokenURL string

	// AuthURL is the authorization endpoint (RFC 6749 §3.1).
	// Optional. Needed by [Client.Login].
	AuthURL string

	// DeviceAuthURL is the device authorization endpoint (RFC 8628 §3.1).
	// Optional. Needed by [LoginOptions.Device].
	DeviceAuthURL string

	// PushedAuthURL is the pushed authorization request endpoint (RFC 9126 §2).
	// Optional. Needed with RequirePAR.
	PushedAuthURL string

	// RequirePAR means that authorization requests are pushed to PushedAuthURL, with the
	// client's authentication and a DPoP proof, and that the user's browser gets a
	// reference to them only (require_pushed_authorization_requests, RFC 9126 §5). The
	// reference expires, often after a minute, so the user must open the page promptly.
	// Optional.
	RequirePAR bool

	// AuthMethod is how the client authenticates.
	// Optional. Default: [AuthNone].
	AuthMethod AuthMethod

	// AuthSigningAlgs are the algorithms that the server accepts in the client's assertions
	// (token_endpoint_auth_signing_alg_values_supported). Optional. Default: that of the
	// kind of key, RS256 for RSA.
	AuthSigningAlgs []string

	// Scopes are requested if [Config.Scopes] is nil. Optional.
	Scopes []string

	// ThumbprintHash is the hash of dpop_jkt, which binds the authorization code to
	// the client's key (RFC 9449 §10): [crypto.SHA256] in the RFC, SHA-512 at
	// Yandex Cloud. Optional. Default: 0, dpop_jkt is not sent.
	ThumbprintHash crypto.Hash

	// AuthParams are added to every authorization request, for instance
	// prompt=consent, and TokenParams to every token request, for instance audience.
	// They are no place for secrets. Parameters that the package sets itself are
	// rejected. Optional.
	AuthParams, TokenParams url.Values

	// FederationHintParam and SubjectHintParam name the parameters of an
	// authorization request that carry [LoginOptions.FederationID] and
	// [LoginOptions.SubjectHint]. Optional. "": the server has none.
	FederationHintParam string
	SubjectHintParam    string

	// CallbackPath is the path of the redirect URI on the loopback address
	// (RFC 8252 §7.3), unless [Config.RedirectURL] is set.
	// Optional. Default: /auth/callback.
	CallbackPath string

	// OfflineScope is the scope that the server requires to issue a refresh
	// token. It is used to explain why there is none. Optional.
	OfflineScope string

	// RefreshTokenLife is the lifetime of a refresh token, if
	// token responses do not include it (refresh_token_expires_in). Optional. Default:
	// unknown.
	RefreshTokenLife time.Duration

	// ReissueBefore is for servers that issue another refresh token only if the one that
	// is used has less than this time left. [Provider.RenewAt] depends on it.
	// Optional. Default: unknown.
	ReissueBefore time.Duration

	// RotationGrace is how long the server still accepts a refresh token that it has
	// replaced, for clients that lost the response. A server with
	// reuse detection and no such grace ends the session instead (RFC 9700 §4.14.2).
	// So unless RotationGrace is set, a refresh token is not sent again after a lost
	// response just because the access token is stale, but only when that is
	// about to expire, was rejected by a resource, or TokenSource.Renew is called.
	// Optional. Default: none.
	RotationGrace time.Duration

	// ProofLife is how long after its iat the server accepts a DPoP proof at most,
	// including the leeway for clock differences (RFC 9449 §11.1). NonceLife
	// is how long the server accepts a nonce after issuing it; it is for servers that
	// ignore the iat of a proof with a valid nonce.
	//
	// They matter if replicas share sessions in a [LeaseStore]. After a request with an
	// unknown outcome, no other is sent until the server would reject the proof of
	// that request as too old (plus 15 seconds, for clock differences). If
	// neither is set, only the lifetime of the access token limits the wait, as
	// RotationGrace describes, and a replica that is paused for longer can lose
	// the session. Optional. Default: unknown.
	ProofLife, NonceLife time.Duration

	// RevocationURL is the revocation endpoint (RFC 7009), which [Client.Logout]
	// uses if Config.Revoke is nil. Optional.
	RevocationURL string

	// Issuer is the server's issuer identifier (RFC 8414 §2). If it is set, an
	// authorization response with a different iss parameter ends the login with
	// [ErrIssuerMismatch] (RFC 9207 §2.4). Optional.
	Issuer string

	// RequireIss means that every authorization response must have the iss parameter,
	// because the server sends it with each
	// (authorization_response_iss_parameter_supported, RFC 9207 §3). It needs Issuer.
	// Optional.
	RequireIss bool

	// RefreshTokenSwitch is a sentence that says where to enable refresh tokens.
	// It is used to explain why there is none. Optional.
	RefreshTokenSwitch string

	// Clock returns the server's time, for a test server whose clock the test
	// moves. Clients share it unless [Config.Clock] is set.
	// Optional. Default: [time.Now].
	Clock func() time.Time
}

// YandexCloudClientID is the public client of Yandex Cloud's own CLI. It has no
// secret, and its redirect URI may have any loopback port.
const YandexCloudClientID = "yc.oauth.public-sdk"

// YandexCloud is the authorization server of Yandex Cloud. Its access tokens are
// IAM tokens (12 hours at most, of type Bearer); its refresh tokens are valid for 31 days
// and bound to the DPoP key of the client. The server replaces a refresh token that is
// used with less than 7 days left.
//
// The endpoints are those of the region Russia; for another one, change the
// URLs and the Issuer of the result. Sessions belong to the origin of TokenURL, so
// a session of one region is never sent to another. The use of SHA-512 for dpop_jkt is
// undocumented, but was observed. Set ThumbprintHash to change it, or to 0 to omit dpop_jkt.
func YandexCloud() Provider {
	return Provider{
		Name:                "yandex-cloud",
		Issuer:              "https://auth.yandex.cloud",
		RefreshTokenLife:    31 * 24 * time.Hour, // "Refresh token", Yandex Cloud documentation
		ReissueBefore:       7 * 24 * time.Hour,
		AuthURL:             "https://auth.yandex.cloud/oauth/authorize",
		TokenURL:            "https://auth.yandex.cloud/oauth/token",
		AuthMethod:          AuthNone,
		Scopes:              []string{"openid", "offline_access"},
		ThumbprintHash:      crypto.SHA512,
		FederationHintParam: "yc_federation_hint",
		SubjectHintParam:    "yc_sub_hint",
		OfflineScope:        "offline_access",
		RefreshTokenSwitch:  `an administrator enables refresh tokens in Yandex Cloud Organization, "Security settings", "Enable refresh tokens"`,
	}
}

// YandexID is Yandex OAuth at oauth.yandex.com, for applications registered
// there. Its tokens are not bound to a key, and every response has a new refresh
// token, with the same lifetime as the access token. Client identifier and password
// go into the Authorization header; set AuthMethod to [AuthClientSecretPost] to
// send them in the body instead.
//
// Yandex Cloud rejects tokens of Yandex ID that were issued after 2026-06-01.
// Use [YandexCloud] there.
func YandexID() Provider {
	return Provider{
		Name:       "yandex-id",
		AuthURL:    "https://oauth.yandex.com/authorize",
		TokenURL:   "https://oauth.yandex.com/token",
		AuthMethod: AuthClientSecretBasicPlain,
	}
}

func deepClone(v url.Values) url.Values {
	v = maps.Clone(v)
	for name, values := range v {
		v[name] = slices.Clone(values)
	}
	return v
}

// clone copies what New keeps, so that the caller can go on changing theirs.
func (p Provider) clone() Provider {
	p.Scopes = slices.Clone(p.Scopes)
	p.AuthSigningAlgs = slices.Clone(p.AuthSigningAlgs)
	p.AuthParams, p.TokenParams = deepClone(p.AuthParams), deepClone(p.TokenParams)
	if p.AuthMethod == "" {
		p.AuthMethod = AuthNone
	}
	if p.CallbackPath == "" {
		p.CallbackPath = "/auth/callback"
	}
	return p
}
