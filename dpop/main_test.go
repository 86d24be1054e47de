package dpop

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"go.uber.org/goleak"

	"github.com/ycauth/ycauth-go/internal/strictjson"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(keyFileChildEnv); path != "" {
		os.Exit(keyFileChild(path))
	}
	goleak.VerifyTestMain(m)
}

// One key of each kind: RSA keys take long to make.
var (
	p256Key = sync.OnceValue(func() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	p384Key = sync.OnceValue(func() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)) })
	p521Key = sync.OnceValue(func() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)) })
	edKey   = sync.OnceValue(func() crypto.Signer {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return must(key, err)
	})
	rsaKey = sync.OnceValue(func() crypto.Signer { return must(rsa.GenerateKey(rand.Reader, 2048)) })
)

// algorithms is the table of the package documentation.
var algorithms = []struct {
	name string
	key  func() crypto.Signer
	opts []Option
	alg  jose.SignatureAlgorithm
	size int // of the signature, in octets
}{
	{"P-256", p256Key, nil, jose.ES256, 64},
	{"P-384", p384Key, nil, jose.ES384, 96},
	{"P-521", p521Key, nil, jose.ES512, 132},
	{"Ed25519", edKey, nil, jose.EdDSA, 64},
	{"Ed25519 by its later name", edKey, []Option{WithAlgorithm("Ed25519"), nil}, "Ed25519", 64},
	{"RSA", rsaKey, nil, jose.PS256, 256},
	{"RSA with RS256", rsaKey, []Option{WithAlgorithm(jose.RS256)}, jose.RS256, 256},
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newProver(tb testing.TB, key crypto.Signer, opts ...Option) *Prover {
	tb.Helper()
	p, err := New(key, opts...)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

const tokenURL = "https://auth.example.com/oauth/token"

func makeProof(tb testing.TB, p *Prover, c Claims) string {
	tb.Helper()
	if c.Method == "" {
		c.Method = "POST"
	}
	if c.URL == "" {
		c.URL = tokenURL
	}
	proof, err := p.Proof(context.Background(), c)
	if err != nil {
		tb.Fatal(err)
	}
	return proof
}

// parts is a proof taken apart without go-jose.
type parts struct {
	header, payload map[string]json.RawMessage
	input           string // what was signed
	signature       []byte
}

func takeApart(tb testing.TB, proof string) parts {
	tb.Helper()
	s := strings.Split(proof, ".")
	if len(s) != 3 {
		tb.Fatalf("%d parts", len(s))
	}
	var p parts
	var err error
	if p.header, err = strictjson.Object(unbase64(tb, s[0])); err != nil {
		tb.Fatalf("header: %v", err)
	}
	if p.payload, err = strictjson.Object(unbase64(tb, s[1])); err != nil {
		tb.Fatalf("payload: %v", err)
	}
	p.input = s[0] + "." + s[1]
	p.signature = unbase64(tb, s[2])
	return p
}

func (p parts) claim(tb testing.TB, name string) string {
	tb.Helper()
	var s string
	if raw := p.payload[name]; raw != nil {
		if err := json.Unmarshal(raw, &s); err != nil {
			tb.Fatalf("%s: %v", name, err)
		}
	}
	return s
}

func unbase64(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		tb.Fatalf("not unpadded base64url: %v", err)
	}
	return b
}

// opaque hides everything of a key but crypto.Signer.
type opaque struct{ key crypto.Signer }

func (o opaque) Public() crypto.PublicKey { return o.key.Public() }

func (o opaque) Sign(rnd io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return o.key.Sign(rnd, digest, opts)
}

// stub is a signer for a public key that signs whatever a test wants.
type stub struct {
	pub  crypto.PublicKey
	sign func(digest []byte) ([]byte, error)
}

func (s stub) Public() crypto.PublicKey { return s.pub }

func (s stub) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	if s.sign == nil {
		return nil, errors.New("this signer has no private key")
	}
	return s.sign(digest)
}

// drain reads and closes the body of a response, as a program does.
func drain(resp *http.Response) {
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
}

// at is a clock that stands still.
func at(t time.Time) func() time.Time { return func() time.Time { return t } }
