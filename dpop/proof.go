package dpop

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// proofType is the media type that tells a proof from other JWTs (RFC 9449 §4.2).
const proofType = "dpop+jwt"

// jtiBytes of randomness make a jti: 128 bits, where RFC 9449 §4.2 asks for at
// least 96.
const jtiBytes = 16

// Claims describes the request that a proof is for (RFC 9449 §4.2).
// [Prover.Proof] adds the identifier jti.
type Claims struct {
	// Method is the HTTP method, as sent (htm). Methods are case-sensitive (RFC
	// 9110 §9.1).
	Method string

	// URL is the absolute http or https URL of the request (htu). One with user
	// information (user:password@) is rejected, because servers do not see that part. Query
	// and fragment are omitted from the proof, and the rest is normalized as in RFC 3986
	// §6.2.2 and §6.2.3. International host names must be in their ASCII form.
	URL string

	// Nonce is the newest DPoP-Nonce that the server sent, at most 4096 octets.
	// Optional. "" if it never sent one.
	Nonce string

	// AccessToken is the token that accompanies a request to a protected
	// resource; the proof carries its hash (ath).
	// Optional. "" for requests to a token endpoint.
	AccessToken string

	// IssuedAt is the time of the proof (iat), truncated to seconds. Set it to the
	// server's time if the local clock is known to differ.
	// Optional. Default: now.
	IssuedAt time.Time
}

// A SigningError means that the signer failed: the PIN was wrong, the card was
// removed, the user did not touch it in time,
// or the signer returned an invalid signature.
//
// It does not come from the network or the server. Do not repeat the request
// without asking the user, because each signature may use one of the few PIN attempts
// that a card allows.
type SigningError struct {
	Err error // of the signer
}

// Error returns one line with the signer's error.
func (e *SigningError) Error() string { return fmt.Sprintf("dpop: signing the proof: %v", e.Err) }

// Unwrap returns Err.
func (e *SigningError) Unwrap() error { return e.Err }

// Retryable returns false. Code that retries requests without knowing this package,
// such as package refreshtoken, calls it.
func (e *SigningError) Retryable() bool { return false }

// Proof returns the value of the DPoP header for one attempt of one request
// (RFC 9449 §4.2), with a unique jti. It is a credential for some seconds:
// do not log it, and do not send it twice.
//
// Proof fails if a claim is invalid. If ctx is done before signing starts, the error
// wraps ctx's. If signing fails, it is a [*SigningError], which wraps
// the signer's error. Unless the signer is a [ContextSigner], ctx does not interrupt it.
// The signature must have the format of the key's algorithm, but
// is not verified.
func (p *Prover) Proof(ctx context.Context, c Claims) (string, error) {
	htu, err := p.normalize(c.URL)
	if err != nil {
		return "", err
	}
	if !isToken(c.Method) {
		return "", errors.New("dpop: the method is empty or not an HTTP method")
	}
	if c.Nonce != "" && !validNonce(c.Nonce) {
		return "", errors.New("dpop: the nonce has characters that RFC 9449 §8.1 does not allow, or is longer than 4096 octets")
	}
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("dpop: no proof was made: %w", doneError(ctx))
	}

	// One buffer takes the whole compact form. Nothing in the payload needs
	// JSON escapes: every part was checked, normalised or encoded above.
	var payloadBuf [512]byte
	payload := appendPayload(payloadBuf[:0], c, htu)
	enc := base64.RawURLEncoding
	out := make([]byte, 0, len(p.header)+enc.EncodedLen(len(payload))+enc.EncodedLen(p.alg.size)+2)
	out = append(out, p.header...)
	out = append(out, '.')
	out = enc.AppendEncode(out, payload)

	sig, err := p.sign(ctx, out)
	if err != nil {
		return "", &SigningError{err}
	}
	out = append(out, '.')
	out = enc.AppendEncode(out, sig)
	return string(out), nil
}

// doneError is the error of a context that is done, together with its cause
// where that is another one.
func doneError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

func appendPayload(b []byte, c Claims, htu string) []byte {
	enc := base64.RawURLEncoding
	var jti [jtiBytes]byte
	rand.Read(jti[:]) // never fails since Go 1.24: it ends the program instead
	b = append(b, `{"jti":"`...)
	b = enc.AppendEncode(b, jti[:])
	b = append(b, `","htm":"`...)
	b = append(b, c.Method...)
	b = append(b, `","htu":"`...)
	b = append(b, htu...)
	b = append(b, `","iat":`...)
	iat := c.IssuedAt
	if iat.IsZero() {
		iat = time.Now()
	}
	b = strconv.AppendInt(b, iat.Unix(), 10)
	if c.Nonce != "" {
		b = append(b, `,"nonce":"`...)
		b = append(b, c.Nonce...)
		b = append(b, '"')
	}
	if c.AccessToken != "" {
		b = append(b, `,"ath":"`...)
		b = appendATH(b, c.AccessToken)
		b = append(b, '"')
	}
	return append(b, '}')
}

// appendATH appends the base64url encoding of "the SHA-256 […] hash of the ASCII
// encoding of the associated access token's value" (RFC 9449 §4.2).
func appendATH(b []byte, accessToken string) []byte {
	sum := sha256.Sum256([]byte(accessToken))
	return base64.RawURLEncoding.AppendEncode(b, sum[:])
}

// sign returns the JWS signature of the signing input.
func (p *Prover) sign(ctx context.Context, input []byte) ([]byte, error) {
	message := input
	switch p.alg.hash {
	case 0:
	case crypto.SHA256:
		sum := sha256.Sum256(input)
		message = sum[:]
	default:
		h := p.alg.hash.New()
		h.Write(input)
		message = h.Sum(nil)
	}
	signer := p.signer()
	var sig []byte
	var err error
	if s, ok := signer.(ContextSigner); ok {
		sig, err = s.SignContext(ctx, message, p.alg.opts)
	} else {
		sig, err = signer.Sign(rand.Reader, message, p.alg.opts)
	}
	if err != nil {
		return nil, err
	}
	if p.alg.coord != 0 {
		return joseECDSA(sig, p.alg.coord)
	}
	if len(sig) != p.alg.size {
		return nil, fmt.Errorf("the signer returned %d octets, a signature of this key has %d", len(sig), p.alg.size)
	}
	return sig, nil
}

var errDER = errors.New("the signer's signature is not the DER of two positive integers of the curve's size")

// joseECDSA turns the ASN.1 form that crypto.Signer returns, SEQUENCE { r
// INTEGER, s INTEGER }, into the form of RFC 7518 §3.4: r and s as big-endian
// octets of the full width of the curve, leading zeros kept, one after the
// other.
func joseECDSA(der []byte, coord int) ([]byte, error) {
	body, rest, ok := derElement(der, 0x30)
	if !ok || len(rest) != 0 {
		return nil, errDER
	}
	r, rest, ok := derElement(body, 0x02)
	if !ok {
		return nil, errDER
	}
	s, rest, ok := derElement(rest, 0x02)
	if !ok || len(rest) != 0 {
		return nil, errDER
	}
	out := make([]byte, 2*coord)
	if !fillUint(out[:coord], r) || !fillUint(out[coord:], s) {
		return nil, errDER
	}
	return out, nil
}

// derElement splits one element with the given tag off b. Lengths of up to 255
// octets are enough: two coordinates of P-521 need 138.
func derElement(b []byte, tag byte) (content, rest []byte, ok bool) {
	if len(b) < 2 || b[0] != tag {
		return nil, nil, false
	}
	n, b := int(b[1]), b[2:]
	if n == 0x81 {
		if len(b) < 1 || b[0] < 0x80 {
			return nil, nil, false
		}
		n, b = int(b[0]), b[1:]
	} else if n >= 0x80 {
		return nil, nil, false
	}
	if len(b) < n {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}

// fillUint writes the content of a DER INTEGER, which must be positive and
// minimally encoded, right-aligned into dst.
func fillUint(dst, content []byte) bool {
	if len(content) == 0 || content[0]&0x80 != 0 {
		return false
	}
	if content[0] == 0 {
		if len(content) == 1 || content[1]&0x80 == 0 {
			return false // zero, or not minimal
		}
		content = content[1:]
	}
	if len(content) > len(dst) {
		return false
	}
	copy(dst[len(dst)-len(content):], content)
	return true
}

// isToken reports whether s is a token of RFC 9110 §5.6.2, as methods are.
func isToken(s string) bool { return s != "" && tokenLen(s) == len(s) }

func isTokenChar(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
