package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

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
// lies beside it, in a filestore.
type profile struct {
	Version      int       `json:"version"`
	ClientID     string    `json:"client_id"`
	FederationID string    `json:"federation_id,omitempty"`
	Endpoints    endpoints `json:"endpoints"`
	Key          keyChoice `json:"key"`
}

// configDir is where the program keeps everything.
func (a *app) configDir() (string, error) {
	if dir := a.getenv("YCAUTH_CONFIG_DIR"); dir != "" {
		return filepath.Abs(dir)
	}
	sessions, err := filestore.DefaultDir("ycauth")
	return filepath.Dir(sessions), err
}

// openStore returns the store of the profile's session. It also is what checks
// the profile's name, before that becomes part of other paths.
func (a *app) openStore() (store *filestore.Store, dir string, err error) {
	dir, err = a.configDir()
	if err != nil {
		return nil, "", err
	}
	store, err = filestore.New(filepath.Join(dir, "sessions"), a.profileName)
	return store, dir, err
}

func (a *app) profilePath(dir string) string {
	return filepath.Join(dir, "profiles", a.profileName+".json")
}

// loadProfile returns the profile, or a new one if it was never saved, with the
// endpoints that the flags ask for.
func (a *app) loadProfile(dir string) (profile, error) {
	path := a.profilePath(dir)
	// Whoever can write there decides where IAM tokens are sent.
	if err := filelock.CheckFolder(filepath.Dir(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return profile{}, err
	}
	p := newProfile()
	data, err := os.ReadFile(path)
	if err == nil {
		if p, err = decodeProfile(data); err != nil {
			return profile{}, fmt.Errorf("%s %w", path, err)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return profile{}, err
	}
	p.Endpoints = a.endpoint.apply(p.Endpoints)
	return p, nil
}

func newProfile() profile {
	return profile{Version: profileVersion, ClientID: oauth.YandexCloudClientID, Endpoints: yandexCloud()}
}

// decodeProfile reads what saveProfile wrote. Its errors go on from the name of
// the file.
func decodeProfile(data []byte) (profile, error) {
	p := newProfile()
	if err := json.Unmarshal(data, &p); err != nil {
		return profile{}, fmt.Errorf("is not the configuration of a profile (%w): correct or remove it", err)
	}
	if p.Version != profileVersion {
		return profile{}, fmt.Errorf("has version %d, and this program knows version %d: a newer release may have written it", p.Version, profileVersion)
	}
	if p.Key.File != "" && p.Key.Card != nil {
		return profile{}, errors.New("names two keys, a file and a YubiKey: remove one")
	}
	return p, nil
}

// saveProfile writes the profile so that it survives a crash.
func (a *app) saveProfile(dir string, p profile) error {
	data, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	path := a.profilePath(dir)
	if err := filelock.MakeFolder(filepath.Dir(path)); err != nil {
		return err
	}
	return durable.Replace(path, append(data, '\n'), 0o600)
}

// recordingStore saves the profile together with the session of a login: just
// before it, under its lock. A session without the choice of its key would be of
// no use.
type recordingStore struct {
	oauth.Store
	save func() error
}

func (s recordingStore) Update(ctx context.Context, fn func(oauth.Session) (oauth.Session, error)) error {
	return s.Store.Update(ctx, func(current oauth.Session) (oauth.Session, error) {
		next, err := fn(current)
		if err == nil {
			err = s.save()
		}
		return next, err
	})
}

// completeProfiles offers the profiles that have a session.
func (a *app) completeProfiles(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	dir, err := a.configDir()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	names, err := filestore.Profiles(filepath.Join(dir, "sessions"))
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
