//go:build linux

// Package pcscd puts virtual YubiKeys into readers of the real PC/SC daemon, for tests: libpcsclite, go-piv, yubico-piv-tool and
// OpenSC then use them like hardware.
package pcscd

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/ycauth/ycauth-go/piv/internal/virtual"
)

// TB is the part of testing.TB that [Start] uses.
type TB interface {
	Cleanup(f func())
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Helper()
	Name() string
	Skipf(format string, args ...any)
}

// startTimeout bounds how long a test waits for the tests of other packages to give the readers free.
const startTimeout = 8 * time.Minute

// Start makes a card and puts it into a reader of the real PC/SC daemon until the test ends. It returns when PC/SC lists the
// card. A test and its subtests may hold two cards; the second one is in the second reader.
//
// Without the packages of [ErrNotInstalled] the test is skipped, and fails if the environment says CI=true.
func Start(tb TB, cfg virtual.Config) *Card {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	seat, err := seats.take(ctx, testGroup(tb))
	mustStart(tb, err)
	tb.Cleanup(func() {
		if err := seats.giveBack(seat); err != nil {
			tb.Errorf("%v", err)
		}
	})
	card, err := New(cfg, seat.addr)
	if err != nil {
		tb.Fatalf("%v", err)
	}
	tb.Cleanup(card.Close)
	card.reader, card.events = seat.reader, seat.events
	if err := card.Insert(ctx); err != nil {
		tb.Fatalf("%v", err)
	}
	return card
}

// mustStart ends the test if pcscd could not be had.
func mustStart(tb TB, err error) {
	tb.Helper()
	switch {
	case err == nil:
	case errors.Is(err, ErrNotInstalled) && os.Getenv("CI") != "true":
		tb.Skipf("%v", err)
	default:
		tb.Fatalf("%v", err)
	}
}

// testGroup names the test that tb belongs to: subtests use the readers of their parent.
func testGroup(tb TB) string {
	group, _, _ := strings.Cut(tb.Name(), "/")
	return group
}

// Run waits until no test on this machine uses the virtual readers and runs pcscd with them, as [Start] does for tests, unless
// it runs already; stop ends it. It is for programs: a test that calls Start meanwhile would wait for itself. Cards that [New]
// makes for [DefaultAddr] go into the first reader. It fails with [ErrNotInstalled].
func Run(ctx context.Context) (stop func() error, err error) {
	d, err := startDaemon(ctx)
	if err != nil {
		return nil, err
	}
	return d.stop, nil
}
