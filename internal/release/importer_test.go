package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// importerMod is a program that lives on older versions of what the heavy parts of
// this repository use, and of what those require.
const importerMod = `module example.com/importer

go 1.25.0

require (
	github.com/spf13/cobra v1.8.0
	go.uber.org/zap v1.26.0
	golang.org/x/crypto v0.24.0
	golang.org/x/net v0.26.0
	google.golang.org/grpc v1.66.2
)
`

const importerMain = `package main

import (
	_ "github.com/spf13/cobra"
	_ "go.uber.org/zap"
	_ "golang.org/x/crypto/cryptobyte"
	_ "golang.org/x/net/http2"
	_ "google.golang.org/grpc"
%s)

func main() {}
`

// TestImporterKeepsItsVersions adds the SDK, by a commit, to a program that uses
// gRPC, cobra and zap, and looks which versions "go mod tidy" then writes into its
// go.mod: those of all modules that its packages and their imports are in.
func TestImporterKeepsItsVersions(t *testing.T) {
	s := scratchOf(t)
	commit, err := s.git(t.Context(), "rev-parse", "HEAD")
	if err != nil {
		t.Fatal(err)
	}
	for name, packages := range map[string][]string{
		"without cards": {"dpop", "oauth", "oauth/filestore", "oauth/iamtest", "oauth/storetest", "refreshtoken"},
		"with cards":    {"oauth", "piv", "piv/pivtest"},
	} {
		t.Run(name, func(t *testing.T) { importSDK(t, s, commit, packages) })
	}
}

func importSDK(t *testing.T, s *scratch, commit string, packages []string) {
	dir := t.TempDir()
	golang := func(args ...string) (string, error) { return command(t.Context(), dir, s.env, "go", args...) }
	write(t, filepath.Join(dir, "go.mod"), importerMod)
	write(t, filepath.Join(dir, "main.go"), fmt.Sprintf(importerMain, ""))
	if _, err := golang("mod", "tidy"); err != nil {
		failUnlessOffline(t, err)
	}
	before, graph := required(t, golang), versions(t, golang)

	var imports strings.Builder
	for _, pkg := range packages {
		fmt.Fprintf(&imports, "\t_ %q\n", sdk+"/"+pkg)
	}
	write(t, filepath.Join(dir, "main.go"), fmt.Sprintf(importerMain, imports.String()))
	for _, args := range [][]string{{"get", sdk + "@" + commit}, {"mod", "tidy"}, {"build", "-o", filepath.Join(dir, "importer"), "."}} {
		if _, err := golang(args...); err != nil {
			failUnlessOffline(t, err)
		}
	}
	for path, version := range required(t, golang) {
		was, ok := before[path]
		switch {
		case !ok:
			t.Logf("%s %s is new", path, version)
		case was != version:
			t.Errorf("%s moved from %s to %s", path, was, version)
		}
	}
	t.Logf("%d modules in the graph before, %d after", len(graph), len(versions(t, golang)))
}

// failUnlessOffline skips the test where the go command could not reach anything to
// download from.
func failUnlessOffline(t *testing.T, err error) {
	t.Helper()
	for _, sign := range []string{"dial tcp", "no such host", "module lookup disabled", "i/o timeout"} {
		if strings.Contains(err.Error(), sign) {
			t.Skipf("a module that this needs can be downloaded only with a network: %v", err)
		}
	}
	t.Fatal(err)
}

// mostModules is how many modules "go list -m all" may name for a program that
// imports nothing but the SDK, itself included.
const mostModules = 8

func TestImporterGetsFewModules(t *testing.T) {
	s := scratchOf(t)
	commit, err := s.git(t.Context(), "rev-parse", "HEAD")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	golang := func(args ...string) (string, error) { return command(t.Context(), dir, s.env, "go", args...) }
	write(t, filepath.Join(dir, "main.go"), fmt.Sprintf("package main\n\nimport _ %q\n\nfunc main() {}\n", sdk+"/oauth"))
	for _, args := range [][]string{{"mod", "init", "example.com/importer"}, {"get", sdk + "@" + commit}, {"mod", "tidy"}} {
		if _, err := golang(args...); err != nil {
			failUnlessOffline(t, err)
		}
	}
	all := versions(t, golang)
	t.Logf("%d modules: %v", len(all), all)
	if len(all) > mostModules {
		t.Errorf("%d modules, at most %d are wanted", len(all), mostModules)
	}
}

// required returns what go.mod requires, by module path.
func required(t *testing.T, golang func(...string) (string, error)) map[string]string {
	t.Helper()
	out, err := golang("mod", "edit", "-json")
	if err != nil {
		t.Fatal(err)
	}
	var mod struct {
		Require []struct{ Path, Version string }
	}
	if err := json.Unmarshal([]byte(out), &mod); err != nil {
		t.Fatal(err)
	}
	selected := make(map[string]string)
	for _, r := range mod.Require {
		selected[r.Path] = r.Version
	}
	return selected
}

// versions returns what is selected, by module path.
func versions(t *testing.T, golang func(...string) (string, error)) map[string]string {
	t.Helper()
	out, err := golang("list", "-m", "all")
	if err != nil {
		failUnlessOffline(t, err)
	}
	selected := make(map[string]string)
	for line := range strings.Lines(out) {
		path, version, _ := strings.Cut(strings.TrimSpace(line), " ")
		selected[path] = version
	}
	return selected
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
