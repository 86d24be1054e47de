package keyringstore

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// sessionVariable marks a process in a D-Bus session that is private to the
// tests, with the temporary home that belongs to it.
const sessionVariable = "YCAUTH_KEYRINGSTORE_SESSION"

// password unlocks the keyring. An empty one would open a prompt.
const password = "test"

// service is the running Secret Service.
var service *daemon

// withKeyring runs the tests in a D-Bus session of their own, with a GNOME
// Keyring of their own: the user's keyring is not touched. The test binary starts
// itself again for that.
func withKeyring(run func() int) int {
	if slices.Contains(os.Args, "-test.fuzzworker") {
		return run()
	}
	if os.Getenv(sessionVariable) != "" {
		return inSession(run)
	}
	if os.Getenv(probeVariable) != "" {
		return probe()
	}
	if missing() != "" {
		return run() // needsService decides what that means
	}
	home, err := os.MkdirTemp("", "ks")
	if err != nil {
		return complain(err)
	}
	defer os.RemoveAll(home)
	if err := os.Mkdir(filepath.Join(home, "run"), 0o700); err != nil {
		return complain(err)
	}
	quiet := filepath.Join(home, "dbus-daemon") // it has much to say about rights and displays that it lacks
	if err := os.WriteFile(quiet, []byte("#!/bin/sh\nexec dbus-daemon \"$@\" 2>/dev/null\n"), 0o700); err != nil {
		return complain(err)
	}
	self, err := os.Executable()
	if err != nil {
		return complain(err)
	}
	cmd := exec.Command("dbus-run-session", append([]string{"--dbus-daemon=" + quiet, "--", self}, os.Args[1:]...)...)
	cmd.Env = privateEnv(home)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return complain(err)
	}
	return cmd.ProcessState.ExitCode()
}

// privateEnv has no way to the user's session: no bus, no display for a prompt.
func privateEnv(home string) []string {
	env := slices.DeleteFunc(os.Environ(), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return name == "HOME" || name == "DISPLAY" || name == "WAYLAND_DISPLAY" || name == "DBUS_SESSION_BUS_ADDRESS" ||
			strings.HasPrefix(name, "XDG_") || strings.HasPrefix(name, "GNOME_")
	})
	return append(env, sessionVariable+"="+home, "HOME="+home, "XDG_RUNTIME_DIR="+filepath.Join(home, "run"))
}

func inSession(run func() int) int {
	var err error
	if service, err = startDaemon(); err != nil {
		return complain(err)
	}
	defer service.stop()
	return run()
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "keyringstore tests:", err)
	return 1
}

// missing says what a real Secret Service would need; "" if all is there.
func missing() string {
	for _, name := range []string{"dbus-run-session", "dbus-daemon", "gnome-keyring-daemon"} {
		if _, err := exec.LookPath(name); err != nil {
			return name + " is not installed (Debian: apt-get install dbus gnome-keyring)"
		}
	}
	return ""
}

// needsService is for tests that cannot do without one. Where tests must not
// skip, a missing one fails them.
func needsService(t *testing.T) *daemon {
	t.Helper()
	if service == nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(missing())
		}
		t.Skip(missing())
	}
	return service
}

// A daemon is a running gnome-keyring-daemon.
type daemon struct {
	cmd *exec.Cmd
	log *bytes.Buffer
}

// startDaemon starts an unlocked Secret Service and waits until it has its name
// on the bus.
func startDaemon() (*daemon, error) {
	d := &daemon{
		cmd: exec.Command("gnome-keyring-daemon", "--foreground", "--unlock", "--components=secrets"),
		log: &bytes.Buffer{},
	}
	d.cmd.Stdin = strings.NewReader(password)
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	bus, err := dbus.ConnectSessionBus()
	if err != nil {
		return nil, err
	}
	defer bus.Close()
	const name = "org.freedesktop.secrets"
	signals := make(chan *dbus.Signal, 16)
	bus.Signal(signals)
	if err := bus.AddMatchSignal(dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, name)); err != nil {
		return nil, err
	}
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	late := time.After(30 * time.Second)
	for {
		select {
		case s := <-signals:
			if len(s.Body) > 0 && s.Body[0] == name {
				return d, nil
			}
		case <-late:
			d.stop()
			return nil, fmt.Errorf("gnome-keyring-daemon does not come up: %s", d.log.String())
		}
	}
}

func (d *daemon) stop() {
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait()
}

// freeze keeps the daemon from answering; thaw lets it go on.
func (d *daemon) freeze() error { return d.cmd.Process.Signal(syscall.SIGSTOP) }
func (d *daemon) thaw() error   { return d.cmd.Process.Signal(syscall.SIGCONT) }

// lock locks the keyring, as a user can who leaves.
func (d *daemon) lock(t *testing.T) {
	t.Helper()
	bus, err := dbus.ConnectSessionBus()
	if err != nil {
		t.Fatal(err)
	}
	defer bus.Close()
	err = bus.Object("org.freedesktop.secrets", "/org/freedesktop/secrets").
		Call("org.freedesktop.Secret.Service.Lock", 0, []dbus.ObjectPath{"/org/freedesktop/secrets/collection/login"}).Err
	if err != nil {
		t.Fatal(err)
	}
}

// restart ends the daemon and starts another one, which is unlocked.
func (d *daemon) restart(t *testing.T) {
	t.Helper()
	d.stop()
	next, err := startDaemon()
	if err != nil {
		t.Fatal(err)
	}
	*d = *next
}
