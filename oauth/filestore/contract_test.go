package filestore_test

import (
	"os"
	"testing"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
	"github.com/ycauth/ycauth-go/oauth/storetest"
)

var subject = storetest.Subject{
	Name: "filestore",
	Open: func(place string) (oauth.Store, error) { return filestore.New(place, "default") },
}

var sealed = storetest.Subject{
	Name: "sealed filestore",
	Open: func(place string) (oauth.Store, error) {
		return filestore.New(place, "default", filestore.WithSeal(aead(1)))
	},
}

func TestMain(m *testing.M) {
	storetest.Child(subject, sealed)
	os.Exit(m.Run())
}

func TestContract(t *testing.T) { storetest.Run(t, subject) }

func TestContractSealed(t *testing.T) { storetest.Run(t, sealed) }
