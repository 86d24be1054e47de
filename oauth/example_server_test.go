package oauth_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/ycauth/ycauth-go/oauth"
)

// An authorization server that publishes its metadata is described by its issuer.
func ExampleDiscover() {
	as := httptest.NewServer(http.HandlerFunc(exampleServer))
	defer as.Close()

	provider, err := oauth.Discover(context.Background(), as.URL, nil) // https://sso.example.com/realms/main
	if err != nil {
		log.Fatal(err)
	}
	_, err = oauth.New(oauth.Config{Provider: provider, ClientID: "backup"})
	fmt.Println(provider.Scopes, provider.TokenURL == as.URL+"/token", err)
	// Output: [openid offline_access] true <nil>
}

// A program on a host without a browser: the user opens an address on any device, and
// enters a code there.
func ExampleLoginOptions_device() {
	as := httptest.NewServer(http.HandlerFunc(exampleServer))
	defer as.Close()
	ctx := context.Background()
	provider, err := oauth.Discover(ctx, as.URL, nil)
	if err != nil {
		log.Fatal(err)
	}
	client, err := oauth.New(oauth.Config{Provider: provider, ClientID: "backup"})
	if err != nil {
		log.Fatal(err)
	}
	defer client.TokenSource().Close()

	session, err := client.Login(ctx, oauth.LoginOptions{Device: true, Out: os.Stdout})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("logged in:", session.RefreshToken != "")
	// Output:
	// Open this address in a browser on any device and enter the code WDJB-MJHT:
	//
	// https://sso.example.com/device
	//
	// logged in: true
}

// A confidential client proves its identity with a key in place of a secret
// (private_key_jwt). The server has the public key from the client's registration.
func ExampleNewClientKey() {
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader) // in a program: dpop.LoadKeyFile, or a KMS
	if err != nil {
		log.Fatal(err)
	}
	key, err := oauth.NewClientKey(signer, "key-1")
	if err != nil {
		log.Fatal(err)
	}
	as := httptest.NewServer(http.HandlerFunc(exampleServer))
	defer as.Close()
	ctx := context.Background()
	provider, err := oauth.Discover(ctx, as.URL, nil)
	if err != nil {
		log.Fatal(err)
	}
	provider.AuthMethod = oauth.AuthPrivateKeyJWT
	client, err := oauth.New(oauth.Config{Provider: provider, ClientID: "backup", ClientKey: key})
	if err != nil {
		log.Fatal(err)
	}
	defer client.TokenSource().Close()
	if err := client.Import(ctx, "refresh-token"); err != nil {
		log.Fatal(err)
	}
	tok, err := client.TokenSource().Token() // the request has a new assertion, signed with the key
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(tok.AccessToken)
	// Output:
	// the client sent an assertion
	// access-token
}

// exampleServer is an authorization server for one user, who agrees at once.
func exampleServer(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	switch issuer := "http://" + r.Host; r.URL.Path {
	case "/.well-known/oauth-authorization-server":
		fmt.Fprintf(w, `{"issuer":%q,"token_endpoint":%q,"authorization_endpoint":%q,"device_authorization_endpoint":%q,
			"scopes_supported":["openid","profile","offline_access"]}`,
			issuer, issuer+"/token", issuer+"/authorize", issuer+"/device")
	case "/device":
		fmt.Fprint(w, `{"device_code":"device-code","user_code":"WDJB-MJHT","verification_uri":"https://sso.example.com/device",
			"expires_in":600,"interval":1}`)
	case "/token":
		if r.FormValue("client_assertion") != "" {
			fmt.Println("the client sent an assertion")
		}
		fmt.Fprint(w, `{"access_token":"access-token","token_type":"Bearer","expires_in":3600,"refresh_token":"refresh-token"}`)
	default:
		http.NotFound(w, r)
	}
}
