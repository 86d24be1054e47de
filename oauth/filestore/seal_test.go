package filestore_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
)

// aead is a key like that of package keyringstore.
func aead(n byte) cipher.AEAD {
	block, err := aes.NewCipher(bytes.Repeat([]byte{n}, 32))
	if err != nil {
		panic(err)
	}
	key, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return key
}

// withNonces is the same key, with nonces that the caller draws.
func withNonces(n byte) cipher.AEAD {
	block, err := aes.NewCipher(bytes.Repeat([]byte{n}, 32))
	if err != nil {
		panic(err)
	}
	key, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return key
}

func TestSealed(t *testing.T) {
	for name, key := range map[string]cipher.AEAD{"random nonces": aead(1), "our nonces": withNonces(1)} {
		t.Run(name, func(t *testing.T) {
			s := in(t, filepath.Join(t.TempDir(), "sessions"), filestore.WithSeal(key))
			seen := map[string]bool{}
			for range 3 {
				for g := range uint64(2) {
					put(t, s, session(g+1))
					data, err := os.ReadFile(s.Path())
					if err != nil {
						t.Fatal(err)
					}
					for _, clear := range []string{"SECRET", "refresh_token", "client"} {
						if bytes.Contains(data, []byte(clear)) {
							t.Errorf("the file holds %q in the clear", clear)
						}
					}
					_, sealed, _ := bytes.Cut(data, []byte("\n"))
					if seen[string(sealed[:12])] {
						t.Error("a nonce was used twice")
					}
					seen[string(sealed[:12])] = true
					if got, err := s.Load(t.Context()); err != nil || got.RefreshToken != secret || got.Generation != g+1 {
						t.Errorf("Load: generation %d, %v", got.Generation, err)
					}
				}
			}
			before, err := os.ReadFile(s.Path())
			if err != nil {
				t.Fatal(err)
			}
			put(t, s, session(2))
			if after, err := os.ReadFile(s.Path()); err != nil || !bytes.Equal(before, after) {
				t.Errorf("an unchanged session was written: %v", err)
			}
		})
	}
}

// A session that was stored in the clear is sealed by the next Update, which need
// not change it.
func TestPlainBecomesSealed(t *testing.T) {
	s := filled(t)
	dir := filepath.Dir(s.Path())
	sealed := in(t, dir, filestore.WithSeal(aead(1)))
	if got, err := sealed.Load(t.Context()); err != nil || got.Generation != 1 {
		t.Fatalf("a plain session: generation %d, %v", got.Generation, err)
	}
	refuse := errors.New("refused")
	err := sealed.Update(t.Context(), func(current oauth.Session) (oauth.Session, error) { return current, refuse })
	if !errors.Is(err, refuse) {
		t.Fatal(err)
	}
	put(t, sealed, session(1))
	refused(t, s, s.Path(), filestore.ErrSealed, "open the store with its key")
	if _, err := s.Load(t.Context()); !errors.Is(err, oauth.ErrSessionFormat) {
		t.Errorf("%v does not match ErrSessionFormat", err)
	}
	if got, err := sealed.Load(t.Context()); err != nil || got.Generation != 1 {
		t.Errorf("sealed: generation %d, %v", got.Generation, err)
	}
}

func TestSealBroken(t *testing.T) {
	key := filestore.WithSeal(aead(1))
	s := in(t, filepath.Join(t.TempDir(), "sessions"), key)
	put(t, s, session(1))
	one, err := os.ReadFile(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	line := bytes.IndexByte(one, '\n') + 1
	flip := func(i int) []byte {
		c := bytes.Clone(one)
		c[i] ^= 1
		return c
	}
	lost := "if the key is lost, call Store.Discard and log in again"
	for name, tc := range map[string]struct {
		content []byte
		cause   error
		remedy  string
	}{
		"nonce":              {flip(line), filestore.ErrSealKey, lost},
		"ciphertext":         {flip(line + 20), filestore.ErrSealKey, lost},
		"tag":                {flip(len(one) - 1), filestore.ErrSealKey, lost},
		"cut off":            {one[:len(one)-1], filestore.ErrSealKey, lost},
		"cut in the nonce":   {one[:line+3], filestore.ErrSealKey, lost},
		"another generation": {bytes.Replace(one, []byte("generation 1"), []byte("generation 2"), 1), filestore.ErrSealKey, lost},
		"another line":       {bytes.Replace(one, []byte("generation 1"), []byte("generation 01"), 1), oauth.ErrSessionFormat, "log in again"},
		"another version":    {bytes.Replace(one, []byte("version 1"), []byte("version 2"), 1), oauth.ErrSessionFormat, "if a newer release wrote it"},
		"no line":            {one[:line-1], oauth.ErrSessionFormat, "log in again"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(s.Path(), tc.content, 0o600); err != nil {
				t.Fatal(err)
			}
			refused(t, s, s.Path(), tc.cause, tc.remedy)
			if _, err := s.Load(t.Context()); !errors.Is(err, oauth.ErrSessionFormat) {
				t.Errorf("%v does not match ErrSessionFormat", err)
			}
			if now, err := os.ReadFile(s.Path()); err != nil || !bytes.Equal(now, tc.content) {
				t.Errorf("the file was changed (%v)", err)
			}
		})
	}
	if err := os.WriteFile(s.Path(), one, 0o600); err != nil {
		t.Fatal(err)
	}
	other := in(t, filepath.Dir(s.Path()), filestore.WithSeal(aead(2)))
	refused(t, other, s.Path(), filestore.ErrSealKey, lost)

	// The session of one profile does not pass for another's.
	work, err := filestore.New(filepath.Dir(s.Path()), "work", key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(work.Path(), one, 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, work, work.Path(), filestore.ErrSealKey, lost)

	// The directory can be moved.
	moved := filepath.Join(t.TempDir(), "moved")
	if err := os.Rename(filepath.Dir(s.Path()), moved); err != nil {
		t.Fatal(err)
	}
	if got, err := in(t, moved, key).Load(t.Context()); err != nil || got.Generation != 1 {
		t.Errorf("in another directory: generation %d, %v", got.Generation, err)
	}

	// The way out.
	other = in(t, moved, filestore.WithSeal(aead(2)))
	if err := other.Discard(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, other, session(1))
}

// A sealed session that waits beside the file is not overwritten by a program
// that has no key.
func TestSealedIsLeft(t *testing.T) {
	sealed := in(t, filepath.Join(t.TempDir(), "sessions"), filestore.WithSeal(aead(1)))
	put(t, sealed, session(1))
	if err := os.Rename(sealed.Path(), next(sealed)); err != nil {
		t.Fatal(err)
	}
	plain := in(t, filepath.Dir(sealed.Path()))
	err := plain.Update(t.Context(), func(oauth.Session) (oauth.Session, error) {
		t.Error("Update called fn")
		return session(9), nil
	})
	var e *filestore.Error
	if !errors.Is(err, filestore.ErrSealed) || !errors.As(err, &e) || e.Path != next(sealed) {
		t.Errorf("got %v, want ErrSealed about %s", err, next(sealed))
	}
	put(t, sealed, session(2))
}

// What a newer release left is neither used nor discarded: the session that is
// stored may be spent.
func TestNewerReleaseIsLeft(t *testing.T) {
	plain, err := session(3).Encode()
	if err != nil {
		t.Fatal(err)
	}
	sealed := []byte("ycauth-go sealed session, version 2, generation 3\n1234567890123456789012345678")
	for name, left := range map[string][]byte{
		"in the clear": bytes.Replace(plain, []byte(`"version":1`), []byte(`"version":2`), 1),
		"sealed":       sealed,
	} {
		for kind, opts := range stores {
			t.Run(name+", the store is "+kind, func(t *testing.T) {
				s := in(t, filepath.Join(t.TempDir(), "sessions"), opts...)
				put(t, s, session(2))
				if err := os.WriteFile(next(s), left, 0o600); err != nil {
					t.Fatal(err)
				}
				err := s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) {
					t.Error("Update called fn")
					return session(4), nil
				})
				var e *filestore.Error
				if !errors.Is(err, oauth.ErrSessionFormat) || !errors.As(err, &e) || e.Path != next(s) ||
					!strings.Contains(err.Error(), "update this program") {
					t.Errorf("got %v, want ErrSessionFormat about %s", err, next(s))
				}
				if now, err := os.ReadFile(next(s)); err != nil || !bytes.Equal(now, left) {
					t.Errorf("the file was changed (%v)", err)
				}
				if got, err := s.Load(t.Context()); err != nil || got.Generation != 2 {
					t.Errorf("Load finds generation %d, %v", got.Generation, err)
				}
				if err := s.Discard(t.Context()); err != nil {
					t.Fatal(err)
				}
				put(t, s, session(1))
			})
		}
	}
}

type shortNonce struct{ cipher.AEAD }

func (shortNonce) NonceSize() int { return 8 }

func TestSealUnfit(t *testing.T) {
	for text, key := range map[string]cipher.AEAD{"nonces of 8 bytes": shortNonce{aead(1)}, "without a key": nil} {
		var e *filestore.Error
		_, err := filestore.New(filepath.Join(t.TempDir(), "sessions"), "default", filestore.WithSeal(key))
		if !errors.As(err, &e) || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want a *filestore.Error that says %q", err, text)
		}
	}
}
