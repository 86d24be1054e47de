//go:build unix

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain makes the test binary the browser as well.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == browse {
		main()
		return
	}
	if os.Getenv("TEST_TRY") != "" {
		os.Unsetenv("TEST_TRY")
		main()
		return
	}
	os.Exit(m.Run())
}

func TestTry(t *testing.T) {
	var stdout, stderr bytes.Buffer
	code, err := run(t.Context(), []string{"sh", "-c", `
		set -e
		ycauth login
		ycauth list
		ycauth revoke --older-than 20d --yes
		ycauth logout
		exit 7`}, nil, &stdout, &stderr)
	if code != 7 || err != nil {
		t.Fatalf("%d, %v\n%s%s", code, err, &stdout, &stderr)
	}
	for _, want := range []string{"State            logged in", "old-laptop/0.9", "revoked"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("no %q in\n%s", want, &stdout)
		}
	}
	if _, err := run(t.Context(), []string{"no-such-command"}, nil, &stdout, &stderr); err == nil {
		t.Error("a command that is not there was run")
	}
}

// process starts this program in a process of its own.
func process(t *testing.T, tmp string, command ...string) (cmd *exec.Cmd, stdout *bytes.Buffer) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.CommandContext(t.Context(), self, command...)
	cmd.Env = append(os.Environ(), "TEST_TRY=1", "TMPDIR="+tmp)
	stdout = new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = stdout, stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, stdout
}

// TestInterruptIsForTheCommand: Ctrl-C ends the command, as it would without this
// program.
func TestInterruptIsForTheCommand(t *testing.T) {
	cmd, stdout := process(t, t.TempDir(), "sh", "-c", "kill -INT $$; echo alive")
	_ = cmd.Wait() // the output tells
	if strings.Contains(stdout.String(), "alive") {
		t.Errorf("the command ignores an interrupt:\n%s", stdout)
	}
}

// TestNothingIsLeft: the directory with the session goes, whatever ends the program.
func TestNothingIsLeft(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(sig.String(), func(t *testing.T) {
			tmp := t.TempDir()
			ready := filepath.Join(t.TempDir(), "ready")
			cmd, stdout := process(t, tmp, "sh", "-c", "echo > "+ready+"; exec sleep 100")
			for end := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
				if _, err := os.Stat(ready); err == nil {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("the command does not start:\n%s", stdout)
				}
			}
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // the exit code tells
			if code := cmd.ProcessState.ExitCode(); code != codeEnded {
				t.Errorf("exit code %d\n%s", code, stdout)
			}
			if left, err := filepath.Glob(filepath.Join(tmp, "ycauth-try-*")); err != nil || len(left) > 0 {
				t.Errorf("%v is left, %v", left, err)
			}
		})
	}
}

// TestTryWithoutPCSC: a compiler that lacks the headers of PC/SC is no obstacle.
func TestTryWithoutPCSC(t *testing.T) {
	t.Setenv("CGO_ENABLED", "1")
	t.Setenv("CGO_CFLAGS", "-DTEST_TRY") // not what is in the build cache
	t.Setenv("PKG_CONFIG", filepath.Join(t.TempDir(), "no-such-pkg-config"))
	var stdout, stderr bytes.Buffer
	code, err := run(t.Context(), []string{"sh", "-c", "ycauth login && ycauth token"}, nil, &stdout, &stderr)
	if code != 0 || err != nil {
		t.Fatalf("%d, %v\n%s%s", code, err, &stdout, &stderr)
	}
	if n := strings.Count(stderr.String(), "CGO_ENABLED=0"); n != 1 {
		t.Errorf("what is missing is said in %d lines:\n%s", n, &stderr)
	}
}
