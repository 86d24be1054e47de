//go:build unix

package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ycauth/ycauth-go/oauth/iamtest"
)

// TestLogoutSaysHowFarItCame: what the server has revoked is not called untouched.
func TestLogoutSaysHowFarItCame(t *testing.T) {
	const local = `"ycauth logout --local" removes it`
	check := func(t *testing.T, h *home, r result, code, live int, want ...string) {
		t.Helper()
		if r.code != code || h.srv.LiveGrants() != live {
			t.Errorf("%d grants are live; %v", h.srv.LiveGrants(), r)
		}
		for _, w := range want {
			if !strings.Contains(r.stderr, w) {
				t.Errorf("no %q in %v", w, r)
			}
		}
		if live == 0 && (strings.Contains(r.stderr, "Nothing was forgotten") || strings.Contains(r.stderr, "not revoked")) {
			t.Errorf("it is revoked: %v", r)
		}
	}
	t.Run("full disk", func(t *testing.T) {
		h := newHome(t, nil)
		h.must(0, "login")
		h.env = append(h.env, "TEST_FULL_DISK=1")
		check(t, h, h.run("logout"), exitFailure, 0,
			"ycauth: the server has revoked the session, and it could not be removed here: ", "no space left", local)
	})
	t.Run("Ctrl-C while it is removed", func(t *testing.T) {
		h := newHome(t, nil)
		h.must(0, "login")
		h.env = append(h.env, "TEST_SLOW_DISK="+h.dir+"/writing")
		cmd := h.command("ycauth", "logout")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		awaitFile(t, h.dir+"/writing")
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // the exit code tells
		check(t, h, result{cmd.ProcessState.ExitCode(), "", stderr.String()}, exitInterrupted, 0,
			"The server has revoked the session, and it was not removed here", local)
	})
	t.Run("Ctrl-C while the server revokes it", func(t *testing.T) {
		h := newHome(t, nil)
		h.must(0, "login")
		h.srv.Inject(iamtest.EndpointRevoke, iamtest.Slow(30*time.Second), 1)
		cmd := h.command("ycauth", "logout")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		h.awaitFault()
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // the exit code tells
		check(t, h, result{cmd.ProcessState.ExitCode(), "", stderr.String()}, exitInterrupted, 1,
			"It is not known whether the server has revoked the session", `"ycauth logout" goes on`)
	})
}
