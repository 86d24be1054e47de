//go:build !darwin && !windows

package keyringstore

import (
	"errors"
	"strings"

	"github.com/godbus/dbus/v5"
)

// systemKind knows errors of D-Bus and the Secret Service ("Secret Service API
// Draft", freedesktop.org).
func systemKind(err error) error {
	var e dbus.Error
	var p *dbus.Error
	if errors.As(err, &p) {
		e = *p
	}
	switch {
	case p != nil || errors.As(err, &e):
		return dbusKind(e.Name)
	case strings.HasPrefix(err.Error(), "failed to unlock"): // package keyring's own, without a type
		return ErrLocked
	}
	return ErrUnavailable // no address of a bus, no socket, no connection any more
}

func dbusKind(name string) error {
	switch {
	case name == "org.freedesktop.Secret.Error.IsLocked":
		return ErrLocked
	case strings.HasPrefix(name, "org.freedesktop.DBus.Error."): // nobody answers to the name, or not as a Secret Service
		return ErrUnavailable
	}
	return nil
}
