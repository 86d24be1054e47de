// Package dpop proves possession of a key to OAuth servers: Demonstrating Proof
// of Possession, RFC 9449.
//
// A refresh or access token that is bound to a key is worthless without it. The
// client proves possession of the key with every request, by a small signed JWT,
// the DPoP proof. This package creates proofs ([Prover]), attaches them to the
// requests of a [net/http.Client] ([Transport]), remembers the nonces that servers
// demand in them ([Nonces]) and how far the servers' clocks are from ours ([Clocks]),
// keeps a key in a file ([LoadOrGenerateKeyFile]), verifies proofs on the server
// ([Verifier]) and protects HTTP handlers ([ResourceServer]).
//
// # Keys
//
// Any [crypto.Signer] can be the key: one from a file, from a YubiKey (package
// piv of this module), from a cloud KMS. The kind of key determines the algorithm:
//
//	P-256    ES256
//	P-384    ES384
//	P-521    ES512
//	Ed25519  EdDSA (WithAlgorithm chooses its other name, Ed25519)
//	RSA      PS256, at 2048 bits or more (WithAlgorithm chooses RS256)
//
// A signer that may wait for the user to type a PIN or touch a token should
// implement [ContextSigner], so that the wait ends with the request's context.
//
// A program without a key of its own generates one at its first start with
// [LoadOrGenerateKeyFile]. Anyone who can read the file can use the tokens, so only
// its owner may read it. If it is lost, the user must log in again. Servers identify
// a key by its [Prover.Thumbprint].
//
// # Proofs
//
// A proof is for one attempt of one request and must not be sent again. Servers
// reject a jti that they have seen, and some end the whole session then. So
// [Prover.Proof] must be called for every attempt, including retries. The proof
// names the method, the URL and the time, and on requests to a protected resource
// the hash of the access token.
//
// # Clocks
//
// A server rejects a proof whose time (iat) is more than some seconds or minutes
// from its own. [Clocks] learns the time of each server from its responses, so that
// proofs are right even if the clock of this computer is not.
//
// # Nonces
//
// A server may demand that proofs carry a nonce that it chose (RFC 9449 §8 and
// §9). It sends one in the DPoP-Nonce header of any response, success or failure,
// and only the newest one counts. [Nonces] keeps it for each origin.
//
// # Requests
//
// [Transport] does all of this for the requests of a [net/http.Client] to a
// protected resource if the token is of type DPoP. It sends tokens of type Bearer
// as they are. The requests to a token endpoint, which bind a token to the key in
// the first place, are made by package oauth.
//
// # Servers
//
// [Verifier] makes every check of RFC 9449 §4.3 that is possible with the data in
// [Expected], and remembers the proofs it has seen. It rejects a
// proof with a [*ProofError], which names the check and the error code for the
// response.
//
// [ResourceServer] protects HTTP handlers with a Verifier. It checks that token, scheme
// and proof belong together, and rejects other requests with the right challenge. A
// program that uses the Verifier directly must do that itself; it must reject a token that
// is bound to a key but came with a scheme other than DPoP (§7.2).
//
// [NonceIssuer] issues nonces that all replicas of a server accept. [ReplayCache] is the
// interface of a memory of proofs that they share.
//
// # Errors
//
// No error of this package contains a key, a token, a proof, or more of a URL than its
// host. A [*KeyFileError] says what is wrong with a file and what to do. A
// [*SigningError] means that the signer failed, not the network. Errors of a signer,
// of a token source and of a context are wrapped, for [errors.Is] and
// [errors.As].
package dpop

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha256" // the hashes that algorithms and thumbprints name
	_ "crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"sync/atomic"

	"github.com/go-jose/go-jose/v4"
)

// MinRSABits is the length of the shortest RSA key accepted, in bits (RFC 7518
// §3.3, §3.5).
const MinRSABits = 2048

// A ContextSigner is a signer whose signatures can take seconds. [Prover.Proof]
// calls its SignContext instead of Sign, with the context of the request that the
// proof is for.
//
// The parameters are those of [crypto.Signer], whose randomness source such
// signers choose themselves. For an Ed25519 key digest is the whole message and
// opts.HashFunc() is 0.
type ContextSigner interface {
	crypto.Signer
	SignContext(ctx context.Context, digest []byte, opts crypto.SignerOpts) (signature []byte, err error)
}

// A PersonSigner is a signer that may need a person: to touch the key, or to enter a PIN.
// Sessions with such a key are not renewed while nobody uses them.
type PersonSigner interface {
	crypto.Signer
	NeedsPerson() bool
}

// A Prover creates DPoP proofs with one key. It is safe for concurrent use if its
// signer is.
type Prover struct {
	signer  func() crypto.Signer // not the Signer itself, as fmt reads the fields of a struct that holds a Prover
	alg     algorithm
	jwk     jose.JSONWebKey
	header  []byte // base64url of the JOSE header, which is the same in every proof
	lastURL atomic.Pointer[normalized]
}

// An Option configures a [Prover]. A nil Option does nothing.
type Option func(*options)

type options struct {
	algorithm jose.SignatureAlgorithm
	chain     []*x509.Certificate
}

// WithAlgorithm signs with alg instead of the key's usual algorithm, for servers
// that do not list it in dpop_signing_alg_values_supported (RFC 9449
// §5.1). RSA keys have the choice of [jose.PS256] and [jose.RS256], and Ed25519 keys that
// of two names for the same signature: [jose.EdDSA], which more servers know, and
// "Ed25519", which replaces it (RFC 9864 §2.2).
func WithAlgorithm(alg jose.SignatureAlgorithm) Option {
	return func(o *options) { o.algorithm = alg }
}

// WithCertificateChain adds the JOSE header x5c (RFC 7515 §4.1.6) to every
// proof: the certificate of the signing key first, then those that lead to a
// root the server trusts. With the attestation of a YubiKey's slot it lets a
// server see that the key cannot be copied. It adds some kilobytes to each proof;
// many servers limit a request header to 8 KiB.
//
// How Yandex Cloud expects to receive an attestation is not documented, and
// this way of sending it has not been verified against the live service.
func WithCertificateChain(chain []*x509.Certificate) Option {
	return func(o *options) { o.chain = chain }
}

// ErrNoSigner is the error of [New] for a signer that is nil or a nil pointer,
// which usually means that an error of loading or opening the key was ignored.
var ErrNoSigner = errors.New("dpop: no signer (nil): check the error of what loads or opens the key")

// New returns a Prover that signs with signer. It fails with [ErrNoSigner] if signer
// is nil or a nil pointer. It also fails if there is no JWS algorithm for the kind of
// key, if the key is too short, if an ECDSA key is not a point of its
// curve, if the key does not fit the requested algorithm, or if the first certificate
// of a chain is for another key. New does not sign anything.
func New(signer crypto.Signer, opts ...Option) (*Prover, error) {
	if v := reflect.ValueOf(signer); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		return nil, ErrNoSigner // the Public of most types panics for a nil pointer
	}
	if key, ok := signer.(ed25519.PrivateKey); ok && len(key) != ed25519.PrivateKeySize {
		return nil, errors.New("dpop: the Ed25519 private key has a wrong length") // its Public panics
	}
	var o options
	for _, opt := range opts {
		if opt != nil {
			opt(&o)
		}
	}
	pub := signer.Public()
	alg, err := algorithmFor(pub, o.algorithm)
	if err != nil {
		return nil, err
	}
	jwk := jose.JSONWebKey{Key: pub}
	header, err := joseHeader(alg, jwk, o.chain)
	if err != nil {
		return nil, err
	}
	return &Prover{signer: func() crypto.Signer { return signer }, alg: alg, jwk: jwk, header: header}, nil
}

// algorithm is one row of RFC 7518 §3.1 or RFC 8037 §3.1.
type algorithm struct {
	name  jose.SignatureAlgorithm
	hash  crypto.Hash       // 0: the message itself is signed
	opts  crypto.SignerOpts // what crypto.Signer.Sign is told
	coord int               // octets of one ECDSA coordinate; 0: the signature is used as it comes
	size  int               // octets of the JWS signature
}

// algEd25519 is the fully-specified name of EdDSA with the curve Ed25519 (RFC 9864 §2.2).
const algEd25519 jose.SignatureAlgorithm = "Ed25519"

var pssSHA256 = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256} // RFC 7518 §3.5

func algorithmFor(pub crypto.PublicKey, want jose.SignatureAlgorithm) (algorithm, error) {
	var alg algorithm
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		if pub == nil || pub.Curve == nil || pub.X == nil || pub.Y == nil {
			return alg, errors.New("dpop: the signer has an empty ECDSA public key")
		}
		switch pub.Curve {
		case elliptic.P256():
			alg = algorithm{jose.ES256, crypto.SHA256, crypto.SHA256, 32, 64}
		case elliptic.P384():
			alg = algorithm{jose.ES384, crypto.SHA384, crypto.SHA384, 48, 96}
		case elliptic.P521():
			alg = algorithm{jose.ES512, crypto.SHA512, crypto.SHA512, 66, 132}
		default:
			return alg, fmt.Errorf("dpop: no JWS algorithm for the curve %s: use P-256, P-384 or P-521", pub.Curve.Params().Name)
		}
		if _, err := pub.ECDH(); err != nil {
			return alg, errors.New("dpop: the ECDSA public key is not a point of its curve")
		}
	case ed25519.PublicKey:
		if len(pub) != ed25519.PublicKeySize {
			return alg, errors.New("dpop: the Ed25519 public key has a wrong length")
		}
		alg = algorithm{jose.EdDSA, 0, crypto.Hash(0), 0, ed25519.SignatureSize}
		if want == algEd25519 {
			alg.name = want
		}
	case *rsa.PublicKey:
		if pub == nil || pub.N == nil {
			return alg, errors.New("dpop: the signer has an empty RSA public key")
		}
		if bits := pub.N.BitLen(); bits < MinRSABits {
			return alg, fmt.Errorf("dpop: the RSA key has %d bits: at least %d are needed (RFC 7518)", bits, MinRSABits)
		}
		if want == jose.RS256 {
			return algorithm{jose.RS256, crypto.SHA256, crypto.SHA256, 0, pub.Size()}, nil
		}
		alg = algorithm{jose.PS256, crypto.SHA256, pssSHA256, 0, pub.Size()}
	default:
		return alg, fmt.Errorf("dpop: cannot use a key of type %T: use ECDSA (P-256, P-384, P-521), Ed25519 or RSA", pub)
	}
	if want != "" && want != alg.name {
		return alg, fmt.Errorf("dpop: this key signs with %s and cannot sign with %s", alg.name, want)
	}
	return alg, nil
}

// joseHeader is the base64url form of the header: "typ", "alg" and "jwk" as
// RFC 9449 §4.2 asks, and x5c where a chain was given.
func joseHeader(alg algorithm, jwk jose.JSONWebKey, chain []*x509.Certificate) ([]byte, error) {
	h := struct {
		Type string                  `json:"typ"`
		Alg  jose.SignatureAlgorithm `json:"alg"`
		JWK  jose.JSONWebKey         `json:"jwk"`
		X5C  []string                `json:"x5c,omitempty"`
	}{Type: proofType, Alg: alg.name, JWK: jwk}
	for i, cert := range chain {
		if cert == nil || len(cert.Raw) == 0 {
			return nil, fmt.Errorf("dpop: certificate %d of the chain is empty", i)
		}
		if i == 0 && !samePublicKey(cert.PublicKey, jwk.Key) {
			return nil, errors.New("dpop: the first certificate of the chain is not for the key that signs")
		}
		h.X5C = append(h.X5C, base64.StdEncoding.EncodeToString(cert.Raw))
	}
	b, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("dpop: the public key cannot be written as a JWK: %w", err)
	}
	return base64.RawURLEncoding.AppendEncode(nil, b), nil
}

func samePublicKey(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// Algorithm returns the JWS algorithm of the proofs, for instance ES256.
func (p *Prover) Algorithm() jose.SignatureAlgorithm { return p.alg.name }

// JWK returns the public key as it appears in the header of every proof. It never
// contains private parts.
func (p *Prover) JWK() jose.JSONWebKey { return p.jwk }

// NeedsPerson reports whether a proof may need a person: it is what the signer says if it
// is a [PersonSigner], and false otherwise.
func (p *Prover) NeedsPerson() bool {
	s, ok := p.signer().(PersonSigner)
	return ok && s.NeedsPerson()
}

// Thumbprint returns the JWK thumbprint of the public key (RFC 7638), in unpadded
// base64url. It identifies the key in dpop_jkt and in the cnf claim of tokens
// (RFC 9449 §6.1, §10).
//
// RFC 9449 uses SHA-256. Yandex Cloud's dpop_jkt is computed with SHA-512.
// Thumbprint fails if the hash is not linked into the program.
func (p *Prover) Thumbprint(h crypto.Hash) (string, error) { return thumbprint(&p.jwk, h) }

func thumbprint(jwk *jose.JSONWebKey, h crypto.Hash) (string, error) {
	if !h.Available() {
		return "", fmt.Errorf("dpop: hash %v is not available", h)
	}
	sum, err := jwk.Thumbprint(h)
	if err != nil {
		return "", fmt.Errorf("dpop: thumbprint: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(sum), nil
}
