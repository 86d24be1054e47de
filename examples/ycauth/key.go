package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/spf13/cobra"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/piv"
)

func (a *app) keyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "key",

		SuggestionsMinimumDistance: 2,

		Short: "Make and look at the profile's key",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("a subcommand is missing: init, show or attest")
		},
	}
	cmd.AddCommand(a.keyInitCommand(), a.keyShowCommand(), a.keyAttestCommand())
	return cmd
}

// keyJSON describes a key.
type keyJSON struct {
	Kind       string           `json:"kind"`
	File       string           `json:"file,omitempty"`
	YubiKey    *piv.Reference   `json:"yubikey,omitempty"`
	Algorithm  string           `json:"algorithm"`
	Thumbprint string           `json:"thumbprint"` // RFC 7638, SHA-256
	Attested   bool             `json:"sends_attestation"`
	JWK        *jose.JSONWebKey `json:"jwk"` // the public part
}

func (a *app) printKey(k keyChoice) error {
	prover, err := a.prover(k)
	if err != nil {
		return err
	}
	thumbprint, err := prover.Thumbprint(crypto.SHA256)
	if err != nil {
		return err
	}
	jwk := prover.JWK()
	key := keyJSON{
		Kind: k.kind(), File: k.File, YubiKey: k.Card,
		Algorithm: string(prover.Algorithm()), Thumbprint: thumbprint, Attested: len(k.Chain) > 0, JWK: &jwk,
	}
	if a.output == outputJSON {
		return a.printJSON(key)
	}
	return a.printFields([][2]string{
		{"Key", k.String()},
		{"Algorithm", key.Algorithm},
		{"Thumbprint", key.Thumbprint},
		{"Sends attestation", yesOrEmpty(key.Attested)},
	})
}

func yesOrEmpty(b bool) string {
	if b {
		return "yes"
	}
	return ""
}

func (a *app) keyShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show",
		Short: "Show the profile's key: where it is, and its public part",
		Args:  noArgs,
		RunE: a.action(func(ctx context.Context, _ []string) error {
			p, err := a.openProfile(ctx)
			if err != nil {
				return err
			}
			return a.printKey(p.Key)
		}),
	}
}

// openProfile returns the profile, for commands that need no session.
func (a *app) openProfile(ctx context.Context) (profile, error) {
	store, dir, err := a.openStore(ctx)
	if err != nil {
		return profile{}, err
	}
	return a.existingProfile(ctx, store, dir)
}

type keyInitFlags struct {
	keyFlags
	algorithm, pin, touch string
	overwrite, yes        bool
}

func (a *app) keyInitCommand() *cobra.Command {
	var flags keyInitFlags
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a key for the profile, in a file or on a YubiKey",
		Long: "Makes a key and chooses it for the profile. A profile that has a session keeps its\n" +
			"key, without which the session is lost: log out first.\n\n" +
			"On a YubiKey the key is made by the card and never leaves it. A slot that is in use\n" +
			"is left alone. --overwrite destroys the existing key permanently, after a typed\n" +
			"confirmation or with --yes.",
		Example: "  ycauth key init --key yubikey --slot 9c --touch-policy always",
		Args:    noArgs,
	}
	f := cmd.Flags()
	f.StringVar(&flags.algorithm, "algorithm", "", "kind of key on a YubiKey: "+strings.Join(names(algorithms), ", ")+" (default: eccp256)")
	f.StringVar(&flags.pin, "pin-policy", "", "when the YubiKey wants its PIN: "+strings.Join(names(pinPolicies), ", ")+" (default: once)")
	f.StringVar(&flags.touch, "touch-policy", "", "when the YubiKey wants a touch: "+strings.Join(names(touchPolicies), ", ")+" (default: cached, one touch for 15 s)")
	f.BoolVar(&flags.overwrite, "overwrite", false, "destroy the key that is in the slot")
	f.BoolVarP(&flags.yes, "yes", "y", false, "ask no confirmation")
	flags.register(cmd)
	complete(cmd, "algorithm", cobra.FixedCompletions(names(algorithms), cobra.ShellCompDirectiveNoFileComp))
	complete(cmd, "pin-policy", cobra.FixedCompletions(names(pinPolicies), cobra.ShellCompDirectiveNoFileComp))
	complete(cmd, "touch-policy", cobra.FixedCompletions(names(touchPolicies), cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = a.action(func(ctx context.Context, _ []string) error { return a.keyInit(ctx, flags) })
	return cmd
}

var (
	algorithms = []piv.Algorithm{
		piv.AlgorithmP256, piv.AlgorithmP384, piv.AlgorithmEd25519,
		piv.AlgorithmRSA2048, piv.AlgorithmRSA3072, piv.AlgorithmRSA4096,
	}
	pinPolicies   = []piv.PINPolicy{piv.PINPolicyNever, piv.PINPolicyOnce, piv.PINPolicyAlways}
	touchPolicies = []piv.TouchPolicy{piv.TouchPolicyNever, piv.TouchPolicyAlways, piv.TouchPolicyCached}
)

// names are what flags call the values.
func names[T fmt.Stringer](values []T) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = strings.ToLower(v.String())
	}
	return out
}

// named is the value that a flag names; "" is the zero value, the default.
func named[T fmt.Stringer](flag, name string, values []T) (T, error) {
	for _, v := range values {
		if strings.EqualFold(v.String(), name) {
			return v, nil
		}
	}
	var none T
	if name == "" {
		return none, nil
	}
	return none, usagef("--%s is %q: want %s", flag, name, strings.Join(names(values), ", "))
}

func (a *app) keyInit(ctx context.Context, flags keyInitFlags) error {
	store, dir, err := a.openStore(ctx)
	if err != nil {
		return err
	}
	p, err := a.loadProfile(ctx, store, dir)
	if err != nil {
		return err
	}
	kind, err := flags.chosen(p.Key)
	if err != nil {
		return err
	}
	make := a.makeKeyFile
	if kind == keyYubiKey {
		make = a.makeKeyOnCard
	}
	// Under the session's lock: no login comes in between.
	err = store.Update(ctx, func(current oauth.Session) (oauth.Session, error) {
		if !current.IsZero() {
			if p, err = a.profileOf(dir, current); err != nil { // a login may have come since
				return current, err
			}
			if p.Key.kind() == "" && current.KeyThumbprint != "" {
				return current, errLostKey
			}
			return current, codedError{exitKey, fmt.Errorf("the profile has a session that needs its key (%s): log out first, with %q", p.Key, a.commandFor("logout"))}
		}
		if p.Key, err = make(ctx, dir, flags); err != nil {
			return current, err
		}
		return current, a.saveProfile(dir, p)
	})
	if err != nil {
		return err
	}
	return a.printKey(p.Key)
}

func (a *app) makeKeyFile(_ context.Context, dir string, flags keyInitFlags) (keyChoice, error) {
	if flags.algorithm+flags.pin+flags.touch != "" || flags.overwrite {
		return keyChoice{}, usagef("--algorithm, --pin-policy, --touch-policy and --overwrite are for --key %s", keyYubiKey)
	}
	path := flags.file
	if path == "" {
		path = a.defaultKeyFile(dir)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return keyChoice{}, err
	}
	if err := makeKeyDir(dir, path); err != nil {
		return keyChoice{}, err
	}
	_, err = dpop.GenerateKeyFile(path)
	return keyChoice{File: path}, err
}

func (a *app) makeKeyOnCard(ctx context.Context, _ string, flags keyInitFlags) (keyChoice, error) {
	options, err := flags.options(a)
	if err != nil {
		return keyChoice{}, err
	}
	spec := piv.KeySpec{Overwrite: flags.overwrite && flags.yes}
	if spec.Algorithm, err = named("algorithm", flags.algorithm, algorithms); err != nil {
		return keyChoice{}, err
	}
	if spec.PINPolicy, err = named("pin-policy", flags.pin, pinPolicies); err != nil {
		return keyChoice{}, err
	}
	if spec.TouchPolicy, err = named("touch-policy", flags.touch, touchPolicies); err != nil {
		return keyChoice{}, err
	}
	key, err := piv.Generate(ctx, options, spec)
	if errors.Is(err, piv.ErrSlotOccupied) && flags.overwrite {
		if options.Serial, err = a.confirmOverwrite(ctx, err); err != nil {
			return keyChoice{}, err
		}
		spec.Overwrite = true
		key, err = piv.Generate(ctx, options, spec)
	}
	if err != nil {
		return keyChoice{}, err
	}
	defer key.Close()
	return onCard(key)
}

// confirmOverwrite asks before the key in the slot that occupied is about is
// destroyed. It returns the card's serial number, so that no other card can take
// the place of the one that the user was asked about.
func (a *app) confirmOverwrite(ctx context.Context, occupied error) (serial uint32, err error) {
	var where *piv.Error
	if !errors.As(occupied, &where) || where.Serial == 0 {
		return 0, occupied
	}
	statement := fmt.Sprintf("Slot %v of YubiKey %d is in use. Its key is about to be destroyed permanently.", where.Slot, where.Serial)
	return where.Serial, a.confirm(ctx, statement, fmt.Sprintf("overwrite %v", where.Slot), "the key was left alone")
}
