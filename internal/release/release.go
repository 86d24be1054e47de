package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/mod/semver"
)

// release commits and tags, and returns the tags in the order of the modules.
func release(ctx context.Context, root, dir, version string) ([]string, error) {
	if err := ready(ctx, root, version); err != nil {
		return nil, err
	}
	s, err := newScratch(ctx, root, dir)
	if err != nil {
		return nil, err
	}
	tagged, err := s.release(ctx, version)
	if err != nil {
		return nil, err
	}
	if err := s.copyBack(ctx, root); err != nil {
		return nil, err
	}
	// Nothing to commit: the tree has required this version all along.
	if _, err := command(ctx, root, nil, "git", "commit", "--quiet", "--all", "--allow-empty", "-m", "Release "+version); err != nil {
		return nil, err
	}
	var tags []string
	for _, m := range tagged {
		tag := m.tag(version)
		if _, err := command(ctx, root, nil, "git", "tag", "-a", tag, "-m", m.path+" "+version); err != nil {
			return tags, err
		}
		tags = append(tags, tag)
	}
	return tags, nil
}

func ready(ctx context.Context, root, version string) error {
	if semver.Canonical(version) != version || version == "" {
		return fmt.Errorf("%q is no version like v0.1.0", version)
	}
	if status, err := command(ctx, root, nil, "git", "status", "--porcelain"); err != nil {
		return err
	} else if status != "" {
		return errors.New("the work tree has changes; commit them first")
	}
	all, err := modules(root)
	if err != nil {
		return err
	}
	for _, m := range all {
		if _, err := command(ctx, root, nil, "git", "rev-parse", "--quiet", "--verify", "refs/tags/"+m.tag(version)); err == nil {
			return fmt.Errorf("the tag %s is there already", m.tag(version))
		}
	}
	changes, err := os.ReadFile(filepath.Join(root, "CHANGELOG.md"))
	if err != nil {
		return err
	}
	if !bytes.Contains(changes, []byte("\n## "+strings.TrimPrefix(version, "v"))) {
		return fmt.Errorf("CHANGELOG.md has no heading for %s", strings.TrimPrefix(version, "v"))
	}
	return nil
}

// A scratch is a copy of the tree, a bare repository that stands for the public
// one, and a module cache that forgets what it has learned of our modules.
type scratch struct {
	tree string
	bare string
	env  []string // of go commands
}

func newScratch(ctx context.Context, root, dir string) (*scratch, error) {
	s := &scratch{tree: filepath.Join(dir, "tree"), bare: filepath.Join(dir, "bare.git")}
	if err := copyTree(ctx, root, s.tree); err != nil {
		return nil, err
	}
	cache, err := command(ctx, root, nil, "go", "env", "GOMODCACHE")
	if err != nil {
		return nil, err
	}
	overlay := filepath.Join(dir, "modcache")
	if err := overlayCache(cache, overlay); err != nil {
		return nil, err
	}
	s.env = []string{
		"GOWORK=off", "GOMODCACHE=" + overlay, "GOPRIVATE=" + sdk,
		// Without -trimpath the place of the module cache is part of what a compiled
		// package is, and every run compiles everything.
		"GOFLAGS=" + strings.TrimSpace(os.Getenv("GOFLAGS")+" -modcacherw -trimpath"),
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=url." + s.bare + ".insteadOf", "GIT_CONFIG_VALUE_0=https://" + sdk,
	}
	for _, args := range [][]string{{"init", "--quiet"}, {"init", "--quiet", "--bare", s.bare}, {"remote", "add", "origin", s.bare}} {
		if _, err := s.git(ctx, args...); err != nil {
			return nil, err
		}
	}
	return s, s.commit(ctx, "The tree")
}

func (s *scratch) git(ctx context.Context, args ...string) (string, error) {
	args = append([]string{
		"-c", "user.name=release", "-c", "user.email=release@localhost", "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false",
		"-c", "core.hooksPath=/dev/null", "-c", "core.autocrlf=false", "-c", "init.defaultBranch=main", "-c", "gc.auto=0",
	}, args...)
	return command(ctx, s.tree, nil, "git", args...)
}

// commit commits all of the tree and publishes it.
func (s *scratch) commit(ctx context.Context, message string) error {
	if _, err := s.git(ctx, "add", "--all"); err != nil {
		return err
	}
	if _, err := s.git(ctx, "commit", "--quiet", "--allow-empty", "-m", message); err != nil {
		return err
	}
	_, err := s.git(ctx, "push", "--quiet", "origin", "HEAD:refs/heads/main")
	return err
}

// release gives every module its version, its go.sum and its tag, and returns
// those that have one.
func (s *scratch) release(ctx context.Context, version string) ([]module, error) {
	all, err := modules(s.tree)
	if err != nil {
		return nil, err
	}
	for _, m := range all {
		if err := setModVersion(s.file(m, "go.mod"), m.requires, version); err != nil {
			return nil, err
		}
	}
	// go.work is part of the root module, so it changes before the first tag.
	if err := setWorkVersion(filepath.Join(s.tree, "go.work"), version); err != nil {
		return nil, err
	}
	var tagged []module
	for _, m := range all {
		if _, err := s.golang(ctx, m, "mod", "tidy"); err != nil {
			return nil, err
		}
		if m.internal() {
			continue
		}
		if err := s.commit(ctx, m.tag(version)); err != nil {
			return nil, err
		}
		for _, args := range [][]string{{"tag", m.tag(version)}, {"push", "--quiet", "origin", m.tag(version)}} {
			if _, err := s.git(ctx, args...); err != nil {
				return nil, err
			}
		}
		tagged = append(tagged, m)
	}
	return tagged, nil
}

// golang runs a go command in the module's directory, without the workspace.
func (s *scratch) golang(ctx context.Context, m module, args ...string) (string, error) {
	return command(ctx, filepath.Join(s.tree, filepath.FromSlash(m.dir)), s.env, "go", args...)
}

func (s *scratch) file(m module, name string) string {
	return filepath.Join(s.tree, filepath.FromSlash(m.dir), name)
}

// copyBack brings what release has changed to the real tree.
func (s *scratch) copyBack(ctx context.Context, root string) error {
	names, err := s.git(ctx, "ls-files", "go.work", "go.mod", "go.sum", "*/go.mod", "*/go.sum")
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(names) {
		content, err := os.ReadFile(filepath.Join(s.tree, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(root, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// command returns what a program has printed, without the last line's end. The
// error has all of it.
func command(ctx context.Context, dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(cmd.Environ(), env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s in %s: %w\n%s%s", name, strings.Join(args, " "), dir, err, &stdout, &stderr)
	}
	return strings.TrimRight(stdout.String(), "\n"), nil
}
