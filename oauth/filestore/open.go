package filestore

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/internal/filelock"
	"github.com/ycauth/ycauth-go/oauth"
)

// Open returns the store of a profile, and a prover with the key that the session's
// tokens are bound to. The first call creates the key.
//
//	store, prover, err := filestore.Open("app", "default")
//	…
//	client, err := oauth.New(oauth.Config{
//		Provider: oauth.YandexCloud(),
//		ClientID: oauth.YandexCloudClientID,
//		Store:    store,
//		DPoP:     prover,
//	})
//
// app is the name of the program, which selects the parent of [DefaultDir],
// or the absolute path of a directory, for services without a home directory.
// There, the session of the profile "default" is sessions/default.json, as [New]
// keeps it, and the key is keys/default.pem, as [dpop.GenerateKeyFile] writes it. The
// directories are created with mode 0700. The program examples/ycauth uses
// the same layout: Open("ycauth", "default") returns the session of
// its user, which both programs then share and renew.
//
// If the key file is missing and the session is bound to a key, Open creates none and
// the error matches [fs.ErrNotExist]: the key is elsewhere, for instance on a YubiKey,
// or lost. Errors are of type [*Error] or [*dpop.KeyFileError].
func Open(app, profile string, opts ...Option) (*Store, *dpop.Prover, error) {
	dir := filepath.Clean(app)
	if !filepath.IsAbs(app) {
		sessions, err := DefaultDir(app)
		if err != nil {
			return nil, nil, err
		}
		dir = filepath.Dir(sessions)
	}
	store, err := New(filepath.Join(dir, "sessions"), profile, opts...)
	if err != nil {
		return nil, nil, err
	}
	keys := filepath.Join(dir, "keys")
	if err := checkDir(keys); err != nil {
		return nil, nil, err
	}
	path := filepath.Join(keys, profile+".pem")
	key, err := dpop.LoadKeyFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if missing := store.needsKey(path); missing != nil {
			// Since the first look, another process may have created the key, and then the
			// session that is bound to it.
			if key, err = dpop.LoadKeyFile(path); errors.Is(err, fs.ErrNotExist) {
				err = missing
			}
		} else if err = filelock.MakeDir(keys); err != nil {
			err = wrap(err)
		} else {
			key, err = dpop.LoadOrGenerateKeyFile(path)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	prover, err := dpop.New(key)
	return store, prover, err
}

// needsKey is an error if the session is bound to a key, which is missing.
func (s *Store) needsKey(path string) error {
	session, err := s.Load(context.Background())
	switch {
	case errors.Is(err, oauth.ErrNoSession):
		return nil
	case err != nil:
		return err // it may be bound to a key
	case session.KeyThumbprint == "":
		return nil
	}
	return &Error{
		Path: path, Err: fs.ErrNotExist,
		Reason: "is missing, but the session is bound to a key: if the key is elsewhere, for instance on a YubiKey, use New and that key; " +
			"if it is lost, so is the session: call Store.Discard and log in again",
	}
}
