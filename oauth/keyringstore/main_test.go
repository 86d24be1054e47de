package keyringstore

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
	"github.com/ycauth/ycauth-go/oauth/storetest"
)

// subject is a store whose key is in the real keyring, which every process opens
// for itself. A place is a directory for the sessions; all have one key.
var subject = storetest.Subject{
	Name: "filestore with a key in the keyring",
	Open: func(place string) (oauth.Store, error) {
		key, err := Key(context.Background(), "ycauth-go storetest", Options{LockDir: place + ".locks"})
		if err != nil {
			return nil, err
		}
		return filestore.New(place, "default", filestore.WithSeal(key))
	},
}

func session(generation uint64) oauth.Session {
	return oauth.Session{
		Provider: "auth.example", ClientID: "client", Generation: generation,
		RefreshToken: "rt1.SECRET", AccessToken: "t1.SECRET", TokenType: "Bearer",
		Expiry: time.Date(2026, 5, 17, 21, 30, 0, 0, time.UTC),
	}
}

func put(t *testing.T, s oauth.Store, next oauth.Session) {
	t.Helper()
	err := s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) { return next, nil })
	if err != nil {
		t.Fatal(err)
	}
}

func TestMain(m *testing.M) {
	storetest.Child(subject)
	os.Exit(withKeyring(m.Run))
}
