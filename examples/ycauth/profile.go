package main

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ycauth/ycauth-go/internal/durable"
	"github.com/ycauth/ycauth-go/internal/filelock"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
)

const (
	defaultProfile = "default"
	profileVersion = 1
)

// profile is the configuration of a profile. It holds no secret; the session
// is beside it, in a filestore.
//
// A session is of no use without the choice of its key, and there is no way to
// replace two files at once. So a login first makes its key durable, then adds its
// configuration to the profile as Pending, then saves the session, and last makes
// that configuration the profile's own. Whatever fails or dies in between, the
// session that is there says which of the two configurations is its own.
type profile struct {
	Version      int       `json:"version"`
	ClientID     string    `json:"client_id"`
	FederationID string    `json:"federation_id,omitempty"`
	Endpoints    endpoints `json:"endpoints"`
	Key          keyChoice `json:"key"`
	Keyring      bool      `json:"keyring,omitempty"` // the session is sealed with a key in the user's keyring

	Pending *pendingLogin `json:"pending,omitempty"`

	own endpoints // those that were saved, whatever flags say
}

// pendingLogin is the configuration of a login whose session may be saved.
type pendingLogin struct {
	Replaces time.Time `json:"replaces"` // when the session of before was created; zero if there was none
	Profile  profile   `json:"profile"`
}

// of is the configuration that the session belongs to.
func (p profile) of(s oauth.Session) profile {
	if p.Pending != nil && !s.IsZero() && !s.Created.Equal(p.Pending.Replaces) {
		return p.Pending.Profile
	}
	p.Pending = nil
	return p
}

// configDir is where the program keeps everything.
func (a *app) configDir() (string, error) {
	if dir := a.getenv("YCAUTH_CONFIG_DIR"); dir != "" {
		return filepath.Abs(dir)
	}
	sessions, err := filestore.DefaultDir("ycauth")
	if err == nil && !filepath.IsAbs(sessions) {
		err = errors.New("the user's configuration directory is relative, and would be another one in each directory")
	}
	if err != nil {
		return "", fmt.Errorf("there is no directory for the sessions and keys of ycauth: set YCAUTH_CONFIG_DIR to one (%w)", err)
	}
	return filepath.Dir(sessions), nil
}

// openStore returns the store of the profile's session, with the key that seals it
// if there is one.
func (a *app) openStore(ctx context.Context) (store *filestore.Store, dir string, err error) {
	store, dir, err = a.openPlainStore()
	if err == nil && a.sealed(dir) {
		store, err = a.openSealedStore(ctx, dir)
	}
	return store, dir, err
}

// openPlainStore also is what checks the profile's name, before that becomes part
// of other paths.
func (a *app) openPlainStore() (store *filestore.Store, dir string, err error) {
	dir, err = a.configDir()
	if err != nil {
		return nil, "", err
	}
	store, err = filestore.New(filepath.Join(dir, "sessions"), a.profileName)
	if errors.Is(err, filestore.ErrProfileName) {
		err = fmt.Errorf("--profile: %w", err)
	}
	return store, dir, err
}

// openSealedStore takes the key from the user's keyring. It also reads a session
// that is not sealed yet.
func (a *app) openSealedStore(ctx context.Context, dir string) (*filestore.Store, error) {
	key, err := a.sealKey(ctx)
	if err != nil {
		return nil, err
	}
	return filestore.New(filepath.Join(dir, "sessions"), a.profileName, filestore.WithSeal(key))
}

// sealed reports whether the session may be sealed, by the profile or by a login
// that is pending there. What is wrong with the file is reported by readProfile.
func (a *app) sealed(dir string) bool {
	data, err := readSmall(a.profilePath(dir))
	if err != nil {
		return false
	}
	p, err := decodeProfile(data)
	return err == nil && slices.ContainsFunc(p.all(), func(q *profile) bool { return q.Keyring })
}

// kept says where the session is, for people.
func (p profile) kept(store *filestore.Store) string {
	if p.Keyring {
		return store.Path() + ", sealed with a key in the keyring"
	}
	return store.Path()
}

// sessions is the store as clients use it.
func (a *app) sessions(store oauth.Store) oauth.Store {
	if a.wrapStore != nil {
		return a.wrapStore(store)
	}
	return store
}

func (a *app) profilePath(dir string) string {
	return filepath.Join(dir, "profiles", a.profileName+".json")
}

// loadProfile returns the profile, or a new one if it was never saved, with the
// endpoints that the flags ask for.
func (a *app) loadProfile(ctx context.Context, store oauth.Store, dir string) (profile, error) {
	// Before the profile: a login that comes in between is then not seen at all. A
	// session that cannot be read is reported by the commands that need it.
	session, _ := store.Load(ctx)
	return a.profileOf(dir, session)
}

// profileOf is loadProfile where the session is known.
func (a *app) profileOf(dir string, session oauth.Session) (profile, error) {
	p, found, err := a.readProfile(dir, session)
	if err != nil {
		return profile{}, err
	}
	if !found {
		p.Endpoints = a.endpoint.login(p.Endpoints)
		a.recoverKey(dir, &p, session)
	}
	p.own = p.Endpoints
	p.Endpoints = a.endpoint.flags.apply(p.Endpoints)
	return p, nil
}

// recoverKey completes a profile whose file is gone while its session is there: with
// the key file that a login makes, if that is the key of the session.
func (a *app) recoverKey(dir string, p *profile, session oauth.Session) {
	if session.KeyThumbprint == "" {
		return
	}
	key := keyChoice{File: a.defaultKeyFile(dir)}
	prover, err := a.prover(key)
	if err != nil {
		return // there is no such key: whoever needs it says that
	}
	if thumbprint, err := prover.Thumbprint(crypto.SHA256); err == nil && thumbprint == session.KeyThumbprint {
		p.Key, p.ClientID = key, session.ClientID
	}
}

// existingProfile is loadProfile for commands that do not make one.
func (a *app) existingProfile(ctx context.Context, store oauth.Store, dir string) (profile, error) {
	if err := a.checkProfile(dir); err != nil {
		return profile{}, err
	}
	return a.loadProfile(ctx, store, dir)
}

// checkProfile finds a mistyped name of a profile. Where there are no profiles at
// all, nobody has logged in yet, and there is something better to say.
func (a *app) checkProfile(dir string) error {
	names, err := profiles(dir)
	if err != nil || len(names) == 0 || a.profileName == defaultProfile || slices.Contains(names, a.profileName) {
		return err
	}
	return usagef("there is no profile %q; existing profiles: %s", a.profileName, strings.Join(names, ", "))
}

// profiles are the names of those that have a session or a configuration.
func profiles(dir string) ([]string, error) {
	names, err := filestore.Profiles(filepath.Join(dir, "sessions"))
	if err != nil {
		return nil, err
	}
	configured, err := os.ReadDir(filepath.Join(dir, "profiles"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, entry := range configured {
		if name, ok := strings.CutSuffix(entry.Name(), ".json"); ok && !strings.HasPrefix(name, ".") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// readProfile returns what is saved; found is false if nothing is.
func (a *app) readProfile(dir string, session oauth.Session) (p profile, found bool, err error) {
	path := a.profilePath(dir)
	// Anyone who can write there decides where IAM tokens are sent.
	if err := filelock.CheckDir(filepath.Dir(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return profile{}, false, exposedProfiles(err)
	}
	data, err := readSmall(path)
	if errors.Is(err, fs.ErrNotExist) {
		return newProfile(), false, nil
	}
	if err != nil {
		return profile{}, false, err
	}
	if p, err = decodeProfile(data); err != nil {
		return profile{}, false, fmt.Errorf("%s %w", path, err)
	}
	p = p.of(session)
	p.Key = p.Key.in(filepath.Dir(path))
	return p, true, nil
}

// maxProfile is far more than a profile takes, in bytes.
const maxProfile = 1 << 20

// readSmall reads a regular file of at most maxProfile bytes. A pipe would have every
// command wait, and a device need not end.
func readSmall(path string) ([]byte, error) {
	fi, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !fi.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file: move it away", path)
	case fi.Size() > maxProfile:
		return nil, fmt.Errorf("%s is larger than 1 MiB, so not the configuration of a profile: move it away", path)
	}
	return os.ReadFile(path)
}

// exposedProfiles says of a directory that others can enter what that means here:
// there is nothing secret in it to read.
func exposedProfiles(err error) error {
	var exposed *filelock.Error
	if errors.As(err, &exposed) && errors.Is(err, filelock.ErrInsecure) {
		before, _, _ := strings.Cut(exposed.Reason, ", and log in again")
		return &filelock.Error{Path: exposed.Path, Err: exposed.Err, Reason: before + ", and log in again if another user may have changed a profile"}
	}
	return err
}

func newProfile() profile {
	return profile{Version: profileVersion, ClientID: oauth.YandexCloudClientID, Endpoints: yandexCloud()}
}

// decodeProfile reads what saveProfile wrote. Its errors go on from the name of
// the file.
func decodeProfile(data []byte) (profile, error) {
	p := newProfile()
	if err := json.Unmarshal(data, &p); err != nil {
		if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) { // which names types of this program
			err = fmt.Errorf("unexpected %s at byte %d", wrong.Value, wrong.Offset)
		}
		return profile{}, fmt.Errorf("is not the configuration of a profile (%w): correct or remove it", err)
	}
	if p.Version != profileVersion {
		return profile{}, fmt.Errorf("has version %d, and this program knows version %d: a newer release may have written it. Update this program, or remove the file and log in again", p.Version, profileVersion)
	}
	for _, q := range p.all() {
		if q.Key.File != "" && q.Key.Card != nil {
			return profile{}, errors.New("names two keys, a file and a YubiKey: remove one")
		}
	}
	if p.Pending != nil {
		p.Pending.Profile.Version, p.Pending.Profile.Pending = profileVersion, nil
	}
	return p, nil
}

// all are the configurations in the file.
func (p *profile) all() []*profile {
	if p.Pending == nil {
		return []*profile{p}
	}
	return []*profile{p, &p.Pending.Profile}
}

// saveProfile writes the profile so that it survives a crash.
func (a *app) saveProfile(dir string, p profile) error {
	path := a.profilePath(dir)
	if p.Pending != nil {
		pending := *p.Pending
		p.Pending = &pending
	}
	for _, q := range p.all() {
		q.Key = q.Key.from(dir, filepath.Dir(path))
	}
	data, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	if err := filelock.MakeDir(filepath.Dir(path)); err != nil {
		return err
	}
	if err := durable.Replace(path, append(data, '\n'), 0o600); err != nil {
		return err
	}
	removeLeftovers(path)
	return nil
}

// removeLeftovers removes the temporary files that processes left beside a file
// when they were killed. The session's lock keeps others from writing one now.
func removeLeftovers(path string) {
	dir, base := filepath.Split(path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if random, ok := strings.CutPrefix(e.Name(), "."+base+".tmp-"); ok && random != "" && strings.Trim(random, "0123456789") == "" {
			_ = os.Remove(filepath.Join(dir, e.Name())) // what cannot be removed stays
		}
	}
}

// recordingStore saves the profile of a login together with its session.
type recordingStore struct {
	oauth.Store
	a   *app
	dir string
	new profile
}

// Update adds the profile of a login just before its session is saved, under the
// session's lock.
func (s recordingStore) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	return s.Store.Update(ctx, func(current oauth.Session) (oauth.Session, error) {
		next, err := fn(current)
		if err != nil || next.Created.Equal(current.Created) {
			return next, err // not the login
		}
		p, found, err := s.a.readProfile(s.dir, current)
		if err != nil {
			return current, err
		}
		if !found {
			p = s.new
		}
		p.Pending = &pendingLogin{current.Created, s.new}
		return next, s.a.saveProfile(s.dir, p)
	})
}

// settle makes the configuration of the session that is there the only one. An
// error changes nothing: see profile.
func (s recordingStore) settle(ctx context.Context) error {
	return s.Store.Update(ctx, func(current oauth.Session) (oauth.Session, error) {
		p, found, err := s.a.readProfile(s.dir, current)
		if err != nil || !found {
			return current, err
		}
		return current, s.a.saveProfile(s.dir, p)
	})
}

// completeProfiles offers the profiles that there are.
func (a *app) completeProfiles(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	dir, err := a.configDir()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	names, err := profiles(dir)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// complete has the shell complete the values of a flag.
func complete(cmd *cobra.Command, flag string, fn cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, fn); err != nil {
		panic(err) // there is no such flag
	}
}
