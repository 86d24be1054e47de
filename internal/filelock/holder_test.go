package filelock

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// holdVariable makes this test binary a process that holds the lock of that path.
const holdVariable = "YCAUTH_FILELOCK_HOLD"

func init() {
	path, ok := os.LookupEnv(holdVariable)
	if !ok {
		return
	}
	if _, err := New(path).Acquire(context.Background()); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("held")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n') // the end of the test ends it, too
	os.Exit(0)
}

// holdElsewhere starts a process that holds the lock until the test ends.
func holdElsewhere(t *testing.T, path string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), holdVariable+"="+path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Fatalf("the other process said %q, %v", line, err)
	}
	return cmd
}

// soon returns a context that ends soon.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func TestHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	waits := func(pid int, who string) {
		t.Helper()
		_, err := New(path).Acquire(soon(t))
		var wait *WaitError
		if !errors.As(err, &wait) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, want a WaitError that matches ctx's", err)
		}
		if wait.Path != path || wait.Holder.PID != pid || !strings.Contains(err.Error(), who) {
			t.Errorf("%v (process %d), want %q (process %d)", err, wait.Holder.PID, who, pid)
		}
		if age := time.Since(wait.Holder.Since); pid != 0 && (age < 0 || age > time.Minute) {
			t.Errorf("held since %v", wait.Holder.Since)
		}
	}
	cmd := holdElsewhere(t, path)
	waits(cmd.Process.Pid, fmt.Sprintf("process %d, since ", cmd.Process.Pid))

	// Whoever dies leaves the record, and the next one writes his own.
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	release, err := New(path).Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	waits(os.Getpid(), "this process, since ")
	for _, damage := range []string{"", "x", "-1 5\n", strings.Repeat("9", 200)} {
		if err := os.WriteFile(path, []byte(damage), 0o600); err != nil {
			t.Fatal(err)
		}
		waits(0, "an unknown process")
	}
	release()
	if left, err := os.ReadFile(path); err != nil || len(left) != 0 {
		t.Errorf("after the release the file has %q, %v", left, err)
	}
}

// The lock's directory is swapped while it is open: the lock is in the old one.
func TestAcquireIn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d, err := OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := os.Rename(dir, dir+".old"); err != nil {
		if runtime.GOOS == "windows" {
			return // nobody can move a directory that is open
		}
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	release, err := New(filepath.Join(dir, "lock")).AcquireIn(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	release()
	if _, err := os.Stat(filepath.Join(dir+".old", "lock")); err != nil {
		t.Errorf("not in the directory that was opened: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "lock")); err == nil {
		t.Error("in the directory that has the name now")
	}
}
