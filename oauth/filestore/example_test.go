package filestore_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
)

// A program that keeps its session on disk, and picks it up at the next start.
func Example() {
	home, err := os.MkdirTemp("", "") // in a program: filestore.DefaultDir("app")
	if err != nil {
		log.Fatal(err)
	}
	dir := filepath.Join(home, "sessions")

	for range 2 {
		store, err := filestore.New(dir, "default")
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
		switch {
		case errors.Is(err, oauth.ErrNoSession):
			fmt.Println("no session yet")
			if err := client.Import(context.Background(), "rt1.from-elsewhere"); err != nil {
				log.Fatal(err)
			}
		case err != nil:
			log.Fatal(err)
		default:
			fmt.Println("session of", session.ClientID)
		}
	}
	_ = os.RemoveAll(home)
	// Output:
	// no session yet
	// session of yc.oauth.public-sdk
}

// The ways out of a file that cannot be used.
func ExampleStore_Discard() {
	home, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	store, err := filestore.New(home, "default")
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(store.Path(), []byte("{"), 0o600); err != nil {
		log.Fatal(err)
	}

	_, err = store.Load(context.Background())
	switch {
	case errors.Is(err, oauth.ErrSessionFormat):
		fmt.Println("no session that this release can read; discarding it")
		if err := store.Discard(context.Background()); err != nil {
			log.Fatal(err)
		}
	case errors.Is(err, filestore.ErrInsecure):
		fmt.Println(err) // says which chmod helps
	}
	_, err = store.Load(context.Background())
	fmt.Println(err)
	_ = os.RemoveAll(home)
	// Output:
	// no session that this release can read; discarding it
	// oauth: no session
}

// A command that lists profiles.
func ExampleProfiles() {
	home, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	for _, profile := range []string{"work", "home"} {
		store, err := filestore.New(home, profile)
		if err != nil {
			log.Fatal(err)
		}
		err = store.Update(context.Background(), func(oauth.Session) (oauth.Session, error) {
			return oauth.Session{Provider: "auth.example", ClientID: "app", RefreshToken: "rt1.x", Generation: 1}, nil
		})
		if err != nil {
			log.Fatal(err)
		}
	}

	profiles, err := filestore.Profiles(home)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(profiles)
	_ = os.RemoveAll(home)
	// Output: [home work]
}
