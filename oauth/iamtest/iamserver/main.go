// Iamserver runs the embedded IAM of package iamtest as a server on this computer, to
// try command lines, services and your own programs without
// an account:
//
//	go run ./oauth/iamtest/iamserver
//	go run github.com/ycauth/ycauth-go/oauth/iamtest/iamserver@latest
//
// It prints the variables to export in another terminal. If you write them to a file, with
// "iamserver >iam.env", run in the other terminal
//
//	until [ -s iam.env ]; do sleep 1; done # the file is empty until the server is built
//	. ./iam.env
//	: "${YCAUTH_ENDPOINT:?}" # or ycauth would use the real cloud
//	go run ./examples/ycauth login
//
// Once that can be done, standard error says that the server is ready.
//
// It logs in everyone who asks, keeps everything in memory, and listens on the loopback
// interface alone. Requests are logged to standard error, without secrets. Ctrl-C or
// SIGTERM ends it, and removes the directory that it names for sessions. ("go run"
// passes on Ctrl-C only: build the program to start it from a script.)
//
// To see renewals, use short-lived tokens and always replace refresh tokens:
//
//	go run ./oauth/iamtest/iamserver -access-life 1m -rotation always
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.As(err, new(usageError)):
		os.Exit(2) // package flag has said it
	case err != nil:
		fmt.Fprintln(os.Stderr, "iamserver:", err)
		os.Exit(1)
	}
}

// A usageError is a mistake in the flags.
type usageError struct{ error }

// run serves until ctx ends. The lines to export go to stdout, at once.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	opts, seeds, err := parse(args, stderr)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "iamserver-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	iam, err := iamtest.New(opts) //nolint:contextcheck // a server lives until it is closed
	if err != nil {
		return err
	}
	defer iam.Close()
	seed(iam, seeds)
	if _, err := io.WriteString(stdout, explain(iam, dir)); err != nil {
		return err
	}
	fmt.Fprintf(stderr, "iamserver: ready at %s\n", iam.URL)
	<-ctx.Done()
	return nil
}

func parse(args []string, stderr io.Writer) (opts iamtest.Options, seeds int, err error) {
	opts = iamtest.Options{
		Nonces: iamtest.NoncesRequired, Rotation: iamtest.RotateNearEnd,
		Logger: slog.New(slog.NewTextHandler(stderr, nil)),
	}
	f := flag.NewFlagSet("iamserver", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&opts.Port, "port", 0, "`port` of 127.0.0.1 to listen at; 0 is any free one")
	f.DurationVar(&opts.AccessLife, "access-life", 12*time.Hour, "lifetime of IAM tokens")
	f.DurationVar(&opts.RefreshLife, "refresh-life", 31*24*time.Hour, "lifetime of refresh tokens")
	oneOf(f, &opts.Rotation, "rotation", "when a renewal replaces the refresh token", iamtest.RotateNearEnd, iamtest.RotateNever, iamtest.RotateAlways)
	oneOf(f, &opts.Nonces, "nonces", "whether proofs need a nonce from the server", iamtest.NoncesOff, iamtest.NoncesOptional, iamtest.NoncesRequired)
	f.BoolVar(&opts.AllowUnbound, "unbound", false, "accept token requests without a proof")
	f.BoolVar(&opts.RefreshTokensOff, "no-refresh-tokens", false, "issue none, like an organization that has not enabled them")
	ahead := f.Duration("ahead", 0, "how far the server's clock is ahead of this computer's; negative is behind")
	f.IntVar(&seeds, "seed", 2, "number of refresh tokens of earlier logins to list and revoke")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return opts, 0, err
		}
		return opts, 0, usageError{err}
	}
	for _, wrong := range []struct {
		is   bool
		text string
	}{
		{f.NArg() > 0, fmt.Sprintf("unexpected argument %q: use flags, see -help", f.Arg(0))},
		{opts.Port < 0 || opts.Port > 65535, fmt.Sprintf("-port is %d: want 0 to 65535", opts.Port)},
		{opts.AccessLife < time.Second, fmt.Sprintf("-access-life is %v: want a second or more", opts.AccessLife)},
		{opts.RefreshLife < time.Second, fmt.Sprintf("-refresh-life is %v: want a second or more", opts.RefreshLife)},
		{seeds < 0, fmt.Sprintf("-seed is %d: want 0 or more", seeds)},
	} {
		if wrong.is {
			fmt.Fprintln(stderr, "iamserver:", wrong.text)
			return opts, 0, usageError{errors.New(wrong.text)}
		}
	}
	opts.Now = func() time.Time { return time.Now().Add(*ahead) }
	return opts, seeds, nil
}

// oneOf defines a flag with the values given.
func oneOf[T ~string](f *flag.FlagSet, p *T, name, usage string, values ...T) {
	names := make([]string, len(values))
	for i, v := range values {
		names[i] = string(v)
	}
	list := strings.Join(names, ", ")
	f.Func(name, fmt.Sprintf("%s: %s (default %s)", usage, list, *p), func(s string) error {
		if !slices.Contains(names, s) {
			return errors.New("want one of " + list)
		}
		*p = T(s)
		return nil
	})
}

// seed puts earlier logins of the same user into the server.
func seed(iam *iamtest.Server, n int) {
	iam.Seed(n, func(i int, t *iamtest.Seed) {
		t.ClientInstanceInfo = []string{"yc/0.141.0", "old-laptop/0.9"}[i%2]
		t.ProtectionLevel = []iamtest.ProtectionLevel{iamtest.SecureKeyDPoP, iamtest.NoProtection}[i%2]
		t.LastUsedAt = iam.Now().Add(-time.Duration(i%2+1) * 12 * 24 * time.Hour)
		t.CreatedAt = t.LastUsedAt
	})
}

// explain is a part of a shell script.
func explain(iam *iamtest.Server, dir string) string {
	p := iam.Provider()
	return fmt.Sprintf(`# An IAM that logs in everyone, at %[1]s, until Ctrl-C.
# In the terminal in which you try something:
export YCAUTH_ENDPOINT=%[1]s
export YCAUTH_CONFIG_DIR=%[2]s
export SERVICE_IAM=%[1]s SERVICE_API=%[1]s/api/whoami SERVICE_SESSIONS=%[3]s
# Without a browser:
#   export BROWSER='curl -sSLo /dev/null'
# For a program of your own:
#   client ID               %[4]s
#   authorization endpoint  %[5]s
#   token endpoint          %[6]s
#   RefreshToken API        %[7]s
#   a resource              %[1]s/api/whoami
`, iam.URL, quote(filepath.Join(dir, "ycauth")), quote(filepath.Join(dir, "service", "sessions")), iam.ClientID, p.AuthURL, p.TokenURL, iam.IAMEndpoint())
}

// quote makes one word of s for a shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
