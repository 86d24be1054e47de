package main

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/mod/zip"
)

// TestEveryModuleFitsIntoAZip: the go command fetches modules as zip files, and
// does not fetch one at all if a single file in it has a name that some system
// rejects, such as "nul", a seed of a fuzz target included.
func TestEveryModuleFitsIntoAZip(t *testing.T) {
	dir := snapshot(t)
	all, err := modules(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if err := checkZip(filepath.Join(dir, filepath.FromSlash(m.dir))); err != nil {
			t.Error(err)
		}
	}
	if len(all) < 2 {
		t.Errorf("the modules are %v, the root and this one at least were expected", all)
	}
}

// TestZipRejectsReservedNames shows that the test above can fail.
func TestZipRejectsReservedNames(t *testing.T) {
	for _, name := range []string{"nul", "aux.txt", "what?"} {
		dir := snapshot(t)
		if err := os.WriteFile(filepath.Join(dir, "oauth", "iamtest", "testdata", "fuzz", "FuzzParseFilter", name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := checkZip(dir); err == nil {
			t.Errorf("a file with the name %q passed", name)
		}
	}
}

func checkZip(dir string) error {
	files, err := zip.CheckDir(dir)
	if err != nil {
		return err
	}
	return files.Err()
}

// snapshot is a copy of the tree, without what git ignores.
func snapshot(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := copyTree(t.Context(), tree, dir); err != nil {
		t.Fatal(err)
	}
	return dir
}
