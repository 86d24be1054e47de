package pivtest

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"
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
func Start(tb TB, cfg Config) *Card {
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
	cfg.Addr = seat.addr
	card, err := New(cfg)
	if err != nil {
		tb.Fatalf("%v", err)
	}
	tb.Cleanup(card.Close)
	card.link.reader, card.link.events = seat.reader, seat.events
	if err := card.Insert(ctx); err != nil {
		tb.Fatalf("%v", err)
	}
	return card
}

// StartReaders runs pcscd with its two virtual readers, both empty, until the test ends: for tests of what a program says
// when there is no card. A card that [Start] makes in the same test uses the same pcscd.
func StartReaders(tb TB) {
	tb.Helper()
	startReaders(tb, true)
}

// StartWithoutReaders runs a pcscd without a reader until the test ends: for tests of what a program says then.
func StartWithoutReaders(tb TB) {
	tb.Helper()
	startReaders(tb, false)
}

func startReaders(tb TB, readersWanted bool) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	mustStart(tb, seats.enter(ctx, testGroup(tb), readersWanted))
	tb.Cleanup(func() {
		if err := seats.leave(); err != nil {
			tb.Errorf("%v", err)
		}
	})
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
