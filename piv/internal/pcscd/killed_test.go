//go:build linux

package pcscd_test

import (
	"bufio"
	"os"
	"os/exec"
	"testing"

	"github.com/ycauth/ycauth-go/piv/internal/pcscd"
	"github.com/ycauth/ycauth-go/piv/internal/virtual"
)

const killedEnv = "PIVTEST_TO_BE_KILLED"

// TestKilledTest: a test that is killed with a card in a reader leaves the readers to the next one. Run with an environment
// variable, this test is the one to be killed.
func TestKilledTest(t *testing.T) {
	if os.Getenv(killedEnv) != "" {
		pcscd.Start(t, virtual.Config{Serial: 1})
		os.Stdout.WriteString("\ninserted\n")
		select {} // until killed
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilledTest$", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), killedEnv+"=1")
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(stdout); lines.Scan() && lines.Text() != "inserted"; {
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	card := pcscd.Start(t, virtual.Config{Serial: 2})
	h := hold(t, card, pcscd.HoldOptions{})
	transmit(t, h, selectPIV, selected)
	transmit(t, h, "00F8000000", "00000002 9000")
}
