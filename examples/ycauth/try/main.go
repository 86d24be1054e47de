// Try runs a command, by default a shell, in which ycauth works without an account:
// against an IAM of its own, with a browser that agrees to everything, and in a
// configuration directory that is removed at the end.
//
//	go run ./examples/ycauth/try
//	go run ./examples/ycauth/try sh -c 'ycauth login && ycauth list'
//
// $YCAUTH_ENDPOINT, $YCAUTH_CONFIG_DIR and $BROWSER point there, and ycauth is built
// and first in $PATH, without cgo where PC/SC or a C compiler is missing. It needs the
// Go tool, and a system other than Windows, where $BROWSER cannot hold a path.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

// browse is the argument that makes this program a browser.
const browse = "-browse"

const (
	// patience is how long the command may take to end when this program is told to.
	patience = 5 * time.Second
	// codeEnded is the exit code then, as that of ycauth.
	codeEnded = 130
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == browse {
		if err := visit(context.Background(), os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "try:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(watched())
}

// watched runs the command and removes its directory however it ends. Ctrl-C is for
// the command: it is caught and dropped here, because a signal that is ignored would
// be ignored by the command as well.
func watched() int {
	interrupts := make(chan os.Signal, 1)
	if !signal.Ignored(os.Interrupt) {
		signal.Notify(interrupts, os.Interrupt)
	}
	go func() {
		for range interrupts {
		}
	}()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if !signal.Ignored(syscall.SIGHUP) {
		var hungUp context.CancelFunc
		ctx, hungUp = signal.NotifyContext(ctx, syscall.SIGHUP)
		defer hungUp()
	}
	code, err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "try:", err)
	}
	return code
}

// run returns the exit code of the command.
func run(ctx context.Context, command []string, stdin io.Reader, stdout, stderr io.Writer) (code int, err error) {
	if len(command) == 0 {
		command = []string{cmp.Or(os.Getenv("SHELL"), "sh")}
	}
	dir, err := os.MkdirTemp("", "ycauth-try-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	if err := build(ctx, filepath.Join(dir, "bin", "ycauth"), stderr); err != nil {
		return 1, err
	}
	browser, err := os.Executable()
	if err != nil {
		return 1, err
	}
	iam, err := iamtest.New(iamtest.Options{Nonces: iamtest.NoncesRequired})
	if err != nil {
		return 1, err
	}
	defer iam.Close()
	iam.Seed(2, func(i int, t *iamtest.Seed) { // something to list and revoke
		t.ClientInstanceInfo = []string{"yc/0.141.0", "old-laptop/0.9"}[i]
		t.ProtectionLevel = []iamtest.ProtectionLevel{iamtest.SecureKeyDPoP, iamtest.NoProtection}[i]
		t.LastUsedAt = iam.Now().Add(-time.Duration(i+1) * 12 * 24 * time.Hour)
		t.CreatedAt = t.LastUsedAt
	})
	fmt.Fprintf(stderr, "An IAM runs at %s, as long as %s does. Begin with: ycauth login\n", iam.URL, command[0])
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(cmd.Environ(),
		"PATH="+filepath.Join(dir, "bin")+string(os.PathListSeparator)+os.Getenv("PATH"),
		"YCAUTH_ENDPOINT="+iam.URL, "YCAUTH_CONFIG_DIR="+filepath.Join(dir, "config"), "YCAUTH_PROFILE=",
		"BROWSER="+browser+" "+browse,
	)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	// An interactive shell ignores SIGTERM.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGHUP) }
	cmd.WaitDelay = patience
	err = cmd.Run()
	if ctx.Err() != nil {
		return codeEnded, nil
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 1, err
	}
	return 0, nil
}

// build makes ycauth. With cgo that takes a C compiler, pkg-config and the headers of
// PC/SC, which only keys on a YubiKey need: where one is missing, it is built without.
func build(ctx context.Context, program string, stderr io.Writer) error {
	out, err := goBuild(ctx, program)
	if err == nil || ctx.Err() != nil {
		return err
	}
	if _, second := goBuild(ctx, program, "CGO_ENABLED=0"); second != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	fmt.Fprintln(stderr, "ycauth was built with CGO_ENABLED=0, because it did not build with cgo: keys are in files, not on a YubiKey.")
	return nil
}

func goBuild(ctx context.Context, program string, env ...string) (out []byte, err error) {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", program, "github.com/ycauth/ycauth-go/examples/ycauth")
	cmd.Env = append(cmd.Environ(), env...)
	return cmd.CombinedOutput()
}

// visit is a browser for a server that asks no questions: it follows redirects.
func visit(ctx context.Context, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	client := &http.Client{Timeout: 30 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}
