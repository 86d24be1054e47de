package iamtest

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"time"
)

// random is n octets from the system's source, in unpadded base64url.
func random(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never returns an error: it ends the program instead
	return base64.RawURLEncoding.EncodeToString(b)
}

// newAccessToken has the shape that Yandex Cloud documents for IAM tokens,
// "t1." base64url "." 86 characters of base64url, or that of an OAuth token.
func newAccessToken(o *Options) string {
	if o.YandexID {
		return "y0_" + random(42)
	}
	return "t1." + random(66) + "." + random(64)
}

// newRefreshToken is "rt1." base64url "." 43 characters of base64url, or the
// four parts of Yandex OAuth's sample.
func newRefreshToken(o *Options) string {
	if o.YandexID {
		return "1:" + random(12) + ":" + random(42) + ":" + random(16)
	}
	return "rt1." + random(48) + "." + random(32)
}

// newID has the shape of Yandex Cloud's identifiers: 20 lower-case letters and
// digits, the first three of which name the kind.
func newID(prefix string) string {
	return prefix + strings.ToLower(rand.Text()[:20-len(prefix)])
}

// newUUID is a random UUID (RFC 9562 §5.4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never returns an error: it ends the program instead
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// s256 is the code challenge of a verifier (RFC 7636 §4.2).
func s256(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// accessToken is one that was issued, with what a resource has to know of it.
type accessToken struct {
	value   string
	subject string
	client  string
	scope   string
	jkt     string // SHA-256 thumbprint of the key; "" for a Bearer token
	expires time.Time
	revoked bool
}

// tokenType is how the token has to be presented.
func (t *accessToken) tokenType() string {
	if t.jkt != "" {
		return "DPoP"
	}
	return "Bearer"
}
