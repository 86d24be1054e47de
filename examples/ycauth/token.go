package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

// tokenJSON is a token as "yc iam create-token --format json" prints it.
type tokenJSON struct {
	Token   string    `json:"iam_token"`
	Expires time.Time `json:"expires_at,omitzero"`
}

func (a *app) tokenCommand() *cobra.Command {
	var fresh freshFlags
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Print an IAM token, renewed if necessary",
		Long: "Prints an IAM token that is valid now. It is renewed if necessary, once for all\n" +
			"processes that ask at the same time.\n\n" +
			"A token that does not expire soon is printed without a request, even if the server has\n" +
			"revoked it. If a service rejects the token, --renew gets another one; --verify asks the\n" +
			"server first.",
		Example: `  curl -H "Authorization: Bearer $(ycauth token)" https://…`,
		Args:    noArgs,
		RunE: a.action(func(ctx context.Context, _ []string) error {
			c, err := a.connect(ctx)
			if err != nil {
				return err
			}
			tok, err := c.token(ctx, fresh)
			if err != nil {
				return err
			}
			if a.output == outputJSON {
				return a.printJSON(tokenJSON{tok.AccessToken, tok.Expiry.UTC()})
			}
			_, err = fmt.Fprintln(a.stdout, tok.AccessToken)
			return err
		}),
	}
	fresh.register(cmd.Flags(), false)
	return cmd
}
