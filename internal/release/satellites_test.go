package main

import (
	"maps"
	"path/filepath"
	"slices"
	"testing"
)

// TestReleaseBuildsWithoutTheWorkspace makes the next release in a scratch
// repository. Every module is tidy, builds and vets against the tags of the others,
// and can be fetched by its own.
func TestReleaseBuildsWithoutTheWorkspace(t *testing.T) {
	s := scratchOf(t)
	version, err := nextVersion(s.tree)
	if err != nil {
		t.Fatal(err)
	}
	tagged, err := s.release(t.Context(), version)
	if err != nil {
		failUnlessOffline(t, err)
	}
	if len(tagged) < 2 || tagged[0].path != sdk {
		t.Errorf("tagged %v: the SDK must be first, and not alone", tagged)
	}

	untidy, err := s.untidy(tree)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(untidy)) {
		t.Errorf("%s is not tidy: run go run ./internal/release tidy", name)
	}
	for _, m := range tagged {
		for _, args := range [][]string{{"build", "-mod=readonly", "./..."}, {"vet", "-mod=readonly", "./..."}} {
			if _, err := s.golang(t.Context(), m, args...); err != nil {
				t.Error(err)
			}
		}
	}

	importer := t.TempDir()
	if _, err := command(t.Context(), importer, s.env, "go", "mod", "init", "example.com/importer"); err != nil {
		t.Fatal(err)
	}
	for _, m := range tagged {
		if _, err := command(t.Context(), importer, s.env, "go", "get", m.path+"@"+version); err != nil {
			t.Error(err)
		}
	}
}

// tree is the work tree that is tested.
var tree = filepath.Join("..", "..")

// scratchOf publishes a copy of the work tree in a bare repository.
func scratchOf(t *testing.T) *scratch {
	t.Helper()
	s, err := newScratch(t.Context(), tree, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}
