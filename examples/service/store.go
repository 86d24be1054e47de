package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
	"github.com/ycauth/ycauth-go/oauth/pgstore"
)

// A sessionStore keeps the session of the service.
type sessionStore struct {
	oauth.Store
	place   string                      // for people; without secrets
	prepare func(context.Context) error // creates what a login needs
	close   func()
}

func (c *config) openStore() (*sessionStore, error) {
	if c.store != "" {
		return c.openDatabase()
	}
	store, err := filestore.New(c.sessions, c.profile)
	if err != nil {
		return nil, err
	}
	return &sessionStore{store, c.sessions, func(context.Context) error { return nil }, func() {}}, nil
}

// openDatabase does not connect: a service whose database is not there yet starts, and
// says so at /readyz.
func (c *config) openDatabase() (*sessionStore, error) {
	database, err := parseDatabase(c.store)
	if err != nil {
		return nil, err
	}
	key, err := c.openSealKey()
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), database)
	if err != nil {
		return nil, err
	}
	set, err := pgstore.New(pool, pgstore.Options{Keys: pgstore.Keys{ByVersion: map[uint32]cipher.AEAD{1: key}}})
	if err != nil {
		pool.Close()
		return nil, err
	}
	place := fmt.Sprintf("the database %s at %s", database.ConnConfig.Database, database.ConnConfig.Host)
	return &sessionStore{set.Store(c.profile), place, set.Migrate, pool.Close}, nil
}

// parseDatabase reads -store. Its errors do not quote the URL, and quote what is wrong
// with it only if that cannot be a part of a password.
func parseDatabase(store string) (*pgxpool.Config, error) {
	u, err := url.Parse(store)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return nil, errors.New("-store is not the URL of a PostgreSQL database, such as postgres://app@db/app; " +
			"it is not shown, because it may have a password, whose special characters must be escaped (RFC 3986 §2.1)")
	}
	database, err := pgxpool.ParseConfig(store)
	if err == nil {
		return database, nil
	}
	reason := "one of its parameters is wrong"
	_, hasPassword := u.User.Password()
	query := u.Query()
	if cause := errors.Unwrap(err); cause != nil && !hasPassword && !query.Has("password") && !query.Has("sslpassword") {
		reason = cause.Error()
	}
	return nil, fmt.Errorf("-store cannot be used: %s", reason)
}

// openSealKey returns the key that sessions in the database are encrypted with. Like the
// DPoP key, it is created only for a login.
func (c *config) openSealKey() (cipher.AEAD, error) {
	key, err := readSealKey(c.sealKey)
	if c.login && errors.Is(err, fs.ErrNotExist) {
		if err := createSealKey(c.sealKey); err != nil {
			return nil, fmt.Errorf("-seal-key cannot be created: %w", err)
		}
		key, err = readSealKey(c.sealKey)
	}
	if err != nil {
		return nil, fmt.Errorf("-seal-key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

const sealKeySize = 32 // bytes: AES-256

func readSealKey(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode(); runtime.GOOS != "windows" && mode.Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %04o: run chmod 600, and log in with a new key if this one may have been copied", path, mode.Perm())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(data)))
	if err != nil || len(key) != sealKeySize {
		return nil, fmt.Errorf("%s does not have %d bytes in base64", path, sealKeySize)
	}
	return key, nil
}

// createSealKey leaves a key alone that another process has just created.
func createSealKey(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	key := make([]byte, sealKeySize)
	_, _ = rand.Read(key) // never returns an error
	_, err = f.WriteString(base64.StdEncoding.EncodeToString(key) + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		_ = os.Remove(path) // half a key would be in the way of the next login
	}
	return err
}
