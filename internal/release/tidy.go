package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
)

// tidy is "go mod tidy" in every module, which finds the versions that the modules
// require of each other before these are published. It returns the files that are
// to change, by their slash-separated names in the tree, and what is to be in them.
//
// The hashes of our own modules are not touched: a release writes them.
func tidy(ctx context.Context, root, dir string) (map[string]string, error) {
	version, err := nextVersion(root)
	if err != nil {
		return nil, err
	}
	s, err := newScratch(ctx, root, dir)
	if err != nil {
		return nil, err
	}
	if _, err := s.release(ctx, version); err != nil {
		return nil, err
	}
	return s.untidy(root)
}

// untidy compares the files of the go command with those of the tree that the
// scratch was made of.
func (s *scratch) untidy(root string) (map[string]string, error) {
	all, err := modules(s.tree)
	if err != nil {
		return nil, err
	}
	changed := make(map[string]string)
	for _, m := range all {
		for _, base := range []string{"go.mod", "go.sum"} {
			name := filepath.Join(filepath.FromSlash(m.dir), base)
			was, err := readIfThere(filepath.Join(root, name))
			if err != nil {
				return nil, err
			}
			is, err := readIfThere(filepath.Join(s.tree, name))
			if err != nil {
				return nil, err
			}
			if base == "go.sum" {
				is = withSums(is, was)
			}
			if is != was {
				changed[filepath.ToSlash(name)] = is
			}
		}
	}
	return changed, nil
}

// withSums returns a go.sum with the lines about our modules from another one, in
// their place.
func withSums(sums, from string) string {
	isOurs := func(line string) bool {
		path, _, _ := strings.Cut(line, " ")
		return ours(path)
	}
	lines := slices.Collect(strings.Lines(sums))
	place := slices.IndexFunc(lines, isOurs)
	if place < 0 {
		return sums
	}
	lines = slices.DeleteFunc(lines, isOurs)
	kept := slices.DeleteFunc(slices.Collect(strings.Lines(from)), func(line string) bool { return !isOurs(line) })
	return strings.Join(slices.Insert(lines, place, kept...), "")
}

// nextVersion is the version of the SDK that the other modules require.
func nextVersion(root string) (string, error) {
	file := filepath.Join(root, "examples", "go.mod")
	content, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	f, err := modfile.Parse(file, content, nil)
	if err != nil {
		return "", err
	}
	for _, r := range f.Require {
		if r.Mod.Path == sdk {
			return r.Mod.Version, nil
		}
	}
	return "", fmt.Errorf("%s does not require %s", file, sdk)
}

func readIfThere(file string) (string, error) {
	content, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		return "", nil
	}
	return string(content), err
}
