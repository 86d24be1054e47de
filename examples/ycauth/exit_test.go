package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/filestore"
	"github.com/ycauth/ycauth-go/oauth/keyringstore"
	"github.com/ycauth/ycauth-go/piv"
	"github.com/ycauth/ycauth-go/refreshtoken"
)

func TestExitCode(t *testing.T) {
	request := func(err error) error { return &url.Error{Op: "Post", URL: "https://auth.example/", Err: err} }
	dial := func(err error) error {
		return request(&net.OpError{Op: "dial", Net: "tcp", Err: &os.SyscallError{Syscall: "connect", Err: err}})
	}
	for _, tt := range []struct {
		name string
		err  error
		want int
	}{
		{"anything", errors.New("x"), exitFailure},
		{"carries its code", codedError{42, errors.New("x")}, 42},

		{"flag", usagef("x"), exitUsage},
		{"argument of the API", &refreshtoken.ArgumentError{}, exitUsage},
		{"configuration", &oauth.ConfigError{}, exitUsage},
		{"profile", &filestore.Error{Err: filestore.ErrProfileName}, exitUsage},

		{"key file", &dpop.KeyFileError{Err: fs.ErrNotExist}, exitKey},
		{"card", &piv.Error{Err: piv.ErrNoCard}, exitKey},
		{"card within a renewal", fmt.Errorf("renewal: %w", &piv.Error{Err: piv.ErrNoCard}), exitKey},

		{"no session", oauth.ErrNoSession, exitLogin},
		{"ended", &oauth.LoginRequiredError{Reason: oauth.ReasonRejected}, exitLogin},
		{"IAM token rejected", &refreshtoken.APIError{Code: refreshtoken.CodeUnauthenticated}, exitLogin},
		{"ended by an error that would pass", &oauth.LoginRequiredError{Err: &oauth.ServerError{Status: 503}}, exitLogin},

		{"role", &refreshtoken.APIError{Code: refreshtoken.CodePermissionDenied}, exitDenied},
		{"user said no", &oauth.AuthorizationError{Code: "access_denied"}, exitDenied},
		{"wrong authorization request", &oauth.AuthorizationError{Code: "invalid_request"}, exitFailure},

		{"503", &oauth.ServerError{Status: 503}, exitTemporary},
		{"429", &oauth.ServerError{Status: 429}, exitTemporary},
		{"invalid_client", &oauth.ServerError{Status: 400, Code: "invalid_client"}, exitFailure},
		{"lost response", oauth.ErrOutcomeUnknown, exitTemporary},
		{"time is up", fmt.Errorf("x: %w", context.DeadlineExceeded), exitTemporary},
		{"API unavailable", &refreshtoken.APIError{Code: refreshtoken.CodeUnavailable}, exitTemporary},
		{"API quota", &refreshtoken.APIError{Code: refreshtoken.CodeResourceExhausted}, exitTemporary},
		{"API deadline", &refreshtoken.APIError{Code: refreshtoken.CodeDeadlineExceeded}, exitTemporary},
		{"API not found", &refreshtoken.APIError{Code: refreshtoken.CodeNotFound}, exitFailure},
		{"API internal", &refreshtoken.APIError{Code: refreshtoken.CodeInternal}, exitTemporary},
		{"500 of the API", &refreshtoken.APIError{Code: refreshtoken.CodeInternal, HTTPStatus: 500}, exitTemporary},
		{"500 of the token endpoint", &oauth.ServerError{Status: 500}, exitTemporary},
		{"API transport", &refreshtoken.TransportError{Temporary: true, Err: io.EOF}, exitTemporary},
		{"connection refused", dial(syscall.ECONNREFUSED), exitTemporary},
		{"connection reset", dial(syscall.ECONNRESET), exitTemporary},
		{"no route", dial(syscall.EHOSTUNREACH), exitTemporary},
		{"not permitted to connect", dial(syscall.EACCES), exitFailure},
		{"address of another family", dial(syscall.EAFNOSUPPORT), exitFailure},
		{"connection closed", request(io.EOF), exitTemporary},
		{"response cut off", request(io.ErrUnexpectedEOF), exitTemporary},
		{"name server is down", dial(&net.DNSError{IsTemporary: true}), exitTemporary},
		{"name server is slow", request(&net.DNSError{IsTimeout: true}), exitTemporary},
		{"no such host", request(&net.DNSError{IsNotFound: true}), exitFailure},
		{"no such host, and the API calls it temporary", &refreshtoken.TransportError{Temporary: true, Err: request(&net.DNSError{IsNotFound: true})}, exitFailure},
		{"unsupported scheme", request(errors.New("unsupported protocol scheme")), exitFailure},

		{"certificate", request(&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}), exitFailure},
		{"certificate, and the API calls it temporary", &refreshtoken.TransportError{Temporary: true, Err: request(x509.HostnameError{})}, exitFailure},
		{"expired certificate", request(x509.CertificateInvalidError{}), exitFailure},
		{"no TLS", request(tls.RecordHeaderError{}), exitFailure},
		{"TLS alert", request(&net.OpError{Op: "remote error", Err: tls.AlertError(42)}), exitFailure},

		{"full disk", &oauth.StoreError{Err: &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}}, exitFailure},
		{"full disk without a path", &oauth.PersistError{Err: syscall.ENOSPC}, exitFailure},
		{"home that is none", &filestore.Error{Err: syscall.ENOTDIR}, exitFailure},
		{"home of somebody else", &filestore.Error{Err: syscall.EACCES}, exitFailure},
		{"disk that times out", &fs.PathError{Op: "read", Path: "x", Err: syscall.ETIMEDOUT}, exitFailure},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := exitCode(tt.err); got != tt.want {
				t.Errorf("exit code %d, want %d, for %v", got, tt.want, tt.err)
			}
		})
	}
}

// TestExitCodesAreDocumented: the package documentation and the help have every
// row.
func TestExitCodesAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range exitTable {
		pattern := fmt.Sprintf(`(?m)^//\t%d +%s$`, row.code, regexp.QuoteMeta(row.meaning))
		if !regexp.MustCompile(pattern).Match(doc) {
			t.Errorf("the package documentation does not match %s", pattern)
		}
		if !strings.Contains(exitCodes(), row.meaning) {
			t.Errorf("the help does not have %q", row.meaning)
		}
	}
}

// goName is a name that only somebody who reads the source can look up.
var goName = regexp.MustCompile(`\b(Config|Provider|ListOptions|RevokeFilter|Filter|RevokeEachOptions|KeySpec|Options|Store|Transport|Target)\.[A-Z]|\b(List|Revoke|Operation): |package documentation|\b(oauth|refreshtoken|filestore|keyringstore|dpop|piv): |\b(Update|ClientID|ClientSecret|AuthMethod|TokenURL|PageSize|ByID|ByToken|ByFilter|AllMine|Discard|Overwrite|WithEndpoint|WithOperationEndpoint)\b`)

func TestMessagesNameFlags(t *testing.T) {
	client := refreshtoken.NewClient(nil, refreshtoken.WithEndpoint("https://"))
	_, endpoint := client.Revoke(t.Context(), refreshtoken.ByID("x"))
	_, operation := refreshtoken.NewClient(nil, refreshtoken.WithOperationEndpoint("https://")).Revoke(t.Context(), refreshtoken.ByID("x"))
	_, noID := refreshtoken.NewClient(nil).Revoke(t.Context(), refreshtoken.ByID(""))
	_, noToken := refreshtoken.NewClient(nil).Revoke(t.Context(), refreshtoken.ByToken(""))
	_, noClient := refreshtoken.NewClient(nil).Revoke(t.Context(), refreshtoken.ByFilter(refreshtoken.RevokeFilter{ClientID: "\""}))
	_, concurrency := refreshtoken.NewClient(nil).RevokeEach(t.Context(), []string{"x"}, refreshtoken.RevokeEachOptions{Concurrency: 1000})
	_, config := oauth.New(oauth.Config{Provider: endpoints{Auth: "x:", Token: "y:"}.provider()})
	all := map[string]error{
		"endpoint": endpoint, "operation endpoint": operation, "ID": noID, "token": noToken, "filter": noClient,
		"concurrency": concurrency, "configuration": config,
		"no directory":  fmt.Errorf("there is no directory (%w)", &filestore.Error{Path: "ycauth", Reason: "has no default directory"}),
		"occupied slot": piv.ErrSlotOccupied,
		"no PC/SC":      piv.ErrUnsupported,
		"session":       &filestore.Error{Path: "x", Reason: "was not used: move the file away, or call Store.Discard, and log in again"},
		"key is lost":   &filestore.Error{Path: "x", Reason: "was not used: if the key is lost, call Store.Discard and log in again"},
		"full disk":     &filestore.Error{Path: "x", Reason: "has no room for the next session, so the Update was not started: free some disk space, or raise the limit"},
		"no such token": &refreshtoken.APIError{Method: "Revoke", Code: refreshtoken.CodeNotFound, HTTPStatus: 404},
		"no role":       fmt.Errorf("1 of 2 refresh tokens could not be revoked: %w", &refreshtoken.APIError{Method: "List", Code: refreshtoken.CodePermissionDenied}),
		"no response":   &refreshtoken.TransportError{Method: "Operation", Err: io.EOF},
		"slow keyring":  &keyringstore.Error{Service: "ycauth", Kind: keyringstore.ErrTimeout},
	}
	for _, code := range []string{
		"invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_dpop_proof",
		"Basic auth required", "Malformed Authorization header",
	} {
		all[code] = &oauth.ServerError{Status: 400, Code: code}
	}
	a := &app{profileName: defaultProfile}
	for name, err := range all {
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		text := a.message(err)
		if found := goName.FindString(text); found != "" || strings.Contains(text, "\n") {
			t.Errorf("%s names %s:\n%s", name, found, text)
		}
	}
}
