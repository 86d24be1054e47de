package dpop

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// Every proof verifies with go-jose, with package crypto alone, and with the
// Verifier; with keys that are known and with signers that are not.
func TestAlgorithms(t *testing.T) {
	for _, tt := range algorithms {
		for kind, signer := range map[string]crypto.Signer{"known": tt.key(), "opaque": opaque{tt.key()}} {
			t.Run(tt.name+"/"+kind, func(t *testing.T) {
				p := newProver(t, signer, tt.opts...)
				if p.Algorithm() != tt.alg {
					t.Fatalf("Algorithm = %s, want %s", p.Algorithm(), tt.alg)
				}
				proof := makeProof(t, p, Claims{AccessToken: "token", Nonce: "nonce"})
				parts := takeApart(t, proof)
				if len(parts.signature) != tt.size {
					t.Errorf("the signature has %d octets, want %d", len(parts.signature), tt.size)
				}

				jws, err := jose.ParseSignedCompact(proof, []jose.SignatureAlgorithm{tt.alg})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := jws.Verify(tt.key().Public()); err != nil && tt.alg != algEd25519 { // unknown there
					t.Errorf("go-jose: %v", err)
				}
				if !verifyDirectly(tt.alg, tt.key().Public(), []byte(parts.input), parts.signature) {
					t.Error("package crypto: the signature does not verify")
				}
				var v Verifier
				if _, err := v.Verify(proof, Expected{Method: "POST", URL: tokenURL, AccessToken: "token", Thumbprint: thumbprintOf(t, tt.key())}); err != nil {
					t.Errorf("Verifier: %v", err)
				}
			})
		}
	}
}

// verifyDirectly follows RFC 7518 §3.3 to §3.5 and RFC 8037 §3.1.
func verifyDirectly(alg jose.SignatureAlgorithm, pub crypto.PublicKey, input, sig []byte) bool {
	s256, s384, s512 := sha256.Sum256(input), sha512.Sum384(input), sha512.Sum512(input)
	ec := func(digest []byte) bool {
		r, s := new(big.Int).SetBytes(sig[:len(sig)/2]), new(big.Int).SetBytes(sig[len(sig)/2:])
		return ecdsa.Verify(pub.(*ecdsa.PublicKey), digest, r, s)
	}
	switch alg {
	case jose.ES256:
		return ec(s256[:])
	case jose.ES384:
		return ec(s384[:])
	case jose.ES512:
		return ec(s512[:])
	case jose.EdDSA, algEd25519:
		return ed25519.Verify(pub.(ed25519.PublicKey), input, sig)
	case jose.RS256:
		return rsa.VerifyPKCS1v15(pub.(*rsa.PublicKey), crypto.SHA256, s256[:], sig) == nil
	case jose.PS256:
		salt := &rsa.PSSOptions{SaltLength: 32} // "The size of the salt value is the same size as the hash function output"
		return rsa.VerifyPSS(pub.(*rsa.PublicKey), crypto.SHA256, s256[:], sig, salt) == nil
	}
	return false
}

// The header holds exactly what RFC 9449 §4.2 asks for, and the key nothing
// private.
func TestHeader(t *testing.T) {
	members := map[jose.SignatureAlgorithm]string{
		jose.ES256: "crv kty x y", jose.ES384: "crv kty x y", jose.ES512: "crv kty x y",
		jose.EdDSA: "crv kty x", algEd25519: "crv kty x", jose.PS256: "e kty n", jose.RS256: "e kty n",
	}
	for _, tt := range algorithms {
		t.Run(tt.name, func(t *testing.T) {
			p := newProver(t, tt.key(), tt.opts...)
			header := takeApart(t, makeProof(t, p, Claims{})).header
			if len(header) != 3 || string(header["typ"]) != `"dpop+jwt"` || string(header["alg"]) != `"`+string(tt.alg)+`"` {
				t.Errorf("header: %s", header)
			}
			var jwk map[string]string
			if err := json.Unmarshal(header["jwk"], &jwk); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(slices.Sorted(maps.Keys(jwk)), " "); got != members[tt.alg] {
				t.Errorf("jwk has %s, want %s", got, members[tt.alg])
			}
			if own := p.JWK(); !own.IsPublic() || !samePublicKey(own.Key, tt.key().Public()) {
				t.Error("JWK is not the public key")
			}
		})
	}
}

// RFC 7518 §6.2.1.2: "The length of this octet string MUST be the full size of
// a coordinate for the curve". One key in 128 has a short coordinate.
func TestShortCoordinates(t *testing.T) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		size := (curve.Params().BitSize + 7) / 8
		for name, short := range map[string]func(point []byte) bool{
			"x": func(point []byte) bool { return point[1] == 0 },
			"y": func(point []byte) bool { return point[1+size] == 0 },
		} {
			t.Run(curve.Params().Name+"/"+name, func(t *testing.T) {
				key := findKey(t, curve, short)
				p := newProver(t, opaque{key})
				proof := makeProof(t, p, Claims{})
				var jwk struct{ X, Y string }
				if err := json.Unmarshal(takeApart(t, proof).header["jwk"], &jwk); err != nil {
					t.Fatal(err)
				}
				point, err := key.PublicKey.Bytes()
				if err != nil {
					t.Fatal(err)
				}
				if got := string(unbase64(t, jwk.X)) + string(unbase64(t, jwk.Y)); got != string(point[1:]) {
					t.Errorf("the key has the coordinates %x, the proof %x", point[1:], got)
				}
				var v Verifier
				got, err := v.Verify(proof, Expected{Method: "POST", URL: tokenURL})
				if err != nil {
					t.Fatal(err)
				}
				if want, _ := p.Thumbprint(crypto.SHA256); got.Thumbprint != want {
					t.Errorf("thumbprints differ: %s and %s", got.Thumbprint, want)
				}
			})
		}
	}
}

// findKey goes through the private keys 1, 2, 3… of the curve.
func findKey(t *testing.T, curve elliptic.Curve, want func(point []byte) bool) *ecdsa.PrivateKey {
	t.Helper()
	for d := int64(1); d < 100_000; d++ {
		key, err := ecdsa.ParseRawPrivateKey(curve, big.NewInt(d).FillBytes(make([]byte, (curve.Params().BitSize+7)/8)))
		if err != nil {
			t.Fatal(err)
		}
		point, err := key.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if want(point) {
			return key
		}
	}
	t.Fatal("no such key found")
	return nil
}

// One signature in 128 has a short r or s.
func TestShortSignatures(t *testing.T) {
	key := p256Key().(*ecdsa.PrivateKey)
	var der []byte
	p := newProver(t, stub{key.Public(), func(digest []byte) (_ []byte, err error) {
		der, err = key.Sign(rand.Reader, digest, crypto.SHA256)
		return der, err
	}})
	shortR, shortS := 0, 0
	for i := 0; shortR == 0 || shortS == 0; i++ {
		if i == 100_000 {
			t.Fatal("no short signature found")
		}
		input := fmt.Appendf(nil, "message %d", i)
		sig, err := p.sign(t.Context(), input)
		if err != nil || len(sig) != 64 {
			t.Fatalf("%d octets, %v", len(sig), err)
		}
		if sig[0] != 0 && sig[32] != 0 {
			continue
		}
		var rs struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(der, &rs); err != nil {
			t.Fatal(err)
		}
		if string(rs.R.FillBytes(make([]byte, 32)))+string(rs.S.FillBytes(make([]byte, 32))) != string(sig) {
			t.Fatalf("the DER %x became %x", der, sig)
		}
		if !verifyDirectly(jose.ES256, key.Public(), input, sig) {
			t.Fatalf("%x does not verify", sig)
		}
		if sig[0] == 0 {
			shortR++
		}
		if sig[32] == 0 {
			shortS++
		}
	}
}

// patient is a signer that takes a context.
type patient struct {
	opaque
	sign func(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error)
}

func (p patient) SignContext(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return p.sign(ctx, digest, opts)
}

func (p patient) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("Sign was called, not SignContext")
}

var _ ContextSigner = patient{}

func TestContextSigner(t *testing.T) {
	type key struct{}
	for _, tt := range algorithms {
		t.Run(tt.name, func(t *testing.T) {
			ctx := context.WithValue(t.Context(), key{}, "of the request")
			var digest []byte
			p := newProver(t, patient{opaque{tt.key()}, func(ctx context.Context, d []byte, opts crypto.SignerOpts) ([]byte, error) {
				if ctx.Value(key{}) != "of the request" {
					t.Error("the signer got another context")
				}
				digest = d
				wantHash := map[jose.SignatureAlgorithm]crypto.Hash{jose.ES384: crypto.SHA384, jose.ES512: crypto.SHA512, jose.EdDSA: 0, algEd25519: 0}
				want, ok := wantHash[tt.alg]
				if !ok {
					want = crypto.SHA256
				}
				if opts == nil || opts.HashFunc() != want {
					t.Errorf("options %v, want %v", opts, want)
				}
				pss, isPSS := opts.(*rsa.PSSOptions)
				if isPSS != (tt.alg == jose.PS256) {
					t.Errorf("options of type %T", opts)
				}
				if isPSS && pss.SaltLength != rsa.PSSSaltLengthEqualsHash {
					t.Errorf("salt of length %d", pss.SaltLength)
				}
				return tt.key().Sign(rand.Reader, d, opts)
			}}, tt.opts...)
			proof, err := p.Proof(ctx, Claims{Method: "POST", URL: tokenURL})
			if err != nil {
				t.Fatal(err)
			}
			parts := takeApart(t, proof)
			if (tt.alg == jose.EdDSA || tt.alg == algEd25519) && string(digest) != parts.input {
				t.Errorf("Ed25519 has to sign the whole message, got %q", digest)
			}
			if !verifyDirectly(tt.alg, tt.key().Public(), []byte(parts.input), parts.signature) {
				t.Error("the signature does not verify")
			}
		})
	}
}

func TestContextEnds(t *testing.T) {
	c := Claims{Method: "POST", URL: tokenURL}
	t.Run("while the signer waits for a touch", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p := newProver(t, patient{opaque{p256Key()}, func(ctx context.Context, _ []byte, _ crypto.SignerOpts) ([]byte, error) {
			cancel()
			<-ctx.Done()
			return nil, fmt.Errorf("waiting for a touch: %w", ctx.Err())
		}})
		if proof, err := p.Proof(ctx, c); !errors.Is(err, context.Canceled) || proof != "" {
			t.Errorf("Proof = %q, %v", proof, err)
		}
	})
	t.Run("before", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		p := newProver(t, stub{p256Key().Public(), func([]byte) ([]byte, error) {
			t.Error("the signer was asked")
			return nil, nil
		}})
		if proof, err := p.Proof(ctx, c); !errors.Is(err, context.Canceled) || proof != "" {
			t.Errorf("Proof = %q, %v", proof, err)
		}
	})
	t.Run("before, with a cause", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cause := errors.New("shutting down")
		cancel(cause)
		_, err := newProver(t, p256Key()).Proof(ctx, c)
		if !errors.Is(err, context.Canceled) || !errors.Is(err, cause) {
			t.Errorf("Proof: %v, want both errors", err)
		}
	})
}

// A signer's own error can be told apart, and its garbage never becomes a proof.
func TestBadSigners(t *testing.T) {
	removed := errors.New("card removed")
	p := newProver(t, stub{p256Key().Public(), func([]byte) ([]byte, error) { return []byte("ignored"), removed }})
	proof, err := p.Proof(t.Context(), Claims{Method: "POST", URL: tokenURL})
	if !errors.Is(err, removed) || proof != "" {
		t.Errorf("Proof = %q, %v", proof, err)
	}
	var failed *SigningError
	if !errors.As(err, &failed) || failed.Err != removed || err.Error() != "dpop: signing the proof: card removed" { //nolint:errorlint // the very value
		t.Errorf("Proof: %#v, want a SigningError", err)
	}

	for _, tt := range algorithms {
		for name, sig := range map[string][]byte{
			"nothing":   nil,
			"one octet": {0x30},
			"too short": make([]byte, tt.size-1),
			"too long":  make([]byte, tt.size+1),
			"text":      []byte("-----BEGIN SIGNATURE-----"),
		} {
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				p := newProver(t, stub{tt.key().Public(), func([]byte) ([]byte, error) { return sig, nil }}, tt.opts...)
				var failed *SigningError
				if proof, err := p.Proof(t.Context(), Claims{Method: "POST", URL: tokenURL}); !errors.As(err, &failed) || proof != "" {
					t.Errorf("Proof = %q, %v", proof, err)
				}
			})
		}
	}
}

// nilable is a signer whose Public panics for a nil pointer.
type nilable struct{ stub }

func TestNewRefuses(t *testing.T) {
	p224 := must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))
	x25519 := must(ecdh.X25519().GenerateKey(rand.Reader))
	weak := &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), MinRSABits-2), E: 65537}
	p256 := p256Key().Public().(*ecdsa.PublicKey)
	for _, tt := range []struct {
		name string
		key  crypto.Signer
		opts []Option
		want string
	}{
		{"no signer", nil, nil, "no signer"},
		{"nil ECDSA key", (*ecdsa.PrivateKey)(nil), nil, "no signer"},
		{"nil RSA key", (*rsa.PrivateKey)(nil), nil, "no signer"},
		{"nil pointer of another type", (*nilable)(nil), nil, "no signer"},
		{"nil Ed25519 key", ed25519.PrivateKey(nil), nil, "wrong length"},
		{"short Ed25519 key", make(ed25519.PrivateKey, 31), nil, "wrong length"},
		{"P-224", p224, nil, "P-224"},
		{"weak RSA", stub{pub: weak}, nil, "2047 bits"},
		{"empty RSA", stub{pub: &rsa.PublicKey{}}, nil, "empty RSA"},
		{"nil RSA", stub{pub: (*rsa.PublicKey)(nil)}, nil, "empty RSA"},
		{"empty ECDSA", stub{pub: &ecdsa.PublicKey{}}, nil, "empty ECDSA"},
		{"nil ECDSA", stub{pub: (*ecdsa.PublicKey)(nil)}, nil, "empty ECDSA"},
		{"ECDSA without a point", stub{pub: &ecdsa.PublicKey{Curve: elliptic.P256()}}, nil, "empty ECDSA"},
		{"ECDSA off the curve", stub{pub: &ecdsa.PublicKey{Curve: elliptic.P256(), X: p256.X, Y: new(big.Int).Add(p256.Y, big.NewInt(1))}}, nil, "not a point"},
		{"ECDSA of another curve", stub{pub: &ecdsa.PublicKey{Curve: elliptic.P384(), X: p256.X, Y: p256.Y}}, nil, "not a point"},
		{"ECDSA with a negative coordinate", stub{pub: &ecdsa.PublicKey{Curve: elliptic.P256(), X: new(big.Int).Neg(p256.X), Y: p256.Y}}, nil, "not a point"},
		{"short Ed25519", stub{pub: ed25519.PublicKey("short")}, nil, "wrong length"},
		{"X25519", stub{pub: x25519.PublicKey()}, nil, "*ecdh.PublicKey"},
		{"no public key", stub{}, nil, "<nil>"},
		{"symmetric key", stub{pub: []byte("secret")}, nil, "[]uint8"},
		{"private key for a public one", stub{pub: p256Key()}, nil, "*ecdsa.PrivateKey"},
		{"RS256 with ECDSA", p256Key(), []Option{WithAlgorithm(jose.RS256)}, "signs with ES256 and cannot sign with RS256"},
		{"ES384 with P-256", p256Key(), []Option{WithAlgorithm(jose.ES384)}, "cannot sign with ES384"},
		{"PS384 with RSA", rsaKey(), []Option{WithAlgorithm(jose.PS384)}, "cannot sign with PS384"},
		{"HS256", rsaKey(), []Option{WithAlgorithm(jose.HS256)}, "cannot sign with HS256"},
		{"Ed25519 with ECDSA", p256Key(), []Option{WithAlgorithm("Ed25519")}, "cannot sign with Ed25519"},
		{"Ed448", edKey(), []Option{WithAlgorithm("Ed448")}, "cannot sign with Ed448"},
		{"none", edKey(), []Option{WithAlgorithm("none")}, "cannot sign with none"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := New(tt.key, tt.opts...)
			if p != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("New = %v, %v; want an error with %q", p, err, tt.want)
			}
			if errors.Is(err, ErrNoSigner) != (tt.want == "no signer") {
				t.Errorf("errors.Is(%q, ErrNoSigner) = %v", err, errors.Is(err, ErrNoSigner))
			}
		})
	}
}

func TestNewWithTheUsualAlgorithm(t *testing.T) {
	for _, tt := range algorithms {
		if p := newProver(t, tt.key(), WithAlgorithm(tt.alg)); p.Algorithm() != tt.alg {
			t.Errorf("%s: %s", tt.name, p.Algorithm())
		}
	}
}
