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
// It is never found out by trying: a grant that is sent twice is a grant that is
// spent.
type AuthMethod string

const (
	// AuthNone is for public clients: client_id stands in the body
	// (RFC 6749 §3.2.1). It is the default.
	AuthNone AuthMethod = "none"

	// AuthClientSecretPost puts client_id and client_secret into the body
	// (RFC 6749 §2.3.1).
	AuthClientSecretPost AuthMethod = "client_secret_post"

	// AuthClientSecretBasic is HTTP Basic with identifier and secret encoded as
	// form values first, as RFC 6749 §2.3.1 demands.
	AuthClientSecretBasic AuthMethod = "client_secret_basic"

	// AuthClientSecretBasicPlain is HTTP Basic without that encoding, for
	// servers that decode the base64 and nothing more. Yandex OAuth is one. An
	// identifier with a colon cannot be sent this way.
	AuthClientSecretBasicPlain AuthMethod = "client_secret_basic_plain"
)

// A Provider describes an authorization server. [YandexCloud] and [YandexID] are
// ready-made; any server that speaks RFC 6749 can be described by hand.
//
// URLs must be https, or http to a loopback address.
type Provider struct {
	// Name is stored with each session, as is the origin of TokenURL, so that a
	// session is never used at another server than the one that made it. Required.
	Name string

	// TokenURL is the token endpoint (RFC 6749 §3.2). Required.
	TokenURL string

	// AuthURL is the authorization endpoint (RFC 6749 §3.1).
	// Optional. Needed by [Client.Login].
	AuthURL string

	// AuthMethod is how the client authenticates.
	// Optional. Default: [AuthNone].
	AuthMethod AuthMethod

	// Scopes are asked for where [Config.Scopes] is nil. Optional.
	Scopes []string

	// ThumbprintHash computes dpop_jkt, which binds the authorization code to
	// the client's key (RFC 9449 §10): [crypto.SHA256] by the RFC, SHA-512 at
	// Yandex Cloud. Optional. Default: 0, dpop_jkt is not sent.
	ThumbprintHash crypto.Hash

	// AuthParams are added to every authorization request, for instance
	// prompt=consent. Optional.
	AuthParams url.Values

	// FederationHintParam and SubjectHintParam name the parameters of an
	// authorization request that carry [LoginOptions.FederationID] and
	// [LoginOptions.SubjectHint]. Optional. "": the server has none.
	FederationHintParam string
	SubjectHintParam    string

	// CallbackPath is the path of the redirect URI on the loopback address
	// (RFC 8252 §7.3). Optional. Default: /auth/callback.
	CallbackPath string

	// OfflineScope is the scope without which the server issues no refresh
	// token; it serves to explain why none came. Optional.
	OfflineScope string

	// RefreshTokenLife is how long a refresh token lives from its issue, where
	// token responses do not say (refresh_token_expires_in). Optional. Default:
	// unknown.
	RefreshTokenLife time.Duration

	// RotationGrace is how long the server accepts a refresh token that it has
	// replaced already, from a client to which the response was lost. A server with
	// reuse detection and no such grace ends the session instead (RFC 9700 §4.14.2).
	// So unless RotationGrace is set, a refresh token whose outcome is unknown is
	// not sent again just because the access token is stale, but only when that is
	// about to expire, was rejected by a resource, or TokenSource.Renew is called.
	// Optional. Default: none.
	RotationGrace time.Duration

	// ProofLife is how long after its iat the server accepts a DPoP proof, at the most:
	// the limit, and what the server adds for clocks that differ (RFC 9449 §11.1). A
	// server that ignores the iat of a proof with a good nonce accepts it for longer:
	// NonceLife is how long from its issue such a server accepts a nonce.
	//
	// They matter where replicas share sessions in a [LeaseStore]: after a request
	// without an outcome, none is made until the server would reject a proof that is as
	// old as that one (and 15 seconds more, for clocks that differ), and any is possible
	// then. Where neither is known, only the life of the access token says how long to
	// wait, as RotationGrace describes, and a replica that is paused for longer can cost
	// the session. Optional. Default: unknown.
	ProofLife, NonceLife time.Duration

	// RevocationURL is the revocation endpoint (RFC 7009), which [Client.Logout]
	// uses where Config.Revoke is not set. Optional.
	RevocationURL string

	// Issuer is the server's issuer identifier (RFC 8414 §2). If it is set, an
	// authorization response whose iss parameter is another one does not belong to
	// the login (RFC 9207 §2.4). Optional.
	Issuer string

	// RefreshTokenSwitch says in one sentence where refresh tokens can be
	// switched on, for the same explanation. Optional.
	RefreshTokenSwitch string

	// Clock tells the server's time where that is not the time of day: a server in a
	// test, whose clock the test moves. Clients share it unless [Config.Clock] is set.
	// Optional. Default: the time of day.
	Clock func() time.Time
}

// YandexCloudClientID is the public client of Yandex Cloud's own CLI. It has no
// secret, and any loopback port as redirect URI.
const YandexCloudClientID = "yc.oauth.public-sdk"

// YandexCloud is the authorization server of Yandex Cloud. Its access tokens are
// IAM tokens (12 hours at most, of type Bearer); its refresh tokens live 31 days
// and are bound to the DPoP key of the client. A refresh token that is used with
// less than 7 days left is replaced by a new one.
//
// The endpoints are those of the region Russia; for another one, change the
// URLs and the Issuer of the result. Sessions belong to the origin of TokenURL, so
// a session of one region is never sent to another. That dpop_jkt is computed with SHA-512 was observed, not
// documented: set ThumbprintHash to change it, or to 0 to leave dpop_jkt out.
func YandexCloud() Provider {
	return Provider{
		Name:                "yandex-cloud",
		Issuer:              "https://auth.yandex.cloud",
		RefreshTokenLife:    31 * 24 * time.Hour, // "Refresh token", Yandex Cloud documentation
		AuthURL:             "https://auth.yandex.cloud/oauth/authorize",
		TokenURL:            "https://auth.yandex.cloud/oauth/token",
		AuthMethod:          AuthNone,
		Scopes:              []string{"openid", "offline_access"},
		ThumbprintHash:      crypto.SHA512,
		FederationHintParam: "yc_federation_hint",
		SubjectHintParam:    "yc_sub_hint",
		OfflineScope:        "offline_access",
		RefreshTokenSwitch:  `an administrator switches refresh tokens on in Yandex Cloud Organization, "Security settings", "Enable refresh tokens"`,
	}
}

// YandexID is Yandex OAuth at oauth.yandex.com, for applications registered
// there. Its tokens are not bound to a key, and every response has a new refresh
// token, which lives as long as the access token. Client identifier and password
// go into the Authorization header; set AuthMethod to [AuthClientSecretPost] to
// send them in the body instead.
//
// Yandex Cloud rejects tokens of Yandex ID that were issued after 2026-06-01:
// use [YandexCloud] there.
func YandexID() Provider {
	return Provider{
		Name:       "yandex-id",
		AuthURL:    "https://oauth.yandex.com/authorize",
		TokenURL:   "https://oauth.yandex.com/token",
		AuthMethod: AuthClientSecretBasicPlain,
	}
}

// clone copies what New keeps, so that the caller can go on changing theirs.
func (p Provider) clone() Provider {
	p.Scopes = slices.Clone(p.Scopes)
	p.AuthParams = maps.Clone(p.AuthParams)
	if p.AuthMethod == "" {
		p.AuthMethod = AuthNone
	}
	if p.CallbackPath == "" {
		p.CallbackPath = "/auth/callback"
	}
	return p
}
