package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// repository is a clean work tree like ours, whose change log has a heading for
// 0.2.0.
func repository(t *testing.T) (root string, git func(...string) string) {
	t.Helper()
	root = snapshot(t)
	for _, kv := range [][2]string{
		{"GIT_AUTHOR_NAME", "a"}, {"GIT_AUTHOR_EMAIL", "a@localhost"}, {"GIT_COMMITTER_NAME", "a"}, {"GIT_COMMITTER_EMAIL", "a@localhost"},
	} {
		t.Setenv(kv[0], kv[1])
	}
	git = func(args ...string) string {
		t.Helper()
		out, err := command(t.Context(), root, nil, "git", append([]string{"-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	changes := filepath.Join(root, "CHANGELOG.md")
	content, err := os.ReadFile(changes)
	if err != nil {
		t.Fatal(err)
	}
	write(t, changes, string(content)+"\n## 0.2.0 - 2026-12-01\n")
	git("init", "--quiet")
	git("add", "--all")
	git("commit", "--quiet", "-m", "The tree")
	return root, git
}

func TestRelease(t *testing.T) {
	root, git := repository(t)
	tags, err := release(t.Context(), root, t.TempDir(), "v0.2.0")
	if err != nil {
		failUnlessOffline(t, err)
	}
	index := func(tag string) int {
		if !slices.Contains(tags, tag) {
			t.Fatalf("%s is not among the tags %v", tag, tags)
		}
		return slices.Index(tags, tag)
	}
	if index("v0.2.0") != 0 || index("oauth/iamtest/iamgrpc/v0.2.0") > index("refreshtoken/grpctransport/v0.2.0") ||
		index("oauth/yccredentials/v0.2.0") > index("examples/v0.2.0") {
		t.Errorf("a module is tagged before one that it requires: %v", tags)
	}
	for _, tag := range tags {
		if strings.HasPrefix(tag, "internal/") {
			t.Errorf("%s is a tag that nobody can use", tag)
		}
		if got := git("rev-parse", tag+"^{commit}"); got != git("rev-parse", "HEAD") {
			t.Errorf("%s is at %s", tag, got)
		}
	}
	if status := git("status", "--porcelain"); status != "" {
		t.Errorf("after the release the work tree has changes:\n%s", status)
	}
	for _, name := range []string{"go.work", "examples/go.mod", "examples/go.sum"} {
		content := git("show", "HEAD:"+name)
		if strings.Contains(content, sdk+" v0.1.0") || !strings.Contains(content, sdk+" v0.2.0") {
			t.Errorf("%s is not about v0.2.0:\n%s", name, content)
		}
	}
}

func TestReleaseStopsBeforeItChangesAnything(t *testing.T) {
	root, git := repository(t)
	for _, test := range []struct {
		name, version, want string
		prepare             func()
	}{
		{"no version", "0.2.0", "no version", nil},
		{"half a version", "v0.2", "no version", nil},
		{"nothing in the change log", "v0.3.0", "CHANGELOG.md", nil},
		{"one tag is there", "v0.2.0", "oauth/keyringstore/v0.2.0", func() { git("tag", "oauth/keyringstore/v0.2.0") }},
		{"changes", "v0.2.0", "has changes", func() { write(t, filepath.Join(root, "new"), "") }},
	} {
		if test.prepare != nil {
			test.prepare()
		}
		head := git("rev-parse", "HEAD")
		if _, err := release(t.Context(), root, t.TempDir(), test.version); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
		if git("rev-parse", "HEAD") != head {
			t.Errorf("%s: there is a new commit", test.name)
		}
	}
}

func TestModulesInOrder(t *testing.T) {
	a, b, c := module{path: "a", requires: []string{"b", "c"}}, module{path: "b", requires: []string{"c"}}, module{path: "c"}
	got, err := inOrder([]module{a, b, c})
	if err != nil || got[0].path != "c" || got[1].path != "b" || got[2].path != "a" {
		t.Errorf("%v, %v", got, err)
	}
	c.requires = []string{"a"}
	if got, err := inOrder([]module{a, b, c}); err == nil {
		t.Errorf("modules in a circle were ordered: %v", got)
	}
}

// TestImportsAreRequirements: a module that imports another one comes after it,
// before its go.mod says so.
func TestImportsAreRequirements(t *testing.T) {
	root := t.TempDir()
	for name, content := range map[string]string{
		"go.mod":          "module " + sdk + "\n",
		"a.go":            "package a\n",
		"a/go.mod":        "module " + sdk + "/a\n",
		"a/x_test.go":     "package a\n\nimport _ \"" + sdk + "/b/c/d\"\n",
		"b/go.mod":        "module " + sdk + "/b\n",
		"b/c/go.mod":      "module " + sdk + "/b/c\n",
		"b/c/d/d.go":      "package d\n\nimport _ \"" + sdk + "\"\n",
		"b/testdata/x.go": "package x\n\nimport _ \"" + sdk + "/a\"\n",
	} {
		file := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, file, content)
	}
	all, err := modules(root)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string][]string)
	place := make(map[string]int)
	for i, m := range all {
		got[m.dir], place[m.dir] = m.requires, i
	}
	if !slices.Equal(got["a"], []string{sdk + "/b/c"}) || !slices.Equal(got["b/c"], []string{sdk}) || got["b"] != nil || got["."] != nil {
		t.Errorf("requirements %v", got)
	}
	if place["a"] < place["b/c"] || place["b/c"] < place["."] {
		t.Errorf("order %v", place)
	}
}

func TestWithSums(t *testing.T) {
	scratch := "example.com/a v1.0.0 h1:a=\n" + sdk + " v0.1.0 h1:new=\nexample.com/z v1.0.0 h1:z=\n"
	for name, test := range map[string]struct{ from, want string }{
		"not published yet": {"", "example.com/a v1.0.0 h1:a=\nexample.com/z v1.0.0 h1:z=\n"},
		"published":         {sdk + " v0.1.0 h1:old=\n", "example.com/a v1.0.0 h1:a=\n" + sdk + " v0.1.0 h1:old=\nexample.com/z v1.0.0 h1:z=\n"},
	} {
		if got := withSums(scratch, test.from); got != test.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}
