package refreshtoken

import "time"

// ProtectionLevel is how a refresh token is protected against theft: whether
// it is bound to a key by DPoP (RFC 9449), and where that key is kept.
//
// It is the name of the enum value in the API. A value that this package does not
// know is kept as the server sent it (a number in decimal digits).
type ProtectionLevel string

// The levels of the Yandex Cloud IAM API, RefreshToken.
const (
	// ProtectionLevelUnspecified is also the level of a token that has none.
	ProtectionLevelUnspecified ProtectionLevel = "PROTECTION_LEVEL_UNSPECIFIED"
	// NoProtection is a refresh token without DPoP.
	NoProtection ProtectionLevel = "NO_PROTECTION"
	// InsecureKeyDPoP is a refresh token with DPoP whose key is not a YubiKey PIV
	// key with required PIN and touch policies and attestation.
	InsecureKeyDPoP ProtectionLevel = "INSECURE_KEY_DPOP"
	// SecureKeyDPoP is a refresh token with DPoP whose key is such a YubiKey PIV key.
	SecureKeyDPoP ProtectionLevel = "SECURE_KEY_DPOP"
)

// protectionLevels are the levels by their numbers in the protobuf definition.
var protectionLevels = [...]ProtectionLevel{
	ProtectionLevelUnspecified, NoProtection, InsecureKeyDPoP, SecureKeyDPoP,
}

// RefreshToken describes a refresh token (Yandex Cloud IAM API, RefreshToken).
// The token itself is not part of the description. Its JSON form is that of the
// API.
//
// The texts are as the server sent them, including control characters, except that
// text that looks like a credential is replaced by "REDACTED", and such an ID is
// empty. A text of more than 64 KiB is empty. A redacted text no longer matches in a [Filter] or a [RevokeFilter].
type RefreshToken struct {
	// ID identifies the token: see [ByID].
	ID string `json:"id"`
	// ClientInstanceInfo describes the application that the token was issued to,
	// such as "yc/0.141.0".
	ClientInstanceInfo string `json:"clientInstanceInfo,omitempty"`
	// ClientID is the OAuth client that the token was issued to.
	ClientID string `json:"clientId,omitempty"`
	// SubjectID is the account that the token was issued for.
	SubjectID string `json:"subjectId,omitempty"`
	// CreatedAt is when the token was created; zero if the server did not send it.
	CreatedAt time.Time `json:"createdAt,omitzero"`
	// ExpiresAt is when the token expires; zero if the server did not send it.
	ExpiresAt time.Time `json:"expiresAt,omitzero"`
	// LastUsedAt is when the token was last used to authenticate; zero if it
	// was not, or if the server did not send it.
	LastUsedAt time.Time `json:"lastUsedAt,omitzero"`
	// ProtectionLevel is how the token is protected.
	ProtectionLevel ProtectionLevel `json:"protectionLevel"`
}

// NotUsedSince reports whether the later of the last use of the token and its creation
// lies before since. LastUsedAt alone does not tell: it is zero for a token that was
// issued a moment ago, or 1970 if the server writes a zero timestamp. A token without
// times is never reported as unused. The times are the server's.
func (t *RefreshToken) NotUsedSince(since time.Time) bool {
	last := t.LastUsedAt
	if t.CreatedAt.After(last) {
		last = t.CreatedAt
	}
	return !last.IsZero() && last.Before(since)
}
