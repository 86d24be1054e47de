// Package arrows tests which packages may import which, and which dependencies
// importers of the light packages must build.
package arrows

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/ycauth/ycauth-go"

// deps lists what a package pulls in, with cgo and without.
func deps(t *testing.T, pkg string, cgo string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", module+"/"+pkg)
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED="+cgo)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	return strings.Fields(string(out))
}

// light are the packages that services and other CLIs embed.
var light = []string{"oauth", "oauth/metadata", "dpop", "refreshtoken"}

func TestLightPackagesStayLight(t *testing.T) {
	// Modules that the light packages may import. A new one is a decision for
	// every importer.
	allowed := []string{
		module, "golang.org/x/oauth2", "github.com/go-jose/go-jose/v4", "github.com/cenkalti/backoff/v4",
	}
	for _, pkg := range light {
		for _, dep := range deps(t, pkg, "0") {
			first, _, _ := strings.Cut(dep, "/")
			if !strings.Contains(first, ".") || strings.HasPrefix(dep, "vendor/") {
				continue // the standard library
			}
			if !slices.ContainsFunc(allowed, func(a string) bool { return dep == a || strings.HasPrefix(dep, a+"/") }) {
				t.Errorf("%s pulls in %s", pkg, dep)
			}
		}
	}
}

func TestLightPackagesNeedNoCgo(t *testing.T) {
	for _, pkg := range light {
		// With cgo enabled the standard library's own net and os/user use it;
		// nothing else may.
		without := deps(t, pkg, "0")
		for _, dep := range deps(t, pkg, "1") {
			if slices.Contains(without, dep) {
				continue
			}
			if first, _, _ := strings.Cut(dep, "/"); strings.Contains(first, ".") {
				t.Errorf("%s pulls in %s, with cgo only", pkg, dep)
			}
		}
	}
}

// TestArrowsGoOneWay: oauth → dpop; piv and refreshtoken know nobody. That no
// package knows a module that is released beside this one needs no test: it would
// not build without the workspace.
func TestArrowsGoOneWay(t *testing.T) {
	for pkg, may := range map[string][]string{
		"dpop":            nil,
		"refreshtoken":    nil,
		"piv":             {"piv/internal/yubico"},
		"oauth":           {"dpop"},
		"oauth/filestore": {"oauth", "dpop"},
		"oauth/metadata":  nil,
		"oauth/storetest": {"oauth", "dpop"},
		"oauth/iamtest":   {"oauth", "dpop", "oauth/iamtest/internal/iamapi"},
	} {
		for _, dep := range deps(t, pkg, "0") {
			rest, ours := strings.CutPrefix(dep, module+"/")
			if !ours || rest == pkg || strings.HasPrefix(rest, "internal/") || slices.Contains(may, rest) {
				continue
			}
			t.Errorf("%s imports %s", pkg, rest)
		}
	}
}
