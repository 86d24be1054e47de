// Package keyringstore keeps the key that seals the sessions of package
// filestore in the keyring of the operating system: the Secret Service on Linux
// and other Unix systems (GNOME Keyring, KWallet, KeePassXC), the Keychain on
// macOS, the Credential Manager on Windows.
//
//	key, err := keyringstore.Key(ctx, "app", keyringstore.Options{})
//	…
//	store, err := filestore.New(dir, "default", filestore.WithSeal(key))
//	…
//	client, err := oauth.New(oauth.Config{Store: store, …})
//
// The sessions themselves are in encrypted files. The keyring is used once,
// when the program opens its store, and never between the rotation of a refresh
// token and its saving, because a keyring that asks for its password then, or hangs,
// would lose the session. The one small item fits into every keyring.
//
// # Machines without a keyring
//
// A server, a container or an ssh session usually has no keyring, or one that cannot be
// unlocked. The error of [Key] then matches [ErrUnavailable] or [ErrLocked]. Programs
// for such machines should keep their sessions unsealed there, as examples/ycauth
// does.
//
// # The item
//
// For the service "app" the keyring has an item with that service and the user
// name "ycauth-go session key" (the label, on Linux, is "Password for 'ycauth-go
// session key' on 'app'"). Its password is the key: a version, a colon, and 32
// random bytes in base64. It seals the sessions of all profiles of the program.
//
// If the item is removed, Key creates a new key, which does not open existing
// sessions. The errors of the store then match [filestore.ErrSealKey], and
// say that the session must be discarded and the user must log in again.
//
// # What it protects
//
// The keyring is encrypted on disk, so a copy of the disk or a backup of the
// files is useless without its password. While it is unlocked, any program of
// the user can read the key, as it could read a file: on Linux over the session
// bus, on macOS with the security command, which creates the item. Only binding
// a refresh token to a key (package dpop) makes a stolen one useless.
//
// # Time limits
//
// Keyrings can hang, on a prompt for their password that nobody sees or on a
// daemon that does not respond, and their calls cannot be interrupted. So Key
// waits for a call as long as ctx and Options.Timeout allow, and then abandons
// it. After 16 abandoned calls in one process, further calls wait for one of them to
// return, with the same limits.
package keyringstore

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/zalando/go-keyring"

	"github.com/ycauth/ycauth-go/internal/filelock"
	"github.com/ycauth/ycauth-go/internal/retry"
)

// Options configures [Key]. The zero value suits most programs.
type Options struct {
	// Timeout bounds the use of the keyring, including the time in which the user
	// types the keyring's password. It must not be negative. Optional. Default:
	// 30 seconds.
	Timeout time.Duration

	// LockDir is the directory of the lock files that keep two processes from
	// creating two keys. Only the user may have access to it. It is created if
	// missing. All programs that share a key must use the same one. Optional.
	// Default: "ycauth-go/locks" in [os.UserConfigDir].
	LockDir string
}

// Key returns the key of a service, for filestore.WithSeal: AES-256-GCM with
// random nonces. It creates the key if the keyring has none. Concurrent processes
// get the same key. Key is safe for concurrent use, and so is the result,
// which never prints the key.
//
// service is the name of the program in the keyring's user interface:
// 1 to 128 letters, digits, spaces and . _ - : / @ + in ASCII, without a space
// at either end.
//
// Errors that do not match ctx's are of type [*Error], and may match [ErrName],
// [ErrUnavailable], [ErrLocked], [ErrTimeout], [ErrKey] or [ErrInsecure]. Key does not
// overwrite an item that is not a key of a known version.
func Key(ctx context.Context, service string, opts Options) (cipher.AEAD, error) {
	v, err := newVault(system{}, service, opts, systemPlaces)
	if err != nil {
		return nil, err
	}
	return v.key(ctx)
}

// A vault is the place of one key.
type vault struct {
	ring    ring
	service string
	timeout time.Duration
	lockDir string
	lock    *filelock.Lock
	places  chan struct{} // one for each call that may run
}

func newVault(r ring, service string, opts Options, places chan struct{}) (*vault, error) {
	v := &vault{ring: r, service: service, timeout: opts.Timeout, places: places}
	if reason := checkService(service); reason != "" {
		return nil, v.error(ErrName, fmt.Errorf("the service %s", reason))
	}
	switch {
	case v.timeout < 0:
		return nil, v.error(nil, errors.New("Options.Timeout is negative"))
	case v.timeout == 0:
		v.timeout = 30 * time.Second
	}
	dir, err := lockDir(opts.LockDir)
	if err != nil {
		return nil, v.error(nil, fmt.Errorf("no directory for lock files: set Options.LockDir: %w", err))
	}
	// A hash has no upper case, no separators, and the length of one.
	sum := sha256.Sum256([]byte(service))
	v.lockDir, v.lock = dir, filelock.New(filepath.Join(dir, hex.EncodeToString(sum[:16])+".lock"))
	return v, nil
}

func lockDir(dir string) (string, error) {
	if dir != "" {
		return filepath.Abs(dir)
	}
	config, err := os.UserConfigDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(config, "ycauth-go", "locks"), nil
}

// key finds the key, or creates it.
func (v *vault) key(ctx context.Context) (cipher.AEAD, error) {
	if ctx.Err() != nil {
		return nil, retry.Ended(ctx)
	}
	found, err := v.run(ctx, v.get, func() {})
	if errors.Is(err, keyring.ErrNotFound) {
		found, err = v.createLocked(ctx)
	}
	if err != nil {
		return nil, v.wrap(ctx, err)
	}
	block, err := aes.NewCipher(found)
	if err != nil {
		return nil, v.error(nil, err)
	}
	gcm, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, v.error(nil, err)
	}
	return seal{func() cipher.AEAD { return gcm }}, nil
}

// createLocked is create, in one process at a time. A call that hangs keeps the
// lock: what it writes late must not replace the key that somebody else created.
func (v *vault) createLocked(ctx context.Context) ([]byte, error) {
	if err := filelock.MakeDir(v.lockDir); err != nil {
		return nil, err
	}
	release, err := v.lock.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	return v.run(ctx, v.create, release)
}

const (
	user    = "ycauth-go session key"
	version = "1:"
	keySize = 32 // in bytes
)

// get reads the key. The error matches keyring.ErrNotFound if there is none.
func (v *vault) get(context.Context) ([]byte, error) {
	item, err := v.ring.Get(v.service, user)
	if err != nil {
		return nil, &ringError{err}
	}
	encoded, ok := strings.CutPrefix(item, version)
	key, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if !ok || err != nil || len(key) != keySize {
		return nil, ErrKey
	}
	return key, nil
}

// create creates the key, unless somebody did in the meantime.
func (v *vault) create(ctx context.Context) ([]byte, error) {
	key, err := v.get(ctx)
	if !errors.Is(err, keyring.ErrNotFound) {
		return key, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx) // nobody waits for it any more
	}
	key = make([]byte, keySize)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	if err := v.ring.Set(v.service, user, version+base64.StdEncoding.EncodeToString(key)); err != nil {
		return nil, &ringError{err}
	}
	// A key that the keyring did not keep must not seal anything.
	kept, err := v.get(ctx)
	if errors.Is(err, keyring.ErrNotFound) || err == nil && subtle.ConstantTimeCompare(kept, key) != 1 {
		err = ErrKey
	}
	return kept, err
}

// A seal is an AEAD that prints nothing of its key, not even in somebody else's unexported
// field: fmt follows pointers there, not functions.
type seal struct{ aead func() cipher.AEAD }

// NonceSize implements [cipher.AEAD]. It is 0: Seal draws the nonces.
func (s seal) NonceSize() int { return s.aead().NonceSize() }

// Overhead implements [cipher.AEAD].
func (s seal) Overhead() int { return s.aead().Overhead() }

// Seal implements [cipher.AEAD].
func (s seal) Seal(dst, nonce, plaintext, additionalData []byte) []byte {
	return s.aead().Seal(dst, nonce, plaintext, additionalData)
}

// Open implements [cipher.AEAD].
func (s seal) Open(dst, nonce, ciphertext, additionalData []byte) ([]byte, error) {
	return s.aead().Open(dst, nonce, ciphertext, additionalData)
}

// Format implements [fmt.Formatter].
func (seal) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "keyringstore.Key(REDACTED)") }
