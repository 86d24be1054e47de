//go:build linux

package pcscd

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/piv/internal/virtual"
)

// fakeTB is a test that Start runs in.
type fakeTB struct {
	name             string
	cleanups         []func()
	skipped, failure string
}

func (tb *fakeTB) Cleanup(f func())                  { tb.cleanups = append(tb.cleanups, f) }
func (tb *fakeTB) Errorf(format string, args ...any) { tb.failure = fmt.Sprintf(format, args...) }
func (tb *fakeTB) Fatalf(format string, args ...any) { tb.Errorf(format, args...); runtime.Goexit() }
func (tb *fakeTB) Helper()                           {}
func (tb *fakeTB) Name() string                      { return tb.name }
func (tb *fakeTB) Skipf(format string, args ...any) {
	tb.skipped = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// run runs a part of the test, which may end early.
func (tb *fakeTB) run(f func()) {
	var wg sync.WaitGroup
	wg.Go(f)
	wg.Wait()
}

// end ends the test.
func (tb *fakeTB) end() {
	for _, cleanup := range slices.Backward(tb.cleanups) {
		cleanup()
	}
	tb.cleanups = nil
}

func TestMissingPackages(t *testing.T) {
	for ci, wantFailure := range map[string]bool{"true": true, "": false, "false": false} {
		t.Run("CI="+ci, func(t *testing.T) {
			t.Setenv("CI", ci)
			tb := &fakeTB{name: t.Name()}
			tb.run(func() { mustStart(tb, fmt.Errorf("wrapped: %w", ErrNotInstalled)) })
			if (tb.failure != "") != wantFailure || (tb.skipped != "") == wantFailure {
				t.Errorf("failed %q, skipped %q", tb.failure, tb.skipped)
			}
		})
	}
	t.Run("any other error fails", func(t *testing.T) {
		t.Setenv("CI", "")
		tb := &fakeTB{name: t.Name()}
		tb.run(func() { mustStart(tb, context.DeadlineExceeded) })
		if tb.failure == "" || tb.skipped != "" {
			t.Errorf("failed %q, skipped %q", tb.failure, tb.skipped)
		}
	})
}

func TestThirdCard(t *testing.T) {
	Start(t, virtual.Config{Serial: 1})
	Start(t, virtual.Config{Serial: 2})
	tb := &fakeTB{name: t.Name() + "/third"}
	tb.run(func() { Start(tb, virtual.Config{Serial: 3}) })
	tb.end()
	if !strings.Contains(tb.failure, "two virtual readers") {
		t.Errorf("failure %q", tb.failure)
	}
}

// TestTestsTakeTurns: a test that wants a card waits for another one to end, so that neither sees the other's card.
func TestTestsTakeTurns(t *testing.T) {
	first, second := &fakeTB{name: "TestFirst/sub"}, &fakeTB{name: "TestSecond"}
	first.run(func() { Start(first, virtual.Config{}) })
	if first.failure != "" || first.skipped != "" {
		t.Fatal(first.failure, first.skipped)
	}
	started := make(chan struct{})
	go func() {
		defer close(started)
		second.run(func() { Start(second, virtual.Config{}) })
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := seats.enter(ctx, "TestThird"); err == nil {
		t.Error("a third test got in")
	}
	select {
	case <-started:
		t.Fatalf("the second test did not wait: %q", second.failure)
	default:
	}
	first.end()
	<-started
	all, err := readers(t.Context())
	if err != nil {
		t.Error(err)
	}
	cards := 0
	for _, r := range all {
		if r.powered() {
			cards++
		}
	}
	if second.failure != "" || cards != 1 {
		t.Errorf("failure %q, %d cards in %d readers", second.failure, cards, len(all))
	}
	second.end()
	if first.failure != "" || second.failure != "" {
		t.Error(first.failure, second.failure)
	}
}

func TestBadConfigEndsTheTest(t *testing.T) {
	tb := &fakeTB{name: t.Name()}
	tb.run(func() { Start(tb, virtual.Config{Firmware: virtual.Firmware{Major: 4}}) })
	tb.end()
	if !strings.Contains(tb.failure, "older than 4.3.0") {
		t.Errorf("failure %q", tb.failure)
	}
}
