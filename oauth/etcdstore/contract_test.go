//go:build unix

package etcdstore

import (
	"context"
	"encoding/json"
	"syscall"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/internal/leasetest"
	"github.com/ycauth/ycauth-go/oauth/storetest"
)

// subject has a server of its own, which some checks stop.
var subject = storetest.Subject{
	Name:  "etcdstore",
	Open:  openPlace,
	Hold:  4 * time.Second,
	Kills: 2,
}

func TestContract(t *testing.T) {
	t.Parallel()
	c := ownServer(t, 1)
	here := subject
	here.NewPlace = func(t *testing.T) string {
		t.Helper()
		text, err := json.Marshal(place{c.Endpoints(), newPrefix(), "user 1"})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	here.Break = func(t *testing.T, _ string) (mend func()) {
		t.Helper()
		// A server that is not there is tried for as long as it may come back, so it
		// has to be one that rejects.
		client := clientOf(t, c)
		run := func(_ any, err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		ctx := context.Background()
		run(client.RoleAdd(ctx, "root"))
		run(client.UserAdd(ctx, "root", "x"))
		run(client.UserGrantRole(ctx, "root", "root"))
		run(client.AuthEnable(ctx))
		return func() {
			admin, err := newUser(c.Endpoints(), "root", "x")
			if err != nil {
				t.Fatal(err)
			}
			defer admin.Close()
			run(admin.AuthDisable(ctx))
			run(client.UserDelete(ctx, "root"))
			run(client.RoleDelete(ctx, "root"))
		}
	}
	here.PowerLoss = func(t *testing.T, place string) (cut func() string) {
		t.Helper()
		return func() string {
			c.Members[0].Stop(syscall.SIGKILL)
			if err := c.Members[0].Start(); err != nil {
				t.Fatal(err)
			}
			if err := c.Ready(); err != nil {
				t.Fatal(err)
			}
			return place
		}
	}
	storetest.Run(t, here)
}

// What all stores whose lock is a lease must do.
func TestLeaseContract(t *testing.T) {
	t.Parallel()
	c := theServer(t)
	leasetest.Contract(t, shortLease, func(t *testing.T) (a, b oauth.LeaseStore) {
		prefix := newPrefix()
		first, _ := newSet(t, c, Options{Prefix: prefix, Lease: shortLease})
		second, _ := newSet(t, c, Options{Prefix: prefix, Lease: shortLease})
		return first.Store("k"), second.Store("k")
	})
}
