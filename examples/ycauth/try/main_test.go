//go:build unix

package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// TestMain makes the test binary the browser as well.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == browse {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestTry(t *testing.T) {
	var stdout, stderr bytes.Buffer
	code, err := run(t.Context(), []string{"sh", "-c", `
		set -e
		ycauth login
		ycauth list
		ycauth revoke --older-than 20d --yes
		ycauth logout
		exit 7`}, nil, &stdout, &stderr)
	if code != 7 || err != nil {
		t.Fatalf("%d, %v\n%s%s", code, err, &stdout, &stderr)
	}
	for _, want := range []string{"State            logged in", "old-laptop/0.9", "revoked"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("no %q in\n%s", want, &stdout)
		}
	}
	if _, err := run(t.Context(), []string{"no-such-command"}, nil, &stdout, &stderr); err == nil {
		t.Error("a command that is not there was run")
	}
}
