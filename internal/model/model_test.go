// Package model has models of protocols, for spin (Debian package spin).
package model

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// verify runs spin and what it makes. violated is the assertion that does not hold, "" if
// all do.
func verify(t *testing.T, optimize string, macros ...string) (states, violated string) {
	t.Helper()
	for _, program := range []string{"spin", "cc"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%v: the model is not checked", err)
		}
	}
	file, err := filepath.Abs("lease.pml")
	if err != nil {
		t.Fatal(err)
	}
	// Nobody wants the half of an exploration, however slow the machine is.
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	dir := t.TempDir()
	run := func(name string, args ...string) string {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Dir, cmd.WaitDelay = dir, time.Second
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	run("spin", append(macros, "-a", file)...)
	run("cc", optimize, "-DSAFETY", "-DCOLLAPSE", "-DMEMLIM=12000", "-DVECTORSZ=4096", "-o", "pan", "pan.c")
	// -E: a replica that waits for ever is one that died.
	out := run(filepath.Join(dir, "pan"), "-E", "-m1000000")
	if strings.Contains(out, "max search depth too small") || strings.Contains(out, "Search not completed") && !strings.Contains(out, "assertion violated") {
		t.Fatalf("it is not complete:\n%s", out)
	}
	found := regexp.MustCompile(`(?s)(?:assertion violated (.*?) \(at depth.*)?errors: (\d+).*?(\d+) states, stored`).FindStringSubmatch(out)
	if found == nil || (found[1] == "") != (found[2] == "0") {
		t.Fatalf("what does that say?\n%s", out)
	}
	return found[3], found[1]
}

// TestLease explores everything that can happen to two replicas. YCAUTH_MODEL has other
// macros for an exploration by hand: "-DN=3 -DR=2 -DH=3", three replicas with two requests
// each, has 17 million states and takes minutes.
func TestLease(t *testing.T) {
	sizes := [][]string{{"-DH=4"}, {"-DLOGIN", "-DH=2"}}
	if macros := os.Getenv("YCAUTH_MODEL"); macros != "" {
		sizes = [][]string{strings.Fields(macros)}
	}
	for _, macros := range sizes {
		t.Run(strings.Join(macros, " "), func(t *testing.T) {
			began := time.Now()
			states, violated := verify(t, "-O2", macros...)
			if violated != "" {
				t.Errorf("does not hold: %s", violated)
			}
			t.Logf("%s states, %v", states, time.Since(began).Round(time.Second/10))
		})
	}
}

// TestLeaseWithoutAGuard: no part of the protocol is there for nothing.
func TestLeaseWithoutAGuard(t *testing.T) {
	for _, guard := range []string{
		"NO_WAIT",                  // a successor sends at once
		"SHORT_WAIT",               // or when the server still accepts the proof
		"NO_MARK",                  // Begin leaves no mark
		"NO_OWNER_AT_BEGIN",        // Begin does not look who has the lease
		"NO_LINEAGE_AT_BEGIN",      // or whether the session is still the same
		"NO_OWNER_AT_RELEASE",      // a lease is given back that is another's
		"NO_BEGIN_AT_CHALLENGE",    // a nonce is sent without another look at the lease
		"NO_MEMORY_OF_THE_UNKNOWN", // a request without a response counts as one without effect
		"DATED_AT_SENDING",         // the proof is as old as the request, not as the mark
		"CLOCK_AHEAD",              // the clock that dates it is ahead of the store's
		"BLIND_SAVE",               // a session is stored over whatever is there
	} {
		t.Run(guard, func(t *testing.T) {
			macros := []string{"-D" + guard}
			if guard == "BLIND_SAVE" {
				macros = append(macros, "-DLOGIN", "-DH=2")
			}
			states, violated := verify(t, "-O0", macros...) // it is found soon
			if violated == "" {
				t.Error(fmt.Sprint("all holds without it, in ", states, " states"))
			}
			t.Logf("%s states: %s", states, violated)
		})
	}
}
