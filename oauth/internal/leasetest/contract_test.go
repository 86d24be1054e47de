package leasetest_test

import (
	"sync"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/internal/leasetest"
	"github.com/ycauth/ycauth-go/oauth/storetest"
)

const lease = 400 * time.Millisecond

func TestContract(t *testing.T) {
	leasetest.Contract(t, lease, func(*testing.T) (a, b oauth.LeaseStore) {
		s := leasetest.New(lease, time.Now, 0)
		return s.Replica(nil), s.Replica(nil)
	})
}

func TestStore(t *testing.T) {
	var places sync.Map
	storetest.Run(t, storetest.Subject{
		Name: "lease",
		Open: func(place string) (oauth.Store, error) {
			s, _ := places.LoadOrStore(place, leasetest.New(lease, time.Now, 0))
			return s.(*leasetest.Store).Replica(nil), nil
		},
		Unshared: true,
	})
}
