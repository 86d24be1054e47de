package main

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestIncompatible(t *testing.T) {
	got := incompatible(`Ignoring internal package github.com/ycauth/ycauth-go/internal/clock
- package github.com/ycauth/ycauth-go/examples/gosdk: removed
- package github.com/ycauth/ycauth-go/oauth/storetest: removed
- ./oauth/iamtest.(*Server).Quiet: changed from func(context.Context) error to func(context.Context, ...int) error
- ./oauth/iamtest.AllFaults: removed
- ./oauth/iamtest.Options.CodeLife: removed
- ./examples/ycauth.X: removed
- something else: removed
`)
	var names []string
	for _, c := range got {
		names = append(names, c.name)
	}
	if want := []string{"oauth/storetest", "Quiet", "AllFaults", "CodeLife", "- something else: removed"}; !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
}

func TestAnnounced(t *testing.T) {
	const changes = "- `iamtest`: `AllFaults` is gone, `Server.Quiet` takes a number, `Options.CodeLife`.\n- `oauth/storetest` is gone."
	for name, want := range map[string]bool{
		"AllFaults": true, "Quiet": true, "CodeLife": true, "oauth/storetest": true,
		"Faults": false, "Code": false, "storetest": false, "Start": false, "AllFaultsX": false,
	} {
		if announced(changes, name) != want {
			t.Errorf("%s: want %v", name, want)
		}
	}
}

func TestChangesSince(t *testing.T) {
	const changes = "# Changelog\n\n## Unreleased\n\nnew\n\n## 0.2.0 - 2026-12-01\n\nold\n"
	if got, err := changesSince(changes, "v0.2.0"); err != nil || !strings.Contains(got, "new") || strings.Contains(got, "old") {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := changesSince(changes, "v0.1.0"); err == nil {
		t.Error("a release without a heading is no error")
	}
}

// TestCheckAPI removes a name after a release.
func TestCheckAPI(t *testing.T) {
	root, git := repository(t)
	bin := t.TempDir()
	version := regexp.MustCompile(`(?m)^apidiff=(\S+)$`).FindStringSubmatch(read(t, filepath.Join(tree, "test.sh")))
	if version == nil {
		t.Fatal("test.sh does not name the version of apidiff")
	}
	if _, err := command(t.Context(), bin, []string{"GOBIN=" + bin, "GOFLAGS=", "CGO_ENABLED=0"}, "go", "install", version[1]); err != nil {
		failUnlessOffline(t, err)
	}
	git("tag", "v0.2.0")
	check := func() error {
		return checkAPI(t.Context(), root, t.TempDir(), "v0.2.0", filepath.Join(bin, "apidiff"))
	}
	if err := check(); err != nil {
		t.Fatal(err)
	}
	// No other package needs it, so that everything still builds.
	file := filepath.Join(root, "oauth", "iamtest", "faults.go")
	write(t, file, strings.ReplaceAll(read(t, file), "func AllFaults(", "func EveryFault("))
	if err := check(); err == nil || !strings.Contains(err.Error(), "./oauth/iamtest.AllFaults: removed") {
		t.Fatalf("a function that was removed: %v", err)
	}
	changes := filepath.Join(root, "CHANGELOG.md")
	write(t, changes, strings.Replace(read(t, changes), "\n## ", "\n## Unreleased\n\n- `iamtest.AllFaults` is gone.\n\n## ", 1))
	if err := check(); err != nil {
		t.Errorf("a function whose removal is in the change log: %v", err)
	}
}
