package main

import (
	"cmp"
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
	stateExpired   = "ended: the IAM token and the refresh token expired"
	stateForeign   = "of another server or client"
	stateNoKey     = "without its key: the key file is missing"
	stateLostKey   = "without its key: the configuration of the profile is gone"
	stateBadKey    = "without its key: it cannot be used"
	stateWrongKey  = "without its key: the profile has another one"
)

// statusJSON describes a profile.
type statusJSON struct {
	Profile        string          `json:"profile"`
	LoggedIn       bool            `json:"logged_in"`
	State          string          `json:"state"`
	User           *oauth.Identity `json:"user,omitempty"`
	Server         string          `json:"server"`
	Endpoints      endpoints       `json:"endpoints"`
	Environment    []string        `json:"environment_differs,omitempty"`
	ClientID       string          `json:"client_id"`
	FederationID   string          `json:"federation_id,omitempty"`
	Key            string          `json:"key"`
	Kept           string          `json:"session_kept_in,omitempty"`
	Since          time.Time       `json:"since,omitzero"`
	TokenExpires   time.Time       `json:"token_expires_at,omitzero"`
	RefreshToken   bool            `json:"refresh_token"`
	RefreshExpires time.Time       `json:"refresh_token_expires_at,omitzero"`
	Warning        oauth.Warning   `json:"warning,omitempty"`
}

// newStatus describes a profile. keyErr says that its key cannot be used.
func newStatus(a *app, p profile, s oauth.Session, kept string, keyErr error) statusJSON {
	st := statusJSON{
		Profile: a.profileName, Server: p.Endpoints.Token, Endpoints: p.Endpoints, Environment: a.foreignSentences(p),
		ClientID: p.ClientID, FederationID: p.FederationID, Key: p.Key.String(), Kept: kept,
		Since: s.Created.UTC(), TokenExpires: s.Expiry.UTC(),
		RefreshToken: s.RefreshToken != "", RefreshExpires: s.RefreshExpiry.UTC(), Warning: s.Warning,
	}
	if s.Identity != (oauth.Identity{}) {
		st.User = &s.Identity
	}
	now := a.now()
	switch {
	case s.IsZero():
		st.State, st.Since, st.TokenExpires, st.Kept = stateNone, time.Time{}, time.Time{}, ""
	case s.Provider != p.Endpoints.provider().Name || s.ClientID != p.ClientID:
		st.State = stateForeign
	case p.Key.kind() == "":
		st.State = stateLostKey
	case p.Key.missing():
		st.State = stateNoKey
	case errors.Is(keyErr, errWrongKey), errors.Is(keyErr, oauth.ErrLoginRequired):
		st.State = stateWrongKey
	case keyErr != nil:
		st.State = stateBadKey
	case s.AccessToken != "" && (s.Expiry.IsZero() || now.Before(s.Expiry)):
		st.State, st.LoggedIn = stateValid, true
	case st.RefreshToken && !s.RefreshExpiry.IsZero() && !now.Before(s.RefreshExpiry):
		st.State = stateExpired
	case st.RefreshToken:
		st.State, st.LoggedIn = stateRenewable, true
	default:
		st.State = stateEnded
	}
	return st
}

func (a *app) foreignSentences(p profile) (sentences []string) {
	for _, f := range a.endpoint.foreign(p.own) {
		sentences = append(sentences, f.sentence)
	}
	return sentences
}

// userName names the user for people.
func userName(id *oauth.Identity) string {
	switch {
	case id == nil:
		return ""
	case id.Name != "" && id.Email != "":
		return id.Name + " <" + id.Email + ">"
	}
	return cmp.Or(id.Name, id.Email, id.Subject)
}

func (a *app) printStatus(st statusJSON) error {
	if a.output == outputJSON {
		return a.printJSON(st)
	}
	fields := [][2]string{
		{"Profile", st.Profile},
		{"State", st.State},
		{"User", userName(st.User)},
		{"Server", st.Server},
	}
	if cloud := yandexCloud(); st.Endpoints.IAM != cloud.IAM || st.Endpoints.Operation != cloud.Operation {
		fields = append(fields, [2]string{"IAM API", st.Endpoints.IAM}, [2]string{"Operation API", st.Endpoints.Operation})
	}
	fields = append(fields, [][2]string{
		{"Client", st.ClientID},
		{"Federation", st.FederationID},
		{"Key", st.Key},
		{"Session in", st.Kept},
	}...)
	if st.State != stateNone {
		refresh := fmt.Sprintf("no (%s)", st.Warning)
		switch {
		case st.RefreshToken && st.RefreshExpires.IsZero():
			refresh = "yes"
		case st.RefreshToken:
			refresh = "yes, until " + a.when(st.RefreshExpires)
		}
		fields = append(fields,
			[2]string{"Since", a.when(st.Since)},
			[2]string{"IAM token until", a.when(st.TokenExpires)},
			[2]string{"Refresh token", refresh})
	}
	for _, sentence := range st.Environment {
		fields = append(fields, [2]string{"Environment", sentence})
	}
	return a.printFields(fields)
}

// soon is when the end of a refresh token is worth a word. The server may replace
// it before; a session that is not used has no other chance.
const soon = 72 * time.Hour

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the profile and its session; no request is made",
		Long: "Shows the profile and its session as they are stored here. No request is made: the server\n" +
			"may have ended the session, which \"ycauth token --renew\" finds out. The exit code is 6 if the key file is missing, has\n" +
			"another key or cannot be used, and 3 if the profile cannot be used before the next login.\n" +
			"A YubiKey is not accessed.",
		Args: noArgs,
		RunE: a.action(a.status),
	}
}

func (a *app) status(ctx context.Context, _ []string) error {
	store, dir, err := a.openStore(ctx)
	if err != nil {
		return err
	}
	p, err := a.existingProfile(ctx, store, dir)
	if err != nil {
		return err
	}
	session, err := store.Load(ctx)
	if err != nil && !errors.Is(err, oauth.ErrNoSession) {
		return err
	}
	keyErr := a.keyError(p.Key, session)
	st := newStatus(a, p, session, p.kept(store), keyErr)
	known := st.LoggedIn && a.output == outputTable // for people; State is for programs as well
	if known {
		st.State += ", as stored here"
	}
	if err := a.printStatus(st); err != nil {
		return err
	}
	if known {
		a.say("No request was made. The server may have ended the session: %q finds out.", a.commandFor("token --renew"))
	}
	if len(st.Environment) > 0 {
		a.warn("the environment names another server than the profile: commands that use a token end with an error until both are the same")
	}
	if st.State == stateNoKey { // as for the commands that need the key
		a.say("%s", a.restoreKey())
		return codedError{code: exitKey}
	}
	if keyErr != nil && st.State != stateForeign {
		return keyErr // a login would end with it, too
	}
	if !st.LoggedIn {
		a.say("Log in with %q.", a.commandFor("login"))
		return codedError{code: exitLogin}
	}
	if end := st.RefreshExpires; !end.IsZero() && end.Sub(a.now()) < soon {
		a.say("Log in again before %s, with %q.", a.when(end), a.commandFor("login"))
	}
	return nil
}
