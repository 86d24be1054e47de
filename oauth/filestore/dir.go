package filestore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ycauth/ycauth-go/internal/filelock"
)

// DefaultDir returns the default directory for the sessions of a program, app/sessions
// in [os.UserConfigDir]. On Linux that is
// $XDG_CONFIG_HOME/app/sessions, or ~/.config/app/sessions. It creates nothing.
//
// The name app follows the rules of a profile name; otherwise the error matches
// [ErrProfileName]. Other errors are those of os.UserConfigDir, for instance if $HOME
// is not set.
func DefaultDir(app string) (string, error) {
	if reason := filelock.CheckName(app); reason != "" {
		return "", &Error{Path: app, Reason: reason, Err: ErrProfileName}
	}
	config, err := os.UserConfigDir()
	if err != nil {
		return "", &Error{Path: app, Reason: "has no default directory, because the user has no configuration directory: pass an absolute path", Err: err}
	}
	if !filepath.IsAbs(config) { // where $HOME is
		return "", &Error{Path: app, Reason: "has no default directory, because the home directory is not an absolute path: correct $HOME, or pass an absolute path"}
	}
	return filepath.Join(config, app, "sessions"), nil
}

// Profiles returns the profiles that have a session in dir, sorted by name. If dir does
// not exist, there are none. It does not read the sessions. Errors are
// of type [*Error].
func Profiles(dir string) ([]string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, failed(dir, "cannot be made absolute", err)
	}
	dir = abs // as New has it: the system can take link/.. for another directory
	if err := checkDir(dir); err != nil {
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
