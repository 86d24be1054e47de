package main

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
)

type loginFlags struct {
	keyFlags
	federationID  string
	federationSet bool
	clientID      string
	headless      bool
	attest        bool
	timeout       time.Duration
	keyring       bool
	keyringSet    bool
}

func (a *app) loginCommand() *cobra.Command {
	var flags loginFlags
	cmd := &cobra.Command{
		Use:   "login",
		Short: "Log in through a browser",
		Long: "Logs in through a browser and saves the session in the profile, where it replaces the\n" +
			"previous one. The browser is the system's, or the one that $BROWSER names. With\n" +
			"--headless, open the address in a browser on another computer, and enter here the\n" +
			"address of the last page. The refresh token of the previous session stays valid at the\n" +
			"server: log out first to revoke it.\n\n" +
			"The refresh token is bound to the profile's key. If the profile has no key, or with\n" +
			"--key file, the key file is created if it is missing.",
		Example: "  ycauth login --federation-id bpf…\n  ycauth login --key yubikey --attest",
		Args:    noArgs,
	}
	f := cmd.Flags()
	f.StringVar(&flags.federationID, "federation-id", "", "identity federation to log in with; \"\" for none (default: that of the last login)")
	if err := f.SetAnnotation("federation-id", mayBeEmpty, []string{}); err != nil {
		panic(err) // there is no such flag
	}
	f.StringVar(&flags.clientID, "client-id", a.getenv("YCAUTH_CLIENT_ID"), "OAuth client to log in as ($YCAUTH_CLIENT_ID, default: that of the last login, or "+oauth.YandexCloudClientID+")")
	f.BoolVar(&flags.headless, "headless", false, "there is no browser on this computer")
	f.BoolVar(&flags.attest, "attest", false, "show the server the YubiKey's attestation of the key, which names the card (x5c)")
	f.DurationVar(&flags.timeout, "timeout", 10*time.Minute, "how long to wait for the login")
	f.BoolVar(&flags.keyring, "keyring", false, "seal the session with a key in your keyring; its files alone are then of no use (default: as before)")
	flags.register(cmd)
	cmd.RunE = a.action(func(ctx context.Context, _ []string) error {
		flags.keyringSet, flags.federationSet = f.Changed("keyring"), f.Changed("federation-id")
		return a.login(ctx, flags)
	})
	return cmd
}

func (a *app) login(ctx context.Context, flags loginFlags) error {
	if flags.timeout <= 0 {
		return usagef("--timeout is %v: want a positive duration such as 10m", flags.timeout)
	}
	for name, id := range map[string]string{"client-id": flags.clientID, "federation-id": flags.federationID} {
		if strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r > '~' }) {
			return usagef("--%s has a character that is not printable ASCII", name)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, flags.timeout)
	defer cancel()
	store, dir, err := a.openStore(ctx)
	if err != nil {
		return err
	}
	p, err := a.loadProfile(ctx, store, dir)
	if err != nil {
		return err
	}
	p.Keyring = a.sealed(dir)
	switch {
	case !flags.keyringSet || flags.keyring == p.Keyring:
	case flags.keyring:
		if store, err = a.openSealedStore(ctx, dir); err != nil {
			return err
		}
		p.Keyring = true
	default:
		if _, err := store.Load(ctx); !errors.Is(err, oauth.ErrNoSession) {
			return usagef("the session is sealed with a key in the keyring: log out first, with %q", a.commandFor("logout"))
		}
		if store, _, err = a.openPlainStore(); err != nil {
			return err
		}
		p.Keyring = false
	}
	p.Endpoints = a.endpoint.login(p.own)
	if flags.clientID != "" {
		p.ClientID = flags.clientID
	}
	if flags.federationSet {
		p.FederationID = flags.federationID
	}
	if p.Key, err = a.keyForLogin(ctx, dir, p.Key, flags); err != nil {
		return err
	}
	prover, err := a.prover(p.Key)
	if err != nil {
		return err
	}
	sessions := recordingStore{a.sessions(store), a, dir, p}
	c, err := a.connection(p, store, sessions, prover, nil)
	if err != nil {
		return err
	}
	session, err := a.loginWith(ctx, c, oauth.LoginOptions{
		OpenURL: a.openBrowser, Headless: flags.headless,
		In: a.stdin, Out: a.stderr,
		FederationID: p.FederationID,
	})
	if flags.headless && errors.Is(err, io.EOF) {
		a.say("") // the question has not ended its line
		return codedError{exitFailure, errors.New("no address was entered: standard input has ended")}
	}
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		return codedError{exitTemporary, fmt.Errorf("the login was not finished within %v: --timeout sets how long to wait", flags.timeout)}
	}
	if unclosed := (notClosedError{}); errors.As(err, &unclosed) {
		a.warn("the new login could not be revoked either (%s). Its refresh token stays valid until it expires: see %q and %q",
			a.message(unclosed.revoke), a.commandFor("list"), a.commandFor("revoke"))
	}
	if err != nil {
		return err
	}
	_ = sessions.settle(context.WithoutCancel(ctx)) // it changes nothing for readers
	switch session.Warning {
	case oauth.WarnNoOfflineScope:
		a.warn("the server did not grant offline_access, so there is no refresh token: log in again when the IAM token expires")
	case oauth.WarnRefreshTokensOff:
		a.warn("the server issued no refresh token: %s. Log in again when the IAM token expires", p.Endpoints.provider().RefreshTokenSwitch)
	}
	a.say("You are logged in. %q prints an IAM token.", a.commandFor("token"))
	return a.printStatus(newStatus(a, p, session, p.kept(store), nil))
}

// loginWith logs in. A login whose session cannot be saved is closed, because
// nobody could use it and nobody would miss it.
func (a *app) loginWith(ctx context.Context, c *connection, options oauth.LoginOptions) (oauth.Session, error) {
	done := make(chan struct{})
	defer close(done)
	a.signals.hold(func() { // it may be saving
		select {
		case <-done:
		case <-time.After(saveTimeout):
		}
	})
	session, err := c.client.Login(ctx, options)
	var unsaved *oauth.PersistError
	if !errors.As(err, &unsaved) {
		return session, err
	}
	if c.client.TokenSource().Close() == nil { // which tries once more
		return session, nil
	}
	if session.RefreshToken == "" {
		return session, fmt.Errorf("the login could not be saved: %w", unsaved.Err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
	defer cancel()
	if err := c.revokeOwn(ctx, session); err != nil {
		return session, notClosedError{unsaved.Err, err}
	}
	return session, fmt.Errorf("the login could not be saved, so it was revoked, and what was stored before is as it was: %w", unsaved.Err)
}

// saveTimeout bounds how long the end of the program waits for a login, and how
// long the revocation of one may take.
const saveTimeout = 30 * time.Second

// notClosedError means that there is a login that nobody can use.
type notClosedError struct{ save, revoke error }

func (e notClosedError) Error() string {
	return "the login could not be saved: " + e.save.Error()
}
func (e notClosedError) Unwrap() error { return e.save }

// keyForLogin chooses the key that the session will be bound to.
func (a *app) keyForLogin(ctx context.Context, dir string, before keyChoice, flags loginFlags) (keyChoice, error) {
	kind, err := flags.chosen(before)
	if err != nil {
		return keyChoice{}, err
	}
	if kind == keyYubiKey {
		return a.cardForLogin(ctx, before, flags)
	}
	if flags.attest {
		return keyChoice{}, usagef("--attest is for keys on a YubiKey: add --key yubikey")
	}
	path := flags.file
	if path == "" {
		path = before.File
	}
	if path == "" {
		path = a.defaultKeyFile(dir)
	}
	if path, err = filepath.Abs(path); err != nil {
		return keyChoice{}, err
	}
	if err := makeKeyDir(dir, path); err != nil {
		return keyChoice{}, err
	}
	_, err = dpop.LoadOrGenerateKeyFile(path)
	if err != nil && flags.file != "" && notKey(path) {
		err = &dpop.KeyFileError{Path: path, Reason: "it is not a file with a private key: name another with --key-file"}
	}
	return keyChoice{File: path}, err
}

// notKey reports whether a file can be read and holds no PEM. What else is wrong with such
// a file, its owner and its mode, is of no interest: nobody should correct that.
func notKey(path string) bool {
	if fi, err := os.Stat(path); err != nil || !fi.Mode().IsRegular() {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 64<<10)) // no key file is larger
	block, _ := pem.Decode(data)
	return err == nil && block == nil
}

// cardForLogin chooses a key that is on a card already: a login never changes one.
func (a *app) cardForLogin(ctx context.Context, before keyChoice, flags loginFlags) (keyChoice, error) {
	if before.Card != nil && !flags.namesCard() && !flags.attest {
		return before, nil
	}
	key, err := a.openCard(ctx, before, flags.keyFlags)
	if err != nil {
		return keyChoice{}, err
	}
	defer key.Close()
	choice, err := onCard(key)
	if err != nil || !flags.attest {
		return choice, err
	}
	attestation, err := key.Attestation(ctx)
	if err != nil {
		return keyChoice{}, err
	}
	for _, cert := range attestation.Certificates() {
		choice.Chain = append(choice.Chain, cert.Raw)
	}
	return choice, nil
}
