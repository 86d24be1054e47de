package keyringstore_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
	"github.com/ycauth/ycauth-go/oauth/keyringstore"
)

// A program that seals its session with a key in the keyring, and keeps it in the
// clear where there is no keyring.
func Example() {
	store, err := openStore(context.Background(), "app", "default")
	if err != nil {
		log.Fatal(err)
	}
	client, err := oauth.New(oauth.Config{
		Provider: oauth.YandexCloud(),
		ClientID: oauth.YandexCloudClientID,
		Store:    store,
	})
	if err != nil {
		log.Fatal(err)
	}
	session, err := client.Session(context.Background())
	if errors.Is(err, oauth.ErrNoSession) {
		fmt.Println("log in first")
		return
	}
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("logged in since", session.Created)
}

func openStore(ctx context.Context, app, profile string) (oauth.Store, error) {
	dir, err := filestore.DefaultDir(app)
	if err != nil {
		return nil, err
	}
	key, err := keyringstore.Key(ctx, app, keyringstore.Options{})
	switch {
	case errors.Is(err, keyringstore.ErrUnavailable), errors.Is(err, keyringstore.ErrLocked):
		return filestore.New(dir, profile) // a session that was sealed before gives filestore.ErrSealed
	case err != nil:
		return nil, err
	}
	return filestore.New(dir, profile, filestore.WithSeal(key))
}
