package keyringstore

import (
	"errors"
	"io/fs"
	"os/exec"
)

// systemKind knows exit statuses of the security command, which are the lowest
// byte of an OSStatus ("Security Framework Result Codes", Apple).
func systemKind(err error) error {
	var exit *exec.ExitError
	if errors.Is(err, fs.ErrNotExist) {
		return ErrUnavailable // there is no such command
	}
	if !errors.As(err, &exit) {
		return nil
	}
	switch exit.ExitCode() {
	case 36, // errSecInteractionNotAllowed, -25308: over ssh, for instance
		51,  // errSecAuthFailed, -25293
		128: // errSecUserCanceled, -128
		return ErrLocked
	case 37, // errSecNoDefaultKeychain, -25307
		50, // errSecNoSuchKeychain, -25294
		53: // errSecNotAvailable, -25291
		return ErrUnavailable
	}
	return nil
}
