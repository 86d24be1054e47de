package oauth_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
)

func TestErrorTexts(t *testing.T) {
	errDisk := errors.New("disk full")
	server := &oauth.ServerError{Status: 503, RetryAfter: 2 * time.Second, RequestID: "r1"}
	for _, tt := range []struct {
		err  error
		want string
		kind string
		is   error
	}{
		{&oauth.LoginRequiredError{Reason: oauth.ReasonNoSession, Err: oauth.ErrNoSession}, "oauth: log in: there is no session", "login_required", oauth.ErrNoSession},
		{&oauth.LoginRequiredError{Reason: oauth.ReasonRejected, Err: &oauth.ServerError{Status: 400, Code: "invalid_grant"}},
			"oauth: log in again: the refresh token expired, was revoked or was replaced: the authorization server responded 400 Bad Request: invalid_grant", "login_required", oauth.ErrLoginRequired},
		{&oauth.LoginRequiredError{Reason: oauth.ReasonOutcomeUnknown, Err: oauth.ErrOutcomeUnknown},
			"oauth: log in again: the refresh token was replaced, and the response with the new one was lost", "login_required", oauth.ErrOutcomeUnknown},
		{&oauth.LoginRequiredError{Reason: oauth.ReasonNoRefreshToken, Detail: "ask your administrator"},
			"oauth: log in again: the access token expired and the session has no refresh token (ask your administrator)", "login_required", oauth.ErrLoginRequired},
		{&oauth.LoginRequiredError{Reason: oauth.ReasonWrongKey}, "oauth: log in again: the refresh token is bound to another DPoP key", "login_required", oauth.ErrLoginRequired},
		{&oauth.LoginRequiredError{Reason: oauth.ReasonWrongClient}, "oauth: log in again: the session belongs to another provider or client", "login_required", oauth.ErrLoginRequired},
		{server, "oauth: the authorization server responded 503 Service Unavailable (retry after 2s) [request r1]", "server_temporary", nil},
		{&oauth.ServerError{Status: 401, Code: "Basic auth required"},
			"oauth: the authorization server responded 401 Unauthorized: Basic auth required (set Provider.AuthMethod to AuthClientSecretBasicPlain or AuthClientSecretPost)", "server", nil},
		{&oauth.PersistError{Err: errDisk}, "oauth: the renewed session could not be saved and is in memory only: disk full", "persist", errDisk},
		{&oauth.StoreError{Err: errDisk}, "oauth: session store: disk full", "store", errDisk},
		{&oauth.ConfigError{Field: "ClientID", Reason: "is empty"}, "oauth: Config.ClientID is empty", "other", nil},
		{&oauth.AuthorizationError{Code: "access_denied", Description: "no"}, "oauth: the authorization server rejected the login: access_denied: no", "other", nil},
		{context.DeadlineExceeded, "context deadline exceeded", "timeout", nil},
		{context.Canceled, "context canceled", "canceled", nil},
	} {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("text\n%s, want\n%s", got, tt.want)
		}
		if got := (oauth.Event{Err: tt.err}).ErrorKind(); got != tt.kind {
			t.Errorf("%v: kind %q, want %q", tt.err, got, tt.kind)
		}
		if tt.is != nil && !errors.Is(tt.err, tt.is) {
			t.Errorf("%v does not match %v", tt.err, tt.is)
		}
	}
}

func TestMemoryStore(t *testing.T) {
	store := oauth.NewMemoryStore()
	if _, err := store.Load(t.Context()); !errors.Is(err, oauth.ErrNoSession) {
		t.Errorf("Load of an empty store: %v", err)
	}
	inside, release := make(chan struct{}), make(chan struct{})
	first := make(chan error)
	go func() {
		first <- store.Update(context.Background(), func(cur oauth.Session) (oauth.Session, error) {
			close(inside)
			<-release
			cur.RefreshToken = "rt"
			return cur, nil
		})
	}()
	<-inside
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	never := func(oauth.Session) (oauth.Session, error) {
		t.Error("two updates at once")
		return oauth.Session{}, nil
	}
	if err := store.Update(ctx, never); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting Update: %v", err)
	}
	if err := store.Update(ctx, never); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Update with a dead ctx: %v", err)
	}
	if _, err := store.Load(t.Context()); !errors.Is(err, oauth.ErrNoSession) {
		t.Errorf("Load during an Update: %v, want what was before it, at once", err)
	}
	if _, err := store.Load(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Load with a dead ctx: %v", err)
	}
	close(release)
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	errFn := errors.New("no")
	if err := store.Update(t.Context(), func(oauth.Session) (oauth.Session, error) { return oauth.Session{}, errFn }); !errors.Is(err, errFn) {
		t.Errorf("fn's error: %v", err)
	}
	if s, err := store.Load(t.Context()); err != nil || s.RefreshToken != "rt" {
		t.Errorf("stored %+v, %v", s, err)
	}
}
