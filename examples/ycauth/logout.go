package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"golang.org/x/oauth2"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/refreshtoken"
)

func (a *app) logoutCommand() *cobra.Command {
	var local bool
	cmd := &cobra.Command{
		Use:   "logout",
		Short: "Revoke the session at the server, then forget it",
		Long: "Revokes the profile's refresh token at the server and then forgets the session. If the\n" +
			"revocation fails, nothing is forgotten, so you can try again. The profile's\n" +
			"configuration and its key are kept. IAM tokens that were issued before stay valid until\n" +
			"they expire.",
		Args: noArgs,
	}
	cmd.Flags().BoolVar(&local, "local", false, "only forget the session, even one that cannot be read: the server keeps the refresh token")
	cmd.RunE = a.action(func(ctx context.Context, _ []string) error {
		if local {
			return a.forget(ctx)
		}
		return a.logout(ctx)
	})
	return cmd
}

func (a *app) forget(ctx context.Context) error {
	store, dir, err := a.openPlainStore()
	if err != nil {
		return err
	}
	if err := a.checkProfile(dir); err != nil {
		return err
	}
	if err := store.Discard(ctx); err != nil {
		return err
	}
	a.say("The session is forgotten here. Its refresh token may still be valid: see %q and %q.",
		a.commandFor("list"), a.commandFor("revoke"))
	return nil
}

func (a *app) logout(ctx context.Context) error {
	store, dir, err := a.openStore(ctx)
	if err != nil {
		return err
	}
	p, err := a.existingProfile(ctx, store, dir)
	if err != nil {
		return err
	}
	session, err := store.Load(ctx)
	if errors.Is(err, oauth.ErrNoSession) {
		a.say("The profile has no session.")
		return nil
	}
	if err != nil {
		return err
	}
	if err := a.endpoint.checkEnvironment(p); err != nil {
		return err
	}
	if err := a.endpoint.checkServer(p, session); err != nil {
		return err
	}
	if p.Key.kind() == "" {
		return hintError{errLostKey, a.notForgotten()}
	}
	prover, err := a.prover(p.Key)
	if err != nil {
		return hintError{err, a.notForgotten()}
	}
	if err := a.wrongKey(p.Key, prover, session); err != nil {
		if restore := (hintError{}); errors.As(err, &restore) {
			return hintError{restore.err, restore.hint + " " + a.notForgotten()}
		}
		return hintError{err, a.notForgotten()}
	}
	end := new(ending)
	c, err := a.connection(p, store, a.sessions(store), prover, end.revoke)
	if err != nil {
		return err
	}
	defer c.close()
	end.c = c
	if err := c.client.Logout(ctx); err != nil {
		return end.failed(ctx, err)
	}
	if session.RefreshToken != "" && !end.told {
		a.say("The server had ended the session already.")
	}
	a.say("You are logged out.")
	return nil
}

// ending is what logout does at the server. Nothing is forgotten before the refresh
// token is gone for sure.
type ending struct {
	c     *connection
	asked bool // the request may be at the server
	told  bool // the server revoked the refresh token for us
}

// revoke is an [oauth.Config] Revoke.
func (e *ending) revoke(ctx context.Context, s oauth.Session) error {
	c := e.c
	e.asked, e.told = false, false // it may be another session than the last time
	if name := c.profile.Endpoints.provider().Name; s.Provider != name || s.ClientID != c.profile.ClientID {
		return &oauth.LoginRequiredError{Reason: oauth.ReasonWrongClient} // neither token is for that server
	}
	if s.RefreshToken == "" {
		return nil
	}
	e.asked = true
	err := c.revokeOwn(ctx, s)
	if errors.Is(err, refreshtoken.ErrUnauthenticated) {
		// The IAM token was revoked. The refresh token may be good for another one.
		if _, err := c.client.TokenSource().Renew(ctx); err != nil {
			return unlessEnded(err)
		}
		if s, err = c.client.Session(ctx); err != nil {
			return err
		}
		err = c.revokeOwn(ctx, s)
	}
	if errors.Is(err, refreshtoken.ErrNotFound) {
		return e.confirm(ctx, err)
	}
	e.told = err == nil
	return err
}

// confirm finds out whether a refresh token that the API does not know is gone: it
// may be the API of another cloud.
func (e *ending) confirm(ctx context.Context, notFound error) error {
	if _, err := e.c.client.TokenSource().Renew(ctx); err != nil {
		return unlessEnded(err)
	}
	return fmt.Errorf("the API at %s does not know the refresh token, but it is still valid: check whether --iam-endpoint is the address of another cloud (%w)",
		e.c.profile.Endpoints.IAM, notFound)
}

// unlessEnded is the error of a renewal, and nil if it says that the server does
// not accept the refresh token any more.
func unlessEnded(err error) error {
	var ended *oauth.LoginRequiredError
	if errors.As(err, &ended) && (ended.Reason == oauth.ReasonRejected || ended.Reason == oauth.ReasonOutcomeUnknown) {
		return nil
	}
	return err
}

// revokeOwn revokes the refresh token of a session with its own IAM token.
func (c *connection) revokeOwn(ctx context.Context, s oauth.Session) error {
	tok := &oauth2.Token{AccessToken: s.AccessToken.Reveal(), TokenType: s.TokenType}
	op, err := c.refreshTokens(oauth2.StaticTokenSource(tok)).Revoke(ctx, refreshtoken.ByToken(s.RefreshToken.Reveal()))
	if err == nil {
		_, err = op.Wait(ctx)
	}
	return err
}

func (a *app) notForgotten() string {
	return linef("Nothing was forgotten; %q forgets the session without telling the server.", a.commandFor("logout --local"))
}

// failed says how far a logout came that did not end.
func (e *ending) failed(ctx context.Context, err error) error {
	a := e.c.a
	switch {
	case e.told && ctx.Err() != nil:
		return hintError{err, linef("The server has revoked the session, and it was not removed here: %q removes it.", a.commandFor("logout --local"))}
	case e.told:
		return hintError{
			fmt.Errorf("the server has revoked the session, and it could not be removed here: %w", err),
			linef("%q removes it, once that is possible.", a.commandFor("logout --local")),
		}
	case e.asked && ctx.Err() != nil:
		return hintError{err, linef("It is not known whether the server has revoked the session, and nothing was forgotten here: %q goes on.", a.commandFor("logout"))}
	}
	return hintError{err, a.notForgotten()}
}
