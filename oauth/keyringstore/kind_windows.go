package keyringstore

import (
	"errors"
	"syscall"
)

// ERROR_NO_SUCH_LOGON_SESSION ("System Error Codes", Microsoft): the Credential
// Manager is for users who logged on, not for every service or network logon.
const errNoSuchLogonSession = syscall.Errno(1312)

func systemKind(err error) error {
	if errors.Is(err, errNoSuchLogonSession) {
		return ErrUnavailable
	}
	return nil
}
