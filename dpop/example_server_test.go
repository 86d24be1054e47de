package dpop_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"golang.org/x/oauth2"

	"github.com/ycauth/ycauth-go/dpop"
)

// An API accepts access tokens that are bound to keys, and demands nonces. All of its
// replicas have the same key for nonces.
func ExampleResourceServer() {
	nonceKey := make([]byte, 32) // from the program's secrets
	nonces, err := dpop.NewNonceIssuer(time.Minute, nonceKey)
	if err != nil {
		log.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
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

	mux := http.NewServeMux()
	api := httptest.NewServer(mux)
	server := &dpop.ResourceServer{
		BaseURL: api.URL, // behind a proxy: the URL that clients use
		Nonces:  nonces,
		// A real server verifies a JWT here, or asks the authorization server.
		Lookup: func(_ context.Context, token string) (dpop.TokenInfo, error) {
			if token != "an-access-token" {
				return dpop.TokenInfo{}, dpop.ErrInvalidToken
			}
			return dpop.TokenInfo{Thumbprint: jkt, Value: "alice"}, nil
		},
		Observe: func(_ context.Context, o dpop.Outcome) {
			fmt.Printf("observed: status %d, code %q\n", o.Status, o.Code)
		},
	}
	mux.Handle("GET /hello", server.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "hello", dpop.TokenInfoFromContext(r.Context()).Value)
	})))

	client := &http.Client{Transport: &dpop.Transport{
		Source: oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "an-access-token", TokenType: "DPoP"}),
		Prover: prover,
		Base:   api.Client().Transport,
	}}
	resp, err := client.Get(api.URL + "/hello")
	if err != nil {
		log.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(string(body))
	api.Close()
	// Output:
	// observed: status 401, code "use_dpop_nonce"
	// observed: status 0, code ""
	// hello alice
}
