//go:build unix

package pgstore_test

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/iamtest"
	"github.com/ycauth/ycauth-go/oauth/pgstore"
)

// Three replicas renew what is due: each session once.
func TestPoolKeepAlive(t *testing.T) {
	url, _ := pgstore.Addresses(t)
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
	const replicas, users = 3, 30
	var pools [replicas]*oauth.Pool
	var sets [replicas]*pgstore.Set
	for i := range pools {
		db, err := pgxpool.New(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		sets[i], err = pgstore.New(db, pgstore.Options{
			Table: "kept alive", Keys: pgstore.Keys{ByVersion: map[uint32]cipher.AEAD{1: key}},
			RenewAt: func(s oauth.Session) time.Time {
				if s.Generation == 1 {
					return s.Created // due since the login
				}
				return time.Time{}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := sets[i].Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		pools[i], err = oauth.NewPool(oauth.PoolConfig{
			Config:     iam.OAuthConfig(prover),
			Open:       func(user string) (oauth.Store, error) { return sets[i].Store(user), nil },
			Rate:       200,
			Concurrent: 8,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for u := range users {
		err := pools[0].Do(t.Context(), fmt.Sprint("user ", u), func(c *oauth.Client) error {
			_, err := c.Login(t.Context(), oauth.LoginOptions{OpenURL: iam.OpenURL})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	iam.ResetRequests()
	ctx, cancel := context.WithCancel(t.Context())
	var sweeps sync.WaitGroup
	for i, p := range pools {
		sweeps.Go(func() {
			if err := p.KeepAlive(ctx, sets[i]); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	renewed := func() (n int) {
		for e, err := range sets[0].List(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Generation == 2 {
				n++
			}
			if e.Generation > 2 {
				t.Errorf("%s was renewed more than once", e.Key)
			}
		}
		return n
	}
	for end := time.Now().Add(time.Minute); renewed() < users; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d of %d sessions were renewed", renewed(), users)
		}
	}
	cancel()
	sweeps.Wait()
	// A replica that has not logged anybody in learns the nonce first.
	if n := iam.Count(iamtest.EndpointToken); n < users || n > users+replicas {
		t.Errorf("%d token requests for %d sessions", n, users)
	}
	for i, p := range pools {
		if _, err := p.TokenSource(fmt.Sprint("user ", i)).Token(); err != nil {
			t.Error(err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}
