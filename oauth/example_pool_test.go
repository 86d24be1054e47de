package oauth_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"log"
	"sync"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

// A service that acts for many users. Their sessions are in memory here; package pgstore
// keeps them in PostgreSQL, where replicas share them. An embedded server stands in for
// Yandex Cloud.
func ExamplePool() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	iam, err := iamtest.New(iamtest.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer iam.Close()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader) // in a program: the same at each start
	if err != nil {
		log.Fatal(err)
	}
	prover, err := dpop.New(key)
	if err != nil {
		log.Fatal(err)
	}

	var stores sync.Map
	pool, err := oauth.NewPool(oauth.PoolConfig{
		Config: oauth.Config{
			Provider: iam.Provider(), // oauth.YandexCloud()
			ClientID: iam.ClientID,
			DPoP:     prover,
		},
		Open: func(user string) (oauth.Store, error) { // return set.Store(user), nil
			store, _ := stores.LoadOrStore(user, oauth.NewMemoryStore())
			return store.(oauth.Store), nil
		},
		Rate: 20, // of 60 requests per second that the server allows to 3 replicas
	})
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close() // no new refresh token is lost
	// go pool.KeepAlive(ctx, set)

	for _, user := range []string{"ann", "bob"} {
		err := pool.Do(ctx, user, func(c *oauth.Client) error {
			_, err := c.Login(ctx, oauth.LoginOptions{OpenURL: iam.OpenURL})
			return err
		})
		if err != nil {
			log.Fatal(err)
		}
	}

	// Anywhere in the program, at any time.
	resp, err := pool.HTTPClient("bob").Get(iam.URL + "/api/whoami")
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
	fmt.Println("the API answered", resp.StatusCode)
	_, err = pool.TokenSource("eve").TokenContext(ctx)
	fmt.Println(err)
	// Output:
	// the API answered 200
	// oauth: log in: there is no session
}
