package main

import (
	"context"
	"crypto/cipher"
	"io"
	"os"
	"time"

	"github.com/ycauth/ycauth-go/oauth"
	"github.com/ycauth/ycauth-go/oauth/keyringstore"
	"github.com/ycauth/ycauth-go/piv"
)

// system is what the program finds around it.
type system struct {
	args           []string // without the program's name
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	now            func() time.Time
	trust          piv.Trust // whose attestations to believe

	// sealKey is the key in the user's keyring, created if there is none.
	sealKey func(context.Context) (cipher.AEAD, error)

	wrapStore func(oauth.Store) oauth.Store // for tests; nil for none
}

func realSystem() system {
	return system{
		args:  arguments(os.Args),
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		getenv: os.Getenv, now: time.Now,
		sealKey: func(ctx context.Context) (cipher.AEAD, error) {
			return keyringstore.Key(ctx, "ycauth", keyringstore.Options{})
		},
	}
}
