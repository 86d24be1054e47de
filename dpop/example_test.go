package dpop_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"golang.org/x/oauth2"

	"github.com/ycauth/ycauth-go/dpop"
)

// A token request carries a proof that its sender has the key.
func ExampleProver_Proof() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	prover, err := dpop.New(key)
	if err != nil {
		log.Fatal(err)
	}
	proof, err := prover.Proof(context.Background(), dpop.Claims{
		Method: http.MethodPost,
		URL:    "https://auth.example.com/oauth/token",
	})
	if err != nil {
		log.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, "https://auth.example.com/oauth/token", http.NoBody)
	if err != nil {
		log.Fatal(err)
	}
	req.Header.Set("DPoP", proof)

	fmt.Println("signed with", prover.Algorithm())
	// Output: signed with ES256
}

// The thumbprint names the key in an authorization request (dpop_jkt). Yandex
// Cloud computes it with SHA-512, others with SHA-256.
func ExampleProver_Thumbprint() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	prover, err := dpop.New(key)
	if err != nil {
		log.Fatal(err)
	}
	for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA512} {
		jkt, err := prover.Thumbprint(hash)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(hash, "gives", len(jkt), "characters")
	}
	// Output:
	// SHA-256 gives 43 characters
	// SHA-512 gives 86 characters
}

// The first run of a program makes its key, the later ones find it.
func ExampleLoadOrGenerateKeyFile() {
	dir, err := os.MkdirTemp("", "dpop")
	if err != nil {
		log.Fatal(err)
	}
	path := filepath.Join(dir, "key.pem")

	_, err = dpop.LoadKeyFile(path)
	fmt.Println("there is no key yet:", errors.Is(err, fs.ErrNotExist))

	var thumbprints []string
	for range 2 {
		key, err := dpop.LoadOrGenerateKeyFile(path)
		if err != nil {
			log.Fatal(err)
		}
		prover, err := dpop.New(key)
		if err != nil {
			log.Fatal(err)
		}
		jkt, err := prover.Thumbprint(crypto.SHA256)
		if err != nil {
			log.Fatal(err)
		}
		thumbprints = append(thumbprints, jkt)
	}
	fmt.Println("both runs have the same key:", thumbprints[0] == thumbprints[1])
	if err := os.RemoveAll(dir); err != nil {
		log.Fatal(err)
	}
	// Output:
	// there is no key yet: true
	// both runs have the same key: true
}

// A client calls an API with an access token that is bound to its key. The API
// wants a nonce, which costs one more request, once.
func ExampleTransport() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	prover, err := dpop.New(key)
	if err != nil {
		log.Fatal(err)
	}

	jkt, err := prover.Thumbprint(crypto.SHA256) // the cnf.jkt of the access token
	if err != nil {
		log.Fatal(err)
	}
	verifier := dpop.Verifier{CheckNonce: func(nonce string) bool { return nonce == "n-1" }}
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := verifier.VerifyRequest(r, dpop.Expected{URL: "http://" + r.Host + r.URL.Path, AccessToken: "an-access-token", Thumbprint: jkt})
		var bad *dpop.ProofError
		if errors.As(err, &bad) {
			fmt.Println("the API asks for a nonce:", errors.Is(err, dpop.ErrUseNonce))
			w.Header().Set(dpop.NonceHeader, "n-1")
			w.Header().Set("WWW-Authenticate", fmt.Sprintf("DPoP error=%q", bad.Code()))
			http.Error(w, "unauthorized", http.StatusUnauthorized)
			return
		}
		fmt.Fprintln(w, "hello")
	}))
	// oauth.Client.TokenSource gives tokens that renew themselves.
	source := oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "an-access-token", TokenType: "DPoP"})
	client := &http.Client{Transport: &dpop.Transport{Source: source, Prover: prover, Base: api.Client().Transport}}
	for range 2 {
		resp, err := client.Get(api.URL + "/greeting")
		if err != nil {
			log.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Print(resp.StatusCode, " ", string(body))
	}
	api.Close()
	// Output:
	// the API asks for a nonce: true
	// 200 hello
	// 200 hello
}

// A server checks the proof that came with a request, and that it did not come
// before.
func ExampleVerifier() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	prover, err := dpop.New(key)
	if err != nil {
		log.Fatal(err)
	}
	proof, err := prover.Proof(context.Background(), dpop.Claims{Method: http.MethodPost, URL: "https://auth.example.com/oauth/token"})
	if err != nil {
		log.Fatal(err)
	}

	var verifier dpop.Verifier
	want := dpop.Expected{Method: http.MethodPost, URL: "https://auth.example.com/oauth/token"}
	got, err := verifier.Verify(proof, want)
	if err != nil {
		log.Fatal(err)
	}
	jkt, err := prover.Thumbprint(crypto.SHA256)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("of the right key:", got.Thumbprint == jkt)

	_, err = verifier.Verify(proof, want)
	fmt.Println(err)
	fmt.Println("a replay:", errors.Is(err, dpop.ErrReplay))
	// Output:
	// of the right key: true
	// dpop: invalid proof: the same proof was sent before (jti)
	// a replay: true
}
