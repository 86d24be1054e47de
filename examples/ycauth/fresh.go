package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/oauth2"

	"github.com/ycauth/ycauth-go/refreshtoken"
)

// freshFlags say how good a token has to be. Without them it is one that has not
// expired: that the server revoked it meanwhile only shows where it is used.
type freshFlags struct {
	renew  bool
	verify bool
	least  time.Duration // how long it has to last
}

func (f *freshFlags) register(flags *pflag.FlagSet, verify bool) {
	flags.BoolVar(&f.renew, "renew", false, "get a new token, for instance because this one was rejected")
	flags.BoolVar(&f.verify, "verify", verify, "ask the server with one request whether the token is still good, and renew it if not")
}

// verifyTimeout bounds the request of --verify.
const verifyTimeout = 5 * time.Second

// token returns a token that is good for use now, and closes the connection.
func (c *connection) token(ctx context.Context, f freshFlags) (*oauth2.Token, error) {
	defer c.close()
	return c.freshToken(ctx, f)
}

// freshToken returns a token that is good for use now.
func (c *connection) freshToken(ctx context.Context, f freshFlags) (*oauth2.Token, error) {
	source := c.client.TokenSource()
	if f.renew {
		return source.Renew(ctx)
	}
	tok, err := source.TokenContext(ctx)
	if err != nil {
		return nil, err
	}
	if f.verify && c.rejected(ctx, tok) {
		source.Invalidate(tok)
		next, err := source.TokenContext(ctx)
		if err == nil && next.AccessToken == tok.AccessToken {
			return source.Renew(ctx) // which has the reason why there is no other one
		}
		return next, err
	}
	if left := tok.Expiry.Sub(c.a.now()); !tok.Expiry.IsZero() && left < f.least {
		next, err := source.Renew(ctx)
		if err != nil {
			return nil, fmt.Errorf("the IAM token expires in %s and could not be renewed: %w", roughly(max(left, 0)), err)
		}
		return next, nil
	}
	return tok, nil
}

// rejected reports whether the server does not accept the token any more. That it
// cannot be asked is no answer.
func (c *connection) rejected(ctx context.Context, tok *oauth2.Token) bool {
	ctx, cancel := context.WithTimeout(ctx, verifyTimeout)
	defer cancel()
	for _, err := range c.refreshTokens(oauth2.StaticTokenSource(tok)).Pages(ctx, refreshtoken.ListOptions{PageSize: 1}) {
		return errors.Is(err, refreshtoken.ErrUnauthenticated)
	}
	return false
}
