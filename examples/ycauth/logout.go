package main

import (
	"context"
	"errors"

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
		Long: "Revokes the profile's refresh token at the server and then forgets the session. If\n" +
			"the server cannot be told, nothing is forgotten, so that it can be tried again.\n" +
			"The profile's configuration and its key stay. An IAM token that was issued before\n" +
			"stays valid until it expires.",
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
	store, _, err := a.openStore()
	if err != nil {
		return err
	}
	if err := store.Discard(ctx); err != nil {
		return err
	}
	a.say("The session is forgotten here. Its refresh token may still be valid: see \"ycauth list\" and \"ycauth revoke\".")
	return nil
}

func (a *app) logout(ctx context.Context) error {
	store, dir, err := a.openStore()
	if err != nil {
		return err
	}
	p, err := a.loadProfile(ctx, store, dir)
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
	prover, err := a.prover(p.Key)
	if err != nil {
		return forgetHint(err)
	}
	var end func(context.Context, oauth.Session) error
	c, err := a.connection(p, store, a.sessions(store), prover, func(ctx context.Context, s oauth.Session) error { return end(ctx, s) })
	if err != nil {
		return err
	}
	end, err = c.endSession(ctx, session)
	if err != nil {
		return forgetHint(err)
	}
	if err := c.client.Logout(ctx); err != nil {
		return forgetHint(err)
	}
	a.say("You are logged out.")
	return nil
}

// endSession prepares what Logout does at the server while it holds the
// session's lock: the token for that request is obtained before, because a
// renewal takes the lock as well.
func (c *connection) endSession(ctx context.Context, session oauth.Session) (func(context.Context, oauth.Session) error, error) {
	nothing := func(context.Context, oauth.Session) error { return nil }
	if session.RefreshToken == "" {
		return nothing, nil
	}
	tok, err := c.token(ctx)
	var ended *oauth.LoginRequiredError
	if errors.As(err, &ended) && (ended.Reason == oauth.ReasonRejected || ended.Reason == oauth.ReasonOutcomeUnknown) {
		c.a.say("The server had ended the session already.")
		return nothing, nil
	}
	if err != nil {
		return nil, err
	}
	client := c.refreshTokens(oauth2.StaticTokenSource(tok))
	return func(ctx context.Context, s oauth.Session) error {
		err := revokeToken(ctx, client, s.RefreshToken)
		if errors.Is(err, refreshtoken.ErrNotFound) {
			return nil // somebody else revoked it
		}
		return err
	}, nil
}

// revokeToken revokes a refresh token and waits until that is done.
func revokeToken(ctx context.Context, client *refreshtoken.Client, token oauth.Secret) error {
	op, err := client.Revoke(ctx, refreshtoken.ByToken(token.Reveal()))
	if err == nil {
		_, err = op.Wait(ctx)
	}
	return err
}

func forgetHint(err error) error {
	return hintError{err, "Nothing was forgotten; \"ycauth logout --local\" forgets the session without telling the server."}
}
