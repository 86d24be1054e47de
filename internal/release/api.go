package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/mod/semver"
)

// checkAPI compares the exported names of all modules with those of a release, by
// apidiff, and returns an error that lists the incompatible changes which nobody
// announced. Before 1.0 a line in CHANGELOG.md that names what has changed announces
// it; from then on nothing does.
func checkAPI(ctx context.Context, root, dir, tag, apidiff string) error {
	old := filepath.Join(dir, "old")
	if err := os.Mkdir(old, 0o755); err != nil {
		return err
	}
	archive := filepath.Join(dir, "old.tar")
	for _, c := range [][]string{{"git", "archive", "-o", archive, tag}, {"tar", "-x", "-f", archive, "-C", old}} {
		if _, err := command(ctx, root, nil, c[0], c[1:]...); err != nil {
			return err
		}
	}
	// In a workspace, the packages that begin with the path of the root are those of
	// all modules.
	export := filepath.Join(dir, "old.export")
	// Without -trimpath everything is compiled for both directories.
	env := func(tree string) []string {
		return []string{"GOWORK=" + filepath.Join(tree, "go.work"), "CGO_ENABLED=0", "GOFLAGS=" + strings.TrimSpace(os.Getenv("GOFLAGS")+" -trimpath")}
	}
	if _, err := command(ctx, old, env(old), apidiff, "-m", "-w", export, sdk); err != nil {
		return err
	}
	out, err := command(ctx, root, env(root), apidiff, "-m", "-incompatible", export, sdk)
	if err != nil {
		return err
	}
	changes, err := os.ReadFile(filepath.Join(root, "CHANGELOG.md"))
	if err != nil {
		return err
	}
	since, err := changesSince(string(changes), tag)
	if err != nil {
		return err
	}
	found := incompatible(out)
	if semver.Major(tag) == "v0" {
		found = slices.DeleteFunc(found, func(c apiChange) bool { return announced(since, c.name) })
	}
	if len(found) == 0 {
		return nil
	}
	var text strings.Builder
	for _, c := range found {
		fmt.Fprintf(&text, "\n%s", c.line)
	}
	if semver.Major(tag) == "v0" {
		return fmt.Errorf("the API has changed since %s, and CHANGELOG.md does not name:%s", tag, &text)
	}
	return fmt.Errorf("the API has changed since %s, which takes a new major version:%s", tag, &text)
}

// An apiChange is one line of apidiff.
type apiChange struct {
	line string
	name string // what the change log has to hold: a name without its package, or the path of a package
}

var (
	changedName    = regexp.MustCompile(`^- (\./[\w./-]*)\.((?:\(\*?\w+\)\.)?[\w.]+): `)
	changedPackage = regexp.MustCompile(`^- package ` + regexp.QuoteMeta(sdk) + `/?(\S*): `)
)

// incompatible returns what apidiff has found. Programs have no API.
func incompatible(out string) []apiChange {
	var found []apiChange
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "- ") {
			continue // what apidiff says besides
		}
		c := apiChange{line: line, name: line}
		path := ""
		if m := changedPackage.FindStringSubmatch(line); m != nil {
			path, c.name = m[1], m[1]
		} else if m := changedName.FindStringSubmatch(line); m != nil {
			path = strings.TrimPrefix(m[1], "./")
			c.name = m[2][strings.LastIndex(m[2], ".")+1:]
		}
		if !inside(path, "examples") {
			found = append(found, c)
		}
	}
	return found
}

func announced(changes, name string) bool {
	return regexp.MustCompile(`(^|[^\w/])` + regexp.QuoteMeta(name) + `($|\W)`).MatchString(changes)
}

// changesSince is the part of the change log above the heading of a release.
func changesSince(changes, tag string) (string, error) {
	since, _, ok := strings.Cut(changes, "\n## "+strings.TrimPrefix(tag, "v"))
	if !ok {
		return "", fmt.Errorf("CHANGELOG.md has no heading for %s", strings.TrimPrefix(tag, "v"))
	}
	return since, nil
}

// inside tells whether a package is that of path or below it.
func inside(pkg, path string) bool {
	return pkg == path || strings.HasPrefix(pkg, path+"/")
}
