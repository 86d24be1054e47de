package oauth_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

// A program that acts for a user: log in once, then call APIs with tokens that are
// renewed automatically. An embedded server stands in for Yandex Cloud.
func Example() {
	ctx := context.Background()
	iam, err := iamtest.New(iamtest.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer iam.Close()
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	// The session, and the key that its tokens are bound to.
	store, prover, err := filestore.Open(dir, "default") // in a program: its name instead of dir
	if err != nil {
		log.Fatal(err)
	}
	client, err := oauth.New(oauth.Config{
		Provider: iam.Provider(), // oauth.YandexCloud()
		ClientID: oauth.YandexCloudClientID,
		Store:    store,
		DPoP:     prover,
	})
	if err != nil {
		log.Fatal(err)
	}
	session, err := client.Login(ctx, oauth.LoginOptions{OpenURL: iam.OpenURL, Out: os.Stdout})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("granted:", session.Scopes)

	defer client.TokenSource().Close() // no rotation in flight is lost
	api := client.HTTPClient()
	resp, err := api.Get(iam.URL + "/api/whoami")
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
	fmt.Println("the API answered", resp.StatusCode)
	// Output:
	// granted: [openid offline_access]
	// the API answered 200
}

// A refresh token that was obtained elsewhere, and what to do when it does not
// work any more.
func ExampleClient_Import() {
	ctx := context.Background()
	iam, err := iamtest.New(iamtest.Options{AllowUnbound: true})
	if err != nil {
		log.Fatal(err)
	}
	defer iam.Close()
	client, err := oauth.New(oauth.Config{Provider: iam.Provider(), ClientID: iam.ClientID})
	if err != nil {
		log.Fatal(err)
	}
	if err := client.Import(ctx, "rt1.copied-from-somewhere"); err != nil {
		log.Fatal(err)
	}
	_, err = client.TokenSource().TokenContext(ctx)
	var login *oauth.LoginRequiredError
	if errors.As(err, &login) {
		fmt.Println("log in again:", login.Reason)
	}
	// Output: log in again: rejected
}

// Counting renewals by outcome, and knowing how long the token still lasts.
func ExampleConfig_observer() {
	iam, err := iamtest.New(iamtest.Options{AllowUnbound: true})
	if err != nil {
		log.Fatal(err)
	}
	defer iam.Close()
	renewals := map[string]int{} // a counter with the label "outcome"
	client, err := oauth.New(oauth.Config{
		Provider: iam.Provider(),
		ClientID: iam.ClientID,
		Observer: func(e oauth.Event) {
			switch e.Kind {
			case oauth.EventRenewed, oauth.EventAdopted:
				renewals[string(e.Kind)]++
			case oauth.EventRenewFailed:
				renewals[e.ErrorKind()]++
			}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	_, err = client.TokenSource().Token()
	fmt.Println(errors.Is(err, oauth.ErrNoSession), renewals)
	// Output: true map[login_required:1]
}

// Yandex OAuth (Yandex ID), for applications that are registered there: the
// client authenticates with HTTP Basic, and no key is involved.
func ExampleYandexID() {
	client, err := oauth.New(oauth.Config{
		Provider:     oauth.YandexID(),
		ClientID:     "4760187d81bc4b7799476b42b5103713",
		ClientSecret: oauth.Secret(os.Getenv("YANDEX_CLIENT_SECRET") + "…"),
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(client.TokenSource().RequireTransportSecurity())
	// Output: true
}

// Any server that speaks RFC 6749 can be described.
func ExampleProvider() {
	_, err := oauth.New(oauth.Config{
		Provider: oauth.Provider{
			Name:       "keycloak",
			AuthURL:    "https://sso.example.com/realms/main/protocol/openid-connect/auth",
			TokenURL:   "http://sso.example.com/realms/main/protocol/openid-connect/token",
			AuthMethod: oauth.AuthClientSecretBasic,
			Scopes:     []string{"openid", "offline_access"},
		},
		ClientID: "backup",
	})
	fmt.Println(err)
	// Output:
	// oauth: Config.Provider.TokenURL uses http to sso.example.com: only https keeps tokens secret (http is accepted for loopback addresses)
	// oauth: Config.ClientSecret is empty, but Provider.AuthMethod client_secret_basic needs one
}

// A short-lived program renews in the foreground, and does not exit while a new
// refresh token is on its way to the store.
func ExampleTokenSource_Close() {
	iam, err := iamtest.New(iamtest.Options{AllowUnbound: true})
	if err != nil {
		log.Fatal(err)
	}
	defer iam.Close()
	client, err := oauth.New(oauth.Config{Provider: iam.Provider(), ClientID: iam.ClientID, Synchronous: true})
	if err != nil {
		log.Fatal(err)
	}
	if err := client.TokenSource().Close(); err != nil {
		fmt.Println("not saved:", err)
	}
	fmt.Println("nothing was lost")
	// Output: nothing was lost
}
