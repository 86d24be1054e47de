package oauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
	"github.com/ycauth/ycauth-go/refreshtoken"
)

// A command that logs its user in. The embedded IAM and the browser that it brings
// replace Yandex Cloud and the user's browser.
func ExampleClient_Login() {
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
	defer client.TokenSource().Close()

	session, err := client.Login(ctx, oauth.LoginOptions{
		OpenURL: iam.OpenURL, // a function that opens the user's browser
		Out:     os.Stdout,   // says what to do if that fails
	})
	var denied *oauth.AuthorizationError
	switch {
	case errors.As(err, &denied):
		fmt.Println("the server said no:", denied.Code)
	case err != nil:
		log.Fatal(err)
	case session.Warning != "":
		fmt.Println(session.Warning) // no refresh token: this login lasts hours
	}
	fmt.Println("logged in; bound to a key:", session.KeyThumbprint != "")
	// Output: logged in; bound to a key: true
}

// A command that ends the session: at the server, through the RefreshToken API, and
// then on this computer.
func ExampleClient_Logout() {
	ctx := context.Background()
	iam, err := iamtest.New(iamtest.Options{AllowUnbound: true})
	if err != nil {
		log.Fatal(err)
	}
	defer iam.Close()
	var client *oauth.Client
	client, err = oauth.New(oauth.Config{
		Provider: iam.Provider(),
		ClientID: iam.ClientID,
		Revoke: func(ctx context.Context, s oauth.Session) error {
			tokens := refreshtoken.NewClient(client.HTTPClient(),
				refreshtoken.WithEndpoint(iam.IAMEndpoint()), refreshtoken.WithOperationEndpoint(iam.OperationEndpoint()))
			op, err := tokens.Revoke(ctx, refreshtoken.ByToken(s.RefreshToken.Reveal()))
			if err != nil {
				return err
			}
			_, err = op.Wait(ctx)
			return err
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	session, err := client.Login(ctx, oauth.LoginOptions{OpenURL: iam.OpenURL})
	if err != nil {
		log.Fatal(err)
	}

	if err := client.Logout(ctx); err != nil {
		log.Fatal(err) // the session is kept: Logout can be called again
	}
	_, err = client.Session(ctx)
	fmt.Println("no session here:", errors.Is(err, oauth.ErrNoSession))
	fmt.Println("at the server:", iam.Introspect(session.RefreshToken.Reveal()).State)
	// Output:
	// no session here: true
	// at the server: revoked
}

// A service that calls an API for weeks: renewals happen behind its requests. Close
// waits for one that is in progress, because its refresh token may be the only one
// that still works.
func ExampleClient_HTTPClient() {
	iam, err := iamtest.New(iamtest.Options{AllowUnbound: true})
	if err != nil {
		log.Fatal(err)
	}
	defer iam.Close()
	client, err := oauth.New(oauth.Config{Provider: iam.Provider(), ClientID: iam.ClientID})
	if err != nil {
		log.Fatal(err)
	}
	defer client.TokenSource().Close()
	if _, err := client.Login(context.Background(), oauth.LoginOptions{OpenURL: iam.OpenURL}); err != nil {
		log.Fatal(err)
	}

	api := client.HTTPClient() // adds the token, and renews it in time
	for range 3 {
		resp, err := api.Get(iam.URL + "/api/whoami")
		if errors.Is(err, oauth.ErrLoginRequired) {
			log.Fatal("log in again: ", err)
		}
		if err != nil {
			log.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		fmt.Println(resp.Status)
		iam.Advance(24 * time.Hour) // IAM tokens live 12 hours
	}
	// Output:
	// 200 OK
	// 200 OK
	// 200 OK
}
