//go:build unix

package main

import (
	"bufio"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

// slowly is how long the server keeps the new refresh token to itself in these
// tests: long enough that the program is told to end meanwhile.
const slowly = time.Second

// TestEndedDuringRotation: however the program is told to end while the response
// with the new refresh token is on its way, the session is as good as before.
func TestEndedDuringRotation(t *testing.T) {
	signals := func(args []string, list ...syscall.Signal) func(*testing.T, *home) int {
		return func(t *testing.T, h *home) int {
			cmd := h.command("ycauth", args...)
			cmd.Stdout, cmd.Stderr = io.Discard, io.Discard
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			h.awaitFault()
			for _, sig := range list {
				if err := cmd.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
				time.Sleep(20 * time.Millisecond)
			}
			_ = cmd.Wait() // the exit code tells
			return cmd.ProcessState.ExitCode()
		}
	}
	list := []string{"list"}
	for _, tt := range []struct {
		name string
		end  func(*testing.T, *home) int
		code int
	}{
		{"Ctrl-C", signals(list, syscall.SIGINT), exitInterrupted},
		{"Ctrl-C thrice", signals(list, syscall.SIGINT, syscall.SIGINT, syscall.SIGINT), exitInterrupted},
		{"two SIGTERM", signals(list, syscall.SIGTERM, syscall.SIGTERM), exitInterrupted},
		{"two SIGTERM for exec", signals([]string{"exec", "--", "true"}, syscall.SIGTERM, syscall.SIGTERM), exitInterrupted},
		{"SIGTERM for token", signals([]string{"token"}, syscall.SIGTERM), exitInterrupted},
		{"two SIGTERM for token", signals([]string{"token"}, syscall.SIGTERM, syscall.SIGTERM), exitInterrupted},
		{"two SIGTERM for kube-credential", signals([]string{"kube-credential"}, syscall.SIGTERM, syscall.SIGTERM), exitInterrupted},
		{"two SIGTERM for logout", signals([]string{"logout"}, syscall.SIGTERM, syscall.SIGTERM), exitInterrupted},
		{"SIGHUP and SIGTERM", signals(list, syscall.SIGHUP, syscall.SIGTERM), exitInterrupted},
		{"reader that is gone", func(t *testing.T, h *home) int {
			// What "ycauth list -v 2>&1 | head -1" does.
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd := h.command("ycauth", "list", "-v")
			cmd.Stdout, cmd.Stderr = w, w
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			w.Close()
			h.awaitFault()
			r.Close()
			_ = cmd.Wait() // the exit code tells
			return cmd.ProcessState.ExitCode()
		}, exitBrokenPipe},
		{"terminal that is gone", func(t *testing.T, h *home) int {
			cmd := h.command("ycauth", "list", "-v")
			tty, err := pty.Start(cmd)
			if err != nil {
				t.Fatal(err)
			}
			h.awaitFault()
			tty.Close()
			_ = cmd.Wait() // the exit code tells
			return cmd.ProcessState.ExitCode()
		}, exitInterrupted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHome(t, nil)
			h.must(0, "login")
			before := h.session(defaultProfile)
			h.advance(13 * time.Hour)
			h.srv.Inject(iamtest.EndpointToken, iamtest.Slow(slowly).AfterEffect(), 1)
			if code := tt.end(t, h); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			after := h.session(defaultProfile)
			if after.RefreshToken == before.RefreshToken {
				t.Error("the new refresh token is lost")
			}
			h.advance(13 * time.Hour)
			h.must(0, "token")
		})
	}
}

// TestSecondSignalEndsAtOnce: where nothing can be lost, nobody waits, not even for
// what knows no context.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	h := newHome(t, nil)
	h.must(0, "login")
	// Nobody reads what it prints, and there is no room for more.
	var pipe [2]int
	if err := syscall.Pipe(pipe[:]); err != nil {
		t.Fatal(err)
	}
	r, w := os.NewFile(uintptr(pipe[0]), "pipe"), os.NewFile(uintptr(pipe[1]), "pipe")
	defer r.Close()
	defer w.Close()
	if err := syscall.SetNonblock(pipe[1], true); err != nil {
		t.Fatal(err)
	}
	for err := error(nil); err == nil; {
		_, err = syscall.Write(pipe[1], make([]byte, 512))
	}
	if err := syscall.SetNonblock(pipe[1], false); err != nil {
		t.Fatal(err)
	}
	cmd := h.command("ycauth", "status")
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // the exit code tells
	}()
	// Before it watches for signals the first one ends it, with no exit code.
	time.Sleep(time.Second)
	for range 2 {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	select {
	case <-ended:
	case <-time.After(patience / 2):
		t.Fatal("the program does not end")
	}
	if code := cmd.ProcessState.ExitCode(); code != exitInterrupted {
		t.Errorf("exit code %d", code)
	}
}

// TestInterruptedRead: Ctrl-C ends the wait for a token on stdin.
func TestInterruptedRead(t *testing.T) {
	h := newHome(t, nil)
	h.must(0, "login")
	cmd := h.command("ycauth", "revoke", "--refresh-token", "-")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second) // as above
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the exit code tells
	if code := cmd.ProcessState.ExitCode(); code != exitInterrupted {
		t.Errorf("exit code %d", code)
	}
}

// TestInheritedIgnore: nohup and background jobs of scripts ignore signals, and
// so does what they start.
func TestInheritedIgnore(t *testing.T) {
	t.Run("ycauth", func(t *testing.T) {
		h := newHome(t, nil)
		h.must(0, "login")
		h.srv.Inject(iamtest.EndpointList, iamtest.Slow(slowly), 1)
		cmd := h.command("sh", "-c", `trap "" HUP INT; exec ycauth list`)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		h.awaitFault()
		for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT} {
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the program did not ignore what it was told to ignore: %v", err)
		}
	})
	t.Run("its command", func(t *testing.T) {
		h := newHome(t, nil)
		h.must(0, "login")
		r := h.finish(h.command("sh", "-c", `trap "" INT HUP; exec ycauth exec -- sh -c 'kill -INT $$; kill -HUP $$; echo alive'`))
		if r.code != 0 || r.stdout != "alive\n" {
			t.Error(r)
		}
	})
	t.Run("nothing else is ignored there", func(t *testing.T) {
		h := newHome(t, nil)
		h.must(0, "login")
		for _, sig := range []string{"INT", "HUP", "TERM", "PIPE"} {
			r := h.finish(h.command("sh", "-c", `ycauth exec -- sh -c 'kill -`+sig+` $$; echo alive'; echo $?`))
			if strings.Contains(r.stdout, "alive") {
				t.Errorf("the command ignores SIG%s", sig)
			}
		}
	})
}

// TestInterruptedLogin: a second Ctrl-C does not cut the first one's end short,
// and what was stored before is as good as it was.
func TestInterruptedLogin(t *testing.T) {
	h := newHome(t, nil)
	h.must(0, "login")
	h.srv.Inject(iamtest.EndpointToken, iamtest.Slow(slowly).AfterEffect(), 1)
	cmd := h.command("ycauth", "login")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h.awaitFault()
	for range 2 {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	_ = cmd.Wait() // the exit code tells
	// The second signal can come when everything is done, and nobody watches for it any more.
	ws, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if code := cmd.ProcessState.ExitCode(); code != exitInterrupted && ws.Signal() != syscall.SIGTERM {
		t.Errorf("exit code %d", code)
	}
	h.must(0, "token")
	h.advance(13 * time.Hour)
	h.must(0, "token")
}

// TestBrowserKeepsRunning: Ctrl-C at the prompt of a login is not meant for the
// browser that the user goes on using.
func TestBrowserKeepsRunning(t *testing.T) {
	for _, variable := range []string{"BROWSER=sh ./browser.sh", "BROWSER="} {
		t.Run(variable, func(t *testing.T) {
			h := newHome(t, nil)
			script := "#!/bin/sh\ntrap 'echo interrupted > seen; exit' INT\necho opened\necho $$ > pid\ni=0\nwhile [ $i -lt 20 ]; do sleep 0.1; i=$((i+1)); done\necho done > seen\n"
			for _, name := range []string{"browser.sh", "xdg-open"} {
				if err := os.WriteFile(h.dir+"/"+name, []byte(script), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			h.env = append(h.env, variable, "PATH="+h.dir+":"+os.Getenv("PATH"))
			cmd := h.command("ycauth", "login")
			tty, err := pty.Start(cmd)
			if err != nil {
				t.Fatal(err)
			}
			defer tty.Close()
			go drain(tty)
			awaitFile(t, h.dir+"/pid")
			if _, err := tty.Write([]byte{3}); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // the exit code tells
			if code := cmd.ProcessState.ExitCode(); code != exitInterrupted {
				t.Errorf("exit code %d", code)
			}
			if got := awaitFile(t, h.dir+"/seen"); got != "done\n" {
				t.Errorf("the browser was %s", got)
			}
		})
	}
}

func drain(r io.Reader) {
	for s := bufio.NewScanner(r); s.Scan(); {
	}
}

// awaitFile returns the content of a file, once it has some.
func awaitFile(t *testing.T, path string) string {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if data, err := os.ReadFile(path); err == nil && len(data) > 0 {
			return string(data)
		}
		if time.Now().After(end) {
			t.Fatalf("%s did not come", path)
		}
	}
}
