package oauth

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/ycauth/ycauth-go/internal/retry"
)

// LoginOptions change one [Client.Login].
type LoginOptions struct {
	// OpenURL shows the authorization page to the user, usually in a browser. It
	// may return at once or when the page is closed. It should return when ctx is
	// canceled, shortly after the login completes. Its error is printed to Out
	// together with the URL, and the login continues; without Out, the login
	// fails. Optional. Default: the URL is printed to Out.
	OpenURL func(ctx context.Context, url string) error

	// Headless is for hosts without a browser: OpenURL is not used, the URL is
	// printed to Out, and the user opens it elsewhere and enters the address
	// of the last page, which is read from In as one line.
	// Optional.
	Headless bool

	// Device is for hosts that the user's browser cannot reach, and that have no keyboard
	// for an address: the user opens a short address on any device, enters a code there and
	// logs in (RFC 8628). OpenURL and In are not used. It needs Provider.DeviceAuthURL.
	// Until then the client asks the server every few seconds, each time with a proof, so it
	// does not suit a DPoP key that must be touched for each.
	// Users must not enter codes that somebody else has sent them (§5.4), so prefer the
	// other ways where they work. Optional.
	Device bool

	// ShowCode shows the user what to do with Device. It must return promptly; its error
	// ends the login. Optional. Default: the address and the code are printed to Out.
	ShowCode func(ctx context.Context, code DeviceCode) error

	// In is where the user's line is read from. A read in progress when ctx
	// is done is abandoned, not interrupted. Required with Headless.
	In io.Reader

	// Out receives instructions for the user. Optional. Default: nothing is
	// printed. Required with Headless, and without OpenURL or ShowCode.
	Out io.Writer

	// FederationID preselects the user's identity federation, if
	// Provider.FederationHintParam is set. Optional.
	FederationID string

	// SubjectHint preselects the user, if
	// Provider.SubjectHintParam is set. Optional.
	SubjectHint string
}

// Login asks the user to log in and replaces the stored session by a new one. Unless
// [LoginOptions.Device] is set, it uses the authorization code grant (RFC 6749 §4.1) with PKCE (RFC 7636), binds the
// code to the DPoP key if the provider has dpop_jkt (RFC 9449 §10), and listens for
// the redirect on a port of the loopback interface (RFC 8252 §7.3, [Config.RedirectURL])
// until the login ends.
//
// The listener accepts only the response to this login and ignores everything
// else. ctx bounds the login, except for saving tokens that the server has already
// issued, which takes 30 seconds at most, or 5 minutes if the store does not return. Login locks the store once before it asks the
// user for anything. If that fails, or takes 30 seconds, Login returns a
// [*StoreError] at once.
//
// If the server issues no refresh token, the session has a Warning with the
// cause, and lasts as long as its access token.
//
// The error is an [*AuthorizationError] if the server rejected the login, matches
// [ErrIssuerMismatch] if another server responded, is ctx's error, or one
// listed in the package documentation. If the session cannot be saved, Login
// returns it together with a [*PersistError], and the token source serves it
// from memory.
func (c *Client) Login(ctx context.Context, opts LoginOptions) (Session, error) {
	if err := c.checkLogin(opts); err != nil {
		return Session{}, err
	}
	replaced, err := c.lookBeforeLogin(ctx)
	if err != nil {
		return Session{}, err
	}
	if opts.Device {
		return c.loginDevice(ctx, opts, replaced)
	}
	cb, err := listenCallback(ctx, c.redirect, expectedIssuer{c.cfg.Provider.Issuer, c.cfg.Provider.RequireIss})
	if err != nil {
		return Session{}, err
	}
	// Also if what the program brought along panics: the observer, the store, the signer.
	outcome := errAborted
	leave := func() {}
	defer func() {
		cb.finish(outcome)
		leave()
	}()
	verifier := randomText()
	var code Secret
	var session Session
	authURL, err := c.authorizationURL(ctx, c.authorizationRequest(cb.redirectURI, cb.state, verifier, opts))
	if err == nil {
		leave = showURL(ctx, authURL, cb, opts)
		code, err = awaitCode(ctx, cb, opts)
	}
	if err == nil {
		session, err = c.redeem(ctx, codeGrant(code, verifier, cb.redirectURI), replaced)
	}
	outcome = err
	return session, err
}

// errAborted is what the page of a login is told that ended with a panic.
var errAborted = errors.New("oauth: the login was aborted")

// lookBeforeLogin locks the store and changes nothing, to find out whether a
// session can be saved. It returns the session that the login is to replace.
func (c *Client) lookBeforeLogin(ctx context.Context) (replaced Session, _ error) {
	limited, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	locked := false
	call := newCall()
	call.now = true
	err := c.updateWith(limited, call, func(stored Session) (Session, error) {
		locked, replaced = true, stored
		return stored, nil
	})
	switch {
	case err == nil:
		return replaced, nil
	case !locked && limited.Err() != nil && ctx.Err() == nil:
		by := "another process or client, which renews the session or hangs"
		if c.source.view.Load().flight != nil {
			by = "a renewal of this client, whose server or signer is slow"
		}
		err = fmt.Errorf("it was in use for %v by %s; retry the login afterwards: %w", saveTimeout, by, err)
	}
	return Session{}, &StoreError{err}
}

func (c *Client) checkLogin(opts LoginOptions) error {
	switch {
	case opts.Device && c.deviceAuthURL == nil:
		return &ConfigError{"Provider.DeviceAuthURL", "is empty: a login with LoginOptions.Device needs it"}
	case opts.Device && opts.Headless:
		return errors.New("oauth: LoginOptions.Device and Headless are different ways to log in: choose one")
	case opts.Device && opts.ShowCode == nil && opts.Out == nil:
		return errors.New("oauth: LoginOptions.Device needs ShowCode or Out to show the code to the user")
	case opts.Device:
		return nil
	case c.authURL == nil:
		return &ConfigError{"Provider.AuthURL", "is empty: a login needs it"}
	case opts.Headless && (opts.In == nil || opts.Out == nil):
		return errors.New("oauth: LoginOptions.Headless needs In and Out, because the user must read a URL and enter one")
	case opts.OpenURL == nil && opts.Out == nil:
		return errors.New("oauth: LoginOptions needs OpenURL or Out to show the URL to the user")
	}
	return nil
}

// authorizationURL is where the user's browser goes with an authorization request: with its
// parameters in the URL, or with a reference to those that were pushed.
func (c *Client) authorizationURL(ctx context.Context, request url.Values) (string, error) {
	if c.cfg.Provider.RequirePAR {
		requestURI, err := c.push(ctx, request)
		if err != nil {
			return "", fmt.Errorf("oauth: the login was not begun: %w", err)
		}
		request = url.Values{"client_id": {c.cfg.ClientID}, "request_uri": {requestURI.Reveal()}}
	}
	u := *c.authURL
	q := u.Query()
	maps.Copy(q, request)
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// authorizationRequest is that of RFC 6749 §4.1.1.
func (c *Client) authorizationRequest(redirectURI string, state, verifier Secret, opts LoginOptions) url.Values {
	q := c.accessRequest(opts)
	q.Set("response_type", "code")
	q.Set("redirect_uri", redirectURI)
	q.Set("state", state.Reveal())
	q.Set("code_challenge", challengeS256(verifier))
	q.Set("code_challenge_method", "S256")
	if c.dpopJKT != "" {
		q.Set("dpop_jkt", c.dpopJKT)
	}
	return q
}

// accessRequest is what a login asks for, and whose it should be.
func (c *Client) accessRequest(opts LoginOptions) url.Values {
	p := c.cfg.Provider
	q := cloneValues(p.AuthParams)
	q.Set("client_id", c.cfg.ClientID)
	if len(c.cfg.Scopes) > 0 {
		q.Set("scope", strings.Join(c.cfg.Scopes, " "))
	}
	if len(c.cfg.Resources) > 0 {
		q["resource"] = c.cfg.Resources
	}
	if p.FederationHintParam != "" && opts.FederationID != "" {
		q.Set(p.FederationHintParam, opts.FederationID)
	}
	if p.SubjectHintParam != "" && (opts.SubjectHint != "" || opts.FederationID != "") {
		q.Set(p.SubjectHintParam, opts.SubjectHint) // sent beside a federation even if empty, as Yandex Cloud documents
	}
	return q
}

// leaveGrace is how long OpenURL has, after the login, to see its last page.
const leaveGrace = time.Second

// showURL tells the user where to log in. The function it returns waits a moment
// for OpenURL to return, and no longer: it may have started a browser that the
// user goes on using.
func showURL(ctx context.Context, authURL string, cb *callback, opts LoginOptions) (leave func()) {
	switch {
	case opts.Headless:
		fmt.Fprintf(opts.Out, "Open this address in a browser on any computer and log in:\n\n%s\n\n"+
			"The browser then goes to an address that begins with %s, and may report that it cannot open it.\n"+
			"Enter that address here: ", authURL, cb.redirectURI)
		return func() {}
	case opts.OpenURL == nil:
		fmt.Fprintf(opts.Out, "Open this address in a browser to log in:\n\n%s\n\n", authURL)
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	opened := make(chan struct{})
	go func() {
		defer close(opened)
		switch err := opts.OpenURL(ctx, authURL); {
		case err == nil || ctx.Err() != nil:
		case opts.Out == nil:
			cb.fail(fmt.Errorf("oauth: no browser could be opened, and LoginOptions.Out is not set: %w", err))
		default:
			fmt.Fprintf(opts.Out, "No browser could be opened (%v). Open this address to log in:\n\n%s\n\n", err, authURL)
		}
	}()
	return func() {
		defer cancel()
		grace := time.NewTimer(leaveGrace)
		defer grace.Stop()
		select {
		case <-opened:
		case <-grace.C:
		case <-ctx.Done():
		}
	}
}

// awaitCode waits for the response, from the listener or the user.
func awaitCode(ctx context.Context, cb *callback, opts LoginOptions) (Secret, error) {
	pasted := make(chan pastedLine, 1)
	if opts.Headless {
		go readLine(opts.In, pasted)
	}
	for {
		select {
		case <-ctx.Done():
			return "", retry.Ended(ctx)
		case err := <-cb.failed:
			return "", err
		case a := <-cb.answers:
			return a.code, a.err
		case line := <-pasted:
			if line.err != nil {
				return "", fmt.Errorf("oauth: reading the address: %w", line.err)
			}
			a, err := parsePasted(line.text, cb)
			if err != nil {
				fmt.Fprintf(opts.Out, "%v.\nEnter the whole address: ", err)
				go readLine(opts.In, pasted)
				continue
			}
			return a.code, a.err
		}
	}
}

type pastedLine struct {
	text string
	err  error
}

// maxPasted bounds the line that is read, in bytes.
const maxPasted = 64 << 10

// readLine reads byte by byte, so that whatever follows the line stays unread.
func readLine(r io.Reader, out chan<- pastedLine) {
	line, err := bufio.NewReaderSize(io.LimitReader(byteReader{r}, maxPasted), 1).ReadString('\n')
	if line = strings.TrimSpace(line); line != "" {
		err = nil
	}
	out <- pastedLine{line, err}
}

// byteReader keeps bufio from reading ahead.
type byteReader struct{ r io.Reader }

func (b byteReader) Read(p []byte) (int, error) { return b.r.Read(p[:min(len(p), 1)]) }

// parsePasted takes the response out of the address that a browser ended on.
func parsePasted(text string, cb *callback) (callbackResponse, error) {
	u, err := url.Parse(text)
	if err != nil || u.RawQuery == "" {
		return callbackResponse{}, errors.New("that is not an address with a code in it")
	}
	return parseCallback(u.Query(), cb.state, cb.from)
}

// redeem exchanges the grant of a login and stores the session.
func (c *Client) redeem(ctx context.Context, g grant, replaced Session) (Session, error) {
	defer c.source.redeem()()
	response, err := c.exchange(ctx, g)
	if err != nil && response.refreshToken == "" { // with one, the first renewal makes up for the rest
		var ex *exchangeError
		if errors.As(err, &ex) {
			err = ex.err
		}
		return Session{}, fmt.Errorf("oauth: the login was not completed: %w", err)
	}
	session := Session{
		Provider: c.cfg.Provider.Name, ClientID: c.cfg.ClientID,
		RefreshToken: response.refreshToken, Created: c.source.begins(replaced),
		Scopes:     slices.Clone(c.cfg.Scopes), // "if omitted, identical to the scope requested" (RFC 6749 §5.1)
		Generation: 1,
	}
	if response.refreshToken != "" {
		c.bind(&session, response)
	}
	if err == nil {
		c.setToken(&session, response)
	}
	if response.refreshToken == "" {
		session.Warning = c.missingRefreshToken(session.Scopes)
	}
	// The user has done their part: what they gave is kept even if they, or a
	// deadline, end ctx now. It is in memory before it is in the store.
	c.source.loggedIn(session, &unsaved{login: true, replaced: replaced})
	saveCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
	defer cancel()
	call := newCall()
	call.now = true
	err = c.updateWith(saveCtx, call, func(stored Session) (Session, error) {
		if v := c.source.view.Load(); sameLogin(v.session, session) {
			session = v.session // it can have been renewed, and saved, in the meantime
			if sameLogin(stored, session) && !v.supersedes(stored) {
				session = stored
				return stored, nil
			}
		}
		session.Generation = max(session.Generation, generationAfter(stored, session))
		if !sameLogin(c.source.view.Load().session, session) {
			// While the login waited for the lock, a renewal found the session of somebody
			// else, which this one replaces.
			c.source.loggedIn(session, &unsaved{login: true, replaced: stored})
		}
		return session, nil
	})
	event := Event{Kind: EventLogin, Generation: session.Generation, Expiry: session.Expiry}
	if err != nil {
		c.source.unsaved(err, event)
		return session.clone(), &PersistError{err}
	}
	c.source.saved(session)
	c.emit(event)
	return session.clone(), nil
}

// missingRefreshToken tells the two causes apart.
func (c *Client) missingRefreshToken(granted []string) Warning {
	if offline := c.cfg.Provider.OfflineScope; offline != "" && !slices.Contains(granted, offline) {
		return WarnNoOfflineScope
	}
	return WarnRefreshTokensOff
}
