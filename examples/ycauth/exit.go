package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
	"github.com/ycauth/ycauth-go/piv"
	"github.com/ycauth/ycauth-go/refreshtoken"
)

// Exit codes. exitTable says what they mean.
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

type exitRow struct {
	code    int
	meaning string
	match   func(error) bool
}

// exitTable is the contract with scripts. An error has the code of the first row
// that matches it, and 1 if none does. The rows without a match belong to errors
// that carry their code.
var exitTable = []exitRow{
	{exitOK, "done", nil},
	{exitFailure, "failure", nil},
	{exitUsage, "usage error: a wrong command, flag or argument; nothing was changed", wrongUsage},
	{exitKey, "key error: no such file, another key, no card, wrong PIN, no touch, built without cgo", keyTrouble},
	{exitLogin, "log in again", loginNeeded},
	{exitDenied, "permission denied", permissionDenied},
	{exitTemporary, "temporary network or server error (HTTP 5xx); the same command may work later", temporary},
	{exitCannotRun, "the command of \"ycauth exec\" or \"ycauth run\" could not be run", nil},
	{exitNotFound, "the command of \"ycauth exec\" or \"ycauth run\" was not found", nil},
	{exitInterrupted, "interrupted: Ctrl-C, SIGTERM or SIGHUP", nil},
	{exitBrokenPipe, "the program that reads the output has ended", nil},
}

// exitCodes are the rows for people, by code.
func exitCodes() string {
	rows := slices.Clone(exitTable)
	slices.SortFunc(rows, func(a, b exitRow) int { return a.code - b.code })
	var b strings.Builder
	for _, row := range rows {
		fmt.Fprintf(&b, "  %-3d  %s\n", row.code, row.meaning)
	}
	return b.String()
}

func exitCode(err error) int {
	var coded codedError
	if errors.As(err, &coded) {
		return coded.code
	}
	for _, row := range exitTable {
		if row.match != nil && row.match(err) {
			return row.code
		}
	}
	return exitFailure
}

func wrongUsage(err error) bool {
	return errors.As(err, new(usageError)) || errors.As(err, new(*refreshtoken.ArgumentError)) ||
		errors.As(err, new(*oauth.ConfigError)) || errors.Is(err, filestore.ErrProfileName)
}

func keyTrouble(err error) bool {
	return errors.As(err, new(*dpop.KeyFileError)) || errors.As(err, new(*piv.Error))
}

func loginNeeded(err error) bool {
	return errors.Is(err, oauth.ErrLoginRequired) || errors.Is(err, oauth.ErrNoSession) || errors.Is(err, refreshtoken.ErrUnauthenticated)
}

func permissionDenied(err error) bool {
	var denied *oauth.AuthorizationError
	return errors.Is(err, refreshtoken.ErrPermissionDenied) || errors.As(err, &denied) && denied.Code == "access_denied"
}

// passingCodes are those of failures that pass, besides that of an unavailable service.
var passingCodes = []refreshtoken.Code{refreshtoken.CodeInternal, refreshtoken.CodeResourceExhausted, refreshtoken.CodeDeadlineExceeded}

// temporary reports whether the same command can work later, without anybody doing
// anything. It lists what is known to pass: a script that tries again because of a
// full disk or a wrong certificate would do so for ever.
func temporary(err error) bool {
	var server *oauth.ServerError
	var api *refreshtoken.APIError
	switch {
	case errors.As(err, &server):
		return server.Temporary()
	case untrusted(err), noSuchHost(err):
		return false
	case errors.Is(err, oauth.ErrOutcomeUnknown), errors.Is(err, context.DeadlineExceeded), errors.Is(err, refreshtoken.ErrUnavailable):
		return true
	case errors.As(err, &api) && slices.Contains(passingCodes, api.Code):
		return true
	}
	return networkTrouble(err)
}

// untrusted reports whether the server could not prove who it is, or did not speak
// TLS at all.
func untrusted(err error) bool {
	return errors.As(err, new(*tls.CertificateVerificationError)) || errors.As(err, new(x509.UnknownAuthorityError)) ||
		errors.As(err, new(x509.HostnameError)) || errors.As(err, new(x509.CertificateInvalidError)) ||
		errors.As(err, new(tls.RecordHeaderError)) || errors.As(err, new(tls.AlertError))
}

// noSuchHost reports whether a name does not exist, which is a mistake.
func noSuchHost(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && !dns.IsTemporary && !dns.IsTimeout
}

// networkTrouble reports whether a request got lost on its way. Files have errors
// of the same kinds, so only those of connections count.
func networkTrouble(err error) bool {
	var (
		dns      *net.DNSError
		socket   *net.OpError
		exchange *url.Error
	)
	if errors.As(err, &dns) {
		return dns.IsTemporary || dns.IsTimeout
	}
	if errors.As(err, &socket) {
		return socket.Timeout() || slices.ContainsFunc(passingErrnos, func(e syscall.Errno) bool { return errors.Is(socket.Err, e) })
	}
	if errors.As(err, &exchange) {
		return exchange.Timeout() || errors.Is(exchange.Err, io.EOF) || errors.Is(exchange.Err, io.ErrUnexpectedEOF)
	}
	return false
}

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

// hintError is an error with a remedy that has a line of its own.
type hintError struct {
	err  error
	hint string
}

func (e hintError) Error() string { return e.err.Error() }
func (e hintError) Unwrap() error { return e.err }

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
		a.hint(err)
		return exitInterrupted
	}
	a.note(red, "ycauth:", "%s", a.message(err))
	a.hint(err)
	switch {
	case a.unusableKey(err):
		a.say("If that cannot be mended, move the file away and log in again with %q, which makes a new key.", a.commandFor("login"))
	case errors.Is(err, oauth.ErrSessionFormat):
		a.say("%q forgets the session.", a.commandFor("logout --local"))
	case code == exitUsage:
		a.say("See %q.", cmd.CommandPath()+" --help")
	case code == exitLogin:
		a.say("Log in with %q.", a.commandFor("login"))
	}
	return code
}

// unusableKey reports whether an error is about a key file that this program made and
// that is there. Another file may be somebody else's.
func (a *app) unusableKey(err error) bool {
	var key *dpop.KeyFileError
	dir, unknown := a.configDir()
	if unknown != nil || !errors.As(err, &key) || filepath.Dir(key.Path) != filepath.Join(dir, "keys") {
		return false
	}
	_, missing := os.Lstat(key.Path)
	return missing == nil
}

// hint tells the remedy of an error, if it has one.
func (a *app) hint(err error) {
	if hint := (hintError{}); errors.As(err, &hint) {
		a.say("%s", hint.hint)
	}
}

// commandFor is a command of this program for the profile in use. Every command that the
// user is told to run comes from here: without the profile's name it is about another one.
func (a *app) commandFor(command string) string {
	if a.profileName == defaultProfile {
		return "ycauth " + command
	}
	own, child, found := strings.Cut(command, " -- ")
	if found {
		child = " -- " + child
	}
	return "ycauth " + own + " --profile " + a.profileName + child
}
