package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ycauth/ycauth-go/refreshtoken"
)

type revokeFlags struct {
	filterFlags
	ids         []string
	token       string
	allMine     bool
	olderThan   age
	dryRun      bool
	yes         bool
	concurrency int
}

func (a *app) revokeCommand() *cobra.Command {
	var flags revokeFlags
	cmd := &cobra.Command{
		Use:   "revoke [ID…]",
		Short: "Revoke refresh tokens",
		Long: "Revokes refresh tokens, chosen in one of four ways:\n\n" +
			"  ID…                    by the IDs that \"ycauth list\" shows\n" +
			"  --refresh-token -      the token itself, read from stdin\n" +
			"  selecting flags        those that match every flag; --older-than and\n" +
			"                         --protection-level revoke one by one, --dry-run only lists\n" +
			"  --all-mine             all of yours, the one behind this session included\n\n" +
			"More than one token, or one that --subject-id selects, is revoked only after a typed\n" +
			"confirmation that says how many there are, or with --yes. Tokens of others take one of\n" +
			"the roles organization-manager.federations.userAdmin and\n" +
			"iam.userAccounts.refreshTokenRevoker. IAM tokens that were issued before stay valid\n" +
			"until they expire. Ctrl-C says what was done; the same command goes on from there.",
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
	f.IntVar(&flags.concurrency, "concurrency", 4, "how many tokens to revoke at a time, one by one; at most 32")
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
	case f.concurrency < 1 || f.concurrency > 32:
		return usagef("--concurrency is %d: want 1 to 32", f.concurrency)
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

// oneByOne reports whether tokens are found first and revoked by their IDs: the API
// has no such conditions.
func (f *revokeFlags) oneByOne() bool { return f.olderThan > 0 || len(f.protectionLevels) > 0 }

// whole reports whether all tokens of an account are meant.
func (f *revokeFlags) whole() bool {
	return f.allMine || f.subjectID != "" && f.clientID == "" && f.clientInstanceInfo == "" && !f.oneByOne()
}

func (a *app) revoke(ctx context.Context, flags revokeFlags) error {
	if err := flags.check(); err != nil {
		return err
	}
	filter, err := flags.filter()
	if err != nil {
		return err
	}
	flags.ids = distinct(flags.ids)
	if asks := len(flags.ids) > 1 || flags.subjectID != "" || flags.allMine; asks && !flags.dryRun && !flags.yes && !a.canConfirm() {
		return usagef("this asks for a confirmation. Nobody can be asked here: add --yes if you are sure")
	}
	var token string
	if flags.token != "" {
		if token, err = a.readToken(ctx); err != nil {
			return err
		}
	}
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	client := c.refreshTokens(c.client.TokenSource())
	switch {
	case token != "":
		return a.revokeTarget(ctx, client, refreshtoken.ByToken(token))
	case len(flags.ids) > 0:
		if err := a.confirmRevoke(ctx, flags, len(flags.ids)); err != nil {
			return err
		}
		return a.revokeEach(ctx, client, flags.ids, flags.concurrency)
	}
	var tokens []*refreshtoken.RefreshToken
	if flags.dryRun || flags.oneByOne() || !flags.yes {
		tokens, err = a.selected(ctx, client, flags, filter)
	}
	unknown := !flags.dryRun && !flags.oneByOne() && errors.Is(err, refreshtoken.ErrPermissionDenied) // who may revoke may not always list
	if err != nil && !unknown {
		return err
	}
	n := len(tokens)
	if unknown {
		n = -1
	}
	switch {
	case flags.dryRun:
		a.say("%s would be revoked.", count(n))
		return a.printTokens(tokens)
	case !flags.yes && n == 0:
		return a.printRevoked(revokedJSON{})
	}
	if err := a.confirmRevoke(ctx, flags, n); err != nil {
		return err
	}
	switch {
	case flags.oneByOne():
		return a.revokeEach(ctx, client, tokenIDs(tokens), flags.concurrency)
	case flags.allMine:
		return a.revokeTarget(ctx, client, refreshtoken.AllMine())
	}
	return a.revokeTarget(ctx, client, refreshtoken.ByFilter(refreshtoken.RevokeFilter{
		ClientID: flags.clientID, SubjectID: flags.subjectID, ClientInstanceInfo: flags.clientInstanceInfo,
	}))
}

// selected are the tokens that match every flag.
func (a *app) selected(ctx context.Context, client *refreshtoken.Client, flags revokeFlags, filter refreshtoken.Filter) ([]*refreshtoken.RefreshToken, error) {
	var rule refreshtoken.Rule = func(*refreshtoken.RefreshToken) string { return "selected by the filter" }
	if flags.olderThan > 0 {
		rule = refreshtoken.NotUsedSince(a.now().Add(-time.Duration(flags.olderThan)))
	}
	options := refreshtoken.ListOptions{SubjectID: flags.subjectID, Filter: filter, PageSize: 1000}
	return find(ctx, client, options, rule)
}

// distinct are the texts without repetition.
func distinct(texts []string) []string {
	var out []string
	for _, text := range texts {
		if !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	return out
}

// confirmRevoke asks before more than one token, or one of somebody else, is
// revoked. n is negative if nobody knows how many there are.
func (a *app) confirmRevoke(ctx context.Context, flags revokeFlags, n int) error {
	if flags.yes || n >= 0 && n <= 1 && flags.subjectID == "" && !flags.allMine {
		return nil
	}
	const kept = "nothing was revoked"
	whose := " of yours"
	switch {
	case flags.subjectID != "":
		whose = " of " + flags.subjectID
	case len(flags.ids) > 0:
		whose = ""
	}
	many := count(n)
	if n < 0 {
		many = "it is not known how many, because you may not list them"
	}
	switch {
	case flags.allMine:
		return a.confirm(ctx, "All refresh tokens of yours, the one behind this session included, are about to be revoked: "+many+".", "revoke all", kept)
	case flags.whole():
		return a.confirm(ctx, "All refresh tokens"+whose+" are about to be revoked: "+many+".", "revoke all", kept)
	case n < 0:
		return a.confirm(ctx, "All matching refresh tokens"+whose+" are about to be revoked: "+many+".", "revoke all", kept)
	}
	return a.confirm(ctx, "About to be revoked: "+many+whose+".", fmt.Sprintf("revoke %d", n), kept)
}

// revokeTarget revokes all tokens of a target with one request.
func (a *app) revokeTarget(ctx context.Context, client *refreshtoken.Client, target refreshtoken.Target) error {
	op, err := client.Revoke(ctx, target)
	if err != nil {
		return err
	}
	result, err := op.Wait(ctx)
	if err != nil {
		return err
	}
	return a.printRevoked(revokedJSON{Revoked: result.RefreshTokenIDs})
}

// maxSecret bounds what is read from stdin, in bytes.
const maxSecret = 16 << 10

// readToken reads a refresh token from stdin, without echo if that is a terminal.
func (a *app) readToken(ctx context.Context) (string, error) {
	if !a.canConfirm() {
		return interruptibly(ctx, func() (string, error) { return readSecret(a.stdin) })
	}
	t, ok := a.openTerminal()
	if !ok {
		return "", usagef("there is no terminal to type the refresh token at")
	}
	token, err := ask(ctx, t, func(t terminal) (string, error) { return a.readHidden(t, "Refresh token (it is not shown): ") })
	if err != nil {
		return "", err
	}
	return readSecret(strings.NewReader(token))
}

// interruptibly does not wait for a read longer than ctx lasts.
func interruptibly(ctx context.Context, read func() (string, error)) (string, error) {
	type result struct {
		text string
		err  error
	}
	done := make(chan result, 1)
	go func() {
		text, err := read()
		done <- result{text, err}
	}()
	select {
	case got := <-done:
		return got.text, got.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

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
	Revoked  []string     `json:"revoked"`
	Failed   []failedJSON `json:"failed,omitempty"`
	NotTried int          `json:"not_tried,omitempty"`
}

type failedJSON struct {
	ID    string `json:"id"`
	Error string `json:"error"`
}

// revokeEach revokes tokens by ID and reports on each. If some fail, the error
// is that of the first.
func (a *app) revokeEach(ctx context.Context, client *refreshtoken.Client, ids []string, concurrency int) error {
	bar := &progress{a: a, began: time.Now()}
	report, fatal := client.RevokeEach(ctx, ids, refreshtoken.RevokeEachOptions{
		Concurrency: concurrency,
		Progress:    func(p refreshtoken.RevokeProgress) { bar.show(p.Done, p.Total) },
	})
	a.stderr.transient("")
	if report == nil {
		return fatal
	}
	failures := report.Failed
	for _, id := range report.Gone {
		failures = append(failures, refreshtoken.RevokeFailure{ID: id, Err: fmt.Errorf("there is no such refresh token: %w", refreshtoken.ErrNotFound)})
	}
	out := revokedJSON{Revoked: report.Revoked, NotTried: len(report.NotTried)}
	for _, f := range failures {
		out.Failed = append(out.Failed, failedJSON{f.ID, message(f.Err)})
	}
	if ctx.Err() != nil {
		a.say("%d of %s revoked, and %d failed or in doubt.", len(out.Revoked), count(len(ids)), len(out.Failed))
		a.say("%d not tried: the same command goes on with them.", out.NotTried)
		if a.output == outputJSON {
			if err := a.printRevoked(out); err != nil {
				return err
			}
		}
		return ctx.Err()
	}
	if err := a.printRevoked(out); err != nil {
		return err
	}
	missed := len(failures) + out.NotTried
	switch {
	case missed == 0:
		return nil
	case fatal == nil:
		fatal = failures[0].Err
	}
	if len(ids) > 1 {
		return fmt.Errorf("%d of %s could not be revoked: %w", missed, count(len(ids)), fatal)
	}
	return fatal
}

// progress says how far a long revocation is: on a terminal all the time, and in a
// log now and then.
type progress struct {
	a           *app
	began, last time.Time
}

const (
	progressRhythm    = 100 * time.Millisecond
	progressLogRhythm = 30 * time.Second
)

func (p *progress) show(done, total int) {
	now := time.Now()
	rhythm := progressRhythm
	if !p.a.stderr.smart {
		rhythm = progressLogRhythm
		if p.last.IsZero() {
			p.last = p.began
		}
	}
	if total < 2 || now.Sub(p.last) < rhythm {
		return
	}
	p.last = now
	text := progressText(done, total, now.Sub(p.began))
	if p.a.stderr.smart {
		p.a.stderr.transient("%s", text)
		return
	}
	p.a.say("%s", text)
}

// progressText has the rate so far and how long the rest takes at that rate.
func progressText(done, total int, elapsed time.Duration) string {
	text := fmt.Sprintf("%d of %d", done, total)
	if done == 0 || elapsed <= 0 {
		return text
	}
	each := elapsed / time.Duration(done)
	return fmt.Sprintf("%s, %.1f/s, about %s left", text, float64(done)/elapsed.Seconds(), roughly(each*time.Duration(total-done)))
}

func (a *app) printRevoked(r revokedJSON) error {
	if a.output == outputJSON {
		if r.Revoked == nil {
			r.Revoked = []string{}
		}
		return a.printJSON(r)
	}
	var rows [][]span
	for _, id := range r.Revoked {
		rows = append(rows, []span{text(id), {"revoked", green}})
	}
	for _, f := range r.Failed {
		rows = append(rows, []span{text(f.ID), {"failed: " + f.Error, red}})
	}
	switch {
	case r.NotTried > 0:
		a.say("%d not tried.", r.NotTried)
	case len(r.Failed) == 0:
		a.say("%s revoked.", count(len(r.Revoked)))
	}
	return a.printTable(nil, rows)
}

func count(n int) string {
	if n == 1 {
		return "1 refresh token"
	}
	return fmt.Sprintf("%d refresh tokens", n)
}
