package filestore_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"errors"
	"fmt"
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

// forged is a sealed file with the hash that fits its content.
func forged(content []byte) []byte {
	sum := sha256.Sum256(content)
	return append(bytes.Clone(content), sum[:]...)
}

// endsInHash is forged, and the hash begins with the end of the line.
func endsInHash(t *testing.T) []byte {
	for g := range 100_000 {
		if file := forged(fmt.Appendf(nil, "ycauth-go sealed session, version 1, generation %d", g)); file[len(file)-sha256.Size] == '\n' {
			return file
		}
	}
	t.Fatal("no hash begins with the end of a line")
	return nil
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
	content := one[:len(one)-sha256.Size]
	two := bytes.Replace(one, []byte("generation 1"), []byte("generation 2"), 1)
	const damaged = "the sealed session is truncated or damaged"
	for name, tc := range map[string]struct {
		content []byte
		cause   error
		remedy  string
	}{
		"nonce":                             {flip(line), oauth.ErrSessionFormat, damaged},
		"ciphertext":                        {flip(line + 20), oauth.ErrSessionFormat, damaged},
		"tag":                               {flip(len(content) - 1), oauth.ErrSessionFormat, damaged},
		"hash":                              {flip(len(one) - 1), oauth.ErrSessionFormat, damaged},
		"cut off":                           {one[:len(one)-1], oauth.ErrSessionFormat, damaged},
		"without the hash":                  {content, oauth.ErrSessionFormat, damaged},
		"cut in the nonce":                  {one[:line+3], oauth.ErrSessionFormat, damaged},
		"another generation":                {two, oauth.ErrSessionFormat, damaged},
		"forged nonce":                      {forged(flip(line)[:len(content)]), filestore.ErrSealKey, lost},
		"forged ciphertext":                 {forged(flip(line + 20)[:len(content)]), filestore.ErrSealKey, lost},
		"forged tag":                        {forged(flip(len(content) - 1)[:len(content)]), filestore.ErrSealKey, lost},
		"forged generation":                 {forged(two[:len(content)]), filestore.ErrSealKey, lost},
		"forged, with nothing":              {forged(one[:line]), filestore.ErrSealKey, lost},
		"forged, with a short nonce":        {forged(one[:line+3]), filestore.ErrSealKey, lost},
		"forged, the line ends in the hash": {endsInHash(t), filestore.ErrSealKey, lost},
		"another line":                      {bytes.Replace(one, []byte("generation 1"), []byte("generation 01"), 1), oauth.ErrSessionFormat, "log in again"},
		"another version":                   {bytes.Replace(one, []byte("version 1"), []byte("version 2"), 1), oauth.ErrSessionFormat, "if a newer release wrote it"},
		"no line":                           {one[:line-1], oauth.ErrSessionFormat, "log in again"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(s.Path(), tc.content, 0o600); err != nil {
				t.Fatal(err)
			}
			refused(t, s, s.Path(), tc.cause, tc.remedy)
			_, err := s.Load(t.Context())
			if !errors.Is(err, oauth.ErrSessionFormat) || errors.Is(err, filestore.ErrSealKey) != errors.Is(tc.cause, filestore.ErrSealKey) {
				t.Errorf("got %v, want %v and ErrSessionFormat", err, tc.cause)
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

// A whole sealed session that waits beside the file is not overwritten by a program
// that cannot open it, older or newer: it may be the only copy of a refresh token.
func TestSealedIsLeft(t *testing.T) {
	for name, tc := range map[string]struct {
		opts   []filestore.Option
		before uint64 // the generation stored, by the program that meets the file; 0: none
		cause  error
		remedy string
	}{
		"no key":                           {nil, 0, filestore.ErrSealed, "open the store with its key"},
		"no key, a session before":         {nil, 1, filestore.ErrSealed, "open the store with its key"},
		"another key":                      {[]filestore.Option{filestore.WithSeal(aead(2))}, 0, filestore.ErrSealKey, "restore the key"},
		"another key, a session before":    {[]filestore.Option{filestore.WithSeal(aead(2))}, 1, filestore.ErrSealKey, "restore the key"},
		"another key, a session after":     {[]filestore.Option{filestore.WithSeal(aead(2))}, 9, filestore.ErrSealKey, "restore the key"},
		"another key that draws no nonces": {[]filestore.Option{filestore.WithSeal(withNonces(2))}, 1, filestore.ErrSealKey, "restore the key"},
	} {
		t.Run(name, func(t *testing.T) {
			sealed := in(t, filepath.Join(t.TempDir(), "sessions"), filestore.WithSeal(aead(1)))
			put(t, sealed, session(2))
			left, err := os.ReadFile(sealed.Path())
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(sealed.Path()); err != nil {
				t.Fatal(err)
			}
			s := in(t, filepath.Dir(sealed.Path()), tc.opts...)
			if tc.before != 0 {
				put(t, s, session(tc.before))
			}
			if err := os.WriteFile(next(s), left, 0o600); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				err := s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) {
					t.Error("Update called fn")
					return session(9), nil
				})
				var e *filestore.Error
				if !errors.Is(err, tc.cause) || !errors.Is(err, oauth.ErrSessionFormat) || !errors.As(err, &e) ||
					e.Path != next(s) || !strings.Contains(err.Error(), tc.remedy) {
					t.Errorf("got %v, want %v about %s", err, tc.cause, next(s))
				}
				if now, err := os.ReadFile(next(s)); err != nil || !bytes.Equal(now, left) {
					t.Errorf("the file was changed (%v)", err)
				}
			}
			if tc.before != 0 {
				if got, err := s.Load(t.Context()); err != nil || got.Generation != tc.before {
					t.Errorf("Load finds generation %d, %v", got.Generation, err)
				}
				return
			}
			err = sealed.Update(t.Context(), func(current oauth.Session) (oauth.Session, error) {
				if current.Generation != 2 {
					t.Errorf("with its key: generation %d", current.Generation)
				}
				return current, nil
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// What is not a whole sealed session is of no use to any key: it is discarded.
func TestSealedPart(t *testing.T) {
	sealed := in(t, filepath.Join(t.TempDir(), "sessions"), filestore.WithSeal(aead(1)))
	put(t, sealed, session(3))
	whole, err := os.ReadFile(sealed.Path())
	if err != nil {
		t.Fatal(err)
	}
	hole := bytes.Clone(whole) // as a failure of the power leaves it, where the size came first
	clear(hole[len(hole)/2:])
	changed := bytes.Clone(whole)
	changed[len(changed)/2] ^= 1
	line := bytes.IndexByte(whole, '\n') + 1
	for name, left := range map[string][]byte{
		"cut by one":         whole[:len(whole)-1],
		"cut by the last 32": whole[:len(whole)-32],
		"cut in the middle":  whole[:len(whole)/2],
		"the line":           whole[:line],
		"the line and few":   whole[:line+5],
		"part of the line":   whole[:line-3],
		"zeros at the end":   hole,
		"longer":             append(bytes.Clone(whole), 0),
		"changed":            changed,
	} {
		for key, opts := range map[string][]filestore.Option{
			"its key": {filestore.WithSeal(aead(1))}, "another key": {filestore.WithSeal(aead(2))}, "no key": nil,
		} {
			t.Run(name+", "+key, func(t *testing.T) {
				s := in(t, filepath.Join(t.TempDir(), "sessions"), opts...)
				put(t, s, session(2))
				if err := os.WriteFile(next(s), left, 0o600); err != nil {
					t.Fatal(err)
				}
				err := s.Update(t.Context(), func(current oauth.Session) (oauth.Session, error) {
					if _, ok := s.Interrupted(); !ok || current.Generation != 2 {
						t.Errorf("interrupted: %v, generation %d", ok, current.Generation)
					}
					return session(3), nil
				})
				if err != nil {
					t.Fatal(err)
				}
				if got, err := s.Load(t.Context()); err != nil || got.Generation != 3 {
					t.Errorf("Load finds generation %d, %v", got.Generation, err)
				}
			})
		}
	}
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
	for text, key := range map[string]cipher.AEAD{"nonces of 8 bytes": shortNonce{aead(1)}, "the key of WithSeal is nil": nil} {
		var e *filestore.Error
		_, err := filestore.New(filepath.Join(t.TempDir(), "sessions"), "default", filestore.WithSeal(key))
		if !errors.As(err, &e) || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want a *filestore.Error that says %q", err, text)
		}
	}
}
