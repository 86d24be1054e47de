package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ycauth/ycauth-go/refreshtoken"
)

// filterFlags select refresh tokens, for list and revoke.
type filterFlags struct {
	subjectID          string
	clientID           string
	clientInstanceInfo string
	protectionLevels   []string
}

func (f *filterFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.subjectID, "subject-id", "", "account that the tokens are of (default: yours)")
	flags.StringVar(&f.clientID, "client-id", "", "OAuth client that they were issued to, such as yc.oauth.public-sdk")
	flags.StringVar(&f.clientInstanceInfo, "client-instance-info", "", "application that they were issued to, such as yc/0.141.0")
	flags.StringSliceVar(&f.protectionLevels, "protection-level", nil, "how they are protected: NO_PROTECTION, INSECURE_KEY_DPOP, SECURE_KEY_DPOP; several with commas")
	complete(cmd, "protection-level", cobra.FixedCompletions(levelNames(), cobra.ShellCompDirectiveNoFileComp))
}

var protectionLevels = []refreshtoken.ProtectionLevel{refreshtoken.NoProtection, refreshtoken.InsecureKeyDPoP, refreshtoken.SecureKeyDPoP}

// any reports whether there is a condition.
func (f *filterFlags) any() bool {
	return f.subjectID != "" || f.clientID != "" || f.clientInstanceInfo != "" || len(f.protectionLevels) > 0
}

func levelNames() []string {
	out := make([]string, len(protectionLevels))
	for i, l := range protectionLevels {
		out[i] = string(l)
	}
	return out
}

func (f *filterFlags) filter() (refreshtoken.Filter, error) {
	out := refreshtoken.Filter{ClientID: f.clientID, ClientInstanceInfo: f.clientInstanceInfo}
	for _, name := range f.protectionLevels {
		i := slices.IndexFunc(protectionLevels, func(l refreshtoken.ProtectionLevel) bool {
			return strings.EqualFold(string(l), strings.ReplaceAll(name, "-", "_"))
		})
		if i < 0 {
			return refreshtoken.Filter{}, usagef("--protection-level is %q: want %s", name, strings.Join(levelNames(), ", "))
		}
		out.ProtectionLevels = append(out.ProtectionLevels, protectionLevels[i])
	}
	return out, nil
}

type listFlags struct {
	filterFlags
	limit    int
	pageSize int
}

func (a *app) listCommand() *cobra.Command {
	var flags listFlags
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List refresh tokens",
		Long: "Lists your refresh tokens, or with --subject-id those of another account, which requires\n" +
			"the role organization-manager.viewer, organization-manager.admin or\n" +
			"iam.userAccounts.refreshTokenViewer. The tokens themselves are never shown.",
		Example: "  ycauth list --protection-level NO_PROTECTION -o json",
		Args:    noArgs,
	}
	flags.register(cmd)
	cmd.Flags().IntVar(&flags.limit, "limit", 0, "how many tokens to list at most (default: all)")
	cmd.Flags().IntVar(&flags.pageSize, "page-size", 0, "how many tokens to ask for at a time, at most 1000 (default: 100)")
	cmd.RunE = a.action(func(ctx context.Context, _ []string) error { return a.list(ctx, flags) })
	return cmd
}

func (a *app) list(ctx context.Context, flags listFlags) error {
	if flags.limit < 0 {
		return usagef("--limit is %d: want a positive number, or 0 for all", flags.limit)
	}
	if flags.pageSize < 0 || flags.pageSize > 1000 {
		return usagef("--page-size is %d: want 1 to 1000, or 0 for the default. All pages are listed; --limit lists fewer", flags.pageSize)
	}
	filter, err := flags.filter()
	if err != nil {
		return err
	}
	options := refreshtoken.ListOptions{SubjectID: flags.subjectID, Filter: filter, PageSize: flags.pageSize}
	if flags.limit > 0 && flags.pageSize == 0 {
		options.PageSize = min(flags.limit, 1000)
	}
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	tokens := []*refreshtoken.RefreshToken{} // [] in JSON if there is none
	for t, err := range c.refreshTokens(c.client.TokenSource()).List(ctx, options) {
		if err != nil {
			return err
		}
		tokens = append(tokens, t)
		if len(tokens) == flags.limit {
			break
		}
	}
	return a.printTokens(tokens)
}

func (a *app) printTokens(tokens []*refreshtoken.RefreshToken) error {
	if a.output == outputJSON {
		return a.printJSON(tokens)
	}
	if len(tokens) == 0 {
		a.say("There are no such refresh tokens.")
		return nil
	}
	rows := make([][]span, len(tokens))
	for i, t := range tokens {
		rows[i] = []span{
			text(t.ID), text(t.ClientID), text(t.ClientInstanceInfo), protection(t.ProtectionLevel),
			at(t.CreatedAt), at(t.LastUsedAt), at(t.ExpiresAt),
		}
	}
	return a.printTable([]string{"ID", "CLIENT", "APPLICATION", "PROTECTION", "CREATED", "LAST USED", "EXPIRES"}, rows)
}

// protection is a level in a table.
func protection(l refreshtoken.ProtectionLevel) span {
	colors := map[refreshtoken.ProtectionLevel]color{
		refreshtoken.NoProtection: red, refreshtoken.InsecureKeyDPoP: yellow, refreshtoken.SecureKeyDPoP: green,
	}
	return span{string(l), colors[l]}
}
