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
// app is either the name of the program, whose files are then in os.UserConfigDir/app, or
// the absolute path of a directory, for services without a home directory.
// There, the session of the profile "default" is sessions/default.json, as [New]
// keeps it, and the key is keys/default.pem, as [dpop.GenerateKeyFile] writes it. The
// directories are created with mode 0700. The program examples/ycauth uses
// the same layout: Open("ycauth", "default") returns the session of
// its user, which both programs then share and renew. This needs a session that is not
// sealed (--keyring) and a key in that file (no --key-file, no YubiKey). If
// YCAUTH_CONFIG_DIR is set, pass that directory, as an absolute path.
//
// If the key file is missing and the session is bound to a key, Open creates none and
// the error matches [fs.ErrNotExist] and [oauth.ErrLoginRequired]: the key is elsewhere,
// for instance on a YubiKey, or lost. If the key is missing, the store is returned beside
// the error, also where the session cannot be read, so that [Store.Discard] can be called:
// it removes the session, and the next Open creates a key. With any other error, the store
// is nil. Errors are of type [*Error] or [*dpop.KeyFileError].
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
				return store, nil, missing
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
	if err != nil {
		return nil, nil, err
	}
	return store, prover, nil
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
		Path: path, Err: keyLostError{},
		Reason: "is missing, but the session is bound to a key: if the key is elsewhere, for instance on a YubiKey, use New and that key; " +
			"if it is lost, so is the session: call Store.Discard of the returned store and log in again",
	}
}

// keyLostError is the cause of the error about the missing key of a session.
type keyLostError struct{}

func (keyLostError) Error() string { return fs.ErrNotExist.Error() }
func (keyLostError) Unwrap() []error {
	return []error{fs.ErrNotExist, &oauth.LoginRequiredError{Reason: oauth.ReasonWrongKey}}
}
