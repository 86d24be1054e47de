package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ycauth/ycauth-go/piv"
)

// keyFlags say which key is meant, for login and "key init".
type keyFlags struct {
	kind   string
	file   string
	serial uint32
	slot   string
}

func (k *keyFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&k.kind, "key", "", "where the key is: file or yubikey (default: as before, or file)")
	f.StringVar(&k.file, "key-file", "", "file with the key (default: keys/PROFILE.pem in the configuration directory)")
	f.Uint32Var(&k.serial, "serial", 0, "serial number of the YubiKey (default: the only one)")
	f.StringVar(&k.slot, "slot", "", "PIV slot of the YubiKey (default: 9a)")
	complete(cmd, "key", cobra.FixedCompletions([]string{keyFile, keyYubiKey}, cobra.ShellCompDirectiveNoFileComp))
	complete(cmd, "slot", cobra.FixedCompletions([]string{"9a", "9c", "9d", "9e"}, cobra.ShellCompDirectiveNoFileComp))
}

func (k *keyFlags) namesCard() bool { return k.serial != 0 || k.slot != "" }

// chosen is the kind of key that the flags ask for, or else the kind of before.
func (k *keyFlags) chosen(before keyChoice) (string, error) {
	kind := k.kind
	if kind == "" {
		switch {
		case k.file != "":
			kind = keyFile
		case k.namesCard():
			kind = keyYubiKey
		case before.kind() != "":
			kind = before.kind()
		default:
			kind = keyFile
		}
	}
	switch {
	case kind != keyFile && kind != keyYubiKey:
		return "", usagef("--key is %q: want %s or %s", k.kind, keyFile, keyYubiKey)
	case kind == keyFile && k.namesCard():
		return "", usagef("--serial and --slot are for --key %s", keyYubiKey)
	case kind == keyYubiKey && k.file != "":
		return "", usagef("--key-file is for --key %s", keyFile)
	}
	return kind, nil
}

// options says which slot of which card is meant.
func (k *keyFlags) options(a *app) (piv.Options, error) {
	o := a.cardOptions(piv.Options{Serial: k.serial, Prompt: a.prompt()})
	if k.slot != "" {
		slot, err := piv.ParseSlot(k.slot)
		if err != nil {
			return o, usagef("--slot is %q: want 9a, 9c, 9d, 9e or 82 to 95", k.slot)
		}
		o.Slot = slot
	}
	return o, nil
}

// openCard opens the key that the flags name, or else the one of before.
func (a *app) openCard(ctx context.Context, before keyChoice, flags keyFlags) (*piv.Key, error) {
	options, err := flags.options(a)
	if err != nil {
		return nil, err
	}
	if before.Card != nil && !flags.namesCard() {
		options = a.cardOptions(before.Card.Options(a.prompt()))
	}
	key, err := piv.Open(ctx, options)
	if errors.Is(err, piv.ErrNoKey) {
		return nil, fmt.Errorf("%w, with %q for example", err, a.commandFor("key init --key yubikey"))
	}
	return key, err
}
