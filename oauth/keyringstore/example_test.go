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

// A program that prefers the keyring, and keeps its session in a file where
// there is none.
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
	keyring, err := keyringstore.New(app, profile, keyringstore.Options{})
	if err != nil {
		return nil, err
	}
	_, err = keyring.Load(ctx)
	if !errors.Is(err, keyringstore.ErrUnavailable) && !errors.Is(err, keyringstore.ErrLocked) {
		return keyring, nil // any other error shows again when the store is used
	}
	dir, err := filestore.DefaultDir(app)
	if err != nil {
		return nil, err
	}
	return filestore.New(dir, profile)
}
