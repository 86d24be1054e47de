package oauth

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/oauth2"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/internal/clock"
)

// A view is everything that a token source knows at one moment. A view never
// changes: each event makes the next one from it, and both the events and the
// decision what a caller gets are functions without side effects. So the whole
// state machine is in this file; the source only runs what decide asks for, and
// swaps views.
type view struct {
	// session is the newest one known, whether the store has it or not.
	session Session

	// unsaved says that the store does not have session yet; nil if it does.
	unsaved *unsaved

	// ancestors are the refresh tokens that were exchanged, one after the other,
	// for that of session. A store that still has one of them is behind.
	// ancestors[0] is the one that the store had when it was read last.
	ancestors []Secret

	// token is the access token of session, or one of its ancestors' that serves
	// longer; nil if there is none that serves. The spans count from born, when this
	// process received or read it.
	token                   *oauth2.Token
	born                    clock.Instant
	stale, invalid, expires time.Duration

	// looked is when the store was read last. Until served, callers get token without
	// any decision: it is fresh and was not rejected. The span counts from looked, not
	// from born: a clock that jumped between the two and is put right would put off
	// the next look.
	looked clock.Instant
	served clock.Limit

	refused  bool          // a resource rejected token
	refusals uint64        // how many tokens were rejected so far
	rejected clock.Instant // when the last renewal for that cause began
	forced   clock.Instant // when Renew began a renewal last
	credited clock.Instant // when a limit was last lifted by the wall clock alone
	forcing  time.Duration // how long it takes from then until all of forcedBurst may be used again

	// failure is why the last renewal failed; nil if it did not. It is shared
	// during quiet, which counts from failed. During busy, which counts from
	// there too, the server asked for silence, with silence: that holds whatever a
	// sibling stores meanwhile.
	failure     error
	failures    int // in a row
	failed      clock.Instant
	quiet, busy time.Duration
	silence     error

	dead     deadToken
	doubtful Secret        // the refresh token that a lost response may have replaced
	fenced   bool          // after the rest, no request with doubtful can be accepted late
	doubted  clock.Instant // since when

	flight *flight // the one renewal in progress; nil if there is none
	epoch  uint64  // counts logins and logouts: a renewal from before one must not undo it
	closed bool

	// leaving: the store forgets the session at this moment, so that its absence
	// there means a logout even if the login was never saved.
	leaving bool
}

// unsaved describes a session that the store has not taken.
type unsaved struct {
	login    bool    // it began with a login, not with a renewal
	replaced Session // the one that the login is to replace in the store
	had      uint64  // the generation that the store is known to have had
	err      error   // what the store said last; nil if it has not failed yet
}

// deadToken is a refresh token that the server rejected for good, with the error
// that said so: it is not sent again.
type deadToken struct {
	refreshToken Secret
	err          error
}

const (
	// rejectedPause is the least time between two renewals that rejections by
	// resources cause: a resource that rejects every token must not make the
	// server issue tokens without end.
	rejectedPause = 30 * time.Second

	// Renew may renew forcedBurst times in a row, and then once every forcedPause.
	forcedPause = 6 * time.Second
	forcedBurst = 10

	// creditPause is how often the wall clock alone may end a rest. It must be able to,
	// because the monotonic clock may stand still while a computer is suspended. But a
	// wall clock that is set again and again must not undo the limits.
	creditPause = time.Minute

	// lookEvery is how often the store is read while a token is fresh, so that a
	// logout or another login elsewhere is noticed.
	lookEvery = time.Minute

	firstCooldown = time.Second
	maxCooldown   = time.Minute

	// unreachableCooldown is the longest one while nothing reaches the server: it is
	// not burdened, and callers wait for the network.
	unreachableCooldown = 5 * time.Second

	// maxServerCooldown is the longest Retry-After that is believed.
	maxServerCooldown = 10 * time.Minute

	// loginCooldown is how soon a login in another process is noticed. No
	// request is made to find out.
	loginCooldown = 5 * time.Second

	// clockTolerance is how far the clocks of two machines that share a store may
	// be apart before a token that one of them saved seems to be from the future.
	clockTolerance = 5 * time.Minute

	// signerPause is how long a token that is merely stale is not renewed after the
	// signer of the DPoP key failed: each attempt may ask the user for a touch or a PIN.
	signerPause = 10 * time.Minute

	// maxAncestors bounds the memory of a source that cannot save for long.
	maxAncestors = 32
)

// errRejectedAgain is never seen by a caller: the token that it is about has not
// expired, and is served.
var errRejectedAgain = errors.New("oauth: the token that replaced a rejected one was rejected as well")

// An action is what a decision asks the source to do.
type action int

const (
	actNothing action = iota
	actLook           // read the store behind the caller
	actBehind         // renew behind the caller
	actWait           // wait for the renewal in progress, or begin one and wait
)

// A verdict is what decide says: the token or error for the caller at hand, and
// what has to start. With actWait, neither token nor err is set.
type verdict struct {
	token *oauth2.Token
	err   error
	act   action
	cause Cause // of the renewal to begin
}

// decide says what a caller gets at now and what has to start.
//
//	token                    | a renewal runs | resting    | otherwise
//	-------------------------+----------------+------------+---------------------
//	fresh                    | serve          | serve      | serve (look)
//	stale                    | serve          | serve      | serve, renew behind
//	stale, Synchronous       | wait           | serve      | wait
//	invalid, not yet expired | wait           | serve      | wait
//	rejected, not yet expired| wait           | serve      | wait
//	…, renewal failed        | serve          | serve      | serve, renew behind
//	…, session ended         | wait           | the error  | wait
//	expired or none          | wait           | the error  | wait
//
// A source rests when it is closed, while a failure is shared, while the server asks for
// silence, after it renewed for a rejected token a moment ago, and if only a doubtful
// refresh token could replace a token that is merely stale. Unless it is closed, it looks
// into the store meanwhile, as it does with a fresh token: another process may have renewed,
// logged in or logged out.
func (v *view) decide(now clock.Instant, synchronous bool) verdict {
	cause := v.need(now)
	usable := v.usable(now)
	behind := usable != nil && !synchronous &&
		(cause == CauseStale || cause == CauseRejected && v.failures > 0)
	switch {
	case cause == "":
		if now.Since(v.looked) >= lookEvery && v.flight == nil && !v.closed {
			return verdict{token: usable, act: actLook}
		}
		return verdict{token: usable}
	case v.flight != nil:
		if behind {
			return verdict{token: usable}
		}
		return verdict{act: actWait, cause: cause}
	}
	if err := v.resting(now, cause); err != nil {
		d := verdict{token: usable}
		pause := lookEvery
		if usable == nil {
			d.err, pause = err, loginCooldown
		}
		if !v.closed && now.Since(v.looked) >= pause {
			d.act = actLook
		}
		return d
	}
	if behind {
		return verdict{token: usable, act: actBehind, cause: cause}
	}
	return verdict{act: actWait, cause: cause}
}

// need is why a renewal is wanted; "" if the token is fresh.
func (v *view) need(now clock.Instant) Cause {
	age := now.Since(v.born)
	switch {
	case v.token == nil || age >= v.expires:
		return CauseInvalid
	case v.refused:
		return CauseRejected
	case age >= v.invalid:
		return CauseInvalid
	case age >= v.stale:
		return CauseStale
	}
	return ""
}

// usable is the token while it has not expired: the last resort of a caller for
// whom nothing better can be had. Another resource may accept one that was
// rejected; but if the server has rejected the refresh token as well, both mean the
// same, and the user has to be told.
func (v *view) usable(now clock.Instant) *oauth2.Token {
	if v.token == nil || now.Since(v.born) >= v.expires || v.refused && v.ended() {
		return nil
	}
	return v.token
}

// ended reports whether the server has rejected the refresh token, whatever has failed
// since then.
func (v *view) ended() bool {
	return v.dead.refreshToken != "" && v.dead.refreshToken == v.session.RefreshToken
}

// rested reports whether span has passed since an instant.
func (v *view) rested(now, since clock.Instant, span time.Duration) bool {
	return now.MonotonicSince(since) >= span || now.Since(since) >= span && v.hasCredit(now)
}

// asked reports whether the server asked for silence, and the time is not over.
func (v *view) asked(now clock.Instant) bool { return v.busy > 0 && !v.rested(now, v.failed, v.busy) }

// waits reports whether nothing is sent because of an interrupted request.
func (v *view) waits(now clock.Instant) bool {
	var interrupted *InterruptedError
	return errors.As(v.failure, &interrupted) && !v.rested(now, v.failed, v.quiet)
}

// cooldown is how long no renewal begins for this cause after the last failure.
func (v *view) cooldown(cause Cause) time.Duration {
	if cause == CauseStale && signerFailed(v.failure) {
		return max(v.quiet, signerPause)
	}
	return v.quiet
}

// signerFailed reports whether there was no proof to send: the user did not touch the
// card, entered no PIN, or has pulled it out.
func signerFailed(err error) bool {
	var signing *dpop.SigningError
	return errors.As(err, &signing)
}

// hasCredit reports whether the wall clock alone may end a rest.
func (v *view) hasCredit(now clock.Instant) bool {
	return now.MonotonicSince(v.credited) >= creditPause
}

// resting says why no renewal may begin now for this cause; nil if one may.
func (v *view) resting(now clock.Instant, cause Cause) error {
	switch {
	case v.closed:
		return ErrClosed
	case v.failure != nil && !v.rested(now, v.failed, v.cooldown(cause)):
		return v.failure
	case v.asked(now):
		return v.silenced()
	case cause == CauseRejected && !v.rested(now, v.rejected, rejectedPause) && !v.ended() && !errors.Is(v.failure, ErrLoginRequired):
		return errRejectedAgain // once a session has ended, another look for a login costs no request
	case cause == CauseStale && v.doubtful != "" && v.doubtful == v.session.RefreshToken && !v.fenced:
		return ErrOutcomeUnknown
	}
	return nil
}

// silenced is the error while the server asks for silence. It is not said of a session
// that ended meanwhile: somebody has to log in, and that may be done at once.
func (v *view) silenced() error {
	if v.session.IsZero() {
		return &LoginRequiredError{Reason: ReasonNoSession, Err: ErrNoSession}
	}
	return v.silence
}

// supersedes reports whether the session in hand must replace the stored one.
func (v *view) supersedes(stored Session) bool {
	switch {
	case v.session.IsZero():
		return false
	case stored.IsZero():
		// A login that the store never had; everything else was logged out.
		return v.unsaved != nil && v.unsaved.login && !v.leaving
	case !sameLogin(stored, v.session):
		// A login that was not saved yields to every other one but that which it was
		// to replace: the clocks of two machines cannot tell which came first.
		return v.unsaved != nil && v.unsaved.login && sameLogin(stored, v.unsaved.replaced)
	case stored.RefreshToken == v.session.RefreshToken:
		return stored.Generation < v.session.Generation
	}
	// The stored refresh token is another one of the same login. If it was
	// exchanged for ours, or the store had a newer one already and was rolled back,
	// ours is the successor. Otherwise somebody else's renewal was saved first.
	had := v.session.Generation
	if v.unsaved != nil {
		had = v.unsaved.had
	}
	return slices.Contains(v.ancestors, stored.RefreshToken) || stored.Generation < had
}

// sameLogin reports whether two sessions began with the same login or import.
func sameLogin(a, b Session) bool {
	return a.Created.Equal(b.Created) && a.Provider == b.Provider && a.ClientID == b.ClientID
}

// holds reports whether two sessions have the same tokens of the same login.
func holds(a, b Session) bool {
	return sameLogin(a, b) && a.RefreshToken == b.RefreshToken && a.AccessToken == b.AccessToken
}

// --- events ------------------------------------------------------------------

// margins are the Config's durations that the life of a token is divided by.
type margins struct {
	stale, invalid time.Duration
}

// told is what reading the store changed.
type told int

const (
	toldNothing  told = iota
	toldNewer         // another process renewed
	toldReplaced      // another login
	toldGone          // a logout
)

// read is told what the store has. mine is why the stored session cannot be used
// by this client; nil if it can.
func (v view) read(stored Session, mine error, usableToken bool, now clock.Instant, serverTime time.Time, m margins) (view, told) {
	v.looked = now
	v = v.scheduled()
	switch {
	case v.supersedes(stored):
		if v.unsaved == nil { // the store was rolled back
			v.unsaved = &unsaved{had: v.session.Generation}
		}
		return v.seen(stored), toldNothing
	case stored.IsZero():
		if v.session.IsZero() {
			return v, toldNothing
		}
		v = v.loggedOut()
		v.looked = now
		return v, toldGone
	case v.session.IsZero():
		return v.took(stored, mine, usableToken, now, serverTime, m), toldNewer
	case !sameLogin(stored, v.session):
		v.epoch++
		return v.took(stored, mine, usableToken, now, serverTime, m), toldReplaced
	case stored.Generation > v.session.Generation || !holds(stored, v.session):
		return v.took(stored, mine, usableToken, now, serverTime, m), toldNewer
	}
	return v.seen(stored), toldNothing
}

// seen is told that the store has the session in hand, or one that it came from: a save
// that seemed to fail took effect. What the store had before that, it has not any more,
// unless it is rolled back.
func (v view) seen(stored Session) view {
	if v.unsaved == nil || !sameLogin(stored, v.session) {
		return v
	}
	u := *v.unsaved
	u.had = max(u.had, stored.Generation)
	v.unsaved = &u
	if i := slices.Index(v.ancestors, stored.RefreshToken); i > 0 {
		v.ancestors = v.ancestors[i:]
	} else if stored.RefreshToken == v.session.RefreshToken {
		v.ancestors = nil
	}
	return v
}

// took makes a session that was read the one in hand.
func (v view) took(s Session, mine error, usableToken bool, now clock.Instant, serverTime time.Time, m margins) view {
	before := v
	v.session, v.unsaved, v.ancestors = s, nil, nil
	v.failure, v.failures, v.quiet = nil, 0, 0
	v.dead, v.doubtful = deadToken{}, "" // whoever renewed has shown what the refresh token is worth
	left, plausible := remaining(s, now.Wall(), serverTime)
	switch serves := sameLogin(s, before.session) && before.usable(now) != nil && !before.refused; {
	case mine != nil, !usableToken && !serves:
		return v.without()
	case serves && (!usableToken || left <= 0 || !plausible):
		// The new token is bound to another key, or the clock of a computer or of a server
		// is wrong. Two such processes would renew in turns, each because the other's token
		// is of no use to it. The token in hand still is.
		return v.scheduled()
	}
	v = v.with(s, now, left, m)
	if !plausible {
		// A clock was wrong, then or now: the token may be long dead.
		v.stale, v.invalid = min(v.stale, 0), min(v.invalid, 0)
		v = v.scheduled()
	}
	return v
}

// renewed is told what the server issued at now for the refresh token of base.
// The store does not have it yet. refusals is how many tokens had been rejected when
// the renewal began: a rejection since then stands, if the same token came again.
func (v view) renewed(base, next Session, refusals uint64, now clock.Instant, m margins) view {
	v = v.rotated(base, next)
	v.refused = v.refused && v.refusals != refusals
	v.failure, v.failures, v.quiet, v.busy, v.silence = nil, 0, 0, 0, nil
	v.doubtful = ""
	return v.with(next, now, life(next), m)
}

// rotated is told of a new refresh token for base's, with or without an access
// token.
func (v view) rotated(base, next Session) view {
	u := unsaved{had: base.Generation}
	switch {
	case !sameLogin(base, v.session) || v.unsaved == nil:
		v.ancestors = nil
	default:
		u = *v.unsaved // a renewal of what was not saved either
	}
	if base.RefreshToken != next.RefreshToken && base.RefreshToken != "" {
		v.ancestors = append(slices.Clone(v.ancestors), base.RefreshToken)
		if len(v.ancestors) > maxAncestors {
			v.ancestors = slices.Delete(v.ancestors, 1, 2) // the store can have the first one for ever
		}
	}
	v.session, v.unsaved = next, &u
	return v
}

// saved is told that the store has s.
func (v view) saved(s Session) view {
	if holds(s, v.session) {
		v.unsaved = nil
		v.session.Generation = max(v.session.Generation, s.Generation)
	}
	return v
}

// notSaved is told why the store did not take the session.
func (v view) notSaved(err error) view {
	if v.unsaved == nil {
		return v
	}
	u := *v.unsaved
	u.err = err
	v.unsaved = &u
	return v
}

// failedWith is told that a renewal failed at now.
func (v view) failedWith(err error, retryAfter time.Duration, now clock.Instant) view {
	v.failure, v.failed = err, now
	v.busy, v.silence = min(retryAfter, maxServerCooldown), err
	if interrupted := (*InterruptedError)(nil); errors.As(err, &interrupted) {
		if interrupted.Err != nil {
			v.failures++
		}
		v.quiet = max(interrupted.wait, v.busy)
		return v
	}
	if turn := (*turnError)(nil); errors.As(err, &turn) {
		v.quiet = v.busy // nothing was tried; who asks again waits again
		return v
	}
	v.failures++
	if errors.Is(err, ErrLoginRequired) {
		v.quiet, v.busy = loginCooldown, 0 // no request is made before another login is found
		return v
	}
	most := maxCooldown
	if unreachable := (*UnreachableError)(nil); errors.As(err, &unreachable) && unreachable.Temporary() {
		most = unreachableCooldown
	}
	d := min(firstCooldown<<min(v.failures-1, 16), most)
	d += time.Duration(jitter(int64(d)/4 + 1)) // processes should not retry together
	v.quiet = max(d, v.busy)
	return v
}

// doubts is told that the outcome of a request with a refresh token is not known.
func (v view) doubts(refreshToken Secret, fenced bool, now clock.Instant) view {
	if v.doubtful != refreshToken {
		v.doubted = now
	}
	v.doubtful, v.fenced = refreshToken, fenced
	return v
}

// refusedBy is told that a resource rejected a token. A token that is not the one
// in hand is old news, because its successor is there already.
func (v view) refusedBy(accessToken string) (view, bool) {
	if v.token == nil || v.token.AccessToken != accessToken || v.refused {
		return v, false
	}
	v.refused = true
	v.refusals++
	return v.scheduled(), true
}

// loggedIn is told of a login or an import that the store may not have yet.
func (v view) loggedIn(s Session, u *unsaved, now clock.Instant, m margins) view {
	if sameLogin(s, v.session) && s.Generation <= v.session.Generation {
		return v // the store was faster to tell, and the session may have been renewed since
	}
	v = v.loggedOut()
	v.session, v.unsaved, v.looked = s, u, now
	if s.AccessToken == "" {
		return v
	}
	return v.with(s, now, life(s), m)
}

// loggedOut forgets the session and everything that was about it. The server did not ask
// for silence because of the session alone.
func (v view) loggedOut() view {
	return view{
		flight: v.flight, epoch: v.epoch + 1, closed: v.closed, refusals: v.refusals,
		forced: v.forced, forcing: v.forcing, credited: v.credited,
		failed: v.failed, busy: v.busy, silence: v.silence,
	}
}

// launched is told that a renewal begins.
func (v view) launched(f *flight, now clock.Instant) view {
	v.flight = f
	credit := now.MonotonicSince(v.failed) < max(v.cooldown(f.cause), v.busy) && f.cause != CauseForced
	switch f.cause {
	case CauseRejected:
		credit = credit || now.MonotonicSince(v.rejected) < rejectedPause
		v.rejected = now
	case CauseForced:
		level, onCredit, _ := v.forcedLevel(now)
		v.forcing, v.forced, credit = level+forcedPause, now, onCredit
	}
	if credit {
		v.credited = now
	}
	return v
}

// forcedLevel is what is left of forcing, by the monotonic clock if that is little
// enough for another renewal, else by the wall clock (on credit). ok reports whether
// Renew may begin one.
func (v *view) forcedLevel(now clock.Instant) (level time.Duration, onCredit, ok bool) {
	const most = (forcedBurst - 1) * forcedPause
	level = max(0, v.forcing-now.MonotonicSince(v.forced))
	if level <= most {
		return level, false, true
	}
	level = max(0, v.forcing-now.Since(v.forced))
	return level, true, level <= most && v.hasCredit(now)
}

// mayForce reports whether Renew may begin a renewal.
func (v *view) mayForce(now clock.Instant) bool {
	_, _, ok := v.forcedLevel(now)
	return ok
}

// landed is told that the renewal ended.
func (v view) landed() view {
	v.flight = nil
	return v
}

// --- the life of a token -----------------------------------------------------

// jitter is [rand.Int64N], but for a simulation that has to be repeatable.
var jitter = rand.Int64N

const forever = time.Duration(math.MaxInt64)

// with serves the access token of s, which has left to live from born on.
func (v view) with(s Session, born clock.Instant, left time.Duration, m margins) view {
	if v.token == nil || v.token.AccessToken != s.AccessToken.Reveal() {
		v.refused = false
	}
	v.token = &oauth2.Token{AccessToken: s.AccessToken.Reveal(), TokenType: s.TokenType, Expiry: s.Expiry}
	v.born = born
	v.stale, v.invalid, v.expires = forever, forever, forever
	if s.Expiry.IsZero() {
		return v.scheduled() // unknown: good until a resource rejects it
	}
	whole := life(s) // 0 in a session that other software made
	stale, invalid := m.stale, m.invalid
	if stale == 0 {
		// A share of what was left when the token came, not of its whole life:
		// a server that gives the same token again is then asked ever more
		// seldom, not all the time.
		stale = whole / 6
	}
	if invalid == 0 {
		invalid = min(30*time.Second, whole/10)
	}
	// Margins longer than half the life would renew without end.
	stale, invalid = min(stale, whole/2), min(invalid, whole/2)
	stale += time.Duration(jitter(int64(stale/10) + 1)) // processes should not wake together
	stale = max(min(stale, whole/2), invalid)
	v.expires, v.invalid, v.stale = left, left-invalid, left-stale
	return v.scheduled()
}

// without serves nothing.
func (v view) without() view {
	v.token, v.refused = nil, false
	v.stale, v.invalid, v.expires = 0, 0, 0
	return v.scheduled()
}

// scheduled sets until when token is served without a decision.
func (v view) scheduled() view {
	v.served = clock.Limit{}
	if v.token != nil && !v.refused {
		v.served = v.looked.Limit(min(v.stale-max(v.looked.Since(v.born), 0), lookEvery))
	}
	return v
}

// life is how long the access token of s lives in all; 0 if that is unknown.
func life(s Session) time.Duration {
	if s.Expiry.IsZero() || s.Obtained.IsZero() {
		return 0
	}
	return max(s.Expiry.Sub(s.Obtained), 0)
}

// remaining is how long the access token of a session that was read from a store
// lives on, forever if that is not known, when our clock shows wall and the server's, as far as we know,
// serverTime. The clock of the process that wrote the session may have been
// wrong, and ours may be. So the server's own time of issue counts as well, and
// the earlier end wins.
//
// A token that seems to be from the future by both clocks is not plausible. To one of
// them it can: before this process has heard from the server, serverTime is wall, and to
// a wall clock that is behind, and was when the session was saved, Issued is in the
// future and Obtained is not. What the wall clock was set back by since then cannot be
// seen if it is less than the age of the token: the token is then served for that much too long.
func remaining(s Session, wall, serverTime time.Time) (left time.Duration, plausible bool) {
	if s.Expiry.IsZero() {
		return forever, true // no clock has a say
	}
	left, plausible = s.Expiry.Sub(wall), s.Obtained.Sub(wall) <= clockTolerance
	whole := life(s)
	if whole > 0 {
		left = min(left, whole)
	}
	if s.Issued.IsZero() {
		return left, plausible
	}
	if whole > 0 {
		left = min(left, s.Issued.Add(whole).Sub(serverTime))
	}
	plausible = plausible && !s.Obtained.IsZero()
	return left, plausible || s.Issued.Sub(serverTime) <= clockTolerance
}
