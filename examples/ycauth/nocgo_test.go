//go:build !windows

package main

import (
	"bytes"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestWithoutCgo: the program builds without a C compiler, and says what it then
// lacks where somebody wants it.
func TestWithoutCgo(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "ycauth.exe")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, args := range [][]string{
		{"key", "init", "--key", "yubikey"},
		{"login", "--key", "yubikey"},
		{"key", "attest", "--key", "yubikey"},
	} {
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Env = append(cmd.Environ(), "YCAUTH_CONFIG_DIR="+dir)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		err := cmd.Run()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != exitKey {
			t.Errorf("%v ended with %v, want exit code %d", args, err, exitKey)
		}
		if !strings.Contains(stderr.String(), "CGO_ENABLED=1") {
			t.Errorf("%v does not say what is missing:\n%s", args, &stderr)
		}
	}
}
