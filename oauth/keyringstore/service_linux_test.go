package keyringstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/storetest"
)

func TestContract(t *testing.T) {
	needsService(t)
	storetest.Run(t, subject)
}

func TestContractInParts(t *testing.T) {
	needsService(t)
	storetest.Run(t, subjectInParts)
}

// inService returns a store in the real keyring.
func inService(t *testing.T, opts Options) *Store {
	t.Helper()
	opts.LockDir = filepath.Join(t.TempDir(), "locks")
	s, err := New("ycauth-go test", strings.ToLower(t.Name()), opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLocked(t *testing.T) {
	d := needsService(t)
	s := inService(t, Options{})
	put(t, s, session(1))
	d.lock(t)
	_, err := s.Load(t.Context())
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "unlock it") {
		t.Errorf("Load: got %v, want ErrLocked", err)
	}
	err = s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) {
		t.Error("Update called fn")
		return session(2), nil
	})
	if !errors.Is(err, ErrLocked) {
		t.Errorf("Update: got %v, want ErrLocked", err)
	}
	err = s.Discard(t.Context())
	if !errors.Is(err, ErrLocked) {
		t.Errorf("Discard: got %v, want ErrLocked", err)
	}
	d.restart(t)
	if got, err := s.Load(t.Context()); err != nil || got.Generation != 1 {
		t.Errorf("unlocked again: %v, %v", got, err)
	}
}

func TestDaemonHangs(t *testing.T) {
	d := needsService(t)
	s := inService(t, Options{Timeout: 50 * time.Millisecond})
	patient := *s
	patient.timeout = time.Minute
	put(t, &patient, session(1))
	if err := d.freeze(); err != nil {
		t.Fatal(err)
	}
	_, err := s.Load(t.Context())
	if !errors.Is(err, ErrTimeout) {
		t.Errorf("Load: got %v, want ErrTimeout", err)
	}
	if err := d.thaw(); err != nil {
		t.Fatal(err)
	}
	if got, err := patient.Load(t.Context()); err != nil || got.Generation != 1 {
		t.Errorf("after the daemon went on: %v, %v", got, err)
	}
}

// The daemon hangs when Update writes, and goes on later: until then nobody else
// gets the lock, and nothing newer is overwritten.
func TestDaemonHangsInWrite(t *testing.T) {
	d := needsService(t)
	s := inService(t, Options{Timeout: 2 * time.Second})
	patient := *s
	patient.timeout = time.Minute
	put(t, &patient, session(1))
	err := s.Update(t.Context(), func(oauth.Session) (oauth.Session, error) { return session(2), d.freeze() })
	if !errors.Is(err, ErrTimeout) {
		t.Errorf("Update: got %v, want ErrTimeout", err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err = patient.Update(short, func(oauth.Session) (oauth.Session, error) {
		t.Error("Update called fn while a write hangs")
		return session(9), nil
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("another Update: got %v, want the end of its ctx", err)
	}
	if err := d.thaw(); err != nil {
		t.Fatal(err)
	}
	var found oauth.Session
	err = patient.Update(t.Context(), func(current oauth.Session) (oauth.Session, error) {
		found = current
		return session(3), nil
	})
	if err != nil || (found.Generation != 1 && found.Generation != 2) {
		t.Errorf("after the daemon went on: found generation %d, %v", found.Generation, err)
	}
	if got, err := patient.Load(t.Context()); err != nil || got.Generation != 3 {
		t.Errorf("got generation %d, %v, want 3", got.Generation, err)
	}
}

// probeVariable makes a process tell what Load says where its environment leads.
const probeVariable = "YCAUTH_KEYRINGSTORE_PROBE"

func probe() int {
	s, err := New("ycauth-go test", "probe", Options{LockDir: os.Getenv(probeVariable), Timeout: 20 * time.Second})
	if err != nil {
		return complain(err)
	}
	_, err = s.Load(context.Background())
	for name, kind := range map[string]error{
		"unavailable": ErrUnavailable, "locked": ErrLocked, "timeout": ErrTimeout, "no session": oauth.ErrNoSession,
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
