package storetest_test

import (
	"os"
	"testing"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
	"github.com/ycauth/ycauth-go/oauth/storetest"
)

// A store that processes share needs TestMain, for the processes.
func Example() {
	subject := storetest.Subject{
		Name: "filestore",
		Open: func(place string) (oauth.Store, error) { return filestore.New(place, "default") },
	}

	TestMain := func(m *testing.M) {
		storetest.Child(subject)
		os.Exit(m.Run())
	}
	TestContract := func(t *testing.T) { storetest.Run(t, subject) } //nolint:thelper // it is a test

	_, _ = TestMain, TestContract
}

// A store whose session is seen by nobody else passes what makes sense for it.
func ExampleSubject_unshared() {
	TestContract := func(t *testing.T) { //nolint:thelper // it is a test
		storetest.Run(t, storetest.Subject{
			Name:     "memory",
			Open:     func(string) (oauth.Store, error) { return oauth.NewMemoryStore(), nil },
			Unshared: true,
		})
	}

	_ = TestContract
}
