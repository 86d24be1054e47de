//go:build linux

package pcscd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// lockReaders keeps the tests of other processes away from pcscd until the test ends.
func lockReaders(t *testing.T) {
	t.Helper()
	for _, find := range []func() (string, error){findDaemon, findDriver} {
		if _, err := find(); err != nil {
			if os.Getenv("CI") != "true" {
				t.Skip(err)
			}
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	lock, err := lockFile(ctx, filepath.Join(os.TempDir(), lockName))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lock.Close() })
}

// start starts a daemon as if with the lock.
func start(t *testing.T) (*daemon, error) {
	t.Helper()
	noLock, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	return startLocked(t.Context(), noLock)
}

// runForeign runs a pcscd that is not ours.
func runForeign(t *testing.T, name string) {
	t.Helper()
	pcscd, err := findDaemon()
	if err != nil {
		t.Fatal(err)
	}
	driver, err := findDriver()
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "reader.conf")
	if err := os.WriteFile(config, readerConfig(name, driver), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), pcscd, "--foreground", "--config", config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		for _, name := range []string{pcscSocket, pcscPIDFile} {
			if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
		}
	})
	for range 500 { // until it listens
		if _, err := readers(t.Context()); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("pcscd does not answer")
}

func TestForeignDaemon(t *testing.T) {
	lockReaders(t)
	t.Run("with our readers", func(t *testing.T) {
		runForeign(t, friendlyName)
		d, err := start(t)
		if err != nil {
			t.Fatal(err)
		}
		if d.names != [seatCount]string{friendlyName + " 00 00", friendlyName + " 00 01"} {
			t.Errorf("readers %q", d.names)
		}
		if err := d.stop(); err != nil {
			t.Error(err)
		}
		if _, err := readers(t.Context()); err != nil {
			t.Errorf("a pcscd that is not ours was ended: %v", err)
		}
	})
	t.Run("with others", func(t *testing.T) {
		runForeign(t, "Virtual PCD")
		if _, err := start(t); err == nil || !strings.Contains(err.Error(), "FRIENDLYNAME") {
			t.Errorf("start: %v", err)
		}
		if _, err := readers(t.Context()); err != nil {
			t.Errorf("a pcscd that is not ours was ended: %v", err)
		}
	})
}

func TestDaemonThatEndsAtOnce(t *testing.T) {
	lockReaders(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "pcscd"), []byte("#!/bin/sh\necho no root here\nexit 3\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	_, err := start(t)
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "no root here") {
		t.Errorf("start: %v", err)
	}
}

func TestDaemonThatDoesNotRun(t *testing.T) {
	lockReaders(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "pcscd"), []byte("\x7fELF, but no more"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	if _, err := start(t); err == nil || !strings.Contains(err.Error(), "starting pcscd") {
		t.Errorf("start: %v", err)
	}
}

func TestLockFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := lockFile(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := lockFile(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("locked twice: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := lockFile(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
	if _, err := lockFile(t.Context(), filepath.Join(path, "below a file")); err == nil {
		t.Error("locked a file that cannot be")
	}
}

// TestPortIsNotEphemeral: a port that the kernel gives to outgoing connections is
// taken by other programs now and then.
func TestPortIsNotEphemeral(t *testing.T) {
	var low, high int
	ports, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(string(ports), &low, &high); err != nil {
		t.Fatal(err)
	}
	for i := range seatCount {
		if port := vpcdPort + i; port >= low && port <= high {
			t.Errorf("port %d lies between %d and %d", port, low, high)
		}
	}
}
