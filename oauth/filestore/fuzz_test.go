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

// FuzzLeft reads next files of any content: they are a newer session, or nothing.
func FuzzLeft(f *testing.F) {
	for g := range uint64(3) {
		good, err := session(g + 1).Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(good)
	}
	f.Add([]byte("ycauth-go sealed session, version 1, generation 3\n123456789012345678901234567890"))
	f.Add([]byte("ycauth-go sealed session, version 2, generation 3\n123456789012345678901234567890"))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		s := in(t, filepath.Join(t.TempDir(), "sessions"))
		put(t, s, session(2))
		if err := os.WriteFile(next(s), content, 0o600); err != nil {
			t.Fatal(err)
		}
		var found oauth.Session
		err := s.Update(t.Context(), func(current oauth.Session) (oauth.Session, error) {
			found = current
			return current, nil
		})
		newer, errDecode := oauth.DecodeSession(content)
		switch {
		case errors.Is(err, filestore.ErrSealed), errors.Is(err, oauth.ErrSessionFormat) && errDecode != nil:
			if now, err := os.ReadFile(next(s)); err != nil || !bytes.Equal(now, content) {
				t.Errorf("the session was changed (%v)", err)
			}
		case err != nil:
			t.Error(err)
		case found.Generation > 2 && (errDecode != nil || newer.Generation != found.Generation):
			t.Errorf("generation %d came from something that says %d, %v", found.Generation, newer.Generation, errDecode)
		case found.Generation < 2, found.Generation == 2 && found.RefreshToken != secret:
			t.Error("the session was lost")
		}
		if got, err := s.Load(t.Context()); err != nil || found.Generation != 0 && got.Generation != found.Generation {
			t.Errorf("Load finds generation %d, %v, and Update %d", got.Generation, err, found.Generation)
		}
	})
}

// FuzzSealed reads what looks like a sealed file: it is a session, or left alone.
func FuzzSealed(f *testing.F) {
	f.Add([]byte("1\n123456789012345678901234567890"))
	f.Add([]byte("18446744073709551616\n"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, rest []byte) {
		s := in(t, filepath.Join(t.TempDir(), "sessions"), filestore.WithSeal(aead(1)))
		put(t, s, session(1))
		content := append([]byte("ycauth-go sealed session, version 1, generation "), rest...)
		for _, content := range [][]byte{content, forged(content)} {
			if err := os.WriteFile(s.Path(), content, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Load(t.Context()); !errors.Is(err, oauth.ErrSessionFormat) {
				t.Errorf("got %v: nobody has sealed this", err)
			}
		}
	})
}
