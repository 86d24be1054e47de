package main

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ycauth/ycauth-go/dpop"
	"github.com/ycauth/ycauth-go/internal/filelock"
	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/piv"
)

// keyChoice says where a profile's key is. It holds no secret.
type keyChoice struct {
	File string         `json:"file,omitempty"` // absolute path; in the profile's file perhaps relative to that
	Card *piv.Reference `json:"yubikey,omitempty"`

	// Public is the public half of the key on the card, as SubjectPublicKeyInfo:
	// with it a token that is still good needs no card.
	Public []byte `json:"public_key,omitempty"`

	// Chain is the card's attestation of the key, in DER, where proofs carry it.
	Chain [][]byte `json:"attestation,omitempty"`
}

// String says where the key is, for people.
func (k keyChoice) String() string {
	switch {
	case k.Card != nil:
		return fmt.Sprintf("slot %s of YubiKey %d", k.Card.Slot, k.Card.Serial)
	case k.File != "":
		return "file " + k.File
	}
	return "none"
}

// missing reports whether the key was in a file that is not there. A symbolic link
// that leads nowhere is there: no login makes a key in its place.
func (k keyChoice) missing() bool {
	if k.File == "" {
		return false
	}
	_, err := os.Lstat(k.File)
	return errors.Is(err, fs.ErrNotExist)
}

// in is the choice as a file in a directory has it, with an absolute path.
func (k keyChoice) in(dir string) keyChoice {
	if k.File != "" {
		if path := filepath.FromSlash(k.File); !filepath.IsAbs(path) {
			k.File = filepath.Join(dir, path)
		}
	}
	return k
}

// from is the choice for a file in dir: a key within the program's own directory
// moves with it, so its path is relative.
func (k keyChoice) from(own, dir string) keyChoice {
	if k.File != "" && filepath.IsAbs(k.File) {
		if within, err := filepath.Rel(own, k.File); err == nil && filepath.IsLocal(within) {
			if path, err := filepath.Rel(dir, k.File); err == nil {
				k.File = filepath.ToSlash(path)
			}
		}
	}
	return k
}

// kind is what --key calls it.
func (k keyChoice) kind() string {
	switch {
	case k.Card != nil:
		return keyYubiKey
	case k.File != "":
		return keyFile
	}
	return ""
}

// Kinds of keys.
const (
	keyFile    = "file"
	keyYubiKey = "yubikey"
)

// defaultKeyFile is where a profile's key is unless --key-file says otherwise.
func (a *app) defaultKeyFile(dir string) string {
	return filepath.Join(dir, "keys", a.profileName+".pem")
}

// makeKeyDir creates the directory of a key file, if it is ours.
func makeKeyDir(dir, path string) error {
	if filepath.Dir(path) != filepath.Join(dir, "keys") {
		return nil
	}
	return filelock.MakeDir(filepath.Dir(path))
}

// onCard is the choice of a key on a card.
func onCard(k *piv.Key) (keyChoice, error) {
	ref := k.Reference()
	public, err := x509.MarshalPKIXPublicKey(k.Public())
	return keyChoice{Card: &ref, Public: public}, err
}

func (a *app) errNoKey() error {
	return codedError{exitKey, fmt.Errorf("the profile has no key yet: log in, or make one with %q", a.commandFor("key init"))}
}

// errLostKey is said in the place of errNoKey where there is a session: it is of no use
// without its key, and no key that could be made is that one.
var errLostKey = &oauth.LoginRequiredError{Reason: oauth.ReasonWrongKey, Detail: "the configuration of the profile is gone, and with it which key the session is bound to"}

// restoreKey is the remedy for a key file that is missing.
func (a *app) restoreKey() string {
	return linef("Restore the file, or log in with %q, which makes a new key.", a.commandFor("login"))
}

// signer returns the chosen key. One on a card is not opened before it signs.
func (a *app) signer(k keyChoice) (crypto.Signer, error) {
	switch {
	case k.File != "":
		key, err := dpop.LoadKeyFile(k.File)
		if errors.Is(err, fs.ErrNotExist) && k.missing() {
			err = hintError{err, a.restoreKey()}
		}
		return key, err
	case k.Card != nil:
		public, err := x509.ParsePKIXPublicKey(k.Public)
		if err != nil {
			return nil, codedError{exitKey, fmt.Errorf("the profile does not say which key is on the YubiKey (%w): log in again with %q", err, a.commandFor("login --key yubikey"))}
		}
		return &cardSigner{public: public, options: a.cardOptions(k.Card.Options(a.prompt())), interrupted: a.signals.ctx.Done()}, nil
	}
	return nil, a.errNoKey()
}

// prover returns what makes proofs with the chosen key.
func (a *app) prover(k keyChoice) (*dpop.Prover, error) {
	signer, err := a.signer(k)
	if err != nil {
		return nil, err
	}
	var options []dpop.Option
	if len(k.Chain) > 0 {
		chain := make([]*x509.Certificate, len(k.Chain))
		for i, der := range k.Chain {
			if chain[i], err = x509.ParseCertificate(der); err != nil {
				return nil, codedError{exitKey, fmt.Errorf("the attestation in the profile is damaged (%w): log in again with %q", err, a.commandFor("login --attest"))}
			}
		}
		options = append(options, dpop.WithCertificateChain(chain))
	}
	prover, err := dpop.New(signer, options...)
	if err != nil {
		return nil, codedError{exitKey, err}
	}
	return prover, nil
}

// keyError returns the error that every command that needs the key ends with, as far as
// no card is needed to tell. A key that was never chosen and a file that is missing are
// states of a profile.
func (a *app) keyError(k keyChoice, s oauth.Session) error {
	if k.kind() == "" || k.missing() {
		return nil
	}
	prover, err := a.prover(k)
	if err != nil {
		return err
	}
	return a.wrongKey(k, prover, s)
}

// errWrongKey means that a key file has another key than that of the session, which is
// good again with its own.
var errWrongKey = errors.New("another key than that of the session")

// wrongKey returns an error if the key is not that of the session.
func (a *app) wrongKey(k keyChoice, prover *dpop.Prover, s oauth.Session) error {
	thumbprint, err := prover.Thumbprint(crypto.SHA256)
	switch {
	case err != nil:
		return codedError{exitKey, err}
	case s.KeyThumbprint == "" || s.KeyThumbprint == thumbprint:
		return nil
	case k.File == "":
		return &oauth.LoginRequiredError{
			Reason: oauth.ReasonWrongKey,
			Detail: fmt.Sprintf("the token's key is %s, the configured key is %s", s.KeyThumbprint, thumbprint),
		}
	}
	return hintError{
		codedError{exitKey, fmt.Errorf("the key file %s has %w (the session's key is %s, that in the file is %s)", k.File, errWrongKey, s.KeyThumbprint, thumbprint)},
		linef("Restore the key file %s, or, if that key is lost, log in with %q.", k.File, a.commandFor("login")),
	}
}
