//go:build unix

package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestIAMServer: ycauth works with what the command iamserver prints, as the README
// tells people to try it.
func TestIAMServer(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin, work := t.TempDir(), t.TempDir()
	for _, pkg := range []string{"oauth/iamtest/iamserver", "examples/ycauth"} {
		build := exec.CommandContext(t.Context(), "go", "build", "-o", bin+"/", "github.com/ycauth/ycauth-go/"+pkg)
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `
		set -e
		iamserver -access-life 20m -rotation always >iam.env 2>log &
		trap 'kill -TERM $!' EXIT
		until grep -q 'a resource' iam.env; do kill -0 $!; sleep 0.1; done
		. ./iam.env
		ycauth login
		ycauth token --renew >/dev/null
		ycauth list
		ycauth logout
		trap - EXIT
		kill -INT $!
		wait $!
		test ! -e "$YCAUTH_CONFIG_DIR"
		grep -c 'path=/oauth/token' log`)
	cmd.Dir = work
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "TMPDIR="+work, "BROWSER="+self+" "+browse)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"State            logged in", "old-laptop/0.9", "ycauth/1.0"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}
