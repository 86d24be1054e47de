package keyringstore

import (
	"context"
	"crypto/cipher"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/oauth/filestore"
	"github.com/ycauth/ycauth-go/oauth/storetest"
)

func TestContract(t *testing.T) {
	needsService(t)
	storetest.Run(t, subject)
}

// inService returns the key of this test in the real keyring.
func inService(t *testing.T, opts Options) (cipher.AEAD, error) {
	t.Helper()
	if opts.LockDir == "" {
		opts.LockDir = filepath.Join(t.TempDir(), "locks")
	}
	return Key(t.Context(), "ycauth-go "+t.Name(), opts)
}

func TestInService(t *testing.T) {
	needsService(t)
	key, err := inService(t, Options{})
	if err != nil {
		t.Fatal(err)
	}
	again, err := inService(t, Options{})
	if err != nil {
		t.Fatal(err)
	}
	sameKey(t, key, again)
}

func TestLocked(t *testing.T) {
	d := needsService(t)
	key, err := inService(t, Options{})
	if err != nil {
		t.Fatal(err)
	}
	d.lock(t)
	_, err = inService(t, Options{})
	checkError(t, err, ErrLocked, "unlock it")
	d.restart(t)
	again, err := inService(t, Options{})
	if err != nil {
		t.Fatal(err)
	}
	sameKey(t, key, again)
}

// The daemon hangs, before the key is read or while the program runs: a store
// that is open needs it no more.
func TestDaemonHangs(t *testing.T) {
	d := needsService(t)
	key, err := inService(t, Options{Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	s, err := filestore.New(filepath.Join(t.TempDir(), "sessions"), "default", filestore.WithSeal(key))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.freeze(); err != nil {
		t.Fatal(err)
	}
	_, err = inService(t, Options{Timeout: 50 * time.Millisecond})
	checkError(t, err, ErrTimeout, "set a longer Options.Timeout")
	put(t, s, session(1))
	if got, err := s.Load(t.Context()); err != nil || got.Generation != 1 {
		t.Errorf("while the daemon hangs: %v, %v", got, err)
	}
	if err := d.thaw(); err != nil {
		t.Fatal(err)
	}
	again, err := inService(t, Options{Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	sameKey(t, key, again)
}

// probeVariable makes a process tell what Load says where its environment leads.
const probeVariable = "YCAUTH_KEYRINGSTORE_PROBE"

func probe() int {
	_, err := Key(context.Background(), "ycauth-go probe", Options{LockDir: os.Getenv(probeVariable), Timeout: 20 * time.Second})
	for name, kind := range map[string]error{
		"unavailable": ErrUnavailable, "locked": ErrLocked, "timeout": ErrTimeout,
	} {
		if errors.Is(err, kind) {
			fmt.Print(name + ": ")
		}
	}
	fmt.Println(err)
	return 0
}

func TestHeadless(t *testing.T) {
	needsService(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	home, err := os.MkdirTemp("", "kh") //nolint:usetesting // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	for name, tc := range map[string]struct {
		command []string
		env     []string
		want    string
	}{
		"no socket at the address": {
			[]string{self}, []string{"DBUS_SESSION_BUS_ADDRESS=unix:path=" + filepath.Join(home, "none"), "PATH=/nowhere"}, "unavailable",
		},
		"no address": {
			[]string{self}, []string{"PATH=/nowhere"}, "unavailable",
		},
		"a bus without a keyring": {
			[]string{self}, []string{"DBUS_SESSION_BUS_ADDRESS=" + emptyBus(t), "PATH=/nowhere"}, "unavailable",
		},
		"a keyring that nobody unlocks": {
			[]string{"dbus-run-session", "--", self}, []string{"HOME=" + home, "XDG_RUNTIME_DIR=" + home, "PATH=" + os.Getenv("PATH")}, "locked",
		},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), tc.command[0], tc.command[1:]...)
			cmd.Env = slices.Concat(tc.env, []string{probeVariable + "=" + t.TempDir()})
			out, err := cmd.Output()
			if err != nil || !strings.HasPrefix(string(out), tc.want+": ") {
				t.Errorf("got %q, %v, want %s", out, err, tc.want)
			}
		})
	}
}

// emptyBus starts a D-Bus daemon that nobody provides a service on.
func emptyBus(t *testing.T) (address string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "bus") //nolint:usetesting // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	config := filepath.Join(dir, "bus.conf")
	address = "unix:path=" + filepath.Join(dir, "socket")
	err = os.WriteFile(config, []byte(`<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>`+address+`</listen>
  <auth>EXTERNAL</auth>
  <policy context="default"><allow send_destination="*"/><allow eavesdrop="true"/><allow own="*"/></policy>
</busconfig>`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("dbus-daemon", "--config-file="+config, "--nofork", "--print-address")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if _, err := out.Read(make([]byte, 1)); err != nil { // it prints when it listens
		t.Fatal(err)
	}
	return address
}
