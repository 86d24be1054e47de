package dpop

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/ycauth/ycauth-go/internal/clock"
	"github.com/ycauth/ycauth-go/internal/strictjson"
)

// maxProof is the longest proof looked at, in octets. A chain of four RSA
// certificates fits.
const maxProof = 16 << 10

var (
	// ErrUseNonce means that the proof has no nonce, or one that the server does not
	// accept. The server must respond with the error
	// use_dpop_nonce and a DPoP-Nonce header (RFC 9449 §8, §9).
	ErrUseNonce = errors.New("dpop: the proof needs a nonce from the server")

	// ErrReplay means that the proof was seen before.
	ErrReplay = errors.New("dpop: the proof was seen before")

	// ErrWrongKey means that the proof is valid, but for a different key from the one
	// that the token is bound to.
	ErrWrongKey = errors.New("dpop: the proof is for another key")

	// ErrUnboundToken means that the access token with the proof is not bound to a
	// key. The scheme of such a token is Bearer.
	ErrUnboundToken = errors.New("dpop: the access token is not bound to a key")

	// ErrIssuedAt means that the proof is too old or from the future, usually because
	// a clock is wrong.
	ErrIssuedAt = errors.New("dpop: the proof is too old or from the future")
)

// A ProofError says which check of RFC 9449 §4.3 a proof failed. It contains no
// part of the proof.
type ProofError struct {
	Reason string // for people; fit for an error_description (RFC 6749 §5.2)
	Err    error  // ErrUseNonce, ErrReplay, ErrWrongKey, ErrUnboundToken, ErrIssuedAt or nil
}

// Error is one line with the reason.
func (e *ProofError) Error() string { return "dpop: invalid proof: " + e.Reason }

// Unwrap returns Err.
func (e *ProofError) Unwrap() error { return e.Err }

// Code returns the OAuth error code for the response: use_dpop_nonce (RFC 9449 §8, §9),
// invalid_token for [ErrUnboundToken] (RFC 6750 §3.1), or invalid_dpop_proof (RFC
// 9449 §5, §7.1).
func (e *ProofError) Code() string {
	switch {
	case errors.Is(e.Err, ErrUseNonce):
		return codeUseNonce
	case errors.Is(e.Err, ErrUnboundToken):
		return codeInvalidToken
	}
	return codeInvalidProof
}

// A Verifier verifies proofs as described in RFC 9449 §4.3, for authorization servers and
// protected resources. The zero value is ready to use. A Verifier is safe for concurrent
// use; its fields must not be changed, nor the Verifier copied, after first use.
//
// It accepts proofs of up to 16 KiB, identifiers (jti) of up to 512 octets, and
// RSA keys of 2048 to 4096 bits.
//
// RFC 9449 gives a proof no claims exp and nbf (RFC 7519 §4.1.4, §4.1.5). If it has them as
// numbers, they are checked with the same Leeway as iat, and the error is [ErrIssuedAt]. They
// cannot extend the time for which a proof is accepted. Values of other types are ignored.
type Verifier struct {
	// Algorithms are the accepted JWS algorithms, a subset of the default. EdDSA includes
	// Ed25519, the name that RFC 9864 gives to the same algorithm.
	// Optional. Default: ES256, ES384, ES512, EdDSA, PS256, RS256.
	Algorithms []jose.SignatureAlgorithm

	// MaxAge is the maximum age of a proof.
	// Optional. Default: 1 minute.
	MaxAge time.Duration

	// Leeway is how far the clock of the prover may be ahead of ours; it is
	// also added to MaxAge. Optional. Default: 10 seconds.
	Leeway time.Duration

	// CheckNonce reports whether this server issued a nonce and still
	// accepts it. If it is set, a proof without a nonce is rejected with
	// [ErrUseNonce]. It must be safe for concurrent use, and is called after the
	// signature was verified. Optional. Default: nonces are not checked.
	CheckNonce func(nonce string) bool

	// MaxReplays is the maximum number of proofs to remember, so that a replay
	// is rejected until the proof is too old. Beyond that number
	// the oldest proof is forgotten early. Each takes about 100 bytes. A server
	// of several processes needs Replays instead.
	//
	// No proof is forgotten because the clock was set ahead and back again. If the
	// clock is set back, proofs that were already forgotten as too old can be replayed.
	// Optional. Default: 100 000, about 10 MB.
	MaxReplays int

	// Replays remembers proofs in the place of this Verifier, for servers of several
	// processes. If it fails, the proof is rejected, with an error that is not a
	// [*ProofError]. Optional. Default: each Verifier has its own memory.
	Replays ReplayCache

	// Now is the clock. Optional. Default: [time.Now].
	Now func() time.Time

	seen replays
}

// Expected describes the request that a proof must match.
type Expected struct {
	// Method and URL are those of the request, the URL as the client has it.
	// Query and fragment are ignored, and the rest is compared after the normalization
	// of RFC 3986 §6.2.2 and §6.2.3.
	Method, URL string

	// AccessToken is the token that came with the request to a protected
	// resource; the proof must carry its hash. Optional. "" at a token endpoint.
	AccessToken string

	// Thumbprint is the SHA-256 JWK thumbprint of the key that must have signed the
	// proof, as the token has it (cnf.jkt, RFC 9449 §6). Required with an
	// AccessToken, because a token without cnf.jkt is not bound to a key; without it the
	// error is [ErrUnboundToken]. Optional at a token endpoint, where "" accepts any key,
	// to bind a new token to.
	Thumbprint string
}

// A VerifiedProof is the content of a proof that passed all checks.
type VerifiedProof struct {
	ID         string          // jti
	Method     string          // htm
	URL        string          // htu, normalized
	IssuedAt   time.Time       // iat
	Nonce      string          // nonce; "" if it has none
	Key        jose.JSONWebKey // the public key
	Thumbprint string          // SHA-256 JWK thumbprint of Key (jkt, RFC 9449 §6.1)

	// Certificates is the chain in the header (x5c), nil if there is none. The
	// first is for Key; nothing else was checked. A server that uses
	// them must verify them against its own roots ([x509.Certificate.Verify]).
	Certificates []*x509.Certificate
}

// VerifyRequest calls [Verifier.Verify] with the DPoP header of a request. It returns a
// [*ProofError] if there is no such header, or more than one. want.URL is
// required, because a server behind a proxy does not see the URL that the client
// requested. If want.Method is empty, VerifyRequest uses the request's.
func (v *Verifier) VerifyRequest(r *http.Request, want Expected) (*VerifiedProof, error) {
	return v.verifyRequest(r, want, v.CheckNonce)
}

func (v *Verifier) verifyRequest(r *http.Request, want Expected, checkNonce func(string) bool) (*VerifiedProof, error) {
	headers := r.Header.Values("DPoP")
	switch {
	case len(headers) == 0:
		return nil, &ProofError{Reason: "the request has no DPoP header"}
	case len(headers) > 1:
		return nil, &ProofError{Reason: "the request has more than one DPoP header"}
	}
	if want.Method == "" {
		want.Method = r.Method
	}
	return v.verify(r.Context(), headers[0], want, checkNonce)
}

// Verify verifies one proof. Its errors are of type [*ProofError], except if
// want.URL is not an absolute URL, or if Replays fails.
//
// Only a proof that passes all other checks is remembered, and from then
// on rejected with [ErrReplay].
func (v *Verifier) Verify(proof string, want Expected) (*VerifiedProof, error) {
	return v.verify(context.Background(), proof, want, v.CheckNonce)
}

func (v *Verifier) verify(ctx context.Context, proof string, want Expected, checkNonce func(string) bool) (*VerifiedProof, error) {
	wantURL, err := normalizeURL(want.URL)
	if err != nil {
		return nil, err
	}
	// The numbers are those of the list in RFC 9449 §4.3.
	if len(proof) > maxProof {
		return nil, &ProofError{Reason: "longer than 16 KiB"}
	}
	header, err := v.parseHeader(proof) // 2, 4, 5, 7
	if err != nil {
		return nil, err
	}
	payload, err := header.verify(proof) // 6
	if err != nil {
		return nil, &ProofError{Reason: "the signature does not verify with the key in the header"}
	}
	c, err := parseClaims(payload) // 3
	if err != nil {
		return nil, err
	}
	if c.Method != want.Method { // 8
		return nil, &ProofError{Reason: "made for another method (htm)"}
	}
	htu, err := normalizeURL(c.URL)
	if err != nil || htu != wantURL { // 9
		return nil, &ProofError{Reason: "made for another URL (htu)"}
	}
	if checkNonce != nil && (c.Nonce == "" || !checkNonce(c.Nonce)) { // 10
		return nil, &ProofError{"the nonce is missing or not accepted any more", ErrUseNonce}
	}
	instant := clock.Clock{Wall: v.Now}.Now()
	now := instant.Wall()
	issued := time.Unix(c.IssuedAt, 0)
	if age := now.Sub(issued); age > v.window() { // 11
		return nil, &ProofError{fmt.Sprintf("made %v ago (iat): the prover's clock is behind, or the proof is old", age.Round(time.Second)), ErrIssuedAt}
	} else if age < -v.leeway() {
		return nil, &ProofError{fmt.Sprintf("made %v in the future (iat): the prover's clock is ahead", issued.Sub(now).Round(time.Second)), ErrIssuedAt}
	}
	seconds := float64(now.UnixNano()) / 1e9
	if c.Expires != nil && seconds >= *c.Expires+v.leeway().Seconds() {
		return nil, &ProofError{"it has expired (exp)", ErrIssuedAt}
	}
	if c.NotBefore != nil && seconds < *c.NotBefore-v.leeway().Seconds() {
		return nil, &ProofError{"it is not valid yet (nbf)", ErrIssuedAt}
	}
	if err := checkATH(c.ATH, want.AccessToken); err != nil { // 12a
		return nil, err
	}
	jkt, err := thumbprint(&header.key, crypto.SHA256)
	if err != nil {
		return nil, &ProofError{Reason: "the key in the header has no thumbprint"}
	}
	switch { // 12b: "the public key to which the access token is bound matches the public key from the DPoP proof"
	case want.Thumbprint == "" && want.AccessToken != "":
		return nil, &ProofError{"the access token is not bound to a key: its scheme is Bearer", ErrUnboundToken}
	case want.Thumbprint != "" && !equal(jkt, want.Thumbprint):
		return nil, &ProofError{"made with another key than the token is bound to", ErrWrongKey}
	}
	added, err := v.remember(ctx, replayID(htu, c.ID), instant, issued.Add(v.window()).Sub(now)) // §11.1
	if err != nil {
		return nil, err
	}
	if !added {
		return nil, &ProofError{"the same proof was sent before (jti)", ErrReplay}
	}
	return &VerifiedProof{
		ID: c.ID, Method: c.Method, URL: htu, IssuedAt: issued, Nonce: c.Nonce,
		Key: header.key, Thumbprint: jkt, Certificates: header.chain,
	}, nil
}

// remember stores the proof for life, and reports whether it is new.
func (v *Verifier) remember(ctx context.Context, id proofID, now clock.Instant, life time.Duration) (bool, error) {
	if v.Replays == nil {
		limit := v.MaxReplays
		if limit <= 0 {
			limit = 100_000
		}
		return v.seen.add(id, now, life, limit), nil
	}
	ctx, cancel := context.WithTimeout(ctx, maxReplayWait)
	defer cancel()
	// The clock of another replica, which accepts the proof for as long by its own, may be
	// behind ours.
	life = min(max(life, time.Second), century) + min(v.leeway(), century)
	added, err := v.Replays.Add(ctx, base64.RawURLEncoding.EncodeToString(id[:]), life)
	if err != nil {
		return false, fmt.Errorf("dpop: the replay cache: %w", err)
	}
	return added, nil
}

func (v *Verifier) maxAge() time.Duration {
	if v.MaxAge > 0 {
		return v.MaxAge
	}
	return time.Minute
}

func (v *Verifier) leeway() time.Duration {
	if v.Leeway > 0 {
		return v.Leeway
	}
	return 10 * time.Second
}

// window is how long after its iat a proof is accepted.
func (v *Verifier) window() time.Duration {
	sum := v.maxAge() + v.leeway()
	if sum < 0 { // overflow: a MaxAge meant to be without end
		return math.MaxInt64
	}
	return sum
}

var defaultAlgorithms = []jose.SignatureAlgorithm{
	jose.ES256, jose.ES384, jose.ES512, jose.EdDSA, jose.PS256, jose.RS256,
}

type proofHeader struct {
	jws   *jose.JSONWebSignature
	key   jose.JSONWebKey
	chain []*x509.Certificate
}

func (v *Verifier) parseHeader(proof string) (*proofHeader, error) {
	algs := v.Algorithms
	if len(algs) == 0 {
		algs = defaultAlgorithms
	}
	// "Base64url [...] with all trailing '=' characters omitted (as permitted by
	// Section 3.2) and without the inclusion of any line breaks, whitespace, or other
	// additional characters" (RFC 7515 §2): encoding/base64 skips line breaks.
	if strings.ContainsAny(proof, "\r\n") {
		return nil, &ProofError{Reason: "not a compact JWS: there is a line break in it"}
	}
	if slices.Contains(algs, jose.EdDSA) {
		algs = append(slices.Clone(algs), algEd25519)
	}
	jws, err := jose.ParseSignedCompact(proof, algs)
	if alg := (*jose.ErrUnexpectedSignatureAlgorithm)(nil); errors.As(err, &alg) {
		return nil, &ProofError{Reason: "the algorithm is not an accepted one (alg)"}
	}
	if err != nil {
		// The parser's error can quote the proof.
		return nil, &ProofError{Reason: "not a compact JWS with a public key"}
	}
	h := jws.Signatures[0].Protected
	if typ, _ := h.ExtraHeaders[jose.HeaderType].(string); !strings.EqualFold(typ, proofType) {
		return nil, &ProofError{Reason: "the type is not dpop+jwt (typ)"}
	}
	if h.JSONWebKey == nil {
		return nil, &ProofError{Reason: "no public key in the header (jwk)"}
	}
	// jwk.Public() leaves out what a sender may have added to the key.
	key := jose.JSONWebKey{Key: h.JSONWebKey.Public().Key}
	// A key whose own algorithm differs (say an RSA key of 1024 bits, or one
	// that is offered for an ECDSA algorithm) is rejected before it is used.
	if _, err := algorithmFor(key.Key, jose.SignatureAlgorithm(h.Algorithm)); err != nil {
		return nil, &ProofError{Reason: "the key does not fit the algorithm, or is too weak"}
	}
	members, err := headerMembers(proof)
	if err != nil {
		return nil, err
	}
	// What go-jose reads a key and certificates with skips line breaks too.
	if hasLineBreak(members["jwk"]) {
		return nil, &ProofError{Reason: "there is a line break in the public key in the header (jwk)"}
	}
	if hasLineBreak(members["x5c"]) {
		return nil, &ProofError{Reason: "there is a line break in the certificate chain in the header (x5c)"}
	}
	chain, err := parseChain(members["x5c"], key)
	if err != nil {
		return nil, err
	}
	return &proofHeader{jws, key, chain}, nil
}

// hasLineBreak reports whether a string of a JSON value has a line break: in the value itself,
// in an array or in a member, such as the certificates of a key (RFC 7517 §4.7).
func hasLineBreak(raw json.RawMessage) bool {
	var value any
	_ = json.Unmarshal(raw, &value) // go-jose has read it, if there is one
	return lineBreakIn(value)
}

func lineBreakIn(value any) bool {
	switch v := value.(type) {
	case string:
		return strings.ContainsAny(v, "\r\n")
	case []any:
		return slices.ContainsFunc(v, lineBreakIn)
	case map[string]any:
		for _, member := range v {
			if lineBreakIn(member) {
				return true
			}
		}
	}
	return false
}

var errSignature = errors.New("dpop: wrong signature")

// verify returns the payload. go-jose does not know the name Ed25519, so the signature of
// such a proof is verified here, over what RFC 7515 §5.2 says: the octets as they came.
func (h *proofHeader) verify(proof string) ([]byte, error) {
	key, ok := h.key.Key.(ed25519.PublicKey)
	if !ok || h.jws.Signatures[0].Protected.Algorithm != string(algEd25519) {
		return h.jws.Verify(h.key)
	}
	input := proof[:strings.LastIndexByte(proof, '.')]
	if !ed25519.Verify(key, []byte(input), h.jws.Signatures[0].Signature) {
		return nil, errSignature
	}
	return h.jws.UnsafePayloadWithoutVerification(), nil
}

// headerMembers reads the header once more, without go-jose's leniency: a name
// must not stand in it twice, and it must not ask for extensions.
func headerMembers(proof string) (map[string]json.RawMessage, error) {
	encoded, _, _ := strings.Cut(proof, ".")
	raw, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return nil, &ProofError{Reason: "the header is not base64url"}
	}
	members, err := strictjson.Object(raw)
	if err != nil {
		return nil, &ProofError{Reason: "the header is not a JSON object in UTF-8 with distinct names"}
	}
	// "If any of the listed extension Header Parameters are not understood and
	// supported by the recipient, then the JWS is invalid" (RFC 7515 §4.1.11).
	// go-jose supports b64, which RFC 7797 forbids to JWTs.
	var present map[string]json.RawMessage // also with the value null, which members leaves out
	_ = json.Unmarshal(raw, &present)      // members was read from it
	for _, name := range []string{"crit", "b64"} {
		if _, ok := present[name]; ok {
			return nil, &ProofError{Reason: "the header asks for an extension (crit)"}
		}
	}
	return members, nil
}

// parseChain reads x5c, which go-jose hands out only together with verifying
// it. A server that needs the chain verifies it against roots of its own.
func parseChain(raw json.RawMessage, key jose.JSONWebKey) ([]*x509.Certificate, error) {
	if raw == nil {
		return nil, nil
	}
	bad := &ProofError{Reason: "the certificate chain in the header is malformed (x5c)"}
	var x5c [][]byte // JSON strings in standard base64, as RFC 7515 §4.1.6 has them
	err := json.Unmarshal(raw, &x5c)
	if err != nil || len(x5c) == 0 {
		return nil, bad
	}
	chain := make([]*x509.Certificate, len(x5c))
	for i, der := range x5c {
		if chain[i], err = x509.ParseCertificate(der); err != nil {
			return nil, bad
		}
	}
	if !samePublicKey(chain[0].PublicKey, key.Key) {
		return nil, &ProofError{Reason: "the first certificate is for another key (x5c)"}
	}
	return chain, nil
}

type proofClaims struct {
	ID, Method, URL, Nonce, ATH string
	IssuedAt                    int64
	Expires, NotBefore          *float64
}

func parseClaims(payload []byte) (proofClaims, error) {
	var c proofClaims
	members, err := strictjson.Object(payload)
	if err != nil {
		return c, &ProofError{Reason: "the payload is not a JSON object in UTF-8 with distinct names"}
	}
	for _, claim := range []struct {
		name     string
		dst      *string
		required bool
	}{
		{"jti", &c.ID, true}, {"htm", &c.Method, true}, {"htu", &c.URL, true},
		{"nonce", &c.Nonce, false}, {"ath", &c.ATH, false},
	} {
		if raw := members[claim.name]; raw != nil && json.Unmarshal(raw, claim.dst) != nil {
			return c, &ProofError{Reason: "the claim " + claim.name + " is not a string"}
		}
		if claim.required && *claim.dst == "" {
			return c, &ProofError{Reason: "the claim " + claim.name + " is missing"}
		}
	}
	// NumericDate may have a fraction (RFC 7519 §2), and float64 is exact to
	// the second for ten million years.
	var iat float64
	if raw := members["iat"]; raw == nil || json.Unmarshal(raw, &iat) != nil || iat < 0 || iat > 1<<50 {
		return c, &ProofError{Reason: "the claim iat is missing or not a time"}
	}
	c.IssuedAt = int64(iat)
	for name, dst := range map[string]**float64{"exp": &c.Expires, "nbf": &c.NotBefore} {
		if raw := members[name]; raw != nil && (raw[0] == '-' || '0' <= raw[0] && raw[0] <= '9') && json.Unmarshal(raw, dst) != nil {
			return c, &ProofError{Reason: "the claim " + name + " is not a time"}
		}
	}
	if len(c.ID) > 512 {
		return c, &ProofError{Reason: "the claim jti is longer than 512 octets"}
	}
	return c, nil
}

func checkATH(ath, accessToken string) error {
	switch {
	case accessToken == "":
		return nil // a token endpoint: an ath is not looked at
	case ath == "":
		return &ProofError{Reason: "no hash of the access token (ath)"}
	case !equal(ath, string(appendATH(nil, accessToken))):
		return &ProofError{Reason: "made for another access token (ath)"}
	}
	return nil
}

func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
