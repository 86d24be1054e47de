package storetest_test

import (
	"testing"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/storetest"
)

func TestMemoryStore(t *testing.T) {
	storetest.Run(t, storetest.Subject{
		Name:     "memory",
		Open:     func(string) (oauth.Store, error) { return oauth.NewMemoryStore(), nil },
		Unshared: true,
	})
}
