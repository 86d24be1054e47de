package main

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ycauth/ycauth-go/piv"
)

// attestationJSON is a card's statement about a key.
type attestationJSON struct {
	Serial      uint32 `json:"serial"`
	Firmware    string `json:"firmware"`
	FormFactor  string `json:"form_factor"`
	Slot        string `json:"slot"`
	PINPolicy   string `json:"pin_policy"`
	TouchPolicy string `json:"touch_policy"`
	Secure      bool   `json:"secure"`
	Chain       string `json:"chain"` // PEM
}

func (a *app) keyAttestCommand() *cobra.Command {
	var flags keyFlags
	var chainOnly bool
	cmd := &cobra.Command{
		Use:   "attest",
		Short: "Show the YubiKey's attestation of the key, verified",
		Long: "Reads the YubiKey's attestation that the key was generated on it, verifies it against\n" +
			"Yubico's root certificates, and reports whether the key meets the requirements of\n" +
			"SECURE_KEY_DPOP.",
		Args: noArgs,
	}
	cmd.Flags().BoolVar(&chainOnly, "pem", false, "print the certificates alone, in PEM")
	flags.register(cmd)
	cmd.RunE = a.action(func(ctx context.Context, _ []string) error {
		attestation, err := a.attest(ctx, flags)
		if err != nil {
			return err
		}
		return a.printAttestation(attestation, chainOnly)
	})
	return cmd
}

func (a *app) attest(ctx context.Context, flags keyFlags) (*piv.Attestation, error) {
	p, err := a.openProfile(ctx)
	if err != nil {
		return nil, err
	}
	kind, err := flags.chosen(p.Key)
	if err != nil {
		return nil, err
	}
	if kind != keyYubiKey {
		return nil, codedError{exitKey, errors.New("a key in a file has no attestation: only a YubiKey can attest its keys (--key yubikey)")}
	}
	key, err := a.openCard(ctx, p.Key, flags)
	if err != nil {
		return nil, err
	}
	defer key.Close()
	return key.Attestation(ctx)
}

func (a *app) printAttestation(at *piv.Attestation, chainOnly bool) error {
	var chain []byte
	for _, cert := range at.Certificates() {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	out := attestationJSON{
		Serial: at.Serial, Firmware: at.Firmware.String(), FormFactor: at.FormFactor.String(), Slot: at.Slot.String(),
		PINPolicy: at.PINPolicy.String(), TouchPolicy: at.TouchPolicy.String(), Secure: at.Secure(), Chain: string(chain),
	}
	switch {
	case chainOnly:
		_, err := a.stdout.Write(chain)
		return err
	case a.output == outputJSON:
		return a.printJSON(out)
	}
	secure := "no: it needs a PIN policy and a touch policy other than never"
	if out.Secure {
		secure = "yes"
	}
	return a.printFields([][2]string{
		{"YubiKey", fmt.Sprintf("%d, firmware %s, %s", out.Serial, out.Firmware, out.FormFactor)},
		{"Slot", out.Slot},
		{"PIN policy", out.PINPolicy},
		{"Touch policy", out.TouchPolicy},
		{"Secure key", secure},
	})
}
