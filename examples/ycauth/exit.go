package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
	"github.com/ycauth/ycauth-go/piv"
	"github.com/ycauth/ycauth-go/refreshtoken"
)

// Exit codes. The package documentation is the contract.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitLogin       = 3
	exitTemporary   = 4
	exitDenied      = 5
	exitKey         = 6
	exitCannotRun   = 126
	exitNotFound    = 127
	exitInterrupted = 130
	exitBrokenPipe  = 141
)

// usageError is a mistake in the command line. Nothing was done.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// codedError is an error whose exit code its type does not tell. A nil err says
// that everything was said already.
type codedError struct {
	code int
	err  error
}

func (e codedError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}
func (e codedError) Unwrap() error { return e.err }

// outputError means that a result could not be written.
type outputError struct{ err error }

func (e outputError) Error() string { return "cannot write to standard output: " + e.err.Error() }
func (e outputError) Unwrap() error { return e.err }

// report tells the user what went wrong and returns the exit code.
func (a *app) report(ctx context.Context, cmd *cobra.Command, err error) int {
	var coded codedError
	if errors.As(err, &coded) && coded.err == nil {
		return coded.code
	}
	if errors.As(err, new(outputError)) && errors.Is(err, syscall.EPIPE) {
		return exitBrokenPipe // as any other program whose reader has gone
	}
	code := exitCode(err)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		if isTerminal(a.stderr.w) {
			a.say("") // after a prompt, or the terminal's own ^C
		}
		a.say("ycauth: interrupted")
		return exitInterrupted
	}
	a.note(red, "ycauth:", "%s", message(err))
	switch {
	case errors.Is(err, oauth.ErrSessionFormat):
		a.say("%q forgets the session.", a.commandFor("logout --local"))
	case code == exitUsage:
		a.say("See %q.", cmd.CommandPath()+" --help")
	case code == exitLogin:
		a.say("Log in with %q.", a.commandFor("login"))
	}
	return code
}

// packageNames begin the texts of our packages' errors, and tell the user nothing.
var packageNames = []string{"oauth: ", "refreshtoken: ", "filestore: ", "dpop: ", "piv: "}

// message is the error's text without the names of packages.
func message(err error) string {
	text := ": " + err.Error()
	for _, name := range packageNames {
		text = strings.ReplaceAll(text, ": "+name, ": ")
	}
	return strings.TrimPrefix(text, ": ")
}

// commandFor is a command of this program for the profile in use.
func (a *app) commandFor(command string) string {
	if a.profileName == defaultProfile {
		return "ycauth " + command
	}
	return "ycauth " + command + " --profile " + a.profileName
}

func exitCode(err error) int {
	var (
		coded    codedError
		usage    usageError
		argument *refreshtoken.ArgumentError
		config   *oauth.ConfigError
		keyFile  *dpop.KeyFileError
		card     *piv.Error
		denied   *oauth.AuthorizationError
	)
	switch {
	case errors.As(err, &coded):
		return coded.code
	case errors.As(err, &usage), errors.As(err, &argument), errors.As(err, &config), errors.Is(err, filestore.ErrProfileName):
		return exitUsage
	case errors.As(err, &keyFile), errors.As(err, &card):
		return exitKey
	case errors.Is(err, oauth.ErrLoginRequired), errors.Is(err, oauth.ErrNoSession), errors.Is(err, refreshtoken.ErrUnauthenticated):
		return exitLogin
	case errors.Is(err, refreshtoken.ErrPermissionDenied), errors.As(err, &denied) && denied.Code == "access_denied":
		return exitDenied
	case temporary(err):
		return exitTemporary
	}
	return exitFailure
}

// temporary reports whether the same command can work later.
func temporary(err error) bool {
	var server *oauth.ServerError
	if errors.As(err, &server) {
		return server.Temporary()
	}
	for _, target := range []error{
		oauth.ErrOutcomeUnknown, context.DeadlineExceeded,
		refreshtoken.ErrUnavailable, refreshtoken.ErrResourceExhausted, refreshtoken.ErrDeadlineExceeded,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	var network net.Error // also the *net.OpError of a refused connection
	var path *fs.PathError
	return errors.As(err, &network) && !errors.As(err, &path)
}
