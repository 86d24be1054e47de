package main

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestReadmeFirstProgram follows the README in an empty directory: the program
// builds against the module as importers get it, and its first run says what to do.
func TestReadmeFirstProgram(t *testing.T) {
	readme := read(t, filepath.Join(tree, "README.md"))
	block := regexp.MustCompile("(?s)```go\n(package main\n.*?)```").FindStringSubmatch(readme)
	if block == nil {
		t.Fatal("README.md has no whole program")
	}
	s := scratchOf(t)
	commit, err := s.git(t.Context(), "rev-parse", "HEAD")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "main.go"), block[1])
	for _, args := range [][]string{{"mod", "init", "app"}, {"get", sdk + "@" + commit}, {"mod", "tidy"}, {"vet", "."}, {"build", "-o", "app", "."}} {
		if _, err := command(t.Context(), dir, s.env, "go", args...); err != nil {
			failUnlessOffline(t, err)
		}
	}

	home := filepath.Join(dir, "home") // which is not there yet, as for a new service account
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "app"))
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME="+filepath.Join(home, ".config"), "AppData="+home)
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "there is no session; run: go run . login") {
		t.Errorf("the first run does not say what to do: %v\n%s", err, out)
	}
	if !strings.Contains(readme, "there is no session; run: go run . login") {
		t.Error("README.md does not quote what the first run says")
	}

	// The first run has created the key. A session without its key asks for a login as well.
	key := ""
	err = filepath.WalkDir(home, func(path string, _ fs.DirEntry, err error) error {
		if filepath.Base(path) == "default.pem" {
			key = path
		}
		return err
	})
	if err != nil || key == "" {
		t.Fatalf("the first run has created no key: %v", err)
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	sessions := filepath.Join(filepath.Dir(filepath.Dir(key)), "sessions")
	if err := os.MkdirAll(sessions, 0o700); err != nil {
		t.Fatal(err)
	}
	session := `{"version": 1, "provider": "p", "client_id": "c", "generation": 1, "refresh_token": "r", "key_thumbprint": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}`
	if err := os.WriteFile(filepath.Join(sessions, "default.json"), []byte(session), 0o600); err != nil {
		t.Fatal(err)
	}
	again := exec.CommandContext(t.Context(), cmd.Path)
	again.Env = cmd.Env
	if out, err = again.CombinedOutput(); err == nil || !strings.Contains(string(out), "bound to a key") || !strings.Contains(string(out), "; run: go run . login") {
		t.Errorf("without the key of the session: %v\n%s", err, out)
	}
}

// TestReadmeInstall installs the command-line tool as the documents say for computers
// without PC/SC, from a release, with no C compiler and no pkg-config on PATH.
func TestReadmeInstall(t *testing.T) {
	s := scratchOf(t)
	version, err := nextVersion(s.tree)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.release(t.Context(), version); err != nil {
		failUnlessOffline(t, err)
	}
	const line = "CGO_ENABLED=0 go install " + sdk + "/examples/ycauth@latest "
	for _, name := range []string{"README.md", "examples/ycauth/README.md"} {
		if !strings.Contains(read(t, filepath.Join(tree, filepath.FromSlash(name))), line) {
			t.Errorf("%s does not have %q", name, line)
		}
	}
	bin := t.TempDir()
	env := slices.Concat(s.env, []string{"CGO_ENABLED=0", "GOBIN=" + bin, "CC=no-such-compiler", "PKG_CONFIG=no-such-program"})
	if _, err := command(t.Context(), t.TempDir(), env, "go", "install", sdk+"/examples/ycauth@latest"); err != nil {
		failUnlessOffline(t, err)
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(bin, "ycauth"), "--version").CombinedOutput()
	if err != nil || !strings.Contains(string(out), version) {
		t.Errorf("%v: %s, want %s", err, out, version)
	}
}

// TestReadmeLinks looks for the files that the documents link to.
func TestReadmeLinks(t *testing.T) {
	links := regexp.MustCompile(`\]\(([^)#:]+)\)`)
	for _, name := range []string{"README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/THREATS.md", "docs/BENCHMARKS.md", "docs/FLEET.md", "examples/ycauth/README.md", "examples/service/README.md"} {
		file := filepath.Join(tree, filepath.FromSlash(name))
		content := read(t, file)
		if content == "" {
			t.Errorf("%s is missing", name)
		}
		for _, link := range links.FindAllStringSubmatch(content, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), filepath.FromSlash(link[1]))); err != nil {
				t.Errorf("%s links to %s: %v", name, link[1], err)
			}
		}
	}
}

// TestReadmeExamples looks for the examples that the README names, each in the file
// that it links to, and for what they are checked by.
func TestReadmeExamples(t *testing.T) {
	named := regexp.MustCompile("\\[`[a-z]+\\.(Example\\w*)`\\]\\((\\S+)\\)(, with a card)?").FindAllStringSubmatch(read(t, filepath.Join(tree, "README.md")), -1)
	if len(named) < 7 {
		t.Errorf("README.md names %d examples", len(named))
	}
	for _, m := range named {
		_, body, ok := strings.Cut(read(t, filepath.Join(tree, filepath.FromSlash(m[2]))), "\nfunc "+m[1]+"() {\n")
		body, _, _ = strings.Cut(body, "\n}\n")
		if !ok {
			t.Errorf("README.md names %s, which is not in %s", m[1], m[2])
		} else if !strings.Contains(body, "// Output:") && m[3] == "" {
			t.Errorf("README.md says that %s runs, and nothing runs it without an output", m[1])
		}
	}
}

// TestThreatsNameTests looks for the tests that the threat model names.
func TestThreatsNameTests(t *testing.T) {
	files, err := treeFiles(t.Context(), tree)
	if err != nil {
		t.Fatal(err)
	}
	var tests strings.Builder
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			tests.WriteString(read(t, filepath.Join(tree, filepath.FromSlash(name))))
		}
	}
	names := regexp.MustCompile("`(Test[A-Z][A-Za-z0-9]*)`").FindAllStringSubmatch(read(t, filepath.Join(tree, "docs", "THREATS.md")), -1)
	if len(names) == 0 {
		t.Error("docs/THREATS.md names no test")
	}
	for _, name := range names {
		if !strings.Contains(tests.String(), "func "+name[1]+"(t *testing.T)") {
			t.Errorf("docs/THREATS.md names %s, which is no test", name[1])
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(content)
}
