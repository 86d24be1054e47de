//go:build cgo && linux

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ycauth/ycauth-go/piv"
	"github.com/ycauth/ycauth-go/piv/pivtest"
)

// TestYubiKey runs ycauth with a virtual YubiKey behind the real PC/SC service.
func TestYubiKey(t *testing.T) {
	card := pivtest.Start(t, pivtest.Config{})
	maker := filepath.Join(t.TempDir(), "maker.pem")
	if err := os.WriteFile(maker, card.CA().PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	finger := make(chan struct{})
	card.SetTouch(func(ctx context.Context) bool {
		select {
		case <-finger:
			return true
		case <-ctx.Done():
			return false
		}
	})
	var other *pivtest.Holder
	params := scripts("testdata/yubikey")
	setup := params.Setup
	params.Setup = func(env *testscript.Env) error {
		env.Setenv("TEST_CARD_MAKER", maker)
		env.Values[actionsKey{}] = actions{
			"touch":   func(ctx context.Context) error { return touch(ctx, finger) },
			"release": func(context.Context) error { return other.Release() },
		}
		err := setup(env)
		env.Values[iamKey{}].(*iamCommand).maker = piv.Trust{Roots: card.CA().Roots(), Intermediates: card.CA().IntermediatePool()}
		return err
	}
	params.Cmds["card"] = func(ts *testscript.TestScript, neg bool, args []string) {
		if args[0] == "hold" {
			var err error
			other, err = card.Hold(context.Background(), pivtest.HoldOptions{Exclusive: true})
			ts.Check(err)
			ts.Defer(func() { _ = other.Release() }) // fails if the card was pulled
			return
		}
		runCard(ts, card, finger, args)
	}
	testscript.Run(t, params)
}

// touch touches the card as soon as it blinks.
func touch(ctx context.Context, finger chan<- struct{}) error {
	select {
	case finger <- struct{}{}:
		return nil
	case <-ctx.Done():
		return errors.New("the card did not wait for a touch")
	}
}

// card insert and card remove move the card. card touch touches it as soon as it
// blinks, once; card touchy has somebody do so from now on. card tries changes how
// many wrong PINs it allows. card unused checks that it was used for nothing since
// the last card forget. card hold has another program keep it, until a dialogue says
// release.
func runCard(ts *testscript.TestScript, card *pivtest.Card, finger chan<- struct{}, args []string) {
	switch args[0] {
	case "insert":
		ts.Check(card.Insert(context.Background()))
	case "remove":
		card.Remove()
		ts.Check(card.WaitRemoved(context.Background()))
	case "touch":
		select {
		case finger <- struct{}{}:
		case <-time.After(patience):
			ts.Fatalf("the card does not blink")
		}
	case "touchy":
		card.SetTouch(pivtest.TouchAfter(0))
	case "tries":
		card.SetPINTries(atoi(ts, args[1]))
	case "forget":
		card.ResetLog()
	case "unused":
		if n := card.Count(); n > 0 {
			ts.Fatalf("%d commands reached the card", n)
		}
	default:
		ts.Fatalf("card cannot %s", args[0])
	}
}
