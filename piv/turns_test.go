//go:build cgo && linux

package piv_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/piv"
	"github.com/ycauth/ycauth-go/piv/internal/pcscd"
	"github.com/ycauth/ycauth-go/piv/internal/virtual"
)

// told is a person who is told why a program waits.
type told struct{ person }

func (*told) Busy(context.Context, piv.BusyRequest) func() {
	fmt.Println("busy")
	return func() { fmt.Println("over") }
}

// TestTurns has two processes that sign all the time with one card, and each
// signature takes a touch. Each must get its turns, and be told why it waits.
func TestTurns(t *testing.T) {
	const variable = "PIV_TEST_TURNS"
	if reference := os.Getenv(variable); reference != "" {
		signForEver(t, reference)
		return
	}
	card := pcscd.Start(t, virtual.Config{Touch: virtual.TouchAfter(300 * time.Millisecond)})
	k := generated(t, card, trusting(card, nil), piv.PINPolicyNever, piv.TouchPolicyAlways)
	free(t, card)

	const enough = 12 * time.Second
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var signatures, waits [2]int
	var wg sync.WaitGroup
	for i := range 2 {
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestTurns$")
		cmd.Env = append(os.Environ(), variable+"="+k.Reference().String())
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for lines := bufio.NewScanner(out); lines.Scan(); {
				switch line := lines.Text(); {
				case line == "signed":
					signatures[i]++
				case line == "busy":
					waits[i]++
				case line != "over":
					t.Errorf("process %d: %s", i, line)
				}
			}
			_ = cmd.Wait() // it was killed
		})
	}
	time.Sleep(enough) // real processes, in real time
	cancel()
	wg.Wait()
	t.Logf("signatures %v, waits %v", signatures, waits)
	for i, n := range signatures {
		if n < 4 {
			t.Errorf("process %d made %d of %v signatures", i, n, signatures)
		}
	}
	if waits[0]+waits[1] == 0 {
		t.Error("nobody was told")
	}
}

// signForEver is the other process.
func signForEver(t *testing.T, reference string) {
	t.Helper()
	r, err := piv.ParseReference(strings.TrimSpace(reference))
	if err != nil {
		t.Fatal(err)
	}
	k, err := piv.Open(t.Context(), r.Options(&told{}))
	if err != nil {
		t.Fatal(err)
	}
	for {
		mustSign(t, k)
		fmt.Println("signed")
	}
}

// TestWaitsForTheTouchOfAnother has another program that waits for its touch for as
// long as the card allows.
func TestWaitsForTheTouchOfAnother(t *testing.T) {
	card := pcscd.Start(t, virtual.Config{Touch: virtual.TouchAfter(13 * time.Second)})
	k := generated(t, card, trusting(card, nil), piv.PINPolicyNever, piv.TouchPolicyAlways)
	free(t, card)
	h := hold(t, card, pcscd.HoldOptions{Transaction: true})
	go func() {
		defer h.Release()
		// SELECT, then GENERAL AUTHENTICATE with the key in 9a.
		_, _ = h.Transmit(context.Background(), []byte{0, 0xa4, 4, 0, 5, 0xa0, 0, 0, 3, 8})
		command := append([]byte{0, 0x87, 0x11, 0x9a, 38, 0x7c, 36, 0x82, 0, 0x81, 32}, digest[:]...)
		_, _ = h.Transmit(context.Background(), command)
	}()
	time.Sleep(time.Second) // until the card blinks
	card.SetTouch(virtual.TouchAfter(0))
	start := time.Now()
	mustSign(t, k)
	if took := time.Since(start); took < 10*time.Second {
		t.Errorf("the other program was waited for only %v", took)
	}
}
