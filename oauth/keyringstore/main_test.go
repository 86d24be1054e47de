package keyringstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/storetest"
)

// subject is a store in the real keyring; subjectInParts is one that splits what
// it can. A place is a folder for the locks, and names the profile.
var (
	subject = storetest.Subject{
		Name:  "keyringstore",
		Open:  func(place string) (oauth.Store, error) { return openPlace(place, systemItem) },
		Kills: 8, // a keyring takes its time

		NewPlace: newPlace,
	}
	subjectInParts = storetest.Subject{
		Name:  "keyringstore in parts",
		Open:  func(place string) (oauth.Store, error) { return openPlace(place, smallItem) },
		Kills: 6,

		NewPlace: newPlace,
	}
)

// newPlace cleans up after its test: a keyring is slower the more it holds.
func newPlace(t *testing.T) string {
	t.Helper()
	place := filepath.Join(t.TempDir(), "locks")
	t.Cleanup(func() {
		s, err := openPlace(place, systemItem)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Discard(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return place
}

func openPlace(place string, limit int) (*Store, error) {
	sum := sha256.Sum256([]byte(place))
	it := items{ring: system{}, limit: limit, service: "ycauth-go storetest", profile: hex.EncodeToString(sum[:8])}
	return newStore(it, Options{LockDir: place}, systemPlaces)
}

func TestMain(m *testing.M) {
	storetest.Child(subject, subjectInParts)
	os.Exit(withKeyring(m.Run))
}
