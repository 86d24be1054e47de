//go:build unix

package pgstore

import (
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/internal/leasetest"
)

// What all stores whose lock is a lease must do.
func TestLeaseContract(t *testing.T) {
	bothWays(t, func(t *testing.T, url string) {
		const length = 500 * time.Millisecond
		leasetest.Contract(t, length, func(t *testing.T) (a, b oauth.LeaseStore) {
			table := newTable()
			first, _ := newSet(t, url, Options{Table: table, Lease: length})
			second, _ := newSet(t, url, Options{Table: table, Lease: length})
			return first.Store("k"), second.Store("k")
		})
	})
}
