package oauth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
)

// randomText returns 32 random octets in base64url, 43 characters: "RECOMMENDED
// that the output of a suitable random number generator be used to create a
// 32-octet sequence" (RFC 7636 §4.1). It serves as code verifier and as state.
func randomText() Secret {
	var b [32]byte
	rand.Read(b[:]) // never fails since Go 1.24: it ends the program instead
	return Secret(base64.RawURLEncoding.EncodeToString(b[:]))
}

// challengeS256 is "BASE64URL-ENCODE(SHA256(ASCII(code_verifier)))" (RFC 7636
// §4.2). The method plain is not offered.
func challengeS256(verifier Secret) string {
	sum := sha256.Sum256([]byte(verifier.Reveal()))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
