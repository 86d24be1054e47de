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

	"github.com/ycauth/ycauth-go/oauth"
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
		Long: "Revokes refresh tokens, selected in one of four ways:\n\n" +
			"  ID…                    by the IDs that \"ycauth list\" shows\n" +
			"  --refresh-token -      the token itself, read from stdin\n" +
			"  selecting flags        those that match every flag; --older-than and\n" +
			"                         --protection-level revoke one by one, --dry-run only lists\n" +
			"  --all-mine             all of yours, including that of this session\n\n" +
			"Several IDs, and tokens that flags select, are revoked only after a typed confirmation,\n" +
			"which shows how many tokens there are, or with --yes. Exactly the tokens that were\n" +
			"counted are revoked. With --all-mine, with --yes, or if you may not list them, it is\n" +
			"every token that matches at that moment. To revoke the tokens of others, you need the\n" +
			"role organization-manager.federations.userAdmin or\n" +
			"iam.userAccounts.refreshTokenRevoker.\n\n" +
			"--older-than measures by the server's clock. It ends with an error if this computer's\n" +
			"clock differs by more than 5 minutes, and never revokes the session of this profile.\n\n" +
			"IAM tokens that were issued before stay valid until they expire. After Ctrl-C the\n" +
			"program says what was done, and the same command continues from there. If the\n" +
			"session of this profile was among the revoked ones, it is deleted here as well, and a\n" +
			"warning says so.",
		Example: "  ycauth revoke ajeq9mfm0rpu7k7oh5pc\n" +
			"  ycauth revoke --older-than 30d --protection-level NO_PROTECTION --dry-run",
	}
	f := cmd.Flags()
	flags.register(cmd)
	f.StringSliceVar(&flags.ids, "id", nil, "ID of a refresh token, the same as an argument; several with commas")
	f.StringVar(&flags.token, "refresh-token", "", "- to read the refresh token from stdin")
	f.BoolVar(&flags.allMine, "all-mine", false, "all your refresh tokens")
	f.Var(&flags.olderThan, "older-than", "tokens that were not used for this long, such as 30d, 2w or 12h")
	f.BoolVar(&flags.dryRun, "dry-run", false, "only list what would be revoked")
	f.BoolVarP(&flags.yes, "yes", "y", false, "revoke without asking for confirmation")
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
	if asks := len(flags.ids) > 1 || flags.selects() || flags.allMine; asks && !flags.dryRun && !flags.yes && !a.canConfirm() {
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
	clock := &serverClock{base: c.http.Transport, now: a.now}
	r := &revocation{a: a, c: c, client: c.refreshTokensOver(c.client.TokenSource(), clock), clock: clock, flags: flags}
	switch {
	case token != "":
		err = r.byToken(ctx, token)
	case len(flags.ids) > 0:
		err = r.byID(ctx)
	default:
		err = r.byFlags(ctx, filter)
	}
	return errors.Join(err, r.tellIfEnded(ctx))
}

// revocation is one run of the command.
type revocation struct {
	a      *app
	c      *connection
	client *refreshtoken.Client
	clock  *serverClock
	flags  revokeFlags
	own    fate

	session oauth.Session // of the profile in use, before anything is revoked; zero if it does not matter
}

// fate is what became of the session of the profile in use. Nothing tells which of
// the tokens that are listed is its own.
type fate int

const (
	fateUntouched fate = iota
	fateUnknown
	fateEnded
)

func (r *revocation) byToken(ctx context.Context, token string) error {
	session, err := r.c.client.Session(ctx)
	if err != nil {
		return err
	}
	ids, err := r.target(ctx, refreshtoken.ByToken(token))
	switch {
	case err != nil && len(ids) == 0:
	case session.RefreshToken.Reveal() == token:
		r.own, r.session = fateEnded, session
	default:
		r.own = fateUnknown // it may be an older token of the same grant
	}
	return err
}

func (r *revocation) byID(ctx context.Context) error {
	if len(r.flags.ids) > 1 {
		if err := r.a.confirmRevoke(ctx, r.flags, len(r.flags.ids)); err != nil {
			return err
		}
	}
	ids, err := r.a.revokeEach(ctx, r.client, r.flags.ids, r.flags.concurrency)
	if len(ids) > 0 {
		r.own = fateUnknown
	}
	return err
}

// byFlags revokes what flags select. What was counted for the question is what is
// revoked: a request with the conditions would revoke what came since as well.
func (r *revocation) byFlags(ctx context.Context, filter refreshtoken.Filter) error {
	a, flags := r.a, r.flags
	session, err := r.c.client.Session(ctx)
	if err != nil {
		return err
	}
	n := -1 // unknown
	var tokens []*refreshtoken.RefreshToken
	if flags.dryRun || flags.oneByOne() || !flags.yes {
		tokens, err = r.selected(ctx, filter)
		if err == nil {
			n = len(tokens)
		} else if flags.dryRun || flags.oneByOne() || !errors.Is(err, refreshtoken.ErrPermissionDenied) { // who may revoke may not always list
			return err
		}
	}
	switch {
	case flags.dryRun:
		a.say("%s would be revoked.", count(n))
		return a.printTokens(tokens)
	case n == 0:
		return a.printRevoked(revokedJSON{})
	}
	if err := a.confirmRevoke(ctx, flags, n); err != nil {
		return err
	}
	var ids []string
	switch {
	case flags.allMine:
		// In one request: the token behind this session is among them, and without it
		// the others may be out of reach.
		ids, err = r.target(ctx, refreshtoken.AllMine())
		if len(ids) > 0 && session.RefreshToken != "" {
			r.own, r.session = fateEnded, session
		}
		return err
	case n > 0:
		ids, err = a.revokeEach(ctx, r.client, tokenIDs(tokens), flags.concurrency)
		for _, t := range tokens {
			if slices.Contains(ids, t.ID) && (t.ClientID == "" || t.ClientID == session.ClientID) {
				r.own = fateUnknown
			}
		}
	default:
		ids, err = r.target(ctx, refreshtoken.ByFilter(refreshtoken.RevokeFilter{
			ClientID: flags.clientID, SubjectID: flags.subjectID, ClientInstanceInfo: flags.clientInstanceInfo,
		}))
		if len(ids) > 0 && (flags.clientID == "" || flags.clientID == session.ClientID) {
			r.own = fateUnknown
		}
	}
	if own := session.Identity.Subject; flags.subjectID != "" && own != "" && own != flags.subjectID {
		r.own = fateUntouched
	}
	return err
}

// tellIfEnded warns if the session of this profile was among the tokens. Where
// that is not known, a renewal tells, unless somebody would have to touch a card
// for it.
func (r *revocation) tellIfEnded(ctx context.Context) error {
	a := r.a
	switch {
	case r.own == fateUntouched || ctx.Err() != nil:
		return nil //nolint:nilerr // the caller says that it was interrupted
	case r.own == fateEnded:
		r.deleteEnded(ctx, r.session)
		return nil
	}
	if r.c.profile.Key.Card != nil {
		a.say("If the session of this profile was among them, it has ended: %q tells.", a.commandFor("token --renew"))
		return nil
	}
	session, err := r.c.client.Session(ctx) // of which a later login is not
	if err == nil {
		_, err = r.c.client.TokenSource().Renew(ctx)
	}
	var login *oauth.LoginRequiredError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &login) && login.Reason == oauth.ReasonNoRefreshToken:
	case unlessEnded(err) == nil && err != nil:
		r.deleteEnded(ctx, session)
	case err != nil:
		a.say("If the session of this profile was among them, it has ended. That could not be found out: %s", a.message(err))
	}
	return nil
}

// deleteEnded deletes the session that has ended at the server, so that no command takes
// it for one that is good. A later login stays.
func (r *revocation) deleteEnded(ctx context.Context, ended oauth.Session) {
	const among = "the session of this profile was among them: it has ended, and "
	a := r.a
	r.c.close() // from then on nothing here saves a session
	replaced := false
	err := a.sessions(r.c.store).Update(ctx, func(stored oauth.Session) (oauth.Session, error) {
		if replaced = !stored.IsZero() && !stored.Created.Equal(ended.Created); replaced {
			return stored, nil
		}
		return oauth.Session{}, nil
	})
	switch {
	case err != nil:
		a.warn(among+"could not be deleted here (%s): %q deletes it. Log in again with %q", a.message(err), a.commandFor("logout --local"), a.commandFor("login"))
	case replaced:
		a.say("The session of this profile was among them. A later login has replaced it here.")
	default:
		a.warn(among+"was deleted here. Log in again with %q", a.commandFor("login"))
	}
}

// selected are the tokens that match every flag.
func (r *revocation) selected(ctx context.Context, filter refreshtoken.Filter) ([]*refreshtoken.RefreshToken, error) {
	tokens := []*refreshtoken.RefreshToken{}
	options := refreshtoken.ListOptions{SubjectID: r.flags.subjectID, Filter: filter, PageSize: 1000}
	for t, err := range r.client.List(ctx, options) {
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, t)
	}
	if r.flags.olderThan == 0 {
		return tokens, nil
	}
	now, err := r.clock.time()
	if err != nil {
		return nil, err
	}
	session, err := r.c.client.Session(ctx) // the listing may have renewed it
	if err != nil {
		return nil, err
	}
	since := now.Add(-time.Duration(r.flags.olderThan))
	tokens = slices.DeleteFunc(tokens, func(t *refreshtoken.RefreshToken) bool { return !t.NotUsedSince(since) })
	n := len(tokens)
	tokens = slices.DeleteFunc(tokens, func(t *refreshtoken.RefreshToken) bool { return mayBeOwn(t, session, now) })
	if left := n - len(tokens); left > 0 {
		r.a.say("%s left alone, because the session of this profile may be among them: give the ID to revoke one all the same.", count(left))
	}
	return tokens, nil
}

// mayBeOwn reports whether a token that was found by its age may be the one behind
// the session. Nothing says so, but it was created with the login, and was in use when
// the session's IAM token was issued. now is the server's time.
func mayBeOwn(t *refreshtoken.RefreshToken, s oauth.Session, now time.Time) bool {
	switch {
	case s.RefreshToken == "",
		t.ClientID != "" && t.ClientID != s.ClientID,
		t.SubjectID != "" && s.Identity.Subject != "" && t.SubjectID != s.Identity.Subject,
		t.ProtectionLevel == refreshtoken.NoProtection && s.KeyThumbprint != "":
		return false
	}
	issued := s.Issued
	if issued.IsZero() {
		issued = s.Obtained.Add(-maxClockDifference) // by the clock of this computer
	}
	used := t.LastUsedAt
	if used.IsZero() {
		used = t.CreatedAt
	}
	return s.Obtained.IsZero() || issued.After(now.Add(maxClockDifference)) || // that clock was wrong then
		!used.Before(issued.Add(-time.Minute)) ||
		t.CreatedAt.Sub(s.Created).Abs() <= 2*maxClockDifference
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

// confirmRevoke asks before several tokens, or those that flags select, are
// revoked. n is negative if nobody knows how many there are.
func (a *app) confirmRevoke(ctx context.Context, flags revokeFlags, n int) error {
	if flags.yes {
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
	const unknown = "It is not known how many there are, because you may not list them."
	switch {
	case flags.allMine && n < 0:
		return a.confirm(ctx, "All refresh tokens of yours, the one behind this session included, are about to be revoked. "+unknown, "revoke all", kept)
	case flags.allMine:
		return a.confirm(ctx, "All refresh tokens of yours, the one behind this session included, are about to be revoked: "+count(n)+" now, and any that is issued meanwhile.", "revoke all", kept)
	case n < 0:
		which := "All matching"
		if flags.whole() {
			which = "All"
		}
		return a.confirm(ctx, which+" refresh tokens"+whose+" are about to be revoked. "+unknown, "revoke all", kept)
	case flags.whole():
		return a.confirm(ctx, "All refresh tokens"+whose+" are about to be revoked: "+count(n)+".", fmt.Sprintf("revoke %d", n), kept)
	}
	return a.confirm(ctx, "About to be revoked: "+count(n)+whose+".", fmt.Sprintf("revoke %d", n), kept)
}

// target revokes all tokens of a target with one request.
func (r *revocation) target(ctx context.Context, target refreshtoken.Target) (revoked []string, err error) {
	op, err := r.client.Revoke(ctx, target)
	if err != nil {
		return nil, err
	}
	result, err := op.Wait(ctx)
	if err != nil {
		return nil, err
	}
	return result.RefreshTokenIDs, r.a.printRevoked(revokedJSON{Revoked: result.RefreshTokenIDs})
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

// ofID is an error about an ID with that ID in the place of its number.
func ofID(err error, ids []string) error {
	var wrong *refreshtoken.ArgumentError
	var i int
	if !errors.As(err, &wrong) {
		return err
	}
	if _, other := fmt.Sscanf(wrong.Field, "ids[%d]", &i); other != nil || i >= len(ids) {
		return err
	}
	return usagef("the ID %q %s", ids[i], wrong.Reason)
}

// revokeEach revokes tokens by ID and reports on each. If some fail, the error
// is that of the first.
func (a *app) revokeEach(ctx context.Context, client *refreshtoken.Client, ids []string, concurrency int) (revoked []string, err error) {
	bar := &progress{a: a, began: time.Now()}
	report, fatal := client.RevokeEach(ctx, ids, refreshtoken.RevokeEachOptions{
		Concurrency: concurrency,
		Progress:    func(p refreshtoken.RevokeProgress) { bar.show(p.Done, p.Total) },
	})
	a.stderr.transient("")
	if report == nil {
		return nil, ofID(fatal, ids)
	}
	failures := report.Failed
	for _, id := range report.Gone {
		failures = append(failures, refreshtoken.RevokeFailure{ID: id, Err: errNoSuchToken})
	}
	out := revokedJSON{Revoked: report.Revoked, NotTried: len(report.NotTried)}
	for _, f := range failures {
		out.Failed = append(out.Failed, failedJSON{f.ID, a.message(f.Err)})
	}
	if ctx.Err() != nil {
		a.say("%d of %s revoked, and %d failed or in doubt.", len(out.Revoked), count(len(ids)), len(out.Failed))
		a.say("%d not tried: the same command goes on with them.", out.NotTried)
		if a.output == outputJSON {
			if err := a.printRevoked(out); err != nil {
				return out.Revoked, err
			}
		}
		return out.Revoked, ctx.Err()
	}
	if err := a.printRevoked(out); err != nil {
		return out.Revoked, err
	}
	missed := len(failures) + out.NotTried
	switch {
	case missed == 0:
		return out.Revoked, nil
	case fatal == nil:
		fatal = failures[0].Err
	}
	if len(ids) > 1 {
		return out.Revoked, fmt.Errorf("%d of %s could not be revoked: %w", missed, count(len(ids)), fatal)
	}
	return out.Revoked, fatal
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

// errNoSuchToken is why a token was not revoked that expired or was revoked before.
var errNoSuchToken = errors.New("there is no such refresh token")

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
