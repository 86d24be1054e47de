package oauth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/ycauth/ycauth-go/dpop"
)

// assertionType is the client_assertion_type of a JWT (RFC 7523 §2.2).
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// assertionLife is how long a client assertion is valid, in seconds. The server needs it
// once, within a request.
const assertionLife = 60

// A ClientKey signs the assertions of a client with [AuthPrivateKeyJWT]. It is safe for
// concurrent use if its signer is.
type ClientKey struct {
	// A closure, because fmt follows no function, and because a program that has no such
	// key then links none of this.
	prepare func(client, audience string, algs []string) (*assertions, error)
}

// NewClientKey returns the key of a client: of [dpop.LoadKeyFile], of a card, of a KMS. It
// should be another one than that of DPoP. id names the key (kid) if the client has
// registered several, and may be "". What [Config.DPoP] says of a signer that does not
// return, or fails, applies to this one too. The error is that of [dpop.New] for the
// signer.
func NewClientKey(signer crypto.Signer, id string) (*ClientKey, error) {
	usual, err := dpop.New(signer) // it looks at the key, and signs nothing
	if err != nil {
		return nil, fmt.Errorf("oauth: %w", err)
	}
	return &ClientKey{func(client, audience string, algs []string) (*assertions, error) {
		if len(algs) == 0 {
			algs = []string{string(usual.Algorithm())}
			if _, isRSA := signer.Public().(*rsa.PublicKey); isRSA {
				algs = []string{string(jose.RS256)} // what most servers accept
			}
		}
		i := slices.IndexFunc(signingAlgs, func(alg jose.SignatureAlgorithm) bool {
			_, err := dpop.New(signer, dpop.WithAlgorithm(alg))
			return err == nil && slices.Contains(algs, string(alg))
		})
		if i < 0 {
			return nil, fmt.Errorf("signs with %s, which is not in Provider.AuthSigningAlgs", usual.Algorithm())
		}
		header, err := json.Marshal(struct {
			Alg jose.SignatureAlgorithm `json:"alg"`
			KID string                  `json:"kid,omitempty"`
		}{signingAlgs[i], id})
		if err != nil {
			return nil, err
		}
		s := assertionSigner{signer, signingAlgs[i], base64.RawURLEncoding.AppendEncode(nil, header), client, audience}
		return &assertions{s.assertion, usual.NeedsPerson}, nil
	}}, nil
}

// An assertionError means that no assertion was made. A [dpop.SigningError] says that it was
// a proof that was not signed.
type assertionError struct{ err error }

func (e *assertionError) Error() string {
	cause := e.err
	var signing *dpop.SigningError
	if errors.As(cause, &signing) {
		cause = signing.Err
	}
	return "oauth: no client assertion was made: " + cause.Error()
}

func (e *assertionError) Unwrap() error { return e.err }

// assertions makes those of one client for one server.
type assertions struct {
	assertion   func(ctx context.Context, now time.Time) (string, error)
	needsPerson func() bool
}

// signingAlgs are in the order of preference.
var signingAlgs = []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.ES512, jose.EdDSA, "Ed25519", jose.PS256, jose.RS256}

type assertionSigner struct {
	signer   crypto.Signer
	alg      jose.SignatureAlgorithm
	header   []byte // base64url, the same in every assertion
	client   string
	audience string
}

// assertion returns one with a unique jti (RFC 7523 §3). now is the server's time.
func (a assertionSigner) assertion(ctx context.Context, now time.Time) (string, error) {
	claims, err := json.Marshal(struct {
		Issuer    string `json:"iss"`
		Subject   string `json:"sub"`
		Audience  string `json:"aud"`
		ID        string `json:"jti"`
		IssuedAt  int64  `json:"iat"`
		ExpiresAt int64  `json:"exp"`
	}{a.client, a.client, a.audience, randomText().Reveal(), now.Unix(), now.Unix() + assertionLife})
	if err != nil {
		return "", err
	}
	input := append(slices.Clone(a.header), '.')
	input = base64.RawURLEncoding.AppendEncode(input, claims)
	signature, err := a.sign(ctx, input)
	if err != nil {
		return "", &dpop.SigningError{Err: err}
	}
	return string(base64.RawURLEncoding.AppendEncode(append(input, '.'), signature)), nil
}

// sign returns the JWS signature of input (RFC 7518 §3.1, RFC 8037 §3.1).
func (a assertionSigner) sign(ctx context.Context, input []byte) ([]byte, error) {
	hash := map[jose.SignatureAlgorithm]crypto.Hash{
		jose.ES256: crypto.SHA256, jose.ES384: crypto.SHA384, jose.ES512: crypto.SHA512, jose.PS256: crypto.SHA256, jose.RS256: crypto.SHA256,
	}[a.alg]
	var opts crypto.SignerOpts = hash
	if a.alg == jose.PS256 {
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash} // RFC 7518 §3.5
	}
	if hash != 0 {
		h := hash.New()
		h.Write(input)
		input = h.Sum(nil)
	}
	var signature []byte
	var err error
	if s, ok := a.signer.(dpop.ContextSigner); ok {
		signature, err = s.SignContext(ctx, input, opts)
	} else {
		signature, err = a.signer.Sign(rand.Reader, input, opts)
	}
	if key, ok := a.signer.Public().(*ecdsa.PublicKey); ok && err == nil {
		return concatenated(signature, (key.Curve.Params().BitSize+7)/8)
	}
	return signature, err
}

// concatenated turns the ASN.1 form of an ECDSA signature into that of RFC 7518 §3.4: R and
// S, of size octets each.
func concatenated(der []byte, size int) ([]byte, error) {
	var numbers struct{ R, S *big.Int }
	rest, err := asn1.Unmarshal(der, &numbers)
	if err != nil || len(rest) != 0 || numbers.R.Sign() <= 0 || numbers.S.Sign() <= 0 || max(numbers.R.BitLen(), numbers.S.BitLen()) > 8*size {
		return nil, errors.New("the signer's signature is not the DER of two positive integers of the curve's size")
	}
	signature := make([]byte, 2*size)
	numbers.R.FillBytes(signature[:size])
	numbers.S.FillBytes(signature[size:])
	return signature, nil
}
