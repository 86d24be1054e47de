package oauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/ycauth/ycauth-go/internal/clock"
)

// maxRevocations bounds how often Logout starts over because another process
// renewed the session in the meantime.
const maxRevocations = 3

// Logout revokes the session at the server, with Config.Revoke or the revocation
// request of RFC 7009 (Provider.RevocationURL), and then deletes it from the store. If
// revocation fails, Logout returns the error and deletes nothing, so it
// can be called again. The same applies to a session of another server or client,
// whose tokens are never sent to this one. Logout checks that the store is writable before
// it revokes. A session that is bound to the key of Config.DPoP is revoked with a proof, so
// the key must be able to sign. Without a session it does nothing. After [TokenSource.Close] it may lack
// the access token that Config.Revoke needs.
//
// If neither way to revoke is configured, Logout deletes the session all the same,
// and the error matches [ErrNotRevoked]. The same applies if the server cannot revoke tokens of
// this kind (unsupported_token_type), or if there is no access token for
// Config.Revoke, because the server has rejected the refresh token after the response to
// an earlier request was lost; the server may have issued a successor. With RFC 7009 it
// applies after each lost response, because the server says nothing of a successor. Logout revokes
// nothing if the server has ended the session, or if it has no refresh token and its
// access token has expired.
func (c *Client) Logout(ctx context.Context) error {
	for range maxRevocations {
		var errNotRevoked error
		before := c.source.view.Load()
		s, err := c.newest(ctx)
		if err != nil && !errors.Is(err, ErrNoSession) {
			return err
		}
		if s.IsZero() && before.session.IsZero() && c.source.view.Load().session.IsZero() {
			return nil
		}
		if !s.IsZero() {
			// What is known of another session must not be held to be true of this one.
			c.source.readSince(before, s, nil)
			// What is revoked has to be forgotten, so the store is tried first. The
			// revocation itself comes without the lock: it may take a token of this very
			// client.
			if err := c.update(ctx, func(stored Session) (Session, error) { return stored, nil }); err != nil {
				return &StoreError{err}
			}
			s, err = c.revoke(ctx, s)
			if errors.Is(err, ErrNotRevoked) {
				errNotRevoked = err
			} else if err != nil {
				return fmt.Errorf("oauth: the session was not revoked, and so not deleted: %w", err)
			}
		}
		var renewed, leaving bool
		err = c.update(ctx, func(stored Session) (Session, error) {
			newest := stored
			if v := c.source.view.Load(); v.supersedes(stored) {
				newest = v.session
			}
			renewed = !newest.IsZero() && (newest.RefreshToken != s.RefreshToken || !sameLogin(newest, s) ||
				newest.RefreshToken == "" && newest.AccessToken != s.AccessToken)
			if renewed && (errNotRevoked == nil || c.cfg.Revoke != nil || c.revocationURL != nil) {
				return stored, nil
			}
			renewed = false // nothing can be revoked, so the newest one need not be either
			// From here on the saver must not bring a login back that was never saved.
			c.source.apply(func(v view, _ clock.Instant) view { v.leaving = true; return v })
			leaving = true
			return Session{}, nil
		})
		if err != nil {
			if leaving { // not those of another Logout
				c.source.apply(func(v view, _ clock.Instant) view { v.leaving = false; return v })
			}
			err = &StoreError{err}
			if errNotRevoked == nil && !s.IsZero() {
				err = fmt.Errorf("oauth: the session was revoked, but could not be deleted: %w", err)
			}
			return err
		}
		if renewed {
			continue // a sibling renewed, or somebody logged in: that one is to be revoked
		}
		forgotten := false
		c.source.apply(func(v view, _ clock.Instant) view {
			if !v.leaving {
				return v // a login was faster, or somebody has read the store
			}
			if v.flight != nil {
				v.flight.cancel()
			}
			forgotten = !v.session.IsZero() // else its end was noticed already, and told
			return v.loggedOut()
		})
		if forgotten {
			c.emit(Event{Kind: EventLogout})
		}
		return errNotRevoked
	}
	return errors.New("oauth: the session was not deleted, because other processes keep renewing it: stop them first")
}

// newest returns the stored session, or the one in memory if the store is behind.
func (c *Client) newest(ctx context.Context) (Session, error) {
	s, err := c.Session(ctx)
	if err != nil && !errors.Is(err, ErrNoSession) {
		return s, err
	}
	if v := c.source.view.Load(); v.supersedes(s) {
		return v.session, nil
	}
	return s, err
}

// revoke ends s at the server, and returns the session that was revoked, which is
// a newer one if an access token had to be obtained first.
func (c *Client) revoke(ctx context.Context, s Session) (Session, error) {
	var foreign *LoginRequiredError
	if errors.As(c.owns(s), &foreign) && foreign.Reason == ReasonWrongClient {
		return s, foreign // its tokens must not be sent to this server
	}
	switch {
	case c.cfg.Revoke != nil:
		_, err := c.source.TokenContext(ctx)
		if newest, loadErr := c.newest(ctx); loadErr == nil {
			s = newest
		}
		if err != nil {
			return s, c.unrevoked(s, err)
		}
		return s, c.cfg.Revoke(ctx, s)
	case c.revocationURL != nil:
		return s, c.revokeToken(ctx, s)
	}
	return s, ErrNotRevoked
}

// unrevoked says what it means for a Logout that err left no access token of s to call
// Config.Revoke with: nil if nothing has to be revoked.
func (c *Client) unrevoked(s Session, err error) error {
	var login *LoginRequiredError
	if !errors.As(err, &login) {
		return err
	}
	switch login.Reason {
	case ReasonRejected: // the server has ended it already
		return nil
	case ReasonNoSession: // somebody else has logged out
		return nil
	case ReasonOutcomeUnknown:
		return fmt.Errorf("%w, as far as is known: %w", ErrNotRevoked, err)
	case ReasonNoRefreshToken:
		left, _ := remaining(s, c.now(), c.serverTime()) // Expiry is by the clock of this machine, not by the server's
		if s.AccessToken == "" || !s.Expiry.IsZero() && left <= 0 {
			return nil // it has expired
		}
		if !c.canUse(s) {
			return &LoginRequiredError{Reason: ReasonWrongKey, Detail: "its access token is bound to another key than the configured one"}
		}
	}
	return err
}

// revokeToken makes the revocation request of RFC 7009 §2.1, for the refresh
// token if there is one: "the authorization server SHOULD also invalidate all
// access tokens based on the same authorization grant".
func (c *Client) revokeToken(ctx context.Context, s Session) error {
	token, hint := s.RefreshToken, "refresh_token"
	if token == "" {
		token, hint = s.AccessToken, "access_token"
	}
	form := url.Values{"token": {token.Reveal()}, "token_type_hint": {hint}}
	// RFC 9449 says nothing about revocation. But there are servers that revoke a bound token
	// only with a proof of its key, and hide that they did not behind a status 200 (atproto).
	bound := cmp.Or(s.KeyThumbprint, s.TokenThumbprint)
	proved := bound != "" && bound == c.thumbprint
	// "The client must not depend on the body", and a token that is invalid already is no
	// error (§2.2).
	_, err := c.call(ctx, endpoint{url: c.revocationURL, field: "Provider.RevocationURL", proved: proved, status: true}, form)
	var server *ServerError
	if errors.As(err, &server) && server.Code == "unsupported_token_type" { // §2.2.1: it will not be supported later either
		return fmt.Errorf("%w: %w", ErrNotRevoked, err)
	}
	if err == nil && s.RefreshToken != "" && c.source.view.Load().doubtful == s.RefreshToken {
		return fmt.Errorf("%w, as far as is known: %w", ErrNotRevoked, ErrOutcomeUnknown)
	}
	return err
}
