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

func TestMain(m *testing.M) {
	storetest.Child(subject)
	os.Exit(m.Run())
}

func TestContract(t *testing.T) { storetest.Run(t, subject) }
