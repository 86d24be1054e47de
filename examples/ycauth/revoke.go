package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ycauth/ycauth-go/refreshtoken"
)

type revokeFlags struct {
	filterFlags
	ids       []string
	token     string
	allMine   bool
	olderThan age
	dryRun    bool
	yes       bool
}

func (a *app) revokeCommand() *cobra.Command {
	var flags revokeFlags
	cmd := &cobra.Command{
		Use:   "revoke [ID…]",
		Short: "Revoke refresh tokens",
		Long: "Revokes refresh tokens, chosen in one of four ways:\n\n" +
			"  ID…                    by the IDs that \"ycauth list\" shows\n" +
			"  --refresh-token -      the token itself, read from stdin\n" +
			"  selecting flags        all that match; --older-than and --protection-level first\n" +
			"                         list and then revoke one by one, and --dry-run lists alone\n" +
			"  --all-mine             all of yours, the one behind this session included\n\n" +
			"All tokens of an account (--all-mine, or --subject-id alone) are revoked only after\n" +
			"a typed confirmation, or with --yes. Tokens of others take one of the roles\n" +
			"organization-manager.federations.userAdmin and iam.userAccounts.refreshTokenRevoker.\n" +
			"IAM tokens that were issued before stay valid until they expire.",
		Example: "  ycauth revoke ajeq9mfm0rpu7k7oh5pc\n" +
			"  ycauth revoke --older-than 30d --protection-level NO_PROTECTION --dry-run",
	}
	f := cmd.Flags()
	flags.register(cmd)
	f.StringSliceVar(&flags.ids, "id", nil, "IDs of refresh tokens, as the arguments")
	f.StringVar(&flags.token, "refresh-token", "", "- to read the refresh token from stdin")
	f.BoolVar(&flags.allMine, "all-mine", false, "all your refresh tokens")
	f.Var(&flags.olderThan, "older-than", "not used for so long, such as 30d, 2w or 12h")
	f.BoolVar(&flags.dryRun, "dry-run", false, "only list what would be revoked")
	f.BoolVarP(&flags.yes, "yes", "y", false, "ask no confirmation")
	cmd.RunE = a.action(func(ctx context.Context, args []string) error {
		flags.ids = append(args, flags.ids...)
		return a.revoke(ctx, flags)
	})
	return cmd
}

// selects reports whether there is a condition to select tokens by.
func (f *revokeFlags) selects() bool {
	return f.any() || f.olderThan > 0
}

// check makes sure that there is one target, and that none is empty by accident:
// an unset variable in a script must not mean "all".
func (f *revokeFlags) check() error {
	ways := 0
	for _, there := range []bool{len(f.ids) > 0, f.token != "", f.selects(), f.allMine} {
		if there {
			ways++
		}
	}
	switch {
	case ways == 0:
		return usagef("nothing to revoke: give IDs, --refresh-token -, selecting flags or --all-mine")
	case ways > 1:
		return usagef("give one of IDs, --refresh-token, selecting flags and --all-mine")
	case f.token != "" && f.token != "-":
		return usagef("a refresh token on the command line is seen by others: give --refresh-token - and the token on stdin")
	case f.dryRun && (len(f.ids) > 0 || f.token != ""):
		return usagef("--dry-run is for selecting flags and --all-mine")
	}
	for _, id := range f.ids {
		if strings.TrimSpace(id) == "" {
			return usagef("an ID is empty")
		}
	}
	return nil
}

func (a *app) revoke(ctx context.Context, flags revokeFlags) error {
	if err := flags.check(); err != nil {
		return err
	}
	filter, err := flags.filter()
	if err != nil {
		return err
	}
	target, err := a.revokeTarget(ctx, flags)
	if err != nil {
		return err
	}
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	client := c.refreshTokens(c.client.TokenSource())
	oneByOne := flags.olderThan > 0 || len(filter.ProtectionLevels) > 0
	switch {
	case len(flags.ids) > 0:
		return a.revokeEach(ctx, client, flags.ids)
	case flags.dryRun || oneByOne:
		var rule refreshtoken.Rule = func(*refreshtoken.RefreshToken) string { return "selected by the filter" }
		if flags.olderThan > 0 {
			rule = refreshtoken.NotUsedSince(a.now().Add(-time.Duration(flags.olderThan)))
		}
		tokens, err := find(ctx, client, refreshtoken.ListOptions{SubjectID: flags.subjectID, Filter: filter}, rule)
		if err != nil {
			return err
		}
		if flags.dryRun {
			a.say("%s would be revoked.", count(len(tokens)))
			return a.printTokens(tokens)
		}
		return a.revokeEach(ctx, client, tokenIDs(tokens))
	}
	op, err := client.Revoke(ctx, *target)
	if err != nil {
		return err
	}
	result, err := op.Wait(ctx)
	if err != nil {
		return err
	}
	return a.printRevoked(result.RefreshTokenIDs, nil)
}

// revokeTarget is what one call revokes, and nil where it takes several. It asks
// for the confirmation that all tokens of an account want.
func (a *app) revokeTarget(ctx context.Context, flags revokeFlags) (*refreshtoken.Target, error) {
	var target refreshtoken.Target
	switch {
	case flags.token != "":
		token, err := readSecret(a.stdin)
		if err != nil {
			return nil, err
		}
		target = refreshtoken.ByToken(token)
	case flags.dryRun || len(flags.ids) > 0 || flags.olderThan > 0 || len(flags.protectionLevels) > 0:
		return nil, nil
	case flags.allMine:
		target = refreshtoken.AllMine()
	default:
		target = refreshtoken.ByFilter(refreshtoken.RevokeFilter{
			ClientID: flags.clientID, SubjectID: flags.subjectID, ClientInstanceInfo: flags.clientInstanceInfo,
		})
	}
	whole := flags.allMine || flags.token == "" && flags.clientID == "" && flags.clientInstanceInfo == ""
	if whole && !flags.yes {
		whose := "of yours, the one behind this session included,"
		if flags.subjectID != "" {
			whose = "of " + flags.subjectID
		}
		if err := a.confirm(ctx, "All refresh tokens "+whose+" are about to be revoked.", "revoke all"); err != nil {
			return nil, err
		}
	}
	return &target, nil
}

// maxSecret bounds what is read from stdin, in bytes.
const maxSecret = 16 << 10

// readSecret reads a refresh token, alone on its line.
func readSecret(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, maxSecret)).ReadString('\n')
	if line = strings.TrimSpace(line); line != "" {
		return line, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = errors.New("it is empty")
	}
	return "", usagef("no refresh token could be read from stdin: %w", err)
}

// revokedJSON is what a revocation did.
type revokedJSON struct {
	Revoked []string     `json:"revoked"`
	Failed  []failedJSON `json:"failed,omitempty"`
}

type failedJSON struct {
	ID    string `json:"id"`
	Error string `json:"error"`
}

// revokeEach revokes tokens by ID and reports on each. If some fail, the error
// is that of the first.
func (a *app) revokeEach(ctx context.Context, client *refreshtoken.Client, ids []string) error {
	progress := a.stderr.smart && len(ids) > 1
	report, err := client.RevokeEach(ctx, ids, refreshtoken.RevokeEachOptions{Progress: func(p refreshtoken.RevokeProgress) {
		if progress {
			a.stderr.transient("%d of %d", p.Done, p.Total)
		}
	}})
	if progress {
		a.stderr.transient("")
	}
	if report == nil {
		return err
	}
	failures := report.Failed
	for _, id := range report.Gone {
		failures = append(failures, refreshtoken.RevokeFailure{ID: id, Err: fmt.Errorf("there is no such refresh token: %w", refreshtoken.ErrNotFound)})
	}
	for _, id := range report.NotTried {
		failures = append(failures, refreshtoken.RevokeFailure{ID: id, Err: fmt.Errorf("not tried: %w", err)})
	}
	var failed []failedJSON
	for _, f := range failures {
		failed = append(failed, failedJSON{f.ID, message(f.Err)})
	}
	if err := a.printRevoked(report.Revoked, failed); err != nil {
		return err
	}
	switch {
	case len(failures) == 0:
		return nil
	case len(ids) > 1:
		return fmt.Errorf("%d of %s could not be revoked: %w", len(failures), count(len(ids)), failures[0].Err)
	}
	return failures[0].Err
}

func (a *app) printRevoked(revoked []string, failed []failedJSON) error {
	if a.output == outputJSON {
		if revoked == nil {
			revoked = []string{}
		}
		return a.printJSON(revokedJSON{revoked, failed})
	}
	var rows [][]span
	for _, id := range revoked {
		rows = append(rows, []span{text(id), {"revoked", green}})
	}
	for _, f := range failed {
		rows = append(rows, []span{text(f.ID), {"failed: " + f.Error, red}})
	}
	if len(failed) == 0 {
		a.say("%s revoked.", count(len(revoked)))
	}
	return a.printTable(nil, rows)
}

func count(n int) string {
	if n == 1 {
		return "1 refresh token"
	}
	return fmt.Sprintf("%d refresh tokens", n)
}
