//go:build unix

package etcdstore_test

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/etcdstore"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

// The example runs where there is a cluster.
func TestExample(t *testing.T) {
	t.Setenv("ETCD_ENDPOINTS", strings.Join(etcdstore.Endpoints(t), ","))
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout := os.Stdout
	os.Stdout = w
	Example()
	os.Stdout = stdout
	w.Close()
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	want := "bob has a token: true\nann: generation 1, sealed with key 1\nbob: generation 1, sealed with key 1\n"
	if string(got) != want {
		t.Errorf("it printed\n%s, want\n%s", got, want)
	}
}

// Replicas renew the sessions of several users at the same time, at a server that ends a
// session when a refresh token is used twice.
func TestFleet(t *testing.T) {
	endpoints := etcdstore.Endpoints(t)
	iam, err := iamtest.New(iamtest.Options{Rotation: iamtest.RotateAlways, Nonces: iamtest.NoncesRequired})
	if err != nil {
		t.Fatal(err)
	}
	defer iam.Close()
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	key, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	prover, err := dpop.New(signer())
	if err != nil {
		t.Fatal(err)
	}
	const replicas, users = 4, 5
	var clients [replicas][users]*oauth.Client
	for r := range replicas {
		etcd, err := clientv3.New(clientv3.Config{Endpoints: endpoints})
		if err != nil {
			t.Fatal(err)
		}
		defer etcd.Close()
		set, err := etcdstore.New(etcd, etcdstore.Options{Prefix: "fleet", Keys: etcdstore.Keys{ByVersion: map[uint32]cipher.AEAD{1: key}}})
		if err != nil {
			t.Fatal(err)
		}
		for u := range users {
			config := iam.OAuthConfig(prover)
			config.Store = set.Store(fmt.Sprint("user ", u))
			if clients[r][u], err = oauth.New(config); err != nil {
				t.Fatal(err)
			}
			defer clients[r][u].TokenSource().Close()
		}
	}
	for u := range users {
		if _, err := clients[0][u].Login(t.Context(), oauth.LoginOptions{OpenURL: iam.OpenURL}); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	errs := make([]error, replicas*users)
	for r := range replicas {
		for u := range users {
			wg.Go(func() {
				for range 3 {
					_, err := clients[r][u].TokenSource().Renew(t.Context())
					errs[r*users+u] = errors.Join(errs[r*users+u], err)
				}
			})
		}
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	renewals := iam.Count(iamtest.EndpointToken, "refresh_token")
	t.Logf("%d token requests for %d calls", renewals, replicas*users*3)
	if renewals < users || iam.LiveGrants() != users {
		t.Errorf("%d token requests, %d of %d sessions are alive", renewals, iam.LiveGrants(), users)
	}
	for u := range users {
		stored, err := clients[1][u].Session(t.Context())
		if err != nil {
			t.Error(err)
			continue
		}
		if info := iam.Introspect(stored.RefreshToken.Reveal()); info.State != iamtest.TokenCurrent {
			t.Errorf("the refresh token of user %d that is stored is not the server's: %+v", u, info)
		}
	}
}
