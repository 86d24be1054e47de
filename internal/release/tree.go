package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// copyTree copies the files of a work tree that git tracks, or would with the next
// "git add".
func copyTree(ctx context.Context, root, dir string) error {
	names, err := treeFiles(ctx, root)
	if err != nil {
		return err
	}
	for _, name := range names {
		path := filepath.FromSlash(name)
		err := copyFile(filepath.Join(root, path), filepath.Join(dir, path))
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // deleted, and not staged yet
			return err
		}
	}
	return nil
}

func treeFiles(ctx context.Context, root string) ([]string, error) {
	names, err := command(ctx, root, nil, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(names, "\x00"), "\x00"), nil
}

func copyFile(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, content, info.Mode().Perm())
}

// overlayCache makes a module cache that shares everything with another one, by
// symbolic links, except our own modules and the clones of repositories. The go
// command keeps for good what it has once seen as v0.1.0, and what it sees in a
// scratch repository is not for others.
func overlayCache(cache, dir string) error {
	owner := filepath.FromSlash(strings.TrimPrefix(filepath.Dir(sdk), "/"))
	host, name := filepath.Split(owner)
	host = filepath.Clean(host)
	for _, level := range []struct {
		dir    string
		except []string
	}{
		{".", []string{"cache", host}},
		{host, []string{name}},
		{filepath.Join("cache", "download"), []string{host}},
		{filepath.Join("cache", "download", host), []string{name}},
	} {
		if err := linkAll(filepath.Join(cache, level.dir), filepath.Join(dir, level.dir), level.except); err != nil {
			return err
		}
	}
	return nil
}

func linkAll(from, to string, except []string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
next:
	for _, e := range entries {
		for _, name := range except {
			if e.Name() == name {
				continue next
			}
		}
		if err := os.Symlink(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
