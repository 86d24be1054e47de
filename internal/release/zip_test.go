package release

import (
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/zip"
)

// TestEveryModuleFitsIntoAZip: the go command fetches modules as zip files, and
// does not fetch one at all if a single file in it has a name that some system
// rejects, such as "nul", a seed of a fuzz target included.
func TestEveryModuleFitsIntoAZip(t *testing.T) {
	dir := snapshot(t)
	checked := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "go.mod" || strings.Contains(path, "testdata") {
			return err
		}
		checked++
		if err := checkZip(filepath.Dir(path)); err != nil {
			t.Error(err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if checked < 2 {
		t.Errorf("%d modules were found in the tree, the root and this one at least were expected", checked)
	}
}

// TestZipRejectsReservedNames shows that the test above can fail.
func TestZipRejectsReservedNames(t *testing.T) {
	for _, name := range []string{"nul", "aux.txt", "what?"} {
		dir := snapshot(t)
		write(t, filepath.Join(dir, "oauth", "iamtest", "testdata", "fuzz", "FuzzParseFilter", name), nil, 0o644)
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
