package etcdstore_test

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/etcdstore"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

// A service that acts for several users. Each of its replicas runs this code, and they
// share the sessions. An embedded server stands in for Yandex Cloud.
func Example() {
	ctx := context.Background()
	iam, err := iamtest.New(iamtest.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer iam.Close()

	etcd, err := clientv3.New(clientv3.Config{
		Endpoints: strings.Split(os.Getenv("ETCD_ENDPOINTS"), ","),
		// A member that does not respond any more is left after this time.
		DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 3 * time.Second,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer etcd.Close()
	set, err := etcdstore.New(etcd, etcdstore.Options{Prefix: "my-service/sessions/", Keys: keys()})
	if err != nil {
		log.Fatal(err)
	}

	signer := signer()
	for _, user := range []string{"ann", "bob"} {
		client, err := clientOf(iam, set, signer, user)
		if err != nil {
			log.Fatal(err)
		}
		if _, err := client.Login(ctx, oauth.LoginOptions{OpenURL: iam.OpenURL}); err != nil {
			log.Fatal(err)
		}
	}

	// Another replica, or the same one later.
	client, err := clientOf(iam, set, signer, "bob")
	if err != nil {
		log.Fatal(err)
	}
	source := client.TokenSource()
	defer source.Close()
	token, err := source.Token()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("bob has a token:", token.Valid())

	for entry, err := range set.List(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: generation %d, sealed with key %d\n", entry.Key, entry.Generation, entry.KeyVersion)
	}
	// With a cluster:
	// bob has a token: true
	// ann: generation 1, sealed with key 1
	// bob: generation 1, sealed with key 1
}

func clientOf(iam *iamtest.Server, set *etcdstore.Set, signer *ecdsa.PrivateKey, user string) (*oauth.Client, error) {
	prover, err := dpop.New(signer)
	if err != nil {
		return nil, err
	}
	config := iam.OAuthConfig(prover)
	config.Store = set.Store(user)
	return oauth.New(config)
}

// keys come from where the service keeps its secrets.
func keys() etcdstore.Keys {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	block, err := aes.NewCipher(secret)
	if err != nil {
		log.Fatal(err)
	}
	key, err := cipher.NewGCM(block)
	if err != nil {
		log.Fatal(err)
	}
	return etcdstore.Keys{ByVersion: map[uint32]cipher.AEAD{1: key}}
}

// signer is the key that the tokens are bound to, in all replicas.
func signer() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	return key
}
