package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/oauth2"
)

// tokenJSON is a token as "yc iam create-token --format json" prints it.
type tokenJSON struct {
	Token   string    `json:"iam_token"`
	Expires time.Time `json:"expires_at,omitzero"`
}

func newTokenJSON(tok *oauth2.Token) tokenJSON { return tokenJSON{tok.AccessToken, tok.Expiry.UTC()} }

func (a *app) tokenCommand() *cobra.Command {
	var fresh freshFlags
	var file tokenFile
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Print an IAM token, renewed if necessary",
		Long: "Prints an IAM token that is valid now. It is renewed if necessary, once for all\n" +
			"processes that ask at the same time.\n\n" +
			"A token that does not expire soon is printed without a request, even if the server has\n" +
			"revoked it. If a service rejects the token, --renew gets another one; --verify asks the\n" +
			"server first.\n\n" +
			"--file writes the token to a file that only its owner can read, and replaces the file\n" +
			"atomically. With --watch, it replaces the file before the token in it expires, until\n" +
			"Ctrl-C. The file is not removed at the end. A symbolic link, a pipe or a device in its\n" +
			"place is an error.",
		Example: "  curl -H \"Authorization: Bearer $(ycauth token)\" https://…\n" +
			"  ycauth token --file /run/user/1000/iam-token --watch",
		Args: noArgs,
		RunE: a.action(func(ctx context.Context, _ []string) error {
			if file.watch && file.path == "" {
				return usagef("--watch needs --file PATH")
			}
			c, err := a.connect(ctx)
			if err != nil {
				return err
			}
			if file.path != "" {
				return c.writeTokens(ctx, file, fresh)
			}
			tok, err := c.token(ctx, fresh)
			if err != nil {
				return err
			}
			if a.output == outputJSON {
				return a.printJSON(newTokenJSON(tok))
			}
			_, err = fmt.Fprintln(a.stdout, tok.AccessToken)
			return err
		}),
	}
	fresh.register(cmd.Flags(), false)
	cmd.Flags().StringVar(&file.path, "file", "", "write the token into this file, and nothing to stdout")
	cmd.Flags().BoolVar(&file.watch, "watch", false, "replace the token in the file before it expires, until Ctrl-C")
	return cmd
}
