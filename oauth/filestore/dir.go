package filestore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ycauth/ycauth-go/internal/filelock"
)

// DefaultDir returns where the sessions of a program belong: the directory
// "sessions" in the directory app of [os.UserConfigDir]. On Linux that is
// $XDG_CONFIG_HOME/app/sessions, or ~/.config/app/sessions. It creates nothing.
//
// The error is that of os.UserConfigDir, for instance where $HOME is not set, or
// matches [ErrProfileName], whose rules app must keep, too.
func DefaultDir(app string) (string, error) {
	if reason := filelock.CheckName(app); reason != "" {
		return "", &Error{Path: app, Reason: reason, Err: ErrProfileName}
	}
	config, err := os.UserConfigDir()
	if err != nil {
		return "", &Error{Path: app, Reason: "has no directory, because the user has none for configuration: name one", Err: err}
	}
	return filepath.Join(config, app, "sessions"), nil
}

// Profiles returns the profiles that have a session in dir, sorted by name. There
// are none where there is no such directory. The sessions are not read. Errors are
// of type [*Error].
func Profiles(dir string) ([]string, error) {
	if err := checkFolder(dir); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, failed(dir, "cannot be listed", err)
	}
	var profiles []string
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), dataSuffix)
		if ok && !e.IsDir() && filelock.CheckName(name) == "" {
			profiles = append(profiles, name)
		}
	}
	return profiles, nil
}
