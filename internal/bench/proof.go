package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/ycauth/ycauth-go/dpop"
)

const tokenURL = "https://auth.yandex.cloud/oauth/token"

func proofTable() table {
	return table{
		title:      "A DPoP proof, ES256",
		text:       "What every token request pays. The floor is the signature itself, over a digest that is ready.",
		candidates: []candidate{{"floor: `ecdsa.PrivateKey.Sign` of a digest", benchSign}, {"**ycauth-go** `Prover.Proof`", benchProof}, {"`go-jose` v4 with an embedded JWK", benchJose}},
	}
}

func newKey(b *testing.B) *ecdsa.PrivateKey {
	b.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	return key
}

func benchSign(b *testing.B) {
	key := newKey(b)
	digest := sha256.Sum256([]byte(tokenURL))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ecdsa.SignASN1(rand.Reader, key, digest[:]); err != nil {
			b.Fatal(err)
		}
	}
}

func benchProof(b *testing.B) {
	p, err := dpop.New(newKey(b))
	if err != nil {
		b.Fatal(err)
	}
	c := dpop.Claims{Method: "POST", URL: tokenURL, Nonce: "eyJ7S_zG.eyJH0-Z.HX4w-7v"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Proof(context.Background(), c); err != nil {
			b.Fatal(err)
		}
	}
}

// benchJose makes the same proof as most programs do: claims through
// encoding/json, header and signature through go-jose.
func benchJose(b *testing.B) {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: newKey(b)},
		(&jose.SignerOptions{EmbedJWK: true}).WithType("dpop+jwt"))
	if err != nil {
		b.Fatal(err)
	}
	type claims struct {
		ID    string `json:"jti"`
		HTM   string `json:"htm"`
		HTU   string `json:"htu"`
		IAT   int64  `json:"iat"`
		Nonce string `json:"nonce"`
	}
	b.ReportAllocs()
	for b.Loop() {
		var jti [16]byte
		if _, err := rand.Read(jti[:]); err != nil {
			b.Fatal(err)
		}
		payload, err := json.Marshal(claims{
			base64.RawURLEncoding.EncodeToString(jti[:]), "POST", tokenURL, time.Now().Unix(), "eyJ7S_zG.eyJH0-Z.HX4w-7v",
		})
		if err != nil {
			b.Fatal(err)
		}
		jws, err := signer.Sign(payload)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := jws.CompactSerialize(); err != nil {
			b.Fatal(err)
		}
	}
}
