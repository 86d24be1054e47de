package filestore_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
)

// FuzzFile reads files of any content: it is a session, or it is left alone.
func FuzzFile(f *testing.F) {
	good, err := session(1).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := filepath.Join(t.TempDir(), "sessions")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		s, err := filestore.New(dir, "default")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.Path(), content, 0o600); err != nil {
			t.Fatal(err)
		}
		loaded, loadErr := s.Load(t.Context())
		called := false
		updateErr := s.Update(t.Context(), func(current oauth.Session) (oauth.Session, error) {
			called = true
			return current, nil
		})
		switch {
		case loadErr == nil && updateErr == nil && called && !loaded.IsZero():
		case errors.Is(loadErr, oauth.ErrSessionFormat) && errors.Is(updateErr, oauth.ErrSessionFormat) && !called:
		default:
			t.Errorf("Load: %v; Update: %v, fn called: %v", loadErr, updateErr, called)
		}
		if now, err := os.ReadFile(s.Path()); err != nil || !bytes.Equal(now, content) {
			t.Errorf("the file was changed (%v)", err)
		}
	})
}
