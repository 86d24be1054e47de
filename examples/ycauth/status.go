package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/ycauth/ycauth-go/oauth"
)

// State is how a session stands, as far as is known without a request.
const (
	stateNone      = "logged out"
	stateValid     = "logged in"
	stateRenewable = "logged in, the next use renews the IAM token"
	stateEnded     = "ended: the IAM token expired and there is no refresh token"
	stateForeign   = "of another server or client"
)

// statusJSON describes a profile.
type statusJSON struct {
	Profile      string        `json:"profile"`
	LoggedIn     bool          `json:"logged_in"`
	State        string        `json:"state"`
	Server       string        `json:"server"`
	ClientID     string        `json:"client_id"`
	FederationID string        `json:"federation_id,omitempty"`
	Key          string        `json:"key"`
	Since        time.Time     `json:"since,omitzero"`
	TokenExpires time.Time     `json:"token_expires_at,omitzero"`
	RefreshToken bool          `json:"refresh_token"`
	Warning      oauth.Warning `json:"warning,omitempty"`
}

func newStatus(a *app, p profile, s oauth.Session) statusJSON {
	st := statusJSON{
		Profile: a.profileName, Server: p.Endpoints.Token, ClientID: p.ClientID, FederationID: p.FederationID,
		Key: p.Key.String(), Since: s.Created.UTC(), TokenExpires: s.Expiry.UTC(),
		RefreshToken: s.RefreshToken != "", Warning: s.Warning,
	}
	switch {
	case s.IsZero():
		st.State, st.Since, st.TokenExpires = stateNone, time.Time{}, time.Time{}
	case s.Provider != p.Endpoints.provider().Name || s.ClientID != p.ClientID:
		st.State = stateForeign
	case s.AccessToken != "" && (s.Expiry.IsZero() || a.now().Before(s.Expiry)):
		st.State, st.LoggedIn = stateValid, true
	case st.RefreshToken:
		st.State, st.LoggedIn = stateRenewable, true
	default:
		st.State = stateEnded
	}
	return st
}

func (a *app) printStatus(st statusJSON) error {
	if a.output == outputJSON {
		return a.printJSON(st)
	}
	fields := [][2]string{
		{"Profile", st.Profile},
		{"State", st.State},
		{"Server", st.Server},
		{"Client", st.ClientID},
		{"Federation", st.FederationID},
		{"Key", st.Key},
	}
	if st.State != stateNone {
		refresh := "yes"
		if !st.RefreshToken {
			refresh = fmt.Sprintf("no (%s)", st.Warning)
		}
		fields = append(fields,
			[2]string{"Since", at(st.Since).text},
			[2]string{"IAM token until", at(st.TokenExpires).text},
			[2]string{"Refresh token", refresh})
	}
	return a.printFields(fields)
}

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the profile and its session; no request is made",
		Long: "Shows the profile and its session, as far as they are known without a request: that\n" +
			"the refresh token was revoked meanwhile does not show. The exit code is 3 if the\n" +
			"profile cannot be used before the next login.",
		Args: noArgs,
		RunE: a.action(a.status),
	}
}

func (a *app) status(ctx context.Context, _ []string) error {
	store, dir, err := a.openStore()
	if err != nil {
		return err
	}
	p, err := a.loadProfile(ctx, store, dir)
	if err != nil {
		return err
	}
	session, err := store.Load(ctx)
	if err != nil && !errors.Is(err, oauth.ErrNoSession) {
		return err
	}
	st := newStatus(a, p, session)
	if err := a.printStatus(st); err != nil || st.LoggedIn {
		return err
	}
	a.say("Log in with %q.", a.commandFor("login"))
	return codedError{code: exitLogin}
}
