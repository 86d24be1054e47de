package keyringstore

import (
	"errors"
	"testing"

	"github.com/godbus/dbus/v5"
)

func TestSystemKind(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		want error
	}{
		"no service":          {dbus.Error{Name: "org.freedesktop.DBus.Error.ServiceUnknown"}, ErrUnavailable},
		"the service died":    {dbus.NewError("org.freedesktop.DBus.Error.NoReply", nil), ErrUnavailable},
		"a locked item":       {dbus.Error{Name: "org.freedesktop.Secret.Error.IsLocked"}, ErrLocked},
		"not unlocked":        {errors.New("failed to unlock correct collection '/org/freedesktop/secrets/aliases/default'"), ErrLocked},
		"something else":      {dbus.Error{Name: "org.freedesktop.Secret.Error.NoSession"}, nil},
		"the connection ends": {dbus.ErrClosed, ErrUnavailable},
	} {
		if got := systemKind(tc.err); got != tc.want { //nolint:errorlint // they are sentinels
			t.Errorf("%s: %v is %v, want %v", name, tc.err, got, tc.want)
		}
	}
}
