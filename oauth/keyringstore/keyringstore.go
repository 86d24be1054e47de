// Package keyringstore keeps sessions in the keyring of the operating system:
// the Secret Service on Linux and other Unix systems (GNOME Keyring, KWallet,
// KeePassXC), the Keychain on macOS, the Credential Manager on Windows. Any
// number of the user's processes can share them.
//
//	store, err := keyringstore.New("app", "default", keyringstore.Options{})
//	…
//	client, err := oauth.New(oauth.Config{Store: store, …})
//
// # Machines without a keyring
//
// A server, a container or an ssh session usually has none, or one that nobody
// can unlock. Nothing shows that before the first use, whose error then matches
// [ErrUnavailable] or [ErrLocked]; a program for such machines too falls back on
// package filestore, as the example does.
//
// # Items
//
// For the service "app" and the profile "default" the keyring has an item with
// that service and user name (the label, on Linux, is "Password for 'default' on
// 'app'"). Its password is the session, as [oauth.Session.Encode] documents it.
//
// Keyrings have limits: the Credential Manager takes 2560 bytes, the macOS
// security command 4096 with all around. There, a session above 2048 bytes goes
// into parts, items with the user names "default/a/0", "default/a/1" and so on,
// and the item "default" says how many there are and what they hash to. The next
// session uses "b" for "a", so that a reader finds the old session whole until
// that one item is replaced. Elsewhere an item takes 64 KiB. Sessions above
// 128 KiB are refused with [ErrTooLarge].
//
// # Processes
//
// Keyrings have no locks. An Update holds a lock file in Options.LockDir, which
// the operating system releases when the process dies. Load needs no lock.
// Whoever changes the items by other means must not do so while programs run
// that use them.
//
// # What it protects
//
// The keyring is encrypted on disk. While it is unlocked, any program of the user
// can read the session, as it could read a file: on Linux over the session bus,
// on macOS with the security command, which is what makes the items. What makes a
// stolen refresh token useless is the key that it is bound to (package dpop).
//
// # Time limits
//
// Keyrings can hang: on a prompt for their password that nobody sees, on a
// daemon that does not answer. Their interfaces cannot be interrupted. So a
// store waits for a call as long as ctx and Options.Timeout allow, and leaves it
// behind then; after 16 such calls in one process the next ones wait for one of
// them to return, also within their time. While a call that writes is left
// behind, its Update keeps the lock: what it writes late must not replace what
// somebody else wrote in between. So other Updates wait until it returns, or its
// process ends.
//
// # Errors
//
// Load, Update and Discard return an [*Error] that says what helps, and matches
// [ErrUnavailable], [ErrLocked], [ErrTimeout], [ErrTooLarge], [ErrInsecure] or
// [oauth.ErrSessionFormat] where it is one of these. An item that is no session
// of a version that this release knows is not used and not overwritten;
// [Store.Discard] is the way out that loses it.
package keyringstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ycauth/ycauth-go/internal/filelock"
	"github.com/ycauth/ycauth-go/internal/retry"
	"github.com/ycauth/ycauth-go/oauth"
)

// Options are what most programs leave as it is.
type Options struct {
	// Timeout bounds one reading or one writing of the session, including the
	// time in which the user types the keyring's password. It must not be
	// negative. Optional. Default: 30 seconds.
	Timeout time.Duration

	// LockDir is the folder of the lock files, which only the user may have
	// access to. It is made when it is missing. All programs that share a
	// session must name the same. Optional. Default: "ycauth-go/locks" in
	// [os.UserConfigDir].
	LockDir string
}

// A Store keeps the session of one profile of a service. It is safe for
// concurrent use, and so are several of them with the same service, profile and
// LockDir.
type Store struct {
	items   items
	lock    *filelock.Lock
	lockDir string
	timeout time.Duration
	places  chan struct{} // one for each call that may run
}

var _ oauth.Store = (*Store)(nil)

// New returns the store of a profile. It does not touch the keyring.
//
// A service names the program, and appears in the keyring's own user interface:
// 1 to 128 letters, digits, spaces and . _ - : / @ + in ASCII, without a space
// at either end. A profile has 1 to 64 characters out of a-z, 0-9 and . _ - @,
// and begins with none of . and -. Otherwise the error matches [ErrName]. Errors
// are of type [*Error].
func New(service, profile string, opts Options) (*Store, error) {
	it := items{ring: system{}, limit: systemItem, service: service, profile: profile}
	return newStore(it, opts, systemPlaces)
}

func newStore(it items, opts Options, places chan struct{}) (*Store, error) {
	s := &Store{items: it, timeout: opts.Timeout, places: places}
	if reason := checkService(it.service); reason != "" {
		return nil, s.error(ErrName, fmt.Errorf("the service %s", reason))
	}
	if reason := filelock.CheckName(it.profile); reason != "" {
		return nil, s.error(ErrName, fmt.Errorf("the profile %s", reason))
	}
	switch {
	case s.timeout < 0:
		return nil, s.error(nil, errors.New("Options.Timeout is negative"))
	case s.timeout == 0:
		s.timeout = 30 * time.Second
	}
	dir, err := lockDir(opts.LockDir)
	if err != nil {
		return nil, s.error(nil, fmt.Errorf("no folder for lock files: set Options.LockDir: %w", err))
	}
	// A hash has no upper case, no separators, and the length of one.
	sum := sha256.Sum256([]byte(it.service + "\x00" + it.profile))
	s.lockDir, s.lock = dir, filelock.New(filepath.Join(dir, hex.EncodeToString(sum[:16])+".lock"))
	return s, nil
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

// Load implements [oauth.Store]. It asks the keyring at every call. Errors that
// match neither ctx's nor [oauth.ErrNoSession] are of type [*Error].
func (s *Store) Load(ctx context.Context) (oauth.Session, error) {
	if ctx.Err() != nil {
		return oauth.Session{}, retry.Ended(ctx)
	}
	session, _, err := s.read(ctx)
	return session, err
}

// Update implements [oauth.Store]. Errors that are neither fn's nor match ctx's
// are of type [*Error]. If fn was called, such an error means that it is not
// known to be stored: with [ErrTimeout] it may be yet, otherwise the old session
// is intact.
func (s *Store) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	release, err := s.acquire(ctx)
	if err != nil {
		return err
	}
	defer func() { release() }()
	current, found, err := s.read(ctx)
	if err != nil && !errors.Is(err, oauth.ErrNoSession) {
		return err
	}
	next, err := fn(current)
	if err != nil {
		return err
	}
	change, err := s.change(found, current, next)
	if change == nil {
		return err
	}
	// From here on ctx has no say: next may hold the only copy of a new refresh
	// token. And the lock goes with the change, which may outlast this call.
	changed := release
	release = func() {}
	return s.run(context.WithoutCancel(ctx), change, changed)
}

// Discard removes the session without reading it, with all its parts. It is the
// way out where the keyring holds no session that this release can read; where
// there is nothing it does nothing. It waits for Updates like one, and its
// errors are like those of Update.
func (s *Store) Discard(ctx context.Context) error {
	release, err := s.acquire(ctx)
	if err != nil {
		return err
	}
	return s.run(ctx, s.items.discard, release)
}

func (s *Store) acquire(ctx context.Context) (release func(), err error) {
	if ctx.Err() != nil {
		return nil, retry.Ended(ctx)
	}
	if err := filelock.MakeFolder(s.lockDir); err != nil {
		return nil, s.error(nil, err)
	}
	release, err = s.lock.Acquire(ctx)
	if err != nil && ctx.Err() == nil {
		return nil, s.error(nil, err)
	}
	return release, err
}

// read returns the session and where it was found. The error matches
// oauth.ErrNoSession if there is none.
func (s *Store) read(ctx context.Context) (oauth.Session, stored, error) {
	result := make(chan stored, 1)
	err := s.run(ctx, func(ctx context.Context) error {
		found, err := s.items.read(ctx)
		result <- found
		return err
	}, func() {})
	if err != nil {
		return oauth.Session{}, stored{}, err
	}
	found := <-result
	session, err := oauth.DecodeSession(found.data)
	if err == nil {
		_, err = session.Encode() // a time in a year that has no encoding: nobody wrote this
	}
	if err != nil {
		return oauth.Session{}, found, s.error(oauth.ErrSessionFormat, err)
	}
	return session, found, nil
}

// change returns what makes next the stored session; nil if nothing has to be
// done, or if it cannot be.
func (s *Store) change(found stored, current, next oauth.Session) (func(context.Context) error, error) {
	if next.IsZero() {
		return s.items.erase, nil
	}
	data, err := next.Encode()
	if err != nil {
		return nil, s.error(nil, fmt.Errorf("the new session has no encoding: %w", err))
	}
	if !current.IsZero() {
		if old, err := current.Encode(); err == nil && bytes.Equal(old, data) {
			return nil, nil
		}
	}
	if _, err := oauth.DecodeSession(data); err != nil {
		return nil, s.error(nil, fmt.Errorf("the new session could not be read back: %w", err))
	}
	if len(data) > maxSession {
		return nil, s.error(ErrTooLarge, fmt.Errorf("it has %d bytes", len(data)))
	}
	return func(ctx context.Context) error { return s.items.write(ctx, found.slot, data) }, nil
}
