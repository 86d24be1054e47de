//go:build unix

package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/ycauth/ycauth-go/oauth/iamtest"
	"github.com/ycauth/ycauth-go/oauth/iamtest/iamgrpc"
	"github.com/ycauth/ycauth-go/oauth/metadata"
)

// TestRunRenews: a command has tokens for longer than any token lasts, from the official Go
// SDK in it, while the one in its environment expires.
func TestRunRenews(t *testing.T) {
	h := newHome(t, nil)
	face, err := iamgrpc.New(h.srv, iamgrpc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(face.Close)
	h.env = append(h.env, "IAM_GRPC="+face.Address)
	h.must(0, "login")
	cmd := h.command("ycauth", "run", "--", "sh", "-c", "echo $YC_TOKEN; while read line; do gosdk 2>&1; done")
	stdin, lines := talk(t, cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	token := <-lines
	for range 6 {
		h.advance(2*time.Hour + 10*time.Minute)
		if _, err := io.WriteString(stdin, "list\n"); err != nil {
			t.Fatal(err)
		}
		if got := <-lines; got != "1 refresh tokens" {
			t.Fatal(got)
		}
	}
	if !h.srv.AccessTokenExpiry(token).IsZero() {
		t.Error("the token in the environment is still valid: this test showed nothing")
	}
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// talk gives the ends of a command's streams. The lines end with its output.
func talk(t *testing.T, cmd *exec.Cmd) (stdin io.WriteCloser, lines <-chan string) {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	out := make(chan string, 100)
	go func() {
		defer close(out)
		for s := bufio.NewScanner(stdout); s.Scan(); {
			out <- s.Text()
		}
	}()
	return stdin, out
}

// askMetadata asks for a token, as the Python SDK does: in a second.
func askMetadata(addr string) (int, error) {
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+addr+metadata.TokenPath, nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Metadata-Flavor", "Google")
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// TestRunWhileServerIsDown: the token in memory is served until it expires, without a wait.
func TestRunWhileServerIsDown(t *testing.T) {
	h := newHome(t, nil)
	h.must(0, "login")
	cmd := h.command("ycauth", "run", "--", "sh", "-c", "echo $YC_METADATA_ADDR; read line")
	stdin, lines := talk(t, cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	addr := <-lines
	h.srv.Inject(iamtest.EndpointToken, iamtest.HTTPStatus(503, 0), -1)
	h.advance(11*time.Hour + 50*time.Minute)
	for range 100 {
		if code, err := askMetadata(addr); code != http.StatusOK {
			t.Fatalf("%d, %v", code, err)
		}
	}
	h.advance(15 * time.Minute)
	if code, err := askMetadata(addr); code != http.StatusServiceUnavailable {
		t.Errorf("%d, %v", code, err)
	}
	h.srv.ClearFaults()
	until(t, func() bool { code, _ := askMetadata(addr); return code == http.StatusOK })
	stdin.Close()
	_ = cmd.Wait() // read has failed
}

// until waits for something to be so.
func until(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is not so")
		}
	}
}

func alive(pid int) bool {
	if runtime.GOOS == "linux" { // where a process that nobody waits for is not mistaken for one
		data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		return err == nil && !strings.Contains(string(data), ") Z ")
	}
	return syscall.Kill(pid, 0) == nil
}

// TestRunNothingIsLeft: whichever end is killed, the other one ends, and the port is closed.
func TestRunNothingIsLeft(t *testing.T) {
	for _, tt := range []struct {
		name   string
		kill   func(parent, child int) error
		code   int
		signal syscall.Signal // of the program itself
		child  string         // what the command says at last
	}{
		{"command is killed", func(_, child int) error { return syscall.Kill(child, syscall.SIGKILL) }, 128 + 9, 0, ""},
		{"command is terminated", func(_, child int) error { return syscall.Kill(child, syscall.SIGTERM) }, 3, 0, "terminated"},
		{"ycauth is terminated", func(parent, _ int) error { return syscall.Kill(parent, syscall.SIGTERM) }, 3, 0, "terminated"},
		{"ycauth is interrupted", func(parent, _ int) error { return syscall.Kill(parent, syscall.SIGINT) }, -1, syscall.SIGINT, ""},
		{"ycauth is told something", func(parent, _ int) error { return syscall.Kill(parent, syscall.SIGUSR1) }, 4, 0, "told"},
		{"ycauth hangs up", func(parent, _ int) error { return syscall.Kill(parent, syscall.SIGHUP) }, -1, syscall.SIGHUP, ""},
		{"ycauth is killed", func(parent, _ int) error { return syscall.Kill(parent, syscall.SIGKILL) }, -1, syscall.SIGKILL, "terminated"},
	} {
		if tt.signal == syscall.SIGKILL && runtime.GOOS != "linux" && runtime.GOOS != "freebsd" {
			continue // the command goes on, as documented
		}
		t.Run(tt.name, func(t *testing.T) {
			h := newHome(t, nil)
			h.must(0, "login")
			cmd := h.command("ycauth", "run", "--", "sh", "-c",
				`trap "echo terminated; exit 3" TERM; trap "echo told; exit 4" USR1; echo $$; echo $YC_METADATA_ADDR; while :; do sleep 0.1; done`)
			// No terminal: typed signals are passed on.
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			_, lines := talk(t, cmd)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			child, err := strconv.Atoi(<-lines)
			if err != nil {
				t.Fatal(err)
			}
			addr := <-lines
			if code, err := askMetadata(addr); code != http.StatusOK {
				t.Fatalf("%d, %v", code, err)
			}
			if err := tt.kill(cmd.Process.Pid, child); err != nil {
				t.Fatal(err)
			}
			if last := <-lines; last != tt.child {
				t.Errorf("the command said %q at last, want %q", last, tt.child)
			}
			_ = cmd.Wait() // the exit code tells
			status := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if cmd.ProcessState.ExitCode() != tt.code || status.Signaled() && status.Signal() != tt.signal {
				t.Errorf("%v, want exit code %d or signal %v", cmd.ProcessState, tt.code, tt.signal)
			}
			until(t, func() bool { return !alive(child) })
			if c, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
				c.Close()
				t.Error("the port is still open")
			}
		})
	}
}

// TestRunEndsDuringRotation: the end of the command loses no refresh token.
func TestRunEndsDuringRotation(t *testing.T) {
	h := newHome(t, nil)
	h.must(0, "login")
	before := h.session(defaultProfile)
	cmd := h.command("ycauth", "run", "--", "sh", "-c", "echo started; read line")
	stdin, lines := talk(t, cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-lines
	h.srv.Inject(iamtest.EndpointToken, iamtest.Slow(slowly).AfterEffect(), 1)
	h.advance(13 * time.Hour)
	h.awaitFault()
	stdin.Close()
	_ = cmd.Wait() // read has failed
	if after := h.session(defaultProfile); after.RefreshToken == before.RefreshToken {
		t.Error("the new refresh token is lost")
	}
	h.advance(13 * time.Hour)
	h.must(0, "token")
}

// TestRunIsAJob: an interactive shell stops and continues the command like any other one,
// alone and in a pipeline.
func TestRunIsAJob(t *testing.T) {
	for _, command := range []string{
		`ycauth run -- sh job.sh`,
		`ycauth run -- sh job.sh | cat`,
		`ycauth run -- sh -c 'trap "" TSTP; sh job.sh' & wait`, // stopped by nothing, and not in the foreground
	} {
		t.Run(command, func(t *testing.T) {
			background := strings.HasSuffix(command, "wait")
			h := newHome(t, nil)
			h.must(0, "login")
			script := "echo $YC_METADATA_ADDR\ni=0\nwhile [ ! -e go ]; do sleep 0.05; done\necho went on\n"
			if err := os.WriteFile(h.dir+"/job.sh", []byte(script), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := h.command("bash", "--norc", "--noprofile", "-i")
			cmd.Env = append(cmd.Env, "PS1=$ ", "TERM=dumb")
			tty, err := pty.Start(cmd)
			if err != nil {
				t.Fatal(err)
			}
			defer tty.Close()
			s := newScreen()
			go func() {
				defer close(s.end)
				_, _ = io.Copy(s, tty) // EIO when the shell has ended
			}()
			at := 0
			expect := func(pattern string) string {
				t.Helper()
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				match, end, err := s.wait(ctx, pattern, at)
				if err != nil {
					t.Fatal(err)
				}
				at = end
				return match
			}
			typing := func(text string) {
				t.Helper()
				if _, err := io.WriteString(tty, text); err != nil {
					t.Fatal(err)
				}
			}
			typing(command + "\n")
			addr := strings.TrimSpace(expect(`127\.0\.0\.1:\d+\r?\n`))
			if code, err := askMetadata(addr); code != http.StatusOK {
				t.Errorf("%d, %v", code, err)
			}
			if !background {
				typing("\x1a")
				expect("Stopped")
				if code, err := askMetadata(addr); err == nil {
					t.Errorf("a stopped program answers with %d", code)
				}
				typing("echo sh''ell\n")
				expect("shell")
				typing("fg\n")
				expect("ycauth run")
				until(t, func() bool { code, _ := askMetadata(addr); return code == http.StatusOK })
			}
			if err := os.WriteFile(h.dir+"/go", nil, 0o600); err != nil {
				t.Fatal(err)
			}
			expect("went on")
			typing("exit\n")
			if err := cmd.Wait(); err != nil && !errors.As(err, new(*exec.ExitError)) {
				t.Error(err)
			}
			<-s.end
		})
	}
}

// TestSecretPath: the official Go SDK takes an address with a path, as "ycauth run" gives it
// where the system does not tell users apart.
func TestSecretPath(t *testing.T) {
	h := newHome(t, nil)
	face, err := iamgrpc.New(h.srv, iamgrpc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(face.Close)
	h.must(0, "login")
	cmd := h.command("ycauth", "serve", "--secret-path", "--address", "127.0.0.1:0")
	_, lines := talk(t, cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	variable := <-lines
	h.env = append(h.env, "IAM_GRPC="+face.Address, variable)
	if r := h.finish(h.command("gosdk")); r.code != 0 || r.stdout != "1 refresh tokens\n" {
		t.Error(r)
	}
	addr, _, _ := strings.Cut(strings.TrimPrefix(variable, metadataVariable+"="), "/")
	if code, err := askMetadata(addr); code != http.StatusNotFound {
		t.Errorf("without the path: %d, %v", code, err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
